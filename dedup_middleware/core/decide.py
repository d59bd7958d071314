"""The plan: may this request be shared, and under which rule?

Law: pure; each answer is one of a closed union of small frozen structs, and every answer carries its reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, final

import msgspec
from msgspec import structs

from .ambiguity import ambiguous
from .errors import ConfigurationError
from .fingerprint import Fingerprinter, Hasher
from .http import SAFE_METHODS, Scope
from .paths import PathPattern, PathTable
from .rules import Rule
from .seen import Seen
from .settle import Settlement
from .status import Reason
from .unseen import Unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@final
class Bypass(msgspec.Struct, frozen=True):
    """The request goes to the app by itself.

    One that may change something (`unsafe`) invalidates its target and these tags; where its rule does not say
    `invalidates_on_error`, not by a 5xx (RFC 9111 s.4.4).
    """

    reason: Reason
    label: str
    unsafe: bool = False
    tags: tuple[str, ...] = ()
    invalidates_on_error: bool = True
    tally: Any = None


@final
class Consider(Unseen, msgspec.Struct, frozen=True):
    """The request may be shared under a rule; `tags` are those of the rule, filled from the path.

    `prefix` begins its fingerprint; `lookup` that of the stored response to look for: a HEAD's `looks_for_get`.
    `stores` says that something may be stored under its rule, `assesses` that this may be of use when it is stale,
    `heeds` that requests may ask for less or more.
    `plain` remembers how answers that are plain were settled, by their status (None: each is settled by itself), while
    their bodies are said to have at most `room` bytes: what may be shared and, where its rule stores, stored.
    The engine's own are `tally` (where hits and misses are counted, by their reason), `terms` (what flights have in
    common) and `where` (what histograms are told of its forwards).
    """

    rule: Rule
    label: str
    ordinal: int
    fingerprints: Fingerprinter
    reads_body: bool
    collapses: bool
    tags: tuple[str, ...] = ()
    prefix: bytes = b""
    lookup: bytes = b""
    stores: bool = False
    assesses: bool = False
    heeds: bool = False
    looks_for_get: bool = False
    place: int = 0
    plain: dict[int, Settlement] | None = None
    room: int = 0
    tally: Any = None
    terms: Any = None
    where: Any = None


Plan = Bypass | Consider


class RuleBook:
    """The rules in force: the first whose path and methods match wins, the default takes the rest.

    `complete` fills in what of a plan is the engine's own, once for each rule and method.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        default: Rule,
        hasher: Hasher,
        own_states: Sequence[Mapping[str, Any]],
        edition: int = 0,
        complete: Callable[[Consider, str], Consider] | None = None,
    ) -> None:
        self._complete = complete
        self.rules = (*rules, default)
        self.labels = (*(rule.label for rule in rules), default.name or "default")
        seen = Seen()
        self._readers = [
            Fingerprinter(rule, ordinal, hasher, own_states, edition, seen)
            for ordinal, rule in enumerate(self.rules)
        ]
        self._kinds: dict[tuple[int, str], Consider] = {}
        self._off: frozenset[str] = frozenset()
        self._table = PathTable((PathPattern(rule.path), ordinal) for ordinal, rule in enumerate(rules))

    def switch(self, off: frozenset[str]) -> None:
        """Switch rules off by label, and all others on."""
        self._off = off

    def find(self, path: str, method: str) -> tuple[int, dict[str, str]]:
        """The rule's place in `rules`, and the path's parameters."""
        for ordinal, parameters in self._table.matches(path) if len(self.rules) > 1 else ():
            if method in (self.rules[ordinal].methods or ()):
                return ordinal, parameters
        return len(self.rules) - 1, {"path": path.removeprefix("/")}

    def _drops_on_error(self, rule: Rule, path: str) -> bool:
        """Whether a 5xx to a write invalidates: a rule with `invalidates` says so itself, else those that store there.

        Where one of them says that it does, what is stored under the others goes, too.
        """
        if rule.invalidates:
            return rule.invalidate_on_error
        there = [self.rules[ordinal] for ordinal, _ in self._table.matches(path)]
        storing = [one for one in (*there, self.rules[-1]) if one.stores]
        return not storing or any(one.invalidate_on_error for one in storing)

    def plan(self, scope: Scope, place: int = 0) -> Plan:
        """May this request be shared? Everything that method, path and root_path decide; a memo may keep it."""
        method, path, root = scope["method"], scope["path"], scope.get("root_path")
        below = _below_root(path, root) if root else path
        ordinal, parameters = self.find(below, method)
        kind = self._kinds.get((ordinal, method)) or self._kind(ordinal, method, below, parameters)
        if type(kind) is Bypass:
            return kind
        if kind.label in self._off:
            return Bypass("off", kind.label)
        if ambiguous(path, scope.get("raw_path")) or (below and not below.startswith("/")):
            return Bypass("target", kind.label)
        reader = kind.fingerprints
        try:
            prefix = reader.prefix(scope, method, place)
            lookup = reader.prefix(scope, "GET", place) if kind.looks_for_get else prefix
        except ValueError:
            return Bypass("unencodable", kind.label)
        tags = tag_names(kind.rule.tags, parameters)
        return structs.replace(kind, tags=tags, prefix=prefix, lookup=lookup, place=place)

    def _kind(self, ordinal: int, method: str, path: str, parameters: dict[str, str]) -> Plan:
        """What all plans have in common that one rule makes for one of its methods, or why there is none."""
        rule, label = self.rules[ordinal], self.labels[ordinal]
        shares = rule.shares(method) and method in (rule.methods or ())
        if rule.invalidates or (method not in SAFE_METHODS and not shares):
            reason: Reason = "invalidates" if rule.invalidates else "method"
            return Bypass(
                reason,
                label,
                unsafe=True,
                tags=tag_names(rule.invalidates, parameters),
                invalidates_on_error=self._drops_on_error(rule, path),
            )
        if not shares:
            return Bypass("method", label)
        if rule.mode == "off":
            return Bypass("off", label)
        kind = Consider(
            rule,
            label,
            ordinal,
            self._readers[ordinal],
            reads_body=method not in ("GET", "HEAD"),
            collapses=rule.collapse if rule.collapse is not None else True,
            stores=rule.stores,
            assesses=rule.assesses,
            heeds=rule.stores and rule.honor_request_directives,
            looks_for_get=method == "HEAD" and rule.stores and "GET" in (rule.methods or ()),
            plain=None if rule.assesses or rule.ttl_jitter else {},
            room=rule.max_response_body,
        )
        if self._complete is not None:
            kind = self._complete(kind, method)
        self._kinds[ordinal, method] = kind
        return kind


def check_names(rules: Iterable[Rule], default: Rule, marked: Iterable[Rule] = ()) -> None:
    """Refuse a name that calls two rules: whoever switches one off would switch off both.

    Rules without names may have one path, and the rules of one mark have its name.

    Raises:
        ConfigurationError: for a name that another rule has, or is called by because it has none.
    """
    marks = tuple(marked)
    called = {default.name or "default": default}
    for rule in (*rules, *marks):
        other = called.get(rule.label)
        if other is None:
            called[rule.label] = rule
        elif (rule.name or other.name) and not _are_one_mark(rule, other, marks):
            raise ConfigurationError(
                "Rule.name",
                rule.label,
                'a name that no other rule has (without one, a rule is called by its path, the default "default")',
            )


def _are_one_mark(rule: Rule, other: Rule, marks: Sequence[Rule]) -> bool:
    """Whether both were asked for by marks, and differ in nothing but what their routes say."""
    return any(one is other for one in marks) and all(
        getattr(rule, field) == getattr(other, field)
        for field in rule.__struct_fields__
        if field not in ("path", "methods")
    )


def tag_names(templates: Sequence[str], parameters: dict[str, str]) -> tuple[str, ...]:
    """Tags filled from the path's parameters, as names for invalidation."""
    if not templates:
        return ()
    return tuple(
        "tag:" + re.sub(r"\{(\w+)\}", lambda m: parameters[m[1]], template) for template in templates
    )


def _below_root(path: str, root_path: str) -> str:
    if root_path and path.startswith(root_path) and path[len(root_path) : len(root_path) + 1] in ("/", ""):
        return path[len(root_path) :]
    return path
