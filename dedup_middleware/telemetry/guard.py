"""The guard: whatever tells of a request may fail, and the request does not notice.

Law: an exception of a processor, an exporter or a log handler ends here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class Warns(Protocol):
    """Who can tell of its own failures."""

    def warn(self, kind: str, message: str, *args: object) -> None:
        """A warning about our own parts, at most once a minute a kind."""


_S = TypeVar("_S", bound=Warns)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def failed(one: Warns, what: str, error: Exception) -> None:
    """Warn that it could not do that."""
    one.warn("telemetry", "telemetry: %s failed with %s", what, type(error).__qualname__)


def harmless(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R | None]:
    """A method that gives None where it fails, and costs a log line a minute."""

    @functools.wraps(method)
    def guarded(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no fault of the request
            failed(self, method.__name__, error)
            return None

    return guarded
