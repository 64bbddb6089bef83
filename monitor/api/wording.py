"""Audit entries in words: what was asked for or happened, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monitor.summary import duration
from stream.contract import Audit

# What happened to an alarm.
_EVENTS = {
    "raise": "Alarm raised",
    "raise again": "Alarm raised again",
    "escalate": "Alarm told again",
    "latch": "Condition over, alarm latched",
    "acknowledge": "Alarm acknowledged",
    "end": "Alarm ended",
}
# Their message says what the alarm is; that of the others, what has changed.
_NAMING = ("raise", "raise again", "escalate")


def what(entry: Audit) -> str:
    """Return what was asked for, or what happened, as a sentence without its end."""
    value = entry.value
    if _is_event(value) and entry.kind in _EVENTS:
        named = entry.message if entry.kind in _NAMING else ""
        text = f"{_EVENTS[entry.kind]}: {named or str(value['rule']).replace('-', ' ')}"
        return f"{text} ({value['priority']} priority)" if entry.kind == "raise" else text
    asked = value.get("asked") if isinstance(value, Mapping) and "asked" in value else value
    words = _COMMANDS.get(entry.kind)
    if words is not None:
        return words(asked)
    # A later version's.
    plain = entry.kind.replace("_", " ").capitalize()
    return plain if asked is None else f"{plain}: {asked}"


def outcome(entry: Audit) -> str:
    """Return what came of a request, or why something happened; empty if that has been said."""
    if _is_event(entry.value):
        return "" if entry.kind in _NAMING else entry.message
    return entry.message if entry.done else f"refused: {entry.message}"


def _is_event(value: Any) -> bool:
    return isinstance(value, Mapping) and "rule" in value and "priority" in value


def _pause(asked: Any) -> str:
    if isinstance(asked, bool) or not isinstance(asked, int | float):
        return "Pause alarms"
    return f"Pause alarms for {duration(asked).removesuffix(' 00 s')}"


def _limits(asked: Any) -> str:
    if not isinstance(asked, Mapping):
        return "Take back the limits of the rate alarms"
    parts = (f"{name} {'as by default' if limit is None else limit}" for name, limit in asked.items())
    return f"Set limits: {', '.join(parts)}"


_COMMANDS: dict[str, Callable[[Any], str]] = {
    "acknowledge": lambda asked: (
        f"Acknowledge alarm {asked}" if asked else "Acknowledge all alarms of the bed"
    ),
    "pause": _pause,
    "resume": lambda asked: "End the pause of alarms",
    "set_model": lambda asked: f"Change the model to {asked}" if asked else "Change the model back",
    "set_threshold": lambda asked: (
        "Take back the score's threshold" if asked is None else f"Set the score's threshold to {asked}"
    ),
    "set_limits": _limits,
    "confirm_baseline": lambda asked: "Confirm the ECG as this patient's own baseline",
    "admit": lambda asked: "Say that it is the same patient" if asked == "same" else "Admit a patient",
    "discharge": lambda asked: "Discharge the patient",
    "delete_snapshots": lambda asked: "Delete all snapshots of the bed",
}
