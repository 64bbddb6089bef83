"""The consumer: reads partitions with XREAD and commits positions to Redis consumer groups."""

from __future__ import annotations

import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import redis.asyncio as redis
from faust.exceptions import ConsumerNotStarted, ImproperlyConfigured, ProducerSendError
from faust.transport import base
from faust.transport.consumer import RecordMap
from faust.types import TP, ConsumerMessage, Message
from faust.types.tuples import ack_lock
from mode import Seconds, get_logger
from mode.services import WaitResults

from stream.transport.client import StoppedWaitingError, connect, patiently
from stream.transport.coordinator import Coordinator
from stream.transport.group import Membership
from stream.transport.ids import id_before, offset_after, offset_of, time_of
from stream.transport.layout import decode_message, stream_key
from stream.transport.producer import Producer
from stream.transport.reader import Reader, Record, bounds

if TYPE_CHECKING:
    from stream.transport.transport import Transport

logger = get_logger(__name__)

# Base Faust sleeps a second when there is no partition to read: processors that hold it back drain their
# buffers in less. Without partitions of its own, a worker has only to notice that it is given some.
_HELD_BACK_S = 0.005
_IDLE_S = 0.05

_START = {"earliest": "0", "latest": "$"}


class Consumer(base.Consumer):
    """Consume messages from Redis Streams.

    A position is an offset as in `stream.transport.ids`; the committed one is kept as the last-delivered id
    of a Redis consumer group named after the app, so XINFO GROUPS shows it. Messages are read without the
    group: a partition has one owner, who remembers what is pending.
    """

    transport: Transport
    logger = logger

    def __post_init__(self) -> None:
        conf = self.app.conf
        try:
            self._start_at = _START[conf.consumer_auto_offset_reset]
        except KeyError:
            raise ImproperlyConfigured(
                f"consumer_auto_offset_reset must be 'earliest' or 'latest', "
                f"not {conf.consumer_auto_offset_reset!r}"
            ) from None
        self._control: redis.Redis | None = None
        self._reader: Reader | None = None
        self._coordinator: Coordinator | None = None
        self._generation = -1
        # That whose messages may be acked; None while partitions change hands.
        self._in_force: int | None = None
        self._assignment: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._highwaters: dict[TP, int] = {}
        # Of partitions whose end was looked up: the offset of their oldest message in that moment.
        self._oldest: dict[TP, int] = {}
        # Offsets in the order of delivery, until they are committed: offsets are sparse, so that "all before
        # it are acked" cannot be seen from the numbers.
        self._delivered: defaultdict[TP, deque[int]] = defaultdict(deque)
        self._to_resume: set[TP] = set()
        self._to_conductor, self.callback = self.callback, self._hand_over
        self._at_hand: Message | None = None

    @property
    def control(self) -> redis.Redis:
        """The connection for everything that does not block."""
        if self._control is None:
            raise ConsumerNotStarted("Consumer not yet started")
        return self._control

    async def on_start(self) -> None:
        """Open the connections; the group is joined with the first subscription."""
        await super().on_start()
        self._control = connect(self.transport.endpoint)
        self._reader = Reader(connect(self.transport.endpoint))
        conf = self.app.conf
        membership = Membership(
            self._control,
            prefix=self.transport.endpoint.prefix,
            group=conf.id,
            member=f"{conf.broker_client_id}-{uuid.uuid4()}",
            session_timeout_s=conf.broker_session_timeout,
        )
        self._coordinator = Coordinator(self, membership)
        self.add_dependency(self._coordinator)

    async def on_shutdown(self) -> None:
        """Close the connections."""
        await super().on_shutdown()
        if self._coordinator is not None:
            self._children.remove(self._coordinator)
            self._coordinator = None
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        control, self._control = self._control, None
        if control is not None:
            await control.aclose()

    # -- topics

    @property
    def _producer(self) -> Producer:
        return cast(Producer, self.app.producer)

    async def create_topic(
        self,
        topic: str,
        partitions: int,
        replication: int,
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Seconds = 30.0,
        retention: Seconds | None = None,
        compacting: bool | None = None,
        deleting: bool | None = None,
        ensure_created: bool = False,
    ) -> None:
        """Register a topic, see `Producer.create_topic`."""
        await self._producer.create_topic(
            topic, partitions, replication, retention=retention, compacting=compacting
        )

    def topic_partitions(self, topic: str) -> int | None:
        """Return a topic's number of partitions, None if the topic is not known yet."""
        config = self.transport.registry.get(topic)
        return None if config is None else config.partitions

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Return the partition of a key unless one is given."""
        if partition is not None or key is None:
            return partition
        return self._producer.key_partition(topic, key).partition

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Set the topics to consume. Those that do not exist are created."""
        configs = {topic: await self._producer.topic_config(topic) for topic in set(topics)}
        if self.app.client_only:
            # A client is no member of the group: it reads everything and commits nothing.
            await self._place({TP(t, p) for t, config in configs.items() for p in range(config.partitions)})
        else:
            assert self._coordinator is not None
            self._coordinator.subscribe(configs)

    # -- assignment

    def assignment(self) -> set[TP]:
        """Return the partitions that we own."""
        return set(self._assignment)

    async def give_up_partitions(self) -> None:
        """Commit what has been processed and stop processing."""
        await self.commit()
        self._in_force = None
        await self.on_partitions_revoked(self.assignment())
        self._delivered.clear()
        self._to_resume.clear()

    async def take_partitions(self, partitions: set[TP], generation: int) -> None:
        """Go on as the owner of partitions, in a new generation of the group."""
        await self._place(partitions)
        self._generation = generation
        self.app.consumer_generation_id = generation
        self._in_force = generation
        await self.on_partitions_assigned(partitions, generation)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch from partitions again; during a rebalance, once the flow is resumed.

        At the end of a rebalance Faust resumes the partitions, awaits a seek, and then resumes the flow,
        which clears the queues: what was read in between would be lost.
        """
        partitions = set(tps)
        if self.app.rebalancing:
            later = {tp for tp in partitions if not self._is_changelog_tp(tp)}
            self._to_resume |= later
            partitions -= later
        super().resume_partitions(partitions)

    def resume_flow(self) -> None:
        """Allow processing, also of the partitions that were to be resumed."""
        super().resume_flow()
        partitions, self._to_resume = self._to_resume, set()
        super().resume_partitions(partitions)

    async def _place(self, partitions: set[TP]) -> None:
        committed = await self._committed_offsets(partitions)
        self._assignment = set(partitions)
        # Changelogs begin wherever recovery says.
        self._positions = {tp: committed.get(tp, 0) for tp in partitions}
        self._highwaters.clear()
        self._oldest.clear()

    async def _committed_offsets(self, partitions: Iterable[TP]) -> dict[TP, int]:
        # Nobody commits a changelog.
        tps = [tp for tp in partitions if not self._is_changelog_tp(tp)]
        coordinator = self._coordinator
        if not tps or coordinator is None:
            return {}
        streams = [self._stream(tp) for tp in tps]
        ids = await patiently(
            self,
            "reading committed positions",
            lambda: coordinator.membership.committed(streams, start=self._start_at),
        )
        return {tp: offset_after(last) for tp, last in zip(tps, ids, strict=True)}

    def _stream(self, tp: TP) -> str:
        return stream_key(self.transport.endpoint.prefix, tp.topic, tp.partition)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    # -- reading

    async def _wait_next_records(self, timeout: float) -> tuple[RecordMap | None, set[TP] | None]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        if not self.app.client_only and not self._active_partitions:
            await self.sleep(_HELD_BACK_S if self._buffered_partitions else _IDLE_S)
            return {}, self._active_partitions
        return await super()._wait_next_records(timeout)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        wanted = self._assignment if active_partitions is None else self._assignment & active_partitions
        asked = {tp: self._positions[tp] for tp in wanted}
        if not asked or self._reader is None:
            await self.sleep(_IDLE_S)
            return {}
        owners = {self._stream(tp): tp for tp in asked}
        found = await self._reader.read({self._stream(tp): at for tp, at in asked.items()}, timeout)
        records = {}
        for stream, entries in found.items():
            tp = owners[stream]
            # Drop, and read again, what was sought, paused or given up while the read was blocked. Faust
            # drops messages of a partition that is not active, but we would have gone on after them.
            still_wanted = tp in (self._assignment if active_partitions is None else active_partitions)
            if still_wanted and self._positions.get(tp) == asked[tp]:
                records[tp] = entries
                self._positions[tp] = entries[-1].offset + 1
                self._highwaters[tp] = max(self._highwaters.get(tp, 0), self._positions[tp])
        return records

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        message = decode_message(record.fields)
        time_ms = time_of(record.offset) if message.time_ms is None else message.time_ms
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            time_ms / 1000,
            0 if message.time_ms is not None else 1,  # Kafka's codes: made by the sender, by the broker
            message.headers,
            message.key,
            message.value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def _hand_over(self, message: Message) -> Awaitable[None]:
        self._at_hand = message
        return self._deliver(message)

    async def wait_first(self, *waits: Any, timeout: Any = None) -> WaitResults:
        """Wait for the first of several.

        Faust waits with each message for the first of: it is handed over, the flow is suspended. That makes
        four tasks a message, as much work as all the rest, and is of use only if something is in the way.
        """
        message, self._at_hand = self._at_hand, None
        if message is None or not self._way_is_clear(message.tp):
            return await super().wait_first(*waits, timeout=timeout)
        handing_over, suspension = waits
        suspension.close()
        await handing_over
        return WaitResults([handing_over], [None], False)

    def _way_is_clear(self, tp: TP) -> bool:
        # What handing over may wait for: the flow, the producer's buffer, and the agents' queues.
        conductor, buffer = cast(Any, self.app.topics), self.app.producer.buffer
        return (
            self.app.flow_control.is_active()
            and buffer.size <= buffer.max_messages
            and not any(topic.queue.full() for topic in conductor._tp_index[tp])
        )

    async def _deliver(self, message: Message) -> None:
        if self.app.topics.acks_enabled_for(message.topic):
            delivered = self._delivered[message.tp]
            # After a seek back, what is delivered again is still there from the first time.
            if not delivered or message.offset > delivered[-1]:
                delivered.append(message.offset)
        await self._to_conductor(message)

    # -- positions

    async def _seek(self, partition: TP, offset: int) -> None:
        self._positions[partition] = offset

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Go on from these offsets."""
        for tp, offset in partitions.items():
            self._positions[tp] = offset
            # Otherwise Faust drops as already read what comes before the old position.
            self._read_offset[tp] = offset or None

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go on from the committed positions, and return them."""
        committed = await self._committed_offsets(self._assignment)
        owned = {tp: offset for tp, offset in committed.items() if tp in self._assignment}
        self._positions.update(owned)
        return owned

    async def position(self, tp: TP) -> int | None:
        """Return the offset that is read next, None for a partition that is not ours."""
        return self._positions.get(tp)

    def highwater(self, tp: TP) -> int:
        """Return the end of a partition as far as it is known here."""
        return self._highwaters.get(tp, self._positions.get(tp, 0))

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the end of each partition: the offset after the newest message that is still there."""
        found = await self._bounds(partitions)
        self._oldest.update({tp: begin for tp, (begin, _) in found.items()})
        ends = {tp: end for tp, (_, end) in found.items()}
        self._highwaters.update(ends)
        return ends

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the offset of the oldest message of each partition; of an empty one, its end.

        Where `highwaters` was asked before, it is one that was the oldest then, even if it has been removed
        since. A row that is written takes the place of the one before it: what was a table's end a moment ago
        can lie before its oldest row now. Faust, which asks for the ends first and restores what is between,
        would take that for lost data and crash.
        """
        found = await self._bounds(partitions)
        return {tp: min(begin, self._oldest.get(tp, begin)) for tp, (begin, _) in found.items()}

    async def _bounds(self, partitions: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        tps = list(partitions)
        streams = [self._stream(tp) for tp in tps]
        found = await patiently(self, "looking up offsets", lambda: bounds(self.control, streams))
        return dict(zip(tps, found, strict=True))

    # -- committing

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: offsets are sparse, and the base class would keep millions of numbers for a gap."""

    def ack(self, message: Message) -> bool:
        """Take a message for done, unless its partition has been given up since it was delivered.

        It comes again, to whoever has the partition then. That may be us: what is delivered anew must not
        pass for done because of what was acked when the base class had forgotten the old messages.
        """
        if self.app.client_only or message.generation_id == self._in_force:
            return super().ack(message)
        self._unacked_messages.discard(message)
        return False

    def _new_offset(self, tp: TP) -> int | None:
        delivered = self._delivered[tp]
        committed = self._committed_offset[tp] or 0
        last = None
        with ack_lock:
            acked = self._acked_index[tp]
            # The base class's list of the same numbers; nobody else empties it.
            self._acked[tp].clear()
            # What was sought back to before the commit is not acked again.
            while delivered and (delivered[0] in acked or delivered[0] < committed):
                last = delivered.popleft()
                acked.discard(last)
        return None if last is None else last + 1

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        assert self._coordinator is not None
        membership, generation = self._coordinator.membership, self._generation
        try:
            # A table's change and an agent's output must be there before the message they come from is done.
            await self._producer.flush_or_fail()
            ids = {self._stream(tp): id_before(offset) for tp, offset in offsets.items()}
            accepted = await patiently(self, "committing", lambda: membership.commit(generation, ids))
            if not accepted:
                self.log.warning("commit refused: the partitions of generation %d are not ours", generation)
                await self._coordinator.commit_was_refused()
        except StoppedWaitingError:
            self.log.warning("stopping without a last commit: what was processed since comes again")
            return False
        except ProducerSendError as error:
            await self.crash(error)
            return False
        return accepted

    async def lag_ms(self) -> dict[TP, int]:
        """Return how long the oldest uncommitted message of each partition has been in Redis, ms.

        0 for a partition without one. Commits happen at intervals (``broker_commit_interval``), and a
        healthy worker lags by up to that.
        """
        tps = [tp for tp in self._assignment if self.app.topics.acks_enabled_for(tp.topic)]
        async with self.control.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for tp in tps:
                since = self._committed_offset[tp] or 0
                pipeline.xrange(self._stream(tp), min=f"({id_before(since)}", count=1)
            (seconds, microseconds), *oldest = await pipeline.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        return {
            tp: max(0, now_ms - time_of(offset_of(entries[0][0]))) if entries else 0
            for tp, entries in zip(tps, oldest, strict=True)
        }
