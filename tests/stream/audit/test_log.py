"""The audit log: whatever is done to it shows, and writers do not get in each other's way."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.audit.log import GENESIS, AuditLog, Head, digest_of, sealed, verify
from stream.bus import Bus
from stream.contract import Audit, MalformedMessageError
from stream.embedded import EmbeddedServer
from stream.topics import AUDIT
from stream.transport.layout import TopicConfig, stream_key
from tests import command_line

Server = EmbeddedServer

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def fields(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "entry": f"command-{number}",
        "bed": "bed-1",
        "kind": "pause",
        "who": "nurse",
        "at": 1_000 + number,
        "done": True,
        "message": "",
    } | changes


def chain(length: int, start: Head | None = None) -> list[Audit]:
    entries: list[Audit] = []
    head = start or Head()
    for number in range(length):
        entries.append(sealed(head, **fields(number, value=number)))
        head = Head(entries[-1].number, entries[-1].digest)
    return entries


def head_of(entries: list[Audit]) -> Head:
    return Head(entries[-1].number, entries[-1].digest)


def on_bus(server: Server, prefix: str, body: Callable[[Bus], Awaitable[None]]) -> None:
    async def go() -> None:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await asyncio.wait_for(body(bus), 60)

    asyncio.run(go())


async def kept(log: AuditLog) -> list[Audit]:
    found = [entry async for _, entry in log.entries()]
    assert all(isinstance(entry, Audit) for entry in found)
    return [entry for entry in found if isinstance(entry, Audit)]


# ---- the chain -------------------------------------------------------------------------------------------


@given(value=JSON_VALUES, who=st.text(max_size=20), message=st.text(max_size=20))
def test_what_was_sealed_still_fits_when_it_is_read_back(value: Any, who: str, message: str) -> None:
    entry = sealed(Head(), **fields(value=value, who=who, message=message))
    read = Audit.decode(entry.encode())
    assert read.digest == entry.digest == digest_of(read)
    assert verify([read], head_of([entry])) == []


def test_the_digest_is_what_the_documentation_says() -> None:
    import hashlib

    entry = json.loads(sealed(Head(), **fields(who="Bärbel", value={"b": 1.5, "a": [None]})).encode())
    digest = entry.pop("digest")
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest


@given(length=st.integers(0, 30), cut=st.integers(0, 30))
def test_a_chain_holds_from_whatever_entry_is_kept_first(length: int, cut: int) -> None:
    entries = chain(length)
    assert verify(entries[cut:], head_of(entries) if entries[cut:] else None) == []


@settings(max_examples=200)
@given(
    length=st.integers(2, 20),
    place=st.integers(0, 19),
    field=st.sampled_from(["entry", "bed", "kind", "who", "at", "done", "value", "message", "previous"]),
)
def test_an_altered_entry_is_named(length: int, place: int, field: str) -> None:
    entries = chain(length)
    place %= length
    other = {"at": 7, "done": False, "value": [1], "previous": "f" * 64}.get(field, "other")
    entries[place] = entries[place].model_copy(update={field: other})
    assert place in {problem.number for problem in verify(entries)}
    # The forger who also computes the digest anew breaks the link to the next one, or the head.
    entries[place] = entries[place].model_copy(update={"digest": digest_of(entries[place])})
    named = {problem.number for problem in verify(entries, head_of(chain(length)))}
    assert named & {place, place + 1}


def test_an_unknown_field_is_part_of_the_entry() -> None:
    entries = chain(3)
    text = json.loads(entries[1].encode()) | {"note": "put in later"}
    altered = Audit.decode(json.dumps(text).encode())
    assert [problem.number for problem in verify([entries[0], altered, entries[2]])] == [1]


@given(length=st.integers(3, 20), place=st.integers(1, 18), count=st.integers(1, 5))
def test_removed_entries_are_named(length: int, place: int, count: int) -> None:
    entries = chain(length)
    place = 1 + place % (length - 2)
    left = entries[:place] + entries[place + count :]
    problems = verify(left, head_of(entries))
    assert [problem.number for problem in problems] == [place]
    assert problems[0].what.startswith("removed")


@given(length=st.integers(2, 20), count=st.integers(1, 20))
def test_removing_the_newest_shows_by_the_head(length: int, count: int) -> None:
    entries = chain(length)
    left = entries[: max(0, length - count)]
    assert [problem.number for problem in verify(left, head_of(entries))] == [len(left)]


@given(length=st.integers(3, 20), place=st.integers(0, 19), to=st.integers(0, 19))
def test_a_moved_entry_is_named(length: int, place: int, to: int) -> None:
    entries = chain(length)
    place, to = place % length, to % length
    entries.insert(to, entries.pop(place))
    problems = verify(entries, head_of(chain(length)))
    assert bool(problems) == (place != to)
    if abs(place - to) > 1:
        # Of two neighbours that changed places, either may be said to have moved.
        assert [(problem.number, problem.what) for problem in problems] == [(place, "moved")]


@given(
    length=st.integers(2, 20),
    to=st.integers(1, 19),
    number=st.integers(0, 30) | st.integers(10**12, 10**15),
)
def test_an_inserted_entry_shows_near_it(length: int, to: int, number: int) -> None:
    entries = chain(length)
    to = 1 + (to - 1) % (length - 1)
    before = entries[to - 1]
    forged = sealed(Head(number - 1, before.digest), **fields(99))
    problems = verify([*entries[:to], forged, *entries[to:]], head_of(entries))
    assert {problem.number for problem in problems} & {number, to, before.number + 1}


@settings(max_examples=300)
@given(data=st.data())
def test_any_meddling_shows(data: st.DataObject) -> None:
    whole = chain(data.draw(st.integers(1, 12)))
    meddled = list(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(meddled)))
        what = data.draw(st.sampled_from(["remove", "double", "swap", "alter"]))
        if not 0 <= place < len(meddled):
            continue
        if what == "remove":
            del meddled[place]
        elif what == "double":
            meddled.insert(place, meddled[place])
        elif what == "swap":
            meddled[place], meddled[-1] = meddled[-1], meddled[place]
        else:
            meddled[place] = meddled[place].model_copy(update={"who": "nobody"})
    # Taking away from the old end is what trimming does.
    harmless = any(meddled == whole[cut:] for cut in range(len(whole)))
    assert (verify(meddled, head_of(whole)) == []) == harmless


# ---- the log ---------------------------------------------------------------------------------------------


def test_entries_form_one_chain(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        log = AuditLog(bus)
        assert await log.head() == Head(-1, GENESIS)
        returned = [await log.append(**fields(number, value={"n": number})) for number in range(5)]
        assert await kept(log) == returned
        assert [entry.number for entry in returned] == list(range(5))
        assert verify(returned, await log.head()) == []

    on_bus(redis_server_module, prefix, body)


def test_the_same_entry_again_changes_nothing_and_gives_the_first(
    redis_server_module: Server, prefix: str
) -> None:
    async def body(bus: Bus) -> None:
        first = await AuditLog(bus).append(**fields(1))
        await AuditLog(bus).append(**fields(2))
        again = await AuditLog(bus).append(**fields(1, message="another answer", done=False))
        assert again == first
        assert len(await kept(AuditLog(bus))) == 2

    on_bus(redis_server_module, prefix, body)


def test_many_writers_make_one_chain(redis_server: Server) -> None:
    async def write(writer: int) -> None:
        async with await Bus.connect(redis_server.url) as bus:
            log = AuditLog(bus)
            for number in range(25):
                # Every third is one that all writers append: one of them is first.
                entry = f"all-{number}" if number % 3 == 0 else f"{writer}-{number}"
                await log.append(**fields(entry=entry, who=str(writer)))

    async def main() -> None:
        await asyncio.gather(*(write(writer) for writer in range(8)))
        async with await Bus.connect(redis_server.url) as bus:
            entries = await kept(AuditLog(bus))
            assert verify(entries, await AuditLog(bus).head()) == []
            names = [entry.entry for entry in entries]
            assert len(names) == len(set(names)) == 8 * 16 + 9
            for writer in range(8):
                # Each writer's own lie in the order in which it appended them.
                own = [int(name.partition("-")[2]) for name in names if name.startswith(f"{writer}-")]
                assert own == sorted(own)
                assert len(own) == 16

    asyncio.run(main())


_WRITER = """
import asyncio, sys
from stream.audit.log import AuditLog
from stream.bus import Bus

async def main():
    async with await Bus.connect(sys.argv[1]) as bus:
        log = AuditLog(bus)
        for number in range(40):
            await log.append(entry=f"{sys.argv[2]}-{number}", bed="b", kind="pause", who="w", at=1, done=True,
                             message="")
asyncio.run(main())
"""


@pytest.mark.slow
def test_writers_in_processes_of_their_own_make_one_chain(redis_server: Server) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, redis_server.url, str(number)])
        for number in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]

    async def body(bus: Bus) -> None:
        entries = await kept(AuditLog(bus))
        assert len(entries) == 120
        assert verify(entries, await AuditLog(bus).head()) == []

    on_bus(redis_server, "bedside:", body)


def test_trimming_leaves_a_chain_that_holds(redis_server_module: Server, prefix: str) -> None:
    async def body(bus: Bus) -> None:
        await bus.declare(AUDIT, TopicConfig(1, maxlen=100))
        log = AuditLog(bus)
        for number in range(450):
            await log.append(**fields(number))
        entries = await kept(log)
        # Redis trims whole nodes of a hundred.
        assert 100 <= len(entries) < 300
        assert entries[0].number == 450 - len(entries)
        assert verify(entries, await log.head()) == []

    on_bus(redis_server_module, prefix, body)


def test_a_server_that_restarts_goes_on_with_the_same_chain(short_tmp: Any) -> None:
    server = EmbeddedServer(short_tmp / "r", appendonly=True)

    async def main() -> None:
        server.start()
        async with await Bus.connect(server.url) as bus:
            log = AuditLog(bus)
            before = [await log.append(**fields(number)) for number in range(3)]
            server.stop()
            appending = asyncio.ensure_future(log.append(**fields(3)))
            await asyncio.sleep(0)
            server.start()
            last = await appending
            assert await kept(AuditLog(bus)) == [*before, last]
            assert verify([*before, last], await log.head()) == []

    try:
        asyncio.run(main())
    finally:
        server.stop()


# ---- the command -----------------------------------------------------------------------------------------


def run(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.run("audit", *arguments, "--redis", server.url)


def test_verify_says_whether_the_chain_holds_and_where_not(redis_server: Server) -> None:
    assert run(redis_server, "verify").stdout == "no entries\n"

    async def fill(bus: Bus) -> None:
        for number in range(6):
            await AuditLog(bus).append(**fields(number, bed=f"bed-{number % 2}"))

    on_bus(redis_server, "bedside:", fill)
    whole = run(redis_server, "verify")
    assert whole.returncode == 0
    assert "6 entries to number 5" in whole.stdout
    assert "anchor: number 0\nthe chain holds\n" in whole.stdout
    report = json.loads(run(redis_server, "verify", "--json").stdout)
    assert (report["ok"], report["entries"], report["anchor"], report["problems"]) == (True, 6, 0, [])

    async def meddle(bus: Bus) -> None:
        ids = [place.id async for place, _ in AuditLog(bus).entries()]
        await bus.client.xdel(stream_key(bus.prefix, AUDIT, 0), ids[3])
        await bus.publish(AUDIT, b"bed-1", b"{}")
        found = [entry async for _, entry in AuditLog(bus).entries()]
        assert isinstance(found[-1], MalformedMessageError)

    on_bus(redis_server, "bedside:", meddle)
    broken = command_line.started("audit", "verify", "--redis", redis_server.url)
    assert broken.returncode == 1
    assert broken.stderr.startswith("bedside: the audit log is broken")
    assert broken.stderr.count("\n") == 1
    assert "number 3: removed" in broken.stdout
    assert "is no audit entry" in broken.stdout
    report = json.loads(run(redis_server, "verify", "--json").stdout)
    assert report["ok"] is False
    assert {problem["number"] for problem in report["problems"]} == {None, 3}


def test_list_shows_a_bed_s_entries(redis_server: Server) -> None:
    async def fill(bus: Bus) -> None:
        for number in range(4):
            await AuditLog(bus).append(**fields(number, bed=f"bed-{number % 2}", value=60))

    on_bus(redis_server, "bedside:", fill)
    lines = run(redis_server, "list", "--bed", "bed-1", "--json").stdout.splitlines()
    assert [Audit.decode(line.encode()).number for line in lines] == [1, 3]
    spoken = run(redis_server, "list", "--since", "10m").stdout.splitlines()
    assert len(spoken) == 4
    assert "pause 60  by nurse  done:" in spoken[0]
    assert run(redis_server, "list", "--since", "yesterday").returncode == 2


def test_random_order_of_the_digest_s_fields_does_not_matter() -> None:
    entry = json.loads(chain(1)[0].encode())
    items = list(entry.items())
    random.Random(1).shuffle(items)
    assert verify([Audit.decode(json.dumps(dict(items)).encode())]) == []
