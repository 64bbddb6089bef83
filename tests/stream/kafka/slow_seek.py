"""A worker that takes long to find its place in its partitions; arguments as those of `bedside worker`.

Until some of what Faust reads meanwhile, if it reads, has been taken out of its queues, and some has not.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from faust.transport.consumer import Consumer

from bedside import main

_LONG_S = 3.0
_perform_seek = Consumer.perform_seek


async def perform_seek(self: Any) -> None:
    await _perform_seek(self)
    most, until = 0, time.monotonic() + _LONG_S
    while time.monotonic() < until:
        waiting = sum(queue.qsize() for queue in self.app.flow_control._queues)
        if 0 < waiting < most:
            return
        most = max(most, waiting)
        await asyncio.sleep(0)


Consumer.perform_seek = perform_seek  # type: ignore[method-assign]
sys.argv = ["bedside", "worker", *sys.argv[1:]]
main()
