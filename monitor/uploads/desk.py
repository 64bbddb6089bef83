"""The desk at which uploads are taken in and analysed, one after the other."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from monitor.limited import LimitedError, LimitedRun
from monitor.uploads.files import DeskError, check_header, recording_of
from stream.clock import Clock
from stream.settings import Settings

log = logging.getLogger(__name__)

UPLOAD_BYTES = 512 * 1024**2
"""Of all files of one recording: half a day of twelve leads at 500 Hz has 518 MB."""
_KEPT = 20
_KEPT_BYTES = 2 * 1024**3
# What a person waits for before closing the tab, and a day of twelve leads three times.
_SECONDS = 1_200.0
# 64 leads with names of five characters.
_LEADS_LONG = 400
# An upload that brings nothing more for so long has been left.
_LEFT_S = 600.0

# What can be had of an analysis, by the name under which it is asked for.
RESULTS = ("report.html", "picture.png", "result.json", "arrays.npz", "record.zip")
# Annotations of an analysis: the extension that `bedside analyze` names in its help.
_ANNOTATIONS = "bed"

State = Literal["uploading", "waiting", "running", "done", "failed"]


@dataclass
class Job:
    """One recording on the desk.

    Attributes
    ----------
    id : str
        Not to be guessed: without a login, who knows it may read the results.
    name : str
        What the recording is called.
    files : tuple of str
        Names of the files that make it up.
    model : str
        Name of a shipped model; empty for the usual one.
    fs : float or None
        Sampling frequency, Hz, for a file that does not state one.
    leads : str
        Names of the leads, with commas between, for a file that does not state them; empty for the standard
        twelve.
    folder : Path
    began_ns : int
    who : str or None
        User who began it; None without a login.
    """

    id: str
    name: str
    files: tuple[str, ...]
    model: str
    fs: float | None
    leads: str
    folder: Path
    began_ns: int
    who: str | None
    state: State = "uploading"
    error: str = ""
    progress: float | None = None
    """Share of the recording that has been analysed, 0 to 1."""
    touched_ns: int = 0
    ended_ns: int = 0
    size: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    run: LimitedRun | None = None

    @property
    def inbox(self) -> Path:
        """Folder of what was uploaded."""
        return self.folder / "in"

    @property
    def outbox(self) -> Path:
        """Folder of the results."""
        return self.folder / "out"

    def missing(self) -> list[str]:
        """Return which files have not come."""
        return [name for name in self.files if not (self.inbox / name).is_file()]

    def told(self) -> dict[str, Any]:
        """Return what a page is told."""
        seconds = (self.ended_ns or self.touched_ns) - self.began_ns
        return {
            "id": self.id,
            "name": self.name,
            "who": self.who,
            "state": self.state,
            "progress": self.progress,
            "error": self.error,
            "seconds": round(seconds / 1e9, 1),
            "missing": self.missing() if self.state == "uploading" else [],
            "results": [name for name in RESULTS if (self.outbox / name).is_file()],
            "analysis": self.result,
        }


class Desk:
    """Takes uploads in, has them analysed one after the other, and keeps the newest.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Patients' signals: nobody else's business, and gone with the dashboard.
        self._room = tempfile.TemporaryDirectory(prefix="bedside-analyses-")
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()

    def close(self) -> None:
        """Stop what runs, and delete everything."""
        for job in self._jobs.values():
            _stop(job)
        self._room.cleanup()

    def jobs(self) -> list[Job]:
        """Return what is on the desk, the newest first."""
        return list(self._jobs.values())[::-1]

    def job(self, name: str) -> Job:
        """Return a job.

        Raises
        ------
        KeyError
            If there is none of this id, or no longer.
        """
        return self._jobs[name]

    def take(self, files: Sequence[str], model: str, fs: float | None, leads: str, who: str | None) -> Job:
        """Begin an upload; for the parameters see `Job`.

        Raises
        ------
        DeskError
            If the files cannot be a recording.
        """
        self._tidy()
        name = recording_of(files)
        if name.suffix == ".npy" and not fs:
            raise DeskError("a .npy file does not say its sampling frequency: give it, in Hz")
        if fs is not None and not 0 < fs <= 100_000:
            raise DeskError(f"sampling frequency {fs:g}: a number of Hz greater than 0")
        if len(leads) > _LEADS_LONG or not leads.isprintable():
            raise DeskError(f"leads: their names, with commas between, {_LEADS_LONG} characters at most")
        job_id = secrets.token_urlsafe(12)
        now_ns = self._clock.now_ns()
        # What a file states itself is its own.
        fs, leads = (fs, leads) if name.suffix == ".npy" else (None, "")
        job = Job(
            job_id,
            name.stem,
            tuple(files),
            model,
            fs,
            leads,
            Path(self._room.name) / job_id,
            now_ns,
            who,
            touched_ns=now_ns,
        )
        job.inbox.mkdir(parents=True)
        job.outbox.mkdir()
        self._jobs[job_id] = job
        return job

    def came(self, job: Job) -> None:
        """Take note that a file has come; with the last one the recording waits for its turn."""
        job.touched_ns = self._clock.now_ns()
        if job.state != "uploading" or job.missing():
            return
        job.size = sum(path.stat().st_size for path in job.inbox.iterdir())
        job.state = "waiting"
        self._queue.put_nowait(job)

    def drop(self, job: Job) -> None:
        """Take a recording and its results off the desk."""
        self._jobs.pop(job.id, None)
        _stop(job)
        shutil.rmtree(job.folder, ignore_errors=True)

    async def run(self) -> None:
        """Analyse what waits, for ever. Call it from the main thread."""
        while True:
            job = await self._queue.get()
            if job.id in self._jobs:
                await self._analyse(job)

    async def _analyse(self, job: Job) -> None:
        job.state = "running"
        try:
            for header in job.inbox.glob("*.hea"):
                check_header(header, job.files)
            await self._run(job)
            _pack(job)
            job.result = json.loads((job.outbox / "result.json").read_text())
            job.state = "done"
        except (DeskError, LimitedError) as error:
            job.state, job.error = "failed", str(error)
        except (OSError, ValueError) as error:
            log.exception("the analysis of an upload")
            job.state, job.error = "failed", f"the result could not be read: {error}"
        job.ended_ns = self._clock.now_ns()
        # What was uploaded is in the results, as far as anybody needs it.
        shutil.rmtree(job.inbox, ignore_errors=True)

    async def _run(self, job: Job) -> None:
        out = job.outbox
        command: list[str | Path] = ["analyze", job.inbox / _path(job)]
        command += [
            "--json",
            out / "result.json",
            "--html",
            out / "report.html",
            "--png",
            out / "picture.png",
        ]
        # Annotations go to the folder in which the command runs.
        command += ["--arrays", out / "arrays.npz", "--annotations", _ANNOTATIONS]
        command += ["--model", job.model or Settings().model]
        if job.fs:
            command += ["--fs", f"{job.fs:g}"]
        if job.leads:
            command += [f"--leads={job.leads}"]

        def heard(progress: float) -> None:
            job.progress = progress

        job.run = LimitedRun(command, job.folder, heard, hidden=(job.inbox, job.folder))
        try:
            await job.run.done(_SECONDS)
        finally:
            job.touched_ns = self._clock.now_ns()

    def _tidy(self) -> None:
        # Room for one more: the oldest ones that nobody waits for go.
        now_ns = self._clock.now_ns()
        for job in list(self._jobs.values()):
            if job.state == "uploading" and now_ns - job.touched_ns > _LEFT_S * 1e9:
                self.drop(job)
        ended = [job for job in self._jobs.values() if job.state in ("done", "failed")]
        used = sum(_size(job.folder) for job in self._jobs.values())
        for job in ended:
            if len(self._jobs) < _KEPT and used < _KEPT_BYTES:
                break
            used -= _size(job.folder)
            self.drop(job)
        if len(self._jobs) >= _KEPT:
            raise DeskError(f"{_KEPT} recordings wait already: try again in a while")


def _path(job: Job) -> str:
    path = recording_of(job.files)
    return path.stem if path.suffix.lower() == ".hea" else path.name


def _pack(job: Job) -> None:
    # The WFDB record with its annotations, or the annotations beside the file that was uploaded.
    with zipfile.ZipFile(job.outbox / "record.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(job.inbox.iterdir()):
            packed.write(path, path.name)
        for path in sorted(job.folder.glob(f"*.{_ANNOTATIONS}")):
            packed.write(path, path.name)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stop(job: Job) -> None:
    if job.run is not None:
        job.run.stop()
