"""Draws docs/burst.svg: the trace of one real page refresh, as a trace viewer shows it.

`python -m docs._burst docs/burst.svg` starts the example's backend with the middleware, fires one refresh over HTTP
and draws the spans that were exported. Needs the extra `example`.
"""

# ruff: noqa: INP001, T201 - a folder of pages needs no __init__, and a command prints

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WIDTH, LABELS, ROW, TOP = 1080, 340, 18, 62
CHART: Final = WIDTH - LABELS - 84
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56707f", "#884422", "#334499")
GREY: Final = "#7a828a"
STYLE: Final = (
    "text{font:12px ui-sans-serif,system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
    ".t{font-weight:600;font-size:14px}.m{fill:#57606a;font-size:11px}.b{font-weight:600}"
)


class Bar(msgspec.Struct, frozen=True):
    """One span: Unix times in nanoseconds, ids in hex; `flight` and `links` say where its answer came from."""

    name: str
    span: str
    parent: str | None
    start: int
    end: int
    flight: str = ""
    links: tuple[str, ...] = ()


async def record() -> list[Bar]:
    """The spans of one page refresh on a backend that has stored nothing yet."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - drawing alone needs no SDK
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 - needed to measure, not to draw
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415 - needed to measure, not to draw

    from example_app.burst import Pages  # noqa: PLC0415 - needed to measure, not to draw
    from example_app.folder import prepare  # noqa: PLC0415 - needed to measure, not to draw
    from example_app.servers import running  # noqa: PLC0415 - needed to measure, not to draw
    from example_app.timeline import Recorded  # noqa: PLC0415 - needed to measure, not to draw

    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = msgspec.structs.replace(prepare(Path(folder), {}), record=True, wait_for_ready=True)
        async with running(settings) as server:
            pages = Pages(server.client, settings.repo, provider.get_tracer("docs"))
            await pages.burst(1)  # what happens once in a server's life is not in the picture
            await server.reset()
            (refresh,) = await pages.burst(1)
            recorded = await server.ask("GET", f"spans?trace={refresh.trace}", Recorded)
    root = exported.get_finished_spans()[-1]
    assert root.start_time is not None  # noqa: S101 - for mypy: it has ended
    assert root.end_time is not None  # noqa: S101 - for mypy: an exported span has ended
    return [
        Bar(root.name, refresh.span, None, root.start_time, root.end_time),
        *(
            Bar(
                s.name,
                s.span,
                s.parent,
                s.start,
                s.end,
                str(s.attributes.get("dedup.flight", "")),
                (*s.links,),
            )
            for s in recorded.spans
        ),
    ]


def tree(bars: Iterable[Bar]) -> Iterator[tuple[int, Bar]]:
    """The bars as a viewer lists them: each below its parent, by start; with the depth."""
    children: dict[str | None, list[Bar]] = {}
    for bar in sorted(bars, key=lambda bar: bar.start):
        children.setdefault(bar.parent, []).append(bar)
    waiting = [(0, bar) for bar in reversed(children.get(None, []))]
    while waiting:
        depth, bar = waiting.pop()
        yield depth, bar
        waiting += [(depth + 1, child) for child in reversed(children.get(bar.span, []))]


def draw(bars: Iterable[Bar]) -> str:
    """The picture as SVG."""
    rows = list(tree(bars))
    began, ended = rows[0][1].start, max(bar.end for _, bar in rows)
    scale = CHART / (ended - began)
    forwards = [bar for _, bar in rows if bar.name.startswith("forward ")]
    colour = {bar.span: COLOURS[i % len(COLOURS)] for i, bar in enumerate(forwards)}
    at = {bar.span: TOP + ROW * i for i, (_, bar) in enumerate(rows)}
    joined = sum(bar.name.startswith("collapsed /") for _, bar in rows)
    asked = sum(bar.parent == rows[0][1].span for _, bar in rows)
    ran = sum(not bar.name.startswith("forward call") for bar in forwards)
    title = f"{rows[0][1].name}: {asked} requests, {ran} forwards, {joined} collapsed into them"
    height = TOP + ROW * len(rows) + 30

    def x(time: int) -> float:
        return LABELS + (time - began) * scale

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fff" stroke="#d0d7de"/>',
        f'<text class="t" x="16" y="26">{escape(title)}</text>',
        *_ticks((ended - began) / 1e6, height),
    ]
    for depth, bar in rows:
        lines += _row(bar, depth, x, at[bar.span], colour)
    for _, bar in rows:
        lines += [
            f'<path d="M{x(source.end):.1f} {at[source.span] + 9}V{at[bar.span] + 9}"'
            f' stroke="{colour[source.span]}" stroke-dasharray="2 2" fill="none"/>'
            f'<circle cx="{x(source.end):.1f}" cy="{at[bar.span] + 9}" r="2.5" fill="{colour[source.span]}"/>'
            for source in forwards
            if source.span in bar.links
        ]
    lines.append(
        f'<text class="m" x="16" y="{height - 12}">Solid: a forward, that is, the app at work. Pale: a request.'
        " Outlined, with a dotted link: answered by the forward above it.</text></svg>"
    )
    return "\n".join(lines) + "\n"


def _ticks(milliseconds: float, height: int) -> Iterator[str]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if milliseconds / s <= 10)
    for tick in range(0, int(milliseconds) + 1, step):
        left = LABELS + CHART * tick / milliseconds
        yield f'<path d="M{left:.1f} 46V{height - 30}" stroke="#eaeef2"/>'
        yield f'<text class="m" x="{left:.1f}" y="42" text-anchor="middle">{tick} ms</text>'


def _row(bar: Bar, depth: int, x: Callable[[int], float], top: int, colour: dict[str, str]) -> Iterator[str]:
    fill = colour.get(bar.flight, GREY)
    left, wide = x(bar.start), max(2.0, x(bar.end) - x(bar.start))
    if bar.name.startswith("forward "):
        look = f'fill="{fill}"'
    elif bar.links:
        look = f'fill="#fff" stroke="{fill}"'
    elif bar.flight:
        look = f'fill="{fill}" fill-opacity=".25"'
    else:
        look = f'fill="{GREY}"' if depth else 'fill="#d0d7de"'
    weight = ' class="b"' if bar.name.startswith("forward ") or not depth else ""
    yield f'<text{weight} x="{16 + 14 * depth}" y="{top + 13}">{escape(bar.name)}</text>'
    yield f'<rect x="{left:.1f}" y="{top + 4}" width="{wide:.1f}" height="10" rx="2" {look}/>'
    took = f"{(bar.end - bar.start) / 1e6:.1f} ms"
    yield f'<text class="m" x="{left + wide + 5:.1f}" y="{top + 13}">{took}</text>'


if __name__ == "__main__":
    bars = asyncio.run(record())
    Path(sys.argv[1]).write_text(draw(bars), encoding="utf-8")
    print(f"{sys.argv[1]}: {len(bars)} spans")
