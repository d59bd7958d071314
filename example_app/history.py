"""A real repository with a little history, made in a temporary folder; and how another one is checked."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from .repository import environment

if TYPE_CHECKING:
    from pathlib import Path

_COMMITS = (
    (
        "Ada Okafor",
        "2026-03-02T09:12:00+01:00",
        "Start the panel server",
        "server.py",
        "def serve(port):\n    ...\n",
    ),
    (
        "Ada Okafor",
        "2026-03-02T11:40:00+01:00",
        "Describe how to run it",
        "README.md",
        "# Panel\n\nRun `python server.py`.\n",
    ),
    (
        "Linus Brandt",
        "2026-03-04T15:05:00+01:00",
        "List open editors",
        "editors.py",
        "def open_editors(port):\n    return []\n",
    ),
    (
        "Grace Moreau",
        "2026-03-09T10:21:00+01:00",
        "Extract chat history",
        "chat.py",
        "WAIT = 1.0\n\n\ndef history(port):\n    ...\n",
    ),
    (
        "Ada Okafor",
        "2026-03-11T17:48:00+01:00",
        "Show the branch in the title",
        "title.py",
        "def title(branch):\n    return branch\n",
    ),
    (
        "Linus Brandt",
        "2026-03-16T08:30:00+01:00",
        "Poll git status for the sidebar",
        "sidebar.py",
        "POLL = 2\n",
    ),
    (
        "Grace Moreau",
        "2026-03-18T13:02:00+01:00",
        "Wait a second before reading a transcript",
        "chat.py",
        "WAIT = 1.0  # FIXME\n",
    ),
    ("Ada Okafor", "2026-03-23T16:17:00+01:00", "Log every request", "log.py", "LEVEL = 'INFO'\n"),
    (
        "Linus Brandt",
        "2026-03-25T09:55:00+01:00",
        "Poll from every panel, not only the first",
        "sidebar.py",
        "POLL = 2\nEVERY_PANEL = True\n",
    ),
)
_BRANCH_COMMITS = (
    (
        "Grace Moreau",
        "2026-03-27T14:11:00+01:00",
        "Draw requests on a timeline",
        "timeline.py",
        "def draw(spans):\n    ...\n",
    ),
    (
        "Grace Moreau",
        "2026-03-30T10:44:00+02:00",
        "Colour bars by outcome",
        "timeline.py",
        "COLOURS = {'hit': 'green'}\n",
    ),
)


def make_repository(path: Path) -> None:
    """Two branches, main and timeline, eleven commits, a changed file and one that git doesn't know."""
    path.mkdir()
    _git(path, "init", "--quiet")
    _git(path, "symbolic-ref", "HEAD", "refs/heads/main")  # --initial-branch is younger than some gits in use
    _git(path, "config", "user.name", "Example")
    _git(path, "config", "user.email", "example@localhost")
    _git(path, "config", "commit.gpgsign", "false")
    _git(path, "config", "core.hooksPath", os.devnull)
    for commit in _COMMITS:
        _commit(path, *commit)
    _git(path, "checkout", "--quiet", "-b", "timeline")
    for commit in _BRANCH_COMMITS:
        _commit(path, *commit)
    _git(path, "checkout", "--quiet", "main", "--")
    (path / "server.py").write_text("def serve(port, host='127.0.0.1'):\n    ...\n", encoding="utf-8")
    (path / "notes.txt").write_text("Why is the log so long?\n", encoding="utf-8")


def top_level(path: Path) -> str:
    """The folder of the repository that holds `path`; ValueError with git's own words when there is none."""
    done = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"],
        cwd=path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(
            done.stderr.strip().splitlines()[0] if done.stderr.strip() else "git could not read it"
        )
    return done.stdout.strip()


def _commit(path: Path, author: str, date: str, subject: str, file: str, text: str) -> None:
    (path / file).write_text(text, encoding="utf-8")
    _git(path, "add", "--", file)
    email = author.partition(" ")[0].lower() + "@localhost"
    _git(
        path,
        "commit",
        "--quiet",
        f"--message={subject}",
        f"--author={author} <{email}>",
        f"--date={date}",
        GIT_COMMITTER_DATE=date,
    )


def _git(path: Path, *arguments: str, **more: str) -> None:
    # The user's own configuration (hooks, signing, templates) stays out of the example's repository.
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["git", *arguments], cwd=path, env=environment() | plain | more, capture_output=True, check=True
    )
