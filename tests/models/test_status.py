from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.backends import BACKENDS, BackendUnavailableError
from models.backends.cuda import CudaDevice, CudaError
from models.backends.status import backend_lines, verified
from models.bundle import Bundle, BundleError, list_bundles, load_bundle
from models.commands import models
from tests.models.conftest import SMALL_VAE

Make = Callable[..., Bundle]

CPU = ("onnxruntime", "openvino", "torch")


def _multiplies_int8() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or "vnni" in cpuinfo.read_text() or "asimddp" in cpuinfo.read_text()


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", list_bundles())
def test_shipped_models_reproduce_their_golden_numbers_on_every_backend(name: str) -> None:
    bundle = load_bundle(name)
    ran = 0
    for precision in bundle.manifest.thresholds:
        for backend in CPU:
            try:
                found = verified(bundle, backend, precision)
            except BackendUnavailableError:
                continue
            except BundleError:
                # Without dot products of int8, ONNX Runtime's sums saturate: to be refused is right there.
                if precision != "int8" or _multiplies_int8():
                    raise
                continue
            runs = precision in BACKENDS[backend].precisions
            assert found.startswith("executed on " if runs else "left out"), (backend, precision)
            ran += runs
    assert ran


def test_what_was_only_built_is_not_called_executed(make_bundle: Make) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    try:
        CudaDevice()
    except CudaError:
        found = verified(make_bundle(config=SMALL_VAE), "tensorrt", "fp32")
        assert found.startswith("built, not executed: tensorrt_rtx ")
        assert "2 loops" in found
    else:
        pytest.skip("there is a GPU")


def test_a_model_that_is_wrong_is_not_verified(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match="does not reproduce"):
        verified(make_bundle(off={"recon_mean": 0.1}), "onnxruntime", "fp32")


def test_every_backend_has_a_line_that_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = backend_lines()
    assert [line.split()[0] for line in lines] == list(BACKENDS)
    assert "cpu" in lines[0]
    assert lines[0].endswith("fp32 fp16 int8")
    monkeypatch.setitem(
        BACKENDS,
        "openvino",
        BACKENDS["onnxruntime"].__class__("m", "S", ("no-such-package",), "it", ("fp32",)),
    )
    assert "not installed: pip install it" in backend_lines()[1]


def test_the_commands_print_what_was_done(make_bundle: Make) -> None:
    bundle = make_bundle(config=SMALL_VAE, precisions=("int8", "bf16"))
    done = CliRunner().invoke(models, ["verify", str(bundle.path)])
    assert done.exit_code == 0
    assert "onnxruntime fp32: executed on cpu: files and golden outputs agree" in done.output
    assert "onnxruntime bf16: left out, the backend does not run it" in done.output
    listed = CliRunner().invoke(models, ["backends"])
    assert listed.exit_code == 0
    assert "onnxruntime" in listed.output
