"""What operators said of a bed, as the audit log has it: patients' stays, baselines, thresholds.

The log has the time of our clocks; what is returned has the device's, by the segment that was being recorded
then.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from monitor.history.archive import Piece
from stream.bus import Bus
from stream.contract import Audit, CommandKind, MalformedMessageError
from stream.subscription.positions import place_of
from stream.topics import AUDIT

# Entries that are looked through, the newest; afterwards only what is new.
_PAGE, _PAGES = 500, 10
_KINDS = (
    CommandKind.ADMIT,
    CommandKind.DISCHARGE,
    CommandKind.CONFIRM_BASELINE,
    CommandKind.SET_LIMITS,
    CommandKind.SET_MODEL,
    CommandKind.SET_THRESHOLD,
)


class AuditBook:
    """Entries of the audit log that concern the history, kept by bed."""

    def __init__(self) -> None:
        self._entries: defaultdict[str, list[Audit]] = defaultdict(list)
        self._last = "0-0"
        self._turn = asyncio.Lock()

    async def of(self, bus: Bus, bed: str) -> list[Audit]:
        """Return what operators said of a bed and was done, oldest first.

        Raises
        ------
        redis.exceptions.RedisError
        """
        async with self._turn:
            await bus.declare(AUDIT)
            found: list[Audit] = []
            newest, before = "", f"{2**63 - 1}-0"
            for _ in range(_PAGES):
                page = await bus.recent(AUDIT, 0, before, _PAGE)
                new = [entry for entry in page if place_of(entry.id) > place_of(self._last)]
                for entry in new:
                    newest = newest or entry.id
                    try:
                        audit = Audit.decode(entry.value)
                    except MalformedMessageError:
                        # The verification of the log tells of it.
                        continue
                    if audit.done and audit.kind in _KINDS:
                        found.append(audit)
                if len(new) < _PAGE:
                    break
                before = page[-1].id
            self._last = newest or self._last
            for audit in reversed(found):
                self._entries[audit.bed].append(audit)
            return list(self._entries.get(bed, ()))


class Stay(NamedTuple):
    """A patient's time in a bed, device times, ns: its beginning, and when the baseline was confirmed."""

    begin: int | None
    confirmed: int | None


def stay_of(entries: Sequence[Audit], found: Sequence[Piece], t: int) -> Stay:
    """Return the stay that a moment lies in, as far as the audit log tells.

    Parameters
    ----------
    entries : sequence of Audit
        Of the bed, see `AuditBook.of`.
    found : sequence of Piece
        What is recorded of it.
    t : int
        Device time, ns.
    """
    placed = _placed(entries, found)
    bounds = [at for at, entry in placed if _another_patient(entry)]
    begin = max((at for at in bounds if at <= t), default=None)
    end = min((at for at in bounds if at > t), default=None)
    confirmed = [
        at
        for at, entry in placed
        if entry.kind == CommandKind.CONFIRM_BASELINE
        and (begin is None or at > begin)
        and (end is None or at < end)
    ]
    return Stay(begin, confirmed[-1] if confirmed else None)


class Thresholds(NamedTuple):
    """From which device time on, ns, which threshold was in force for a bed; None: the model's own."""

    since: list[int]
    values: list[float | None]

    def at(self, t: float) -> float | None:
        """Return the threshold of a window that ended at a device time, ns; None for the model's own."""
        place = bisect_right(self.since, t)
        return self.values[place - 1] if place else None


def thresholds_of(entries: Sequence[Audit], found: Sequence[Piece], model: str) -> Thresholds:
    """Return the thresholds that operators set for a bed, as workers kept them (`stream.alarms.operator`).

    They end with the patient's stay and with another model; behind another device they count once somebody
    has said that the patient is the same. Those for another model than the one that is asked about are left
    out: scores of two models are not on one scale.

    Parameters
    ----------
    entries : sequence of Audit
        Of the bed, see `AuditBook.of`.
    found : sequence of Piece
        What is recorded of it.
    model : str
    """
    starts = [(piece.time_of(piece.start), piece.segments[0].begin.session) for piece in found]
    happened: list[tuple[int, Audit | str]] = [*_placed(entries, found), *starts]
    # The first change of model says, too, which one judged before it.
    changes = [_value(entry, "before") for entry in entries if entry.kind == CommandKind.SET_MODEL]
    judges, own = next((one for one in changes if one), model), None
    session = confirmed = ""
    since: list[int] = []
    values: list[float | None] = []
    for at, what in sorted(happened, key=lambda one: one[0]):
        if isinstance(what, str):
            session = what
        elif _another_patient(what):
            own, judges = None, model
        elif what.kind == CommandKind.SET_MODEL:
            after = _value(what, "after")
            own, judges = (own if after == judges else None), after or judges
        else:
            confirmed = session
            if what.kind in (CommandKind.SET_THRESHOLD, CommandKind.CONFIRM_BASELINE):
                own = _value(what, "after")
        since.append(at)
        values.append(own if session == confirmed and judges == model else None)
    return Thresholds(since, values)


def _another_patient(entry: Audit) -> bool:
    admits = entry.kind == CommandKind.ADMIT and _value(entry, "asked") is None
    return admits or entry.kind == CommandKind.DISCHARGE


def _value(entry: Audit, name: str) -> Any:
    return entry.value.get(name) if isinstance(entry.value, Mapping) else None


def _placed(entries: Sequence[Audit], found: Sequence[Piece]) -> list[tuple[int, Audit]]:
    begun = sorted(
        (segment.begin.begun_ns, segment.begin.t0) for piece in found for segment in piece.segments
    )
    if not begun:
        return []

    def device(at: int) -> int:
        # By the segment that was being recorded then: a device's clock may stand elsewhere than ours.
        begun_ns, t0 = begun[max(0, bisect_right(begun, (at, 2**63)) - 1)]
        return at - begun_ns + t0

    return sorted(((device(entry.at), entry) for entry in entries), key=lambda one: one[0])
