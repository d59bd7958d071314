"""That a soak runs and finds what it looks for; the long one is `python -m tests.benchmarks.soak`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dedup_middleware import Dedup, DedupMiddleware

from . import over_http, soak
from .requests import App, Message, Receive, Scope, Send
from .served import ROOT, Service, serving
from .soak_app import LARGE, Backend, body_of, deduplicated, engine_figures, size_of
from .soak_clients import Request, Side, fault, outcome_of
from .soak_verdict import GROWTH, MIB, Sample, faults, growth_of, render_latencies
from .soak_wire import BrokenError, Head

# -- servers with faults, for the soak to find ------------------------------------------------------------------


def _around(make: Callable[[App], App]) -> Service:
    dedup = Dedup()
    backend = Backend()

    def emptied() -> dict[str, Any]:
        return engine_figures(dedup, backend)

    return Service(make(backend), {"engine": emptied, "emptied": emptied})


def _cached_by(key_of: Callable[[Scope], object]) -> Callable[[App], App]:
    """A cache as one writes it in an afternoon."""

    def make(app: App) -> App:
        kept: dict[object, list[Message]] = {}

        async def cache(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] != "GET":
                await app(scope, receive, send)
                return
            key = key_of(scope)
            if key not in kept:
                messages: list[Message] = []

                async def keep(message: Message) -> None:
                    messages.append(message)

                await app(scope, receive, keep)
                kept[key] = messages
            for message in kept[key]:
                await send(message)

        return cache

    return make


def blind_to_users() -> Service:
    return _around(_cached_by(lambda scope: scope["path"]))


def blind_to_writes() -> Service:
    return _around(_cached_by(lambda scope: (scope["path"], *map(tuple, scope["headers"]))))


def without_invalidation() -> Service:
    """The middleware itself, deaf to writes."""
    service = deduplicated()
    assert isinstance(service.app, DedupMiddleware)
    service.app.dedup.holdings.wrote = lambda scope, names, groups=(): None  # type: ignore[method-assign] # deaf
    return service


def garbling() -> Service:
    def make(app: App) -> App:
        async def garble(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_garbled(message: Message) -> None:
                if len(message.get("body", b"")) > 100:
                    message = {**message, "body": message["body"][:-1] + b"?"}
                await send(message)

            await app(scope, receive, send_garbled)

        return garble

    return _around(make)


def leaving_tasks() -> Service:
    left = []

    def make(app: App) -> App:
        async def leave(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                left.append(asyncio.create_task(asyncio.Event().wait()))
            await app(scope, receive, send)

        return leave

    return _around(make)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("garbling", "not the bytes that the app sent"),
        ("leaving_tasks", "tasks at the end"),
    ],
)
def test_a_soak_finds(
    factory: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "QUIET", 0.2)
    app = f"{__name__}:{factory}"
    assert soak.main(["--minutes", "0.015", "--interval", "0.5", "--pause", "0.02", "--app", app]) == 1
    assert sentence in capsys.readouterr().out


@pytest.mark.slow
def test_a_soak_of_the_middleware_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "soak.json"
    code = soak.main(["--minutes", "0.03", "--interval", "0.5", "--pause", "0.03", "--json", str(file)])
    printed = capsys.readouterr().out
    assert code == 0, printed
    figures = json.loads(file.read_bytes())
    assert figures["samples"]
    assert figures["faults"] == []
    assert all(figures["sides"]["with"]["outcomes"][outcome] for outcome in ("collapsed", "forwarded"))
    assert set(figures["sides"]["bare"]["outcomes"]) == {"bypassed"}
    assert "nothing wrong, nothing left, nothing grown" in printed


@pytest.mark.parametrize("factory", ["blind_to_writes", "without_invalidation"])
async def test_a_client_of_what_misses_a_write_says_so(factory: str) -> None:
    await _asked(f"{__name__}:{factory}", "although the write of 1 was finished")


async def test_a_client_of_the_middleware_reads_its_own_write() -> None:
    await _asked("tests.benchmarks.soak_app:deduplicated", None)


@pytest.mark.parametrize(
    ("factory", "wrong"),
    [
        (f"{__name__}:blind_to_users", ["/me/3: 'b' got what is for 'a'"]),
        ("tests.benchmarks.soak_app:deduplicated", []),
    ],
)
async def test_a_client_that_gets_another_user_s_answer_says_so(factory: str, wrong: list[str]) -> None:
    with serving(factory) as server:
        side = Side("with", server.port, seed=1)
        with closing(side.pool):
            for user in ("a", "b"):
                await side.read(Request("me", 3, user, {"authorization": user}))
        assert side.wrong == wrong


async def _asked(factory: str, sentence: str | None) -> None:
    with serving(factory) as server:
        side = Side("with", server.port, seed=1)
        request = Request("item", 3, "en", {"accept-language": "en"})
        with closing(side.pool):
            await side.read(request)
            await side.write(3)
            await side.read(request)
        assert (side.wrong == []) == (sentence is None)
        assert sentence is None or sentence in side.wrong[0]


# -- what a wrong answer is -------------------------------------------------------------------------------------

WHOLE = Head(200, {})
ITEM = Request("item", 5, "en", {})
RIGHT = body_of("item", 5, 4, "en")


@pytest.mark.parametrize("floor", [0, 4])
def test_an_answer_as_of_the_last_finished_write_or_later_is_right(floor: int) -> None:
    assert fault(ITEM, floor, WHOLE, RIGHT) is None


@pytest.mark.parametrize(
    ("head", "body", "floor", "sentence"),
    [
        (Head(500, {}), RIGHT, 0, "/item/5: status 500"),
        (WHOLE, body_of("item", 6, 4, "en"), 0, "/item/5: the answer to another request: 'item 6 4 en'"),
        (WHOLE, body_of("live", 5, 4, "-"), 0, "/item/5: the answer to another request: 'live 5 4 -'"),
        (WHOLE, b"", 0, "/item/5: the answer to another request: ''"),
        (WHOLE, body_of("item", 5, 4, "de"), 0, "/item/5: 'en' got what is for 'de'"),
        (WHOLE, RIGHT, 5, "/item/5: version 4, although the write of 5 was finished"),
        (WHOLE, RIGHT[:-1], 0, f"/item/5: not the bytes that the app sent ({len(RIGHT) - 1} of them)"),
        (
            WHOLE,
            RIGHT[:100] + body_of("item", 5, 3, "en")[100:],
            0,
            f"/item/5: not the bytes that the app sent ({len(RIGHT)} of them)",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(head: Head, body: bytes, floor: int, sentence: str) -> None:
    assert fault(ITEM, floor, head, body) == sentence


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"dedup; hit; ttl=3", "hit"),
        (b"dedup; fwd=uri-miss; collapsed", "collapsed"),
        (b"dedup; fwd=uri-miss; stored; ttl=60", "forwarded"),
        (b"", "bypassed"),
    ],
)
def test_the_outcome_is_read_from_the_answer(said: bytes, outcome: str) -> None:
    assert outcome_of(Head(200, {b"cache-status": said} if said else {})) == outcome


@pytest.mark.parametrize("kind", ["item", "stream", "large"])
def test_no_two_answers_have_the_same_bytes(kind: str) -> None:
    bodies = {body_of(kind, 7, version, who) for version in range(3) for who in ("a", "b")}
    assert len(bodies) == 6
    assert {len(body) for body in bodies} == {size_of(kind, 7)}
    assert size_of("large", 7) == LARGE


# -- what is left over ------------------------------------------------------------------------------------------

PROCESS = {"cpu": 1.0, "resident": 40 * MIB, "tasks": 3, "files": 15, "sockets": 4}
ENGINE = {"flights": 0, "listed": False, "buffered": 0, "bytes": 9, "responses": 1}
EMPTIED = {"bytes": 0, "responses": 0}


def moment(at: float = 0.0, process: dict[str, Any] | None = None, **engine: Any) -> Sample:
    return Sample(at, PROCESS | (process or {}), ENGINE | engine, PROCESS)


def over_time(*mib: float) -> list[Sample]:
    return [moment(60.0 * number, {"resident": value * MIB}) for number, value in enumerate(mib, 1)]


def test_a_server_that_is_as_it_was_has_no_faults() -> None:
    assert faults(moment(), over_time(20, 30, 40, 40, 40, 40, 40, 40), moment(), EMPTIED) == []


@pytest.mark.parametrize(
    ("after", "emptied", "sentence"),
    [
        (moment(process={"tasks": 4}), EMPTIED, "4 tasks at the end, 3 at the start"),
        (moment(process={"files": 16}), EMPTIED, "16 files at the end, 15 at the start"),
        (moment(process={"sockets": 5}), EMPTIED, "5 sockets at the end, 4 at the start"),
        (moment(flights=1), EMPTIED, "flights at the end: 1"),
        (moment(listed=True), EMPTIED, "listed at the end: True"),
        (moment(buffered=7), EMPTIED, "buffered at the end: 7"),
        (moment(), {"bytes": 5, "responses": 0}, "5 bytes held after everything was dropped"),
        (moment(), {"bytes": 0, "responses": 1}, "1 responses held after everything was dropped"),
    ],
)
def test_each_leftover_is_a_fault(after: Sample, emptied: dict[str, Any], sentence: str) -> None:
    assert faults(moment(), [], after, emptied) == [sentence]


def test_growth_is_what_comes_after_the_first_quarter() -> None:
    samples = over_time(10, 40, 50, 50, 50, 51, 55, 55)
    assert growth_of(samples) == 5 * MIB > GROWTH
    assert faults(moment(), samples, moment(), EMPTIED) == [
        "resident memory grew by 5.0 MiB after the first quarter, the bare app's by 0.0"
    ]


def test_what_the_bare_app_gains_too_is_not_the_engines() -> None:
    samples = [replace(sample, bare=sample.process) for sample in over_time(10, 40, 50, 50, 50, 51, 55, 55)]
    assert faults(moment(), samples, moment(), EMPTIED) == []


@pytest.mark.parametrize("samples", [[], [moment(60)], [moment(600, {"resident": None})]])
def test_a_run_too_short_or_a_system_that_does_not_tell_says_nothing_of_growth(samples: list[Sample]) -> None:
    assert growth_of(samples) is None


def test_each_outcome_stands_beside_the_same_kind_on_the_bare_app() -> None:
    figures = {"number": 1000, "p50": 1.5, "p99": 2.5}
    text = render_latencies(
        {"item, bypassed": {"p50": 6.5, "p99": 7.5}}, {"item, hit": figures, "item, forwarded": figures}
    )
    assert [line.split()[-5:] for line in text.splitlines()[1:]] == [
        ["1,000", "1.50", "2.50", "6.50", "7.50"]
    ] * 2


# -- the hit's ratio over a server ------------------------------------------------------------------------------


def test_the_ratio_over_http_is_measured_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "over_http.json"
    assert over_http.main(["--rounds", "1", "--requests", "64", "--json", str(file)]) == 0
    figures = json.loads(file.read_bytes())
    assert figures["http"] in {"httptools", "h11"}
    assert figures["ratio"] == pytest.approx(figures["hit"][0] / figures["raw"][0])
    assert "mark 1.25" in capsys.readouterr().out


async def test_an_answer_that_is_no_hit_ends_the_measurement() -> None:
    with (
        serving("tests.benchmarks.over_http:raw_service") as server,
        pytest.raises(AssertionError, match="not what was expected"),
    ):
        async with over_http.connected(server.port, b"dedup; hit") as connections:
            await over_http.ask(connections, 1)


@pytest.mark.parametrize("module", ["soak", "over_http", "peers"])
def test_the_commands_explain_themselves(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{module}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--json" in done.stdout


async def test_a_request_that_breaks_off_is_told() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        side = Side("with", server.sockets[0].getsockname()[1], seed=1)
        with pytest.raises(BrokenError, match="/item/5: not whole"):
            await side.read(ITEM)
