"""``/api/system``, ``/metrics`` and ``/readyz``."""

from __future__ import annotations

import json
from http import HTTPStatus

from redis.exceptions import RedisError
from tornado.web import RequestHandler

from monitor.api.access import Access, ApiHandler, RefusedError
from monitor.system.deployment import Deployment, as_json
from monitor.system.exposition import Exposition


class SystemReport(ApiHandler):
    """``GET /api/system``: workers, streams, server and this dashboard, as JSON."""

    def initialize(self, access: Access, deployment: Deployment) -> None:  # type: ignore[override]
        """Take what is looked at."""
        super().initialize(access)
        self._deployment = deployment

    async def get(self) -> None:
        """Answer."""
        try:
            look = await self._deployment.look()
        except (RedisError, OSError) as error:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the Redis server does not answer: {error}"
            ) from error
        self.answer(as_json(look, await self._deployment.dashboard()))


class Metrics(ApiHandler):
    """``GET /metrics``: the same for Prometheus."""

    def initialize(self, access: Access, deployment: Deployment, exposition: Exposition) -> None:  # type: ignore[override]
        """Take what is looked at, and who writes it down."""
        super().initialize(access)
        self._deployment, self._exposition = deployment, exposition

    async def get(self) -> None:
        """Answer, also while the Redis server does not."""
        try:
            look = await self._deployment.look()
        except (RedisError, OSError):
            look = None
        dashboard = await self._deployment.dashboard(lost=look is None)
        page, kind = self._exposition.page(look, dashboard, self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", kind)
        self.set_header("Cache-Control", "no-store")
        self.finish(page)


class Readiness(RequestHandler):
    """``GET /readyz``: 200 if people may be sent here, else 503 with the reasons.

    As ``/healthz`` it is asked by machinery that knows this process by an address only.
    """

    def initialize(self, deployment: Deployment) -> None:
        """Take what is looked at."""
        self._deployment = deployment

    async def get(self) -> None:
        """Answer."""
        reasons = await self._deployment.unready()
        self.set_status(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps({"ready": not reasons, "reasons": reasons}))
