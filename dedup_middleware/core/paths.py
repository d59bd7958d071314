"""Path patterns: `/git/{repo}/status` as in a route table, and the first match among many.

Law: the cost of finding a rule depends on the request's path, not on the number of rules.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from starlette.routing import compile_path

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

_PARAMETER = re.compile(r"\{[^{}]*\}")
_WHOLE_SEGMENT = re.compile(r"\{[a-zA-Z_][a-zA-Z0-9_]*(?::(?:str|int|float|uuid))?\}")
_ANY: Final = "{}"


class PathPattern:
    """A compiled path pattern; parameters and convertors are Starlette's (`{id:int}`, `{rest:path}`)."""

    __slots__ = ("parameters", "path", "regex")

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
        if re.search(r"\{[^{}]*\}", re.sub(r"\{[a-zA-Z_][a-zA-Z0-9_]*\}", "", template)):
            raise ConfigurationError("Rule.path", path, allowed)
        self.path = path
        # Starlette's pattern ends in "$", which also matches before a last line feed.
        self.regex = re.compile(regex.pattern.removesuffix("$") + r"\Z")
        self.parameters = frozenset(convertors)

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters as text, or None."""
        found = self.regex.match(path)
        return None if found is None else found.groupdict()


class _Node(Generic[T]):
    __slots__ = ("children", "ends", "rests")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.ends: list[tuple[int, PathPattern, T]] = []
        self.rests: list[tuple[int, PathPattern, T]] = []


class PathTable(Generic[T]):
    """Patterns in order, indexed by segment, so that a look-up tries only those that can match."""

    def __init__(self, items: Iterable[tuple[PathPattern, T]]) -> None:
        self._root: _Node[T] = _Node()
        for order, (pattern, item) in enumerate(items):
            self._add(order, pattern, item)

    def _add(self, order: int, pattern: PathPattern, item: T) -> None:
        node = self._root
        for segment in pattern.path.split("/"):
            if not _PARAMETER.search(segment):
                name = segment
            elif _WHOLE_SEGMENT.fullmatch(segment):
                name = _ANY
            else:  # a parameter that may span segments, or shares one with text: the regex decides
                node.rests.append((order, pattern, item))
                return
            node = node.children.setdefault(name, _Node())
        node.ends.append((order, pattern, item))

    def matches(self, path: str) -> list[tuple[T, dict[str, str]]]:
        """Every item whose pattern matches, with the path's parameters, in the order of the table."""
        nodes, found = [self._root], list(self._root.rests)
        for segment in path.split("/"):
            nodes = [
                child
                for node in nodes
                for child in (node.children.get(segment), node.children.get(_ANY))
                if child is not None
            ]
            if not nodes:
                break
            for node in nodes:
                found += node.rests
        else:
            for node in nodes:
                found += node.ends
        found.sort(key=lambda candidate: candidate[0])
        matched = ((item, pattern.match(path)) for _, pattern, item in found)
        return [(item, parameters) for item, parameters in matched if parameters is not None]
