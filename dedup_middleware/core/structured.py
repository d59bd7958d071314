"""Structured fields, as far as caches need them: Dictionaries of directives and Lists of Strings (RFC 9651).

Law: a field is in the grammar as a whole or it is not there at all. One reader goes over the text once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEY = re.compile(rb"[a-z*][a-z0-9_.*-]*+")
_STRING = re.compile(rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"')
_WORD = re.compile(rb"-?[0-9]{1,15}+(?!\.)|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+")
_BOOLEAN = re.compile(rb"\?([01])")
_OTHER = re.compile(
    rb"-?[0-9]{1,12}+\.[0-9]{1,3}+"
    rb"|@-?[0-9]{1,15}+(?!\.)"
    rb"|:[A-Za-z0-9+/]*+={0,2}+:"
    rb'|%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*+"'
)
_COMMA = re.compile(rb",[ \t]*+")
_BLANKS = re.compile(rb"[ \t]*+")
_SPACES = re.compile(rb" *+")
_ESCAPED = re.compile(rb"\\(.)")
_PERCENT = re.compile(rb"%([0-9a-f]{2})")

Value = bytes | str | bool | None
"""An Integer or a Token as bytes; the text of a String; a Boolean; None for every other type."""


class _NotInTheGrammarError(Exception):
    """What comes next cannot be parsed."""


def dictionary(lines: Iterable[bytes]) -> dict[bytes, Value] | None:
    """A Dictionary over all its lines: the last value of each key, without parameters (RFC 9651 s.3.2, s.4.2.2).

    None where it is not in the grammar; an empty one is a Dictionary without members.
    """
    reader = _Reader(lines)
    found: dict[bytes, Value] = {}
    try:
        while reader.more(first=not found):
            key = reader.take(_KEY)
            found[key] = reader.member() if reader.skip(b"=") else True
            reader.parameters()
    except _NotInTheGrammarError:
        return None
    return found


def strings(lines: Iterable[bytes]) -> list[str] | None:
    """A List of Strings, such as Cache-Groups and Cache-Group-Invalidation (RFC 9875 s.2, s.3; RFC 9651 s.4.2.1).

    As many and as long as the field holds them; parameters are ignored. None where the field is anything else.
    """
    reader = _Reader(lines)
    found: list[str] = []
    try:
        while reader.more(first=not found):
            found.append(_ESCAPED.sub(rb"\1", reader.take(_STRING)[1:-1]).decode("ascii"))
            reader.parameters()
    except _NotInTheGrammarError:
        return None
    return found


class _Reader:
    """A field's text, and how far it is read. Every method goes on from there, or raises."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.text = b", ".join(lines).strip(b" ")
        self.at = 0

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        matched = pattern.match(self.text, self.at)
        if matched is not None:
            self.at = matched.end()
        return matched

    def take(self, pattern: re.Pattern[bytes]) -> bytes:
        matched = self.match(pattern)
        if matched is None:
            raise _NotInTheGrammarError
        return matched[0]

    def skip(self, byte: bytes) -> bool:
        found = self.text.startswith(byte, self.at)
        self.at += found
        return found

    def more(self, *, first: bool) -> bool:
        """Whether there is a next member, which is then what comes next; a comma at the end is none (s.4.2.1)."""
        if first:
            return bool(self.text)
        self.take(_BLANKS)
        if self.at == len(self.text):
            return False
        self.take(_COMMA)
        return True

    def member(self) -> Value:
        if not self.skip(b"("):
            return self.bare_item()
        self.inner_list()
        return None

    def inner_list(self) -> None:
        self.take(_SPACES)
        while not self.skip(b")"):
            self.bare_item()
            self.parameters()
            if not self.take(_SPACES) and not self.text.startswith(b")", self.at):
                raise _NotInTheGrammarError

    def parameters(self) -> None:
        while self.skip(b";"):
            self.take(_SPACES)
            self.take(_KEY)
            if self.skip(b"="):
                self.bare_item()

    def bare_item(self) -> Value:
        if matched := self.match(_STRING):
            return _ESCAPED.sub(rb"\1", matched[0][1:-1]).decode("ascii")
        if matched := self.match(_BOOLEAN):
            return matched[1] == b"1"
        if matched := self.match(_WORD):
            return matched[0]
        text = self.take(_OTHER)
        if text.startswith(b"%"):
            _check_utf8(text)
        return None


def _check_utf8(text: bytes) -> None:
    """A Display String spells UTF-8 (s.4.2.10)."""
    try:
        _PERCENT.sub(lambda found: bytes.fromhex(found[1].decode()), text[1:]).decode()
    except UnicodeDecodeError:
        raise _NotInTheGrammarError from None
