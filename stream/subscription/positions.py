"""Where in a stream a reader begins."""

from __future__ import annotations

import re
from datetime import datetime

_POSITION = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_AGO = re.compile(r"\d+(\.\d+)?[smhd]", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LAST_OF_A_MS = 2**64 - 1


class SinceError(ValueError):
    """Text that names no position and no time."""


def after(since: str | datetime, now_ms: int) -> str:
    """Return the stream id behind which to begin.

    Parameters
    ----------
    since : str or datetime
        A stream id (``1764357600123-0``), the last one seen: what follows it is wanted. Or a time, from which
        on, included, everything is wanted: a datetime, the same as ISO 8601 text, or so long ago (``90s``,
        ``10m``, ``2h``, ``1d``). A time without a zone is local time.
    now_ms : int
        ms since the epoch.

    Raises
    ------
    SinceError
        If it is none of these.
    """
    if isinstance(since, datetime):
        ms = since.timestamp() * 1000
    elif _POSITION.fullmatch(since):
        return since
    else:
        ms = _time_ms(since, now_ms)
    return f"{max(0, round(ms) - 1)}-{_LAST_OF_A_MS}" if ms > 0 else "0-0"


def is_of_time(position: str) -> bool:
    """Return whether a position was made from a time by `after`, and is not that of an entry."""
    return position.endswith(f"-{_LAST_OF_A_MS}")


def place_of(position: str | bytes) -> tuple[int, int]:
    """Return a stream id as numbers that compare as places in the stream do."""
    text = position.decode() if isinstance(position, bytes) else position
    ms, _, sequence = text.partition("-")
    return int(ms), int(sequence or 0)


def _time_ms(text: str, now_ms: int) -> float:
    try:
        if _AGO.fullmatch(text):
            return now_ms - float(text[:-1]) * _UNITS_S[text[-1]] * 1000
        return datetime.fromisoformat(text).timestamp() * 1000
    except (ValueError, OverflowError):
        raise SinceError(
            f"{text!r} is no time: use 90s, 10m, 2h, 1d or 2026-01-31T12:00, or the id of a stream entry"
        ) from None
