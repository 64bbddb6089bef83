"""The transport: what Faust finds under the broker schemes redis, rediss and unix."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, cast

import redis
from faust.exceptions import ImproperlyConfigured
from faust.transport import base
from faust.types import AppT
from faust.types.enums import ProcessingGuarantee
from yarl import URL

from stream.transport.client import Endpoint
from stream.transport.consumer import Consumer
from stream.transport.producer import Producer
from stream.transport.registry import Registry

if TYPE_CHECKING:
    from faust.types.transports import ConsumerT, ProducerT


class Transport(base.Transport):
    """Faust on Redis Streams.

    The broker URL is one that redis-py takes, with the query option ``prefix`` (default ``faust:``) put
    before all keys: ``redis://host:6379/0?prefix=ward:``, ``unix:///run/redis.sock?prefix=ward:``.

    Delivery is at least once. Durability is what the server's append-only file and replication give.

    Raises
    ------
    ImproperlyConfigured
        For several broker URLs, and for the processing guarantee ``exactly_once``.
    """

    Consumer: ClassVar[type[ConsumerT]] = Consumer
    Producer: ClassVar[type[ProducerT]] = Producer
    default_port = 6379
    driver_version = f"redis-py={redis.__version__}"

    def __init__(self, url: list[URL], app: AppT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(url, app, loop)
        if len(url) != 1:
            raise ImproperlyConfigured(f"the Redis transport takes one broker URL, not {len(url)}")
        # Typed as the enum's class rather than a member of it.
        guarantee = cast(ProcessingGuarantee, app.conf.processing_guarantee)
        if guarantee is not ProcessingGuarantee.AT_LEAST_ONCE:
            raise ImproperlyConfigured("the Redis transport delivers at least once: it has no transactions")
        self.endpoint = Endpoint.parse(url[0])
        self.registry = Registry(self.endpoint.prefix)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Return a topic's partitions: for the assignor we are the cluster's metadata."""
        config = self.registry.get(topic)
        return set(range(config.partitions)) if config is not None else set()
