"""Acknowledging alarms, pausing a bed's alarms and ending the pause.

Each request becomes a command to the worker of the bed, and its answer, an audit entry, is the response.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from redis.exceptions import RedisError

from monitor.api.access import ApiHandler, RefusedError
from stream import asking
from stream.contract import Audit

ANSWER_S = 5.0
"""A person waits for it."""

_BODY_BYTES = 4_096


class Request(ApiHandler):
    """A handler of ``POST`` requests with a JSON object, in which ``who`` names the person who asks."""

    _body: dict[str, Any]

    def prepare(self) -> None:
        """Refuse what is no such request."""
        super().prepare()
        if self.request.method != "POST":
            # Tornado says that it is not allowed.
            return
        # A form of a foreign page cannot send JSON without asking us first.
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        if len(self.request.body) > _BODY_BYTES:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {_BODY_BYTES} bytes")
        try:
            body = json.loads(self.request.body)
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"no JSON: {error}") from error
        if not isinstance(body, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, 'send an object, as {"who": "nurse 7"}')
        self._body = body

    @property
    def who(self) -> str:
        """Who asks: the user who is signed in, whatever the body says; without a login the body says it."""
        login = self.access.gate.login_of(self.request)
        if login is not None:
            return login.user
        who = self._body.get("who")
        if not isinstance(who, str):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "who: give the name of the person who asks")
        return who

    @property
    def value(self) -> Any:
        """What is asked for; null is something else than nothing."""
        if "value" not in self._body:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "value: say to what it is to be set, null to reset it")
        return self._body["value"]

    async def respond(self, request: Awaitable[Audit]) -> None:
        """Answer with what the worker does: the audit entry, or why there is none."""
        try:
            audit = await request
        except asking.BadRequestError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except asking.UnknownAlarmError as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, str(error)) from error
        except asking.NoAnswerError as error:
            raise RefusedError(HTTPStatus.GATEWAY_TIMEOUT, str(error)) from error
        except asking.AskError as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from error
        except (RedisError, OSError) as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        self.answer(audit.model_dump(mode="json"), HTTPStatus.OK if audit.done else HTTPStatus.CONFLICT)


class Acknowledge(Request):
    """``POST /api/alarms/ALARM/acknowledge`` with ``{"who": NAME}``."""

    async def post(self, alarm: str) -> None:
        """Ask, and answer with the audit entry."""
        access = self.access
        await self.respond(
            asking.acknowledge(access.bus, alarm, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


class AcknowledgeAll(Request):
    """``POST /api/beds/BED/acknowledge`` with ``{"who": NAME}``: all open alarms of a bed."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access = self.access
        await self.respond(
            asking.acknowledge(access.bus, bed=bed, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


class Pause(Request):
    """``POST /api/beds/BED/pause`` with ``{"who": NAME, "seconds": N}``."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access, seconds = self.access, self._body.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "seconds: give a number greater than 0")
        await self.respond(
            asking.pause(access.bus, bed, seconds, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )


class Resume(Request):
    """``POST /api/beds/BED/resume`` with ``{"who": NAME}``."""

    async def post(self, bed: str) -> None:
        """Ask, and answer with the audit entry."""
        access = self.access
        await self.respond(
            asking.resume(access.bus, bed, who=self.who, clock=access.clock, timeout_s=ANSWER_S)
        )
