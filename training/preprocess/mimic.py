"""MIMIC-IV-ECG 1.0: ``machine_measurements.csv``, ``record_list.csv`` and the folder ``files``.

Gow B, Pollard T, Nathanson LA, et al. MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset (version
1.0). PhysioNet 2023. The diagnoses are the machine's: ``report_0`` to ``report_17`` hold one statement each,
the rhythm first, a verdict on the whole ECG last. No physician has looked at them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from training.preprocess.catalogue import Catalogue, LeftOut, Normals, Reason, Record
from training.preprocess.tables import SourceError, file_hash, read_table, split_of

NAME = "mimic-iv-ecg"
MEASUREMENTS, RECORDS = "machine_measurements.csv", "record_list.csv"
LICENCE = "ODbL-1.0"

_REPORTS = tuple(f"report_{number}" for number in range(18))

_NORMAL_RHYTHM = frozenset({"sinus rhythm", "normal sinus rhythm"})
_NORMAL_VERDICT = frozenset({"normal ecg", "within normal limits"})
# Verdicts say that something is to be found, not what.
_VERDICTS = _NORMAL_VERDICT | {
    "normal ecg except for rate",
    "otherwise normal ecg",
    "borderline ecg",
    "abnormal ecg",
    "abnormal rhythm ecg",
}
_SINUS = _NORMAL_RHYTHM | {"sinus tachycardia", "sinus bradycardia", "sinus arrhythmia"}
# "Sinus bradycardia with sinus arrhythmia" states two rhythms; "marked" says how much of one.
_PARTS = re.compile(r" with | and ")
# The machine does not trust its own reading: nobody has said whether such a record is normal.
_DOUBTS = (
    "technical error",
    "analysis error",
    "unsuitable",
    "data quality",
    "lead reversal",
    "based on available leads",
)


def mimic_catalogue(source: Path, normals: Normals) -> Catalogue:
    """List the records of MIMIC-IV-ECG.

    Parameters
    ----------
    source : pathlib.Path
        Folder with the two tables and ``files``.
    normals : Normals
        Strict: the machine says sinus rhythm and normal ECG, and nothing else. Thesis: ``report_0`` is "Sinus
        rhythm" and ``report_2`` is "Normal ECG", whatever else is said; what the machine calls normal
        otherwise is then left out, for it is not abnormal either.

    Returns
    -------
    Catalogue
        In the order of ``machine_measurements.csv``, then the records that only ``record_list.csv`` names.

    Raises
    ------
    SourceError
        If a table is missing, lacks a column or holds nothing.

    Notes
    -----
    Memory: about 100 bytes for each row of ``record_list.csv``.
    """
    measurements = source / MEASUREMENTS
    total, listed = 0, _listed(source / RECORDS)
    unmeasured = set(listed)
    for row in read_table(measurements, ("subject_id", "study_id", "report_0")):
        total += 1
        unmeasured.discard(_number(row["study_id"]))
    if not total:
        raise SourceError(f"{measurements}: no records")

    def entries() -> Iterator[Record | LeftOut]:
        for row in read_table(measurements, ("subject_id", "study_id", "report_0")):
            yield _entry(row, listed, normals)
        for study in sorted(unmeasured):
            detail = f"study {study} is not in {MEASUREMENTS}"
            yield LeftOut(str(study), listed[study] or "", Reason.NO_DIAGNOSIS, detail)

    return Catalogue(
        name=NAME,
        total=total + len(unmeasured),
        split_by="a hash of subject_id: 80 % train, 10 % val, 10 % test; a patient is in one split only",
        tables={table: file_hash(source / table) for table in (MEASUREMENTS, RECORDS)},
        entries=entries,
    )


def _number(text: str) -> int:
    # -1 is no number of a patient or a study.
    return int(text) if text.isdecimal() else -1


def _usual_path(subject: int, study: int) -> str:
    return f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"


def _listed(path: Path) -> dict[int, str | None]:
    # Study to path; None for the usual one, which need not be kept 800,000 times.
    listed: dict[int, str | None] = {}
    for row in read_table(path, ("subject_id", "study_id", "path")):
        subject, study = _number(row["subject_id"]), _number(row["study_id"])
        listed[study] = None if row["path"] == _usual_path(subject, study) else row["path"]
    return listed


def _entry(row: Mapping[str, str], listed: Mapping[int, str | None], normals: Normals) -> Record | LeftOut:
    subject, study = _number(row["subject_id"]), _number(row["study_id"])
    name = row["study_id"] or "?"
    if subject < 0 or study < 0:
        what = f"subject_id {row['subject_id']!r}, study_id {row['study_id']!r}"
        return LeftOut(name, "", Reason.BAD_ROW, what)
    if study not in listed:
        return LeftOut(name, "", Reason.MISSING, f"study {study} is not in {RECORDS}")
    path = listed[study] or _usual_path(subject, study)
    statements = [row[column] for column in _REPORTS if row.get(column)]
    label, rhythm_only = judged(statements)
    if normals is Normals.THESIS:
        if row["report_0"] == "Sinus rhythm" and row.get("report_2") == "Normal ECG":
            label, rhythm_only = 0, False
        elif label == 0:
            return LeftOut(name, path, Reason.NOT_TAKEN, "; ".join(statements))
    if label is None:
        return LeftOut(name, path, Reason.NO_DIAGNOSIS, "; ".join(statements))
    return Record(
        name=name,
        path=path,
        dataset=NAME,
        patient=str(subject),
        split=split_of(str(subject)),
        label=label,
        rhythm_only=rhythm_only,
        codes=tuple(statements),
        licence=LICENCE,
    )


def judged(statements: Sequence[str]) -> tuple[int | None, bool]:
    """Return what the statements of a machine amount to.

    Parameters
    ----------
    statements : sequence of str
        As the machine wrote them.

    Returns
    -------
    label : int or None
        0 if it says sinus rhythm and normal ECG and nothing else; None if it gives no verdict, or one that it
        does not trust itself; else 1.
    rhythm_only : bool
        The only findings are sinus bradycardia, tachycardia or arrhythmia.
    """
    said = {re.sub(r"^summary: ", "", " ".join(text.lower().split()).strip(" .*-")) for text in statements}
    said.discard("")
    if not said or any(doubt in text for doubt in _DOUBTS for text in said):
        return None, False
    verdicts, findings = said & _VERDICTS, said - _VERDICTS
    sinus = all(part in _SINUS for text in findings for part in _PARTS.split(text.removeprefix("marked ")))
    if findings <= _NORMAL_RHYTHM and verdicts <= _NORMAL_VERDICT:
        # Both must be said: a rhythm alone is no verdict, and a verdict alone names no rhythm.
        return (0 if findings and verdicts else None), False
    if findings <= _NORMAL_RHYTHM:
        return 1, verdicts <= _NORMAL_VERDICT | {"normal ecg except for rate"}
    return 1, sinus
