"""The gate: every request is looked at here before anything answers it.

What is not said to be open is closed. A request must come by a name of this server and from one of its own
pages; if there is a login, somebody must be signed in, and only operators may change anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from monitor.login.attempts import Attempts
from monitor.login.passwords import Passwords
from monitor.login.sessions import Session, Sessions
from monitor.login.users import Role, UsersFile
from stream.clock import Clock

# Asked by machinery that knows this process by its address only, and tells nothing of a bed.
_UNGUARDED = ("/healthz", "/readyz", "/favicon.ico")
# Scripts and styles: the same for everybody.
_STATIC = ("/assets/", "/static/")
# For who is not signed in, yet or any more.
_SIGNED_OUT = ("/login", "/logout", "/api/me")
_SAFE = ("GET", "HEAD", "OPTIONS")
# What viewers may send, too: analysing a file of one's own changes no bed.
_VIEWERS_MAY = ("/api/analyses",)
# Of IPv6, with a zone.
_ADDRESS_MOST = 64
_DEFAULT_PORTS = (":80", ":443")


@dataclass(frozen=True, slots=True)
class Login:
    """Who sent a request.

    Attributes
    ----------
    user : str
    role : Role
    session : Session, optional
        None for a program, which sends its token each time.
    until_ns : int, optional
        When the session ends at the latest.
    """

    user: str
    role: Role
    session: Session | None = None
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: a status, and one line for people."""

    status: HTTPStatus
    text: str


class Gate:
    """Decides who may come in.

    Parameters
    ----------
    names : collection of str
        ``host`` or ``host:port`` under which this server is reached, beside loopback names and the address at
        which a connection arrives. A page of another name, also one that has been made to lead here, is
        refused.
    users : UsersFile or None
        None for no login: then only this machine may be able to connect.
    clock : Clock
    cookie : str
        Name of the session's cookie.
    path : str
        Prefix of all addresses, such as ``/bedside``, or empty.
    """

    def __init__(
        self, names: Collection[str], users: UsersFile | None, clock: Clock, cookie: str, path: str = ""
    ) -> None:
        self._names = frozenset(_bare(name) for name in names)
        self.users = users
        self.sessions = None if users is None else Sessions(users, clock)
        self.attempts = Attempts(clock)
        self.passwords = Passwords()
        self.cookie = cookie
        self.path = path

    def login_of(self, request: HTTPServerRequest, *, watched: bool = False) -> Login | None:
        """Return who sent a request; None if nobody is signed in, or there is no login.

        Parameters
        ----------
        request : tornado.httputil.HTTPServerRequest
        watched : bool
            The connection that the request opened is still in use.
        """
        if self.users is None or self.sessions is None:
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        # A proxy may have a password of its own and pass it on: that is not for us.
        if scheme.lower() == "bearer":
            known = self.users.users.with_token(token.strip())
            return None if known is None else Login(known[0], known[1].role)
        cookie = request.cookies.get(self.cookie)
        found = None if cookie is None else self.sessions.read(cookie.value, watched=watched)
        if found is None:
            return None
        session, user, until_ns = found
        return Login(session.user, user.role, session, until_ns)

    def refusal(self, request: HTTPServerRequest) -> Refusal | None:
        """Return why a request is not to be answered; None for one that is."""
        path = request.path.removeprefix(self.path)
        if path in _UNGUARDED or path.startswith(_STATIC):
            return None
        if not self._is_ours(request):
            return Refusal(
                HTTPStatus.FORBIDDEN,
                f"this server does not go by the name {request.host}: if it should, start it with"
                f" --public-name {request.host}",
            )
        origin, safe = request.headers.get("Origin"), request.method in _SAFE
        if origin is not None and not self._is_own_page(origin, request):
            return Refusal(HTTPStatus.FORBIDDEN, "pages of another origin are not served")
        if self.users is None or path in _SIGNED_OUT:
            return None
        login = self.login_of(request)
        if login is None:
            return Refusal(HTTPStatus.UNAUTHORIZED, "sign in first")
        if safe:
            return None
        if login.session is not None and origin is None:
            # Browsers name it with whatever may change something; programs have tokens.
            return Refusal(HTTPStatus.FORBIDDEN, "a request with a session's cookie must name its origin")
        if login.role is not Role.OPERATOR and not path.startswith(_VIEWERS_MAY):
            return Refusal(
                HTTPStatus.FORBIDDEN,
                f"{login.user} is signed in as a viewer: only operators may acknowledge, pause or change",
            )
        return None

    def address_of(self, request: HTTPServerRequest) -> str:
        """Return the address that a request came from; a proxy on this machine is asked for whom it came."""
        address: str = request.remote_ip or ""
        forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        return forwarded[:_ADDRESS_MOST] if forwarded and _is_loopback(address) else address

    def _is_ours(self, request: HTTPServerRequest) -> bool:
        host = _bare(request.host)
        name = _name_of(host)
        if host in self._names or name == "localhost" or _is_loopback(name):
            return True
        return name == _arrived_at(request)

    def _is_own_page(self, origin: str, request: HTTPServerRequest) -> bool:
        page = _bare(urlsplit(origin).netloc)
        # A proxy may have put another name in place of the one that the browser used.
        return page == _bare(request.host) or page in self._names


def _bare(host: str) -> str:
    # Browsers leave the usual port out.
    host = host.lower()
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(port)
    return host


def _name_of(host: str) -> str:
    # Without its port, and an IPv6 address without its brackets.
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _arrived_at(request: HTTPServerRequest) -> str:
    # The address of this machine that the client has connected to: surely a name of this server's.
    connection = request.connection
    stream = getattr(connection, "stream", None)
    if stream is None or stream.socket is None:
        return ""
    address: str = stream.socket.getsockname()[0]
    return address.partition("%")[0].removeprefix("::ffff:")
