from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunks import chunks_of
from ingest.recordings import open_recording
from ingest.source import ArrayRecording, IngestError
from models.backends import open_session
from models.bundle import load_bundle
from models.manifest import AlarmRule
from stream.contract import to_lsb
from stream.offline import analyse
from tests.training.conftest import made_up_signal
from training.calibration.stretches import (
    MOST_NORMALS,
    Scorer,
    Stretch,
    StretchScores,
    normal_spans,
    score_stretches,
    stretches_of,
    with_stretches,
)
from training.recordings import Entry, read_index

RULE = AlarmRule(k=3, n=5, clear=1)


@pytest.fixture(scope="module")
def session():
    return open_session(load_bundle("cae-100hz"))


def recording(seconds: float, *, abnormal_from: float | None = None) -> ArrayRecording:
    signal = made_up_signal(0, seconds=seconds)
    if abnormal_from is not None:
        at = round(abnormal_from * signal.fs)
        signal.millivolts[at:] = made_up_signal(0, abnormal=True, seconds=seconds).millivolts[at:]
    gain = [1000.0] * len(signal.leads)
    return ArrayRecording(
        to_lsb(signal.millivolts), name="made-up", fs=signal.fs, leads=signal.leads, gain=gain
    )


def entry(path: Path, label: int | None = 0, split: str = "val") -> Entry:
    return Entry(path, "made-up", label, False, split, "", "")


def write_record(folder: Path, name: str, seconds: float) -> Path:
    signal = made_up_signal(1, seconds=seconds)
    wfdb.wrsamp(
        name,
        fs=signal.fs,
        units=["mV"] * 2,
        sig_name=["I", "II"],
        p_signal=signal.millivolts[:, :2],
        fmt=["16"] * 2,
        write_dir=str(folder),
    )
    return folder / f"{name}.dat"


GRIDS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(GRIDS)
def test_the_alarm_level_is_the_lowest_threshold_without_an_alarm(grid: list[tuple[int, int]]) -> None:
    # Windows with holes between them, for those that could not be scored.
    window = np.cumsum([step for step, _ in grid])
    stretch = StretchScores(window, np.array([float(score) for _, score in grid]))
    level = stretch.alarm_level(RULE)
    assert stretch.alarms(RULE, max(level, -9.0)) == 0
    if level > -np.inf:
        assert stretch.alarms(RULE, level - 0.5) > 0


def test_alarms_are_those_of_the_engine(session) -> None:
    # With a threshold low enough for the made-up beats, which no model was trained on.
    source = recording(90.0, abnormal_from=40.0)
    scorer = Scorer.of(session)
    stretch = scorer.score(Stretch(source, 0.0, 90.0, "p", "continuous"))
    analysis = analyse(chunks_of(source, "bed", "session"), session, record="made-up")
    np.testing.assert_allclose(stretch.score, [window.score for window in analysis.windows], atol=1e-6)
    manifest = session.manifest
    threshold = manifest.thresholds["fp32"].window
    assert stretch.alarms(manifest.alarm, threshold) == len(analysis.alarms) == 1
    assert stretch.alarm_level(manifest.alarm) > threshold


def test_a_part_of_a_recording_is_scored_as_if_it_began_there(session) -> None:
    scorer = Scorer.of(session)
    whole = recording(40.0)
    part = Stretch(whole, 15.0, 40.0, "p", "continuous")
    alone = ArrayRecording(
        whole.read(7500, 20000), name="part", fs=whole.fs, leads=whole.leads, gain=whole.gain
    )
    expected = scorer.score(Stretch(alone, 0.0, 25.0, "p", "continuous"))
    found = scorer.score(part)
    np.testing.assert_array_equal(found.window, expected.window)
    np.testing.assert_array_equal(found.score, expected.score)
    assert len(found.window) == (25 - 8) * 2 + 1


def test_windows_that_cannot_be_scored_leave_a_hole(session) -> None:
    signal = made_up_signal(2, seconds=40.0)
    signal.millivolts[15 * 500 : 20 * 500] = np.nan
    gap = ArrayRecording(
        to_lsb(signal.millivolts), name="gap", fs=500, leads=signal.leads, gain=[1000.0] * 12
    )
    found = Scorer.of(session).score(Stretch(gap, 0.0, 40.0, "p", "continuous"))
    assert 0 in found.window
    assert 30 not in found.window  # 15 s to 23 s
    assert found.window[-1] == 64


def test_a_rate_too_low_for_the_filter_is_an_error_of_the_recording(session) -> None:
    slow = ArrayRecording(np.zeros((600, 1), np.int16), name="slow", fs=1.0, leads=("II",), gain=(1000.0,))
    with pytest.raises(IngestError, match=r"slow: 1 Hz is too slow"):
        Scorer.of(session).score(Stretch(slow, 0.0, 600.0, "p", "continuous"))


def test_short_normals_are_looped_and_long_ones_taken_as_they_are(tmp_path: Path) -> None:
    (short,) = stretches_of(entry(write_record(tmp_path, "short", 10.0)))
    assert (short.source, short.stop_s, short.recording.n_samples) == ("looped", 300.0, None)
    long = stretches_of(entry(write_record(tmp_path, "long", 640.0)))
    assert [stretch.source for stretch in long] == ["continuous"] * 2
    assert [(stretch.start_s, stretch.stop_s) for stretch in long] == [(0.0, 320.0), (320.0, 640.0)]
    assert {stretch.patient for stretch in long} == {entry(tmp_path / "long.dat").person}


def test_abnormal_recordings_have_no_stretches(tmp_path: Path) -> None:
    assert stretches_of(entry(write_record(tmp_path, "abnormal", 10.0), label=1)) == []


def test_normal_parts_of_annotated_recordings_are_found(tmp_path: Path) -> None:
    path = write_record(tmp_path, "holter", 400.0)
    beats = np.arange(0, 400, dtype=float)
    symbols = ["N"] * 400
    symbols[0], symbols[100], symbols[150], symbols[260], symbols[270] = "+", "V", "+", "+", "~"
    notes = [""] * 400
    notes[0], notes[150], notes[260] = "(N", "(AFIB", "(N"
    wfdb.wrann(
        "holter", "atr", (beats * 500).astype(int), symbols, aux_note=notes, fs=500, write_dir=str(tmp_path)
    )
    spans = normal_spans(tmp_path / "holter.atr", 500.0)
    # A ventricular beat at 100 s, fibrillation from 150 to 260 s; noise at 270 s ends nothing.
    assert spans == [(0.0, 99.0), (101.0, 149.0), (260.0, 399.0)]
    stretches = stretches_of(entry(path, label=None))
    assert [(stretch.start_s, stretch.stop_s) for stretch in stretches] == [(0.0, 99.0), (260.0, 399.0)]
    assert [e.path for e in with_stretches([], [entry(path, label=None)])] == [path]
    assert with_stretches([], [entry(path, label=None, split="test")]) == []
    assert with_stretches([], [entry(path, label=1)]) == []


def test_broken_annotations_are_named(tmp_path: Path) -> None:
    path = write_record(tmp_path, "broken", 70.0)
    path.with_suffix(".atr").write_bytes(b"\x01")
    scores, left_out = score_stretches(None, [entry(path, label=None)])  # type: ignore[arg-type]
    assert scores == []
    assert "broken.atr" in left_out[0]


def test_of_many_normals_some_are_taken() -> None:
    normals = [entry(Path(f"{i}.dat")) for i in range(2 * MOST_NORMALS + 1)]
    taken = with_stretches(normals, normals)
    assert MOST_NORMALS / 2 < len(taken) <= MOST_NORMALS
    assert taken[0] is normals[0]


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    made_up_index: Callable[[], Path], session, tmp_path: Path
) -> None:
    entries = read_index(made_up_index())[:1]
    steps: list[float] = []
    missing = entry(tmp_path / "missing.dat")
    scores, left_out = score_stretches(Scorer.of(session), [missing, *entries], on_done=steps.append)
    assert len(scores) == 1
    assert "missing.dat" in left_out[0]
    assert steps == [1, 2]
    # 300 s in windows of 8 s, half a second apart; the last may wait for its last sample.
    assert len(scores[0].window) in (584, 585)


@pytest.mark.data
def test_looped_recordings_score_like_themselves(data_dir: Path, session) -> None:
    path = data_dir / "ptb-xl/records500/00000/00010_hr.dat"
    scorer = Scorer.of(session)
    once = scorer.score(Stretch(open_recording(path), 0.0, 10.0, "p", ""))
    (stretch,) = stretches_of(entry(path))
    looped = scorer.score(stretch)
    assert looped.score.mean() == pytest.approx(once.score.mean(), abs=0.3)
    assert np.ptp(looped.score) < 2.0
