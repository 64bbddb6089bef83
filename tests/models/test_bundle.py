from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, BundleError, GoldenData, list_bundles, load_bundle
from models.manifest import AlarmRule, Manifest, Thresholds

Make = Callable[..., Bundle]


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], Any]) -> None:
    file = bundle.path / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refused(bundle: Bundle) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle.path)
    text = str(caught.value)
    assert "\n" not in text
    assert "'small'" in text
    return text


def test_what_was_written_is_read(make_bundle: Make) -> None:
    bundle = make_bundle()
    again = load_bundle(str(bundle.path))
    assert again.manifest == bundle.manifest
    assert again.name == "small"
    assert again.onnx("fp32")
    assert again.golden("fp32").scores.shape == (4,)
    assert sum(value.size for value in again.weights().values()) == again.manifest.parameters


def test_a_name_finds_a_shipped_bundle() -> None:
    assert list_bundles()
    for name in list_bundles():
        assert load_bundle(name).name == name


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no model 'no-such'.*cae-100hz.*manifest\.json"):
        load_bundle("no-such")
    with pytest.raises(BundleError, match="no model"):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="no model"):
        load_bundle("../zoo")


@pytest.mark.parametrize("file", ["weights.safetensors", "model-fp32.onnx", "golden-fp32.npz"])
def test_a_changed_file_is_refused(make_bundle: Make, file: str) -> None:
    bundle = make_bundle()
    data = bytearray((bundle.path / file).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.path / file).write_bytes(data)
    text = refused(bundle)
    assert file in text
    assert "sha256" in text


@pytest.mark.parametrize("file", ["weights.safetensors", "model-fp32.onnx", "golden-fp32.npz"])
def test_a_missing_file_is_refused(make_bundle: Make, file: str) -> None:
    bundle = make_bundle()
    (bundle.path / file).unlink()
    assert file in refused(bundle)


@pytest.mark.parametrize("file", ["weights.safetensors", "model-fp32.onnx"])
def test_a_file_without_a_hash_is_refused(make_bundle: Make, file: str) -> None:
    bundle = make_bundle()
    edit(bundle, lambda content: content["sha256"].pop(file))
    assert f"lists no {file}" in refused(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/file", "..", ".hidden", "a\\b"])
def test_a_file_outside_the_folder_is_refused(make_bundle: Make, name: str) -> None:
    bundle = make_bundle()
    (bundle.path.parent / "secret").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    edit(bundle, lambda content: content["sha256"].update({name: digest}))
    assert "not a plain file name" in refused(bundle)


def test_a_golden_file_outside_the_folder_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    edit(bundle, lambda content: content["golden"]["fp32"].update(file="../secret"))
    assert "lists no ../secret" in refused(bundle)


def test_a_link_out_of_the_folder_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    target = bundle.path / "weights.safetensors"
    moved = bundle.path.parent / "elsewhere"
    target.rename(moved)
    os.symlink(moved, target)
    assert "leads out of" in refused(bundle)


def test_an_unknown_format_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    edit(bundle, lambda content: content.update(format=2))
    assert "update Bedside" in refused(bundle)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("window"), "window"),
        (lambda m: m["window"].update(samples=0), "window.samples"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m["thresholds"].pop("fp32"), "precisions"),
        (lambda m: m["leads"].append("V9"), "statistics"),
        (lambda m: m.update(leads=["I", "I", "V1"]), "twice"),
        (lambda m: m["score"]["lead_mean"].pop(), "one row"),
        (lambda m: m["score"]["lead_std"][0].pop(), "one column"),
        (lambda m: m["thresholds"]["fp32"].update(quantiles=[1.0, 0.0]), "ascending"),
        (lambda m: m["thresholds"]["fp32"].update(window=float("nan")), "thresholds.fp32.window"),
        (lambda m: m["alarm"].update(clear=3), "clear < k"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(
    make_bundle: Make, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    bundle = make_bundle()
    edit(bundle, change)
    assert said in refused(bundle)


def test_a_manifest_that_is_no_json_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    (bundle.path / "manifest.json").write_text("{")
    assert "not valid" in refused(bundle)


def swap(bundle: Bundle, file: str, data: bytes) -> Bundle:
    (bundle.path / file).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit(bundle, lambda content: content["sha256"].update({file: digest}))
    return load_bundle(bundle.path)


def test_a_pickle_is_never_opened(make_bundle: Make, tmp_path: Path) -> None:
    file = tmp_path / "pickled.npz"
    np.savez(file, x=np.array([{"a": 1}], dtype=object), mask=np.zeros(1))
    bundle = swap(make_bundle(), "golden-fp32.npz", file.read_bytes())
    with pytest.raises(BundleError, match="no golden file"):
        bundle.golden("fp32")


def test_a_golden_file_whose_arrays_do_not_fit_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    golden = bundle.golden("fp32")
    for wrong in (
        GoldenData(golden.x, golden.mask[:, :1], golden.outputs, golden.scores),
        GoldenData(golden.x, golden.mask, {}, golden.scores),
    ):
        with pytest.raises(BundleError, match="no golden file"):
            swap(bundle, "golden-fp32.npz", wrong.to_bytes()).golden("fp32")


def test_weights_that_are_no_safetensors_are_refused(make_bundle: Make) -> None:
    bundle = swap(make_bundle(), "weights.safetensors", b"not safetensors at all")
    with pytest.raises(BundleError, match="no safetensors file"):
        bundle.weights()


def test_an_unknown_precision_says_which_there_are(make_bundle: Make) -> None:
    bundle = make_bundle()
    for read in (bundle.onnx, bundle.golden):
        with pytest.raises(BundleError, match=r"no precision 'int3': choose from fp32"):
            read("int3")


def test_golden_bytes_repeat(make_bundle: Make) -> None:
    golden = make_bundle().golden("fp32")
    assert golden.to_bytes() == GoldenData.from_bytes(golden.to_bytes()).to_bytes()


def test_percentile_runs_from_0_to_100() -> None:
    thresholds = Thresholds(record=0.0, window=0.0, quantiles=(-1.0, 0.0, 2.0))
    assert [thresholds.percentile(s) for s in (-9.0, -1.0, 0.0, 1.0, 2.0, 9.0)] == [0, 0, 50, 75, 100, 100]


def test_a_rule_that_would_flutter_is_no_rule() -> None:
    with pytest.raises(ValueError, match="clear < k <= n"):
        AlarmRule(k=5, n=4, clear=1)


def test_the_manifest_survives_its_own_json(make_bundle: Make) -> None:
    manifest = make_bundle().manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
