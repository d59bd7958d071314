"""Settled: a flight's head, and what it means to those who wait for it.

Law: it is decided once, when the head arrives, and every waiter reads the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .core.answer import Answer
from .core.freshness import ERRORS
from .core.http import StoredResponse
from .core.settle import Settlement
from .core.status import Outcome, Reason
from .core.unseen import Unseen


class Settled(Unseen, msgspec.Struct, eq=False):
    """What a flight's head means to its waiters.

    `vary` are the fields that tell variants of the base key apart, `variant` the key of this one; `passed` says that
    only the leader may use the response, and why. `route` is known where somebody is to be told. `before` is the
    leader's scope as it was asked, where it may have to ask again for another variant. One that is `outdated` turned
    out to be of before an invalidation: followers ask anew. One that `says_nothing` is shared while it is under way and
    kept by nobody, and there is no more to tell of it. `stand_in` is the stored response that went out instead of an
    error. One is `of_session` where the app has read the session: its layer says `Vary: Cookie` for the request that
    led, and we for all others.
    """

    head: Answer
    settlement: Settlement
    vary: frozenset[bytes]
    variant: bytes
    passed: Reason | None = None
    route: str | None = None
    outcome: Outcome = "forwarded"
    answered: int | None = None
    mangled: bool = False
    before: dict[str, Any] | None = None
    says_nothing: bool = False
    outdated: bool = False
    of_session: bool = False
    stand_in: StoredResponse | None = None

    @property
    def failed(self) -> bool:
        """Whether the app's own answer is an error for which a stored response may stand in (RFC 5861 s.4)."""
        return self.outcome == "forwarded" and self.head.status in ERRORS
