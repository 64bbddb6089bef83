"""Writing WFDB records of every kind, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile  # type: ignore[import-untyped]

Digital = npt.NDArray[np.int64]

# Lowest valid value is one above the mark of a missing sample.
RANGE = {
    "80": (-127, 127),
    "212": (-2047, 2047),
    "310": (-511, 511),
    "311": (-511, 511),
    "16": (-32767, 32767),
    "61": (-32767, 32767),
    "160": (-32767, 32767),
    "24": (-8_388_607, 8_388_607),
    "32": (-2_147_483_647, 2_147_483_647),
    "508": (-127, 127),
    "516": (-32767, 32767),
    "524": (-8_388_607, 8_388_607),
}


def missing(fmt: str) -> int:
    return RANGE[fmt][0] - 1


def random_digital(fmt: str, n: int, channels: int, seed: int = 0) -> Digital:
    low, high = RANGE[fmt]
    return np.random.default_rng(seed).integers(low, high + 1, (n, channels))


def write_record(
    folder: Path,
    digital: Digital,
    *,
    name: str = "rec",
    fs: float = 250,
    fmt: str = "16",
    gain: float = 1000.0,
    baseline: int | Sequence[int] = 0,
    units: str | Sequence[str] = "mV",
    leads: Sequence[str] = ("I", "II", "III", "V1", "V2", "V3", "V4", "V5"),
) -> Path:
    """Write a record of one segment after header(5) and signal(5); return its path without extension."""
    n, channels = digital.shape
    baselines = [baseline] * channels if isinstance(baseline, int) else baseline
    unit_of = [units] * channels if isinstance(units, str) else units
    lines = [f"{name} {channels} {fs:g} {n}"]
    for channel in range(channels):
        scale = f"{gain}({baselines[channel]})/{unit_of[channel]}"
        lines.append(f"{name}.dat {fmt} {scale} 0 0 {digital[0, channel]} 0 0 {leads[channel]}")
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    file = folder / f"{name}.dat"
    if fmt in ("508", "516", "524"):
        bits = int(fmt) - 500
        values = digital.astype(np.int16) << (16 - bits) if bits <= 16 else digital.astype(np.int32) << 8
        subtype = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}[bits]
        soundfile.write(file, values, int(fs), format="FLAC", subtype=subtype)
    else:
        file.write_bytes(encoded(digital.ravel(), fmt))
    return folder / name


def encoded(values: Digital, fmt: str) -> bytes:
    """Return samples as a signal file of this format holds them."""
    match fmt:
        case "80":
            return (values + 128).astype("u1").tobytes()
        case "16":
            return values.astype("<i2").tobytes()
        case "61":
            return values.astype(">i2").tobytes()
        case "160":
            return (values + 32768).astype("<u2").tobytes()
        case "32":
            return values.astype("<i4").tobytes()
        case "24":
            return values.astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()
        case "212":
            a, b = np.append(values, np.zeros(len(values) % 2, int)).reshape(-1, 2).T & 0xFFF
            return np.stack([a & 0xFF, a >> 8 | b >> 8 << 4, b & 0xFF], axis=1).astype("u1").tobytes()
        case "310":
            a, b, c = np.append(values, np.zeros(-len(values) % 3, int)).reshape(-1, 3).T & 0x3FF
            low, high = a << 1 | (c & 0x1F) << 11, b << 1 | c >> 5 << 11
            return np.stack([low, high], axis=1).astype("<u2").tobytes()
        case "311":
            a, b, c = np.append(values, np.zeros(-len(values) % 3, int)).reshape(-1, 3).T & 0x3FF
            return (a | b << 10 | c << 20).astype("<u4").tobytes()
    raise ValueError(fmt)


def write_mat(folder: Path, digital: Digital, *, name: str = "E1", fs: float = 500) -> Path:
    """Write a record as the challenges of 2015 and 2020 did: int16 behind the 24 bytes of a .mat header."""
    n, channels = digital.shape
    lines = [f"{name} {channels} {fs} {n}"]
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    lines += [f"{name}.mat 16+24 1000/mV 16 0 {digital[0, i]} 0 0 {leads[i]}" for i in range(channels)]
    (folder / f"{name}.hea").write_text("\n".join([*lines, "#Age: 60"]) + "\n")
    (folder / f"{name}.mat").write_bytes(b"\0" * 24 + digital.astype("<i2").tobytes())
    return folder / name


def edit(file: Path, old: str, new: str) -> None:
    """Replace text in a header; it must be there."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
