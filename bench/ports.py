"""Addresses of this machine for what a benchmark or a test starts."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a TCP port of the loopback address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
