"""Verdicts: in order, of the leads that took part, and blind to the company in the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.session import FloatArray, Session
from stream.verdict import judge
from stream.windows import BedWindow, Window
from tests.stream.synthetic import StandIn, disturb, ecg, small_manifest

LEADS = ("I", "II", "V1")


def windows_of(
    leads: tuple[str, ...] = LEADS, *, seed: int = 0, seconds: float = 6, manifest_of: Session | None = None
) -> list[Window]:
    manifest = manifest_of.manifest if manifest_of else small_manifest()
    bed = BedWindow(leads, 250.0, manifest.leads, manifest.filter, manifest.window)
    x = ecg(seconds, 250.0, len(leads), seed=seed)
    disturb(x, 800, 1000, seed=seed)
    return list(bed.push(0, x))


def test_no_windows_do_not_run_the_model() -> None:
    session = StandIn(small_manifest())
    assert judge(session, []) == []
    assert session.batches == []


def test_one_verdict_a_window_in_order() -> None:
    session = StandIn(small_manifest())
    windows = windows_of()
    together = judge(session, windows)
    assert session.batches == [len(windows)]
    for window, verdict in zip(windows, together, strict=True):
        (alone,) = judge(session, [window])
        assert (alone.score, alone.lead_scores) == (verdict.score, verdict.lead_scores)
        np.testing.assert_array_equal(alone.reconstruction, verdict.reconstruction)
        assert isinstance(verdict.score, float)
        # The stand-in's score is the mean over leads of the log of what the moving average leaves.
        left = np.square(window.x - verdict.reconstruction, dtype=float)
        assert verdict.score == pytest.approx(np.log(left.mean(axis=1)).mean())
        assert verdict.lead_scores == pytest.approx(
            dict(zip(LEADS, np.log(left.mean(axis=1)).tolist(), strict=True))
        )


def test_only_leads_that_took_part_have_a_score() -> None:
    session = StandIn(small_manifest())
    mixed = [*windows_of(("V1", "I"))[:2], *windows_of(("II",))[:2], *windows_of()[:1]]
    leads = [tuple(verdict.lead_scores) for verdict in judge(session, mixed)]
    assert leads == [("I", "V1"), ("I", "V1"), ("II",), ("II",), LEADS]


def test_a_lead_for_which_the_model_returns_no_number_took_no_part() -> None:
    class Broken(StandIn):
        def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
            outputs = super().run(x, mask)
            outputs["recon_mean"][0, 1] = np.nan
            outputs["recon_mean"][1] = np.nan
            return outputs

    one, none, good = judge(Broken(small_manifest()), windows_of()[:3])
    assert tuple(one.lead_scores) == ("I", "V1")
    assert math.isfinite(one.score)
    assert math.isnan(none.score)
    assert none.lead_scores == {}
    assert tuple(good.lead_scores) == LEADS


def test_what_else_the_model_says_comes_along() -> None:
    returned: dict[str, FloatArray] = {}

    class Talkative(StandIn):
        def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
            random = np.random.default_rng(0)
            shapes = {"recon_logvar": x.shape, "temporal_attention": (len(x), 25), "kl": (len(x),)}
            shapes["lead_attention"] = (*x.shape[:2], 25)
            returned.update({name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()})
            return super().run(x, mask) | returned

    verdicts = judge(Talkative(small_manifest()), windows_of())
    assert len(verdicts) > 3
    for row, verdict in enumerate(verdicts):
        for name, found in (
            ("recon_logvar", verdict.log_variance),
            ("temporal_attention", verdict.temporal_attention),
            ("lead_attention", verdict.lead_attention),
        ):
            np.testing.assert_array_equal(found, returned[name][row])
        np.testing.assert_allclose(
            np.square(verdict.spread), np.exp(returned["recon_logvar"][row]), rtol=1e-5
        )


def test_a_model_that_says_no_more_than_a_reconstruction_has_no_more() -> None:
    (verdict, *_) = judge(StandIn(small_manifest()), windows_of())
    assert (verdict.spread, verdict.log_variance) == (None, None)
    assert (verdict.temporal_attention, verdict.lead_attention) == (None, None)


def test_the_shipped_model_judges_a_window_alike_in_any_batch(shipped: Session) -> None:
    windows = [
        *windows_of(shipped.manifest.leads, seconds=14, manifest_of=shipped),
        *windows_of(("II", "V5"), seconds=11, manifest_of=shipped, seed=1),
    ]
    together = judge(shipped, windows)
    assert len(together) > 15
    for window, verdict in zip(windows, together, strict=True):
        (alone,) = judge(shipped, [window])
        assert alone.score == pytest.approx(verdict.score, rel=1e-5)
        assert alone.lead_scores == pytest.approx(verdict.lead_scores, rel=1e-5)
        assert set(verdict.lead_scores) == {
            lead for lead, here in zip(shipped.manifest.leads, window.mask, strict=True) if here
        }


def test_what_nobody_looks_at_is_not_kept_and_what_is_kept_stays() -> None:
    session, windows = StandIn(small_manifest()), windows_of()
    whole = judge(session, windows)
    some = judge(session, windows, explained={1})
    assert [verdict.score for verdict in some] == [verdict.score for verdict in whole]
    assert [verdict.lead_scores for verdict in some] == [verdict.lead_scores for verdict in whole]
    assert [verdict.reconstruction is None for verdict in some[:3]] == [True, False, True]
    # The session's memory is another window's by now.
    judge(session, windows[::-1], explained=())
    np.testing.assert_array_equal(some[1].reconstruction, whole[1].reconstruction)


def test_more_windows_than_a_session_takes_at_once_are_judged_in_pieces() -> None:
    class Small(StandIn):
        max_batch = 2

    windows = windows_of()
    small, large = Small(small_manifest()), StandIn(small_manifest())
    found, wanted = judge(small, windows), judge(large, windows)
    assert [verdict.score for verdict in found] == [verdict.score for verdict in wanted]
    assert max(small.batches) == 2
