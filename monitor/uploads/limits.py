"""``python -m monitor.uploads.limits ARGUMENTS``: the command line, within limits of memory, time and files.

What is uploaded may be made to harm. The process that reads it can take no more memory and processor time
than this, write no larger files, and is less urgent than everything that is live.
"""

from __future__ import annotations

import os
import resource
import sys

MEMORY_BYTES = 6 * 1024**3
"""Address space, of which most is never touched: what a day of twelve leads takes fits three times."""
PROCESSOR_S = 900
"""A day of twelve leads at 500 Hz takes some three minutes."""
FILE_BYTES = 2 * 1024**3
# A core dump would hold a patient's signal.
_CORE_BYTES = 0
_OPEN_FILES = 256
# Of 19: the page, the pump and the worker come first.
_NICENESS = 10


def limit() -> None:
    """Limit this process for good."""
    os.nice(_NICENESS)
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, PROCESSOR_S),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, _CORE_BYTES),
    ):
        # Never above what the process may have anyway.
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def main() -> None:
    """Run the command line within the limits."""
    limit()
    from bedside import main as run

    try:
        run()
    except MemoryError:
        sys.exit("bedside: the recording needs more memory than it may")


if __name__ == "__main__":
    main()
