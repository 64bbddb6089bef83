"""Which threshold was in force, by what the audit log and the recordings say."""

from __future__ import annotations

from typing import Any, cast

from monitor.history.archive import Piece
from monitor.history.stays import Stay, stay_of, thresholds_of
from stream.contract import Audit
from stream.recording.segment import Begin, Segment

S = 1_000_000_000
# What the clocks of device and recorder differ by.
AHEAD = 1000 * S


class Recorded:
    """A segment, as far as it is asked here."""

    def __init__(self, session: str, start_s: int) -> None:
        self.begin = Begin(
            bed="a",
            session=session,
            n0=0,
            t0=start_s * S,
            fs=500.0,
            leads=("II",),
            gain=(1000.0,),
            begun_ns=start_s * S + AHEAD,
        )

    def times(self, first: int, last: int) -> list[int]:
        return [self.begin.t0 + n * 2_000_000 for n in range(first, last)]


def piece(session: str, start_s: int) -> Piece:
    return Piece((cast(Segment, Recorded(session, start_s)),))


def entry(kind: str, at_s: int, asked: Any = None, before: Any = None, after: Any = None) -> Audit:
    value = {"asked": asked}
    if before is not None or after is not None:
        value |= {"before": before, "after": after}
    return Audit(
        entry=f"{kind}{at_s}",
        bed="a",
        kind=kind,
        who="anna",
        at=at_s * S + AHEAD,
        done=True,
        value=value,
        message="",
        number=0,
        previous="0" * 64,
        digest="0" * 64,
    )


def held(entries: list[Audit], found: list[Piece], *at_s: int, model: str = "cae") -> list[float | None]:
    thresholds = thresholds_of(entries, found, model)
    return [thresholds.at(at * S) for at in at_s]


FEED = [piece("one", 0)]


def test_a_threshold_holds_from_when_it_was_set_until_it_is_taken_back() -> None:
    entries = [entry("set_threshold", 10, 3.0, None, 3.0), entry("set_threshold", 20, None, 3.0, None)]
    assert held(entries, FEED, 5, 10, 19, 20) == [None, 3.0, 3.0, None]
    assert held([], FEED, 5) == held([], [], 5) == [None]


def test_a_confirmed_baseline_sets_one_too() -> None:
    assert held([entry("confirm_baseline", 10, None, None, 2.5)], FEED, 9, 11) == [None, 2.5]


def test_it_ends_with_the_patient_and_with_another_model() -> None:
    begin = entry("set_threshold", 10, 3.0, None, 3.0)
    assert held([begin, entry("discharge", 20)], FEED, 15, 25) == [3.0, None]
    assert held([begin, entry("admit", 20)], FEED, 15, 25) == [3.0, None]
    assert held([begin, entry("admit", 20, "same")], FEED, 15, 25) == [3.0, 3.0]
    change = entry("set_model", 20, "vae", "cae", "vae")
    assert held([begin, change], FEED, 15, 25) == [3.0, None]
    # Set for one model, it says nothing of the scores of the other.
    other = entry("set_threshold", 30, 7.0, None, 7.0)
    assert held([begin, change, other], FEED, 15, 25, 35) == [3.0, None, None]
    assert held([begin, change, other], FEED, 15, 25, 35, model="vae") == [None, None, 7.0]
    assert held([begin, entry("set_model", 20, "cae", "cae", "cae")], FEED, 25) == [3.0]


def test_behind_another_device_it_waits_for_somebody_to_say_who_the_patient_is() -> None:
    feeds = [piece("one", 0), piece("two", 30)]
    begin = entry("set_threshold", 10, 3.0, None, 3.0)
    assert held([begin], feeds, 15, 35) == [3.0, None]
    for who in (entry("admit", 40, "same"), entry("set_limits", 40, {"high": 140}, {}, {"high": 140})):
        assert held([begin, who], feeds, 15, 35, 45) == [3.0, None, 3.0]


def test_a_stay_is_of_one_patient_and_not_of_one_device() -> None:
    entries = [
        entry("admit", 10),
        entry("confirm_baseline", 20, None, None, 2.5),
        entry("admit", 30, "same"),
        entry("discharge", 50),
    ]
    assert stay_of(entries, FEED, 40 * S) == Stay(10 * S, 20 * S)
    assert stay_of(entries, FEED, 5 * S) == Stay(None, None)
    assert stay_of(entries, FEED, 60 * S) == Stay(50 * S, None)
