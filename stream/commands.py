"""The commands ``worker`` and ``alerts``."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

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
from stream.settings import Settings, broker_with_prefix

if TYPE_CHECKING:
    from stream.contract import AlarmEvent


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
    from stream.bus import Bus, without_credentials
    from stream.embedded import EmbeddedServer, running_url
    from stream.worker import Worker

    settings = Settings()
    session = open_session(
        load_bundle(model or settings.model),
        backend=backend or settings.backend,
        precision=precision,
    )
    for fallback in session.fallbacks:
        click.echo(f"bedside: not on {fallback.backend}: {fallback.reason}", err=True)
    broker = broker or settings.broker_url
    url = redis or settings.redis_url or broker or running_url(settings.runtime_dir)
    own = None
    if url is None:
        own = EmbeddedServer(settings.runtime_dir).start()
        url = own.url
        click.echo(f"bedside: started a server at {url}", err=True)
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
            on_ready=lambda: click.echo(
                f"bedside: worker ready: {manifest.name} on {session.backend} {session.precision},"
                f" {without_credentials(url)}",
                err=True,
            ),
        )
        faust_worker.run()
    finally:
        if own is not None:
            own.stop()


@click.command("alerts")
@click.option("--follow", is_flag=True, help="Go on with those to come, until interrupted.")
@click.option("--bed", metavar="ID", help="Only this bed's.")
@click.option(
    "--since",
    metavar="TIME",
    help="From this time on: 10m, 2h (ago), or ISO 8601."
    " [default: all that are kept; with --follow the next one]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@redis_option
def alerts(follow: bool, bed: str | None, since: str | None, as_json: bool, redis: str | None) -> None:
    """List alarms, or follow them: every transition, once, in order.

    \b
    bedside alerts
    bedside alerts --follow --bed icu-1
    bedside alerts --since 10m --follow --json | your-program
    """
    from stream.bus import Bus
    from stream.clock import SystemClock
    from stream.subscribe import alarms as subscribe

    since_ms = None if since is None else _since_ms(since, SystemClock().now_ns() // 1_000_000)
    url = server_url(redis)

    async def run(stop: asyncio.Event) -> None:
        async def show() -> None:
            async with await Bus.connect(url, prefix=Settings().prefix) as bus:
                async for event in subscribe(bus, bed=bed, since_ms=since_ms, follow=follow):
                    click.echo(event.model_dump_json() if as_json else event_line(event))

        await until(stop, show())

    run_until_stopped(run)


def _since_ms(text: str, now_ms: int) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        if text[-1:] in units:
            return now_ms - round(float(text[:-1]) * units[text[-1]] * 1000)
        # A time without a zone is local time.
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time: use 90s, 10m, 2h, 1d or 2026-01-31T12:00", param_hint="--since"
        ) from None


# How monitors mark priority in text (field practice after IEC 60601-1-8).
_MARKS = {"high": "***", "medium": "**", "low": "*", "info": ""}


def event_line(event: AlarmEvent) -> str:
    """Return one alarm transition as a line for people."""
    at = datetime.fromtimestamp(event.since / 1e9).strftime("%H:%M:%S")
    mark = _MARKS[event.priority] if event.kind == "physiological" else "!" * len(_MARKS[event.priority])
    score = f"  score {event.score:.1f}" if event.score is not None else ""
    return f"{at}  {event.bed:<12} {mark:<3} {event.presence:<4} {event.message}{score}"
