from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from bench.false_alarms import Heard, Raised
from bench.sinus import (
    InSinus,
    SinusStretch,
    count_groups,
    sinus_alarm_lines,
    sinus_lines,
    sinus_stretches,
    span_s,
)
from ingest.source import ArrayRecording
from models.bundle import load_bundle
from training.calibration.stretches import Stretch

FS = 100.0
RHYTHMS = {0: "(N", 200: "(B", 220: "(N", 250: "(AFIB", 300: "(N"}


@pytest.fixture
def recording() -> ArrayRecording:
    return ArrayRecording(np.zeros((42_000, 1), np.int16), name="rec", fs=FS, leads=("II",), gain=[1000.0])


def annotate(folder: Path, symbol_at: dict[int, str]) -> Path:
    # A beat a second.
    notes = [(second * 100 + 50, symbol_at.get(second, "N"), "") for second in range(420)]
    notes += [(second * 100, "+", rhythm) for second, rhythm in RHYTHMS.items()]
    samples, symbols, texts = zip(*sorted(notes), strict=True)
    wfdb.wrann("rec", "atr", np.array(samples), list(symbols), aux_note=list(texts), write_dir=str(folder))
    return folder / "rec.atr"


def test_a_stretch_ends_where_another_rhythm_begins_and_not_at_an_ectopic_beat(
    tmp_path: Path, recording: ArrayRecording
) -> None:
    annotations = annotate(tmp_path, {10: "V", 100: "A", 150: "Q", 210: "V", 305: "F"})
    found = sinus_stretches(recording, annotations, "p")
    # From 220 to 250 s it lasts half a minute only.
    assert [(one.stretch.start_s, one.stretch.stop_s) for one in found] == [(0.0, 200.0), (300.0, 420.0)]
    # A beat that nobody could classify is not ectopic, and what is beside the stretch is not in it.
    assert [one.ectopic_s for one in found] == [(10.5, 100.5), (305.5,)]
    assert [one.beats for one in found] == [200, 120]
    assert not any(one.block for one in found)


def test_a_blocked_bundle_branch_stands_apart(tmp_path: Path, recording: ArrayRecording) -> None:
    annotations = annotate(tmp_path, dict.fromkeys(range(300, 420), "L") | {310: "V"})
    assert [one.block for one in sinus_stretches(recording, annotations, "p")] == [False, True]


def test_an_alarm_is_raised_from_the_seconds_that_its_windows_span(recording: ArrayRecording) -> None:
    manifest = load_bundle("cae-100hz").manifest
    assert span_s(manifest) == 19.5
    one = SinusStretch(Stretch(recording, 0.0, 200.0, "p", "continuous"), 200, (10.5, 100.5), False)
    assert one.ectopic_before(np.array([30.0, 30.1, 100.4, 100.5, 120.0]), 19.5).tolist() == [1, 0, 0, 1, 1]
    # An alarm can be raised from 16 s on; from these 184 s, 14 and 19.5 come too soon after an ectopic beat.
    assert one.share_without(manifest) == pytest.approx(1 - 33.5 / 184, abs=0.006)


def test_alarms_with_and_without_ectopic_beats_are_counted_by_part_and_record(
    recording: ArrayRecording,
) -> None:
    def heard(record: str, part: str, **raised: int) -> InSinus:
        # An alarm a rule, named with the ectopic beats it was raised from.
        alarms = tuple(Raised(rule.replace("_", "-"), 40.0, False, "told") for rule in raised)
        stretch = SinusStretch(
            Stretch(recording, 0.0, 200.0, record, "continuous"), 100, (10.5,), part[0] == "b"
        )
        told = Heard(record, record, part, 3600.0, 1800.0, alarms)
        return InSinus(stretch, told, tuple(raised.values()), 900.0)

    found = [
        heard("100", "others", anomaly=0, atrial_fibrillation=0),
        heard("100", "others", anomaly=3),
        heard("101", "others"),
        heard("102", "bundle branch block", anomaly=0),
    ]
    groups = count_groups(found)
    assert list(groups) == [
        "bundle branch block",
        "others",
        "all but bundle branch block",
        "record 100",
        "record 101",
        "record 102",
    ]
    assert groups["all but bundle branch block"] == groups["others"]
    others = groups["others"]
    assert (others["records"], others["beats"], others["ectopic_beats"]) == (["100", "101"], 300, 3)
    assert (others["rules"]["anomaly"]["alarms"], others["rules"]["anomaly"]["hours"]) == (2, 1.5)
    # Exact limits of one event, in three quarters of an hour.
    assert others["without_ectopic_beats"] == {
        "alarms": 1,
        "hours": 0.75,
        "per_bed_hour": 1.3333,
        "interval": pytest.approx((0.0253 / 0.75, 5.5716 / 0.75), abs=1e-4),
    }
    assert "| others | 2 | 2 | 3.00 | 1.0 % | 2 in 1.50 h | 1.33 [" in "\n".join(sinus_lines(groups))
    assert sinus_alarm_lines(found)[:3] == [
        "100 at 40.0 s: anomaly, told, no ectopic beats",
        "100 at 40.0 s: atrial-fibrillation, told, no ectopic beats",
        "100 at 40.0 s: anomaly, told, 3 ectopic beats",
    ]
