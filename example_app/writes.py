"""Is an answer ever stale? Every kind of POST, under load, and every read checked against what was written.

Law: a read that was sent after a write was answered shows that write. So a read remembers, when it is sent, the
last write that was answered; an answer that shows less is stale. Readers never stop while the writer writes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Client

READERS = 2
"""Background readers for each kind of write."""
OTHERS = 3
"""Readers besides the writer that ask at the moment a write was answered."""
ROUNDS = {"chat message": 3, "editor open": 12, "git checkout": 10, "git commit": 10}
STEPS = sum(ROUNDS.values())


class Writes(msgspec.Struct, frozen=True):
    writes: dict[str, int]
    """By kind of POST."""
    reads: dict[str, int]
    """Reads that were checked, by the kind of write that they had to show."""
    stale: int
    failed: int
    """Requests that were not answered with a success; an answer that can't be checked proves nothing."""
    examples: list[str]
    """The first stale answers, if there are any."""


async def check_writes(client: Client, repo: str, on_step: Callable[[], None]) -> Writes:
    """Write and read back, several kinds at once; checkouts and commits share one repository, so in turn."""
    git = [f"/git/{repo}", f"/git/{repo}/status", f"/git/{repo}/branch"]
    log = [f"/git/{repo}", f"/git/{repo}/log"]
    chat = _Check("chat message", client, ["/chat/9223/history"], _last_seq, on_step)
    editors = _Check("editor open", client, ["/ide/9223/editors"], _last_opened, on_step)
    branches = _Check("git checkout", client, git, _branch, on_step)
    commits = _Check("git commit", client, log, _last_check, on_step)

    async def in_turn() -> None:
        await branches.run(
            lambda n: (f"/git/{repo}/checkout", {"branch": ("timeline", "main")[n % 2]}), _asked_branch
        )
        await commits.run(lambda n: (f"/git/{repo}/commit", {"message": f"check {n + 1}"}), _asked_check)

    async with asyncio.TaskGroup() as group:
        group.create_task(
            chat.run(lambda n: ("/chat/9223/messages", {"text": f"check {n}"}), _answered("seq"))
        )
        group.create_task(
            editors.run(lambda n: ("/ide/9223/files", {"path": f"check_{n}.py"}), _answered("opened"))
        )
        group.create_task(in_turn())
    done = (chat, editors, branches, commits)
    return Writes(
        writes={check.name: check.written for check in done},
        reads={check.name: check.checked for check in done},
        stale=sum(check.stale for check in done),
        failed=sum(check.failed for check in done),
        examples=[example for check in done for example in check.examples][:5],
    )


Seen = int | str
Wrote = tuple[str, dict[str, Any]]


class _Check:
    """One kind of write: a writer, and readers that know what was written last."""

    def __init__(
        self,
        name: str,
        client: Client,
        targets: list[str],
        seen: Callable[[Any], Seen],
        on_step: Callable[[], None],
    ) -> None:
        self.name = name
        self.written = 0
        self.checked = 0
        self.stale = 0
        self.failed = 0
        self.examples: list[str] = []
        self._client = client
        self._targets = targets
        self._seen = seen
        self._on_step = on_step
        self._sent = 0
        """Writes sent; as many as `_answered` when none is under way."""
        self._answered = 0
        self._floor: Seen | None = None
        """What the last answered write wrote."""
        self._done = False

    async def run(self, write: Callable[[int], Wrote], wrote: Callable[[Wrote, Any], Seen]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._read_on())
            try:
                for number in range(ROUNDS[self.name]):
                    asked = write(number)
                    self._sent += 1
                    reply = await self._client.post(*asked)
                    self._answered += 1
                    if reply.status not in {200, 201}:
                        self.failed += 1
                        continue
                    self._floor = wrote(asked, msgspec.json.decode(reply.body))
                    self.written += 1
                    everybody = [self._read(target) for target in self._targets for _ in range(1 + OTHERS)]
                    await asyncio.gather(*everybody)
                    self._on_step()
            finally:
                self._done = True

    async def _read_on(self) -> None:
        while not self._done:
            for target in self._targets:
                await self._read(target)

    async def _read(self, target: str) -> None:
        floor, answered = self._floor, self._answered
        reply = await self._client.get(target)
        if reply.status != 200:
            self.failed += 1
            return
        # A branch has no order: only a read with no write beside it says something about it.
        if floor is None or (isinstance(floor, str) and self._sent != answered):
            return
        self.checked += 1
        seen = self._seen(msgspec.json.decode(reply.body))
        if seen != floor if isinstance(floor, str) else not isinstance(seen, int) or seen < floor:
            self.stale += 1
            self.examples.append(
                f"{target}: {seen!r} after {floor!r} was written; {reply.headers.get('cache-status')}"
            )


def _answered(name: str) -> Callable[[Wrote, Any], Seen]:
    return lambda _asked, answer: int(answer[name])


def _asked_branch(asked: Wrote, _answer: Any) -> Seen:
    return str(asked[1]["branch"])


def _asked_check(asked: Wrote, _answer: Any) -> Seen:
    return int(asked[1]["message"].removeprefix("check "))


def _last_seq(history: Any) -> Seen:
    return max((int(message["seq"]) for message in history), default=0)


def _last_opened(editors: Any) -> Seen:
    return max((int(editor["opened"]) for editor in editors), default=0)


def _branch(answer: Any) -> Seen:
    return str(answer["branch"])


def _last_check(answer: Any) -> Seen:
    """The number in the newest commit's subject `check 12`; of the log, or of the overview's."""
    commits = answer["log"] if isinstance(answer, dict) else answer
    subject = str(commits[0]["subject"]) if commits else ""
    return int(subject.removeprefix("check ")) if subject.startswith("check ") else 0
