"""PTB-XL 1.0.3: ``ptbxl_database.csv``, ``scp_statements.csv``, ``records500/NNNNN/NNNNN_hr.{hea,dat}``.

Wagner P, Strodthoff N, Bousseljot RD, et al. PTB-XL, a large publicly available electrocardiography dataset.
Sci Data 2020;7:154.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.preprocess.catalogue import Catalogue, LeftOut, Normals, Reason, Record
from training.preprocess.tables import SourceError, file_hash, read_table

NAME = "ptb-xl"
DATABASE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
LICENCE = "CC-BY-4.0"

_COLUMNS = ("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_hr")
# The authors' own division: folds 1 to 8 train; 9 and 10, which people checked most, validate and test.
_SPLITS = {str(fold): "train" for fold in range(1, 9)} | {"9": "val", "10": "test"}
# Sinus rhythm, slow, fast and irregular: the waves of a beat are those of any normal one.
_SINUS = frozenset({"SR", "SBRAD", "STACH", "SARRH"})


@dataclass(frozen=True, slots=True)
class _Statements:
    """What ``scp_statements.csv`` says of the codes."""

    superclass: Mapping[str, str]
    """Of each diagnostic code."""
    rhythm: frozenset[str]


def ptbxl_catalogue(source: Path, normals: Normals) -> Catalogue:
    """List the records of PTB-XL.

    Parameters
    ----------
    source : pathlib.Path
        Folder with the two tables and ``records500``.
    normals : Normals
        Strict: the diagnostic superclasses of the statements are exactly NORM, and the rhythm is SR if one is
        stated. Thesis: NORM is among the superclasses, whatever else is.

    Returns
    -------
    Catalogue
        In the order of the database; a record that is not normal is abnormal. Statements of any likelihood
        count.

    Raises
    ------
    SourceError
        If a table is missing, lacks a column or holds nothing.
    """
    statements = _statements(source / STATEMENTS)
    rows = list(read_table(source / DATABASE, _COLUMNS))
    if not rows:
        raise SourceError(f"{source / DATABASE}: no records")

    def entries() -> Iterator[Record | LeftOut]:
        return (_entry(row, statements, normals) for row in rows)

    return Catalogue(
        name=NAME,
        total=len(rows),
        split_by="strat_fold of the authors: 1-8 train, 9 val, 10 test; a patient is in one split only",
        tables={table: file_hash(source / table) for table in (DATABASE, STATEMENTS)},
        entries=entries,
    )


def _statements(path: Path) -> _Statements:
    # The column of the codes has no name.
    superclass: dict[str, str] = {}
    rhythm: set[str] = set()
    for row in read_table(path, ("", "diagnostic", "rhythm", "diagnostic_class")):
        if _is_one(row["diagnostic"]):
            superclass[row[""]] = row["diagnostic_class"]
        if _is_one(row["rhythm"]):
            rhythm.add(row[""])
    if "NORM" not in superclass.values():
        raise SourceError(f"{path}: no code of the diagnostic class NORM")
    return _Statements(superclass, frozenset(rhythm))


def _is_one(text: str) -> bool:
    return text in ("1", "1.0")


def _entry(row: Mapping[str, str], statements: _Statements, normals: Normals) -> Record | LeftOut:
    path = row["filename_hr"]
    name = path.rpartition("/")[2] or f"ecg_id {row['ecg_id']}"
    codes = _codes(row["scp_codes"])
    split = _SPLITS.get(row["strat_fold"].removesuffix(".0"))
    for what, good in (("filename_hr", path), ("scp_codes", codes is not None), ("strat_fold", split)):
        if not good:
            return LeftOut(name, path, Reason.BAD_ROW, f"{what} is {row[what]!r}")
    assert codes is not None
    assert split is not None
    classes = {statements.superclass[code] for code in codes if code in statements.superclass}
    rhythm = statements.rhythm & codes.keys()
    normal_waves = classes == {"NORM"}
    normal = "NORM" in classes if normals is Normals.THESIS else normal_waves and rhythm <= {"SR"}
    return Record(
        name=name,
        path=path,
        dataset=NAME,
        # Numbers of patients are written as 15709.0.
        patient=row["patient_id"].removesuffix(".0"),
        split=split,
        label=0 if normal else 1,
        rhythm_only=not normal and normal_waves and rhythm <= _SINUS,
        codes=tuple(f"{code}:{likelihood:g}" for code, likelihood in codes.items()),
        licence=LICENCE,
    )


def _codes(text: str) -> dict[str, float] | None:
    # Written as a Python dict: code to likelihood in percent, 0 where the cardiologist gave none.
    try:
        codes = {str(code): float(likelihood) for code, likelihood in ast.literal_eval(text).items()}
    except (ValueError, TypeError, SyntaxError, AttributeError, MemoryError, RecursionError):
        return None
    return codes if all(math.isfinite(likelihood) for likelihood in codes.values()) else None
