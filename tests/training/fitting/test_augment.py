from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Augmentation
from training.fitting.augment import (
    MUSCLE_HZ,
    WANDER_HZ,
    band_noise,
    blocks,
    bursts,
    disturb,
    random_masks,
    stretch,
)

FS = 100.0
SHAPE = (40, 12, 800)
NOTHING = {"noise": 0.0, "wander": 0.0, "muscle": 0.0, "time_mask": 0.0}


def clean(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def augmentation(**strengths: float) -> Augmentation:
    return Augmentation(**NOTHING | strengths)


def test_without_strength_nothing_happens_and_no_random_number_is_used() -> None:
    x, rng = clean(), np.random.default_rng(0)
    np.testing.assert_array_equal(disturb(x, augmentation(), FS, rng), x)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("kind", ["noise", "wander", "muscle", "time_mask"])
def test_the_windows_stay_clean_and_the_disturbance_repeats_with_the_seed(kind: str) -> None:
    x = clean()
    before = x.copy()
    once, again, other = (
        disturb(x, augmentation(**{kind: 0.3}), FS, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, x)
    assert not np.array_equal(once, other)


def test_white_noise_has_its_strength() -> None:
    x = clean()
    added = disturb(x, augmentation(noise=0.2), FS, np.random.default_rng(0)) - x
    assert added.std() == pytest.approx(0.2, rel=0.01)
    assert abs(added.mean()) < 0.002


def test_wander_differs_from_lead_to_lead_and_stays_below_its_strength() -> None:
    x = clean((200, 12, 800))
    added = disturb(x, augmentation(wander=0.6), FS, np.random.default_rng(0)) - x
    sizes = np.sqrt((added**2).mean(axis=-1)).ravel()
    # Drawn evenly between 0 and 0.6: on average 0.3, up to what eight seconds of slow noise vary by.
    assert sizes.mean() == pytest.approx(0.3, rel=0.1)
    assert np.quantile(sizes, 0.1) < 0.1
    assert np.sqrt((sizes**2).mean()) == pytest.approx(0.6 / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize("band", [WANDER_HZ, MUSCLE_HZ])
@pytest.mark.parametrize(("fs", "samples"), [(100.0, 800), (500.0, 500), (100.0, 2000)])
def test_noise_of_a_band_has_unit_variance_and_lies_within(
    band: tuple[float, float], fs: float, samples: int
) -> None:
    noise = band_noise((300, 4, samples), fs, band, np.random.default_rng(0))
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1.0, rel=0.05)
    if samples == 2000:  # long enough to see slow frequencies
        power = (np.abs(np.fft.rfft(noise)) ** 2).mean(axis=(0, 1))
        frequencies = np.fft.rfftfreq(samples, 1 / fs)
        inside = (frequencies >= band[0] - 0.05) & (frequencies <= band[1] + 0.05)
        assert power[inside].sum() > 0.999 * power.sum()


def test_noise_above_half_the_rate_is_silence() -> None:
    assert not band_noise((1, 1, 50), 20.0, (15.0, 45.0), np.random.default_rng(0)).any()


def test_muscle_noise_comes_in_bursts() -> None:
    tension = bursts(SHAPE, FS, np.random.default_rng(0))
    assert tension.min() == 0.0
    assert tension.max() <= 1.0
    active = (tension > 0).sum(axis=-1)
    # From a second to four, less where the window ends.
    assert active.max() <= 400
    assert 100 < active.mean() < 250


def test_blocks_are_single_and_no_longer_than_allowed() -> None:
    gone = blocks((500, 12, 800), 0.25, np.random.default_rng(0))
    assert gone.sum(axis=-1).max() <= 200
    starts = np.diff(gone.astype(int), axis=-1, prepend=0) == 1
    assert starts.sum(axis=-1).max() == 1
    hit = gone.any(axis=-1)
    whole = hit.all(axis=1).mean()
    assert 0.4 < whole < 0.6
    part = hit[~hit.all(axis=1) & hit.any(axis=1)]
    assert 0.4 < part.mean() < 0.6
    # Everywhere in the window, and the same samples in all leads that lose any.
    assert gone.any(axis=(0, 1)).all()
    for window, leads in zip(gone[:50], hit[:50], strict=True):
        assert len(np.unique(window[leads], axis=0)) <= 1


def test_what_a_time_mask_takes_is_zero_and_the_rest_is_untouched() -> None:
    x = clean() + 10.0
    given_ = disturb(x, augmentation(time_mask=0.2), FS, np.random.default_rng(0))
    assert set(np.unique(given_ == x).tolist()) == {False, True}
    assert not given_[given_ != x].any()


def test_masks_keep_every_number_of_leads() -> None:
    masks = random_masks(np.ones((4000, 12)), 0.5, np.random.default_rng(0))
    count = masks.sum(axis=1)
    assert count.min() == 1
    assert 0.5 < (count == 12).mean() < 0.6
    assert np.ptp(masks[count < 12].mean(axis=0)) < 0.1  # every lead as often


@settings(max_examples=50)
@given(st.integers(0, 2**12 - 2), st.floats(0, 1), st.integers(0, 1000))
def test_masks_keep_only_leads_that_are_there_and_at_least_one(absent: int, share: float, seed: int) -> None:
    present = np.array([[not absent >> lead & 1 for lead in range(12)]] * 5, np.float32)
    masks = random_masks(present, share, np.random.default_rng(seed))
    assert not (masks & (present == 0)).any()
    assert masks.any(axis=1).all()
    if share == 1:
        np.testing.assert_array_equal(masks, present != 0)


@pytest.mark.parametrize("n", [640, 800, 1000])
def test_a_stretched_heartbeat_is_the_same_heartbeat_slower_or_faster(n: int) -> None:
    # Ten beats whatever the length, with the 12 Hz of a QRS complex at the shortest.
    def signal(samples: int) -> np.ndarray:
        turns = np.linspace(0, 10, samples)
        return np.stack([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * 8 * turns)]).astype(np.float32)

    values, state = stretch(signal(n), np.zeros((2, n), np.uint8), 800)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[:, 5:-5], signal(800)[:, 5:-5], atol=0.02)
    assert not state.any()
    if n == 800:
        np.testing.assert_allclose(values, signal(n), atol=1e-6)


def test_what_is_missing_stays_missing_when_it_is_stretched() -> None:
    state = np.zeros((1, 100), np.uint8)
    state[0, 40:50], state[0, 50:60] = 1, 2
    _, wider = stretch(np.ones((1, 100), np.float32), state, 125)
    assert 12 <= (wider == 1).sum() <= 14
    assert 12 <= (wider == 2).sum() <= 15
    assert wider[0, 62:75].all()
