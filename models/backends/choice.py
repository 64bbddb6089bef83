"""The backend ``auto``: measured on this machine, and remembered."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from models.backends import BACKENDS, BackendUnavailableError, open_session
from models.backends.batched import one_line
from models.backends.cache import cache_folder, digest, keep, kept, machine, say
from models.bundle import Bundle, BundleError, load_bundle
from models.session import Fallback, Session

# One window is what a quiet ward waits for, this many what a busy one does.
_MIDDLE_BATCH = 8
_RUNS = 300
_SECONDS = 1.0
# The 99th percentiles of such short measurements differ by about this from one to the next: a backend has
# to be faster by more to take the place of one that stands before it.
_MARGIN = 0.9
# As a worker's event loop, which takes the interpreter for half of the time, a millisecond at once: a backend
# that needs it often waits for it often.
_TURN_S = 0.001
SWITCH_S = 0.0005
"""How long a thread keeps the interpreter in a worker, seconds."""
# Starting Python, importing a library and building an engine.
_PATIENCE_S = 180.0

# What a backend raises that cannot be used: a refusal, or whatever a library says of a GPU while it runs.
_FAILURES = (BundleError, RuntimeError)
# Exit codes of the measuring process, besides 0.
_UNAVAILABLE, _FAILED = 3, 4


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a backend takes, 99th percentile.

    Attributes
    ----------
    backend : str
    one_ms, middle_ms : float
        For one window, and for the middle batch.
    """

    backend: str
    one_ms: float
    middle_ms: float

    def beats(self, other: Measured) -> bool:
        """Whether it is clearly faster, both batches counting alike."""
        return self.one_ms * self.middle_ms < other.one_ms * other.middle_ms * _MARGIN**2

    def __str__(self) -> str:
        return f"{self.backend} {self.one_ms:.1f}/{self.middle_ms:.1f} ms"


def open_fastest(bundle: Bundle, precision: str, threads: int) -> Session:
    """Open the fastest backend here whose numbers are right.

    What is installed is measured once, each in a process of its own, so that none leaves its memory behind;
    the choice is kept in the user's cache folder for as long as model, versions and machine are the same. A
    choice that something had to be passed over for is not kept: it may work again at the next start.

    Parameters
    ----------
    bundle : Bundle
    precision : str
    threads : int

    Returns
    -------
    Session
        With `fallbacks`: what is there but failed.

    Raises
    ------
    BundleError
        If the bundle has no such precision, or no backend can run it; with the reason of each.
    """
    bundle.check_precision(precision)
    file = choice_file(bundle, precision, threads)
    fallbacks: list[Fallback] = []
    remembered = _remembered(file)
    if remembered is not None:
        try:
            session = open_session(bundle, remembered, precision, threads)
        except _FAILURES as error:
            fallbacks.append(Fallback(remembered, one_line(error)))
        else:
            say(f"backend {remembered} {precision}, the fastest when it was measured")
            return session
    found: list[Measured] = []
    names = candidates(precision)
    # Where there is nothing to choose from, nothing needs to be measured.
    alone = len(names) == 1
    for name in names:
        if name in (fallback.backend for fallback in fallbacks):
            continue
        result = Measured(name, 0.0, 0.0) if alone else _measured_apart(bundle, name, precision, threads)
        if isinstance(result, Measured):
            found.append(result)
        elif result is not None:
            fallbacks.append(result)
    for best in _in_order(found):
        try:
            session = open_session(bundle, best.backend, precision, threads)
        except _FAILURES as error:
            fallbacks.append(Fallback(best.backend, one_line(error)))
            continue
        session.fallbacks = tuple(fallbacks)
        if alone:
            return session
        if not fallbacks:
            keep(file, json.dumps({"backend": best.backend}).encode())
        times = ", ".join(map(str, found))
        say(f"backend {best.backend} {precision}: p99 of 1/{_MIDDLE_BATCH} windows: {times}")
        return session
    reasons = "; ".join(f"{fallback.backend}: {fallback.reason}" for fallback in fallbacks)
    raise BundleError(f"no backend here runs {bundle.name} {precision}: {reasons or 'none is installed'}")


def candidates(precision: str) -> list[str]:
    """Return the backends that are installed and run a precision."""
    return [
        name
        for name, backend in BACKENDS.items()
        if precision in backend.precisions and installed_version(name) is not None
    ]


def installed_version(name: str) -> str | None:
    """Return package and version that a backend comes from here, None if it is not installed."""
    for package in BACKENDS[name].packages:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return None


def choice_file(bundle: Bundle, precision: str, threads: int) -> Path:
    """Return where the choice for a model, the installed versions and this machine is kept."""
    versions = {name: installed_version(name) for name in candidates(precision)}
    model = {file: sha for file, sha in bundle.manifest.sha256.items() if precision in file}
    facts = {"model": model, "versions": versions, "machine": machine(), "threads": threads}
    return cache_folder() / "backends" / f"{digest(facts)}.json"


def measure(session: Session, bundle: Bundle) -> Measured:
    """Measure a session on golden windows.

    Parameters
    ----------
    session : Session
    bundle : Bundle
    """
    golden = bundle.golden(session.precision)

    def p99_ms(n: int) -> float:
        x, mask = session.inputs(n)
        rows = np.arange(n) % len(golden.x)
        x[:], mask[:] = golden.x[rows], golden.mask[rows]
        times: list[float] = []
        until = time.perf_counter() + _SECONDS
        while len(times) < 2 or (len(times) < _RUNS and time.perf_counter() < until):
            started = time.perf_counter()
            session.run_filled(n)
            times.append(time.perf_counter() - started)
        # The first run gets memory.
        return float(1e3 * np.percentile(times[1:], 99))

    return Measured(session.backend, p99_ms(1), p99_ms(min(_MIDDLE_BATCH, session.max_batch)))


@contextmanager
def beside_a_worker() -> Iterator[None]:
    """Keep the interpreter as busy as the event loop of a worker does, from another thread."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(_TURN_S):
            until = time.perf_counter() + _TURN_S
            while time.perf_counter() < until:
                pass

    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    thread = threading.Thread(target=work, name="as-an-event-loop")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)


def _in_order(found: list[Measured]) -> list[Measured]:
    # The one to take first, then what to take if it cannot be opened after all.
    left, ordered = list(found), []
    while left:
        best = left[0]
        for other in left[1:]:
            best = other if other.beats(best) else best
        left.remove(best)
        ordered.append(best)
    return ordered


def _remembered(file: Path) -> str | None:
    try:
        name = json.loads(kept(file) or b"null")["backend"]
    except (ValueError, TypeError, KeyError):
        return None
    return name if name in BACKENDS else None


def _measured_apart(bundle: Bundle, name: str, precision: str, threads: int) -> Measured | Fallback | None:
    # None for a backend that has no device here: nothing is wrong with it.
    command = [sys.executable, "-m", __name__, str(bundle.path), name, precision, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return Fallback(name, f"was not ready after {_PATIENCE_S:.0f} s")
    if done.returncode == _UNAVAILABLE:
        return None
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        return Fallback(name, last or f"ended with code {done.returncode}")
    one, middle = json.loads(done.stdout)
    return Measured(name, one, middle)


def _main(path: str, name: str, precision: str, threads: str) -> int:
    # The process that `_measured_apart` starts.
    bundle = load_bundle(Path(path))
    try:
        session = open_session(bundle, name, precision, int(threads))
        with beside_a_worker():
            measured = measure(session, bundle)
    except BackendUnavailableError:
        return _UNAVAILABLE
    except _FAILURES as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return _FAILED
    sys.stdout.write(json.dumps([measured.one_ms, measured.middle_ms]))
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
