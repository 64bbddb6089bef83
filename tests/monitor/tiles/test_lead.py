from __future__ import annotations

from monitor.tiles.lead import LeadChoice
from stream.contract import Validity
from tests.monitor.messages import S

LEADS = ("I", "II", "V1")
ALL_ON = (Validity.OK,) * 3


def chosen(choice: LeadChoice, second: int, **quality: float) -> str:
    return LEADS[choice.choose(quality, ALL_ON, second * S)]


def test_lead_two_is_shown_while_it_is_good() -> None:
    choice = LeadChoice(LEADS)
    assert chosen(choice, 0) == "II", "nothing is known yet"
    assert chosen(choice, 1, I=1.0, II=0.7, V1=0.9) == "II", "others may be better"


def test_a_poor_lead_is_left_for_the_best_after_two_seconds() -> None:
    choice = LeadChoice(LEADS)
    assert chosen(choice, 0, II=1.0) == "II"
    assert chosen(choice, 1, I=0.8, II=0.1, V1=0.9) == "II", "a second of noise"
    assert chosen(choice, 2, I=0.8, II=0.1, V1=0.9) == "V1"
    # And back, once it has been good for a while.
    for second in range(3, 12):
        assert chosen(choice, second, I=0.8, II=0.9, V1=0.7) == "V1"
    assert chosen(choice, 12, I=0.8, II=0.9, V1=0.7) == "II"


def test_a_poor_lead_stays_where_no_other_is_good() -> None:
    choice = LeadChoice(LEADS)
    for second in range(30):
        assert chosen(choice, second, I=0.5, II=0.3, V1=0.2) == chosen(choice, second)


def test_a_bed_that_begins_with_lead_two_off_shows_another() -> None:
    choice = LeadChoice(LEADS)
    assert choice.choose({}, (Validity.OK, Validity.OFF, Validity.OK), 0) == 0


def test_without_lead_two_the_best_one_is_shown_and_kept() -> None:
    leads = ("V1", "V5")
    choice = LeadChoice(leads)
    valid = (Validity.OK,) * 2
    assert choice.choose({"V1": 0.7, "V5": 0.9}, valid, 0) == 1
    assert choice.choose({"V1": 1.0, "V5": 0.7}, valid, 60 * S) == 1
