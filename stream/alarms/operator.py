"""What an operator may do to a bed: acknowledge, pause, set limits, choose a model, say who is in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream.alarms.baseline import BASELINE_S, personal_threshold
from stream.alarms.conditions import ANOMALY, CONDITIONS, CONFIRM_PATIENT
from stream.alarms.criteria import Criteria
from stream.alarms.machine import Seen, acknowledge, end_all, observe, pause, resume
from stream.alarms.model_change import change_model
from stream.alarms.state import BedState, Moment, Said, Stay
from stream.contract import AlarmEvent, Command, CommandKind

PAUSE_S = 120.0
"""A pause of no stated length: the time that care at the bed usually takes."""

PAUSE_MOST_S = 3600.0
"""No pause is longer: a bed must not stay silent because somebody forgot it."""

# A command comes again within the half second between two commits of the worker.
_REMEMBERED = 16


class RefusedError(ValueError):
    """A command that cannot be obeyed; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command.

    Attributes
    ----------
    message : str
        For people.
    events : list of AlarmEvent
    before, after : object
        What was set, before and after it, of commands that set something.
    """

    message: str
    events: list[AlarmEvent] = field(default_factory=list)
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class Case:
    """What a command needs to know of its bed.

    Attributes
    ----------
    state : BedState
        Changed in place.
    moment : Moment
    scores : sequence of float
        The newest window scores, up to ten minutes of them.
    scored_s : float
        How much signal they stand for, seconds.
    criteria : Criteria
        Of the model that judges the bed.
    own_model : str
        Name of the worker's own model.
    models : collection of str
        Names of the models that the worker has loaded.
    check_limits : callable
        Takes limits that differ from the defaults; raises ValueError if they make no sense.
    """

    state: BedState
    moment: Moment
    scores: Sequence[float]
    scored_s: float
    criteria: Criteria
    own_model: str
    models: Collection[str]
    check_limits: Callable[[Mapping[str, float]], None]


def another_patient(command: Command) -> bool:
    """Say whether a command ends what is known of the patient in a bed."""
    admits = command.kind is CommandKind.ADMIT and command.value is None
    return admits or command.kind is CommandKind.DISCHARGE


def obey(case: Case, command: Command) -> Answer:
    """Do what a command says.

    Parameters
    ----------
    case : Case
    command : Command

    Returns
    -------
    Answer

    Raises
    ------
    RefusedError
        If it cannot be done; nothing has changed then.
    """
    if not command.who.strip():
        raise RefusedError("who: nobody is named")
    state = case.state
    if command.id in state.obeyed:
        return Answer("done already")
    does = _COMMANDS.get(command.kind)
    if does is None:
        raise RefusedError(f"{command.kind}: not supported by this worker")
    answer = does(case, command.value, command.who)
    state.obeyed = [*state.obeyed, command.id][-_REMEMBERED:]
    return answer


def _acknowledge(case: Case, value: Any, who: str) -> Answer:
    state = case.state
    rules = [rule for rule in CONDITIONS if rule in state.open]
    if value is not None:
        if value in state.ended_alarms:
            raise RefusedError(f"alarm {value} has ended")
        rules = [rule for rule in rules if state.open[rule].alarm == value]
        if not rules:
            raise RefusedError(f"alarm {value}: no such alarm in this bed")
    events = [event for rule in rules for event in acknowledge(state, CONDITIONS[rule], case.moment, who)]
    if not events:
        raise RefusedError(
            "no alarm to acknowledge" if value is None else f"alarm {value} is acknowledged already"
        )
    return Answer(f"acknowledged: {', '.join(event.rule for event in events)}", events)


def _pause(case: Case, value: Any, who: str) -> Answer:
    seconds = PAUSE_S if value is None else _number(value, "seconds")
    if not 0 < seconds <= PAUSE_MOST_S:
        raise RefusedError(f"seconds: a pause lasts up to {PAUSE_MOST_S:g} s, not {seconds:g}")
    return Answer(f"paused for {seconds:g} s", pause(case.state, case.moment, seconds, who), after=seconds)


def _resume(case: Case, value: Any, who: str) -> Answer:
    if case.state.paused_until is None:
        raise RefusedError("alarms are not paused")
    return Answer("resumed", resume(case.state, case.moment, f"resumed by {who}", who))


def _set_limits(case: Case, value: Any, who: str) -> Answer:
    # A mapping sets the limits that it names, None as a value takes one back; None alone takes back all.
    stay = case.state.stay
    if value is not None and not isinstance(value, dict):
        raise RefusedError("limits: needs a mapping of names to numbers")
    limits = {} if value is None else dict(stay.limits)
    for name, limit in (value or {}).items():
        if limit is None:
            limits.pop(name, None)
        else:
            limits[name] = _number(limit, str(name))
    try:
        case.check_limits(limits)
    except ValueError as error:
        raise RefusedError(f"limits: {error}") from error
    before, stay.limits = stay.limits, limits
    _said(case, "limits", who, bool(limits))
    return Answer("limits set" if limits else "limits as by default", _ours(case), before, limits)


def _set_threshold(case: Case, value: Any, who: str) -> Answer:
    stay = case.state.stay
    before, stay.threshold = stay.threshold, None if value is None else _number(value, "threshold")
    _said(case, "threshold", who, value is not None)
    stay.said.pop("baseline", None)
    message = "threshold as the model's" if value is None else f"threshold {stay.threshold:g}"
    return Answer(message, _ours(case), before, stay.threshold)


def _confirm_baseline(case: Case, value: Any, who: str) -> Answer:
    if case.scored_s < BASELINE_S:
        raise RefusedError(
            f"a baseline needs {BASELINE_S:g} s of scored signal; there are {case.scored_s:g} s so far"
        )
    stay, thresholds = case.state.stay, case.criteria.thresholds
    before, stay.threshold = stay.threshold, personal_threshold(case.scores, thresholds)
    _said(case, "baseline", who)
    stay.said.pop("threshold", None)
    message = f"threshold {stay.threshold:.2f} from this patient's own ECG, the model's is"
    return Answer(f"{message} {thresholds.window:.2f}", _ours(case), before, stay.threshold)


def _set_model(case: Case, value: Any, who: str) -> Answer:
    if value is not None and value not in list(case.models):
        raise RefusedError(f"model {value}: not loaded by this worker")
    state, stay = case.state, case.state.stay
    before, dropped = state.model, stay.threshold
    stay.model = value
    _said(case, "model", who, value is not None)
    model = value or case.own_model
    message = f"{model} judges from now on"
    events = change_model(state, case.moment, model, f"the model was changed by {who}: {message}", who)
    if model == before:
        return Answer(f"{model} judges already", events, before, model)
    if dropped is not None:
        message += f"; the threshold {dropped:g} was for {before} and is dropped"
    if any(event.rule == ANOMALY.rule for event in events):
        message += f"; the alarm of {before} has ended"
    return Answer(message, events, before, model)


def _admit(case: Case, value: Any, who: str) -> Answer:
    # "same": the patient of before, with another device.
    if value == "same":
        return Answer("the same patient", _ours(case))
    if value is not None:
        raise RefusedError('admit: takes "same" or nothing; a patient\'s name is not for this system')
    events = end_all(case.state, case.moment, f"a patient was admitted by {who}")
    case.state.stay = Stay(admitted_t=case.moment.t, session=case.state.session)
    _said(case, "admitted", who)
    return Answer("admitted" + _own_again(case), events)


def _discharge(case: Case, value: Any, who: str) -> Answer:
    events = end_all(case.state, case.moment, f"the patient was discharged by {who}")
    case.state.stay = Stay()
    return Answer("discharged" + _own_again(case), events)


def _own_again(case: Case) -> str:
    # What was chosen for one patient does not go on for the next. Alarms have ended already.
    before = case.state.model
    change_model(case.state, case.moment, case.own_model, "")
    return "" if before in ("", case.own_model) else f"; {case.own_model} judges from now on"


def _said(case: Case, what: str, who: str, still: bool = True) -> None:
    said = case.state.stay.said
    said.pop(what, None)
    if still:
        said[what] = Said(who=who, t=case.moment.t)


def _ours(case: Case) -> list[AlarmEvent]:
    # Whoever sets something for the patient has looked who it is.
    case.state.stay.session = case.state.session
    return observe(case.state, CONFIRM_PATIENT, case.moment, Seen(False, message="confirmed"))


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RefusedError(f"{name}: needs a number")
    return float(value)


_COMMANDS: dict[CommandKind, Callable[[Case, Any, str], Answer]] = {
    CommandKind.ACKNOWLEDGE: _acknowledge,
    CommandKind.PAUSE: _pause,
    CommandKind.RESUME: _resume,
    CommandKind.SET_MODEL: _set_model,
    CommandKind.SET_LIMITS: _set_limits,
    CommandKind.SET_THRESHOLD: _set_threshold,
    CommandKind.CONFIRM_BASELINE: _confirm_baseline,
    CommandKind.ADMIT: _admit,
    CommandKind.DISCHARGE: _discharge,
}
