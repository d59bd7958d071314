"""What must hold of functions that `dedup.call` shares.

Law: for values the same as for responses.
"""

from __future__ import annotations

from collections.abc import Iterator

from dedup_middleware import ForwardFailed

from .scripts import tag_of
from .view import SLACK, View

Breaches = Iterator[str]


def calls_are_shared_rightly(view: View) -> Breaches:
    """Functions: the same laws for values."""
    world = view.world
    for asked in world.asked:
        if asked.value is not None:
            worked = world.worked[asked.value]
            dropped = view.tag_dropped_before(asked)
            if worked.key != asked.key:
                yield f"call {asked.serial} of {asked.key} got the value of {worked.key}"
            if dropped is not None and worked.started.tick < dropped:
                yield f"call {asked.serial} got work {worked.serial}, older than the invalidation at {dropped}"
        own = [worked for worked in world.worked if worked.asked is asked]
        under_way = [
            worked.serial
            for worked in world.worked
            if worked.key == asked.key
            and worked.asked.began.tick < asked.began.tick
            and (worked.ended is None or worked.ended.tick > asked.began.tick)
        ]
        gave_up = own and own[0].started.at > asked.began.at + 1.0 - SLACK
        if gave_up and under_way and set(under_way) <= set(asked.above):
            yield f"call {asked.serial} waited for itself"
        error = asked.error
        if error is None or asked.left is not None or world.stuck:
            continue
        same = [worked for worked in world.worked if worked.key == asked.key and worked.error is not None]
        if isinstance(error, ForwardFailed):
            if not same or error.error_type not in ("AppError", "ForwardFailed"):
                yield f"call {asked.serial} was told {error.error_type}, and no such work failed"
        elif all(worked.error is not error for worked in own):
            yield f"call {asked.serial} got {type(error).__name__}"
    for worked in world.worked:
        if worked.started.at > worked.asked.began.at + 2.0 + SLACK:
            yield f"call {worked.asked.serial} waited {worked.started.at - worked.asked.began.at:.2f} s"
    yield from _calls_fly_together(view)


def what_an_overtaken_run_waits_for_is_overtaken(view: View) -> Breaches:
    """A run that an invalidation concerns takes along what it waits for, tag or no tag: newcomers compute anew."""
    world = view.world
    for asked in world.asked:
        run = asked.run
        if run is None or asked.above or asked.value is None or run.method == "POST" or run.leader.off:
            continue
        worked = world.worked[asked.value]
        if worked.started.at > asked.began.at:
            continue  # it waited for another one first, and nothing says since when for this one
        if asked.ended is not None and worked.ended is not None and asked.ended.at > worked.ended.at + SLACK:
            continue  # the value was stored: it waited for another one to the end
        names = {f"target:{run.target}", f"tag:{tag_of(run.target)}"}
        for one in world.invalidations:
            if not one.names or not one.names & names or not worked.started.tick < one.moment.tick:
                continue
            waits = asked.began.tick < one.moment.tick and all(
                moment is None or moment.tick > one.moment.tick for moment in (asked.ended, worked.ended)
            )
            for other in world.asked if waits else ():
                if other.value == asked.value and other.began.tick > one.moment.tick:
                    yield f"call {other.serial} got work {worked.serial}, overtaken with run {run.serial}"


def _calls_fly_together(view: View) -> Breaches:
    """At most one work for a key at a time, where nothing forbids it."""
    world = view.world
    if world.plan.store_faults or any(deed.what == "off" for deed in world.plan.deeds):
        return
    for worked in world.worked:
        for other in world.worked:
            a, b = other.asked, worked.asked
            if other.key != worked.key or b.above or a.above or not a.began.tick < b.began.tick:
                continue
            under_way = other.ended is None or other.ended.tick > worked.started.tick
            waited = a.left is not None or (a.ended is not None and a.ended.tick < worked.started.tick)
            young = worked.started.at < a.began.at + 1.0 and worked.started.at == b.began.at
            if not under_way or waited or not young or other.started.at != a.began.at:
                continue
            tags = [one.moment.tick for one in world.invalidations]
            if not any(a.began.tick < tick < worked.started.tick for tick in tags) and not _busy_writes(
                view, a.began.tick, worked.started.tick
            ):
                yield f"work {worked.serial} ran beside work {other.serial} for one key"


def _busy_writes(view: View, first: int, last: int) -> bool:
    return any(
        run.method == "POST" and run.started.tick < last and (run.ended is None or run.ended.tick > first)
        for run in view.runs
    )
