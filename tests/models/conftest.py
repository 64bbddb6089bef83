from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save

from models.architectures import CaeConfig, NetworkConfig, VaeBilstmConfig, VaeBilstmMhaConfig
from models.bundle import WEIGHTS, Bundle, GoldenData, golden_file, onnx_file, write_bundle
from models.export import export, parameter_shapes
from models.manifest import (
    AlarmRule,
    FilterSpec,
    Golden,
    Manifest,
    ScoreSpec,
    Thresholds,
    WindowSpec,
)
from models.restoration import restoring
from models.scoring import score

LEADS = ("I", "II", "V1")
SMALL = CaeConfig(leads=len(LEADS), samples=40, channels=(6, 8), wide_kernel=5)
SMALL_VAE = VaeBilstmConfig(
    leads=len(LEADS), samples=40, patch=4, hidden=6, latent=3, latent_steps=5, decoder_hidden=5
)
SMALL_MHA = VaeBilstmMhaConfig(
    leads=len(LEADS),
    samples=40,
    patch=4,
    encoder=(6, 5),
    latent=3,
    lead_width=8,
    temporal_width=16,
    decoder=(5, 4),
)
# As small, but of the shape of the thesis: no density, a step a sample, one latent vector, no lead code.
PLAIN_CAE = SMALL.model_copy(update={"density": False})
PLAIN_VAE = SMALL_VAE.model_copy(update={"patch": 1, "latent_steps": 1, "density": False})
PLAIN_MHA = SMALL_MHA.model_copy(update={"patch": 1, "lead_code": False, "density": False})
RECURRENT = {"vae": SMALL_VAE, "mha": SMALL_MHA, "plain-vae": PLAIN_VAE, "plain-mha": PLAIN_MHA}
NETWORKS = {"cae": SMALL, "plain-cae": PLAIN_CAE, **RECURRENT}
DENSE = {"cae": SMALL, "vae": SMALL_VAE, "mha": SMALL_MHA}


def random_weights(config: NetworkConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config).items()
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes}


def random_windows(
    n: int, leads: int = len(LEADS), samples: int = SMALL.samples, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, leads)) < 0.7).astype(np.float32)
    mask[:, 0] = 1.0
    x = rng.standard_normal((n, leads, samples)).astype(np.float32) * mask[:, :, np.newaxis]
    return x, mask


def small_spec(kind: str = "log_mse", *, distance_weight: float = 0.0, **fields: object) -> ScoreSpec:
    rng, leads = np.random.default_rng(3), len(LEADS)
    statistics = {
        "lead_mean": rng.normal(-1, 0.3, (leads, leads)).tolist(),
        "lead_std": rng.uniform(0.5, 1.5, (leads, leads)).tolist(),
        "count_mean": rng.normal(0, 0.2, leads).tolist(),
        "count_std": rng.uniform(0.5, 1.0, leads).tolist(),
    }
    if distance_weight:
        statistics["distance_mean"] = rng.normal(0, 0.5, leads).tolist()
        statistics["distance_std"] = rng.uniform(0.5, 1.5, leads).tolist()
    return ScoreSpec.model_validate(
        {"kind": kind, "distance_weight": distance_weight, **statistics, **fields}
    )


def run_file(content: bytes, x: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(content)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x, "mask": mask}), strict=True))


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Small recurrent networks lose more by threads that wait for each other than they gain."""
    torch = pytest.importorskip("torch", reason="needs the extra train")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Write a small bundle with random weights; `off` names golden numbers and how wrong they are."""

    def make(
        name: str = "small",
        *,
        spec: ScoreSpec | None = None,
        off: Mapping[str, float] | None = None,
        config: NetworkConfig = SMALL,
        precisions: tuple[str, ...] = (),
    ) -> Bundle:
        spec = spec or small_spec()
        weights = random_weights(config)
        content = export(config, weights)
        x, mask = random_windows(4)
        run = partial(run_file, content)
        outputs = restoring(run)(x, mask) if spec.kind == "restoration" else run(x, mask)
        counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
        golden = {**outputs, "score": score(x, outputs, counted, mask, spec).window}
        for wrong, by in (off or {}).items():
            golden[wrong] = golden[wrong] + by
        scores = golden.pop("score")
        manifest = Manifest(
            name=name,
            architecture=config.architecture,
            description="random weights",
            created="2026-11-22",
            leads=LEADS,
            filter=FilterSpec(),
            window=WindowSpec(fs=10, samples=SMALL.samples, hop=5),
            score=spec,
            thresholds=dict.fromkeys(
                ("fp32", *precisions), Thresholds(record=1.5, window=2.0, quantiles=(-2.0, 0.0, 3.0))
            ),
            alarm=AlarmRule(k=3, n=4, clear=1),
            golden={
                "fp32": Golden(file=golden_file("fp32"), rtol=1e-4, atol=1e-5),
                **dict.fromkeys(
                    precisions, Golden(file=golden_file("fp32"), rtol=1e-4, atol=0.3, score_atol=0.3)
                ),
            },
            max_batch=4,
            parameters=sum(value.size for value in weights.values()),
            hyperparameters={"network": config.model_dump(mode="json")},
            metrics={},
            data={},
            sha256={},
        )
        files = {
            WEIGHTS: save(weights),
            onnx_file("fp32"): content,
            golden_file("fp32"): GoldenData(x, mask, golden, scores).to_bytes(),
            **{onnx_file(precision): export(config, weights, precision) for precision in precisions},
        }
        return write_bundle(tmp_path / name, manifest, files)

    return make
