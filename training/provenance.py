"""Where a model comes from: its data, the code and the machine. Counts and hashes, no paths."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from training.recordings import Entry

_ROOT = Path(__file__).parent.parent


def split_hash(splits: Mapping[str, Sequence[Entry]]) -> str:
    """Return a hash of which recording is in which split with which label, whatever the order.

    Parameters
    ----------
    splits : mapping of str to sequence of Entry

    Returns
    -------
    str
        SHA-256, hexadecimal. Neither folders nor the order of rows matter.
    """
    lines = sorted(
        "\t".join((split, entry.dataset, entry.record, entry.patient, str(entry.label)))
        for split, entries in splits.items()
        for entry in entries
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def data_provenance(
    indices: Sequence[Path], splits: Mapping[str, Sequence[Entry]], left_out: Sequence[str]
) -> dict[str, Any]:
    """Return what a manifest says of the recordings.

    Parameters
    ----------
    indices : sequence of pathlib.Path
    splits : mapping of str to sequence of Entry
        What was used.
    left_out : sequence of str
        What was not, of that which the splits hold.

    Returns
    -------
    dict
    """
    licences: dict[str, set[str]] = {}
    for entries in splits.values():
        for entry in entries:
            licences.setdefault(entry.dataset, set()).add(entry.licence or "unknown")
    return {
        "index_sha256": " ".join(hashlib.sha256(index.read_bytes()).hexdigest() for index in indices),
        "split_sha256": split_hash(splits),
        "recordings": {
            split: dict(sorted(Counter(entry.dataset for entry in entries).items()))
            for split, entries in splits.items()
        },
        "patients": {split: len({entry.person for entry in entries}) for split, entries in splits.items()},
        "left_out": len(left_out),
        "licences": {dataset: sorted(found) for dataset, found in sorted(licences.items())},
        "use": "normals (label 0) of train: weights and score statistics; normals of val: choice of the "
        "epoch and thresholds; abnormal ones of val: figures, and alternatives to the threshold; "
        "test, if it is there: figures only",
    }


def code_provenance(device: torch.device) -> dict[str, str]:
    """Return versions of this package and of torch, and the kind of machine."""
    try:
        package = version("bedside")
    except PackageNotFoundError:
        package = "unknown"
    found = {
        "bedside": package,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
    commit = _git_describe()
    return found | ({"commit": commit} if commit else {})


def _git_describe() -> str | None:
    # Only of our own checkout: an installed package may lie below somebody else's.
    if not (_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--tags"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
