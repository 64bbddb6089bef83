"""Stream ids as Kafka offsets.

A stream id ``<ms>-<sequence>`` becomes the offset ``ms << 20 | sequence``: 61 bits today, ordered as the ids
are. Offsets are sparse, and "the next offset" is a bound, not a message.
"""

from __future__ import annotations

_SEQUENCE_BITS = 20
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1


class SequenceOverflowError(OverflowError):
    """A stream holds more than 2**20 entries of one millisecond.

    Redis never lets ids go back: when the server's clock is set back, the millisecond of the last id stands
    still and the sequence grows until the clock has caught up.
    """


def offset_of(stream_id: str | bytes) -> int:
    """Return the offset of the message with this id.

    Raises
    ------
    SequenceOverflowError
        If the sequence does not fit.
    """
    text = stream_id.decode() if isinstance(stream_id, bytes) else stream_id
    ms, _, sequence = text.partition("-")
    if int(sequence) > _SEQUENCE_MASK:
        raise SequenceOverflowError(
            f"stream id {text} does not fit into an offset: the server's clock was set back and has not "
            f"caught up after {_SEQUENCE_MASK + 1} messages"
        )
    return int(ms) << _SEQUENCE_BITS | int(sequence)


def id_of(offset: int) -> str:
    """Return the id of the message at an offset."""
    return f"{offset >> _SEQUENCE_BITS}-{offset & _SEQUENCE_MASK}"


def id_before(offset: int) -> str:
    """Return the id after which XREAD finds the messages from an offset on; ``0-0`` for the beginning."""
    return id_of(offset - 1) if offset > 0 else "0-0"


def offset_after(stream_id: str | bytes) -> int:
    """Return the offset that a consumer which has seen this id goes on from; 0 for ``0-0``."""
    offset = offset_of(stream_id)
    return offset + 1 if offset else 0


def time_of(offset: int) -> int:
    """Return when the server took the message at an offset, ms since the epoch."""
    return offset >> _SEQUENCE_BITS
