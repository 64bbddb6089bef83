"""The commands ``worker``, ``watch`` and ``bridge``."""

from __future__ import annotations

import asyncio

import click

from stream.console import (
    RefusalError,
    broker_option,
    kafka_url,
    metrics_option,
    model_option,
    redis_option,
    run_until_stopped,
    serve_metrics,
    server_url,
    until,
)
from stream.logs import say
from stream.settings import Settings, broker_with_prefix, is_kafka
from stream.topics import SAMPLES


@click.command("worker")
@model_option
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime", "openvino", "torch", "tensorrt"]),
    help="What runs it. [default: BEDSIDE_BACKEND, else auto: the fastest here, measured once]",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="One of those that the model comes in, with thresholds of its own.",
)
@click.option(
    "--hop",
    "hop_s",
    type=float,
    metavar="SECONDS",
    help="How often the model judges a bed: a multiple of its own hop. [default: BEDSIDE_HOP, else its own]",
)
@broker_option
@redis_option
@metrics_option(9464)
def worker(
    model: str | None,
    backend: str | None,
    precision: str,
    hop_s: float | None,
    broker: str | None,
    redis: str | None,
    metrics_port: int | None,
) -> None:
    """Score every bed as its samples come; run as many workers as you like.

    Where no server is named and none runs, the worker starts one of its own, which ends with it.
    On Kafka it needs a Redis server, too, and `bedside bridge`.

    \b
    bedside worker
    bedside worker --model vae-bilstm-mha-100hz --backend openvino --precision bf16
    bedside worker --hop 1    # half of the model's work
    bedside worker --redis redis://broker.example:6379 --metrics-port 9100
    bedside worker --broker kafka://kafka.example:9092 --redis redis://redis.example
    """
    from models.backends import open_session
    from models.bundle import load_bundle
    from stream.broker import Broker, RedisBroker
    from stream.bus import Bus, on_first_use
    from stream.clock import SystemClock
    from stream.durability import Durability
    from stream.embedded import EmbeddedServer, running_url
    from stream.windows import windows_per_hop
    from stream.worker import Worker

    settings = Settings()
    broker = broker or settings.broker_url
    on_kafka = is_kafka(broker)
    url = redis or settings.redis_url or (None if on_kafka else broker) or running_url(settings.runtime_dir)
    if url is None and on_kafka:
        raise RefusalError(
            "no Redis server: beside Kafka, name the one that displays read, with --redis or"
            " BEDSIDE_REDIS_URL"
        )
    # Refused before a model is loaded, which takes seconds.
    broker_url = broker if broker is None or on_kafka else broker_with_prefix(broker, settings.prefix)
    bundle = load_bundle(model or settings.model)
    hop_s = settings.hop if hop_s is None else hop_s
    if hop_s is not None:
        try:
            windows_per_hop(bundle.manifest.window, hop_s)
        except ValueError as error:
            raise RefusalError(str(error)) from error
    session = open_session(
        bundle,
        backend=backend or settings.backend,
        precision=precision,
    )
    for fallback in session.fallbacks:
        say(f"not on {fallback.backend}: {fallback.reason}")
    own = None
    if url is None:
        own = EmbeddedServer(settings.runtime_dir).start()
        url = own.url
        say(f"started a server at {url}")
    try:
        where = broker or url
        at = broker_url or broker_with_prefix(url, settings.prefix)
        bus = on_first_use(url, prefix=settings.prefix)

        async def find() -> Broker:
            async with await Bus.connect(url, prefix=settings.prefix) as early:
                await early.declare_all()
                if on_kafka:
                    from stream.kafka.broker import KafkaBroker

                    return await KafkaBroker.find(at, settings.prefix)
                partitions = (await early.declare(SAMPLES)).partitions
            return RedisBroker(at, partitions, bus, Durability(bus, SystemClock(), at))

        found = asyncio.run(find())
        serve_metrics(metrics_port, 9464)
        manifest = session.manifest
        faust_worker = Worker(
            found,
            bus,
            url,
            session,
            prefix=settings.prefix,
            bundle=bundle.path.absolute(),
            hop_s=hop_s,
            on_ready=lambda: say(
                f"worker ready: {manifest.name} on {session.backend} {session.precision}, {where}"
            ),
        )
        faust_worker.run()
    finally:
        if own is not None:
            own.stop()


@click.command("watch")
@redis_option
def watch(redis: str | None) -> None:
    """Raise an alarm when a worker falls silent; run as many as you like, the dashboard is one.

    \b
    bedside watch
    bedside watch --redis redis://broker.example:6379
    """
    from stream.bus import Bus
    from stream.watch import Watch

    url = server_url(redis)
    prefix = Settings().prefix

    async def run(stop: asyncio.Event) -> None:
        # A wrong URL should say so at once; later the server may come and go.
        async with await Bus.connect(url, prefix=prefix) as bus:
            await bus.declare_all()
        say(f"watching the workers, {url}")
        await until(stop, Watch(url, prefix=prefix).run())

    run_until_stopped(run)


@click.command("bridge")
@broker_option
@redis_option
def bridge(broker: str | None, redis: str | None) -> None:
    """Hand on between Kafka and the Redis server that displays read.

    Samples, findings, alarms and the workers' signs of life go to Redis, commands to Kafka. Run two: should
    one fail, the other does its work ten seconds later.

    \b
    bedside bridge --broker kafka://kafka.example:9092 --redis redis://redis.example
    """
    from stream.bus import Bus

    kafka = kafka_url(broker)
    if kafka is None:
        raise click.UsageError("name the Kafka cluster: --broker kafka://HOST:PORT, or BEDSIDE_BROKER_URL")
    from stream.kafka.bridge import Bridge

    url = server_url(redis)

    async def run(stop: asyncio.Event) -> None:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            await bus.declare_all()
            ready = f"bridge between {kafka} and {url}"
            await until(stop, Bridge(kafka, bus, on_ready=lambda: say(ready)).run())

    run_until_stopped(run)
