"""What must hold of every answer of an HTTP cache, whatever the order in which things happen.

Law of the laws: they judge by what was scripted and seen; of what the engine says of itself they believe only why a
stale response answered, and ask whether it might have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from dedup_middleware import ForwardFailed

from .books import every_request_counts_once, nothing_is_left, the_store_counts_what_it_holds
from .cached_scripts import TAME, Cached
from .cached_world import CachedView, CachedWorld, slice_of
from .collapsing import PASS_SECONDS
from .records import AppError, Request, Run

RIGID: Final = (b"must-revalidate", b"s-maxage", b"no-cache")
PERMITS: Final = (b"public", b"s-maxage", b"must-revalidate")
NOTHING_STALE: Final = (b"no-cache", b"max-age=0", b"max-age=1", b"min-fresh=1")
"""What requests say that take nothing stale (RFC 9111 s.5.2.1)."""
_CLOSE: Final = 1e-6

Breaches = Iterator[str]


def answers_are_what_the_app_sent(view: CachedView) -> Breaches:
    """Some run's body, whole or the part that was asked for; a part only for who asked for one."""
    for request in view.reads:
        run = view.body_of(request)
        if run is None or request.method == "HEAD" or request.left is not None:
            continue
        whole = view.cached.contents[run.serial]
        ranged = dict(request.fields).get(b"range")
        between = slice_of(ranged, len(whole))
        if request.status == 206:
            if between is None:
                yield f"request {request.serial} got a part that it did not ask for"
                continue
            first, last = between
            told = b"bytes %d-%d/%d" % (first, last, len(whole))
            if request.body != whole[first : last + 1] or request.header(b"content-range") != told:
                yield f"request {request.serial} got {request.body!r} as {told!r} of {whole!r}"
        elif request.status == 416:
            if ranged is None or between is not None or request.body:
                yield f"request {request.serial} got 416 for {ranged!r}"
        elif not whole.startswith(request.body) or (request.looks_whole and request.body != whole):
            yield f"request {request.serial} got {request.body!r} of {whole!r}"


def whoever_stays_is_answered(view: CachedView) -> Breaches:
    """A whole answer, or the error that the app raised; 504 only for who wanted nothing else."""
    for request in view.world.requests:
        if request.left is not None or view.world.stuck:
            continue
        if request.error is None and not request.looks_whole:
            yield f"request {request.serial} stayed and got no whole answer"
        elif request.error is not None and not isinstance(request.error, (AppError, ForwardFailed)):
            yield f"request {request.serial} stayed and got {type(request.error).__name__}"
        if request.status == 504 and b"only-if-cached" not in asks(request):
            yield f"request {request.serial} got 504"
        if request.status == 304:
            yield f"request {request.serial} got a 304 that it did not ask for"


def asks(request: Request) -> bytes:
    """A request's Cache-Control."""
    return dict(request.fields).get(b"cache-control", b"")


def one_forward_for_a_key(view: CachedView) -> Breaches:
    """A request or a refresh that finds a run to join does not start another, at any time between invalidations."""
    for run in () if view.varies else view.runs:  # a key is another one once it is known what answers vary on
        if not _plain(view, run):
            continue
        for other in view.by_target[run.target]:
            if (
                other.serial < run.serial
                and _plain(view, other)
                and view.key(other.leader) == view.key(run.leader)
                and _under_way(view, other, run)
            ):
                yield f"run {run.serial} began beside run {other.serial}, which was there to be joined"


def _plain(view: CachedView, run: Run) -> bool:
    """Whether nothing made the run go alone: no directive, no part, no wait, no answer that is somebody's own."""
    leader, rule = run.leader, view.rule(run.target)
    if run.method != "GET" or leader.method != "GET" or leader.off or leader.fields:
        return False
    if rule.identity == "origin" and leader.caller.credentials:
        return False
    if view.world.plan.store_faults or run.started.at != leader.began.at:
        return False
    if not (leader.is_hit or leader.here_until(run.started.tick)) or _is_marked(view, run):
        return False
    scripts = view.world.plan.reads[run.target]
    return all(isinstance(script, Cached) and script.control in TAME for script in scripts)


def _is_marked(view: CachedView, run: Run) -> bool:
    """Whether an answer that was stale when it came may keep the next ones from queueing."""
    return any(
        other.head is not None
        and other.head.at - other.started.at >= 2 - _CLOSE
        and 0 <= run.started.at - other.head.at <= PASS_SECONDS + _CLOSE
        for other in view.by_target[run.target]
    )


def _under_way(view: CachedView, other: Run, run: Run) -> bool:
    """Whether the other certainly took newcomers when the run began."""
    over = min(moment.tick for moment in (other.head, other.ended, run.started) if moment is not None)
    if (
        over < run.started.tick
        or run.started.at - other.started.at >= float(view.rule(run.target).max_wait) - _CLOSE
    ):
        return False
    leader = other.leader
    if not leader.is_hit and not leader.here_until(run.started.tick):
        return False
    return not any(view.dropped_between(one.leader, run.started.tick) for one in (other, run))


def nothing_older_than_an_invalidation(view: CachedView) -> Breaches:
    """What began after an invalidation had returned gets no body, and no confirmation, from before it."""
    for request in view.reads:
        dropped = view.dropped_before(request)
        for run in (view.run_of(request), view.body_of(request)):
            if run is None:
                continue
            if dropped is not None and run.started.tick < dropped:
                yield f"request {request.serial} got run {run.serial}, older than the invalidation at {dropped}"
            for write, version in view.world.commits:
                ended = write.leader.ended
                done = (
                    write.target == request.target and ended is not None and ended.tick < request.began.tick
                )
                if done and run.version < version and run.head is not None:
                    yield f"request {request.serial} read version {run.version} after {version} was written"


def nothing_crosses_identities(view: CachedView) -> Breaches:
    """Whose body answers saw what the request would have shown, and nothing of anybody else."""
    for request in view.reads:
        run = view.body_of(request)
        if run is None or run.leader is request:
            continue
        identity, caller = view.rule(request.target).identity, request.caller
        if run.target != request.target:
            yield f"request {request.serial} got run {run.serial} of {run.target}"
        if identity == "separate" and (run.credentials, run.address) != (caller.credentials, caller.address):
            yield f"request {request.serial} of {caller} got a run that saw {run.credentials!r} at {run.address}"
        if identity == "shared" and (run.credentials or run.address) and not run.leader.off:
            yield f"run {run.serial} saw who asked under identity=shared"
        if identity == "origin" and run.credentials != caller.credentials:
            control = run.script.control.encode() if isinstance(run.script, Cached) else b""
            # What is for all answers those who are nobody only from the store, and while it is fresh.
            told = request.header(b"cache-status") or b""
            fresh = told.startswith(b"dedup; hit; ttl=") and b"detail=" not in told
            permitted = run.credentials and (caller.credentials or fresh)
            if not (permitted and any(word in control for word in PERMITS)):
                yield f"request {request.serial} of {caller} got a run that saw {run.credentials!r}: {control!r}"
        if view.varies and run.language != request.language:
            yield f"request {request.serial} in {request.language!r} got run {run.serial} in {run.language!r}"


def only_what_was_asked_about_is_confirmed(view: CachedView) -> Breaches:
    """Where another run vouches for a body, it said 304 of that very body's entity tag."""
    for request in view.reads:
        run, body = view.run_of(request), view.body_of(request)
        if run is None or body is None or run is body or run.method == "HEAD":
            continue
        told, tag = view.cached.confirmed.get(run.serial), view.cached.tags[body.serial]
        if told != tag:
            yield f"run {run.serial} said {told!r}, and request {request.serial} got run {body.serial}, {tag!r}"


def stale_answers_are_allowed(view: CachedView) -> Breaches:
    """A stale response answers within its window, for a reason that was there, and never where it forbids it."""
    for request in view.reads:
        run = view.run_of(request)
        if run is None or run.head is None or request.head is None or run.leader is request:
            continue
        stale_for = request.head.at - run.head.at - view.lifetime(request)
        told = request.header(b"cache-status")
        if request.status == 416 or stale_for < _CLOSE or not (b"; hit" in told or b"stale-if-error" in told):
            continue
        said, rule = request.header(b"cache-control"), view.rule(request.target)
        if rule.honor_request_directives and asks(request) in NOTHING_STALE:
            yield f"request {request.serial} got run {run.serial}, stale, and said {asks(request)!r}"
        if any(word in said for word in RIGID if rule.ttl == "origin" or word == b"must-revalidate"):
            yield f"request {request.serial} got run {run.serial}, stale under {said!r}"
        elif b"max-stale" in told:
            if stale_for > 2 + _CLOSE or b"max-stale=2" not in asks(request):
                yield f"request {request.serial} got run {run.serial}, {stale_for:.2f} s stale, unasked"
        else:
            name = "stale-while-revalidate" if b"stale-while-revalidate" in told else "stale-if-error"
            own = float(rule.stale_if_error if name == "stale-if-error" else rule.stale_while_revalidate)
            window = max(own, view.seconds(said, name.encode()) if rule.ttl == "origin" else 0.0)
            if stale_for > window + _CLOSE:
                yield f"request {request.serial} got run {run.serial}, {stale_for:.2f} s stale, in {window} s of {name}"
            if name == "stale-if-error" and not _some_error(view, request, request.head.tick):
                yield f"request {request.serial} got run {run.serial} instead of an error that was not there"


def hits_never_failed(view: CachedView) -> Breaches:
    """What is stored goes when the run that brought it, or confirmed it, ends with an error."""
    for request in view.reads:
        run = view.run_of(request)
        if run is None or not request.is_hit or request.head is None or view.world.plan.store_faults:
            continue
        if run.method == "HEAD":
            continue  # it brought fields alone, and they were whole
        if run.error is not None and run.ended is not None and run.ended.tick < request.began.tick:
            yield f"request {request.serial} got run {run.serial} from the store, which had failed"


def _some_error(view: CachedView, request: Request, tick: int) -> bool:
    """Whether some run had failed, or had been silent for too long, while the request waited."""
    here = view.world.story[tick][0]
    return any(
        run.started.tick < tick
        and (run.ended is None or run.ended.tick > request.began.tick)
        and (
            view.cached.statuses.get(run.serial) == 503
            or run.script.ending == "raise-first"
            or (run.script.ending == "raise-last" and run.serial in view.cached.confirmed)
            or here - run.leader.began.at >= float(view.rule(run.target).max_wait) - _CLOSE
        )
        for run in view.by_target[request.target]
    )


LAWS: Final[tuple[Callable[[CachedView], Breaches], ...]] = (
    nothing_is_left,
    the_store_counts_what_it_holds,
    every_request_counts_once,
    answers_are_what_the_app_sent,
    whoever_stays_is_answered,
    one_forward_for_a_key,
    nothing_older_than_an_invalidation,
    nothing_crosses_identities,
    only_what_was_asked_about_is_confirmed,
    stale_answers_are_allowed,
    hits_never_failed,
)


def breaches(world: CachedWorld) -> list[str]:
    """Every law that this world broke, and how."""
    view = CachedView(world)
    return [f"{law.__name__}: {sentence}" for law in LAWS for sentence in law(view)]
