"""LSL streams, of an outlet in another process and of outlets that are not as they should be."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import numpy as np
import pylsl
import pytest

from ingest.live.kit import SourceKit, Stretch
from ingest.live.lsl import LSLSource
from ingest.live.source import LiveSource, Piece
from stream.embedded import EmbeddedServer
from tests.ingest.live.feeding import intake_of, until_raised, until_samples
from tests.ingest.live.test_misuse import Hurried, Message, Send, check, message

# Lead V1 counts microvolts from 0 on, lead II is its negative; the third channel is not ECG. 250 Hz, from the
# moment that it prints.
OUTLET = """
import sys, time
import numpy as np, pylsl
info = pylsl.StreamInfo(sys.argv[1], "ECG", 3, 250, "float32", "amp-7")
info.set_channel_labels(["V1", "II", "RESP"])
info.set_channel_units(["microvolts", "microvolts", "ohm"])
info.set_channel_types(["ecg", "ecg", "misc"])
outlet = pylsl.StreamOutlet(info)
outlet.wait_for_consumers(60)
begin, epoch_ns = pylsl.local_clock(), time.time_ns()
print(epoch_ns, flush=True)
for n in range(10**6):
    count = np.arange(25 * n, 25 * (n + 1))
    end = begin + count[-1] / 250
    time.sleep(max(0, end - pylsl.local_clock()))
    outlet.push_chunk(np.column_stack([count, -count, count]).astype(np.float32), end)
"""


@contextmanager
def outlet(name: str, program: str = OUTLET) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", program, name], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def listening(*names: str, **options: Any) -> AsyncIterator[LSLSource]:
    source = LSLSource(name=names, **options)
    await source.start()
    try:
        yield source
    finally:
        await source.stop()


async def taken(source: LSLSource, enough: Callable[[list[Piece]], bool]) -> list[Piece]:
    """Take until it is enough."""
    pieces: list[Piece] = []
    async with asyncio.timeout(30):
        while not enough(pieces):
            due = source.due_ns()
            with suppress(TimeoutError):
                await asyncio.wait_for(source.arrived.wait(), 5 if due is None else 0.01)
            pieces += source.take()
    return pieces


def seconds(pieces: list[Piece]) -> float:
    return sum(len(p.samples) / p.fs for p in pieces)


@pytest.fixture
def name() -> str:
    # Other LSL streams may be on the network.
    return f"icu-{uuid.uuid4().hex[:8]}"


def test_takes_a_stream_whole_in_its_own_time_and_again_after_it_restarted(name: str) -> None:
    async def run() -> None:
        async with listening(name) as source:
            for restarts in range(2):
                with outlet(name) as process:
                    pieces = await taken(source, lambda pieces: seconds(pieces) > 1)
                    assert process.stdout is not None
                    begin_ns = int(process.stdout.readline())
                samples = np.concatenate([p.samples for p in pieces])
                counted = np.arange(len(samples)) + samples[0, 0]
                np.testing.assert_array_equal(samples, np.column_stack([counted, -counted]))
                for piece in pieces:
                    assert (piece.bed, piece.fs, piece.leads) == (name, 250.0, ("V1", "II"))
                    assert piece.device.startswith("LSL amp-7 at ")
                    assert piece.t_ns is not None
                    told = begin_ns + int(piece.samples[0, 0]) * 4_000_000
                    assert abs(piece.t_ns - told) < 20_000_000
                    assert piece.arrived_ns > piece.t_ns
                # The end of the process is noticed, and said.
                async with asyncio.timeout(10):
                    while not (troubles := source.troubles()):
                        await asyncio.sleep(0.01)
                        source.take()
                assert [t.why for t in troubles] == ["the outlet has gone; waiting for it to come back"], (
                    restarts
                )
                assert troubles[0].bed == name

    asyncio.run(run())


class TestKit(SourceKit):
    # What liblsl carries are floats of 32 bits.
    resolution_mv = 0.0011

    def setup_method(self) -> None:
        mark = uuid.uuid4().hex[:8]
        self.beds = (f"kit-1-{mark}", f"kit-2-{mark}")
        self.outlets: dict[str, pylsl.StreamOutlet] = {}

    def make(self) -> LiveSource:
        return LSLSource(name=self.beds)

    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        for bed in self.beds:
            if bed not in self.outlets:
                info = pylsl.StreamInfo(bed, "ECG", len(self.leads), self.fs, "float32", bed)
                info.set_channel_labels(list(self.leads))
                info.set_channel_units(["mV"] * len(self.leads))
                self.outlets[bed] = pylsl.StreamOutlet(info)
            # One that has come and gone is known for a while.
            while not self.outlets[bed].have_consumers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        epoch_ns = time.time_ns() - round(pylsl.local_clock() * 1e9)
        for stretch in stretches:
            end = (stretch.t_ns - epoch_ns) / 1e9 + (len(stretch.millivolts) - 1) / stretch.fs
            self.outlets[stretch.bed].push_chunk(stretch.millivolts.astype(np.float32), end)


def made(name: str, *, fs: float = 250, kind: str = "float32", unit: str | None = None) -> pylsl.StreamOutlet:
    info = pylsl.StreamInfo(name, "ECG", 1, fs, kind, "amp-8")
    info.set_channel_labels(["II"])
    if unit is not None:
        info.set_channel_units([unit])
    return pylsl.StreamOutlet(info)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "channels without a unit of volts (II: none)"),
        ({"unit": "mmHg"}, "channels without a unit of volts (II: mmHg)"),
        ({"fs": 0}, "no nominal sampling rate"),
        ({"kind": "string"}, "channels of text"),
    ],
)
def test_says_why_it_cannot_take_a_stream(name: str, fields: dict[str, Any], why: str) -> None:
    async def run() -> None:
        sender = made(name, **fields)
        async with listening(name) as source, asyncio.timeout(10):
            await source.arrived.wait()
            (trouble,) = source.troubles()
            assert why in trouble.why
            assert trouble.device.startswith("LSL amp-8")
        del sender

    asyncio.run(run())


def test_a_hole_in_the_stamps_parts_pieces_and_a_unit_can_be_given(name: str) -> None:
    async def run() -> None:
        sender = made(name, kind="int16")
        async with listening(name, unit="uV") as source:
            assert await asyncio.to_thread(sender.wait_for_consumers, 10)
            now = pylsl.local_clock()
            # 0.1 s, and as much again half a second later.
            stamps = now + np.r_[np.arange(25), np.arange(150, 175)] / 250
            sender.push_chunk(np.arange(50, dtype=np.int16)[:, np.newaxis], stamps.tolist())
            pieces = await taken(source, lambda pieces: seconds(pieces) >= 0.2)
        assert [p.samples[0, 0] for p in pieces] == [0, 25]
        first, second = (p.t_ns for p in pieces)
        assert first is not None
        assert second is not None
        assert second - first == pytest.approx(600_000_000, abs=2_000_000)

    asyncio.run(run())


def test_stamps_of_another_machines_clock_are_brought_to_ours(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that was switched on 100 s after this one: liblsl's own estimate would need a second machine.
    monkeypatch.setattr(pylsl.StreamInlet, "time_correction", lambda *_: 100.0)

    async def run() -> None:
        sender = made(name, unit="mV")
        async with listening(name) as source:
            assert await asyncio.to_thread(sender.wait_for_consumers, 10)
            first_ns, own = time.time_ns(), pylsl.local_clock() - 100
            sender.push_chunk([[0.001 * n] for n in range(25)], (own + np.arange(25) / 250).tolist())
            (piece,) = await taken(source, lambda pieces: seconds(pieces) >= 0.1)
        assert piece.t_ns is not None
        assert abs(piece.t_ns - first_ns) < 20_000_000

    asyncio.run(run())


def test_refuses_a_unit_that_is_none() -> None:
    with pytest.raises(ValueError, match="unknown unit 'mmHg'"):
        LSLSource(unit="mmHg")


@pytest.mark.slow
def test_a_stream_that_comes_back_with_other_leads_or_twice_is_told_by_an_alarm(
    name: str, redis_server: EmbeddedServer
) -> None:
    async def main() -> None:
        source = LSLSource(name=(name,))
        async with intake_of(source, redis_server, "bedside:") as bus:
            with outlet(name):
                await until_samples(bus, 100)
            # The same amplifier, with one electrode less.
            with outlet(name, OUTLET.replace('"ecg", "ecg"', '"ecg", "misc"')):
                changed = await until_raised(bus, "source-changed")
                assert f"bed {name}: sends V1 at 250 Hz in the place of V1 II at 250 Hz" in changed.message
                # And another one that calls itself by the same name.
                with outlet(name, OUTLET.replace("amp-7", "amp-8")):
                    conflict = await until_raised(bus, "source-conflict")
        for word in (source.name, "amp-7", "amp-8", f"claims bed {name}"):
            assert word in conflict.message

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("counted", [False, True], ids=["stamps of a clock", "stamps counted from samples"])
def test_a_rate_that_is_not_the_stated_one_is_told_by_an_alarm(
    name: str, counted: bool, redis_server: EmbeddedServer
) -> None:
    @asynccontextmanager
    async def device() -> AsyncIterator[Send]:
        sender, begin = made(name, unit="mV"), pylsl.local_clock()

        async def send(fields: Message) -> None:
            while not sender.have_consumers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            # The last sample's; liblsl reckons the others' by the nominal rate.
            end = begin + (fields["n0"] + len(fields["samples"]) - 1) / (fields["fs"] if counted else 500)
            sender.push_chunk(fields["samples"], end)

        yield send

    # By the clock in a hurry 50 samples each 0.1 s.
    chunks = check(
        (lambda: LSLSource(name=(name,), clock=Hurried()), device),
        redis_server,
        "bedside:",
        "source-rate",
        lambda n0: [message(n0)],
        ("LSL amp-8 at ", f"bed {name}", "250 Hz is stated"),
        pause_s=0.01,
    )
    assert all("LSL amp-8" in chunk.header.source for chunk in chunks)
