from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.false_alarms import (
    Heard,
    Raised,
    count_parts,
    goal_lines,
    listen,
    poisson_interval,
    quiet_lines,
    raised_in,
)
from bench.quiet import Answer, main, sensitivity
from ingest.recordings import open_recording
from models.backends import open_session
from models.bundle import load_bundle
from stream.alarms.conditions import ANOMALY, ASYSTOLE
from stream.alarms.machine import Seen, observe, pass_time
from stream.alarms.state import BedState, Moment
from training.calibration.stretches import Stretch
from training.recordings import Entry


def heard(part: str, patient: str, *rules: str, seconds: float = 1800.0) -> Heard:
    raised = tuple(Raised(rule, 1.0, False, "") for rule in rules)
    return Heard("r", patient, part, seconds, seconds / 2, raised)


def test_the_interval_is_the_exact_one() -> None:
    # As tables of the exact limits have it: 0, 1 and 10 events.
    assert poisson_interval(0, 1.0) == pytest.approx((0.0, 3.6889), abs=1e-4)
    assert poisson_interval(1, 1.0) == pytest.approx((0.0253, 5.5716), abs=1e-4)
    assert poisson_interval(10, 2.0) == pytest.approx((4.7954 / 2, 18.3904 / 2), abs=1e-4)


def test_a_latched_alarm_that_comes_back_is_no_new_one_and_to_be_told_again_is_nothing() -> None:
    state = BedState(session="s")
    events = []
    for second, present in ((1, True), (10, False), (14, False), (20, True), (60, True)):
        moment = Moment("b", second, second * 10**9, 1.0, 0)
        events += observe(state, ASYSTOLE, moment, Seen(present, second, "no beat"))
        events += pass_time(state, moment, [ASYSTOLE])
    assert any(event.escalation for event in events)
    assert [(one.at_s, one.again) for one in raised_in(events)] == [(1.0, False), (20.0, True)]


def test_an_alarm_that_ended_and_comes_back_is_a_new_one() -> None:
    state = BedState(session="s")
    events = []
    for second, present in ((1, True), (2, False), (3, True)):
        moment = Moment("b", second, second * 10**9, 1.0, 0)
        events += observe(state, ANOMALY, moment, Seen(present, second))
    assert [(one.at_s, one.again) for one in raised_in(events)] == [(1.0, False), (3.0, False)]


def test_alarms_are_counted_by_rule_kind_and_part() -> None:
    again = Heard("r", "p1", "looped, val", 1800.0, 900.0, (Raised("asystole", 1.0, True, ""),))
    parts = count_parts(
        [
            heard("looped, val", "p1", "asystole", "anomaly", "anomaly"),
            again,
            heard("looped, val", "p2", "noise", "anomaly"),
            heard("continuous, annotated", "p3", seconds=7200.0),
        ]
    )
    assert list(parts) == ["continuous, annotated", "looped, val", "all"]
    rules = parts["looped, val"]["rules"]
    assert (rules["asystole"]["alarms"], rules["asystole"]["again"]) == (1, 1)
    assert (rules["asystole"]["hours"], rules["anomaly"]["hours"]) == (1.5, 0.75)
    assert rules["anomaly"]["per_bed_hour"] == 4.0
    assert rules["anomaly"]["patients"] == 2
    assert (rules["physiological"]["alarms"], rules["technical"]["alarms"]) == (4, 1)
    assert parts["all"]["rules"]["physiological"]["hours"] == 3.5
    assert parts["continuous, annotated"]["rules"]["anomaly"]["alarms"] == 0
    text = "\n".join(quiet_lines(parts))
    assert "| 1 (+1 again) in 1.50 h: 0.67 [" in text
    # 3.69 events are the upper end of none: an hour of them does not show the goal, four do.
    assert goal_lines(parts)[0].endswith("at most 3.69 per bed-hour, not shown")
    assert goal_lines(count_parts([heard("x", "p", seconds=28800.0)]))[0].endswith("0.92 per bed-hour, met")


def test_recordings_with_a_finding_of_rhythm_alone_stand_apart() -> None:
    def answer(raised: bool, split: str, *, rhythm_only: bool = False) -> Answer:
        return Answer(Entry(Path("r"), "d", 1, rhythm_only, split, "", "", ("LVH:50", "SR:0")), raised)

    found = sensitivity(
        [
            answer(True, "val"),
            answer(False, "val"),
            answer(False, "val", rhythm_only=True),
            answer(True, "test"),
        ]
    )
    assert found["val"]["shape"] == {"recordings": 2, "raised": 1, "interval": (0.0945, 0.9055)}
    assert found["val"]["rhythm only"]["raised"] == 0
    assert found["val"]["diagnosis left ventricular hypertrophy"]["recordings"] == 2
    assert found["test"]["data set d"]["raised"] == 1


def test_an_index_without_normals_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    index.write_text("path,label,split\nr1,0,\nr2,1,test\n")
    done = CliRunner().invoke(main, ["--index", str(index)])
    assert done.exit_code == 1
    assert "no normals with a split" in done.output


@pytest.mark.data
def test_real_recordings_are_listened_to_and_what_cannot_be_is_named(data_dir: Path, tmp_path: Path) -> None:
    with (data_dir / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {("ptb-xl", "val", "0"), ("ptb-xl", "test", "0"), ("ptb-xl", "val", "1")}
    chosen = [
        next(row for row in rows if (row["dataset"], row["split"], row["label"]) == one) for one in wanted
    ]
    # Its normal beats last for a minute.
    chosen += [row for row in rows if row["record"] == "119"]
    index = tmp_path / "index.csv"
    with index.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        for row in chosen:
            out.writerow(row | {"path": str(data_dir / row["path"])})
        out.writerow(chosen[0] | {"path": "gone.dat", "record": "gone", "label": "0", "split": "test"})
    path = tmp_path / "quiet.json"
    done = CliRunner().invoke(main, ["--index", str(index), "--json", str(path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "was chosen on another index" in done.output
    assert "Could not be used: 1" in done.output
    found = json.loads(path.read_text())
    assert {name: part["stretches"] for name, part in found["parts"].items()} == {
        "continuous, annotated": 1,
        "looped, test": 1,
        "looped, val": 1,
        "all": 3,
    }
    assert found["parts"]["looped, val"]["rules"]["asystole"]["hours"] == round(300 / 3600, 4)
    # All but the first 16 windows of 8 s, half a second apart.
    assert found["parts"]["looped, val"]["rules"]["anomaly"]["hours"] == round(284.5 / 3600, 4)
    assert found["parts"]["continuous, annotated"]["rules"]["asystole"]["hours"] == pytest.approx(
        62.7 / 3600, abs=1e-4
    )
    assert found["sensitivity"]["val"]["shape"]["recordings"] == 1
    # Eight stretches of sinus rhythm last a minute, with a ventricular beat in six; nothing says that its
    # normal beats chose a threshold of this index.
    groups = found["sinus_rhythm"]["groups"]
    assert list(groups) == ["other records", "all but bundle branch block", "record 119"]
    assert groups["record 119"]["stretches"] == 8
    assert groups["record 119"]["rules"]["asystole"]["hours"] == pytest.approx(12.36 / 60, abs=1e-4)
    assert found["machine"]["cpu"]


@pytest.mark.data
def test_what_is_not_quiet_raises_alarms_at_their_time(data_dir: Path) -> None:
    # Ventricular flutter from 40.8 s on, up to 51.1 s.
    stretch = Stretch(open_recording(data_dir / "mitdb" / "207.dat"), 30.0, 60.0, "p", "continuous")
    raised = listen(stretch, open_session(load_bundle("cae-100hz")), "x").raised
    assert any(one.rule == "ventricular-fibrillation" and 40.8 < one.at_s < 51.1 for one in raised)
