"""One backend, one model, one precision, one batch, in a process of its own: speed, memory and error.

``python -m bench.backend_probe`` reads what to do as JSON from standard input and prints what it found.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# NumPy's and torch's pools take their sizes from here, once, on import.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import psutil

_LEAST_RUNS = 3
# The size at which a product of matrices has reached its speed and still fits in the cache of the second
# level several times over; three of them are 50 MB.
_GEMM_N = 2048
# A reference is the model as its float32 file says, one window at a time.
_REFERENCE = ("onnxruntime", "fp32")


@dataclass(frozen=True, slots=True)
class Case:
    """What to measure.

    Attributes
    ----------
    model : str
        Name or folder of a bundle.
    backend, precision : str
    batch : int
        Windows in one run.
    seconds : float
        For about so long.
    windows : str
        File of `write_windows`.
    """

    model: str
    backend: str
    precision: str
    batch: int
    seconds: float
    windows: str


def write_windows(model: str, path: Path, seconds: float, seed: int) -> int:
    """Write windows of simulated patients, well and ill, with their reference scores; return how many.

    Parameters
    ----------
    model : str
    path : pathlib.Path
        ``.npz`` with ``x``, ``mask``, ``counted`` and ``scores``.
    seconds : float
        Signal of each of three patients.
    seed : int
        Of the first patient.
    """
    from ingest.chunks import chunks_of
    from ingest.simulator import PatientSimulator
    from models.backends import open_session
    from models.bundle import load_bundle
    from stream.offline import analyse

    session = open_session(load_bundle(model), *_REFERENCE, threads=1)
    found: list[tuple[Any, float]] = []

    def note(pending: Any, verdict: Any, finding: Any) -> None:
        if verdict is not None:
            found.append((pending.window, verdict.score))

    for number in range(3):
        patient = PatientSimulator(seed + number, "vt:180@8", duration_s=seconds)
        analyse(chunks_of(patient, "bed", "bench"), session, record="bench", on_window=note)
    np.savez(
        path,
        x=np.stack([window.x for window, _ in found]),
        mask=np.stack([window.mask for window, _ in found]),
        counted=np.stack([window.counted for window, _ in found]),
        scores=np.array([score for _, score in found]),
    )
    return len(found)


def probe(case: Case) -> dict[str, Any]:
    """Measure a case.

    Returns
    -------
    dict
        A row of ``bedside bench backends --json``; with ``skipped`` and why, if the backend does not take
        the model.
    """
    from models.backends import open_session
    from models.bundle import BundleError, load_bundle
    from models.scoring import score

    bundle = load_bundle(case.model)
    # A session cuts what it gets into pieces of this size; here they are to be as large as was asked for.
    size = max(bundle.manifest.max_batch, case.batch)
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"max_batch": size}))
    base = {
        "model": bundle.name,
        "backend": case.backend,
        "precision": case.precision,
        "batch": case.batch,
    }
    began = time.perf_counter()
    try:
        session = open_session(bundle, backend=case.backend, precision=case.precision, threads=1)
    except BundleError as error:
        return base | {"skipped": str(error)}
    load_s = time.perf_counter() - began
    with np.load(case.windows) as stored:
        x, mask, counted, reference = (stored[name] for name in ("x", "mask", "counted", "scores"))
    places = np.arange(case.batch) % len(x)
    batch_x, batch_mask = np.ascontiguousarray(x[places]), np.ascontiguousarray(mask[places])
    session.run(batch_x, batch_mask)
    wall: list[float] = []
    cpu: list[float] = []
    until = time.perf_counter() + case.seconds
    while len(wall) < _LEAST_RUNS or time.perf_counter() < until:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        session.run(batch_x, batch_mask)
        wall.append(time.perf_counter() - wall_s)
        cpu.append(time.process_time() - cpu_s)
    rss_mb = psutil.Process().memory_info().rss / 2**20
    scores = []
    for at in range(0, len(x), case.batch):
        part = slice(at, at + case.batch)
        outputs = session.run(x[part], mask[part])
        scores.append(score(x[part], outputs, counted[part], mask[part], session.manifest.score).window)
    off = np.abs(np.concatenate(scores) - reference)
    batch_s, batch_cpu_s = float(np.median(wall)), float(np.median(cpu))
    return base | {
        "windows_per_s": round(case.batch / batch_s, 1),
        "ms_per_batch": round(batch_s * 1000, 4),
        "p99_ms": round(float(np.percentile(wall, 99)) * 1000, 4),
        "cpu_ms_per_batch": round(batch_cpu_s * 1000, 4),
        "runs": len(wall),
        # In standard deviations of normals, as scores are.
        "score_error": float(f"{off.max():.3g}"),
        "score_error_mean": float(f"{off.mean():.3g}"),
        "rss_mb": round(rss_mb, 1),
        "load_s": round(load_s, 2),
        "device": str(getattr(session, "device", "cpu")),
    }


def gemm(seconds: float) -> dict[str, float]:
    """Return how fast this machine multiplies matrices with one thread, GFLOP/s of processor time.

    Parameters
    ----------
    seconds : float
        For each of them.

    Returns
    -------
    dict
        ``numpy_fp32``, and with torch installed ``torch_fp32`` and, on a processor that computes in it,
        ``torch_bf16``; the best run of each.
    """
    rng = np.random.default_rng(0)
    a = rng.standard_normal((_GEMM_N, _GEMM_N)).astype(np.float32)
    found = {"numpy_fp32": _gflops(lambda: a @ a, seconds)}
    try:
        import torch
    except ImportError:
        return found
    torch.set_num_threads(1)
    dtypes = {"fp32": torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        # Elsewhere it is emulated: a minute and a half for one product.
        dtypes["bf16"] = torch.bfloat16
    for name, dtype in dtypes.items():
        matrix = torch.from_numpy(a).to(dtype)
        found[f"torch_{name}"] = _gflops(lambda matrix=matrix: matrix @ matrix, seconds)
    return found


def _gflops(product: Any, seconds: float) -> float:
    product()
    best_s, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        began_s = time.process_time()
        product()
        best_s = min(best_s, time.process_time() - began_s)
    return round(2 * _GEMM_N**3 / best_s / 1e9, 1)


def request(task: str, **fields: Any) -> bytes:
    """Return what `main` reads for a task: ``probe``, ``gemm`` or ``windows``."""
    return json.dumps({"task": task, **fields}).encode()


def probe_request(case: Case) -> bytes:
    """Return what `main` reads for a case."""
    return request("probe", **asdict(case))


def main() -> None:
    """Do what standard input asks for."""
    asked = json.load(sys.stdin)
    task = asked.pop("task")
    result: Any
    if task == "probe":
        result = probe(Case(**asked))
    elif task == "gemm":
        result = gemm(**asked)
    else:
        result = write_windows(asked["model"], Path(asked["path"]), asked["seconds"], asked["seed"])
    print(json.dumps(result))  # noqa: T201 - our parent reads it


if __name__ == "__main__":
    main()
