from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.backends import AUTO, BACKENDS, Backend, choice, open_session
from models.backends.choice import Measured, candidates, choice_file, measure
from models.bundle import Bundle, BundleError
from tests.models.conftest import SMALL_VAE, small_spec

Make = Callable[..., Bundle]

CLASS = """
from models.backends.batched import BackendUnavailableError
from models.backends.ort import OrtSession
from models.bundle import BundleError

class Session(OrtSession):
    backend = {name!r}
    def __init__(self, bundle, precision="fp32", threads=1):
        {body}
"""
BODIES = {
    "wrong": "super().__init__(bundle, precision, threads); self._scale()",
    "full": 'raise BundleError("the GPU is out of memory")',
    "absent": 'raise BackendUnavailableError("no GPU here")',
}
WRONG = """
    def _scale(self):
        run = self._infer
        self._infer = lambda n, names: {k: v * 1.01 for k, v in run(n, names).items()}
"""


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leave these backends and no others; those in `BODIES` become ONNX Runtime with something wrong."""

    def leave(*names: str) -> None:
        kept = {
            name: BACKENDS.get(name) or Backend(f"odd_{name}", "Session", ("numpy",), "odd", ("fp32",))
            for name in names
        }
        monkeypatch.setattr(choice, "BACKENDS", kept)
        for name in names:
            monkeypatch.setitem(BACKENDS, name, kept[name])

    return leave


def odd(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"odd_{name}.py").write_text(
        CLASS.format(name=name, body=BODIES[name]) + (WRONG if name == "wrong" else "")
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # The backends that a test makes up are not known to another process.
    def apart(bundle: Bundle, name: str, precision: str, threads: int) -> object:
        try:
            return measure(open_session(bundle, name, precision, threads), bundle)
        except choice.BackendUnavailableError:
            return None
        except BundleError as error:
            return choice.Fallback(name, str(error))

    monkeypatch.setattr(choice, "_measured_apart", apart)


def test_auto_measures_once_and_remembers(
    make_bundle: Make, only: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    only("onnxruntime", "openvino")
    bundle = make_bundle()
    session = open_session(bundle, AUTO)
    assert session.backend in ("onnxruntime", "openvino")
    assert session.fallbacks == ()
    said = capsys.readouterr().err
    assert f"backend {session.backend} fp32: p99 of 1/8 windows: onnxruntime" in said
    assert ", openvino" in said
    assert json.loads(choice_file(bundle, "fp32", 1).read_text()) == {"backend": session.backend}
    assert open_session(bundle, AUTO).backend == session.backend
    assert "when it was measured" in capsys.readouterr().err


def test_where_there_is_nothing_to_choose_from_nothing_is_measured(
    make_bundle: Make, only: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    only("onnxruntime")
    bundle = make_bundle()
    assert open_session(bundle, AUTO).backend == "onnxruntime"
    assert capsys.readouterr().err == ""
    assert not choice_file(bundle, "fp32", 1).exists()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(("name", "reason"), [("wrong", "does not reproduce"), ("full", "out of memory")])
def test_what_fails_is_passed_over_told_and_tried_again_next_time(
    make_bundle: Make,
    only: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
) -> None:
    odd(name, tmp_path, monkeypatch)
    only(name, "onnxruntime")
    bundle = make_bundle()
    session = open_session(bundle, AUTO)
    assert session.backend == "onnxruntime"
    ((passed, why),) = [(fallback.backend, fallback.reason) for fallback in session.fallbacks]
    assert passed == name
    assert reason in why
    assert not choice_file(bundle, "fp32", 1).exists()
    with pytest.raises(BundleError, match=reason):
        open_session(bundle, name)


@pytest.mark.usefixtures("in_this_process")
def test_a_backend_without_its_device_is_nothing_to_worry_about(
    make_bundle: Make, only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd("absent", tmp_path, monkeypatch)
    only("absent", "onnxruntime")
    assert open_session(make_bundle(), AUTO).fallbacks == ()


@pytest.mark.usefixtures("in_this_process")
def test_a_remembered_backend_that_fails_is_passed_over(
    make_bundle: Make, only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd("full", tmp_path, monkeypatch)
    only("full", "onnxruntime")
    bundle = make_bundle()
    file = choice_file(bundle, "fp32", 1)
    file.parent.mkdir(parents=True)
    file.write_text('{"backend": "full"}')
    session = open_session(bundle, AUTO)
    assert session.backend == "onnxruntime"
    assert [fallback.backend for fallback in session.fallbacks] == ["full"]


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("rubbish", ["", "[]", '{"backend": "gone"}', "\x00"])
def test_a_choice_that_cannot_be_read_is_made_again(
    make_bundle: Make, only: Callable[..., None], rubbish: str
) -> None:
    only("onnxruntime")
    bundle = make_bundle()
    file = choice_file(bundle, "fp32", 1)
    file.parent.mkdir(parents=True)
    file.write_text(rubbish)
    assert open_session(bundle, AUTO).backend == "onnxruntime"


@pytest.mark.usefixtures("in_this_process")
def test_nothing_left_names_every_reason(
    make_bundle: Make, only: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd("full", tmp_path, monkeypatch)
    only("full")
    with pytest.raises(BundleError, match="no backend here runs small fp32: full: the GPU is out of memory"):
        open_session(make_bundle(), AUTO)


def test_auto_never_changes_the_precision(make_bundle: Make) -> None:
    with pytest.raises(BundleError, match="no precision 'bf16'"):
        open_session(make_bundle(), AUTO, "bf16")
    bundle = make_bundle(config=SMALL_VAE, precisions=("int8",))
    session = open_session(bundle, AUTO, "int8")
    assert (session.backend, session.precision) == ("onnxruntime", "int8")


def test_only_what_is_installed_and_runs_the_precision_is_measured() -> None:
    assert candidates("int8") == ["onnxruntime"]
    assert "onnxruntime" not in candidates("bf16")


def test_a_backend_has_to_be_clearly_faster_to_take_the_place_of_one_before_it() -> None:
    first = Measured("a", 1.0, 8.0)
    assert not Measured("b", 0.95, 8.0).beats(first)
    assert Measured("b", 0.8, 7.0).beats(first)
    assert [one.backend for one in choice._in_order([first, Measured("b", 0.95, 8.0)])] == ["a", "b"]
    assert [one.backend for one in choice._in_order([first, Measured("c", 0.5, 8.0)])] == ["c", "a"]


def test_a_choice_is_for_one_model_and_one_number_of_threads(make_bundle: Make) -> None:
    bundle = make_bundle()
    other = make_bundle("other", spec=small_spec("log_mae"), config=SMALL_VAE)
    files = {choice_file(bundle, "fp32", 1), choice_file(bundle, "fp32", 2), choice_file(other, "fp32", 1)}
    assert len(files) == 3
