"""The commands ``worker`` and ``watch``."""

from __future__ import annotations

import asyncio

import click

from stream.console import (
    metrics_option,
    model_option,
    redis_option,
    run_until_stopped,
    serve_metrics,
    server_url,
    until,
)
from stream.logs import say
from stream.settings import Settings, broker_with_prefix


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
    "--broker", metavar="URL", help="Where Faust runs. [default: BEDSIDE_BROKER_URL, else the server]"
)
@redis_option
@metrics_option(9464)
def worker(
    model: str | None,
    backend: str | None,
    precision: str,
    broker: str | None,
    redis: str | None,
    metrics_port: int | None,
) -> None:
    """Score every bed as its samples come; run as many workers as you like.

    Where no server is named and none runs, the worker starts one of its own, which ends with it.

    \b
    bedside worker
    bedside worker --model vae-bilstm-mha-100hz --backend openvino --precision bf16
    bedside worker --redis redis://broker.example:6379 --metrics-port 9100
    """
    from models.backends import open_session
    from models.bundle import load_bundle
    from stream.bus import Bus
    from stream.embedded import EmbeddedServer, running_url
    from stream.worker import Worker

    settings = Settings()
    bundle = load_bundle(model or settings.model)
    session = open_session(
        bundle,
        backend=backend or settings.backend,
        precision=precision,
    )
    for fallback in session.fallbacks:
        say(f"not on {fallback.backend}: {fallback.reason}")
    broker = broker or settings.broker_url
    url = redis or settings.redis_url or broker or running_url(settings.runtime_dir)
    own = None
    if url is None:
        own = EmbeddedServer(settings.runtime_dir).start()
        url = own.url
        say(f"started a server at {url}")
    try:
        broker_url = broker_with_prefix(broker or url, settings.prefix)

        async def prepare() -> None:
            async with await Bus.connect(url, prefix=settings.prefix) as bus:
                await bus.declare_all()

        asyncio.run(prepare())
        serve_metrics(metrics_port, 9464)
        manifest = session.manifest
        faust_worker = Worker(
            broker_url,
            url,
            session,
            prefix=settings.prefix,
            bundle=bundle.path.absolute(),
            on_ready=lambda: say(
                f"worker ready: {manifest.name} on {session.backend} {session.precision}, {url}"
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
