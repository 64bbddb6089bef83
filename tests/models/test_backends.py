from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest

from models import backends
from models.backends import open_session
from models.bundle import Bundle, BundleError, load_bundle
from tests.models.conftest import LEADS, SMALL, random_windows, small_spec

Make = Callable[..., Bundle]


def test_a_session_reproduces_its_golden_outputs(make_bundle: Make) -> None:
    bundle = make_bundle()
    session = open_session(bundle)
    golden = bundle.golden("fp32")
    assert (session.backend, session.precision) == ("onnxruntime", "fp32")
    assert session.manifest == bundle.manifest
    found = session.run(golden.x, golden.mask)
    assert found.keys() == golden.outputs.keys() == {"recon_mean", "distance"}
    for name, wanted in golden.outputs.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["log_mse", "restoration"])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 11])
def test_batches_of_any_size_give_the_same_windows(make_bundle: Make, kind: str, n: int) -> None:
    session = open_session(make_bundle(spec=small_spec(kind)))  # max_batch is 4
    x, mask = random_windows(n, seed=9)
    for name, whole in session.run(x, mask).items():
        assert whole.shape == ((n,) if name == "distance" else x.shape)
        assert whole.dtype == np.float32
        for i in range(n):
            alone = session.run(x[i : i + 1], mask[i : i + 1])[name][0]
            np.testing.assert_allclose(alone, whole[i], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["log_mse", "restoration"])
@pytest.mark.parametrize("rubbish", [5.0, np.nan, np.inf])
def test_what_stands_in_a_masked_lead_does_not_matter(make_bundle: Make, kind: str, rubbish: float) -> None:
    session = open_session(make_bundle(spec=small_spec(kind)))
    x, mask = random_windows(3)
    assert (mask == 0).any()
    clean = session.run(x, mask)
    dirty = session.run(np.where(mask[:, :, np.newaxis] == 0, np.float32(rubbish), x), mask)
    for name, value in clean.items():
        np.testing.assert_array_equal(dirty[name], value, err_msg=name)


def test_wrong_shapes_and_types_are_named(make_bundle: Make) -> None:
    session = open_session(make_bundle())
    x, mask = random_windows(2)
    for wrong_x, wrong_mask in (
        (x[:, :2], mask[:, :2]),
        (x[:, :, :-1], mask),
        (x[0], mask[0]),
        (x, mask[:1]),
    ):
        with pytest.raises(ValueError, match=rf"takes x \(batch, {len(LEADS)}, {SMALL.samples}\)"):
            session.run(wrong_x, wrong_mask)
    with pytest.raises(ValueError, match="float32"):
        session.run(x.astype(np.float64), mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("named", ["recon_mean", "distance", "score"])
def test_failed_parity_is_refused(make_bundle: Make, named: str) -> None:
    bundle = make_bundle(spec=small_spec(distance_weight=0.5), off={named: 1e-3})
    with pytest.raises(BundleError, match=f"'small' refused.*does not reproduce its golden {named}"):
        open_session(bundle)


def test_a_score_that_needs_more_than_the_network_says_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["score"]["kind"] = "elbo"
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"'small' refused.*'elbo' needs the output recon_logvar, kl"):
        open_session(load_bundle(bundle.path))


def test_a_score_of_restored_leads_needs_them_in_the_golden_file(make_bundle: Make) -> None:
    bundle = make_bundle()
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["score"]["kind"] = "restoration"
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"'small' refused.*needs the output recon_restored"):
        open_session(load_bundle(bundle.path))


def test_an_onnx_file_that_is_none_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    (bundle.path / "model-fp32.onnx").write_bytes(b"nothing")
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["sha256"]["model-fp32.onnx"] = hashlib.sha256(b"nothing").hexdigest()
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cannot load its fp32 file") as caught:
        open_session(load_bundle(bundle.path))
    assert "\n" not in str(caught.value)


def test_an_unknown_backend_says_which_there_are(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match=r"no backend 'abacus': choose from .*onnxruntime"):
        open_session(make_bundle(), backend="abacus")


def test_a_missing_backend_says_what_to_install(make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ("models.backends.no_such_module", "Session", "bedside[abacus]")
    monkeypatch.setitem(backends._BACKENDS, "abacus", entry)
    with pytest.raises(BundleError, match=r"'abacus' is not installed .*pip install bedside\[abacus\]"):
        open_session(make_bundle(), backend="abacus")


def test_an_unknown_precision_is_refused(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match="no precision 'fp8'"):
        open_session(make_bundle(), precision="fp8")
