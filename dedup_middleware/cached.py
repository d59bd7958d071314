"""`@dedup.cached(...)`: a function that is shared wherever it is called.

Law: the key is the decoration and the arguments, all of them, and the function runs on what its key was made of; tags
are filled from the arguments by name.
"""

from __future__ import annotations

import functools
import inspect
import re
from itertools import count
from string import Formatter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .calls import Calls, checked, name_of
from .core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")

_decorated: Final = count()


def cached(
    calls: Calls, *, ttl: float | str, tags: Iterable[str], max_wait: float
) -> Callable[[Callable[..., Awaitable[T]]], Callable[..., Awaitable[T]]]:
    """See `Dedup.cached`."""
    templates, rule = checked(ttl, tags, max_wait)

    def decorate(fn: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        if inspect.isasyncgenfunction(fn):
            raise ConfigurationError("cached", fn, "a function whose value can be awaited, not a generator")
        signature = inspect.signature(fn)
        for tag in templates:
            _check_tag(tag, signature.parameters)
        number = next(_decorated)  # two functions that a factory made have one name

        @functools.wraps(fn)
        async def shared(*args: Any, **kwargs: Any) -> T:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            digest = calls.digest(("cached", number), bound.arguments)
            bound.arguments = _copied(bound.arguments)
            return await calls.run(
                digest,
                functools.partial(fn, *bound.args, **bound.kwargs),
                rule,
                [tag.format_map(bound.arguments) for tag in templates],
                name_of(fn),
            )

        return shared

    return decorate


def _copied(value: Any) -> Any:
    """Plain data as it is now: the function runs later, and its caller may have changed a list by then."""
    kind = type(value)
    if kind is dict:
        return {name: _copied(item) for name, item in value.items()}
    if kind in (list, tuple):
        return kind(map(_copied, value))
    return value


def _check_tag(tag: str, parameters: Iterable[str]) -> None:
    try:
        names = {name for _, name, _, _ in Formatter().parse(tag) if name is not None}
    except ValueError:
        raise ConfigurationError("cached.tags", tag, "a text with {parameters} of the function") from None
    unknown = {re.sub(r"\[[^]]*\]", "", name) for name in names} - set(parameters)
    if unknown:  # "{name.attribute}" too: arguments are plain data, which has none
        known = ", ".join(f"{{{name}}}" for name in parameters) or "none in this function"
        raise ConfigurationError("cached.tags", tag, f"parameters of the function: {known}")
