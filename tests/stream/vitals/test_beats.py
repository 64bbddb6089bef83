from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.beats import match, read_reference
from stream.leads import LEADS
from stream.preprocess import Resampled
from stream.vitals.beats import BeatDetector, Beats, Heard, find_together
from stream.vitals.grid import BLOCK, FS
from tests.stream.vitals.feeds import TWO, beats_of, condition, detect, missed_and_extra, recorded, simulated

# The detector's own delay for the first verdict.
LEARNING_S = 3.0


def times(blocks: list[Beats]) -> np.ndarray:
    return np.array([beat.index / FS for beat in beats_of(blocks)])


def signal_of(values: np.ndarray) -> Resampled:
    return Resampled(0, values.astype(np.float32), np.zeros(values.shape, np.float32))


@pytest.fixture(scope="module")
def eventful() -> Resampled:
    # Ectopic beats, a lead that comes off and movement: all that state could depend on.
    signal, _ = simulated(4, "pvc:20@0 leadoff:II@5+3 motion:1@9+3 vf@14", 20)
    return signal


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_chunks_change_nothing(eventful: Resampled, data: st.DataObject) -> None:
    n = eventful.values.shape[1]
    # Which lead is usable changes at block boundaries only.
    usable = [np.array([block % 7 != 3, block % 11 != 5]) for block in range(n // BLOCK + 1)]

    def run(cuts: list[int]) -> list[Beats]:
        detector, blocks = BeatDetector(2), []
        edges = sorted({0, n, *range(0, n, BLOCK), *cuts})
        for begin, end in pairwise(edges):
            piece = slice(begin, end)
            blocks += detector.push(
                begin, eventful.values[:, piece], eventful.missing[:, piece], usable[begin // BLOCK]
            )
        return blocks

    cuts = data.draw(st.lists(st.integers(0, n), max_size=40))
    assert run(cuts) == run([])


def test_several_blocks_at_once_are_one_after_the_other(eventful: Resampled) -> None:
    detector = BeatDetector(2)
    at_once = detector.push(0, eventful.values, eventful.missing, np.ones(2, np.bool_))
    assert at_once == detect(eventful)


def test_beds_together_are_each_alone(eventful: Resampled) -> None:
    # Of different leads and phases, with a gap, and among them one that has not learned its levels yet.
    gap = np.zeros_like(eventful.missing)
    gap[:, 730:790] = np.arange(60) / FS
    twelve, _ = simulated(5, "vt:180@6", 20, LEADS)
    beds = [
        (eventful.values, eventful.missing),
        (eventful.values, gap),
        (eventful.values[:1], gap[:1]),
        (np.roll(eventful.values, 333, axis=1), eventful.missing),
        (np.zeros_like(eventful.values), eventful.missing),
        (twelve.values, twelve.missing),
    ] * 2
    blocks = twelve.values.shape[1] // BLOCK
    together, alone = ([BeatDetector(len(values)) for values, _ in beds] for _ in range(2))
    for block in range(blocks):
        # The later half begin later.
        late = block >= 5
        cut = slice(block * BLOCK, (block + 1) * BLOCK)
        heard, expected = [], []
        for number, (values, missing) in enumerate(beds):
            usable = np.arange(len(values)) % 3 != block % 5
            if number < len(beds) // 2 or late:
                first = alone[number].next
                expected += alone[number].push(first, values[:, cut], missing[:, cut], usable)
                taken = together[number].take(first, values[:, cut], missing[:, cut])
                heard += [Heard(together[number], *block, usable) for block in taken]
        assert find_together(heard) == expected


def test_samples_before_the_first_whole_block_are_left_out(eventful: Resampled) -> None:
    late = Resampled(70, eventful.values[:, 70:], eventful.missing[:, 70:])
    blocks = detect(late)
    assert blocks[0].first == 100
    found = times(blocks)
    missed, extra = missed_and_extra(found[found < 7], times(detect(eventful))[:7])
    assert len(missed) <= 1
    assert not extra


def test_a_hole_between_samples_is_refused(eventful: Resampled) -> None:
    detector = BeatDetector(2)
    detector.push(0, eventful.values[:, :60], eventful.missing[:, :60], np.ones(2, np.bool_))
    with pytest.raises(ValueError, match="sample 60 is next, not 70"):
        detector.push(70, eventful.values[:, :60], eventful.missing[:, :60], np.ones(2, np.bool_))


@pytest.mark.parametrize("leads", [LEADS, TWO, ("V5",)], ids=["12", "2", "1"])
@pytest.mark.parametrize("timeline", ["", "sinus:45@0", "sinus:150@0", "af@0", "pvc:20@0"])
def test_finds_every_beat_and_no_other(leads: tuple[str, ...], timeline: str) -> None:
    signal, there = simulated(11, timeline, 30, leads)
    blocks = detect(signal)
    there = there[(there > 1.5) & (there < 28)]
    found = times(blocks)
    missed, extra = missed_and_extra(found[(found > 1.4) & (found < 28.1)], there)
    assert missed == []
    assert extra == []


def test_says_when_all_is_decided_and_keeps_to_it() -> None:
    signal, _ = simulated(12, "af@0 pvc:20@0", 40)
    before = 0
    for block in detect(signal):
        assert block.settled >= before
        assert all(before <= beat.index < block.settled for beat in block.found)
        if block.first > LEARNING_S * FS:
            # No beat is later than 1.5 s.
            assert block.first + BLOCK - block.settled <= 1.5 * FS
        before = block.settled


@pytest.mark.parametrize("noise_mv", [0.0, 0.02])
def test_nothing_beats_in_a_flat_line(noise_mv: float) -> None:
    noise = np.random.default_rng(1).normal(0, noise_mv, (2, 30 * 250))
    assert beats_of(detect(condition(noise, 250.0))) == []


def test_nothing_beats_after_the_heart_has_stopped() -> None:
    signal, there = simulated(13, "sinus:80@0 asystole@12", 40)
    found = times(detect(signal))
    assert found[-1] == pytest.approx(there[there < 12][-1], abs=0.06)


def test_p_waves_alone_are_no_beats() -> None:
    # Complete block without escape rhythm: P waves go on, 0.15 mV high and 0.1 s long.
    def only_p(millivolts: np.ndarray) -> None:
        time_s = np.arange(millivolts.shape[1]) / 250
        phase = (time_s[time_s >= 12] % 0.8) - 0.4
        millivolts[:, time_s >= 12] += 0.15 * np.exp(-((phase / 0.025) ** 2) / 2)

    signal, _ = simulated(13, "sinus:80@0 asystole@12", 40, change=only_p)
    assert times(detect(signal))[-1] < 12.1


def test_a_lead_that_comes_off_leaves_the_others() -> None:
    signal, there = simulated(14, "leadoff:II@10+8", 30)
    found = times(detect(signal))
    missed, extra = missed_and_extra(found[(found > 0.9) & (found < 28)], there[(there > 1) & (there < 28)])
    assert missed == []
    assert extra == []


def test_a_lead_that_goes_flat_leaves_the_others() -> None:
    def flat(millivolts: np.ndarray) -> None:
        millivolts[0, 10 * 250 : 20 * 250] = 0.0

    signal, there = simulated(14, "", 30, change=flat)
    found = times(detect(signal))
    inside = (there > 12.5) & (there < 28)
    missed, _ = missed_and_extra(found, there[inside])
    assert missed == []


def test_a_lead_that_is_not_usable_does_not_count() -> None:
    def noisy(millivolts: np.ndarray) -> None:
        millivolts[0] += np.random.default_rng(2).normal(0, 2, millivolts.shape[1])

    signal, there = simulated(15, "", 30, change=noisy)
    found = times(detect(signal, usable=[False, True]))
    missed, extra = missed_and_extra(found[(found > 0.9) & (found < 28)], there[(there > 1) & (there < 28)])
    assert missed == []
    assert extra == []


def test_no_lead_no_beats() -> None:
    signal, _ = simulated(15, "", 10)
    blocks = detect(signal, usable=[False, False])
    assert beats_of(blocks) == []
    assert {block.leads for block in blocks} == {0}


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_change_of_amplitude_is_followed_within_seconds(factor: float) -> None:
    def change(millivolts: np.ndarray) -> None:
        millivolts[:, 12 * 250 :] *= factor

    signal, there = simulated(16, "sinus:75@0", 30, change=change)
    found = times(detect(signal))
    later = (there > 16) & (there < 28)
    missed, extra = missed_and_extra(found[(found > 16) & (found < 28.1)], there[later])
    assert missed == []
    assert extra == []


def test_an_artefact_is_forgotten_within_seconds() -> None:
    def struck(millivolts: np.ndarray) -> None:
        millivolts[:, 12 * 250 : 13 * 250] += 20 * np.random.default_rng(3).normal(0, 1, (2, 250))

    signal, there = simulated(16, "sinus:75@0", 30, change=struck)
    found = times(detect(signal))
    later = (there > 16) & (there < 28)
    missed, extra = missed_and_extra(found[(found > 16) & (found < 28.1)], there[later])
    assert missed == []
    assert extra == []


def test_tells_ventricular_beats() -> None:
    signal, _ = simulated(17, "sinus:70@0 vt:150@15 sinus:70@25", 40)
    beats = beats_of(detect(signal))
    inside = [beat for beat in beats if 15.5 < beat.index / FS < 24.5]
    outside = [beat for beat in beats if not 14 < beat.index / FS < 26.5]
    assert np.mean([beat.ventricular for beat in inside]) > 0.9
    assert not any(beat.ventricular for beat in outside)
    assert np.median([beat.width_s for beat in inside]) > np.median([beat.width_s for beat in outside]) + 0.03
    assert {beat.kind for beat in inside}.isdisjoint({beat.kind for beat in outside})


def test_amplitude_has_its_sign() -> None:
    signal, _ = simulated(18, "", 12, ("II",))
    upright = [beat.amplitude_mv for beat in beats_of(detect(signal))]
    inverted = beats_of(detect(signal_of(-signal.values)))
    assert [beat.amplitude_mv for beat in inverted] == pytest.approx([-value for value in upright])


# Measured on the first minute: all but what the learning time costs.
@pytest.mark.data
@pytest.mark.parametrize(
    ("record", "most_missed", "most_extra"), [("100", 1, 0), ("203", 2, 1), ("208", 2, 1)]
)
def test_real_beats_are_found(data_dir: Path, record: str, most_missed: int, most_extra: int) -> None:
    path = data_dir / "mitdb" / record
    reference = read_reference(path, 360.0).beats
    reference = reference[reference < 58]
    found = times(detect(recorded(path, 0, 60))) - 0.01
    found = found[found < 58.2]
    pairs = match(reference, found)
    assert len(reference) - len(pairs) <= most_missed
    assert len(found) - len(pairs) <= most_extra


@pytest.mark.data
def test_real_ventricular_beats_are_told(data_dir: Path) -> None:
    path = data_dir / "mitdb" / "208"
    reference = read_reference(path, 360.0)
    beats = beats_of(detect(recorded(path, 0, 60)))
    pairs = match(reference.beats, np.array([beat.index / FS - 0.01 for beat in beats]))
    told = {
        symbol: np.mean([beats[at].ventricular for beat, at in pairs if reference.symbols[beat] == symbol])
        for symbol in "NV"
    }
    assert told["V"] > 0.95
    assert told["N"] < 0.1


@pytest.mark.data
def test_twelve_real_leads_agree_with_few(data_dir: Path) -> None:
    signal = recorded(next((data_dir / "ptb").rglob("*.hea")).with_suffix(""), 0, 40)
    twelve = times(detect(signal))
    two = times(detect(Resampled(0, signal.values[[1, 7]], signal.missing[[1, 7]])))
    missed, extra = missed_and_extra(two, twelve, within_s=0.1)
    assert len(twelve) > 30
    assert missed == []
    assert extra == []


def test_an_index_is_where_the_energy_of_the_beat_is() -> None:
    signal, there = simulated(19, "", 20, LEADS)
    found = times(detect(signal))
    off = [float(found[np.abs(found - at).argmin()] - at) for at in there if 3 < at < 18]
    # The conditioner's delay is in it.
    assert abs(np.median(off)) < 0.03
