"""The dashboard's HTTP interface for programs: alarms to read, follow and answer; settings of beds."""

from __future__ import annotations

from typing import Any

from monitor.api.access import Access
from monitor.api.auditing import AuditList, Verification, Verifier
from monitor.api.beds import (
    Admit,
    Bed,
    ConfirmBaseline,
    Discharge,
    Models,
    SetLimits,
    SetModel,
    SetThreshold,
)
from monitor.api.following import AlarmSocket, AlarmStream
from monitor.api.listing import AlarmList
from monitor.api.requests import Acknowledge, AcknowledgeAll, Pause, Resume
from monitor.api.snapshots import Drawings, SnapshotFile

__all__ = ["Access", "routes"]


def routes(access: Access) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """Return what tornado needs to know of the interface's addresses."""
    given = {"access": access}
    drawings = Drawings(access.redis_url, access.prefix)
    return [
        (r"/api/alarms", AlarmList, given),
        (r"/api/alarms/stream", AlarmStream, given),
        (r"/api/alarms/ws", AlarmSocket, given),
        (r"/api/alarms/([^/]+)/acknowledge", Acknowledge, given),
        (r"/api/alarms/([^/]+)/snapshot\.(png|pdf|zip)", SnapshotFile, given | {"drawings": drawings}),
        (r"/api/audit", AuditList, given),
        (r"/api/audit/verification", Verification, given | {"verifier": Verifier(access)}),
        (r"/api/beds/([^/]+)/acknowledge", AcknowledgeAll, given),
        (r"/api/beds/([^/]+)/pause", Pause, given),
        (r"/api/beds/([^/]+)/resume", Resume, given),
        (r"/api/beds/([^/]+)", Bed, given),
        (r"/api/beds/([^/]+)/model", SetModel, given),
        (r"/api/beds/([^/]+)/threshold", SetThreshold, given),
        (r"/api/beds/([^/]+)/limits", SetLimits, given),
        (r"/api/beds/([^/]+)/baseline", ConfirmBaseline, given),
        (r"/api/beds/([^/]+)/admit", Admit, given),
        (r"/api/beds/([^/]+)/discharge", Discharge, given),
        (r"/api/models", Models, given),
    ]
