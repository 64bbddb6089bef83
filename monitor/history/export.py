"""A stretch to keep: as WFDB records with annotations, zipped, and as a strip of ECG paper."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from monitor.history.room import Room, utc
from monitor.limited import LimitedError

STRIP_S = 30.0
"""The longest strip: what `bedside analyze` draws whole."""
ZIP_S = 3600.0
"""43 MB of twelve leads at 500 Hz, zipped in memory."""

# Analysing an hour takes some ten seconds, and nobody waits for it who wants the samples.
_ANALYSED_S = 600.0
_ANNOTATIONS = "bed"


class Made(NamedTuple):
    """A file to download."""

    name: str
    data: bytes


async def zipped(room: Room, bed: str, t0: int, t1: int, model: str) -> Made:
    """Return WFDB records of a stretch: samples as they came, alarms (``.alm``), and the side file.

    Of up to ten minutes also what the model says, as annotations (``.bed``).

    Raises
    ------
    LimitedError
        If it cannot be done.
    """
    folder = room.new_folder()
    try:
        out = folder / "out"
        where = ("--out", room.recordings.root.resolve())
        span = ("--from", utc(t0, 1e9), "--until", utc(t1, 1e9))
        await room.bedside("record", "export", "--bed", bed, *span, "--to", out, *where, folder=folder)
        records = sorted(out.glob("*.hea"))
        if len(records) == 1 and t1 - t0 <= _ANALYSED_S * 1e9:
            try:
                await room.bedside(
                    *("analyze", room.folder_of(bed), *span, "--model", model, "--annotations", _ANNOTATIONS),
                    folder=folder,
                )
                (notes,) = folder.glob(f"*.{_ANNOTATIONS}")
                notes.rename(records[0].with_suffix(f".{_ANNOTATIONS}"))
            except (LimitedError, ValueError):
                # The samples are what was asked for.
                pass
        return Made(f"{_name(bed, t0)}.zip", await room.read(_packed, out))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def strip(room: Room, bed: str, t0: int, t1: int, model: str, form: str) -> Made:
    """Return a page of ECG paper with a stretch, what the model expected, and the score; ``png`` or ``pdf``.

    Raises
    ------
    LimitedError
        If it cannot be drawn.
    """
    folder = room.new_folder()
    try:
        file = folder / f"strip.{form}"
        span = ("--from", utc(t0, 1e9), "--until", utc(t1, 1e9))
        await room.bedside(
            "analyze", room.folder_of(bed), *span, "--model", model, f"--{form}", file, folder=folder
        )
        return Made(f"{_name(bed, t0)}.{form}", file.read_bytes())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _packed(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return packed.getvalue()


def _name(bed: str, t0: int) -> str:
    at = datetime.fromtimestamp(t0 / 1e9).astimezone()
    return re.sub(r"[^-A-Za-z0-9_]", "_", bed) + f"-{at:%Y%m%dT%H%M%S}"
