"""A deployment of several workers on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from bench.ward import Ward


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux keeps a process to a core")
def test_each_worker_is_kept_to_one_core(short_tmp: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with Ward(short_tmp, workers=2, pinned=True) as ward:
        asyncio.run(ward.ready())
        for number, name in enumerate(ward.workers):
            # As many as its libraries made for that one core, which may be none beside the first.
            for thread in Path(f"/proc/{ward.children[name].pid}/task").iterdir():
                assert os.sched_getaffinity(int(thread.name)) == {cores[number % len(cores)]}
