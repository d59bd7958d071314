"""The test kit of alerts: engines whose watch looks only when told, and a receiver of webhooks."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dedup_middleware import Dedup
from dedup_middleware.alerts import Watch
from dedup_middleware.events import AlertRaised

from .kit import wait_for


def watch_of(dedup: Dedup) -> Watch:
    assert dedup.watch is not None
    return dedup.watch


def threads(name: str) -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == name}


class Told:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[AlertRaised] = []

    def __call__(self, event: AlertRaised) -> None:
        self.events.append(event)

    def wait(self, number: int) -> list[AlertRaised]:
        wait_for(lambda: len(self.events) >= number)
        return self.events


Got = tuple[str, Mapping[str, str], bytes]


class Receiver:
    """What a webhook's receiver got, and what it answers: statuses one after the other, then 204."""

    def __init__(self, *statuses: int, headers: Mapping[str, str] | None = None) -> None:
        self.got: list[Got] = []
        self.go = threading.Event()
        self.go.set()
        self._statuses = list(statuses)
        self._headers = headers or {}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        self.got.append(
            (request.path, {name.lower(): value for name, value in request.headers.items()}, body)
        )
        status = self._statuses.pop(0) if self._statuses else 204
        self.go.wait(30)
        request.send_response(status)
        for name, value in self._headers.items():
            request.send_header(name, value)
        request.send_header("content-length", "0")
        request.end_headers()

    def wait(self, number: int) -> list[Got]:
        wait_for(lambda: len(self.got) >= number)
        return self.got


@contextmanager
def serving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The receiver at a free port; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.answer(self)

        do_GET = do_POST  # noqa: N815 - as above

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...  # a client that gave up

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}/hook/PATHSECRET"
        finally:
            receiver.go.set()
            server.shutdown()
            thread.join()
