"""Webhooks: an alert as a signed POST, tried a few times.

Law: the body is signed as Standard Webhooks 1.0 has it; a redirect is a failure; neither the secret nor the URL's
path is told to anybody. Called in a courier's thread, which may wait.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import threading

    from ..events import AlertRaised

TIMEOUT: Final = 10.0
"""Seconds that a receiver may take to connect, or to answer."""
DELAYS: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries: there is one try more than there are delays."""
_AGAIN: Final = frozenset({408, 425, 429})
"""Statuses below 500 that are tried again."""


class WebhookError(Exception):
    """A delivery failed for good; the text names no path and no secret."""


def body(event: AlertRaised) -> bytes:
    """The JSON that is posted."""
    data = msgspec.to_builtins(event)
    del data["type"], data["at"]
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    kind = "alert.over" if event.over else "alert.raised"
    return msgspec.json.encode({"type": kind, "timestamp": at, "data": data})


def signature(key: bytes, number: str, timestamp: int, content: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 over id, time and body."""
    signed = f"{number}.{timestamp}.".encode() + content
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """One receiver."""

    def __init__(self, url: str, key: bytes, version: str) -> None:
        self._url = url
        self._key = key
        self._version = version

    def __call__(self, event: AlertRaised, closing: threading.Event) -> None:
        """Deliver, or raise `WebhookError` when all tries have failed or the watch closes."""
        content, number = body(event), f"msg_{uuid.uuid4().hex}"
        for delay in (*DELAYS, None):
            failure, again = self._post(content, number)
            if failure is None:
                return
            if delay is None or not again or closing.wait(delay):
                raise WebhookError(failure)

    def _post(self, content: bytes, number: str) -> tuple[str | None, bool]:
        """What went wrong, and whether another try may help."""
        from urllib import error, request  # noqa: PLC0415 - nobody loads a client who has no webhook

        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": f"dedup-middleware/{self._version}",
            "webhook-id": number,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, number, timestamp, content),
        }
        post = request.Request(self._url, content, headers, method="POST")  # noqa: S310 - http or https, checked
        opener = request.build_opener(_stay())
        try:
            with opener.open(post, timeout=TIMEOUT):
                return None, False
        except error.HTTPError as answer:
            answer.close()
            return f"status {answer.code}", answer.code >= 500 or answer.code in _AGAIN
        except Exception as failure:  # noqa: BLE001 - whatever a network can do
            reason = getattr(failure, "reason", failure)
            cause = reason if isinstance(reason, Exception) else failure
            return type(cause).__qualname__, True


def _stay() -> Any:
    from urllib import request  # noqa: PLC0415 - as above

    class Stay(request.HTTPRedirectHandler):
        """Goes nowhere else: a redirect is an answer like any other, and no good one."""

        def redirect_request(self, *_: Any) -> None:
            return None

    return Stay()
