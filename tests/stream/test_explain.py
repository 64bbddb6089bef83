"""Explanations: in millivolts, where the source had the signal, and only what is known to be true."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ward import Ward
from models.backends import open_session
from models.manifest import Manifest, MapCheck
from models.session import FloatArray, Session
from stream import topics
from stream.clock import SystemClock
from stream.contract import Audit, Command, CommandKind, Explanation, Finding, SampleChunk
from stream.engine import Engine, Pending
from stream.explain import explain, maps_of
from stream.offline import run
from stream.preprocess import Conditioner
from stream.verdict import Verdict, judge
from tests.stream.attentive import INFORMATIVE, LEADS, STEPS, attentive_bundle, checked
from tests.stream.synthetic import T0, Float64Array, StandIn, ecg, every, feed, small_manifest

FS = 500.0
MANIFEST = small_manifest()


class Perfect(StandIn):
    """Reconstructs everything as it is."""

    def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        return {"recon_mean": x.copy()}


def pendings(chunks: list[SampleChunk]) -> list[Pending]:
    engine = Engine(MANIFEST, "fp32")
    return [pending for chunk in chunks for pending in engine.accept(chunk, 0).windows]


def explained(x: Float64Array, model: StandIn, fs: float = FS, **kwargs: Any) -> list[Explanation]:
    chunks = feed(x, fs, every(0.5, fs, len(x)), **kwargs)
    windows = [pending for pending in pendings(chunks) if pending.window.reason is None]
    verdicts = judge(model, [pending.window for pending in windows])
    return [explain(MANIFEST, *pair) for pair in zip(windows, verdicts, strict=True)]


def test_what_the_model_expected_and_how_far_off_it_was_add_up_to_the_signal() -> None:
    x = ecg(8, FS)
    x[2000:2080, 1] = np.nan
    band_passed = Conditioner(MANIFEST.filter, FS, 100.0, 3).push(np.ascontiguousarray(x.T))
    found = explained(x, StandIn(MANIFEST))
    assert len(found) == 13
    for explanation in found:
        header, arrays = explanation.header, explanation.arrays
        assert header.leads == ("I", "II", "V1")
        assert header.shapes == {"reconstruction": (3, 200), "error": (3, 200)}
        at = slice(header.window * 50, header.window * 50 + 200)
        total = arrays["reconstruction"].astype(float) + arrays["error"].astype(float)
        absent = band_passed.missing[:, at] > 0
        np.testing.assert_array_equal(np.isnan(total), absent)
        # float16 resolves about a thousandth of a millivolt here.
        np.testing.assert_allclose(total[~absent], band_passed.values[:, at][~absent], atol=3e-3)
        assert not np.isnan(arrays["reconstruction"]).any()
        # The stand-in smooths, so there is something to see.
        assert np.nanmax(np.abs(arrays["error"])) > 0.01


def test_a_perfect_reconstruction_has_no_error() -> None:
    for explanation in explained(ecg(5, FS), Perfect(MANIFEST)):
        np.testing.assert_array_equal(explanation.arrays["error"], 0)


def test_leads_that_took_no_part_are_left_out() -> None:
    x = ecg(5, FS, 2)
    (first, *_) = explained(x, Perfect(MANIFEST), leads=("V1", "pleth"))
    assert first.header.leads == ("V1",)
    assert first.arrays["reconstruction"].shape == first.arrays["error"].shape == (1, 200)


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
def test_it_is_drawn_where_the_source_had_the_signal(fs: float) -> None:
    # One narrow peak at 4.3 s of the feed: it stands there in the reconstruction, too, filter or not.
    t = np.arange(round(8 * fs)) / fs
    x = np.repeat(2.0 * np.exp(-(((t - 4.3) / 0.02) ** 2))[:, np.newaxis], 3, axis=1)
    found = [
        e for e in explained(x, Perfect(MANIFEST), fs) if e.header.start / fs < 4 < 4.6 < e.header.end / fs
    ]
    assert len(found) >= 2
    for explanation in found:
        header, lead = explanation.header, explanation.arrays["reconstruction"][0].astype(float)
        peak = int(np.argmax(lead))
        near = np.clip(lead[peak - 3 : peak + 4], 0, None)
        centre = np.sum(near * np.arange(peak - 3, peak + 4)) / near.sum()
        at_s = (header.t_start - T0) / 1e9 + centre / header.fs
        # To half a point of the model's grid.
        assert at_s == pytest.approx(4.3, abs=0.005)


def test_it_names_its_window_and_travels() -> None:
    (first, *_) = explained(ecg(3, FS), StandIn(MANIFEST), bed="b7", session="q")
    header = first.header
    assert (header.bed, header.session, header.window) == ("b7", "q", 0)
    assert (header.start, header.end, header.fs) == (0, 1000, 100.0)
    back = Explanation.decode(first.encode())
    assert back.header == header
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)


# ---- spread and attention --------------------------------------------------------------------------------


class Talkative(StandIn):
    """Expects a standard deviation of 0.5, 1 and 2 in the three leads, and looks at what is high."""

    def run(self, x: FloatArray, mask: FloatArray) -> dict[str, FloatArray]:
        logvar = np.log(np.square(np.array([0.5, 1.0, 2.0], np.float32)))
        power = np.square(x).reshape(*x.shape[:2], 25, -1).sum(axis=-1) + np.float32(1e-3)
        power *= mask[:, :, np.newaxis]
        return super().run(x, mask) | {
            "recon_logvar": np.broadcast_to(logvar[:, np.newaxis], x.shape).copy(),
            "temporal_attention": power.sum(axis=1) / power.sum(axis=(1, 2))[:, np.newaxis],
            "lead_attention": power / power.sum(axis=1, keepdims=True),
        }


def told(
    manifest: Manifest, x: Float64Array, leads: tuple[str, ...] = LEADS
) -> tuple[list[Explanation], list[tuple[Pending, Verdict]]]:
    found: list[Explanation] = []
    judged: list[tuple[Pending, Verdict]] = []

    def on_window(pending: Pending, verdict: Verdict | None, _: Finding) -> None:
        if verdict is not None:
            found.append(explain(manifest, pending, verdict))
            judged.append((pending, verdict))

    run(feed(x, FS, every(0.3, FS, len(x)), leads=leads), Talkative(manifest), on_window=on_window)
    return found, judged


def with_checks(checks: dict[str, MapCheck]) -> Manifest:
    return MANIFEST.model_copy(update={"explanations": checks})


def test_the_spread_is_in_millivolts() -> None:
    # Sines of 1, 2 and 4 mV: a standard deviation of an amplitude over the root of two.
    t = np.arange(round(20 * FS)) / FS
    x = np.array([1.0, 2.0, 4.0]) * np.sin(2 * np.pi * 5 * t)[:, np.newaxis]
    (*_, last), _ = told(MANIFEST, x)
    for row, (amplitude, share) in enumerate(((1.0, 0.5), (2.0, 1.0), (4.0, 2.0))):
        spread = last.arrays["spread"][row]
        assert spread.shape == (200,)
        np.testing.assert_allclose(spread, share * amplitude / np.sqrt(2), rtol=0.01)


def test_only_leads_that_took_part_have_a_row() -> None:
    manifest = with_checks(INFORMATIVE)
    found, judged = told(manifest, ecg(5, FS, 2), ("V1", "I"))
    for explanation, (_, verdict) in zip(found, judged, strict=True):
        header, arrays = explanation.header, explanation.arrays
        assert header.leads == ("I", "V1")
        assert header.shapes == {
            "reconstruction": (2, 200),
            "error": (2, 200),
            "spread": (2, 200),
            "temporal_attention": (25,),
            "lead_attention": (2, 25),
        }
        assert verdict.lead_attention is not None
        np.testing.assert_array_equal(arrays["lead_attention"], verdict.lead_attention[[0, 2]].astype("f2"))
        np.testing.assert_allclose(arrays["lead_attention"].sum(axis=0, dtype=float), 1.0, atol=1e-3)
        np.testing.assert_allclose(arrays["temporal_attention"].sum(dtype=float), 1.0, atol=2e-3)
        back = Explanation.decode(explanation.encode())
        assert list(back.arrays) == list(arrays)
        np.testing.assert_array_equal(back.arrays["lead_attention"], arrays["lead_attention"])


@pytest.mark.parametrize(
    ("checks", "shown", "why_not"),
    [
        ({}, set(), {"temporal_attention": "not tested", "lead_attention": "not tested"}),
        ({"error": checked()}, set(), {"temporal_attention": "not tested", "lead_attention": "not tested"}),
        (INFORMATIVE, {"temporal_attention", "lead_attention"}, {}),
        (
            {"temporal_attention": checked(deletion=-0.1), "lead_attention": checked()},
            {"lead_attention"},
            {"temporal_attention": "no information (deletion test)"},
        ),
        (
            {"temporal_attention": checked(), "lead_attention": checked(deletion=0.0, localisation=0.0)},
            {"temporal_attention"},
            {"lead_attention": "no information (localisation and deletion tests)"},
        ),
    ],
)
def test_an_attention_is_shown_only_if_it_carries_information(
    checks: dict[str, MapCheck], shown: set[str], why_not: dict[str, str]
) -> None:
    manifest = with_checks(checks)
    (first, *_), ((_, verdict), *_) = told(manifest, ecg(3, FS))
    assert first.arrays.keys() == {"reconstruction", "error", "spread"} | shown
    assert maps_of(manifest, verdict) == {"spread": None} | dict.fromkeys(shown) | why_not


def test_of_a_model_without_them_nothing_is_said() -> None:
    pending = pendings(feed(ecg(3, FS), FS, []))[0]
    (verdict,) = judge(StandIn(MANIFEST), [pending.window])
    assert verdict is not None
    # Not even if its manifest should promise them.
    manifest = with_checks(INFORMATIVE)
    assert explain(manifest, pending, verdict).arrays.keys() == {"reconstruction", "error"}
    assert maps_of(manifest, verdict) == {}


# ---- live as offline -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Open a real variational network with attention."""
    return open_session(attentive_bundle(tmp_path_factory.mktemp("bundles") / "attentive"))


def offline(session: Session, chunks: list[SampleChunk]) -> dict[int, Explanation]:
    found: dict[int, Explanation] = {}

    def on_window(pending: Pending, verdict: Verdict | None, finding: Finding) -> None:
        if verdict is not None:
            found[finding.window] = explain(session.manifest, pending, verdict)

    run(chunks, session, on_window=on_window)
    return found


def assert_same(ours: Explanation, wanted: Explanation) -> None:
    assert (ours.header.leads, ours.header.shapes) == (wanted.header.leads, wanted.header.shapes)
    for name, array in wanted.arrays.items():
        # In other batches a runtime rounds otherwise; a last bit of float16 more is the most that it makes.
        np.testing.assert_allclose(
            ours.arrays[name].astype(float), array.astype(float), rtol=2e-3, atol=1e-5, err_msg=name
        )


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 4499), max_size=40), leads=st.sampled_from([LEADS, ("V1", "x", "I")]))
def test_any_chunking_explains_alike(cuts: list[int], leads: tuple[str, ...], attentive: Session) -> None:
    x = ecg(9, FS)
    x[2000:2400, 0] = np.nan
    wanted = offline(attentive, feed(x, FS, every(0.2, FS, len(x)), leads=leads))
    ours = offline(attentive, feed(x, FS, cuts, leads=leads))
    assert len(wanted) == 15
    assert ours.keys() == wanted.keys()
    for window, explanation in wanted.items():
        assert_same(ours[window], explanation)
        assert explanation.arrays["lead_attention"].shape == (len(explanation.header.leads), STEPS)
    # They say something of their own of each window.
    assert np.ptp([e.arrays["temporal_attention"].max() for e in wanted.values()]) > 0.01


@pytest.mark.slow
def test_a_worker_publishes_what_the_analysis_of_the_file_gives(short_tmp: Path, attentive: Session) -> None:
    path = attentive_bundle(short_tmp / "attentive").path
    x = ecg(12, FS)
    chunks = feed(x, FS, every(0.2, FS, len(x)), last=True)
    wanted = offline(attentive, chunks)

    async def live() -> list[Explanation]:
        with Ward(short_tmp, worker_options=("--model", str(path))) as ward:
            await ward.ready()
            async with await ward.connect() as bus:
                now = SystemClock().now_ns()
                for number, kind in enumerate((CommandKind.WATCH, CommandKind.ADMIT)):
                    command = Command(
                        id=f"c{number}", bed="bed-1", kind=kind, value=60, at=now, expires=now + 10**10
                    )
                    await bus.publish(topics.COMMANDS, b"bed-1", command.encode())
                # The answer to the second one shows that the first has been taken.
                async for entry in bus.tail(topics.AUDIT, after="0"):
                    assert Audit.decode(entry.value).entry == "c1"
                    break
                for chunk in chunks:
                    await bus.publish(topics.SAMPLES, b"bed-1", chunk.encode())
                found: list[Explanation] = []
                async with asyncio.timeout(60):
                    async for entry in bus.tail(topics.EXPLANATIONS, after="0"):
                        found.append(Explanation.decode(entry.value))
                        if len({explanation.header.window for explanation in found}) == len(wanted):
                            return found
        raise AssertionError("the stream of explanations ended")

    for explanation in asyncio.run(live()):
        assert explanation.arrays.keys() >= {"spread", "temporal_attention", "lead_attention"}
        assert_same(explanation, wanted[explanation.header.window])
