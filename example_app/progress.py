"""How far the run is: one line that is rewritten on a terminal, one line for each part elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time

WIDTH = 30


class Bar:
    def __init__(self) -> None:
        self._stream = sys.stderr
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        encoding = (self._stream.encoding or "ascii").lower()
        self._full, self._empty = ("━", "─") if encoding.startswith("utf") else ("#", ".")
        self._what = ""
        self._steps = self._done = 0
        self._drawn = 0.0

    def begin(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done = what, steps, 0
        if self._live:
            self._draw()
        else:
            print(f"  {what}", file=self._stream, flush=True)

    def step(self) -> None:
        self._done += 1
        if self._live and (self._done == self._steps or time.monotonic() - self._drawn > 0.05):
            self._draw()

    def end(self) -> None:
        if self._live:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _draw(self) -> None:
        full = min(WIDTH, self._done * WIDTH // max(1, self._steps))
        bar = self._full * full + self._empty * (WIDTH - full)
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
        self._stream.write("\r\033[K" + f"  {bar}  {self._what}"[:width])
        self._stream.flush()
        self._drawn = time.monotonic()
