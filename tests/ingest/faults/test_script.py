"""A fault script is understood, or refused in one line that says where and what would be right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.faults.script import AnyFault, Chance, FaultScript, parse_script, read_script
from ingest.source import IngestError

EXAMPLES = sorted((Path(__file__).parents[3] / "docs" / "faults").glob("*.yaml"))
KINDS = [get_args(model.model_fields["fault"].annotation)[0] for model in get_args(AnyFault)]

keys = st.sampled_from(["fault", "at", "for", "every", "beds", "leads", "probability", "snr_db", "fs", "ppm"])
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(KINDS)
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
scripts = st.fixed_dictionaries(
    {
        "faults": st.lists(
            st.fixed_dictionaries({"fault": st.sampled_from(KINDS)}, optional={"at": values, "for": values})
            | values,
            max_size=4,
        )
    },
    optional={"seed": values},
).map(lambda script: yaml.safe_dump(script).encode())


def is_understood_or_refused(data: bytes) -> None:
    said = None
    try:
        assert isinstance(parse_script(data, "f.yaml"), FaultScript)
    except IngestError as error:
        said = str(error)
    assert said is None or (said.startswith("f.yaml") and "\n" not in said)


@settings(max_examples=300, deadline=None)
@given(
    scripts | st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_input_is_understood_or_refused_in_one_line(data: bytes) -> None:
    is_understood_or_refused(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000,
        b"- " * 30_000,
        b"{" * 5_000,
        b"a: &a [*a]",
        b"? [1]\n: 2",
        b"a: 2001-99-99",
        b"a: " + b"9" * 5000,
        b"\x00",
        b"\xff",
        b"!!python/object:os.system x",
        b"%YAML 9.9\n---\na",
        b"a: 1\n---\nb: 1",
    ],
)
def test_what_parsers_fall_over_is_refused(data: bytes) -> None:
    with pytest.raises(IngestError):
        parse_script(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("faults:\n- fault: drp", "f.yaml:2: faults[0]: no such fault; there are drop, duplicate, reorder"),
        ("faults:\n- at: 3", "f.yaml:2: faults[0]: needs 'fault:' and one of drop"),
        ("faults:\n- fault: gap\n- fault: noise", "f.yaml:3: faults[1]: needs 'snr_db:'"),
        (
            "faults:\n- fault: noise\n  snr_db: 3\n  snr: 4",
            "f.yaml:4: faults[0].snr: is not known here; there are at, for, every, beds, probability, leads",
        ),
        (
            "faults:\n- fault: gap\n  at: -1",
            "f.yaml:3: faults[0].at: input should be greater than or equal to 0",
        ),
        ("faults:\n- fault: gap\n  for: 3\n  every: 3", "f.yaml:2: faults[0]: every: needs a shorter for"),
        (
            "faults:\n- fault: drop\n  beds: icu-1",
            "f.yaml:3: faults[0].beds: expected a list: as in [II, V1]",
        ),
        ("faults: {fault: gap}", "f.yaml:1: faults: expected a list: a dash before each fault"),
        ("faults:\n- fault: gap\n  at: 1\n  at: 2", "f.yaml:4: no YAML: 'at' stands twice"),
        ("faults:\n - fault: gap\n   at 3: 1: 2", "f.yaml:3: no YAML: mapping values are not allowed here"),
        ("seed: 3", "f.yaml:1: needs 'faults:'"),
        ("", "f.yaml: expected 'faults:' and below it a list"),
    ],
)
def test_an_error_says_where_and_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(IngestError) as refused:
        parse_script(text.encode(), "f.yaml")
    assert str(refused.value).startswith(says)


# What the fuzzer found, in short: each token costs as much as there are open brackets, a hundred times more
# than with a limit.
@pytest.mark.parametrize("text", ["[-[[-au--[([" * 90, "[-[" * 340, "[[" * 512, "- [[" * 250])
def test_brackets_without_end_are_refused_before_they_cost_time(text: str) -> None:
    times = []
    for _ in range(3):
        begun = time.process_time()
        with pytest.raises(IngestError, match="nested too deeply"):
            parse_script(text.encode())
        times.append(time.process_time() - begun)
    assert min(times) < 0.01


def test_the_shipped_examples_are_understood_and_show_every_fault() -> None:
    scripts = [read_script(path) for path in EXAMPLES]
    assert {fault.fault for script in scripts for fault in script.faults} == set(KINDS)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("{fault: gap, beds: [icu-9]}", "no bed is called icu-9; there are icu-1, icu-2"),
        ("{fault: lead-off, leads: [V9], beds: ['*-1']}", "none of its beds has a lead V9; there are II, V1"),
        ("{fault: lead-set, leads: [V1]}", "bed icu-2 has none of these leads; it has I II"),
    ],
)
def test_a_fault_that_would_befall_nobody_is_refused(fault: str, says: str) -> None:
    script = parse_script(f"faults: [{{fault: gap}}, {fault}]".encode())
    with pytest.raises(IngestError, match=r"f\.yaml, faults\[1\]") as refused:
        script.check_targets("f.yaml", {"icu-1": ("II", "V1"), "icu-2": ("I", "II")})
    assert says in str(refused.value)


@given(at=st.integers(0, 50), lasts=st.integers(1, 20), rest=st.integers(1, 20), tenths=st.integers(0, 3000))
def test_every_time_is_there_for_as_long_as_it_says(at: int, lasts: int, rest: int, tenths: int) -> None:
    every = lasts + rest
    text = f"faults: [{{fault: gap, at: {at / 10}, for: {lasts / 10}, every: {every / 10}}}]"
    (fault,) = parse_script(text.encode()).faults
    inside = tenths >= at and (tenths - at) % every < lasts
    assert fault.occurrence(tenths / 10) == ((tenths - at) // every if inside else None)
    spans = list(fault.spans(tenths / 10, tenths / 10 + 5))
    assert spans == sorted(spans)
    for number, first, last in spans:
        assert (first, last) == pytest.approx(
            ((at + number * every) / 10, (at + number * every + lasts) / 10)
        )
        assert first < tenths / 10 + 5
        assert last > tenths / 10
    was_active = sum(fault.occurrence(tenth / 10) is not None for tenth in range(tenths))
    assert fault.active_s(tenths / 10) == pytest.approx(was_active / 10, abs=1e-6)


def test_chance_depends_on_seed_bed_fault_and_number_alone() -> None:
    drawn = [
        Chance(seed, bed, fault).uniform(number)
        for seed in (0, 1)
        for bed in ("a", "b")
        for fault in (0, 1)
        for number in range(200)
    ]
    assert len(set(drawn)) == len(drawn)
    assert 0.47 < sum(drawn) / len(drawn) < 0.53
    assert Chance(1, "a", 0).uniform(7) == Chance(1, "a", 0).uniform(7)
