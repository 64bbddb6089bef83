"""Records in the format of the PhysioNet/CinC Challenges 2020 and 2021: diagnoses in the header, as ``#Dx``.

CPSC 2018, Georgia, Chapman-Shaoxing and Ningbo, and others; in any tree of folders. Diagnoses are SNOMED CT
codes, or in early releases the words of CPSC 2018.

Perez Alday EA, Gu A, Shah AJ, et al. Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology
Challenge 2020. Physiol Meas 2020;41:124003.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from training.preprocess.catalogue import Catalogue, LeftOut, Reason, Record
from training.preprocess.tables import SourceError, split_of

# Which data set a record belongs to is written nowhere but in its name.
_DATASETS = (
    (re.compile(r"A\d{4}"), "cpsc2018", "CC-BY-4.0"),
    (re.compile(r"Q\d{4}"), "cpsc2018-extra", "CC-BY-4.0"),
    (re.compile(r"E\d{5}"), "georgia", "CC-BY-4.0"),
    (re.compile(r"JS\d{5}"), "chapman-shaoxing", "CC-BY-4.0"),
    (re.compile(r"I\d{4}"), "incart", "ODC-BY-1.0"),
    (re.compile(r"S\d{4}"), "ptb", "ODC-BY-1.0"),
)
_PTB_XL = re.compile(r"HR\d{5}")

# SNOMED CT: sinus rhythm.
_NORMAL = frozenset({"426783006", "Normal"})
# Sinus bradycardia, sinus tachycardia, sinus arrhythmia.
_SINUS = frozenset({"426177001", "427084000", "427393009"})
# Written where nobody knows.
_NOTHING = frozenset({"", "unknown", "nan"})

_DX = re.compile(r"^#\s*dx\s*:(.*)$", re.IGNORECASE | re.MULTILINE)
# Name, number of signals: how every WFDB header begins.
_RECORD_LINE = re.compile(r"^\S+[ \t]+\d+\b", re.MULTILINE)
# Headers are text of a kilobyte or two; what is larger is a signal file with a wrong name.
_HEADER_LIMIT = 1_000_000


def cinc2020_catalogue(source: Path) -> Catalogue:
    """List the records of a tree of ``.hea`` files.

    Parameters
    ----------
    source : pathlib.Path

    Returns
    -------
    Catalogue
        In the order of their paths. Normal is what has sinus rhythm (SNOMED CT 426783006), or ``Normal``, as
        its only diagnosis; everything else with a diagnosis is abnormal. A data set is told by the names of
        its records; where they tell nothing, it is called after the folder.

    Raises
    ------
    SourceError
        If there are no headers.
    """
    paths = sorted(
        Path(folder, file).relative_to(source).with_suffix("").as_posix()
        for folder, _, files in os.walk(source)
        for file in files
        if file.endswith(".hea")
    )
    if not paths:
        raise SourceError(f"{source}: no .hea files in this folder or below it")
    unnamed = source.resolve().name

    def entries() -> Iterator[Record | LeftOut]:
        return (_entry(source, path, unnamed) for path in paths)

    return Catalogue(
        name="cinc2020",
        total=len(paths),
        split_by="a hash of the record's name: 80 % train, 10 % val, 10 % test; patients are unknown,"
        " so that one with several records may be in two splits",
        tables={"paths of *.hea": hashlib.sha256("\n".join(paths).encode()).hexdigest()},
        entries=entries,
    )


def _entry(source: Path, path: str, unnamed: str) -> Record | LeftOut:
    name = path.rpartition("/")[2]
    if _PTB_XL.fullmatch(name):
        return LeftOut(name, path, Reason.NO_PATIENT)
    try:
        with source.joinpath(path + ".hea").open("rb") as file:
            header = file.read(_HEADER_LIMIT).decode("latin-1")
    except OSError as error:
        return LeftOut(name, path, Reason.UNREADABLE, f"its header cannot be read ({error.strerror})")
    if not _RECORD_LINE.search(header):
        return LeftOut(name, path, Reason.UNREADABLE, "no WFDB header")
    codes = [code.strip() for line in _DX.findall(header) for code in line.split(",")]
    known = tuple(code for code in codes if code.lower() not in _NOTHING)
    if not known:
        return LeftOut(name, path, Reason.NO_DIAGNOSIS, "no #Dx in its header")
    dataset, licence = next(
        ((dataset, licence) for pattern, dataset, licence in _DATASETS if pattern.fullmatch(name)),
        (unnamed, ""),
    )
    normal = _NORMAL.issuperset(known)
    return Record(
        name=name,
        path=path,
        dataset=dataset,
        patient="",
        split=split_of(name),
        label=0 if normal else 1,
        rhythm_only=not normal and (_SINUS | _NORMAL).issuperset(known),
        codes=known,
        licence=licence,
    )
