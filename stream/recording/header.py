"""The WFDB header of a segment; the format is described in header(5) of the WFDB Applications Guide."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.recording.segment import RAW, Begin, beside, flac_files


class Summary:
    """First sample and sum of each lead, for the header."""

    def __init__(self, leads: int) -> None:
        self.first: npt.NDArray[np.int16] = np.zeros(leads, np.int16)
        self.total: npt.NDArray[np.int64] = np.zeros(leads, np.int64)
        self._empty = True

    def add(self, samples: npt.NDArray[np.int16]) -> None:
        """Take more samples, shape (n, leads)."""
        if self._empty and len(samples):
            self.first, self._empty = samples[0], False
        self.total = self.total + samples.sum(axis=0, dtype=np.int64)


def header_text(record: Path, begin: Begin, frames: int, summary: Summary, *, flac: bool) -> bytes:
    """Return the WFDB header of a segment."""
    at, ms = datetime.fromtimestamp(begin.t0 // 1_000_000_000, UTC), begin.t0 // 1_000_000 % 1000
    lines = [
        f"{record.name} {len(begin.leads)} {_decimal(begin.fs)} {frames} {at:%H:%M:%S}.{ms:03d} {at:%d/%m/%Y}"
    ]
    if flac:
        files = [
            path.name
            for path, held in flac_files(record, len(begin.leads))
            for _ in range(held.start, held.stop)
        ]
    else:
        files = [beside(record, RAW).name] * len(begin.leads)
    fmt = 516 if flac else 16
    for file, lead, gain, first, total in zip(
        files, begin.leads, begin.gain, summary.first, summary.total, strict=True
    ):
        checksum = (int(total) + 32768) % 65536 - 32768
        lines.append(f"{file} {fmt} {_decimal(gain)}(0)/mV 16 0 {first} {checksum} 0 {_printable(lead)}")
    exact = {"bed": begin.bed, "session": begin.session, "n0": begin.n0, "t0": begin.t0}
    lines += [
        "# Bedside recording; research software, not a medical device.",
        f"# {json.dumps(exact)}",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _decimal(value: float) -> str:
    # The shortest that reads back as the same number, without an exponent.
    return np.format_float_positional(value, trim="-")


def _printable(lead: str) -> str:
    text = "".join(c if c.isascii() and c.isprintable() else "?" for c in lead).strip()
    return text or "?"
