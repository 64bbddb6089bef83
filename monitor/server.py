"""The dashboard's server: Bokeh's, with one pump behind it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import json
import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bokeh.application import Application as BokehApplication
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.settings import settings
from jinja2 import Environment, FileSystemLoader
from redis.exceptions import RedisError
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler, StaticFileHandler

from monitor import api, history, system, uploads
from monitor.api import Access
from monitor.application import Application
from monitor.live.pump import Pump
from monitor.live.ward import Ward
from monitor.login import handlers as login
from monitor.page import VIEWS, Bulletin, Page
from monitor.reach import MonitorError, Reach
from monitor.summary import local_time
from monitor.tiles.strips import Strips
from stream.bus import Bus, BusUnavailableError
from stream.clock import Clock, SystemClock
from stream.recording.names import default_folder
from stream.side_by_side import until_one_ends
from stream.topics import DEFAULT_PREFIX
from stream.watch import Watch

__all__ = ["Monitor", "MonitorError", "Reach", "serve"]

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"
# Pages are often closed together.
_TIDY_S = 1.0
# Requests are small; what takes more says so itself, when it has seen who sends it.
_BODY_BYTES = 64 * 1024
# A pump further behind than this is not healthy: what the pages show is no longer live.
_LAG_MAX_S = 5.0


class Monitor:
    """Everything that one dashboard process holds.

    Parameters
    ----------
    bus : Bus
    clock : Clock
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self.pump = Pump(bus, Ward(), clock)
        self.pages: set[Page] = set()
        self._tidying = _Tidying()
        self._bulletin = Bulletin(self.pump)
        self._strips = Strips(self.pump.ward)
        self._clock = clock
        self._template = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=False
        ).get_template("page.html")
        # Part of the addresses of script and style: a browser never mixes those of two releases.
        files = sorted(path for path in _STATIC.iterdir() if path.is_file())
        self._version = hashlib.blake2b(
            b"".join(path.read_bytes() for path in files), digest_size=6
        ).hexdigest()

    def open_page(self, document: Document) -> None:
        """Fill the document of a new session."""
        document.title = "Bedside"
        document.template = self._template
        # All times on a page are those of the clock on the wall here, wherever it is looked at.
        now = local_time(self._clock.now_ns())
        offset = now.utcoffset() if now else None
        document.template_variables.update(
            version=self._version,
            views=list(VIEWS),
            scripts=_scripts(),
            utc_offset_s=offset.total_seconds() if offset else 0.0,
        )
        # The page tells of a lost connection itself.
        document.config.notify_connection_status = False
        request = getattr(document.session_context, "request", None)
        arguments = {} if request is None else request.arguments
        bed, view = (arguments.get(name, [b""])[0].decode(errors="replace") for name in ("bed", "view"))
        self.pages.add(
            Page(
                document,
                self.pump,
                self._bulletin,
                self._strips,
                self._clock,
                bed,
                view,
                on_close=self._close,
            )
        )

    def _close(self, page: Page) -> None:
        self.pages.discard(page)
        self._tidying.soon()

    def health(self) -> dict[str, object]:
        """Return what ``/healthz`` answers."""
        pump = self.pump
        connected = pump.lost_since_ns is None
        return {
            "ok": connected and pump.lag_s <= _LAG_MAX_S,
            "redis": "connected" if connected else "lost",
            "pump_lag_s": round(pump.lag_s, 3),
            "beds": len(pump.ward.beds),
            "pages": len(self.pages),
            "watched": len(pump.watched),
            "malformed": pump.malformed,
        }


class _Tidying:
    """Gives the memory of closed pages back, a while after the last one was closed.

    A page is a circle of thousands of small objects: Python looks for those rarely, and the C library keeps
    what it got.
    """

    def __init__(self) -> None:
        self._due: asyncio.TimerHandle | None = None
        # What is there now stays: not to be looked through each time.
        gc.collect()
        gc.freeze()
        try:
            self._trim: Callable[[int], int] | None = ctypes.CDLL(None).malloc_trim
        except AttributeError:
            # Not the GNU C library.
            self._trim = None

    def soon(self) -> None:
        """Do it, unless another page is closed meanwhile."""
        if self._due is not None:
            self._due.cancel()
        self._due = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy)

    def _tidy(self) -> None:
        gc.collect()
        if self._trim is not None:
            self._trim(0)


def _scripts() -> list[str]:
    # The shell's, and each view's after its parts, which are named after it.
    parts = {view: sorted(path.stem for path in _STATIC.glob(f"{view}-*.js")) for view in VIEWS}
    return ["page", "lag", "sound", "help", "ask", *(name for view in VIEWS for name in (*parts[view], view))]


class _Health(RequestHandler):
    def initialize(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def get(self) -> None:
        health = self._monitor.health()
        self.set_status(200 if health["ok"] else 503)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(health))


def serve(
    redis_url: str,
    *,
    prefix: str = DEFAULT_PREFIX,
    reach: Reach | None = None,
    port: int | None = None,
    on_ready: Callable[[str], None] | None = None,
    clock: Clock | None = None,
    recordings: Path | None = None,
) -> None:
    """Serve the live page until SIGINT or SIGTERM. Call it from the main thread.

    Parameters
    ----------
    redis_url : str
        Server of the streams.
    prefix : str
        Start of every key of the deployment.
    reach : Reach, optional
        By default this machine only, without a login.
    port : int, optional
        Goes before that of `reach`; 0 for any free one.
    on_ready : callable, optional
        Called with the page's URL when it can be opened.
    clock : Clock, optional
    recordings : pathlib.Path, optional
        Where the recorder writes; by default as `bedside record` does.

    Raises
    ------
    MonitorError
        If the address cannot be used or the Redis server cannot be reached.
    """
    reach = reach or Reach()
    if port is not None:
        reach = replace(reach, port=port)
    asyncio.run(
        _serve(redis_url, prefix, reach, on_ready, clock or SystemClock(), recordings or default_folder())
    )


async def _serve(
    redis_url: str,
    prefix: str,
    reach: Reach,
    on_ready: Callable[[str], None] | None,
    clock: Clock,
    recordings: Path,
) -> None:
    door = reach.listen(clock)
    try:
        bus = await Bus.connect(redis_url, prefix=prefix, clock=clock)
    except (BusUnavailableError, RedisError) as error:
        door.close()
        raise MonitorError(f"{error}; start it, or give the URL of one that runs") from error
    if not reach.is_private and reach.tls is None:
        log.warning(
            "passwords and patients' signals travel in the clear: give --tls-cert and --tls-key, or listen on"
            " 127.0.0.1 and put a proxy with TLS before it"
        )
    async with bus:
        monitor = Monitor(bus, clock)
        # Hospital networks have no internet: scripts come from this server whatever the environment says.
        settings.resources = "server"
        # A tab that is closed in the middle of an update is no news, and each would tell it many times.
        logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
        access = Access(redis_url, prefix, bus, monitor.pump, clock, door.gate)
        desk = uploads.Desk(clock)
        room = history.Room(recordings, clock)
        deployment = system.Deployment(access, lambda: len(monitor.pages))
        application = Application(
            BokehApplication(FunctionHandler(monitor.open_page)),
            door.gate,
            [
                (r"/healthz", _Health, {"monitor": monitor}),
                (r"/assets/(.*)", StaticFileHandler, {"path": str(_STATIC)}),
                *login.routes(access),
                *api.routes(access),
                *uploads.routes(access, desk),
                *history.routes(access, room),
                *system.routes(access, deployment),
            ],
        )
        http = HTTPServer(application, ssl_options=door.context, max_body_size=_BODY_BYTES)
        http.add_sockets(door.sockets)
        server = BaseServer(IOLoop.current(), application, http)
        server.start()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            if on_ready is not None:
                on_ready(door.url)
            await until_one_ends(
                monitor.pump.run(),
                Watch(redis_url, prefix=prefix, clock=clock).run(),
                desk.run(),
                room.run(),
                application.watch(),
                stop.wait(),
            )
        finally:
            # Nobody asks any more before there is nobody to answer.
            server.stop(wait=False)
            await http.close_all_connections()
            desk.close()
            room.close()
            await deployment.close()
