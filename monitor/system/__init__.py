"""How the deployment does: workers, streams, Redis server, this dashboard; for people and for Prometheus."""

from __future__ import annotations

from typing import Any

from monitor.api.access import Access
from monitor.system.deployment import Deployment
from monitor.system.exposition import Exposition
from monitor.system.handlers import Metrics, Readiness, SystemReport

__all__ = ["Deployment", "routes"]


def routes(access: Access, deployment: Deployment) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """Return what tornado needs to know of the addresses."""
    given = {"access": access, "deployment": deployment}
    return [
        (r"/api/system", SystemReport, given),
        (r"/metrics", Metrics, {**given, "exposition": Exposition()}),
        (r"/readyz", Readiness, {"deployment": deployment}),
    ]
