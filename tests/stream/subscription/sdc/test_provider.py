"""Alarms over SDC: what a consumer of another implementation sees of them, and how it answers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from sdc11073.xml_types.pm_types import AlertSignalPresence

from bench.ward import Ward
from ingest.chunks import chunks_of
from stream import asking
from stream.alarms.conditions import CONDITIONS
from stream.bus import Bus
from stream.clock import ManualClock, SystemClock
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Audit, Presence
from stream.embedded import EmbeddedServer
from stream.sdc import Network
from stream.subscription.sdc.provider import AlarmProvider
from stream.topics import AUDIT, VITALS
from tests.command_line import assert_refused
from tests.command_line import run as run_command
from tests.stream.responder import REFUSES, responding
from tests.stream.subscription.sdc.consumer import Consumer, consuming, found
from tests.stream.test_worker import FALLS_ILL, feed, in_ward, patient
from tests.stream.test_worker import publish as publish_chunks
from tests.stream.turmoil import event, lasting_server, publish, restart


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as server:
        yield server


def of(rule: str, presence: Presence, number: int = 0, bed: str = "icu-1", **changes: Any) -> AlarmEvent:
    """Return a transition of the one alarm of a rule."""
    condition = CONDITIONS[rule]
    alarm = f"{bed}-{rule}"
    return event(
        0,
        bed=bed,
        alarm=alarm,
        event=f"{alarm}-{number}",
        rule=rule,
        kind=condition.kind,
        code=condition.code,
        priority=condition.priority,
        presence=presence,
        **changes,
    )


EprOf = Callable[[str], uuid.UUID]
Body = Callable[[Bus, Consumer, EprOf], Awaitable[None]]


@asynccontextmanager
async def providing(url: str, prefix: str, epr: uuid.UUID, **options: Any) -> AsyncIterator[AlarmProvider]:
    options = {"network": Network(), "silent_after_s": None} | options
    provider = AlarmProvider(url, prefix=prefix, epr=epr, **options)
    ready = asyncio.Event()
    task = asyncio.create_task(provider.run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            task.result()
        yield provider
    finally:
        for one in (task, waiting):
            one.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


def run(server: EmbeddedServer, prefix: str, body: Body, **options: Any) -> None:
    async def main() -> None:
        epr = uuid.uuid4()
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await bus.declare_all()
            await publish(bus, of("lead-off", Presence.ON, message="II: lead off"))
            async with (
                providing(server.url, prefix, epr, **options) as provider,
                consuming(provider.epr_of("icu-1")) as consumer,
            ):
                await body(bus, consumer, provider.epr_of)

    asyncio.run(asyncio.wait_for(main(), 90))


def test_an_alarm_begins_latches_is_there_again_and_ends(server: EmbeddedServer, prefix: str) -> None:
    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        assert consumer.signal("lead-off") == "On"
        assert consumer.signal("asystole") == "Off"
        signal = "alerts/asystole/signal"
        steps = (Presence.ON, Presence.LATCHED, Presence.ON, Presence.ACKNOWLEDGED, Presence.OFF)
        for number, presence in enumerate(steps):
            await publish(bus, of("asystole", presence, number, message=f"step {number}"))
        await consumer.until(lambda: len([s for s in consumer.presences if s[0] == signal]) == len(steps))
        seen = [presence for handle, presence in consumer.presences if handle == signal]
        assert seen == ["On", "Latch", "On", "Ack", "Off"]
        assert consumer.signal("lead-off") == "On"
        assert consumer.message() == "asystole off: step 4"

    run(server, prefix, body)


def test_kind_priority_and_presence_are_those_of_the_alarm(server: EmbeddedServer, prefix: str) -> None:
    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        condition = consumer.descriptor("alerts/asystole")
        assert (condition.Kind.value, condition.Priority.value) == ("Phy", "Hi")
        assert condition.Type.Code == "ASYSTOLE"
        assert [translation.Code for translation in condition.Type.Translation] == ["199684"]
        assert condition.Type.ConceptDescription[0].text == "asystole"
        assert consumer.descriptor("alerts/asystole/signal").Latching is True
        assert consumer.descriptor("alerts/anomaly/signal").Latching is False
        for rule, row in CONDITIONS.items():
            theirs = consumer.descriptor(f"alerts/{rule}")
            assert theirs.Kind.value == ("Phy" if row.kind is AlarmKind.PHYSIOLOGICAL else "Tec")
        lead_off = consumer.state("alerts/lead-off")
        assert (lead_off.Presence, lead_off.ActualPriority.value) == (True, "Lo")
        assert consumer.state("alerts").PresentTechnicalAlarmConditions == ["alerts/lead-off"]
        assert consumer.beds() == ["icu-1"]
        await publish(bus, of("asystole", Presence.ON), of("asystole", Presence.LATCHED, 1))
        await consumer.until(lambda: consumer.signal("asystole") == "Latch")
        # The condition is over; what is latched is its signal.
        assert consumer.state("alerts/asystole").Presence is False
        assert not consumer.state("alerts").PresentPhysiologicalAlarmConditions

    run(server, prefix, body)


def test_a_consumer_acknowledges_and_is_named(server: EmbeddedServer, prefix: str) -> None:
    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        async with responding(server.url, prefix) as commands:
            done = await consumer.acknowledge("lead-off")
            assert done.InvocationState.value == "Fin"
            (command,) = commands
            assert (command.kind, command.value) == ("acknowledge", "icu-1-lead-off")
            assert command.who == "SDC 127.0.0.1"
            # What is shown is what the worker makes of it.
            assert consumer.signal("lead-off") == "On"
            await publish(bus, of("lead-off", Presence.ACKNOWLEDGED, 1, who=command.who))
            await consumer.until(lambda: consumer.signal("lead-off") == "Ack")
            assert consumer.state("alerts/lead-off").Presence is True

    run(server, prefix, body)


def test_a_request_that_leads_to_nothing_is_refused(server: EmbeddedServer, prefix: str) -> None:
    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        async with responding(server.url, prefix) as commands:
            await publish(bus, of("noise", Presence.ON, bed=REFUSES))
            async with consuming(epr_of(REFUSES)) as other:
                assert (await other.acknowledge("noise")).InvocationState.value == "Fail"
            assert [command.bed for command in commands] == [REFUSES]
            # There is no such alarm, and nothing but acknowledging can be asked for.
            assert (await consumer.acknowledge("asystole")).InvocationState.value == "Fail"
            off = AlertSignalPresence.OFF
            assert (await consumer.acknowledge("lead-off", off)).InvocationState.value == "Fail"
            assert len(commands) == 1

    run(server, prefix, body)


def test_a_bed_that_comes_later_is_a_device_of_its_own_and_says_whether_it_is_watched(
    server: EmbeddedServer, prefix: str
) -> None:
    clock = ManualClock(SystemClock().now_ns())

    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        await bus.publish(VITALS, b"icu 2", b"{}")
        async with consuming(epr_of("icu 2")) as second:
            await second.until(second.is_watched)
            assert (consumer.beds(), second.beds()) == (["icu-1"], ["icu 2"])
            assert (second.signal("asystole"), second.signal("lead-off")) == ("Off", "Off")
            await publish(bus, of("asystole", Presence.ON, bed="icu 2"))
            await second.until(lambda: second.signal("asystole") == "On")
            async with responding(server.url, prefix) as commands:
                done = await second.acknowledge("asystole")
                assert (done.InvocationState.value, commands[0].bed) == ("Fin", "icu 2")
            # Nobody hears of it any more: as long as an alarm is open, that is what is said of it.
            clock.set(clock.now_ns() + 11 * 10**9)
            await bus.publish(VITALS, b"icu-3", b"{}")
            async with consuming(epr_of("icu-3")) as third:
                await third.until(third.is_watched)
                assert second.is_watched()
                await publish(bus, of("asystole", Presence.OFF, 1, bed="icu 2"))
                await second.until(lambda: not second.is_watched())
                assert third.is_watched()

    run(server, prefix, body, clock=clock)


def test_what_is_about_the_deployment_is_on_until_the_last_of_its_kind_is_over(
    server: EmbeddedServer, prefix: str
) -> None:
    def notice(device: str, presence: Presence, number: int = 0) -> AlarmEvent:
        return event(
            0,
            bed=EVERY_BED,
            alarm=device,
            event=f"{device}-{number}",
            rule="source-conflict",
            kind=AlarmKind.TECHNICAL,
            code="SOURCE_CONFLICT",
            presence=presence,
            message=f"tcp:8040: {device}: claims bed icu-1",
        )

    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        async with consuming(epr_of(EVERY_BED)) as deployment:
            assert (deployment.beds(), deployment.is_watched()) == ([], True)
            # No table has the rule: it is described when it is first heard of.
            assert deployment.signal("source-conflict") is None
            await publish(bus, notice("one", Presence.ON), notice("two", Presence.ON))
            message = "source-conflict on: tcp:8040: two: claims bed icu-1"
            await deployment.until(lambda: deployment.message() == message)
            await publish(bus, notice("one", Presence.OFF, 1))
            await deployment.until(lambda: (deployment.message() or "").startswith("source-conflict off"))
            assert deployment.signal("source-conflict") == "On"
            assert deployment.descriptor("alerts/source-conflict").Kind.value == "Tec"
            signal = deployment.descriptor("alerts/source-conflict/signal")
            assert signal.AcknowledgementSupported is False
            await publish(bus, notice("two", Presence.OFF, 1))
            await deployment.until(lambda: deployment.signal("source-conflict") == "Off")

    run(server, prefix, body)


def test_only_the_beds_that_are_asked_for_are_provided(server: EmbeddedServer, prefix: str) -> None:
    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        await bus.publish(VITALS, b"icu-2", b"{}")
        await publish(bus, of("noise", Presence.ON, bed="icu-2"), of("noise", Presence.ON, bed="icu-1"))
        await consumer.until(lambda: consumer.signal("noise") == "On")
        assert not await asyncio.to_thread(found, epr_of("icu-2"))

    run(server, prefix, body, beds=["icu-1"])


def test_a_silent_service_is_an_alarm_of_the_deployment(server: EmbeddedServer, prefix: str) -> None:
    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        # No worker has ever been heard of.
        async with consuming(epr_of(EVERY_BED)) as deployment:
            await deployment.until(lambda: deployment.signal("service-silent") == "On")
            assert deployment.state("alerts/service-silent").ActualPriority.value == "Hi"

    run(server, prefix, body, silent_after_s=0.5)


@pytest.mark.slow
def test_a_provider_that_is_started_again_shows_what_it_would_have_shown(
    server: EmbeddedServer, prefix: str
) -> None:
    epr = uuid.uuid4()
    of_bed = uuid.uuid5(epr, "icu-1")

    async def main() -> None:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await publish(bus, of("asystole", Presence.ON), of("noise", Presence.ON))
            async with providing(server.url, prefix, epr):
                consumer = await stack.enter_async_context(consuming(of_bed))
                assert consumer.signal("asystole") == "On"
            # It says good-bye; while it is away, alarms go on.
            await asyncio.wait_for(consumer.ended.wait(), 20)
            await publish(bus, of("asystole", Presence.LATCHED, 1), of("noise", Presence.OFF, 1))
            await publish(bus, of("anomaly", Presence.ON))
            async with providing(server.url, prefix, epr), consuming(of_bed) as consumer:
                assert consumer.signal("asystole") == "Latch"
                assert consumer.signal("noise") == "Off"
                assert consumer.signal("anomaly") == "On"
                # And a consumer that comes back sees what the others see.
                await publish(bus, of("anomaly", Presence.ACKNOWLEDGED, 1))
                await consumer.until(lambda: consumer.signal("anomaly") == "Ack")
                async with consuming(of_bed) as other:
                    assert other.signal("anomaly") == "Ack"

    async def with_stack() -> None:
        async with stack:
            await main()

    stack = AsyncExitStack()
    asyncio.run(asyncio.wait_for(with_stack(), 120))


@pytest.mark.slow
def test_a_server_that_goes_away_is_waited_for_and_one_that_lost_its_alarms_is_believed(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    epr = uuid.uuid4()
    of_bed = uuid.uuid5(epr, "icu-1")

    async def main() -> None:
        async with lasting_server(tmp_path) as lasting, await Bus.connect(lasting.url) as bus:
            await publish(bus, of("asystole", Presence.ON))
            async with providing(lasting.url, "bedside:", epr), consuming(of_bed) as consumer:
                restart(lasting, kill=True)
                await publish(bus, of("asystole", Presence.LATCHED, 1))
                await consumer.until(lambda: consumer.signal("asystole") == "Latch")
        async with await Bus.connect(redis_server.url) as bus:
            await publish(bus, of("asystole", Presence.ON), of("noise", Presence.ON))
            async with providing(redis_server.url, "bedside:", epr), consuming(of_bed) as consumer:
                assert consumer.signal("noise") == "On"
                restart(redis_server)
                await consumer.until(lambda: consumer.signal("noise") == "Off")
                assert consumer.signal("asystole") == "Off"
                await publish(bus, of("asystole", Presence.ON))
                await consumer.until(lambda: consumer.signal("asystole") == "On")

    asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.slow
def test_a_consumer_with_a_certificate_acknowledges_in_its_name_and_one_without_gets_nothing(
    server: EmbeddedServer, prefix: str, tmp_path: Path
) -> None:
    for name in ("us", "station-3", "stranger"):
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
        made = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run(["openssl", "req", "-x509", *kind, *made], check=True, capture_output=True)
    ours = [str(tmp_path / file) for file in ("us.pem", "us.key", "station-3.pem")]

    def theirs(name: str) -> tuple[Path, Path, Path]:
        return (tmp_path / f"{name}.key", tmp_path / f"{name}.pem", tmp_path / "us.pem")

    async def main() -> None:
        epr = uuid.uuid4()
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await bus.declare_all()
            await publish(bus, of("asystole", Presence.ON))
            async with (
                responding(server.url, prefix) as commands,
                providing(server.url, prefix, epr, network=Network("127.0.0.1", *ours)),
            ):
                async with consuming(uuid.uuid5(epr, "icu-1"), theirs("station-3")) as consumer:
                    assert consumer.signal("asystole") == "On"
                    done = await consumer.acknowledge("asystole")
                    assert done.InvocationState.value == "Fin"
                assert [command.who for command in commands] == ["station-3 (SDC 127.0.0.1)"]
                with pytest.raises((OSError, HTTPException)):
                    await stack.enter_async_context(consuming(uuid.uuid5(epr, "icu-1"), theirs("stranger")))

    async def with_stack() -> None:
        async with stack:
            await main()

    stack = AsyncExitStack()
    asyncio.run(asyncio.wait_for(with_stack(), 90))


@pytest.mark.slow
def test_a_real_alarm_is_acknowledged_and_ends_with_the_discharge(short_tmp: Path) -> None:
    feed_of_bed = feed("icu-1", patient(3, FALLS_ILL, 60.0))
    # The feed goes on: its alarms are still there.
    chunks = [chunk for chunk in feed_of_bed if not chunk.header.last]
    epr = uuid.uuid4()

    async def test(ward: Ward, bus: Bus) -> None:
        await publish_chunks(bus, chunks)
        async with (
            providing(ward.server.url, bus.prefix, epr),
            consuming(uuid.uuid5(epr, "icu-1")) as consumer,
        ):
            await consumer.until(lambda: consumer.signal("ventricular-fibrillation") == "On")
            await consumer.until(lambda: consumer.signal("anomaly") == "On")
            done = await consumer.acknowledge("anomaly")
            assert done.InvocationState.value == "Fin"
            await consumer.until(lambda: consumer.signal("anomaly") == "Ack")
            audit = [Audit.decode(entry.value) async for entry in bus.kept(AUDIT)]
            assert "SDC 127.0.0.1" in {entry.who for entry in audit if entry.kind == "acknowledge"}
            assert (await asking.discharge(bus, "icu-1", who="nurse")).done
            rules = ("ventricular-fibrillation", "anomaly")
            await consumer.until(lambda: {consumer.signal(rule) for rule in rules} == {"Off"})
            # The next patient's alarms are told anew.
            assert (await asking.admit(bus, "icu-1", who="nurse")).done
            await publish_chunks(bus, chunks_of(patient(4, FALLS_ILL, 40.0), "icu-1", "next"))
            await consumer.until(lambda: consumer.signal("ventricular-fibrillation") == "On")

    in_ward(short_tmp, test)


def test_no_more_beds_are_provided_than_can_be(
    server: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stream.subscription.sdc.provider.MAX_BEDS", 2)

    async def body(bus: Bus, consumer: Consumer, epr_of: EprOf) -> None:
        for bed in ("icu-2", "icu-3"):
            await publish(bus, of("noise", Presence.ON, bed=bed))
        await publish(bus, of("noise", Presence.ON, bed="icu-1"))
        await consumer.until(lambda: consumer.signal("noise") == "On")
        assert await asyncio.to_thread(found, epr_of("icu-2"))
        assert not await asyncio.to_thread(found, epr_of("icu-3"))
        assert "2 beds are provided, and no more can be" in caplog.text

    run(server, prefix, body)


def test_other_machines_come_in_only_with_a_certificate_or_where_the_network_is_trusted() -> None:
    with pytest.raises(ValueError, match=r"--adapter 192\.0\.2\.1 lets in other machines"):
        AlarmProvider("redis://localhost", Network("192.0.2.1"))
    assert not AlarmProvider("redis://localhost", Network("192.0.2.1"), trust_network=True).acknowledged
    with_ca = Network("192.0.2.1", "us.pem", "us.key", "consumers.pem")
    assert AlarmProvider("redis://localhost", with_ca).acknowledged


def test_the_command_provides_until_it_is_stopped_and_says_why_it_cannot(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    command = ("alerts", "sdc", "--redis", server.url)
    assert_refused(run_command(*command, "--adapter", "ward"), "does not appear to be", code=2)
    missing = tmp_path / "none.pem"
    assert_refused(
        run_command(*command, "--tls-cert", missing, "--tls-key", missing), "cannot be used for TLS"
    )
    # An address that this machine does not have (RFC 5737).
    assert_refused(run_command(*command, "--adapter", "192.0.2.1", "--trust-network"), "192.0.2.1")
    arguments = [sys.executable, "-m", "bedside", *command, "--epr", str(uuid.uuid4())]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert (
            "alarms are provided over SDC at 127.0.0.1; the deployment is urn:uuid:"
            in process.stderr.readline()
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
