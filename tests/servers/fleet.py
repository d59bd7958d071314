"""The servers, how each is started, and what each forbids; a process of its own for every one that is asked for."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = "tests.servers.app:app"


@dataclass(frozen=True)
class Place:
    """Where a process runs, and whether it is to tell the app of its life."""

    folder: Path
    port: int
    tls_port: int
    lifespan: str = "on"

    @property
    def switch(self) -> str:
        """What servers with `--lifespan on|off|auto` are told; an app may refuse it under auto."""
        return "auto" if self.lifespan == "refused" else self.lifespan


Arguments = Callable[[Place], list[str]]
Broken = tuple[str, str, str, str]
"""How a response ends whose app raises before its head, after it, after one chunk and after two: with an answer of
500, "cut", or "open": then the client waits for ever, as it does without the middleware."""
CUT: Broken = ("500", "cut", "cut", "cut")
OPEN: Broken = ("500", "open", "open", "open")
HEAD_HELD: Broken = ("500", "500", "cut", "cut")


@dataclass(frozen=True)
class Server:
    """A server and how it behaves, whatever app it runs.

    `needs` names modules and the distributions they are in. `spoiled_by_broken`: the process is
    no good for another test after a response that broke off.
    """

    name: str
    needs: dict[str, str]
    arguments: Arguments
    h2: str = ""
    lifespan: tuple[str, ...] = ("on", "off", "refused")
    backpressure: tuple[str, ...] = ("h1", "h2")
    broken: dict[str, Broken] = field(default_factory=dict)
    spoiled_by_broken: bool = False
    graceful: bool = True
    cancels: bool = False
    cancels_h2: bool = True
    extensions: dict[str, set[str]] = field(default_factory=dict)


def uvicorn(http: str, loop: str, *more: str) -> Arguments:
    return lambda at: [
        "uvicorn", APP, f"--port={at.port}", f"--http={http}", f"--loop={loop}", "--no-access-log",
        f"--lifespan={at.switch}", *more,
    ]  # fmt: skip


def hypercorn(*more: str) -> Arguments:
    return lambda at: ["hypercorn", APP, f"--bind=127.0.0.1:{at.port}", *more]


def granian(at: Place) -> list[str]:
    interface = "asginl" if at.lifespan == "off" else "asgi"
    return ["granian", APP, f"--port={at.port}", f"--interface={interface}", "--loop=uvloop"]


def daphne(at: Place) -> list[str]:
    pem = at.folder / "server.pem"
    secure = f"--endpoint=ssl:{at.tls_port}:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    return ["daphne", APP, f"--port={at.port}", secure, "--application-close-timeout=0", "--verbosity=0"]


def gunicorn(*more: str) -> Arguments:
    return lambda at: ["gunicorn", APP, f"--bind=127.0.0.1:{at.port}", "--no-control-socket", *more]


def gunicorn_asgi(*more: str) -> Arguments:
    return lambda at: [
        *gunicorn("--worker-class=asgi", "--asgi-disconnect-grace-period=0", *more)(at),
        f"--asgi-lifespan={at.switch}",
    ]


SERVERS = {
    server.name: server
    for server in [
        Server("uvicorn-h11", {"uvicorn": "uvicorn"}, uvicorn("h11", "asyncio")),
        Server(
            "uvicorn-httptools",
            {"uvicorn": "uvicorn", "httptools": "httptools", "uvloop": "uvloop"},
            uvicorn("httptools", "uvloop"),
        ),
        Server(
            "hypercorn",
            {"hypercorn": "hypercorn", "h2": "h2"},
            hypercorn(),
            h2="cleartext",
            lifespan=("on", "refused"),
            backpressure=("h1",),
            broken={"h2": OPEN},
            extensions={"h2": {"http.response.early_hint", "http.response.push", "http.response.trailers"}},
        ),
        Server(
            "granian",
            {"granian": "granian", "uvloop": "uvloop"},
            granian,
            h2="cleartext",
            broken={"h1": HEAD_HELD, "h2": HEAD_HELD},
            extensions={
                "h1": {"http.response.pathsend", "websocket.http.response"},
                "h2": {"http.response.pathsend", "websocket.http.response"},
            },
        ),
        Server(
            "daphne",
            {"daphne": "daphne", "h2": "Twisted[http2,tls]", "trustme": "trustme"},
            daphne,
            h2="tls",
            lifespan=("off",),
            backpressure=(),
            spoiled_by_broken=True,  # its periodic check ends: no 500 any more, and nobody is cancelled
            broken={"h1": OPEN, "h2": OPEN},
            graceful=False,
            cancels=True,
        ),
        Server(
            "gunicorn-uvicorn",
            {"gunicorn": "gunicorn", "uvicorn_worker": "uvicorn-worker"},
            gunicorn("--worker-class=uvicorn_worker.UvicornWorker"),
            lifespan=("on", "refused"),
        ),
        Server(
            "gunicorn-asgi",
            {"gunicorn.asgi": "gunicorn>=27", "h2": "h2"},
            gunicorn_asgi("--http-protocols=h2,h1", "--http2-cleartext=both"),
            h2="cleartext",
            broken={"h2": HEAD_HELD},
            cancels=True,
            cancels_h2=False,  # a reset stream never, a lost connection not always: only the disconnect is sure
            extensions={"h2": {"http.response.priority", "http.response.trailers"}},
        ),
        Server(
            "gunicorn-asgi-preload",
            {"gunicorn.asgi": "gunicorn>=27"},
            gunicorn_asgi("--preload"),
            cancels=True,
        ),
    ]
}


class Running:
    """A server's process."""

    def __init__(self, process: subprocess.Popen[bytes], at: Place, trusted: ssl.SSLContext | None) -> None:
        self.process = process
        self.at = at
        self.trusted = trusted

    @property
    def log(self) -> str:
        return (self.at.folder / "log").read_text(errors="replace")

    def ask(self, path: str = "/control/-/ready") -> dict[str, object]:
        """One request from outside of any event loop."""
        connection = http.client.HTTPConnection("127.0.0.1", self.at.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return dict(json.load(connection.getresponse()))

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int:
        return self.process.wait(15)

    def end(self) -> None:
        """Nothing of it is left after this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def missing(server: Server) -> list[str]:
    return [package for module, package in server.needs.items() if not _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


@contextlib.contextmanager
def running(server: Server, folder: Path, *, lifespan: str = "on") -> Iterator[Running]:
    """Start a server on a free port; the test skips where it is not installed."""
    if packages := missing(server):
        pytest.skip(f"{server.name} is not installed: pip install {' '.join(packages)}")
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(5):
        one = _start(server, folder, lifespan=lifespan)
        try:
            if one is not None:
                yield one
                return
        finally:
            if one is not None:
                one.end()
    raise AssertionError(f"{server.name} did not start:\n{(folder / 'log').read_text()}")


def _start(server: Server, folder: Path, *, lifespan: str) -> Running | None:
    """A server that answers with our token; None where another process took the port meanwhile."""
    token = uuid.uuid4().hex
    at = Place(folder, *_free_ports(), lifespan=lifespan)
    authority = _certificate(folder) if server.h2 == "tls" else None
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PLAYS_TOKEN": token,
        "PLAYS_PARENT": str(os.getpid()),
        "PLAYS_GATES": str(folder),
        "PLAYS_LIFESPAN": lifespan,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *server.arguments(at)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    one = Running(process, at, authority)
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            if one.ask()["token"] == token:
                return one
            break
        time.sleep(0.01)  # nothing tells that a port is open
    one.end()
    return None


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for the server in `server.pem`, and a client's context that trusts it."""
    import trustme

    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    return context
