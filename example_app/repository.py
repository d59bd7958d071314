"""One git repository, read and written by running the `git` program.

Law: nothing that a user types becomes an option of git. Names are checked against a narrow pattern, must be
branches that exist, and stand before `--`; messages are glued to their option with `=`.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import msgspec

BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,99}")


class GitError(Exception):
    """The git program said no; the text is its own last line."""


class Refused(Exception):  # noqa: N818  a client's mistake, not a failure of ours
    """What was asked for is not allowed; the text says why."""


class Change(msgspec.Struct, frozen=True):
    code: str
    """The two letters of `git status`, such as `.M`, or `??`."""
    path: str


class Status(msgspec.Struct, frozen=True):
    branch: str
    commit: str
    upstream: str | None
    ahead: int
    behind: int
    changes: tuple[Change, ...]


class Commit(msgspec.Struct, frozen=True):
    commit: str
    author: str
    date: str
    subject: str


def environment() -> dict[str, str]:
    """The environment for git: no caller's GIT_DIR, no prompt, no lock taken for a mere look, plain English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "", "LC_ALL": "C"}


class Repository:
    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = Path(path)
        self._writing = asyncio.Lock()

    async def status(self) -> Status:
        return parse_status(await self._git("status", "--porcelain=v2", "--branch"))

    async def log(self, limit: int = 20) -> list[Commit]:
        if (await self.status_code("rev-parse", "--verify", "--quiet", "HEAD")) != 0:
            return []  # no commit yet
        text = await self._git("log", f"--max-count={limit}", "--format=%h%x1f%an%x1f%aI%x1f%s", "HEAD", "--")
        return [Commit(*line.split("\x1f", 3)) for line in text.splitlines()]

    async def grep(self, words: str) -> list[str]:
        """The first lines of tracked files that hold `words`, as `path:line:text`."""
        if "\0" in words:
            raise Refused("a NUL can't be searched for")
        code, out, error = await self._run(
            "grep", "--fixed-strings", "--ignore-case", "-I", "-n", "-e", words, "--"
        )
        if code > 1:
            raise GitError(_last_line(error))
        return out.splitlines()[:20]

    async def checkout(self, branch: str) -> None:
        """Make a branch that exists the current one."""
        if not BRANCH.fullmatch(branch):
            raise Refused(f"not a branch name: {branch[:100]!r}")
        async with self._writing:
            if await self.status_code("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}") != 0:
                raise Refused(f"no branch of that name: {branch}")
            await self._git("checkout", "--quiet", branch, "--")

    async def commit(self, message: str) -> str:
        """Commit what is staged, or an empty commit; the new commit's short name."""
        if not message.strip() or "\0" in message:
            raise Refused("a commit needs a message")
        async with self._writing:
            await self._git("commit", "--quiet", "--allow-empty", f"--message={message}")
            return (await self._git("rev-parse", "--short", "HEAD")).strip()

    async def status_code(self, *arguments: str) -> int:
        code, _, _ = await self._run(*arguments)
        return code

    async def _git(self, *arguments: str) -> str:
        code, out, error = await self._run(*arguments)
        if code != 0:
            raise GitError(_last_line(error) or f"git {arguments[0]} ended with {code}")
        return out

    async def _run(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            cwd=self.path,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, error = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        return process.returncode or 0, out.decode(errors="replace"), error.decode(errors="replace")


def parse_status(text: str) -> Status:
    """What `git status --porcelain=v2 --branch` printed (its format is in `git help status`)."""
    head: dict[str, str] = {}
    changes: list[Change] = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "#":
            name, _, value = rest.partition(" ")
            head[name] = value
        elif kind == "1":
            changes.append(Change(rest[:2], rest.split(" ", 7)[7]))
        elif kind == "2":  # renamed: the new path, a tab, the old one
            changes.append(Change(rest[:2], rest.split(" ", 8)[8].partition("\t")[0]))
        elif kind == "u":
            changes.append(Change(rest[:2], rest.split(" ", 9)[9]))
        elif kind == "?":
            changes.append(Change("??", rest))
    ahead, _, behind = head.get("branch.ab", "+0 -0").partition(" ")
    return Status(
        branch=head.get("branch.head", "(unknown)"),
        commit=head.get("branch.oid", "")[:12],
        upstream=head.get("branch.upstream"),
        ahead=abs(int(ahead)),
        behind=abs(int(behind)),
        changes=tuple(changes),
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
