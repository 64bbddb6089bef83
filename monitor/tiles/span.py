"""How many millivolts the height of a strip is worth.

One scale for all beds would make one patient's complexes touch the neighbours and another's vanish. So each
strip has its own, in steps, and shows it with a bar of 1 mV. It never goes below a millivolt: what is left of
a flat line must not look like fibrillation.
"""

from __future__ import annotations

from dataclasses import dataclass

# Each a third or a half more than the one before: a strip is never less than half used for long.
_SPANS_MV = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
# Room above and below together, as a share of what has to fit: more than the middle may be off.
_ROOM = 0.12
# A scale is kept until less of it is used than this. After a change at least 0.59 of it are used (the next
# smaller step is two thirds of it), so that the scale does not go back and forth.
_UNUSED = 0.55
# The strip's middle moves in such parts of its height, so that it does not follow every breath.
_PARTS = 10


@dataclass(frozen=True, slots=True)
class Span:
    """The part of the millivolts that a strip shows."""

    low: float
    high: float

    def fits(self, least: float, most: float) -> bool:
        """Say whether values from `least` to `most` are in it, and use enough of it."""
        used = (most - least) / (self.high - self.low)
        # The smallest span, whatever rounding has left of it.
        roomy = used >= _UNUSED or self.high - self.low < 1.01 * _SPANS_MV[0]
        return self.low <= least and most <= self.high and roomy


def span_for(least: float, most: float, now: Span | None = None) -> Span:
    """Return the span for values in millivolts; the one of now, if it still fits."""
    if now is not None and now.fits(least, most):
        return now
    needed = (most - least) * (1 + _ROOM)
    size = next((size for size in _SPANS_MV if size >= needed), _SPANS_MV[-1])
    part = size / _PARTS
    low = round(((least + most - size) / 2) / part) * part
    return Span(round(low, 3), round(low + size, 3))
