"""Which files make up a recording, by their names and what its header says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".hea", ".dat", ".mat", ".flac", ".atr", ".npy", ".dcm", ".dicom")
_ALONE = (".npy", ".dcm", ".dicom")
# Of WFDB's files: a header has them in its lines, in which a blank ends a name.
_WFDB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# Of a file that stands alone, as people name them: none that hides it or leads elsewhere, and nothing that
# some system does not take in names, for the results are saved under it.
_NAME = re.compile(r"""[^\s./\\:*?"<>|~-][^/\\:*?"<>|]{0,99}""")
# In UTF-8, with what is put behind it.
_NAME_BYTES = 200
# A recording is a header and its signal files; one of many segments has two files an hour.
_FILES = 64


class DeskError(Exception):
    """An upload that cannot be taken; the text says why and what to do, in one line."""


def recording_of(files: Sequence[str]) -> Path:
    """Return the file that stands for a recording made up of some files.

    Raises
    ------
    DeskError
        If they are none, or more than one.
    """
    if not files:
        raise DeskError("no file was given")
    if len(files) > _FILES or len(set(files)) < len(files):
        raise DeskError(f"at most {_FILES} files, each of another name, make a recording")
    of_wfdb = not all(name.lower().endswith(_ALONE) for name in files)
    for name in files:
        if not _can_be_named(name, of_wfdb=of_wfdb):
            able = (
                "letters, digits, dots, dashes and underscores" if of_wfdb else 'none of / \\ : * ? " < > |'
            )
            raise DeskError(f"{name[:60]!r}: use {able} in names of files")
        if Path(name).suffix.lower() not in SUFFIXES:
            raise DeskError(
                f"{name}: not an ECG that can be read (.hea with .dat, .mat or .flac; .npy; .dcm)"
            )
    paths = [Path(name) for name in files]
    headers = [path for path in paths if path.suffix.lower() == ".hea"]
    if headers:
        # Of a record of several segments the header of the whole has the shortest name.
        return min(headers, key=lambda path: len(path.stem))
    alone = [path for path in paths if path.suffix.lower() in _ALONE]
    if not alone:
        raise DeskError(
            f"{files[0]}: a signal file without its header {paths[0].stem}.hea; drop both together"
        )
    if len(paths) > 1:
        raise DeskError("one recording at a time: drop one file, or a header with its signal files")
    return alone[0]


def _can_be_named(name: str, *, of_wfdb: bool) -> bool:
    if ".." in name or not name.isprintable() or len(name.encode(errors="replace")) > _NAME_BYTES:
        return False
    return bool((_WFDB_NAME if of_wfdb else _NAME).fullmatch(name))


def check_header(header: Path, files: Sequence[str]) -> None:
    """Refuse a WFDB header that names other files than those uploaded, which would be read as signals.

    Raises
    ------
    DeskError
    """
    lines = [
        line for line in header.read_text("latin-1").splitlines() if line.strip() and not line.startswith("#")
    ]
    # "name/3": a record of three segments, whose lines name other headers.
    several = bool(lines) and "/" in lines[0].split()[0]
    for line in lines[1:]:
        name = line.split()[0]
        needed = f"{name}.hea" if several else name
        if several and name == "~":
            # A gap.
            continue
        if not _WFDB_NAME.fullmatch(name):
            raise DeskError(f"{header.name}: names a file that is not beside it")
        if needed not in files:
            raise DeskError(f"{header.name} needs {needed}: drop both together")
