"""``GET /api/audit``: who asked for what, and what became of alarms; and whether the log holds together."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from redis.exceptions import RedisError

from monitor.api.access import Access, ApiHandler, RefusedError
from monitor.api.wording import outcome, what
from monitor.aside import AsideError, bedside
from stream.bus import Entry
from stream.contract import Audit, MalformedMessageError
from stream.subscription.positions import SinceError, after, place_of
from stream.topics import AUDIT

_COUNT, _COUNT_MAX = 200, 1_000
_PAGE = 500
# 100 000 entries, all that are kept, take a few seconds.
_PATIENCE_S = 60.0
# Whoever wants it anew sooner finds no more than was just found.
_FRESH_NS = 3_000_000_000


class AuditList(ApiHandler):
    """Answers with entries, newest first, each also in words; ``bed``, ``since`` and ``count`` as a query."""

    async def get(self) -> None:
        """Answer."""
        bed, since = self.get_query_argument("bed", None), self.get_query_argument("since", None)
        try:
            count = int(self.get_query_argument("count", str(_COUNT)))
        except ValueError:
            count = 0
        if not 1 <= count <= _COUNT_MAX:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"count: a number from 1 to {_COUNT_MAX}")
        try:
            begin = after(since or "0-0", self.access.clock.now_ns() // 1_000_000)
        except SinceError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        try:
            # One more shows whether there are more.
            found = await self._newest(bed, place_of(begin), count + 1)
        except (RedisError, OSError) as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        self.answer({"entries": [_told(*one) for one in found[:count]], "more": len(found) > count})

    async def _newest(self, bed: str | None, begin: tuple[int, int], count: int) -> list[tuple[Entry, Audit]]:
        await self.access.bus.declare(AUDIT)
        found: list[tuple[Entry, Audit]] = []
        before = f"{2**63 - 1}-0"
        while True:
            page = await self.access.bus.recent(AUDIT, 0, before, _PAGE)
            for entry in page:
                if place_of(entry.id) <= begin or len(found) == count:
                    return found
                try:
                    audit = Audit.decode(entry.value)
                except MalformedMessageError:
                    # The verification tells of it.
                    continue
                if bed is None or audit.bed == bed:
                    found.append((entry, audit))
            if len(page) < _PAGE:
                return found
            before = page[-1].id


def _told(entry: Entry, audit: Audit) -> dict[str, Any]:
    words = {"position": entry.id, "what": what(audit), "outcome": outcome(audit)}
    return audit.model_dump(mode="json") | words


class Verifier:
    """Checks the whole chain beside the server, and no more often than it makes sense.

    Parameters
    ----------
    access : Access
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._turn = asyncio.Lock()
        self._report: dict[str, Any] = {}
        self._checked_ns = 0

    async def report(self) -> dict[str, Any]:
        """Return what was found, as ``bedside audit verify --json`` says it, and when.

        Raises
        ------
        RefusedError
            If it could not be checked.
        """
        clock = self._access.clock
        async with self._turn:
            if not self._report or clock.now_ns() - self._checked_ns > _FRESH_NS:
                try:
                    done = await bedside(
                        *("audit", "verify", "--json"),
                        redis_url=self._access.redis_url,
                        prefix=self._access.prefix,
                        timeout_s=_PATIENCE_S,
                    )
                    # A broken chain is a refusal, too, but is told first.
                    report = json.loads(done.output) if done.output else None
                except AsideError as error:
                    raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"not checked: {error}") from error
                if report is None:
                    raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, f"not checked: {done.refusal}")
                self._checked_ns = clock.now_ns()
                self._report = report | {"checked": self._checked_ns}
            return self._report


class Verification(ApiHandler):
    """Answers whether the chain holds, and if not, what is wrong with it."""

    def initialize(self, access: Access, verifier: Verifier) -> None:  # type: ignore[override]
        """Take what all handlers share, and who checks."""
        super().initialize(access)
        self._verifier = verifier

    async def get(self) -> None:
        """Answer."""
        self.answer(await self._verifier.report())
