"""The command ``demo``."""

from __future__ import annotations

import asyncio
import json

import click

from stream.commands import event_line
from stream.console import RefusalError, fs_option, json_option, run_until_stopped, write_json
from stream.settings import Settings


@click.command("demo")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--beds", type=click.IntRange(1, 1000), help="How many. [default: 4, or one for each PATH]")
@click.option("--seconds", type=click.FloatRange(min=1), help="Stop after so long and sum up.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5006, show_default=True, help="Of the live page."
)
@fs_option
@json_option
def demo(
    paths: tuple[str, ...],
    beds: int | None,
    seconds: float | None,
    port: int,
    fs: float | None,
    json_path: str | None,
) -> None:
    """Run everything on this machine: server, feeds, worker and live page.

    Bed 1 is a real recording, beds 2 to 4 are simulated, and bed 4 falls into ventricular tachycardia after
    20 seconds. With PATHs, the beds are your recordings, looped.

    \b
    bedside demo
    bedside demo my/records/a01 my/records/a02
    bedside demo --beds 16 --seconds 60 --json -
    """
    from bench.demo import DemoError, demo_feeds, run_demo

    feeds = demo_feeds(paths, beds, fs=fs)

    async def run(stop: asyncio.Event) -> None:
        summary = await run_demo(
            feeds,
            directory=Settings().runtime_dir,
            port=port,
            seconds=seconds,
            model=Settings().model,
            stop=stop,
            say=lambda text: click.echo(text, err=json_path == "-"),
            on_alarm=lambda event: click.echo(event_line(event), err=json_path == "-"),
        )
        if json_path:
            write_json(summary, json_path)
        elif seconds is not None:
            click.echo(json.dumps(summary))

    try:
        run_until_stopped(run)
    except DemoError as error:
        raise RefusalError(str(error)) from error
