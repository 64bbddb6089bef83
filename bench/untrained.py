"""A bundle of a configuration with random weights: as fast as a trained one, and good for nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from models.bundle import WEIGHTS, Bundle, GoldenData, golden_file, onnx_file, write_bundle
from models.export import export
from models.manifest import Golden, Manifest, ScoreSpec, Thresholds
from models.networks.build import build
from models.scoring import score
from stream.leads import LEADS
from training.config import load_config
from training.golden import golden_input

# As for trained bundles.
_RTOL, _ATOL = 1e-4, 1e-5


def untrained_bundle(name: str, folder: Path, *, seed: int = 0) -> Bundle:
    """Write a bundle of a shipped training configuration, not trained.

    Parameters
    ----------
    name : str
        Of the configuration, such as ``"thesis-vae-bilstm-mha"``.
    folder : pathlib.Path
        Where the bundle's folder goes.
    seed : int
        Of the weights.

    Returns
    -------
    Bundle
        In float32. Its scores are not standardised by anything, its thresholds mean nothing.
    """
    config = load_config(name)
    torch.manual_seed(seed)
    network = build(config.network).eval()
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    x, mask = golden_input(LEADS, config.window.samples, config.window.fs)
    with torch.inference_mode():
        outputs = {
            key: value.numpy() for key, value in network(torch.from_numpy(x), torch.from_numpy(mask)).items()
        }
    counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
    leads = len(LEADS)
    zeros, ones = (0.0,) * leads, (1.0,) * leads
    spec = ScoreSpec(
        kind=config.score.kind,
        **config.score.model_dump(include={"alpha", "beta"}, exclude_none=True),
        lead_mean=(zeros,) * leads,
        lead_std=(ones,) * leads,
        count_mean=zeros,
        count_std=ones,
    )
    manifest = Manifest(
        name=f"{name}-untrained",
        architecture=config.network.architecture,
        description="random weights, for measuring speed",
        created="",
        leads=LEADS,
        filter=config.filter,
        window=config.window,
        score=spec,
        thresholds={"fp32": Thresholds(record=0.0, window=0.0, quantiles=(0.0, 1.0))},
        alarm=config.alarm,
        golden={"fp32": Golden(file=golden_file("fp32"), rtol=_RTOL, atol=_ATOL)},
        max_batch=config.max_batch,
        parameters=sum(value.size for value in weights.values()),
        hyperparameters={"network": config.network.model_dump(mode="json")},
        metrics={},
        data={},
        sha256={},
    )
    golden = GoldenData(x, mask, outputs, score(x, outputs, counted, mask, spec).window)
    files = {
        WEIGHTS: save(weights),
        onnx_file("fp32"): export(config.network, weights),
        golden_file("fp32"): golden.to_bytes(),
    }
    return write_bundle(folder / manifest.name, manifest, files)
