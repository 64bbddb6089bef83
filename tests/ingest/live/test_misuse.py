"""Devices that send what they should not: each adapter tells it by an alarm that names the source."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np
import pytest

from bench.ports import free_port
from ingest.live import notes
from ingest.live.hl7.mllp import frame
from ingest.live.hl7.source import HL7Source
from ingest.live.intake import Intake
from ingest.live.mqtt import MqttSource
from ingest.live.source import LiveSource
from ingest.live.tcp import TcpSource
from ingest.live.websocket import WebSocketSource
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import ALARMS, SAMPLES
from tests.ingest.live.test_mqtt import MOSQUITTO, NO_BROKER, Broker

N = 50
_numbers = itertools.count()


class Hurried:
    """A clock that goes ten times as fast: what takes half a minute is seen in three seconds."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._begun = self._clock.now_ns()

    def now_ns(self) -> int:
        return self._begun + 10 * (self._clock.now_ns() - self._begun)

    async def sleep_until(self, when_ns: int) -> None:
        await asyncio.sleep(max(0, when_ns - self.now_ns()) / 1e10)


Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


def message(n0: int, **fields: Any) -> Message:
    """Return 50 samples of a device, as a message of JSON has them."""
    usual = {"bed": "icu-1", "device": "holder", "fs": 250, "leads": ["II"], "unit": "mV", "n0": n0}
    made = usual | fields
    values = (np.arange(n0, n0 + N) % 1000 / 1000).tolist()
    return made | {"samples": [[value] * len(made["leads"]) for value in values]}


def waveform_message(fields: Message) -> bytes:
    """Return the same in HL7: the sending application is the device."""
    t = datetime.fromtimestamp(1_796_000_000 + fields["n0"] / fields["fs"], UTC)
    stamp = t.strftime("%Y%m%d%H%M%S.%f+0000")
    lines = [
        f"MSH|^~\\&|{fields['device']}||||{stamp}||ORU^R01|{fields['device']}{fields['n0']}|P|2.6",
        f"PV1||I|^^{fields['bed']}",
        f"OBR|1||||||{stamp}",
    ]
    unit = {"mV": "MDC_DIM_MILLI_VOLT"}.get(fields["unit"], fields["unit"])
    for number, lead in enumerate(fields["leads"]):
        array = "^".join(str(row[number]) for row in fields["samples"])
        lines += [
            f"OBX||NA|^MDC_ECG_ELEC_POTL_{lead}^MDC|1.{number}|{array}|^{unit}",
            f"OBX||NM|^MDC_ATTR_SAMP_RATE^MDC|1.{number}.1|{fields['fs']}",
        ]
    return frame("".join(f"{line}\r" for line in lines).encode())


@asynccontextmanager
async def tcp(port: int) -> AsyncIterator[Send]:
    _, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send(fields: Message) -> None:
        writer.write(json.dumps(fields).encode() + b"\n")
        await writer.drain()

    yield send
    writer.close()


@asynccontextmanager
async def websocket(port: int) -> AsyncIterator[Send]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/") as device:
        yield device.send_json


@asynccontextmanager
async def mllp(port: int) -> AsyncIterator[Send]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send(fields: Message) -> None:
        writer.write(waveform_message(fields))
        await reader.readuntil(b"\x1c\r")

    yield send
    writer.close()


@asynccontextmanager
async def mqtt(port: int) -> AsyncIterator[Send]:
    import aiomqtt

    async with aiomqtt.Client("127.0.0.1", port) as client:

        async def send(fields: Message) -> None:
            await client.publish(f"misuse/{fields['bed']}", json.dumps(fields).encode(), qos=1)

        yield send


@pytest.fixture
def prefix() -> str:
    return f"misuse-{next(_numbers)}:"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | None]:
    running = None if MOSQUITTO is None else Broker(tmp_path_factory.mktemp("mosquitto"))
    yield running
    if running is not None:
        running.stop()


@pytest.fixture(params=["tcp", "ws", "mqtt", "hl7"])
def adapter(
    request: pytest.FixtureRequest, broker: Broker | None
) -> tuple[Callable[[], LiveSource], Callable[[], Any]]:
    """Give what makes an adapter by a clock that is in a hurry, and what connects to it."""
    port, clock = free_port(), Hurried()
    if request.param == "mqtt":
        if broker is None:
            pytest.skip(NO_BROKER)
        return lambda: MqttSource(broker=broker.url, topic="misuse/+", clock=clock), lambda: mqtt(broker.port)
    kinds: dict[str, tuple[Any, Any]] = {
        "tcp": (TcpSource, tcp),
        "ws": (WebSocketSource, websocket),
        "hl7": (HL7Source, mllp),
    }
    source, connect = kinds[request.param]
    return lambda: source(port=port, clock=clock), lambda: connect(port)


@asynccontextmanager
async def taking(source: LiveSource, server: EmbeddedServer, prefix: str) -> AsyncIterator[Bus]:
    stop, waiting = asyncio.Event(), asyncio.Event()
    async with await Bus.connect(server.url, prefix=prefix) as bus:
        clock = source._clock  # type: ignore[attr-defined]
        intake = Intake(source, bus, clock=clock, say=lambda text: waiting.set())
        running = asyncio.create_task(intake.run(stop))
        await waiting.wait()
        try:
            yield bus
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)


async def raised(bus: Bus, rule: str) -> AlarmEvent:
    events = [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]
    return next((event for event in events if event.rule == rule), None)  # type: ignore[return-value]


async def until_raised(
    bus: Bus, rule: str, send: Send, messages: Callable[[int], Sequence[Message]], pause_s: float = 0.02
) -> AlarmEvent:
    """Send until there is an alarm of a rule; return it."""
    async with asyncio.timeout(40):
        n0 = 0
        while (event := await raised(bus, rule)) is None:
            for each in messages(n0):
                await send(each)
            n0 += N
            await asyncio.sleep(pause_s)
    return event


def check(
    adapter: tuple[Callable[[], LiveSource], Callable[[], Any]],
    server: EmbeddedServer,
    prefix: str,
    rule: str,
    messages: Callable[[int], Sequence[Message]],
    words: Sequence[str],
    pause_s: float = 0.02,
) -> list[SampleChunk]:
    """Check that messages raise one alarm of a rule, with the adapter's name and these words in it."""

    async def main() -> list[SampleChunk]:
        source = adapter[0]()
        async with taking(source, server, prefix) as bus, adapter[1]() as send:
            event = await until_raised(bus, rule, send, messages, pause_s)
            assert (event.kind, event.bed) == (AlarmKind.TECHNICAL, EVERY_BED)
            for word in (source.name, *words):
                assert word in event.message
            events = [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]
            assert {each.rule for each in events} == {rule}
            return [SampleChunk.decode(entry.value) async for entry in bus.kept(SAMPLES)]

    return asyncio.run(asyncio.wait_for(main(), 90))


Adapter = tuple[Callable[[], LiveSource], Callable[[], Any]]


def test_two_devices_that_claim_one_bed(
    adapter: Adapter, redis_server_module: EmbeddedServer, prefix: str
) -> None:
    def both(n0: int) -> list[Message]:
        return [message(n0), message(n0, device="claimant")]

    words = ("claimant", "claims bed icu-1", "holder", "feeds")
    check(adapter, redis_server_module, prefix, "source-conflict", both, words)


def test_a_unit_that_is_none(adapter: Adapter, redis_server_module: EmbeddedServer, prefix: str) -> None:
    def wrong(n0: int) -> list[Message]:
        # Who sends nothing but such is sent away.
        return [message(n0), message(n0 + 1, unit="mmHg")]

    check(adapter, redis_server_module, prefix, "source-refused", wrong, ("127.0.0.1", "mmHg"))


def test_leads_that_change_in_mid_stream(
    adapter: Adapter, redis_server_module: EmbeddedServer, prefix: str
) -> None:
    def other_leads(n0: int) -> list[Message]:
        return [message(n0, leads=["II"] if n0 < 10 * N else ["I", "V1"])]

    words = ("holder", "bed icu-1: sends I V1 at 250 Hz in the place of II at 250 Hz")
    chunks = check(adapter, redis_server_module, prefix, "source-changed", other_leads, words)
    # What came before and behind it is there, in a session of its own.
    assert len({chunk.header.session for chunk in chunks}) == 2
    assert {chunk.header.leads for chunk in chunks} == {("II",), ("I", "V1")}


@pytest.mark.slow
def test_a_rate_that_is_not_the_stated_one(
    adapter: Adapter, redis_server_module: EmbeddedServer, prefix: str
) -> None:
    # Twice too fast by the clock in a hurry: 0.2 s of signal each 0.1 s of its time.
    chunks = check(
        adapter,
        redis_server_module,
        prefix,
        "source-rate",
        lambda n0: [message(n0)],
        ("holder", "bed icu-1", "250 Hz is stated"),
        pause_s=0.01,
    )
    # The worker knows by this that it has been told.
    assert all("holder" in chunk.header.source for chunk in chunks)


def test_rules_have_words_and_urgency() -> None:
    assert {rule.value: rule.priority.value for rule in notes.Rule} == {
        "source-conflict": "medium",
        "source-refused": "medium",
        "source-rate": "medium",
        "source-changed": "low",
    }
