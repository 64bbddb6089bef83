"""What has to be remembered of a bed."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, Field

from stream.contract import AlarmEvent, Presence


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in a feed, and what brought the system to look at it.

    Attributes
    ----------
    bed : str
    sample : int
        Index since the start of the session.
    t : int
        Its device time, ns.
    fs : float
        Sampling frequency of the feed, Hz.
    ingest_ns : int
        Ingest time of the chunk that is being looked at.
    """

    bed: str
    sample: int
    t: int
    fs: float
    ingest_ns: int

    def time_of(self, sample: int) -> int:
        """Return the device time of another sample of the feed, in ns."""
        return self.t + round((sample - self.sample) * 1e9 / self.fs)


class OpenAlarm(BaseModel):
    """An alarm that is not over."""

    alarm: str
    onset: int
    onset_t: int
    transitions: int = 0
    """Transitions published so far: the number of the next one."""
    presence: Presence = Presence.OFF
    """Off while it is open: kept silent by a pause."""
    signalled_at: int = 0
    """Sample since which it has been waiting for an acknowledgement."""
    gone_from: int | None = None
    """Sample since which the condition has been absent; None while it is there."""
    escalation: int = 0
    """How many times it has been told again because nobody acknowledged it."""
    message: str = ""
    score: float | None = None


class DueSnapshot(BaseModel):
    """An alarm of which no snapshot is stored yet."""

    raised: AlarmEvent
    model: str | None = None
    """The model that judged the bed then; None, of versions that had but one: the worker's own."""
    threshold: float | None = None
    """The patient's own alarm threshold at that time; None: the model's."""
    admitted_t: int | None = None


class Said(BaseModel):
    """Who said something, and when."""

    who: str
    t: int
    """Device time."""


class Stay(BaseModel):
    """What belongs to the patient in the bed, and to nobody after them."""

    admitted_t: int | None = None
    """Device time of the admission; None for a bed that is used without."""
    limits: dict[str, float] = Field(default_factory=dict)
    """Alarm limits that differ from the defaults."""
    threshold: float | None = None
    """Alarm threshold of the score for this patient; None: the model's."""
    model: str | None = None
    """Name of the model that an operator chose for the bed; None: the worker's own."""
    said: dict[str, Said] = Field(default_factory=dict)
    """Of ``admitted``, ``limits``, ``model``, and ``threshold`` or ``baseline``: who said so last, where
    somebody did."""
    session: str = ""
    """The device session for which an operator last said who the patient is."""

    @property
    def personal(self) -> bool:
        """Whether anything was set that may be wrong for another patient; any model may judge anybody."""
        return bool(self.limits) or self.threshold is not None


class BedState(BaseModel):
    """What must outlive the worker that holds a bed: kept in a Faust table, rebuilt by nobody."""

    session: str
    model: str = ""
    """The model that judges the bed: to its scores belong the history and the patient's threshold."""
    begun: int = 0
    """First sample of the session that was heard: what was lost before it is no gap."""
    next_window: int = 0
    """Windows below this are done: a redelivered chunk does not bring them up again."""
    history: list[tuple[int, bool, int]] = Field(default_factory=list)
    """Number, over the threshold, and first new sample of each of the last `n` scored windows."""
    watched_to: int = 0
    """Sample up to which beats, rhythm and signal quality have been judged."""
    scored_to: int = 0
    """Sample up to which the signal has been scored."""
    open: dict[str, OpenAlarm] = Field(default_factory=dict)
    """Open alarms by rule."""
    waiting: dict[str, int] = Field(default_factory=dict)
    """Conditions that have not lasted long enough for an alarm, by rule: sample at which they began."""
    paused_until: int | None = None
    """Sample up to which physiological alarms are kept silent."""
    ended: bool = False
    """The newest chunk said that this session is over."""
    former: list[str] = Field(default_factory=list)
    """Sessions that this bed has left behind, newest last."""
    stay: Stay = Field(default_factory=Stay)
    obeyed: list[str] = Field(default_factory=list)
    """The last commands, newest last: one that is delivered again is not done again."""
    ended_alarms: list[str] = Field(default_factory=list)
    """The last alarms that ended, newest last: acknowledging one of them is late, not wrong."""
    snapshots: list[DueSnapshot] = Field(default_factory=list)
    """Snapshots that are still to be made, by whoever holds the bed then."""

    @property
    def confirmed(self) -> bool:
        """Whether what was set for the patient counts: not behind a device that somebody may have moved."""
        return not self.stay.personal or self.stay.session == self.session
