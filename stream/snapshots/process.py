"""A process beside the worker that makes snapshots, so that scoring never waits for them.

Reading back a minute of a partition, filtering it and running the model over it takes a quarter of a second
of a processor. In a thread of the worker it would hold the interpreter for most of it, and priorities of
threads do not help there (docs/snapshots.md has what was measured). This process has a low priority
instead. It is started when the first snapshot is due.

It reads lines from its standard input: first an `Order`, then a `DueSnapshot` each, and answers each with a
line. When its input ends, because the worker has, it ends as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel
from redis.exceptions import RedisError

from models.session import Session
from stream.alarms.state import DueSnapshot
from stream.bus import Bus, BusUnavailableError
from stream.clock import SystemClock
from stream.contract import SampleChunk
from stream.logs import set_up
from stream.refill import stretch
from stream.snapshots.hindsight import make_snapshot, reach_of
from stream.snapshots.store import Snapshot, SnapshotStore

if TYPE_CHECKING:
    from models.bundle import Bundle

log = logging.getLogger(__name__)

# While it starts, a third of a worker's part where processors are short: at the lowest priority, 19, that
# took minutes on a machine with twice the work that it could do. Then a fifteenth: with 256 beds on two
# processors, each raising four alarms in 36 s, the median latency was 38 ms at 19, 46 at 12, 107 at 5.
_STARTING, _PRIORITY = 5, 12
# A second at most on a machine that has time. Whoever takes this long is stuck.
_PATIENCE_S = 300.0
# An order, or a snapshot that is due with its alarm, has less than 2 kB.
_LINE_LIMIT = 1 << 20


class NotMadeError(RuntimeError):
    """A snapshot that was not made; another attempt may succeed."""


class Order(BaseModel):
    """What the process has to know."""

    url: str
    prefix: str
    bundle: str
    """Folder of the bundle of the worker's own model."""
    json_log: bool = False


class Answer(BaseModel):
    """What came of one snapshot."""

    outcome: Literal["stored", "there", "again", "failed"]
    """``there``: another worker had been first. ``again``: the server was away."""
    why: str = ""


class SnapshotProcess:
    """The process, as the worker sees it.

    Parameters
    ----------
    order : Order
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it ahead, so that it need not be with the first alarm; without this it is started then."""
        if self._process is None:
            with suppress(OSError):
                await self._start()

    async def make(self, due: DueSnapshot) -> Answer:
        """Make a snapshot and store it; one at a time.

        Raises
        ------
        NotMadeError
            If the process died over it, or took too long.
        """
        try:
            async with asyncio.timeout(_PATIENCE_S):
                process = self._process or await self._start()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(due.model_dump_json().encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (TimeoutError, OSError) as error:
            await self.end()
            raise NotMadeError(str(error) or f"no answer within {_PATIENCE_S:g} s") from error
        if not line:
            await self.end()
            raise NotMadeError("the process that makes snapshots died")
        return Answer.model_validate_json(line)

    async def _start(self) -> Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE_LIMIT,
            # Linux shares out processors by session first: in the worker's it would use up the worker's part.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._order.model_dump_json().encode() + b"\n")
        return self._process

    async def end(self) -> None:
        """End the process, whatever it is doing: what it has not stored is due again."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()


class _Maker:
    # What goes on in the process.

    def __init__(self, order: Order) -> None:
        # Here: the worker imports this module, too.
        from models.bundle import load_bundle

        self._order = order
        self._bundle = load_bundle(order.bundle)
        # The worker's own, and the last one of those that beds chose.
        self._sessions: dict[str, Session] = {}
        with suppress(Exception):
            # It is tried again, and told, with each snapshot.
            self._open(self._bundle)

    async def make(self, due: DueSnapshot) -> Answer:
        raised, bundle = due.raised, self._bundle_of(due)
        manifest = self._bundle.manifest if bundle is None else bundle.manifest
        async with await Bus.connect(self._order.url, prefix=self._order.prefix) as bus:
            store = SnapshotStore(bus)
            if await store.has(raised.alarm):
                return Answer(outcome="there")
            chunks = await stretch(bus, raised.bed, raised.session, lambda fs: reach_of(raised, fs, manifest))
            stored = await store.put(self._snapshot(due, chunks, bundle))
            return Answer(outcome="stored" if stored else "there")

    def _bundle_of(self, due: DueSnapshot) -> Bundle | None:
        # Of the model that judged the bed then; None if it is not here.
        from models.bundle import BundleError, list_bundles, load_bundle

        if due.model in (None, self._bundle.name):
            return self._bundle
        try:
            return load_bundle(due.model) if due.model in list_bundles() else None
        except BundleError as error:
            log.error("no explanation of alarm %s: %s", due.raised.alarm, error, extra=_about(due))
            return None

    def _open(self, bundle: Bundle) -> Session:
        from models.backends import open_session

        if bundle.name not in self._sessions:
            if bundle is not self._bundle:
                self._sessions = {
                    name: session for name, session in self._sessions.items() if name == self._bundle.name
                }
            # In the precision and on the processor on which files are analysed: a snapshot says the same,
            # whatever judged live.
            self._sessions[bundle.name] = open_session(bundle)
        return self._sessions[bundle.name]

    def _snapshot(self, due: DueSnapshot, chunks: list[SampleChunk], bundle: Bundle | None) -> Snapshot:
        now_ns = SystemClock().now_ns()
        if bundle is None:
            # All models of a worker see the same windows.
            named = self._bundle.manifest.model_copy(update={"name": due.model})
            return make_snapshot(due, chunks, None, named, now_ns)
        try:
            return make_snapshot(due, chunks, self._open(bundle), bundle.manifest, now_ns)
        except Exception:
            # Whatever is wrong with the model: the samples are worth keeping.
            log.exception("no explanation of alarm %s", due.raised.alarm, extra=_about(due))
            return make_snapshot(due, chunks, None, bundle.manifest, now_ns)


def _about(due: DueSnapshot) -> dict[str, str]:
    return {"bed": due.raised.bed, "session": due.raised.session, "alarm": due.raised.alarm}


def _give_way(priority: int) -> None:
    os.nice(priority - os.nice(0))
    # The same for the session, where sessions count.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(priority))


def main() -> None:
    """Make snapshots until the input ends."""
    _give_way(_STARTING)
    # Whatever a library prints is no answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    order = Order.model_validate_json(sys.stdin.readline())
    set_up("json" if order.json_log else "text", logging.WARNING)
    maker = _Maker(order)
    _give_way(_PRIORITY)
    for line in sys.stdin:
        due = DueSnapshot.model_validate_json(line)
        try:
            answer = asyncio.run(maker.make(due))
        except (RedisError, BusUnavailableError) as error:
            answer = Answer(outcome="again", why=str(error))
        except Exception as error:
            log.exception("no snapshot of alarm %s", due.raised.alarm, extra=_about(due))
            answer = Answer(outcome="failed", why=str(error))
        answers.write(answer.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
