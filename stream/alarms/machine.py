"""The alarm state machine: conditions in, alarm events out. Pure functions of state, event and time.

An alarm of a condition, and what leads from one presence to the next:

====================  ==========================  ==================================
presence              leaves when                 for
====================  ==========================  ==================================
(none)                condition there for         on; kept silent while paused
                      ``delay_s``
on                    acknowledged                acknowledged
on                    condition gone for          latched if latching, else off
                      ``hold_s``
acknowledged          condition gone for          off
                      ``hold_s``
latched               acknowledged                off
latched               condition there again       on (the same alarm)
on, latched           paused (physiological)      off; on again after the pause if the
                                                  condition is still there
====================  ==========================  ==================================

What holds whatever happens, and is tested:

1. The events of an alarm are numbered 0, 1, 2 … and the first one is on.
2. A condition of which nothing can be told (the signal is too poor) raises nothing and ends nothing, and
   breaks every count of how long it has been there or gone.
3. While alarms are paused no physiological alarm is on or latched.
4. An acknowledged alarm does not come on again: only a new one does, after its condition had ended.
5. A latching alarm that was not acknowledged ends by an acknowledgement, a pause or the end of the feed.
6. The state after a trip through JSON gives the same events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stream.alarms.conditions import CONDITIONS, ESCALATE_S, PAUSED, Condition
from stream.alarms.state import BedState, Moment, OpenAlarm
from stream.contract import AlarmEvent, AlarmKind, Presence, alarm_id

# Somebody who acknowledges an alarm looks at one of the last few.
_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of a condition at a moment.

    Attributes
    ----------
    present : bool or None
        None if nothing can be told.
    onset : int
        Sample at which the condition began; counts when it is present.
    message : str
        For people: what it is, or why it is over.
    score : float, optional
    """

    present: bool | None
    onset: int = 0
    message: str = ""
    score: float | None = None


def observe(state: BedState, condition: Condition, moment: Moment, seen: Seen) -> list[AlarmEvent]:
    """Take into account what was found of a condition.

    Parameters
    ----------
    state : BedState
        Changed in place.
    condition : Condition
    moment : Moment
        Moments of a condition never go back.
    seen : Seen

    Returns
    -------
    list of AlarmEvent
        Transitions, in order.
    """
    if not seen.present and condition.rule not in state.open and condition.rule not in state.waiting:
        # Nearly always.
        return []
    if seen.present is None:
        state.waiting.pop(condition.rule, None)
        if (alarm := state.open.get(condition.rule)) is not None:
            alarm.gone_from = None
        return []
    if seen.present:
        return _there(state, condition, moment, seen)
    return _gone(state, condition, moment, seen)


def _there(state: BedState, condition: Condition, moment: Moment, seen: Seen) -> list[AlarmEvent]:
    rule = condition.rule
    alarm = state.open.get(rule)
    if alarm is not None:
        alarm.gone_from = None
        alarm.message, alarm.score = seen.message, seen.score
        if alarm.presence is Presence.LATCHED:
            # It had ended, and began again.
            alarm.onset, alarm.onset_t = seen.onset, moment.time_of(seen.onset)
        quiet = alarm.presence in (Presence.LATCHED, Presence.OFF) and not _silenced(state, condition)
        return _signal(state, condition, moment) if quiet else []
    if not _lasted(state.waiting.setdefault(rule, moment.sample), moment, condition.delay_s):
        return []
    del state.waiting[rule]
    # What an admission ended and is still there, or a pause in the same moment as the last one: a new alarm
    # needs a name of its own, or its first event would be taken for a repeat.
    onset = seen.onset
    while (identity := alarm_id(moment.bed, state.session, rule, onset)) in state.ended_alarms:
        onset = max(onset + 1, moment.sample)
    state.open[rule] = OpenAlarm(
        alarm=identity,
        onset=onset,
        onset_t=moment.time_of(onset),
        message=seen.message,
        score=seen.score,
    )
    return [] if _silenced(state, condition) else _signal(state, condition, moment)


def _gone(state: BedState, condition: Condition, moment: Moment, seen: Seen) -> list[AlarmEvent]:
    state.waiting.pop(condition.rule, None)
    alarm = state.open.get(condition.rule)
    # Signal that is read back when a bed changes hands may lie before the alarm, and says nothing of its end.
    if alarm is None or alarm.presence is Presence.LATCHED or moment.sample < alarm.onset:
        return []
    if alarm.gone_from is None:
        alarm.gone_from = moment.sample
    if not _lasted(alarm.gone_from, moment, condition.hold_s):
        return []
    if alarm.presence is Presence.ON and condition.latching:
        alarm.presence = Presence.LATCHED
        return [_event(state, condition, moment, Presence.LATCHED, seen.message, seen.score)]
    return _close(state, condition, moment, seen.message, score=seen.score)


def acknowledge(state: BedState, condition: Condition, moment: Moment, who: str) -> list[AlarmEvent]:
    """Acknowledge the alarm of a condition; nothing comes of it if there is none, or it has been already."""
    alarm = state.open.get(condition.rule)
    if alarm is None or alarm.presence is Presence.ACKNOWLEDGED or not alarm.transitions:
        return []
    message = f"acknowledged by {who}"
    if alarm.presence is Presence.LATCHED:
        return _close(state, condition, moment, message, who=who)
    alarm.presence = Presence.ACKNOWLEDGED
    return [_event(state, condition, moment, Presence.ACKNOWLEDGED, message, alarm.score, who)]


def pause(state: BedState, moment: Moment, seconds: float, who: str) -> list[AlarmEvent]:
    """Keep physiological alarms silent for some seconds; a second pause takes the place of the first."""
    state.paused_until = moment.sample + round(seconds * moment.fs)
    message = f"alarms paused for {seconds:.0f} s by {who}"
    events: list[AlarmEvent] = []
    for condition in _open_conditions(state):
        alarm = state.open[condition.rule]
        if not _silenced(state, condition):
            continue
        if alarm.presence is Presence.LATCHED:
            events += _close(state, condition, moment, message, who=who)
        elif alarm.presence is Presence.ON:
            alarm.presence = Presence.OFF
            events.append(_event(state, condition, moment, Presence.OFF, message, alarm.score, who))
    if (already := state.open.get(PAUSED.rule)) is not None:
        already.message = message
        return [*events, _event(state, PAUSED, moment, Presence.ON, message, None, who)]
    return [*events, *observe(state, PAUSED, moment, Seen(True, moment.sample, message))]


def resume(state: BedState, moment: Moment, message: str, who: str = "") -> list[AlarmEvent]:
    """End a pause: what is still there is raised again."""
    if state.paused_until is None:
        return []
    state.paused_until = None
    events = _close(state, PAUSED, moment, message, who=who)
    for condition in _open_conditions(state):
        alarm = state.open[condition.rule]
        if alarm.presence is Presence.OFF and alarm.gone_from is None:
            events += _signal(state, condition, moment)
    return events


def pass_time(state: BedState, moment: Moment, conditions: Iterable[Condition]) -> list[AlarmEvent]:
    """End a pause whose time is over, and tell again what was not acknowledged in time.

    Parameters
    ----------
    state : BedState
    moment : Moment
    conditions : iterable of Condition
        Those that are observed at moments like this one.
    """
    events: list[AlarmEvent] = []
    if state.paused_until is not None and moment.sample >= state.paused_until:
        events += resume(state, moment, "the pause is over")
    if not state.open:
        return events
    for condition in conditions:
        alarm = state.open.get(condition.rule)
        limit_s = ESCALATE_S.get(condition.priority)
        if alarm is None or limit_s is None or alarm.escalation:
            continue
        waiting = alarm.presence in (Presence.ON, Presence.LATCHED)
        if waiting and _lasted(alarm.signalled_at, moment, limit_s):
            alarm.escalation += 1
            message = f"{alarm.message}; not acknowledged for {limit_s:g} s"
            events.append(_event(state, condition, moment, alarm.presence, message, alarm.score))
    return events


def end(
    state: BedState, condition: Condition, moment: Moment, message: str, who: str = ""
) -> list[AlarmEvent]:
    """End the alarm of a condition, whatever its presence, and forget how long the condition has lasted."""
    state.waiting.pop(condition.rule, None)
    return _close(state, condition, moment, message, who=who)


def end_all(state: BedState, moment: Moment, message: str) -> list[AlarmEvent]:
    """End every open alarm of a bed, and a pause."""
    state.waiting.clear()
    state.paused_until = None
    return [
        event for condition in _open_conditions(state) for event in _close(state, condition, moment, message)
    ]


def remember_ended(state: BedState, alarm: str) -> None:
    """Note that an alarm has ended."""
    state.ended_alarms = [*state.ended_alarms, alarm][-_REMEMBERED:]


def _lasted(since: int, moment: Moment, seconds: float) -> bool:
    # Counted in samples: a clock may jump, and nothing must last for an hour longer or shorter by it.
    return moment.sample - since >= seconds * moment.fs


def _open_conditions(state: BedState) -> list[Condition]:
    return [condition for rule, condition in CONDITIONS.items() if rule in state.open]


def _silenced(state: BedState, condition: Condition) -> bool:
    return state.paused_until is not None and condition.kind is AlarmKind.PHYSIOLOGICAL


def _signal(state: BedState, condition: Condition, moment: Moment) -> list[AlarmEvent]:
    alarm = state.open[condition.rule]
    alarm.presence, alarm.signalled_at, alarm.escalation = Presence.ON, moment.sample, 0
    return [_event(state, condition, moment, Presence.ON, alarm.message, alarm.score)]


def _close(
    state: BedState,
    condition: Condition,
    moment: Moment,
    message: str,
    *,
    score: float | None = None,
    who: str = "",
) -> list[AlarmEvent]:
    alarm = state.open.get(condition.rule)
    if alarm is None:
        return []
    # One that a pause kept silent is off already, as far as anybody was told.
    told = alarm.presence is not Presence.OFF
    events = [_event(state, condition, moment, Presence.OFF, message, score, who)] if told else []
    del state.open[condition.rule]
    remember_ended(state, alarm.alarm)
    return events


def _event(
    state: BedState,
    condition: Condition,
    moment: Moment,
    presence: Presence,
    message: str,
    score: float | None,
    who: str = "",
) -> AlarmEvent:
    alarm = state.open[condition.rule]
    number = alarm.transitions
    alarm.transitions += 1
    return AlarmEvent(
        alarm=alarm.alarm,
        event=f"{alarm.alarm}-{number}",
        bed=moment.bed,
        session=state.session,
        rule=condition.rule,
        kind=condition.kind,
        code=condition.code,
        priority=condition.priority,
        presence=presence,
        onset=alarm.onset,
        onset_t=alarm.onset_t,
        since=moment.t,
        score=score,
        message=message,
        escalation=alarm.escalation,
        who=who,
        snapshot=alarm.alarm if condition.kind is AlarmKind.PHYSIOLOGICAL else None,
        ingest_ns=moment.ingest_ns,
    )
