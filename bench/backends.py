"""Every backend with every model, precision and batch, each in a process of its own.

Beside it, how fast the machine multiplies matrices, and which share of that the thesis-size network reaches:
its floating-point operations are counted (`bench.flops`), so that the distance to the machine's limit is
known, not guessed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bench.backend_probe import Case, probe_request, request
from bench.flops import flop_per_window
from bench.machine import machine, versions
from models.architectures import NetworkConfig
from models.backends import BACKENDS
from models.bundle import Bundle, list_bundles, load_bundle

CPU_BATCHES = (1, 8, 32, 64)
GPU_BATCHES = (1, 8, 64, 512)
THESIS = "thesis-vae-bilstm-mha"

# Building an engine of the largest network takes minutes; so does one batch of it on a busy core.
_TIMEOUT_S = 900.0
# Windows of three patients: some 200 of 8 s for a shipped model; the thesis's are slow and 1 s long.
_SIGNAL_S, _THESIS_SIGNAL_S = 40.0, 5.0

_CONFIG: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)


class ProbeError(RuntimeError):
    """A measuring process died; the text says of what."""


def measure_backends(
    *,
    models: Sequence[str] = (),
    batches: Sequence[int] = (),
    seconds: float = 2.0,
    thesis: bool = True,
    seed: int = 0,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Measure every backend that is installed.

    Parameters
    ----------
    models : sequence of str
        Bundles; all that are shipped unless given.
    batches : sequence of int
        By default 1, 8, 32 and 64, with a graphics processor 1, 8, 64 and 512.
    seconds : float
        For each row.
    thesis : bool
        Whether the thesis-size network with random weights is measured too (it needs torch and onnx).
    seed : int
        Of the simulated patients.
    on_row : callable, optional
        Called with each row.

    Returns
    -------
    dict
        The fields of ``bedside bench backends --json``.
    """
    setting = {"machine": machine(), "versions": versions()}
    sizes = tuple(batches) or (GPU_BATCHES if setting["machine"]["gpu"] else CPU_BATCHES)
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="bs-") as name:
        folder = Path(name)
        ceiling = _gemm(seconds)
        bundles = [(load_bundle(model), _SIGNAL_S) for model in models or list_bundles()]
        if thesis:
            bundles += [(bundle, _THESIS_SIGNAL_S) for bundle in _thesis(folder, skipped)]
        for bundle, signal_s in bundles:
            windows = folder / f"{bundle.name}.npz"
            _ask(request("windows", model=str(bundle.path), path=str(windows), seconds=signal_s, seed=seed))
            # On a processor the thesis's network takes gigabytes, and minutes, for a batch of 64.
            bounded = signal_s == _THESIS_SIGNAL_S and setting["machine"]["gpu"] is None
            these = [size for size in sizes if not bounded or size <= bundle.manifest.max_batch]
            for row in _rows(bundle, windows, these, seconds, skipped):
                rows.append(row)
                if on_row is not None:
                    on_row(row)
        again = _gemm(seconds)
        ceiling = {kind: max(value, again[kind]) for kind, value in ceiling.items()}
    for row in rows:
        row |= _share(row, ceiling)
    return {
        "benchmark": "backends",
        "rows": rows,
        "skipped": skipped,
        "gemm_gflops": ceiling,
        "flop_per_window": {row["model"]: row["flop_per_window"] for row in rows},
        "seconds": seconds,
        "seed": seed,
        **setting,
    }


def _thesis(folder: Path, skipped: list[dict[str, str]]) -> Iterator[Bundle]:
    lacking = [name for name in ("torch", "onnx") if find_spec(name) is None]
    if lacking:
        skipped.append(
            {"model": THESIS, "why": f"needs {' and '.join(lacking)}: pip install 'bedside[train]'"}
        )
        return
    from bench.untrained import untrained_bundle

    yield untrained_bundle(THESIS, folder)


def _rows(
    bundle: Bundle, windows: Path, batches: Sequence[int], seconds: float, skipped: list[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    flop = flop_per_window(_CONFIG.validate_python(bundle.manifest.hyperparameters["network"]))
    for backend in BACKENDS:
        for precision in bundle.manifest.thresholds:
            for batch in batches:
                case = Case(str(bundle.path), backend, precision, batch, seconds, str(windows))
                why: str
                try:
                    row = _ask(probe_request(case))
                except ProbeError as error:
                    why = str(error)
                else:
                    if "skipped" not in row:
                        yield row | {"flop_per_window": flop}
                        continue
                    why = row["skipped"]
                skipped.append({"model": bundle.name, "backend": backend, "precision": precision, "why": why})
                # What is refused with one window is refused with more.
                break


def _share(row: dict[str, Any], ceiling: dict[str, float]) -> dict[str, Any]:
    # On the processor, in processor time: what else runs on the machine does not count against a backend.
    # A processor without units for a precision can compute in float32: that is the least ceiling.
    measured = {kind for kind in ceiling if kind.endswith(row["precision"])}
    if row["device"] != "cpu" or not measured:
        return {}
    gflops = row["flop_per_window"] * row["batch"] / row["cpu_ms_per_batch"] / 1e6
    highest = max(value for kind, value in ceiling.items() if kind in measured or kind.endswith("fp32"))
    return {"gflops": round(gflops, 2), "share_of_gemm": round(gflops / highest, 4)}


def _gemm(seconds: float) -> dict[str, float]:
    found: dict[str, float] = _ask(request("gemm", seconds=seconds))
    return found


def _ask(asked: bytes) -> Any:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.backend_probe"],
            input=asked,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"the measuring process was not done after {_TIMEOUT_S:g} s") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ProbeError(f"the measuring process ended with {done.returncode}: {words or 'without a word'}")
    # A library may have said something before.
    return json.loads(done.stdout.splitlines()[-1])


def row_text(row: dict[str, Any]) -> str:
    """Return a row as a line for people."""
    share = f"{100 * row['share_of_gemm']:4.0f} % of GEMM" if "share_of_gemm" in row else ""
    return (
        f"{row['model']:30} {row['backend']:12} {row['precision']:5} batch {row['batch']:4d}"
        f" {row['windows_per_s']:10.1f} windows/s {row['ms_per_batch']:10.3f} ms"
        f"  error {row['score_error']:8.2g} {row['rss_mb']:7.0f} MB  {share}"
    )


def skipped_text(result: dict[str, Any]) -> str:
    """Return what was not measured and why, and how fast this machine multiplies matrices, for people."""
    lines = [
        f"not measured: {' '.join(row[key] for key in ('model', 'backend', 'precision') if key in row)}:"
        f" {row['why']}"
        for row in result["skipped"]
    ]
    speeds = ", ".join(f"{kind} {value:g}" for kind, value in result["gemm_gflops"].items())
    return "\n".join([*lines, f"one thread multiplies matrices at (GFLOP/s): {speeds}"])
