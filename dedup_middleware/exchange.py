"""An exchange: one request that was not a plain hit, and what becomes known of it on its way to an answer.

Law: it is told once, with one outcome and one reason; what it wants of a response is asked here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .client import Client
from .core.assess import NOTHING_WANTED, Wants, is_enough, stands_in
from .core.decide import Consider
from .core.settle import Keep
from .core.shape import NO_SHAPE, Shape
from .core.status import Reason
from .core.unseen import Unseen
from .dedup import Dedup
from .flight import Flight
from .telemetry import Span, Tracer

if TYPE_CHECKING:
    from .core.http import StoredResponse
    from .settled import Settled


class Exchange(Client, Unseen, msgspec.Struct, eq=False):
    """One request's conversation with the table, its flights and its own client.

    `method` is the one it came with, for apps write into scopes; `key` is its fingerprint, before variants are told
    apart, `started` when it came, `shape` its scope's then, `asked` what it wants of a stored response, `tracer` who
    records its spans. `led` are the flights that it opened; `alone` is why it waits for no other one any more,
    `gave_up` says that it has waited for one in vain, which failed or had no head in time.
    """

    dedup: Dedup
    app: ASGIApp
    plan: Consider
    method: str
    scope: Scope
    receive: Receive
    send: Send
    key: bytes
    body: bytes | None
    started: float
    shape: Shape = NO_SHAPE
    asked: Wants = NOTHING_WANTED
    tracer: Tracer | None = None
    started_ns: int = 0
    span: Span | None = None
    led: list[Flight] = []
    alone: Reason | None = None
    gave_up: bool = False
    heard: list[Message] = []
    sent_head: bool = False
    status: int = 0

    def find_tracer(self) -> None:
        """From now on its spans are recorded, if any are."""
        self.tracer, self.started_ns = self.dedup.telemetry.tracer(self.started), time.time_ns()

    def differs(self, settled: Settled) -> bool:
        """Whether a response is another variant than this request's (RFC 9111 s.4.1)."""
        headers = self.scope["headers"]
        return self.plan.fingerprints.variant(self.key, settled.vary, headers) != settled.variant

    def is_satisfied(self, settled: Settled) -> bool:
        """Whether another request's response is young and fresh enough for this one (RFC 9111 s.5.2.1).

        What stands in for an error has to be allowed to for this request, too (s.4.2.4).
        """
        if settled.stand_in is not None:
            return self.bears(settled.stand_in)
        if self.asked is NOTHING_WANTED:
            return True
        kept = settled.settlement
        if isinstance(kept, Keep):
            return is_enough(kept.age, kept.lifetime, self.asked)
        return is_enough(settled.head.age or 0, 0.0, self.asked)

    def bears(self, stored: StoredResponse | None) -> bool:
        """Whether this request may have what is stored instead of an error."""
        return stored is not None and stands_in(stored, self.asked, self.dedup.clock())
