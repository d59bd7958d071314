"""A visit: one request, by somebody who may ask, and all that it may be about.

Law: `who` was found out before; it is nobody's name only where an operation is open to all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from . import shapes
from .problems import Problem, answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from .api import Api
    from .door import Door
    from .live import Streams

_REFUSED: Final = "Not allowed: no credentials, or wrong ones."
_SELDOM: Final = 30


class Visit:
    """What an operation is called with."""

    def __init__(
        self,
        api: Api,
        streams: Streams,
        document: dict[str, Any],
        door: Door,
        request: Request,
        who: str,
    ) -> None:
        self.api = api
        self.streams = streams
        self.document = document
        self.request = request
        self.who = who
        self._door = door
        self._asked = 0

    async def still_allowed(self) -> bool:
        """Whether whoever opened a stream may still ask: asked each second, a function now and then."""
        door = self._door
        if door.sessions is not None:
            return self.who == "token" or door.session(self.request) == self.who
        self._asked += 1
        return self._asked % _SELDOM != 0 or await door.who(self.request) == self.who

    def sign_in(self, asked: shapes.Token) -> Response:
        """Turn the token into a cookie."""
        if self._door.sessions is None:
            raise Problem(404, "There is no token to sign in with: the application itself says who may ask.")
        if not self._door.fits(asked.token):
            raise refusal(self._door)
        who, cookie = self._door.sessions.open(self.request)
        self.api.audit.changed(who, "sign in", "session", "done")
        return answer(shapes.Session(who), headers={"set-cookie": cookie})

    def sign_out(self) -> Response:
        """End the session whose cookie came."""
        if self._door.sessions is None:
            raise Problem(404, "There is no session: the application itself says who may ask.")
        cookie = self._door.sessions.close(self.request)
        self.api.audit.changed(self.who, "sign out", "session", "done")
        return answer(shapes.Session(None), headers={"set-cookie": cookie})


def refusal(door: Door) -> Problem:
    """The one answer to all who may not ask, whatever they asked for."""
    if door.sessions is None:
        return Problem(403, _REFUSED)
    return Problem(401, _REFUSED, {"www-authenticate": "Bearer"})
