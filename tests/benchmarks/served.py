"""Servers in processes of their own: uvicorn around the app that a factory makes, and private routes beside it.

`with serving("module:factory") as server` starts one; it has ended when the `with` has. It also ends when its standard
input does, so that none outlives whoever started it.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from .memory import reader_of_memory
from .requests import App, Receive, Scope, Send

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = "/-/"
"""What is below it is answered beside the app."""
END = 20.0
KEEP_ALIVE = 15
"""Seconds: uvicorn may hold what belongs to a closed connection until its timer for this has run."""
_OPEN_FILES = Path("/proc/self/fd")

Route = Callable[[], Mapping[str, Any]]


class Service(msgspec.Struct, frozen=True):
    """What a factory makes: the app, and private routes by name."""

    app: App
    routes: Mapping[str, Route] = {}


class Server:
    """A running server, for whoever started it."""

    def __init__(self, port: int, *, http: str, loop: str) -> None:
        self.port = port
        self.http = http
        self.loop = loop

    def ask(self, name: str) -> dict[str, Any]:
        """What one of its private routes answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", PRIVATE + name, headers={"connection": "close"})
            answer = connection.getresponse()
            assert answer.status == 200, (name, answer.status)
            told: dict[str, Any] = json.loads(answer.read())
            return told
        finally:
            connection.close()


@contextmanager
def serving(factory: str) -> Iterator[Server]:
    """A server for `module:factory`."""
    command = [sys.executable, "-m", f"{__package__}.served", factory]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"the server of {factory} did not start"
            yield Server(**json.loads(line))
        finally:
            process.stdin.close()
            try:
                process.wait(END)
            finally:
                process.kill()


# -- in the server's process ------------------------------------------------------------------------------------------


def process_figures() -> dict[str, Any]:
    """What the process has used and holds: None where this system does not tell it."""
    resident = reader_of_memory()
    return {
        "cpu": time.process_time(),
        "resident": resident() if resident is not None else None,
        "tasks": len(asyncio.all_tasks()),
        **_open_files(),
    }


def _open_files() -> dict[str, int | None]:
    if not _OPEN_FILES.exists():
        return {"files": None, "sockets": None}
    targets = []
    for file in list(_OPEN_FILES.iterdir()):
        try:
            targets.append(str(file.readlink()))
        except FileNotFoundError:  # the folder's own, closed again
            continue
    return {"files": len(targets), "sockets": sum(target.startswith("socket:") for target in targets)}


def beside(service: Service) -> App:
    """The app, with the private routes in front of it."""
    routes: dict[str, Route] = {"process": process_figures, **service.routes}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PRIVATE):
            content = json.dumps(routes[scope["path"].removeprefix(PRIVATE)]()).encode()
            headers = [(b"content-length", b"%d" % len(content))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": content})
        else:
            await service.app(scope, receive, send)

    return app


def main(factory: str) -> None:
    """Serve until standard input ends."""
    module, _, name = factory.partition(":")
    service: Service = getattr(importlib.import_module(module), name)()
    has_uvloop = platform.system() != "Windows" and find_spec("uvloop") is not None
    spoken = "httptools" if find_spec("httptools") is not None else "h11"
    config = uvicorn.Config(
        beside(service),
        loop="uvloop" if has_uvloop else "asyncio",
        http="httptools" if spoken == "httptools" else "h11",
        log_level="error",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        hello = {
            "port": listening.getsockname()[1],
            "http": spoken,
            "loop": "uvloop" if has_uvloop else "asyncio",
        }
        print(json.dumps(hello), flush=True)
        server.run(sockets=[listening])


def _end_with_stdin(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1])
