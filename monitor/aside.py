"""Our own commands, run beside the server: what takes a second of a processor holds up no page there."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from dataclasses import dataclass

# Pages and samples go first.
_PRIORITY = 10


class AsideError(RuntimeError):
    """A command that did not get on; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command.

    Attributes
    ----------
    code : int
        0 done, 1 refused.
    output : bytes
        Its standard output.
    refusal : str
        Why it did not do it, one line; empty if it did.
    """

    code: int
    output: bytes
    refusal: str


async def bedside(*arguments: str, redis_url: str, prefix: str, timeout_s: float) -> Done:
    """Run ``bedside ARGUMENTS…`` on a deployment.

    Parameters
    ----------
    *arguments : str
    redis_url, prefix : str
        Handed over in the environment: what stands on a command line everybody on the machine can read.
    timeout_s : float

    Raises
    ------
    AsideError
        If it took too long, or ended in any other way than done or refused.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bedside",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | {"BEDSIDE_REDIS_URL": redis_url, "BEDSIDE_PREFIX": prefix},
        # Linux shares out processors by session first.
        start_new_session=True,
    )
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _PRIORITY)
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    except TimeoutError:
        raise AsideError(f"not done within {timeout_s:g} s: this machine is very busy") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    # Warnings may stand before it.
    lines = errors.decode(errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("bedside: ") if lines else ""
    if process.returncode not in (0, 1):
        raise AsideError(f"the command ended with {process.returncode}: {said}")
    return Done(process.returncode, output, said if process.returncode else "")
