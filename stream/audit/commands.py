"""The command ``audit``."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

from stream.console import RefusalError, json_lines_option, redis_option, server_url, since_option, start_of
from stream.logs import say
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.audit.log import Head
    from stream.contract import Audit


@click.group("audit")
def audit() -> None:
    """Say who asked for what, and what became of it; the log shows when it was tampered with.

    \b
    bedside audit list --bed icu-1 --since 8h
    bedside audit verify
    """


@audit.command("list")
@click.option("--bed", metavar="ID", help="Only this bed's.")
@since_option("all that are kept")
@json_lines_option
@redis_option
def list_entries(bed: str | None, since: str | None, as_json: bool, redis: str | None) -> None:
    """List the entries that are kept, oldest first."""
    from stream.audit.log import AuditLog
    from stream.bus import Bus
    from stream.contract import MalformedMessageError

    begin = "0" if since is None else start_of(since)
    url = server_url(redis)

    async def run() -> None:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            async for place, entry in AuditLog(bus).entries(begin):
                if isinstance(entry, MalformedMessageError):
                    say(f"{place.id} is no audit entry: {entry}")
                elif bed is None or entry.bed == bed:
                    click.echo(entry.model_dump_json() if as_json else _line(entry))

    asyncio.run(run())


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@redis_option
def verify_entries(as_json: bool, redis: str | None) -> None:
    """Check that no entry was altered, removed, moved or put in; exit with 1 if one was.

    The log is trimmed at its old end: the oldest entry that is kept is the anchor. Note the newest number and
    digest somewhere else, and whoever makes up a whole new log will be found out.
    """
    from stream.audit.log import AuditLog, Problem, verify
    from stream.bus import Bus
    from stream.contract import MalformedMessageError

    url = server_url(redis)

    async def read() -> tuple[Head, list[Audit], list[Problem]]:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            log = AuditLog(bus)
            # First: what is appended meanwhile only goes beyond it.
            head = await log.head()
            entries: list[Audit] = []
            rubbish: list[Problem] = []
            async for place, entry in log.entries():
                if isinstance(entry, MalformedMessageError):
                    rubbish.append(Problem(None, f"inserted: {place.id} is no audit entry ({entry})"))
                else:
                    entries.append(entry)
            return head, entries, rubbish

    head, entries, rubbish = asyncio.run(read())
    problems = rubbish + verify(entries, head)
    anchor = entries[0].number if entries else None
    if as_json:
        report = {
            "ok": not problems,
            "entries": len(entries),
            "anchor": anchor,
            "head": {"number": head.number, "digest": head.digest},
            "problems": [{"number": one.number, "what": one.what} for one in problems],
        }
        click.echo(json.dumps(report))
    else:
        for one in problems:
            click.echo(one.what if one.number is None else f"number {one.number}: {one.what}")
        click.echo(_summary(len(entries), anchor, head))
        if entries and not problems:
            click.echo("the chain holds")
    if problems:
        raise RefusalError(f"the audit log is broken: {len(problems)} of its entries do not fit")


def _summary(count: int, anchor: int | None, head: Head) -> str:
    if anchor is None:
        return "no entries"
    trimmed = "" if anchor == 0 else ", the oldest that is kept; what came before it cannot be told"
    return f"{count} entries to number {head.number}, digest {head.digest}\nanchor: number {anchor}{trimmed}"


def _line(entry: Audit) -> str:
    at = datetime.fromtimestamp(entry.at / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    value = "" if entry.value is None else f" {json.dumps(entry.value)}"
    outcome = "done" if entry.done else "refused"
    return f"{at}  {entry.bed:<12} {entry.kind}{value}  by {entry.who or '-'}  {outcome}: {entry.message}"
