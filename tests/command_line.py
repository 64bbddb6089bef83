"""The command line in a test: as the program that a person starts, or in this process, which is quicker."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

import bedside

# What Python itself does not show.
_UNSEEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def started(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it as a process of its own: seconds of imports, and what libraries write past Python is seen."""
    return subprocess.run(
        [sys.executable, "-m", "bedside", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in this process, with the streams, the log and the warnings that a process of its own has."""
    out, err = io.StringIO(), io.StringIO()
    command = ["bedside", *map(str, arguments)]

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        err.write(warnings.formatwarning(message, category, filename, lineno))

    code: Any = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", command)
        for name, value in environment.items():
            patch.setenv(name, value)
        # pytest has handlers and filters of its own, in the way of the program's.
        patch.setattr(logging.getLogger(), "handlers", [])
        warnings.resetwarnings()
        for category in _UNSEEN:
            warnings.simplefilter("ignore", category)
        patch.setattr(warnings, "showwarning", show)
        try:
            bedside.main()
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def assert_refused(result: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if code == 1:
        assert result.stderr.startswith("bedside: ")
        assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr
