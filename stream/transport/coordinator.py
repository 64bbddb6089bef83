"""The group protocol: heartbeats, and eager rebalances with Faust's own assignor."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from aiokafka.coordinator.protocol import (  # type: ignore[import-untyped]
    ConsumerProtocolMemberAssignment as Assignment,
)
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata as Metadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP
from mode import Service, get_logger

from stream.transport.client import StoppedWaitingError, patiently
from stream.transport.group import Membership

if TYPE_CHECKING:
    from stream.transport.consumer import Consumer

logger = get_logger(__name__)

# While a rebalance is open everybody waits for it, so look often.
_POLL_S = 0.02
# Many workers that were started together should not beat together.
_JITTER = 0.1


class Coordinator(Service):
    """Keep a consumer in its group and hand it its partitions.

    The protocol is Kafka's eager one. Whoever notices that a member has come, gone or changed its
    subscription starts a new generation; all members give up their partitions and join it; once all have,
    the leader runs the assignor. The order of events for the consumer is that of Faust's Kafka driver.
    """

    logger = logger

    def __init__(self, consumer: Consumer, membership: Membership, **kwargs: object) -> None:
        self.consumer = consumer
        self.app = consumer.app
        self.membership = membership
        # The interface that the property is typed with lacks what brokers call.
        self._assignor = cast(PartitionAssignor, consumer.app.assignor)
        conf = self.app.conf
        self._heartbeat_interval_s = conf.broker_heartbeat_interval
        self._rebalance_timeout_s = conf.broker_rebalance_timeout
        self._topics: set[str] = set()
        self._subscribed = asyncio.Event()
        # Generation that the consumer has partitions of, and the one that the group is in.
        self._held = -1
        self._current = -1
        self._may_lead = False
        self._leads = False
        self._alive: frozenset[str] = frozenset()
        self._moved_on = asyncio.Event()
        super().__init__(loop=consumer.loop, beacon=consumer.beacon)

    def subscribe(self, topics: Iterable[str]) -> None:
        """Set the topics that the consumer wants; a change causes a rebalance."""
        self._topics = set(topics)
        self._subscribed.set()

    async def commit_was_refused(self) -> None:
        """Find out why: the group has moved on, or its server has forgotten that it gave us partitions."""
        await patiently(self, "heartbeat", self._beat)
        if self._current == self._held:
            # A server that crashed and lost its last second remembers the generation, but not its assignment.
            await patiently(self, "joining again", lambda: self.membership.rejoin(self._held))
            await patiently(self, "heartbeat", self._beat)

    async def on_stop(self) -> None:
        """Leave the group."""
        try:
            await patiently(self, "leaving the group", self.membership.leave)
        except StoppedWaitingError:
            self.log.warning("could not leave the group: the others wait for the session to time out")

    @Service.task
    async def _heartbeats(self) -> None:
        await self._subscribed.wait()
        while not self.should_stop:
            try:
                await patiently(self, "heartbeat", self._beat)
            except StoppedWaitingError:
                return
            await self.sleep(self._heartbeat_interval_s * random.uniform(1 - _JITTER, 1))

    @Service.task
    async def _rebalances(self) -> None:
        while not self.should_stop:
            await self._moved_on.wait()
            self._moved_on.clear()
            try:
                while self._current != self._held and not self.should_stop:
                    await self._rebalance()
            except StoppedWaitingError:
                return

    async def _beat(self) -> None:
        subscription = json.dumps(sorted(self._topics))
        state = await self.membership.heartbeat(subscription, may_lead=self._may_lead)
        if state is not None:
            self._current, self._leads, self._alive = state
            if self._current != self._held:
                self._moved_on.set()

    async def _rebalance(self) -> None:
        self.log.info("rebalancing: the group is at generation %d", self._current)
        self._may_lead = False
        self.app.on_rebalance_start()
        await self.consumer.give_up_partitions()
        while not self.should_stop:
            generation = self._current
            await self._join(generation)
            assignment = await self._await_assignment(generation)
            if assignment is not None:
                await self._accept(generation, assignment)
                return

    async def _join(self, generation: int) -> None:
        metadata = self._assignor.metadata(self._topics).encode()
        await patiently(self, "joining", lambda: self.membership.join(generation, metadata))
        self._may_lead = True

    async def _await_assignment(self, generation: int) -> Assignment | None:
        """Return what we are given in this generation, None if the group moves on before."""
        began = time.monotonic()
        while not self.should_stop:
            handed_out, ours = await patiently(
                self, "waiting for partitions", lambda: self.membership.assignment(generation)
            )
            if ours is not None:
                return Assignment.decode(ours)
            if handed_out:
                self.log.warning("joined generation %d too late", generation)
                await patiently(self, "joining again", lambda: self.membership.rejoin(generation))
            elif self._leads:
                await self._lead(generation, time.monotonic() - began)
            await patiently(self, "heartbeat", self._beat)
            if self._current != generation:
                return None
            await asyncio.sleep(_POLL_S)
        return None

    async def _lead(self, generation: int, waited_s: float) -> None:
        """Hand out the partitions if everybody alive has joined, or has had the time to."""
        joined = await patiently(self, "leading", lambda: self.membership.joined(generation))
        present = self._alive & joined.keys()
        if not present or (present != self._alive and waited_s < self._rebalance_timeout_s):
            return
        transport = self.consumer.transport
        await patiently(self, "leading", lambda: transport.registry.refresh(self.consumer.control))
        members = {member: Metadata.decode(joined[member]) for member in sorted(present)}
        assignments = self._assignor.assign(transport, members)
        encoded = {member: assignment.encode() for member, assignment in assignments.items()}
        await patiently(self, "leading", lambda: self.membership.assign(generation, encoded))

    async def _accept(self, generation: int, assignment: Assignment) -> None:
        self._assignor.on_assignment(assignment)
        partitions = {
            TP(topic, partition) for topic, numbers in assignment.assignment for partition in numbers
        }
        self.log.info("generation %d: %d partitions", generation, len(partitions))
        self._held = generation
        await self.consumer.take_partitions(partitions, generation)
