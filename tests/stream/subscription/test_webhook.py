"""Webhooks: every transition once and in order, whatever the receiver answers and whoever is restarted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from stream.bus import Bus
from stream.clock import ManualClock
from stream.contract import Priority
from stream.embedded import EmbeddedServer
from stream.subscription.follow import SERVICE_SILENT, Wanted
from stream.subscription.webhook import Forwarder, Hook, HookError, is_public, signature
from stream.topics import WEBHOOK_DEAD_LETTERS
from tests.stream.turmoil import event, lasting_server, number_of, publish, publish_in_turmoil

SECRET = b"a secret of thirty-two bytes or so"
HOOK = "hook"


class Receiver:
    """A web server that takes alarms, or does not."""

    def __init__(self) -> None:
        self.url = ""
        self.taken: list[int] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status: Callable[[int], int] = lambda number: 200
        self.moved = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        alarm = json.loads(body)
        if alarm["rule"] == SERVICE_SILENT:
            return web.Response()
        self.requests.append((dict(request.headers), body))
        status = self.status(number_of(alarm))
        async with self.moved:
            if status < 300:
                self.taken.append(number_of(alarm))
            self.moved.notify_all()
        headers = {"Location": self.url} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)

    def different(self) -> int:
        """How many alarms it has taken, each counted once."""
        return len(set(self.taken))

    def has(self, count: int) -> bool:
        return self.different() >= count

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self.moved:
            await self.moved.wait_for(done)


class Minutes(ManualClock):
    """A clock that goes on while somebody sleeps, and tells when ten minutes have passed."""

    def __init__(self) -> None:
        super().__init__(10**18)
        self.ten_passed = asyncio.Event()

    async def sleep_until(self, when_ns: int) -> None:
        await super().sleep_until(when_ns)
        if self.now_ns() > 10**18 + 600 * 10**9:
            self.ten_passed.set()


class Stopped(ManualClock):
    """A clock that stands still: whoever sleeps does so for ever."""

    def __init__(self, now_ns: int) -> None:
        super().__init__(now_ns)
        self.asleep = asyncio.Event()

    async def sleep_until(self, when_ns: int) -> None:
        self.asleep.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/alarms", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alarms"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def forwarding(forwarder: Forwarder, since: str | None = "0-0") -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(forwarder.run(since))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def on_server(server: EmbeddedServer, body: Callable[[Bus, Receiver], Awaitable[None]]) -> None:
    async def main() -> None:
        async with await Bus.connect(server.url) as bus, receiving() as receiver:
            await asyncio.wait_for(body(bus, receiver), 90)

    asyncio.run(main())


def hook(receiver: Receiver, **options: object) -> Hook:
    return Hook(receiver.url, HOOK, allow_private=True, **options)  # type: ignore[arg-type]


def test_transitions_are_delivered_signed_and_filtered(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, receiver: Receiver) -> None:
        await publish(bus, *[event(n, f"bed-{n % 2}") for n in range(6)])
        wanted = Wanted(beds={"bed-1"}, priority=Priority.MEDIUM)
        async with forwarding(Forwarder(redis_server.url, hook(receiver, secret=SECRET, wanted=wanted))):
            await receiver.until(lambda: receiver.taken == [1, 3, 5])
        headers, sent = receiver.requests[0]
        assert headers["Content-Type"] == "application/json"
        assert headers["Bedside-Event"] == "alarm-1-0"
        assert headers["Bedside-Signature"] == signature(SECRET, headers["Bedside-Timestamp"], sent)
        assert json.loads(sent)["position"]
        # One bit of body, time or secret, and it is another.
        assert (
            len(
                {
                    signature(SECRET, "1", b"a"),
                    signature(SECRET, "2", b"a"),
                    signature(SECRET, "1", b"b"),
                    signature(SECRET + b"!", "1", b"a"),
                }
            )
            == 4
        )

    on_server(redis_server, body)


def test_an_hour_of_errors_loses_nothing_and_keeps_the_order(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, receiver: Receiver) -> None:
        clock = ManualClock(10**18)
        began_ns = clock.now_ns()
        statuses = [500, 503, 404, 302, 429]
        # Each third event meets an hour of all kinds of errors.
        healed: dict[int, int] = {}

        def status(number: int) -> int:
            until_ns = healed.setdefault(number, clock.now_ns() + 3600 * 10**9)
            if number % 3 == 0 and clock.now_ns() < until_ns:
                return statuses[len(receiver.requests) % len(statuses)]
            return 200

        receiver.status = status
        await publish(bus, *[event(n) for n in range(9)])
        forwarder = Forwarder(
            redis_server.url, hook(receiver), clock=clock, jitter=random.Random(1), silent_after_s=None
        )
        async with forwarding(forwarder):
            await receiver.until(lambda: len(receiver.taken) == 9)
        assert receiver.taken == list(range(9))
        # Three hours, and not a minute longer for each than it had to be.
        hours = (clock.now_ns() - began_ns) / 3600e9
        assert 3 <= hours < 3.06
        # About a minute apart in the end: not a flood.
        assert len(receiver.requests) < 3 * 130
        assert [entry async for entry in bus.kept(WEBHOOK_DEAD_LETTERS)] == []

    on_server(redis_server, body)


def test_what_is_never_taken_becomes_a_dead_letter_after_the_stated_time(
    redis_server: EmbeddedServer,
) -> None:
    async def body(bus: Bus, receiver: Receiver) -> None:
        clock = ManualClock(10**18)
        receiver.status = lambda number: 400 if number == 1 else 200
        await publish(bus, *[event(n) for n in range(3)])
        forwarder = Forwarder(
            redis_server.url, hook(receiver, give_up_s=7200.0), clock=clock, silent_after_s=None
        )
        async with forwarding(forwarder):
            await receiver.until(lambda: receiver.taken == [0, 2])
        (entry,) = [entry async for entry in bus.kept(WEBHOOK_DEAD_LETTERS)]
        letter = json.loads(entry.value)
        assert (number_of(letter["event"]), letter["hook"], letter["why"]) == (1, HOOK, "status 400")
        assert letter["at"] - letter["since"] >= 7200 * 10**9
        assert entry.key == HOOK.encode()

    on_server(redis_server, body)


def test_the_time_to_give_up_goes_on_across_restarts(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, receiver: Receiver) -> None:
        receiver.status = lambda number: 500
        await publish(bus, event(0))
        for hour in range(3):
            clock = Stopped(10**18 + hour * 3600 * 10**9)
            forwarder = Forwarder(redis_server.url, hook(receiver, give_up_s=7200.0), clock=clock)
            async with forwarding(forwarder):
                if hour < 2:
                    await clock.asleep.wait()
                    continue
                async for entry in bus.tail(WEBHOOK_DEAD_LETTERS, after="0"):
                    assert json.loads(entry.value)["since"] == 10**18
                    break

    on_server(redis_server, body)


def test_a_receiver_that_is_away_is_waited_for(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, receiver: Receiver) -> None:
        await publish(bus, event(0))
        async with receiving() as gone:
            url = gone.url
        clock = Minutes()
        away = Hook(url, HOOK, allow_private=True)
        async with forwarding(Forwarder(redis_server.url, away, clock=clock)) as task:
            await asyncio.wait_for(clock.ten_passed.wait(), 30)
            assert not task.done()
        async with forwarding(Forwarder(redis_server.url, hook(receiver))):
            await receiver.until(lambda: receiver.taken == [0])

    on_server(redis_server, body)


COUNT = 100


def test_restarts_of_server_and_forwarder_lose_nothing(short_tmp: Path) -> None:
    async def main() -> None:
        async with lasting_server(short_tmp) as server, receiving() as receiver:
            receiver.status = lambda number: 500 if random.random() < 0.1 else 200

            async def forward_in_pieces() -> None:
                taken = 0
                while not receiver.has(COUNT):
                    forwarder = Forwarder(
                        server.url, hook(receiver), clock=ManualClock(10**18), silent_after_s=None
                    )
                    async with forwarding(forwarder) as task:
                        some_more = partial(receiver.has, min(COUNT, taken + 30))
                        waiting = asyncio.ensure_future(receiver.until(some_more))
                        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
                        waiting.cancel()
                    taken = receiver.different()

            moving = asyncio.ensure_future(forward_in_pieces())
            await publish_in_turmoil(server, COUNT)
            await asyncio.wait_for(moving, 80)
            # Stopped between delivery and writing that down, it delivers once more: drop what you have seen.
            assert list(dict.fromkeys(receiver.taken)) == list(range(COUNT))
            assert len(receiver.taken) <= COUNT + 5

    asyncio.run(main())


def test_the_command_goes_on_after_a_kill(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_bytes(SECRET + b"\n")

    async def body(bus: Bus, receiver: Receiver) -> None:
        async def start() -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bedside", "alerts", "forward", receiver.url, "--since", "0-0"),
                *("--allow-private", "--secret-file", str(secret), "--metrics-port", "0"),
                *("--redis", redis_server.url),
                env=os.environ,
            )

        await publish(bus, *[event(n) for n in range(3)])
        process = await start()
        await receiver.until(lambda: receiver.taken == [0, 1, 2])
        # It has written down how far it is when the next one comes.
        await publish(bus, event(3))
        await receiver.until(lambda: 3 in receiver.taken)
        process.kill()
        await process.wait()
        await publish(bus, event(4))
        process = await start()
        await receiver.until(lambda: 4 in receiver.taken)
        assert list(dict.fromkeys(receiver.taken)) == [0, 1, 2, 3, 4]
        assert receiver.taken.count(0) == receiver.taken.count(2) == 1
        headers, sent = receiver.requests[-1]
        assert headers["Bedside-Signature"] == signature(SECRET, headers["Bedside-Timestamp"], sent)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    on_server(redis_server, body)


def test_one_forwarder_serves_a_hook(redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.subscription.webhook._RETRY_S", 0.01)
    monkeypatch.setattr("stream.subscription.webhook._LEASE_MS", 400)
    monkeypatch.setattr("stream.subscription.webhook._RENEW_S", 0.05)

    async def body(bus: Bus, receiver: Receiver) -> None:
        await publish(bus, event(0))
        async with forwarding(Forwarder(redis_server.url, hook(receiver))):
            await receiver.until(lambda: receiver.taken == [0])
            with pytest.raises(HookError, match="another process serves webhook hook"):
                await Forwarder(redis_server.url, hook(receiver)).run()
        # It has left: the next one need not wait.
        assert not await bus.client.exists("bedside:webhook:hook:lease")

    on_server(redis_server, body)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://[::1]:8080/x",
        "http://169.254.169.254/latest",
        "http://localhost:1/x",
        "http://2130706433/x",
        "http://127.1/x",
    ],
)
def test_private_targets_are_refused(redis_server: EmbeddedServer, url: str) -> None:
    with pytest.raises(HookError, match="private address"):
        asyncio.run(Forwarder(redis_server.url, Hook(url)).run())


def test_a_name_that_leads_home_later_is_not_connected_to(redis_server: EmbeddedServer) -> None:
    async def body(bus: Bus, receiver: Receiver) -> None:
        await publish(bus, event(0))
        clock = Minutes()
        port = receiver.url.rpartition(":")[2]
        forwarder = Forwarder(redis_server.url, Hook(f"http://localhost:{port}", HOOK), clock=clock)

        async def passes() -> None:
            pass

        # As if the name had led elsewhere when it was looked at.
        forwarder._check_target = passes  # type: ignore[method-assign]
        async with forwarding(forwarder):
            await asyncio.wait_for(clock.ten_passed.wait(), 30)
        assert receiver.requests == []

    on_server(redis_server, body)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "ftp://example.org"}, "https://"),
        ({"url": "example.org"}, "https://"),
        ({"url": "https://user:hunter2@example.org"}, "no user and password"),
        ({"url": "https://example.org", "name": "a b"}, "name 'a b'"),
        ({"url": "https://example.org", "secret": b"short"}, "too short"),
        ({"url": "https://example.org:port"}, "example.org"),
    ],
)
def test_an_impossible_hook_is_one_line(options: dict[str, str], says: str) -> None:
    with pytest.raises(HookError, match=says) as caught:
        Hook(**options)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
