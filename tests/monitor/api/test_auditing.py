"""The audit log and snapshots over HTTP."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import aiohttp
import pytest

from stream.audit.log import AuditLog
from stream.bus import Bus
from stream.contract import AlarmKind
from stream.embedded import EmbeddedServer
from stream.snapshots.store import SnapshotStore
from tests.monitor.api.test_alarms import served
from tests.monitor.serving import Dashboard
from tests.stream.snapshots.test_hindsight import chunks, due, make, signal
from tests.stream.turmoil import event, publish


async def write(bus: Bus, count: int) -> None:
    log = AuditLog(bus)
    for number in range(count):
        await log.append(
            entry=f"e{number}",
            bed=f"bed-{number % 2}",
            kind="pause",
            who="anna",
            at=number,
            done=True,
            value={"asked": 60},
            message="paused",
        )


def test_the_audit_log_comes_newest_first_with_words(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        async def listed(**query: str) -> Any:
            async with http.get("/api/audit", params=query) as answer:
                assert answer.status == 200
                return await answer.json()

        assert await listed() == {"entries": [], "more": False}
        await write(bus, 700)
        found = await listed()
        assert (len(found["entries"]), found["more"]) == (200, True)
        first = found["entries"][0]
        assert (first["number"], first["who"], first["what"]) == (699, "anna", "Pause alarms for 1 min")
        assert first["outcome"] == "paused"
        found = await listed(bed="bed-1", count="1000")
        assert ([e["number"] for e in found["entries"]], found["more"]) == (list(range(699, 0, -2)), False)
        behind = found["entries"][3]["position"]
        assert [e["number"] for e in (await listed(bed="bed-1", since=behind))["entries"]] == [699, 697, 695]
        assert len((await listed(since="1h", count="1000"))["entries"]) == 700
        for wrong in ({"since": "yesterday"}, {"count": "0"}, {"count": "1001"}, {"count": "x"}):
            async with http.get("/api/audit", params=wrong) as answer:
                assert answer.status == 400

    served(redis_server, body)


def test_the_log_is_verified_and_a_gap_is_named(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        await write(bus, 5)
        entries = [entry async for entry in bus.kept("audit")]
        async with http.get("/api/audit/verification") as answer:
            report = await answer.json()
        assert (answer.status, report["ok"], report["entries"], report["head"]["number"]) == (200, True, 5, 4)
        await bus.client.xdel("bedside:audit:0", entries[2].id)
        running.leap()
        async with http.get("/api/audit/verification") as answer:
            report = await answer.json()
        assert (report["ok"], report["problems"]) == (False, [{"number": 2, "what": "removed"}])

    served(redis_server, body)


def test_a_snapshot_comes_as_picture_page_and_record(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        kept = make(due(40, 45), chunks(signal(60)))
        name = kept.header.alarm.alarm
        await SnapshotStore(bus).put(kept)

        async def got(suffix: str) -> tuple[str, bytes]:
            async with http.get(f"/api/alarms/{name}/snapshot.{suffix}") as answer:
                assert answer.status == 200, await answer.text()
                return answer.headers["Content-Type"], await answer.read()

        kind, picture = await got("png")
        assert (kind, picture[:8]) == ("image/png", b"\x89PNG\r\n\x1a\n")
        kind, page = await got("pdf")
        assert (kind, page[:5]) == ("application/pdf", b"%PDF-")
        kind, record = await got("zip")
        assert kind == "application/zip"
        names = zipfile.ZipFile(io.BytesIO(record)).namelist()
        assert sorted(one.rpartition(".")[2] for one in names) == ["bed", "dat", "hea"]
        # What was deleted is not shown, although it has been drawn.
        await SnapshotStore(bus).delete(kept.header.alarm.bed)
        async with http.get(f"/api/alarms/{name}/snapshot.png") as answer:
            assert answer.status == 404

    served(redis_server, body)


@pytest.mark.parametrize(
    ("alarm", "words"),
    [
        ("alarm-1", "it is stored ten seconds after an alarm was raised"),
        ("alarm-2", "such alarms have no snapshot"),
        ("alarm-3", "there is no alarm alarm-3"),
        ("--wfdb=elsewhere", "there is no alarm --wfdb=elsewhere"),
    ],
)
def test_where_there_is_none_it_says_why(redis_server: EmbeddedServer, alarm: str, words: str) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        await publish(bus, event(1), event(2, kind=AlarmKind.TECHNICAL))
        async with http.get(f"/api/alarms/{alarm}/snapshot.png") as answer:
            assert answer.status == 404
            assert words in (await answer.json())["error"]

    served(redis_server, body)
