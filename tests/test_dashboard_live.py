"""The dashboard over the real administration: what happens in the engine shows, what is clicked happens there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

pytest.importorskip("uvicorn", reason="the pages are served: python -m pip install '.[test]'")
pytest.importorskip("limits", reason="the administration needs its extra: python -m pip install '.[admin]'")

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.admin import admin

from .dashboard_kit import LIVE, POLICY, serving, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

TOKEN = "a-token-that-nobody-guesses"
STATUS = Rule(
    "/git/{repo}/status", name="git status", ttl="10m", vary=[], identity="shared", tags=["repo:{repo}"]
)


class House:
    """An app behind a gate, under the middleware, with the administration."""

    def __init__(self, **settings: Any) -> None:
        self.gate = threading.Event()
        self.dedup = Dedup([STATUS], **settings)
        self.app = Starlette(
            routes=[
                Mount("/_dedup", admin(self.dedup, allow=TOKEN, failures_per_minute=100)),
                Route("/git/{repo}/status", self._status),
            ]
        )
        self.app.add_middleware(DedupMiddleware, dedup=self.dedup)

    async def _status(self, _request: Request) -> PlainTextResponse:
        while not self.gate.is_set():
            await anyio.sleep(0.01)  # the gate is the test's, in another thread
        return PlainTextResponse("clean")


@contextlib.contextmanager
def signed_in(browser: Browser, origin: str) -> Iterator[Page]:
    with watched(browser, origin, quiet=False) as page:
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector(LIVE)
        yield page


def test_a_server_that_is_gone_is_not_live(browser: Browser) -> None:
    with contextlib.ExitStack() as server:
        origin = server.enter_context(serving(House().app))
        with signed_in(browser, origin) as page:
            server.close()
            page.wait_for_selector('#connection[data-state="offline"]')
            assert "Disconnected. What you see is as of" in page.inner_text("#disconnected")


def test_what_was_shown_is_not_wiped_out_while_nobody_answers(browser: Browser, tmp_path: Path) -> None:
    house = House(records=f"sqlite:///{tmp_path}/records.db", secret="of this test")
    with contextlib.ExitStack() as server:
        origin = server.enter_context(serving(house.app))
        with watched(browser, origin, quiet=False, locale="en") as page:
            page.fill("#token", TOKEN)
            page.keyboard.press("Enter")
            page.wait_for_selector(LIVE)
            page.clock.install()
            page.reload()  # so that every timer is the clock's
            page.wait_for_selector(LIVE)
            page.wait_for_selector("#operations >> text=Nothing is recorded yet.")
            server.close()
            page.wait_for_selector('#connection[data-state="offline"]')
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.clock.fast_forward(15_000)
            page.click("#nav >> text=Explain")
            page.fill("#ask [name=target]", "/git/demo/status")
            page.keyboard.press("Enter")
            page.wait_for_selector("#told >> text=The server does not answer.")

            assert not [url for url in asked if "analytics" in url]
            assert "Nothing is recorded yet." in (page.text_content("#operations") or "")


def test_a_burst_is_seen_under_way_and_when_it_landed_then_dropped_and_switched_off(browser: Browser) -> None:
    house = House()
    with (
        serving(house.app) as origin,
        signed_in(browser, origin) as page,
        ThreadPoolExecutor(5) as people,
    ):
        asked = [people.submit(httpx.get, f"{origin}/git/demo/status") for _ in range(5)]
        page.wait_for_selector("#flights >> text=5 requests wait, 4 joined")
        house.gate.set()
        assert {one.result().text for one in asked} == {"clean"}
        page.wait_for_selector(".verdict >> text=1 run answered 5 requests")
        assert page.locator(".bars li").count() == 5
        httpx.get(f"{origin}/git/demo/status")
        page.wait_for_selector("#figures .card:first-child .value >> text=/^5$/")

        page.click("#nav >> text=Stored")
        page.click("#stored-list .tag >> text=repo:demo")
        page.click("#clear-shown")
        page.click("dialog >> text='Invalidate'")
        page.wait_for_selector("text=1 stored response dropped.")
        assert house.dedup.store.responses == 0
        page.wait_for_selector("#gone >> text=by administrator")

        page.click("#nav >> text=Overview")
        page.get_by_role("switch", name="Rule git status").click()
        page.click("dialog >> text=Switch off")
        page.wait_for_selector("text=“git status” is off.")
        assert house.dedup.switched_off == {"git status"}
        page.click("#engine")
        page.click("dialog >> text=Switch off")
        page.wait_for_selector("#switched-off:not([hidden])")
        assert not house.dedup.enabled

        page.click("#nav >> text=Audit")
        page.wait_for_selector("#audit-list tbody tr >> nth=2")
        told = page.inner_text("#audit-list tbody")
        assert all(text in told for text in ("switch off", "rule git status", "tags repo:demo", "1 dropped"))


def test_a_request_is_explained_by_the_engine(browser: Browser) -> None:
    with serving(House().app) as origin, signed_in(browser, origin) as page:
        page.click("#nav >> text=Explain")
        page.fill("#ask [name=target]", "/git/demo/status?token=abc")
        page.fill("#ask [name=headers]", "authorization: Bearer very-secret")
        page.click("#ask >> text=Explain")
        page.wait_for_selector("#told >> text=stored for 10.0 min, tagged repo:demo.")

        assert "very-secret" not in page.inner_text("#told")


def test_signing_out_ends_the_session(browser: Browser) -> None:
    with serving(House().app) as origin, signed_in(browser, origin) as page:
        cookies = {one["name"]: one["value"] for one in page.context.cookies()}
        assert httpx.get(f"{origin}/_dedup/api/stats", cookies=cookies).status_code == 200
        assert page.evaluate("document.cookie") == ""
        page.click("#sign-out")
        page.wait_for_selector("#sign-in:not([hidden])")

        assert httpx.get(f"{origin}/_dedup/api/stats", cookies=cookies).status_code == 401


def test_the_page_is_served_under_the_policy_that_the_stand_in_has() -> None:
    with serving(House().app) as origin:
        page = httpx.get(f"{origin}/_dedup/")

    directives = {part.strip() for part in page.headers["content-security-policy"].split(";")}
    assert directives == {part.strip() for part in POLICY.split(";")}


def test_what_the_ledger_knows_is_shown(browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="a ledger needs its extra: python -m pip install '.[records]'")
    house = House(records=f"sqlite:///{tmp_path}/dedup.db", secret="0" * 32)
    house.gate.set()
    with serving(house.app) as origin:
        for _ in range(4):
            httpx.get(f"{origin}/git/demo/status")
        assert house.dedup.recorder is not None
        assert house.dedup.recorder.flush().result(20)
        with signed_in(browser, origin) as page:
            page.wait_for_selector("#operations-note >> text=from the ledger")
            row = page.locator("#operations tbody tr", has_text="git status")
            assert row.locator("[data-name='Duplicates']").inner_text() == "3"
            assert page.locator(".heat .warm").count() == 1
            assert page.locator("#machine div", has_text="Ledger").last.inner_text().split() == [
                "Ledger",
                "works",
            ]
            page.check("#range input[value='604800']")
            page.wait_for_selector("[aria-label*='from the ledger']")
            assert page.inner_text("#traffic .nothing") == ""
    house.dedup.recorder.close()
