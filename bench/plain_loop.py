"""The same work as one would otherwise do it: a loop over XREADGROUP, one bed and one window at a time.

Runs as a process of its own, in the place of Bedside's worker, on the same streams (``python -m
bench.plain_loop same|model|thesis --model NAME --redis URL``). No Faust, no batches, no recovery. What it
does with the samples is in `bench.plain_beds`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import redis

from bench.plain_beds import Chain, Scored, same_chain, thesis_chain
from stream.alarms.evidence import judge_silence, judge_window
from stream.alarms.machine import end_all, pass_time
from stream.alarms.state import BedState, Moment
from stream.alarms.vitals import BY_WINDOW, judge_block
from stream.contract import AlarmEvent, Finding, Stamps, Vitals
from stream.heartbeat import HEARTBEAT
from stream.settings import Settings
from stream.topics import ALARMS, FINDINGS, SAMPLES, TOPICS
from stream.topics import VITALS as VITALS_TOPIC
from stream.transport.layout import stream_key
from stream.vitals.bed import Block
from stream.vitals.grid import FS

_GROUP, _CONSUMER = "plain", "plain-1"
_READ, _BLOCK_MS = 64, 1000
# As Bedside's worker.
_BEAT_S, _BEAT_TTL_S = 1.0, 5

Message = Finding | Vitals | AlarmEvent
Header = dict[str, Any]


class PlainBed:
    """What comes of the chunks of one bed.

    Parameters
    ----------
    chain : Chain
    header : dict
        Of the first chunk.
    """

    def __init__(self, chain: Chain, header: Header) -> None:
        self._chain, self._bed = chain, chain.open_bed(header["fs"])
        self._state = BedState(session=header["session"])
        self._beats: list[int] = []

    def take(self, header: Header, samples: npt.NDArray[np.float64], dequeued_ns: int) -> Iterator[Message]:
        """Take the next chunk, millivolts, shape (n, leads), and yield what is to be published."""
        ready_ns = time.time_ns()
        for block in self._bed.push(samples):
            yield from self._block(header, block)
        for scored in self._bed.judge():
            yield from self._window(header, scored, (dequeued_ns, ready_ns, time.time_ns()))
            ready_ns = time.time_ns()
        if header["last"]:
            yield from end_all(self._state, _moment(header, header["n0"] + len(samples)), "the feed ended")

    def _block(self, header: Header, block: Block) -> Iterator[Message]:
        at, leads = self._bed.source_index, self._chain.leads
        moment = _moment(header, at(block.end))
        self._beats += [at(beat.index) for beat in block.beats]
        yield from judge_block(self._state, moment, block, leads, at)
        if block.end % FS:
            return
        quality = block.quality
        yield Vitals(
            bed=header["bed"],
            session=header["session"],
            start=at(block.end - FS),
            end=moment.sample,
            t_end=moment.t,
            heart_rate=block.heart_rate,
            rr_irregularity=block.rr_irregularity,
            beats=tuple(self._beats),
            quality=quality.index_of(leads) if quality else {},
            issues=quality.issues_of(leads) if quality else {},
            ingest_ns=header["ingest_ns"],
        )
        self._beats.clear()

    def _window(self, header: Header, scored: Scored, times_ns: tuple[int, int, int]) -> Iterator[Message]:
        chain, moment = self._chain, _moment(header, scored.end)
        over = scored.score is not None and scored.score > chain.threshold
        dequeued_ns, ready_ns, inferred_ns = times_ns
        yield Finding(
            bed=header["bed"],
            session=header["session"],
            model=chain.name,
            window=scored.window,
            start=scored.start,
            end=scored.end,
            t_start=moment.time_of(scored.start),
            t_end=moment.t,
            score=scored.score,
            threshold=chain.threshold,
            percentile=None if scored.score is None else chain.percentile(scored.score),
            lead_scores={
                lead: value for lead, value in zip(chain.leads, scored.leads, strict=False) if value == value
            },
            anomalous=over,
            reason="poor signal" if scored.score is None else None,
            stamps=Stamps(
                ingest_ns=moment.ingest_ns,
                dequeued_ns=dequeued_ns,
                ready_ns=ready_ns,
                inferred_ns=inferred_ns,
                published_ns=time.time_ns(),
            ),
        )
        if scored.score is None:
            yield from judge_silence(self._state, moment, "poor signal")
            return
        hop = scored.start // scored.window if scored.window else scored.end
        yield from judge_window(
            self._state,
            chain.alarm,
            moment,
            window=scored.window,
            first_new=max(scored.start, scored.end - hop),
            over=over,
            score=scored.score,
        )
        yield from pass_time(self._state, moment, BY_WINDOW)


def _moment(header: Header, sample: int) -> Moment:
    t = header["t0"] + round((sample - header["n0"]) * 1e9 / header["fs"])
    return Moment(header["bed"], sample, t, header["fs"], header["ingest_ns"])


class _Loop:
    def __init__(self, client: redis.Redis, prefix: str, chain: Chain) -> None:
        self._client, self._prefix, self._chain = client, prefix, chain
        self._beds: dict[str, PlainBed] = {}
        self._beat_s = 0.0

    def run(self) -> None:
        streams = [stream_key(self._prefix, SAMPLES, n) for n in range(TOPICS[SAMPLES].partitions)]
        for stream in streams:
            self._client.xgroup_create(stream, _GROUP, "0", mkstream=True)
        wanted: Any = dict.fromkeys(streams, ">")
        while True:
            self._beat()
            reply: Any = self._client.xreadgroup(_GROUP, _CONSUMER, wanted, count=_READ, block=_BLOCK_MS)
            for stream, entries in reply or ():
                for entry, fields in entries:
                    self._take(fields[b"v"])
                    self._client.xack(stream, _GROUP, entry)

    def _beat(self) -> None:
        if time.monotonic() - self._beat_s > _BEAT_S:
            self._client.set(f"{self._prefix}{HEARTBEAT}plain", "{}", ex=_BEAT_TTL_S)
            self._beat_s = time.monotonic()

    def _take(self, message: bytes) -> None:
        dequeued_ns = time.time_ns()
        line, _, payload = message.partition(b"\n")
        header = json.loads(line)
        samples = np.frombuffer(payload, "<i2").reshape(-1, len(header["leads"])) / np.array(header["gain"])
        name = header["bed"]
        if name not in self._beds:
            self._beds[name] = PlainBed(self._chain, header)
        for told in self._beds[name].take(header, samples, dequeued_ns):
            self._publish(_TOPICS[type(told)], name, told.encode())

    def _publish(self, topic: str, key: str, value: bytes) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._client.xadd(stream_key(self._prefix, topic, 0), {"t": now_ms, "k": key, "v": value})


_TOPICS: dict[type[Message], str] = {Finding: FINDINGS, Vitals: VITALS_TOPIC, AlarmEvent: ALARMS}


@click.command()
@click.argument("what", type=click.Choice(["same", "model", "thesis"]))
@click.option("--model", required=True, help="Bundle of all but `thesis`.")
@click.option("--redis", "url", required=True, help="Server of the streams.")
def main(what: str, model: str, url: str) -> None:
    """Score every bed in a plain loop, until stopped."""
    chain = thesis_chain() if what == "thesis" else same_chain(model, watched=what == "same")
    with redis.Redis.from_url(url, protocol=2) as client:
        _Loop(client, Settings().prefix, chain).run()


if __name__ == "__main__":
    main()
