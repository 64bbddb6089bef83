from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bedside import analyze
from stream.alarms.conditions import CONDITIONS
from stream.contract import AlarmKind, Priority
from stream.describe import described
from stream.offline import AlarmResult, Analysis
from stream.results import WindowResult


def alarm(rule: str, message: str, onset_s: float, end_s: float | None = None) -> AlarmResult:
    condition = CONDITIONS[rule]
    return AlarmResult(
        alarm=f"{rule} {onset_s}", kind=condition.kind, code=condition.code, priority=condition.priority,
        message=message, onset_s=onset_s, raised_s=onset_s + 5, end_s=end_s, score=None,
    )  # fmt: skip


def analysis(*alarms: AlarmResult, **fields: Any) -> Analysis:
    window = WindowResult(start_s=0, end_s=8, score=0.2, anomalous=False, lead_scores={"II": 0.2})
    usual: dict[str, Any] = {
        "record": "r", "model": "cae", "fs": 250, "leads": ("II", "V"), "duration_s": 300,
        "record_score": 0.2, "percentile": 61.4, "threshold": 1.67, "window_threshold": 4.05,
        "anomalous": False,
        "windows": [window] * 20, "not_scored": {}, "heart_rate_bpm": 72.4, "beats_s": [1.0, 2.0],
        "quality": {"II": 0.9, "V": 0.9}, "alarms": alarms,
    }  # fmt: skip
    return Analysis(**usual | fields)


def test_the_most_urgent_alarm_comes_first_whatever_the_model_says() -> None:
    found = analysis(
        alarm("lead-off", "lead V off", 1.0),
        alarm("atrial-fibrillation", "Irregular rhythm, as in atrial fibrillation", 3.0),
        alarm("anomaly", "unusual ECG in 17 of the last 24 windows", 4.0, 30.0),
        alarm("extreme-tachycardia", "Heart rate 166/min", 38.0, 56.5),
        alarm("ventricular-tachycardia", "Ventricular tachycardia, 8 beats at 175/min", 40.4, 54.5),
        alarm("ventricular-tachycardia", "Ventricular tachycardia, 5 beats at 183/min", 242.0, 249.0),
    ).statement
    assert found.headline == "Ventricular tachycardia at 40.4 s, first of 2, and 3 other conditions"
    assert found.priority is Priority.HIGH
    assert found.sentences == (
        "Ventricular tachycardia, 8 beats at 175/min, 2 times, first from 40.4 s to 54.5 s (high priority).",
        "Extreme tachycardia: heart rate 166/min, from 38.0 s to 56.5 s (high priority).",
        "Unusual ECG in 17 of the last 24 windows, from 4.0 s to 30.0 s (medium priority).",
        "Irregular rhythm, as in atrial fibrillation, from 3.0 s and lasts (low priority).",
        "Heart rate 72 bpm (median), 2 beats.",
        "Model cae: as normals are, score 0.20 (above 61 % of normals), threshold 1.67"
        " (95 % of normals are below).",
        "0 of 20 windows over the alarm threshold 4.05.",
    )


def test_asystole_is_named_and_not_described_alone() -> None:
    found = analysis(alarm("asystole", "No heart beat for 4 s", 1051.0, 1061.0)).statement
    assert found.headline == "Asystole at 17:31"
    assert found.sentences[0] == "Asystole: no heart beat for 4 s, from 17:31 to 17:41 (high priority)."


@pytest.mark.parametrize("rule", [r for r, c in CONDITIONS.items() if c.kind is AlarmKind.PHYSIOLOGICAL])
def test_every_condition_of_a_patient_has_a_name(rule: str) -> None:
    headline = analysis(alarm(rule, "told otherwise", 1.0)).statement.headline
    assert "told otherwise" not in headline


def test_without_an_alarm_the_model_has_the_word() -> None:
    usual = analysis().statement
    assert (usual.headline, usual.priority) == ("as normals are", None)
    assert usual.sentences[0] == "No alarm."
    unusual = analysis(alarm("noise", "signal too poor", 1.0), anomalous=True, percentile=100.0).statement
    assert unusual.headline == "unusual"
    assert unusual.sentences[0] == "No physiological alarm."
    assert "unusual, score 0.20 (above all normals), threshold" in unusual.sentences[2]


@pytest.mark.parametrize(
    ("percentile", "said"),
    [
        (None, "score 0.20, threshold"),
        (0.0, "(below all normals)"),
        (0.2, "(above 1 % of normals)"),
        (99.8, "(above 99 % of normals)"),
    ],
)
def test_a_percentile_is_not_rounded_to_none_or_all(percentile: float | None, said: str) -> None:
    assert said in analysis(percentile=percentile).statement.sentences[2]


def test_what_limits_the_statement_is_told() -> None:
    poor = analysis(not_scored={"poor signal": 50, "flat": 10}, quality={"II": 0.7, "V": 0.12}).statement
    assert poor.headline == "as normals are, in the 25 % that could be scored"
    assert poor.sentences[-2:] == (
        "75 % of the windows could not be scored: poor signal (50), flat (10).",
        "Off or too poor most of the time (mean quality): V (0.12).",
    )
    assert "usable most of the time" in analysis(quality={"II": 0.1, "V": 0.0}).statement.sentences[-1]
    # Two windows in a hundred limit nothing; the summary tells of them all the same.
    little = analysis(not_scored={"gap": 1})
    assert not any("could not" in sentence for sentence in little.statement.sentences)
    assert described(little).endswith("\n  windows not scored: gap (1)")


def test_nothing_scored_and_no_beats() -> None:
    found = analysis(
        record_score=None, percentile=None, anomalous=None, windows=[], heart_rate_bpm=None, beats_s=[],
        not_scored={"flat": 9},
    )  # fmt: skip
    assert found.statement.headline == "not scored"
    assert found.statement.sentences == (
        "No alarm.",
        "Heart rate not known: no beats.",
        "Model cae: not scored, flat (9).",
    )
    assert described(found).count("flat (9)") == 1


def test_it_is_among_the_fields_for_programs_and_reads_back() -> None:
    found = analysis(alarm("asystole", "No heart beat for 4 s", 1.0))
    again = Analysis.model_validate_json(found.model_dump_json())
    assert again == found
    assert found.model_dump(mode="json")["statement"]["priority"] == "high"


@pytest.mark.data
def test_flutter_in_a_real_record_is_not_called_as_normals_are(data_dir: Path) -> None:
    # A false alarm of lead V's electrode, flutter and asystole of an intensive care patient.
    statement = analyze(data_dir / "cinc2015" / "a462s").statement
    assert statement.priority is Priority.HIGH
    assert statement.headline.startswith("Asystole at ")
    assert statement.sentences[-1] == "Off or too poor most of the time (mean quality): V (0.00)."
