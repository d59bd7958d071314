"""Spans: what a trace viewer is told of each request, and whose children and links they are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, SamplingResult, StaticSampler
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from dedup_middleware import Dedup, DedupMiddleware, ForwardFailed, Rule

from .kit import (
    FakeClock,
    GatedApp,
    SteppedApp,
    VirtualTime,
    all_of,
    call,
    chunk,
    get,
    head,
    make_scope,
    requests,
    settle,
    together,
    until,
)
from .telemetry_kit import (
    Regrouping,
    Seen,
    attributes,
    context,
    failing,
    links,
    number,
    parent,
    story,
    with_route,
)

Make = Callable[..., Dedup]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def the_sdk_never_complains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither `Calling end() on an ended span` nor `was created in a different Context`."""
    yield
    complaints = [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]
    assert not complaints


def told(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes without its key, which is a digest."""
    found = attributes(span)
    key = found.pop("dedup.key", None)
    if not span.name.startswith("bypassed"):
        assert isinstance(key, str)
        assert len(bytes.fromhex(key)) == 16
    return found


# -- spans: what they carry --------------------------------------------------------------------------------------


async def test_each_outcome_is_told_by_exactly_these_attributes(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make, seen: Seen
) -> None:
    bare = GatedApp()
    app = DedupMiddleware(
        with_route(bare, "/git/{repo}/status"),
        dedup=make_dedup(Rule("/git/{repo}/status", ttl=60, name="status"), tracer_provider=seen.provider),
    )
    leader = call(app, "/git/a/status?since=1")
    await settle()
    clock.advance(0.25)
    follower = call(app, "/git/a/status?since=1")
    await settle()
    clock.advance(0.1234567)
    bare.gate.set()
    await leader.done()
    await follower.done()
    clock.advance(7)
    await get(app, "/git/a/status?since=1")
    await get(app, "/git/a/status", method="POST")

    forward = seen.one("forward ")
    route = "/git/{repo}/status"
    common = {
        "dedup.rule": "status",
        "dedup.flight": trace.format_span_id(number(forward)),
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": route,
    }
    assert {span.name: told(span) for span in seen.spans} == {
        f"forward {route}": {**common, "dedup.followers": 1},
        f"forwarded {route}": {**common, "dedup.outcome": "forwarded", "dedup.reason": "miss"},
        f"collapsed {route}": {
            **common,
            "dedup.outcome": "collapsed",
            "dedup.reason": "in-flight",
            "dedup.waited": 0.123457,
            "dedup.saved": 0.373457,
        },
        f"hit {route}": {
            **common,
            "dedup.outcome": "hit",
            "dedup.reason": "fresh",
            "dedup.saved": 0.373457,
            "dedup.age": 7.0,
        },
        f"bypassed {route}": {
            "dedup.outcome": "bypassed",
            "dedup.reason": "method",
            "dedup.rule": "default",
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "http.route": route,
        },
    }
    assert len(seen.spans) == 5
    assert {span.kind for span in seen.spans} == {SpanKind.INTERNAL}
    assert len({attributes(span).get("dedup.key") for span in seen.spans} - {None}) == 1


async def test_links_lead_from_every_answer_to_the_forward_that_made_it(make_dedup: Make, seen: Seen) -> None:
    bare = GatedApp()
    rule = Rule("/{x}", ttl=60, identity="shared", vary=[])
    app = DedupMiddleware(bare, dedup=make_dedup(rule, tracer_provider=seen.provider))
    calls = []
    for client in range(4):
        with seen.tracer.start_as_current_span("page"):  # each in a trace of its own
            calls.append(call(app, "/a", client=f"192.0.2.{client}"))
            await settle()
    bare.gate.set()
    await all_of(calls)
    await get(app, "/a")

    forward = seen.one("forward ")
    assert [links(span) for span in seen.named("collapsed")] == [[number(forward)]] * 3
    assert links(seen.one("hit")) == [number(forward)]
    assert links(forward) == links(seen.one("forwarded")) == []
    assert {link.context.trace_id for span in seen.spans for link in span.links} == {
        context(forward).trace_id
    }
    assert len({context(span).trace_id for span in seen.named("collapsed")}) == 3


async def test_the_head_is_an_event_of_the_forward_and_its_followers_only(
    make_dedup: Make, seen: Seen
) -> None:
    bare = SteppedApp(head(), chunk(b"a"), chunk(b"b", more=False))
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/{x}", ttl=60), tracer_provider=seen.provider))
    calls = [call(app, "/a") for _ in range(2)]
    await settle()
    bare.step()
    await settle()
    seen.tracer.start_span("between").end()
    bare.finish()
    await all_of(calls)
    await get(app, "/a")
    await get(app, "/a", method="POST")

    assert {span.name: [event.name for event in span.events] for span in seen.spans} == {
        "forwarded /{x}": [],
        "forward /{x}": ["head"],
        "collapsed /{x}": ["head"],
        "between": [],
        "hit /{x}": [],
        "bypassed POST": [],
    }
    between = seen.one("between").start_time or 0
    for span in (seen.one("forward "), seen.one("collapsed")):
        (tick,) = span.events
        assert (span.start_time or 0) < tick.timestamp < between < (span.end_time or 0)
        assert not tick.attributes


@pytest.mark.parametrize(
    ("rule", "template", "method", "name"),
    [
        (None, None, "GET", "GET"),
        (None, "/things/{id}", "GET", "/things/{id}"),
        (Rule("/secret/{x}", name="things"), None, "GET", "things"),
        (Rule("/secret/{x}", name="things"), "/things/{id}", "GET", "/things/{id}"),
        (Rule("/secret/{x}"), None, "GET", "/secret/{x}"),
        (None, None, "POST", "POST"),
        (None, None, "BREW", "_OTHER"),
    ],
)
async def test_a_span_is_named_by_route_rule_or_method_never_by_path(
    rule: Rule | None, template: str | None, method: str, name: str, make_dedup: Make, seen: Seen
) -> None:
    app: Any = GatedApp(opened=True)
    if template is not None:
        app = with_route(app, template)
    dedup = make_dedup(*([rule] if rule else []), tracer_provider=seen.provider)
    await get(DedupMiddleware(app, dedup=dedup), "/secret/hunter2?token=hunter2", method=method)

    names = {f"forwarded {name}", f"forward {name}"} if method == "GET" else {f"bypassed {name}"}
    assert {span.name for span in seen.spans} == names
    for span in seen.spans:
        assert "hunter2" not in span.to_json()
        assert attributes(span)["http.request.method"] == (method if method != "BREW" else "_OTHER")


async def test_a_functions_spans_carry_nothing_of_http(
    virtual_time: VirtualTime, clock: FakeClock, make_dedup: Make, seen: Seen
) -> None:
    dedup = make_dedup(tracer_provider=seen.provider)
    gate = asyncio.Event()

    async def read_status() -> int:
        await gate.wait()
        clock.advance(0.5)
        return 1

    calls = [asyncio.ensure_future(dedup.call("k", read_status, ttl=60)) for _ in range(2)]
    await settle()
    gate.set()
    await asyncio.gather(*calls)
    await dedup.call("k", read_status, ttl=60)
    dedup.enabled = False
    await dedup.call("k", read_status)

    forward = seen.one("forward ")
    label = attributes(forward)["dedup.rule"]
    assert label.startswith("call ")
    assert label.endswith("read_status")
    common = {"dedup.rule": label, "dedup.flight": trace.format_span_id(number(forward))}
    assert {span.name.removesuffix(f" {label}"): told(span) for span in seen.spans} == {
        "forward": {**common, "dedup.followers": 1},
        "forwarded": {**common, "dedup.outcome": "forwarded", "dedup.reason": "miss"},
        "collapsed": {
            **common,
            "dedup.outcome": "collapsed",
            "dedup.reason": "in-flight",
            "dedup.waited": 0.5,
            "dedup.saved": 0.5,
        },
        "hit": {
            **common,
            "dedup.outcome": "hit",
            "dedup.reason": "fresh",
            "dedup.saved": 0.5,
            "dedup.age": 0.0,
        },
        "bypassed": {"dedup.rule": label, "dedup.outcome": "bypassed", "dedup.reason": "disabled"},
    }
    assert links(seen.one("collapsed")) == links(seen.one("hit")) == [number(forward)]
    assert parent(forward) == number(seen.one("forwarded"))
    assert not any(span.events for span in seen.spans), "a function has no head"
    assert {span.kind for span in seen.spans} == {SpanKind.INTERNAL}


async def test_a_stream_of_a_thousand_chunks_has_two_spans(make_dedup: Make, seen: Seen) -> None:
    bare = SteppedApp(head(), *[chunk(b"x") for _ in range(1000)], chunk(more=False))
    app = DedupMiddleware(bare, dedup=make_dedup(tracer_provider=seen.provider))
    leader, follower = call(app), call(app)
    await settle()
    bare.finish()
    bare.step(1000)
    assert (await leader.done()).body == (await follower.done()).body == b"x" * 1000

    assert Counter(span.name for span in seen.spans) == {
        "forwarded GET": 1,
        "forward GET": 1,
        "collapsed GET": 1,
    }
    assert sum(len(span.events) for span in seen.spans) == 2


# -- spans: their parents ----------------------------------------------------------------------------------------


def chain(seen: Seen, span: ReadableSpan) -> Iterator[str]:
    """A span's name and those above it; a function's by `f`."""
    by_number = {number(one): one for one in seen.spans}
    at: ReadableSpan | None = span
    while at is not None:
        name, _, function = at.name.partition(" call ")
        yield f"{name} f" if function else name
        above = parent(at)
        at = None if above is None else by_number[above]


async def test_every_span_has_the_parent_that_a_reader_expects(make_dedup: Make, seen: Seen) -> None:
    """caller -> request -> forward -> what the app does; a function's spans below the app's."""
    dedup = make_dedup(Rule("/{x}", ttl=60), tracer_provider=seen.provider)

    async def read() -> int:
        with seen.tracer.start_as_current_span("query"):
            await asyncio.sleep(0)
        return 1

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        with seen.tracer.start_as_current_span("app"):
            await dedup.call("k", read)
            await send(head())
            await send(chunk(b"x", more=False))

    app = DedupMiddleware(bare, dedup=dedup)
    with seen.tracer.start_as_current_span("page"):
        for one in [call(app, "/a") for _ in range(2)]:
            await one.done()
        await get(app, "/a")
        await get(app, "/a", method="POST")
    for method in ("GET", "POST"):
        await get(app, "/none", method=method)

    def work(*above: str) -> list[tuple[str, ...]]:
        """What the app does, below these."""
        return [
            ("app", *above),
            ("forwarded f", "app", *above),
            ("forward f", "forwarded f", "app", *above),
            ("query", "forward f", "forwarded f", "app", *above),
        ]

    forward = ("forward /{x}", "forwarded /{x}")
    assert Counter(tuple(chain(seen, span)) for span in seen.spans) == Counter(
        [
            ("page",),
            ("forwarded /{x}", "page"),
            (*forward, "page"),
            *work(*forward, "page"),
            ("collapsed /{x}", "page"),
            ("hit /{x}", "page"),
            ("bypassed POST", "page"),
            *work("bypassed POST", "page"),
            # and where the caller has no span
            ("forwarded /{x}",),
            forward,
            *work(*forward),
            ("bypassed POST",),
            *work("bypassed POST"),
        ]
    )


async def test_what_is_current_outside_stays_current_outside(make_dedup: Make, seen: Seen) -> None:
    app = DedupMiddleware(
        GatedApp(opened=True), dedup=make_dedup(Rule("/{x}", ttl=60), tracer_provider=seen.provider)
    )

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    with seen.tracer.start_as_current_span("page") as page:
        for target, method in (("/a", "GET"), ("/a", "GET"), ("/a", "POST")):
            await app(make_scope(target, method), receive, send)
            assert trace.get_current_span() is page
        with pytest.raises(ValueError, match="hunter2"):
            await DedupMiddleware(failing, dedup=app.dedup)(make_scope("/a", "POST"), receive, send)
        assert trace.get_current_span() is page
    assert {span.name for span in seen.named("bypassed")} == {"bypassed POST"}


async def test_a_leader_that_regroups_is_one_request_and_the_apps_spans_stay_below_their_forwards(
    make_dedup: Make, seen: Seen
) -> None:
    """The response names a field in Vary that the rule had hidden: the leader is forwarded again with it."""

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        with seen.tracer.start_as_current_span("app"):
            await send(head(headers=[(b"vary", b"x-tenant")]))
            await send(chunk(b"x", more=False))

    rule = Rule("/{x}", vary=[], identity="shared")
    app = DedupMiddleware(bare, dedup=make_dedup(rule, tracer_provider=seen.provider))
    with seen.tracer.start_as_current_span("page"):
        await get(app, "/a", headers=[(b"x-tenant", b"1")])

    first, second = seen.named("forward ")
    request = seen.one("forwarded")
    assert parent(first) == parent(second) == number(request)
    assert parent(request) == number(seen.one("page"))
    assert [parent(span) for span in seen.named("app")] == [number(first), number(second)]
    assert attributes(request)["dedup.flight"] == trace.format_span_id(number(second))
    assert attributes(request)["dedup.key"] == attributes(second)["dedup.key"]
    assert len(seen.spans) == 6


@pytest.mark.parametrize("ttl", [0, 60])
async def test_requests_that_regroup_are_one_request_each_with_a_link_where_others_answered(
    ttl: float, make_dedup: Make, seen: Seen
) -> None:
    gate = asyncio.Event()
    runs = 0

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        nonlocal runs
        runs += 1
        await gate.wait()
        await send(head(headers=[(b"vary", b"x-tenant")]))
        await send(chunk(dict(scope["headers"]).get(b"x-tenant", b"?"), more=False))

    rule = Rule("/{x}", vary=[], identity="shared", ttl=ttl)
    dedup = make_dedup(rule, tracer_provider=seen.provider)
    app = DedupMiddleware(bare, dedup=dedup)
    tenants = [b"1", b"2", b"1", b"2", b"1", b"2"]
    calls = [call(app, "/a", headers=[(b"x-tenant", tenant)]) for tenant in tenants]
    await settle()
    gate.set()
    assert [(await one.done()).body for one in calls] == tenants

    forwards = {number(span): span for span in seen.named("forward ")}
    requests = [span for span in seen.spans if number(span) not in forwards]
    assert len(forwards) == runs
    assert len(requests) == len(calls) == sum(dedup.stats().requests.values())
    for span in requests:
        shared = attributes(span)["dedup.outcome"] != "forwarded"
        assert len(links(span)) == shared
        assert all(attributes(span)["dedup.flight"] == trace.format_span_id(link) for link in links(span))
        assert all(link in forwards for link in links(span))
    assert {parent(span) for span in forwards.values()} <= {number(span) for span in requests}


@pytest.mark.parametrize("outcome", ["collapsed", "hit"])
async def test_a_leader_that_regroups_to_anothers_answer_links_to_it(
    outcome: str, make_dedup: Make, seen: Seen
) -> None:
    rule = Rule("/vary", vary=[], identity="shared", ttl=60)
    dedup = make_dedup(rule, tracer_provider=seen.provider)
    regrouping = Regrouping()
    assert await regrouping.answers(dedup) == [b"1", b"1"]
    hidden, shown = seen.named("forward ")
    leader = seen.one("collapsed")
    if outcome == "hit":
        dedup.variants.clear()  # it is bounded: the list of fields may be forgotten
        assert await regrouping.answers(dedup) == [b"1", b"1"]
        hidden, leader = seen.named("forward ")[-1], seen.one("hit")

    assert parent(hidden) == number(leader)
    assert parent(shown) == number(seen.one("forwarded"))
    assert links(leader) == [number(shown)]
    assert [event.name for event in leader.events] == (["head"] if outcome == "collapsed" else [])
    assert attributes(leader)["dedup.flight"] == trace.format_span_id(number(shown))
    assert attributes(leader)["dedup.outcome"] == outcome
    requests = sum(dedup.stats().requests.values())
    assert len(seen.spans) - len(seen.named("forward ")) == requests == (2 if outcome == "collapsed" else 3)


async def test_a_request_that_goes_alone_has_its_forward_below_it(make_dedup: Make, seen: Seen) -> None:
    bare = GatedApp(lambda _, run: (200, [(b"set-cookie", b"sid=%d" % run)], b""))
    app = DedupMiddleware(bare, dedup=make_dedup(tracer_provider=seen.provider))
    await together(app, bare, 3)

    forwards, requests = seen.named("forward "), seen.named("forwarded")
    assert len(forwards) == len(requests) == 3
    assert len(seen.spans) == 6
    assert {parent(span) for span in forwards} == {number(span) for span in requests}
    assert {attributes(span)["dedup.reason"] for span in requests} == {"set-cookie"}
    assert not any(span.links for span in seen.spans)


# -- spans: sampling ---------------------------------------------------------------------------------------------


async def test_a_forward_that_is_not_sampled_is_neither_linked_nor_named(make_dedup: Make) -> None:
    seen = Seen(sampler=ParentBased(StaticSampler(Decision.RECORD_AND_SAMPLE)))
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=make_dedup(Rule("/{x}", ttl=60), tracer_provider=seen.provider))
    flags = trace.TraceFlags(trace.TraceFlags.DEFAULT)
    above = trace.SpanContext(trace_id=1, span_id=2, is_remote=True, trace_flags=flags)
    with trace.use_span(trace.NonRecordingSpan(above)):
        leader = call(app, "/a")
        await settle()
    follower = call(app, "/a")
    await settle()
    bare.gate.set()
    await leader.done()
    await follower.done()
    await get(app, "/a")

    assert [span.name for span in seen.spans] == ["collapsed /{x}", "hit /{x}"]
    for span in seen.spans:
        assert not span.links
        assert "dedup.flight" not in attributes(span)
        assert "dedup.saved" in attributes(span)


async def test_a_failed_forward_that_is_not_sampled_names_no_trace(make_dedup: Make) -> None:
    seen = Seen(sampler=StaticSampler(Decision.DROP))
    app = DedupMiddleware(failing, dedup=make_dedup(tracer_provider=seen.provider))
    calls = [call(app) for _ in range(2)]
    with pytest.raises(ValueError, match="hunter2"):
        await calls[0].done()
    with pytest.raises(ForwardFailed) as failure:
        await calls[1].done()
    assert failure.value.trace_id is None
    assert not seen.spans


# -- spans: errors -----------------------------------------------------------------------------------------------


async def test_a_failure_is_told_by_its_type_on_every_span_of_the_flight(
    make_dedup: Make, seen: Seen
) -> None:
    app = DedupMiddleware(failing, dedup=make_dedup(tracer_provider=seen.provider))
    calls = [call(app) for _ in range(2)]
    with pytest.raises(ValueError, match="hunter2"):
        await calls[0].done()
    with pytest.raises(ForwardFailed) as failure:
        await calls[1].done()
    with pytest.raises(ValueError, match="hunter2"):
        await get(app, method="POST")

    names = [span.name for span in seen.spans]
    assert sorted(names) == ["bypassed POST", "collapsed GET", "forward GET", "forwarded GET"]
    for span in seen.spans:
        assert attributes(span)["error.type"] == "ValueError"
        assert "http.response.status_code" not in attributes(span)
        assert span.status.status_code is StatusCode.ERROR
        assert not span.status.description
        assert "hunter2" not in span.to_json()
    assert attributes(seen.one("forwarded"))["dedup.reason"] == "failed"
    assert failure.value.trace_id == trace.format_trace_id(context(seen.one("forward ")).trace_id)


async def test_a_failure_that_a_stored_response_stood_in_for_is_told_by_its_type(
    make_dedup: Make, seen: Seen, clock: FakeClock
) -> None:
    answers: list[Exception | None] = [None, KeyError("hunter2")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if (failure := answers.pop(0)) is not None:
            raise failure
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one"})

    site = DedupMiddleware(
        app, dedup=make_dedup(Rule("/{x}", ttl=10, stale_if_error=60), tracer_provider=seen.provider)
    )
    await get(site, "/a")
    clock.advance(11)

    assert (await get(site, "/a")).body == b"one"
    forward = [span for span in seen.spans if span.name.startswith("forward ")][1]
    assert attributes(forward)["error.type"] == "KeyError"
    assert forward.status.status_code is StatusCode.ERROR


async def test_a_functions_failure_is_told_by_its_type(make_dedup: Make, seen: Seen) -> None:
    dedup = make_dedup(tracer_provider=seen.provider)

    async def read() -> int:
        await asyncio.sleep(0)
        raise KeyError("hunter2")

    first, second = await asyncio.gather(dedup.call("k", read), dedup.call("k", read), return_exceptions=True)
    assert isinstance(first, KeyError)
    assert isinstance(second, ForwardFailed)
    assert second.trace_id == trace.format_trace_id(context(seen.one("forward ")).trace_id)
    assert len(seen.spans) == 3
    assert {attributes(span)["error.type"] for span in seen.spans} == {"KeyError"}
    assert {span.status.status_code for span in seen.spans} == {StatusCode.ERROR}


async def test_a_server_error_is_told_by_its_status(make_dedup: Make, seen: Seen) -> None:
    bare = GatedApp(lambda *_: (503, [], b""))
    dedup = make_dedup(Rule("/{x}", ttl=60, negative_ttl=60), tracer_provider=seen.provider)
    app = DedupMiddleware(bare, dedup=dedup)
    await together(app, bare, 2, "/a")
    await get(app, "/a")
    await get(app, "/a", method="POST")

    names = sorted(span.name.split()[0] for span in seen.spans)
    assert names == ["bypassed", "collapsed", "forward", "forwarded", "hit"]
    for span in seen.spans:
        assert attributes(span)["error.type"] == "503"
        assert attributes(span)["http.response.status_code"] == 503
        assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("status", [200, 404, 429])
async def test_what_is_no_server_error_is_no_error(status: int, make_dedup: Make, seen: Seen) -> None:
    bare = GatedApp(lambda *_: (status, [], b""), opened=True)
    app = DedupMiddleware(bare, dedup=make_dedup(tracer_provider=seen.provider))
    await get(app)
    await get(app, method="POST")
    assert len(seen.spans) == 3
    for span in seen.spans:
        assert attributes(span)["http.response.status_code"] == status
        assert "error.type" not in attributes(span)
        assert span.status.status_code is StatusCode.UNSET


async def test_a_body_that_is_not_whole_is_an_error_of_every_span_of_its_flight(
    make_dedup: Make, seen: Seen
) -> None:
    bare = SteppedApp(head(), chunk(b"a"))
    app = DedupMiddleware(bare, dedup=make_dedup(tracer_provider=seen.provider))
    calls = [call(app) for _ in range(2)]
    await settle()
    bare.finish()
    await calls[0].done()
    with pytest.raises(ForwardFailed):
        await calls[1].done()
    assert {attributes(span)["error.type"] for span in seen.spans} == {"IncompleteResponse"}
    assert len(seen.spans) == 3


@pytest.mark.parametrize("who", ["leader", "follower"])
@pytest.mark.parametrize("when", ["before the head", "in the body"])
async def test_a_request_that_is_cancelled_is_told_and_its_flight_goes_on(
    who: str, when: str, make_dedup: Make, seen: Seen
) -> None:
    bare = SteppedApp(head(), chunk(b"a"), chunk(b"b", more=False))
    dedup = make_dedup(tracer_provider=seen.provider)
    app = DedupMiddleware(bare, dedup=dedup)
    calls = [call(app) for _ in range(3)]
    await settle()
    if when == "in the body":
        bare.step(2)
        await settle()
    victim = calls[0 if who == "leader" else 1]
    victim.cancel()
    with pytest.raises(asyncio.CancelledError):
        await victim.done()
    bare.finish()
    for one in calls:
        if one is not victim:
            assert (await one.done()).body == b"ab"

    names = Counter(span.name for span in seen.spans)
    assert names == {"forwarded GET": 1, "forward GET": 1, "collapsed GET": 2}
    failed = {
        span.name: attributes(span)["error.type"] for span in seen.spans if "error.type" in attributes(span)
    }
    assert failed == {"forwarded GET" if who == "leader" else "collapsed GET": "CancelledError"}
    assert attributes(seen.one("forward "))["dedup.followers"] == 2
    assert [event.name for event in seen.one("forward ").events] == ["head"]
    assert dedup.stats().requests == requests(hit=0, collapsed=2, forwarded=1, bypassed=0)


# -- providers ---------------------------------------------------------------------------------------------------


async def test_a_global_provider_that_is_set_later_is_found_within_a_second(
    clock: FakeClock, make_dedup: Make, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers: list[trace.TracerProvider] = [trace.ProxyTracerProvider()]
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: providers[-1])
    app = DedupMiddleware(GatedApp(opened=True), dedup=make_dedup())
    await get(app)
    providers.append(seen.provider)
    clock.advance(1)
    await get(app)
    assert {span.name for span in seen.spans} == {"forwarded GET", "forward GET"}


async def test_each_hit_of_a_response_has_a_span_of_its_own_kind_and_age(
    make_dedup: Make, clock: FakeClock
) -> None:
    """What its hits have in common is made once: others in between share it with nobody, and nobody changes it."""
    sampled: list[Any] = []

    class Keeping(StaticSampler):
        def should_sample(self, *arguments: Any, **settings: Any) -> SamplingResult:
            sampled.append(arguments[4] if len(arguments) > 4 else settings["attributes"])
            return super().should_sample(*arguments, **settings)

    seen = Seen(sampler=Keeping(Decision.RECORD_AND_SAMPLE))
    fields = [(b"cache-control", b"max-age=60"), (b"etag", b'"1"')]
    rule = Rule("/kept/{x}", ttl="origin", vary="origin")
    dedup = make_dedup(rule, tracer_provider=seen.provider)
    app = DedupMiddleware(GatedApp(lambda *_: (200, fields, b"x"), opened=True), dedup=dedup)
    asked: list[tuple[str, list[tuple[bytes, bytes]], str, int]] = [
        ("GET", [], "fresh", 200),
        ("HEAD", [], "fresh", 200),
        ("GET", [(b"if-none-match", b'"1"')], "not-modified", 304),
        ("GET", [(b"range", b"bytes=0-0")], "range", 206),
        ("GET", [(b"range", b"bytes=9-")], "range", 416),
        ("GET", [], "fresh", 200),
        ("GET", [], "fresh", 200),
    ]
    await get(app, "/kept/1")
    for method, headers, _, _ in asked:
        clock.advance(1.0000008)
        await get(app, "/kept/1", method, headers)
    await get(app, "/kept/2")
    await get(app, "/kept/2")
    *hits, other = map(attributes, seen.named("hit "))
    names = ("http.request.method", "dedup.reason", "http.response.status_code", "dedup.age")
    assert [tuple(hit[name] for name in names) for hit in hits] == [
        (method, reason, status, round(1.0000008 * turn, 6))
        for turn, (method, _, reason, status) in enumerate(asked, start=1)
    ]
    first, second = (f"{number(span):016x}" for span in seen.named("forward "))
    assert {hit["dedup.flight"] for hit in hits} == {first}
    assert len({hit["dedup.key"] for hit in hits}) == 1
    assert (other["dedup.flight"], other["dedup.age"]) == (second, 0.0)
    assert other["dedup.key"] != hits[0]["dedup.key"]
    ages = [given["dedup.age"] for given in sampled if given and "dedup.age" in given]
    assert ages == [hit["dedup.age"] for hit in (*hits, other)]


SCRIPT = """
import asyncio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from dedup_middleware import Dedup, DedupMiddleware

spans, reader = InMemorySpanExporter(), InMemoryMetricReader()

def configure():
    trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
    metrics.set_meter_provider(MeterProvider([reader]))

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": False})

async def main():
    ORDER
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        pass
    for dedup in engines:
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/",
                 "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [(b"host", b"h")],
                 "client": ("192.0.2.1", 1), "server": ("192.0.2.2", 80)}
        await DedupMiddleware(app, dedup=dedup)(scope, receive, send)
    print(*sorted(span.name for span in spans.get_finished_spans()), sep=", ")
    for scoped in reader.get_metrics_data().resource_metrics[0].scope_metrics:
        for metric in scoped.metrics:
            if metric.name == "dedup.requests":
                print(sum(point.value for point in metric.data.data_points))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "order",
    [
        pytest.param("configure(); engines = [Dedup(), Dedup()]", id="before"),
        pytest.param("engines = [Dedup(), Dedup()]; configure()", id="after"),
        pytest.param("early = Dedup(); configure(); engines = [early, Dedup()]", id="between"),
    ],
)
def test_global_providers_are_found_whenever_they_were_set(order: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.replace("ORDER", order)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == ["forward GET, forward GET, forwarded GET, forwarded GET", "2"]
    assert not answer.stderr


@pytest.mark.parametrize("provider", ["none", "no-op"])
async def test_without_an_sdk_no_span_is_ever_made(
    provider: str, make_dedup: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        def count(*_: object, **__: object) -> Any:
            made[name] += 1

        return count

    for name in ("NoOpTracer", "ProxyTracer"):
        monkeypatch.setattr(getattr(trace, name), "start_span", counting(name))
    monkeypatch.setattr(trace.NonRecordingSpan, "__init__", counting("NonRecordingSpan"))
    monkeypatch.setattr("dedup_middleware.telemetry.spans.Link", counting("Link"))
    settings = {} if provider == "none" else {"tracer_provider": trace.NoOpTracerProvider()}
    dedup = make_dedup(Rule("/kept", ttl=60), meter_provider=NoOpMeterProvider(), **settings)
    bare = GatedApp()
    await story(DedupMiddleware(bare, dedup=dedup), dedup, bare)
    assert not made


TRACE_ID, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_without_a_span_of_the_server_the_spans_stand_below_the_client_s(
    make_dedup: Make, seen: Seen
) -> None:
    fields = [(b"traceparent", f"00-{TRACE_ID}-{CLIENT_SPAN}-01".encode())]
    dedup = make_dedup(Rule("/kept", ttl=60), tracer_provider=seen.provider)
    bare = GatedApp()
    app = DedupMiddleware(bare, dedup=dedup)
    both = [call(app, "/kept", headers=fields) for _ in range(2)]
    await until(lambda: bare.runs == 1)
    bare.gate.set()
    await asyncio.gather(*(one.done() for one in both))
    await get(app, "/kept", headers=fields)
    await get(app, "/kept", "POST", headers=fields)

    for outcome in ("forwarded", "collapsed", "hit", "bypassed"):
        span = seen.one(outcome)
        assert span.parent is not None, outcome
        assert format_span_id(span.parent.span_id) == CLIENT_SPAN, outcome
        assert format_trace_id(span.parent.trace_id) == TRACE_ID, outcome


async def test_a_span_of_the_server_comes_before_the_client_s(make_dedup: Make, seen: Seen) -> None:
    fields = [(b"traceparent", f"00-{TRACE_ID}-{CLIENT_SPAN}-01".encode())]
    app = DedupMiddleware(
        GatedApp(opened=True), dedup=make_dedup(default=Rule(ttl=60), tracer_provider=seen.provider)
    )
    with seen.tracer.start_as_current_span("server") as server:
        await get(app, "/", headers=fields)
        await get(app, "/", headers=fields)

    for outcome in ("forwarded", "hit"):
        parent = seen.one(outcome).parent
        assert parent is not None
        assert parent.span_id == server.get_span_context().span_id, outcome
