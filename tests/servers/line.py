"""A line: one protocol of one server, and the plays that run behind it."""

from __future__ import annotations

import contextlib
import json
import pickle
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from .client import H1, H2, Answer, Client, Pairs
from .fleet import SERVERS, Running, Server
from .steps import Step

# Daphne looks at its apps once a second, and needs a new process after each response that breaks off.
# The other two speak HTTP by the code of uvicorn-h1 and gunicorn-asgi-h1; test_life.py starts and ends them always.
THOROUGH = {("daphne", "h2"), ("gunicorn-uvicorn", "h1"), ("gunicorn-asgi-preload", "h1")}
LINES = [
    pytest.param(
        (server, protocol),
        id=f"{server.name}-{protocol}",
        marks=[pytest.mark.thorough] if (server.name, protocol) in THOROUGH else [],
    )
    for server in SERVERS.values()
    for protocol in (["h1", "h2"] if server.h2 else ["h1"])
]


class Play:
    """A script in the server's process: the test lets its steps through and asks what became of them."""

    def __init__(self, line: Line, rule: str) -> None:
        self.line = line
        self.name = uuid.uuid4().hex
        self.target = f"/{rule}/{self.name}"

    async def step(self, count: int = 1) -> None:
        await self._tell(f"step/{count}")

    async def finish(self) -> None:
        """Let every step of this and all later runs through."""
        await self._tell("finish")

    async def until(self, **wanted: object) -> dict[str, Any]:
        """Wait for a state; the test fails where it never comes."""
        state: dict[str, Any] = await self._tell("until", json.dumps(wanted).encode())
        assert {name: state[name] for name in wanted} == wanted, state
        return state

    async def began(self, steps: int) -> None:
        """Let steps through and wait until the app has begun them."""
        before = (await self.until())["began"]
        await self.step(steps)
        await self.until(began=before + steps)

    async def write(self, script: Iterable[Step]) -> None:
        await self._tell("write", pickle.dumps(list(script)))

    async def _tell(self, order: str, body: bytes | None = None) -> Any:
        client = await self.line.connect_h1()
        try:
            await client.ask(f"/control/{self.name}/{order}", "POST", body=body or b"")
            answer = await client.answer()
        finally:
            await client.gone()
        assert answer.status == 200, answer
        return json.loads(answer.body)


class Line:
    """What a test asks for: it connects, and puts plays on."""

    def __init__(self, server: Server, protocol: str, running: Running) -> None:
        self.server = server
        self.protocol = protocol
        self.running = running
        self.spoiled = False
        self._clients: list[Client] = []

    @property
    def is_h2(self) -> bool:
        return self.protocol == "h2"

    async def connect_h1(self, buffer: int | None = None) -> H1:
        client = await H1.connect(self.running.at.port, buffer)
        assert isinstance(client, H1)
        return client

    async def connect(self, buffer: int | None = None) -> Client:
        client: Client
        if not self.is_h2:
            client = await self.connect_h1(buffer)
        else:
            tls = self.running.trusted
            client = await H2.connect(self.running.at.tls_port if tls else self.running.at.port, buffer, tls)
        self._clients.append(client)
        return client

    async def ask(
        self, target: str, method: str = "GET", headers: Pairs = (), body: bytes | None = None
    ) -> Client:
        """A new client with its request under way."""
        client = await self.connect()
        await client.ask(target, method, headers, body)
        return client

    async def get(
        self, target: str, method: str = "GET", headers: Pairs = (), body: bytes | None = None
    ) -> Answer:
        client = await self.ask(target, method, headers, body)
        return await client.answer()

    async def crowd(self, play: Play, count: int) -> list[Client]:
        """So many clients, all at the same target; those after the first follow."""
        return [await self.ask(play.target) for _ in range(count)]

    @contextlib.asynccontextmanager
    async def play(self, *script: Step, rule: str = "shared") -> AsyncIterator[Play]:
        """Put a script on; when it is over, nothing of it is left in the server."""
        play = Play(self, rule)
        await play.write(script)
        try:
            yield play
            for client in self._clients:
                await client.gone()
            await play.finish()
            await play.until(flights=0)
        finally:
            while self._clients:
                await self._clients.pop().gone()
            await play._tell("forget")

    async def idle(self, play: Play) -> None:
        """Wait until the app sends no more: twenty looks in a row see the same."""
        seen, same = -1, 0
        while same < 20:
            sent = (await play.until())["sent"]
            seen, same = sent, same + 1 if sent == seen else 0
