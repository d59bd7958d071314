"""What every route needs: a checked path parameter, a decoded body, a JSON answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .settings import PORTS

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")
MAX_BODY = 64 * 1024


def json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def port_of(request: Request) -> int:
    text = request.path_params["port"]
    if text not in map(str, PORTS):
        raise HTTPException(404, f"no editor listens on that port; there are {', '.join(map(str, PORTS))}")
    return int(text)


async def body_of(request: Request, kind: type[T]) -> T:
    """The body as `kind`. Only JSON said to be JSON: no page of another site can send that without asking."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"at most {MAX_BODY} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(422, str(error)) from error
