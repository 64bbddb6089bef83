"""The command ``record`` and those below it."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.console import (
    RefusalError,
    device_time,
    json_lines_option,
    metrics_option,
    redis_option,
    run_until_stopped,
    serve_metrics,
    server_url,
)
from stream.logs import say
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.recording.store import Recordings

_out_option = click.option(
    "--out",
    metavar="DIR",
    help="Folder of the recordings. [default: BEDSIDE_RECORDINGS, else ~/.local/share/bedside/recordings]",
)


@click.group("record", invoke_without_command=True)
@click.option("--bed", "beds", metavar="ID", multiple=True, help="Only this bed; repeatable.")
@_out_option
@click.option(
    "--retention",
    type=click.FloatRange(min=0, min_open=True),
    metavar="H",
    help="Delete what was recorded more than so many hours ago. [default: nothing]",
)
@click.option(
    "--quota",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GB",
    help="Delete the oldest beyond so many gigabytes. [default: nothing]",
)
@redis_option
@metrics_option(9467)
@click.pass_context
def record(
    context: click.Context,
    beds: tuple[str, ...],
    out: str | None,
    retention: float | None,
    quota: float | None,
    redis: str | None,
    metrics_port: int | None,
) -> None:
    """Record every bed, or those named, to WFDB files, until interrupted.

    A segment an hour and bed, on the disk each second, compressed without loss when it has ended, with the
    alarms as annotations beside. Started again, it goes on where it stopped. Signals of patients: the files
    are readable by you alone, and stay until --retention, --quota or `bedside record delete`.

    \b
    bedside record
    bedside record --bed icu-1 --bed icu-2 --out recordings --retention 72 --quota 200
    bedside record list
    bedside replay recordings/icu-1
    bedside record delete --bed icu-1 --who "nurse 7"
    """
    if context.invoked_subcommand is not None:
        given = [
            name
            for name in ("beds", "retention", "quota", "metrics_port")
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        ]
        if given:
            raise click.UsageError(f"options of recording go without {context.invoked_subcommand}")
        context.obj = (out, redis)
        return
    from stream.bus import Bus
    from stream.recording.lock import locked
    from stream.recording.recorder import Recorder
    from stream.recording.upkeep import Limits

    _check_names(("--bed", bed) for bed in beds)
    root, url = _folder(out), server_url(redis)
    limits = Limits(
        None if retention is None else round(retention * 3600 * 1e9),
        None if quota is None else round(quota * 1e9),
    )

    async def run(stop: asyncio.Event) -> None:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            recorder = Recorder(bus, root, beds=beds, limits=limits, say=say)
            what = "every bed" if not beds else ", ".join(beds)
            ready = f"recording {what} of {url} into {root}"
            try:
                await recorder.run(stop, on_ready=lambda: say(ready))
            except OSError as error:
                raise RefusalError(f"cannot record into {root}: {error.strerror or error}") from error

    with locked(root):
        if root.stat().st_mode & 0o077:
            say(f"{root} is open to other users, its folders are not: chmod 700 {root}")
        serve_metrics(metrics_port, 9467)
        run_until_stopped(run)


@record.command("list")
@_out_option
@json_lines_option
@click.pass_obj
def list_recordings(outer: tuple[str | None, str | None], out: str | None, as_json: bool) -> None:
    """List the beds of which something is recorded: from when to when (device time), hours, size.

    \b
    bedside record list
    bedside record list --out recordings --json
    """
    from stream.clock import SystemClock
    from stream.recording.store import Recordings

    root = _folder(out or outer[0])
    recordings, now_ns = Recordings(root), SystemClock().now_ns()
    rows = [row for bed in recordings.beds() if (row := _row(recordings, bed, now_ns)) is not None]
    for row in rows:
        click.echo(json.dumps(row) if as_json else _line(row))
    if not rows and not as_json:
        click.echo(f"nothing is recorded in {root}")


@record.command("export")
@click.option("--bed", metavar="ID", required=True, help="Of whom.")
@click.option("--from", "begin", metavar="TIME", required=True, help="Device time: 2025-11-29T10:30, local.")
@click.option("--until", metavar="TIME", required=True, help="And up to this one.")
@click.option(
    "--to", "target", metavar="FOLDER", required=True, help="Where to write; made if it is not there."
)
@_out_option
@click.pass_obj
def export_recordings(
    outer: tuple[str | None, str | None], bed: str, begin: str, until: str, target: str, out: str | None
) -> None:
    """Write a part of what was recorded of a bed as WFDB records of their own, with its alarms.

    \b
    bedside record export --bed icu-1 --from 2025-11-29T10:30 --until 2025-11-29T10:35 --to part
    """
    from stream.recording.export import ExportError, export
    from stream.recording.store import Recordings

    t0, t1 = device_time(begin), device_time(until)
    try:
        for path in export(Recordings(_folder(out or outer[0])), bed, t0, t1, Path(target)):
            click.echo(path)
    except ExportError as error:
        raise RefusalError(str(error)) from error
    except OSError as error:
        raise RefusalError(f"cannot export to {target}: {error.strerror or error}") from error


@record.command("delete")
@click.option("--bed", metavar="ID", required=True, help="Whose recordings.")
@click.option("--who", metavar="NAME", required=True, help="Who asks, for the audit log.")
@_out_option
@redis_option
@click.pass_obj
def delete_recordings(
    outer: tuple[str | None, str | None], bed: str, who: str, out: str | None, redis: str | None
) -> None:
    """Delete all recordings of a bed, for good; the audit log keeps that it was done, and by whom.

    A recorder that runs goes on with what comes from now on. Where no server runs, there is no audit log.

    \b
    bedside record delete --bed icu-1 --who "nurse 7"
    """
    from stream.recording.names import folder_of

    _check_names((("--bed", bed), ("--who", who)))
    root = _folder(out or outer[0])
    folder = root / folder_of(bed)
    if not folder.is_dir():
        raise RefusalError(f"nothing of bed {bed} is recorded in {root}")
    try:
        url = server_url(redis or outer[1])
    except RefusalError:
        url = None
    segments = asyncio.run(_delete(root, bed, who, url))
    audited = "" if url is not None else "; no server runs, so that no audit log has it"
    click.echo(f"{bed}: {segments} segment{'' if segments == 1 else 's'} deleted{audited}")


async def _delete(root: Path, bed: str, who: str, url: str | None) -> int:
    from stream.audit.log import AuditLog
    from stream.bus import Bus
    from stream.clock import SystemClock
    from stream.recording.upkeep import delete_bed

    def delete() -> int:
        try:
            return delete_bed(root, bed)
        except OSError as error:
            raise RefusalError(f"cannot delete in {root}: {error.strerror or error}") from error

    if url is None:
        return delete()
    # Connected before: what cannot be put down is not done.
    async with await Bus.connect(url, prefix=Settings().prefix) as bus:
        segments = delete()
        await AuditLog(bus).append(
            entry=uuid.uuid4().hex,
            bed=bed,
            kind="delete_recordings",
            who=who,
            at=SystemClock().now_ns(),
            done=True,
            value=segments,
            message=f"segments of recordings deleted: {segments}",
        )
        return segments


def _folder(out: str | None) -> Path:
    from stream.recording.names import default_folder

    return Path(out) if out is not None else default_folder()


def _check_names(given: Any) -> None:
    from stream.contract import is_name

    for option, value in given:
        if not is_name(value):
            raise click.BadParameter("1 to 64 printable characters", param_hint=option)


def _row(recordings: Recordings, bed: str, now_ns: int) -> dict[str, Any] | None:
    segments = recordings.segments(bed)
    if not segments:
        return None
    return {
        "bed": bed,
        "hours": sum(segment.frames / segment.begin.fs for segment in segments) / 3600,
        "bytes": recordings.size(bed),
        "segments": len(segments),
        "recording": any(segment.is_growing(now_ns) for segment in segments),
        "from": _iso(segments[0].begin.t0),
        "to": _iso(max(segment.t_end for segment in segments)),
    }


def _line(row: dict[str, Any]) -> str:
    size = row["bytes"]
    shown = f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
    open_end = "  (being recorded)" if row["recording"] else ""
    segments = f"{row['segments']} segment{'s' if row['segments'] > 1 else ''}"
    return (
        f"{row['bed']:<12} {row['hours']:8.2f} h {shown:>10}  {segments:<12}"
        f"  {row['from'][:19]} to {row['to'][:19]} UTC{open_end}"
    )


def _iso(t: int) -> str:
    return datetime.fromtimestamp(t / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
