from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.backends import BACKENDS, BackendUnavailableError, engines, open_session
from models.backends.cuda import CudaDevice, CudaError
from models.backends.engines import (
    Built,
    Library,
    build_engine,
    engine_file,
    engine_key,
    engine_of,
    find_library,
)
from models.bundle import Bundle, BundleError, list_bundles, load_bundle
from tests.models.conftest import SMALL_VAE

Make = Callable[..., Bundle]

LOOPS = {"cae": 0, "vae-bilstm": 2, "vae-bilstm-mha": 4}
SHIPPED = [
    (name, precision)
    for name in list_bundles()
    for precision in load_bundle(name).manifest.thresholds
    if precision in BACKENDS["tensorrt"].precisions
]


def has_gpu() -> bool:
    try:
        CudaDevice()
    except CudaError:
        return False
    return True


@pytest.fixture
def rtx() -> Library:
    """TensorRT-RTX, which builds engines without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra tensorrt-rtx")
    library = find_library()
    if not library.portable:
        pytest.skip(f"{library.name} is installed, and builds for a GPU only")
    return library


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Count what is built; an engine is the file itself, backwards."""
    asked: list[bytes] = []

    def build(library: Library, content: bytes, *, lean: bool = False) -> Built:
        asked.append(content)
        return Built(content[::-1], 1, 0, 0.0)

    monkeypatch.setattr(engines, "build_engine", build)
    return asked


def library(name: str = "tensorrt", version: str = "11.4.0") -> Library:
    return Library(name, version, module=None)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), SHIPPED)
def test_every_shipped_model_and_precision_becomes_an_engine(rtx: Library, name: str, precision: str) -> None:
    bundle = load_bundle(name)
    started = time.process_time()
    built = build_engine(rtx, bundle.onnx(precision))
    # Of the processor's time: the machine may be busy.
    assert time.process_time() - started < 6.0
    assert built.loops == LOOPS[bundle.manifest.architecture]
    assert len(built.engine) > 100_000


def test_a_small_model_becomes_an_engine_in_every_precision(rtx: Library, make_bundle: Make) -> None:
    bundle = make_bundle(config=SMALL_VAE, precisions=("fp16", "bf16"))
    for precision in ("fp32", "fp16", "bf16"):
        assert build_engine(rtx, bundle.onnx(precision)).loops == 2


def test_a_file_that_cannot_be_parsed_is_refused_with_the_parsers_words(rtx: Library) -> None:
    with pytest.raises(BundleError, match=r"tensorrt_rtx .* cannot parse the file: .*Failed to parse"):
        build_engine(rtx, b"nothing")


def test_the_lean_runtime_says_where_engines_come_from() -> None:
    with pytest.raises(BundleError, match=r"tensorrt_lean 11.4.0 runs engines and cannot build them"):
        build_engine(library("tensorrt_lean"), b"")


def test_without_a_gpu_tensorrt_says_so(make_bundle: Make) -> None:
    if has_gpu():
        pytest.skip("there is one")
    with pytest.raises(BackendUnavailableError, match=r"no GPU here|not installed") as caught:
        open_session(make_bundle(), "tensorrt")
    assert "\n" not in str(caught.value)


def test_no_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_MODULES", ("no_such_tensorrt",))
    with pytest.raises(
        BackendUnavailableError, match=r"not installed: pip install 'bedside\[tensorrt-rtx\]'"
    ):
        find_library()


def test_an_engine_is_built_once(make_bundle: Make, builds: list[bytes]) -> None:
    bundle = make_bundle()
    content = bundle.onnx("fp32")
    assert engine_of(library(), bundle, "fp32", "GPU") == content[::-1]
    assert engine_of(library(), bundle, "fp32", "GPU") == content[::-1]
    assert builds == [content]


def test_another_gpu_version_module_or_file_has_another_engine() -> None:
    keys = [
        engine_key(library(), b"a", "GPU"),
        engine_key(library(), b"b", "GPU"),
        engine_key(library(), b"a", "other GPU"),
        engine_key(library(version="11.5.0"), b"a", "GPU"),
        engine_key(library("tensorrt_rtx"), b"a", "GPU"),
        engine_key(library(), b"a", "GPU", lean=True),
    ]
    assert len({engine_file(key) for key in keys}) == len(keys)
    # RTX does not bind its engines to a GPU, and lean takes what tensorrt built for it.
    rtx = library("tensorrt_rtx")
    assert engine_key(rtx, b"a", "GPU") == engine_key(rtx, b"a", None)
    assert engine_key(library("tensorrt_lean", "11.5.1"), b"a", "GPU") == keys[-1]


@pytest.mark.parametrize("spoil", ["other head", "damaged", "short", "empty", "foreign"])
def test_a_stale_or_foreign_engine_is_built_again(
    make_bundle: Make, builds: list[bytes], spoil: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle()
    engine_of(library(), bundle, "fp32", "GPU")
    file = engine_file(engine_key(library(), bundle.onnx("fp32"), "GPU"))
    good = file.read_bytes()
    file.write_bytes(
        {
            "other head": good.replace(b"11.4.0", b"11.3.9", 1),
            "damaged": good[:-1] + bytes([good[-1] ^ 1]),
            "short": good[:-9],
            "empty": b"",
            "foreign": b"ftrt engine of somebody else",
        }[spoil]
    )
    assert engine_of(library(), bundle, "fp32", "GPU") == bundle.onnx("fp32")[::-1]
    assert len(builds) == 2
    assert file.read_bytes() == good
    assert "building it again" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_said_and_nothing_else(
    make_bundle: Make,
    builds: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    bundle = make_bundle()
    assert engine_of(library(), bundle, "fp32", "GPU") == bundle.onnx("fp32")[::-1]
    assert "cannot write" in capsys.readouterr().err


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(CudaError, match=r"no NVIDIA driver \(libcuda.so.1\)"):
        CudaDevice()
