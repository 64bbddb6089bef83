"""What differs between the brokers for a worker: everything that Faust does not hide."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import faust
from faust.types import TP, Message
from faust.types.tables import TableT
from faust.types.transports import ConsumerT, ProducerT
from redis.exceptions import RedisError

from stream import heartbeat
from stream.bus import Bus
from stream.heartbeat import WorkerStatus
from stream.topics import SAMPLES, WORKER_GROUP
from stream.transport.ids import id_of, offset_of, time_of

if TYPE_CHECKING:
    from stream.durability import Durability

StartProducer = Callable[[], Awaitable[ProducerT]]
"""Returns the app's producer, started."""


class Kept(NamedTuple):
    """A message that a topic still holds."""

    offset: int
    value: bytes


class Broker(Protocol):
    """Where a worker's Faust app runs.

    Attributes
    ----------
    url : str
        For Faust.
    app_id : str
        Name of the Faust app, and of the workers' consumer group.
    partitions : int
        Of the topics that are spread by bed.
    session_timeout_s : float
        For how long a worker may be silent before its partitions are given to others.
    app_options : mapping
        More arguments of the Faust app.
    keeps_monitor : bool
        Whether the transport looks at Faust's own records of every message.
    """

    url: str
    app_id: str
    partitions: int
    session_timeout_s: float
    app_options: Mapping[str, Any]
    keeps_monitor: bool

    def topic(self, name: str) -> str:
        """Return what Faust calls a topic."""
        ...

    def attach(self, app: faust.App) -> None:
        """Mend what of Faust's own would lose messages; before the app starts."""
        ...

    async def recent(self, partition: int, before: int, count: int) -> list[Kept]:
        """Return up to `count` samples messages of a partition before an offset, newest first.

        Raises
        ------
        redis.exceptions.RedisError, OSError
            If the server does not answer.
        """
        ...

    async def behind_s(self, consumer: ConsumerT, taken: Mapping[TP, Message]) -> float | None:
        """Return how much older the last messages taken are than the newest ones, at most; None if unknown.

        By the broker's clock alone: one that is wrong elsewhere must shed nothing.
        """
        ...

    def asked_ms(self, message: Message) -> float:
        """Return when the server took a command, ms since the epoch."""
        ...

    async def written(self, table: TableT[Any, Any]) -> None:
        """Return when rows put into a table may be relied upon by a commit that follows."""
        ...

    async def confirm(self, *, published: bool) -> None:
        """Return when alarms are as safe as the broker makes them, or have had the time to become so.

        Parameters
        ----------
        published : bool
            Whether any were published since the last call.
        """
        ...

    async def beat(self, producer: StartProducer, name: str, status: WorkerStatus) -> None:
        """Show a worker's sign of life; it goes the way that findings go.

        Raises
        ------
        redis.exceptions.RedisError, OSError
        """
        ...

    async def leave(self, producer: StartProducer, name: str) -> None:
        """Say that a worker stops on purpose; raises as `beat` does."""
        ...

    async def close(self) -> None:
        """Close connections of its own."""
        ...


class RedisBroker:
    """Redis Streams through `stream.transport`; see `Broker`.

    Parameters
    ----------
    url : str
        With the prefix as a query.
    partitions : int
    bus : callable
        Returns the worker's own connection.
    durability : Durability
    """

    def __init__(
        self, url: str, partitions: int, bus: Callable[[], Awaitable[Bus]], durability: Durability
    ) -> None:
        self.url = url
        self.app_id = WORKER_GROUP
        self.partitions = partitions
        # Six heartbeats: with the rebalance after it, no bed is without a worker for more than 5 s.
        self.session_timeout_s = 3.0
        # A server that was killed forgets what it had not written. Of tables that stay here we know more than
        # it does then, and Faust would crash over that.
        self.app_options: Mapping[str, Any] = {"recovery_consistency_check": False}
        self.keeps_monitor = False
        self._bus = bus
        self._durability = durability

    def topic(self, name: str) -> str:
        return name

    def attach(self, app: faust.App) -> None:
        # The transport is our own.
        return

    async def recent(self, partition: int, before: int, count: int) -> list[Kept]:
        entries = await (await self._bus()).recent(SAMPLES, partition, id_of(before), count)
        return [Kept(offset_of(entry.id), entry.value) for entry in entries]

    async def behind_s(self, consumer: ConsumerT, taken: Mapping[TP, Message]) -> float | None:
        try:
            ends = await consumer.highwaters(*taken) if taken else {}
        except RedisError:
            # The transport waits for the server and says so.
            return None
        last = {tp: message.offset for tp, message in taken.items()}
        behind_ms = [time_of(end - 1) - time_of(last[tp]) for tp, end in ends.items() if end > last[tp] + 1]
        return max(behind_ms, default=0) / 1000

    def asked_ms(self, message: Message) -> float:
        return time_of(message.offset)

    async def written(self, table: TableT[Any, Any]) -> None:
        # The transport's commits wait for everything that was sent before.
        return

    async def confirm(self, *, published: bool) -> None:
        await self._durability.confirm(published=published)

    async def beat(self, producer: StartProducer, name: str, status: WorkerStatus) -> None:
        bus = await self._bus()
        await heartbeat.beat(bus.client, bus.prefix, name, status.model_dump(exclude_none=True))

    async def leave(self, producer: StartProducer, name: str) -> None:
        bus = await self._bus()
        await heartbeat.leave(bus.client, bus.prefix, name)

    async def close(self) -> None:
        return
