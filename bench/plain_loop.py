"""The same work as one would otherwise do it: a loop over XREADGROUP, one bed and one window at a time.

Runs as a process of its own, in the place of Bedside's worker, on the same streams (``python -m
bench.plain_loop same|thesis --model NAME --redis URL``). No Faust, no batches, no recovery. What it does with
the samples is in `bench.plain_beds`.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

import click
import numpy as np
import redis

from bench.plain_beds import Bed, Chain, Scored, same_chain, thesis_chain
from models.manifest import AlarmRule
from stream.contract import AlarmEvent, AlarmKind, Finding, Presence, Priority, Stamps, alarm_id
from stream.heartbeat import HEARTBEAT
from stream.settings import Settings
from stream.topics import ALARMS, FINDINGS, SAMPLES, TOPICS
from stream.transport.layout import stream_key

_GROUP, _CONSUMER = "plain", "plain-1"
_READ, _BLOCK_MS = 64, 1000
# As Bedside's worker.
_BEAT_S, _BEAT_TTL_S = 1.0, 5


class _Alarms:
    # The alarm rule of one bed: k of the last n windows over the threshold.

    def __init__(self, rule: AlarmRule, bed: str) -> None:
        self._rule, self._bed = rule, bed
        self._over: deque[bool] = deque(maxlen=rule.n)
        self._open: tuple[str, int] | None = None

    def judge(self, scored: Scored, over: bool, session: str, ingest_ns: int, fs: float) -> AlarmEvent | None:
        self._over.append(over)
        number = sum(self._over)
        if self._open is None and number >= self._rule.k:
            self._open = alarm_id(self._bed, session, "plain", scored.start), scored.start
            presence = Presence.ON
        elif self._open is not None and len(self._over) - number >= self._rule.n - self._rule.clear:
            presence = Presence.OFF
        else:
            return None
        alarm, onset = self._open
        if presence is Presence.OFF:
            self._open = None
        return AlarmEvent(
            alarm=alarm,
            event=f"{alarm}-{int(presence is Presence.OFF)}",
            bed=self._bed,
            session=session,
            rule="plain",
            kind=AlarmKind.PHYSIOLOGICAL,
            code="ECG_ANOMALY",
            priority=Priority.MEDIUM,
            presence=presence,
            onset=onset,
            onset_t=ingest_ns - round((scored.end - onset) * 1e9 / fs),
            since=ingest_ns,
            score=scored.score,
            message="unusual ECG",
            ingest_ns=ingest_ns,
        )


class _Loop:
    def __init__(self, client: redis.Redis, prefix: str, chain: Chain) -> None:
        self._client, self._prefix, self._chain = client, prefix, chain
        self._beds: dict[str, tuple[Bed, _Alarms]] = {}
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
            self._beds[name] = self._chain.open_bed(header["fs"]), _Alarms(self._chain.alarm, name)
        bed, alarms = self._beds[name]
        begun_ns = time.time_ns()
        for scored in bed.push(samples):
            inferred_ns = time.time_ns()
            over = scored.score > self._chain.threshold
            ingest_ns, fs = header["ingest_ns"], header["fs"]
            finding = Finding(
                bed=name,
                session=header["session"],
                model=self._chain.name,
                window=scored.window,
                start=scored.start,
                end=scored.end,
                t_start=ingest_ns - round((scored.end - scored.start) * 1e9 / fs),
                t_end=ingest_ns,
                score=scored.score,
                threshold=self._chain.threshold,
                percentile=None,
                lead_scores={},
                anomalous=over,
                stamps=Stamps(
                    ingest_ns=ingest_ns,
                    dequeued_ns=dequeued_ns,
                    ready_ns=begun_ns,
                    inferred_ns=inferred_ns,
                    published_ns=time.time_ns(),
                ),
            )
            self._publish(FINDINGS, name, finding.encode())
            event = alarms.judge(scored, over, header["session"], ingest_ns, fs)
            if event is not None:
                self._publish(ALARMS, name, event.encode())
            begun_ns = time.time_ns()

    def _publish(self, topic: str, key: str, value: bytes) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._client.xadd(stream_key(self._prefix, topic, 0), {"t": now_ms, "k": key, "v": value})


@click.command()
@click.argument("what", type=click.Choice(["same", "thesis"]))
@click.option("--model", required=True, help="Bundle of the row `same`.")
@click.option("--redis", "url", required=True, help="Server of the streams.")
def main(what: str, model: str, url: str) -> None:
    """Score every bed in a plain loop, until stopped."""
    chain = same_chain(model) if what == "same" else thesis_chain()
    with redis.Redis.from_url(url, protocol=2) as client:
        _Loop(client, Settings().prefix, chain).run()


if __name__ == "__main__":
    main()
