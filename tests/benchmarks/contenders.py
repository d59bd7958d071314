"""Who runs: each contender makes its own fresh requests, and says afterwards whether it did what its name says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Link, SpanKind

from dedup_middleware import DedupMiddleware, Rule

from . import requests
from .apps import HOUR, LARGE, SHAPES, deduplicated, many_rules, path_of, raw, starlette
from .requests import App, Receive, Request, Scope, Send, make, send_nowhere


class Contender(msgspec.Struct):
    """One line of the race: `number` requests a round from `fresh`, through `app`.

    `before` runs untimed before each batch. `outcome` is what every timed request must have been (None: no
    middleware, or not one outcome).
    """

    name: str
    number: int
    app: App
    fresh: Callable[[], Request]
    before: Callable[[int], Awaitable[None]] | None = None
    outcome: str | None = None


def _get(path: bytes = b"/data", headers: requests.Pairs = requests.FIVE) -> Callable[[], Request]:
    return lambda: make(path=path, headers=headers)


async def ask(app: App, request: Request) -> None:
    """Send one request outside of the race."""
    await app(*request, send_nowhere)


class _Last(SpanProcessor):
    """Keeps the last span that ended."""

    span: ReadableSpan | None = None

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


def _recording(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def one_span(like: ReadableSpan) -> App:
    """An app that only makes one recorded span with the same name, link and attributes."""
    tracer = _recording(_Last()).get_tracer("bench")
    name, attributes, context = like.name, dict(like.attributes or {}), like.links[0].context
    started = like.start_time

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        span = tracer.start_span(name, None, SpanKind.INTERNAL, dict(attributes), [Link(context)], started)
        span.end()

    return app


class Many:
    """Numbers of requests a round, by what a request costs."""

    def __init__(self, scale: float) -> None:
        self.cheap = max(1, int(4000 * scale))
        self.medium = max(1, int(1500 * scale))
        self.costly = max(1, int(400 * scale))
        self.rules = 1000 if scale > 0.01 else 20  # making 1,000 rules takes longer than a smoke run may


async def line_up(scale: float) -> list[Contender]:
    """All contenders, each warmed up."""
    many = Many(scale)
    field = [
        Contender("L0", many.cheap, raw(), _get()),
        Contender("L1", many.medium, starlette(), _get()),
        *_hits(many),
        *_posts(many),
        *_bypasses(many),
        *_never_repeated(many),
        *_with_many_rules(many),
        *await _traced(many),
    ]
    for contender in field:
        for _ in range(3):
            request = contender.fresh()
            if contender.before is not None:
                await contender.before(1)
            await ask(contender.app, request)
    return field


def _hits(many: Many) -> list[Contender]:
    storing = Rule(ttl=HOUR)
    rows = []
    for name, body, headers in (
        ("hit 1 KiB, 5 headers", None, requests.FIVE),
        ("hit 1 KiB, a browser's 15", None, requests.BROWSER),
        ("hit 1 KiB, 15 and analytics cookies", None, requests.BROWSER_ANALYTICS),
        ("hit 100 KiB, 5 headers", LARGE, requests.FIVE),
        ("hit 100 KiB, a browser's 15", LARGE, requests.BROWSER),
    ):
        app = deduplicated(raw(body) if body else raw(), default=storing)
        rows.append(Contender(name, many.cheap, app, _get(headers=headers), outcome="hit"))
    return rows


def _posts(many: Many) -> list[Contender]:
    rule = Rule("/search", methods=["POST"], collapse=True, ttl=HOUR)
    body = requests.search("0" * 8)
    headers = list(requests.json_headers(len(body)))

    def post(data: bytes) -> Request:
        return make("POST", b"/search", headers=headers, body=data)

    def contender(name: str, number: int, fresh: Callable[[], bytes], outcome: str) -> Contender:
        app = deduplicated(raw(), rule)
        return Contender(name, number, app, lambda: post(fresh()), outcome=outcome)

    spelling, mark = count(1), count(1)
    return [
        contender("POST 1 KiB JSON, again", many.medium, lambda: body, "hit"),
        contender(
            "POST 1 KiB JSON, first sight of its bytes",
            many.costly,
            lambda: requests.respelled(body, next(spelling)),
            "hit",
        ),
        contender(
            "POST 1 KiB JSON, never seen",
            many.costly,
            lambda: requests.search(f"{next(mark):08}"),
            "forwarded",
        ),
    ]


def _bypasses(many: Many) -> list[Contender]:
    rules = (
        Rule("/off", mode="off"),
        Rule("/items/{item}", ttl=HOUR, tags=["item:{item}"]),
        Rule("/items/{item}", methods=["POST"], invalidates=["item:{item}"]),
    )
    storing = deduplicated(raw(), *rules)
    filled = deduplicated(raw(), *rules)
    next_get, next_post = count(), count()

    async def fill(number: int) -> None:
        for _ in range(number):
            await ask(filled, make(path=b"/items/%d" % (next(next_get) % 1000)))

    return [
        Contender(
            "bypassed OPTIONS",
            many.cheap,
            deduplicated(raw(), *rules),
            lambda: make("OPTIONS"),
            outcome="bypassed",
        ),
        Contender(
            "bypassed GET, mode off",
            many.cheap,
            deduplicated(raw(), *rules),
            _get(b"/off"),
            outcome="bypassed",
        ),
        Contender(
            "POST that invalidates, nothing stored",
            many.medium,
            storing,
            lambda: make("POST", b"/items/7", body=b"{}"),
            outcome="bypassed",
        ),
        Contender(
            "POST that invalidates one response",
            many.costly,
            filled,
            lambda: make("POST", b"/items/%d" % (next(next_post) % 1000), body=b"{}"),
            before=fill,
        ),
        Contender(
            "POST without a rule",
            many.medium,
            deduplicated(raw(), default=Rule(ttl=HOUR)),
            lambda: make("POST", b"/other", body=b"{}"),
            outcome="bypassed",
        ),
    ]


def _unique(path: bytes) -> Callable[[], Request]:
    number = count()
    if path.endswith(b"?"):
        return lambda: make(path=path[:-1], query=b"page=%08d" % next(number))
    return lambda: make(path=b"%s/%08d" % (path, next(number)))


def _never_repeated(many: Many) -> list[Contender]:
    rows = []
    for kind, path in (("query", b"/data?"), ("path", b"/items")):
        rows.append(Contender(f"bare, new {kind}", many.medium, starlette(), _unique(path)))
        rows += [
            Contender(
                f"never repeats, new {kind}, {policy}, {'SDK' if metrics else 'no SDK'}",
                many.medium,
                deduplicated(starlette(), default=default, metrics=metrics),
                _unique(path),
                outcome="forwarded",
            )
            for policy, default in (("default rule", None), ("storing rule", Rule(ttl=HOUR)))
            for metrics in (True, False)
        ]
    return rows


def _with_many_rules(many: Many) -> list[Contender]:
    rows = []
    for shape in SHAPES:
        for name, rules in (("1 rule", 1), ("1,000 rules", many.rules)):
            rows += [
                Contender(
                    f"hit, {name}: {shape}",
                    many.medium,
                    deduplicated(raw(), *many_rules(shape, rules)),
                    _get(path_of(shape, "7")),
                    outcome="hit",
                ),
                Contender(
                    f"new path, {name}: {shape}",
                    many.costly,
                    # Finding the rule, no more: what follows would drown it.
                    deduplicated(raw(), *many_rules(shape, rules, mode="off")),
                    _new_paths(shape),
                    outcome="bypassed",
                ),
            ]
    return rows


def _new_paths(shape: str) -> Callable[[], Request]:
    number = count()
    return lambda: make(path=path_of(shape, f"{next(number):08}"))


async def _traced(many: Many) -> list[Contender]:
    last = _Last()
    app = deduplicated(raw(), default=Rule(ttl=HOUR), tracer=_recording(last))
    await ask(app, make())
    await ask(app, make())
    assert last.span is not None
    assert last.span.links, "a hit's span links to the forward that made the response"
    return [
        Contender("hit, recording tracer", many.medium, app, _get(), outcome="hit"),
        Contender("one SDK span like a hit's", many.medium, one_span(last.span), _get()),
    ]


def requests_of(app: Any) -> dict[str, int]:
    """The middleware's own count of outcomes."""
    return dict(app.dedup.stats().requests) if isinstance(app, DedupMiddleware) else {}
