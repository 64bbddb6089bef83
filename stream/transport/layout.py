"""How topics lie in Redis: names, fields and the topic registry.

A topic is a fixed number of streams ("partitions"). A message is one stream entry with these fields,
of which any may be missing; other fields are ignored:

``t``
    When the message was made, ms since the epoch, decimal. Missing: the time in the entry's id.
``k``
    Key. Missing: null.
``v``
    Value. Missing: null, which in a compacted topic deletes the key; an empty value is not null.
``h``
    Headers: a JSON array of ``[name, value in base64]``, which keeps order, repeats and any bytes.

The partition of a message is ``crc32(key) % partitions``, so any program can write to a topic::

    XADD bedside:samples:13 MINID ~ 1700000000000 * t 1700000600000 k bed-7 v <bytes>
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

# Kafka's rule, so that a topic can move there. Without ":" no topic's stream can be taken for another key.
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")

IDEMPOTENCY_HEADER = "idempotency-key"
"""A message with this header is published once, however often it is sent."""

FENCED_OFFSET = -1
"""What a producer is told of a message that was dropped because its partitions are another's by now."""

ONCE_TTL_MS = 24 * 3600 * 1000
"""For how long that is remembered: a producer that was down for the night still finds its messages there when
it starts again from its last commit."""


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """What the registry knows of a topic.

    Attributes
    ----------
    partitions : int
    retention_ms : int, optional
        Entries older than this are trimmed when a new one is added.
    maxlen : int, optional
        About so many entries are kept in each partition. `retention_ms` goes before it.
    compact : bool
        Keep only the newest entry of each key (a table's changelog); never trimmed otherwise.
    """

    partitions: int
    retention_ms: int | None = None
    maxlen: int | None = None
    compact: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> TopicConfig:
        """Read a registry entry; fields that a later version may add are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


def check_topic(topic: str) -> None:
    """Raise ValueError unless a topic's name is legal: letters, digits and ``._-``, at most 249."""
    if not _TOPIC_NAME.fullmatch(topic):
        raise ValueError(f"illegal topic name {topic!r}: use letters, digits, '.', '_' and '-'")


def stream_key(prefix: str, topic: str, partition: int) -> str:
    """Return the Redis key of one partition of a topic."""
    return f"{prefix}{topic}:{partition}"


def registry_key(prefix: str) -> str:
    """Return the Redis key of the hash that maps a topic's name to its `TopicConfig`."""
    return f"{prefix}topics"


def index_key(stream: str) -> str:
    """Return the Redis key of the hash that maps each key of a compacted stream to its entry's id."""
    return f"{stream}:index"


def tombstones_key(stream: str) -> str:
    """Return the Redis key of the sorted set of a compacted stream's deleted keys, by time of deletion."""
    return f"{stream}:tombstones"


def once_key(prefix: str, topic: str, idempotency_key: bytes) -> bytes:
    """Return the Redis key that remembers a message published with an ``idempotency-key``."""
    return f"{prefix}once:{topic}:".encode() + idempotency_key


def group_key(prefix: str, group: str, part: str) -> str:
    """Return the Redis key of one part of a consumer group's state."""
    return f"{prefix}group:{group}:{part}"


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that holds all messages with this key."""
    return zlib.crc32(key) % partitions


class Message(NamedTuple):
    """What a stream entry holds."""

    time_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def encode_message(message: Message) -> list[bytes | str | int]:
    """Return the fields and values of a message's entry, in turn, as XADD takes them."""
    fields: list[bytes | str | int] = ["t", message.time_ms or 0]
    if message.key is not None:
        fields += ["k", message.key]
    if message.value is not None:
        fields += ["v", message.value]
    if message.headers:
        fields += ["h", encode_headers(message.headers)]
    return fields


def decode_message(fields: Mapping[bytes, bytes]) -> Message:
    """Return the message in an entry that any program may have written.

    A time or headers that cannot be read count as missing: whoever put them there did not mean us.
    """
    time = fields.get(b"t", b"")
    headers: list[tuple[str, bytes]] = []
    if b"h" in fields:
        with contextlib.suppress(ValueError):
            headers = decode_headers(fields[b"h"])
    return Message(int(time) if time.isdigit() else None, fields.get(b"k"), fields.get(b"v"), headers)


def trim_options(config: TopicConfig, newest_ms: int) -> list[bytes | str | int]:
    """Return the options of XADD that keep a topic within its limits.

    Parameters
    ----------
    config : TopicConfig
    newest_ms : int
        Time of the stream's newest entry, or of a new one, by the server's clock, ms since the epoch: a host
        whose clock is ahead would trim too much.
    """
    if config.compact:
        return []
    if config.retention_ms is not None:
        return ["MINID", "~", max(0, newest_ms - config.retention_ms)]
    if config.maxlen is not None:
        return ["MAXLEN", "~", config.maxlen]
    return []


def encode_headers(headers: Iterable[tuple[str, bytes]]) -> bytes:
    """Return headers as the ``h`` field holds them."""
    pairs = [(name, base64.b64encode(value).decode()) for name, value in headers]
    return json.dumps(pairs, separators=(",", ":")).encode()


def decode_headers(field: bytes) -> list[tuple[str, bytes]]:
    """Return the headers in an ``h`` field.

    Raises
    ------
    ValueError
        If the field is not what `encode_headers` makes.
    """
    try:
        return [(str(name), base64.b64decode(value, validate=True)) for name, value in json.loads(field)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a headers field: {field[:80]!r}") from error
