"""Snapshots on their way into a real server and back, and what is kept there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stream.bus import Bus
from stream.contract import AlarmEvent, AlarmKind, MalformedMessageError, Presence, Priority
from stream.embedded import EmbeddedServer
from stream.settings import Settings
from stream.snapshots.store import Snapshot, SnapshotStore

T0 = 1_700_000_000_000_000_000
FS = 100.0


def raised(alarm: str, bed: str = "bed-1", since: int = T0) -> AlarmEvent:
    return AlarmEvent(
        alarm=alarm,
        event=f"{alarm}-0",
        bed=bed,
        session="s",
        rule="anomaly",
        kind=AlarmKind.PHYSIOLOGICAL,
        code="ECG_ANOMALY",
        priority=Priority.MEDIUM,
        presence=Presence.ON,
        onset=5000,
        onset_t=since - 10**9,
        since=since,
        message="unusual",
        snapshot=alarm,
        ingest_ns=since,
    )


def fields(alarm: AlarmEvent, leads: int, rows: int) -> dict[str, Any]:
    return {
        "alarm": alarm,
        "model": "cae",
        "precision": "fp32",
        "threshold": 2.5,
        "fs": FS,
        "leads": tuple(f"lead {number}" for number in range(leads)),
        "gain": (1000.0,) * leads,
        "n0": 4000,
        "t0": T0 - 11 * 10**9,
        "trace_fs": 100.0,
        "trace_leads": tuple(f"lead {number}" for number in range(rows)),
        "trace_t0": T0,
        "maps": {"spread": None, "lead_attention": "not tested"},
        "remarks": ("cut",),
        "made_ns": T0,
    }


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    leads, rows = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    n, points, chunks, windows, beats = (draw(st.integers(0, 6)) for _ in range(5))

    def array(kind: str, *shape: int) -> Any:
        return draw(arrays.arrays(f"<{kind}", shape))

    laid = {
        "samples": array("i2", n, leads),
        "chunks": array("i8", chunks, 2),
        "valid": array("u1", chunks, leads),
        "windows": array("i8", windows, 2),
        "window_score": array("f4", windows),
        "window_lead_score": array("f4", windows, rows),
        "beats": array("i8", beats),
        **{name: array("f2", rows, points) for name in ("signal", "reconstruction", "error")},
    }
    if draw(st.booleans()):
        laid |= {"spread": array("f2", rows, points), "temporal_attention": array("f2", points)}
    return Snapshot.of(laid, **fields(raised("abc"), leads, rows))


@settings(max_examples=40, deadline=None)
@given(snapshots())
def test_what_is_read_is_what_was_written(snapshot: Snapshot) -> None:
    read = Snapshot.decode(snapshot.encode())
    assert read.header == snapshot.header
    assert list(read.arrays) == list(snapshot.arrays)
    for name, array in snapshot.arrays.items():
        assert read.arrays[name].dtype == array.dtype
        # To the bit: also what is not a number.
        assert read.arrays[name].tobytes() == array.tobytes()
        assert read.arrays[name].shape == array.shape


@settings(max_examples=40, deadline=None)
@given(snapshots(), st.data())
def test_what_was_cut_off_or_added_to_is_refused(snapshot: Snapshot, data: st.DataObject) -> None:
    whole = snapshot.encode()
    with pytest.raises(MalformedMessageError):
        Snapshot.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(MalformedMessageError):
        Snapshot.decode(whole + b"\0")


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        Snapshot.decode(data)


def small(alarm: AlarmEvent, n: int = 300) -> Snapshot:
    shapes: dict[str, tuple[int, ...]] = {
        "samples": (n, 2), "chunks": (2, 2), "valid": (2, 2), "windows": (0, 2), "window_score": (0,),
        "window_lead_score": (0, 2), "beats": (0,),
        "signal": (2, n), "reconstruction": (2, n), "error": (2, n),
    }  # fmt: skip
    laid: dict[str, Any] = {name: np.zeros(shape) for name, shape in shapes.items()}
    laid["chunks"] = np.array([[4000, 4100], [4250, 4300]])
    return Snapshot.of(laid, **fields(alarm, 2, 2))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("samples", (300, 3)),
        ("signal", (1, 300)),
        ("error", (2, 299)),
        ("window_score", (1,)),
        ("beats", (1, 1)),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(name: str, shape: tuple[int, ...]) -> None:
    good = small(raised("abc"))
    with pytest.raises(ValueError, match=f"arrays: {name}|arrays: "):
        Snapshot.of(good.arrays | {name: np.zeros(shape)}, **fields(raised("abc"), 2, 2))


def test_times_and_gaps_count_from_the_first_sample() -> None:
    snapshot = small(raised("abc"))
    assert (snapshot.seconds, snapshot.onset_s, snapshot.raised_s) == (3.0, 10.0, 11.0)
    assert list(snapshot.gaps()) == [(100, 250)]


def with_store(
    server: EmbeddedServer, prefix: str, test: Callable[[SnapshotStore, Bus], Awaitable[None]], **limits: Any
) -> None:
    async def main() -> None:
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await test(SnapshotStore(bus, Settings(**limits)), bus)

    asyncio.run(main())


def test_one_that_is_not_stored_is_none(redis_server_module: EmbeddedServer, prefix: str) -> None:
    async def test(store: SnapshotStore, bus: Bus) -> None:
        assert await store.get("abc") is None
        assert not await store.has("abc")
        assert await store.listed() == []
        assert await store.delete("bed-1") == 0

    with_store(redis_server_module, prefix, test)


def test_the_first_one_of_an_alarm_stays(redis_server_module: EmbeddedServer, prefix: str) -> None:
    async def test(store: SnapshotStore, bus: Bus) -> None:
        assert await store.put(small(raised("abc"), 300))
        assert not await store.put(small(raised("abc"), 400))
        found = await store.get("abc")
        assert found is not None
        assert len(found.arrays["samples"]) == 300
        assert [listed.header.alarm.alarm for listed in await store.listed()] == ["abc"]
        assert [listed.size for listed in await store.listed()] == [len(found.encode())]

    with_store(redis_server_module, prefix, test)


def test_the_newest_are_kept(redis_server_module: EmbeddedServer, prefix: str) -> None:
    async def test(store: SnapshotStore, bus: Bus) -> None:
        for number in range(7):
            await store.put(small(raised(f"a{number}", f"bed {number % 2}")))
        assert [listed.header.alarm.alarm for listed in await store.listed()] == ["a4", "a5", "a6"]
        assert [listed.header.alarm.alarm for listed in await store.listed("bed 1")] == ["a5"]
        keys = await bus.client.keys(f"{prefix}snapshot:*")
        assert sorted(keys) == sorted(f"{prefix}snapshot:a{number}".encode() for number in (4, 5, 6))

    with_store(redis_server_module, prefix, test, snapshots=3)


def test_none_is_kept_for_longer_than_its_time(redis_server_module: EmbeddedServer, prefix: str) -> None:
    async def test(store: SnapshotStore, bus: Bus) -> None:
        await store.put(small(raised("old")))
        kept_ms = 90 * 60 * 1000
        assert kept_ms - 60_000 < await bus.client.pttl(f"{prefix}snapshot:old") <= kept_ms
        # As if that had gone by: the server lets it go, and the next one takes it off the list.
        await bus.client.pexpire(f"{prefix}snapshot:old", 0)
        await bus.client.zincrby(f"{prefix}snapshots", -kept_ms - 1, "old bed-1")
        assert await store.listed() == []
        await store.put(small(raised("new")))
        assert await bus.client.zrange(f"{prefix}snapshots", 0, -1) == [b"new bed-1"]

    with_store(redis_server_module, prefix, test, snapshot_hours=1.5)


def test_those_of_a_patient_who_left_are_marked_and_can_be_deleted(
    redis_server_module: EmbeddedServer, prefix: str
) -> None:
    async def test(store: SnapshotStore, bus: Bus) -> None:
        await store.put(small(raised("a", since=T0)))
        await store.put(small(raised("b", "bed-2", since=T0)))
        await store.patient_left("bed-1", T0 + 1)
        await store.put(small(raised("c", since=T0 + 2)))
        former = {listed.header.alarm.alarm: listed.former for listed in await store.listed()}
        assert former == {"a": True, "b": False, "c": False}
        assert await store.delete("bed-1") == 2
        assert [listed.header.alarm.alarm for listed in await store.listed()] == ["b"]
        assert await store.get("a") is None
        assert await store.get("b") is not None

    with_store(redis_server_module, prefix, test)
