"""The middleware leaves the administration alone; nothing else is left alone by mistake."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.admin import admin

from .admin_kit import BEARER, TOKEN
from .kit import GatedApp, get

pytestmark = pytest.mark.slow

PAIRS = [(name.lower().encode(), value.encode()) for name, value in BEARER.items()]


def counted(dedup: Dedup) -> int:
    return sum(dedup.stats().requests.values())


async def page(request: Any) -> PlainTextResponse:
    return PlainTextResponse("page")


def nested(dedup: Dedup) -> Any:
    house = admin(dedup, allow=TOKEN)
    inner = Starlette(routes=[Mount("/_dedup", house)])
    return Starlette(routes=[Mount("/tools", inner), Route("/{path:path}", page)])


async def test_its_requests_are_not_counted_not_stored_and_invalidate_nothing() -> None:
    dedup = Dedup(default=Rule(ttl=60))
    app = DedupMiddleware(nested(dedup), dedup=dedup)
    for _ in range(3):
        answer = await get(app, "/tools/_dedup/api/stats", headers=PAIRS)
        assert answer.status == 200
        assert answer.header(b"cache-status") is None
    switched = await get(
        app,
        "/tools/_dedup/api/explain",
        "POST",
        [*PAIRS, (b"content-type", b"application/json")],
        b"{}",
    )
    await get(app, "/tools/other")

    assert switched.status == 200
    assert counted(dedup) == 1
    assert dedup.stats().invalidated == 0


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("outside", [False, True])
async def test_not_even_its_first_request_is_counted_switched_off_or_not(traced: bool, outside: bool) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider() if traced else None
    dedup = Dedup(tracer_provider=provider)
    inner = nested(dedup)
    app: Any = DedupMiddleware(inner, dedup=dedup)
    if not outside:
        inner.add_middleware(DedupMiddleware, dedup=dedup)
        app = inner
    for on in (True, False, True):
        dedup.enabled = on
        for method in ("GET", "POST"):
            await get(app, "/tools/_dedup/api/switch", method, PAIRS)
    assert counted(dedup) == 0
    await get(app, "/other")
    assert counted(dedup) == 1


@pytest.mark.parametrize(
    ("path", "root", "own"),
    [
        ("/_dedup", "", True),
        ("/_dedup/", "", True),
        ("/_dedup/api/stats", "", True),
        ("/_dedupx", "", False),
        ("/x/_dedup", "", False),
        ("/", "", False),
        ("/api/_dedup/x", "/api", True),
        ("/api/_dedup/x", "", False),
        ("/_dedup/../items", "", False),
        ("/_dedup//items", "", False),
    ],
)
def test_only_what_is_below_its_place_is_its_own(path: str, root: str, own: bool) -> None:
    dedup = Dedup()
    scope = {"path": path, "root_path": root, "raw_path": path.encode()}
    assert not dedup.is_own(scope)
    dedup.leave_alone("/_dedup")
    assert dedup.is_own(scope) is own


async def test_an_encoded_slash_below_its_place_is_a_request_like_any_other() -> None:
    dedup = Dedup()
    dedup.leave_alone("/_dedup")
    app = DedupMiddleware(GatedApp(opened=True), dedup=dedup)
    scope: dict[str, Any] = {"raw_path": b"/_dedup/..%2fitems", "path": "/_dedup/../items"}
    await get(app, "/", **scope)
    assert counted(dedup) == 1


def test_the_root_is_no_place_of_its_own() -> None:
    dedup = Dedup()
    dedup.leave_alone("")
    assert not dedup.is_own({"path": "/items", "root_path": ""})


async def test_mounted_at_many_paths_it_is_remembered_at_so_many_and_no_more() -> None:
    dedup = Dedup()
    app = Starlette(routes=[Mount("/{tenant}/_dedup", admin(dedup, allow=TOKEN))])
    for tenant in range(100):
        await get(app, f"/{tenant}/_dedup/api/health/live")
    assert len(dedup.ruling._own) == 16
