"""Grammars of the fields on which decisions rest: Cache-Control, Vary, entity tags, dates, Age.

Law: every line of a field counts, and what does not parse is read in the way that shares less.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE = re.compile(
    rb'[ \t]*(%b)(?:[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^",; \t]*))?[ \t]*(?:,|\Z)' % _TOKEN, re.DOTALL
)
_TOKEN_ALONE = re.compile(_TOKEN)
_EMPTY = re.compile(rb"[ \t]*(?:,|\Z)")
_ETAG = re.compile(rb'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
_ETAG_ALONE = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_IMF_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([0-9]{4}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_RESTRICTING: Final = (b"no-store", b"no-cache", b"private")


def directives(lines: Iterable[bytes]) -> dict[bytes, bytes | None]:
    """Cache-Control's directives, names in lower case, the first value of each (RFC 9111 s.5.2).

    A line that is not in the grammar still counts for what it names: no-store, no-cache, private.
    """
    found: dict[bytes, bytes | None] = {}
    for line in lines:
        at = 0
        while at < len(line):
            matched = _DIRECTIVE.match(line, at)
            if matched is not None:
                found.setdefault(matched[1].lower(), matched[2])
            else:
                matched = _EMPTY.match(line, at)
            if matched is None or matched.end() == at:
                lowered = line.lower()
                found.update({name: None for name in _RESTRICTING if name in lowered})
                break
            at = matched.end()
    return found


def seconds(value: bytes | None) -> int | None:
    """A delta-seconds value, quoted or not, capped at 2^31 (RFC 9111 s.1.2.2); None where it is none."""
    text = (value or b"").strip(b'"')
    return min(int(text), 2**31) if text.isdigit() and len(text) < 40 else None


def names_listed(lines: Iterable[bytes]) -> frozenset[bytes]:
    """The members of a list of field names, in lower case (Vary, Connection; RFC 9110 s.5.6.1, s.12.5.5)."""
    return frozenset(
        name for line in lines for item in line.split(b",") if (name := item.strip(b" \t").lower())
    )


def is_token(value: bytes) -> bool:
    """Whether a value is a token, as every field name is (RFC 9110 s.5.6.2)."""
    return _TOKEN_ALONE.fullmatch(value) is not None


def is_etag(value: bytes) -> bool:
    """Whether a value is an entity tag (RFC 9110 s.8.8.3)."""
    return _ETAG_ALONE.fullmatch(value) is not None


def none_match(lines: Iterable[bytes], etag: bytes) -> bool:
    """Whether If-None-Match is false, that is, one of its tags weakly equals `etag` (RFC 9110 s.13.1.2)."""
    bare = etag.removeprefix(b"W/")
    for line in lines:
        if line.strip(b" \t") == b"*":
            return True
        at = 0
        while matched := _ETAG.match(line, at):
            if matched[1].removeprefix(b"W/") == bare:
                return True
            at = matched.end()
            if at >= len(line):
                break
    return False


def http_date(value: bytes) -> int | None:
    """An IMF-fixdate as seconds of the epoch (RFC 9110 s.5.6.7); None for anything else."""
    matched = _IMF_DATE.fullmatch(value.decode("latin-1"))
    if matched is None:
        return None
    day, month, year, hour, minute, second = matched.groups()
    leap = int(second == "60")
    try:
        whole = datetime(
            int(year),
            _MONTHS.index(month) + 1,
            int(day),
            int(hour),
            int(minute),
            int(second) - leap,
            tzinfo=UTC,
        )
    except ValueError:  # 31 February, 25:00...
        return None
    return int(whole.timestamp()) + leap
