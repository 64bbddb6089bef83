"""The commands about snapshots, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import wfdb
from click.testing import CliRunner, Result

import bedside
from stream.audit.log import AuditLog
from stream.bus import Bus
from stream.console import RefusalError
from stream.contract import AlarmKind, Audit
from stream.embedded import EmbeddedServer
from stream.snapshots.store import SnapshotStore
from stream.topics import ALARMS
from tests.stream.snapshots.test_hindsight import chunks, due, make, signal
from tests.stream.snapshots.test_store import raised

Run = Callable[..., Result]


@pytest.fixture
def run(redis_server: EmbeddedServer) -> Run:
    """Store the snapshot of an alarm of icu-1, and tell of two alarms without one."""

    async def prepare() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            snapshot = make(due(40, 45), chunks(signal(60)))
            header = snapshot.header.model_copy(
                update={"alarm": raised("abc", "icu-1", snapshot.header.alarm.since)}
            )
            await SnapshotStore(bus).put(type(snapshot)(header, snapshot.arrays))
            technical = raised("tec", "icu-1").model_copy(update={"kind": AlarmKind.TECHNICAL})
            for event in (raised("new", "icu-1"), technical):
                await bus.publish(ALARMS, b"icu-1", event.encode())

    asyncio.run(prepare())

    def run_command(*arguments: str) -> Result:
        return CliRunner().invoke(bedside.cli, ["alerts", *arguments, "--redis", redis_server.url])

    return run_command


def test_a_snapshot_is_described_and_written(run: Run, tmp_path: Path) -> None:
    files = {form: tmp_path / f"page.{form}" for form in ("png", "pdf")}
    options = [f"--{form}={path}" for form, path in files.items()]
    result = run("snapshot", "abc", *options, "--wfdb", str(tmp_path), "--json", str(tmp_path / "fields"))
    assert result.exit_code == 0, result.output
    assert result.output.startswith("icu-1: unusual (medium priority, alarm abc)")
    assert "onset at" in result.output
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert files["pdf"].read_bytes().startswith(b"%PDF")
    assert wfdb.rdrecord(str(tmp_path / "icu-1-abc")).n_sig == 3
    fields = json.loads((tmp_path / "fields").read_text())
    assert (fields["alarm"]["alarm"], fields["duration_s"]) == ("abc", 25.0)
    assert {"start_s", "end_s", "score", "anomalous", "lead_scores"} == fields["windows"][0].keys()


@pytest.mark.parametrize(
    ("alarm", "why"),
    [
        ("new", "alarm new of icu-1 has no snapshot: it is stored ten seconds after an alarm was raised"),
        ("tec", "such alarms have no snapshot"),
        ("none", "there is no alarm none"),
    ],
)
def test_what_is_not_there_is_one_clear_line(run: Run, alarm: str, why: str) -> None:
    result = run("snapshot", alarm)
    assert isinstance(result.exception, RefusalError)
    assert why in str(result.exception)


def test_they_are_listed_and_deleted_and_the_log_says_so(run: Run, redis_server: EmbeddedServer) -> None:
    assert "icu-1        abc" in run("snapshots").output
    (line,) = run("snapshots", "--bed", "icu-1", "--json").output.splitlines()
    assert json.loads(line)["alarm"]["alarm"] == "abc"
    assert json.loads(line)["former"] is False
    assert run("snapshots", "--bed", "icu-2").output == ""
    assert run("delete-snapshots", "icu-1").exit_code == 2
    assert run("delete-snapshots", "icu-1", "--who", "nurse 7").output == "icu-1: 1 deleted\n"
    assert run("snapshots").output == ""

    async def entries() -> list[Audit]:
        async with await Bus.connect(redis_server.url) as bus:
            return [entry async for _, entry in AuditLog(bus).entries() if isinstance(entry, Audit)]

    (entry,) = asyncio.run(entries())
    assert (entry.bed, entry.kind, entry.who, entry.value) == ("icu-1", "delete_snapshots", "nurse 7", 1)


def test_a_program_gets_it_or_none(run: Run, redis_server: EmbeddedServer) -> None:
    found = asyncio.run(bedside.snapshot(redis_server.url, "abc"))
    assert found is not None
    assert found.arrays["samples"].shape == (6250, 3)
    assert asyncio.run(bedside.snapshot(redis_server.url, "new")) is None
