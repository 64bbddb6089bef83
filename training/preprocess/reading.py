"""One record, from its files to the samples that go into the pack. This runs in the reading processes."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.recordings import open_recording
from ingest.source import MAX_LSB, Recording
from stream.contract import INVALID
from stream.leads import LEADS, canonical_lead
from training.pack import GAIN
from training.preprocess.catalogue import Reason
from training.preprocess.screening import fault

# A signal in a header (header(5) of WFDB): file, format, gain(baseline)/unit, resolution, zero, first value,
# checksum, block size, name. The checksum is the sum of the digital values modulo 2^16. Signals of several
# samples a frame, or skewed, look otherwise; theirs are not checked.
_SIGNAL_LINE = re.compile(
    r"^\S+[ \t]+\d+(?:\+\d+)?[ \t]+([\d.]+)(?:\((-?\d+)\))?/mV[ \t]+\d+[ \t]+(-?\d+)[ \t]+-?\d+[ \t]+(-?\d+)"
    r"[ \t]+\d+[ \t]+(\S[^\r\n]*)",
    re.MULTILINE,
)
# In the first release of the Challenge the record line names the signal file ("E07500.mat 12 500 5000").
_SIGNAL_FILE_AS_NAME = re.compile(rb"^([\w-]+)\.mat(?=[ \t])")


@dataclass(frozen=True, slots=True)
class Samples:
    """What goes into the pack.

    Attributes
    ----------
    lsb : numpy.ndarray of int16, shape (n, 12)
        In the order of `stream.leads.LEADS`, `training.pack.GAIN` LSB per millivolt.
    fs : float
        Hz, the record's own.
    clipped : int
        Samples beyond what int16 can say at that gain, cut to the limit.
    digest : str
        The same samples have the same.
    """

    lsb: npt.NDArray[np.int16]
    fs: float
    clipped: int
    digest: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record gives no samples."""

    reason: Reason
    detail: str


def read_samples(source: Path, path: str) -> Samples | Fault:
    """Read and screen one record.

    Parameters
    ----------
    source : pathlib.Path
        Folder of the data set.
    path : str
        Of the record in it, without extension.

    Returns
    -------
    Samples or Fault
        Whatever is wrong with one record must not end the reading of all others: nothing is raised.
    """
    base = source / path
    if not base.with_name(base.name + ".hea").is_file():
        return Fault(Reason.MISSING, f"there is no {path}.hea")
    where = f"{base.parent}/"
    try:
        with _mended(base) as readable:
            where = f"{readable.parent}/"
            return _read(readable)
    except Exception as error:  # a decoder stumbles in its own ways over what it was never meant to read
        # Names without folders: those of a mended header are made up anew in every run.
        said = str(error).replace(where, "") or type(error).__name__
        return Fault(Reason.UNREADABLE, said)


def _read(base: Path) -> Samples | Fault:
    recording = open_recording(base)
    absent = [lead for lead in LEADS if lead not in recording.leads]
    if absent:
        return Fault(Reason.LEADS, f"no {' '.join(absent)}")
    columns = [recording.leads.index(lead) for lead in LEADS]
    raw = recording.read(0, sys.maxsize)
    header = base.with_name(base.name + ".hea").read_text(encoding="latin-1")
    wrong = _wrong_checksums(header, recording, raw)
    if wrong:
        return Fault(Reason.CHECKSUM, " ".join(wrong))
    raw = raw[:, columns]
    gain = [recording.gain[column] for column in columns]
    found = fault(raw, gain, recording.fs)
    if found:
        return Fault(*found)
    scaled = np.rint(raw * (GAIN / np.asarray(gain)))
    # No missing samples here: what becomes -32768 would be taken for one.
    lsb = np.clip(scaled, INVALID + 1, MAX_LSB).astype(np.int16)
    digest = hashlib.blake2b(lsb.tobytes() + repr(recording.fs).encode(), digest_size=16).hexdigest()
    return Samples(lsb, recording.fs, int((np.abs(scaled) > MAX_LSB).sum()), digest)


def _wrong_checksums(header: str, recording: Recording, raw: npt.NDArray[np.int16]) -> list[str]:
    # Compared where the digital values are at hand: all of them, and not rescaled.
    checked, wrong = set(), []
    for gain, baseline, zero, checksum, name in _SIGNAL_LINE.findall(header):
        lead = canonical_lead(name)
        if lead not in recording.leads or lead in checked:
            continue
        checked.add(lead)
        column = recording.leads.index(lead)
        values = raw[:, column]
        if float(gain) != recording.gain[column] or (values == INVALID).any():
            continue
        total = int(values.sum(dtype=np.int64)) + int(baseline or zero) * len(values)
        if (total - int(checksum)) % 65536:
            wrong.append(lead)
    return wrong


@contextmanager
def _mended(base: Path) -> Iterator[Path]:
    # A record under a header that can be read: its own, or a corrected one beside a link to its signals.
    content = base.with_name(base.name + ".hea").read_bytes()
    named = _SIGNAL_FILE_AS_NAME.match(content)
    if named is None:
        yield base
        return
    with tempfile.TemporaryDirectory(prefix="bedside-") as folder:
        mended = Path(folder) / base.name
        mended.with_name(base.name + ".hea").write_bytes(_SIGNAL_FILE_AS_NAME.sub(rb"\1", content, count=1))
        signals = base.with_name(f"{base.name}.mat")
        if signals.is_file():
            mended.with_name(signals.name).symlink_to(signals.resolve())
        yield mended
