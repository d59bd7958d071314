"""Forking: what a child process makes anew, as the parent's threads stay behind, and with them what they held.

Law: who is gone is forgotten, and costs a fork nothing.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_alive: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def after_fork(one: T, renew: Callable[[T], None]) -> None:
    """Call `renew` with the object in every child process, in the order in which they were named."""
    _alive[one] = renew


def _in_child() -> None:
    for one, renew in list(_alive.items()):
        renew(one)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
