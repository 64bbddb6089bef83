"""What was, from the recorder's files: signal and alarms of any moment, what a model says of it, exports."""

from __future__ import annotations

from typing import Any

from monitor.api.access import Access
from monitor.history.handlers import BedList, Comparison, Envelope, Export, Findings, Overview, Signal
from monitor.history.room import Room

__all__ = ["Room", "routes"]


def routes(access: Access, room: Room) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """Return what tornado needs to know of the addresses of the history."""
    given = {"access": access, "room": room}
    return [
        (r"/api/history", BedList, given),
        (r"/api/history/([^/]+)", Overview, given),
        (r"/api/history/([^/]+)/envelope", Envelope, given),
        (r"/api/history/([^/]+)/signal", Signal, given),
        (r"/api/history/([^/]+)/findings", Findings, given),
        (r"/api/history/([^/]+)/comparison", Comparison, given),
        (r"/api/history/([^/]+)/export\.(zip|png|pdf)", Export, given),
    ]
