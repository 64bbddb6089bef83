"""What all addresses of the interface share: what they need, what is wanted, and how to say no."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from tornado.web import HTTPError, RequestHandler

from monitor.live.pump import Pump
from monitor.login.gate import Gate
from stream.bus import Bus
from stream.clock import Clock
from stream.subscription.follow import Wanted, wanted


@dataclass
class Access:
    """What the handlers need.

    Attributes
    ----------
    redis_url, prefix : str
        The deployment.
    bus : Bus
    pump : Pump
    clock : Clock
    gate : Gate
        Has looked at every request before; knows who sent it.
    followers : int
        Streams and sockets that are open.
    """

    redis_url: str
    prefix: str
    bus: Bus
    pump: Pump
    clock: Clock
    gate: Gate
    followers: int = 0


class RefusedError(HTTPError):
    """A request that is answered with a status and one line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(status)
        self.text = text


class ApiHandler(RequestHandler):
    """A handler that answers in JSON."""

    def initialize(self, access: Access) -> None:
        """Take what all handlers share."""
        self.access = access

    def answer(self, body: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send a JSON value and finish."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body))

    def attach(self, name: str) -> None:
        """Have what is sent saved under a name, whatever letters it has (RFC 6266)."""
        plain = re.sub(r"[^-A-Za-z0-9_.]", "_", name)
        encoded = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
        self.set_header("Content-Disposition", f'attachment; filename="{plain}"{encoded}')

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong as JSON."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        status = HTTPStatus(status_code)
        self.answer({"error": error.text if isinstance(error, RefusedError) else status.phrase}, status)

    def wanted(self) -> Wanted:
        """Return the filter that the query asks for."""
        try:
            return wanted(
                self.get_query_arguments("bed"),
                self.get_query_argument("kind", None),
                self.get_query_argument("priority", None),
                self.get_query_arguments("rule"),
            )
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
