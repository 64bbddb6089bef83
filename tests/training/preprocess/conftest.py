from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import wfdb

from stream.leads import LEADS
from tests.training.conftest import FS, made_up_signal

# MIMIC-IV-ECG's order of leads and resolution.
MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
MIMIC_GAIN = 200.0

_SCP = (
    (",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass"),
    ("NORM,normal ECG,1.0,,,NORM,NORM"),
    ("IMI,inferior myocardial infarction,1.0,,,MI,IMI"),
    ("LVOLT,low QRS voltages,,1.0,,,"),
    ("SR,sinus rhythm,,,1.0,,"),
    ("SBRAD,sinus bradycardia,,,1.0,,"),
    ("AFIB,atrial fibrillation,,,1.0,,"),
)


def write_record(
    base: Path,
    millivolts: npt.NDArray[np.float64],
    *,
    leads: Sequence[str] = LEADS,
    gain: float = 1000.0,
    comments: Sequence[str] = (),
    fs: float = FS,
) -> None:
    base.parent.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        base.name,
        fs=fs,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        p_signal=millivolts,
        fmt=["16"] * len(leads),
        adc_gain=[gain] * len(leads),
        baseline=[0] * len(leads),
        comments=list(comments),
        write_dir=str(base.parent),
    )


def made_up(seed: int, *, seconds: float = 10.0) -> npt.NDArray[np.float64]:
    return made_up_signal(seed, seconds=seconds).millivolts


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def ptbxl_row(ecg_id: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "ecg_id": ecg_id,
        "patient_id": f"{1000 + ecg_id}.0",
        "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
        "strat_fold": ecg_id % 10 + 1,
        "filename_lr": f"records100/00000/{ecg_id:05d}_lr",
        "filename_hr": f"records500/00000/{ecg_id:05d}_hr",
    }
    return row | changes


def write_ptbxl(folder: Path, rows: Sequence[Mapping[str, object]], *, signals: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("scp_statements.csv").write_text("\n".join(_SCP) + "\n")
    write_rows(folder / "ptbxl_database.csv", rows)
    for seed, row in enumerate(rows):
        if signals and row["filename_hr"]:
            write_record(folder / str(row["filename_hr"]), made_up(seed))
    return folder


def mimic_path(subject: int, study: int) -> str:
    return f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"


def write_mimic(
    folder: Path, reports: Mapping[tuple[int, int], Sequence[str]], *, signals: bool = True
) -> Path:
    """Write a tree in the layout of MIMIC-IV-ECG 1.0: subject and study to the machine's statements."""
    folder.mkdir(parents=True, exist_ok=True)
    measured, listed = [], []
    for seed, ((subject, study), statements) in enumerate(reports.items()):
        texts = [*statements, *[""] * (18 - len(statements))]
        time = "2150-01-01 12:00:00"
        measured.append(
            {"subject_id": subject, "study_id": study, "cart_id": 6848296, "ecg_time": time}
            | {f"report_{number}": text for number, text in enumerate(texts)}
            | {"bandwidth": "0.005-150 Hz", "filtering": "60 Hz notch", "rr_interval": 800, "p_onset": 40}
        )
        path = mimic_path(subject, study)
        listed.append(
            {"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": time, "path": path}
        )
        if signals:
            columns = [LEADS.index(lead) for lead in MIMIC_LEADS]
            millivolts = made_up(seed)[:, columns]
            write_record(folder / path, millivolts, leads=MIMIC_LEADS, gain=MIMIC_GAIN)
    write_rows(folder / "machine_measurements.csv", measured)
    write_rows(folder / "record_list.csv", listed)
    return folder


@pytest.fixture
def ptbxl_tree(tmp_path: Path) -> Path:
    """Twelve normal records in the layout of PTB-XL."""
    return write_ptbxl(tmp_path / "ptb-xl", [ptbxl_row(number) for number in range(1, 13)])
