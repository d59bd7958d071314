"""When two runs for one key may be under way at a time, and when they may not.

Law: a reason that might permit a second run silences the law; what is left has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .records import Request, Run
from .view import SLACK, View

JOIN_WINDOW: Final = 1.0
"""Seconds after its head in which a run takes followers."""
PASS_SECONDS: Final = 2.0
"""Seconds for which a response that can't be shared keeps the next requests from queueing."""
MAX_HOLD: Final = 5.0
"""Seconds for which slow readers may hold up a run."""
OWN_HOLD: Final = 1.0
"""Seconds for which each of them may do so beyond that."""
_CLOSE: Final = 1e-6


def one_forward_at_a_time(view: View) -> Iterator[str]:
    """A request that finds a run to join does not start another."""
    for run in view.runs:
        if not _leads_at_once(view, run):
            continue
        newcomer = run.leader
        for other in view.by_target[run.target]:
            if (
                other.leader.began.tick < newcomer.began.tick
                and view.key(other.leader) == view.key(newcomer)
                and _leads_at_once(view, other)
                and _joinable(view, other, newcomer.began.tick, newcomer.began.at)
                and _joinable(view, other, run.started.tick, run.started.at)
            ):
                yield f"run {run.serial} began beside run {other.serial}, which it could have joined"


def a_landed_response_is_always_found(view: View) -> Iterator[str]:
    """From its last byte on, a response that is stored answers whoever comes: from its flight, or from the store."""
    for run in view.runs:
        if not _leads_at_once(view, run):
            continue
        newcomer = run.leader
        for other in view.by_target[run.target]:
            if view.key(other.leader) == view.key(newcomer) and _keeps(view, other, newcomer, run):
                yield f"run {run.serial} began although run {other.serial} had landed and is fresh"


def nobody_joins_late_or_beyond_the_limit(view: View) -> Iterator[str]:
    """A run takes followers until a while after its head, and not more than its rule allows."""
    for run in view.runs:
        if run.method == "POST" or run.head is None:
            continue
        followers = [request for request in view.answered[run.serial] if request.is_collapsed]
        if len(followers) > view.rule(run.target).max_followers:
            yield f"run {run.serial} had {len(followers)} followers"
        for request in followers:
            if run.outgrew is not None and run.outgrew.tick < request.began.tick:
                yield f"request {request.serial} joined run {run.serial}, which had outgrown its limit"
            landed = run.complete is not None and run.complete.tick < request.began.tick
            if not landed and request.began.at > run.head.at + JOIN_WINDOW + _CLOSE:
                yield f"request {request.serial} joined run {run.serial} {request.began.at - run.head.at:.2f} s late"


def slow_readers_hold_up_nobody_for_long(view: View) -> Iterator[str]:
    """While one that reads at once waits for its body too, a run is held up for so long in all, and no longer."""
    for run in view.runs:
        if run.method == "POST" or run.head is None or run.complete is None:
            continue
        quick = [r for r in view.answered[run.serial] if not r.pace and r.left is None and not r.is_hit]
        held = run.complete.at - run.head.at - run.script.pause * (len(run.script.sizes) - 1)
        slow = sum(1 for r in view.answered[run.serial] if r.pace)
        if quick and held > MAX_HOLD + OWN_HOLD * slow + SLACK:
            yield f"run {run.serial} was held up for {held:.2f} s, while request {quick[0].serial} read at once"


def _leads_at_once(view: View, run: Run) -> bool:
    """Whether the run was opened, listed, by the first look of a plain request: nothing made it go alone."""
    leader = run.leader
    if run.method != "GET" or leader.nested or leader.off or view.rule(run.target).collapse is False:
        return False
    if view.led[leader.serial][0] is not run or run.started.at != leader.began.at:
        return False
    return not any(
        other is not run and (_marks(view, other, run) or _turned_away(other, run))
        for other in view.by_target[run.target]
    )


def _marks(view: View, other: Run, run: Run) -> bool:
    """Whether the other's head may have left a mark that sends the run's leader on its own."""
    head = other.head
    if head is None or head.tick > run.started.tick:
        return False
    if view.outgrows(other):
        return True
    return not view.is_plain(other) and run.started.at - head.at <= PASS_SECONDS + _CLOSE


def _turned_away(other: Run, run: Run) -> bool:
    """Whether the run's leader may have waited for the other first, and was sent on."""
    return any(
        moment is not None and run.leader.began.tick < moment.tick < run.started.tick
        for moment in (other.head, other.ended)
    )


def _joinable(view: View, run: Run, tick: int, at: float) -> bool:
    """Whether a newcomer certainly finds the run then."""
    leader, rule = run.leader, view.rule(run.target)
    if not leader.here_until(tick) or leader.pace >= 1.0:
        return False
    has_head = run.head is not None and run.head.tick <= tick
    if not has_head and at - leader.began.at >= float(rule.max_wait) - _CLOSE:
        return False
    if any(moment is not None and moment.tick < tick for moment in (run.ended, run.complete)):
        return False
    if run.head is not None and run.head.tick < tick:
        if not view.is_plain(run) or at - run.head.at >= JOIN_WINDOW - _CLOSE:
            return False
        if run.head.at - leader.began.at >= float(rule.max_wait) - _CLOSE:
            return False  # it may have been released before
    if view.dropped_between(leader, tick):
        return False
    rivals = sum(1 for r in view.reads if r.target == run.target and r.began.tick < tick)
    return rivals <= rule.max_followers


def _keeps(view: View, run: Run, newcomer: Request, newer: Run) -> bool:
    """Whether the run's response certainly answers the newcomer."""
    done, head, leader = run.complete, run.head, run.leader
    if done is None or head is None or not view.is_storable(run) or run.script.ending == "short":
        return False
    if run.error is not None or not _leads_at_once(view, run) or done.tick > newcomer.began.tick:
        return False
    rule = view.rule(run.target)
    if newer.started.at >= head.at + float(rule.ttl) - _CLOSE:
        return False
    if head.at - leader.began.at >= float(rule.max_wait) - _CLOSE:
        return False
    if view.dropped_between(leader, newer.started.tick):
        return False
    rivals = sum(1 for r in view.reads if r.target == run.target and r.began.tick < newcomer.began.tick)
    deserted = not leader.here_until(
        head.tick
    )  # perhaps by all, and before it was known that it will be stored
    left = deserted or rivals > rule.max_followers or _left_late(run, newcomer)
    if left and (run.ended is None or run.ended.tick > newcomer.began.tick):
        return False  # it may have left the table before it was stored
    return not any(
        other is not run
        and (other.script.status != 200 or other.is_broken)
        and other.started.tick < newcomer.began.tick
        and (other.ended is None or other.ended.tick > run.started.tick)
        for other in view.by_target[run.target]
    )  # else a newer answer may have replaced it, and gone before it


def _left_late(run: Run, newcomer: Request) -> bool:
    """Whether somebody may have found it too far on."""
    return (
        run.head is not None
        and run.complete is not None
        and run.complete.at - run.head.at >= JOIN_WINDOW - _CLOSE
        and newcomer.began.at >= run.head.at
    )
