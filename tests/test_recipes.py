"""The recipes of the docs: each block is run as it stands there, and does what is said below it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from dedup_middleware import Dedup, DedupMiddleware

from .kit import Call, FakeClock, GatedApp, call, eventually, get, settle

PAGE = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
MakeDedup = Callable[..., Dedup]
Pairs = list[tuple[bytes, bytes]]


def block(title: str, language: str = "python") -> str:
    """The code below a heading of the page."""
    section = re.split(r"^## ", PAGE.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


class Layers:
    """An app that takes layers as Starlette does, the last one outside; the engine is on the fake clock."""

    def __init__(self, app: Any, make_dedup: MakeDedup, recipe: str) -> None:
        self._make = make_dedup
        self.app = app
        exec(compile(block(recipe), recipe, "exec", dont_inherit=True), {"__name__": "recipe", "app": self})

    def add_middleware(self, layer: Callable[..., Any], **settings: Any) -> None:
        if layer is DedupMiddleware:
            self.dedup = self._make(*settings["rules"])
            settings = {"dedup": self.dedup}
        self.app = layer(self.app, **settings)

    async def __call__(self, *given: Any) -> None:
        await self.app(*given)


def said(status: int = 200, *pairs: tuple[bytes, bytes]) -> GatedApp:
    """An app that answers at once, with the number of the run."""
    return GatedApp(lambda _, run: (status, pairs, b"run %d" % run), opened=True)


def seen(app: GatedApp) -> dict[bytes, bytes]:
    """The fields of the last request that the app saw."""
    return dict(app.scopes[-1]["headers"])


def short(answer: Call) -> str:
    """What Cache-Status says, without the package's name."""
    return (answer.header(b"cache-status") or b"bypassed").decode().removeprefix("dedup; ")


def bearer(name: str) -> Pairs:
    return [(b"authorization", b"Bearer " + name.encode())]


# -- static pages ----------------------------------------------------------------------------------------------------

WRITTEN = 1_700_000_000


@pytest.fixture
def pages(tmp_path: Path, make_dedup: MakeDedup, clock: FakeClock) -> Layers:
    """A page that was written a thousand seconds ago."""
    page = tmp_path / "page.html"
    page.write_text("0123456789", encoding="ascii")
    os.utime(page, (WRITTEN, WRITTEN))
    app = Layers(
        Starlette(routes=[Mount("/pages", StaticFiles(directory=tmp_path))]), make_dedup, "Static pages"
    )
    began = clock.now
    app.dedup.wall = lambda: WRITTEN + 1000 + clock.now - began
    return app


async def test_a_static_page_lives_for_a_tenth_of_its_age_and_is_then_asked_about(
    pages: Layers, clock: FakeClock
) -> None:
    first = await get(pages, "/pages/page.html")
    clock.advance(99)
    fresh = await get(pages, "/pages/page.html", client="192.0.2.9")
    clock.advance(2)
    stale = await get(pages, "/pages/page.html")
    await eventually(lambda: not pages.dedup.under_way())
    renewed = await get(pages, "/pages/page.html")
    clock.advance(10_000)
    asked = await get(pages, "/pages/page.html")

    assert {answer.body for answer in (first, fresh, stale, renewed, asked)} == {b"0123456789"}
    assert [short(answer) for answer in (first, fresh, stale)] == [
        "fwd=uri-miss; stored; ttl=100",
        "hit; ttl=1",
        "hit; ttl=-1; detail=stale-while-revalidate",
    ]
    assert short(renewed).startswith("hit; ttl=1")
    assert short(asked).startswith("fwd=stale; fwd-status=304; stored")


async def test_parts_of_a_static_page_and_304s_come_from_the_stored_one(pages: Layers) -> None:
    whole = await get(pages, "/pages/page.html")
    part = await get(pages, "/pages/page.html", headers=[(b"range", b"bytes=2-4")])
    same = await get(
        pages, "/pages/page.html", headers=[(b"if-none-match", whole.header(b"etag") or b"missing")]
    )

    assert (part.status, part.body, short(part)) == (206, b"234", "hit; ttl=100")
    assert (same.status, same.body, short(same)) == (304, b"", "hit; ttl=100")


async def test_the_app_of_static_pages_sees_no_cookie(make_dedup: MakeDedup) -> None:
    bare = said(200, (b"cache-control", b"max-age=60"))
    app = Layers(bare, make_dedup, "Static pages")
    await get(app, "/pages/a", headers=[(b"cookie", b"session=1")])

    assert b"cookie" not in seen(bare)
    assert short(await get(app, "/pages/a", headers=[(b"cookie", b"session=2")])) == "hit; ttl=60"


# -- an API behind authentication ------------------------------------------------------------------------------------


async def test_what_all_callers_see_alike_is_made_once_and_a_stranger_gets_none_of_it(
    make_dedup: MakeDedup,
) -> None:
    bare = said()
    app = Layers(bare, make_dedup, "API behind authentication")
    told = [await get(app, "/api/prices", headers=bearer(name)) for name in ("alice", "bob", "mallory")]
    unknown = await get(app, "/api/prices")

    assert [(answer.status, short(answer)) for answer in told] == [
        (200, "fwd=uri-miss; stored; ttl=60"),
        (200, "hit; ttl=60"),
        (401, "bypassed"),
    ]
    assert unknown.status == 401
    assert bare.runs == 1
    assert b"authorization" not in seen(bare)


async def test_what_is_a_caller_s_own_is_made_for_each_from_wherever_they_ask(make_dedup: MakeDedup) -> None:
    bare = said()
    app = Layers(bare, make_dedup, "API behind authentication")
    told = [
        await get(app, "/api/me/orders", headers=bearer(name), client=address)
        for name, address in (("alice", "192.0.2.1"), ("bob", "192.0.2.1"), ("alice", "192.0.2.7"))
    ]

    assert [answer.body for answer in told] == [b"run 1", b"run 2", b"run 1"]
    assert seen(bare)[b"authorization"] == b"Bearer bob"


# -- GraphQL ---------------------------------------------------------------------------------------------------------

JSON = (b"content-type", b"application/json")


def asked(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize(("path", "method"), [("/graphql", "QUERY"), ("/graphql/read", "POST")])
async def test_a_query_is_known_by_what_its_json_means_and_a_mutation_drops_its_answer(
    path: str, method: str, make_dedup: MakeDedup
) -> None:
    bare = said()
    app = Layers(bare, make_dedup, "GraphQL")
    bodies = [
        asked(query="{ me }", variables={"a": 1}),
        b'{"variables":{"a":1},"query":"{ me }"}',
        asked(query="{me}", variables={"a": 1}),
    ]
    told = [await get(app, path, method, [JSON], body) for body in bodies]
    mutation = await get(app, "/graphql", "POST", [JSON], asked(query="mutation { drop }"))
    after = await get(app, path, method, [JSON], bodies[0])

    assert [short(answer) for answer in told] == [
        "fwd=uri-miss; stored; ttl=30",
        "hit; ttl=30",
        "fwd=uri-miss; stored; ttl=30",
    ]
    assert short(mutation) == "bypassed"
    assert after.body == b"run 4"


async def test_identical_mutations_all_run(make_dedup: MakeDedup) -> None:
    bare = GatedApp()
    app = Layers(bare, make_dedup, "GraphQL")
    both = [call(app, "/graphql", "POST", [JSON], asked(query="mutation { pay }")) for _ in range(2)]
    await settle()
    bare.gate.set()
    for one in both:
        await one.done()

    assert bare.runs == 2


# -- per-user pages --------------------------------------------------------------------------------------------------


def session(name: str, *more: str) -> Pairs:
    return [(b"cookie", "; ".join((f"session={name}", *more)).encode())]


async def test_each_session_has_pages_of_its_own_on_every_device(make_dedup: MakeDedup) -> None:
    bare = said(200, (b"cache-control", b"private"))
    app = Layers(bare, make_dedup, "Per-user pages")
    told = [
        await get(app, "/account/home", headers=session(name), client=address)
        for name, address in (("a", "192.0.2.1"), ("b", "192.0.2.1"), ("a", "192.0.2.7"))
    ]

    assert [answer.body for answer in told] == [b"run 1", b"run 2", b"run 1"]


async def test_a_cookie_that_the_recipe_does_not_name_is_bypassed(make_dedup: MakeDedup) -> None:
    app = Layers(said(), make_dedup, "Per-user pages")

    assert short(await get(app, "/account/home", headers=session("a", "cart=7"))) == "bypassed"
    assert short(await get(app, "/account/home", headers=session("a", "_ga=GA1.2.3"))).endswith("ttl=30")


async def test_the_app_may_store_for_a_caller_alone(make_dedup: MakeDedup, clock: FakeClock) -> None:
    app = Layers(said(200, (b"cache-control", b"private, max-age=10")), make_dedup, "Per-user pages")
    told = [await get(app, "/inbox/new", headers=session(name)) for name in ("a", "b", "a")]
    clock.advance(11)
    later = await get(app, "/inbox/new", headers=session("a"))

    assert [answer.body for answer in (*told, later)] == [b"run 1", b"run 2", b"run 1", b"run 3"]


async def test_a_write_to_a_page_drops_it_for_everybody(make_dedup: MakeDedup) -> None:
    bare = said()
    app = Layers(bare, make_dedup, "Per-user pages")
    for name in ("a", "b"):
        await get(app, "/account/home", headers=session(name))
    await get(app, "/account/home", "POST", headers=session("a"))

    assert (await get(app, "/account/home", headers=session("b"))).body == b"run 4"


# -- microcaching ----------------------------------------------------------------------------------------------------


async def test_in_100_ms_the_app_runs_once_and_nobody_waits_for_the_next(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    bare = said()
    app = Layers(bare, make_dedup, "Microcaching")
    at_once = [await get(app, "/live/score", client=f"192.0.2.{n}") for n in range(200)]
    clock.advance(0.15)
    bare.gate.clear()
    stale = [await get(app, "/live/score") for _ in range(2)]
    bare.gate.set()
    await settle()
    renewed = await get(app, "/live/score")
    clock.advance(1.2)
    waited = await get(app, "/live/score")

    assert {answer.body for answer in at_once} == {b"run 1"}
    assert {answer.body for answer in stale} == {b"run 1"}
    assert short(stale[0]) == "hit; ttl=-1; detail=stale-while-revalidate"
    assert [renewed.body, waited.body] == [b"run 2", b"run 3"]


async def test_while_the_app_fails_the_last_good_answer_stands_in_for_a_minute(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    def answer(_scope: MutableMapping[str, Any], run: int) -> tuple[int, Pairs, bytes]:
        return (200 if run == 1 else 503), [], b"run %d" % run

    app = Layers(GatedApp(answer, opened=True), make_dedup, "Microcaching")
    await get(app, "/live/score")
    clock.advance(60)
    saved = await get(app, "/live/score")
    clock.advance(1)
    over = await get(app, "/live/score")

    assert (saved.status, saved.body) == (200, b"run 1")
    assert short(saved) == "fwd=stale; fwd-status=503; detail=stale-if-error"
    assert over.status == 503


async def test_what_is_no_page_is_stored_for_nobody_and_a_failing_app_is_asked_again_after_a_second(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    lost, cookie = said(404), said(200, (b"set-cookie", b"a=1"))
    for bare in (lost, cookie):
        app = Layers(bare, make_dedup, "Microcaching")
        for _ in range(3):
            await get(app, "/live/score")
        assert bare.runs == 3
    failing = GatedApp(lambda _, run: (200 if run == 1 else 503, [], b"run %d" % run), opened=True)
    app = Layers(failing, make_dedup, "Microcaching")
    runs = []
    for wait in (0, 0.2, 0.2, 1, 0):
        clock.advance(wait)
        assert (await get(app, "/live/score")).body == b"run 1"
        await settle()
        runs.append(failing.runs)

    assert runs == [1, 2, 2, 3, 4]


# -- three levels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "within", "after"),
    [("/status/git", 0.09, 0.11), ("/chat/7/history", 250.0, 301.0), ("/catalogue/tools", 3200.0, 3601.0)],
)
async def test_each_level_lives_for_its_own_time(
    path: str, within: float, after: float, make_dedup: MakeDedup, clock: FakeClock
) -> None:
    app = Layers(said(), make_dedup, "Three levels")
    first = await get(app, path)
    clock.advance(within)
    again = await get(app, path)
    clock.advance(after - within)
    later = await get(app, path)

    assert [answer.body for answer in (first, again, later)] == [b"run 1", b"run 1", b"run 2"]


async def test_a_message_drops_its_chat_alone(make_dedup: MakeDedup) -> None:
    app = Layers(said(), make_dedup, "Three levels")
    for chat in (7, 8):
        await get(app, f"/chat/{chat}/history")
    await get(app, "/chat/7/messages", "POST")

    assert (await get(app, "/chat/7/history")).body == b"run 4"
    assert (await get(app, "/chat/8/history")).body == b"run 2"


async def test_whoever_reads_at_the_end_of_a_chat_s_time_starts_the_next(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    app = Layers(said(), make_dedup, "Three levels")
    await get(app, "/chat/7/history")
    (held,) = app.dedup.held()
    clock.advance(held.ttl - 10)
    read = await get(app, "/chat/7/history")
    await settle()

    assert read.body == b"run 1"
    assert (await get(app, "/chat/7/history")).body == b"run 2"


async def test_the_catalogue_has_a_tag_and_stands_in_for_errors_for_a_day(
    make_dedup: MakeDedup, clock: FakeClock
) -> None:
    def answer(_scope: MutableMapping[str, Any], run: int) -> tuple[int, Pairs, bytes]:
        if run > 1:
            raise RuntimeError("down")
        return 200, [], b"all tools"

    app = Layers(GatedApp(answer, opened=True), make_dedup, "Three levels")
    await get(app, "/catalogue/tools")
    tag = (await get(app, "/catalogue/tools")).header(b"etag") or b"missing"
    same = await get(app, "/catalogue/tools", headers=[(b"if-none-match", tag)])
    clock.advance(24 * 3600)
    saved = await get(app, "/catalogue/tools")

    assert same.status == 304
    assert (saved.status, saved.body) == (200, b"all tools")


def test_the_three_levels_are_the_same_in_toml(tmp_path: Path) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(block("Three levels", "toml"), encoding="utf-8")
    given: dict[str, Any] = {"app": Starlette()}
    exec(compile(block("Three levels"), "recipe", "exec", dont_inherit=True), given)

    assert Dedup.from_toml(file).rules == tuple(given["rules"])
