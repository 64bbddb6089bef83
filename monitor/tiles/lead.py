"""Which lead of a bed stands in its strip: lead II while it is good, else the best one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stream.contract import Validity

# What monitors show where nobody has chosen: it lies along the heart's axis, so that P waves and QRS
# complexes are tall and upright.
_USUAL = "II"
# Quality is 1 (good) to 0; the bounds are those by which `stream.vitals.quality` gives up a lead and takes it
# back.
_POOR, _GOOD = 0.4, 0.6
# One second of noise is no reason to change what people look at, and one good second none to change back.
_LEAVE_NS, _RETURN_NS = 2_000_000_000, 10_000_000_000


class LeadChoice:
    """The choice for one session of one bed.

    Parameters
    ----------
    leads : sequence of str
    """

    def __init__(self, leads: Sequence[str]) -> None:
        self._leads = tuple(leads)
        self._usual = self._leads.index(_USUAL) if _USUAL in self._leads else None
        self._chosen: int | None = None
        # When the chosen lead was last not poor, and the usual one last not good.
        self._fair_ns = self._spoilt_ns = 0

    def choose(self, quality: Mapping[str, float], valid: Sequence[Validity], now_ns: int) -> int:
        """Return the place of the lead among the feed's.

        Parameters
        ----------
        quality : mapping of str to float
            Of the newest second, by lead; a lead without one counts as good.
        valid : sequence of Validity
            What the source says of each lead.
        now_ns : int
        """
        index = [
            0.0 if flag is Validity.OFF else quality.get(lead, 1.0)
            for lead, flag in zip(self._leads, valid, strict=True)
        ]
        # Of equal ones the first.
        best = index.index(max(index))
        usual = self._usual
        if self._chosen is None:
            self._chosen = usual if usual is not None and index[usual] >= _GOOD else best
            self._spoilt_ns = now_ns
        if usual is not None and index[usual] < _GOOD:
            self._spoilt_ns = now_ns
        if index[self._chosen] >= _POOR:
            self._fair_ns = now_ns
        if now_ns - self._fair_ns >= _LEAVE_NS and index[best] >= _GOOD:
            self._chosen, self._fair_ns = best, now_ns
        elif usual is not None and now_ns - self._spoilt_ns >= _RETURN_NS:
            self._chosen = usual
        return self._chosen
