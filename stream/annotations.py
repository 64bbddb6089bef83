"""Comments and beats as a WFDB annotation file, which any WFDB tool reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import wfdb

# The length of an annotation's text is one byte.
_TEXT_MAX = 255
# A comment: an annotation that names no beat.
_COMMENT = '"'
# A beat of which nothing more is said, as detectors write it.
_BEAT = "N"
# Comments at sample 0 are where WFDB keeps a file's definitions: readers take them out.
_FIRST = 1


def write_annotations(
    path: Path, notes: Sequence[tuple[float, str]], beats_s: Sequence[float], fs: float
) -> None:
    """Write comments and beats.

    Parameters
    ----------
    path : pathlib.Path
        ``<record name>.<annotator>``; an annotator's name is made of letters.
    notes : sequence of (float, str)
        Seconds from the first sample, and a text.
    beats_s : sequence of float
        R peaks, seconds from the first sample.
    fs : float
        Sampling frequency of the record, Hz.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    beats = [(seconds, _BEAT, "") for seconds in beats_s]
    comments = [(seconds, _COMMENT, _plain(text)) for seconds, text in notes]
    # A stable sort: at the same time, in the order in which they are said here.
    ordered = sorted(comments + beats, key=lambda note: note[0])
    wfdb.wrann(
        path.stem,
        path.suffix[1:],
        sample=np.array([max(_FIRST, round(seconds * fs)) for seconds, _, _ in ordered]),
        symbol=[symbol for _, symbol, _ in ordered],
        aux_note=[text for _, _, text in ordered],
        fs=fs,
        write_dir=str(path.parent),
    )


def _plain(text: str) -> str:
    # One byte a character, and none that would break a line.
    return " ".join(text.split()).encode("ascii", "replace").decode()[:_TEXT_MAX]
