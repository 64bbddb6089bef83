"""The folder of a pack while it is being written: what is on the disk survives, and nothing else counts.

Samples are appended to one file, and every settled record, kept or left out, is then one line of a journal.
A run that was cut short, by Ctrl-C, a kill, a full disk or a power failure, goes on after the last line;
samples beyond it are cut off. The order of lines is that of the catalogue, so that the result does not depend
on where a run was cut, or on how many processes read.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.lib import format as npy

from stream.leads import LEADS
from training.pack import SIGNALS

INDEX, LEFT_OUT, REPORT = "index.csv", "left-out.csv", "report.json"

INDEX_COLUMNS = (
    "path",
    "label",
    "rhythm_only",
    "dataset",
    "patient_id",
    "split",
    "codes",
    "licence",
    "record",
    "offset",
    "samples",
    "fs",
)
LEFT_OUT_COLUMNS = ("record", "path", "reason", "detail")

FORMAT = 1
"""Of what is written here; a run begun by another one does not go on."""

_JOURNAL = "journal.jsonl"
_BYTES_PER_SAMPLE = 2 * len(LEADS)
# What reaches the disk together: enough that waiting for the disk does not slow reading, and little enough
# that a cut loses about a second of work.
_BATCH_BYTES, _BATCH_LINES = 4_000_000, 1000


class StoreError(Exception):
    """A folder that cannot be written, or holds something else; the text is one line."""


class Store:
    """A pack that is being written, or is complete. To be used in a ``with`` statement.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it does not exist.
    settings : mapping
        What decides the result: a folder takes up again only what was begun with the same.

    Attributes
    ----------
    done : int
        Lines of the journal on the disk.
    report : dict or None
        Of a pack that was complete already.

    Raises
    ------
    StoreError
        If the folder cannot be written, holds a pack made with other settings, or another run writes it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.done = 0
        self.report: dict[str, Any] | None = None
        self._folder = folder
        self._settings = {"format": FORMAT, **settings}
        self._samples = 0
        self._lines: list[str] = []
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._open: list[io.FileIO] = []

    def __enter__(self) -> Self:
        try:
            with self._writing():
                self._folder.mkdir(parents=True, exist_ok=True)
                if (self._folder / INDEX).exists():
                    self._recognise()
                else:
                    self._take_up()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Return the settled records on the disk, in order."""
        with self._path(_JOURNAL).open(encoding="utf-8") as file:
            next(file)
            yield from map(json.loads, file)

    def append(self, line: dict[str, Any], samples: bytes = b"") -> None:
        """Settle one record.

        Parameters
        ----------
        line : dict
            What the index, or the list of what was left out, says of it.
        samples : bytes
            Of a record that is kept.

        Raises
        ------
        StoreError
            If the disk does not take it.
        """
        if samples:
            line |= {"offset": self._samples, "samples": len(samples) // _BYTES_PER_SAMPLE}
            self._samples += line["samples"]
            self._pending.append(samples)
            self._pending_bytes += len(samples)
        self._lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        if self._pending_bytes >= _BATCH_BYTES or len(self._lines) >= _BATCH_LINES:
            self.commit()

    def commit(self) -> None:
        """Bring everything settled so far to the disk: first the samples, then the lines that name them.

        Raises
        ------
        StoreError
        """
        journal, signals = self._open
        with self._writing():
            _write(signals, b"".join(self._pending))
            _write(journal, "".join(self._lines).encode())
        self.done += len(self._lines)
        self._pending, self._pending_bytes, self._lines = [], 0, []

    def publish(self, report: Mapping[str, Any]) -> None:
        """Turn what was written into a finished pack. A cut in here is taken up like any other.

        Raises
        ------
        StoreError
        """
        signals = self._open[1]
        with self._writing():
            signals.seek(0)
            _write(signals, _npy_header(self._samples))
            self._write_table(LEFT_OUT, LEFT_OUT_COLUMNS, lambda line: "offset" not in line)
            self._write_table(INDEX, INDEX_COLUMNS, lambda line: "offset" in line)
            text = json.dumps({**report, "settings": self._settings}, indent=2, ensure_ascii=False)
            with self._partial(REPORT).open("wb", buffering=0) as file:
                _write(file, text.encode() + b"\n")
            # The index last: where there is one, everything that it needs is there.
            for name in (LEFT_OUT, REPORT, SIGNALS, INDEX):
                self._partial(name).replace(self._path(name))
            self._path(_JOURNAL).unlink()

    def give_up(self) -> None:
        """Leave nothing behind but the list of what was left out.

        Raises
        ------
        StoreError
        """
        with self._writing():
            self._write_table(LEFT_OUT, LEFT_OUT_COLUMNS, lambda line: True)
            self._partial(LEFT_OUT).replace(self._path(LEFT_OUT))
            self._partial(SIGNALS).unlink()
            self._path(_JOURNAL).unlink()

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _partial(self, name: str) -> Path:
        return self._folder / f"{name}.partial"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self._folder
            safe = f"; {self.done} records are settled, and the same command goes on from there"
            raise StoreError(
                f"cannot write {where}: {error.strerror or error}{safe if self.done else ''}"
            ) from error

    def _recognise(self) -> None:
        try:
            report = json.loads(self._path(REPORT).read_text(encoding="utf-8"))
            settings = report.pop("settings")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise StoreError(
                f"{self._path(INDEX)} was not written by this command; take another folder"
            ) from error
        self._refuse_other(settings, "a pack")
        # Left by a cut between the last two steps of publishing.
        self._path(_JOURNAL).unlink(missing_ok=True)
        self.report = report

    def _refuse_other(self, settings: Any, what: str) -> None:
        if settings == self._settings:
            return
        old = settings if isinstance(settings, dict) else {}
        differ = [key for key in {**old, **self._settings} if old.get(key) != self._settings.get(key)]
        raise StoreError(
            f"{self._folder} holds {what} made with other settings ({', '.join(differ)});"
            " take another folder, or remove this one"
        )

    def _take_up(self) -> None:
        journal = self._path(_JOURNAL).open("a+b", buffering=0)
        self._open.append(journal)
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"another run is writing {self._folder}") from error
        partial = self._partial(SIGNALS)
        if not partial.exists() and self._path(SIGNALS).exists() and os.fstat(journal.fileno()).st_size:
            # A cut between the last steps of publishing.
            self._path(SIGNALS).replace(partial)
        partial.touch()
        signals = partial.open("r+b", buffering=0)
        self._open.append(signals)
        header = _npy_header(0)
        held = max(0, os.fstat(signals.fileno()).st_size - len(header)) // _BYTES_PER_SAMPLE
        end = self._replay(journal, held)
        if not end:
            _write(signals, header)
            first = json.dumps(self._settings, ensure_ascii=False) + "\n"
            journal.truncate(0)
            _write(journal, first.encode())
        else:
            journal.truncate(end)
        at = len(header) + self._samples * _BYTES_PER_SAMPLE
        signals.truncate(at)
        signals.seek(at)

    def _replay(self, journal: io.FileIO, held: int) -> int:
        # Where the journal's last line ends that can be relied on; 0 if there is none at all.
        journal.seek(0)
        reader = io.BufferedReader(journal)
        end = 0
        for number, text in enumerate(reader):
            try:
                line = json.loads(text) if text.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None:
                break
            if number == 0:
                self._refuse_other(line, "the beginning of a pack")
            elif "offset" in line:
                if line["offset"] + line["samples"] > held:
                    break
                self._samples = line["offset"] + line["samples"]
            self.done = number
            end += len(text)
        reader.detach()
        return end

    def _write_table(
        self, name: str, columns: tuple[str, ...], belongs: Callable[[dict[str, Any]], bool]
    ) -> None:
        with self._partial(name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(line for line in self.lines() if belongs(line))
            file.flush()
            os.fsync(file.fileno())

    def _close(self) -> None:
        # Unbuffered: nothing is written here, least of all what a failed write left unwritten.
        for file in self._open:
            file.close()
        self._open = []


def _write(file: io.FileIO, content: bytes) -> None:
    # A raw file may take less than it is given: at the edge of a full disk, for one.
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def _npy_header(samples: int) -> bytes:
    # Of the same length for any number of samples: numpy leaves room for the first axis to grow.
    buffer = io.BytesIO()
    description = {"descr": "<i2", "fortran_order": False, "shape": (samples, len(LEADS))}
    npy.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
