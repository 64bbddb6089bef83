"""From the records of a data set to a pack: many processes read, one writes in the order of the catalogue."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from training.pack import SIGNALS
from training.preprocess.catalogue import Catalogue, LeftOut, Reason, Record, Selection
from training.preprocess.reading import Fault, Samples, read_samples
from training.preprocess.store import LEFT_OUT, Store
from training.preprocess.tally import report_of

# Records that each process has before it, so that none waits for the one that writes; this bounds memory.
_AHEAD = 4

_Entry = Record | LeftOut
_Found = Samples | Fault


class InterruptedRunError(Exception):
    """A run that was stopped; the text is one line."""


class NothingKeptError(Exception):
    """A data set of which not one record could be kept; the text is one line."""


def build(
    catalogue: Catalogue,
    source: Path,
    out: Path,
    selection: Selection,
    *,
    settings: Mapping[str, Any],
    jobs: int,
    on_record: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Write the pack of a data set, or go on with one that was cut short.

    Parameters
    ----------
    catalogue : Catalogue
    source : pathlib.Path
        Folder of the data set.
    out : pathlib.Path
        Folder of the pack.
    selection : Selection
    settings : mapping
        What else decides the catalogue, for the folder to recognise its own.
    jobs : int
        Processes that read; with 1, this one does. The result is the same.
    on_record : callable
        Is told how many records are settled.

    Returns
    -------
    dict
        The report.

    Raises
    ------
    StoreError
        If the folder cannot be written or holds something else.
    SourceError
        If a table changes while it is read.
    InterruptedRunError
        After Ctrl-C, or if a reading process died.
    NothingKeptError
    """
    everything = {
        "dataset": catalogue.name,
        **settings,
        **asdict(selection),
        "tables": dict(catalogue.tables),
    }
    with Store(out, everything) as store:
        if store.report is not None:
            return store.report
        digests = {line["digest"]: line["record"] for line in store.lines() if "offset" in line}
        entries = islice(selection.of(catalogue.entries()), store.done, None)
        try:
            with closing(_settled(entries, source, jobs)) as settled:
                for done, (entry, found) in enumerate(settled, start=store.done + 1):
                    store.append(*_line(entry, found, digests))
                    on_record(done)
            store.commit()
            report = report_of(store.lines(), catalogue, source.resolve().name)
            if not report["kept"]:
                store.give_up()
                raise NothingKeptError(_nothing_kept(report, out))
            store.publish(report)
        except KeyboardInterrupt as error:
            raise InterruptedRunError(
                f"stopped after {store.done} of {catalogue.total} records;"
                " the same command goes on from there"
            ) from error
        except BrokenProcessPool as error:
            raise InterruptedRunError(
                f"a reading process was killed (out of memory?) after {store.done} records; the same command"
                " goes on from there, and --jobs 1 needs least"
            ) from error
        return report


def _line(entry: _Entry, found: _Found | None, digests: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    if isinstance(entry, Record) and isinstance(found, Samples):
        original = digests.get(found.digest)
        if original is None:
            digests[found.digest] = entry.name
            return _kept(entry, found), found.lsb.tobytes()
        found = Fault(Reason.COPY, f"the samples of {original}")
    why = found if isinstance(found, Fault) else entry
    assert not isinstance(why, Record)
    return {"record": entry.name, "path": entry.path, "reason": why.reason, "detail": why.detail}, b""


def _kept(record: Record, samples: Samples) -> dict[str, Any]:
    return {
        "path": SIGNALS,
        "label": record.label,
        "rhythm_only": int(record.rhythm_only),
        "dataset": record.dataset,
        "patient_id": record.patient,
        "split": record.split,
        # The sign between two codes.
        "codes": "|".join(code.replace("|", "/") for code in record.codes),
        "licence": record.licence,
        "record": record.name,
        "fs": int(samples.fs) if samples.fs.is_integer() else samples.fs,
        "clipped": samples.clipped,
        "digest": samples.digest,
    }


def _settled(
    entries: Iterable[_Entry], source: Path, jobs: int
) -> Generator[tuple[_Entry, _Found | None], None, None]:
    read = partial(read_samples, source)
    if jobs == 1:
        for entry in entries:
            yield entry, read(entry.path) if isinstance(entry, Record) else None
        return
    # Fresh processes: a fork would inherit the threads of the progress bar, and locks that they hold.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare_reader)
    ahead: deque[tuple[_Entry, Future[_Found] | None]] = deque()
    try:
        for entry in entries:
            ahead.append((entry, pool.submit(read, entry.path) if isinstance(entry, Record) else None))
            if len(ahead) > jobs * _AHEAD:
                yield _first(ahead)
        while ahead:
            yield _first(ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _first(ahead: deque[tuple[_Entry, Future[_Found] | None]]) -> tuple[_Entry, _Found | None]:
    entry, future = ahead.popleft()
    return entry, None if future is None else future.result()


def _prepare_reader() -> None:
    # Ctrl-C reaches every process of the terminal; the one that writes decides what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        # A parent that is killed cannot stop its readers, and they would wait for work for ever.
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()


def _nothing_kept(report: Mapping[str, Any], out: Path) -> str:
    reasons = "; ".join(
        f"{found['count']}: {found['why']}, such as {found['examples'][0].get('path') or '?'}"
        for found in report["left_out"].values()
    )
    return (
        f"not one of {report['records']} records could be kept ({reasons}); {out / LEFT_OUT} names them all"
    )
