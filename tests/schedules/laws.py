"""What must hold of every answer and every end. A law takes a view of a world and yields a sentence for each breach.

Law of the laws: they judge by what was scripted and seen, never by what the engine says of itself, but for the
outcome that an answer shows (hit or collapsed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dedup_middleware import ForwardFailed

from .books import every_request_counts_once, nothing_is_left, the_store_counts_what_it_holds
from .calling import calls_are_shared_rightly, what_an_overtaken_run_waits_for_is_overtaken
from .collapsing import (
    a_landed_response_is_always_found,
    nobody_joins_late_or_beyond_the_limit,
    one_forward_at_a_time,
    slow_readers_hold_up_nobody_for_long,
)
from .records import AppError, Request, Run
from .scripts import VARY_LANGUAGE
from .view import SLACK, View
from .world import World

GRACE: Final = 3.0
"""Seconds between a deserted run's disconnect and its cancellation."""
BACKGROUND: Final = 0.25
"""Seconds after its last byte in which a response that is stored waits for the app's return."""
TURNS: Final = 4
"""Flights that a request may wait for where responses vary."""

Breaches = Iterator[str]


def answers_are_what_the_app_sent(view: View) -> Breaches:
    """One head, then one run's bytes in order; whole where it looks whole."""
    for request in view.world.requests:
        kinds = [message["type"] for message in request.messages]
        if kinds and kinds != ["http.response.start"] + ["http.response.body"] * (len(kinds) - 1):
            yield f"request {request.serial} got {kinds}"
            continue
        run = view.run_of(request)
        if run is None:
            continue
        body = b"" if request.method == "HEAD" else run.body
        if not body.startswith(request.body):
            yield f"request {request.serial} got {request.body!r}, run {run.serial} sent {run.body!r}"
        if any(message["more_body"] is False for message in request.messages[1:-1]):
            yield f"request {request.serial} got more after the last chunk"
        alone = run.leader is request
        if request.looks_whole and (request.body != body or not run.gave_last):
            yield f"request {request.serial} got a truncated body that looks whole"
        if request.looks_whole and run.script.ending == "short" and not alone and request.method != "HEAD":
            yield f"request {request.serial} got another's mangled body as a whole one"
        if request.status != run.script.status:
            yield f"request {request.serial} got {request.status}, run {run.serial} sent {run.script.status}"


def whoever_stays_is_answered(view: View) -> Breaches:
    """Nobody is harmed by others: a whole answer, or the error that the app raised."""
    for request in view.world.requests:
        if request.left is not None or view.world.stuck:
            continue
        led = view.led[request.serial]
        error = request.error
        if error is None:
            run = view.run_of(request)
            broken = run is not None and run.leader is request and run.script.ending == "stop"
            told = any(run.heard for run in led)
            if not request.looks_whole and not broken and not told:
                yield f"request {request.serial} stayed and got no whole answer"
        elif any(run.error is error for run in led):
            if not isinstance(error, (AppError, ForwardFailed)):
                yield f"request {request.serial} stayed and its run ended with {type(error).__name__}"
        elif isinstance(error, ForwardFailed):
            yield from _judge_failed(view, request, error, led)
        else:
            yield f"request {request.serial} stayed and got {type(error).__name__}"


def _judge_failed(view: View, request: Request, error: ForwardFailed, led: Sequence[Run]) -> Breaches:
    if not view.rule(request.target).share_errors and request.head is None:
        yield f"request {request.serial} was given an error that its rule does not share"
    if error.error_type == "SlowReader":
        if not request.pace:
            yield f"request {request.serial} was cut although it reads at once"
        return
    failed = [
        run
        for run in view.by_target[request.target]
        if run.leader is not request and run.is_broken and run.ended is not None and not run.heard
    ]
    if request.head is None and request.ended is not None:
        at = request.ended.at  # when that run ended, and those that it had led and left
        own = [run.ended.at for run in led if run.ended is not None]
        failed = [
            run for run in failed if run.ended is not None and abs(max(run.ended.at, *own, 0.0) - at) < 1e-6
        ]
    elif request.run is not None:
        failed = [run for run in failed if run.serial == request.run]
    if not failed:
        yield f"request {request.serial} was told {error.error_type}, and no such run failed"
    if error.error_type not in ("AppError", "ForwardFailed", "IncompleteResponse"):
        yield f"request {request.serial} was told {error.error_type}, which no app raised"


def only_the_deserted_hear_of_it(view: View) -> Breaches:
    """An app hears of a disconnect only when nobody waits, and then it ends within the grace."""
    for run in view.runs:
        if run.method == "POST":
            continue
        heard, leader = run.heard, run.leader
        if heard is not None and leader.here_until(heard.tick):
            yield f"run {run.serial} heard of a disconnect while request {leader.serial} waited"
        followers = [r for r in view.answered[run.serial] if not r.is_hit]
        if heard is not None and any(r.here_until(heard.tick) and r.head for r in followers):
            yield f"run {run.serial} heard of a disconnect while a follower read"
        if run.ended is None or view.rule(run.target).stores or leader.nested or leader.off:
            continue
        same = view.loose_key(leader)
        asked = [r for r in view.reads if view.loose_key(r) == same and r.began.tick < run.ended.tick]
        departures = [r.head if r.run not in (None, run.serial) else r.left or r.ended for r in asked]
        gone = max(moment.at for moment in departures if moment is not None)
        if run.complete is None and run.ended.at > gone + GRACE + SLACK:
            yield f"run {run.serial} ran on for {run.ended.at - gone:.2f} s after all had left"


def nobody_waits_past_the_limit(view: View) -> Breaches:
    """Two waits at most before a request's own run, and a run's answer reaches whoever waits for it at once."""
    for request in view.reads:
        waited, limit = _waited(view, request), _limit(view, request)
        if waited > limit:
            yield f"request {request.serial} waited {waited:.2f} s for others"
        if request.inside and (request.is_collapsed or waited > 0):
            yield f"request {request.serial} was made inside of the app and waited"
        run, ended, led = view.run_of(request), request.ended, view.led[request.serial]
        if request.left is not None or ended is None:
            continue
        got = request.head or ended
        if (
            run is not None
            and run.leader is request
            and run.head is not None
            and got.at > run.head.at + SLACK
        ):
            yield f"request {request.serial} got its head {got.at - run.head.at:.2f} s after run {run.serial}"
        if not led and got.at > request.began.at + limit:
            yield f"request {request.serial} waited {got.at - request.began.at:.2f} s for its head"
        ends = [each.ended.at for each in (*led, run) if each is not None and each.ended is not None]
        if isinstance(request.error, ForwardFailed) or request.is_hit or request.pace:
            continue  # what it followed, and at which pace it reads, says when it ends
        if ends and ended.at > max(ends) + SLACK:
            yield f"request {request.serial} ended {ended.at - max(ends):.2f} s after its runs"


def _limit(view: View, request: Request) -> float:
    varied = any(VARY_LANGUAGE in run.script.fields for run in view.by_target[request.target])
    return float(view.rule(request.target).max_wait) * (TURNS if varied else 2) + SLACK


def _waited(view: View, request: Request) -> float:
    """Seconds for which it waited for others before its own last run; its own runs before that do not count."""
    waited, since = 0.0, request.began.at
    for run in view.led[request.serial]:
        waited += max(0.0, run.started.at - since)
        over = run.head or run.ended
        since = over.at if over is not None else run.started.at
    return waited


def nothing_crosses_identities(view: View) -> Breaches:
    """The run that answers saw what the request would have shown it, and nothing that its key does not hold."""
    for request in view.world.requests:
        run = view.run_of(request)
        if run is None or run.leader is request:
            continue
        if run.target != request.target or request.method not in (run.method, "HEAD"):
            yield f"request {request.serial} got run {run.serial} of {run.method} {run.target}"
        identity = view.rule(request.target).identity
        if identity != "shared" and run.credentials != request.caller.credentials:
            theirs = f"run {run.serial} of {run.credentials!r}"
            yield f"request {request.serial} of {request.caller.credentials!r} got {theirs}"
        if identity == "separate" and run.address != request.caller.address:
            yield f"request {request.serial} from {request.caller.address} got a run that saw {run.address}"
        varied = any(name == b"vary" for name, _ in run.script.fields)
        vary = view.rule(request.target).vary
        if (vary is None or "accept-language" in vary or varied) and run.language != request.language:
            yield f"request {request.serial} in {request.language!r} got run {run.serial} in {run.language!r}"


def nothing_unkeyed_is_seen(view: View) -> Breaches:
    """Law 3: what a rule leaves out of the key is not there for the app."""
    for run in view.runs:
        if run.method == "POST" or run.leader.off:
            continue
        rule = view.rule(run.target)
        if rule.identity == "shared" and (run.credentials or run.address):
            yield f"run {run.serial} saw who asked under identity=shared"
        if rule.identity == "credentials" and run.address:
            yield f"run {run.serial} saw an address under identity=credentials"


def personal_answers_go_to_one(view: View) -> Breaches:
    """Set-Cookie, no-store, refusals and the like answer the request that led, and nobody else."""
    for run in view.runs:
        if run.method != "POST" and view.is_personal(run):
            others = [r.serial for r in view.answered[run.serial] if r is not run.leader]
            if others:
                yield f"run {run.serial} ({run.script.status} {run.script.fields}) answered {others} too"


def nothing_older_than_an_invalidation(view: View) -> Breaches:
    """What began after an invalidation had returned is answered by a run that began after it."""
    for request in view.reads:
        run, dropped = view.run_of(request), view.dropped_before(request)
        if run is not None and dropped is not None and run.started.tick < dropped:
            yield f"request {request.serial} got run {run.serial}, older than the invalidation at {dropped}"
        if run is None or run.by_call:
            continue
        for write, version in view.world.commits:
            ended = write.leader.ended
            done = write.target == request.target and ended is not None and ended.tick < request.began.tick
            if done and run.version < version:
                yield f"request {request.serial} read version {run.version} after {version} was written"


def callers_read_their_own_writes(view: View) -> Breaches:
    """After a caller's write, the flights in which it waited take none of its newcomers, and are not stored."""
    for request in view.reads:
        run = view.run_of(request)
        if run is None or run.leader is request:
            continue
        for tick in view.writes[request.caller]:
            at = view.world.story[tick][0]
            over = run.ended is not None and run.ended.tick < tick
            over = over or (
                request.is_hit and run.complete is not None and at >= run.complete.at + BACKGROUND
            )
            if (
                run.started.tick < tick < request.began.tick
                and not over
                and run.leader.caller == request.caller
            ):
                yield f"request {request.serial} got run {run.serial}, begun before its caller's write at {tick}"


def hits_are_fresh_and_whole(view: View) -> Breaches:
    """A stored response is young enough, came whole, and never gives way to an older one."""
    newest: dict[tuple[object, ...], Run] = {}
    hits = [request for request in view.reads if request.is_hit and request.head is not None]
    for request in sorted(hits, key=lambda request: request.head or request.began):
        run = view.run_of(request)
        assert run is not None
        assert request.head is not None
        rule = view.rule(run.target)
        lifetime = float(rule.ttl if run.script.status == 200 else rule.negative_ttl)
        if run.head is None or request.head.at - run.head.at >= lifetime + 1e-6:
            yield f"request {request.serial} got run {run.serial} from the store, which was stale"
        failed = run.error is not None and run.ended is not None and run.ended.tick < request.head.tick
        if failed or run.script.ending == "short":
            yield f"request {request.serial} got run {run.serial} from the store, which had failed"
        if VARY_LANGUAGE in run.script.fields:
            continue  # it stands under a key of its own
        before = newest.get(view.key(request), run)
        if before.started.at > run.started.at and not _was_gone(view, before, run):
            yield f"request {request.serial} got run {run.serial} from the store, older than run {before.serial}"
        newest[view.key(request)] = max(before, run, key=lambda run: run.started)


def _was_gone(view: View, newer: Run, run: Run) -> bool:
    """Whether what the newer run left in the store had expired, or was taken back, when the older one ended."""
    if newer.head is None or run.ended is None:
        return False
    rule = view.rule(run.target)
    lifetime = float(rule.ttl if newer.script.status == 200 else rule.negative_ttl)
    failed = newer.error is not None and newer.ended is not None and newer.ended.tick < run.ended.tick
    return failed or run.ended.at >= newer.head.at + lifetime


LAWS: Final[tuple[Callable[[View], Breaches], ...]] = (
    nothing_is_left,
    the_store_counts_what_it_holds,
    every_request_counts_once,
    answers_are_what_the_app_sent,
    whoever_stays_is_answered,
    only_the_deserted_hear_of_it,
    nobody_waits_past_the_limit,
    one_forward_at_a_time,
    a_landed_response_is_always_found,
    nobody_joins_late_or_beyond_the_limit,
    slow_readers_hold_up_nobody_for_long,
    nothing_crosses_identities,
    nothing_unkeyed_is_seen,
    personal_answers_go_to_one,
    nothing_older_than_an_invalidation,
    callers_read_their_own_writes,
    hits_are_fresh_and_whole,
    calls_are_shared_rightly,
    what_an_overtaken_run_waits_for_is_overtaken,
)


def breaches(world: World) -> list[str]:
    """Every law that this world broke, and how."""
    view = View(world)
    return [f"{law.__name__}: {sentence}" for law in LAWS for sentence in law(view)]
