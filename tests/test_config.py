"""Configuration: keywords, TOML, URLs and the environment; one sentence for what can't be, whichever way it came."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, Rule
from dedup_middleware.stores.memory import DEFAULT_BYTES

from .kit import get

NOT_YET = "not available in this version"


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "dedup.toml"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return str(caught.value)


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bare", "more_body": False})


# -- TOML ------------------------------------------------------------------------------------------------------------


def test_a_file_says_the_same_as_keywords(toml: Callable[[str], Path]) -> None:
    file = toml(
        """
        store = "memory://?max_bytes=1000000"
        secret = "s3cret"
        enabled = true

        [default]
        ttl = 300
        max_responses = 10

        [[rule]]
        path = "/git/{repo}/status"
        name = "status"
        ttl = "1m"
        vary = ["accept"]
        ignore = ["query:utm_*"]
        identity = ["cookie:session"]
        tags = ["git:{repo}"]
        max_wait = "5s"
        max_followers = 5
        max_responses = 7
        max_bytes = 5000
        max_request_body = 8
        max_response_body = 9
        negative_ttl = 2
        share_errors = false
        collapse = true
        methods = ["get"]
        mode = "on"

        [[rule]]
        path = "/git/{repo}/commit"
        invalidates = ["git:{repo}"]
        """
    )
    status = Rule(
        "/git/{repo}/status",
        name="status",
        ttl=60,
        vary=["accept"],
        ignore=["query:utm_*"],
        identity=["cookie:session"],
        tags=["git:{repo}"],
        max_wait=5,
        max_followers=5,
        max_responses=7,
        max_bytes=5000,
        max_request_body=8,
        max_response_body=9,
        negative_ttl=2,
        share_errors=False,
        collapse=True,
        methods=["GET"],
        mode="on",
    )

    dedup = Dedup.from_toml(file)

    assert dedup.rules == (status, Rule("/git/{repo}/commit", invalidates=["git:{repo}"]))
    assert dedup.default == Rule(ttl=300, max_responses=10)
    assert dedup.enabled
    assert dedup.digest(b"x") == Dedup(secret="s3cret").digest(b"x")
    assert DedupMiddleware(app, config=file).dedup.rules == dedup.rules
    assert DedupMiddleware(app, config=str(file)).dedup.rules == dedup.rules


def test_a_file_says_all_that_an_http_cache_may_do(toml: Callable[[str], Path]) -> None:
    file = toml(
        """
        [[rule]]
        path = "/pages/{page:path}"
        ttl = "origin"
        vary = "origin"
        identity = "origin"
        stale_while_revalidate = "30s"
        stale_if_error = "5m"
        honor_request_directives = true
        targeted_cache_control = true
        heuristic_freshness = true
        share_cookies = true
        ignore_language_order = true
        ignore_field_spelling = true
        invalidate_on_error = false
        add_etag = true
        ttl_jitter = 0.1
        refresh_ahead = "5s"
        cache_status_key = true
        """
    )

    (rule,) = Dedup.from_toml(file).rules

    assert rule == Rule(
        "/pages/{page:path}",
        ttl="origin",
        vary="origin",
        identity="origin",
        stale_while_revalidate=30,
        stale_if_error=300,
        honor_request_directives=True,
        targeted_cache_control=True,
        heuristic_freshness=True,
        share_cookies=True,
        ignore_language_order=True,
        ignore_field_spelling=True,
        invalidate_on_error=False,
        add_etag=True,
        ttl_jitter=0.1,
        refresh_ahead=5,
        cache_status_key=True,
    )


def test_a_file_names_the_preset_of_a_shared_cache_and_overrides_what_it_likes(
    toml: Callable[[str], Path],
) -> None:
    file = toml(
        """
        [default]
        preset = "shared-cache"

        [[rule]]
        preset = "shared-cache"
        path = "/x"
        stale_if_error = 5
        share_cookies = false
        """
    )

    dedup = Dedup.from_toml(file)

    assert dedup.default == Rule.shared_cache()
    assert dedup.rules == (Rule.shared_cache("/x", stale_if_error=5, share_cookies=False),)


def test_keywords_beside_a_file_override_it(toml: Callable[[str], Path]) -> None:
    file = toml("enabled = true\n[[rule]]\npath = '/a'\n")

    wrapped = DedupMiddleware(app, config=file, enabled=False, rules=[Rule("/b")])

    assert not wrapped.dedup.enabled
    assert [rule.path for rule in wrapped.dedup.rules] == ["/b"]


def test_an_empty_file_is_the_default_policy(toml: Callable[[str], Path]) -> None:
    dedup = Dedup.from_toml(toml(""))

    assert dedup.rules == ()
    assert dedup.default == Rule()


@pytest.mark.parametrize(
    ("fields", "python"),
    [
        ("ttl = -1", {"ttl": -1}),
        ("ttl = 'soon'", {"ttl": "soon"}),
        ("ttl = 'ORIGIN'", {"ttl": "ORIGIN"}),
        ("ttl = 'origin'\nnegative_ttl = 5", {"ttl": "origin", "negative_ttl": 5}),
        ("ttl = 60\nidentity = 'origin'", {"ttl": 60, "identity": "origin"}),
        ("ttl = 60\nrefresh_ahead = '1m'", {"ttl": 60, "refresh_ahead": "1m"}),
        ("ttl = 60\nttl_jitter = 0.6", {"ttl": 60, "ttl_jitter": 0.6}),
        ("ttl = 60\nheuristic_freshness = true", {"ttl": 60, "heuristic_freshness": True}),
        ("cache_status_key = 'yes'", {"cache_status_key": "yes"}),
        ("ttl = true", {"ttl": True}),
        ("tll = 5", {"tll": 5}),
        ("path = 'x'", {"path": "x"}),
        ("path = '/{x:nope}'", {"path": "/{x:nope}"}),
        ("tags = ['a:{b}']", {"tags": ["a:{b}"]}),
        ("tags = 'a'", {"tags": "a"}),
        ("methods = 'GET'", {"methods": "GET"}),
        ("identity = 5", {"identity": 5}),
        ("vary = 'accept'", {"vary": "accept"}),
        ("mode = 'shadow'", {"mode": "shadow"}),
        ("stale_if_error = 5", {"stale_if_error": 5}),
        ("ttl = 5\ninvalidates = ['a']", {"ttl": 5, "invalidates": ["a"]}),
        ("max_bytes = '1k'", {"max_bytes": "1k"}),
    ],
)
@pytest.mark.parametrize(("table", "place"), [("[[rule]]", "rule[1]"), ("[default]", "default")])
def test_a_file_and_a_keyword_are_refused_with_the_same_sentence_but_for_the_place(
    fields: str, python: dict[str, Any], table: str, place: str, toml: Callable[[str], Path]
) -> None:
    by_keyword = refused(lambda: Rule(**python))
    file = toml(f"[[rule]]\npath = '/first'\n{table}\n{fields}\n")

    by_file = refused(lambda: Dedup.from_toml(file))

    assert by_keyword.startswith("Rule.")
    assert by_file == f"{file.name}: {place}.{by_keyword.removeprefix('Rule.')}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules = []", ["dedup.toml: rules", "perhaps rule is meant; only the fields", "store"]),
        ("[[rule]]\ntll = 5", ["dedup.toml: rule[0].tll: 5", "perhaps ttl is meant"]),
        ("[rule]\npath = '/x'", ["dedup.toml: rule", "[[rule]] tables"]),
        ("rule = 5", ["dedup.toml: rule", "5", "[[rule]] tables"]),
        ("rule = [5]", ["dedup.toml: rule[0]", "5", "a table"]),
        ("default = 5", ["dedup.toml: default", "5", "a table"]),
        ("records = 'mysql:///x'", ["records", "mysql:///x", "sqlite:///FILE"]),
        ("enabled = 'yes'", ["enabled", "'yes'", "true or false"]),
        ("store = 5", ["store", "5", "memory://"]),
        ("store = 'redis://cache:6379/0'", ["store", "redis://cache:6379/0", NOT_YET]),
        ("secret = 5", ["secret", "***", "text"]),
        ("[default]\npath = '/x'", ["default.path", "/x"]),
        ("[default]\nmethods = ['POST']", ["default.methods", "POST", "safe"]),
        ("[[rule]]\nname = 'a'\n[[rule]]\nname = 'a'", ["name", "'a'", "no other rule"]),
        ("a = ", ["dedup.toml", "a TOML file"]),
        ("[[rule]]\nttl = 1979-05-27", ["dedup.toml: rule[0].ttl", "seconds"]),
        ("[[rule]]\npreset = 'shared'", ["dedup.toml: rule[0].preset", "'shared'", '"shared-cache"']),
        ("[default]\npreset = 5", ["dedup.toml: default.preset", "5", '"shared-cache"']),
        ("[[rule]]\npreset = 'shared-cache'\nttl = 60", ["dedup.toml: rule[0].", 'ttl="origin"']),
        ("clock = 5", ["dedup.toml: clock", "only the fields"]),
    ],
)
def test_what_a_file_cannot_say_is_one_sentence_with_the_place(
    text: str, said: list[str], toml: Callable[[str], Path]
) -> None:
    file = toml(text)

    sentence = refused(lambda: Dedup.from_toml(file))

    assert "\n" not in sentence
    assert all(word in sentence for word in said), sentence


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "dedup.toml"

    sentence = refused(lambda: Dedup.from_toml(file))

    assert sentence == f"{file}: No such file or directory; needed: a TOML file that can be read"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = '\x00'", b"\xef\xbb\xbf = 1"])
def test_a_file_that_is_no_text_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "dedup.toml"
    file.write_bytes(content)

    assert "a TOML file" in refused(lambda: Dedup.from_toml(file))


def test_a_file_that_is_nested_too_deep_is_one_sentence(toml: Callable[[str], Path]) -> None:
    sentence = refused(lambda: Dedup.from_toml(toml("store = " + "[" * 5000 + "]" * 5000)))

    assert "dedup.toml: nested too deep; needed: a TOML file" in sentence


def test_a_file_that_is_not_there_or_is_a_folder_is_one_sentence(tmp_path: Path) -> None:
    assert "nothing.toml" in refused(lambda: Dedup.from_toml(tmp_path / "nothing.toml"))
    assert str(tmp_path) in refused(lambda: Dedup.from_toml(tmp_path))


def test_a_secret_is_never_shown(toml: Callable[[str], Path]) -> None:
    assert "42" not in refused(lambda: Dedup(secret=42))  # type: ignore[arg-type] # that is the mistake
    assert "4242" not in refused(lambda: Dedup.from_toml(toml("secret = 4242")))


# -- keywords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rules": 5}, ["rules", "5", "list of rules"]),
        ({"rules": "x"}, ["rules", "'x'", "list of rules"]),
        ({"rules": Rule("/x")}, ["rules", "Rule(", "list of rules"]),
        ({"rules": [Rule("/x"), {"path": "/y"}]}, ["rules[1]", "/y", "a Rule"]),
        ({"rules": [Rule("/x", name="a"), Rule("/y", name="a")]}, ["name", "'a'"]),
        ({"rules": [Rule("/x"), Rule("/y", name="/x")]}, ["name", "'/x'", "no other rule"]),
        ({"rules": [Rule("/y", name="/x"), Rule("/x")]}, ["name", "'/x'", "no other rule"]),
        ({"rules": [Rule("/x", name="default")]}, ["name", "'default'", "no other rule"]),
        ({"rules": [Rule("/x", name="a")], "default": Rule(name="a")}, ["name", "'a'", "no other rule"]),
        ({"rules": [Rule("/x")], "default": Rule(name="/x")}, ["name", "'/x'", "no other rule"]),
        ({"default": 300}, ["default", "300", "a Rule"]),
        ({"default": Rule("/x")}, ["default.path", "/x"]),
        ({"default": Rule(methods=["GET", "POST"], collapse=False)}, ["default.methods", "POST"]),
        ({"default": Rule(invalidates=["a"])}, ["default", "safe"]),
        ({"enabled": "yes"}, ["enabled", "'yes'", "true or false"]),
        ({"enabled": 1}, ["enabled", "1", "true or false"]),
        ({"clock": 3}, ["clock", "3", "time.monotonic"]),
        ({"records": "sqlite:///x.db"}, ["records", "sqlite:///x.db", "DEDUP_SECRET"]),
        ({"secret": ""}, ["secret", "not empty"]),
        ({"secret": 5}, ["secret", "not empty"]),
        ({"store": None}, ["store", "None", "memory://"]),
        ({"tll": 5}, ["tll", "5", "allowed: only the fields", "rules"]),
        ({"rule": []}, ["rule", "perhaps rules is meant; only the fields", "rules"]),
        ({"config": 5}, ["config", "5"]),
        ({"dedup": "x"}, ["dedup", "'x'", "a Dedup"]),
        ({"honor_request_directives": True}, ["honor_request_directives", "it in a rule"]),
    ],
)
def test_a_wrong_keyword_of_the_middleware_is_one_sentence_with_the_place_and_what_is_allowed(
    settings: dict[str, Any], said: list[str]
) -> None:
    sentence = refused(lambda: DedupMiddleware(app, **settings))

    assert "\n" not in sentence
    assert all(word in sentence for word in [*said, "allowed: "]), sentence


@pytest.mark.parametrize("wrapped", [None, 5, [Rule("/x")]])
def test_what_is_no_app_is_refused(wrapped: Any) -> None:
    assert refused(lambda: DedupMiddleware(wrapped)).startswith("DedupMiddleware.app: ")


def test_rules_without_names_may_have_one_path_and_a_name_that_is_nobody_elses_path() -> None:
    rules = [Rule("/x", ttl=5), Rule("/x", invalidates=["a"]), Rule("/y", name="/z"), Rule("/w", name="/w")]

    assert Dedup(rules, default=Rule(name="rest")).rules == tuple(rules)


@pytest.mark.parametrize("beside", [{"store": "memory://"}, {"config": "x.toml"}, {"enabled": True}])
def test_an_engine_that_is_given_takes_no_settings_beside_it(beside: dict[str, Any]) -> None:
    (name,) = beside

    sentence = refused(lambda: DedupMiddleware(app, dedup=Dedup(), **beside))

    assert sentence.startswith(f"DedupMiddleware.{name}: ")


def test_every_keyword_of_the_engine_is_one_of_the_middleware() -> None:
    import inspect

    from dedup_middleware.asgi import _SETTINGS

    assert set(_SETTINGS) == set(inspect.signature(Dedup).parameters)


# -- the store's URL -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "size"), [("memory://", DEFAULT_BYTES), ("memory://?max_bytes=4096", 4096), ("MEMORY://", None)]
)
def test_a_memory_url_may_bound_the_bytes(url: str, size: int | None) -> None:
    dedup = Dedup(store=url)

    assert size is None or dedup.store._max_bytes == size  # type: ignore[attr-defined] # a URL of memory makes a memory store


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory:/x",
        "memory://host",
        "memory:///path",
        "memory://#x",
        "memory://?max_bytes=0",
        "memory://?max_bytes=1",
        "memory://?max_bytes=1099",
        "memory://?max_bytes=5000&max_bytes=6000",
        "memory://?max_bytes=-1",
        "memory://?max_bytes=1k",
        "memory://?max_bytes=",
        "memory://?max_bytes=1&max_bytes=2&x=3",
        "memory://?bytes=5",
        "memcached://cache",
        "mongo://cache",
        "memory://[",
        5,
        b"memory://",
    ],
)
def test_an_unknown_store_is_refused_with_what_there_is(url: Any) -> None:
    sentence = refused(lambda: Dedup(store=url))

    assert sentence.startswith("Dedup.store: ")
    assert repr(url) in sentence
    assert "memory://?max_bytes=N" in sentence


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "unix", "REDIS"])
def test_a_store_of_a_later_version_is_refused_as_not_available_in_this_one(scheme: str) -> None:
    sentence = refused(lambda: Dedup(store=f"{scheme}://cache:6379/0"))

    assert NOT_YET in sentence


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@cache:6379/0",
        "redis://cache:6379/0?password=hunter2",
        "mongo://user:hun@ter2@cache:6379",
        "memory://user:hunter2@cache:6379",
        "postgresql://user:hunter2@cache:6379/db",
    ],
)
@pytest.mark.parametrize("setting", ["store", "records"])
def test_a_password_in_a_url_is_never_shown(setting: str, url: str, toml: Callable[[str], Path]) -> None:
    file = toml(f'{setting} = "{url}"')
    settings: dict[str, Any] = {setting: url}

    for sentence in (refused(lambda: Dedup(**settings)), refused(lambda: Dedup.from_toml(file))):
        assert "ter2" not in sentence
        assert "cache:6379" in sentence


# -- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "false", "off", "FALSE", " Off ", "no", "garbage", "2", "disabled"])
def test_an_environment_that_does_not_say_yes_switches_off(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDUP_ENABLED", value)

    assert not Dedup().enabled
    assert not Dedup(enabled=True).enabled


@pytest.mark.parametrize("value", ["1", "true", "on", "YES", " 1 ", ""])
def test_an_environment_that_says_yes_leaves_the_keyword_its_say(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEDUP_ENABLED", value)

    assert Dedup().enabled
    assert not Dedup(enabled=False).enabled


def test_the_environment_is_read_when_the_engine_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDUP_ENABLED", "0")
    off = Dedup()
    monkeypatch.delenv("DEDUP_ENABLED")

    assert not off.enabled
    assert Dedup().enabled


def test_the_environments_secret_keys_the_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Dedup().digest(b"x") != Dedup().digest(b"x")
    monkeypatch.setenv("DEDUP_SECRET", "s3cret")

    assert Dedup().digest(b"x") == Dedup().digest(b"x") == Dedup(secret=b"s3cret").digest(b"x")
    assert Dedup(secret="other").digest(b"x") != Dedup().digest(b"x")


# -- a failed start --------------------------------------------------------------------------------------------------


async def lifespan(app: Any, *, stop: bool = False) -> list[dict[str, Any]]:
    """What a server is told when it starts (and stops) the app."""
    told: list[dict[str, Any]] = []
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, Any]:
        return next(asked)

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return told


def wrong_setting(make: Callable[[], Any]) -> Any:
    wrong = make()
    wrong.add_middleware(DedupMiddleware, rules=[Rule("/x")], store="mongo://cache")
    return wrong


SENTENCE = refused(lambda: Dedup(store="mongo://cache"))


@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_under_add_middleware_a_wrong_setting_fails_the_start_with_the_sentence(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = await lifespan(wrong_setting(make))

    assert told == [{"type": "lifespan.startup.failed", "message": SENTENCE}]
    assert [record.getMessage() for record in caplog.records] == [SENTENCE]


@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_without_a_lifespan_a_wrong_setting_fails_every_request_and_never_runs_the_app(
    make: Callable[[], Any],
) -> None:
    wrong = wrong_setting(make)
    ran: list[str] = []

    def endpoint(request: Any) -> PlainTextResponse:
        ran.append(request.url.path)
        return PlainTextResponse("x")

    wrong.router.routes.append(Route("/x", endpoint))

    for _ in range(2):
        with pytest.raises(ConfigurationError, match="mongo"):
            await get(wrong, "/x")

    assert ran == []


async def test_under_add_middleware_a_right_setting_starts_and_stops() -> None:
    right = Starlette()
    right.add_middleware(DedupMiddleware, rules=[Rule("/x", ttl=5)])

    assert [message["type"] for message in await lifespan(right)] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_a_wrap_by_hand_raises_at_once_even_inside_somebody_elses_function() -> None:
    def create_app() -> Any:
        return DedupMiddleware(Starlette(), store="mongo://cache")

    assert refused(create_app) == SENTENCE


WRONG_APPS = {
    "add_middleware": """
        from starlette.applications import Starlette
        from dedup_middleware import DedupMiddleware
        app = Starlette()
        app.add_middleware(DedupMiddleware, store="mongo://cache")
    """,
    "FastAPI": """
        from fastapi import FastAPI
        from dedup_middleware import DedupMiddleware
        app = FastAPI()
        app.add_middleware(DedupMiddleware, store="mongo://cache")
    """,
    "wrapped by hand": """
        from starlette.applications import Starlette
        from dedup_middleware import DedupMiddleware
        app = DedupMiddleware(Starlette(), store="mongo://cache")
    """,
    "a mark": """
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route
        from dedup_middleware import DedupMiddleware, deduplicate
        @deduplicate(ttl=5, tags=["git:{repo}"])
        async def status(request):
            return PlainTextResponse("")
        app = Starlette(routes=[Route("/status", status)])
        app.add_middleware(DedupMiddleware)
    """,
}


@pytest.mark.parametrize("kind", WRONG_APPS)
def test_a_real_server_does_not_start_and_prints_the_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(textwrap.dedent(WRONG_APPS[kind]), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "wrong:app", "--port", str(port), "--app-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "DEDUP_ENABLED": "1"},
    )

    output = ended.stdout + ended.stderr
    assert ended.returncode != 0
    expected = "git:{repo}" if kind == "a mark" else SENTENCE
    assert expected in output
    assert "allowed: " in output
    if kind != "wrapped by hand":
        assert "Traceback" not in output


def test_a_field_of_a_rule_given_to_the_middleware_is_told_where_it_belongs() -> None:
    sentence = refused(lambda: DedupMiddleware(app, ttl=300))  # type: ignore[call-arg] # that is the point

    assert "default=Rule(ttl=...)" in sentence
