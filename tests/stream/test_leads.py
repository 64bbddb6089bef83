"""Names of leads, in the spellings of files and devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.leads import LEADS, canonical_lead, canonical_leads


@pytest.mark.parametrize(
    ("spelling", "lead"),
    [
        ("I", "I"),
        ("AVR", "aVR"),
        ("avl", "aVL"),
        ("v1", "V1"),
        (" V6 ", "V6"),
        ("MLII", "II"),
        ("MLI", "I"),
        ("MLIII", "III"),
        ("MCL1", "V1"),
        ("mcl6", "V6"),
        ("D2", "II"),
        ("C4", "V4"),
        ("ECG II", "II"),
        ("ECG_II", "II"),
        ("ECG Lead II", "II"),
        ("EKG:aVF", "aVF"),
        ("ch V3", "V3"),
        ("Channel V3", "V3"),
        ("Lead I (Einthoven)", "I"),
        ("Lead aVR (Goldberger, augmented)", "aVR"),
        ("MDC_ECG_LEAD_V1", "V1"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("MDC_ECG_ELEC_POTL_II", "II"),
    ],
)
def test_a_spelling_means_its_lead(spelling: str, lead: str) -> None:
    assert canonical_lead(spelling) == lead


@pytest.mark.parametrize(
    ("name", "kept"), [("V", "V"), ("ECG", "ECG"), ("V7", "V7"), ("PLETH", "PLETH"), (" x ", "x"), ("", "")]
)
def test_what_means_no_standard_lead_keeps_its_name(name: str, kept: str) -> None:
    assert canonical_lead(name) == kept


def test_the_first_of_two_channels_keeps_the_lead_s_name() -> None:
    assert canonical_leads(["MLII", "II", "ECG II"]) == ("II", "II#2", "ECG II")


def test_channels_of_one_name_are_numbered_and_the_nameless_get_one() -> None:
    assert canonical_leads(["ECG", "ECG", "", ""]) == ("ECG", "ECG#2", "?", "?#4")


@given(st.text(max_size=20))
def test_a_canonical_name_is_its_own(name: str) -> None:
    assert canonical_lead(canonical_lead(name)) == canonical_lead(name)


NAMES = st.sampled_from([*LEADS, "MLII", "AVR", "ECG II", "ECG", "", "V", "II#2", "x"]) | st.text(max_size=6)


@given(st.lists(NAMES, max_size=16))
def test_every_channel_gets_a_name_of_its_own(names: list[str]) -> None:
    leads = canonical_leads(names)
    assert len(leads) == len(names)
    assert len(set(leads)) == len(leads)
    assert all(leads)


@given(st.permutations(LEADS))
def test_the_twelve_leads_keep_their_order(leads: list[str]) -> None:
    assert canonical_leads(leads) == tuple(leads)
