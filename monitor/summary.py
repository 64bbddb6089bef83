"""What the page says of beds and alarms: a ward in words and signs, as plain data for the browser.

Nothing here is told by colour alone: every state has a sign and a text, too.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from monitor.live.ward import SILENT_S, URGENCY, Bed, Ward
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


def alarm_line(event: AlarmEvent, device_now_ns: int) -> dict[str, Any]:
    """Return an open alarm for the page."""
    return {
        "level": event.priority.value,
        "technical": event.kind is AlarmKind.TECHNICAL,
        "acknowledged": event.presence is Presence.ACKNOWLEDGED,
        "sign": _SIGNS[event.kind][event.priority],
        "text": event.message,
        "presence": _PRESENCE[event.presence],
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
        "since": "",
        "for": "",
        "more": max(0, len(alarms) - 1),
        "score": "–",
        "over": False,
        "lag": "–",
        "lagging": True,
        "state": "live",
    }
    if finding is not None and finding.score is not None and is_current(bed, now_ns):
        line["score"] = number(finding.score)
        line["over"] = finding.anomalous
    if feed is not None:
        lag_s = feed.lag_s(now_ns)
        line["lag"], line["lagging"] = lag(lag_s), lag_s > SILENT_S
    if alarms:
        device_ns = bed.device_time(now_ns)
        line |= alarm_line(alarms[0], device_ns) | {"for": brief((device_ns - alarms[0].onset_t) / 1e9)}
    state, sign, text = _state(bed, now_ns)
    line["state"] = state
    if not alarms:
        line |= {"sign": sign, "text": text}
    elif not line["technical"] and not is_current(bed, now_ns):
        # A patient's alarm stays, but nobody can say whether it still holds.
        line["presence"] = ", ".join(part for part in (line["presence"], text) if part)
    return line


def is_current(bed: Bed, now_ns: int) -> bool:
    """Say whether the newest score is about the signal of now."""
    return not bed.is_silent(now_ns) and not bed.is_unscored()


def _state(bed: Bed, now_ns: int) -> tuple[str, str, str]:
    # State of the feed, its sign and its text.
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


def bed_lines(ward: Ward, now_ns: int) -> list[dict[str, Any]]:
    """Return the rows of the bed list: open alarms first, the most urgent on top, then by name."""

    def order(bed: Bed) -> tuple[int, bool, list[tuple[bool, int, str]]]:
        alarms = bed.open_alarms()
        if alarms:
            newest = alarms[0]
            acknowledged = newest.presence is Presence.ACKNOWLEDGED
            return (-2 - URGENCY[newest.priority], acknowledged, natural(bed.name))
        return (-1 if bed.is_unscored() and not bed.is_silent(now_ns) else 0, False, natural(bed.name))

    return [bed_line(bed, now_ns) for bed in sorted(ward.beds.values(), key=order)]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a sorting key that puts ``bed-2`` before ``bed-10``."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in _DIGITS.split(name)]


def ward_trouble(ward: Ward, now_ns: int, lost_since_ns: int | None) -> str:
    """Return what is wrong with the system as a whole, one sentence, empty if nothing is."""
    if lost_since_ns is not None:
        for_s = duration((now_ns - lost_since_ns) / 1e9)
        return f"Connection to the server lost for {for_s}: what you see is old"
    live = [
        bed for bed in ward.beds.values() if bed.feed and not bed.feed.ended and not bed.is_silent(now_ns)
    ]
    if live and all(bed.is_unscored() for bed in live):
        return "No bed is being scored: is a worker running? Start one with “bedside worker”"
    if ward.everywhere:
        return max(ward.everywhere.values(), key=lambda event: URGENCY[event.priority]).message
    return ""
