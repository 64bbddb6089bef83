"""Messages as they come over the streams, for the tests of this folder."""

from __future__ import annotations

import numpy as np

from stream.contract import (
    AlarmEvent,
    AlarmKind,
    ChunkHeader,
    Explanation,
    ExplanationHeader,
    Finding,
    Presence,
    Priority,
    SampleChunk,
    Stamps,
    Validity,
    Vitals,
    to_lsb,
)

S = 1_000_000_000
T0 = 1_700_000_000 * S


def beats(n0: int, n: int, fs: float, n_leads: int) -> np.ndarray:
    """Return millivolts, shape (n, leads): 75 narrow complexes a minute, taller in each further lead."""
    t = (np.arange(n0, n0 + n) / fs) % 0.8
    wave = np.exp(-0.5 * ((t - 0.3) / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((t - 0.6) / 0.05) ** 2)
    return wave[:, np.newaxis] * (1 + 0.1 * np.arange(n_leads))


def chunk(
    seq: int,
    *,
    bed: str = "bed-1",
    session: str = "s1",
    fs: float = 500.0,
    n: int = 100,
    n0: int | None = None,
    leads: tuple[str, ...] = ("I", "II"),
    millivolts: np.ndarray | None = None,
    valid: dict[str, Validity] | None = None,
    pace: float = 1.0,
    last: bool = False,
    t0: int | None = None,
    ingest_ns: int | None = None,
) -> SampleChunk:
    first = seq * n if n0 is None else n0
    if millivolts is None:
        millivolts = beats(first, n, fs, len(leads))
    start = T0 + round(first / fs * S) if t0 is None else t0
    header = ChunkHeader(
        bed=bed,
        session=session,
        seq=seq,
        t0=start,
        ingest_ns=start + round(n / fs * S) if ingest_ns is None else ingest_ns,
        n0=first,
        fs=fs,
        leads=leads,
        gain=(1000.0,) * len(leads),
        valid=tuple((valid or {}).get(lead, Validity.OK) for lead in leads),
        pace=pace,
        last=last,
    )
    return SampleChunk(header, to_lsb(millivolts))


def finding(
    window: int,
    *,
    bed: str = "bed-1",
    session: str = "s1",
    score: float | None = 0.5,
    fs: float = 500.0,
    reason: str | None = None,
    lead_scores: dict[str, float] | None = None,
    t_end: int | None = None,
    model: str = "test-model",
) -> Finding:
    end = round((8 + 0.5 * window) * fs)
    stop = T0 + round(end / fs * S) if t_end is None else t_end
    return Finding(
        bed=bed,
        session=session,
        model=model,
        window=window,
        start=end - round(8 * fs),
        end=end,
        t_start=stop - 8 * S,
        t_end=stop,
        score=score,
        threshold=2.0,
        percentile=None if score is None else 50.0,
        lead_scores=lead_scores or {},
        anomalous=score is not None and score > 2.0,
        reason=reason,
        stamps=Stamps(ingest_ns=stop, dequeued_ns=stop, ready_ns=stop),
    )


def alarm(
    name: str = "a1",
    number: int = 0,
    *,
    bed: str = "bed-1",
    session: str = "s1",
    presence: Presence = Presence.ON,
    priority: Priority = Priority.MEDIUM,
    kind: AlarmKind = AlarmKind.PHYSIOLOGICAL,
    message: str = "unusual ECG",
    rule: str = "anomaly",
    onset_t: int = T0,
    ingest_ns: int = T0,
) -> AlarmEvent:
    return AlarmEvent(
        alarm=name,
        event=f"{name}-{number}",
        bed=bed,
        session=session,
        rule=rule,
        kind=kind,
        code="ECG_ANOMALY",
        priority=priority,
        presence=presence,
        onset=0,
        onset_t=onset_t,
        since=onset_t,
        message=message,
        ingest_ns=ingest_ns,
    )


def explanation(
    reconstruction: np.ndarray,
    *,
    leads: tuple[str, ...] = ("I", "II"),
    bed: str = "bed-1",
    session: str = "s1",
    window: int = 0,
    t_start: int = T0,
    fs: float = 100.0,
    arrays: dict[str, np.ndarray] | None = None,
) -> Explanation:
    arrays = {"reconstruction": reconstruction} | (arrays or {})
    arrays = {name: array.astype(np.float16) for name, array in arrays.items()}
    header = ExplanationHeader(
        bed=bed,
        session=session,
        window=window,
        start=0,
        end=1,
        t_start=t_start,
        fs=fs,
        leads=leads,
        shapes={name: array.shape for name, array in arrays.items()},
    )
    return Explanation(header, arrays)


def vitals(
    second: int,
    *,
    bed: str = "bed-1",
    session: str = "s1",
    rate: float | None = 75.0,
    fs: float = 500.0,
    quality: dict[str, float] | None = None,
    issues: dict[str, tuple[str, ...]] | None = None,
) -> Vitals:
    end = round((second + 1) * fs)
    return Vitals(
        bed=bed,
        session=session,
        start=round(second * fs),
        end=end,
        t_end=T0 + round(end / fs * S),
        heart_rate=rate,
        rr_irregularity=None,
        beats=(end - 100,),
        quality=quality or {"I": 1.0, "II": 1.0},
        issues=issues or {},
        ingest_ns=T0 + round(end / fs * S),
    )
