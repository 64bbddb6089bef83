"""Looking at an alarm again: from the samples of the stream to its snapshot.

Explanations are not kept for all beds all the time: those of a snapshot are computed when it is made, by the
engine and the overlay that `bedside analyze` runs, and are therefore the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from models.manifest import Manifest
from models.session import Session
from stream.alarms.state import DueSnapshot
from stream.contract import INVALID, AlarmEvent, SampleChunk
from stream.offline import Analysis, MapResult, analyse, joined
from stream.overlay import Overlay, Traces
from stream.preprocess import SETTLING_S
from stream.results import WindowResult
from stream.snapshots.store import VALIDITIES, Array, Snapshot

BEFORE_S = 10.0
"""From so long before the onset: what the ECG was like before."""

AFTER_S = 10.0
"""Until so long after the alarm was raised: whether it went on."""

MOST_S = 60.0
"""No snapshot is longer. An alarm that a pause kept silent may be raised long after its onset: the time at
which it was raised is what people ask for, so the beginning is cut off."""

# A stretch that lacks less than this is whole: half a sample at 100 Hz.
_WHOLE_S = 0.005


class Span(NamedTuple):
    """Where a snapshot lies, in samples of its session."""

    start: int
    end: int
    cut: int
    """So many samples before it are wanted, too, and are more than a snapshot takes."""


def span_of(raised: AlarmEvent, fs: float) -> Span:
    """Return the samples that the snapshot of an alarm is to hold, for a feed of `fs` Hz."""
    wanted = max(0, raised.onset - round(BEFORE_S * fs))
    end = raised.onset + round((raised.since - raised.onset_t) * fs / 1e9) + round(AFTER_S * fs)
    start = max(wanted, end - round(MOST_S * fs))
    return Span(start, end, start - wanted)


def reach_of(raised: AlarmEvent, fs: float, manifest: Manifest) -> tuple[int, int]:
    """Return the samples that making the snapshot needs: first, and the one after the last.

    The windows that cover its first point begin a window before it, and their filter has to have settled.
    """
    span = span_of(raised, fs)
    return max(0, span.start - math.ceil((manifest.window.seconds + SETTLING_S) * fs)), span.end


def make_snapshot(
    due: DueSnapshot, chunks: Iterable[SampleChunk], session: Session | None, manifest: Manifest, made_ns: int
) -> Snapshot:
    """Make the snapshot of an alarm.

    Parameters
    ----------
    due : DueSnapshot
    chunks : iterable of SampleChunk
        Of the alarm's session, as the stream has them: in its order, with repeats and holes, at least those
        in `reach_of`. What there is of them is taken.
    session : Session or None
        The model. None: it could not be run; the snapshot holds samples alone, and says so.
    manifest : Manifest
        The model's.
    made_ns : int
        The time, ns since the epoch.

    Returns
    -------
    Snapshot
        A function of the samples in `reach_of`, however they were cut into chunks (but for the array
        ``chunks``).
    """
    raised = due.raised
    heard = _in_order(chunks)
    remarks: list[str] = []
    fs = heard[0].header.fs if heard else 0.0
    span = span_of(raised, fs)
    first, stop = reach_of(raised, fs, manifest)
    heard = [cut for chunk in heard if (cut := _cut(chunk, first, stop)) is not None]
    inside = [cut for chunk in heard if (cut := _cut(chunk, span.start, span.end)) is not None]
    thresholds = manifest.thresholds["fp32" if session is None else session.precision]
    fields = {
        "alarm": raised,
        "model": manifest.name,
        "precision": "none" if session is None else session.precision,
        "threshold": thresholds.window if due.threshold is None else due.threshold,
        "trace_fs": manifest.window.fs,
        "admitted_t": due.admitted_t,
        "made_ns": made_ns,
    }
    if not inside:
        remarks.append("no samples: the stream holds this part of the feed no more")
        return _without_samples(fields, remarks)
    if span.cut:
        remarks.append(f"cut: {span.cut / fs:.1f} s at the beginning are left out, {MOST_S:g} s are kept")
    remarks += _missing(inside, span, fs)
    samples, rescaled = _samples(inside)
    if rescaled:
        remarks.append("the source changed its gain: all samples are given in its first one")
    header = inside[0].header
    arrays: dict[str, Array] = {
        "samples": samples,
        "chunks": np.array([(chunk.header.n0, chunk.end) for chunk in inside]),
        "valid": np.array([[VALIDITIES.index(flag) for flag in chunk.header.valid] for chunk in inside]),
    }
    begin, n = header.n0, len(samples)
    fields |= {"fs": fs, "leads": header.leads, "gain": header.gain, "n0": begin, "t0": header.t0}
    if session is None:
        remarks.append("not explained: the model could not be run")
        nothing = _nothing([lead for lead in manifest.leads if lead in header.leads])
        return Snapshot.of(
            arrays | nothing.arrays, **fields, **nothing.fields, trace_t0=header.t0, remarks=tuple(remarks)
        )
    whole = list(_without_holes(heard))
    lead_in_s = (begin - whole[0].header.n0) / fs
    if whole[0].header.n0 > 0 and lead_in_s < SETTLING_S - _WHOLE_S:
        unsure_s = SETTLING_S - lead_in_s
        remarks.append(f"the filter had not settled in the first {unsure_s:.1f} s: what came before is gone")
    overlay = Overlay(manifest, header.leads, fs, sum(len(chunk.samples) for chunk in whole) / fs)
    analysis = analyse(overlay.heard(joined(whole)), session, record=raised.alarm, on_window=overlay.add)
    said = _said(analysis, overlay.traces(), whole[0].header.n0, begin, n)
    return Snapshot.of(
        arrays | said.arrays,
        **fields,
        **said.fields,
        trace_t0=header.t0 + round(said.late_s * 1e9),
        remarks=tuple(remarks),
    )


def analysis_of(snapshot: Snapshot, record: str) -> Analysis:
    """Return what a snapshot says, as the analysis of a recording that begins and ends where it does.

    Windows that reach beyond it are among its windows. Its own alarm is not among its alarms: of that, the
    header tells.
    """
    header, arrays = snapshot.header, snapshot.arrays
    by_lead = arrays["window_lead_score"].tolist()
    return Analysis(
        record=record,
        model=header.model,
        fs=header.fs,
        leads=header.leads,
        duration_s=snapshot.seconds,
        record_score=None,
        threshold=header.threshold,
        window_threshold=header.threshold,
        anomalous=None,
        windows=[
            WindowResult(
                start_s=(start - header.n0) / header.fs,
                end_s=(end - header.n0) / header.fs,
                score=score,
                anomalous=score > header.threshold,
                lead_scores={
                    lead: value
                    for lead, value in zip(header.trace_leads, scores, strict=True)
                    if not math.isnan(value)
                },
            )
            for (start, end), score, scores in zip(
                arrays["windows"].tolist(), arrays["window_score"].tolist(), by_lead, strict=True
            )
        ],
        not_scored={},
        beats_s=((arrays["beats"] - header.n0) / header.fs).tolist() if header.fs else [],
        alarms=[],
        explanations={
            name: MapResult(shown=why_not is None, why_not=why_not) for name, why_not in header.maps.items()
        },
    )


def traces_of(snapshot: Snapshot) -> Traces:
    """Return the arrays of a snapshot on one time axis, which begins with its first sample.

    One that is not explained gives its samples in millivolts, from each lead's median, in the place of the
    signal that the model was given.
    """
    header, arrays = snapshot.header, snapshot.arrays
    if not arrays["signal"].size:
        samples = arrays["samples"]
        millivolts = np.where(samples == INVALID, np.nan, samples / np.array(header.gain)).T
        present = np.isfinite(millivolts).any(axis=1)
        millivolts[present] -= np.nanmedian(millivolts[present], axis=1, keepdims=True)
        signal = millivolts.astype(np.float32)
        t_s = np.arange(len(samples)) / (header.fs or 1.0)
        nothing = np.full_like(signal, np.nan)
        return Traces(header.leads, header.fs, t_s, signal, nothing, nothing, nothing)
    floats = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype == np.float16}
    first_s = (header.trace_t0 - header.t0) / 1e9
    return Traces(
        leads=header.trace_leads,
        fs=header.trace_fs,
        t_s=first_s + np.arange(floats["signal"].shape[1]) / header.trace_fs,
        absolute_error=floats.pop("error"),
        # Not kept: it is what scores are made of, and those are.
        squared_error=np.full_like(floats["signal"], np.nan),
        **floats,
    )


def _in_order(chunks: Iterable[SampleChunk]) -> list[SampleChunk]:
    # What the engine would take of them: none twice, none that runs back, all alike.
    taken: list[SampleChunk] = []
    for chunk in chunks:
        if not taken:
            taken.append(chunk)
            continue
        last, header = taken[-1], chunk.header
        alike = (header.leads, header.fs) == (last.header.leads, last.header.fs)
        if alike and header.seq > last.header.seq and chunk.end > last.end:
            new = _cut(chunk, last.end, chunk.end)
            assert new is not None
            taken.append(new)
    return taken


def _cut(chunk: SampleChunk, first: int, stop: int) -> SampleChunk | None:
    # The part of a chunk between two samples of its session.
    begin, end = max(first, chunk.header.n0), min(stop, chunk.end)
    if begin >= end:
        return None
    if (begin, end) == (chunk.header.n0, chunk.end):
        return chunk
    header = chunk.header.model_copy(update={"n0": begin, "t0": chunk.time_of(begin)})
    return SampleChunk(header, chunk.samples[begin - chunk.header.n0 : end - chunk.header.n0])


def _missing(inside: Sequence[SampleChunk], span: Span, fs: float) -> list[str]:
    # What the snapshot lacks at its ends.
    remarks = []
    before_s, after_s = (inside[0].header.n0 - span.start) / fs, (span.end - inside[-1].end) / fs
    if before_s > _WHOLE_S:
        remarks.append(f"the first {before_s:.1f} s are missing: the stream holds them no more")
    if after_s > _WHOLE_S:
        why = "the feed ended" if inside[-1].header.last else "no more came in time"
        remarks.append(f"the last {after_s:.1f} s are missing: {why}")
    return remarks


def _samples(inside: Sequence[SampleChunk]) -> tuple[Array, bool]:
    # Of the whole stretch, and whether some had to be brought to the gain of the first.
    begin, gain = inside[0].header.n0, inside[0].header.gain
    samples = np.full((inside[-1].end - begin, len(gain)), INVALID, np.int16)
    rescaled = False
    for chunk in inside:
        values = chunk.samples
        if chunk.header.gain != gain:
            rescaled = True
            scaled = np.rint(values * (np.array(gain) / np.array(chunk.header.gain)))
            values = np.where(values == INVALID, INVALID, np.clip(scaled, INVALID + 1, 32767))
        samples[chunk.header.n0 - begin : chunk.end - begin] = values
    return samples, rescaled


def _without_holes(chunks: Sequence[SampleChunk]) -> Iterator[SampleChunk]:
    # Samples that never came and samples that are invalid are the same to the engine.
    last: SampleChunk | None = None
    for chunk in chunks:
        if last is not None and (hole := chunk.header.n0 - last.end):
            header = last.header.model_copy(update={"n0": last.end, "t0": last.time_of(last.end)})
            yield SampleChunk(header, np.full((hole, len(header.leads)), INVALID, np.int16))
        yield chunk
        last = chunk


class _Said(NamedTuple):
    # What the model says, for a snapshot: arrays, header fields, and when its first point is.
    arrays: dict[str, Array]
    fields: dict[str, object]
    late_s: float


def _said(analysis: Analysis, traces: Traces, n0: int, begin: int, n: int) -> _Said:
    # `n0` is where the analysis began, `begin` where the snapshot does, `n` how long it is.
    fs = analysis.fs
    at_s = (begin - n0) / fs
    points = slice(*np.searchsorted(traces.t_s, [at_s - 0.5 / traces.fs, at_s + n / fs]).tolist())
    windows = [
        (n0 + round(window.start_s * fs), n0 + round(window.end_s * fs)) for window in analysis.windows
    ]
    kept = [place for place, (start, end) in enumerate(windows) if end > begin and start < begin + n]
    by_lead = [
        [analysis.windows[place].lead_scores.get(lead, math.nan) for lead in traces.leads] for place in kept
    ]
    beats = [n0 + round(beat * fs) for beat in analysis.beats_s]
    arrays: dict[str, Array] = {
        "windows": np.array([windows[place] for place in kept], np.int64).reshape(-1, 2),
        "window_score": np.array([analysis.windows[place].score for place in kept]),
        "window_lead_score": np.array(by_lead).reshape(len(kept), len(traces.leads)),
        "beats": np.array([beat for beat in beats if begin <= beat < begin + n]),
        "signal": traces.signal[:, points],
        "reconstruction": traces.reconstruction[:, points],
        "error": traces.absolute_error[:, points],
    }
    if traces.spread is not None:
        arrays["spread"] = traces.spread[:, points]
    if traces.temporal_attention is not None:
        arrays["temporal_attention"] = traces.temporal_attention[points]
    if traces.lead_attention is not None:
        arrays["lead_attention"] = traces.lead_attention[:, points]
    maps = {name: found.why_not for name, found in analysis.explanations.items()}
    first = traces.t_s[points]
    return _Said(
        arrays, {"trace_leads": traces.leads, "maps": maps}, float(first[0]) - at_s if len(first) else 0.0
    )


def _nothing(leads: Sequence[str]) -> _Said:
    rows = np.empty((len(leads), 0))
    arrays: dict[str, Array] = {
        "windows": np.empty((0, 2)),
        "window_score": np.empty(0),
        "window_lead_score": np.empty((0, len(leads))),
        "beats": np.empty(0),
        "signal": rows,
        "reconstruction": rows,
        "error": rows,
    }
    return _Said(arrays, {"trace_leads": tuple(leads), "maps": {}}, 0.0)


def _without_samples(fields: dict[str, object], remarks: Sequence[str]) -> Snapshot:
    raised = fields["alarm"]
    assert isinstance(raised, AlarmEvent)
    nothing = _nothing(())
    arrays = {"samples": np.empty((0, 0)), "chunks": np.empty((0, 2)), "valid": np.empty((0, 0))}
    return Snapshot.of(
        arrays | nothing.arrays,
        **fields,
        **nothing.fields,
        fs=0.0,
        leads=(),
        gain=(),
        n0=raised.onset,
        t0=raised.onset_t,
        trace_t0=raised.onset_t,
        remarks=tuple(remarks),
    )
