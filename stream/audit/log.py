"""The audit log: who asked for what, and what became of it, as a chain that shows when it was tampered with.

Entries lie on the ``audit`` topic. Each has a number, the digest of the entry before it and a digest of its
own over everything else, so that an entry which is altered, removed, moved or put in no longer fits its
neighbours. The topic is trimmed at its old end: the oldest entry that is kept is the anchor, and what came
before it cannot be told any more. Whoever may write to the server can also make up a whole new chain; to rule
that out, note the newest number and digest somewhere else from time to time (``bedside audit verify``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stream.bus import Bus, Entry
from stream.contract import Audit, MalformedMessageError
from stream.topics import AUDIT
from stream.transport.layout import ONCE_TTL_MS, once_key, stream_key

GENESIS = "0" * 64
"""What the first entry of a chain has in place of the digest before it."""

# Append an entry if the chain still ends where its writer believes, and each entry once.
#
# KEYS: stream, head, once
# ARGV: digest that the writer follows, number and digest of the new entry, time (ms) to remember it, the
#       entry, bed, digest of a chain without entries, then options of XADD
# Returns {"first", entry} if it was appended before, {"behind", number, digest} if the chain ends elsewhere,
# and {"done"}.
_APPEND = """
local first = redis.call('GET', KEYS[3])
if first then return {'first', first} end
local head = redis.call('HMGET', KEYS[2], 'number', 'digest')
if (head[2] or ARGV[7]) ~= ARGV[1] then return {'behind', head[1] or '-1', head[2] or ARGV[7]} end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local options = {unpack(ARGV, 8)}
for _, option in ipairs({'*', 't', now, 'k', ARGV[6], 'v', ARGV[5]}) do options[#options + 1] = option end
redis.call('XADD', KEYS[1], unpack(options))
redis.call('HSET', KEYS[2], 'number', ARGV[2], 'digest', ARGV[3])
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
return {'done'}
"""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends.

    Attributes
    ----------
    number : int
        Of the newest entry; -1 before the first.
    digest : str
    """

    number: int = -1
    digest: str = GENESIS


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a chain.

    Attributes
    ----------
    number : int, optional
        Of the entry; the first of those that are missing. None for what is no entry at all.
    what : str
    """

    number: int | None
    what: str


def digest_of(entry: Audit) -> str:
    """Return what an entry's digest must be.

    SHA-256 over its other fields as JSON: keys sorted, no spaces, everything beyond ASCII escaped.
    """
    # By way of the wire, so that writer and reader have the same numbers and types before them.
    fields = json.loads(entry.model_dump_json(exclude={"digest"}))
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(head: Head, **fields: Any) -> Audit:
    """Return the entry that follows `head`, with its number, its predecessor and its digest."""
    draft = Audit(number=head.number + 1, previous=head.digest, digest=GENESIS, **fields)
    return draft.model_copy(update={"digest": digest_of(draft)})


def verify(entries: Sequence[Audit], head: Head | None = None) -> list[Problem]:
    """Find what is wrong with a chain.

    Parameters
    ----------
    entries : sequence of Audit
        As they lie in the log, oldest first. The first one is the anchor.
    head : Head, optional
        Where the chain is known to end, or to have ended: removing the newest entries shows by it alone.

    Returns
    -------
    list of Problem
        Empty for a chain that holds.
    """
    problems = [Problem(entry.number, "altered") for entry in entries if entry.digest != digest_of(entry)]
    numbers = sorted({entry.number for entry in entries})
    in_order = _longest_rising([entry.number for entry in entries])
    kept = {entries[place].number for place in in_order}
    for place in sorted(set(range(len(entries))) - set(in_order)):
        number = entries[place].number
        problems.append(Problem(number, "inserted: it is there twice" if number in kept else "moved"))
    if in_order and (first := entries[in_order[0]]).number == 0 and first.previous != GENESIS:
        problems.append(Problem(0, "altered: the first entry follows nothing"))
    for one, other in pairwise(entries[place] for place in in_order):
        if other.number > one.number + 1:
            problems += _missing(numbers, one.number, other.number)
        elif other.previous != one.digest:
            problems.append(
                Problem(other.number, f"does not follow {one.number}: one of the two was altered")
            )
    if head is not None:
        problems += _against_head(entries, head)
    return problems


def _longest_rising(numbers: Sequence[int]) -> list[int]:
    # Places of the longest strictly rising run of numbers (patience sorting): whoever is not in it was moved.
    tops: list[int] = []
    places: list[int] = []
    before: list[int] = []
    for place, number in enumerate(numbers):
        pile = bisect_left(tops, number)
        before.append(places[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [number]
        places[pile : pile + 1] = [place]
    at = places[-1] if places else -1
    rising = []
    while at >= 0:
        rising.append(at)
        at = before[at]
    return rising[::-1]


def _missing(numbers: Sequence[int], after: int, before: int) -> list[Problem]:
    # Gaps between two numbers, by those that are there somewhere: a gap may be as wide as a forger likes.
    there = numbers[bisect_right(numbers, after) - 1 : bisect_left(numbers, before) + 1]
    return [
        Problem(one + 1, "removed" if other == one + 2 else f"removed, with all to {other - 1}")
        for one, other in pairwise(there)
        if other > one + 1
    ]


def _against_head(entries: Sequence[Audit], head: Head) -> list[Problem]:
    newest = max((entry.number for entry in entries), default=-1)
    if newest < head.number:
        return [Problem(newest + 1, f"removed: the log goes on to number {head.number}")]
    digests = {entry.digest for entry in entries if entry.number == head.number}
    if digests and head.digest not in digests:
        return [Problem(head.number, "altered: the log is known to have ended with another digest")]
    return []


class AuditLog:
    """Appends to the audit log of a deployment and reads it. Any number of programs append at once.

    Parameters
    ----------
    bus : Bus
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stream = stream_key(bus.prefix, AUDIT, 0)
        self._head_key = f"{self._stream}:head"
        self._script = bus.client.register_script(_APPEND)
        self._head = Head()
        # Two of our own would only push each other back.
        self._turn = asyncio.Lock()

    async def append(
        self,
        *,
        entry: str,
        bed: str,
        kind: str,
        who: str,
        at: int,
        done: bool,
        message: str,
        value: Any = None,
    ) -> Audit:
        """Append an entry and return it as it lies in the log; for the fields see `Audit`.

        An `entry` that was appended before (within a day) changes nothing: the first one is returned.

        Raises
        ------
        redis.exceptions.RedisError
            If the server stays away, or refuses. The call may be repeated.
        """
        async with self._turn:
            while True:
                audit = sealed(
                    self._head,
                    entry=entry,
                    bed=bed,
                    kind=kind,
                    who=who,
                    at=at,
                    done=done,
                    message=message,
                    value=value,
                )
                reply = await self._try(audit)
                if reply[0] == b"done":
                    self._head = Head(audit.number, audit.digest)
                    return Audit.decode(audit.encode())
                if reply[0] == b"first":
                    return Audit.decode(reply[1])
                # Another writer was first: follow that one.
                self._head = Head(int(reply[1]), reply[2].decode())

    async def _try(self, audit: Audit) -> list[bytes]:
        config = await self._bus.declare(AUDIT)
        trimming: list[str | int] = [] if config.maxlen is None else ["MAXLEN", "~", config.maxlen]
        reply: list[bytes] = await self._script(
            keys=[self._stream, self._head_key, once_key(self._bus.prefix, AUDIT, audit.entry.encode())],
            args=[
                audit.previous,
                audit.number,
                audit.digest,
                ONCE_TTL_MS,
                audit.encode(),
                audit.bed,
                GENESIS,
                *trimming,
            ],
        )
        return reply

    async def head(self) -> Head:
        """Return where the chain ends now."""
        head: Any = await self._bus.client.hgetall(self._head_key)
        return Head(int(head[b"number"]), head[b"digest"].decode()) if head else Head()

    async def entries(self, after: str = "0") -> AsyncIterator[tuple[Entry, Audit | MalformedMessageError]]:
        """Yield what is kept after a stream id, oldest first; of what is no entry, what is wrong with it."""
        async for entry in self._bus.kept(AUDIT, after):
            try:
                yield entry, Audit.decode(entry.value)
            except MalformedMessageError as error:
                yield entry, error
