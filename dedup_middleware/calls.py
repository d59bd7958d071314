"""Functions inside the app, run once for all who ask for the same thing: the same flights and store as for requests.

Law: a key is plain data that reaches no decorated function's values, settings are checked as a rule's are, and what
functions are called in metrics is bounded.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from .call import Call
from .core import canonical
from .core.checks import duration, texts
from .core.errors import ConfigurationError
from .core.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .function import Engine


T = TypeVar("T")

MAX_LABELS: Final = 200


class Calls:
    """The engine's way to share functions."""

    def __init__(self, dedup: Engine) -> None:
        self._dedup = dedup
        self._labels: set[str] = set()

    async def call(
        self,
        key: object,
        fn: Callable[[], Awaitable[T]],
        *,
        ttl: float | str,
        tags: Iterable[str],
        max_wait: float,
    ) -> T:
        """See `Dedup.call`."""
        names, rule = checked(ttl, tags, max_wait)
        return await self.run(self.digest(("call",), key), fn, rule, names, name_of(fn))

    def digest(self, space: tuple[str | int, ...], key: object) -> bytes:
        """The digest of a key in its space: keys that callers choose are one, those of each decorated function another.

        Raises:
            TypeError: for a key that is not plain data.
        """
        try:
            return self._dedup.digest(canonical.encode([*space, canonical.plain(key)]))
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f"the key of a call is plain data, not what this {type(key).__name__} holds"
            ) from None

    async def run(
        self, digest: bytes, fn: Callable[[], Awaitable[T]], rule: Rule, tags: Iterable[str], label: str
    ) -> T:
        """The function's value under this digest, shared as the rule says."""
        dedup = self._dedup
        dedup.in_use()
        names = tuple(dict.fromkeys(f"tag:{tag}" for tag in tags))
        one = Call(dedup, digest, fn, rule, names, self._label(label))
        if not dedup.enabled:
            return cast("T", await one.alone("disabled"))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio
            return cast("T", await one.alone("event-loop"))
        return cast("T", await one.run(loop))

    def _label(self, name: str) -> str:
        """Bounded: a label becomes a metric attribute."""
        if name not in self._labels:
            if len(self._labels) >= MAX_LABELS:
                return "call"
            self._labels.add(name)
        return name


def checked(ttl: object, tags: object, max_wait: object) -> tuple[tuple[str, ...], Rule]:
    """What a call asks for, its tags and the rest as a rule; its fields are refused with a rule's sentences.

    Raises:
        ConfigurationError: for what a rule could not have.
    """
    if isinstance(tags, Iterable) and not isinstance(tags, (str, bytes, Mapping)):
        tags = tuple(tags)
    names = texts("call.tags", tags)
    try:
        try:
            return names, _rule(ttl, max_wait)
        except TypeError:  # unhashable, so that it is wrong in any case
            return names, Rule(ttl=ttl, max_wait=max_wait)  # type: ignore[arg-type] # checked there
    except ConfigurationError as error:
        raise error.elsewhere("Rule.", "call.") from None


@functools.lru_cache(maxsize=256, typed=True)
def _rule(ttl: Any, max_wait: Any) -> Rule:
    """Checked once for each pair of values: a rule costs more than a hit."""
    return Rule(ttl=duration("Rule.ttl", ttl), max_wait=max_wait)  # a function has no origin to follow


def name_of(fn: Callable[..., Any]) -> str:
    """What a function is called in metrics and spans."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return f"call {getattr(fn, '__qualname__', type(fn).__qualname__)}"
