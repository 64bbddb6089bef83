from __future__ import annotations

import pytest

from monitor.live.ward import Ward
from monitor.summary import (
    alarm_line,
    bed_line,
    brief,
    clock_time,
    duration,
    lag,
    loudest,
    natural,
    number,
    ward_trouble,
)
from stream.contract import AlarmKind, Presence, Priority
from tests.monitor.messages import T0, S, alarm, chunk, finding, vitals


def ward_of(*beds: str, scored: bool = True) -> Ward:
    ward = Ward()
    for bed in beds:
        for seq in range(60):
            ward.take_chunk(chunk(seq, bed=bed), T0 + (seq + 1) * S // 5)
        if scored:
            ward.take_finding(finding(8, bed=bed))
    return ward


NOW = T0 + 12 * S


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [
        (0.9, "0 s", "0 s"),
        (59.9, "59 s", "59 s"),
        (185.0, "3 min 05 s", "3 min"),
        (7800.0, "2 h 10 min", "2 h"),
        (-3.0, "0 s", "0 s"),
    ],
)
def test_durations_read_naturally(seconds: float, text: str, short: str) -> None:
    assert duration(seconds) == text
    assert brief(seconds) == short


def test_lag_is_told_no_finer_than_anyone_can_see() -> None:
    assert [lag(s) for s in (0.004, 0.24, 3.0, 75.0)] == ["<0.1 s", "0.2 s", "3.0 s", "1 min"]


def test_a_device_time_out_of_all_reason_has_a_sign() -> None:
    assert clock_time(10**30) == "?"


def test_every_state_has_a_sign_and_a_text_of_its_own() -> None:
    seen = set()
    for priority in (Priority.HIGH, Priority.MEDIUM, Priority.LOW):
        for kind in AlarmKind:
            line = alarm_line(alarm(priority=priority, kind=kind), T0)
            seen.add(line["sign"])
    assert seen == {"***", "**", "*", "!!!", "!!", "!"}
    ward = ward_of("calm")
    calm = bed_line(ward.beds["calm"], NOW)
    silent = bed_line(ward.beds["calm"], NOW + 9 * S)
    unscored = bed_line(ward_of("x", scored=False).beds["x"], NOW)
    assert len({line["sign"] for line in (calm, silent, unscored)}) == 3
    assert calm["text"] == "no alarm"
    assert silent["text"] == "no signal for 8 s"
    assert unscored["text"] == "not scored for 12 s"


def test_an_alarm_says_what_since_when_and_for_how_long() -> None:
    ward = ward_of("bed-1")
    ward.take_alarm(alarm(message="unusual ECG in 16 windows", onset_t=T0 + 2 * S))
    ward.take_alarm(alarm("a2", priority=Priority.LOW))
    line = bed_line(ward.beds["bed-1"], NOW)
    assert line["text"] == "unusual ECG in 16 windows"
    assert line["since"] == clock_time(T0 + 2 * S)
    assert line["for"] == "10 s"
    assert line["more"] == 1
    assert (line["level"], line["technical"], line["sign"]) == ("medium", False, "**")
    assert line["score"] == "0.5"
    assert line["lag"] == "<0.1 s"


def test_an_acknowledged_alarm_says_so() -> None:
    line = alarm_line(alarm(presence=Presence.ACKNOWLEDGED), T0)
    assert line["acknowledged"]
    assert line["presence"] == "acknowledged"
    ward = ward_of("bed-1")
    ward.take_alarm(alarm(message="unusual ECG"))
    seen = alarm(number=1, presence=Presence.ACKNOWLEDGED, message="acknowledged by anna")
    ward.take_alarm(seen.model_copy(update={"who": "anna"}))
    line = bed_line(ward.beds["bed-1"], NOW)
    assert (line["text"], line["presence"]) == ("unusual ECG", "acknowledged by anna"), (
        "and still says what it is"
    )
    assert line["brief"] == "unusual ECG ack"


def test_what_nobody_has_answered_is_told_beside_what_somebody_has() -> None:
    ward = ward_of("bed-1")
    ward.take_alarm(alarm("a", priority=Priority.HIGH, presence=Presence.ACKNOWLEDGED))
    ward.take_alarm(alarm("b", kind=AlarmKind.TECHNICAL))
    ward.take_alarm(alarm("c", priority=Priority.LOW))
    line = bed_line(ward.beds["bed-1"], NOW)
    assert (line["level"], line["acknowledged"]) == ("high", True)
    assert (line["more"], line["more_level"], line["more_sign"]) == (2, "medium", "!!")


def test_the_loudest_alarm_is_the_most_urgent_one_that_nobody_has_answered() -> None:
    ward = ward_of("bed-1", "bed-2")
    assert loudest(ward, NOW, None) == ""
    ward.take_alarm(alarm("paused", priority=Priority.INFO, kind=AlarmKind.TECHNICAL, rule="paused"))
    assert loudest(ward, NOW, None) == ""
    ward.take_alarm(alarm("a", bed="bed-2", priority=Priority.LOW))
    ward.take_alarm(alarm("b", bed="bed-2", priority=Priority.HIGH, presence=Presence.LATCHED))
    assert loudest(ward, NOW, None) == "high"
    ward.take_alarm(alarm("b", 1, bed="bed-2", priority=Priority.HIGH, presence=Presence.ACKNOWLEDGED))
    assert loudest(ward, NOW, None) == "low"
    assert loudest(ward_of("bed-1", scored=False), NOW, None) == "medium", "nobody is left to raise it"
    assert loudest(ward, NOW, NOW) == "high", "all of it is old"


@pytest.mark.parametrize(
    ("quality", "issues", "bars", "text"),
    [
        ({"I": 0.9, "II": 0.5}, {}, 3, "good signal"),
        ({"I": 0.9, "II": 0.1}, {"II": ("off",)}, 2, "II off"),
        ({"I": 0.9, "II": 0.1, "V1": 0.0}, {}, 1, "2 of 3 leads poor"),
        ({"I": 0.0, "II": 0.1}, {}, 0, "no usable signal"),
    ],
)
def test_the_signal_is_told_in_bars_and_words(
    quality: dict[str, float], issues: dict[str, tuple[str, ...]], bars: int, text: str
) -> None:
    ward = ward_of("bed-1")
    bed = ward.beds["bed-1"]
    assert bed_line(bed, NOW)["signal"] == {"bars": None, "text": ""}
    ward.take_vitals(vitals(11, quality=quality, issues=issues, rate=71.6))
    line = bed_line(bed, NOW)
    assert line["signal"] == {"bars": bars, "text": text}
    assert (line["rate"], line["paused"]) == ("72", False)
    assert bed_line(bed, NOW + 5 * S)["signal"]["bars"] is None, "nobody knows any more"
    assert bed_line(bed, NOW + 5 * S)["rate"] == "–"


def test_names_are_sorted_as_people_count() -> None:
    assert sorted(["b10", "B2", "a", "2", "b2a"], key=natural) == ["2", "a", "B2", "b2a", "b10"]


def test_trouble_of_the_whole_is_told() -> None:
    ward = ward_of("bed-1", "bed-2")
    assert ward_trouble(ward, NOW, None) == ""
    assert "lost for 5 s" in ward_trouble(ward, NOW, NOW - 5 * S)
    assert "is a worker running?" in ward_trouble(ward_of("bed-1", scored=False), NOW, None)
    # One bed of two that is scored: the worker lives.
    ward.beds["bed-3"] = ward_of("bed-3", scored=False).beds["bed-3"]
    assert ward_trouble(ward, NOW, None) == ""


def test_a_bed_known_by_its_alarm_alone_is_shown() -> None:
    ward = Ward()
    ward.take_alarm(alarm(onset_t=NOW - 90 * S))
    line = bed_line(ward.beds["bed-1"], NOW)
    assert line["state"] == "silent"
    assert line["for"] == "1 min"
    assert line["lag"] == "–"


def test_an_old_score_is_not_shown_as_if_it_were_of_now() -> None:
    ward = ward_of("bed-1")
    bed = ward.beds["bed-1"]
    assert bed_line(bed, NOW)["score"] == "0.5"
    assert bed_line(bed, NOW + 9 * S)["score"] == "–"
    for seq in range(60, 100):
        ward.take_chunk(chunk(seq), T0 + (seq + 1) * S // 5)
    assert bed_line(bed, NOW + 8 * S)["score"] == "–"


def test_an_alarm_that_nobody_can_confirm_says_so() -> None:
    ward = ward_of("bed-1")
    ward.take_alarm(alarm(presence=Presence.LATCHED))
    line = bed_line(ward.beds["bed-1"], NOW + 9 * S)
    assert line["text"] == "unusual ECG"
    assert line["presence"] == "ended, latched, no signal for 8 s"


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0.0"), (-1.26, "−1.3"), (2.0, "2.0")])
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text
