"""Chat transcripts and open editors in SQLite.

The chat panels write messages as JSON; a transcript is extracted from them, and is ready when that is done.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from .settings import PORTS

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = """
    CREATE TABLE messages (seq INTEGER PRIMARY KEY, port INTEGER NOT NULL, body TEXT NOT NULL);
    CREATE TABLE transcripts (seq INTEGER PRIMARY KEY, port INTEGER NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL);
    CREATE INDEX transcripts_port ON transcripts (port, seq);
    CREATE TABLE journal (seq INTEGER PRIMARY KEY, port INTEGER NOT NULL, action TEXT NOT NULL, path TEXT NOT NULL);
    CREATE INDEX journal_port ON journal (port, seq);
"""
# The journal says what was opened and closed; a file is open when the last thing said of it is "open".
_OPEN_EDITORS = """
    SELECT path, seq FROM (
        SELECT path, seq, action, row_number() OVER (PARTITION BY path ORDER BY seq DESC) AS last
        FROM journal WHERE port = ?
    ) WHERE last = 1 AND action = 'open' ORDER BY seq
"""
_EXTRACT = """
    INSERT OR REPLACE INTO transcripts (seq, port, role, text)
    SELECT seq, port, json_extract(body, '$.role'), json_extract(body, '$.text') FROM messages WHERE port = ?
"""
_DAYS_WORK = 6000  # lines of journal a port


class Message(msgspec.Struct, frozen=True):
    seq: int
    role: str
    text: str


class Editor(msgspec.Struct, frozen=True):
    path: str
    opened: int
    """Its place in the journal."""


class Transcripts:
    """Its methods block; call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()

    def create(self) -> None:
        """Schema and a day's work for every port."""
        with closing(self._connect()) as db, db:
            db.executescript(_SCHEMA)
            for port in PORTS:
                for number in range(30):
                    db.execute("INSERT INTO messages (port, body) VALUES (?, ?)", (port, _said(number, port)))
                files = [f"src/module_{number:02}.py" for number in range(40)]
                actions = ((port, "close" if n % 3 else "open", files[n * 7 % 40]) for n in range(_DAYS_WORK))
                db.executemany("INSERT INTO journal (port, action, path) VALUES (?, ?, ?)", actions)

    def extract(self, port: int) -> None:
        """Render the port's messages into its transcript; when it returns, the transcript is ready."""
        self._write(_EXTRACT, (port,))

    def history(self, port: int) -> list[Message]:
        rows = self._read("SELECT seq, role, text FROM transcripts WHERE port = ? ORDER BY seq", (port,))
        return [Message(*row) for row in rows]

    def say(self, port: int, role: str, text: str) -> int:
        body = msgspec.json.encode({"role": role, "text": text}).decode()
        return self._write("INSERT INTO messages (port, body) VALUES (?, ?)", (port, body))

    def editors(self, port: int) -> list[Editor]:
        return [Editor(*row) for row in self._read(_OPEN_EDITORS, (port,))]

    def open_file(self, port: int, path: str) -> int:
        return self._write("INSERT INTO journal (port, action, path) VALUES (?, 'open', ?)", (port, path))

    def search(self, words: str) -> list[Message]:
        """Messages that hold the words, newest first."""
        rows = self._read(
            "SELECT seq, json_extract(body, '$.role'), json_extract(body, '$.text') AS text FROM messages"
            " WHERE instr(lower(text), lower(?)) ORDER BY seq DESC LIMIT 20",
            (words,),
        )
        return [Message(*row) for row in rows]

    def _read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        with closing(self._connect()) as db:
            return db.execute(query, values).fetchall()

    def _write(self, query: str, values: tuple[object, ...]) -> int:
        with self._writing, closing(self._connect()) as db, db:
            return db.execute(query, values).lastrowid or 0

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=10)
        db.execute("PRAGMA synchronous = OFF")  # the folder is gone after the run anyway
        return db


def _said(number: int, port: int) -> str:
    role = "assistant" if number % 2 else "user"
    text = f"Step {number} for port {port}: " + (
        "done, see the diff." if number % 2 else "please look at the sidebar."
    )
    return msgspec.json.encode({"role": role, "text": text}).decode()
