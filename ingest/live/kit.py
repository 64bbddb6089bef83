"""What every adapter must pass, ours and those of other packages.

Make a class of it in a test module, say how the source is made and how a device sends to it, and pytest does
the rest, against a real server:

.. code-block:: python

    from ingest.live.kit import SourceKit, Stretch

    class TestDatagrams(SourceKit):
        def make(self):
            return Datagrams(port=18043)

        async def send(self, source, stretches):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
                for stretch in stretches:
                    message = {"bed": stretch.bed, "n0": stretch.n0, "mv": stretch.millivolts[:, 0].tolist()}
                    device.sendto(json.dumps(message).encode(), ("127.0.0.1", 18043))
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ingest.live.commands import command_of
from ingest.live.intake import Intake
from ingest.live.source import LiveSource, Piece, Trouble
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import AlarmEvent, SampleChunk, to_millivolts
from stream.embedded import EmbeddedServer
from stream.leads import canonical_leads
from stream.topics import ALARMS, SAMPLES

_T = TypeVar("_T")

# For what comes by itself within milliseconds, on a machine that does ten other things.
_PATIENCE_S = 20.0
# A call that takes longer waits for something.
_AT_ONCE_S = 0.5
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a device is to send in one message.

    Attributes
    ----------
    bed : str
    fs : float
        Hz.
    leads : tuple of str
    millivolts : numpy.ndarray of float64, shape (n, leads)
    n0 : int
        Number of the first sample.
    t_ns : int
        When it was acquired, ns since the epoch.
    """

    bed: str
    fs: float
    leads: tuple[str, ...]
    millivolts: npt.NDArray[np.float64]
    n0: int
    t_ns: int


class SourceKit(ABC):
    """The checks. Attributes that a protocol cannot do otherwise may be set in a subclass."""

    fs: ClassVar[float] = 250.0
    leads: ClassVar[tuple[str, ...]] = ("I", "II", "V1")
    beds: ClassVar[tuple[str, ...]] = ("kit-1", "kit-2")
    """One, for a protocol that carries one bed."""
    message_s: ClassVar[float] = 0.2
    resolution_mv: ClassVar[float] = 0.001
    """How exactly samples arrive."""

    @abstractmethod
    def make(self) -> LiveSource:
        """Return a new source that has not been started; each time at the same address."""

    @abstractmethod
    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        """Send messages as a device does, in this order, to a source that has been started."""

    async def send_rubbish(self, source: LiveSource) -> bool:
        """Send something that is no message of the protocol, if the protocol lets one; say whether."""
        return False

    # -- the checks

    def test_what_a_device_sends_can_be_taken(self) -> None:
        async def body(source: LiveSource) -> None:
            before = SystemClock().now_ns()
            sent = self.stretches(3)
            await self.send(source, sent)
            pieces = await self._pieces(source, 3 * len(self.beds) * len(sent[0].millivolts))
            for piece in pieces:
                assert piece.fs == self.fs
                assert canonical_leads(piece.leads) == self.leads
                assert before <= piece.arrived_ns <= SystemClock().now_ns()
            for bed in self.beds:
                expected = np.concatenate([stretch.millivolts for stretch in sent if stretch.bed == bed])
                own = [piece.samples / np.array(piece.gain) for piece in pieces if piece.bed == bed]
                assert np.allclose(np.concatenate(own), expected, rtol=0, atol=self.resolution_mv)
                # One device has one name, or its beds would be taken from it.
                assert len({piece.device for piece in pieces if piece.bed == bed}) == 1

        self._run(body)

    def test_it_never_waits_and_is_quiet_while_nothing_comes(self) -> None:
        async def body(source: LiveSource) -> None:
            loop = asyncio.get_running_loop()
            for _ in range(3):
                begun = loop.time()
                assert source.take() == []
                due = source.due_ns()
                assert due is None or due > SystemClock().now_ns(), (
                    "due_ns: always due, and asked without end"
                )
                assert source.troubles() == []
                json.dumps(source.position())
                assert loop.time() - begun < _AT_ONCE_S
                await asyncio.sleep(0)
            assert not source.arrived.is_set()
            # While a device sends, others get their turn.
            longest, turn = 0.0, loop.time()
            sending = asyncio.create_task(self.send(source, self.stretches(10)))
            while not sending.done():
                await asyncio.sleep(0.001)
                longest, turn = max(longest, loop.time() - turn), loop.time()
                source.take()
            await sending
            assert longest < _AT_ONCE_S

        self._run(body)

    def test_rubbish_is_refused_by_name_and_the_rest_goes_on(self) -> None:
        async def body(source: LiveSource) -> None:
            if not await self.send_rubbish(source):
                return
            troubles = await self._troubles(source)
            assert all(trouble.device and trouble.why for trouble in troubles)
            sent = self.stretches(1)
            await self.send(source, sent)
            await self._pieces(source, len(self.beds) * len(sent[0].millivolts))

        self._run(body)

    def test_it_can_be_stopped_at_any_time_and_made_again(self) -> None:
        async def main() -> None:
            await self.make().stop()
            for _ in range(2):
                source = self.make()
                await source.start(None)
                await source.stop()
                await source.stop()
                # Another one at the same address, which goes on where this one stood.
                again = self.make()
                await again.start(json.loads(json.dumps(source.position())))
                sent = self.stretches(1)
                await self.send(again, sent)
                await self._pieces(again, len(self.beds) * len(sent[0].millivolts))
                await again.stop()

        asyncio.run(asyncio.wait_for(main(), 3 * _PATIENCE_S))

    def test_it_feeds_beds(self) -> None:
        async def body(bus: Bus, source: LiveSource) -> None:
            sent = self.stretches(10)
            await self.send(source, sent)
            total = sum(len(stretch.millivolts) for stretch in sent)

            async def read() -> list[SampleChunk] | None:
                chunks = [SampleChunk.decode(entry.value) async for entry in bus.kept(SAMPLES)]
                return chunks if sum(len(chunk.samples) for chunk in chunks) >= total else None

            chunks = await _until(read)
            for bed in self.beds:
                own = [chunk for chunk in chunks if chunk.header.bed == bed]
                assert len({chunk.header.session for chunk in own}) == 1
                assert own[0].header.leads == self.leads
                expected = np.concatenate([stretch.millivolts for stretch in sent if stretch.bed == bed])
                received = np.concatenate(to_millivolts(own))
                assert np.allclose(received, expected, rtol=0, atol=self.resolution_mv)
            alarms = [AlarmEvent.decode(entry.value) async for entry in bus.kept(ALARMS)]
            assert alarms == []

        asyncio.run(asyncio.wait_for(self._fed(body), 3 * _PATIENCE_S))

    def test_its_command_has_help(self) -> None:
        command = command_of("kit", type(self.make()))
        assert command.help
        assert "bedside ingest" in command.help

    # -- what they share

    def stretches(self, messages: int) -> list[Stretch]:
        """Return so many messages of each bed in turn, as if they had just been acquired."""
        n = round(self.message_s * self.fs)
        begin = SystemClock().now_ns() - round(messages * n * 1e9 / self.fs)
        sent = []
        for number in range(messages):
            for place, bed in enumerate(self.beds):
                at = (np.arange(number * n, (number + 1) * n) + 7 * place)[:, np.newaxis]
                wave = np.sin(2 * np.pi * at / self.fs * (1 + np.arange(len(self.leads))))
                t_ns = begin + round(number * n * 1e9 / self.fs)
                sent.append(Stretch(bed, self.fs, self.leads, wave.round(3), number * n, t_ns))
        return sent

    def _run(self, body: Callable[[LiveSource], Any]) -> None:
        async def main() -> None:
            source = self.make()
            await source.start(None)
            try:
                await body(source)
            finally:
                await source.stop()

        asyncio.run(asyncio.wait_for(main(), 3 * _PATIENCE_S))

    async def _fed(self, body: Callable[[Bus, LiveSource], Any]) -> None:
        async with _server() as bus:
            source, stop, started = self.make(), asyncio.Event(), asyncio.Event()
            running = asyncio.create_task(Intake(source, bus, say=lambda _: started.set()).run(stop))
            try:
                await asyncio.wait(
                    (running, asyncio.create_task(started.wait())), return_when="FIRST_COMPLETED"
                )
                await body(bus, source)
            finally:
                stop.set()
                await running

    async def _pieces(self, source: LiveSource, samples: int) -> list[Piece]:
        pieces: list[Piece] = []

        async def taken() -> bool:
            if _speaks(source):
                pieces.extend(source.take())
                source.troubles()
            return _samples(pieces) >= samples

        try:
            await _until(taken)
        except TimeoutError:
            there = f"{_samples(pieces)} of {samples} samples came, {_samples(source.take())} more wait"
            raise AssertionError(f"{source.name}: {there}, taken {_WHEN}") from None
        assert _samples(pieces) == samples
        return pieces

    async def _troubles(self, source: LiveSource) -> list[Trouble]:
        async def told() -> list[Trouble]:
            if not _speaks(source):
                return []
            assert source.take() == []
            return source.troubles()

        try:
            return await _until(told)
        except TimeoutError:
            there = f"no trouble was told, {len(source.troubles())} wait"
            raise AssertionError(f"{source.name}: {there}, asked {_WHEN}") from None


# As the intake asks: nobody looks whether there is something that a source does not speak of.
_WHEN = "when `arrived` was set or `due_ns` had come"


def _speaks(source: LiveSource) -> bool:
    due = source.due_ns()
    return source.arrived.is_set() or (due is not None and due <= SystemClock().now_ns())


def _samples(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.samples) for piece in pieces)


@contextlib.asynccontextmanager
async def _server() -> AsyncIterator[Bus]:
    # A path short enough for a unix socket.
    with tempfile.TemporaryDirectory(prefix="bs-") as folder, EmbeddedServer(Path(folder)) as server:
        async with await Bus.connect(server.url) as bus:
            yield bus


async def _until(look: Callable[[], Awaitable[_T | None]]) -> _T:
    # What a look finds, once it finds something.
    async with asyncio.timeout(_PATIENCE_S):
        while not (found := await look()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return found
