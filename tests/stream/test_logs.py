"""The log's forms."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stream import logs
from tests.command_line import assert_refused, run, started


@contextmanager
def written(form: logs.LogFormat) -> Iterator[logging.Logger]:
    """Write the log as a process does, and leave everything as it was."""
    root, said = logging.getLogger(), logging.getLogger("bedside")
    levels = root.level, said.level
    with pytest.MonkeyPatch.context() as patch:
        # Within the test: pytest adds handlers of its own when one begins.
        patch.setattr(root, "handlers", [])
        patch.setattr(sys, "excepthook", sys.excepthook)
        logs.set_up(form, logging.WARNING)
        yield logging.getLogger("stream.test")
    logging.captureWarnings(False)
    root.setLevel(levels[0])
    said.setLevel(levels[1])


def test_a_json_line_says_what_it_is_about_and_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with written("json") as log:
        log.info("not at this level")
        log.warning("lost %s\nagain", "redis://a:hidden-word@h", extra={"bed": "icu-1", "alarm": "5f3a"})
        logs.say("began", bed="icu-2")
        try:
            raise ConnectionError("rediss://b:hidden-word@h/0")
        except ConnectionError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    text = capsys.readouterr().err
    assert "hidden-word" not in text
    first, second, third = map(json.loads, text.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "stream.test",
        "message": "lost redis://h\nagain",
        "bed": "icu-1",
        "alarm": "5f3a",
    }
    assert (second["message"], second["bed"], second["level"]) == ("began", "icu-2", "info")
    assert third["level"] == "critical"
    assert third["error"].endswith("ConnectionError: rediss://h/0")


def test_a_line_for_people_has_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with written("text") as log:
        log.warning("lost %s", "redis://a:hidden-word@h")
        logs.say("at redis://a:hidden-word@h")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("WARNING stream.test: lost redis://h")
    assert second == "bedside: at redis://h"


def test_an_error_of_a_command_is_a_line_of_the_log() -> None:
    url = "redis://:hidden-word@127.0.0.1:1"
    failed = started("--log-format", "json", "watch", "--redis", url)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
    assert "hidden-word" not in line
    assert_refused(run("watch", BEDSIDE_LOG_FORMAT="xml"), "log_format: Input should be 'text' or 'json'")
