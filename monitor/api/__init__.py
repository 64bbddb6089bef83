"""The dashboard's HTTP interface for programs: alarms to read, to follow, and to answer."""

from __future__ import annotations

from typing import Any

from monitor.api.access import Access
from monitor.api.following import AlarmSocket, AlarmStream
from monitor.api.listing import AlarmList
from monitor.api.requests import Acknowledge, Pause, Resume

__all__ = ["Access", "routes"]


def routes(access: Access) -> list[tuple[str, type[Any], dict[str, Access]]]:
    """Return what tornado needs to know of the interface's addresses."""
    given = {"access": access}
    return [
        (r"/api/alarms", AlarmList, given),
        (r"/api/alarms/stream", AlarmStream, given),
        (r"/api/alarms/ws", AlarmSocket, given),
        (r"/api/alarms/([^/]+)/acknowledge", Acknowledge, given),
        (r"/api/beds/([^/]+)/pause", Pause, given),
        (r"/api/beds/([^/]+)/resume", Resume, given),
    ]
