"""What the page says of beds and alarms: a ward in words and signs, as plain data for the browser.

Nothing here is told by colour alone: every state has a sign and a text, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from monitor.live.ward import SILENT_S, URGENCY, Bed, Ward
from stream.alarms.conditions import PAUSED
from stream.contract import AlarmEvent, AlarmKind, Presence, Priority

# What patient monitors put before an alarm's text: stars for physiological, exclamation marks for
# technical ones, more for the more urgent.
_SIGNS = {
    AlarmKind.PHYSIOLOGICAL: {
        Priority.HIGH: "***",
        Priority.MEDIUM: "**",
        Priority.LOW: "*",
        Priority.INFO: "i",
    },
    AlarmKind.TECHNICAL: {Priority.HIGH: "!!!", Priority.MEDIUM: "!!", Priority.LOW: "!", Priority.INFO: "i"},
}
_PRESENCE = {
    Presence.ON: "",
    Presence.LATCHED: "ended, latched",
    Presence.ACKNOWLEDGED: "acknowledged",
    Presence.OFF: "ended",
}
# As `stream.vitals.quality` gives up a lead.
_USABLE = 0.4
# As monitors write it where there is little room.
_BRIEF = {
    "ventricular-fibrillation": "V-fib",
    "ventricular-tachycardia": "V-tach",
    "atrial-fibrillation": "A-fib",
    "extreme-bradycardia": "extreme brady",
    "extreme-tachycardia": "extreme tachy",
    "anomaly": "unusual ECG",
}
_BRIEF_PRESENCE = {Presence.LATCHED: " ended", Presence.ACKNOWLEDGED: " ack"}
_DIGITS = re.compile(r"(\d+)")


def duration(seconds: float) -> str:
    """Return a duration for people, such as ``"42 s"``, ``"3 min 05 s"`` or ``"2 h 10 min"``."""
    whole = max(0, int(seconds))
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def brief(seconds: float) -> str:
    """Return a duration for people in a narrow place, such as ``"42 s"``, ``"3 min"`` or ``"2 h"``."""
    return " ".join(duration(seconds).split()[:2])


def lag(seconds: float) -> str:
    """Return a lag for people, no finer than they can see."""
    if seconds < 0.1:
        return "<0.1 s"
    return f"{seconds:.1f} s" if seconds < 10 else brief(seconds)


def local_time(device_ns: int) -> datetime | None:
    """Return a device time in the time zone where the dashboard runs; None if it is out of all reason."""
    try:
        return datetime.fromtimestamp(device_ns / 1e9, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def clock_time(device_ns: int) -> str:
    """Return a device time as the clock on the wall shows it."""
    time = local_time(device_ns)
    return time.strftime("%H:%M:%S") if time else "?"


def number(value: float) -> str:
    """Return a score for people."""
    return f"{round(value, 1) or 0.0:.1f}".replace("-", "−")


def alarm_line(event: AlarmEvent, device_now_ns: int, text: str | None = None) -> dict[str, Any]:
    """Return an open alarm for the page; `text` is what it is about, by default its message."""
    by = f" by {event.who}" if event.who and event.presence is Presence.ACKNOWLEDGED else ""
    what = _BRIEF.get(event.rule, event.rule.replace("-", " "))
    return {
        "alarm": event.alarm,
        "level": event.priority.value,
        "technical": event.kind is AlarmKind.TECHNICAL,
        "acknowledged": event.presence is Presence.ACKNOWLEDGED,
        "sign": _SIGNS[event.kind][event.priority],
        "text": event.message if text is None else text,
        "brief": what + _BRIEF_PRESENCE.get(event.presence, ""),
        "presence": _PRESENCE[event.presence] + by,
        "since": clock_time(event.onset_t),
        "for": duration((device_now_ns - event.onset_t) / 1e9),
    }


def bed_line(bed: Bed, now_ns: int) -> dict[str, Any]:
    """Return a bed's row of the list."""
    alarms = bed.open_alarms()
    feed, finding = bed.feed, bed.finding
    line: dict[str, Any] = {
        "bed": bed.name,
        "level": "none",
        "technical": False,
        "acknowledged": False,
        "sign": "",
        "text": "",
        "brief": "",
        "since": "",
        "for": "",
        "more": max(0, len(alarms) - 1),
        "more_level": "",
        "more_sign": "",
        "score": "–",
        "over": False,
        "lag": "–",
        "lagging": True,
        "state": "live",
        "rate": "–",
        "paused": any(event.rule == PAUSED.rule for event in alarms),
        "signal": signal(bed, now_ns),
    }
    if (rate := bed.heart_rate(now_ns)) is not None:
        line["rate"] = f"{rate:.0f}"
    if finding is not None and finding.score is not None and is_current(bed, now_ns):
        line["score"] = number(finding.score)
        line["over"] = finding.anomalous
    if feed is not None:
        lag_s = feed.lag_s(now_ns)
        line["lag"], line["lagging"] = lag(lag_s), lag_s > SILENT_S
    if alarms:
        device_ns = bed.device_time(now_ns)
        line |= alarm_line(alarms[0], device_ns, bed.text_of(alarms[0]))
        line["for"] = brief((device_ns - alarms[0].onset_t) / 1e9)
        # In their order: the first that nobody has answered is the most urgent of the others.
        unheard = next((event for event in alarms[1:] if _unheard([event])), None)
        if unheard is not None:
            line["more_level"] = unheard.priority.value
            line["more_sign"] = _SIGNS[unheard.kind][unheard.priority]
    state, sign, text = state_line(bed, now_ns)
    line["state"] = state
    if not alarms:
        line |= {"sign": sign, "text": text, "brief": text.partition(":")[0]}
    elif not line["technical"] and not is_current(bed, now_ns):
        # A patient's alarm stays, but nobody can say whether it still holds.
        line["presence"] = ", ".join(part for part in (line["presence"], text) if part)
    return line


def signal(bed: Bed, now_ns: int) -> dict[str, Any]:
    """Return how good a bed's signal is: ``bars`` of 3, and ``text``; none where nobody has said."""
    vitals, feed = bed.vitals, bed.feed
    if vitals is None or feed is None or vitals.session != feed.session or feed.silent_s(now_ns) > SILENT_S:
        return {"bars": None, "text": ""}
    poor = [lead for lead, index in vitals.quality.items() if index < _USABLE]
    leads = len(vitals.quality)
    if not poor:
        return {"bars": 3, "text": "good signal"}
    if len(poor) == leads:
        return {"bars": 0, "text": "no usable signal"}
    if len(poor) == 1:
        issues = vitals.issues.get(poor[0])
        return {"bars": 2, "text": f"{poor[0]} {issues[0] if issues else 'poor'}"}
    return {"bars": 1 if 2 * len(poor) > leads else 2, "text": f"{len(poor)} of {leads} leads poor"}


def is_current(bed: Bed, now_ns: int) -> bool:
    """Say whether the newest score is about the signal of now."""
    return not bed.is_silent(now_ns) and not bed.is_unscored()


def state_line(bed: Bed, now_ns: int) -> tuple[str, str, str]:
    """Return the state of a bed's feed, its sign and its text."""
    feed = bed.feed
    if feed is None:
        return "silent", "–", "no signal"
    if feed.ended:
        return "ended", "■", "feed ended"
    if bed.is_silent(now_ns):
        return "silent", "–", f"no signal for {brief(feed.silent_s(now_ns))}"
    if bed.is_unscored():
        return "unscored", "!", f"not scored for {brief(bed.unscored_s())}"
    if bed.finding is None or bed.finding.session != feed.session:
        return "live", "…", "first window is filling"
    if bed.finding.score is None:
        return "live", "?", f"cannot be scored: {bed.finding.reason}"
    return "calm", "✓", "no alarm"


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sorting key that puts ``bed-2`` before ``bed-10``."""
    parts = _DIGITS.split(name.casefold())
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def ward_trouble(ward: Ward, now_ns: int, lost_since_ns: int | None) -> str:
    """Return what is wrong with the system as a whole, one sentence, empty if nothing is."""
    if lost_since_ns is not None:
        for_s = duration((now_ns - lost_since_ns) / 1e9)
        return f"Connection to the server lost for {for_s}: what you see is old"
    if _nobody_scores(ward, now_ns):
        return "No bed is being scored: is a worker running? Start one with “bedside worker”"
    if ward.everywhere:
        return max(ward.everywhere.values(), key=lambda event: URGENCY[event.priority]).message
    return ""


def loudest(ward: Ward, now_ns: int, lost_since_ns: int | None) -> str:
    """Return the priority that has to be heard, empty for none: the highest that nobody has acknowledged.

    A page that shows nothing but the past is as urgent as whatever it does not show. That nobody scores is a
    medium alarm, which nobody may be left to raise.
    """
    if lost_since_ns is not None:
        return Priority.HIGH
    events = [event for bed in ward.beds.values() for event in bed.alarms.values()]
    heard = _unheard([*events, *ward.everywhere.values()])
    if _nobody_scores(ward, now_ns):
        heard.append(Priority.MEDIUM)
    return max(heard, key=URGENCY.__getitem__, default="")


def _unheard(events: Iterable[AlarmEvent]) -> list[Priority]:
    # Priorities of what people have yet to answer.
    return [
        event.priority
        for event in events
        if event.presence is not Presence.ACKNOWLEDGED and event.priority is not Priority.INFO
    ]


def _nobody_scores(ward: Ward, now_ns: int) -> bool:
    live = [
        bed for bed in ward.beds.values() if bed.feed and not bed.feed.ended and not bed.is_silent(now_ns)
    ]
    return bool(live) and all(bed.is_unscored() for bed in live)
