"""Problems: what the API refuses, each one status and one sentence.

Law: a sentence says what is allowed; what a stranger sent is repeated to nobody but its sender.
"""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.responses import Response

NO_PATH: Final = "There is nothing here."


class Problem(Exception):  # noqa: N818 - it is an answer
    """A request that can't be answered; `headers` go out with it."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers or {}

    def response(self) -> Response:
        """The problem as the API answers it."""
        return answer({"error": self.sentence}, self.status, self.headers)


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def too_many(seconds: int) -> Problem:
    """Somebody asks too often."""
    return Problem(429, "Too many requests: try again later.", {"retry-after": str(seconds)})
