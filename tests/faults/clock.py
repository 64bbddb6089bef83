"""The wall clock of everything that is started on a ward, and the hand that sets it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class WallClock:
    """A clock that processes started `inside` have: right until it is set.

    Without a C compiler it cannot be set, and they have the machine's.

    Parameters
    ----------
    folder : pathlib.Path
        For the program that moves it.
    """

    def __init__(self, folder: Path) -> None:
        self._ahead = folder / "ahead"
        self._ahead.write_bytes(struct.pack("q", 0))
        self._library = folder / "clock.so"
        compiler = shutil.which("cc")
        if compiler is not None:
            options = ["-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE), "-ldl"]
            subprocess.run([compiler, *options], check=True)
        self.can_be_set = compiler is not None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Give this clock to processes that are started meanwhile."""
        if not self.can_be_set:
            yield
            return
        os.environ |= {"LD_PRELOAD": str(self._library), "CLOCK_AHEAD": str(self._ahead)}
        try:
            yield
        finally:
            del os.environ["LD_PRELOAD"], os.environ["CLOCK_AHEAD"]

    def set(self, ahead_s: int) -> None:
        """Set it so far ahead of the machine's; behind, if negative."""
        with self._ahead.open("r+b") as file:
            file.write(struct.pack("q", ahead_s))
