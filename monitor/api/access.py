"""What all addresses of the interface share: who may come in, what is wanted, and how to say no."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from tornado.web import HTTPError, RequestHandler

from monitor.live.pump import Pump
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
    hosts : frozenset of str
        ``host:port`` under which this server is reached: a page of another host, also one whose name has
        been made to lead here, is refused.
    followers : int
        Streams and sockets that are open.
    """

    redis_url: str
    prefix: str
    bus: Bus
    pump: Pump
    clock: Clock
    hosts: frozenset[str]
    followers: int = 0


class RefusedError(HTTPError):
    """A request that is answered with a status and one line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(status)
        self.text = text


class ApiHandler(RequestHandler):
    """A handler that answers in JSON and lets only this server's own pages, and programs, in."""

    def initialize(self, access: Access) -> None:
        """Take what all handlers share."""
        self.access = access

    def prepare(self) -> None:
        """Refuse who came by another name, or from another page."""
        if self.request.host.lower() not in self.access.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server does not go by that name")
        origin = self.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() not in self.access.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "pages of another origin are not served")

    def answer(self, body: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send a JSON value and finish."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(body))

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
