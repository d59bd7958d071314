"""What the API answers: one method an operation.

Law: reads are plain looks at the engine; every change goes through the engine's own doors and into the audit log.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import UNSET
from msgspec.structs import asdict

from ..core.errors import ConfigurationError
from ..core.status import OUTCOMES
from ..function import PARTITION
from . import shapes
from .problems import Problem
from .process import process

if TYPE_CHECKING:
    from ..core.explain import Explanation
    from ..core.rules import Rule
    from ..dedup import Dedup
    from ..inventory import Held, UnderWay
    from .audit import Audit
    from .recorder import Recorder

_PROBE: Final = b"\x00health\x00"
"""A key that no fingerprint has: digests are longer."""


class Api:
    """The engine as the operations see it; `who` is who asks."""

    def __init__(self, dedup: Dedup, audit: Audit, recorder: Recorder, jaeger: str | None) -> None:
        self.dedup = dedup
        self.audit = audit
        self.recorder = recorder
        self.jaeger = jaeger

    # -- what is ----------------------------------------------------------------------------------------------------

    def overview(self) -> shapes.Overview:
        """The figures now."""
        dedup = self.dedup
        stats = dedup.stats()
        store = shapes.StoreState(stats.bytes, dedup.max_bytes, stats.responses)
        return shapes.Overview(dedup.enabled, stats, store, process(), self.jaeger)

    def rules(self) -> list[shapes.RuleInForce]:
        """The rules in the order in which they are tried, the default last."""
        stats, off, book = self.dedup.stats().rules, self.dedup.switched_off, self.dedup.book
        found = []
        for label, rule in zip(book.labels, book.rules, strict=True):
            told = stats.get(label)
            found.append(
                shapes.RuleInForce(
                    label=label,
                    on=label not in off and rule.mode == "on",
                    requests=told.requests if told else dict.fromkeys(OUTCOMES, 0),
                    hit_rate=told.hit_rate if told else 0.0,
                    saved=told.saved if told else 0.0,
                    fields=_fields(rule),
                )
            )
        return found

    async def responses(self, asked: shapes.WhichResponses) -> shapes.Responses:
        """A page of what is stored; looked up in a thread, as there may be many."""
        found: list[Held] = await asyncio.to_thread(self.dedup.held, rule=asked.rule, tag=asked.tag)
        return shapes.Responses(len(found), found[asked.offset : asked.offset + asked.limit])

    def flights(self) -> list[UnderWay]:
        """The flights under way, the oldest first, as many as a page holds."""
        return self.dedup.under_way()[:1000]

    def recent(self) -> shapes.Recent:
        """The last bursts, alerts and invalidations."""
        return shapes.Recent(*self.recorder.recent())

    async def audited(self, asked: shapes.Page) -> shapes.AuditLog:
        """A page of the audit log: of the ledger's table, or of what this process remembers."""
        found = await self.audit.stored(asked.offset, asked.limit)
        if found is None:
            entries = self.audit.entries()
            found = len(entries), entries[asked.offset : asked.offset + asked.limit]
        return shapes.AuditLog(*found)

    def explain(self, asked: shapes.ToExplain) -> Explanation:
        """What would become of a request."""
        return self.dedup.explain(asked.method, asked.target, headers=asked.headers, body=asked.body.encode())

    def ready(self) -> tuple[int, shapes.Ready]:
        """Whether store and ledger work."""
        store: Literal["ok", "failing"] = "ok" if self._store_works() else "failing"
        ledger = self._ledger_state()
        works = store == "ok" and ledger != "failing"
        return 200 if works else 503, shapes.Ready("ready" if works else "degraded", store, ledger)

    def _store_works(self) -> bool:
        try:
            self.dedup.store.get(PARTITION, _PROBE, self.dedup.clock())
        except Exception:  # noqa: BLE001 - whatever a store raises
            return False
        return True

    def _ledger_state(self) -> Literal["none", "ok", "failing"]:
        if self.dedup.ledger is None:
            return "none"
        recorder = self.dedup.recorder
        return "ok" if recorder is None or recorder.trouble is None else "failing"

    # -- what changes -----------------------------------------------------------------------------------------------

    def invalidate(self, asked: shapes.ToInvalidate, who: str) -> shapes.Dropped:
        """Drop by tag, rule, fingerprint, or everything."""
        given = [name for name, value in asdict(asked).items() if value is not UNSET]
        if len(given) != 1 or asked.all is False:
            raise Problem(400, 'Say exactly one of "tags", "rule", "key" and "all".')
        by = "administrator"
        if asked.tags is not UNSET:
            target, dropped = (
                f"tags {', '.join(asked.tags[:20])}",
                self.dedup.holdings.drop_tags(asked.tags, by),
            )
        elif asked.rule is not UNSET:
            if asked.rule not in self.dedup.book.labels:
                raise Problem(404, "There is no rule of that name.")
            target, dropped = f"rule {asked.rule}", self.dedup.invalidate_rule(asked.rule, by=by)
        elif asked.key is not UNSET:
            target, dropped = f"key {asked.key}", self.dedup.invalidate_key(asked.key, by=by)
        else:
            target, dropped = "all", self.dedup.clear(by=by)
        self.audit.changed(who, "invalidate", target, f"{dropped} dropped")
        return shapes.Dropped(dropped)

    def switch(self, asked: shapes.ToSwitch, who: str) -> shapes.Switched:
        """Switch a rule, or everything, off or on."""
        word = "switch on" if asked.on else "switch off"
        if asked.rule is None:
            self.dedup.switch(None, on=asked.on, by="administrator")
            self.audit.changed(who, word, "all", "done")
            return shapes.Switched(None, asked.on)
        if asked.rule not in self.dedup.book.labels:
            raise Problem(404, "There is no rule of that name.")
        try:
            self.dedup.switch(asked.rule, on=asked.on, by="administrator")
        except ConfigurationError:
            raise Problem(
                409, 'The rule is off by its own mode="off", and no switch changes what is configured.'
            ) from None
        self.audit.changed(who, word, f"rule {asked.rule}", "done")
        return shapes.Switched(asked.rule, asked.on)


def _fields(rule: Rule) -> dict[str, Any]:
    return {
        name: value if not callable(value) else getattr(value, "__qualname__", type(value).__name__)
        for name, value in asdict(rule).items()
    }
