"""The room of the history: reads recordings in threads, and has them analysed in processes apart."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

from monitor.history.archive import Piece, pieces
from monitor.history.blocks import Block, Place
from monitor.history.stays import AuditBook
from monitor.limited import LimitedError, LimitedRun
from stream.clock import Clock
from stream.recording.names import folder_of
from stream.recording.store import Recordings

# Reading a minute takes milliseconds: two at a time leave the processors to what is live.
_READERS = 2
# A block of twelve leads takes 6 MB at most: a whole hour, and some others.
_KEPT = 16
# Somebody who scrolls wants only the last ones.
_WAITING = 4
# The windows that cover the last points of a block end later.
_AFTER_S = 10.0
# A block takes four seconds; on a machine that is busy with more than it can do, ten times that.
_PATIENCE_S = 120.0
# What failed may work now, as when the disk was away.
_AGAIN_NS = 30_000_000_000
# At ten times the speed of life, six seconds: as long as a block takes.
_AHEAD_S = 60.0
# The end of what is being recorded is analysed anew when so much has come.
_MORE_S = 2.0

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class Work:
    """A block that somebody wants.

    Attributes
    ----------
    place : Place
    model : str
    progress : float
        Which share has been analysed.
    block : Block or None
        What was found.
    error : str
        Why nothing was, one line.
    """

    place: Place
    model: str
    progress: float = 0.0
    block: Block | None = None
    error: str = ""
    ended_ns: int = 0
    waiting: bool = False


class Room:
    """Recordings, and what was found in them.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the recorder.
    clock : Clock

    Attributes
    ----------
    recordings : Recordings
    book : AuditBook
    """

    def __init__(self, root: Path, clock: Clock) -> None:
        self.recordings = Recordings(root)
        self.book = AuditBook()
        self._clock = clock
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="history")
        # Patients' signals: nobody else's business, and gone with the dashboard.
        self._folder = tempfile.TemporaryDirectory(prefix="bedside-history-")
        self._works: OrderedDict[tuple[Place, str], Work] = OrderedDict()
        # The newest is done first: that is what somebody looks at.
        self._wanted: list[Work] = []
        self._news = asyncio.Event()
        self._runs: set[LimitedRun] = set()
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Stop what runs, and delete what was found."""
        for run in self._runs:
            run.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread: disks and decompression hold up no page there."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def want(self, place: Place, model: str, needed: int | None = None) -> Work:
        """Return how far a block is; one that is not there yet is analysed next.

        Parameters
        ----------
        place : Place
        model : str
            Name of a bundle.
        needed : int, optional
            Sample of the session up to which it is wanted: of a bed that is being recorded there may be more
            by now.
        """
        work = self._works.setdefault((place, model), Work(place, model))
        self._works.move_to_end((place, model))
        short = (
            needed is not None
            and work.block is not None
            and work.block.stop < min(needed, place.stop) - _MORE_S * place.fs
        )
        again = work.error and self._clock.now_ns() - work.ended_ns > _AGAIN_NS
        if not work.waiting and (short or again or (work.block is None and not work.error)):
            work.waiting, work.error = True, ""
            self._wanted.append(work)
            if len(self._wanted) > _WAITING:
                # Whoever still looks at it asks again.
                self._wanted.pop(0).waiting = False
            self._news.set()
        return work

    async def look_ahead(self, work: Work, sample: int) -> None:
        """Have the next block analysed if what is looked at ends near the end of one: it may be played."""
        place = work.place
        if sample < place.stop - _AHEAD_S * place.fs or (self._following(place), work.model) in self._works:
            return
        piece = await self.read(self._piece, place)
        if piece is not None and piece.stop > place.stop + _AFTER_S * place.fs:
            self.want(self._following(place), work.model)

    @staticmethod
    def _following(place: Place) -> Place:
        return replace(place, number=place.number + 1)

    async def run(self) -> None:
        """Analyse what is wanted, for ever. Call it from the main thread."""
        while True:
            while self._wanted:
                work = self._wanted.pop()
                try:
                    await self._analyse(work)
                    work.error = ""
                except LimitedError as error:
                    work.error = str(error)
                except (OSError, ValueError, KeyError) as error:
                    work.error = f"the analysis cannot be read: {error}"
                work.waiting, work.ended_ns = False, self._clock.now_ns()
                self._tidy()
            self._news.clear()
            await self._news.wait()

    async def bedside(self, *arguments: str | Path, folder: Path, timeout_s: float = _PATIENCE_S) -> None:
        """Run a command of ours within limits (see `monitor.limited`), one after the other.

        Raises
        ------
        LimitedError
        """
        async with self._turn:
            await self._limited(list(arguments), folder, lambda _: None, timeout_s)

    def new_folder(self) -> Path:
        """Return an empty folder, to be removed by whoever asked."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def folder_of(self, bed: str) -> Path:
        """Return the folder in which a bed is recorded."""
        return (self.recordings.root / folder_of(bed)).resolve()

    async def _analyse(self, work: Work) -> None:
        place = work.place
        found = await self.read(self._piece, place)
        if found is None:
            raise LimitedError("this part of the recording has been deleted")
        start = max(place.start, found.start)
        stop = min(place.stop + round(_AFTER_S * place.fs), found.stop)
        if start >= stop:
            raise LimitedError("this part of the recording has been deleted")
        folder = self.new_folder()
        try:
            work.progress = 0.0

            def heard(progress: float) -> None:
                work.progress = progress

            command: list[str | Path] = ["analyze", self.folder_of(place.bed), "--model", work.model]
            command += [
                "--from",
                utc(found.time_of(start), place.fs),
                "--until",
                utc(found.time_of(stop), place.fs),
            ]
            command += ["--json", folder / "result.json", "--arrays", folder / "arrays.npz"]
            await self._limited(command, folder, heard, _PATIENCE_S)
            block = await self.read(Block, place, start, stop, found.time_of(start), folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if round(block.result["duration_s"] * place.fs) != stop - start:
            raise LimitedError("the device's clock was set in these minutes: analyse a segment of them")
        work.block = block

    async def _limited(
        self, command: list[str | Path], folder: Path, heard: Callable[[float], None], timeout_s: float
    ) -> None:
        run = LimitedRun(command, folder, heard, hidden=(self.recordings.root.resolve(), folder))
        self._runs.add(run)
        try:
            await run.done(timeout_s)
        finally:
            run.stop()
            self._runs.discard(run)

    def _piece(self, place: Place) -> Piece | None:
        for piece in pieces(self.recordings, place.bed):
            begin = piece.segments[0].begin
            if (begin.session, begin.fs, begin.leads) == (place.session, place.fs, place.leads):
                return piece
        return None

    def _tidy(self) -> None:
        idle = [key for key, work in self._works.items() if not work.waiting]
        for key in idle[: max(0, len(self._works) - _KEPT)]:
            del self._works[key]


def utc(t: int, fs: float) -> str:
    """Return a device time, ns, as the command line takes it: just before the sample that it is of."""
    return (
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=(t - round(5e8 / fs)) // 1000)
    ).isoformat()
