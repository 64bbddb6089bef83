"""The contract of live feeds: what a piece may be, and that a source's memory has an end."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import Any

import click
import numpy as np
import pytest

from ingest.live import source as contract
from ingest.live.source import DEVICE_BYTES, LiveSource, Piece, Trouble, millivolts_in
from ingest.source import IngestError
from stream.clock import SystemClock
from stream.contract import INVALID, Validity
from stream.embedded import EmbeddedServer
from tests.command_line import assert_refused, run


class Idle(LiveSource):
    async def start(self, position: Any = None) -> None:
        pass

    async def stop(self) -> None:
        pass


def piece(n: int = 10, **fields: Any) -> Piece:
    usual: dict[str, Any] = {
        "bed": "icu-1",
        "device": "dev",
        "fs": 250.0,
        "leads": ("II",),
        "gain": (1000.0,),
        "samples": np.zeros((n, 1), np.int16),
        "arrived_ns": 0,
    }
    return Piece(**usual | fields)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"bed": ""}, "bed"),
        ({"bed": "*"}, "bed"),
        ({"bed": "a\nb"}, "bed"),
        ({"device": "x" * 65}, "device"),
        ({"fs": 0.0}, "frequency"),
        ({"fs": float("nan")}, "frequency"),
        ({"leads": ()}, "leads"),
        ({"leads": ("a\x00",)}, "lead"),
        ({"gain": (0.0,)}, "gains"),
        ({"gain": (1.0, 1.0)}, "gains"),
        ({"valid": ()}, "validity"),
        ({"samples": np.zeros((3, 2), np.int16)}, "shape"),
        ({"samples": np.zeros((3, 1))}, "float64"),
        ({"samples": np.zeros((0, 1), np.int16)}, "no samples"),
        ({"samples": np.zeros((250 * 61, 1), np.int16)}, "61 s in one piece"),
        ({"t_ns": -1}, "device time"),
        ({"n0": 2**62}, "sample number"),
    ],
)
def test_a_piece_that_could_not_be_sent_is_refused_with_its_device(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(IngestError, match=word) as raised:
        piece(**fields)
    assert str(raised.value).startswith(fields.get("device", "dev"))


def test_floats_become_samples_in_a_known_unit_only() -> None:
    fields: dict[str, Any] = {"bed": "b", "device": "d", "fs": 250.0, "leads": ["II", "V1"], "arrived_ns": 0}
    values = np.array([[0.5, -1.0], [np.nan, 40.0]])
    for unit, scale in (("mV", 1.0), ("uV", 1e3), ("\u00b5V", 1e3), ("V", 1e-3), ("nV", 1e6)):
        made = Piece.of_floats(values * scale, unit, **fields)
        assert made.samples.tolist() == [[500, -1000], [INVALID, 32767]]
        assert made.valid == (Validity.OK, Validity.SATURATED)
    assert Piece.of_floats(values[:1], "mV", **fields).valid is None
    with pytest.raises(IngestError, match="unknown unit 'mmHg'"):
        Piece.of_floats(values, "mmHg", **fields)
    with pytest.raises(IngestError, match=r"shape \(2,\)"):
        Piece.of_floats(values[0], "mV", **fields)
    with pytest.raises(IngestError):
        Piece.of_floats([["x", "y"]], "mV", **fields)
    with pytest.raises(ValueError, match="unknown unit"):
        millivolts_in("bpm")


def test_what_came_is_taken_once_and_what_went_wrong_is_told_once() -> None:
    source = Idle("idle")
    assert not source.arrived.is_set()
    one, two = piece(n0=0), piece(n0=10)
    source.put(one)
    source.put(two)
    source.refuse("dev", IngestError("dev", "no\nsamples"), "icu-1")
    source.refuse("dev\x00", "again", "icu-1")
    assert source.arrived.is_set()
    assert source.take() == [one, two]
    assert source.arrived.is_set()
    assert source.troubles() == [Trouble("dev", "again", "icu-1")]
    assert not source.arrived.is_set()
    assert source.take() == []
    assert source.troubles() == []


def test_a_device_that_nobody_takes_from_fills_no_memory_and_harms_no_other() -> None:
    source = Idle("idle")
    other = piece(device="other")
    source.put(other)
    for number in range(3000):
        source.put(piece(1000, device="flood", n0=1000 * number))
    taken = source.take()
    assert taken[0] is other
    flood = taken[1:]
    assert sum(each.size for each in flood) <= DEVICE_BYTES
    assert flood[-1].n0 == 2_999_000
    assert [trouble.device for trouble in source.troubles()] == ["flood"]
    for number in range(5000):
        source.refuse(f"device {number}", "rubbish " * 1000)
    troubles = source.troubles()
    assert len(troubles) < 1000
    assert all(len(trouble.why) <= 300 for trouble in troubles)


def test_the_example_of_the_docstring_is_a_source() -> None:
    assert LiveSource.__doc__ is not None
    lines = re.findall(r"^ +(?:>>>|\.\.\.) ?(.*)$", LiveSource.__doc__, flags=re.MULTILINE)
    assert len(lines) <= 40
    names: dict[str, Any] = vars(contract) | {"click": click, "json": json, "SystemClock": SystemClock}
    exec(compile("\n".join(lines), "example", "exec"), names)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def main() -> None:
        source = names["Datagrams"](port=port)
        await source.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            device.sendto(b'{"bed": "icu-1", "n0": 7, "mv": [0.1, 0.2]}', ("127.0.0.1", port))
            device.sendto(b"[]", ("127.0.0.1", port))
            taken: list[Piece] = []
            troubles: list[Trouble] = []
            while not (taken and troubles):
                await asyncio.wait_for(source.arrived.wait(), 5)
                taken += source.take()
                troubles += source.troubles()
        await source.stop()
        (made,) = taken
        assert (made.bed, made.n0, made.samples[:, 0].tolist()) == ("icu-1", 7, [100, 200])
        assert troubles[0].device == "127.0.0.1"

    asyncio.run(main())


@pytest.mark.parametrize("adapter", ["tcp", "hl7", "sdc"])
def test_an_adapter_does_not_feed_a_server_past_the_workers_on_kafka(
    adapter: str, redis_server_module: EmbeddedServer
) -> None:
    kafka, server = "kafka://kafka.example:9092", redis_server_module.url
    why = "live feeds go to a Redis server, not to kafka://kafka.example:9092"
    assert_refused(run("ingest", adapter, BEDSIDE_BROKER_URL=kafka, BEDSIDE_REDIS_URL=server), why)
    assert_refused(run("ingest", adapter, "--redis", kafka), why)
