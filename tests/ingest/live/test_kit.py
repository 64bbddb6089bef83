"""The kit refuses adapters that would be heard late, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import pytest

from ingest.live import kit
from ingest.live.kit import SourceKit, Stretch
from ingest.live.source import LiveSource, Piece
from stream.clock import SystemClock

CLOCK = SystemClock()
POLL_NS = 5_000_000


class Polled(LiveSource):
    """A source that is asked: what came waits where only `take` looks."""

    command_help = "bedside ingest polled"
    command_options: Sequence[click.Parameter] = ()

    def __init__(self) -> None:
        super().__init__("polled")
        self.buffer: list[Piece] = []
        self.due: int | None = None

    async def start(self, position: Any = None) -> None:
        self.due = CLOCK.now_ns()

    async def stop(self) -> None:
        pass

    def due_ns(self) -> int | None:
        return self.due

    def take(self) -> list[Piece]:
        taken, self.buffer = self.buffer, []
        self.due = CLOCK.now_ns() + POLL_NS
        return taken


class Silent(Polled):
    """One that does not say when to ask."""

    def due_ns(self) -> int | None:
        return None


class Restless(Polled):
    """One that wants to be asked all the time."""

    def due_ns(self) -> int | None:
        return 0


class Kit(SourceKit):
    def __init__(self, source: type[Polled]) -> None:
        self.source = source

    def make(self) -> LiveSource:
        return self.source()

    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        assert isinstance(source, Polled)
        for stretch in stretches:
            about = {"bed": stretch.bed, "n0": stretch.n0, "arrived_ns": CLOCK.now_ns()}
            of = {"device": stretch.bed, "fs": stretch.fs, "leads": stretch.leads}
            source.buffer.append(Piece.of_floats(stretch.millivolts, "mV", **of, **about))


@pytest.mark.parametrize(
    "check",
    ["test_what_a_device_sends_can_be_taken", "test_it_never_waits_and_is_quiet_while_nothing_comes"],
)
def test_a_source_that_says_when_it_is_due_passes(check: str) -> None:
    getattr(Kit(Polled), check)()


def test_a_source_that_never_says_when_it_has_something_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "_PATIENCE_S", 0.5)
    said = "polled: 0 of 300 samples came, 300 more wait, taken when `arrived` was set or `due_ns` had come"
    with pytest.raises(AssertionError, match=said):
        Kit(Silent).test_what_a_device_sends_can_be_taken()


def test_nor_does_one_that_is_always_due() -> None:
    with pytest.raises(AssertionError, match="always due"):
        Kit(Restless).test_it_never_waits_and_is_quiet_while_nothing_comes()
