"""The ruling: which rule is in force for a request, and whether it is on.

Law: method, path and root_path decide, so a plan is remembered when its target comes again; whatever changes the rules
forgets all plans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from msgspec import structs

from .core.ambiguity import ambiguous
from .core.decide import Bypass, Consider, Plan, RuleBook, check_names
from .core.errors import ConfigurationError
from .core.http import RESPONSE_OVERHEAD
from .core.memo import Memo
from .core.rules import Rule
from .core.seen import Once
from .function import PARTITION
from .stores.memory import Bounds
from .telemetry import where
from .work import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .core.fingerprint import Hasher
    from .core.http import Scope
    from .core.status import Reason
    from .telemetry import Tally, Telemetry

    Plans = Memo[tuple[str, str, bytes | None, str | None], Plan]

_PLAN_BYTES: Final = 2048


class Ruling:
    """The rules that were given, those that marks asked for and the default; which are off, and the plans made so far.

    `bounds` are what each lets a store hold.
    """

    def __init__(
        self, given: tuple[Rule, ...], default: Rule, hasher: Hasher, telemetry: Telemetry, max_bytes: int
    ) -> None:
        self.default = default
        self.own_states: list[Mapping[str, Any]] = []
        self._plans: WeakValueDictionary[int, Plans] = WeakValueDictionary()
        self._given = given
        self._marked: dict[tuple[str, tuple[str, ...]], Rule] = {}
        self._hasher = hasher
        self._telemetry = telemetry
        self._max_bytes = max_bytes
        self._own: frozenset[str] = frozenset()
        self._editions = 0
        self._once = Once()
        self.switched_off: frozenset[str] = frozenset()
        self._apply()

    def fresh(
        self, marked: Mapping[tuple[str, tuple[str, ...]], Rule]
    ) -> dict[tuple[str, tuple[str, ...]], Rule]:
        """Which of the rules that marks ask for are not in force yet."""
        return {place: rule for place, rule in marked.items() if place not in self._marked}

    def add(self, marked: Mapping[tuple[str, tuple[str, ...]], Rule]) -> None:
        """Put rules into force that marks ask for, after those that were given; what is switched off stays so.

        Raises:
            ConfigurationError: for a name that another rule has.
        """
        together = {**self._marked, **marked}
        check_names(self._given, self.default, together.values())
        self._marked = together
        self._apply()

    def _apply(self) -> None:
        self._editions += 1
        rules = (*self._given, *self._marked.values())
        terms: list[Terms] = []

        def complete(kind: Consider, method: str) -> Consider:
            rule, most = kind.rule, self.bounds[kind.ordinal].max_bytes
            return structs.replace(
                kind,
                room=min(rule.max_response_body, most - RESPONSE_OVERHEAD) if rule.stores else kind.room,
                tally=self._tallies(kind.label, method),
                terms=terms[kind.ordinal],
                where=where(kind.label, method),
            )

        book = RuleBook(rules, self.default, self._hasher, self.own_states, self._editions, complete)
        self.bounds = {
            ordinal: Bounds(rule.max_responses, self._max_bytes if rule.max_bytes is None else rule.max_bytes)
            for ordinal, rule in enumerate(book.rules)
        }
        self.bounds[PARTITION] = Bounds(Rule().max_responses, self._max_bytes)
        terms += [
            Terms(
                float(rule.max_wait),
                rule.max_followers,
                rule.max_response_body,
                label,
                rule.assesses and rule.follows_origin,
            )
            for rule, label in zip(book.rules, book.labels, strict=True)
        ]
        book.switch(self.switched_off)
        self.book = book  # whole: another thread may be planning
        """The rules in force, in the order in which they are tried."""
        self.forget()

    def switch(self, label: str, *, on: bool) -> None:
        """Switch one rule off, or on again.

        Raises:
            ConfigurationError: for a rule that there is none of, and one that is off by its own `mode`.
        """
        book = self.book
        rules = dict(zip(book.labels, book.rules, strict=True))
        if label not in rules:
            raise ConfigurationError("Dedup.switch", label, f"one of {', '.join(rules)}")
        if label not in self.switched_off and rules[label].mode == "off":
            raise ConfigurationError("Dedup.switch", label, 'a rule whose own mode is not "off"')
        self.switched_off = self.switched_off - {label} if on else self.switched_off | {label}
        book.switch(self.switched_off)
        self.forget()

    def leave_alone(self, *places: str) -> None:
        """Requests at and below these paths are an administration's: they pass the middlewares by, uncounted."""
        self._own |= {place for place in places if place}
        self.forget()

    def is_own(self, scope: Scope) -> bool:
        """Whether a request is for an administration of this engine."""
        if not self._own:
            return False
        path, root = scope["path"], scope.get("root_path") or ""
        return any(
            f"{path}/".startswith((f"{place}/", f"{root}{place}/")) for place in self._own
        ) and not ambiguous(path, scope.get("raw_path"))

    def plans_at(self, place: int) -> Plans:
        """The memory of the plans for one middleware's app, which lives as long as it is held."""
        return self._plans.setdefault(place, Memo(4096))

    def forget(self) -> None:
        """Forget all plans."""
        for held in self._plans.valuerefs():  # at once: another thread may add one meanwhile
            plans = held()
            if plans is not None:
                plans.clear()

    def plan(self, scope: Scope, place: int, plans: Plans | None = None) -> Plan:
        """The plan for a request to one middleware's app, remembered (in `plans_at(place)`) for its method and path."""
        target = (scope["method"], scope["path"], scope.get("raw_path"), scope.get("root_path"))
        if plans is None:
            plans = self.plans_at(place)
        cleared = plans.cleared
        plan = plans.get(target)
        if plan is None:
            plan = self.book.plan(scope, place)
            if self._own and self.is_own(scope):
                plan = Bypass("off", plan.label)
            elif type(plan) is Bypass:
                tally = self._telemetry.tally("bypassed", plan.reason, plan.label, target[0])
                plan = structs.replace(plan, tally=tally)
            if (
                self._once.comes_again(target)  # one that never does would only push others out
                and len(target[0]) + len(target[1]) + len(target[2] or b"") <= _PLAN_BYTES
            ):
                plans.put(target, plan)
                if plans.cleared != cleared:  # by another thread, before this one was put
                    plans.discard(target)
        return plan

    def _tallies(self, label: str, method: str) -> dict[Reason, Tally]:
        """Where the requests of a plan are counted, whatever the rules in force."""
        tally = self._telemetry.tally
        hits: tuple[Reason, ...] = ("fresh", "not-modified", "range")
        tallies = {reason: tally("hit", reason, label, method) for reason in hits}
        tallies["miss"] = tally("forwarded", "miss", label, method)
        return tallies
