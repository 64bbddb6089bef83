from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save

from models.architectures import CaeConfig
from models.bundle import WEIGHTS, Bundle, GoldenData, golden_file, onnx_file, write_bundle
from models.export import export_cae
from models.manifest import (
    AlarmRule,
    FilterSpec,
    Golden,
    Manifest,
    ScoreSpec,
    Thresholds,
    WindowSpec,
)
from models.scoring import score

LEADS = ("I", "II", "V1")
SMALL = CaeConfig(leads=len(LEADS), samples=40, channels=(6, 8), wide_kernel=5)


def random_weights(config: CaeConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = (2 * config.leads, *config.channels)
    mirrored = (*reversed(config.channels), config.leads)
    code = config.channels[-1]
    shapes = {"wide.weight": (code, code, config.wide_kernel), "wide.bias": (code,)}
    for i in range(len(config.channels)):
        shapes[f"encoder.{i}.weight"] = (widths[i + 1], widths[i], config.kernel)
        shapes[f"encoder.{i}.bias"] = (widths[i + 1],)
        shapes[f"decoder.{i}.weight"] = (mirrored[i], mirrored[i + 1], 4)
        shapes[f"decoder.{i}.bias"] = (mirrored[i + 1],)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def random_windows(
    n: int, leads: int = len(LEADS), samples: int = SMALL.samples, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, leads)) < 0.7).astype(np.float32)
    mask[:, 0] = 1.0
    x = rng.standard_normal((n, leads, samples)).astype(np.float32) * mask[:, :, np.newaxis]
    return x, mask


def small_spec(leads: int = len(LEADS)) -> ScoreSpec:
    rng = np.random.default_rng(3)
    mean = tuple(map(tuple, rng.normal(-1, 0.3, (leads, leads)).tolist()))
    std = tuple(map(tuple, rng.uniform(0.5, 1.5, (leads, leads)).tolist()))
    return ScoreSpec(
        lead_mean=mean,
        lead_std=std,
        count_mean=tuple(rng.normal(0, 0.2, leads).tolist()),
        count_std=tuple(rng.uniform(0.5, 1.0, leads).tolist()),
    )


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Write a small bundle with random weights; the offsets make its golden outputs wrong."""

    def make(name: str = "small", *, recon_offset: float = 0.0, score_offset: float = 0.0) -> Bundle:
        weights = random_weights(SMALL)
        content = export_cae(SMALL, weights)
        x, mask = random_windows(4)
        (recon,) = onnxruntime.InferenceSession(content).run(None, {"x": x, "mask": mask})
        counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
        scores = score(x, {"recon_mean": recon}, counted, mask, small_spec()).window
        golden = GoldenData(x, mask, {"recon_mean": recon + recon_offset}, scores + score_offset)
        manifest = Manifest(
            name=name,
            architecture="cae",
            description="random weights",
            created="2026-11-22",
            leads=LEADS,
            filter=FilterSpec(),
            window=WindowSpec(fs=10, samples=SMALL.samples, hop=5),
            score=small_spec(),
            thresholds={"fp32": Thresholds(record=1.5, window=2.0, quantiles=(-2.0, 0.0, 3.0))},
            alarm=AlarmRule(k=3, n=4, clear=1),
            golden={"fp32": Golden(file=golden_file("fp32"), rtol=1e-4, atol=1e-5)},
            max_batch=4,
            parameters=sum(value.size for value in weights.values()),
            hyperparameters=SMALL.model_dump(mode="json"),
            metrics={},
            data={},
            sha256={},
        )
        files = {
            WEIGHTS: save(weights),
            onnx_file("fp32"): content,
            golden_file("fp32"): golden.to_bytes(),
        }
        return write_bundle(tmp_path / name, manifest, files)

    return make
