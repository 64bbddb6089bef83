"""The load: beds that send a chunk whenever it is due, whether or not earlier ones have been answered.

Runs as a process of its own (``python -m bench.load PLAN``), which does nothing but send: signals are made
and cut before the clock starts, a header is a text with four numbers filled in, and what goes to the server
is packed by hiredis. A chunk's ingest time is the time at which it was *due*: what the generator, or a server
that keeps it waiting, adds is part of every latency (no coordinated omission), and is reported besides.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import numpy as np

from bench.histogram import LatencyHistogram
from bench.signals import Playlist, recorded, simulated
from ingest.chunks import CHUNK_S
from stream.clock import SystemClock
from stream.contract import ChunkHeader, Validity
from stream.topics import SAMPLES, TOPICS
from stream.transport.layout import partition_of, stream_key

CHUNK_NS = round(CHUNK_S * 1e9)
SPREAD_NS = 1_000_000_000
"""Beds begin one after the other within this time: chunks of 0.2 s and hops of 0.5 s meet once in it, so
that neither chunks nor windows of a ward come all at once."""

# Between being ready and the first bed's first sample.
_LEAD_NS = 200_000_000
# Chunks due within so short a time leave together: waking up for each would cost more than sending it.
_TOGETHER_NS = 1_000_000
# When late: few enough (170 kB) for the server to serve others in between.
_MOST_TOGETHER = 64
_RECEIVE = 65_536
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a load generator is to do.

    Attributes
    ----------
    url : str
        The ward's server, ``unix://``.
    prefix : str
        Start of every key of the deployment.
    beds : int
    chunks : int
        Of each bed.
    seed : int
        Of the simulated patients.
    ill_every_s : float
        How often each of them falls ill.
    paths : tuple of str
        Recordings to play instead of simulated patients.
    accepted : str
        Where to write when the server had each chunk: ``.npy``, int64, shape (beds, chunks), ns.
    speed : float
        Seconds of signal in a second.
    """

    url: str
    prefix: str
    beds: int
    chunks: int
    seed: int
    ill_every_s: float
    paths: tuple[str, ...]
    accepted: str
    speed: float = 1.0

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> LoadPlan:
        fields = json.loads(path.read_text())
        return cls(**fields | {"paths": tuple(fields["paths"])})


def bed_name(number: int) -> str:
    """Return the name of a bed, counted from 0."""
    return f"bed-{number + 1}"


def bed_number(name: str) -> int:
    """Return the number of a bed; inverse of `bed_name`."""
    return int(name.removeprefix("bed-")) - 1


def phase_ns(number: int, beds: int) -> int:
    """Return how much later than the first bed this one begins."""
    return number * SPREAD_NS // beds


def schedule(beds: int, chunks: int) -> Iterator[tuple[int, int, int]]:
    """Yield (due, bed, seq) of all chunks by the time at which they are due.

    A chunk is due when its last sample has been acquired: so many ns of signal after the first one.
    """
    phases = [phase_ns(number, beds) for number in range(beds)]
    order = sorted(range(beds), key=lambda number: phases[number] % CHUNK_NS)
    longest = max(phases) // CHUNK_NS
    for turn in range(chunks + longest):
        for number in order:
            seq = turn - phases[number] // CHUNK_NS
            if 0 <= seq < chunks:
                yield phases[number] + (seq + 1) * CHUNK_NS, number, seq


class _Feed:
    # One bed: the header's text, and where in its playlist it is.

    def __init__(self, number: int, playlist: Playlist, start: int, plan: LoadPlan, begin_ns: int) -> None:
        self._playlist, self._start = playlist, start
        self._begin_ns, self._phase_ns = begin_ns, phase_ns(number, plan.beds)
        self._chunks, self._speed = plan.chunks, plan.speed
        bed = bed_name(number)
        self.key = bed.encode()
        self.stream = stream_key(plan.prefix, SAMPLES, partition_of(self.key, TOPICS[SAMPLES].partitions))
        header = ChunkHeader(
            bed=bed,
            session=f"bench-{begin_ns}",
            seq=0,
            t0=0,
            ingest_ns=0,
            n0=0,
            fs=playlist.fs,
            leads=playlist.leads,
            gain=playlist.gain,
            valid=(Validity.OK,) * len(playlist.leads),
            pace=plan.speed,
        ).encode()
        text = header.replace(b"%", b"%%") + b"\n"
        for field in (b"seq", b"t0", b"ingest_ns", b"n0"):
            text = text.replace(b'"%s":0' % field, b'"%s":%%d' % field)
        self._text = text.replace(b'"last":false', b'"last":%s')

    def chunk(self, seq: int) -> bytes:
        playlist = self._playlist
        begin_ns = self._phase_ns + seq * CHUNK_NS
        due_ns = self._begin_ns + round((begin_ns + CHUNK_NS) / self._speed)
        last = b"true" if seq == self._chunks - 1 else b"false"
        n0 = seq * playlist.samples_per_chunk
        header = self._text % (seq, self._begin_ns + begin_ns, due_ns, n0, last)
        return header + playlist.chunk(self._start + seq)

    def sent(self) -> tuple[int, float]:
        return self._chunks * self._playlist.samples_per_chunk, self._playlist.fs


def _feeds(plan: LoadPlan, playlists: list[Playlist], begin_ns: int) -> list[_Feed]:
    feeds = []
    for number in range(plan.beds):
        playlist = playlists[number % len(playlists)]
        # Each from another place, so that the ward falls ill evenly over the time and not all at once.
        start = number * playlist.period // plan.beds
        feeds.append(_Feed(number, playlist, start, plan, begin_ns))
    return feeds


class _Server:
    def __init__(self, url: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.connect(urlsplit(url).path)
        self._reader = hiredis.Reader()

    def send(self, commands: list[bytes]) -> None:
        # Returns when the server has answered all of them.
        self._socket.sendall(b"".join(commands))
        for _ in commands:
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._socket.recv(_RECEIVE))
            if isinstance(reply, Exception):
                raise reply

    def close(self) -> None:
        self._socket.close()


def send(plan: LoadPlan, playlists: list[Playlist], begun: Any = None) -> dict[str, Any]:
    """Send everything, on time, and say how on time it was.

    Parameters
    ----------
    plan : LoadPlan
    playlists : list of Playlist
    begun : callable, optional
        Called with the time of the first sample, ns, before the first chunk goes out.

    Returns
    -------
    dict
        ``chunks``; ``sent``: samples and rate of each bed; ``late``: how long after its due time the
        generator handed each chunk over, as `LatencyHistogram.summary`.
    """
    clock, server = SystemClock(), _Server(plan.url)
    retention_ms = TOPICS[SAMPLES].retention_ms or 0
    accepted = np.zeros((plan.beds, plan.chunks), np.int64)
    handed = np.zeros((plan.beds, plan.chunks), np.int64)
    begin_ns = clock.now_ns() + _LEAD_NS
    feeds = _feeds(plan, playlists, begin_ns)
    if begun is not None:
        begun(begin_ns)
    # What lives now lives to the end: the collector need not look at it again, in the middle of sending.
    gc.collect()
    gc.freeze()
    queue = ((round(due_ns / plan.speed), bed, seq) for due_ns, bed, seq in schedule(plan.beds, plan.chunks))
    after: tuple[int, int, int] | None = next(queue)
    while after is not None:
        now_ns = clock.now_ns() - begin_ns
        if after[0] > now_ns:
            time.sleep(max(after[0] - now_ns, _TOGETHER_NS) / 1e9)
            now_ns = clock.now_ns() - begin_ns
        now_ms = (now_ns + begin_ns) // 1_000_000
        oldest = now_ms - retention_ms
        places: list[tuple[int, int]] = []
        commands: list[bytes] = []
        while after is not None and after[0] <= now_ns and len(places) < _MOST_TOGETHER:
            due_ns, bed, seq = after
            feed = feeds[bed]
            command: Any = ("XADD", feed.stream, "MINID", "~", oldest, "*")
            command += ("t", now_ms, "k", feed.key, "v", feed.chunk(seq))
            commands.append(hiredis.pack_command(command))
            places.append((bed, seq))
            handed[bed, seq] = now_ns - due_ns
            after = next(queue, None)
        server.send(commands)
        done_ns = clock.now_ns()
        for place in places:
            accepted[place] = done_ns
    server.close()
    np.save(plan.accepted, accepted)
    return {
        "chunks": plan.beds * plan.chunks,
        "sent": [feed.sent() for feed in feeds],
        "late": LatencyHistogram(handed.ravel()).summary(),
    }


def main() -> None:
    """Carry out the plan in a file; the time of the first sample, then the report, are lines of JSON."""
    plan = LoadPlan.read(Path(sys.argv[1]))
    playlists = recorded(plan.paths) if plan.paths else simulated(plan.seed, plan.ill_every_s)

    def say(value: Any) -> None:
        print(json.dumps(value), flush=True)  # noqa: T201 - our parent reads it

    say(send(plan, playlists, say))


if __name__ == "__main__":
    main()
