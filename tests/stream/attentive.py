"""A small real bundle that says everything: a variational network with attention and random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import save

from models.architectures import VaeBilstmMhaConfig
from models.bundle import WEIGHTS, Bundle, GoldenData, golden_file, onnx_file, write_bundle
from models.export import export, parameter_shapes
from models.manifest import MapCheck
from models.scoring import score
from tests.stream.synthetic import small_manifest
from training.golden import golden_input

LEADS = ("I", "II", "V1")
_CONFIG = VaeBilstmMhaConfig(
    leads=len(LEADS),
    samples=200,
    patch=8,
    encoder=(6, 5),
    latent=3,
    lead_width=8,
    temporal_width=16,
    decoder=(5, 4),
)
STEPS = _CONFIG.steps


def checked(*, deletion: float = 0.1, localisation: float = 0.1) -> MapCheck:
    """Return a check whose intervals begin at these values: informative if both are above zero."""
    return MapCheck(
        localisation=0.5,
        chance=0.2,
        localisation_interval=(localisation, localisation + 0.2),
        auroc=0.7,
        deletion_gain=deletion + 0.1,
        interval=(deletion, deletion + 0.2),
        insertion_gain=0.1,
        recordings=30,
        anomalies=90,
        informative=min(deletion, localisation) > 0,
    )


INFORMATIVE = {"temporal_attention": checked(), "lead_attention": checked()}


def attentive_bundle(path: Path, explanations: Mapping[str, MapCheck] = INFORMATIVE) -> Bundle:
    """Write a bundle for windows of 2 s at 100 Hz every half second."""
    random = np.random.default_rng(7)
    shapes = parameter_shapes(_CONFIG).items()
    weights = {name: random.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes}
    content = export(_CONFIG, weights)
    x, mask = golden_input(LEADS, _CONFIG.samples, 100.0)
    session = onnxruntime.InferenceSession(content)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"x": x, "mask": mask}), strict=True))
    blank = small_manifest(LEADS)
    spec = blank.score.model_copy(update={"kind": "log_normalised"})
    manifest = blank.model_copy(
        update={
            "name": "attentive",
            "architecture": _CONFIG.architecture,
            "score": spec,
            "explanations": dict(explanations),
            "hyperparameters": _CONFIG.model_dump(mode="json"),
        }
    )
    counted = np.broadcast_to(mask[:, :, np.newaxis] != 0, x.shape)
    golden = GoldenData(x, mask, outputs, score(x, outputs, counted, mask, spec).window)
    files = {
        WEIGHTS: save(weights),
        onnx_file("fp32"): content,
        golden_file("fp32"): golden.to_bytes(),
    }
    return write_bundle(path, manifest, files)
