"""The log of a process on standard error: lines for people, or JSON for what collects logs.

A line of JSON has ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``; ``error`` with the traceback
where there is one; and, where a line is about one of them, ``bed``, and ``session``, ``chunk``, ``alarm`` or
``command``, by which lines of several processes can be put together. Passwords in URLs are left out of both.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

import click

from stream.masking import without_credentials

LogFormat = Literal["text", "json"]

ABOUT = ("bed", "session", "chunk", "alarm", "command")
"""What a line may be about: names to give as ``extra``."""

# What a command tells whoever started it, whatever the level of the log.
_SAID = logging.getLogger("bedside")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_credentials(record.getMessage()),
        }
        line |= {name: str(vars(record)[name]) for name in ABOUT if vars(record).get(name) is not None}
        if record.exc_info:
            line["error"] = without_credentials(self.formatException(record.exc_info))
        return json.dumps(line)


def set_up(form: LogFormat, level: int) -> None:
    """Write this process's log to standard error; nothing happens where it is written already.

    Parameters
    ----------
    form : str
        ``text`` or ``json``. With ``json`` every line there is JSON, also warnings and what ends the process.
    level : int
        Of `logging`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler])
    if is_json():
        _SAID.setLevel(logging.INFO)
        logging.captureWarnings(True)
        sys.excepthook = _last_words


def is_json() -> bool:
    """Say whether the log is JSON."""
    return any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers)


def say(text: str, *, level: int = logging.INFO, bed: str | None = None) -> None:
    """Tell whoever started the command: ``bedside: text`` on standard error, or a line of the JSON log."""
    if is_json():
        _SAID.log(level, text, extra={"bed": bed})
    else:
        click.echo(f"bedside: {without_credentials(text)}", err=True)


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _SAID.critical("ended by %s", kind.__name__, exc_info=(kind, error, trace))
