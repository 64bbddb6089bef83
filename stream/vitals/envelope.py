"""What beats stand out of: the envelope of QRS energy in each lead of a bed, and in all leads together.

Per lead, an analytic filter (a Mexican-hat wavelet and its Hilbert transform) gives the envelope of what
oscillates at about 12 Hz, where QRS complexes differ most from P and T waves. Each lead's envelope is divided
by the level that it usually reaches in a beat, and the leads are joined by their signal-to-noise ratios: the
joined envelope is about 1 in a beat, whatever the leads are.

Half a second of many beds is taken at once: of a dozen leads the calls cost several times what they compute.
Arrays of beds are joined with `numpy.array`, which takes a third of the time of `numpy.stack`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from stream.preprocess import BRIDGE_S
from stream.vitals.grid import BLOCK, FS
from stream.vitals.medians import lower_median
from stream.vitals.memory import Arrays

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

HISTORY = 8 * BLOCK
"""Samples kept: 4 s to tell whether there is an oscillation. A pending candidate with its shape needs 2 s."""

REACH = 12
"""Half the length of the wavelet in samples: what lies further out is below a hundredth of its peak. The
newest envelope belongs so many samples before the newest sample."""

REFRACTORY = 20
"""Two beats are at least this far apart, samples: 300 beats/min."""

CLEAR = 0.4
"""Joined envelope, in parts of the usual beat's, from which a candidate is a beat by itself."""

LEARNING = 6
"""Blocks that are looked at before the first verdict: one beat and another for 40 beats/min."""

# The wavelet's middle frequency. On MIT-BIH the gap between the lowest beats and the highest T waves is
# widest at 12 Hz, of 8, 10 and 12; above, the conditioner's low-pass and muscle noise set in.
_CENTRE_HZ = 12.0
# Beats from whose median the usual level of each lead is taken, and how many the first blocks stand for.
_LEVELS = 8
_LEVELS_LEAST = 3
# Blocks over which a lead's noise is taken.
_NOISE_BLOCKS = 5
# A lead counts at most so many times its usual level: an artefact in one lead stays an artefact in one lead.
_CEILING = 3.0
# Largest weight of a lead, as the square of its signal-to-noise ratio.
_WEIGHT_MAX = 400.0
# A lead that for so many blocks has stayed below this part of its level is silent; a lead of this
# signal-to-noise ratio shows beats and not noise.
_SILENT_BLOCKS, _SILENT, _QUIET = 3, 0.15, 3.0
# Below this envelope, mV, nothing is a beat: a QRS complex of 0.1 mV from peak to peak has about 0.04.
_FLOOR_MV = 0.03
# Divides in place of 0, far below all that is asked of the quotients.
_NOTHING = 1e-6
# Of the joined envelope this much is looked at again when the next block has come, samples: what is calm.
_LOOKED_AT = 3 * BLOCK
# Half the stretch around a beat in which a lead reaches its peak, samples.
_AROUND = 6


def _wavelet() -> npt.NDArray[np.complex128]:
    n = 4096
    relative = np.fft.fftfreq(n, 1 / FS) / _CENTRE_HZ
    # The Mexican hat's spectrum, its peak at 1; twice the positive frequencies make it analytic.
    spectrum = np.where(relative > 0, 2 * relative**2 * np.exp(1 - relative**2), 0.0)
    full = np.fft.ifft(spectrum)
    taps = np.concatenate([full[-REACH:], full[: REACH + 1]])
    # Cut to its length it would let baseline through.
    return np.asarray(taps - taps.mean())


def _block_filter() -> Float32Array:
    # The wavelet as a matrix that takes the samples of a block, and REACH on both sides, to real and
    # imaginary parts: shape (BLOCK + 2 REACH, 2 BLOCK).
    taps = _wavelet()[::-1]
    matrix = np.zeros((BLOCK + 2 * REACH, 2 * BLOCK), np.float32)
    for column in range(BLOCK):
        matrix[column : column + len(taps), column] = taps.real
        matrix[column : column + len(taps), BLOCK + column] = taps.imag
    return matrix


_FILTER = _block_filter()


class Envelope:
    """Signal and envelope of the leads of one bed.

    Parameters
    ----------
    n_leads : int
    stop : int
        Grid index of the first sample that will come, a multiple of `stream.vitals.grid.BLOCK`.
    """

    def __init__(self, n_leads: int, stop: int) -> None:
        self.n_leads = n_leads
        self.stop = stop
        """Grid index after the newest sample."""
        # Rows: samples, envelope, joined envelope. Twice as long as what is looked at, so that it has to be
        # moved to the front only now and then.
        self._rows = np.zeros((2 * n_leads + 1, 2 * HISTORY), np.float32)
        self._used = HISTORY
        # Whether each of the samples that the filter reaches was gone, whether any was, and where each
        # lead's last one was.
        self._gone = np.ones((n_leads, BLOCK + 2 * REACH), np.bool_)
        self._some_gone = True
        self._gone_to = np.full(n_leads, stop)
        # Of the last blocks, by number of the block: in these no order matters.
        self._block = 0
        self._noise = np.zeros((_NOISE_BLOCKS, n_leads))
        self._peaks = np.zeros((LEARNING, n_leads))
        self._recent = np.zeros((_SILENT_BLOCKS, n_leads))
        # Sums over each block's samples: of their magnitudes, and of their squares.
        self._sums = np.zeros((2, HISTORY // BLOCK, n_leads))
        # Each lead's envelope in the last beats.
        self._levels = np.zeros((_LEVELS, n_leads))
        self._beats = 0
        self.learned = False
        """Whether the leads' levels are known."""
        self.level = np.full(n_leads, np.nan)
        """Envelope of each lead in a usual beat, mV; NaN while it is unknown."""
        # Root of each lead's share in the joined envelope.
        self._share = np.zeros(n_leads)
        self.present = np.ones(n_leads, np.bool_)
        """Which leads were there and usable in the newest block."""

    @property
    def x(self) -> Float32Array:
        """The last `HISTORY` samples in mV, shape (leads, `HISTORY`)."""
        return self._rows[: self.n_leads, self._used - HISTORY : self._used]

    @property
    def joined(self) -> Float32Array:
        """The joined envelope, shape (`HISTORY`,); `REACH` samples older than `x`."""
        return self._rows[-1, self._used - HISTORY : self._used]

    @property
    def scale(self) -> Float64Array:
        """What gives a lead its share in the shape of a beat, at the level of the beat before, 1/mV."""
        counts = self._share > 0
        return np.where(counts, self._share / np.where(counts, self.level, 1.0), 0.0)

    @property
    def whole(self) -> BoolArray:
        """Which leads have been present for all of `x`."""
        return self.present & (self._gone_to <= self.stop - HISTORY)

    def _newest(self, blocks: int = 1) -> Float32Array:
        # Envelope of the newest blocks.
        return self._rows[self.n_leads : -1, self._used - blocks * BLOCK : self._used]

    def _make_room(self) -> None:
        if self._used == 2 * HISTORY:
            self._rows[:, : HISTORY - BLOCK] = self._rows[:, HISTORY + BLOCK :]
            self._used = HISTORY - BLOCK
        self._used += BLOCK
        self.stop += BLOCK
        self._block += 1

    def _note_gone(self, gone: BoolArray) -> BoolArray:
        # Takes what was gone in the newest block, and returns where the envelope says nothing: a gap, and
        # the jump at its end, reach as far as the filter.
        self._gone = np.concatenate([self._gone[:, BLOCK:], gone], axis=1)
        last = self.stop - np.argmax(gone[:, ::-1], axis=1)
        self._gone_to = np.where(gone.any(axis=1), last, self._gone_to)
        self._some_gone = bool(self._gone.any())
        return np.asarray(sliding_window_view(self._gone, 2 * REACH + 1, axis=1).any(axis=2))

    def _learn(self) -> None:
        # Levels of the leads from the first blocks, without knowing where the beats are: the second highest
        # block, so that one artefact does no harm.
        if self._block < LEARNING:
            return
        level = np.sort(self._peaks, axis=0)[-2]
        good = self.present & (level >= _FLOOR_MV)
        if not good.any():
            return
        self.level = np.where(good, level, np.nan)
        self._levels[:_LEVELS_LEAST] = self.level
        self._beats = _LEVELS_LEAST
        self.learned = True
        _join([self], LEARNING)

    def note_beat(self, index: int, *, forget: bool) -> None:
        """Learn the leads' levels from a beat.

        Parameters
        ----------
        index : int
            Its grid index, among the last `HISTORY` samples.
        forget : bool
            Whether the beats before it no longer count.
        """
        column = self._used - (self.stop - index) + REACH
        around = self._rows[self.n_leads : -1, column - _AROUND : column + _AROUND + 1]
        peak = around.max(axis=1).astype(np.float64)
        peak[around.min(axis=1) == 0.0] = np.nan
        if forget:
            self._beats = 0
        self._levels[self._beats % _LEVELS] = peak
        self._beats += 1
        middle = lower_median(self._levels[: self._beats])
        self.level = np.where(np.isnan(middle), self.level, middle)

    def remember(self) -> Arrays:
        """Return the state, without what the last `HISTORY` samples alone decide."""
        # Levels are elements of the envelope, which is float32.
        return {
            "levels": np.array([*self._levels, self.level], np.float32),
            "levelled": np.array([self._beats, self.learned]),
            "joined": self.joined[-_LOOKED_AT:].copy(),
        }

    def recall(self, state: Arrays) -> None:
        """Take the state that another one had at the same sample."""
        *levels, level = state["levels"].astype(np.float64)
        self._levels, self.level = np.array(levels), level
        beats, learned = state["levelled"].tolist()
        self._beats, self.learned = beats, bool(learned)
        self.joined[-_LOOKED_AT:] = state["joined"]


def hear_together(blocks: Sequence[tuple[Envelope, Float32Array, Float32Array, BoolArray]]) -> None:
    """Take the next block of each of several beds.

    Parameters
    ----------
    blocks : sequence of tuple
        Of different beds with the same number of leads: envelope; samples in mV, and seconds since the last
        valid one (as in `stream.preprocess.Resampled`), of shape (leads, `stream.vitals.grid.BLOCK`); which
        leads are usable.

    Notes
    -----
    What comes out for a bed is the same, to the last bit, whatever the other beds are.
    """
    beds = [bed for bed, _, _, _ in blocks]
    for bed, x, _, _ in blocks:
        bed._make_room()
        bed.x[:, -BLOCK:] = x
    gone: BoolArray = np.asarray(np.array([missing for _, _, missing, _ in blocks]) > BRIDGE_S)
    present = np.array([usable for _, _, _, usable in blocks]) & ~gone.all(axis=2)
    some_gone: list[bool] = np.any(gone, axis=(1, 2)).tolist()
    reached = np.array([bed.x[:, -BLOCK - 2 * REACH :] for bed in beds])
    parts = reached @ _FILTER
    envelope = np.sqrt(np.square(parts[:, :, :BLOCK]) + np.square(parts[:, :, BLOCK:]))
    for place, bed in enumerate(beds):
        if some_gone[place] or bed._some_gone:
            envelope[place][bed._note_gone(gone[place])] = 0.0
    new = reached[:, :, 2 * REACH :]
    sums = np.stack([np.abs(new).sum(axis=2), np.einsum("bln,bln->bl", new, new)], axis=1)
    noise = np.partition(envelope, BLOCK // 2, axis=2)[:, :, BLOCK // 2]
    peaks = envelope.max(axis=2)
    learned = []
    for place, bed in enumerate(beds):
        bed._newest()[:] = envelope[place]
        number = bed._block
        bed._sums[:, number % (HISTORY // BLOCK)] = sums[place]
        bed._noise[number % _NOISE_BLOCKS] = noise[place]
        bed._recent[number % _SILENT_BLOCKS] = peaks[place]
        bed.present = present[place]
        if bed.learned:
            learned.append(bed)
        else:
            bed._peaks[number % LEARNING] = peaks[place]
            bed._learn()
    if learned:
        _join(learned)


def _join(beds: Sequence[Envelope], blocks: int = 1) -> None:
    # The joined envelope of the newest blocks.
    level, noise = np.array([bed.level for bed in beds]), np.array([bed._noise for bed in beds])
    noise.sort(axis=1)
    noise = noise[:, _NOISE_BLOCKS // 2]
    weight = np.minimum((level / np.maximum(noise, _NOTHING)) ** 2, _WEIGHT_MAX)
    known = np.array([bed.present for bed in beds]) & (level >= _FLOOR_MV)
    weight[~known] = 0.0
    # A lead that has come off may just be flat. Where another one, and no noisy one, goes on, it does not
    # count; where none does, there are no beats.
    recent = np.array([bed._recent for bed in beds]).max(axis=1)
    lively = (weight > 0) & (recent >= CLEAR * level) & (level >= _QUIET * noise)
    weight[(recent < _SILENT * level) & lively.any(axis=1)[:, np.newaxis]] = 0.0
    envelope = np.array([bed._newest(blocks) for bed in beds])
    divisor = np.where(weight > 0, level, 1.0).astype(np.float32)
    relative = envelope / divisor[:, :, np.newaxis]
    # Where a lead is gone its envelope is exactly 0, and it does not count.
    rows = weight.astype(np.float32)[:, np.newaxis, :]
    total = (rows @ (envelope > 0).astype(np.float32))[:, 0]
    power = (rows @ np.square(np.minimum(relative, _CEILING)))[:, 0]
    joined = np.sqrt(power / np.where(total > 0, total, 1.0))
    sums = np.maximum(weight.sum(axis=1), 1e-12)[:, np.newaxis]
    share = np.sqrt(weight / sums)
    for place, bed in enumerate(beds):
        bed._share = share[place]
        bed.joined[-blocks * BLOCK :] = joined[place]


def peaks_together(
    beds: Sequence[Envelope], begin: int, least: float
) -> list[list[tuple[int, float, float]]]:
    """Return the peaks of the joined envelope that nothing within the refractory time exceeds.

    Parameters
    ----------
    beds : sequence of Envelope
    begin : int
        First column of `Envelope.joined` that is looked at, the refractory time from its first or later.
        The last one is that which has the refractory time behind it.
    least : float
        Lowest peak.

    Returns
    -------
    list of list of (int, float, float)
        For each bed, in order: column, height, and how many times the median of the last 2 s it is.
    """
    joined = np.array([bed.joined[-max(4 * BLOCK, HISTORY - begin + REFRACTORY) :] for bed in beds])
    around = joined[:, begin - REFRACTORY - HISTORY :]
    highest = sliding_window_view(around, 2 * REFRACTORY + 1, axis=1).max(axis=2)
    inner, before = around[:, REFRACTORY:-REFRACTORY], around[:, REFRACTORY - 1 : -REFRACTORY - 1]
    places, columns = np.nonzero((inner >= highest) & (inner > before) & (inner >= least))
    found: list[list[tuple[int, float, float]]] = [[] for _ in beds]
    if len(places):
        calm = np.partition(joined[:, -4 * BLOCK :], 2 * BLOCK, axis=1)[:, 2 * BLOCK]
        heights = inner[places, columns]
        times = heights / np.maximum(calm[places], np.float32(_NOTHING))
        for place, column, height, outstanding in zip(
            places.tolist(), columns.tolist(), heights.tolist(), times.tolist(), strict=True
        ):
            found[place].append((column + begin, height, outstanding))
    return found


def sums_together(beds: Sequence[Envelope]) -> tuple[Float64Array, Float64Array]:
    """Return mean magnitude and root mean square of `Envelope.x`, mV, each of shape (beds, leads)."""
    sums = np.array([bed._sums for bed in beds]).sum(axis=2) / HISTORY
    return sums[:, 0], np.sqrt(sums[:, 1])
