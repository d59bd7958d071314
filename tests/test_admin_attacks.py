"""The administration attacked: nothing leaks, nothing changes, and it is in the audit log."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from dedup_middleware import Dedup, Rule
from dedup_middleware.admin import door
from dedup_middleware.admin.asking import MAX_BODY
from dedup_middleware.admin.audit import STRANGERS, Audit
from dedup_middleware.admin.door import address_of
from dedup_middleware.admin.limiter import MAX_COUNTERS, Limiter
from dedup_middleware.admin.operations import OPERATIONS
from dedup_middleware.events import ResponseInvalidated

from .admin_kit import BEARER, RULES, TOKEN, House, logged
from .dashboard_kit import serving
from .kit import Call, FakeClock, eventually, make_scope, until

pytestmark = pytest.mark.slow

WRONG: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer wrong-token-wrong-token"},
    {"authorization": f"Bearer {TOKEN}x"},
    {"authorization": f"Bearer {TOKEN[:-1]}"},
    {"authorization": f"Bearer  {TOKEN}"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": TOKEN},
    {"authorization": "Bearer"},
    {"authorization": "Bearer \xff\xfe"},
    {"cookie": f"dedup_admin={TOKEN}"},
    {"cookie": "dedup_admin=AAAA; dedup_admin=; dedup_admin"},
    {"cookie": "dedup_admin=" + "A" * 75},
    {"cookie": "dedup_admin=" + "A" * 10_000},
    {"x-forwarded-user": "admin", "x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1"},
]
PATHS = sorted(
    {one.path for one in OPERATIONS if one.path != "api/health/live"}
    | {
        "nothing",
        "api",
        "api/",
        "static/nothing.js",
        "static/../api/stats",
        "api/stats/",
        ".env",
        "api/statsx",
    }
)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """With something stored, so that a change would show."""
    house = House(*RULES)
    async with house.client() as client:
        await client.get("http://app.test/items/secret-item")
    yield house
    assert house.dedup.enabled
    assert not house.dedup.switched_off
    assert house.dedup.stats().responses == 1, "an attack changed something"


def plain(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    return answer.status_code, answer.content, sorted(answer.headers.items())


# -- who may not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", WRONG, ids=lambda headers: str(headers)[:60])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD"])
async def test_whoever_may_not_ask_gets_one_answer_for_every_path(
    house: House, headers: dict[str, str], method: str
) -> None:
    answers = set()
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for number, path in enumerate(PATHS):
        if (method, path) == ("POST", "api/session"):
            continue
        async with house.client(f"10.0.{number}.1") as stranger:
            answer = await stranger.request(method, path, headers=raw)
        status, body, fields = plain(answer)
        answers.add((status, body, tuple(fields)))

    ((status, body, _),) = answers
    assert status == 401
    assert body == b'{"error":"Not allowed: no credentials, or wrong ones."}' or method == "HEAD"


async def test_a_refusal_is_in_the_audit_log_without_what_the_stranger_sent(house: House) -> None:
    with logged() as records:
        async with house.client("203.0.113.9") as stranger:
            await stranger.get("api/stats", headers={"authorization": "Bearer geheim-geheim-geheim"})
            await stranger.get("geheim/<script>alert(1)</script>?token=geheim")
    told = await house.audited()

    assert [entry[:3] for entry in told] == [
        ("refused", "stats", "401 Unauthorized"),
        ("refused", "unknown path", "401 Unauthorized"),
    ]
    lines = " ".join(f"{one.getMessage()} {vars(one)}" for one in records)
    assert re.match(r"unknown [0-9a-f]{8}: refused stats: 401", records[0].getMessage())
    for secret in ("geheim", "203.0.113.9", "script"):
        assert secret not in lines


async def test_the_token_is_nowhere(house: House) -> None:
    with logged("dedup_middleware") as records:
        browser = await house.browser()
        for one in OPERATIONS:
            if one.method == "GET" and one.name != "events":
                assert TOKEN not in (await browser.get(one.path)).text
        await browser.aclose()
    assert TOKEN not in str([vars(one) for one in records])
    assert TOKEN not in repr(vars(house.admin))


@pytest.mark.parametrize("answer", [None, False, True, 0, 1, "", b"bytes", [TOKEN]], ids=repr)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_gives_no_name_lets_nobody_in(answer: object, is_async: bool) -> None:
    async def later(request: Any) -> Any:
        return answer

    house = House(allow=later if is_async else lambda _: answer)
    async with house.client() as stranger:
        answers = {
            (await stranger.get(path)).content for path in ["", "api/stats", "nothing", "static/dom.js"]
        }
        assert {(await stranger.get(path)).status_code for path in ["", "api/stats", "nothing"]} == {403}
    assert answers == {b'{"error":"Not allowed: no credentials, or wrong ones."}'}


async def test_a_function_that_fails_lets_nobody_in_and_tells_nothing() -> None:
    def fail(request: Any) -> str:
        raise RuntimeError("geheim")

    house = House(allow=fail)
    with logged("dedup_middleware.parts") as records:
        async with house.client() as stranger:
            answer = await stranger.get("api/stats")
    assert answer.status_code == 403
    assert "geheim" not in answer.text + str([one.getMessage() for one in records])


@pytest.mark.parametrize(
    "allow", [lambda request: request.headers["x-user"], lambda _: 1], ids=["fails", "gives 1"]
)
async def test_strangers_of_whom_a_function_cannot_tell_fill_no_log(allow: Any) -> None:
    house = House(allow=allow)
    with logged("dedup_middleware.parts") as records:
        async with house.client() as stranger:
            for _ in range(20):
                assert (await stranger.get("api/stats")).status_code == 403
    assert len(records) == 1


async def test_a_function_says_who_it_is_and_the_audit_log_too() -> None:
    async def who(request: Any) -> str | None:
        return {"a": "anna", "b": "x\r\nINFO forged: line\x1b[2J" + "y" * 1000}.get(
            request.headers.get("x-user", "")
        )

    house = House(allow=who)
    with logged() as records:
        async with house.client(headers={"x-user": "a"}) as anna:
            assert (await anna.get("api/session")).json() == {"who": "anna"}
            assert (await anna.get("")).status_code == 200
            assert (await anna.post("api/switch", json={"rule": "items", "on": False})).status_code == 200
            signing_in = await anna.post("api/session", json={"token": "x"})
            assert (await anna.delete("api/session")).status_code == 404
        async with house.client(headers={"x-user": "b"}) as forger:
            await forger.post("api/switch", json={"rule": "items", "on": True})
    assert signing_in.status_code == 404
    assert records[0].getMessage() == "anna: switch off rule items: done"
    line = records[-1].getMessage()
    assert line.startswith(
        "x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}INFO forged: line\N{REPLACEMENT CHARACTER}[2J"
    )
    assert len(line) < 300


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_browser_signs_in_with_a_cookie_that_no_script_and_no_other_path_sees(house: House) -> None:
    async with house.client() as client:
        answer = await client.post("api/session", json={"token": TOKEN})
        assert (await client.get("api/stats")).status_code == 200
        secure = await client.post(
            "api/session", json={"token": TOKEN}, headers={"origin": "https://app.test", "host": "app.test"}
        )

    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(
        r"dedup_admin=[\w-]{75}; Path=/_dedup; Max-Age=43200; HttpOnly; SameSite=Strict", cookie
    )
    assert secure.headers["set-cookie"].endswith("; SameSite=Strict; Secure")
    assert TOKEN not in cookie
    assert str(answer.url) == "http://app.test/_dedup/api/session"  # the token stands in no URL


async def test_a_signed_out_cookie_opens_nothing_any_more(house: House) -> None:
    browser = await house.browser()
    cookie = browser.cookies["dedup_admin"]
    gone = await browser.delete("api/session")
    await browser.aclose()
    async with house.client("192.0.2.66", headers={"cookie": f"dedup_admin={cookie}"}) as thief:
        replayed = [await thief.get("api/stats"), await thief.post("api/invalidate", json={"all": True})]

    assert "Max-Age=0" in gone.headers["set-cookie"]
    assert [one.status_code for one in replayed] == [401, 401]
    assert [entry[:3] for entry in await house.audited()] == [
        ("sign in", "session", "done"),
        ("sign out", "session", "done"),
        ("refused", "stats", "401 Unauthorized"),
        ("refused", "invalidate", "401 Unauthorized"),
    ]


async def test_a_session_is_over_after_twelve_hours(house: House) -> None:
    browser = await house.browser()
    cookie = {"cookie": f"dedup_admin={browser.cookies['dedup_admin']}"}
    await browser.aclose()
    async with house.client(headers=cookie) as client:
        house.clock.advance(12 * 3600 - 1)
        before = await client.get("api/stats")
        house.clock.advance(1)
        after = await client.get("api/stats")
        house.clock.advance(-24 * 3600)  # a cookie from the future is none of ours
        future = await client.get("api/stats")
    assert [before.status_code, after.status_code, future.status_code] == [200, 401, 401]


async def test_any_bit_of_a_cookie_that_is_changed_makes_it_worthless(house: House) -> None:
    browser = await house.browser()
    cookie = browser.cookies["dedup_admin"]
    await browser.aclose()
    for place in range(len(cookie)):
        changed = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
        async with house.client(f"10.1.{place}.1", headers={"cookie": f"dedup_admin={changed}"}) as forger:
            answer = await forger.get("api/stats")
        assert answer.status_code == 401 or door._decode(changed) == door._decode(cookie), place


async def test_another_token_s_session_is_none_here(house: House) -> None:
    other = House(allow="another-token-another-token")
    browser = other.client()
    await browser.post("api/session", json={"token": "another-token-another-token"})
    async with house.client(headers={"cookie": f"dedup_admin={browser.cookies['dedup_admin']}"}) as thief:
        assert (await thief.get("api/stats")).status_code == 401
    await browser.aclose()


async def test_another_process_with_the_token_knows_the_session(house: House) -> None:
    other = House()
    browser = await house.browser()
    async with other.client(headers={"cookie": f"x=1; dedup_admin={browser.cookies['dedup_admin']}"}) as same:
        assert (await same.get("api/stats")).status_code == 200
    await browser.aclose()


async def test_when_too_many_signed_out_everybody_signs_in_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_MAX_SIGNED_OUT", 2)
    bystander, *leaving = [await house.browser() for _ in range(4)]
    cookies = [one.cookies["dedup_admin"] for one in leaving]
    for one in leaving:
        await one.delete("api/session")
    statuses = [(await bystander.get("api/stats")).status_code]
    async with house.client() as thief:
        for cookie in cookies:
            answer = await thief.get("api/stats", headers={"cookie": f"dedup_admin={cookie}"})
            statuses.append(answer.status_code)
    house.clock.advance(1)
    back = await house.browser()
    assert (await back.get("api/stats")).status_code == 200
    for one in (bystander, *leaving, back):
        await one.aclose()
    assert statuses == [401] * 4


# -- other sites ------------------------------------------------------------------------------------------------------

CROSS = [
    {"origin": "http://evil.test"},
    {"origin": "null"},
    {"origin": "http://app.test.evil.test"},
    {"origin": "http://app.test:8080"},
    {"origin": "file://app.test"},
    {"origin": "http://app.test:nonsense"},
    {"origin": "null", "host": ":nonsense"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://app.test"},
    {"sec-fetch-site": "none"},
]


@pytest.mark.parametrize("headers", CROSS, ids=str)
async def test_another_site_changes_nothing_even_with_the_cookie(
    house: House, headers: dict[str, str]
) -> None:
    browser = await house.browser()
    cookie = browser.cookies["dedup_admin"]
    await browser.aclose()
    sent = headers | {"cookie": f"dedup_admin={cookie}"}
    async with house.client(headers=sent) as victim:
        answers = [
            await victim.post("api/invalidate", json={"all": True}),
            await victim.post("api/switch", json={"on": False}),
            await victim.delete("api/session"),
            await victim.post("api/session", json={"token": TOKEN}),
        ]

    assert [one.status_code for one in answers] == [403] * 4
    assert all("set-cookie" not in one.headers for one in answers)
    assert [entry[:3] for entry in await house.audited()][1:] == [
        ("refused", name, "403 Forbidden") for name in ("invalidate", "switch", "signOut", "signIn")
    ]


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
async def test_what_a_form_can_send_without_being_asked_changes_nothing(house: House, media: str) -> None:
    browser = await house.browser()
    for name in ("origin", "sec-fetch-site"):  # a browser of old
        del browser.headers[name]
    sent = {"content-type": media} if media else {}
    answer = await browser.post("api/invalidate", content=b'{"all": true}', headers=sent)
    await browser.aclose()

    assert answer.status_code == 415
    assert (await house.audited())[-1][:3] == ("refused", "invalidate", "415 Unsupported Media Type")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://app.test", "sec-fetch-site": "same-origin"},
        {"origin": "http://inside.test", "sec-fetch-site": "same-origin"},  # a proxy that changes Host
        {"origin": "http://app.test"},
        {"origin": "http://APP.test:80"},
        {"origin": "https://app.test"},  # a proxy that ends TLS
        {},
    ],
    ids=str,
)
async def test_the_page_itself_may(headers: dict[str, str]) -> None:
    house = House()
    browser = await house.browser()
    for name in ("origin", "sec-fetch-site"):
        del browser.headers[name]
    answer = await browser.post("api/switch", json={"on": False}, headers=headers)
    await browser.aclose()
    assert answer.status_code == 200


async def test_a_cross_site_page_gets_no_leave_to_read(house: House) -> None:
    browser = await house.browser()
    answer = await browser.get("api/stats", headers={"origin": "http://evil.test"})
    preflight = await browser.options(
        "api/invalidate", headers={"origin": "http://evil.test", "access-control-request-method": "POST"}
    )
    await browser.aclose()
    for one in (answer, preflight):
        assert not [name for name in one.headers if name.startswith("access-control")]
        assert one.headers["cross-origin-resource-policy"] == "same-origin"
    assert preflight.status_code in (403, 405)


# -- what is in the answers -------------------------------------------------------------------------------------------

SCRIPT = '"><script>alert(1)</script>'


async def test_scripts_in_names_tags_and_paths_stay_json(house: House) -> None:
    hostile = House(Rule("/{path:path}", ttl=60, name=f"rule {SCRIPT}", tags=["{path}", SCRIPT]))
    async with hostile.client() as client:
        await client.get("http://app.test/%3Cscript%3Ealert(1)%3C/script%3E")
    await hostile.dedup.invalidate(SCRIPT + "2")
    hostile.dedup.events.publish(ResponseInvalidated(at=1.0, by=SCRIPT, tags=(SCRIPT,), dropped=1))
    recorder = hostile.dedup.events._subscriptions[0]._listener
    await eventually(lambda: len(recorder.invalidations) == 2)  # type: ignore[attr-defined] # the administration's own listener
    async with hostile.owner() as owner:
        await owner.post("api/switch", json={"rule": f"rule {SCRIPT}", "on": False})
        answers = [
            await owner.get(path)
            for path in (
                "api/stats",
                "api/rules",
                "api/responses",
                "api/recent",
                "api/audit",
                f"api/responses?tag={SCRIPT}",
                f"api/responses?{SCRIPT}=1",
                f"{SCRIPT}",
            )
        ]
        answers.append(await owner.post("api/explain", json={"target": f"/{SCRIPT}"}))
        answers.append(await owner.post("api/invalidate", json={SCRIPT: 1}))
    for answer in answers:
        assert answer.headers["content-type"] == "application/json", answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        json.loads(answer.content)


async def test_every_answer_has_the_hard_headers(house: House) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    async with house.client() as stranger, house.owner() as owner:
        answers = [
            await stranger.get(""),
            await stranger.get("static/dom.js"),
            await stranger.get("api/stats"),
            await stranger.get("api/health/live"),
            await owner.get("api/stats"),
            await owner.get("nothing"),
            await owner.put("api/stats"),
            await owner.post("api/switch", content=b"{"),
        ]
    assert [one.status_code for one in answers] == [200, 200, 401, 200, 200, 404, 405, 415]
    for one in answers:
        assert one.headers["content-security-policy"] == policy
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["referrer-policy"] == "no-referrer"
        assert one.headers["x-frame-options"] == "DENY"
    assert [one.headers["cache-control"] for one in answers] == ["no-cache"] * 2 + ["no-store"] * 6
    for one in answers[5:]:
        assert list(one.json()) == ["error"]


async def test_the_page_is_the_same_for_everybody_and_known_again(house: House) -> None:
    async with house.client() as stranger, house.owner() as owner:
        page = await stranger.get("")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert (await owner.get("")).content == page.content
        again = await stranger.get("", headers={"if-none-match": page.headers["etag"]})
        script = await stranger.get("static/dom.js")
    assert (again.status_code, again.content) == (304, b"")
    assert script.headers["content-type"].startswith("text/javascript")


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        ("/_dedup//api/stats", "/_dedup//api/stats"),
        ("/_dedup/x/../api/stats", "/_dedup/x/../api/stats"),
        ("/_dedup/./api/stats", "/_dedup/./api/stats"),
        ("/_dedup/api%2fstats", "/_dedup/api/stats"),
        ("/_dedup/api%2Fhealth%2Flive", "/_dedup/api/health/live"),
        ("/_dedup/static%2f..%2f..%2fapi%2fstats", "/_dedup/static/../../api/stats"),
        ("/_dedup/static/..%2f..%2f..%2f..%2fetc/passwd", "/_dedup/static/../../../../etc/passwd"),
        ("/_dedup/static/%2e%2e/app.py", "/_dedup/static/../app.py"),
        ("/_dedup/static%5c..%5capp.py", "/_dedup/static\\..\\app.py"),
        ("/_dedup/api/stats%00.js", "/_dedup/api/stats\x00.js"),
        ("/_dedup/%61pi/nothing", "/_dedup/api/nothing"),
    ],
)
@pytest.mark.parametrize("knows", [False, True])
async def test_tricks_with_paths_lead_nowhere(house: House, raw: str, decoded: str, knows: bool) -> None:
    headers = [(b"authorization", f"Bearer {TOKEN}".encode())] if knows else []
    scope = make_scope("/", "GET", headers) | {"path": decoded, "raw_path": raw.encode()}
    scope["client"] = ("192.0.2.200", 1)
    asked = await Call(house.app, scope).done()
    assert asked.status == (404 if knows else 401)
    assert b"root:" not in asked.body
    assert b"import" not in asked.body
    assert json.loads(asked.body)["error"]


@pytest.mark.parametrize(
    "path", ["app.py", "static/", "static", "static/dom.js/", "index.html", "static/index.html"]
)
async def test_only_files_of_the_list_are_served(house: House, path: str) -> None:
    async with house.owner() as owner:
        assert (await owner.get(path)).status_code == 404


async def test_a_path_that_a_mount_takes_from_the_client_makes_no_header(house: House) -> None:
    scope = make_scope("/api/session", "POST", [(b"content-type", b"application/json")])
    scope |= {"root_path": "/x;\r\nset-cookie: a=b; Domain=evil", "path": "/api/session"}
    asked = await Call(house.admin, scope, json.dumps({"token": TOKEN}).encode()).done()
    cookie = (asked.header(b"set-cookie") or b"").decode()
    assert "\r" not in cookie
    assert "Path=/x%3B%0D%0Aset-cookie%3A%20a%3Db%3B%20Domain%3Devil;" in cookie


# -- too much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "limit=1001",
        "limit=0",
        "limit=-1",
        "limit=99999999999999999999",
        "limit=ten",
        "offset=-1",
        "offset=1000000001",
        "limit=1&limit=1000",
        "nothing=1",
        "tag=" + "x" * 501,
        "tag=",
        "&".join(f"a{n}=1" for n in range(30)),
        "tag=" + "%41" * 5000,
    ],
    ids=lambda query: query[:30],
)
async def test_pages_that_are_too_long_and_parameters_that_are_none_are_refused(
    house: House, query: str
) -> None:
    async with house.owner() as owner:
        answer = await owner.get(f"api/responses?{query}")
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e300", "null "])
async def test_a_time_is_a_number_of_seconds(house: House, value: str) -> None:
    async with house.owner() as owner:
        assert (await owner.get(f"api/analytics/rates?since={value}")).status_code == 400


@pytest.mark.parametrize("known", [True, False])
async def test_a_body_over_64_kib_is_refused_before_it_is_there(house: House, known: bool) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 16 * 1024
            yield b"[" * 16 * 1024

    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {TOKEN}".encode())]
    chunks = endless()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(chunks), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/_dedup/api/explain" if known else "/_dedup/api/session"
    await house.app(make_scope(path, "POST", headers), receive, send)
    assert sent[0]["status"] == 413
    assert read <= 96 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"[" * 60_000,
        b'{"on": "yes"}',
        b'{"on": true, "rule": 1}',
        b'{"on": true, "rule": ""}',
        b'{"on": true, "extra": 1}',
        b'{"on": true, "rule": "\\ud800"}',
        b"\xff\xfe",
        b'{"on": NaN}',
    ],
    ids=lambda body: str(body[:30]),
)
async def test_a_body_that_is_not_what_is_taken_changes_nothing(house: House, body: bytes) -> None:
    async with house.owner() as owner:
        answer = await owner.post("api/switch", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert (await house.audited())[-1] == ("refused", "switch", "400 Bad Request", 1)


# -- floods -----------------------------------------------------------------------------------------------------------


async def test_who_guesses_is_heard_no_more_after_ten(house: House) -> None:
    with logged() as records:
        async with house.client("203.0.113.1") as guesser:
            statuses = []
            for number in range(1000):
                headers = {"authorization": f"Bearer guess-{number:030}"}
                answer = await guesser.get("api/stats", headers=headers)
                statuses.append(answer.status_code)
            right = await guesser.get("api/stats", headers=BEARER)
            signing_in = await guesser.post("api/session", json={"token": TOKEN})
        async with house.client("203.0.113.2", headers=BEARER) as other:
            other_one = await other.get("api/stats")
    told = await house.audited()

    assert statuses == [401] * 10 + [429] * 990
    assert (right.status_code, signing_in.status_code) == (429, 429)
    assert 1 <= int(right.headers["retry-after"]) <= 61
    assert other_one.status_code == 200
    assert told == [
        ("refused", "stats", "401 Unauthorized", 10),
        ("refused", "stats", "429 Too Many Requests", 991),
        ("refused", "signIn", "429 Too Many Requests", 1),
    ]
    assert len(records) == 2 + 3 + 1  # 1 and 10; 1, 10 and 100; 1: a flood does not fill the log


@pytest.mark.thorough
async def test_as_many_requests_as_clients_can_send_for_ten_seconds_change_nothing() -> None:
    house = House(*RULES)
    end = time.monotonic() + 10
    kinds: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("GET", "api/stats", b"", {}),
        ("GET", "api/events", b"", {"cookie": "dedup_admin=" + "A" * 75}),
        ("POST", "api/invalidate", b'{"all":true}', {"authorization": "Bearer guess-guess-guess-guess"}),
        ("POST", "api/switch", b'{"on":false}', {"origin": "http://evil.test"}),
        ("POST", "api/session", b'{"token":"guess"}', {"content-type": "application/json"}),
    ]

    def flood(origin: str, number: int) -> Counter[int]:
        method, path, body, headers = kinds[number % len(kinds)]
        statuses: Counter[int] = Counter()
        connection = HTTPConnection(urlsplit(origin).netloc, timeout=30)
        while time.monotonic() < end:
            connection.request(method, f"/_dedup/{path}", body, headers)
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        connection.close()
        return statuses

    def go_on(origin: str) -> list[float]:
        """An app's visitor, all the while: how long each answer took."""
        times = []
        with httpx.Client() as visitor:
            while time.monotonic() < end:
                begun = time.monotonic()
                assert visitor.get(f"{origin}/items/secret-item").text == "run 1"
                times.append(time.monotonic() - begun)
        return times

    with serving(house.app) as origin, ThreadPoolExecutor(11) as people:
        visitor = people.submit(go_on, origin)
        floods = [people.submit(flood, origin, number) for number in range(10)]
        times = await asyncio.to_thread(visitor.result)
        statuses = sum((await asyncio.gather(*map(asyncio.wrap_future, floods))), Counter())

    refused = [one for one in await house.audited() if one[0] == "refused"]
    assert set(statuses) == {401, 429}
    assert statuses[429] > 1000
    assert sum(times_ for *_, times_ in refused) == statuses.total(), "each refusal is counted"
    assert len(refused) < 20
    assert (house.dedup.enabled, house.dedup.stats().responses, house.runs) == (True, 1, 1)
    assert len(house.inside.limiter.storage) < 10
    assert statistics.quantiles(times, n=20)[-1] < 0.5


async def test_a_minute_later_it_may_be_tried_again(house: House) -> None:
    async with house.client("203.0.113.1") as guesser:
        for _ in range(10):
            await guesser.get("api/stats", headers={"authorization": "Bearer x"})
        last = await guesser.get("api/stats", headers={"authorization": "Bearer x"})
        house.clock.advance(int(last.headers["retry-after"]))
        again = await guesser.get("api/stats", headers=BEARER)
    assert (last.status_code, again.status_code) == (429, 200)


async def test_whoever_is_signed_in_goes_on_while_the_same_address_is_flooded(house: House) -> None:
    browser = await house.browser("203.0.113.1")
    async with house.client("203.0.113.1") as guesser:
        for _ in range(50):
            await guesser.get("api/stats", headers={"authorization": "Bearer x"})
        probe = await guesser.get("api/health/live")
    kill = await browser.post("api/switch", json={"on": True})
    await browser.aclose()
    assert (kill.status_code, probe.status_code) == (200, 200)


async def test_guesses_at_the_sign_in_are_counted_too(house: House) -> None:
    async with house.client("203.0.113.1") as guesser:
        statuses = [
            (await guesser.post("api/session", json={"token": f"guess {number}"})).status_code
            for number in range(15)
        ]
    assert statuses == [401] * 10 + [429] * 5
    assert await house.audited() == [
        ("refused", "signIn", "401 Unauthorized", 10),
        ("refused", "signIn", "429 Too Many Requests", 5),
    ]


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"token": 1}', "application/json", 400),
        (b"token=x", "application/x-www-form-urlencoded", 415),
        (b" " * (MAX_BODY + 1), "application/json", 413),
    ],
    ids=["no JSON", "no text", "a form", "too long"],
)
async def test_sign_ins_that_cannot_be_read_are_counted_too(
    house: House, content: bytes, media: str, status: int
) -> None:
    async with house.client("203.0.113.1", headers={"content-type": media}) as stranger:
        statuses = [(await stranger.post("api/session", content=content)).status_code for _ in range(15)]
    assert statuses == [status] * 10 + [429] * 5
    assert await house.audited() == [
        ("refused", "signIn", f"{status} {HTTPStatus(status).phrase}", 10),
        ("refused", "signIn", "429 Too Many Requests", 5),
    ]


class Held:
    """What many wait for at once."""

    def __init__(self) -> None:
        self.waiting = 0
        self._go = asyncio.Event()

    async def wait(self) -> None:
        self.waiting += 1
        await self._go.wait()

    async def statuses(self, *requests: Coroutine[Any, Any, httpx.Response]) -> list[int]:
        """Let all of them come this far before one goes on."""
        tasks = [asyncio.create_task(one) for one in requests]
        await until(lambda: self.waiting == len(tasks))
        self._go.set()
        return [(await one).status_code for one in tasks]


async def test_guesses_at_the_sign_in_that_come_at_once_are_counted_too(house: House) -> None:
    held = Held()

    async def body(token: str) -> AsyncIterator[bytes]:
        await held.wait()
        yield json.dumps({"token": token}).encode()

    async with house.client("203.0.113.1", headers={"content-type": "application/json"}) as guesser:
        tokens = [*(f"guess {number}" for number in range(30)), TOKEN]
        statuses = await held.statuses(*(guesser.post("api/session", content=body(one)) for one in tokens))
    assert statuses == [401] * 10 + [429] * 21
    assert await house.audited() == [
        ("refused", "signIn", "401 Unauthorized", 10),
        ("refused", "signIn", "429 Too Many Requests", 21),
    ]


async def test_guesses_that_a_function_is_asked_about_at_once_are_counted_too() -> None:
    held = Held()

    async def allow(request: Any) -> str | None:
        await held.wait()
        return "owner" if request.headers["authorization"] == "right" else None

    house = House(allow=allow)
    async with house.client("203.0.113.1") as guesser:
        words = [*["wrong"] * 30, "right"]
        statuses = await held.statuses(
            *(guesser.get("api/stats", headers={"authorization": one}) for one in words)
        )
    assert statuses == [403] * 10 + [429] * 21


async def test_even_the_owner_asks_so_often_and_no_more() -> None:
    house = House(requests_per_minute=5, changes_per_minute=2)
    async with house.owner() as owner:
        changes = [(await owner.post("api/switch", json={"on": True})).status_code for _ in range(3)]
        reads = [(await owner.get("api/stats")).status_code for _ in range(3)]
        house.clock.advance(61)
        again = (await owner.get("api/stats")).status_code
    assert (changes, reads, again) == ([200, 200, 429], [200, 200, 429], 200)
    assert ("refused", "switch", "429 Too Many Requests", 1) in await house.audited()


async def test_strangers_without_credentials_are_counted_by_address() -> None:
    house = House(requests_per_minute=20)
    async with house.client("203.0.113.1") as flood:
        statuses = [(await flood.get("api/stats")).status_code for _ in range(30)]
    async with house.client("203.0.113.2") as other:
        page = await other.get("")
    assert statuses == [401] * 20 + [429] * 10
    assert page.status_code == 200


async def test_a_flood_from_everywhere_is_remembered_within_bounds(clock: FakeClock) -> None:
    limiter = Limiter(clock, failures=10)
    for number in range(MAX_COUNTERS + 5000):
        limiter.hit("failures", str(number))
    assert len(limiter.storage) == MAX_COUNTERS
    assert [limiter.hit("failures", "one") for _ in range(10)] == [0] * 10
    assert limiter.hit("failures", "one") > 0
    assert limiter.blocked("failures", "one") > 0
    assert limiter.blocked("failures", "another") == 0
    clock.advance(60)
    assert limiter.hit("failures", "one") == 0
    assert limiter.storage.check()
    limiter.storage.clear("nothing")
    assert limiter.storage.reset() == MAX_COUNTERS


def test_no_flood_pushes_out_what_people_changed(clock: FakeClock) -> None:
    audit = Audit(clock)
    audit.changed("owner", "switch off", "all", "done")
    for number in range(5000):
        audit.refused(f"unknown {number}", "stats", "401 Unauthorized")
        audit.dropped("code", f"tags {number}", "0 dropped")
    entries = audit.entries()
    assert len(entries) == 2001
    assert [one.who for one in entries if one.what == "switch off"] == ["owner"]


async def test_invalidations_of_ever_new_tags_push_no_switch_out_of_the_audit_log() -> None:
    house = House()
    async with house.owner() as owner:
        await owner.post("api/switch", json={"rule": None, "on": False})
        await owner.post("api/switch", json={"rule": None, "on": True})
    for number in range(1100):
        await house.dedup.invalidate(f"tag {number}")
    audit = house.inside.api.audit
    await eventually(lambda: any(one.target == "tags tag 1099" for one in audit.entries()))
    assert [one.what for one in audit.entries() if one.who == "token"] == ["switch on", "switch off"]


async def test_few_strangers_who_ask_for_everything_again_and_again_fill_no_log() -> None:
    house = House(requests_per_minute=10)
    with logged() as records:
        async with house.client("203.0.113.1") as one, house.client("203.0.113.2") as other:
            for _ in range(20):
                for operation in OPERATIONS:
                    for client in (one, other):
                        await client.request(operation.method, operation.path)
    told = await house.audited()

    strangers = [times for what, *_, times in told if what == "refused"]
    assert sum(strangers) == 2 * 20 * len(OPERATIONS) - 20 * 2, "all are counted, but for the open operation"
    assert len(records) < 3 * len(strangers)


def test_any_number_of_strangers_write_so_many_lines_a_minute(clock: FakeClock) -> None:
    audit = Audit(clock)
    with logged() as records:
        for minute in range(2):
            for number in range(5000):
                audit.refused(f"unknown {number}", "stats", "401 Unauthorized", is_stranger=True)
            audit.refused("unknown 0", "stats", "401 Unauthorized", is_stranger=True)
            audit.refused("owner", "switch", "409 Conflict")
            clock.advance(60)
            assert len(records) == (minute + 1) * (
                STRANGERS + 4 + 1
            )  # 1, 10, 100 and 1000 others; the owner's
    found = {(one.who, one.target): one.times for one in audit.entries()}
    assert len(found) == STRANGERS + 2
    assert found["unknown 0", "stats"] == 2
    assert found["unknown", "anything"] == 5000 - STRANGERS
    assert found["owner", "switch"] == 1


def test_a_repeat_is_one_entry_for_a_minute(clock: FakeClock) -> None:
    audit = Audit(clock)
    with logged() as records:
        for _ in range(1000):
            audit.refused("a", "stats", "401")
            audit.refused("b", "stats", "401")
        clock.advance(60)
        audit.refused("a", "stats", "401")
    assert [(one.who, one.times) for one in audit.entries()] == [("a", 1), ("b", 1000), ("a", 1000)]
    assert len(records) == 9


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("fe80::1%eth0", 1), "fe80::"),
        (("testclient", 1), "testclient"),
        (("x" * 1000, 1), "x" * 100),
        (None, "unknown"),
    ],
)
def test_strangers_are_counted_by_what_they_cannot_change(client: Any, name: str) -> None:
    assert address_of(client) == name


async def test_an_error_of_our_own_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(dedup=Dedup())

    def fail() -> None:
        raise RuntimeError("geheim")

    monkeypatch.setattr(house.dedup, "stats", fail)
    async with house.owner() as owner:
        answer = await owner.get("api/stats")
    assert (answer.status_code, answer.json()) == (
        500,
        {"error": "The server failed to answer; its log says why."},
    )
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_websocket_is_closed_at_the_door() -> None:
    house = House()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await house.admin({"type": "websocket", "path": "/api/stats", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_an_attacked_house_answers_the_app_s_own_requests_as_ever(house: House) -> None:
    async with house.client("203.0.113.1") as guesser:
        for _ in range(200):
            await guesser.get("api/stats", headers={"authorization": "Bearer x"})
    async with house.client() as client:
        assert (await client.get("http://app.test/items/secret-item")).text == "run 1"
