"""The order in which beds stand on the page: the most urgent first, and calm."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.live.ward import URGENCY, Bed, Ward
from monitor.summary import natural
from stream.contract import Presence

# A bed moves up at once and down only after this: an alarm that comes and goes, or a feed that does, must not
# make the whole ward jump each time.
_HOLD_NS = 10_000_000_000

Rank = tuple[int, bool]


def rank(bed: Bed, now_ns: int) -> Rank:
    """Return how urgent a bed is, the lower the more.

    By the priority of its most urgent alarm, unacknowledged ones first; then beds that nobody scores; then
    all others.
    """
    alarms = bed.open_alarms()
    if alarms:
        return -2 - URGENCY[alarms[0].priority], alarms[0].presence is Presence.ACKNOWLEDGED
    return (-1 if bed.is_unscored() and not bed.is_silent(now_ns) else 0), False


@dataclass(slots=True)
class _Place:
    rank: Rank
    # Since when it would be lower.
    lower_ns: int | None = None


class Order:
    """The order of one ward, the same for all pages."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    def sorted(self, ward: Ward, now_ns: int) -> list[Bed]:
        """Return all beds, by rank, and those of one rank by name."""
        places: dict[str, _Place] = {}
        for name, bed in ward.beds.items():
            now = rank(bed, now_ns)
            place = self._places.get(name) or _Place(now)
            if now <= place.rank:
                place.rank, place.lower_ns = now, None
            elif place.lower_ns is None:
                place.lower_ns = now_ns
            elif now_ns - place.lower_ns >= _HOLD_NS:
                place.rank, place.lower_ns = now, None
            places[name] = place
        self._places = places
        return sorted(ward.beds.values(), key=lambda bed: (places[bed.name].rank, natural(bed.name)))
