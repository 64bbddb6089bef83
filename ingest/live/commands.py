"""The commands ``ingest NAME``: one for each live source, ours and those that other packages bring."""

from __future__ import annotations

import asyncio
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import click

from stream.console import (
    RefusalError,
    kafka_url,
    metrics_option,
    redis_option,
    run_until_stopped,
    serve_metrics,
    server_url,
)
from stream.logs import say
from stream.settings import Settings

if TYPE_CHECKING:
    from ingest.live.source import LiveSource

ENTRY_POINTS = "bedside.sources"
"""Group of the entry points by which other packages bring a `LiveSource`; the name is the command's."""

_OURS = {
    "hl7": "ingest.live.hl7.source:HL7Source",
    "lsl": "ingest.live.lsl:LSLSource",
    "mqtt": "ingest.live.mqtt:MqttSource",
    "sdc": "ingest.live.sdc.source:SDCSource",
    "tcp": "ingest.live.tcp:TcpSource",
    "ws": "ingest.live.websocket:WebSocketSource",
}

_METRICS_PORT = 9465


class SourceCommands(click.Group):
    """A group that also has a command for each live source, loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_OURS, *_theirs()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if cmd_name in _OURS:
            module, _, name = _OURS[cmd_name].partition(":")
            return command_of(cmd_name, getattr(importlib.import_module(module), name))
        if (point := _theirs().get(cmd_name)) is None:
            return None
        try:
            return command_of(cmd_name, point.load())
        except Exception as error:
            # What is wrong with another package must not keep ours from working.
            return _broken(cmd_name, f"{point.value} cannot be used: {type(error).__name__}: {error}")


def _theirs() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _broken(name: str, why: str) -> click.Command:
    def refuse(**_: Any) -> None:
        raise RefusalError(why)

    arguments = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        params=[arguments],
        callback=refuse,
        help=f"({why})",
        context_settings={"ignore_unknown_options": True},
    )


def command_of(name: str, source: type[LiveSource]) -> click.Command:
    """Return the command that runs a source until it is stopped.

    Parameters
    ----------
    name : str
    source : type of LiveSource
        Its `command_options` and `command_help` are those of the command.
    """

    @redis_option
    @metrics_option(_METRICS_PORT)
    def run(redis: str | None, metrics_port: int | None, **options: Any) -> None:
        try:
            made = source(**options)
        except ValueError as error:
            from ingest.source import IngestError

            if isinstance(error, IngestError):
                raise
            raise click.UsageError(str(error)) from None
        _run(made, redis, metrics_port)

    return click.command(name, help=source.command_help, params=list(source.command_options))(run)


def _run(source: LiveSource, redis: str | None, metrics_port: int | None) -> None:
    from ingest.live.intake import Intake
    from stream.bus import Bus

    if (cluster := kafka_url(redis)) is not None:
        # A worker there would never hear of them.
        raise RefusalError(
            f"live feeds go to a Redis server, not to {cluster}: name one that has workers with --redis"
        )
    url, prefix = server_url(redis), Settings().prefix
    serve_metrics(metrics_port, _METRICS_PORT)

    async def run(stop: asyncio.Event) -> None:
        async with await Bus.connect(url, prefix=prefix) as bus:
            intake = Intake(source, bus, say=say)
            await intake.run(stop)

    run_until_stopped(run)
