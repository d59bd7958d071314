"""Forking: what a child process makes anew, as the parent's threads stay behind, and with them what they held.

Law: who is gone is forgotten, and costs a fork nothing; a child that uses nothing starts nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_log: Final = logging.getLogger("dedup_middleware.parts")

_alive: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def after_fork(one: T, renew: Callable[[T], None]) -> None:
    """Call `renew` with the object in every child process, in the order in which they were named."""
    _alive[one] = renew


class OwnLock:
    """A `lock` that every child process has anew: the thread that held it stayed behind with the parent."""

    def __init__(self) -> None:
        self._make()
        after_fork(self, OwnLock._make)

    def _make(self) -> None:
        self.lock = threading.Lock()


def _in_child() -> None:
    for one, renew in list(_alive.items()):
        try:
            renew(one)
        except Exception:  # noqa: BLE001 - whatever it is, the others are still to be renewed
            _log.exception("%s was not made anew after a fork", type(one).__qualname__)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
