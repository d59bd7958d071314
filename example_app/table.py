"""The table that a person reads: what the same load cost without and with the middleware."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .marks import percent

if TYPE_CHECKING:
    from typing import TextIO

    from .load import Load
    from .marks import Mark
    from .measure import Comparison

LABEL, COLUMN = 34, 12


class Paint:
    """Colours, where the stream shows them and the user has not said no (NO_COLOR)."""

    def __init__(self, stream: TextIO) -> None:
        self.on = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        encoding = (stream.encoding or "ascii").lower()
        self.rule, self.yes, self.no = ("─", "✓", "✗") if encoding.startswith("utf") else ("-", "ok", "NO")

    def bold(self, text: str) -> str:
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        return self._wrap("2", text)

    def good(self, text: str) -> str:
        return self._wrap("32", text)

    def bad(self, text: str) -> str:
        return self._wrap("31;1", text)

    def _wrap(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.on else text


def show(comparison: Comparison, marks: list[Mark], stream: TextIO = sys.stdout) -> None:
    paint = Paint(stream)
    print("\n".join(["", *_lines(comparison, paint), "", *_marks(marks, paint), ""]), file=stream, flush=True)


def _lines(comparison: Comparison, paint: Paint) -> list[str]:
    without, with_ = comparison.without, comparison.with_
    mix = ", ".join(f"{name} {count}" for name, count in comparison.mix.items())
    lines = [
        paint.dim(f"  A page refresh is {sum(comparison.mix.values())} requests at once:"),
        paint.dim(f"  {mix}"),
        paint.dim(f"  {comparison.machine}"),
        "",
        paint.bold("  " + " " * LABEL + "without".rjust(COLUMN) + "with".rjust(COLUMN)),
        _head(f"One burst: {comparison.pages} pages refresh at once", paint),
        *_load(without.burst, with_.burst, paint),
        _row("duplicates removed", "", percent(comparison.duplicates_removed), "", paint),
        _head(f"{comparison.refreshes} refreshes, one after another", paint),
        *_load(without.refreshes, with_.refreshes, paint),
        _row("hit rate", "", percent(with_.refreshes.hit_rate), "", paint),
        _row("  of the chat history", "", percent(with_.refreshes.hit_rates["chat"]), "", paint),
        _head("Median by operation, over the refreshes", paint),
    ]
    for name, before in without.refreshes.latencies.items():
        after = with_.refreshes.latencies[name]
        lines.append(_row(name, _ms(before.p50), _ms(after.p50), _times(before.p50, after.p50), paint))
    lines.append(_head("The server", paint))
    lines.append(
        _row("a chat history nobody asked for yet", _ms(without.chat_miss), _ms(with_.chat_miss), "", paint)
    )
    if with_.hits:
        lines.append(_row("a hit, one at a time: p50", "", _ms(with_.hits.p50), "", paint))
        lines.append(_row("                      p95", "", _ms(with_.hits.p95), "", paint))
    lines.append(
        _row(
            "bytes held",
            "",
            f"{with_.bytes_held / 1024:.1f} KiB",
            f"in {with_.responses_held} responses",
            paint,
        )
    )
    lines.append(_row("resident memory, at most", _mb(without.resident), _mb(with_.resident), "", paint))
    return lines


def _load(without: Load, with_: Load, paint: Paint) -> list[str]:
    return [
        _row("requests", str(without.requests), str(with_.requests), "", paint),
        _row(
            "downstream executions",
            str(without.executions),
            str(with_.executions),
            f"{with_.distinct} kinds of work",
            paint,
        ),
        _row("log lines", str(without.log_lines), str(with_.log_lines), "", paint),
        _row(
            "CPU seconds, server and git",
            f"{without.cpu:.2f}",
            f"{with_.cpu:.2f}",
            _times(without.cpu, with_.cpu, "less"),
            paint,
        ),
        _row(
            "a request's p50",
            _ms(without.latency.p50),
            _ms(with_.latency.p50),
            _times(without.latency.p50, with_.latency.p50),
            paint,
        ),
        _row(
            "a request's p95",
            _ms(without.latency.p95),
            _ms(with_.latency.p95),
            _times(without.latency.p95, with_.latency.p95),
            paint,
        ),
    ]


def _marks(marks: list[Mark], paint: Paint) -> list[str]:
    lines = [_head("Marks", paint)]
    for mark in marks:
        sign = paint.good(paint.yes) if mark.met else paint.bad(paint.no)
        lines.append(
            f"  {sign} {mark.name}: {paint.bold(mark.measured)} {paint.dim('(' + mark.wanted + ')')}"
        )
    return lines


def _head(text: str, paint: Paint) -> str:
    return (
        paint.dim("  " + paint.rule * 2 + " ")
        + paint.bold(text)
        + " "
        + paint.dim(paint.rule * max(2, 60 - len(text)))
    )


def _row(label: str, without: str, with_: str, note: str, paint: Paint) -> str:
    return (
        f"  {label:<{LABEL}}{without:>{COLUMN}}{paint.good(with_.rjust(COLUMN))}  {paint.dim(note)}".rstrip()
    )


def _times(before: float, after: float, word: str = "faster") -> str:
    """How many times less; nothing where it is about the same."""
    ratio = before / after if after > 0 else 0.0
    return f"{ratio:.{0 if ratio >= 10 else 1}f} times {word}" if ratio >= 1.15 else ""


def _ms(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.{0 if milliseconds >= 100 else 1}f} ms"


def _mb(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.0f} MB"
