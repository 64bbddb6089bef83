from __future__ import annotations

from typing import Any

import pytest

from monitor.api.wording import outcome, what
from stream.audit.log import Head, sealed
from stream.contract import Audit, CommandKind
from tests.monitor.messages import T0


def entry(kind: str, value: Any = None, message: str = "", *, done: bool = True) -> Audit:
    return sealed(
        Head(), entry="e", bed="bed-1", kind=kind, who="anna", at=T0, done=done, value=value, message=message
    )


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("acknowledge", {"asked": "5f3a"}, "Acknowledge alarm 5f3a"),
        ("acknowledge", {"asked": None}, "Acknowledge all alarms of the bed"),
        ("pause", {"asked": 120}, "Pause alarms for 2 min"),
        ("pause", {"asked": 90.0}, "Pause alarms for 1 min 30 s"),
        ("pause", {"asked": None}, "Pause alarms"),
        ("resume", {"asked": None}, "End the pause of alarms"),
        ("set_threshold", {"asked": 3.2, "before": None, "after": 3.2}, "Set the score's threshold to 3.2"),
        ("set_threshold", {"asked": None}, "Take back the score's threshold"),
        ("set_limits", {"asked": {"high": 150, "low": None}}, "Set limits: high 150, low as by default"),
        ("set_limits", {"asked": None}, "Take back the limits of the rate alarms"),
        ("admit", {"asked": "same"}, "Say that it is the same patient"),
        ("delete_snapshots", 3, "Delete all snapshots of the bed"),
        ("teach_it_tricks", {"asked": 7}, "Teach it tricks: 7"),
    ],
)
def test_what_was_asked_for_is_a_sentence(kind: str, value: Any, words: str) -> None:
    asked = entry(kind, value, "as you say")
    assert (what(asked), outcome(asked)) == (words, "as you say")
    assert outcome(entry(kind, value, "no such bed", done=False)) == "refused: no such bed"


@pytest.mark.parametrize(
    ("kind", "message", "words", "why"),
    [
        ("raise", "no beat for 4 s", "Alarm raised: no beat for 4 s (high priority)", ""),
        ("escalate", "no beat; not seen", "Alarm told again: no beat; not seen", ""),
        (
            "acknowledge",
            "acknowledged by anna",
            "Alarm acknowledged: extreme bradycardia",
            "acknowledged by anna",
        ),
        ("end", "beats again", "Alarm ended: extreme bradycardia", "beats again"),
    ],
)
def test_what_became_of_an_alarm_is_one_too(kind: str, message: str, words: str, why: str) -> None:
    value = {"rule": "extreme-bradycardia", "priority": "high", "since": 1}
    happened = entry(kind, value, message)
    assert (what(happened), outcome(happened)) == (words, why)


def test_every_command_has_words() -> None:
    for kind in CommandKind:
        assert "_" not in what(entry(kind, {"asked": None}))
