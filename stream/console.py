"""What the commands of every package share: options, errors, progress, running until interrupted."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.settings import Settings, is_kafka

if TYPE_CHECKING:
    from stream.bus import Bus
    from stream.contract import Audit

PROGRESS_LINES = "BEDSIDE_PROGRESS_LINES"
"""In the environment: progress goes to standard error as lines such as ``{"progress": 0.25}``."""
# A line for each hundredth: often enough for a bar.
_LINE_EVERY = 0.01

log = logging.getLogger(__name__)

redis_option = click.option(
    "--redis",
    metavar="URL",
    help="Server of the streams: redis://, rediss:// or unix://."
    " [default: BEDSIDE_REDIS_URL, else the one on this machine]",
)
broker_option = click.option(
    "--broker",
    metavar="URL",
    help="Where samples travel: kafka://HOST:PORT (kafkas:// with TLS), or a Redis server."
    " [default: BEDSIDE_BROKER_URL, else the server]",
)
model_option = click.option(
    "--model",
    metavar="NAME",
    help="Shipped bundle or bundle folder. [default: BEDSIDE_MODEL, else cae-100hz]",
)
json_option = click.option(
    "--json", "json_path", metavar="FILE", help="Write the result as JSON; - for standard output."
)
fs_option = click.option(
    "--fs", type=float, metavar="HZ", help="Sampling frequency of a .npy file, which does not state it."
)


def _names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(re.findall(r"[^\s,]+", text))


leads_option = click.option(
    "--leads",
    metavar="NAMES",
    callback=_names,
    help="Leads of a .npy file, such as II,V5. [default: the standard twelve, I to V6]",
)

json_lines_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


who_option = click.option(
    "--who", metavar="NAME", help="Who asks, for the audit log. [default: your login name]"
)


def since_option(usual: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that says where in a stream to begin; see `start_of`."""
    return click.option(
        "--since",
        metavar="WHEN",
        help="From this time on (10m or 2h ago, or ISO 8601), or behind this position (the id of a stream"
        f" entry). [default: {usual}]",
    )


def start_of(since: str) -> str:
    """Return the stream id behind which `since` begins.

    Raises
    ------
    click.BadParameter
        If it is no time and no stream id.
    """
    from stream.clock import SystemClock
    from stream.subscription.positions import SinceError, after

    try:
        return after(since, SystemClock().now_ns() // 1_000_000)
    except SinceError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


def metrics_option(usual: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that says where Prometheus finds a process; see `serve_metrics`."""
    return click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="Serve Prometheus metrics on this port of the loopback address; 0 does not."
        f" [default: {usual} if it is free]",
    )


class RefusalError(Exception):
    """Something that the user can put right: one line, exit code 1."""


def server_url(redis: str | None) -> str:
    """Return the server to join: the one named, that of the environment, or the one on this machine.

    Raises
    ------
    RefusalError
        If there is none.
    """
    from stream.embedded import running_url

    settings = Settings()
    url = redis or settings.redis_url or running_url(settings.runtime_dir)
    if url is None:
        raise RefusalError(
            "no server runs on this machine: start `bedside demo` or `bedside worker` first,"
            " or name one with --redis or BEDSIDE_REDIS_URL"
        )
    return url


def kafka_url(broker: str | None) -> str | None:
    """Return the Kafka cluster that is named, here or in the environment; None if it is a Redis server."""
    named = broker or Settings().broker_url
    return named if is_kafka(named) else None


def run_until_stopped(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine that ends when its event is set: by SIGINT or SIGTERM; a second one cancels it."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(run(stop))

        def interrupted() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        try:
            await task
        except asyncio.CancelledError:
            if not stop.is_set():
                raise

    asyncio.run(main())


async def until(stop: asyncio.Event, work: Awaitable[Any]) -> None:
    """Await `work`, but no longer than until `stop` is set; raise what made it fail."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    for future in (task, stopped):
        future.cancel()
    results = await asyncio.gather(task, stopped, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


def request(
    redis: str | None,
    who: str | None,
    ask: Callable[[Bus, str], Awaitable[Audit]],
    *,
    as_json: bool = False,
) -> None:
    """Ask the worker of a bed for something, and print its answer.

    Parameters
    ----------
    redis : str, optional
        The server; see `server_url`.
    who : str, optional
        Who asks; default the login name.
    ask : callable
        Takes the connection and who asks; one of the functions of `stream.asking`.
    as_json : bool
        Print the audit entry, also if it is a refusal.

    Raises
    ------
    RefusalError
        If the worker does not do it.
    click.UsageError
        If the request makes no sense.
    """
    from stream.asking import BadRequestError
    from stream.bus import Bus

    name = who if who is not None else getpass.getuser()
    url = server_url(redis)

    async def run() -> Audit:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            return await ask(bus, name)

    try:
        answer = asyncio.run(run())
    except BadRequestError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(answer.model_dump_json())
    if not answer.done:
        raise RefusalError(f"{answer.kind} refused: {answer.message}")
    if not as_json:
        click.echo(f"{answer.bed}: {answer.message or 'done'}")


def device_time(text: str) -> int:
    """Return a time as people write it, ns since the epoch; local time without a zone.

    Raises
    ------
    click.BadParameter
        If it is none.
    """
    try:
        at = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no time: write it as 2025-11-29T10:30:00") from error
    return round(at.timestamp() * 1e6) * 1000


def local_time(t: int) -> str:
    """Return a device time, ns, as the clock on the wall shows it, such as ``2025-11-29 10:30:00 CET``."""
    return f"{datetime.fromtimestamp(t / 1e9).astimezone():%Y-%m-%d %H:%M:%S %Z}"


@contextmanager
def progress_bar(what: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error where a person looks on; nothing in a log.

    A program that started the command sets `PROGRESS_LINES` in its environment, and gets lines of JSON.
    """
    if PROGRESS_LINES in os.environ:
        yield _lines(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _lines(total: float | None) -> Callable[[float], None]:
    told = 0.0

    def tell(done: float) -> None:
        nonlocal told
        if total and done / total - told >= _LINE_EVERY:
            told = min(1.0, done / total)
            click.echo(json.dumps({"progress": round(told, 3)}), err=True)

    return tell


def write_json(value: Any, path: str) -> None:
    """Write a value, or text that is JSON already, to a file; ``-`` is standard output."""
    text = value if isinstance(value, str) else json.dumps(value)
    if path == "-":
        click.echo(text)
        return
    with writing(path):
        Path(path).write_text(text + "\n")


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Say in one line that a file could not be written.

    Raises
    ------
    RefusalError
    """
    try:
        yield
    except OSError as error:
        raise RefusalError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(path: str) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Raises
    ------
    RefusalError
    """
    file = Path(path)
    if file.is_dir():
        why = "it is a folder"
    elif not file.parent.is_dir():
        why = f"there is no folder {file.parent}"
    elif not os.access(file if file.exists() else file.parent, os.W_OK):
        why = "permission denied"
    else:
        return
    raise RefusalError(f"cannot write {path}: {why}")


def serve_metrics(port: int | None, usual: int) -> None:
    """Serve Prometheus metrics on the loopback address.

    Parameters
    ----------
    port : int, optional
        0 for none. A port that was asked for must be had; the usual one is a convenience.
    usual : int

    Raises
    ------
    RefusalError
        If `port` is in use.
    """
    from prometheus_client import disable_created_metrics, start_http_server

    if port == 0:
        return
    # A start time beside every counter doubles the page for nobody.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        start_http_server(usual if port is None else port, addr="127.0.0.1")
    except OSError as error:
        if port is not None:
            raise RefusalError(f"cannot serve metrics on 127.0.0.1:{port}: {error.strerror}") from error
        log.info("no metrics: port %s is in use", usual)
