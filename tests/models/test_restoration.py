from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.backends import open_session
from models.bundle import Bundle, BundleError
from models.restoration import RestoringSession, restoring
from models.scoring import score
from stream.verdict import judge
from stream.windows import Window
from tests.models.conftest import LEADS, random_windows, run_file, small_spec

SAMPLES = 8
few = settings(max_examples=50, deadline=None)
some_masks = arrays(
    np.float32, st.tuples(st.integers(0, 5), st.just(4)), elements=st.sampled_from([0.0, 1.0])
)


def copies(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a network says that copies the leads it sees and expects their mean in all others."""
    present = mask[:, :, np.newaxis] != 0
    mean = np.sum(x, axis=1, keepdims=True, where=present) / np.maximum(present.sum(axis=1, keepdims=True), 1)
    return {
        "recon_mean": np.where(present, x, mean).astype(np.float32),
        "distance": mask.sum(axis=1).astype(np.float32),
    }


def signals(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((*mask.shape, SAMPLES)).astype(np.float32)
    return x * mask[:, :, np.newaxis]


class Counting:
    def __init__(self) -> None:
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        self.given.append((x, mask))
        return copies(x, mask)


@given(mask=some_masks, seed=st.integers(0, 1000))
@few
def test_each_lead_is_what_the_others_say_of_it(mask: np.ndarray, seed: int) -> None:
    x = signals(mask, seed)
    restored = restoring(copies)(x, mask)["recon_restored"]
    assert restored.shape == x.shape
    assert restored.dtype == np.float32
    for window, lead in np.ndindex(mask.shape):
        others = [other for other in range(4) if other != lead and mask[window, other]]
        # Alone, as the network reconstructs it; of no lead at all, nothing.
        wanted = x[window, others].mean(axis=0) if others else x[window, lead]
        np.testing.assert_allclose(restored[window, lead], wanted, rtol=1e-5, atol=1e-6)


@given(mask=some_masks, seed=st.integers(0, 1000))
@few
def test_all_else_is_what_the_plain_run_says(mask: np.ndarray, seed: int) -> None:
    x = signals(mask, seed)
    before = x.copy(), mask.copy()
    plain, found = copies(x, mask), restoring(copies)(x, mask)
    assert found.keys() == {*plain, "recon_restored"}
    for name, value in plain.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_only_leads_that_have_company_are_hidden() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], np.float32)
    network = Counting()
    restoring(network)(signals(mask), mask)
    plain, *hidden = network.given
    np.testing.assert_array_equal(plain[1], mask)
    # Lead by lead, of windows 0 and 3, then of window 3 alone; of the last lead of none.
    masks = [[[0, 1, 0, 0], [0, 1, 1, 0]], [[1, 0, 0, 0], [1, 0, 1, 0]], [[1, 1, 0, 0]]]
    assert [given.tolist() for _, given in hidden] == masks
    assert all(not x[given == 0].any() for x, given in hidden)


def test_what_stands_in_an_absent_lead_does_not_matter() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 0, 1, 0]], np.float32)
    x = signals(mask)
    dirty = np.where(mask[:, :, np.newaxis] == 0, np.float32(np.nan), x)
    clean, found = (restoring(copies)(given, mask)["recon_restored"] for given in (x, dirty))
    np.testing.assert_array_equal(found, clean)


def test_a_network_that_copies_its_input_is_seen_through() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((6, 1, SAMPLES))
    x = (common + 0.1 * rng.standard_normal((6, len(LEADS), SAMPLES))).astype(np.float32)
    x[0, 2] = rng.standard_normal(SAMPLES)
    mask, counted = np.ones((6, len(LEADS)), np.float32), np.ones(x.shape, np.bool_)
    outputs = restoring(copies)(x, mask)
    plain, restored = (
        score(x, outputs, counted, mask, small_spec(kind)) for kind in ("log_mse", "restoration")
    )
    assert np.ptp(plain.window) == 0.0
    assert restored.window.argmax() == 0
    assert restored.lead[:, 2].argmax() == 0


def test_a_lead_alone_is_scored_as_it_is_reconstructed() -> None:
    def smooths(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"recon_mean": 0.5 * copies(x, mask)["recon_mean"]}

    mask = np.eye(len(LEADS), dtype=np.float32)
    x, counted = signals(mask), np.broadcast_to(mask[:, :, np.newaxis] != 0, (*mask.shape, SAMPLES))
    outputs = restoring(smooths)(x, mask)
    restored, plain = (
        score(x, outputs, counted, mask, small_spec(kind)) for kind in ("restoration", "log_mse")
    )
    assert np.isfinite(restored.window).all()
    np.testing.assert_array_equal(restored.window, plain.window)


def test_a_bundle_whose_score_is_restoration_serves(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(spec=small_spec("restoration", distance_weight=0.5))
    session = open_session(bundle)
    assert isinstance(session, RestoringSession)
    assert (session.backend, session.precision) == ("onnxruntime", "fp32")
    assert session.manifest == bundle.manifest

    x, mask = random_windows(5, seed=4)
    # One lead alone, and all of them.
    mask[0], mask[1] = (0, 1, 0), 1
    x *= mask[:, :, np.newaxis]
    counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
    zeros = np.zeros(len(LEADS), np.float32)
    windows = [
        Window(i, 20 * i, 20 * i + 160, x[i], mask[i], counted[i], zeros, zeros + 1) for i in range(len(x))
    ]
    verdicts = judge(session, windows)
    outputs = restoring(lambda *given: run_file(bundle.onnx("fp32"), *given))(x, mask)
    wanted = score(x, outputs, counted, mask, bundle.manifest.score)
    assert [verdict.score for verdict in verdicts] == pytest.approx(wanted.window.tolist(), rel=1e-5)
    assert tuple(verdicts[0].lead_scores) == ("II",)
    assert tuple(verdicts[1].lead_scores) == LEADS
    for window, verdict in enumerate(verdicts):
        # What is drawn is what the network expected of what it saw.
        np.testing.assert_allclose(
            verdict.reconstruction, outputs["recon_mean"][window], rtol=1e-5, atol=1e-6
        )


def test_a_bundle_whose_score_is_another_runs_its_network_once(make_bundle: Callable[..., Bundle]) -> None:
    session = open_session(make_bundle())
    assert "recon_restored" not in session.run(*random_windows(2))


def test_restored_leads_that_are_not_the_golden_ones_are_refused(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(spec=small_spec("restoration"), off={"recon_restored": 1e-3})
    with pytest.raises(BundleError, match="does not reproduce its golden recon_restored"):
        open_session(bundle)
