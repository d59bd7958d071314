"""Work: what a flight runs, what it was asked for, and within which bounds.

Law: a flight knows no more of what it carries than this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable


class Terms(msgspec.Struct, frozen=True):
    """What flights of one kind have in common.

    Their bounds (seconds without a head, followers, bytes held), what they are called, and whether their origin itself
    says how long its responses hold.
    """

    max_wait: float
    max_followers: int
    max_bytes: int
    label: str = ""
    follows_origin: bool = False


class Work:
    """What a flight runs, and what else it is asked for on the way; `flight` is known when it is launched."""

    if not TYPE_CHECKING:  # mypy would look for the field here
        __slots__ = ()
    flight: Any

    def names(self) -> Iterable[str]:
        """What its result depends on."""
        return ()

    @property
    def caller(self) -> object:
        """Who asked for it, where that is known."""

    def start(self) -> Awaitable[Any]:
        """Begin it: what is to be awaited; what that raises ends the flight."""
        raise NotImplementedError

    def done(self, result: Any) -> None:
        """It has returned that."""

    def over(self, error: str | None) -> None:
        """It has ended, if badly with an error of that type."""

    def outgrown(self) -> None:
        """The body can't be kept whole."""

    def release(self) -> bool:
        """There was no head in time; whether one will come at once."""
        return False

    def late(self) -> None:
        """The response is whole, and the work goes on."""


NO_WORK: Final = Work()
"""What is left of it when it is over."""
