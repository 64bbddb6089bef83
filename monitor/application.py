"""The dashboard's web application: Bokeh's, with the gate before every address."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Any, cast
from weakref import WeakKeyDictionary

from bokeh.application import Application as BokehApplication
from bokeh.embed.server import server_html_page_for_session
from bokeh.server.session import ServerSession
from bokeh.server.tornado import BokehTornado
from bokeh.server.views.doc_handler import DocHandler
from bokeh.server.views.ws import WSHandler
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.web import RedirectHandler, RequestHandler

from monitor.login.gate import Gate
from monitor.login.handlers import Refused

# A tab that has lost its connection may come back within this; then its session is dropped.
_SESSION_LIFETIME_MS = 15_000
_SESSION_CHECK_MS = 500
# How a browser closes the connection of a tab that was closed or has gone elsewhere (RFC 6455, 7.4.1): that
# page does not come back, and what it holds need not wait for it.
_LEFT = (1000, 1001)
# Who has been signed out sees nothing new after this.
_LOOK_S = 1.0

_POLICY = {
    "default-src": "'none'",
    "base-uri": "'none'",
    "connect-src": "'self'",
    "font-src": "'self' data:",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
    "frame-src": "'self'",
    "img-src": "'self' data: blob:",
    "script-src": "'self'",
    # Bokeh styles its elements one by one.
    "style-src": "'self' 'unsafe-inline'",
}


class Application(BokehTornado):
    """Serves the page and all other addresses to those whom the gate lets in.

    Parameters
    ----------
    page : bokeh.application.Application
        Fills the document of each page.
    gate : Gate
    patterns : list of tuple
        Further addresses, as tornado takes them.
    """

    def __init__(self, page: BokehApplication, gate: Gate, patterns: list[Any]) -> None:
        super().__init__(
            {"/": page},
            prefix=gate.path,
            extra_patterns=patterns,
            check_unused_sessions_milliseconds=_SESSION_CHECK_MS,
            unused_session_lifetime_milliseconds=_SESSION_LIFETIME_MS,
            # Nobody makes up the name of a page's session.
            secret_key=secrets.token_bytes(32),
            sign_sessions=True,
            # Bokeh writes them into the page, where scripts could read the cookie of the login.
            include_cookies=[],
            include_headers=[],
        )
        self.gate = gate
        self._guarded: dict[type[RequestHandler], type[RequestHandler]] = {}
        self._open: WeakKeyDictionary[IOStream, HTTPServerRequest] = WeakKeyDictionary()

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Route a request; a proxy may have left the prefix in the path or taken it away."""
        prefix = self.gate.path
        if request.path == prefix:
            # Addresses in the page are relative to its folder.
            return super().get_handler_delegate(
                request, RedirectHandler, {"url": f"{prefix}/", "permanent": False}
            )
        if not request.path.startswith(f"{prefix}/"):
            request.path = prefix + request.path
        return super().find_handler(request, **kwargs)

    def get_handler_delegate(
        self,
        request: HTTPServerRequest,
        target_class: type[RequestHandler],
        target_kwargs: dict[str, Any] | None = None,
        path_args: list[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> Any:
        """Let whoever may come in have what was asked for."""
        refusal = self.gate.refusal(request)
        if refusal is not None:
            target_class, target_kwargs = Refused, {"gate": self.gate, "refusal": refusal}
            path_args = path_kwargs = None
        elif self.gate.users is not None:
            self._note(request)
        guarded = self._guarded.get(target_class)
        if guarded is None:
            ours = _OURS.get(target_class, target_class)
            guarded = self._guarded[target_class] = type(ours.__name__, (_SecureHeaders, ours), {})
        return super().get_handler_delegate(request, guarded, target_kwargs, path_args, path_kwargs)

    async def watch(self) -> None:
        """Cut connections whose login is over, for ever: one that is open sends no further request."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for stream, request in list(self._open.items()):
                if self.gate.login_of(request, watched=True) is None:
                    stream.close()

    def _note(self, request: HTTPServerRequest) -> None:
        stream = getattr(request.connection, "stream", None)
        if stream is None:
            return
        if self.gate.login_of(request) is not None:
            self._open[stream] = request
        else:
            self._open.pop(stream, None)


class _Document(DocHandler):
    # As Bokeh's own, with a nonce for the one script that stands in the page itself.

    async def get(self, *args: Any, **kwargs: Any) -> None:
        # Bokeh's decorator takes the type away.
        session = await cast(Awaitable[ServerSession], self.get_session())
        nonce = secrets.token_urlsafe(16)
        document = session.document
        gate = cast(Application, self.application).gate
        login = gate.login_of(self.request)
        page = server_html_page_for_session(
            session,
            resources=self.application.resources(),
            title=document.title,
            template=document.template,
            template_variables=document.template_variables
            | {"nonce": nonce, "login": login, "login_needed": gate.users is not None},
        )
        # Bokeh makes functions of the code that it is sent.
        scripts = f"'self' 'unsafe-eval' 'nonce-{nonce}'"
        self.set_header("Content-Security-Policy", _policy(_POLICY | {"script-src": scripts}))
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(page)


class _Socket(WSHandler):
    def check_origin(self, origin: str) -> bool:
        # The gate has looked.
        return True

    def on_close(self) -> None:
        if self.close_code in _LEFT and self.connection is not None:
            self.connection.session.request_expiration()
        super().on_close()


_OURS: dict[type[RequestHandler], type[RequestHandler]] = {DocHandler: _Document, WSHandler: _Socket}


class _SecureHeaders(RequestHandler):
    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", _policy(_POLICY))
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "SAMEORIGIN")
        # Not no-referrer: browsers would hide the origin of our own requests, too.
        self.set_header("Referrer-Policy", "same-origin")
        # Nothing of a patient stays in a browser; files with a version in their address say otherwise.
        self.set_header("Cache-Control", "no-store")


def _policy(parts: dict[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in parts.items())
