"""Signing in and out: ``/login``, ``/logout`` and ``/api/me``; and the answer to who may not come in."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader
from tornado.web import RequestHandler

from monitor.api.access import Access, ApiHandler, RefusedError
from monitor.login.gate import Gate, Refusal
from monitor.login.passwords import BusyError
from monitor.login.sessions import Session, Sessions
from monitor.login.users import Role

_TEMPLATE = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "templates"), autoescape=True
).get_template("login.html")
_BODY_BYTES = 4_096
_NAME_MOST = 64


class Login(ApiHandler):
    """``GET /login``: the page to sign in. ``POST /login`` with ``{"user", "password"}``: signs in."""

    def get(self) -> None:
        """Send the page."""
        send_page(self, self.access.gate)

    async def post(self) -> None:
        """Check name and password, and answer with a session's cookie."""
        gate = self.access.gate
        if gate.users is None or gate.sessions is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no login here")
        name, password = self._credentials()
        origin = self.request.headers.get("Origin")
        if origin is None:
            raise RefusedError(HTTPStatus.FORBIDDEN, "browsers sign in here; programs send a token")
        address = gate.address_of(self.request)
        if wait_s := gate.attempts.wait_s(name, address):
            self.set_header("Retry-After", str(wait_s))
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, f"too many failed attempts: try again in {wait_s} s"
            )
        gate.attempts.begin(name, address)
        user = gate.users.users.users.get(name)
        try:
            known = await gate.passwords.matches(password, None if user is None else user.password)
        except BusyError as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        if user is None or not known:
            # The same whether the name or the password is wrong, and as late.
            raise RefusedError(HTTPStatus.UNAUTHORIZED, "name or password is wrong")
        gate.attempts.succeed(name, address)
        # The browser says whether it came by TLS, also through a proxy.
        session = gate.sessions.begin(name, user, secure=urlsplit(origin).scheme == "https")
        _set_cookie(self, gate, gate.sessions, session)
        self.answer({"user": name, "role": user.role})

    def _credentials(self) -> tuple[str, str]:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json" or len(self.request.body) > _BODY_BYTES:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "send a small object as application/json")
        try:
            body: Any = json.loads(self.request.body)
            name, password = body["user"], body["password"]
            # Half a surrogate pair is none.
            password.encode()
            name.encode()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, 'send {"user": …, "password": …}, both text'
            ) from error
        # No name is longer; what somebody sends is remembered for a while.
        return name.strip()[:_NAME_MOST], password


class Logout(ApiHandler):
    """``POST /logout``: ends the session, here and wherever its cookie was copied to."""

    def post(self) -> None:
        """End it."""
        gate = self.access.gate
        login = gate.login_of(self.request)
        if login is not None and login.session is not None and gate.sessions is not None:
            gate.sessions.end(login.session)
        self.clear_cookie(gate.cookie, path=f"{gate.path}/")
        self.answer({})


class Me(ApiHandler):
    """``GET /api/me``: whether there is a login, who asks, what they may do, and until when.

    An open page asks every few minutes, and so is not idle.
    """

    def get(self) -> None:
        """Answer."""
        gate = self.access.gate
        login = gate.login_of(self.request)
        if login is not None and login.session is not None and gate.sessions is not None:
            session = gate.sessions.renewed(login.session)
            if session is not None:
                _set_cookie(self, gate, gate.sessions, session)
        if gate.users is None:
            self.answer({"login": False, "user": None, "role": Role.OPERATOR, "until": None})
        else:
            self.answer(
                {
                    "login": True,
                    "user": login and login.user,
                    "role": login and login.role,
                    "until": login and login.until_ns and login.until_ns / 1e9,
                }
            )


class Refused(RequestHandler):
    """Answers who may not come in."""

    def initialize(self, gate: Gate, refusal: Refusal) -> None:
        """Take what to say."""
        self._gate, self._refusal = gate, refusal

    def prepare(self) -> None:
        """Say it."""
        status, text = self._refusal.status, self._refusal.text
        self.set_status(status)
        person = self.request.method == "GET" and "text/html" in self.request.headers.get("Accept", "")
        if status is HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Bearer realm="bedside"')
            if person:
                # Here and not at an address of its own: whoever signs in is where he wanted to be.
                send_page(self, self._gate)
                return
        if person:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{text}\n")
        else:
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps({"error": text}))


def send_page(handler: RequestHandler, gate: Gate) -> None:
    """Send the page to sign in and finish."""
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    handler.finish(_TEMPLATE.render(path=gate.path, login=gate.users is not None))


def _set_cookie(handler: RequestHandler, gate: Gate, sessions: Sessions, session: Session) -> None:
    # No time of its own: it ends with the browser, if not before.
    handler.set_cookie(
        gate.cookie,
        sessions.cookie(session),
        path=f"{gate.path}/",
        httponly=True,
        samesite="Strict",
        secure=session.secure,
    )


def routes(access: Access) -> list[tuple[str, type[ApiHandler], dict[str, Access]]]:
    """Return what tornado needs to know of the login's addresses."""
    given = {"access": access}
    return [(r"/login", Login, given), (r"/logout", Logout, given), (r"/api/me", Me, given)]
