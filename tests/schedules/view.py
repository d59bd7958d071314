"""What the laws ask of a world: which run answered whom, and what a script means under a rule.

Law: where the plan leaves a doubt, the view says so, and a law that needs certainty stays silent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from functools import cached_property

from dedup_middleware import Rule

from .records import Asked, Request, Run
from .scripts import COOKIE, NO_STORE, PRIVATE, VARY_ALL, VARY_LANGUAGE, Caller, tag_of
from .world import World

SLACK = 0.45
"""Seconds that noticing may take: two looks of the table's watch, and rounding."""


class View:
    """A world that has run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reads = [request for request in world.requests if request.is_read]
        self.runs = world.runs

    def rule(self, target: str) -> Rule:
        return self.world.rule_of(target)

    def run_of(self, request: Request) -> Run | None:
        """The run that answered a request."""
        return None if request.run is None else self.runs[request.run]

    @cached_property
    def answered(self) -> dict[int, list[Request]]:
        """The reads that got at least the head of each run."""
        found: dict[int, list[Request]] = defaultdict(list)
        for request in self.reads:
            if request.run is not None:
                found[request.run].append(request)
        return found

    @cached_property
    def led(self) -> dict[int, list[Run]]:
        """The runs that each request started, in order."""
        found: dict[int, list[Run]] = defaultdict(list)
        for run in self.runs:
            found[run.leader.serial].append(run)
        return found

    @cached_property
    def by_target(self) -> dict[str, list[Run]]:
        """The runs that read a target, whoever asked."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            if run.method != "POST":
                found[run.target].append(run)
        return found

    # -- identity -----------------------------------------------------------------------------------------------

    def identity(self, request: Request) -> tuple[object, ...]:
        """What of the caller counts under the target's rule."""
        caller = request.caller
        match self.rule(request.target).identity:
            case "separate":
                return caller.credentials, caller.address
            case "credentials":
                return (caller.credentials,)
            case _:
                return ()

    def loose_key(self, request: Request) -> tuple[object, ...]:
        """Equal for all that may share, and for some that may not (they differ in language)."""
        return request.method, request.target, *self.identity(request)

    def key(self, request: Request) -> tuple[object, ...]:
        """Equal only for two that may share; some that may share are told apart."""
        return request.language, *self.loose_key(request)

    # -- responses ----------------------------------------------------------------------------------------------

    def is_personal(self, run: Run) -> bool:
        """Whether certainly only the leader may use it."""
        script, rule = run.script, self.rule(run.target)
        if COOKIE in script.fields or NO_STORE in script.fields or VARY_ALL in script.fields:
            return True
        if PRIVATE in script.fields and rule.identity == "shared":
            return True
        return script.status == 401 or (script.status >= 500 and not rule.share_errors)

    def is_plain(self, run: Run) -> bool:
        """Whether certainly all may use it, under one key."""
        script = run.script
        odd = PRIVATE in script.fields or VARY_LANGUAGE in script.fields
        return not odd and not self.is_personal(run) and not self.outgrows(run)

    def outgrows(self, run: Run) -> bool:
        """Whether the body may be too large to be kept, or says that it is: a short one is said to be longer."""
        said = sum(max(size, 16) for size in run.script.sizes) + (5 if run.script.ending == "short" else 0)
        return said > self.rule(run.target).max_response_body

    def is_storable(self, run: Run) -> bool:
        """Whether a whole one is certainly stored."""
        rule = self.rule(run.target)
        return (
            run.method == "GET"
            and run.script.status == 200
            and bool(rule.ttl)
            and self.is_plain(run)
            and not self.world.plan.store_faults
        )

    # -- invalidations ------------------------------------------------------------------------------------------

    @cached_property
    def _drops(self) -> dict[str, list[int]]:
        drops: dict[str, list[int]] = defaultdict(list)
        for target in self.world.plan.reads:
            names = {f"target:{target}", f"tag:{tag_of(target)}"}
            for one in self.world.invalidations:
                if one.names is None or one.names & names:
                    drops[target].append(one.moment.tick)
                    if one.names is None or f"tag:{tag_of(target)}" in one.names:
                        drops["tag:" + target].append(one.moment.tick)
        return drops

    @staticmethod
    def _last_before(ticks: list[int], tick: int) -> int | None:
        place = bisect_left(ticks, tick)
        return ticks[place - 1] if place else None

    def dropped_before(self, request: Request) -> int | None:
        """The last invalidation of a request's target that had returned when it began."""
        return self._last_before(self._drops[request.target], request.began.tick)

    def tag_dropped_before(self, asked: Asked) -> int | None:
        """The same for a call, which has its tag only."""
        return self._last_before(self._drops["tag:" + asked.key], asked.began.tick)

    def dropped_between(self, request: Request, last: int) -> bool:
        """Whether, since a request began, its target was invalidated, or its caller may have written."""
        first, target, address = request.began.tick, request.target, request.caller.address
        mixed = self.rule(target).identity != "separate"  # anybody may be among those who wait
        before = self._last_before(self._drops[target], last)
        return (before is not None and before > first) or any(
            run.started.tick < last and (run.ended is None or run.ended.tick > first)
            for run in self.runs
            if run.method == "POST"
            and (run.target == target or mixed or run.leader.caller.address == address)
        )

    @cached_property
    def writes(self) -> dict[Caller, list[int]]:
        """When each caller's writes were told: their heads, and their ends."""
        found: dict[Caller, list[int]] = defaultdict(list)
        for one in self.world.invalidations:
            if one.writer is not None:
                found[one.writer].append(one.moment.tick)
        return found
