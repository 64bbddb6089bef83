"""Membership of a group: pure Redis, no Faust."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import redis.asyncio as redis

from stream.embedded import EmbeddedServer
from stream.transport.group import Membership

Scenario = Callable[[redis.Redis], Awaitable[None]]


def run(server: EmbeddedServer, scenario: Scenario) -> None:
    async def main() -> None:
        async with redis.Redis.from_url(server.url, protocol=2) as client:
            await scenario(client)

    asyncio.run(main())


def member(client: redis.Redis, name: str, session_timeout_s: float = 60.0) -> Membership:
    return Membership(client, prefix="t:", group="g", member=name, session_timeout_s=session_timeout_s)


async def generation(one: Membership) -> int:
    state = await one.heartbeat("[]")
    assert state is not None
    return state.generation


def test_coming_going_and_subscribing_start_a_generation(redis_server: EmbeddedServer) -> None:
    async def scenario(client: redis.Redis) -> None:
        a, b = member(client, "a"), member(client, "b")
        alone = await a.heartbeat("[]")
        assert alone is not None
        assert (alone.leads, alone.alive) == (True, {"a"})
        assert await a.heartbeat("[]") == alone

        both = await b.heartbeat("[]")
        assert both is not None
        assert (both.leads, both.alive) == (False, {"a", "b"})
        assert both.generation > alone.generation
        assert await generation(a) == both.generation

        other = await b.heartbeat('["topic"]')
        assert other is not None
        assert other.generation > both.generation

        # The leader leaves: at once a new generation, and with the next heartbeat a new leader.
        await a.leave()
        last = await b.heartbeat('["topic"]')
        assert last is not None
        assert (last.leads, last.alive) == (True, {"b"})
        assert last.generation > other.generation
        assert await a.heartbeat("[]") is None
        assert await client.zrange("t:group:g:members", 0, -1) == [b"b"]

    run(redis_server, scenario)


def test_who_clings_to_old_partitions_does_not_lead(redis_server: EmbeddedServer) -> None:
    async def scenario(client: redis.Redis) -> None:
        a, b = member(client, "a"), member(client, "b")

        async def leads(one: Membership, *, may_lead: bool) -> bool:
            state = await one.heartbeat("[]", may_lead=may_lead)
            assert state is not None
            return state.leads

        assert await leads(a, may_lead=True)
        assert not await leads(b, may_lead=True)
        assert not await leads(a, may_lead=False)
        assert not await leads(a, may_lead=False)
        assert await leads(b, may_lead=True)
        assert not await leads(a, may_lead=True)

    run(redis_server, scenario)


def test_a_silent_member_is_out_by_the_servers_time(redis_server: EmbeddedServer) -> None:
    async def scenario(client: redis.Redis) -> None:
        a, b = member(client, "a", session_timeout_s=0.05), member(client, "b")
        first = await generation(a)
        deadline = asyncio.get_running_loop().time() + 10
        while True:
            state = await b.heartbeat("[]")
            assert state is not None
            if state.alive == {"b"}:
                break
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        assert state.leads
        assert state.generation > first

    run(redis_server, scenario)


def test_commits_are_fenced(redis_server: EmbeddedServer) -> None:
    async def scenario(client: redis.Redis) -> None:
        a, b = member(client, "a"), member(client, "b")
        old = await generation(a)
        await a.join(old, b"metadata")
        assert await a.joined(old) == {"a": b"metadata"}
        assert await a.assignment(old) == (False, None)
        assert not await a.commit(old, {"s": "1-0"})  # nothing handed out yet
        assert await a.assign(old, {"a": b"all"})
        assert await a.assignment(old) == (True, b"all")
        assert await a.committed(["s"], start="0") == ["0-0"]
        assert await a.commit(old, {"s": "5-1"})
        assert await a.committed(["s"], start="0") == ["5-1"]

        # While the rebalance is being prepared nobody else owns the partitions: the old owner may commit.
        new = await generation(b)
        assert new > old
        assert await a.commit(old, {"s": "6-0"})
        # Only the leader hands out partitions, once, and only for the generation that the group is in.
        assert not await b.assign(new, {"b": b"all"})
        assert not await a.assign(old, {"a": b"all"})
        assert await a.assign(new, {"b": b"all"})
        assert not await a.assign(new, {"a": b"all"})
        # From here on a stale owner is refused.
        assert not await a.commit(old, {"s": "4-0"})
        assert await b.commit(new, {"s": "7-0"})
        assert await b.committed(["s"], start="0") == ["7-0"]

        # One that was left out asks for another round.
        assert await a.assignment(new) == (True, None)
        await a.rejoin(new)
        assert await generation(a) > new
        await a.rejoin(new)  # too late: the group has moved on
        assert await generation(a) == await generation(b)

    run(redis_server, scenario)


def test_new_groups_begin_where_they_are_told(redis_server: EmbeddedServer) -> None:
    async def scenario(client: redis.Redis) -> None:
        newest = await client.xadd("s", {"v": 1})
        early = Membership(client, prefix="t:", group="early", member="a", session_timeout_s=1)
        late = Membership(client, prefix="t:", group="late", member="a", session_timeout_s=1)
        assert await early.committed(["s", "missing"], start="0") == ["0-0", "0-0"]
        assert await late.committed(["s"], start="$") == [newest.decode()]

    run(redis_server, scenario)


def test_a_server_that_lost_everything_begins_a_new_generation(redis_server: EmbeddedServer) -> None:
    async def scenario(client: redis.Redis) -> None:
        a = member(client, "a")
        before = await generation(a)
        await a.join(before, b"")
        await a.assign(before, {"a": b""})
        await client.flushall()
        await client.script_flush()
        assert not await a.commit(before, {"s": "1-0"})
        after = await generation(a)
        assert after > before
        await a.assign(after, {"a": b""})
        # The stream and its group are gone; a commit brings them back.
        assert await a.commit(after, {"s": "9-0"})
        assert await a.committed(["s"], start="0") == ["9-0"]

    run(redis_server, scenario)
