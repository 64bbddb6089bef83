"""What is shown beside what is usual for this patient: median beats, rate, amplitudes, scores.

The reference is a minute: the one before an operator confirmed the patient's baseline; without that the first
clean one that was recorded of the patient; or the one that somebody has pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.bed.sweep import lead_order
from monitor.bed.trace import SETTLING_S, WIDE_BAND
from monitor.history.archive import Piece, pieces
from monitor.history.blocks import BLOCK_S, Block, Place
from monitor.history.room import Room, Work
from monitor.history.stays import Stay
from stream.preprocess import Conditioner
from stream.recording.store import Recordings

REFERENCE_S = 60.0
_CLEAN_BLOCKS = 3
"""In which a clean minute is looked for: what takes longer to come than 15 minutes is not usual."""
# Of a clean minute: 30 beats a minute are few, and a median needs some.
_BEATS = 30
_FEWEST = 3
# Around the R peak: P wave, and T wave of a usual rate.
_BEFORE_S, _AFTER_S = 0.25, 0.45
# Beats are found to 10 ms: they are moved to fit.
_SHIFT_S = 0.03
_QRS_S = 0.06

Float64Array = npt.NDArray[np.float64]


class Asked(NamedTuple):
    """What is to be compared: device times, ns; `pinned` is where a reference begins that somebody chose."""

    bed: str
    t0: int
    t1: int
    pinned: int | None
    model: str


class Part(NamedTuple):
    """A stretch of a session, in samples, and how far its blocks are."""

    piece: Piece
    start: int
    stop: int
    works: list[Work]

    @property
    def blocks(self) -> list[Block]:
        """What was found in it, as far as it is there."""
        return [work.block for work in self.works if work.block is not None]

    @property
    def error(self) -> str:
        """Why something was not found."""
        return next((work.error for work in self.works if work.error), "")

    @property
    def fs(self) -> float:
        """Sampling frequency, Hz."""
        return self.piece.segments[0].begin.fs

    def beats(self) -> list[int]:
        """R peaks in it."""
        return [beat for block in self.blocks for beat in block.beats if self.start <= beat < self.stop]

    def scores(self) -> list[float]:
        """Scores of the windows inside; in less than a window, of those whose middle is in it."""
        begin, end = (self.piece.time_of(sample) / 1e6 for sample in (self.start, self.stop))
        found: list[float] = []
        for block in self.blocks:
            for one in block.result["windows"]:
                first, last = block.ms(one["start_s"]), block.ms(one["end_s"])
                inside = first >= begin and last <= end
                if inside or (end - begin < last - first and begin <= (first + last) / 2 < end):
                    found.append(one["score"])
        return found


class _NotYetError(Exception):
    def __init__(self, progress: float) -> None:
        super().__init__()
        self.progress = progress


class _ImpossibleError(Exception):
    pass


async def compare(room: Room, asked: Asked, stay: Stay) -> dict[str, Any]:
    """Compare what is shown with the reference.

    Returns
    -------
    dict
        ``state``: ``done``; ``running`` with ``progress``: ask again; or ``impossible`` with ``text``.
        ``reference`` and ``shown``: ``from``, ``to`` (ms), ``beats``, ``rate`` (per minute or null),
        ``scores`` (their number, 5th, 50th, 95th percentile), and of the reference ``why`` it is this one.
        ``above``: share of the reference's windows that score lower than what is shown, 0 to 1. ``leads``: of
        each ``lead``, ``reference`` and ``shown`` the median beat (microvolts, or null), ``fs`` points a
        second from ``before_s`` before the R peak on, ``r_reference`` and ``r_shown`` (mV), ``correlation``.

    Raises
    ------
    OSError
        If a recording is damaged.
    """
    found = await room.read(pieces, room.recordings, asked.bed)
    try:
        shown = _part(room, found, asked, asked.t0, asked.t1)
        if shown is None:
            raise _ImpossibleError("Nothing was recorded here.")
        reference, why = _reference(room, found, asked, stay)
        _check(shown, "what is shown")
        _check(reference, "the reference")
    except _NotYetError as error:
        return {"state": "running", "progress": error.progress}
    except _ImpossibleError as error:
        return {"state": "impossible", "text": str(error)}
    return await room.read(_compared, room.recordings, asked.bed, reference, why, shown)


def _part(room: Room, found: Sequence[Piece], asked: Asked, t0: int, t1: int) -> Part | None:
    # The longest part of one session.
    best: tuple[Piece, int, int] | None = None
    for piece in found:
        spans = [segment.samples_between(t0, t1) for segment in piece.segments]
        inside = [span for span in spans if span[0] < span[1]]
        if inside and (best is None or inside[-1][1] - inside[0][0] > best[2] - best[1]):
            best = piece, inside[0][0], inside[-1][1]
    if best is None:
        return None
    piece, start, stop = best
    return Part(piece, start, stop, _works(room, piece, asked, start, stop))


def _works(room: Room, piece: Piece, asked: Asked, start: int, stop: int) -> list[Work]:
    begin = piece.segments[0].begin
    long = round(BLOCK_S * begin.fs)
    return [
        room.want(Place(asked.bed, begin.session, begin.fs, begin.leads, number), asked.model, stop)
        for number in range(start // long, (stop - 1) // long + 1)
    ]


def _check(part: Part, what: str) -> None:
    waiting = [work.progress for work in part.works if work.block is None and not work.error]
    if waiting:
        raise _NotYetError(min(waiting))
    if part.error and len(part.blocks) < len(part.works):
        raise _ImpossibleError(f"Of {what}: {part.error}.")
    beats = len(part.beats())
    if beats < _FEWEST:
        some = f"only {beats} {'beat' if beats == 1 else 'beats'}" if beats else "no beats"
        raise _ImpossibleError(f"In {what} {some} could be found: a median beat needs {_FEWEST}.")


def _reference(room: Room, found: Sequence[Piece], asked: Asked, stay: Stay) -> tuple[Part, str]:
    long = round(REFERENCE_S * 1e9)
    if asked.pinned is not None:
        part = _part(room, found, asked, asked.pinned, asked.pinned + long)
        if part is None:
            raise _ImpossibleError("Nothing is recorded where the reference was pinned: pin another one.")
        return part, "pinned"
    if stay.confirmed is not None:
        part = _part(room, found, asked, stay.confirmed - long, stay.confirmed)
        if part is not None:
            return part, "the minute before the baseline was confirmed"
    return _clean(room, found, asked, stay.begin), (
        "the first clean minute recorded" + ("" if stay.begin is None else " of this patient")
    )


def _clean(room: Room, found: Sequence[Piece], asked: Asked, begin: int | None) -> Part:
    later = [piece for piece in found if begin is None or piece.time_of(piece.stop) > begin]
    if not later:
        raise _ImpossibleError("Nothing was recorded of this patient.")
    piece = min(later, key=lambda one: one.time_of(one.start))
    fs = piece.segments[0].begin.fs
    start = piece.start
    if begin is not None:
        start = max(
            start, min(span[0] for span in (one.samples_between(begin, 2**62) for one in piece.segments))
        )
    stop = min(piece.stop, start + round(_CLEAN_BLOCKS * BLOCK_S * fs))
    for work in _works_in_turn(room, piece, asked, start, stop):
        if work.block is None and not work.error:
            raise _NotYetError(work.progress)
        if work.block is not None and (clean := _clean_minute(work.block, start)) is not None:
            return Part(piece, clean, clean + round(REFERENCE_S * fs), [work])
    raise _ImpossibleError(
        f"There is no clean minute in the first {_CLEAN_BLOCKS * BLOCK_S / 60:.0f} minutes recorded"
        " (all windows scored and none anomalous, no alarm, good signal):"
        " show one that you trust, and pin it as the reference."
    )


def _works_in_turn(room: Room, piece: Piece, asked: Asked, start: int, stop: int) -> Any:
    # One after the other: mostly the first has a clean minute.
    long = round(BLOCK_S * piece.segments[0].begin.fs)
    for number in range(start // long, (stop - 1) // long + 1):
        first, last = max(start, number * long), min(stop, (number + 1) * long)
        yield from _works(room, piece, asked, first, last)


def _clean_minute(block: Block, start: int) -> int | None:
    # First sample of the first minute in which nothing is wrong.
    result, fs = block.result, block.place.fs
    wrong = [(one["start_s"], one["end_s"]) for one in result["windows"] if one["anomalous"]]
    end_s = min(result["duration_s"], (block.place.stop - block.begin) / fs)
    wrong += [
        (one["onset_s"], end_s if one["end_s"] is None else one["end_s"])
        for one in result["alarms"]
        if one["priority"] != "info"
    ]
    wrong += [(one["start_s"], one["end_s"]) for one in result["seconds"] if one["issues"]]
    scored = sorted((one["start_s"], one["end_s"]) for one in result["windows"])
    at = max(0.0, (start - block.begin) / fs, scored[0][0] if scored else end_s)
    while at + REFERENCE_S <= end_s:
        bad = [until for since, until in wrong if since < at + REFERENCE_S and until > at]
        if bad:
            at = max(bad)
            continue
        beats = [beat for beat in result["beats_s"] if at <= beat < at + REFERENCE_S]
        inside = [one for one in scored if one[0] >= at and one[1] <= at + REFERENCE_S]
        # Of two windows a second, a few may not have been scored.
        if len(beats) >= _BEATS and len(inside) >= REFERENCE_S:
            return int(block.begin + round(at * fs))
        at += 1.0
    return None


def _compared(recordings: Recordings, bed: str, reference: Part, why: str, shown: Part) -> dict[str, Any]:
    usual, now = _medians(recordings, bed, reference), _medians(recordings, bed, shown)
    names = tuple(lead for lead in now if lead in usual)
    fs = shown.fs
    leads = []
    for place in lead_order(names):
        lead = names[place]
        one, other = usual[lead], now[lead]
        if one is not None and reference.fs != fs:
            n = round(_BEFORE_S * fs) + round(_AFTER_S * fs)
            one = np.interp(np.arange(n) / fs, np.arange(len(one)) / reference.fs, one)
        leads.append(
            {
                "lead": lead,
                "reference": _microvolts(one),
                "shown": _microvolts(other),
                "r_reference": _r_wave(one, fs),
                "r_shown": _r_wave(other, fs),
                "correlation": _correlation(one, other),
            }
        )
    scores, usual_scores = shown.scores(), reference.scores()
    above = None
    if scores and usual_scores:
        above = float(np.mean(np.array(usual_scores) < np.median(scores)))
    return {
        "state": "done",
        "reference": _told(reference) | {"why": why},
        "shown": _told(shown),
        "above": above,
        "fs": fs,
        "before_s": _BEFORE_S,
        "leads": leads,
    }


def _told(part: Part) -> dict[str, Any]:
    beats, scores = part.beats(), part.scores()
    intervals = np.diff(beats) / part.fs
    return {
        "from": part.piece.time_of(part.start) / 1e6,
        "to": part.piece.time_of(part.stop) / 1e6,
        "beats": len(beats),
        "rate": round(60 / float(np.median(intervals)), 1) if len(intervals) else None,
        "scores": [len(scores), *(round(float(one), 3) for one in np.percentile(scores, [5, 50, 95]))]
        if scores
        else [0],
    }


def _medians(recordings: Recordings, bed: str, part: Part) -> dict[str, Float64Array | None]:
    # The median beat of each lead, millivolts; None of one that has too few whole ones.
    fs, piece = part.fs, part.piece
    before, after, shift = (round(seconds * fs) for seconds in (_BEFORE_S, _AFTER_S, _SHIFT_S))
    room = before + after + shift
    first = max(piece.start, part.start - room - round(SETTLING_S * fs))
    last = min(piece.stop, part.stop + room)
    begin = piece.segments[0].begin
    t0, t1 = piece.time_of(first), piece.time_of(last)
    x = np.full((len(begin.leads), last - first), np.nan)
    for stretch in recordings.read(bed, t0, t1):
        if (stretch.session, stretch.fs, stretch.leads) == (begin.session, begin.fs, begin.leads):
            low, high = max(first, stretch.n0), min(last, stretch.end)
            x[:, low - first : high - first] = stretch.millivolts[low - stretch.n0 : high - stretch.n0].T
    filtered = Conditioner(WIDE_BAND, fs, fs, len(x), 0).push(x)
    x = np.where(filtered.missing == 0, filtered.values, np.nan)
    # Where all leads together are steepest: the same point of each beat.
    slope = np.nansum(np.abs(np.diff(x, axis=1)), axis=0)
    waves = []
    for beat in part.beats():
        at = beat - first
        if at - before - shift < 0 or at + after + shift >= x.shape[1]:
            continue
        centre = at - shift + int(np.argmax(slope[at - shift : at + shift + 1]))
        if centre >= before and centre + after <= x.shape[1]:
            waves.append(x[:, centre - before : centre + after])
    medians: dict[str, Float64Array | None] = {}
    for row, lead in enumerate(begin.leads):
        whole = [wave[row] for wave in waves if np.isfinite(wave[row]).all()]
        medians[lead] = np.median(whole, axis=0) if len(whole) >= _FEWEST else None
    return medians


def _microvolts(wave: Float64Array | None) -> list[int] | None:
    return None if wave is None else np.rint(1000 * wave).astype(int).tolist()


def _r_wave(wave: Float64Array | None, fs: float) -> float | None:
    # The largest deflection of the QRS complex, from the level before it.
    if wave is None:
        return None
    centre, half = round(_BEFORE_S * fs), round(_QRS_S * fs)
    level = float(np.median(wave[: max(1, centre - half)]))
    qrs = wave[centre - half : centre + half + 1] - level
    return round(float(qrs[int(np.abs(qrs).argmax())]), 3)


def _correlation(one: Float64Array | None, other: Float64Array | None) -> float | None:
    if one is None or other is None or not (one.std() and other.std()):
        return None
    return round(float(np.corrcoef(one, other)[0, 1]), 3)
