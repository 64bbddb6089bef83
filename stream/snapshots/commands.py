"""The commands below ``alerts`` that list and delete snapshots."""

from __future__ import annotations

import asyncio
import uuid
from datetime import datetime
from typing import TYPE_CHECKING

import click

from stream.console import json_lines_option, redis_option, server_url
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.snapshots.store import Listed


@click.command("snapshots")
@click.option("--bed", metavar="ID", help="Only this bed's.")
@json_lines_option
@redis_option
@click.pass_obj
def snapshots(outer: str | None, bed: str | None, as_json: bool, redis: str | None) -> None:
    """List the snapshots of alarms that are kept, oldest first.

    \b
    bedside alerts snapshots --bed icu-1
    """
    from stream.bus import Bus
    from stream.snapshots.store import SnapshotStore

    url = server_url(redis or outer)

    async def run() -> list[Listed]:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            return await SnapshotStore(bus).listed(bed)

    for listed in asyncio.run(run()):
        click.echo(_json(listed) if as_json else _line(listed))


@click.command("delete-snapshots")
@click.argument("bed")
@click.option("--who", metavar="NAME", required=True, help="Who asks, for the audit log.")
@redis_option
@click.pass_obj
def delete_snapshots(outer: str | None, bed: str, who: str, redis: str | None) -> None:
    """Delete all snapshots of BED, for good; the audit log keeps that it was done, and by whom.

    \b
    bedside alerts delete-snapshots icu-1 --who "nurse 7"
    """
    from stream.audit.log import AuditLog
    from stream.bus import Bus
    from stream.clock import SystemClock
    from stream.contract import is_name
    from stream.snapshots.store import SnapshotStore

    for name, value in (("BED", bed), ("--who", who)):
        if not is_name(value):
            raise click.BadParameter("1 to 64 printable characters", param_hint=name)
    url = server_url(redis or outer)

    async def run() -> int:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            deleted = await SnapshotStore(bus).delete(bed)
            await AuditLog(bus).append(
                entry=uuid.uuid4().hex,
                bed=bed,
                kind="delete_snapshots",
                who=who,
                at=SystemClock().now_ns(),
                done=True,
                value=deleted,
                message=f"snapshots deleted: {deleted}",
            )
            return deleted

    click.echo(f"{bed}: {asyncio.run(run())} deleted")


def _json(listed: Listed) -> str:
    fields = {"alarm", "model", "fs", "leads", "remarks", "made_ns"}
    line = listed.header.model_dump_json(include=fields)
    return f'{line[:-1]},"size":{listed.size},"former":{str(listed.former).lower()}}}'


def _line(listed: Listed) -> str:
    alarm = listed.header.alarm
    at = datetime.fromtimestamp(alarm.since / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    former = "  (former patient)" if listed.former else ""
    return f"{at}  {alarm.bed:<12} {alarm.alarm}  {alarm.priority:<6}  {alarm.message}{former}"
