"""From raw samples to FLAC (WFDB format 516), without losing a bit or a moment in which neither is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream.recording import files
from stream.recording.header import Summary, header_text
from stream.recording.segment import HEADER, RAW, Begin, beside, flac_files

# As wfdb writes it: FLAC must have a rate of sound, and readers take that of the header.
_RATE_HZ = 96_000
# A minute of 12 leads at 1000 Hz: 1.4 MB.
_BLOCK = 65_536


class CompressionError(Exception):
    """A segment that stays as it is; the text says why, in one line."""


def compress(record: Path, begin: Begin, frames: int) -> None:
    """Put FLAC files in the place of a segment's raw file.

    The header names the raw file until all FLAC files are on the disk and give the same samples.

    Parameters
    ----------
    record : pathlib.Path
        A segment that has ended.
    begin : Begin
    frames : int

    Raises
    ------
    CompressionError
        If FLAC does not give back the samples, or cannot be had here.
    OSError
        If something cannot be written, or the segment has been deleted.
    """
    try:
        import soundfile  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:
        raise CompressionError(f"no FLAC here ({error}): recordings stay uncompressed") from error
    targets = flac_files(record, len(begin.leads))
    temporary = [path.with_name(path.name + files.TEMPORARY) for path, _ in targets]
    summary = Summary(len(begin.leads))
    try:
        for place, (path, (_, held)) in enumerate(zip(temporary, targets, strict=True)):
            path.unlink(missing_ok=True)
            files.create(path)
            channels = held.stop - held.start
            try:
                with soundfile.SoundFile(
                    str(path), "w", samplerate=_RATE_HZ, channels=channels, subtype="PCM_16", format="FLAC"
                ) as sound:
                    for block in blocks(record, begin, frames):
                        sound.write(np.ascontiguousarray(block[:, held]))
                        if place == 0:
                            summary.add(block)
                _check(soundfile.SoundFile(str(path)), record, begin, frames, held)
            except RuntimeError as error:
                # libsndfile tells a full disk, too, only in its own words.
                raise OSError(f"{path}: {error}") from error
            files.write_at(path, b"", path.stat().st_size)
        for path, (target, _) in zip(temporary, targets, strict=True):
            path.replace(target)
        files.sync_folder(record.parent)
        text = header_text(record, begin, frames, summary, flac=True)
        files.replace(beside(record, HEADER), text, durable=True)
        beside(record, RAW).unlink()
    finally:
        for path in temporary:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _check(sound: object, record: Path, begin: Begin, frames: int, held: slice) -> None:
    with sound as flac:  # type: ignore[attr-defined]
        for block in blocks(record, begin, frames):
            if not np.array_equal(flac.read(len(block), dtype="int16", always_2d=True), block[:, held]):
                raise CompressionError(f"{record.name}: FLAC gives back other samples; it stays as it is")
        if len(flac.read(1, dtype="int16")):
            raise CompressionError(f"{record.name}: FLAC gives back too many samples; it stays as it is")


def blocks(record: Path, begin: Begin, frames: int) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the samples of a raw file in pieces, shape (n, leads)."""
    leads = len(begin.leads)
    with beside(record, RAW).open("rb") as file:
        for start in range(0, frames, _BLOCK):
            count = min(_BLOCK, frames - start)
            values = np.fromfile(file, "<i2", count * leads)
            if len(values) < count * leads:
                raise CompressionError(f"{record.name}: the raw file is shorter than the segment")
            yield values.reshape(count, leads).astype(np.int16, copy=False)
