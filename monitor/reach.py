"""How a dashboard is reached: address, names, TLS, and who may come in."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bokeh.server.util import bind_sockets

from monitor.login.gate import Gate
from monitor.login.users import UsersError, UsersFile
from stream.clock import Clock

_NAME = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?", re.ASCII | re.IGNORECASE)
_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)+")
_MAKE_USERS = "make users with `bedside users add NAME --users FILE` and give --users FILE"
_EVERYWHERE = ("0.0.0.0", "::", "")


class MonitorError(RuntimeError):
    """The dashboard cannot run; the text says what, where and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How a dashboard is reached.

    Attributes
    ----------
    host : str
        Address to listen on. Any but a loopback address needs `users`.
    port : int
        0 for any free one.
    users : pathlib.Path, optional
        Users file. With it everybody has to sign in, also on this machine.
    names : sequence of str
        ``host`` or ``host:port`` by which others reach it, through a proxy or by a name in the network.
    path : str
        Under which a proxy passes requests on, such as ``/bedside``; it may leave it in or take it away.
    tls : tuple of pathlib.Path, optional
        Files of the certificate (with those between it and the root) and of its key.
    """

    host: str = "127.0.0.1"
    port: int = 5006
    users: Path | None = None
    names: Sequence[str] = ()
    path: str = ""
    tls: tuple[Path, Path] | None = None

    @property
    def is_private(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def listen(self, clock: Clock) -> Door:
        """Begin to listen.

        Raises
        ------
        MonitorError
            If something of it makes no sense or cannot be had, or would let everybody in.
        """
        self._check()
        try:
            users = None if self.users is None else UsersFile(self.users)
        except UsersError as error:
            raise MonitorError(str(error)) from error
        context = None if self.tls is None else _context(*self.tls)
        sockets, port = _bind(self.host, self.port)
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.host in _EVERYWHERE:
            host = socket.gethostname()
        path = self.path.rstrip("/")
        names = [*self.names, f"{host}:{port}", f"{socket.gethostname()}:{port}"]
        # Cookies know no ports: two dashboards on one machine would sign each other out.
        gate = Gate(names, users, clock, f"bedside-{port}", path)
        return Door(sockets, gate, context, f"{'https' if context else 'http'}://{host}:{port}{path}/")

    def _check(self) -> None:
        if self.users is None and not self.is_private:
            raise MonitorError(
                f"address {self.host}: others could read and silence alarms, so it needs a login:"
                f" {_MAKE_USERS}; or use 127.0.0.1, and an SSH tunnel from elsewhere"
            )
        if self.users is None and self.names:
            raise MonitorError(
                f"public name {self.names[0]}: others are to reach it, so it needs a login: {_MAKE_USERS}"
            )
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise MonitorError(f"public name {name!r}: give HOST or HOST:PORT, as monitor.example:8443")
        if self.path.rstrip("/") and not _PATH.fullmatch(self.path.rstrip("/")):
            raise MonitorError(f"prefix {self.path!r}: give a path, as in /bedside")


@dataclass(frozen=True, slots=True)
class Door:
    """Where a dashboard listens.

    Attributes
    ----------
    sockets : list of socket.socket
    gate : Gate
    context : ssl.SSLContext, optional
    url : str
        Of the page.
    """

    sockets: list[socket.socket]
    gate: Gate
    context: ssl.SSLContext | None
    url: str

    def close(self) -> None:
        """Stop listening, if nobody took the sockets over."""
        for listening in self.sockets:
            listening.close()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MonitorError(f"cannot use certificate {certificate} with key {key}: {why}") from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, and that only you may read")


def _bind(host: str, port: int) -> tuple[list[socket.socket], int]:
    try:
        return bind_sockets(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MonitorError(
                f"port {port} on {host} is in use: stop what runs there, or choose another port"
            ) from error
        raise MonitorError(f"cannot listen on {host} port {port}: {error.strerror}") from error
