"""Opening a recording of any format that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ingest.npy_files import NpyRecording
from ingest.recorded import is_recorded, open_sessions
from ingest.source import IngestError, Recording
from ingest.wfdb_files import WfdbRecording, record_path

# How many records of a folder an error names.
_EXAMPLES = 3

_READABLE = "WFDB records (.hea with .dat, .mat or FLAC), .npy arrays and DICOM waveforms"


def open_recording(
    path: str | Path, *, fs: float | None = None, leads: Sequence[str] | None = None
) -> Recording:
    """Open a recording, whatever its format.

    Parameters
    ----------
    path : str or pathlib.Path
        A WFDB record with or without extension, a ``.npy`` array, a DICOM waveform, or the folder of a bed
        that the recorder wrote, if it holds one session.
    fs : float, optional
        Sampling frequency, Hz, for a file that does not state one (``.npy``); others keep their own.
    leads : sequence of str, optional
        Names of the leads, for a file that does not state them (``.npy``).

    Returns
    -------
    Recording

    Raises
    ------
    IngestError
        If there is no such recording or it cannot be used. The text says what was looked for.

    Examples
    --------
    >>> open_recording("mitdb/100").leads  # doctest: +SKIP
    ('II', 'V5')
    """
    path = Path(path)
    if record_path(path) is not None:
        return WfdbRecording(path)
    if is_recorded(path):
        (first, *others) = open_sessions(path)
        if others:
            raise IngestError(
                path,
                f"holds {len(others) + 1} sessions; name a segment of one, such as {first.record}",
            )
        return first
    if path.is_dir():
        raise IngestError(path, _folder_hint(path))
    if not path.is_file():
        raise IngestError(path, f"not found (neither this file nor the WFDB header {path.name}.hea)")
    if path.suffix.lower() == ".npy":
        return NpyRecording(path, fs=fs, leads=leads)
    if path.suffix.lower() in (".dcm", ".dicom") or _is_dicom(path):
        # Only for those who have one: pydicom takes a third of a second to load.
        from ingest.dicom_files import DicomRecording

        return DicomRecording(path)
    if path.suffix.lower() in (".dat", ".mat", ".flac"):
        raise IngestError(path, f"a signal file without its WFDB header {path.stem}.hea")
    raise IngestError(path, f"not a format that can be read: {_READABLE}")


def open_recordings(
    path: str | Path, *, fs: float | None = None, leads: Sequence[str] | None = None
) -> list[Recording]:
    """Open a recording as `open_recording`, or all sessions of a bed's folder, in their order."""
    if is_recorded(Path(path)):
        return list(open_sessions(Path(path)))
    return [open_recording(path, fs=fs, leads=leads)]


def _is_dicom(path: Path) -> bool:
    # PS3.10: a preamble of 128 bytes, then the prefix.
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _folder_hint(path: Path) -> str:
    patterns = ("*.hea", "*.npy", "*.dcm", "*/*.hea", "*/*/*.hea")
    found = list(islice((file for pattern in patterns for file in sorted(path.glob(pattern))), _EXAMPLES))
    if not found:
        return f"a folder, and it holds no {_READABLE}"
    names = ", ".join(str(file.with_suffix("") if file.suffix == ".hea" else file) for file in found)
    return f"a folder; name the recordings in it, such as {names}"
