"""`@dedup.cached(...)`: a function that is shared wherever it is called.

Law: the key is the decoration and the arguments, all of them; tags are filled from the arguments by name.
"""

from __future__ import annotations

import functools
import inspect
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
    checked(ttl, tags, max_wait)
    templates = tuple(tags)

    def decorate(fn: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
        signature = inspect.signature(fn)
        for tag in templates:
            _check_tag(tag, signature.parameters)
        number = next(_decorated)  # two functions that a factory made have one name

        @functools.wraps(fn)
        async def shared(*args: Any, **kwargs: Any) -> T:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = dict(bound.arguments)
            return await calls.call(
                ["cached", number, arguments],
                functools.partial(fn, *args, **kwargs),
                ttl=ttl,
                tags=[tag.format_map(arguments) for tag in templates],
                max_wait=max_wait,
                label=name_of(fn),
            )

        return shared

    return decorate


def _check_tag(tag: str, parameters: Iterable[str]) -> None:
    try:
        names = {name for _, name, _, _ in Formatter().parse(tag) if name is not None}
    except ValueError:
        raise ConfigurationError("cached.tags", tag, "a text with {parameters} of the function") from None
    unknown = {name.partition(".")[0].partition("[")[0] for name in names} - set(parameters)
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in parameters) or "none in this function"
        raise ConfigurationError("cached.tags", tag, f"parameters of the function: {known}")
