"""The demonstration: who falls ill, who stays quiet, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pydicom.data import get_testdata_file

import bedside
from bench.demo import demo_feeds
from bench.ports import free_port
from ingest.chunks import Feed, chunks_of
from ingest.looping import LoopedRecording
from ingest.recordings import open_recording
from models.session import Session
from stream.contract import AlarmEvent
from stream.offline import run
from stream.recording.store import Recordings

FIVE_MINUTES_S = 300.0
TEN_MINUTES_S = 600.0


@pytest.fixture(scope="module")
def shipped() -> Session:
    return bedside.load_model()


def alarms_of(feed: Feed, session: Session, seconds: float) -> list[AlarmEvent]:
    recording = LoopedRecording(feed.recording) if feed.loop else feed.recording
    chunks = chunks_of(recording, feed.bed, feed.session, stop=seconds)
    # The last chunk ends every alarm: what counts is what was raised.
    return [event for event in run(chunks, session).events if event.presence == "on"]


@pytest.mark.slow
def test_beds_in_sinus_rhythm_stay_quiet_for_five_minutes_and_the_ill_one_alarms(shipped: Session) -> None:
    raised = {feed.bed: alarms_of(feed, shipped, FIVE_MINUTES_S) for feed in demo_feeds()}
    assert {bed for bed, events in raised.items() if not events} == {"bed-1", "bed-2", "bed-3"}
    (first, *_) = raised["bed-4"]
    onset_s = first.onset / 500.0
    assert 20.0 <= onset_s <= 30.0, "falls ill within half a minute"


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("record", ["00001", "00002", "00003"])
def test_a_normal_record_looped_for_ten_minutes_raises_no_alarm(
    shipped: Session, data_dir: Path, record: str
) -> None:
    recording = open_recording(data_dir / f"ptb-xl/records500/00000/{record}_hr")
    feed = Feed("bed-1", recording, loop=True)
    assert alarms_of(feed, shipped, TEN_MINUTES_S) == []


@pytest.mark.slow
def test_the_demonstration_recording_looped_for_ten_minutes_raises_no_alarm(shipped: Session) -> None:
    assert alarms_of(demo_feeds()[0], shipped, TEN_MINUTES_S) == []


def test_recordings_of_the_user_take_the_place_of_the_default_beds() -> None:
    recording = str(get_testdata_file("waveform_ecg.dcm", download=False))
    feeds = demo_feeds([recording], beds=3)
    assert [feed.bed for feed in feeds] == ["bed-1", "bed-2", "bed-3"]
    assert all(feed.loop for feed in feeds)
    assert len({id(feed.recording) for feed in feeds}) == 3, "a recording serves one reader at a time"


@pytest.mark.slow
def test_ctrl_c_stops_everything_and_leaves_nothing(short_tmp: Path) -> None:
    environment = os.environ | {"BEDSIDE_RUNTIME_DIR": str(short_tmp / "run")}
    demo = subprocess.Popen(
        [sys.executable, "-m", "bedside", "demo", "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert demo.stdout is not None
    printed = ""
    for line in demo.stdout:
        printed += line
        if "Ctrl-C" in line:
            break
    assert re.search(r"http://127\.0\.0\.1:\d+", printed)
    family = psutil.Process(demo.pid).children(recursive=True)
    assert len(family) >= 3, "server, worker and page"
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) == 0
    _, alive = psutil.wait_procs(family, timeout=1)
    assert alive == []
    assert list((short_tmp / "run").iterdir()) == []


@pytest.mark.slow
def test_with_seconds_it_sums_up_and_loses_nothing_whatever_the_environment_names(short_tmp: Path) -> None:
    environment = os.environ | {
        "BEDSIDE_RUNTIME_DIR": str(short_tmp / "run"),
        # The demonstration is a deployment of its own.
        "BEDSIDE_PREFIX": "elsewhere:",
        "BEDSIDE_BROKER_URL": "redis://127.0.0.1:1",
    }
    command = ["demo", "--port", str(free_port()), "--beds", "2", "--seconds", "12", "--json", "-"]
    command += ["--record", str(short_tmp / "recordings")]
    result = subprocess.run(
        [sys.executable, "-m", "bedside", *command],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    summary = json.loads(result.stdout)
    assert summary["beds"] == 2
    assert summary["lost"] == 0
    assert summary["alarms"] == 0
    assert summary["chunks"] >= 2 * 55
    assert summary["findings"] >= 2 * 7
    recordings = Recordings(short_tmp / "recordings")
    assert recordings.beds() == ["bed-1", "bed-2"]
    for bed in recordings.beds():
        (segment,) = recordings.segments(bed)
        assert segment.begin.n0 == 0
        assert segment.frames >= 11 * segment.begin.fs
    assert set(summary["publish_to_finding_ms"]) >= {"p50", "p99", "max"}


def test_a_port_in_use_is_one_clear_line(short_tmp: Path) -> None:
    environment = os.environ | {"BEDSIDE_RUNTIME_DIR": str(short_tmp / "run")}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "bedside", "demo", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert str(port) in result.stderr
    assert "Traceback" not in result.stderr
