"""What many rows have in common: lifetimes, validators, dates, and answers made of them.

Law: data of which a row's sentence says no more than "fresh", "a tag", "some time ago".
"""

from __future__ import annotations

from ..case import At, Case, Field, Level, Reply, Step, Value, app, case, ok, store, wait

FRESH = "max-age=3600"
TAG = ("etag", '"a"')
OTHER = ("etag", '"b"')
WEAK = ("etag", 'W/"a"')
MODIFIED = ("last-modified", At(-1000))
NOW = ("date", At(0))
HOUR = ok(FRESH)
SHORT = ok("max-age=60", TAG)
TEN = ok(FRESH, TAG, ("content-type", "text/plain"), body="0123456789")
FAILED = ok(status=503)


def control(*lines: str) -> tuple[Field, ...]:
    """Lines of Cache-Control."""
    return tuple(("cache-control", line) for line in lines)


def varies(*lines: str, control: str = FRESH) -> tuple[Field, ...]:
    """A lifetime, and lines of Vary."""
    return (("cache-control", control), *(("vary", line) for line in lines))


def tagged(tag: str = '"a"', *more: tuple[str, Value], status: int = 200) -> Reply:
    """A fresh answer with an entity tag."""
    return ok(FRESH, ("etag", tag), *more, status=status)


def lasts(
    name: str, section: str, sentence: str, seconds: int, *fields: Field, level: Level = "required"
) -> Case:
    """A response that is fresh for so many seconds, and not one more; 0: never."""
    fresh: tuple[Step, ...] = (wait(seconds - 1), store(), wait(1)) if seconds else ()
    return case(name, section, sentence, level, ok(None, *fields), app(), *fresh, app())
