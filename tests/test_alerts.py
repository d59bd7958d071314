"""Alerts as settings: what one can say, in Python and in TOML, and what is refused; no secret is ever shown."""

from __future__ import annotations

import ast
import base64
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dedup_middleware import Alert, ConfigurationError, Dedup, DedupMiddleware
from dedup_middleware.alerts.alert import BYPASSES, WATCHED, signing_key

from .kit import GatedApp
from .test_docs import table

pytestmark = pytest.mark.slow

SECRET = "a secret of sixteen and more"
HOOK = "https://hooks.example.test/services/T0/PATHSECRET?token=QUERYSECRET"


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return str(caught.value)


def test_an_alert_says_what_is_watched_and_fills_in_the_rest() -> None:
    alert = Alert("storm", "executions", above=10, window="5m", rule="git", after="30s")

    assert (alert.threshold, alert.clear, alert.span, alert.after) == (10.0, 9.0, 300.0, 30.0)
    assert (alert.calm, alert.repeat, alert.minimum) == (60.0, 3600.0, None)


@pytest.mark.parametrize(
    ("fields", "clear"),
    [
        ({"watch": "hit-rate", "below": 0.5}, 0.55),
        ({"watch": "hit-rate", "above": 0.5}, 0.45),
        ({"watch": "hit-rate", "below": 0.5, "clear": 0.7}, 0.7),
        ({"watch": "store-failures"}, 0.0),
        ({"watch": "flight-age", "above": "1m"}, 54.0),
        ({"watch": "flight-age", "above": "1m", "clear": "10s"}, 10.0),
    ],
)
def test_it_ends_a_tenth_away_from_where_it_begins_unless_it_says_otherwise(
    fields: dict[str, Any], clear: float
) -> None:
    assert Alert("x", **fields).clear == pytest.approx(clear)


EVICTIONS: dict[str, Any] = {"name": "a", "watch": "evictions", "above": 1}
RATE: dict[str, Any] = {"name": "a", "watch": "hit-rate", "below": 0.5}
AGE: dict[str, Any] = {"name": "a", "watch": "flight-age", "above": 5}
BY_RULE = "executions, hit-rate, collapse-ratio, bypasses, flight-age"
URL = "an https:// or http:// URL without user, password and fragment"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": ""}, "name: '' is not allowed here; allowed: a text that is not empty, in one line"),
        (
            {"name": "a\nb"},
            r"name: 'a\nb' is not allowed here; allowed: a text that is not empty, in one line",
        ),
        ({"watch": "moon"}, f"watch: 'moon' is not allowed here; allowed: one of {', '.join(WATCHED)}"),
        ({"above": None}, "above: None is not allowed here; allowed: a number from 0 on"),
        ({"above": "3"}, "above: '3' is not allowed here; allowed: a number from 0 on"),
        ({"above": True}, "above: True is not allowed here; allowed: a number from 0 on"),
        ({"above": -1}, "above: -1 is not allowed here; allowed: a number from 0 on"),
        ({"above": float("nan")}, "above: nan is not allowed here; allowed: a number from 0 on"),
        (
            {"below": 1},
            (
                "below: 1 is not allowed here; allowed: nothing for evictions; "
                "it belongs to hit-rate, collapse-ratio"
            ),
        ),
        (RATE | {"below": 1.5}, "below: 1.5 is not allowed here; allowed: a number from 0 to 1"),
        (RATE | {"above": 0.2}, "below: 0.5 is not allowed here; allowed: either above or below, not both"),
        (
            RATE | {"clear": 0.4},
            "clear: 0.4 is not allowed here; allowed: at least what below says, 0.5",
        ),
        ({"clear": 2}, "clear: 2 is not allowed here; allowed: at most what above says, 1"),
        (
            AGE | {"above": "5 s"},
            "above: '5 s' is not allowed here; allowed: 0, seconds, or a text such as \"5m\"",
        ),
        (AGE | {"window": 3}, "window: 3 is not allowed here; allowed: nothing for flight-age"),
        ({"window": "2d"}, "window: '2d' is not allowed here; allowed: a duration from 1 second to 1 day"),
        (
            {"window": "500ms"},
            "window: '500ms' is not allowed here; allowed: a duration from 1 second to 1 day",
        ),
        ({"repeat": -1}, 'repeat: -1 is not allowed here; allowed: 0, seconds, or a text such as "5m"'),
        (RATE | {"minimum": 0}, "minimum: 0 is not allowed here; allowed: a whole number from 1 on"),
        (
            {"minimum": 5},
            (
                "minimum: 5 is not allowed here; allowed: nothing for evictions; "
                "it belongs to hit-rate, collapse-ratio"
            ),
        ),
        (
            {"rule": "git"},
            f"rule: 'git' is not allowed here; allowed: nothing for evictions; it belongs to {BY_RULE}",
        ),
        (
            {"reason": "off"},
            "reason: 'off' is not allowed here; allowed: nothing for evictions; it belongs to bypasses",
        ),
        (
            {"watch": "bypasses"},
            f"reason: None is not allowed here; allowed: one of {', '.join(BYPASSES)}",
        ),
        (
            {"watch": "bypasses", "reason": "fresh"},
            f"reason: 'fresh' is not allowed here; allowed: one of {', '.join(BYPASSES)}",
        ),
        ({"callback": 1}, "callback: 1 is not allowed here; allowed: a function, not an async one"),
        ({"webhook": 1}, f"webhook: 1 is not allowed here; allowed: {URL}"),
        (
            {"webhook": "ftp://hooks.example.test/PATHSECRET"},
            f"webhook: 'ftp://hooks.example.test/***' is not allowed here; allowed: {URL}",
        ),
        (
            {"webhook": "https://user:SECRET@hooks.example.test/"},
            f"webhook: 'https://hooks.example.test/***' is not allowed here; allowed: {URL}",
        ),
        (
            {"webhook": "https://hooks.example.test/a\r\nx: y"},
            f"webhook: 'https://hooks.example.test/***' is not allowed here; allowed: {URL}",
        ),
        (
            {"webhook": "https://hooks.example.test:99999/"},
            f"webhook: 'https://hooks.example.test:99999/***' is not allowed here; allowed: {URL}",
        ),
        (
            {"secret": SECRET},
            "secret: '***' is not allowed here; allowed: nothing without a webhook",
        ),
        (
            {"secret": "short", "webhook": HOOK},
            (
                "secret: '***' is not allowed here; allowed: a text of at least 16 characters, or whsec_ and "
                "24 bytes or more in base64; here, or in DEDUP_WEBHOOK_SECRET"
            ),
        ),
        (
            {"secret": "whsec_tooshort", "webhook": HOOK},
            (
                "secret: '***' is not allowed here; allowed: a text of at least 16 characters, or whsec_ and "
                "24 bytes or more in base64; here, or in DEDUP_WEBHOOK_SECRET"
            ),
        ),
    ],
)
def test_what_cannot_be_is_refused_with_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    given = fields if fields.keys() >= {"name", "watch"} else EVICTIONS | fields

    assert refused(lambda: Alert(**given)) == f"Alert.{sentence}"


async def late(event: object) -> None: ...


def test_an_async_callback_is_refused() -> None:
    assert refused(lambda: Alert(**EVICTIONS, callback=late)).endswith("a function, not an async one")


def test_an_unknown_field_is_refused_without_its_value() -> None:
    sentence = refused(lambda: Alert("a", "evictions", above=1, scret=SECRET))  # type: ignore[call-arg] # that is the mistake

    assert sentence.startswith(
        "Alert.scret: '***' is not allowed here; allowed: perhaps secret is meant; only the fields name, watch, "
    )


def test_neither_the_secret_nor_the_webhook_s_path_is_shown() -> None:
    alert = Alert("a", "evictions", above=1, webhook=HOOK, secret=SECRET)
    shown = f"{alert!r} {alert} {alert.__rich_repr__()} {Dedup(alerts=[alert])!r}"

    assert "https://hooks.example.test/***" in shown
    assert not re.search("PATHSECRET|QUERYSECRET|sixteen", shown)


def test_a_secret_is_a_text_or_what_standard_webhooks_write() -> None:
    key = bytes(range(32))

    assert signing_key("here", SECRET) == SECRET.encode()
    assert signing_key("here", f"whsec_{base64.b64encode(key).decode()}") == key


def test_the_secret_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    alert = Alert("a", "evictions", above=1, webhook=HOOK)
    monkeypatch.delenv("DEDUP_WEBHOOK_SECRET", raising=False)
    assert refused(lambda: Dedup(alerts=[alert])).startswith(
        "Dedup.alerts[0].secret: '***' is not allowed here"
    )
    monkeypatch.setenv("DEDUP_WEBHOOK_SECRET", SECRET)
    assert Dedup(alerts=[alert]).watch is not None


@pytest.mark.parametrize(
    ("alerts", "sentence"),
    [
        ("storm", "Dedup.alerts: 'storm' is not allowed here; allowed: a list of alerts"),
        (Alert(**EVICTIONS), "Dedup.alerts: Alert("),
        (["storm"], "Dedup.alerts[0]: 'storm' is not allowed here; allowed: an Alert"),
        (
            [Alert(**EVICTIONS), Alert(**RATE)],
            "Alert.name: 'a' is not allowed here; allowed: a name that no other alert has",
        ),
        (
            [Alert("a", "ledger-failures")],
            (
                "Dedup.alerts[0].watch: 'ledger-failures' is not allowed here; "
                "allowed: only beside records=..., which is what may fail"
            ),
        ),
    ],
)
def test_the_engine_takes_a_list_of_alerts_of_different_names(alerts: Any, sentence: str) -> None:
    assert refused(lambda: Dedup(alerts=alerts)).startswith(sentence)
    assert refused(lambda: DedupMiddleware(GatedApp(), alerts=alerts)).startswith(sentence)


# -- TOML ------------------------------------------------------------------------------------------------------------


def test_a_file_says_the_same_as_keywords(tmp_path: Path) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(
        f"""
        [[alert]]
        name = "storm"
        watch = "executions"
        rule = "git"
        above = 10
        clear = 4
        window = "5m"
        after = "30s"
        calm = "2m"
        repeat = 0
        webhook = "{HOOK}"
        secret = "{SECRET}"

        [[alert]]
        name = "misses"
        watch = "hit-rate"
        below = 0.2
        minimum = 50

        [[alert]]
        name = "no key"
        watch = "bypasses"
        reason = "credential"
        above = 100
        """,
        encoding="utf-8",
    )
    storm = Alert(
        "storm",
        "executions",
        rule="git",
        above=10,
        clear=4,
        window="5m",
        after="30s",
        calm="2m",
        repeat=0,
        webhook=HOOK,
        secret=SECRET,
    )
    others = (
        Alert("misses", "hit-rate", below=0.2, minimum=50),
        Alert("no key", "bypasses", reason="credential", above=100),
    )
    for watch in (Dedup.from_toml(file).watch, DedupMiddleware(GatedApp(), config=file).dedup.watch):
        assert watch is not None
        assert watch.alerts == (storm, *others)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            '[[alert]]\nname = "a"\nwatch = "evictions"\nabove = -1',
            "dedup.toml: alert[0].above: -1 is not allowed here; allowed: a number from 0 on",
        ),
        (
            '[[alert]]\nname = "a"\nwatch = "evictions"\nabove = 1\nwebhook = "https://h.test/"\nsecret = "s3cr3t"',
            (
                "dedup.toml: alert[0].secret: '***' is not allowed here; allowed: a text of at least 16 characters, "
                "or whsec_ and 24 bytes or more in base64; here, or in DEDUP_WEBHOOK_SECRET"
            ),
        ),
        (
            "alert = 3",
            "dedup.toml: alert: 3 is not allowed here; allowed: [[alert]] tables",
        ),
        (
            "alert = [3]",
            "dedup.toml: alert[0]: 3 is not allowed here; allowed: a table of the fields of an alert",
        ),
        (
            '[[alert]]\nname = "a"',
            f"dedup.toml: alert[0].watch: '' is not allowed here; allowed: one of {', '.join(WATCHED)}",
        ),
    ],
)
def test_a_file_is_refused_with_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(text, encoding="utf-8")

    assert refused(lambda: Dedup.from_toml(file)) == sentence


def test_without_alerts_there_is_no_watch_and_with_some_no_thread_before_the_first_request() -> None:
    before = set(threading.enumerate())
    assert Dedup().watch is None
    assert Dedup(alerts=[]).watch is None
    assert Dedup(alerts=[Alert("storm", "executions", above=1)]).watch is not None
    assert set(threading.enumerate()) <= before


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_table_of_alerts_has_every_field_with_its_default() -> None:
    documented = {
        cells[0].strip("`| "): ast.literal_eval(cells[2].strip("`"))
        for cells in table("alerts.md", "## All fields")
    }
    defaults = {field.name: field.default for field in msgspec.structs.fields(Alert)}

    assert documented == defaults


def test_the_page_lists_what_can_be_watched() -> None:
    assert [cells[0].strip("`| ") for cells in table("alerts.md", "## What can be watched")] == list(WATCHED)


def test_every_reason_of_a_bypass_and_no_other_is_allowed() -> None:
    documented = [
        reason
        for cells in table("collapsing.md", "## Why was this not shared?")
        for reason in re.findall(r"`([\w-]+)`", cells[0])
        if cells[1] == "bypassed"
    ]

    assert sorted(BYPASSES) == sorted(documented)
