"""A small coverage-guided fuzzer: what reaches new code is kept, and what is kept is changed further.

Law: one seed, one run. Inputs are lines of text, so the mutations know bytes, words and lines, and nothing else.
What counts as new is an edge between two lines of the watched code, or a word by which a target tells what it saw
(regular expressions branch where no tracer looks).
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .mutations import mutated, shrunk

CPU_SECONDS = 5.0
Features = frozenset[Hashable]


class Target(NamedTuple):
    """What is fuzzed: `run` raises where a law is broken, and tells in words what it saw."""

    name: str
    run: Callable[[bytes], Collection[str]]
    words: Sequence[bytes]
    watched: Sequence[str]
    forget: Callable[[], None] = lambda: None
    """Empties the caches of the process, so that a run does not depend on what ran before."""


class Finding(NamedTuple):
    """An input that broke a law; `place` tells findings apart."""

    data: bytes
    error: str
    place: str


class SlowError(Exception):
    """An input took so much CPU time that it must be a loop."""


class Coverage:
    """The edges between lines that code in some files and folders takes."""

    def __init__(self, watched: Iterable[str]) -> None:
        self._watched = tuple(watched)
        self._wanted: dict[CodeType, bool] = {}
        self._last: dict[int, int] = {}
        self._edges: set[Hashable] = set()

    def of(self, run: Callable[[bytes], Collection[str]], data: bytes) -> Features:
        """Run once: edges and words. What the target raises goes on, once the tracer is gone."""
        self._edges, self._last = set(), {}
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            words = run(data)
        finally:
            sys.settrace(before)
        return frozenset(self._edges.union(words))

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        wanted = self._wanted.get(code)
        if wanted is None:
            wanted = self._wanted[code] = code.co_filename.startswith(self._watched)
        if not wanted:
            return None
        self._last[id(code)] = 0
        return self._line

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            code, line = id(frame.f_code), frame.f_lineno
            self._edges.add((code, self._last.get(code, 0), line))
            self._last[code] = line
        return self._line


@contextmanager
def untraced() -> Iterator[None]:
    """For the part of a target that compares and repeats: what it reaches is not counted, and it runs at full speed."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


class Search:
    """One run: begins with a corpus, keeps what is new, remembers one finding for each place."""

    def __init__(self, target: Target, corpus: Iterable[bytes] = (), seed: int = 0) -> None:
        self.target = target
        self.random = random.Random(seed)
        self.coverage = Coverage(target.watched)
        self.kept: dict[bytes, Features] = {}
        self.known: set[Hashable] = set()
        self.findings: dict[str, Finding] = {}
        self.executions = 0
        target.forget()
        for data in corpus:
            self.attempt(data)

    def attempt(self, data: bytes) -> bool:
        """Run one input; whether it showed something new."""
        features = self.features(data)
        if features is None or features <= self.known:
            return False
        self.known |= features
        self.kept[data] = features
        return True

    def features(self, data: bytes) -> Features | None:
        """What one input reaches; None for a finding."""
        self.executions += 1
        try:
            with limited():
                return self.coverage.of(self.target.run, data)
        except Exception as error:  # noqa: BLE001 - whatever is raised is a finding
            found = finding_of(data, error)
            self.findings.setdefault(found.place, found)
            return None

    def step(self) -> None:
        """Change something that was kept, the newest more often, and see."""
        pool = list(self.kept) or [b""]
        newest = min(len(pool), 20)
        chosen = self.random.choice(pool[-newest:] if self.random.random() < 0.3 else pool)
        self.attempt(mutated(chosen, self.random.choice(pool), self.target.words, self.random))

    def run(self, executions: int) -> Search:
        """So many more."""
        for _ in range(executions):
            self.step()
        return self

    def minimal(self, found: Finding) -> Finding:
        """The finding with everything removed that it does not need."""

        def same(data: bytes) -> bool:
            other = self.broken(data)
            return other is not None and other.place == found.place

        return self.broken(shrunk(found.data, same)) or found

    def broken(self, data: bytes) -> Finding | None:
        """What an input breaks, if anything."""
        try:
            with limited():
                self.target.run(data)
        except Exception as error:  # noqa: BLE001 - as above
            return finding_of(data, error)
        return None

    def cover(self) -> list[bytes]:
        """The fewest inputs found that reach all that was reached, each without the lines that it does not need."""
        left, chosen = set(self.known), []
        while left:
            best = max(self.kept, key=lambda data: (len(self.kept[data] & left), -len(data)))
            needed = self.kept[best] & left
            if not needed:
                break
            left -= needed
            chosen.append(shrunk(best, partial(self._reaches, needed), finely=False))
        return chosen

    def _reaches(self, needed: Features, data: bytes) -> bool:
        return needed <= (self.features(data) or frozenset())


@contextmanager
def limited() -> Iterator[None]:
    """Raise `SlowError` after much CPU time; `re` looks for signals too. Only in a main thread, and not on Windows."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*args: object) -> None:
        raise SlowError(f"more than {CPU_SECONDS} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def finding_of(data: bytes, error: BaseException) -> Finding:
    """What was raised, and where: the innermost line of ours."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [
        f"{file.name}:{line}"
        for file, line in frames
        if {"dedup_middleware", "tests"}.intersection(file.parts) and file != Path(__file__)
    ]
    return Finding(data, f"{type(error).__name__}: {error}", f"{type(error).__name__} at {(ours or '?')[-1]}")
