from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from models.architectures import NetworkConfig
from models.backends import BACKENDS, Backend, BackendUnavailableError, open_session
from models.bundle import Bundle, BundleError, load_bundle
from tests.models.conftest import DENSE, LEADS, SMALL, SMALL_VAE, random_windows, small_spec

Make = Callable[..., Bundle]


# Those that run on any machine.
on_every_cpu = pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])


@pytest.fixture(autouse=True)
def _torch_threads_as_before() -> Iterator[None]:
    # A session of torch sets those of the process.
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    yield
    if torch:
        torch.set_num_threads(threads)


def test_what_a_backend_runs_is_known_without_importing_it() -> None:
    runs = {name: known.precisions for name, known in BACKENDS.items()}
    assert runs["onnxruntime"] == ("fp32", "fp16", "int8")
    assert all(runs[name] == ("fp32", "fp16", "bf16") for name in ("openvino", "torch", "tensorrt"))


@on_every_cpu
def test_a_session_reproduces_its_golden_outputs(make_bundle: Make, backend: str) -> None:
    pytest.importorskip(backend)
    bundle = make_bundle()
    session = open_session(bundle, backend)
    golden = bundle.golden("fp32")
    assert (session.backend, session.precision, session.device) == (backend, "fp32", "cpu")
    assert session.fallbacks == ()
    assert session.manifest == bundle.manifest
    found = session.run(golden.x, golden.mask)
    assert found.keys() == golden.outputs.keys() == {"recon_mean", "distance"}
    for name, wanted in golden.outputs.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)


@on_every_cpu
@pytest.mark.parametrize("config", DENSE.values(), ids=DENSE.keys())
def test_what_is_filled_in_place_is_what_is_run(
    make_bundle: Make, backend: str, config: NetworkConfig
) -> None:
    pytest.importorskip(backend)
    session = open_session(make_bundle(config=config), backend)
    x, mask = random_windows(4, seed=3)
    wanted = session.run(x, mask)
    for n in (4, 1, 3):
        own_x, own_mask = session.inputs(n)
        own_x[:], own_mask[:] = x[:n], mask[:n]
        found = session.run_filled(n)
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            np.testing.assert_allclose(value, wanted[name][:n], rtol=1e-5, atol=1e-5, err_msg=name)
    assert session.run_filled(2, {"distance"}).keys() == {"distance"}
    assert session.run(x, mask, ["recon_mean"]).keys() == {"recon_mean"}


def test_inputs_are_the_same_memory_at_every_call(make_bundle: Make) -> None:
    session = open_session(make_bundle())
    small, large = session.inputs(2)[0], session.inputs(4)[0]
    assert np.shares_memory(small, large)
    large[1, 0, 0] = 7.0
    assert small[1, 0, 0] == 7.0


def test_outputs_of_a_run_are_the_callers_own(make_bundle: Make) -> None:
    session = open_session(make_bundle())
    x, mask = random_windows(3)
    first = session.run(x, mask)
    kept = {name: value.copy() for name, value in first.items()}
    session.run(x + 1, mask)
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("n", [0, 5])
def test_more_windows_than_there_is_room_for_are_refused(make_bundle: Make, n: int) -> None:
    session = open_session(make_bundle())
    for call in (session.inputs, session.run_filled):
        with pytest.raises(ValueError, match=f"'small' takes 1 to 4 windows, not {n}"):
            call(n)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("onnxruntime", "fp16"), ("onnxruntime", "int8"), ("openvino", "bf16"), ("torch", "bf16")],
)
def test_a_lower_precision_runs_within_its_own_tolerance(
    make_bundle: Make, backend: str, precision: str
) -> None:
    pytest.importorskip(backend)
    bundle = make_bundle(config=SMALL_VAE, precisions=(precision,))
    try:
        session = open_session(bundle, backend, precision)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    assert session.precision == precision
    x, mask = random_windows(3)
    exact = open_session(bundle).run(x, mask)["recon_mean"]
    found = session.run(x, mask)["recon_mean"]
    # Not float32 under another name.
    assert 1e-6 < np.abs(found - exact).max() < 0.3


@pytest.mark.parametrize(
    ("backend", "precision", "others"),
    [("onnxruntime", "bf16", "openvino, torch, tensorrt"), ("torch", "int8", "onnxruntime")],
)
def test_a_precision_that_a_backend_does_not_run_is_refused(
    make_bundle: Make, backend: str, precision: str, others: str
) -> None:
    bundle = make_bundle(config=SMALL_VAE, precisions=(precision,))
    with pytest.raises(BundleError, match=f"'{backend}' does not run {precision}: choose from {others}"):
        open_session(bundle, backend, precision)


def test_weights_that_are_not_of_the_network_in_the_manifest_are_refused(make_bundle: Make) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    bundle = make_bundle()
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["hyperparameters"]["network"]["channels"] = [6, 9]
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not describe the network of its weights") as caught:
        open_session(load_bundle(bundle.path), "torch")
    assert "\n" not in str(caught.value)


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
    entry = Backend("models.backends.no_such_module", "Session", ("abacus",), "bedside[abacus]", ("fp32",))
    monkeypatch.setitem(BACKENDS, "abacus", entry)
    with pytest.raises(
        BackendUnavailableError, match=r"'abacus' is not installed .*pip install bedside\[abacus\]"
    ):
        open_session(make_bundle(), backend="abacus")


def test_an_unknown_precision_is_refused(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match="no precision 'fp8'"):
        open_session(make_bundle(), precision="fp8")


def test_the_documented_program_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(program, "backends.md", "exec"), {})
