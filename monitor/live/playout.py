"""When a sample is due on the screen.

Samples come in chunks, by default five a second. Drawn as they come, a trace would jump; so each bed has
a play-out position that moves evenly, a little behind the newest sample. How far behind is measured, not
set: one chunk (a chunk must last until the next one comes) and the jitter of the last few seconds. On one
machine, with chunks of 200 ms, that is 220 ms after a sample was taken. The filter's delay adds 10 ms, and
the page's next update 20 ms on average: a quarter of a second in all, of which the chunk is the most.
"""

from __future__ import annotations

from collections import deque

# Five seconds of default chunks: long enough to meet the jitter of a busy machine, short enough to come
# back to live soon after it has calmed down.
_REMEMBERED = 25
# Chunks that come later than this, compared with the earliest, are a backlog after an outage, not jitter:
# to wait for such would be to show the past.
_JITTER_MAX_S = 1.0
# A position that is off by more than this jumps to live; one that is off by less runs faster or slower
# by up to a tenth, which no one sees.
_JUMP_S = 1.0
_SLEW = 0.1


class Playout:
    """Play-out position of one feed.

    Parameters
    ----------
    fs : float
        Sampling frequency, Hz.
    pace : float
        Device seconds per real second; 0 for a feed that comes as fast as it can, which is always shown
        at its newest sample.
    """

    def __init__(self, fs: float, pace: float) -> None:
        self._rate = fs * pace
        # Per chunk: arrival minus the time of its last sample, and its duration, in real seconds.
        self._late: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._stop = 0
        self._position: float | None = None
        self._at_ns = 0
        # Real time is counted from the first arrival, so that floats keep microseconds.
        self._epoch_ns: int | None = None

    def hear(self, arrival_ns: int, start: int, stop: int, *, live: bool = True) -> None:
        """Take note of a chunk.

        Parameters
        ----------
        arrival_ns : int
        start, stop : int
            Its first sample, and the sample after its last one.
        live : bool
            False for one that was read from the past: its arrival says nothing.
        """
        self._stop = max(self._stop, stop)
        if self._epoch_ns is None:
            self._epoch_ns = arrival_ns
        if live and self._rate:
            arrival_s = (arrival_ns - self._epoch_ns) / 1e9
            self._late.append((arrival_s - stop / self._rate, (stop - start) / self._rate))

    def position(self, now_ns: int) -> int:
        """Return the sample up to which the trace is due on the screen, exclusive; it never goes back."""
        if not self._late or self._epoch_ns is None:
            return self._stop
        late = [lateness for lateness, _ in self._late]
        longest = max(duration for _, duration in self._late)
        delay_s = min(max(late), min(late) + _JITTER_MAX_S) + longest
        due = ((now_ns - self._epoch_ns) / 1e9 - delay_s) * self._rate
        if self._position is None:
            position = due
        else:
            elapsed = max(0, now_ns - self._at_ns) / 1e9 * self._rate
            ahead = due - (self._position + elapsed)
            if abs(ahead) > _JUMP_S * self._rate:
                position = max(self._position, due)
            else:
                position = self._position + elapsed + min(max(ahead, -_SLEW * elapsed), _SLEW * elapsed)
        self._position, self._at_ns = min(position, float(self._stop)), now_ns
        return int(self._position)
