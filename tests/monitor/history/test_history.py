"""The history over HTTP, from what the real recorder wrote."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest
import wfdb

import bedside
from monitor.bed.trace import MONITOR_BAND, SETTLING_S, Grid, Trace
from stream.audit.log import AuditLog
from stream.bus import Bus
from stream.contract import SampleChunk, Validity, to_millivolts
from stream.embedded import EmbeddedServer
from stream.offline import Outcome
from stream.recording.files import make_folder
from stream.recording.names import segment_name
from stream.recording.segment import Begin, line
from stream.recording.writer import SegmentWriter
from tests.monitor.history.recorded import (
    BED,
    SECOND_FS,
    SECOND_S,
    SECONDS,
    VT_S,
    S,
    first_session,
    record_patient,
)
from tests.monitor.serving import Dashboard, dashboard
from tests.stream.recording.making import T0

pytestmark = pytest.mark.slow

T0_MS = T0 / 1e6
PATH = f"api/history/{quote(BED, safe='')}"


@dataclass
class Served:
    """A dashboard with recordings.

    Attributes
    ----------
    url, redis_url : str
    root : Path
        Of the recordings.
    live : Outcome
        What was found in the first session.
    """

    url: str
    redis_url: str
    root: Path
    live: Outcome


@pytest.fixture(scope="module")
def served(redis_server_module: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("recordings")
    live = record_patient(redis_server_module, root, bedside.load_model())
    with dashboard(redis_server_module.url, recordings=root) as running:
        yield Served(running.url, redis_server_module.url, root, live)


def talk(url: str, body: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def go() -> None:
        async with aiohttp.ClientSession(url) as http:
            await asyncio.wait_for(body(http), 120)

    asyncio.run(go())


async def told(http: aiohttp.ClientSession, path: str, status: int = 200, **query: object) -> Any:
    async with http.get(f"/{path}", params={name: str(value) for name, value in query.items()}) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def packet(http: aiohttp.ClientSession, path: str, **query: object) -> dict[str, Any]:
    """Return what `monitor.history.handlers` sends, as the page's script reads it."""
    async with http.get(f"/{path}", params={name: str(value) for name, value in query.items()}) as answer:
        assert answer.status == 200, await answer.text()
        raw = await answer.read()
    head, _, arrays = raw.partition(b"\n")
    found = json.loads(head)
    for one in found.pop("arrays"):
        found[one["name"]] = np.frombuffer(arrays, one["kind"], one["length"], one["at"])
    return dict(found)


def write(folder: Path, chunks: list[SampleChunk], *, begun_ns: int = T0) -> SegmentWriter:
    """Begin a segment that is being recorded."""
    header = chunks[0].header
    begin = Begin(
        bed=folder.name,
        session=folder.name,
        n0=0,
        t0=T0,
        fs=500.0,
        leads=header.leads,
        gain=header.gain,
        begun_ns=begun_ns,
    )
    writer = SegmentWriter(folder, begin)
    go_on(writer, chunks)
    return writer


def go_on(writer: SegmentWriter, chunks: list[SampleChunk]) -> None:
    for one in chunks:
        writer.append(one.header.n0, one.header.t0, one.samples, (Validity.OK,) * 12)
    writer.sync()


async def settled(ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    while True:
        found = await ask()
        if found["state"] != "running":
            return found
        await asyncio.sleep(0.2)


def test_what_is_recorded_and_when_there_were_alarms(served: Served) -> None:
    async def body(http: aiohttp.ClientSession) -> None:
        (bed,) = (one for one in (await told(http, "api/history"))["beds"] if one["bed"] == BED)
        assert bed == {"bed": BED, "from": T0_MS, "to": T0_MS + (SECOND_S + 30) * 1000}
        found = await told(http, PATH)
        assert found["stretches"] == [
            [T0_MS, T0_MS + SECONDS * 1000],
            [T0_MS + SECOND_S * 1000, T0_MS + (SECOND_S + 30) * 1000],
        ]
        assert not found["growing"]
        assert [event["event"] for event in found["alarms"]] == [
            event.event
            for event in sorted(served.live.events, key=lambda one: (one.since, one.alarm, one.number))
        ]
        again = await told(http, PATH, known=found["told"])
        assert again == found | {"alarms": None}
        edges = await told(
            http, f"{PATH}/envelope", **{"from": T0_MS, "to": T0_MS + 900_000, "lead": "II", "width": 90}
        )
        there = [value is not None for value in edges["low"]]
        assert there == [second < 140 or 200 <= second < 230 for second in range(0, 900, 10)]
        assert max(value for value in edges["high"] if value is not None) > 500

    talk(served.url, body)


def test_the_signal_is_that_of_the_bed_view(served: Served) -> None:
    chunks = first_session()
    (millivolts,) = [np.concatenate([to_millivolts([one])[0] for one in chunks if len(one.samples)])]
    grid = Grid(500.0, SECONDS)
    trace = Trace(grid, 12, MONITOR_BAND, 0)
    trace.push(millivolts)

    async def body(http: aiohttp.ClientSession) -> None:
        at = 85.0
        found = await packet(http, f"{PATH}/signal", **{"from": T0_MS + at * 1000, "seconds": 10})
        assert (found["fs"], found["size"], found["points"]) == (500.0, 4, 2)
        first = round((found["t0"] - T0_MS) * 500 / 1000)
        assert first == at * 500
        drawn = found["trace"].reshape(12, -1)
        n = drawn.shape[1] // 2
        expected = 1000 * trace.read(first // 4, first // 4 + n).T
        # It settles for four seconds only.
        np.testing.assert_allclose(drawn, expected, atol=2.0)
        # The other session has another rate; between the two there is nothing.
        second = await packet(
            http, f"{PATH}/signal", **{"from": T0_MS + SECOND_S * 1000 + SETTLING_S * 1000, "seconds": 4}
        )
        assert second["fs"] == SECOND_FS
        nothing = await packet(http, f"{PATH}/signal", **{"from": T0_MS + 160_000, "seconds": 10})
        assert nothing == {"leads": []}
        # Two rates on one sheet: what there is less of is not drawn, and that is said.
        both = await packet(http, f"{PATH}/signal", **{"from": T0_MS + 130_000, "seconds": 80})
        assert both["fs"] == 500.0
        assert both["left_out"] == "what was recorded at 250 Hz is not drawn beside 500 Hz"

    talk(served.url, body)


def test_what_the_model_says_is_what_the_worker_found(served: Served) -> None:
    live = {finding.t_end / 1e6: finding for finding in served.live.findings if finding.score is not None}

    async def body(http: aiohttp.ClientSession) -> None:
        query = {"from": T0_MS + VT_S * 1000, "seconds": 10}
        found = await settled(lambda: packet(http, f"{PATH}/findings", **query))
        assert found["trouble"] == ""
        windows = {round(at): (score, over) for at, score, over, _ in found["windows"]}
        assert windows == {
            round(at): (pytest.approx(one.score), one.anomalous) for at, one in live.items() if at in live
        }
        assert any(over for _, over in windows.values())
        assert found["threshold"] == served.live.findings[0].threshold
        assert {threshold for *_, threshold in found["windows"]} == {found["threshold"]}
        beats = {beat // 4 for second in served.live.vitals for beat in second.beats}
        start = round(VT_S * 500) // 4
        assert {start + beat for beat in found["beats"]} == {b for b in beats if start <= b < start + 1251}
        expected = found["expected"].reshape(12, -1)
        assert (expected[:, :-2] != -32768).all()
        assert found["error_unit"] == "mV"
        assert found["error"].reshape(12, -1)[:, :-2].all()
        # It is there at once now.
        again = await packet(http, f"{PATH}/findings", **{"from": T0_MS + 124_000, "seconds": 6})
        poor = {lead for _, _, leads in again["seconds"] for lead in leads}
        assert poor == {6}

    talk(served.url, body)


def test_a_comparison_with_the_first_clean_minute_or_a_pinned_one(served: Served) -> None:
    async def body(http: aiohttp.ClientSession) -> None:
        async def compared(**query: object) -> dict[str, Any]:
            asked = {"from": T0_MS + VT_S * 1000, "seconds": 8} | query
            return await settled(lambda: told(http, f"{PATH}/comparison", **asked))

        found = await compared()
        assert found["state"] == "done", found
        assert found["reference"]["why"] == "the first clean minute recorded"
        assert found["reference"]["from"] < T0_MS + 20_000
        assert found["reference"]["rate"] == pytest.approx(80, abs=3)
        assert found["shown"]["rate"] == pytest.approx(180, abs=6)
        assert found["above"] == 1.0
        leads = {one["lead"]: one for one in found["leads"]}
        assert list(leads)[:3] == ["I", "II", "III"]
        assert all(abs(one["correlation"]) < 0.9 for one in leads.values())
        usual = await compared(**{"from": T0_MS + 70_000})
        assert usual["above"] < 1.0
        for one in usual["leads"]:
            assert one["correlation"] > 0.95
            assert one["r_shown"] == pytest.approx(one["r_reference"], abs=0.1)
        pinned = await compared(reference=T0_MS + 20_000)
        assert (pinned["reference"]["why"], pinned["reference"]["from"]) == ("pinned", T0_MS + 20_000)
        nothing = await compared(**{"from": T0_MS + 160_000})
        assert nothing == {"state": "impossible", "text": "Nothing was recorded here."}
        few = await compared(**{"from": T0_MS + 50_000, "seconds": 1})
        assert few["text"].startswith("In what is shown only ")

    talk(served.url, body)


def test_a_baseline_that_was_confirmed_is_the_reference(served: Served) -> None:
    # By the recorder's clock, which is a month ahead of the device's.
    ahead = 30 * 86_400 * S
    write(served.root / "based", first_session(), begun_ns=T0 + ahead)

    async def confirm(kind: str, at_s: int) -> None:
        async with await Bus.connect(served.redis_url) as bus:
            at = T0 + ahead + at_s * S
            await AuditLog(bus).append(
                entry=kind, bed="based", kind=kind, who="nurse 7", at=at, done=True, message="done"
            )

    async def body(http: aiohttp.ClientSession) -> None:
        async def reference() -> dict[str, Any]:
            asked = {"from": T0_MS + VT_S * 1000, "seconds": 8}
            found = await settled(lambda: told(http, "api/history/based/comparison", **asked))
            assert found["state"] == "done", found
            return dict(found["reference"])

        await confirm("confirm_baseline", 75)
        found = await reference()
        assert found["why"] == "the minute before the baseline was confirmed"
        assert (found["from"], found["to"]) == (T0_MS + 15_000, T0_MS + 75_000)
        # Another patient came later: what was confirmed before is no baseline of his.
        await confirm("admit", 80)
        asked = {"from": T0_MS + 100_000, "seconds": 8}
        other = await settled(lambda: told(http, "api/history/based/comparison", **asked))
        assert other["text"].startswith("There is no clean minute in the first 15 minutes")
        # Of the first patient it is.
        asked = {"from": T0_MS + 60_000, "seconds": 8}
        again = await settled(lambda: told(http, "api/history/based/comparison", **asked))
        assert again["reference"] == found

    talk(served.url, body)


def test_the_threshold_is_the_one_that_was_in_force_then(served: Served) -> None:
    ahead = 30 * 86_400 * S
    write(served.root / "strict", first_session(), begun_ns=T0 + ahead)

    async def say(kind: str, at_s: int, **value: Any) -> None:
        async with await Bus.connect(served.redis_url) as bus:
            at = T0 + ahead + at_s * S
            await AuditLog(bus).append(
                entry=f"{kind}-{at_s}",
                bed="strict",
                kind=kind,
                who="anna",
                at=at,
                done=True,
                value=value,
                message="done",
            )

    async def body(http: aiohttp.ClientSession) -> None:
        async def found() -> dict[str, Any]:
            query = {"from": T0_MS + 60_000, "seconds": 5}
            told_ = await settled(lambda: packet(http, "api/history/strict/findings", **query))
            assert told_["state"] == "done", told_
            return told_

        first = await found()
        own = first["threshold"]
        assert {window[3] for window in first["windows"]} == {own}
        # Every window is over it; after half a minute the model's own is in force again.
        await say("set_threshold", 30, asked=-5.0, before=None, after=-5.0)
        await say("set_threshold", 60, asked=None, before=-5.0, after=None)
        windows = (await found())["windows"]
        held = {round((at - T0_MS) / 1000, 1): (over, threshold) for at, _, over, threshold in windows}
        assert {threshold for at, (_, threshold) in held.items() if 30 < at < 60} == {-5.0}
        assert all(over for at, (over, _) in held.items() if 30 < at < 60)
        before, later = (
            {one for at, one in held.items() if low < at < high} for low, high in ((0, 30), (60, 85))
        )
        assert before == later == {(False, own)}

    talk(served.url, body)


def test_exports_open_elsewhere(served: Served, tmp_path: Path) -> None:
    span = {"from": T0_MS + 85_000, "to": T0_MS + 97_000}

    async def body(http: aiohttp.ClientSession) -> None:
        async with http.get(f"/{PATH}/export.zip", params={k: str(v) for k, v in span.items()}) as answer:
            assert answer.status == 200, await answer.text()
            assert "icu_1_a-2025" in answer.headers["Content-Disposition"]
            zipfile.ZipFile(io.BytesIO(await answer.read())).extractall(tmp_path)
        (header,) = await asyncio.to_thread(lambda: list(tmp_path.glob("*.hea")))
        name = str(header.with_suffix(""))
        record = wfdb.rdrecord(name, physical=False)
        samples = np.concatenate([one.samples for one in first_session() if len(one.samples)])
        assert (record.d_signal == samples[(85 * 500) : (97 * 500)]).all()
        alarms = wfdb.rdann(name, "alm")
        assert any("Ventricular tachycardia" in text for text in alarms.aux_note)
        found = wfdb.rdann(name, "bed")
        assert found.symbol.count("N") >= 15
        for form, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
            async with http.get(
                f"/{PATH}/export.{form}", params={k: str(v) for k, v in span.items()}
            ) as answer:
                assert answer.status == 200, await answer.text()
                assert (await answer.read()).startswith(magic)

    talk(served.url, body)


def test_what_cannot_be_is_said_in_a_line(served: Served) -> None:
    async def body(http: aiohttp.ClientSession) -> None:
        assert (await told(http, "api/history/icu-9", 404))["error"] == "nothing is recorded of icu-9"
        for query in (
            {},
            {"from": "x", "seconds": 9},
            {"from": "nan", "seconds": 9},
            {"from": 0, "seconds": 0},
        ):
            assert "a number from" in (await told(http, f"{PATH}/signal", 400, **query))["error"]
        far = {"from": T0_MS, "to": T0_MS + 60_000}
        assert (await told(http, f"{PATH}/export.png", 400, **far))["error"] == "from … to: at most 30 s"
        gap = {"from": T0_MS + 160_000, "to": T0_MS + 170_000}
        for form in ("zip", "pdf"):
            answer = await told(http, f"{PATH}/export.{form}", 409, **gap)
            assert "nothing was recorded" in answer["error"]
            assert "/" not in answer["error"].replace(BED, "").replace("icu%201%2Fa", "")
        assert (await told(http, f"{PATH}/signal", 400, **{"from": 0, "seconds": 5, "band": "x"}))["error"]

    talk(served.url, body)


def test_a_bed_is_opened_without_its_signal(served: Served) -> None:
    # A day of hours of which only what lies beside the segments is there.
    header = first_session()[0].header
    folder = served.root / "long"
    for hour in range(24):
        begin = Begin(
            bed="long",
            session="s",
            n0=hour * 1_800_000,
            t0=T0 + hour * 3600 * S,
            fs=500.0,
            leads=header.leads,
            gain=header.gain,
            begun_ns=T0,
        )
        make_folder(folder)
        side = folder / f"{segment_name(begin.t0)}.jsonl"
        side.write_bytes(begin.model_dump_json().encode() + b"\n" + line(frames=1_800_000, ended_ns=T0))

    async def body(http: aiohttp.ClientSession) -> None:
        found = await told(http, "api/history/long")
        assert found["stretches"] == [[T0_MS, T0_MS + 24 * 3_600_000]]
        assert not found["growing"]
        # And what is damaged is said to be.
        damaged = await told(http, "api/history/long/signal", 500, **{"from": T0_MS, "seconds": 5})
        assert damaged["error"].startswith("the recording is damaged: long/20251129T10")

    (folder / f"{segment_name(T0)}.dat").write_bytes(b"too short")
    talk(served.url, body)


def test_a_bed_that_is_being_recorded_grows_and_is_analysed_on(served: Served) -> None:
    chunks = first_session()
    writer = write(served.root / "growing", chunks[:150])

    async def body(http: aiohttp.ClientSession) -> None:
        found = await told(http, "api/history/growing")
        assert (found["growing"], found["to"]) == (True, T0_MS + 30_000)
        query = {"from": T0_MS + 24_000, "seconds": 10}
        ask = lambda: packet(http, "api/history/growing/findings", **query)  # noqa: E731
        first = await settled(ask)
        go_on(writer, chunks[150:300])
        assert (await told(http, "api/history/growing"))["to"] == T0_MS + 60_000
        again = first
        while again["windows"] == first["windows"]:
            await asyncio.sleep(0.2)  # another process analyses
            again = await ask()
        assert max(window[0] for window in again["windows"]) > T0_MS + 50_000

    talk(served.url, body)


def test_without_recordings_it_says_where_they_are_looked_for(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    def body_of(running: Dashboard) -> Callable[[aiohttp.ClientSession], Awaitable[None]]:
        async def body(http: aiohttp.ClientSession) -> None:
            found = await told(http, "api/history")
            assert found == {"beds": [], "folder": str(tmp_path / "none")}

        return body

    with dashboard(redis_server.url, recordings=tmp_path / "none") as running:
        talk(running.url, body_of(running))


def test_whoever_asks_while_it_stops_is_cut_off_and_told_of_no_error(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    write(tmp_path / "bed-1", first_session()[:150])

    async def ask(http: aiohttp.ClientSession, answered: asyncio.Event) -> set[int]:
        seen = set()
        while True:
            try:
                async with http.get(
                    "/api/history/bed-1/signal", params={"from": str(T0_MS), "seconds": "20"}
                ) as answer:
                    seen.add(answer.status)
                    answered.set()
            except aiohttp.ClientError:
                return seen

    async def go(running: Dashboard) -> list[set[int]]:
        answered = asyncio.Event()
        async with aiohttp.ClientSession(running.url) as http:
            asking = [asyncio.create_task(ask(http, answered)) for _ in range(8)]
            await asyncio.wait_for(answered.wait(), 30)
            running.process.terminate()
            return await asyncio.wait_for(asyncio.gather(*asking), 30)

    with dashboard(redis_server.url, recordings=tmp_path) as running:
        assert set().union(*asyncio.run(go(running))) == {200}
