"""Grammars of the fields on which decisions rest: Cache-Control, Vary, entity tags, dates, Age.

Law: every line of a field counts, and what does not parse is read in the way that shares less. Each pattern reads its
text once: what a repetition has taken it does not give back.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from .structured import dictionary

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST: Final = 2**31
"""Seconds that stand for every larger number (RFC 9111 s.1.2.2)."""
MOST_NAMES: Final = 64
"""Field names to which no-cache and private are limited; more mean the whole, so that no list costs its square."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = rb'"(?:[^"\\]|\\.)*+"'
_TOKEN_ALONE = re.compile(_TOKEN)
_MEMBER = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.?)*+"?)++', re.DOTALL)
_DIRECTIVE = re.compile(rb"(%b)(?:=(%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED), re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ETAG = re.compile(rb'[ \t,]*+((?:W/)?"[\x21\x23-\x7e\x80-\xff]*+")[ \t]*+(?:,|\Z)')
_ETAG_ALONE = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"')

_MONTHS: Final = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH: Final = f"({'|'.join(_MONTHS)})"
_DAY: Final = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIME: Final = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF_DATE = re.compile(f"{_DAY}, ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} gmt")
_RFC850_DATE = re.compile(
    f"(?:mon|tues|wednes|thurs|fri|satur|sun)day, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} gmt"
)
_ASCTIME_DATE = re.compile(f"{_DAY} {_MONTH} ([0-9]{{2}}| [0-9]) {_TIME} ([0-9]{{4}})")
_FIFTY_YEARS: Final = 50 * 31_556_952

_WEIGHT = re.compile(rb";q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")
_LISTS: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection expect prefer te".split()
)
"""Request fields whose syntax is a list (RFC 9110, RFC 9111 s.5.2, RFC 7240 s.2), as far as a Vary may name them."""
_SINGLE: Final = frozenset(
    b"authorization cookie date from host if-modified-since if-range if-unmodified-since max-forwards origin "
    b"proxy-authorization range referer user-agent".split()
)
"""Request fields whose syntax is no list (RFC 9110 s.5.5, RFC 6265 s.4.2.1, RFC 6454 s.7)."""

_NUMERIC: Final = frozenset(
    b"max-age s-maxage stale-while-revalidate stale-if-error max-stale min-fresh".split()
)
_QUALIFIED: Final = frozenset({b"no-cache", b"private"})
_RESTRICTING: Final = b"no-store no-cache private max-age s-maxage must-revalidate proxy-revalidate".split()
"""Directives that a member which is not in the grammar is taken to mean where it names them."""


class Directives(dict[bytes, bytes | None]):
    """What Cache-Control says: each directive once, its name in lower case, with its argument or None.

    Of repeated ones the strictest is here. A number is in its shortest decimal form; the field names of no-cache and
    private are in lower case, sorted, joined by commas, and None where all of the response is meant.
    """

    __slots__ = ()

    def seconds(self, name: bytes) -> int | None:
        """A directive's number of seconds, at most 2^31; None where it is not given (RFC 9111 s.1.2.2)."""
        return seconds(self.get(name))

    def names(self, name: bytes) -> frozenset[bytes]:
        """The field names to which no-cache or private is limited, in lower case; empty where it is not limited."""
        argument = self.get(name)
        return frozenset(argument.split(b",")) if argument else frozenset()

    def bare(self, name: bytes) -> bool:
        """Whether a directive is given without an argument: no-cache or private of the whole response."""
        return name in self and self[name] is None

    def add(self, name: bytes, argument: bytes | None) -> None:
        """Add a directive as it was said; what was said before of the same name stays where it is stricter."""
        if name in _NUMERIC:
            argument = self._stricter_number(name, argument)
        elif name in _QUALIFIED:
            argument = self._stricter_names(name, argument)
        elif name in self:
            return
        self[name] = argument

    def _stricter_number(self, name: bytes, argument: bytes | None) -> bytes:
        """The smaller number, of min-fresh the larger; one that is none is the strictest there is (s.4.2.1)."""
        number = seconds(argument)
        if name == b"min-fresh":
            return b"%d" % max(LONGEST if number is None else number, self.seconds(name) or 0)
        if name == b"max-stale" and argument is None:
            number = LONGEST  # however stale (s.5.2.1.2)
        before = self.seconds(name)
        return b"%d" % min(number or 0, LONGEST if before is None else before)

    def _stricter_names(self, name: bytes, argument: bytes | None) -> bytes | None:
        """All the names that were said; None, the whole response, where one is no field name or they are too many."""
        if self.bare(name):
            return None
        names = names_listed([argument or b""])
        limited = names and b"*" not in names and all(map(is_token, names))
        names |= self.names(name)
        return b",".join(sorted(names)) if limited and len(names) <= MOST_NAMES else None


def directives(lines: Iterable[bytes]) -> Directives:
    """The directives of Cache-Control, over all its lines (RFC 9111 s.5.2, s.4.2.1; RFC 9110 s.5.6).

    A member that is not in the grammar still counts for what it names, if that restricts.
    """
    found = Directives()
    for line in lines:
        for matched in _MEMBER.finditer(line):
            member = matched[0].strip(b" \t")
            parsed = _DIRECTIVE.fullmatch(member)
            if parsed is not None:
                found.add(parsed[1].lower(), _unquoted(parsed[2]))
                continue
            lowered = member.lower()
            for name in _RESTRICTING:
                if name in lowered:
                    _restrict(found, name)
    return found


def _restrict(found: Directives, name: bytes) -> None:
    """Add what a directive that is not in the grammar restricts; must-revalidate permits too (RFC 9111 s.3.5)."""
    found.add(b"proxy-revalidate" if name == b"must-revalidate" else name, None)


def targeted_directives(lines: Iterable[bytes]) -> Directives | None:
    """The directives of CDN-Cache-Control, a Dictionary (RFC 9213 s.2.1).

    None where it is empty or not in that grammar: then it is as if it were not there (s.2.2). A value of a type that no
    directive has counts as an argument that is none; one that is said to be false counts where it restricts.
    """
    members = dictionary(lines)
    if not members:
        return None
    found = Directives()
    for name, value in members.items():
        if value is False:
            if name in _RESTRICTING:
                _restrict(found, name)
            continue
        if isinstance(value, str):  # field names; nothing else is said by a String
            value = value.encode() if name in _QUALIFIED else None  # noqa: PLW2901 - the same value, as bytes
        found.add(name, value if isinstance(value, bytes) else None)
    return found


def _unquoted(argument: bytes | None) -> bytes | None:
    if argument is None or not argument.startswith(b'"'):
        return argument
    return _ESCAPED.sub(rb"\1", argument[1:-1])


def seconds(value: bytes | None) -> int | None:
    """A delta-seconds value, capped at 2^31 (RFC 9111 s.1.2.2); None where it is none."""
    if value is None or not value.isdigit():
        return None
    digits = value.lstrip(b"0")
    return min(int(digits or b"0"), LONGEST) if len(digits) < 11 else LONGEST


def age(lines: Iterable[bytes]) -> int | None:
    """Age in seconds: the first member of the list that it should not be, None where that is none (RFC 9111 s.5.1)."""
    return seconds(next(iter(lines), b"").partition(b",")[0].strip(b" \t"))


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


def none_match(lines: Iterable[bytes], etag: bytes | None) -> bool:
    """Whether If-None-Match is false: it is `*`, or one of its tags weakly equals `etag` (RFC 9110 s.13.1.2)."""
    lines = list(lines)
    if len(lines) == 1 and lines[0].strip(b" \t") == b"*":
        return True
    if etag is None:
        return False
    bare = etag.removeprefix(b"W/")
    for line in lines:
        at = 0
        while at < len(line) and (matched := _ETAG.match(line, at)):
            if matched[1].removeprefix(b"W/") == bare:
                return True
            at = matched.end()
    return False


def http_date(value: bytes, now: float | None = None) -> int | None:
    """A date in one of HTTP's three formats as seconds of the epoch; None for anything else (RFC 9110 s.5.6.7).

    In any case of letters, in GMT only; the day of the week need not be right (RFC 9111 s.4.2). A year of two digits
    is the one nearest to `now`, in seconds of the epoch, that is at most fifty years ahead; without `now` it is none.
    """
    text = value.decode("latin-1").lower()
    if matched := _IMF_DATE.fullmatch(text):
        day, month, year, *clock = matched.groups()
    elif matched := _ASCTIME_DATE.fullmatch(text):
        month, day, *clock, year = matched.groups()
    elif now is not None and (matched := _RFC850_DATE.fullmatch(text)):
        day, month, year, *clock = matched.groups()
        return _nearest(int(year), month, int(day), clock, now)
    else:
        return None
    return _epoch(int(year), month, int(day), clock)


def _nearest(digits: int, month: str, day: int, clock: list[str], now: float) -> int | None:
    """The latest date with these two digits of a year that is not more than fifty years after `now`."""
    last = datetime.fromtimestamp(now, UTC).year + 50
    year = last - (last - digits) % 100
    found = _epoch(year, month, day, clock)
    too_far = found is not None and found > now + _FIFTY_YEARS
    return _epoch(year - 100, month, day, clock) if too_far else found


def _epoch(year: int, month: str, day: int, clock: list[str]) -> int | None:
    hour, minute, second = map(int, clock)
    leap = int(second == 60)
    try:
        moment = datetime(year, _MONTHS.index(month) + 1, day, hour, minute, second - leap, tzinfo=UTC)
    except ValueError:  # 31 February, 25:00...
        return None
    return int(moment.timestamp()) + leap


def normal(
    name: bytes, lines: list[bytes], *, any_order: bool = False, unknown_as_list: bool = False
) -> list[bytes]:
    """A request field's lines in the form in which variants are compared (RFC 9111 s.4.1).

    Lines of a list are joined and blanks around its commas left out, but not where a quoted string may hold one. What
    is no known list stays as it came, for there they may mean something, or counts as one (`unknown_as_list`), as any
    field may be joined (RFC 9110 s.5.3). Languages are in lower case, by falling weight; those of one weight as they
    came, or in `any_order`, on which nobody can rely (s.12.5.4). No line is told from an empty one.
    """
    is_list = name in _LISTS or (unknown_as_list and name not in _SINGLE)
    if not is_list or not lines:
        return lines
    value = b",".join(lines)
    if b'"' in value:
        return lines
    if name != b"accept-language":
        return [_trimmed(value, b",")]
    members = [spelled for member in value.lower().split(b",") if (spelled := _trimmed(member, b";"))]
    if any_order:
        members.sort()
    members.sort(key=_weight)
    return [b",".join(members)]


def _trimmed(value: bytes, separator: bytes) -> bytes:
    """A value without the blanks around its separators and at its ends."""
    return separator.join([part.strip(b" \t") for part in value.split(separator)])


def _weight(member: bytes) -> float:
    matched = _WEIGHT.search(member)
    return -float(matched[1]) if matched else -1.0
