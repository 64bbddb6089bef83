"""What was recorded plays back: the same windows, scores, flags and alarms as the live feed had."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bedside
from bench.ward import Ward
from ingest.chunks import Feed, chunks_of
from ingest.publisher import BusPublisher
from ingest.recorded import open_sessions
from ingest.recordings import open_recording
from ingest.replay import AS_FAST_AS_POSSIBLE, replay
from ingest.simulator import PatientSimulator
from ingest.source import IngestError
from models.session import Session
from stream.bus import Bus
from stream.contract import INVALID, Finding, SampleChunk, Validity
from stream.embedded import EmbeddedServer
from stream.offline import Outcome, run
from stream.recording.names import folder_of
from stream.topics import FINDINGS
from tests.command_line import assert_refused
from tests.command_line import run as command
from tests.stream.recording.making import FS, T0, chunk, chunks, record, signal

# Falls ill, gets well; a lead comes off in between.
TIMELINE = "sinus:80@0 vt:180@15 sinus:80@30 leadoff:V1@36+4"


@pytest.fixture(scope="module")
def shipped() -> Session:
    return bedside.load_model()


def simulated(seconds: float, *, base_time_ns: int = T0) -> list[SampleChunk]:
    patient = PatientSimulator(3, TIMELINE, duration_s=seconds)
    return list(chunks_of(patient, "icu-1", "live", base_time_ns=base_time_ns))


def recorded(server: EmbeddedServer, root: Path, sent: Sequence[SampleChunk]) -> Path:
    asyncio.run(record(server, root, sent))
    return root / folder_of("icu-1")


def again(folder: Path) -> list[SampleChunk]:
    recording = open_recording(folder)
    return list(chunks_of(recording, recording.bed, recording.session))


def what_was_found(outcome: Outcome) -> tuple[list[object], list[object], list[object]]:
    findings = [
        (f.window, f.start, f.end, f.t_start, f.score, f.lead_scores, f.anomalous, f.reason)
        for f in outcome.findings
    ]
    events = [(e.event, e.rule, e.presence, e.onset, e.onset_t, e.since, e.message) for e in outcome.events]
    vitals = [(v.start, v.heart_rate, v.beats, v.quality, v.issues) for v in outcome.vitals]
    return findings, events, vitals


def test_a_feed_plays_back_with_the_same_findings_alarms_and_vitals(
    redis_server: EmbeddedServer, tmp_path: Path, shipped: Session
) -> None:
    live = simulated(60.0)
    # A lead that the source itself calls off, and one that it calls saturated.
    for number, flag in ((210, Validity.OFF), (230, Validity.SATURATED)):
        for place in range(number, number + 15):
            valid = (flag, *live[place].header.valid[1:])
            live[place] = SampleChunk(
                live[place].header.model_copy(update={"valid": valid}), live[place].samples
            )
    # Lost on the way: one chunk, three seconds, and twelve, which the recorder keeps in another segment.
    del live[250:251], live[80:95], live[120:180]
    folder = recorded(redis_server, tmp_path, live)
    assert len(list(folder.glob("*.flac"))) == 4
    expected, got = run(live, shipped), run(again(folder), shipped)
    assert any(finding.score is not None for finding in expected.findings)
    assert any(event.rule == "ventricular-tachycardia" for event in expected.events)
    assert what_was_found(got) == what_was_found(expected)


def test_a_recording_that_began_late_has_the_windows_of_the_live_feed(
    redis_server: EmbeddedServer, tmp_path: Path, shipped: Session
) -> None:
    live = simulated(40.0)
    folder = recorded(redis_server, tmp_path, live[37:])
    (session,) = open_sessions(folder)
    assert session.first_index == 3700
    assert session.start_ns == live[37].header.t0
    expected, got = run(live[37:], shipped), run(again(folder), shipped)
    assert what_was_found(got) == what_was_found(expected)
    whole = {finding.window: finding for finding in run(live, shipped).findings}
    late = got.findings[-1]
    assert (late.start, late.t_end) == (whole[late.window].start, whole[late.window].t_end)
    assert late.score == pytest.approx(whole[late.window].score, rel=1e-3)


def test_a_part_is_analysed_as_in_the_middle_of_the_feed(
    redis_server: EmbeddedServer, tmp_path: Path, shipped: Session
) -> None:
    # Lost on the way: two seconds, in the part.
    live = simulated(60.0)
    del live[170:180]
    folder = recorded(redis_server, tmp_path, live)

    def analysed(name: str, *part: str) -> tuple[dict[str, Any], dict[str, Any]]:
        files = tmp_path / f"{name}.json", tmp_path / f"{name}.npz"
        done = command("analyze", folder, *part, "--json", files[0], "--arrays", files[1])
        assert done.returncode == 0, done.stderr
        with np.load(files[1]) as arrays:
            return json.loads(files[0].read_text()), dict(arrays)

    def utc(seconds: float) -> str:
        return datetime.fromtimestamp(T0 / 1e9 + seconds - 0.001, UTC).isoformat()

    whole, arrays = analysed("whole")
    part, cut = analysed("part", "--from", utc(30.0), "--until", utc(50.0))
    assert part["duration_s"] == 20.0
    assert part["record"].startswith("icu-1, 2025-11-29 ")
    inside = [one for one in whole["windows"] if one["start_s"] >= 30.0 and one["end_s"] <= 50.0]
    assert [one["start_s"] + 30.0 for one in part["windows"]] == [one["start_s"] for one in inside]
    assert [one["score"] for one in part["windows"]] == pytest.approx([one["score"] for one in inside])
    beats = [round(beat - 30.0, 3) for beat in whole["beats_s"] if 30.0 <= beat < 48.0]
    assert [round(beat, 3) for beat in part["beats_s"] if beat < 18.0] == beats
    assert any(alarm["onset_s"] < 0 for alarm in part["alarms"])
    begin = int(np.searchsorted(arrays["t_s"], cut["t_s"][0] + 30.0 - 1e-6))
    # Windows that end later than the part cover its last eight seconds, too.
    n = len(cut["t_s"]) - 800
    for name in ("signal_mv", "reconstruction_mv"):
        np.testing.assert_allclose(cut[name][:, :n], arrays[name][:, begin : begin + n], atol=1e-5)
    seconds = [one["heart_rate_bpm"] for one in whole["seconds"] if 30.0 <= one["start_s"] < 50.0]
    assert [one["heart_rate_bpm"] for one in part["seconds"]] == seconds
    refused = command("analyze", folder, "--from", utc(90.0), "--until", utc(99.0))
    assert_refused(refused, "nothing was recorded from 2025-11-29T10:3")


def test_a_part_keeps_its_place_in_the_session(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    folder = recorded(redis_server, tmp_path, chunks(1000, 6000))
    recording = open_recording(folder)
    first, *_ = chunks_of(recording, "b", "s", start=2.0)
    assert first.header.n0 == 2000
    assert first.header.t0 == T0 + 4 * 10**9
    np.testing.assert_array_equal(first.samples, signal(2000, 2100))


def test_samples_gains_and_device_time_are_those_of_the_feed(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    sent = [*chunks(0, 1000), *chunks(1300, 2000), *chunks(20_000, 20_500)]
    folder = recorded(redis_server, tmp_path, sent)
    recording = open_recording(folder)
    assert (recording.bed, recording.session, recording.fs) == ("icu-1", "s", FS)
    assert recording.start_ns == T0
    assert recording.gain == sent[0].header.gain
    samples = recording.read(0, 30_000)
    assert len(samples) == 20_500
    for one in sent:
        np.testing.assert_array_equal(samples[one.header.n0 : one.end], one.samples)
    assert (samples[1000:1300] == INVALID).all()
    played = again(folder)
    assert [one.header.n0 for one in played] == [one.header.n0 for one in sent], (
        "where nothing came nothing comes"
    )
    assert [one.header.last for one in played] == [False] * (len(played) - 1) + [True]


def test_a_gain_that_changed_becomes_one_for_all(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    small = [SampleChunk(one.header, one.samples // 40) for one in chunks(0, 500, gain=(100.0,) * 3)]
    folder = recorded(redis_server, tmp_path, [*small, *chunks(500, 1000, gain=(50.0,) * 3)])
    recording = open_recording(folder)
    millivolts = recording.read(0, 1000) / np.array(recording.gain)
    before = np.concatenate([one.samples for one in small]) / 100.0
    np.testing.assert_allclose(millivolts[:500], before, atol=0.5 / min(recording.gain))


def test_sessions_are_played_one_after_the_other(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    sent = [
        *chunks(0, 1000),
        *chunks(0, 500, session="t"),
        *chunks(0, 300, session="u", leads=("II", "V1", "V2")),
    ]
    folder = recorded(redis_server, tmp_path, sent)
    with pytest.raises(IngestError, match="3 sessions"):
        open_recording(folder)
    assert_refused(command("analyze", folder), "3 sessions", "name a segment")
    assert_refused(command("replay", folder, "--loop"), "3 sessions", code=2)

    class Received:
        def __init__(self) -> None:
            self.chunks: list[SampleChunk] = []

        async def publish(self, new: Sequence[SampleChunk]) -> None:
            self.chunks += new

    received, feed = Received(), None
    for recording in reversed(open_sessions(folder)):
        feed = Feed("b", recording, following=feed)
    assert feed is not None
    asyncio.run(replay([feed], received, speed=AS_FAST_AS_POSSIBLE))
    sessions = [list(group) for _, group in groupby(received.chunks, key=lambda one: one.header.session)]
    assert [sum(len(one.samples) for one in session) for session in sessions] == [1000, 500, 300]
    for session in sessions:
        assert [one.header.seq for one in session] == list(range(len(session)))
        assert [one.header.last for one in session] == [False] * (len(session) - 1) + [True]
        np.testing.assert_array_equal(
            np.concatenate([one.samples for one in session]), signal(0, session[-1].end)
        )


def test_one_segment_is_analysed_like_any_record(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    folder = recorded(redis_server, tmp_path, simulated(20.0))
    (header,) = folder.glob("*.hea")
    analysis = bedside.analyze(header)
    assert analysis.duration_s == 20.0
    assert analysis.windows
    assert bedside.analyze(folder).windows == analysis.windows


def test_a_folder_with_a_damaged_segment_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{")
    with pytest.raises(IngestError, match=r"x\.jsonl"):
        open_recording(tmp_path)


@pytest.mark.slow
def test_live_and_played_back_the_worker_finds_the_same(short_tmp: Path, tmp_path: Path) -> None:
    patient = PatientSimulator(3, TIMELINE, duration_s=32.0)

    async def findings(bus: Bus, bed: str, count: int) -> list[Finding]:
        found: dict[int, Finding] = {}
        async with asyncio.timeout(60):
            async for entry in bus.tail(FINDINGS, after="0"):
                finding = Finding.decode(entry.value)
                if finding.bed == bed:
                    found[finding.window] = finding
                if len(found) == count:
                    break
        return [found[window] for window in sorted(found)]

    async def go() -> None:
        with Ward(short_tmp) as ward:
            await ward.ready()
            async with await ward.connect() as bus:

                async def feed(_: Bus) -> None:
                    # Faster than real time, so that the test is; with a pace of its own all the same.
                    await replay([Feed("icu-1", patient)], BusPublisher(bus), speed=8.0)

                await record(ward.server, tmp_path, also=feed)
                live = await findings(bus, "icu-1", 49)
                arguments = ("replay", str(tmp_path / "icu-1"), "--bed", "again", "--speed", "max")
                played = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-m", "bedside", *arguments, "--redis", ward.url, "--metrics-port", "0"],
                    check=False,
                )
                assert played.returncode == 0
                again = await findings(bus, "again", 49)
        for one, other in zip(live, again, strict=True):
            assert (one.window, one.start, one.end) == (other.window, other.start, other.end)
            assert (one.anomalous, one.reason) == (other.anomalous, other.reason)
            assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-6)

    asyncio.run(go())


def test_chunks_of_other_lengths_keep_flags_and_holes(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    off = (Validity.OK, Validity.OFF, Validity.QUESTIONABLE)
    sent = [chunk(n, 50, valid=off if 150 <= n < 350 else (Validity.OK,) * 3) for n in range(0, 1000, 50)]
    folder = recorded(redis_server, tmp_path, sent)
    played = again(folder)
    assert [one.header.valid for one in played[:5]] == [
        (Validity.OK,) * 3,
        # Off in half of it: those samples are missing, the lead is not off.
        (Validity.OK, Validity.OK, Validity.QUESTIONABLE),
        off,
        (Validity.OK, Validity.OK, Validity.QUESTIONABLE),
        (Validity.OK,) * 3,
    ]
    assert (played[1].samples[50:, 1] == INVALID).all()
    np.testing.assert_array_equal(played[1].samples[:50], signal(100, 150))
