"""The risk table: what each condition means, how urgent it is, and how its alarm behaves.

Priority comes from here and from nothing else, least of all from a score (IEC 60601-1-8 asks what may happen
and how soon; docs/alarms.md has the reasons, row by row).
"""

from __future__ import annotations

from dataclasses import dataclass

from stream.contract import AlarmKind, Priority

UNSCORED_S = 10.0
"""Longest stretch without a verdict before the bed says so (the alarm delay that IEC 60601-2-27 allows)."""

FEED_LOST_S = 2.0
"""Silence of a live feed that is an alarm: several chunks of the longest kind (500 ms) have not come."""

ESCALATE_S: dict[Priority, float] = {Priority.HIGH: 30.0, Priority.MEDIUM: 120.0}
"""After so long without an acknowledgement an alarm is told again, to whoever else listens. Half a minute is
what a nurse needs to reach a bed; two minutes, where a few minutes do no harm. Low and information wait."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One row of the risk table.

    Attributes
    ----------
    rule : str
        What it is called in events, limits and filters.
    kind : AlarmKind
    code : str
        What programs call it.
    priority : Priority
    latching : bool
        The alarm stays when the condition has ended, until somebody acknowledges it: nobody may have seen a
        short one that can kill.
    delay_s : float
        For how long the condition has to be there before it is an alarm.
    hold_s : float
        For how long it has to be gone before the alarm ends.
    """

    rule: str
    kind: AlarmKind
    code: str
    priority: Priority
    latching: bool = False
    delay_s: float = 0.0
    hold_s: float = 0.0


_PHYSIOLOGICAL, _TECHNICAL = AlarmKind.PHYSIOLOGICAL, AlarmKind.TECHNICAL

# What can kill within minutes: high, and latching. An end must have lasted for three seconds, so that one
# beat in an asystole, or one pause in a tachycardia, does not make two alarms of one.
ASYSTOLE = Condition("asystole", _PHYSIOLOGICAL, "ASYSTOLE", Priority.HIGH, latching=True, hold_s=3.0)
FIBRILLATION = Condition(
    "ventricular-fibrillation", _PHYSIOLOGICAL, "VENT_FIB_FLUTTER", Priority.HIGH, latching=True, hold_s=3.0
)
VENTRICULAR_TACHYCARDIA = Condition(
    "ventricular-tachycardia", _PHYSIOLOGICAL, "VENT_TACHY", Priority.HIGH, latching=True, hold_s=3.0
)
EXTREME_BRADYCARDIA = Condition(
    "extreme-bradycardia", _PHYSIOLOGICAL, "EXTREME_BRADY", Priority.HIGH, latching=True, hold_s=3.0
)
EXTREME_TACHYCARDIA = Condition(
    "extreme-tachycardia", _PHYSIOLOGICAL, "EXTREME_TACHY", Priority.HIGH, latching=True, hold_s=3.0
)
# Common, lasts for hours, and a matter of the ward round: told, without haste. It comes and goes by nature.
ATRIAL_FIBRILLATION = Condition(
    "atrial-fibrillation", _PHYSIOLOGICAL, "AF_LIKE", Priority.LOW, delay_s=10.0, hold_s=60.0
)
# Unusual is not dangerous by itself, and may be the first sign of what is.
ANOMALY = Condition("anomaly", _PHYSIOLOGICAL, "ECG_ANOMALY", Priority.MEDIUM)

# A bed that nobody scores or hears is no less urgent than one with an unusual ECG.
NOT_SCORED = Condition("not-scored", _TECHNICAL, "NOT_SCORED", Priority.MEDIUM)
FEED_LOST = Condition("feed-lost", _TECHNICAL, "FEED_LOST", Priority.MEDIUM)
# Whose ECG it is, and how fast a heart beats, is then anybody's guess.
BED_CLAIMED = Condition("bed-claimed", _TECHNICAL, "BED_CLAIMED", Priority.MEDIUM, hold_s=5.0)
WRONG_RATE = Condition("wrong-rate", _TECHNICAL, "WRONG_RATE", Priority.MEDIUM)
# A device that changed its leads or its rate and did not say so is not heard.
FEED_REFUSED = Condition("feed-refused", _TECHNICAL, "FEED_REFUSED", Priority.MEDIUM, hold_s=2.0)
# A monitor that is down must be louder than a patient who is well.
MODEL_FAILED = Condition("model-failed", _TECHNICAL, "MODEL_FAILED", Priority.HIGH)
# Somebody has to come and press an electrode on; the other leads are still watched.
LEAD_OFF = Condition("lead-off", _TECHNICAL, "LEAD_OFF", Priority.LOW, delay_s=2.0, hold_s=2.0)
# A patient who is washed or turned makes noise for seconds: only what stays is told.
NOISE = Condition("noise", _TECHNICAL, "SIGNAL_NOISE", Priority.LOW, delay_s=10.0, hold_s=3.0)
CLOCK_SKEW = Condition("clock-skew", _TECHNICAL, "CLOCK_SKEW", Priority.LOW)
# Watched, if less closely or in another way: a person should know, and need not run.
OVERLOAD = Condition("overload", _TECHNICAL, "OVERLOAD", Priority.LOW)
FALLBACK = Condition("fallback", _TECHNICAL, "BACKEND_FALLBACK", Priority.INFO)
# Shown as long as it lasts, so that nobody takes a silent bed for a quiet one.
PAUSED = Condition("paused", _TECHNICAL, "ALARMS_PAUSED", Priority.INFO)
CONFIRM_PATIENT = Condition("confirm-patient", _TECHNICAL, "CONFIRM_PATIENT", Priority.INFO)

CONDITIONS: dict[str, Condition] = {
    condition.rule: condition
    for condition in (
        ASYSTOLE,
        FIBRILLATION,
        VENTRICULAR_TACHYCARDIA,
        EXTREME_BRADYCARDIA,
        EXTREME_TACHYCARDIA,
        ANOMALY,
        ATRIAL_FIBRILLATION,
        MODEL_FAILED,
        NOT_SCORED,
        FEED_LOST,
        FEED_REFUSED,
        BED_CLAIMED,
        WRONG_RATE,
        LEAD_OFF,
        NOISE,
        CLOCK_SKEW,
        OVERLOAD,
        FALLBACK,
        PAUSED,
        CONFIRM_PATIENT,
    )
}
"""Every condition by rule, the most urgent first."""
