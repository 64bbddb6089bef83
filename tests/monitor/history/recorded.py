"""A patient whom the real recorder has recorded, with the alarms that a worker would have raised."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ingest.chunks import chunks_of
from ingest.simulator import PatientSimulator
from models.session import Session
from stream.bus import Bus
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.offline import Outcome, run
from stream.topics import ALARMS
from tests.stream.recording.making import T0, record

S = 1_000_000_000
# A minute and a half of calm, then ten seconds of tachycardia; a lead comes off later.
TIMELINE = "sinus:80@0 vt:180@90 sinus:80@100 leadoff:V1@125+4"
SECONDS = 140.0
VT_S = 90.0
BED = "icu 1/a"
# After a pause of a minute the same bed has another device, of another rate, for half a minute.
SECOND_S = SECONDS + 60.0
SECOND_FS = 250.0


def first_session() -> list[SampleChunk]:
    patient = PatientSimulator(3, TIMELINE, duration_s=SECONDS)
    return list(chunks_of(patient, BED, "first", base_time_ns=T0))


def second_session() -> list[SampleChunk]:
    patient = PatientSimulator(4, "", fs=SECOND_FS, duration_s=30.0)
    return list(chunks_of(patient, BED, "second", base_time_ns=T0 + round(SECOND_S * S)))


def record_patient(server: EmbeddedServer, root: Path, session: Session) -> Outcome:
    """Record both sessions, and return what was found in the first one live."""
    live = run(first_session(), session)

    async def tell(bus: Bus) -> None:
        for event in live.events:
            await bus.publish(ALARMS, event.bed.encode(), event.encode())

    asyncio.run(record(server, root, [*first_session(), *second_session()], also=tell))
    return live
