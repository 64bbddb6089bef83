"""The topics that exist, as the registry in Redis has them."""

from __future__ import annotations

import redis.asyncio as redis

from stream.transport.layout import TopicConfig, check_topic, registry_key

# For topics that nobody has sized: Redis keeps them in memory, so "for ever" is no default.
_DEFAULT_MAXLEN = 100_000


def default_config(partitions: int, retention_ms: int | None = None, compact: bool = False) -> TopicConfig:
    """Return the configuration of a topic that Faust asks for."""
    if compact:
        return TopicConfig(partitions, compact=True)
    return TopicConfig(partitions, retention_ms, None if retention_ms else _DEFAULT_MAXLEN)


class Registry:
    """A cache of the topic registry.

    The number of partitions of a topic never changes, so what has been read stays valid.
    """

    def __init__(self, prefix: str) -> None:
        self._key = registry_key(prefix)
        self._topics: dict[str, TopicConfig] = {}

    def get(self, topic: str) -> TopicConfig | None:
        """Return what is known of a topic without asking the server."""
        return self._topics.get(topic)

    async def declare(self, client: redis.Redis, topic: str, wanted: TopicConfig) -> TopicConfig:
        """Return a topic's configuration, registering `wanted` if it is new: who came first is right.

        Raises
        ------
        ValueError
            If the name is not legal.
        """
        known = self._topics.get(topic)
        if known is not None:
            return known
        check_topic(topic)
        await client.hsetnx(self._key, topic, wanted.to_json())
        registered = await client.hget(self._key, topic)
        config = wanted if registered is None else TopicConfig.from_json(registered)
        self._topics[topic] = config
        return config

    async def find(self, client: redis.Redis, topic: str) -> TopicConfig | None:
        """Return a topic's configuration, None if it is not registered."""
        if topic not in self._topics:
            registered = await client.hget(self._key, topic)
            if registered is not None:
                self._topics[topic] = TopicConfig.from_json(registered)
        return self._topics.get(topic)

    async def refresh(self, client: redis.Redis) -> None:
        """Learn of the topics that others have registered."""
        entries: dict[bytes, bytes] = await client.hgetall(self._key)  # type: ignore[assignment]
        for name, registered in entries.items():
            self._topics.setdefault(name.decode(), TopicConfig.from_json(registered))
