"""From windows to verdicts: they wait for each other, and go through the model that judges their bed.

A batch holds windows of one model. A bed whose model is still being loaded waits for it, without holding up
the others, and never gets the verdict of another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from faust.types import EventT

from models.manifest import Manifest
from models.session import Session
from stream import metrics
from stream.batching import MicroBatch
from stream.clock import Clock
from stream.contract import SampleChunk
from stream.engine import Pending
from stream.model_pool import ModelPool, ModelUnavailableError
from stream.verdict import Verdict, judge
from stream.windows import Window

log = logging.getLogger(__name__)

# The longest that a window waits for others to share a run of the model.
_BATCH_WAIT_NS = 10_000_000
# So many batches may wait before the worker stops taking chunks and lets the stream hold them.
_BATCHES_WAITING = 4
# Batches that lie ready for the model, so that it never waits for a busy event loop to hand it the next.
_BATCHES_READY = 1
# A model that could not be loaded is tried again after so long: somebody may have mended it.
_AGAIN_NS = 30_000_000_000


@dataclass(slots=True)
class Delivery:
    """A chunk on its way through the worker.

    Attributes
    ----------
    chunk : SampleChunk
    event : faust.Event, optional
        To acknowledge when everything that it brought about is done; none for a chunk that was read back.
    windows : int
        How many of its windows are still under way.
    term : int
        How often its bed had been given away when it came.
    """

    chunk: SampleChunk
    event: EventT[bytes] | None = None
    windows: int = 0
    term: int = 0

    def ack(self) -> None:
        if self.event is not None:
            self.event.ack()


@dataclass(slots=True)
class Item:
    """What waits for a model: a window, or (without one) a delivery to acknowledge behind others."""

    pending: Pending | None
    delivery: Delivery

    @property
    def bed(self) -> str:
        return self.delivery.chunk.header.bed


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a batch.

    Attributes
    ----------
    items : list of Item
        In the order in which they waited.
    model : str
        Name of the model that judged.
    manifest : Manifest or None
        None: the model could not be loaded.
    verdicts : list of (Verdict or None)
        Of the items that are windows.
    failure : str or None
        How the model failed, if it did.
    begun_ns, inferred_ns : int
    """

    items: list[Item]
    model: str
    manifest: Manifest | None
    verdicts: list[Verdict | None]
    failure: str | None
    begun_ns: int
    inferred_ns: int


class Judging:
    """Everything between the windows of a worker's beds and their verdicts.

    Parameters
    ----------
    pool : ModelPool
    clock : Clock
    model_of : callable
        Returns the name of the model that judges a bed; empty for one that the worker has given away.
    explained : callable
        Says whether the verdicts of a bed are to have their arrays.
    """

    def __init__(
        self, pool: ModelPool, clock: Clock, model_of: Callable[[str], str], explained: Callable[[str], bool]
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._model_of = model_of
        self._explained = explained
        size = pool.own.max_batch
        self._batch: MicroBatch[Item] = MicroBatch(size, _BATCH_WAIT_NS, model_of)
        self._most_waiting = _BATCHES_WAITING * size
        self._arrived = asyncio.Event()
        # Batches that no model has answered yet.
        self._unanswered = 0
        self._in_model: asyncio.Queue[asyncio.Future[Judged]] = asyncio.Queue(_BATCHES_READY)
        # One thread: a session serves one caller at a time, and the order within a bed is kept.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._loading: dict[str, asyncio.Task[None]] = {}
        # Models that could not be loaded: why, and when that was.
        self._unavailable: dict[str, tuple[str, int]] = {}

    def close(self) -> None:
        """Wait for the model."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    @property
    def full(self) -> bool:
        """Whether so much waits that no more chunks should be taken."""
        return len(self._batch) > self._most_waiting

    def add(self, item: Item, ready_ns: int) -> None:
        """Have a window judged, after those of its bed that came before."""
        self._batch.add(item.bed, item, ready_ns)
        if not self._is_ready(item.bed):
            self._batch.hold(item.bed)
            self._load(self._model_of(item.bed))
        self._arrived.set()

    def drop(self, bed: str) -> None:
        """Forget what waits of a bed."""
        self._batch.drop(bed)

    def refresh(self, now_ns: int, beds: Collection[str]) -> None:
        """Let go of models that none of the worker's beds needs; try again to load what could not be."""
        needed = {self._model_of(bed) for bed in beds}
        self._pool.keep(needed)
        for model, (_, at_ns) in list(self._unavailable.items()):
            if model not in needed or self._pool.get(model) is not None:
                del self._unavailable[model]
            elif now_ns - at_ns >= _AGAIN_NS:
                self._load(model)
        self.release()

    def release(self) -> None:
        """Let those beds go on that need not wait any more: their model is there, or is another one."""
        for bed in self._batch.held:
            if self._is_ready(bed):
                self._batch.release(bed)
                self._arrived.set()

    def _is_ready(self, bed: str) -> bool:
        # Whether something can be said of its windows, be it that their model could not be loaded.
        model = self._model_of(bed)
        return self._pool.get(model) is not None or model in self._unavailable

    def _load(self, model: str) -> None:
        if model not in self._loading:
            self._loading[model] = asyncio.ensure_future(self._fetch(model))

    async def _fetch(self, model: str) -> None:
        try:
            await self._pool.load(model)
        except ModelUnavailableError as error:
            if model not in self._unavailable:
                log.error("beds that chose %s are not scored: %s", model, error)
            self._unavailable[model] = (str(error), self._clock.now_ns())
        else:
            self._unavailable.pop(model, None)
        finally:
            del self._loading[model]
            self.release()

    async def run_forever(self) -> None:
        """Give the models what waits for them."""
        while True:
            await self._due()
            judged = self._begin(self._batch.take())
            self._unanswered += 1
            judged.add_done_callback(self._answered)
            await self._in_model.put(judged)

    async def next(self) -> Judged:
        """Return the next batch that has been judged."""
        return await (await self._in_model.get())

    async def by_present_models(self, judged: Judged) -> list[Judged]:
        """Judge again what was judged by a model that is not its bed's any more.

        Parameters
        ----------
        judged : Judged
            Items of beds that the worker has given away meanwhile do not count.

        Returns
        -------
        list of Judged
            What comes of all its items; those of a bed in their order.
        """
        models = {item.bed: self._model_of(item.bed) or judged.model for item in judged.items}
        if all(model == judged.model for model in models.values()):
            return [judged]
        verdicts = iter(judged.verdicts)
        said = [None if item.pending is None else next(verdicts) for item in judged.items]
        parts: list[Judged] = []
        for model in dict.fromkeys(models.values()):
            places = [place for place, item in enumerate(judged.items) if models[item.bed] == model]
            items = [judged.items[place] for place in places]
            if model != judged.model:
                parts.append(await self._begin(items))
                continue
            kept = [said[place] for place in places if judged.items[place].pending is not None]
            times = (judged.begun_ns, judged.inferred_ns)
            parts.append(Judged(items, model, judged.manifest, kept, judged.failure, *times))
        return parts

    def _begin(self, items: list[Item]) -> asyncio.Future[Judged]:
        # Of beds with one model.
        model = self._model_of(items[0].bed)
        session = self._pool.get(model)
        pending = [item.pending for item in items if item.pending is not None]
        explained = {place for place, one in enumerate(pending) if self._explained(one.moment.bed)}
        windows = [one.window for one in pending]
        why_not = None if session is not None else self._unavailable.get(model, ("not loaded", 0))[0]
        return asyncio.get_running_loop().run_in_executor(
            self._executor, self._judge, items, model, session, windows, explained, why_not
        )

    def _judge(
        self,
        items: list[Item],
        model: str,
        session: Session | None,
        windows: list[Window],
        explained: set[int],
        failure: str | None,
    ) -> Judged:
        begun_ns = self._clock.now_ns()
        verdicts: list[Verdict | None] = [None] * len(windows)
        if session is not None:
            try:
                verdicts = judge(session, windows, explained)
            except Exception as error:
                # Out of memory, a driver that is gone: whatever it is, heart rate and signal go on being
                # watched, every bed says that its model does not, and the next batch is another attempt.
                log.exception("the model failed on %d windows", len(windows))
                metrics.MODEL_FAILURES.inc()
                failure = " ".join(str(error).split()) or type(error).__name__
        manifest = None if session is None else session.manifest
        return Judged(items, model, manifest, verdicts, failure, begun_ns, self._clock.now_ns())

    def _answered(self, _: asyncio.Future[Judged]) -> None:
        self._unanswered -= 1
        self._arrived.set()

    async def _due(self) -> None:
        # An idle model waits for nobody: what comes while it is at work makes the next batch.
        while True:
            due_ns = self._batch.due_ns()
            wait_ns = None if due_ns is None else due_ns - self._clock.now_ns()
            if wait_ns is not None and (wait_ns <= 0 or not self._unanswered):
                return
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if wait_ns is None else wait_ns / 1e9):
                    await self._arrived.wait()
