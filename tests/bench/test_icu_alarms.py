from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.icu_alarms import Alarm, Result, Tally, main, wilson
from stream.vitals.verify import Outcome, Verification

KEPT, TAKEN, CONFIRMED = (
    Verification(outcome, "") for outcome in (Outcome.UNDECIDED, Outcome.REFUTED, Outcome.CONFIRMED)
)


def test_alarms_of_real_records_are_judged_and_what_is_missing_is_named(
    data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cinc2015"
    folder.mkdir()
    for record in ("a446s", "v246s"):
        for suffix in (".hea", ".mat"):
            shutil.copy(data_dir / "cinc2015" / (record + suffix), folder)
    # Under names, and with comments, that say the opposite.
    header = (folder / "v246s.hea").read_text().replace("False", "True").replace("v246s", "a999l")
    (folder / "a999l.hea").write_text(header)
    (folder / "v246s.mat").rename(folder / "a999l.mat")
    (folder / "cut.hea").write_text((folder / "a446s.hea").read_text().replace("a446s", "cut"))
    (folder / "cut.mat").write_bytes((folder / "a446s.mat").read_bytes()[:1000])
    (folder / "ALARMS.csv").write_text(
        "a446s,Asystole,1\na999l,Ventricular_Tachycardia,0\ngone,Tachycardia,1\ncut,Asystole,0\n"
    )
    path = tmp_path / "found.json"
    done = CliRunner().invoke(main, [str(folder), "--verbose", "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "a446s Asystole (true): confirmed" in done.output
    assert "a999l Ventricular_Tachycardia (false): refuted" in done.output
    assert "Could not be read, and so kept: 2" in done.output
    found = json.loads(path.read_text())
    assert set(found["unread"]) == {"gone", "cut"}
    everything = found["parts"]["other records"]["all"]
    assert (everything["true"], everything["true_kept"]) == (2, 2)
    assert (everything["false"], everything["false_suppressed"]) == (2, 1)
    assert found["machine"]["cpu"]
    assert "numpy" in found["versions"]


def test_a_true_alarm_that_is_lost_counts_five_times() -> None:
    def result(true: bool, verification: Verification) -> Result:
        return Result(Alarm("x", "Asystole", true), "", verification, verification)

    results = [result(True, KEPT), result(True, TAKEN), result(False, KEPT), result(False, TAKEN)]
    assert Tally.of(results).confirmed == 0
    assert Tally.of([*results, result(True, CONFIRMED), result(False, CONFIRMED)]).confirmed == 1
    assert Tally.of(results).score == pytest.approx(100 * 2 / (1 + 1 + 1 + 5))
    assert Tally.of([]).score is None


def test_the_interval_is_that_of_the_literature() -> None:
    # Newcombe RG. Stat Med 1998;17:857-872, table I: 81 of 263, 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) is None


@pytest.mark.parametrize("text", ["a1,Asystole\n", "a1,Asystole,yes\n", "a1,Hiccups,1\n"])
def test_a_line_that_makes_no_sense_is_told_by_its_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "ALARMS.csv").write_text("a0,Asystole,1\n" + text)
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 1
    assert "line 2" in done.output


def test_a_folder_without_alarms_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 1
    assert "ALARMS.csv" in done.output
