"""The administration in a child process: it serves there, whatever the parent's threads held when it forked."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("limits", reason="the administration needs its extra: python -m pip install '.[admin]'")

from dedup_middleware import Dedup
from dedup_middleware.events import AlertRaised

from .admin_kit import TOKEN, House
from .kit import eventually

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here: run it on Linux or macOS"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def in_child(serve: Callable[[], Any]) -> int:
    """How a child process ended that serves: 0, or 14 where something that the parent held kept it."""
    child = os.fork()
    if not child:
        ended = 1
        try:
            signal.alarm(20)
            asyncio.run(serve())
            ended = 0
        finally:
            os._exit(ended)
    return os.waitpid(child, 0)[1]


def parts_of(house: House) -> dict[str, Any]:
    """What has a lock of its own."""
    inside = house.inside
    audit = inside.api.audit
    parts = [inside.api.recorder, audit, audit._table, inside.limiter.storage, inside.door.sessions]
    return {type(part).__name__: part for part in parts if part is not None}


def test_no_lock_that_the_parent_held_keeps_the_child(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="a ledger needs its extra: python -m pip install '.[records]'")
    house = House(dedup=Dedup(records=f"sqlite:///{tmp_path}/dedup.db", secret="s" * 32))
    parts = parts_of(house)
    assert set(parts) == {"Recorder", "Audit", "Table", "BoundedStorage", "Sessions"}

    async def serve() -> None:
        browser = await house.browser()
        house.dedup.events.publish(AlertRaised(at=1.0, alert="a", message="m", value=1.0, threshold=1.0))
        await eventually(lambda: parts["Recorder"].alerts)
        await browser.post("api/invalidate", json={"all": True})
        assert (await browser.delete("api/session")).status_code == 200
        await eventually(lambda: parts["Table"]._waiting.unfinished_tasks == 0)

    with ExitStack() as held:
        for part in parts.values():
            held.enter_context(part._own.lock)
        assert in_child(serve) == 0
    asyncio.run(house.dedup.aclose())


def test_a_function_that_says_who_may_is_asked_in_the_child_too() -> None:
    house = House(allow=lambda request: request.headers.get("authorization"))

    async def ask() -> None:
        async with house.client(headers={"authorization": TOKEN}) as client:
            for _ in range(8):  # more than it has threads
                assert (await client.get("api/stats")).status_code == 200

    asyncio.run(ask())
    assert in_child(ask) == 0
