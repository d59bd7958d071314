"""Mutants of the engine: each breaks one promise on purpose, and some schedule must show it.

Law: a mutant is a patch for a while; where it changes text inside of a function, the text must be there exactly once.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Final

from dedup_middleware import (
    asgi,
    call,
    dedup,
    exchange,
    flights,
    following,
    forward,
    function,
    keeping,
    leading,
    turns,
)
from dedup_middleware.body import Body
from dedup_middleware.core.fingerprint import Fingerprinter
from dedup_middleware.core.settle import Pass, ShareOnly
from dedup_middleware.flight import Flight
from dedup_middleware.stores.keeper import Keeper
from dedup_middleware.stores.memory import MemoryStore
from dedup_middleware.waiter import Waiter

Patch = tuple[Any, str, Any]


def _text(owner: Any, name: str, old: str, new: str) -> Patch:
    """The function with one piece of its text replaced."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise LookupError(f"{owner.__name__}.{name} holds {source.count(old)} times: {old}")
    module = inspect.getmodule(function)
    space = dict(vars(module))
    exec(
        compile("from __future__ import annotations\n" + source.replace(old, new), f"<{name}>", "exec"), space
    )
    return owner, name, space[name]


def _wrap(owner: Any, name: str, change: Callable[[Any], Any]) -> Patch:
    """What `change` makes of the function that is there."""
    return owner, name, change(getattr(owner, name))


def _in(user: Any, patch: Patch) -> list[Patch]:
    """The same where a module has imported the function by its name."""
    return [(user, *patch[1:])]


def _nothing(*_: Any, **__: Any) -> None:
    return None


# -- the work and its owner ---------------------------------------------------------------------------------------


def the_app_runs_in_the_leaders_task() -> list[Patch]:
    return _in(turns, _text(leading, "lead", "flight.launch()", "await flight._run(forward)"))


def a_cancelled_leader_cancels_the_flight() -> list[Patch]:
    def change(lead: Any) -> Any:
        async def lead_and_cancel(exchange: Any, flight: Any, *more: Any) -> Any:
            try:
                return await lead(exchange, flight, *more)
            except asyncio.CancelledError:
                if flight.task is not None:
                    flight.task.cancel()
                raise

        return lead_and_cancel

    return [_wrap(turns, "lead", change)]


def the_leaders_leaving_deserts_the_flight() -> list[Patch]:
    def change(left: Any) -> Any:
        def left_and_gone(self: Any, waiter: Any) -> None:
            left(self, waiter)
            if waiter.leader and self._gone is not None:
                self._gone.set()

        return left_and_gone

    return [_wrap(Flight, "left", change)]


def a_deserted_flight_is_not_cancelled() -> list[Patch]:
    return [(Flight, "_cancel_deserted", _nothing)]


def a_deserted_flight_is_cancelled_at_once() -> list[Patch]:
    def change(left: Any) -> Any:
        def left_and_cancel(self: Any, waiter: Any) -> None:
            left(self, waiter)
            if not self.waiters and self.task is not None and not self.complete:
                self.task.cancel()

        return left_and_cancel

    return [_wrap(Flight, "left", change)]


def a_deserted_flight_stays_in_the_table() -> list[Patch]:
    return [_text(Flight, "_end_deserted", "self.close()", "pass")]


def nobody_notices_that_clients_leave() -> list[Patch]:
    return [(Waiter, "watch", _nothing)]


# -- the table ----------------------------------------------------------------------------------------------------


def flights_leave_by_key() -> list[Patch]:
    def unlist(self: Any, flight: Any) -> None:
        flight.listed = False
        self._listed.pop((flight.loop, flight.key), None)

    table = flights.FlightTable
    return [
        (table, "_unlist", unlist),
        *(_text(table, way, "if flight.listed:", "if True:") for way in ("leave", "forget")),
    ]


def looking_and_opening_are_two_steps() -> list[Patch]:
    old = "flight = dedup.flights.open("
    return [_text(turns, "_turn", old, "await asyncio.sleep(0)\n    " + old)]


def the_join_window_is_forgotten() -> list[Patch]:
    return [(flights, "JOIN_WINDOW", 1e9)]


def followers_have_no_limit() -> list[Patch]:
    return [_text(flights.FlightTable, "find", "flight.followers >= flight.terms.max_followers", "False")]


def max_wait_is_forgotten() -> list[Patch]:
    return [(Flight, "_release", _nothing)]


def whoever_gave_up_twice_waits_again() -> list[Patch]:
    return _in(turns, _text(following, "follow", 'exchange.alone = "max-wait"', "pass"))


# -- who may use what ---------------------------------------------------------------------------------------------


def the_key_forgets_who_asks() -> list[Patch]:
    def change(key_below: Any) -> Any:
        def keyed(self: Any, prefix: bytes, scope: Any, body: bytes | None, *_read: object) -> Any:
            headers = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
            return key_below(self, prefix, {**scope, "headers": headers, "client": None}, body)

        return keyed

    return [_wrap(Fingerprinter, "key_below", change)]


def the_app_sees_what_is_not_keyed() -> list[Patch]:
    return [(forward, "visible", lambda reading, scope, shown=frozenset(): dict(scope))]


def _settled(reason: str) -> list[Patch]:
    def change(settle: Any) -> Any:
        def shared(*arguments: Any, **more: Any) -> Any:
            settlement = settle(*arguments, **more)
            passed = isinstance(settlement, Pass) and settlement.reason == reason
            return ShareOnly(frozenset()) if passed else settlement

        return shared

    return [_wrap(keeping, "settle", change)]


def followers_get_set_cookie() -> list[Patch]:
    return _settled("set-cookie")


def followers_get_refusals() -> list[Patch]:
    return _settled("refusal")


def vary_is_not_looked_at() -> list[Patch]:
    return [(exchange.Exchange, "differs", lambda self, settled: False)]


def share_errors_is_forgotten() -> list[Patch]:
    return _in(turns, _text(following, "follow", "not exchange.plan.rule.share_errors", "False"))


# -- bodies -------------------------------------------------------------------------------------------------------


def the_buffer_is_trimmed_too_early() -> list[Patch]:
    old = "self.base + taken not in self._places"
    return [_text(Body, "_trim", old, "self.base + taken < max(self._places, default=0)")]


def a_truncated_body_counts_as_complete() -> list[Patch]:
    return [_text(Flight, "_over", "self.returned = True", "self.returned = self.complete = True")]


def a_mangled_body_counts_as_whole() -> list[Patch]:
    return [_text(forward.Forward, "_send", "settled.mangled = True", "pass")]


def an_outgrown_flight_takes_newcomers() -> list[Patch]:
    # Two things prevent it: the flight leaves the table, and a mark sends newcomers on their own.
    return [_text(Flight, "stop_keeping", "self.close()", "pass"), (forward.Forward, "outgrown", _nothing)]


def a_slow_reader_holds_up_all() -> list[Patch]:
    return [(Body, "_cut_slowest", _nothing)]


def bytes_are_not_given_back() -> list[Patch]:
    return [_text(Body, "_let_go", "self.budget.used -= self.total - self._freed", "pass")]


# -- the store and invalidation -----------------------------------------------------------------------------------


def flights_land_before_the_store_has_them() -> list[Patch]:
    old = "flight.took = self.dedup.clock()"
    return [_text(forward.Forward, "_send", old, f"flight.close(); {old}")]


def an_overtaken_flight_is_stored() -> list[Patch]:
    return [_text(forward.Forward, "_store", "flight.current", "True")]


def an_invalidation_forgets_flights() -> list[Patch]:
    return [(flights.FlightTable, "invalidate", lambda self, names: 0)]


def an_invalidation_forgets_the_store() -> list[Patch]:
    return [(Keeper, "invalidate", lambda self, names: 0)]


def a_store_that_cannot_forget_is_kept() -> list[Patch]:
    return [_text(Keeper, "start_anew", "self.renew()", "pass")]


def a_write_invalidates_only_before() -> list[Patch]:
    return [
        _text(
            asgi,
            "write",
            "finally:\n        if changed:\n            wrote()",
            "finally:\n        pass",
        )
    ]


def a_write_invalidates_only_after() -> list[Patch]:
    return [_text(asgi, "write", "            if changed:\n                wrote()\n", "")]


def callers_do_not_read_their_own_writes() -> list[Patch]:
    return [(flights.FlightTable, "invalidate_for", _nothing)]


def the_switch_does_not_clear() -> list[Patch]:
    def switch(self: Any, value: bool) -> None:
        self.on = value

    return [(dedup.Dedup, "enabled", property(lambda self: self.on, switch))]


def the_older_replaces_the_newer() -> list[Patch]:
    return [_text(MemoryStore, "put", "there.generation > stored.generation", "False")]


def stored_responses_never_expire() -> list[Patch]:
    return [_text(MemoryStore, "get", "now >= stored.expires:", "False:")]


def the_store_forgets_to_count_down() -> list[Patch]:
    return [_text(MemoryStore, "_forget", "self.size -= size", "pass")]


# -- functions, nesting, counting ---------------------------------------------------------------------------------


def nested_requests_wait() -> list[Patch]:
    return [(turns, "current", _nothing)]


def calls_wait_for_themselves() -> list[Patch]:
    return [(call, "waits_for_itself", lambda flight: False)]


def a_stale_value_is_stored() -> list[Patch]:
    return [_text(function.Function, "_store", "flight.current", "True")]


def what_a_flight_waits_for_is_not_overtaken() -> list[Patch]:
    return [_text(flights.FlightTable, "_overtake", "ahead += one.waits_for", "pass")]


def a_cancelled_leader_is_not_counted() -> list[Patch]:
    told = '_tell(exchange, "stale-if-error" if stood_in else why, flight, settled, error="CancelledError")'
    return _in(turns, _text(leading, "lead", told, "pass"))


MUTANTS: Final[tuple[Callable[[], list[Patch]], ...]] = tuple(
    made
    for name, made in list(globals().items())
    if inspect.isfunction(made) and made.__module__ == __name__ and name[0] != "_"
)
"""Every public function above: what it breaks is its name."""
