"""The process as the operating system sees it.

Law: only what the system itself tells; None where it tells nothing.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

_STARTED: Final = time.monotonic()
_STATM: Final = Path("/proc/self/statm")


class Process(msgspec.Struct, frozen=True):
    """CPU seconds so far, resident bytes (null where the system does not tell), seconds since the package loaded."""

    cpu_seconds: float
    resident_bytes: int | None
    uptime: float


def process() -> Process:
    """This process now."""
    return Process(time.process_time(), _resident(), time.monotonic() - _STARTED)


def _resident() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - Windows has none
        import sys  # noqa: PLC0415 - needed beside resource alone

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the most there was: better than nothing
        return peak if sys.platform == "darwin" else peak * 1024
    return None
