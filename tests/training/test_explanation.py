from __future__ import annotations

import numpy as np
import pytest

from models.backends import open_session
from models.bundle import load_bundle
from models.manifest import ScoreSpec
from tests.training.conftest import made_up_signal
from training.anomalies import KINDS
from training.dataset import WindowSet, grid_windows
from training.explanation import MOST_RECORDINGS, check_maps, window_maps
from training.recordings import read_index, select

FS = 100.0
STEPS = 100
LEADS = 4
SPEC = ScoreSpec(
    lead_mean=((0.0,) * LEADS,) * LEADS,
    lead_std=((1.0,) * LEADS,) * LEADS,
    count_mean=(0.0,) * LEADS,
    count_std=(1.0,) * LEADS,
)


def template() -> np.ndarray:
    x = made_up_signal(0, seconds=8.0).millivolts[::5, :LEADS].T
    return ((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)).astype(np.float32)


def the_same_window(n: int) -> WindowSet:
    x = np.repeat(template()[np.newaxis], n, axis=0)
    return WindowSet(x, np.ones(x.shape[:2], np.float32), np.ones(x.shape, bool), np.arange(n))


def expects_the_template(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    # As good as a model can be: it knows the window without the anomaly, and attends to what differs.
    recon = np.broadcast_to(template(), x.shape)
    off = np.square(x - recon).reshape(len(x), LEADS, STEPS, -1).sum(axis=-1) + 1e-3
    return {
        "recon_mean": recon,
        "temporal_attention": off.sum(axis=1) / off.sum(axis=(1, 2))[:, np.newaxis],
        "lead_attention": off / off.sum(axis=1, keepdims=True),
    }


def test_maps_of_a_model_that_knows_the_normal_window_are_informative() -> None:
    found = check_maps(expects_the_template, SPEC, the_same_window(12), FS)
    assert set(found) == {"error", "temporal_attention", "lead_attention"}
    for name, check in found.items():
        assert check.informative, name
        assert check.localisation > 0.95, name
        assert check.chance < 0.5, name
        assert check.localisation_interval[0] > 0.4, name
        assert check.deletion_gain > 0, name
        assert check.insertion_gain > 0, name
        assert (check.recordings, check.anomalies) == (12, 12 * len(KINDS))
    assert found["error"].auroc > 0.95


def test_maps_of_noise_are_not_informative() -> None:
    rng = np.random.default_rng(1)

    def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        temporal = rng.random((len(x), STEPS), np.float32)
        lead = rng.random((len(x), LEADS, STEPS), np.float32)
        return {
            "recon_mean": x + rng.standard_normal(x.shape, np.float32),
            "temporal_attention": temporal / temporal.sum(axis=1, keepdims=True),
            "lead_attention": lead / lead.sum(axis=1, keepdims=True),
        }

    found = check_maps(run, SPEC, the_same_window(30), FS)
    for name, check in found.items():
        assert not check.informative, name
        assert check.localisation == pytest.approx(check.chance, abs=0.12), name
        assert check.auroc == pytest.approx(0.5, abs=0.05), name


def test_an_attention_that_is_always_the_same_is_not_informative() -> None:
    def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        outputs = expects_the_template(x, mask)
        outputs["temporal_attention"] = np.full((len(x), STEPS), 1 / STEPS, np.float32)
        outputs["lead_attention"] = np.full((len(x), LEADS, STEPS), 1 / LEADS, np.float32)
        return outputs

    found = check_maps(run, SPEC, the_same_window(12), FS)
    assert found["error"].informative
    for name in ("temporal_attention", "lead_attention"):
        assert found[name].localisation == found[name].chance
        assert found[name].auroc == 0.5
        assert not found[name].informative


def test_a_map_that_avoids_the_anomaly_is_not_informative() -> None:
    def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        outputs = expects_the_template(x, mask)
        averted = 1.0 / outputs["temporal_attention"]
        outputs["temporal_attention"] = averted / averted.sum(axis=1, keepdims=True)
        return outputs

    found = check_maps(run, SPEC, the_same_window(12), FS)["temporal_attention"]
    assert found.auroc < 0.2
    assert not found.informative


def test_results_do_not_depend_on_the_batch_and_repeat_with_the_seed() -> None:
    windows = the_same_window(3)
    one, same = (check_maps(expects_the_template, SPEC, windows, FS, seed=3) for _ in range(2))
    assert one == same
    # The moved maps are drawn map by map, so only localisation is free of the batch.
    other = check_maps(expects_the_template, SPEC, windows, FS, seed=3, batch=5)
    assert other["error"].localisation == one["error"].localisation
    assert check_maps(expects_the_template, SPEC, windows, FS, seed=4) != one


def test_one_window_of_each_recording_is_taken() -> None:
    def run(x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"recon_mean": np.broadcast_to(template(), x.shape)}

    windows = the_same_window(MOST_RECORDINGS + 5)
    many = WindowSet(windows.x, windows.mask, windows.counted, np.arange(len(windows)))
    few = WindowSet(windows.x, windows.mask, windows.counted, np.arange(len(windows)) // 10)
    steps: list[float] = []
    assert check_maps(run, SPEC, few, FS, on_done=steps.append)["error"].recordings == 7
    assert steps[-1] == 1.0
    assert check_maps(run, SPEC, many, FS)["error"].recordings == MOST_RECORDINGS


def test_windows_without_a_beat_are_refused() -> None:
    windows = the_same_window(3)
    flat = WindowSet(np.zeros_like(windows.x), windows.mask, windows.counted, windows.record)
    with pytest.raises(ValueError, match="none of the windows"):
        check_maps(expects_the_template, SPEC, flat, FS)


def test_every_output_has_its_map_and_what_does_not_count_is_zero() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 40)).astype(np.float32)
    counted = np.ones(x.shape, bool)
    counted[:, 2] = False
    outputs = {
        "recon_mean": np.zeros_like(x),
        "recon_logvar": np.full_like(x, np.log(4.0)),
        "recon_restored": x,
        "temporal_attention": np.array([[0.1, 0.2, 0.3, 0.4]] * 2, np.float32),
        "lead_attention": rng.random((2, 3, 4), np.float32),
    }
    maps = window_maps(x, outputs, counted, 100.0)
    assert set(maps) == {
        "error",
        "normalised_error",
        "restored_error",
        "temporal_attention",
        "lead_attention",
    }
    for name, values in maps.items():
        assert values.shape == x.shape, name
        assert not values[:, 2].any(), name
    np.testing.assert_allclose(maps["normalised_error"], maps["error"] / 4, rtol=1e-5)
    assert not maps["restored_error"].any()
    np.testing.assert_allclose(maps["temporal_attention"][0, 0, ::10], [0.1, 0.2, 0.3, 0.4])


@pytest.mark.data
@pytest.mark.slow
def test_the_error_of_the_shipped_model_is_informative(data_dir) -> None:
    session = open_session(load_bundle("cae-100hz"))
    manifest = session.manifest
    normals = select(read_index(data_dir / "index.csv"), split="val", label=0)[:30]
    windows = grid_windows(
        (entry.read() for entry in normals), manifest.leads, manifest.filter, manifest.window
    )
    found = check_maps(session.run, manifest.score, windows, manifest.window.fs)["error"]
    assert found.informative
    assert found.auroc > 0.75
    assert found.localisation > 10 * found.chance
