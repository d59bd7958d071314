"""The example's page in a browser: fired, drawn, explained, changed; and the run that serves it ends cleanly."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from .example_kit import BRIEFLY

pytest.importorskip("uvicorn", reason="the example needs its extra: pip install -e '.[example]'")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
DRAWN = ".row"


@pytest.fixture(scope="module")
def figures_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("figures") / "figures.json"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, figures_file: Path) -> Iterator[str]:
    """The page of a real run, whose comparison is as brief as can be; Ctrl-C ends it and nothing is left."""
    folder = tmp_path_factory.mktemp("temporary")
    options = ["--wait-for-ready", "--json", str(figures_file), "--port", "0"]
    script = f"import example_app.page{BRIEFLY}"  # whose bursts stay as they are
    command = [sys.executable, "-c", script, *options]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "PYTHONWARNINGS": "error::ResourceWarning"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            found = next(
                filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout))
            )
            yield found.group()
        finally:
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    assert "Traceback" not in out + error
    assert list(folder.iterdir()) == []


@contextlib.contextmanager
def _opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """The page, watched: nothing on its console, no request but to its own origin."""
    page = browser.new_page(**context)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.wait_for_selector(".card")
    yield page
    assert said == []
    assert {address for address in asked if not address.startswith(url + "/")} == set()
    page.close()


def _fire(page: Page) -> None:
    with page.expect_response("**/api/burst"):
        page.click("#go")
    page.wait_for_selector(DRAWN)
    page.wait_for_selector('#run[aria-busy="false"]')


def test_the_button_fires_the_burst_and_the_timeline_shows_what_became_of_it(
    browser: Browser, url: str
) -> None:
    with _opened(browser, url) as page:
        _fire(page)
        verdict = page.inner_text("#verdict")
        assert "54 requests" in verdict
        assert "4 executions" in verdict
        assert page.locator(".row").count() == 54
        assert page.locator(".row.leads").count() == 5
        assert page.locator(".row.joined").count() == 49
        assert "shares git status" in page.inner_text("#timeline")

        page.locator(".row.joined").first.click()
        assert "collapsed, in-flight" in page.inner_text("#detail")
        assert page.locator(".row.mate").count() == 6

        page.uncheck("input[name=fresh]")
        _fire(page)
        assert page.locator(".row.stored").count() == 54

        page.check("input[name=middleware][value=off]", force=True)
        _fire(page)
        assert "66 executions" in page.inner_text("#verdict")
        assert "The last one with it: 0 executions" in page.inner_text("#verdict")


@pytest.mark.parametrize(
    ("button", "work"),
    [
        ("Say something in the chat", ["chat extraction"]),
        ("Open a file", ["editor query"]),
        ("Commit", ["git log", "git status"]),
    ],
)
def test_a_write_makes_only_what_it_touched_run_again(
    browser: Browser, url: str, button: str, work: list[str]
) -> None:
    with _opened(browser, url) as page:
        _fire(page)
        page.click(f"text={button}")
        page.wait_for_selector("#written code")
        _fire(page)
        names = " ".join(page.locator(".row.leads .long").all_inner_texts())
        assert f"{len(work)} execution" in page.inner_text("#verdict")
        assert all(name in names for name in work)


def test_a_request_is_explained(browser: Browser, url: str) -> None:
    with _opened(browser, url) as page:
        page.click("#examples >> text=who am I")
        page.wait_for_selector("#told .headline")
        told = page.inner_text("#told")
        assert "Rule “me”" in told
        assert "***" in told
        assert "ada-token" not in told

        page.click("#examples >> text=a doubtful target")
        page.wait_for_selector("text=goes to the app by itself")


def test_what_no_request_can_hold_is_refused(url: str) -> None:
    for headers in ([["x-name", "é€"]], [["é€", "x"]]):
        question = {"method": "GET", "target": "/me", "headers": headers, "body": ""}
        reply = httpx.post(f"{url}/api/explain", json=question)
        assert (reply.status_code, list(reply.json())) == (422, ["error"])


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits(browser: Browser, url: str, width: int, scheme: str) -> None:
    with _opened(browser, url, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        _fire(page)
        page.locator(".row").nth(3).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_keyboard_reaches_every_row(browser: Browser, url: str) -> None:
    with _opened(browser, url) as page:
        _fire(page)
        page.locator(".row").first.focus()
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator(".row").nth(3).get_attribute("aria-pressed") == "true"
        assert page.locator(".row[tabindex='0']").count() == 1


def test_who_fires_by_keyboard_may_fire_again_at_once(browser: Browser, url: str) -> None:
    with _opened(browser, url) as page:
        page.focus("#go")
        for _ in range(2):
            with page.expect_response("**/api/burst"):
                page.keyboard.press("Enter")
            page.wait_for_selector("#go:not([disabled])")

        assert page.evaluate("document.activeElement.id") == "go"


def test_no_button_is_silent_when_the_run_has_ended(browser: Browser, url: str) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    _fire(page)
    page.route("**/api/**", lambda route: route.abort())
    page.click("#go")
    page.wait_for_selector("#verdict >> text=Does the example still run?")
    page.click("text=Open a file")
    page.wait_for_selector("#written >> text=Does the example still run?")
    page.click("#ask button[type=submit]")
    page.wait_for_selector("#told >> text=Does the example still run?")
    page.close()

    assert errors == []


def test_on_a_telephone_no_mark_s_name_is_squeezed(browser: Browser, url: str) -> None:
    with _opened(browser, url, viewport={"width": 360, "height": 800}) as page:
        shares = page.evaluate(
            "[...document.querySelectorAll('.marks li')].map(({ children: [, name], offsetWidth }) =>"
            " name.offsetWidth / offsetWidth)"
        )
        assert min(shares) > 0.5


def test_foreign_scripts_and_foreign_names_are_kept_out(url: str) -> None:
    reply = httpx.get(url)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"<script(?! type=\"module\" src=)| style=| on\w+=", reply.text) is None
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 400
    body = '{"middleware": true, "pages": 1}'
    assert (
        httpx.post(f"{url}/api/burst", content=body, headers={"content-type": "text/plain"}).status_code
        == 415
    )


def test_the_figures_are_written_and_a_miss_is_quick_when_nobody_waits_in_vain(
    url: str, figures_file: Path
) -> None:
    figures = json.loads(figures_file.read_text())
    assert url
    assert figures["wait_for_ready"] is True
    assert figures["with"]["chat_miss"] <= 200
