"""Path patterns: `/git/{repo}/status` as in a route table, and the first match among many.

Law: the cost of finding a rule depends on the request's path, not on the number of rules.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from starlette.convertors import PathConvertor, StringConvertor
from starlette.routing import compile_path

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.convertors import Convertor

T = TypeVar("T")

BAD_PATH: Final = re.compile(r"[\x00-\x1f\x7f\\]|//|(?:^|/)\.{1,2}(?:/|$)")
"""What a cache and an app could read differently in a path: a request for such a one goes to the app by itself."""
_NOT_A_PATH: Final = re.compile(r"[?#]|%[0-9a-fA-F]{2}")

_PARAMETER = re.compile(r"\{[^{}]*\}")
_NAMED = re.compile(r"\{[a-zA-Z_][a-zA-Z0-9_]*\}")
_WHOLE_SEGMENT = re.compile(r"\{[a-zA-Z_][a-zA-Z0-9_]*(?::(?:str|int|float|uuid))?\}")
_ANY: Final = "{}"


class PathPattern:
    """A compiled path pattern; parameters and convertors are Starlette's (`{id:int}`, `{rest:path}`)."""

    __slots__ = ("_typed", "parameters", "path", "regex")

    def __init__(self, path: object) -> None:
        allowed = 'a path that starts with "/", such as /git/{repo}/status'
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigurationError("Rule.path", path, allowed)
        if re.search(r"[{}]", _PARAMETER.sub("", path)):
            raise ConfigurationError("Rule.path", path, allowed)
        try:
            regex, template, convertors = compile_path(path)
        except (AssertionError, ValueError) as error:
            raise ConfigurationError("Rule.path", path, f"{allowed} ({error})") from None
        if _PARAMETER.search(_NAMED.sub("", template)):  # one whose name or type Starlette does not read
            raise ConfigurationError("Rule.path", path, allowed)
        if _NOT_A_PATH.search(_PARAMETER.sub("x", path)):
            allowed = "a path as the app gets it: decoded (a space, not %20), without a query or a fragment"
            raise ConfigurationError("Rule.path", path, allowed)
        self.path = path
        # Starlette's pattern ends in "$", which also matches before a last line feed.
        self.regex = re.compile(regex.pattern.removesuffix("$") + r"\Z")
        self.parameters = frozenset(convertors)
        self._typed = {
            name: convertor
            for name, convertor in convertors.items()
            if not isinstance(convertor, (StringConvertor, PathConvertor))
        }

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters as text, or None; typed ones (007, 7) in one spelling, as they name one thing."""
        found = self.regex.match(path)
        if found is None:
            return None
        parameters: dict[str, str] = found.groupdict()
        for name, convertor in self._typed.items():
            parameters[name] = _spelled(convertor, parameters[name])
        return parameters


def check_shared(path: str) -> None:
    """Refuse a pattern whose own text is in no path of a request that may be shared.

    Raises:
        ConfigurationError: for text that a cache and an app could read differently.
    """
    if BAD_PATH.search(_PARAMETER.sub("x", path)):
        raise ConfigurationError(
            "Rule.path",
            path,
            "a path without //, dot segments, backslashes and control characters (requests with them are never shared)",
        )


def _spelled(convertor: Convertor[Any], text: str) -> str:
    try:
        return convertor.to_string(convertor.convert(text))
    except (ValueError, AssertionError):
        return text


Candidate = tuple[int, PathPattern, T]


class _Bag(Generic[T]):
    """Patterns by a literal text: those that begin, or end, with it."""

    __slots__ = ("items", "lengths")

    def __init__(self) -> None:
        self.items: dict[str, list[Candidate[T]]] = {}
        self.lengths: list[int] = []

    def add(self, text: str, candidate: Candidate[T]) -> None:
        self.items.setdefault(text, []).append(candidate)
        if len(text) not in self.lengths:
            self.lengths.append(len(text))

    def beginning(self, text: str) -> list[Candidate[T]]:
        return [one for length in self.lengths for one in self.items.get(text[:length], ())]

    def ending(self, text: str) -> list[Candidate[T]]:
        return [one for length in self.lengths for one in self.items.get(text[len(text) - length :], ())]


class _Node(Generic[T]):
    """What may follow one segment: literals, a parameter, or a segment that only the regex understands."""

    __slots__ = ("begins", "children", "ends", "stops")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.stops: list[Candidate[T]] = []
        self.begins: _Bag[T] = _Bag()
        self.ends: _Bag[T] = _Bag()


class PathTable(Generic[T]):
    """Patterns in order, indexed by segment, so that a look-up tries only those that can match."""

    def __init__(self, items: Iterable[tuple[PathPattern, T]]) -> None:
        self._root: _Node[T] = _Node()
        for order, (pattern, item) in enumerate(items):
            self._add((order, pattern, item))

    def _add(self, candidate: Candidate[T]) -> None:
        node, path = self._root, candidate[1].path
        for segment in path.split("/"):
            parameter = _PARAMETER.search(segment)
            if parameter is None:
                name = segment
            elif _WHOLE_SEGMENT.fullmatch(segment):
                name = _ANY
            else:  # a parameter that may span segments, or shares one with text
                text = path[path.rindex("}") + 1 :]
                if text:
                    node.ends.add(text, candidate)
                else:
                    node.begins.add(segment[: parameter.start()], candidate)
                return
            node = node.children.setdefault(name, _Node())
        node.stops.append(candidate)

    def matches(self, path: str) -> list[tuple[T, dict[str, str]]]:
        """Every item whose pattern matches, with the path's parameters, in the order of the table."""
        nodes = [self._root]
        found: list[Candidate[T]] = []
        for segment in path.split("/"):
            following: list[_Node[T]] = []
            for node in nodes:
                if node.begins.lengths:
                    found += node.begins.beginning(segment)
                if node.ends.lengths:
                    found += node.ends.ending(path)
                if (child := node.children.get(segment)) is not None:
                    following.append(child)
                if (child := node.children.get(_ANY)) is not None:
                    following.append(child)
            nodes = following
            if not nodes:
                break
        for node in nodes:
            found += node.stops
        if len(found) > 1:
            found.sort(key=lambda candidate: candidate[0])
        matched = [(item, pattern.match(path)) for _, pattern, item in found]
        return [(item, parameters) for item, parameters in matched if parameters is not None]
