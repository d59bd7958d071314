"""Heads: what a forward's head means for all who wait, for the table, and for what lies under its key.

Law: it is decided here, once, before a follower gets a byte (who may use the response, and to which variant it
belongs); the waiters hear of it last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from .core.answer import read_answer
from .core.effects import groups, origin_of
from .core.names import PERSONAL_FIELDS
from .core.settle import MOST_FIELDS, Keep, Pass, Settlement, ShareOnly, settle
from .core.variants import hidden_in, listed, told_apart
from .keeping import forget_beside, settled_by, update_by_head
from .scopes import copy_back, session_content, session_was_read
from .settled import Settled

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import Message

    from .core.answer import Answer
    from .core.decide import Consider
    from .core.status import Reason
    from .dedup import Dedup
    from .flight import Flight
    from .validation import Validation

PASS_SECONDS: Final = 2.0
"""How long a hit-for-miss mark holds."""


class Forward(Protocol):
    """What is asked of the forward whose head it is."""

    dedup: Dedup
    plan: Consider
    flight: Flight
    base: bytes
    method: str
    leader_scope: MutableMapping[str, Any]
    shown: frozenset[bytes]
    scope: MutableMapping[str, Any]
    given: dict[str, Any]
    settled: Settled | None
    validation: Validation | None
    session: bytes | None
    groups: tuple[str, ...]

    @property
    def key(self) -> bytes:
        """The flight's key: a digest."""


def open_head(forward: Forward, message: Message) -> None:
    """The head: who may use it, told to all who wait."""
    dedup, flight = forward.dedup, forward.flight
    leaders, validation, trace = forward.leader_scope, forward.validation, flight.trace
    head = read_answer(message["status"], message.get("headers", ()), forward.method)
    settlement = _settle(forward, head) if validation is None else _validated(forward, validation, head)
    with_session = "session" in leaders or forward.session is not None
    if with_session and session_content(leaders) != forward.session:
        settlement = Pass("session")
    elif head.vary and not isinstance(settlement, Pass) and _names_too_much(forward, settlement):
        settlement = Pass("vary")
    settled = Settled(head, settlement, forward.shown, flight.key)  # type: ignore[arg-type] # ours are digests
    if type(settlement) is Pass:  # a struct's isinstance asks its metaclass
        _pass(forward, settled, settlement.reason)
    else:
        if dedup.passes.young or dedup.passes.old:
            dedup.passes.discard(settled.variant)
        if forward.shown or not head.plain or type(settlement) is Keep:
            _share(forward, settled, settlement)
        else:
            settled.says_nothing = validation is None
    if trace is not None or dedup.events.heard:
        settled.route = dedup.templates.of(forward.scope)
    if with_session:
        settled.of_session = session_was_read(leaders)
    if validation is not None:
        settled.outcome, settled.answered = validation.outcome, validation.answered
        if validation.outcome != "forwarded":
            settled.of_session = settled.of_session or validation.stored.of_session
        if validation.outcome == "stale":
            settled.stand_in = validation.stored
    if settled.vary:
        settled.before = dict(leaders)
    copy_back(forward.given, forward.scope, leaders)
    if trace is not None:
        dedup.telemetry.head(trace)
    forward.settled = settled
    flight.open_head(settled)


def _settle(forward: Forward, head: Answer) -> Settlement:
    plan, method = forward.plan, forward.method
    if head.plain and plan.plain is not None and (head.length or 0) <= plan.room:
        known = plan.plain.get(head.status)
        if known is None:
            known = plan.plain[head.status] = settle(plan.rule, method, head)
        return known
    dedup, scope, flight, seen = forward.dedup, forward.leader_scope, forward.flight, forward.given["headers"]
    settlement = settled_by(dedup, plan, method, head, scope, seen, dedup.clock() - flight.opened_at)
    if method == "HEAD" and plan.rule.follows_origin and plan.lookup is not plan.prefix:
        update_by_head(dedup, plan, scope, head, flight, seen, forward.shown)
    elif not isinstance(settlement, Keep) and not _is_trouble(head.status):
        forget_beside(dedup, plan, forward.base, seen, lambda _: True)
    return settlement


def _is_trouble(status: int) -> bool:
    """Whether it says nothing of what is stored: the app failed, or it was asked too often (RFC 6585 s.4)."""
    return status >= 500 or status == 429


def _validated(forward: Forward, validation: Validation, head: Answer) -> Settlement:
    """The same of a head that answers a validation."""
    if not validation.dated:
        head.date = None  # the stored one's, which says nothing of when it was confirmed
    if validation.outcome == "stale":
        return ShareOnly(frozenset())  # what is stored, as it is
    settlement = _settle(forward, head)
    _supersede(forward, validation, head, settlement)
    return settlement


def _supersede(forward: Forward, validation: Validation, head: Answer, settlement: Settlement) -> None:
    """What the app has answered, and not to be stored, shows that what is stored answers nobody any more.

    A cookie that comes with a 304 does not: it is one caller's, and says nothing of what is stored.
    """
    confirmed = validation.outcome == "revalidated"
    if (_is_trouble(head.status) and not confirmed) or isinstance(settlement, Keep):
        return
    stored = validation.stored
    comes_with_304 = confirmed and head.personal in validation.said
    if not comes_with_304 or any(name.lower() in PERSONAL_FIELDS for name, _ in stored.head.headers):
        forward.dedup.keeper.take_back(forward.plan.ordinal, forward.key, stored)
        forget_others(forward, forward.key, frozenset())


def forget_others(forward: Forward, own: bytes, names: frozenset[bytes]) -> None:
    """Drop what is stored for a request under other lists of fields, and answers nothing that a newer one does not.

    The newer one lies under its `own` key, and fits what agrees in these fields. What it takes the place of would come
    back when it is gone; and so would what the app has just confirmed, which is the newer one now.
    """
    dedup, plan, validation = forward.dedup, forward.plan, forward.validation
    confirmed = validation.stored if validation is not None and validation.outcome == "revalidated" else None
    for key, others in dedup.variants_of(plan, forward.base, forward.given["headers"]):
        if key == own:
            continue
        stored = dedup.keeper.find(plan.ordinal, key, dedup.clock(), stale=True)
        if stored is None or stored.generation >= forward.flight.generation:
            continue
        if names <= others or stored is confirmed:
            dedup.keeper.take_back(plan.ordinal, key, stored)


# -- who may use it ---------------------------------------------------------------------------------------------------


def _pass(forward: Forward, settled: Settled, reason: Reason) -> None:
    """Only the leader may use it; for a while nobody waits for such a one."""
    dedup, head, validation = forward.dedup, settled.head, forward.validation
    settled.passed = reason
    if validation is not None and validation.outcome == "revalidated":
        # What was another caller's, and for all while it was stored, is so no more.
        others = PERSONAL_FIELDS - validation.said
        head.headers = [pair for pair in head.headers if pair[0].lower() not in others]
    settled.vary = forward.shown | hidden_in(forward.plan.fingerprints, head)
    if len(settled.vary) > MOST_FIELDS:
        settled.vary = forward.shown
    if settled.vary != forward.shown:
        _list(forward, settled.vary)
        settled.variant = _variant(forward, settled.vary)
    if reason != "server-error":
        dedup.passes.put(settled.variant, dedup.clock() + PASS_SECONDS)
    forward.flight.stop_keeping()


def _share(forward: Forward, settled: Settled, settlement: Keep | ShareOnly) -> None:
    """Others may have it, and there is more to it than that."""
    dedup, flight, head = forward.dedup, forward.flight, settled.head
    if settlement.vary or forward.shown or dedup.variants.get(forward.base) is not None:
        _tell_apart(forward, settled, settlement)
    if isinstance(settlement, Keep):
        flight.to_store = True
        settled.route = dedup.templates.of(forward.scope)
        if settlement.passed is not None:  # stored to be validated, and nobody else's before it is
            settled.passed = settlement.passed
            dedup.passes.put(settled.variant, dedup.clock() + PASS_SECONDS)
            flight.close()
    if settlement.stripped:
        head.shared = [pair for pair in head.shared if pair[0].lower() not in settlement.stripped]
    if head.groups:  # the response belongs to more groups than its rule says (RFC 9875 s.2)
        names = groups(head.groups)
        forward.groups += names
        # Nobody knew it when one of them was invalidated: who has joined since must not have what was begun before.
        settled.outdated = not dedup.flights.depends(flight, names, origin_of(forward.leader_scope))


def _names_too_much(forward: Forward, settlement: Keep | ShareOnly) -> bool:
    """Whether its Vary, with those of the responses before it, names more than is remembered for a key."""
    return len(told_apart(forward.plan.fingerprints, forward.shown, settlement)) > MOST_FIELDS


def _tell_apart(forward: Forward, settled: Settled, settlement: Keep | ShareOnly) -> None:
    """What its Vary names tells variants apart from now on; the flight answers to its own one's key."""
    reader = forward.plan.fingerprints
    settled.vary = told_apart(reader, forward.shown, settlement)
    if settled.vary != forward.shown or reader.reading.trusting:
        _list(forward, settled.vary)
    if settled.vary != forward.shown:
        settled.variant = _variant(forward, settled.vary) if settled.vary else forward.base
        forward.dedup.flights.move(forward.flight, settled.variant)


def _list(forward: Forward, vary: frozenset[bytes]) -> None:
    """Responses under its base key are told apart by these fields, too."""
    dedup, plan, base = forward.dedup, forward.plan, forward.base
    lists = dedup.variants.get(base)
    if lists is None:  # what is stored under the base key itself had no Vary
        lists = (frozenset(),) if dedup.keeper.find(plan.ordinal, base, dedup.clock(), stale=True) else ()
    if lists[:1] != (vary,):
        dedup.variants.put(base, listed(plan.fingerprints, lists, vary))


def _variant(forward: Forward, names: frozenset[bytes]) -> bytes:
    return forward.plan.fingerprints.variant(forward.base, names, forward.given["headers"])
