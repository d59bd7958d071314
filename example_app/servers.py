"""A server process and its end: nothing that is started here outlives the `async with` that started it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .control import PREFIX, Figures
from .serve import Ended, Started
from .wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .settings import Settings

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
START = 30.0
END = 8.0


class ServerFailed(Exception):  # noqa: N818  it reads as what has happened
    """A server process did not start, or ended early; the text has its last words."""


class Server:
    """A running server: its client for the load, and what its control routes answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = Client(port)
        self.ended = Ended()
        self.errors = ""
        """What the process said on standard error, known when it has ended."""

    async def figures(self) -> Figures:
        return await self.ask("GET", "figures", Figures)

    async def reset(self) -> None:
        await self.ask("POST", "reset", dict)

    async def ask(self, method: str, name: str, kind: type[T]) -> T:
        reply = await self.client.request(method, PREFIX + name)
        return msgspec.json.decode(reply.body, type=kind)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """A server for these settings; it has ended when this has."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "example_app.serve",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        **_group_of_its_own(),
    )
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise ServerFailed("no pipes to the server")
    complaints = asyncio.create_task(_last_words(stderr))
    server: Server | None = None
    try:
        stdin.write(msgspec.json.encode(settings) + b"\n")
        async with asyncio.timeout(START):
            line = await stdout.readline()
        if not line:
            raise ServerFailed(await complaints or "it ended without a word")
        server = Server(msgspec.json.decode(line, type=Started).port)
        yield server
    finally:
        if server is not None:
            await server.client.close()
        await asyncio.shield(_end(process, stdin, stdout, server))
        if server is not None:
            server.errors = await complaints


async def _end(
    process: asyncio.subprocess.Process,
    stdin: asyncio.StreamWriter,
    stdout: asyncio.StreamReader,
    server: Server | None,
) -> None:
    """Closing its standard input asks it to end; it is killed when it doesn't."""
    stdin.close()
    try:
        async with asyncio.timeout(END):
            line = await stdout.readline()
            await process.wait()
        if line and server is not None:
            server.ended = msgspec.json.decode(line, type=Ended)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _group_of_its_own() -> dict[str, Any]:
    """Ctrl-C in the terminal reaches the parent alone, and the parent ends its servers."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


async def _last_words(stream: asyncio.StreamReader) -> str:
    """What the process said on standard error: the last 20 lines."""
    lines: list[str] = []
    while line := await stream.readline():
        lines = [*lines[-19:], line.decode(errors="replace").rstrip()]
    return "\n".join(lines)
