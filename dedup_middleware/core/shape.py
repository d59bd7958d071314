"""A scope's shape: which keys it has. Found once for all scopes that have the same, so that each is read in one step.

Law: a scope with another key is another shape; nothing in a scope goes unread.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .memo import Memo

if TYPE_CHECKING:
    from .http import Scope

_READ: Final = (
    *("method", "path", "raw_path", "root_path"),
    *("query_string", "scheme", "http_version", "server", "headers"),
    "client",
)
TARGET: Final = slice(0, 4)
"""Where the target is in what a shape reads, with the method; and where some of the others are."""
QUERY: Final = 4
HTTP_VERSION: Final = 6
HEADERS: Final = 8
CLIENT: Final = 9
_ROUTED: Final = frozenset(
    # What routers derive from the target, or set the same for every request of one app.
    "app router endpoint route path_params app_root_path route_root_path starlette.exception_handlers "
    "starlette.opentelemetry fastapi fastapi_inner_astack fastapi_function_astack fastapi_middleware_astack "
    "litestar_app route_handler path_template _ls_connection_state".split()
)
TARGET_KEYS: Final = frozenset({"type", "asgi", *_READ, *_ROUTED})
SPECIAL: Final = ("user", "auth", "session", "state", "extensions")


class Shape(msgspec.Struct, frozen=True):
    """How scopes with the same keys are read.

    `read` gives what stands under method, path, raw_path, root_path (0 to 3); query_string, scheme, http_version,
    server, headers (4 to 8); client (9), None for what there is not. It raises KeyError for most scopes of another
    shape; all others have not `count` keys. `special` are the keys that say more than the target does.
    """

    read: Callable[[Any], tuple[Any, ...]]
    count: int
    special: tuple[str, ...]


def _read_none(_: Scope) -> tuple[Any, ...]:
    raise KeyError


NO_SHAPE: Final = Shape(_read_none, -1, ())
_found: Final[Memo[tuple[str, ...], Shape]] = Memo(64)


def shape_of(scope: Scope) -> Shape:
    """The shape of a scope."""
    keys = (*scope,)
    shape = _found.young.get(keys) or _found.get(keys)
    if shape is None:
        special = tuple(sorted(name for name in keys if name in SPECIAL or name not in TARGET_KEYS))
        shape = Shape(_reader(keys), len(keys), special)
        _found.put(keys, shape)
    return shape


def _reader(keys: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if all(name in keys for name in _READ):
        # A scope with each of these keys, and no more, has this shape: the others are read to see that they are there.
        return itemgetter(*_READ, *(key for key in keys if key not in _READ))

    def read(scope: Scope) -> tuple[Any, ...]:
        if (*scope,) != keys:
            raise KeyError
        return tuple(map(scope.get, _READ))

    return read
