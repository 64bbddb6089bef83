"""Who is let in, request by request."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from monitor.login.gate import Gate, Refusal
from monitor.login.users import UsersFile
from stream.clock import ManualClock
from tests.monitor.login.people import OPERATOR, PROGRAM, VIEWER, users_file
from tests.monitor.messages import T0

OWN = "monitor.example:5006"


def request_of(method: str, path: str, host: str, **headers: str) -> HTTPServerRequest:
    sent = HTTPHeaders({name.replace("_", "-"): value for name, value in headers.items()} | {"Host": host})
    line = RequestStartLine(method, path, "HTTP/1.1")
    return HTTPServerRequest(start_line=line, headers=sent, connection=_Connection())


class Client:
    """Somebody who sends requests to a gate, signed in or not."""

    def __init__(self, folder: Path, user: str | None, *, token: bool = False) -> None:
        path = folder / "users.json"
        tokens = users_file(path)
        file = UsersFile(path)
        self.gate = Gate([OWN, "proxy.example"], file, ManualClock(T0), "bedside-5006", "/bedside")
        self.headers: dict[str, str] = {}
        if user is not None and token:
            self.headers["Authorization"] = f"Bearer {tokens[user]}"
        elif user is not None:
            assert self.gate.sessions is not None
            session = self.gate.sessions.begin(user, file.users.users[user], secure=False)
            self.headers["Cookie"] = f"bedside-5006={self.gate.sessions.cookie(session)}"

    def request(
        self, path: str = "/", method: str = "GET", *, host: str = OWN, **headers: str
    ) -> HTTPServerRequest:
        return request_of(method, f"/bedside{path}", host, **self.headers, **headers)

    def status(self, *arguments: Any, **headers: Any) -> HTTPStatus | None:
        refusal = self.refusal(*arguments, **headers)
        return None if refusal is None else refusal.status

    def refusal(self, *arguments: Any, **headers: Any) -> Refusal | None:
        return self.gate.refusal(self.request(*arguments, **headers))


class _Connection:
    # What tornado wants to know of one.
    context = None
    stream = None

    def set_close_callback(self, callback: Any) -> None: ...


OPEN = ["/healthz", "/readyz", "/assets/page.css", "/static/js/bokeh.min.js"]
SIGNED_OUT = ["/login", "/api/me"]
CLOSED = [
    "/",
    "/ws",
    "/autoload.js",
    "/metadata",
    "/metrics",
    "/api/alarms",
    "/api/alarms/ws",
    "/api/beds/b/pause",
]
CLOSED += ["", "/login/x", "/healthz/", "/assets", "/nothing-like-this", "/api/me/x"]


def test_what_is_not_said_to_be_open_is_closed(tmp_path: Path) -> None:
    client = Client(tmp_path, None)
    assert [path for path in OPEN + SIGNED_OUT if client.refusal(path)] == []
    assert {client.status(path) for path in CLOSED} == {HTTPStatus.UNAUTHORIZED}
    signed_in = Client(tmp_path, VIEWER)
    assert [path for path in OPEN + SIGNED_OUT + CLOSED if signed_in.refusal(path)] == []


def test_names_that_are_not_ours_get_nothing_but_what_is_open(tmp_path: Path) -> None:
    client = Client(tmp_path, OPERATOR)
    for host in ("elsewhere.example", "elsewhere.example:5006", "monitor.example", "10.0.0.1:5006"):
        refusal = client.refusal("/", host=host)
        assert refusal is not None
        assert (refusal.status, host in refusal.text) == (HTTPStatus.FORBIDDEN, True)
        assert client.status("/login", "POST", host=host) is HTTPStatus.FORBIDDEN
        assert client.status("/healthz", host=host) is None
    for host in (
        OWN,
        "MONITOR.example:5006",
        "proxy.example",
        "proxy.example:443",
        "localhost:8080",
        "[::1]:80",
    ):
        assert client.status("/", host=host) is None


@pytest.mark.parametrize("path", ["/", "/api/alarms", "/login", "/ws"])
def test_pages_of_others_get_nothing(tmp_path: Path, path: str) -> None:
    client = Client(tmp_path, OPERATOR)
    for origin in ("http://elsewhere.example", "null", "http://localhost:3000", "http://monitor.example"):
        for method in ("GET", "POST"):
            assert client.status(path, method, Origin=origin) is HTTPStatus.FORBIDDEN
    # Its own, also where a proxy has put another name in place of the browser's.
    for origin in (f"http://{OWN}", "https://proxy.example"):
        assert client.status(path, "POST", Origin=origin) is None


def test_a_cookie_alone_changes_nothing(tmp_path: Path) -> None:
    client = Client(tmp_path, OPERATOR)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.status("/api/beds/b/pause", method) is HTTPStatus.FORBIDDEN
        assert client.status("/api/beds/b/pause", method, Origin=f"http://{OWN}") is None
    program = Client(tmp_path, PROGRAM, token=True)
    assert program.status("/api/beds/b/pause", "POST") is None


@pytest.mark.parametrize("token", [False, True])
def test_viewers_look_on(tmp_path: Path, token: bool) -> None:
    client = Client(tmp_path, VIEWER, token=token)
    own = {"Origin": f"http://{OWN}"}
    assert client.status("/api/alarms", **own) is None
    for method in ("POST", "PUT", "DELETE", "PATCH", "STRANGE"):
        refusal = client.refusal("/api/beds/b/pause", method, **own)
        assert refusal is not None
        assert refusal.text.startswith("wall 3 is signed in as a viewer: only operators")
    assert client.status("/logout", "POST", **own) is None
    assert client.status("/api/analyses", "POST", **own) is None


def test_a_token_says_who_it_is_and_a_wrong_one_nothing(tmp_path: Path) -> None:
    client = Client(tmp_path, PROGRAM, token=True)
    login = client.gate.login_of(client.request())
    assert login is not None
    assert (login.user, login.session, login.until_ns) == (PROGRAM, None, None)
    right = client.headers["Authorization"]
    for wrong in ("Bearer", "Bearer x", right.replace("Bearer", "Basic"), right[:-1], right + "x"):
        client.headers["Authorization"] = wrong
        assert client.status() is HTTPStatus.UNAUTHORIZED
    # A password of a proxy's own that it passes on does not stand in the way of a cookie.
    browser = Client(tmp_path, OPERATOR)
    assert browser.status(Authorization="Basic YTpi") is None
    assert browser.status(Authorization="Bearer x") is HTTPStatus.UNAUTHORIZED


def test_without_a_login_nobody_is_signed_in_and_all_may_come_from_here(tmp_path: Path) -> None:
    gate = Gate(["127.0.0.1:5006"], None, ManualClock(T0), "bedside-5006")

    def request(method: str, host: str) -> HTTPServerRequest:
        return request_of(method, "/", host)

    assert gate.refusal(request("POST", "127.0.0.1:5006")) is None
    assert gate.login_of(request("GET", "127.0.0.1:5006")) is None
    assert gate.refusal(request("GET", "rebound.example:5006")) is not None


def test_a_proxy_of_this_machine_is_believed_where_a_request_came_from(tmp_path: Path) -> None:
    client = Client(tmp_path, None)

    def address(peer: str, **headers: str) -> str:
        request = client.request("/login", **headers)
        request.remote_ip = peer
        return client.gate.address_of(request)

    assert address("127.0.0.1", X_Forwarded_For="192.0.2.9, 192.0.2.7") == "192.0.2.7"
    assert address("192.0.2.1", X_Forwarded_For="192.0.2.7") == "192.0.2.1"
    assert address("127.0.0.1") == "127.0.0.1"
