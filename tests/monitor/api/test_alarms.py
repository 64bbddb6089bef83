"""The interface for programs: alarms as a list, a stream and a socket, and answers to them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
import pytest

from stream.bus import Bus
from stream.contract import Presence
from stream.embedded import EmbeddedServer
from stream.subscription.follow import SERVICE_SILENT
from tests.monitor.serving import Dashboard, dashboard
from tests.stream.responder import REFUSES, responding
from tests.stream.turmoil import (
    event,
    lasting_server,
    number_of,
    publish,
    publish_in_turmoil,
)

COUNT = 150

Body = Callable[[aiohttp.ClientSession, Bus, Dashboard], Awaitable[None]]


def served(server: EmbeddedServer, body: Body) -> None:
    async def go() -> None:
        with dashboard(server.url) as running:
            async with (
                aiohttp.ClientSession(running.url) as http,
                await Bus.connect(server.url) as bus,
            ):
                await asyncio.wait_for(body(http, bus, running), 60)

    asyncio.run(go())


async def server_sent(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    """Yield events as a browser reads them."""
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if not text:
            if "data" in fields:
                yield fields
            fields = {}
        else:
            name, _, value = text.partition(": ")
            fields[name] = value


async def numbers_of(answer: aiohttp.ClientResponse, last: int, seen: list[int]) -> str:
    """Read a stream up to a number; return the last id."""
    position = ""
    async for one in server_sent(answer):
        position = one["id"]
        if one.get("event") == "heartbeat":
            continue
        alarm = json.loads(one["data"])
        assert alarm["position"] == position
        if alarm["rule"] != SERVICE_SILENT:
            seen.append(number_of(alarm))
        if seen and seen[-1] == last:
            break
    return position


def test_the_list_has_the_open_ones_and_the_latest(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        async def listed(**query: Any) -> Any:
            while True:
                async with http.get("/api/alarms", params=query) as answer:
                    if answer.status != 503:
                        assert answer.status == 200
                        return await answer.json()

        positions = await publish(bus, *[event(number, f"bed-{number % 2}") for number in range(6)])
        positions += await publish(bus, event(1, "bed-1", event="alarm-1-1", presence=Presence.OFF))
        found = await listed()
        while found["position"] != positions[-1]:
            found = await listed()
        assert [number_of(alarm) for alarm in found["recent"]] == [1, 5, 4, 3, 2, 1, 0]
        assert [alarm["position"] for alarm in found["recent"]] == positions[::-1]
        assert sorted(number_of(alarm) for alarm in found["open"]) == [0, 2, 3, 4, 5]
        found = await listed(bed="bed-1", recent="2")
        assert sorted(number_of(alarm) for alarm in found["open"]) == [3, 5]
        assert [number_of(alarm) for alarm in found["recent"]] == [1, 5]
        assert (await listed(recent="0"))["recent"] == []
        for query in ({"kind": "x"}, {"priority": "x"}, {"recent": "-1"}, {"recent": "1e9"}):
            async with http.get("/api/alarms", params=query) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]

    served(redis_server, body)


def test_a_stream_filters_beats_and_goes_on_behind_its_last_id(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        positions = await publish(bus, *[event(number, f"bed-{number % 2}") for number in range(10)])
        async with http.get("/api/alarms/stream", params={"since": "1h", "bed": "bed-1"}) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            seen: list[int] = []
            await numbers_of(answer, 9, seen)
            assert seen == [1, 3, 5, 7, 9]
        # What the browser saw last goes before what the address says.
        headers = {"Last-Event-ID": positions[6]}
        async with http.get("/api/alarms/stream", params={"since": "1h"}, headers=headers) as answer:
            seen = []
            await numbers_of(answer, 9, seen)
            assert seen == [7, 8, 9]
        # From now on; the heartbeats carry the position, so that going on is quick.
        async with http.get("/api/alarms/stream", params={"priority": "high"}) as answer:
            beats = server_sent(answer)
            assert (await anext(beats))["id"] == positions[-1]
            (last,) = await publish(bus, event(10))
            beat = await anext(beats)
            assert (beat["event"], beat["id"]) == ("heartbeat", last)
        for wrong in ({"since": "yesterday"}, {"kind": "x"}):
            async with http.get("/api/alarms/stream", params=wrong) as answer:
                assert answer.status == 400

    served(redis_server, body)


def test_a_socket_says_the_same(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        positions = await publish(bus, *[event(number, f"bed-{number % 2}") for number in range(10)])
        async with http.ws_connect("/api/alarms/ws", params={"since": positions[3], "bed": "bed-1"}) as ws:
            alarms = [await ws.receive_json() for _ in range(3)]
            assert [number_of(alarm) for alarm in alarms] == [5, 7, 9]
            assert [alarm["position"] for alarm in alarms] == [positions[5], positions[7], positions[9]]
            assert await ws.receive_json() == {"heartbeat": positions[-1]}

    served(redis_server, body)


def test_a_stream_that_is_cut_and_taken_up_again_misses_nothing(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server:
            with dashboard(server.url) as running:
                async with aiohttp.ClientSession(running.url) as http:

                    async def read() -> list[int]:
                        seen: list[int] = []
                        position = "0-0"
                        while not seen or seen[-1] != COUNT - 1:
                            headers = {"Last-Event-ID": position}
                            async with http.get("/api/alarms/stream", headers=headers) as answer:
                                if answer.status == 503:
                                    continue
                                # The connection is lost after a few.
                                last = min(COUNT - 1, (seen[-1] if seen else 0) + 17)
                                position = await numbers_of(answer, last, seen)
                        return seen

                    reading = asyncio.ensure_future(read())
                    await publish_in_turmoil(server, COUNT)
                    assert await asyncio.wait_for(reading, 60) == list(range(COUNT))

    asyncio.run(main())


def test_a_socket_that_is_cut_and_taken_up_again_misses_nothing(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server:
            with dashboard(server.url) as running:
                async with aiohttp.ClientSession(running.url) as http:

                    async def read() -> list[int]:
                        seen: list[int] = []
                        position = "0-0"
                        while not seen or seen[-1] != COUNT - 1:
                            stay = 17
                            async with http.ws_connect("/api/alarms/ws", params={"since": position}) as ws:
                                async for message in ws:
                                    alarm = json.loads(message.data)
                                    position = alarm.get("heartbeat") or alarm["position"]
                                    if alarm.get("rule") == "anomaly":
                                        seen.append(number_of(alarm))
                                        stay -= 1
                                    if not stay or (seen and seen[-1] == COUNT - 1):
                                        break
                        return seen

                    reading = asyncio.ensure_future(read())
                    await publish_in_turmoil(server, COUNT)
                    assert await asyncio.wait_for(reading, 60) == list(range(COUNT))

    asyncio.run(main())


async def by_stream(
    http: aiohttp.ClientSession, since: str
) -> AsyncIterator[tuple[str, dict[str, Any] | None]]:
    async with http.get("/api/alarms/stream", headers={"Last-Event-ID": since}) as answer:
        assert answer.status == 200
        async for one in server_sent(answer):
            yield one["id"], None if one.get("event") == "heartbeat" else json.loads(one["data"])


async def by_socket(
    http: aiohttp.ClientSession, since: str
) -> AsyncIterator[tuple[str, dict[str, Any] | None]]:
    async with http.ws_connect("/api/alarms/ws", params={"since": since}) as ws:
        async for message in ws:
            said = json.loads(message.data)
            yield said.get("heartbeat") or said["position"], None if "heartbeat" in said else said


@pytest.mark.slow
@pytest.mark.parametrize("follow", [by_stream, by_socket])
def test_a_dashboard_that_is_killed_loses_and_doubles_nothing(
    redis_server: EmbeddedServer,
    follow: Callable[[aiohttp.ClientSession, str], AsyncIterator[tuple[str, dict[str, Any] | None]]],
) -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        position = "0-0"
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, *[event(number) for number in range(40)])
            for kill_at in (25, None):
                with dashboard(redis_server.url) as running:
                    async with aiohttp.ClientSession(running.url) as http:
                        try:
                            async for at, alarm in follow(http, position):
                                position = at
                                if alarm is not None and alarm["rule"] != SERVICE_SILENT:
                                    seen.append(number_of(alarm))
                                if kill_at is not None and len(seen) == kill_at and not running.killed:
                                    # What is on its way may still arrive.
                                    running.kill()
                                    await publish(bus, *[event(number) for number in range(40, 60)])
                                if len(seen) >= 60:
                                    break
                        except aiohttp.ClientError:
                            assert running.killed
        return seen

    assert asyncio.run(asyncio.wait_for(main(), 120)) == list(range(60))


@pytest.mark.slow
def test_a_follower_that_does_not_read_is_dropped_and_costs_no_memory(redis_server: EmbeddedServer) -> None:
    import psutil

    def follow(address: SplitResult, path: str) -> socket.socket:
        lazy = socket.create_connection((address.hostname or "", address.port or 0))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        upgrade = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        )
        request = f"GET {path}?since=1h HTTP/1.1\r\nHost: {address.netloc}\r\n"
        lazy.sendall(f"{request}{upgrade if path.endswith('ws') else ''}\r\n".encode())
        return lazy

    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        # 24 MB of events, far more than sockets hold.
        for start in range(0, 6_000, 500):
            await publish(bus, *[event(start + n, message="x" * 4_000) for n in range(500)])
        process = psutil.Process(running.process.pid)
        before = process.memory_info().rss
        # Both kinds at once: each is dropped after as long a wait.
        paths = ("/api/alarms/stream", "/api/alarms/ws")
        lazy = [follow(urlsplit(running.url), path) for path in paths]
        ports = {one.getsockname()[1] for one in lazy}

        def ours() -> set[int]:
            there = {c.raddr.port for c in process.net_connections("tcp") if c.raddr}
            return there & ports

        peak = before
        async with asyncio.timeout(50):
            seen: set[int] = set()
            while seen != ports or ours():
                seen |= ours()
                peak = max(peak, process.memory_info().rss)
                await asyncio.sleep(0.05)
        assert peak - before < 20e6
        for one in lazy:
            one.close()
        # The others are served on.
        async with http.get("/api/alarms", params={"recent": "1"}) as answer:
            assert answer.status == 200

    served(redis_server, body)


def test_requests_are_answered_by_the_worker(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        await publish(bus, event(1), event(2), event(2, event="alarm-2-1", presence=Presence.OFF))
        async with responding(redis_server.url) as taken:

            async def ask(path: str, body: Any) -> tuple[int, Any]:
                async with http.post(f"/api/{path}", json=body) as answer:
                    return answer.status, await answer.json()

            status, audit = await ask("alarms/alarm-1/acknowledge", {"who": "nurse 7"})
            assert (status, audit["done"], audit["who"], audit["value"]) == (200, True, "nurse 7", "alarm-1")
            assert audit["entry"] == taken[-1].id
            status, audit = await ask("beds/ICU%201/pause", {"who": "nurse 7", "seconds": 90})
            assert (status, taken[-1].bed, taken[-1].value) == (200, "ICU 1", 90)
            status, audit = await ask("beds/bed-1/resume", {"who": "nurse 7"})
            assert (status, taken[-1].kind) == (200, "resume")
            asked = len(taken)
            refused = [
                ("alarms/alarm-9/acknowledge", {"who": "n"}, 404),
                ("alarms/alarm-2/acknowledge", {"who": "n"}, 409),
                ("alarms/alarm-1/acknowledge", {}, 400),
                ("alarms/alarm-1/acknowledge", {"who": ""}, 400),
                ("alarms/alarm-1/acknowledge", {"who": 7}, 400),
                ("alarms/alarm-1/acknowledge", ["who"], 400),
                ("beds/bed-1/pause", {"who": "n"}, 400),
                ("beds/bed-1/pause", {"who": "n", "seconds": 0}, 400),
                ("beds/bed-1/pause", {"who": "n", "seconds": True}, 400),
                ("beds/bed-1/pause", {"who": "n", "seconds": "60"}, 400),
                ("beds/*/pause", {"who": "n", "seconds": 60}, 400),
                ("beds/bed-1/resume", {"who": "x" * 5_000}, 413),
            ]
            for path, wrong, expected in refused:
                status, answer = await ask(path, wrong)
                assert (status, bool(answer["error"])) == (expected, True), (path, wrong)
            assert len(taken) == asked
            status, audit = await ask(f"beds/{REFUSES}/resume", {"who": "n"})
            assert (status, audit["done"], audit["message"]) == (409, False, "there is no such bed here")
            async with http.get("/api/beds/bed-1/pause") as answer:
                assert answer.status == 405
        # Nobody answers any more.
        status, answer = await ask("beds/bed-1/resume", {"who": "n"})
        assert (status, answer["error"][:18]) == (504, "no worker answered")

    served(redis_server, body)


def test_foreign_pages_get_nothing(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        own = running.url.rstrip("/")
        foreign = [
            # A page of another site, and one whose name has been made to lead here.
            {"Origin": "http://elsewhere.example"},
            {"Host": "elsewhere.example:80", "Origin": "http://elsewhere.example"},
            {"Host": "elsewhere.example"},
            {"Origin": "null"},
        ]
        for headers in foreign:
            async with http.get("/api/alarms", headers=headers) as answer:
                assert answer.status == 403
            async with http.post("/api/beds/b/resume", json={"who": "n"}, headers=headers) as answer:
                assert answer.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await http.ws_connect("/api/alarms/ws", headers=headers)
        async with http.get("/api/alarms", headers={"Origin": own}) as answer:
            assert answer.status in (200, 503)
        async with http.ws_connect("/api/alarms/ws", headers={"Origin": own}):
            pass
        # What a form of a page can send without being asked for permission.
        for kind in ("application/x-www-form-urlencoded", "text/plain", "text/json", ""):
            request = http.post("/api/beds/b/resume", data=b'{"who": "n"}', headers={"Content-Type": kind})
            async with request as answer:
                assert answer.status == 415

    served(redis_server, body)


def test_without_the_server_of_the_streams_it_says_so(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus, running: Dashboard) -> None:
        while True:
            async with http.get("/api/alarms") as answer:
                if answer.status == 200:
                    break
        redis_server.stop()
        while running.health()[0] == 200:
            pass
        for path in ("/api/alarms", "/api/alarms/stream"):
            async with http.get(path) as answer:
                assert answer.status == 503
                assert (await answer.json())["error"]

    served(redis_server, body)
