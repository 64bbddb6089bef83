"""Recordings that people drop on the page: taken in, analysed by ``bedside analyze`` in a process apart."""

from __future__ import annotations

import re
from typing import Any

from monitor.api.access import Access
from monitor.uploads.desk import RESULTS, Desk
from monitor.uploads.handlers import AnalysisList, OneAnalysis, Result, Upload

__all__ = ["Desk", "routes"]


def routes(access: Access, desk: Desk) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """Return what tornado needs to know of the addresses of uploads."""
    given = {"access": access, "desk": desk}
    return [
        (r"/api/analyses", AnalysisList, given),
        (r"/api/analyses/([\w-]+)", OneAnalysis, given),
        (r"/api/analyses/([\w-]+)/files/([^/]+)", Upload, given),
        (rf"/api/analyses/([\w-]+)/({'|'.join(map(re.escape, RESULTS))})", Result, given),
    ]
