"""The deployment that the faults happen to: every part a process of its own, behind one breakable address."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.ports import free_port
from bench.ward import Ward
from stream.bus import Bus, open_client
from stream.children import spawn
from stream.embedded import EmbeddedServer
from tests.faults.clock import WallClock
from tests.faults.proxy import Proxy

# As fast as a live feed may be for its clock to be believed, and four alarms in the time of one.
SPEED = 4.0
_HTTP_TIMEOUT_S = 5.0


class FaultyWard(Ward):
    """Server with an append-only file, two workers, live page, recorder and a subscriber of alarms.

    All of them on one machine, whose clock can be set.

    Parameters
    ----------
    folder : pathlib.Path
        For everything; short enough for a socket.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(workers=2, page_port=free_port(), recordings=folder / "recordings")
        self.folder = folder
        self.server = EmbeddedServer(folder / "server", appendonly=True)
        self.proxy = Proxy(self.server.directory / "s.sock")
        self.clock = WallClock(folder)
        self.heard = folder / "alarms.jsonl"
        self._number = len(self.workers)
        self._servers = 1

    @property
    def url(self) -> str:
        return self.proxy.url

    def direct(self) -> Bus:
        """Open a connection that no fault on the way can touch, and that does not wait for the server."""
        return Bus(open_client(self.server.url, retries=0), prefix=self._prefix)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.clock.inside())
            stack.enter_context(self.proxy)
            super().__enter__()
            self.start_subscriber()
            self._after = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.children):
            self.wake(name)
        with self._after:
            super().__exit__(kind, error, trace)

    def wake(self, name: str) -> None:
        """Let a stopped part go on."""
        if self.children[name].poll() is None:
            self.children[name].send_signal(signal.SIGCONT)

    def living_workers(self) -> list[str]:
        return sorted(name for name in self.children if name.startswith("worker"))

    def another_worker(self) -> None:
        """Start one more worker, as whoever looks after them does when one has died."""
        self._number += 1
        self.start_worker(f"worker-{self._number}")

    def kill(self, name: str) -> int:
        """Kill a part outright, and return its pid."""
        process = self.children.pop(name)
        process.kill()
        process.wait()
        self._logs.pop(name).close()
        return process.pid

    def start_page(self) -> None:
        self._start("page", "dashboard", "--port", str(self._page_port))

    def start_recorder(self) -> None:
        self._start("recorder", "record", "--out", str(self.recordings))

    def start_subscriber(self) -> None:
        command = [sys.executable, "-m", "bedside", "alerts", "--follow", "--json", "--since", "0-0"]
        log = (self.folder / "subscriber.log").open("w+b")
        with self.heard.open("ab") as out:
            self.children["subscriber"] = spawn([*command, "--redis", self.url], stdout=out, stderr=log)
        self._logs["subscriber"] = log

    def start_feed(self, name: str, beds: int, timeline: str, seed: int) -> None:
        """Start an ingest process; its beds are called ``<name>-1``, ``<name>-2`` …"""
        options = {"--prefix": f"{name}-", "--beds": beds, "--timeline": timeline, "--seed": seed}
        options |= {"--speed": SPEED, "--redis": self.url, "--metrics-port": 0}
        flat = [str(part) for option in options.items() for part in option]
        self._spawn(f"feed {name}", "-m", "bedside", "ingest", "simulate", *flat)

    async def end_feed(self, name: str) -> None:
        """Let a feed end on purpose."""
        process = self.children.pop(f"feed {name}")
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"the feed {name} does not end") from None
        self._logs.pop(f"feed {name}").close()

    async def ready_page(self) -> bool:
        """Say whether the live page calls itself ready; False also if it says nothing."""
        return (await asyncio.to_thread(self._get, "/readyz"))[0] == 200

    async def problems(self) -> list[dict[str, Any]] | None:
        """Return what the live page says is wrong; None if it cannot look."""
        status, body = await asyncio.to_thread(self._get, "/api/system")
        found: list[dict[str, Any]] | None = json.loads(body)["problems"] if status == 200 else None
        return found

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._page_port}{path}", timeout=_HTTP_TIMEOUT_S
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def unread_stream(self) -> socket.socket:
        """Follow the alarms over HTTP, as one who then reads nothing."""
        assert self._page_port is not None
        deaf = socket.create_connection(("127.0.0.1", self._page_port), _HTTP_TIMEOUT_S)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.sendall(
            b"GET /api/alarms/stream?since=0-0 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % self._page_port
        )
        return deaf

    async def fail_over(self) -> None:
        """Put a replica in the server's place, once it has everything, and kill the server."""
        first, self._servers = self.server, self._servers + 1
        second = EmbeddedServer(self.folder / f"server-{self._servers}", appendonly=True).start()
        # The server has no port of its own: the replica reaches it through a proxy, too.
        with Proxy(first.directory / "s.sock") as link:
            async with self.direct() as before, await Bus.connect(second.url) as after:

                async def behind() -> bool:
                    there, here = [await bus.client.info("replication") for bus in (before, after)]
                    up = here["master_link_status"] == "up"
                    return not up or here["slave_repl_offset"] < there["master_repl_offset"]

                await after.client.execute_command("REPLICAOF", "127.0.0.1", link.port)
                await asyncio.sleep(1.0)
                await before.client.execute_command("CLIENT", "PAUSE", 30_000, "WRITE")
                # All that tells are the servers.
                while await behind():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                assert first.pid is not None
                os.kill(first.pid, signal.SIGKILL)
                first.stop()
                await after.client.execute_command("REPLICAOF", "NO", "ONE")
        self.server = second
        self.proxy.target = second.directory / "s.sock"

    def limit_file_size(self, size: int) -> None:
        """Have the server find its disk full at the end of a file of so many bytes; -1 takes it back."""
        import resource

        assert self.server.pid is not None
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def file_size(self) -> int:
        """Return the size of the part of the append-only file that is being written."""
        parts = (self.server.directory / "appendonlydir").glob("*.incr.aof")
        return max(os.stat(part).st_size for part in parts)
