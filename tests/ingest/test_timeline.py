"""The text form of what happens to a simulated patient."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.simulator import Episode, Kind, parse_timeline
from ingest.source import IngestError


def test_the_example_of_the_documentation() -> None:
    assert parse_timeline("sinus:72@0 vt:180@25 asystole@60 leadoff:V1@80+10") == (
        Episode(Kind.SINUS, 0.0, 25.0, 72.0),
        Episode(Kind.VT, 25.0, 60.0, 180.0),
        Episode(Kind.ASYSTOLE, 60.0, math.inf),
        Episode(Kind.LEAD_OFF, 80.0, 90.0, None, ("V1",)),
    )


def test_nothing_is_sinus_rhythm_at_the_resting_rate() -> None:
    assert parse_timeline("") == (Episode(Kind.SINUS, 0.0),)


def test_before_the_first_rhythm_there_is_sinus_rhythm() -> None:
    assert parse_timeline("vt@5")[0] == Episode(Kind.SINUS, 0.0, 5.0)


def test_values_have_defaults_and_places() -> None:
    af, pvc, st_, motion = parse_timeline("af@0 pvc@1 st@2 motion@3")
    assert (af.value, pvc.value, motion.value) == (110, 6, 0.5)
    assert (st_.value, st_.where) == (0.3, ("anterior",))
    assert parse_timeline("st:-0.2:inferior@1")[-1].where == ("inferior",)
    assert parse_timeline("leadoff:avr,ECG_II@1")[-1].where == ("aVR", "II")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("sinus", "expected kind"),
        ("sinus@", "expected kind"),
        ("@5", "expected kind"),
        ("sinus@1@2", "expected kind"),
        ("flutter@5", "no such kind; there are sinus"),
        ("sinus:fast@5", "the value 'fast' is no number"),
        ("sinus:72@soon", "the start 'soon' is no number"),
        ("pvc@5+long", "the duration 'long' is no number"),
        ("sinus:nan@5", "no number"),
        ("sinus:500@5", "from 20 to 220"),
        ("vt:50@5", "from 100 to 260"),
        ("sinus:72:80@5", "takes one value"),
        ("asystole:3@5", "takes no value"),
        ("sinus:72@5+10", "lasts until the next one"),
        ("pvc@-5", "begin at 0 s or later"),
        ("pvc@5+0", "longer than 0 s"),
        ("leadoff@5", "name leads"),
        ("leadoff:V9@5", "name leads"),
        ("leadoff:V1:V2@5", "name leads"),
        ("st:0.3:posterior@5", "anterior, inferior, lateral"),
        ("st:2@5", "from -1 to 1"),
    ],
)
def test_an_entry_that_makes_no_sense_is_named(entry: str, says: str) -> None:
    with pytest.raises(IngestError, match=says) as caught:
        parse_timeline(f"sinus:72@0 {entry}")
    assert f"'{entry}'" in str(caught.value)


def test_two_rhythms_at_once_are_refused() -> None:
    with pytest.raises(IngestError, match="two rhythms begin at 5 s"):
        parse_timeline("af@5 vt@5")


@given(st.text(max_size=40))
def test_any_text_is_a_timeline_or_our_error(text: str) -> None:
    try:
        episodes = parse_timeline(text)
    except IngestError:
        return
    assert episodes[0].start_s == 0.0
