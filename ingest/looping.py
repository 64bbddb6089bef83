"""Playing a recording over and over without a false beat at the seam.

A recording that simply begins again has a jump in its baseline and, nearly always, an RR interval that
no heart made: a monitor would be right to raise an alarm. Here it is left between two beats near its end
and goes on between two beats near its beginning, where it looks alike, with an RR interval over the seam
such as the recording itself has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ingest.seams import find_seam
from ingest.source import IngestError, Recording
from stream.contract import INVALID, to_lsb

# The seam is looked for in the first and in the last third, or in ten seconds of either: enough beats to
# choose from, and a day is opened in the memory of a minute.
_SEARCH_S = 10.0

# A second at either end and one between: below that there is nothing to choose from.
_SHORTEST_S = 3.0

# Cross-fade. This much lies between the T wave and the next P wave up to about 110 beats/min.
_FADE_S = 0.12

# The two ends' difference in baseline is taken out over this time, so that no lead jumps.
_LEVEL_S = 1.0


class LoopedRecording(Recording):
    """A recording, or a part of one, without end.

    Parameters
    ----------
    recording : Recording
    start_s, stop_s : float
        The part of it, seconds; None for its end.

    Attributes
    ----------
    join, leave : int
        Samples of the recording between which the loop runs: the part is played from its beginning up to
        `leave`, then from `join` up to `leave`, for ever.

    Raises
    ------
    IngestError
        If the recording has no end or the part is shorter than 3 s.

    Notes
    -----
    From the second time on, up to a third of the part, at most 10 s, is left out at either end. Indices,
    and with them the device time, run on; each index always has the same sample.
    """

    def __init__(self, recording: Recording, start_s: float = 0.0, stop_s: float | None = None) -> None:
        super().__init__(
            name=recording.name,
            fs=recording.fs,
            leads=recording.leads,
            gain=recording.gain,
            start_time=recording.start_time,
        )
        if recording.n_samples is None:
            raise IngestError(recording.name, "has no end, so it cannot be looped")
        self.blocking = recording.blocking
        self._recording = recording
        self._first = round(start_s * self.fs)
        end = recording.n_samples if stop_s is None else min(recording.n_samples, round(stop_s * self.fs))
        if end - self._first < _SHORTEST_S * self.fs:
            raise IngestError(recording.name, f"shorter than {_SHORTEST_S:g} s, so it cannot be looped")
        search = min(round(_SEARCH_S * self.fs), (end - self._first) // 3)
        fade = max(1, round(_FADE_S * self.fs))
        head = self._filled(self._first, self._first + search)
        tail = self._filled(end - search, end)
        join, leave = find_seam(head, tail, self.fs, fade)
        self.join, self.leave = self._first + join, end - search + leave
        self._period = self.leave - self.join
        # How much higher each baseline lies where the loop leaves than where it goes on.
        self._level = np.median(tail[leave - fade : leave], axis=0) - np.median(
            head[join - fade : join], axis=0
        )
        # From 0 to 1, and from 1 to 0, without a corner.
        self._fade_in = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
        settle = min(round(_LEVEL_S * self.fs), self._period - fade)
        self._settling = 0.5 + 0.5 * np.cos(np.pi * (np.arange(settle) + 0.5) / settle)

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        once = self.leave - self._first
        pieces = []
        while start < stop:
            repeated = start >= once
            at = self.join + (start - once) % self._period if repeated else self._first + start
            until = min(self.leave, at + stop - start)
            pieces.append(self._stretch(at, until, repeated))
            start += until - at
        return np.concatenate(pieces)

    def _stretch(self, start: int, stop: int, repeated: bool) -> npt.NDArray[np.int16]:
        # A stretch of one turn of the loop, from `join` up to `leave`.
        fading, settled = self.leave - len(self._fade_in), self.join + len(self._settling)
        if not (repeated and start < settled) and stop <= fading:
            return self._recording.read(start, stop)
        values = self._values(start, stop)
        if repeated and start < settled:
            part = self._settling[start - self.join : stop - self.join]
            values[: len(part)] += np.outer(part, self._level)
        if stop > fading:
            first = max(start, fading)
            here = values[first - start :]
            there = self._values(first - self._period, stop - self._period) + self._level
            weight = self._fade_in[first - fading : stop - fading, np.newaxis]
            mixed = (1 - weight) * here + weight * there
            # Where one side has no sample, the other stands for both.
            values[first - start :] = np.where(np.isnan(here), there, np.where(np.isnan(there), here, mixed))
        return to_lsb(values, 1.0)

    def _values(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        # LSB, NaN where invalid.
        samples = self._recording.read(start, stop)
        return np.where(samples == INVALID, np.nan, samples)

    def _filled(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        # For the search only: each lead's middle value in place of missing samples.
        values = self._values(start, stop)
        for lead in values.T:
            missing = np.isnan(lead)
            lead[missing] = 0.0 if missing.all() else np.median(lead[~missing])
        return values
