"""A server that dies unplanned, with a replica behind it that lacks the last seconds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from bench.ward import Ward
from stream.audit.log import AuditLog, verify
from stream.bus import Bus
from stream.contract import EVERY_BED, AlarmEvent, Audit, Finding, Presence
from stream.durability import ALARMS_AT_RISK
from stream.subscription.follow import Alarm, Subscription
from stream.topics import ALARMS, FINDINGS
from tests.stream.servers import NAME, Server, running_pair, running_sentinel
from tests.stream.transport.conftest import eventually

BEDS = 4
# Each falls ill again and again; four times as fast as real, as fast as a live feed may be.
ILL = " ".join(f"vt:180@{start} sinus:80@{start + 10}" for start in range(15, 600, 20))
PATIENCE_S = 60.0


class Elsewhere:
    """A server that others start and stop."""

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None: ...

    def stop(self) -> None: ...


class SentinelWard(Ward):
    """A worker and simulated patients, on a server that a Sentinel names."""

    def __init__(self, sentinel: Server) -> None:
        super().__init__()
        self.server: Any = Elsewhere(f"redis://127.0.0.1:{sentinel.port}/0?sentinel={NAME}")

    def start_feed(self) -> None:
        options = {"--beds": BEDS, "--timeline": f"sinus:80@0 {ILL}", "--seed": 1, "--speed": 4}
        options |= {"--redis": self.url, "--metrics-port": 0}
        flat = [str(part) for option in options.items() for part in option]
        self._spawn("feed", "-m", "bedside", "ingest", "simulate", *flat)


class Subscriber:
    """Follows the alarms, whatever becomes of the server."""

    def __init__(self) -> None:
        self.told: list[Alarm] = []
        self._news = asyncio.Condition()

    async def run(self, url: str) -> None:
        async with await Subscription.open(url, since="0-0", silent_after_s=None) as subscription:
            while True:
                events = await subscription.next()
                async with self._news:
                    self.told += events
                    self._news.notify_all()

    async def until_patients(self, more: int) -> None:
        """Wait for so many more transitions of patients' alarms."""
        wanted = len(self.of_patients()) + more
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.of_patients()) >= wanted)

    async def until_at_risk(self) -> Alarm:
        """Wait until the newest that was told of alarms at risk is that they are; return it."""

        def at_risk() -> list[Alarm]:
            newest = [event for event in self.told if event.rule == ALARMS_AT_RISK][-1:]
            return [event for event in newest if event.presence is Presence.ON]

        async with asyncio.timeout(PATIENCE_S), self._news:
            return (await self._news.wait_for(at_risk))[0]

    def of_patients(self) -> list[Alarm]:
        return [event for event in self.told if event.bed != EVERY_BED]


async def beds_with_findings_after(bus: Bus, at_ns: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        found: set[str] = set()
        async for entry in bus.tail(FINDINGS, after="0"):
            finding = Finding.decode(entry.value)
            if finding.stamps.ingest_ns > at_ns:
                found.add(finding.bed)
            if len(found) == BEDS:
                return


async def until_there(bus: Bus, event: str) -> None:
    """Wait until a transition of an alarm is on the stream."""
    async with asyncio.timeout(PATIENCE_S):
        async for entry in bus.tail(ALARMS, after="0"):
            if AlarmEvent.decode(entry.value).event == event:
                return


@pytest.mark.slow
def test_no_alarm_is_lost_or_doubled_when_a_replica_takes_over_that_is_behind(short_tmp: Path) -> None:
    async def main(primary: Server, replica: Server, sentinel: Server) -> None:
        subscriber = Subscriber()
        with SentinelWard(sentinel) as ward:
            await ward.ready()
            following = asyncio.create_task(subscriber.run(ward.url))
            ward.start_feed()
            await subscriber.until_patients(2 * BEDS)
            # From here on the replica gets nothing more, and the worker and the patients go on.
            replica.process.send_signal(signal.SIGSTOP)
            with primary.client() as client:
                client.client_kill_filter(_type="replica")
                lacks_from = int(client.info("replication")["master_repl_offset"])
                before = len(subscriber.told)
                await subscriber.until_patients(BEDS)
                at_risk = await subscriber.until_at_risk()
                assert int(client.info("replication")["master_repl_offset"]) > lacks_from
            behind = subscriber.told[before:]
            os.kill(primary.process.pid, signal.SIGKILL)
            replica.process.send_signal(signal.SIGCONT)
            with replica.client() as client:
                await asyncio.to_thread(
                    eventually, lambda: client.info("replication")["role"] == "master", "another primary"
                )
                seconds, _ = client.time()
            async with await Bus.connect(replica.url) as bus:
                await beds_with_findings_after(bus, int(seconds) * 10**9)
                await subscriber.until_patients(2 * BEDS)
                # The new server has no replica of its own: the alarm goes on there.
                await until_there(bus, at_risk.event)
                following.cancel()
                there = [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]
                audit = [entry async for _, entry in AuditLog(bus).entries()]
            ward.check()
            # The replica did lack something.
            assert "the Redis server had lost" in ward.log("worker")
        check(subscriber.told, behind, there)
        assert verify([entry for entry in audit if isinstance(entry, Audit)]) == []

    def check(told: list[Alarm], behind: list[Alarm], there: list[AlarmEvent]) -> None:
        events = [event.event for event in there]
        assert len(set(events)) == len(events)
        # Whoever was told of an alarm still finds it, also one that only the dead server had.
        assert [event for event in behind if event.bed != EVERY_BED]
        assert {event.event for event in told if event.bed != EVERY_BED} <= set(events)
        heard = [event.event for event in told if event.rule != "events-missed"]
        assert len(set(heard)) == len(heard)
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for event in there:
            numbers[event.alarm].append(event.number)
        assert all(found == [*range(len(found))] for found in numbers.values()), numbers

    options = ("--appendonly", "yes")
    with (
        running_pair(short_tmp, *options) as (primary, replica),
        running_sentinel(short_tmp, primary) as sentinel,
    ):
        asyncio.run(main(primary, replica, sentinel))
