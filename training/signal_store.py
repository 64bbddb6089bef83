"""Many signals: in memory while they are few, in a file mapped into memory when they are many."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

MEMORY_LIMIT = 2 << 30
"""Bytes up to which signals stay in memory: 44,000 recordings of 10 s and 12 leads at 100 Hz, or 8,900 at
500 Hz. A machine with 8 GiB then still has room for torch and the rest. Beyond, the system keeps in memory
what fits and reads the rest from the file when it is asked for."""


class SignalStore:
    """Signals of different shapes, appended one by one and read by number.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Where the file goes, if one is needed; default the folder of temporary files. The file has no name:
        however the process ends, its space is free again.
    memory_limit : int
        Bytes.
    """

    def __init__(self, folder: Path | None = None, *, memory_limit: int = MEMORY_LIMIT) -> None:
        self._folder, self._limit = folder, memory_limit
        self._held: list[FloatArray] = []
        self._shapes: list[tuple[int, ...]] = []
        self._ends = [0]
        self._file: IO[bytes] | None = None
        self._mapped: FloatArray = np.empty(0, np.float32)

    def __len__(self) -> int:
        return len(self._shapes)

    def append(self, values: FloatArray) -> None:
        """Add a signal.

        Raises
        ------
        OSError
            If there is no room for the file; it names the folder.
        """
        self._shapes.append(values.shape)
        self._ends.append(self._ends[-1] + values.size)
        if self._file is None and self._ends[-1] * values.itemsize <= self._limit:
            self._held.append(values)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (lives as long as we do)
                for earlier in self._held:
                    self._file.write(earlier.tobytes())
                self._held.clear()
            self._file.write(values.tobytes())
            # Here, and not when it is read through the mapping, is where a full disk must show.
            self._file.flush()
        except OSError as error:
            folder = self._folder or tempfile.gettempdir()
            raise OSError(error.errno, error.strerror, str(folder)) from error

    def __getitem__(self, number: int) -> FloatArray:
        if self._file is None:
            return self._held[number]
        begin, end = self._ends[number], self._ends[number + 1]
        if end > len(self._mapped):
            # As a plain array: every slice of a memmap object costs more than reading it.
            self._mapped = np.asarray(np.memmap(self._file, np.float32, "r", shape=(self._ends[-1],)))
        return self._mapped[begin:end].reshape(self._shapes[number])
