from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from stream.leads import LEADS
from stream.preprocess import Resampled
from stream.vitals.beats import Beat, Beats
from stream.vitals.grid import BLOCK, FS
from stream.vitals.rhythm import Limits, Rhythm, Rule
from tests.stream.vitals.feeds import TWO, conditions, detect, judge, present, recorded, simulated

# Onset of what the timeline says, the rule, and how soon after its end it is no longer told.
SCENES = [
    ("sinus:75@0 asystole@20 sinus:75@40", Rule.ASYSTOLE, 3.0),
    ("sinus:75@0 sinus:32@20 sinus:75@45", Rule.BRADYCARDIA, 4.0),
    ("sinus:75@0 sinus:170@20 sinus:75@45", Rule.TACHYCARDIA, 4.0),
    ("sinus:75@0 vt:170@20 sinus:75@40", Rule.VENTRICULAR_TACHYCARDIA, 3.0),
    ("sinus:75@0 vf@20 sinus:75@40", Rule.VENTRICULAR_FIBRILLATION, 4.0),
]


def blocks_of(intervals_s: list[float], *, ventricular: str = "") -> list[Beats]:
    """Beats without a signal: intervals in seconds, and a v for each beat that is ventricular."""
    at = np.round(FS * np.cumsum([0.5, *intervals_s])).astype(int).tolist()
    kinds = ventricular.ljust(len(at), "n")
    beats = [Beat(index, 1.0, 0.08, 1.0, 1.0, kinds[n] == "v", kinds[n] == "v") for n, index in enumerate(at)]
    return [
        Beats(
            first=first,
            found=tuple(beat for beat in beats if first <= beat.index < first + BLOCK),
            settled=first + BLOCK,
            leads=2,
            oscillation=0.0,
        )
        for first in range(0, at[-1] + 1, BLOCK)
    ]


@pytest.mark.parametrize("leads", [LEADS, TWO], ids=["12", "2"])
@pytest.mark.parametrize(("timeline", "rule", "clears_s"), SCENES, ids=[scene[1] for scene in SCENES])
def test_tells_each_condition_within_ten_seconds_and_its_end(
    timeline: str, rule: Rule, clears_s: float, leads: tuple[str, ...]
) -> None:
    signal, _ = simulated(21, timeline, 50, leads)
    judged, _ = judge(detect(signal))
    ((onset, told, last),) = present(judged, rule)
    begin, end = (float(part.split("@")[1]) for part in timeline.split()[1:])
    assert begin - 3.0 <= onset <= begin + 2.5
    assert begin < told <= begin + 10.0
    assert end - 1.5 <= last <= end + clears_s


@pytest.mark.parametrize("timeline", ["", "pvc:20@0", "sinus:48@0", "sinus:130@0", "af:90@0"])
def test_tells_nothing_where_there_is_nothing(timeline: str) -> None:
    signal, _ = simulated(22, timeline, 60)
    judged, _ = judge(detect(signal))
    assert (
        conditions(judged) <= {Rule.ATRIAL_FIBRILLATION} if "af" in timeline else conditions(judged) == set()
    )


def test_atrial_fibrillation_is_told_from_ectopic_beats() -> None:
    fibrillating, _ = simulated(23, "af:95@0", 60)
    judged, rhythm = judge(detect(fibrillating))
    assert present(judged, Rule.ATRIAL_FIBRILLATION)
    assert rhythm.rr_irregularity is not None
    assert rhythm.rr_irregularity > 0.1
    ectopic, _ = simulated(23, "pvc:25@0", 60)
    judged, rhythm = judge(detect(ectopic))
    assert not present(judged, Rule.ATRIAL_FIBRILLATION)
    # Bigeminy of beats that look alike: every interval repeats after two.
    _, rhythm = judge(blocks_of([0.5, 1.1] * 20))
    assert rhythm.rr_irregularity == 0.0


@pytest.mark.parametrize("rate", [40, 75, 150])
def test_heart_rate_is_the_hearts(rate: int) -> None:
    signal, _ = simulated(24, f"sinus:{rate}@0", 30)
    _, rhythm = judge(detect(signal))
    assert rhythm.heart_rate_bpm == pytest.approx(rate, rel=0.04)


def test_heart_rate_follows_a_step_within_ten_seconds() -> None:
    _, rhythm = judge(blocks_of([0.75] * 20 + [0.5] * 12))
    assert rhythm.heart_rate_bpm == pytest.approx(120)


def test_heart_rate_is_zero_in_asystole_and_unknown_in_fibrillation() -> None:
    _, rhythm = judge(detect(simulated(25, "sinus:75@0 asystole@20", 35)[0]))
    assert rhythm.heart_rate_bpm == 0.0
    _, rhythm = judge(detect(simulated(25, "sinus:75@0 vf@20", 35)[0]))
    assert rhythm.heart_rate_bpm is None


def test_nothing_can_be_told_without_a_lead() -> None:
    signal, _ = simulated(26, "asystole@0", 15)
    judged, rhythm = judge(detect(signal, usable=[False, False]))
    assert {judgement.present for judgements in judged for judgement in judgements} == {None}
    assert rhythm.heart_rate_bpm is None


def test_time_without_a_lead_is_no_asystole() -> None:
    signal, _ = simulated(26, "sinus:75@0 leadoff:II,V1@20+12", 45)
    judged, _ = judge(detect(signal))
    assert conditions(judged) == set()
    inside = [judgement.present for judgement in judged[round(28 / 0.5)]]
    assert set(inside) == {None}


def test_asystole_ends_when_the_leads_come_off() -> None:
    signal, _ = simulated(26, "sinus:75@0 asystole@15 leadoff:II,V1@25+5", 35)
    judged, _ = judge(detect(signal))
    first, second = present(judged, Rule.ASYSTOLE)
    assert first[2] <= 26
    # Back on, it takes the four seconds anew.
    assert 33.5 <= second[1] <= 35


def test_a_run_of_ventricular_beats_needs_number_and_rate() -> None:
    def told(intervals: list[float], ventricular: str) -> bool:
        judged, _ = judge(blocks_of(intervals, ventricular=ventricular))
        return bool(present(judged, Rule.VENTRICULAR_TACHYCARDIA))

    normal = [0.8] * 6
    assert told([*normal, *[0.45] * 5, 1.0], "nnnnnnn" + "vvvvv")
    assert not told([*normal, *[0.45] * 4, 1.0], "nnnnnnn" + "vvvv")
    assert not told([*normal, *[0.7] * 6, 1.0], "nnnnnnn" + "vvvvvv")
    # One beat that was taken for a normal one, or missed, does not hide the rest.
    assert told([*normal, *[0.45] * 6, 1.0], "nnnnnnn" + "vvnvvv")
    assert told([*normal, 0.45, 0.45, 0.9, 0.45, 0.45, 0.45, 1.0], "nnnnnnn" + "vvvvvv")


def test_an_old_tachycardia_is_over_when_beats_cease() -> None:
    signal, _ = simulated(27, "sinus:75@0 vt:170@15 asystole@25", 36)
    judged, _ = judge(detect(signal))
    assert present(judged, Rule.VENTRICULAR_TACHYCARDIA)[-1][2] <= 30
    assert present(judged, Rule.ASYSTOLE)[-1][1] <= 35


def test_limits_are_the_beds_own() -> None:
    signal, _ = simulated(28, "sinus:75@0 sinus:55@20", 45)
    assert not conditions(judge(detect(signal))[0])
    strict = Limits(bradycardia_bpm=60)
    assert conditions(judge(detect(signal), strict)[0]) == {Rule.BRADYCARDIA}
    rhythm = Rhythm()
    told = []
    for number, block in enumerate(detect(signal)):
        if number == 60:
            rhythm.limits = strict
        told.append(rhythm.update(block))
    assert conditions(told) == {Rule.BRADYCARDIA}


@pytest.mark.parametrize("wrong", [{"asystole_s": 0}, {"vt_beats": 1}, {"tachy": 140}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Limits(**wrong)


def test_every_rule_is_judged_every_block_in_words() -> None:
    signal, _ = simulated(29, "sinus:75@0 asystole@10", 20)
    judged, _ = judge(detect(signal))
    assert {tuple(judgement.rule for judgement in judgements) for judgements in judged} == {tuple(Rule)}
    last = judged[-1][0]
    assert last.text == f"No heart beat for {last.value:.0f} s"
    assert judged[5][0].text == ""


@pytest.mark.data
@pytest.mark.parametrize(
    ("record", "start_s", "rules"),
    [
        # Sinus rhythm; bigeminy; fibrillating atria; a sick sinus node with pauses of 4 s.
        ("100", 0, set()),
        ("119", 0, set()),
        ("203", 100, {Rule.ATRIAL_FIBRILLATION}),
        ("232", 1040, {Rule.ASYSTOLE}),
    ],
)
def test_real_rhythms(data_dir: Path, record: str, start_s: float, rules: set[Rule]) -> None:
    signal = recorded(data_dir / "mitdb" / record, start_s, start_s + 60)
    judged, _ = judge(detect(Resampled(0, signal.values, signal.missing)))
    assert conditions(judged) == rules


@pytest.mark.data
def test_real_flutter_is_told_within_ten_seconds(data_dir: Path) -> None:
    judged, _ = judge(detect(recorded(data_dir / "mitdb" / "207", 0, 75)))
    spans = present(judged, Rule.VENTRICULAR_FIBRILLATION)
    assert 40.8 < spans[0][1] < 50.8
    # The second stretch of flutter ends at 61.8 s.
    assert spans[-1][2] < 66
