"""The dashboard in Chromium: it lives, it changes only what was confirmed, and whatever the server says is text."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("uvicorn", reason="the pages are served: python -m pip install '.[test]'")

from .dashboard_kit import LIVE, STATIC, Scripted, burst, held, serving, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page of a stand-in."""
    with contextlib.ExitStack() as stack:

        def open_(scripted: Scripted, view: str = "", **settings: Any) -> Page:
            origin = stack.enter_context(serving(scripted.app()))
            return stack.enter_context(watched(browser, origin, view, **settings))

        yield open_


def busy() -> Scripted:
    """Two rules with traffic, something of everything."""
    scripted = Scripted()
    scripted.count("git status", saved=90.0, hit=800, collapsed=150, forwarded=50)
    scripted.count("default", bypassed=20, forwarded=80)
    scripted.jaeger = "http://jaeger.test:16686/"
    scripted.store = {"bytes": 16 * 2**20, "max_bytes": 64 * 2**20, "responses": 3}
    scripted.responses = [
        held("git status", number, tags=(f"repo:{number % 2}", "git")) for number in range(120)
    ]
    scripted.recent = {
        "bursts": [burst(followers=4)],
        "alerts": [alert(message="The hit rate is 0.4.", rule="git status")],
        "invalidations": [{"at": time.time(), "by": "code", "tags": ["repo:1"], "dropped": 3}],
    }
    scripted.flights = [flight(flight=91, waiters=3, followers=2, awaits=[90])]
    scripted.audit = [
        {
            "at": time.time(),
            "who": "token",
            "what": "refused",
            "target": "GET api/stats",
            "result": "401",
            "times": 9,
        }
    ]
    scripted.explanation = {
        "rule": "git status",
        "decision": "consider",
        "reason": None,
        "fingerprint": "0f" * 16,
        "keyed": {"query": "token=***"},
        "left_out": {"header:traceparent": "noise"},
        "visible": [["accept", "text/html"]],
        "tags": ["repo:1"],
        "ttl": 5.0,
        "collapses": True,
    }
    return scripted


def with_ledger(scripted: Scripted) -> Scripted:
    now = time.time()
    operation = {
        "rule": "git status",
        "key": "ab" * 16,
        "route": "/git/{repo}/status",
        "duplicates": 950,
        "executions": 50,
        "average": 0.1,
        "saved": 95.0,
        "last": now,
        "trace_id": "cd" * 16,
    }
    counts = {"hit": 600, "collapsed": 60, "forwarded": 60, "bypassed": 0}
    scripted.analytics = {
        "operations": {"more": False, "items": [operation]},
        "heatmap": {
            "cells": [{"rule": "git status", "hour": 9, "weekday": 1, "requests": 99, "duplicates": 90}]
        },
        "series": {
            "step": 60,
            "more": False,
            "items": [{"at": now // 60 * 60 - 600, "rule": "git status", "requests": counts}],
        },
    }
    return scripted


def alert(**more: Any) -> dict[str, Any]:
    return {
        "type": "alert.raised",
        "at": time.time(),
        "alert": "few hits",
        "message": "Too few.",
        "value": 0.4,
        "threshold": 0.5,
        "rule": None,
        "over": False,
    } | more


def flight(**more: Any) -> dict[str, Any]:
    return {
        "flight": 1,
        "rule": "git status",
        "key": "ef" * 16,
        "seconds": 1.5,
        "waiters": 1,
        "followers": 0,
        "bytes": 0,
        "landed": False,
        "current": True,
        "trace_id": "aa" * 16,
        "awaits": [],
    } | more


def sent(scripted: Scripted, what: str) -> list[Any]:
    return [body for method, path, body in scripted.asked if (method, path) == ("POST", what)]


# -- what it shows ---------------------------------------------------------------------------------------------------


def test_the_figures_live(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    page.wait_for_selector("text=of 1,100 requests since the start")

    scripted.count("git status", saved=10.0, hit=1000)
    scripted.tick()

    page.wait_for_selector("text=of 2,100 requests since the start")
    assert page.locator("#figures .value").all_inner_texts() == ["1,950", "100.0", "92.9", "1,000"]
    assert "1,000/s" in page.inner_text("#traffic-legend")
    row = page.locator("#rules tr", has_text="git status")
    assert row.locator("[data-name='Requests']").inner_text() == "2,000"
    assert row.locator(".split").get_attribute("aria-label") == (
        "1,800 from the store, 150 collapsed, 50 executed"
    )
    assert page.get_attribute(".gauge", "aria-valuetext") == "16 MiB of 64 MiB"


def test_a_stale_answer_is_not_said_to_have_kept_its_request_from_the_app(
    opened: Callable[..., Page],
) -> None:
    """The app may have been asked, and have failed."""
    scripted = busy()
    page = opened(scripted)
    page.wait_for_selector("text=of 1,100 requests since the start")

    scripted.count("git status", stale=50, revalidated=50)
    scripted.tick()

    page.wait_for_selector("text=of 1,200 requests since the start")
    assert "50 of them answered by the app" in page.inner_text("#figures")


def test_of_many_rules_those_in_sight_are_drawn_anew_at_once_and_none_stays_out_of_date(
    opened: Callable[..., Page],
) -> None:
    scripted = with_ledger(Scripted())
    assert scripted.analytics is not None
    scripted.analytics["heatmap"]["cells"] = [
        {"rule": f"rule {number}", "hour": 9, "weekday": 1, "requests": 99, "duplicates": number + 1}
        for number in range(150)
    ]
    for number in range(150):
        scripted.count(f"rule {number}", hit=1)
    page = opened(scripted)
    row = "#rules tr[data-key='rule 149']"
    page.wait_for_selector(f"{row}[data-seen='false']", state="attached")

    for number in range(150):
        scripted.count(f"rule {number}", hit=4)
    scripted.tick()
    page.wait_for_selector("text=of 750 requests since the start")

    now = page.locator("#rules [data-name='Requests']", has_text="5")
    assert now.count() < 150
    page.locator(row).scroll_into_view_if_needed()
    page.wait_for_selector(f"{row}[data-seen='true']")
    assert page.locator(f"{row} [data-name='Requests']").inner_text() == "5"
    for _ in range(3):
        scripted.tick()
    page.wait_for_selector("#rules [data-name='Requests'] span:text-is('5') >> nth=149")
    assert page.locator(".heat tbody th").all_inner_texts() == [
        f"rule {149 - number}" for number in range(20)
    ]
    assert "the 20 rules with most duplicates of 150" in page.inner_text("#heat-note")


def test_stale_and_revalidated_answers_are_named_once_there_are_any(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    page.wait_for_selector("#traffic-legend >> text=from the store")
    assert page.locator("#traffic-legend li:visible").count() == 4

    scripted.count("git status", hit=100, stale=50, revalidated=50)
    scripted.tick()

    page.wait_for_selector("#traffic-legend li:visible >> nth=5")
    legend = page.inner_text("#traffic-legend").split("\n")
    assert [text for text in legend if not text.endswith("/s")] == [
        "from the store",
        "stale",
        "collapsed",
        "revalidated",
        "passed by",
        "executed",
    ]
    assert page.locator("#figures .value").all_inner_texts() == ["1,100", "90.0", "88.5", "200"]
    scripted.tick()
    for name in ("stale", "revalidated"):
        page.wait_for_selector(f".area.{name}[d]")
    row = page.locator("#rules tr", has_text="git status")
    assert row.locator(".split").get_attribute("aria-label") == (
        "900 from the store, 50 stale, 150 collapsed, 50 revalidated, 50 executed"
    )


def test_an_invalidation_says_who_asked_and_for_what(opened: Callable[..., Page]) -> None:
    scripted = busy()
    named: list[dict[str, Any]] = [{"tags": ["repo:1"]}, {"rule": "git status"}, {"key": "ab" * 16}, {}]
    scripted.recent["invalidations"] = [
        {"at": 2e9 - place, "by": "code", "tags": [], "rule": None, "key": None, "dropped": place, **one}
        for place, one in enumerate(named)
    ]
    page = opened(scripted, "#stored")
    page.wait_for_selector("#gone li")
    scripted.tell("invalidated", {"at": 2e9, "by": "request", "tags": [], "dropped": 1})
    page.wait_for_selector("#gone >> text=its own target")

    assert page.locator("#gone li > :nth-child(3)").all_inner_texts() == [
        "its own target",
        "repo:1",
        "rule “git status”",
        "fingerprint abababab",
        "everything",
    ]


def test_a_chart_is_drawn_and_read_by_keyboard(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    for number in range(3):
        scripted.count("git status", hit=10 * (number + 1))
        scripted.tick()
        page.wait_for_selector(f"#traffic-legend >> text={10 + 5 * number}/s")  # of the last seconds together

    page.focus(".stacked")
    page.keyboard.press("ArrowLeft")

    assert "from the store" in page.inner_text(".readout")
    assert "20" in page.inner_text(".readout")
    assert "20" in page.inner_text("#traffic [aria-live]")
    page.keyboard.press("Escape")
    assert page.is_hidden(".readout")


@pytest.mark.parametrize("jaeger", ["http://jaeger.test:16686/", None, "javascript:alert(1)//"])
def test_a_burst_is_drawn_as_bars_that_lead_to_their_traces(
    opened: Callable[..., Page], jaeger: str | None
) -> None:
    scripted = busy()
    scripted.jaeger = jaeger
    page = opened(scripted)

    page.wait_for_selector(".bars li")
    assert "1 run answered 5 requests of git status. 400 ms of work did not run." in page.inner_text(
        "#bursts"
    )
    assert page.locator(".bars .leads .what").all_inner_texts() == ["ran 100 ms"]
    assert page.locator(".bars .joined .what").all_inner_texts()[0] == "waited 100 ms"
    widths = [box["width"] for bar in page.locator(".bars i").all() if (box := bar.bounding_box())]
    assert len(widths) == 5
    assert sorted(widths, reverse=True) == widths
    links = [link.get_attribute("href") for link in page.locator(".bars a").all()]
    if jaeger and jaeger.startswith("http"):
        assert links[0] == f"http://jaeger.test:16686/trace/{7:032x}"
        assert len(links) == 5
    else:
        assert links == []


def test_a_large_burst_stays_a_picture(opened: Callable[..., Page]) -> None:
    scripted = busy()
    scripted.recent["bursts"] = [burst(followers=200, joined=4321)]
    page = opened(scripted)

    page.wait_for_selector("text=1 run answered 4,322 requests")
    assert page.locator(".bars li").count() == 20
    assert "4,303 more" in page.inner_text(".bars")


def test_a_new_burst_shows_by_itself_unless_another_one_was_chosen(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    page.click(".choices button")
    scripted.tell("burst", burst("git log", followers=2, flight=8))
    page.wait_for_selector(".choices button >> nth=1")
    assert "of git status" in page.inner_text(".verdict")
    assert not page.is_checked("#follow")

    page.check("#follow")

    page.wait_for_selector(".verdict >> text=of git log")


def test_flights_say_who_waits_on_what(opened: Callable[..., Page]) -> None:
    page = opened(busy())

    page.wait_for_selector("text=#91, 3 requests wait, 2 joined, itself on #90")
    assert "1.50 s" in page.inner_text("#flights")


def test_an_alert_is_told_at_once_and_when_it_is_over(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    assert page.inner_text("#alert-count") == "1 alert"

    scripted.tell("alert", alert(message="Evictions.", alert="evictions"))
    page.wait_for_selector(".toast >> text=Evictions.")
    assert page.inner_text("#alert-count") == "2 alerts"

    scripted.tell("alert", alert(message="Evictions.", alert="evictions", over=True))
    page.wait_for_selector("#alerts li.over")
    assert page.inner_text("#alert-count") == "1 alert"


def test_without_a_ledger_the_page_says_what_it_counts_and_what_is_missing(
    opened: Callable[..., Page],
) -> None:
    page = opened(busy())

    page.wait_for_selector("#operations-note >> text=from the bursts since")
    assert page.locator("#operations tbody [data-name='Duplicates']").inner_text() == "4"
    assert "This needs a ledger." in page.inner_text("#heat")
    assert page.is_hidden("#range")


def test_with_a_ledger_it_shows_operations_hours_and_days(opened: Callable[..., Page]) -> None:
    page = opened(with_ledger(busy()))

    page.wait_for_selector("#operations-note >> text=from the ledger")
    assert page.locator("#operations tbody [data-name='Duplicates']").inner_text() == "950"
    assert page.locator(".heat .warm").count() == 1
    page.check("#range input[value='3600']")
    page.wait_for_selector("[aria-label*='from the ledger']")
    assert page.locator(".area.hit").count() == 1
    page.check("#range input[value='0']")
    page.wait_for_selector("[aria-label*='the last minutes']")


def test_with_nothing_to_show_it_says_what_to_do(opened: Callable[..., Page]) -> None:
    page = opened(Scripted())

    page.wait_for_selector("#traffic >> text=No request came.")
    for panel in ("bursts", "flights", "operations", "alerts", "heat"):
        assert len(page.inner_text(f"#{panel} .empty p")) > 30
    for view, host in (("stored", "stored-list"), ("audit", "audit-list")):
        page.click(f"#nav >> text={view.title()}")
        page.wait_for_selector(f"#{host} .empty")


# -- what it changes -------------------------------------------------------------------------------------------------


def test_a_rule_is_switched_off_and_on_after_a_question(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    toggle = page.get_by_role("switch", name="Rule git status")
    toggle.click()
    assert "go to the app by themselves" in page.inner_text("dialog")
    page.click("dialog >> text=Switch off")
    page.wait_for_selector("text=“git status” is off.")
    page.get_by_role("switch", name="Rule git status", checked=False).wait_for()

    toggle.click()
    page.click("dialog >> text=Switch on")
    page.wait_for_selector("text=“git status” is on.")

    assert sent(scripted, "switch") == [
        {"rule": "git status", "on": False},
        {"rule": "git status", "on": True},
    ]


def test_everything_is_switched_off_after_a_question_and_the_page_says_so(
    opened: Callable[..., Page],
) -> None:
    scripted = busy()
    page = opened(scripted)
    page.click("#engine")
    page.click("dialog >> text=Cancel")
    assert page.is_hidden("#switched-off")
    page.click("#engine")
    page.click("dialog >> text=Switch off")

    page.wait_for_selector("#switched-off:not([hidden])")
    assert sent(scripted, "switch") == [{"rule": None, "on": False}]


def test_stored_responses_are_found_by_rule_and_tag_and_dropped(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted, "#stored")
    page.wait_for_selector("text=1 to 50 of 120")
    page.click("#stored-list >> text=Next")
    page.wait_for_selector("text=51 to 100 of 120")
    page.locator("#stored-list .tag", has_text="repo:1").first.click()
    page.wait_for_selector("text=1 to 50 of 60")
    page.locator("#stored-list tbody button", has_text="Invalidate").first.click()
    page.click("dialog >> text='Invalidate'")
    page.wait_for_selector("text=1 stored response dropped.")
    page.wait_for_selector("text=1 to 50 of 59")
    page.click("#clear-shown")
    page.click("dialog >> text='Invalidate'")
    page.wait_for_selector("text=Nothing stored matches.")
    page.click("#clear-all")
    page.click("dialog >> text='Invalidate'")
    page.wait_for_selector("text=60 stored responses dropped.")

    assert sent(scripted, "invalidate") == [{"key": f"{1:032x}"}, {"tags": ["repo:1"]}, {"all": True}]


def test_a_change_that_is_refused_is_told(opened: Callable[..., Page]) -> None:
    scripted = busy()
    scripted.refuses["invalidate"] = (429, "Too many changes.")
    page = opened(scripted, quiet=False)
    page.click("text=Invalidate >> visible=true")
    page.click("dialog >> text='Invalidate'")

    page.wait_for_selector(".toast.bad >> text=Too many changes.")


def test_a_request_is_explained(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted, "#explain")
    page.fill("#ask [name=target]", "/git/demo/status?token=abc")
    page.fill("#ask [name=headers]", "Accept: text/html\nno field\n")
    page.click("#ask >> text=Explain")

    page.wait_for_selector("text=stored for 5 s, tagged repo:1.")
    assert "token=***" in page.inner_text("#told")
    assert sent(scripted, "explain") == [
        {
            "method": "GET",
            "target": "/git/demo/status?token=abc",
            "headers": [["accept", "text/html"]],
            "body": "",
        }
    ]


# -- who may look ----------------------------------------------------------------------------------------------------


def test_it_asks_for_the_token_and_forgets_it(opened: Callable[..., Page]) -> None:
    scripted = busy()
    scripted.token = "right"
    page = opened(scripted, quiet=False)
    assert page.is_hidden("#overview")
    assert page.evaluate("document.activeElement.id") == "token"
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=That is not the token.")
    page.fill("#token", "right")
    page.keyboard.press("Enter")
    page.wait_for_selector(LIVE)
    assert page.is_visible("#overview")
    assert page.input_value("#token") == ""

    page.click("#sign-out")
    page.wait_for_selector("#sign-in:not([hidden])")
    assert page.is_hidden("#overview")
    page.reload()
    page.wait_for_selector("#sign-in:not([hidden])")


def test_a_session_that_ends_leads_back_to_the_door(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted, quiet=False)
    scripted.token = "new"
    scripted.hang_up()

    page.wait_for_selector("#sign-in:not([hidden])")


# -- connections -----------------------------------------------------------------------------------------------------


def test_without_streams_it_polls_and_takes_the_stream_when_there_is_one(
    opened: Callable[..., Page],
) -> None:
    scripted = busy()
    page = opened(scripted, quiet=False)
    scripted.streams = False
    scripted.hang_up()
    page.wait_for_selector('#connection[data-state="polling"]')
    scripted.count("git status", hit=900)
    scripted.uptime += 1
    page.wait_for_selector("text=of 2,000 requests since the start")
    scripted.streams = True

    page.wait_for_selector(LIVE)


def test_it_says_when_nobody_answers_and_comes_back_by_itself(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted, quiet=False)
    page.route("**/api/**", lambda route: route.abort())
    scripted.hang_up()
    page.wait_for_selector('#connection[data-state="offline"]')
    assert "Disconnected. What you see is as of" in page.inner_text("#disconnected")
    page.unroute("**/api/**")

    page.wait_for_selector(LIVE)
    assert page.is_hidden("#disconnected")


def test_a_server_that_starts_anew_gives_no_negative_rates(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    scripted.requests = {}
    scripted.count("git status", hit=7)
    scripted.uptime = 0.0
    scripted.tick()
    page.wait_for_selector("text=of 7 requests since the start")
    scripted.count("git status", hit=3)
    scripted.tick()

    page.wait_for_selector("#traffic-legend >> text=3.0/s")
    assert "-" not in page.inner_text("#figures")


# -- everybody may use it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows(opened: Callable[..., Page], scheme: str) -> None:
    scripted = with_ledger(busy())
    long = "a-rule-whose-name-is-long-and-has-no-place-to-break-" * 3
    scripted.count(long, hit=3)
    scripted.responses.append(held(long, 999, tags=("tag-" * 40,)))
    scripted.recent["alerts"].append(alert(message=long, rule=long))
    scripted.recent["bursts"].append(burst(long, flight=9))
    shown = {
        "overview": ".bars li",
        "stored": "#stored-list tbody tr",
        "explain": "#ask",
        "audit": "#audit-list tbody tr",
    }
    page = opened(scripted, color_scheme=scheme)
    for view, last in shown.items():
        page.evaluate("view => { location.hash = view }", view)
        page.wait_for_selector(f"#{view}:not([hidden]) {last}")
        for width in (390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, width)


def test_the_theme_is_the_system_s_or_the_chosen_one(opened: Callable[..., Page]) -> None:
    page = opened(busy(), color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.click("#theme")
    light = page.evaluate(paper)
    page.reload()
    page.wait_for_selector(LIVE)

    assert light != dark
    assert page.evaluate(paper) == light
    assert page.inner_text("#theme-name") == "Theme: light. Change it"


def test_it_is_used_by_keyboard_alone(opened: Callable[..., Page]) -> None:
    page = opened(busy())
    page.keyboard.press("Tab")
    assert page.inner_text(":focus") == "Skip to the content"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.is_visible("#overview")
    page.focus("#nav a >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stored:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "stored-title"
    assert page.get_attribute("#nav a >> nth=1", "aria-current") == "page"


def test_a_question_holds_the_focus_and_escape_says_no(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    page.focus("#engine")
    page.keyboard.press("Enter")
    assert page.inner_text(":focus") == "Cancel"
    for expected in ("Switch off", "Cancel", "Switch off"):
        page.keyboard.press("Tab")
        assert page.inner_text(":focus") == expected
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert page.inner_text(":focus") == "Switch off"
    page.keyboard.press("Escape")

    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.id") == "engine"
    assert sent(scripted, "switch") == []


def test_ticks_leave_the_focus_where_it_is(opened: Callable[..., Page]) -> None:
    scripted = busy()
    page = opened(scripted)
    page.get_by_role("button", name="Fields of git status").focus()
    scripted.count("a new rule", hit=1)
    scripted.tick()
    page.wait_for_selector("#rules >> text=a new rule")

    assert page.get_attribute(":focus", "aria-label") == "Fields of git status"


def test_nothing_moves_for_whoever_asked_for_rest(opened: Callable[..., Page]) -> None:
    still = opened(busy(), reduced_motion="reduce")
    assert still.evaluate("document.getAnimations().length") == 0
    assert opened(busy()).evaluate("document.getAnimations().length") > 0


def test_what_never_stops_moving_is_drawn_a_few_times_a_second(opened: Callable[..., Page]) -> None:
    # A dashboard is open all day: sixty times a second a third of a processor is busy with one dot.
    endless = opened(busy()).evaluate(
        """document.getAnimations()
            .filter(one => one.effect.getTiming().iterations === Infinity)
            .map(one => one.effect.getKeyframes()[0].easing)"""
    )
    assert endless
    assert all(easing.startswith("steps(") for easing in endless)


# -- whatever the server says is text --------------------------------------------------------------------------------

EVIL = "<img src=x onerror=window.bad=1><script>window.bad=1</script>\"'`${window.bad=1}"


def test_names_tags_paths_and_sentences_are_text(opened: Callable[..., Page]) -> None:
    scripted = with_ledger(busy())
    scripted.count(EVIL, hit=5)
    scripted.responses = [held(EVIL, 1, tags=(EVIL,), route=EVIL, status=EVIL)]
    scripted.recent = {
        "bursts": [burst(EVIL, key=EVIL, error=EVIL, trace_id=EVIL)],
        "alerts": [alert(alert=EVIL, message=EVIL, rule=EVIL)],
        "invalidations": [{"at": 0, "by": EVIL, "tags": [EVIL], "dropped": 1}],
    }
    scripted.flights = [flight(rule=EVIL, key=EVIL, trace_id=EVIL)]
    scripted.audit = [
        {"at": 0, "who": EVIL, "what": EVIL, "target": EVIL, "result": EVIL, "times": 1} for _ in range(2)
    ]
    scripted.explanation |= {"rule": EVIL, "keyed": {EVIL: EVIL}, "visible": [[EVIL, EVIL]], "tags": [EVIL]}
    assert scripted.analytics
    scripted.analytics["operations"]["items"][0] |= {"rule": EVIL, "route": EVIL, "trace_id": EVIL}
    scripted.analytics["heatmap"]["cells"][0] |= {"rule": EVIL}
    scripted.refuses["invalidate"] = (400, EVIL)
    page = opened(scripted, quiet=False)
    page.wait_for_selector(".heat .warm")
    for panel in ("rules", "bursts", "flights", "operations", "alerts", "heat"):
        assert "<img src=x" in page.inner_text(f"#{panel}")
    for view in ("stored", "audit", "explain"):
        page.evaluate("view => { location.hash = view }", view)
        page.wait_for_selector(f"#{view}:not([hidden])")
        if view == "explain":
            page.click("#ask >> text=Explain")
        page.wait_for_selector(f"#{view} .panel >> text=<img src=x")
    page.evaluate("location.hash = 'overview'")
    page.get_by_role("button", name="Invalidate <img").click()
    assert "<img src=x" in page.inner_text("dialog")
    page.click("dialog >> text='Invalidate'")
    page.wait_for_selector(".toast >> text=<img src=x")

    assert page.evaluate("window.bad") is None
    assert page.locator("img:not([src='static/icon.svg'])").count() == 0
    for link in page.locator("a.trace").all():
        assert re.match(r"http://jaeger\.test:16686/trace/[\w%.!~*'()-]+$", link.get_attribute("href") or "")


def scripts() -> list[Path]:
    return sorted(STATIC.glob("*.js"))


@pytest.mark.parametrize("file", scripts(), ids=lambda file: file.name)
def test_no_script_makes_markup_or_code_of_text(file: Path) -> None:
    code = file.read_text(encoding="utf-8")
    found = re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|srcdoc", code
    )

    assert found is None


def test_the_page_holds_no_inline_code_and_asks_nobody_else() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    everything = "".join(file.read_text(encoding="utf-8") for file in sorted(STATIC.iterdir()))

    assert re.search(r"<script>| style=| on\w+=", page) is None
    assert set(re.findall(r"https?://[\w.]+", everything)) <= {"http://www.w3.org"}


def test_every_file_is_used() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in STATIC.iterdir())

    assert [
        file.name for file in STATIC.iterdir() if file.name not in text and file.name != "index.html"
    ] == []
