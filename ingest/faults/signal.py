"""Faults of electrodes and amplifiers: what they do to the samples of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.faults.noise import BANDS_HZ, Float64Array, ecg_deviation, endless_noise
from ingest.faults.script import AnyFault, Chance, Gap, LeadOff, Noise, Saturation
from ingest.source import MAX_LSB, Recording
from stream.contract import INVALID, Validity, to_lsb

# From so much of the beginning the amplitude of the ECG is taken: some ten beats.
_MEASURED_S = 10.0


@dataclass(frozen=True, slots=True)
class _Placed:
    # A fault with its columns, and what it draws.
    fault: LeadOff | Saturation | Noise | Gap
    columns: npt.NDArray[np.intp]
    chance: Chance


class FaultyRecording(Recording):
    """A recording with faults of its signal.

    Parameters
    ----------
    recording : Recording
    faults : sequence of (int, Fault)
        Of its bed, each with its place in the script; those that are not of the signal are passed over.
    seed : int
    bed : str
    start_s : float
        Where in the recording the feed begins.

    Notes
    -----
    Samples outside of the faults are those of the recording, to the last bit; each sample is the same however
    it is read.
    """

    def __init__(
        self,
        recording: Recording,
        faults: list[tuple[int, AnyFault]],
        *,
        seed: int,
        bed: str,
        start_s: float = 0.0,
    ) -> None:
        super().__init__(
            name=recording.name,
            fs=recording.fs,
            leads=recording.leads,
            gain=recording.gain,
            n_samples=recording.n_samples,
            start_time=recording.start_time,
        )
        self.blocking, self.first_index = recording.blocking, recording.first_index
        self._recording = recording
        self._origin = round(start_s * recording.fs)
        self._placed = [
            _Placed(fault, _columns(fault, recording.leads), Chance(seed, bed, place))
            for place, fault in faults
            if isinstance(fault, LeadOff | Saturation | Noise | Gap)
        ]
        self._deviation: Float64Array | None = None

    @property
    def start_ns(self) -> int:
        """Device time of the first sample, ns since the epoch."""
        return self._recording.start_ns

    def flags(self, start: int, stop: int, samples: npt.NDArray[np.int16]) -> tuple[Validity, ...] | None:
        """Return what the source says of the leads in a stretch; one without a sample is off."""
        said = self._recording.flags(start, stop, samples)
        if said is None or not len(samples):
            return said
        gone = (samples == INVALID).all(axis=0)
        return tuple(Validity.OFF if off else flag for off, flag in zip(gone, said, strict=True))

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int16]:
        samples = self._recording.read(start, stop)
        begin, end = start - self._origin, start - self._origin + len(samples)
        touched = False
        for placed in self._placed:
            fault = placed.fault
            for number, first_s, last_s in fault.spans(begin / self.fs, end / self.fs):
                if not len(placed.columns) or not fault.happens(placed.chance, number):
                    continue
                a = max(begin, round(first_s * self.fs))
                b = end if np.isinf(last_s) else min(end, round(last_s * self.fs))
                if a >= b:
                    continue
                if not touched:
                    # What a recording returns may be its own memory.
                    samples, touched = samples.copy(), True
                self._apply(placed, samples[a - begin : b - begin], a, b, number)
        return samples

    def _apply(self, placed: _Placed, part: npt.NDArray[np.int16], a: int, b: int, number: int) -> None:
        fault, columns = placed.fault, placed.columns
        own = part[:, columns]
        if isinstance(fault, Noise):
            key = placed.chance.key(-1 - number)
            noise = endless_noise(a, b, len(columns), self.fs, BANDS_HZ[fault.kind], key)
            scale = self._ecg_lsb()[columns] * 10 ** (-fault.snr_db / 20)
            values = np.where(own == INVALID, np.nan, own + scale * noise)
            part[:, columns] = to_lsb(values, 1.0)
        elif isinstance(fault, Saturation):
            gain = np.array(self.gain)[columns]
            rail = np.clip(np.rint(fault.millivolts * gain), -MAX_LSB, MAX_LSB).astype(np.int16)
            # An electrode that is off does not come back by it.
            part[:, columns] = np.where(own == INVALID, INVALID, rail)
        else:
            part[:, columns] = INVALID

    def _ecg_lsb(self) -> Float64Array:
        if self._deviation is None:
            stop = self._origin + round(_MEASURED_S * self.fs)
            samples = self._recording.read(self._origin, stop)
            self._deviation = ecg_deviation(np.where(samples == INVALID, np.nan, samples), self.fs)
        return self._deviation


def _columns(fault: AnyFault, leads: tuple[str, ...]) -> npt.NDArray[np.intp]:
    named = getattr(fault, "leads", None)
    return np.array([at for at, lead in enumerate(leads) if named is None or lead in named], np.intp)
