"""A consumer group in Redis: who is in it, which generation it is in, what is committed.

Nothing here knows of Faust. All times are the server's, so hosts need not agree on the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import redis.asyncio as redis
from redis.exceptions import ResponseError

from stream.transport import scripts
from stream.transport.layout import group_key

# Members read their assignment within a poll of its being handed out; this is only for those who never do.
_ROUND_TTL_MS = 600_000


class GroupState(NamedTuple):
    """What a heartbeat tells."""

    generation: int
    leads: bool
    """Whether this member is the leader."""
    alive: frozenset[str]


class Membership:
    """One member of a consumer group.

    Parameters
    ----------
    client : redis.asyncio.Redis
    prefix : str
        Of all keys.
    group : str
    member : str
        Name of this member; no other may have it, ever.
    session_timeout_s : float
        A member that is silent for longer is out.
    """

    def __init__(
        self, client: redis.Redis, *, prefix: str, group: str, member: str, session_timeout_s: float
    ) -> None:
        self._client = client
        self.group = group
        self.member = member
        self._ttl_ms = int(session_timeout_s * 1000)
        self._prefix = prefix
        self._keys = [
            group_key(prefix, group, part)
            for part in ("members", "leader", "generation", "subscriptions", "view")
        ]
        self._leader, self._generation = self._keys[1], self._keys[2]
        self._assigned = group_key(prefix, group, "assigned")
        self._heartbeat = client.register_script(scripts.HEARTBEAT)
        self._leave = client.register_script(scripts.LEAVE)
        self._rejoin = client.register_script(scripts.REJOIN)
        self._assign = client.register_script(scripts.ASSIGN)
        self._commit = client.register_script(scripts.COMMIT)
        # A heartbeat that overtakes or follows our leaving would bring us back.
        self._presence = asyncio.Lock()
        self._has_left = False

    def _round(self, part: str, generation: int) -> str:
        return group_key(self._prefix, self.group, f"{part}:{generation}")

    async def heartbeat(self, subscription: str, *, may_lead: bool = True) -> GroupState | None:
        """Say that we are alive, joining the group if need be; None once we have left it."""
        async with self._presence:
            if self._has_left:
                return None
            generation, leads, alive = await self._heartbeat(
                keys=self._keys, args=[self.member, self._ttl_ms, subscription, int(may_lead)]
            )
        return GroupState(int(generation), bool(leads), frozenset(name.decode() for name in alive))

    async def leave(self) -> None:
        """Leave at once, so that the others need not wait for the session to time out."""
        async with self._presence:
            self._has_left = True
            await self._leave(keys=self._keys, args=[self.member])

    async def join(self, generation: int, metadata: bytes) -> None:
        """Take part in the rebalance that leads to a generation."""
        key = self._round("join", generation)
        async with self._client.pipeline() as pipeline:
            pipeline.hset(key, self.member, metadata)
            pipeline.pexpire(key, _ROUND_TTL_MS)
            await pipeline.execute()

    async def joined(self, generation: int) -> dict[str, bytes]:
        """Return the metadata of those who take part."""
        key = self._round("join", generation)
        found: dict[bytes, bytes] = await self._client.hgetall(key)  # type: ignore[assignment]
        return {member.decode(): metadata for member, metadata in found.items()}

    async def assign(self, generation: int, assignments: Mapping[str, bytes]) -> bool:
        """Hand out partitions, as the leader; False if the group has moved on."""
        args: list[str | int | bytes] = [generation, self.member, _ROUND_TTL_MS]
        for member, assignment in assignments.items():
            args += [member, assignment]
        sync = self._round("sync", generation)
        keys = [self._generation, self._leader, sync, self._assigned]
        return bool(await self._assign(keys=keys, args=args))

    async def assignment(self, generation: int) -> tuple[bool, bytes | None]:
        """Return whether a generation's partitions have been handed out, and what we were given."""
        async with self._client.pipeline() as pipeline:
            pipeline.get(self._assigned)
            pipeline.hget(self._round("sync", generation), self.member)
            assigned, ours = await pipeline.execute()
        return assigned is not None and int(assigned) == generation, ours

    async def rejoin(self, generation: int) -> None:
        """Ask for another rebalance, because this generation was made up without us."""
        await self._rejoin(keys=self._keys, args=[generation])

    async def commit(self, generation: int, positions: Mapping[str, str]) -> bool:
        """Commit the last id seen of each stream; False if the partitions belong to others by now."""
        keys = [self._assigned, *positions]
        return bool(await self._commit(keys=keys, args=[generation, self.group, *positions.values()]))

    async def committed(self, streams: Sequence[str], *, start: str) -> list[str]:
        """Return the last committed id of each stream.

        Parameters
        ----------
        streams : sequence of str
        start : str
            Where a group that is new to a stream begins: ``"0"`` or ``"$"``.
        """
        async with self._client.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.xgroup_create(stream, self.group, id=start, mkstream=True)
                pipeline.xinfo_groups(stream)
            replies = await pipeline.execute(raise_on_error=False)
        found = []
        for created, groups in zip(replies[::2], replies[1::2], strict=True):
            if isinstance(created, Exception) and not (
                isinstance(created, ResponseError) and str(created).startswith("BUSYGROUP")
            ):
                raise created
            if isinstance(groups, Exception):
                raise groups
            mine = next(entry for entry in groups if entry["name"].decode() == self.group)
            found.append(mine["last-delivered-id"].decode())
        return found
