"""What is asked: parameters and bodies, bounded in length and time, read as the operation takes them.

Law: what an operation does not take is refused, never ignored.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect

from .problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from .operations import Operation

MAX_BODY: Final = 64 * 1024
_MAX_QUERY: Final = 8192
_BODY_SECONDS: Final = 10.0


async def asked_for(operation: Operation, request: Request) -> Any:
    """The parameters, or the body, as the operation takes them."""
    query = request.scope.get("query_string") or b""
    if len(query) > _MAX_QUERY:
        raise Problem(400, f"The query is longer than {_MAX_QUERY} bytes.")
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Problem(400, "The query has too many parameters.") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Problem(400, "A parameter stands twice.")
    try:
        if operation.method != "POST":
            return _finite(msgspec.convert(given, operation.takes, strict=False))
        if given:
            raise Problem(400, "This operation takes no parameters, but a body.")
        return msgspec.json.decode(await _body(request), type=operation.takes)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(400, f"{error}.") from None


async def _body(request: Request) -> bytes:
    """A JSON body, bounded in length and time."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Problem(415, "The body is application/json.")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise Problem(413, f"The body is longer than {MAX_BODY} bytes.")
    except TimeoutError:
        raise Problem(408, "The body did not come in time.") from None
    except ClientDisconnect:
        raise Problem(400, "The body did not come as a whole.") from None
    return bytes(body)


def _finite(asked: Any) -> Any:
    for name, value in msgspec.structs.asdict(asked).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Problem(400, f"{name} is a number of seconds.")
    return asked
