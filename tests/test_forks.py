"""A child process: what its parent's threads held is made anew there, and what it does not use is not begun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here: run it on Linux or macOS")

#: A thread holds `lock` while the process forks; the child does `in_child`, which must end.
HELD = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from dedup_middleware import Dedup
from dedup_middleware.forking import after_fork
{before}
held, go = threading.Event(), threading.Event()
def hold():
    with {lock}:
        held.set()
        go.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    {in_child}
    os._exit(0)
_, status = os.waitpid(child, 0)
go.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""

UNLUCKY = """
class Unlucky:
    def renew(self):
        raise RuntimeError("can't start new thread")
unlucky = Unlucky()
after_fork(unlucky, Unlucky.renew)
dedup = Dedup()
"""

IDLE = """
import asyncio, json, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from dedup_middleware import Alert, Dedup
dedup = Dedup(records=sys.argv[1], secret="a secret", alerts=[Alert("old", "flight-age", above=9)])
dedup.subscribe(print)
async def use():
    await dedup.call("key", lambda: asyncio.sleep(0, 1))
    assert await dedup.recorder.settle()
asyncio.run(use())
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    idle = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    asyncio.run(use())
    os.write(writing, json.dumps([idle, sorted({thread.name for thread in threading.enumerate()})]).encode())
    os._exit(0)
os.waitpid(child, 0)
print(os.read(reading, 10_000).decode())
asyncio.run(dedup.aclose())
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("before", "lock", "in_child"),
    [
        (
            "from dedup_middleware.telemetry import instruments",
            "sys.modules['dedup_middleware.telemetry.instruments']._making.lock",
            "Dedup()",
        ),
        (UNLUCKY, "dedup.lock", "assert dedup.lock.acquire(timeout=20)"),
    ],
    ids=["making-instruments", "after-one-that-fails"],
)
def test_no_lock_of_the_parent_s_threads_holds_up_a_child(before: str, lock: str, in_child: str) -> None:
    ended = run(HELD.format(before=before, lock=lock, in_child=in_child))

    assert ended.returncode == 0, ended.stderr


def test_a_child_that_does_not_use_the_engine_starts_nothing_and_one_that_does_starts_all(
    tmp_path: Path,
) -> None:
    ended = run(IDLE, f"sqlite:///{tmp_path}/dedup.db")

    assert ended.returncode == 0, ended.stderr
    idle, used = json.loads(ended.stdout.splitlines()[-1])
    assert idle == []
    assert {"dedup-alerts", "dedup-listener"} <= set(used)
