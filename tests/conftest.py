"""Fixtures for all tests.

``redis_server``: an empty server of its own for each test (60 ms); ``server.url`` is its address.
``redis_server_module``: one server for all tests of a module; use a prefix of your own on it.
``data_dir``: the folder of real recordings, or a skip that the summary counts.
``artefacts``: the folder in which tests of the page leave their screenshots, for people to look at.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.embedded import EmbeddedServer

_NO_DATA = "BEDSIDE_DATA names no folder of recordings"
NO_BROKER = "no MQTT broker: needs mosquitto (apt-get install mosquitto) and bedside[mqtt]"
"""Why tests that need one are skipped; the summary counts them."""

NO_PROMETHEUS = "no Prometheus: apt-get install prometheus"
"""Likewise."""


@pytest.fixture(autouse=True, scope="session")
def backend() -> Iterator[None]:
    """Let workers run what the tests compare them with, and not what is fastest here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEDSIDE_BACKEND", "onnxruntime")
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    folder = Path(os.environ.get("BEDSIDE_DATA") or "/nonexistent")
    if not (folder / "index.csv").is_file():
        pytest.skip(_NO_DATA)
    return folder


@pytest.fixture(scope="session")
def artefacts() -> Path:
    folder = Path(__file__).parents[1] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, why in (("data", _NO_DATA), ("an MQTT broker", NO_BROKER), ("Prometheus", NO_PROMETHEUS)):
        count = sum(why in str(report.longrepr) for report in skipped)
        terminalreporter.write_line(f"skipped for lack of {reason}: {count}")


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """Give an empty private directory with a path short enough for a unix socket, unlike ``tmp_path``."""
    path = Path(tempfile.mkdtemp(prefix="bs-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def redis_server(short_tmp: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(short_tmp) as server:
        yield server


@pytest.fixture(scope="module")
def redis_server_module() -> Iterator[EmbeddedServer]:
    path = Path(tempfile.mkdtemp(prefix="bs-"))
    with EmbeddedServer(path) as server:
        yield server
    shutil.rmtree(path, ignore_errors=True)
