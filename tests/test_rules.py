"""Rules: what each field takes and refuses, which rule a request meets, and what stands beside what."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dedup_middleware import ANONYMOUS, ConfigurationError, Dedup, Rule
from dedup_middleware.core.decide import Bypass, Consider
from dedup_middleware.core.http import response_size

from .kit import make_scope


def refused(**fields: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        Rule(**fields)
    return caught.value


def allowed_after(sentence: str) -> str:
    return sentence.partition("; allowed: ")[2]


# -- what a field refuses --------------------------------------------------------------------------------------------


def each(field: str, *values: Any) -> list[tuple[str, Any]]:
    return [(field, value) for value in values]


WRONG: list[tuple[str, Any]] = [
    *each("path", 5, None, "", "x", "git/{repo}", "/{", "/{a}}", "/{a b}", "/{a:nope}"),
    *each("path", "/{a}/{a}", b"/x", ["/x"], "/{}"),
    *each("path", "//x", "/a//b", "/a/../b", "/a/.", "/./{a}", "/{a}/..", "/a\\b", "/a\x00b", "/a\nb"),
    *each("path", "/search?q=1", "/search?q={q}", "/x#top", "/a%20b", "/a%2fb"),
    *each("methods", "GET", 5, [], [5], [""], ["GE T"], b"GET", {"GET": 1}),
    *each("name", 5, "", b"x", ["x"], True),
    *each(
        "ttl",
        -1,
        -0.5,
        True,
        None,
        "",
        "5",
        "5 m",
        "m",
        "-5m",
        "5x",
        "5m5m",
        "1h5m1h",
        [5],
        b"5m",
        chr(0x665) + "s",
    ),
    *each("ttl", float("nan"), float("inf"), float("-inf"), "ORIGIN", "origin ", b"origin"),
    *each("vary", 5, "accept", b"accept", [5], [""], ["a b"], ["-accept"], {"accept": 1}),
    *each("vary", ["cookie:"], ["cookie:a b"], ["*", "-"], True, ["Cookie:Theme"], ["header:accept"]),
    *each("vary", ["x-*"], ["*", "-sec-*"], ["*", "-*"], ["cookie:a*"], ["state:*"], ["scope:te*"]),
    *each("ignore", "query:x", [5], ["x"], ["query:"], ["path:x"], ["header"], 5),
    *each("ignore", ["header:a b"], ["header:x-?"], ["header:x-[ab]"], ["Header:x"], ["cookie:a"]),
    *each("ignore", ["header:authorization"], ["header:Cookie"], ["header:x-api-key"]),
    *each("ignore", ["query:token"], ["body:password"], ["body:\ud800"]),
    *each("ignore", ["header:range"], ["header:Host"], ["header:content-type"], ["header:transfer-encoding"]),
    *each("ignore", ["header:content-language"], ["header:Content-Location"]),
    *each("vary", ["*", "-host"], ["*", "-Content-Type"], ["*", "accept", "-if-range"]),
    *each("identity", 5, None, "all", [], [5], [""], ["cookie:"], ["a b"], True, {}),
    *each("identity", ["cookie:s*"], ["x-*"], ["*"], ["Cookie:sid"], ["state:tenant"]),
    *each("tags", "chat", 5, [5], [""], ["chat:{port}"], ["chat:{"], ["{}"], None),
    *each("invalidates", "chat", 5, [5], [""], ["chat:{port}"], ["chat:}"], None),
    *each("collapse", 1, 0, "yes", "true", []),
    *each("max_wait", 0, "0s", -1, True, None, "soon", float("inf")),
    *[
        (field, value)
        for field in ("max_followers", "max_responses", "max_request_body", "max_response_body")
        for value in (-1, 1.5, 1.0, True, "1", None, "1k")
    ],
    ("max_responses", 0),
    *each("max_bytes", -1, 1.5, True, "1k", []),
    *each("negative_ttl", -1, True, None, "origin", "x", float("nan")),
    *each("share_errors", 1, 0, None, "true"),
    *each("invalidate_on_error", 1, 0, None, "false", []),
    *each("mode", "", "ON", "none", True, None, 5, [], "shadow"),
    *[
        row
        for field in ("stale_while_revalidate", "stale_if_error", "refresh_ahead")
        for row in each(field, -1, True, None, "origin", "5", "soon", [5], float("nan"), float("inf"), 5)
    ],
    *each("ttl_jitter", -0.1, 0.6, 1, True, None, "0.1", "10%", [0.1], float("nan"), 0.1),
    *each("honor_request_directives", 1, 0, None, "true", [], True),
    *each("heuristic_freshness", 1, 0, None, "true", [], True),
    *each("targeted_cache_control", 1, 0, None, "true", [], True),
    *each("share_cookies", 1, 0, None, "true", [], True),
    *each("ignore_language_order", 1, 0, None, "true", [], True),
    *each("ignore_field_spelling", 1, 0, None, "true", [], True),
    *each("add_etag", 1, 0, None, "true", [], True),
    *each("cache_status_key", 1, 0, None, "true", []),
]
"""The last value of a field that only a rule with a ttl may have is right in itself, and wrong without one."""


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda item: repr(item)[:40])
def test_a_wrong_value_is_refused_with_the_field_the_value_and_what_is_allowed(
    field: str, value: Any
) -> None:
    error = refused(**{field: value})

    sentence = str(error)
    assert error.place == f"Rule.{field}"
    assert sentence.startswith(f"Rule.{field}: ")
    shown = error.value
    assert shown is value or shown == value or shown in value or str(shown) == str(value), (shown, value)
    assert repr(shown) in sentence
    assert allowed_after(sentence)
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "path",
    ["/", "/a/", "/a b", "/.well-known/x", "/..a", "/a...", "/{a}.", "/{a}/{b}", "/100%", "/ä", "/a:b;c=d"],
)
def test_a_path_that_requests_may_have_is_taken(path: str) -> None:
    assert Rule(path).path == path


def test_a_write_may_invalidate_by_a_path_that_no_shared_request_has() -> None:
    assert Rule("/a//b", invalidates=["a"]).invalidates


def test_every_field_of_a_rule_has_its_wrong_values_above() -> None:
    assert {field for field, _ in WRONG} == set(Rule.__struct_fields__)


def test_what_a_later_version_brings_is_refused_as_not_available_in_this_one() -> None:
    error = refused(mode="shadow")

    assert error.place == "Rule.mode"
    assert '"shadow" is not available in this version' in str(error)


@pytest.mark.parametrize("field", ["tll", "TTL", "path_", "", "vary "])
def test_an_unknown_field_is_refused_with_the_list_of_the_fields_that_there_are(field: str) -> None:
    error = refused(**{field: 5})

    assert error.place == f"Rule.{field}"
    assert error.value == 5
    for known in Rule.__struct_fields__:
        assert known in allowed_after(str(error))


@pytest.mark.parametrize(
    ("field", "value", "forms"),
    [
        ("identity", None, ("separate", "credentials", "shared", "list", "function")),
        ("identity", 5, ("separate", "credentials", "shared", "list", "function")),
        ("identity", "all", ("separate", "credentials", "shared", "origin", "list", "function")),
        ("vary", 5, ("origin", "cookie:NAME", '"*"')),
        ("vary", "accept", ("origin", "cookie:NAME", '"*"')),
        ("ttl", "5", ("seconds", "5m", '"origin"')),
        ("mode", "x", ('"on"', '"off"')),
        ("tags", ["chat:{port}"], ("parameters of the path: {path}",)),
        ("max_wait", "0s", ("above 0",)),
        ("ttl_jitter", 0.6, ("a number from 0 to 0.5",)),
        ("stale_if_error", "soon", ("seconds", "5m")),
        ("heuristic_freshness", 1, ("true or false",)),
    ],
)
def test_what_is_allowed_names_every_form_that_the_field_has(
    field: str, value: Any, forms: tuple[str, ...]
) -> None:
    allowed = allowed_after(str(refused(**{field: value})))

    assert all(form in allowed for form in forms), allowed


def test_a_tag_with_an_unknown_parameter_is_told_the_parameters_of_the_path() -> None:
    error = refused(path="/git/{repo}/log/{count:int}", tags=["git:{repository}"])

    assert error.value == "git:{repository}"
    assert allowed_after(str(error)) == "parameters of the path: {count}, {repo}"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ttl": 60}, "ttl"),
        ({"ttl": "1ms"}, "ttl"),
        ({"negative_ttl": 1}, "negative_ttl"),
        ({"collapse": True}, "collapse"),
        ({"tags": ["b"]}, "tags"),
    ],
)
def test_a_rule_that_invalidates_neither_stores_nor_collapses(fields: dict[str, Any], field: str) -> None:
    error = refused(path="/x", invalidates=["a"], **fields)

    assert error.place == f"Rule.{field}"
    assert "beside invalidates" in str(error)


@pytest.mark.parametrize("field", ["ttl", "negative_ttl"])
@pytest.mark.parametrize("methods", [["POST"], ["POST", "delete"], ["REPORT"]])
def test_a_lifetime_for_unsafe_methods_alone_asks_for_collapse_in_writing(
    field: str, methods: list[str]
) -> None:
    fields: dict[str, Any] = {"methods": methods, field: 60}

    error = refused(**fields)

    assert error.place == f"Rule.{field}"
    assert "collapse=True" in str(error)
    assert Rule(**fields, collapse=True).shares("POST")
    assert Rule(**fields, mode="off").mode == "off"
    with pytest.raises(ConfigurationError, match="collapse=True"):
        Rule(**fields, collapse=False)


@pytest.mark.parametrize("field", ["ttl", "negative_ttl"])
@pytest.mark.parametrize(
    ("wrong", "place", "said"),
    [
        ({"max_bytes": 0}, "max_bytes", "from 1100 on"),
        ({"max_bytes": 1099}, "max_bytes", "from 1100 on"),
        ({"max_response_body": 0}, "max_response_body", "above 0"),
        ({"methods": ["HEAD"]}, None, "name GET too"),
        ({"methods": ["POST", "head"]}, None, "name GET too"),
    ],
)
def test_a_rule_with_a_lifetime_that_could_store_nothing_is_refused(
    wrong: dict[str, Any], place: str | None, said: str, field: str
) -> None:
    fields: dict[str, Any] = {field: 60, **wrong}

    error = refused(**fields)

    assert error.place == f"Rule.{place or field}"
    assert said in str(error)
    assert not Rule(**wrong).stores
    assert Rule(**fields, mode="off").mode == "off"


def test_the_least_bytes_that_a_rule_may_have_are_those_of_an_empty_response() -> None:
    assert Rule(ttl=60, max_bytes=response_size([], b"", ())).stores


@pytest.mark.parametrize("methods", [["HEAD", "GET"], ["QUERY"], ["GET", "POST"]])
def test_a_lifetime_beside_a_method_that_is_stored_is_taken(methods: list[str]) -> None:
    assert Rule(ttl=60, methods=methods).stores


ONLY_WHERE_SOMETHING_IS_STORED: list[tuple[str, Any]] = [
    ("stale_while_revalidate", 30.0),
    ("stale_if_error", 300.0),
    ("ttl_jitter", 0.1),
    ("refresh_ahead", 5.0),
    ("honor_request_directives", True),
    ("add_etag", True),
]
ONLY_WHERE_THE_APP_SAYS_HOW_LONG: list[tuple[str, Any]] = [
    ("heuristic_freshness", True),
    ("targeted_cache_control", True),
    ("share_cookies", True),
    ("ignore_language_order", True),
    ("ignore_field_spelling", True),
    ("identity", "origin"),
]


@pytest.mark.parametrize(("field", "value"), ONLY_WHERE_SOMETHING_IS_STORED)
def test_what_only_a_stored_response_has_is_refused_without_a_ttl(field: str, value: Any) -> None:
    error = refused(**{field: value})

    assert (error.place, error.value) == (f"Rule.{field}", value)
    assert allowed_after(str(error)) == "only beside a ttl"
    assert getattr(Rule(ttl=60, **{field: value}), field) == value
    assert getattr(Rule(ttl="origin", **{field: value}), field) == value


@pytest.mark.parametrize(("field", "value"), ONLY_WHERE_THE_APP_SAYS_HOW_LONG)
@pytest.mark.parametrize("ttl", [0, 60, "5m"])
def test_what_only_the_apps_own_directives_decide_is_refused_without_ttl_origin(
    field: str, value: Any, ttl: Any
) -> None:
    error = refused(ttl=ttl, **{field: value})

    assert (error.place, error.value) == (f"Rule.{field}", value)
    assert allowed_after(str(error)) == 'only beside ttl="origin"'
    assert getattr(Rule(ttl="origin", **{field: value}), field) == value


def test_a_refresh_begins_before_the_response_is_stale_and_not_before_it_came() -> None:
    for ahead in (60, 61, "2m"):
        error = refused(ttl=60, refresh_ahead=ahead)
        assert error.place == "Rule.refresh_ahead"
        assert allowed_after(str(error)) == "less than the ttl"

    assert Rule(ttl=60, refresh_ahead=59).refresh_ahead == 59
    assert Rule(ttl="origin", refresh_ahead="1h").refresh_ahead == 3600


def test_a_negative_ttl_beside_ttl_origin_is_refused_since_the_app_says_how_long() -> None:
    error = refused(ttl="origin", negative_ttl=5)

    assert (error.place, error.value) == ("Rule.negative_ttl", 5)
    assert "the app says how long" in str(error)


def test_ttl_origin_is_a_lifetime_and_so_refused_where_nothing_may_be_stored() -> None:
    assert refused(ttl="origin", invalidates=["a"]).place == "Rule.ttl"
    assert refused(ttl="origin", methods=["POST"]).place == "Rule.ttl"
    assert Rule(ttl="origin", methods=["POST"], collapse=True).stores


async def late(scope: Any) -> str:
    return str(scope)


class Late:
    async def __call__(self, scope: Any) -> str:
        return await late(scope)


@pytest.mark.parametrize("function", [late, Late()])
def test_an_identity_that_only_a_loop_could_ask_is_refused(function: Any) -> None:
    error = refused(identity=function)

    assert error.place == "Rule.identity"
    assert "not an async one" in str(error)


def test_a_long_value_is_shown_in_part() -> None:
    assert len(str(refused(name=["x" * 10_000]))) < 300


def test_a_number_that_python_cannot_spell_is_refused_in_one_sentence() -> None:
    assert str(refused(ttl=10**5000)).startswith("Rule.ttl: a number of too many digits is not allowed here;")


# -- what a field takes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        ("250ms", 0.25),
        ("5s", 5.0),
        ("5m", 300.0),
        ("2h5m", 7500.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("0s", 0.0),
    ],
)
@pytest.mark.parametrize(
    "field",
    ["ttl", "negative_ttl", "max_wait", "stale_while_revalidate", "stale_if_error", "refresh_ahead"],
)
def test_durations_are_seconds_or_a_text_with_units(field: str, written: Any, seconds: float) -> None:
    beside = {} if field in ("ttl", "negative_ttl", "max_wait") else {"ttl": "2d"}
    if field == "max_wait" and seconds == 0:
        assert refused(max_wait=written).value == written
    else:
        assert getattr(Rule(**{**beside, field: written}), field) == seconds


def test_the_defaults_are_the_documented_ones() -> None:
    rule = Rule()

    assert (rule.path, rule.methods, rule.name) == ("/{path:path}", ("GET", "HEAD", "QUERY"), None)
    assert (rule.ttl, rule.negative_ttl, rule.max_wait) == (0.0, 0.0, 30.0)
    assert (rule.vary, rule.ignore, rule.identity) == (None, (), "separate")
    assert (rule.tags, rule.invalidates, rule.collapse) == ((), (), None)
    assert (rule.max_followers, rule.max_responses, rule.max_bytes) == (1000, 1000, None)
    assert (rule.max_request_body, rule.max_response_body) == (64 * 1024, 1024 * 1024)
    assert (rule.share_errors, rule.mode) == (True, "on")
    assert (rule.stale_while_revalidate, rule.stale_if_error, rule.refresh_ahead) == (0.0, 0.0, 0.0)
    assert (rule.ttl_jitter, rule.honor_request_directives, rule.heuristic_freshness) == (0.0, False, False)
    assert (rule.targeted_cache_control, rule.share_cookies) == (False, False)
    assert (rule.ignore_language_order, rule.ignore_field_spelling) == (False, False)
    assert rule.invalidate_on_error is True
    assert (rule.add_etag, rule.cache_status_key) == (False, False)
    assert Rule(invalidates=["a"]).methods == ("POST", "PUT", "PATCH", "DELETE")


PRESET: dict[str, Any] = {
    "ttl": "origin",
    "vary": "origin",
    "identity": "origin",
    "honor_request_directives": True,
    "heuristic_freshness": True,
    "targeted_cache_control": True,
    "share_cookies": True,
    "ignore_language_order": True,
    "ignore_field_spelling": True,
    "invalidate_on_error": False,
    "stale_if_error": 86_400.0,
}


def test_the_preset_of_a_shared_cache_switches_on_what_rfc_9111_lets_one_do_and_nothing_else() -> None:
    assert Rule.shared_cache() == Rule(**PRESET)
    assert Rule.shared_cache("/static/{file:path}", name="static") == Rule(
        "/static/{file:path}", name="static", **PRESET
    )


@pytest.mark.parametrize("field", [*PRESET, "ttl_jitter", "tags", "max_wait"])
def test_a_field_beside_the_preset_overrides_or_adds_to_it(field: str) -> None:
    given: dict[str, Any] = {
        "ttl": "origin",
        "vary": ("accept",),
        "identity": "shared",
        "invalidate_on_error": True,
        "stale_if_error": 0.0,
        "ttl_jitter": 0.25,
        "tags": ("a",),
        "max_wait": 1.0,
    }
    value = given.get(field, False)

    assert getattr(Rule.shared_cache(**{field: value}), field) == value


def test_a_preset_that_an_override_contradicts_is_refused_as_any_rule() -> None:
    with pytest.raises(ConfigurationError, match=r"Rule\.heuristic_freshness"):
        Rule.shared_cache(ttl=60)
    with pytest.raises(ConfigurationError, match=r"Rule\.tll"):
        Rule.shared_cache(tll=60)


@pytest.mark.parametrize(
    ("fields", "assesses"),
    [
        ({}, False),
        ({"ttl": 60}, False),
        ({"ttl": 60, "refresh_ahead": 5, "ttl_jitter": 0.1, "add_etag": True}, False),
        ({"ttl": "origin"}, True),
        ({"ttl": 60, "stale_while_revalidate": 5}, True),
        ({"ttl": 60, "stale_if_error": 5}, True),
        ({"ttl": 60, "honor_request_directives": True}, True),
        ({"ttl": "origin", "mode": "off"}, False),
    ],
)
def test_a_stale_response_is_looked_at_only_where_it_may_be_of_use(
    fields: dict[str, Any], assesses: bool
) -> None:
    assert Rule(**fields).assesses is assesses


def test_a_rule_is_frozen_and_holds_nothing_that_can_change_later() -> None:
    tags = ["a"]
    rule = Rule("/x", tags=tags, methods=["get", "GET"], vary=["Accept"], identity=["cookie:A", "User"])
    tags.append("b")

    assert rule.tags == ("a",)
    assert rule.methods == ("GET",)
    assert rule.vary == ("accept",)
    assert rule.identity == ("cookie:A", "user")
    with pytest.raises(AttributeError):
        rule.ttl = 5  # type: ignore[misc] # that is the mistake


def test_the_path_may_be_positional_and_everything_else_is_named() -> None:
    assert Rule("/x").path == "/x"
    with pytest.raises(TypeError):
        Rule("/x", ["GET"])  # type: ignore[call-arg] # that is the mistake


# -- which rule a request meets --------------------------------------------------------------------------------------


def met(dedup: Dedup, target: str, method: str = "GET", **more: Any) -> str:
    return dedup.plan(make_scope(target, method, **more)).label


def test_the_first_rule_whose_path_and_methods_match_wins() -> None:
    dedup = Dedup(
        [
            Rule("/git/{repo}/status", name="status"),
            Rule("/git/{repo}/{rest:path}", name="rest", methods=["GET"]),
            Rule("/git/one/{what}", name="late"),
            Rule("/{any}", name="segment"),
        ]
    )

    assert met(dedup, "/git/one/status") == "status"
    assert met(dedup, "/git/one/log") == "rest"
    assert met(dedup, "/git/one/log", "HEAD") == "late"
    assert met(dedup, "/git/two/log", "HEAD") == "default"
    assert met(dedup, "/x") == "segment"
    assert met(dedup, "/x", "POST") == "default"
    assert met(dedup, "/") == "default"


@pytest.mark.parametrize(
    ("pattern", "target", "matches"),
    [
        ("/n/{id:int}", "/n/5", True),
        ("/n/{id:int}", "/n/x", False),
        ("/n/{id:int}", "/n/5/", False),
        ("/n/{id}", "/n/a%20b", True),
        ("/n/{id}", "/n/", False),
        ("/f/{name}.json", "/f/a.json", True),
        ("/f/{name}.json", "/f/a.xml", False),
        ("/f/{rest:path}", "/f/a/b/c", True),
        ("/f/{rest:path}", "/f/", True),
        ("/f/{rest:path}", "/f", False),
        ("/a.b", "/aXb", False),
        ("/x", "/x/", False),
        ("/x", "/X", False),
    ],
)
def test_a_pattern_matches_as_in_a_route_table(pattern: str, target: str, matches: bool) -> None:
    assert met(Dedup([Rule(pattern, name="it")]), target) == ("it" if matches else "default")


def test_a_pattern_never_matches_a_path_that_ends_in_a_line_feed() -> None:
    dedup = Dedup([Rule("/x/{id}", name="it")])
    scope = make_scope("/x/5")
    scope["path"], scope["raw_path"] = "/x/5\n", b"/x/5%0A"

    plan = dedup.plan(scope)

    assert isinstance(plan, Bypass)
    assert plan.reason == "target"


@pytest.mark.parametrize(
    ("root_path", "path", "label"),
    [("", "/x", "it"), ("/api", "/api/x", "it"), ("/api", "/x", "it"), ("/api", "/apix/x", "default")],
)
def test_a_rule_matches_the_path_below_root_path(root_path: str, path: str, label: str) -> None:
    assert met(Dedup([Rule("/x", name="it")]), path, root_path=root_path) == label


def test_two_rules_with_one_pattern_are_told_apart_by_method_and_fill_their_tags() -> None:
    dedup = Dedup(
        [
            Rule("/chat/{port}", methods=["GET"], ttl=5, tags=["chat:{port}", "chats"], name="read"),
            Rule("/chat/{port}", methods=["POST"], invalidates=["chat:{port}"], name="write"),
        ]
    )

    read, write = (dedup.plan(make_scope("/chat/9222", method)) for method in ("GET", "POST"))

    assert isinstance(read, Consider)
    assert (read.label, read.tags) == ("read", ("tag:chat:9222", "tag:chats"))
    assert isinstance(write, Bypass)
    assert (write.label, write.reason, write.unsafe) == ("write", "invalidates", True)
    assert write.invalidates_on_error
    assert write.tags == ("tag:chat:9222",)


def test_a_parameter_with_braces_in_it_is_not_filled_in_twice() -> None:
    dedup = Dedup([Rule("/t/{a}/{b}", ttl=5, tags=["{a}-{b}"])])

    plan = dedup.plan(make_scope("/t/{b}/x"))

    assert isinstance(plan, Consider)
    assert plan.tags == ("tag:{b}-x",)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "REPORT", "get", "MKCOL"])
def test_an_unsafe_or_unknown_method_is_never_shared_unless_written(method: str) -> None:
    plain = Dedup().plan(make_scope("/x", method))
    written = Dedup([Rule("/x", methods=[method], collapse=True)]).plan(make_scope("/x", method.upper()))

    assert isinstance(plain, Bypass)
    assert (plain.reason, plain.unsafe) == ("method", True)
    assert isinstance(written, Consider)


PAGES = Rule.shared_cache("/pages/{page}")


@pytest.mark.parametrize(
    ("rules", "default", "invalidates"),
    [
        ([], Rule.shared_cache(), False),
        ([PAGES], Rule(), False),
        ([], Rule(), True),
        ([Rule("/pages/{page}", ttl=60)], Rule.shared_cache(), True),
        ([PAGES, Rule("/pages/1", ttl=60)], Rule(), True),
        ([PAGES], Rule.shared_cache(), False),
        ([Rule.shared_cache("/pages/{page}", methods=["GET", "POST"])], Rule(), False),
        ([PAGES, Rule("/{any:path}", invalidates=["a"], invalidate_on_error=False)], Rule(), False),
        ([PAGES, Rule("/pages/{page}", invalidates=["a"])], Rule.shared_cache(), True),
    ],
)
def test_the_rules_that_store_there_say_whether_a_failed_write_invalidates_or_one_that_invalidates(
    rules: list[Rule], default: Rule, invalidates: bool
) -> None:
    plan = Dedup(rules, default=default).plan(make_scope("/pages/1", "POST"))

    assert isinstance(plan, Bypass)
    assert (plan.unsafe, plan.invalidates_on_error) == (True, invalidates)


def test_a_rule_switched_off_bypasses_and_still_stands_before_the_next() -> None:
    dedup = Dedup([Rule("/jobs/{id}", mode="off", name="jobs"), Rule("/jobs/5", ttl=60, name="five")])

    plan = dedup.plan(make_scope("/jobs/5"))

    assert isinstance(plan, Bypass)
    assert (plan.reason, plan.label, plan.unsafe) == ("off", "jobs", False)


@pytest.mark.parametrize("method", ["GET", "HEAD", "QUERY"])
def test_an_unknown_route_stores_nothing(method: str) -> None:
    # What nobody opted in is never switched on.
    plan = Dedup([Rule("/known", ttl=60)]).plan(make_scope("/unknown", method))

    assert isinstance(plan, Consider)
    assert not plan.rule.stores


@pytest.mark.slow
def test_the_memory_of_plans_is_bounded_and_changes_no_answer(make_dedup: Callable[..., Dedup]) -> None:
    dedup = make_dedup(Rule("/n/{id}", name="it", ttl=5, tags=["n:{id}"]))
    plans = dedup.plans_at(0)

    for number in range(20_000):
        for _ in range(2):
            plan = dedup.plan(make_scope(f"/n/{number}"))
            assert isinstance(plan, Consider)
            assert plan.tags == (f"tag:n:{number}",)

    assert plans.capacity < len(plans) <= 2 * plans.capacity
    for _ in range(2):
        dedup.plan(make_scope("/n/" + "x" * 100_000))
    assert all(len(target[1]) < 2000 for target in [*plans.young, *plans.old])


def test_paths_that_come_once_push_out_none_that_comes_again(make_dedup: Callable[..., Dedup]) -> None:
    dedup = make_dedup(Rule("/n/{id}", ttl=5))
    plans = dedup.plans_at(0)  # as a middleware holds them
    for _ in range(2):
        dedup.plan(make_scope("/n/known"))
    known = dedup.plan(make_scope("/n/known"))

    for number in range(20_000):
        dedup.plan(make_scope(f"/n/{number}"))

    assert dedup.plan(make_scope("/n/known")) is known
    assert len(plans) == 1


def test_a_plan_shows_nothing_of_the_path_that_it_is_for(make_dedup: Callable[..., Dedup]) -> None:
    plan = make_dedup(Rule("/n/{id}", ttl=5, tags=["n:{id}"])).plan(make_scope("/n/a-secret"))

    assert "secret" not in repr(plan)


def test_a_plan_of_rules_that_change_meanwhile_is_not_remembered(
    make_dedup: Callable[..., Dedup], monkeypatch: pytest.MonkeyPatch
) -> None:
    dedup = make_dedup(Rule("/a", name="it", ttl=5))
    remembered = dedup.plans_at(0)
    dedup.plan(make_scope("/a"))  # else it would come for the first time, and not be remembered for that
    book = dedup.book
    planned = book.plan

    def plan(scope: Any, place: int = 0) -> Any:
        """Another thread is quicker."""
        found = planned(scope, place)
        monkeypatch.undo()
        dedup.switch("it", on=False)
        return found

    monkeypatch.setattr(book, "plan", plan)
    assert isinstance(dedup.plan(make_scope("/a")), Consider)
    assert len(remembered) == 0
    assert isinstance(dedup.plan(make_scope("/a")), Bypass)


@pytest.mark.parametrize(
    "change", ["a rule is switched", "a mark asks for one", "an administration is mounted"]
)
def test_whatever_changes_the_rules_forgets_the_plans_that_are_remembered(
    make_dedup: Callable[..., Dedup], change: str
) -> None:
    dedup = make_dedup(Rule("/a", name="it", ttl=5))
    plans = dedup.plans_at(0)  # as a middleware holds them

    def plan() -> tuple[type, str]:
        dedup.plan(make_scope("/a"))
        dedup.plan(make_scope("/a"))
        found = dedup.plan(make_scope("/a"))
        assert len(plans) == 1, "it is remembered"
        return type(found), found.label

    assert plan() == (Consider, "it")
    match change:
        case "a rule is switched":
            dedup.switch("it", on=False)
            assert plan() == (Bypass, "it")
            dedup.switch("it", on=True)
            assert plan() == (Consider, "it")
        case "a mark asks for one":
            before = dedup.plan(make_scope("/a"))
            dedup.add_rules({("/a", ("GET",)): Rule("/a", name="marked", ttl=5)})
            after = dedup.plan(make_scope("/a"))
            assert isinstance(before, Consider)
            assert isinstance(after, Consider)
            assert before.prefix != after.prefix, "of another edition of the rules"
        case "an administration is mounted":
            dedup.leave_alone("/a")
            assert plan() == (Bypass, "it")


@pytest.mark.slow
def test_plans_are_forgotten_while_another_thread_makes_middlewares() -> None:
    dedup = Dedup()
    memories = [dedup.plans_at(place) for place in range(200)]
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            memories.append(dedup.plans_at(len(memories)))
            del memories[1000:]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    maker = threading.Thread(target=make)
    try:
        maker.start()
        for _ in range(1000):
            dedup.leave_alone("/administration")
    finally:
        stop.set()
        maker.join()
        sys.setswitchinterval(interval)


@pytest.mark.slow
def test_a_thousand_rules_are_found_as_one() -> None:
    dedup = Dedup([Rule(f"/r{number}/{{id}}", name=f"r{number}") for number in range(1000)])

    assert {met(dedup, f"/r{number}/5") for number in range(1000)} == {f"r{n}" for n in range(1000)}


def test_a_number_of_thousands_of_digits_is_matched_as_it_stands(make_dedup: Callable[..., Dedup]) -> None:
    plan = make_dedup(Rule("/n/{id:int}", tags=["n:{id}"])).plan(make_scope("/n/" + "7" * 5000))

    assert isinstance(plan, Consider)
    assert plan.tags == ("tag:n:" + "7" * 5000,)


def test_nobody_in_particular_has_a_name() -> None:
    assert repr(ANONYMOUS) == "ANONYMOUS"


def test_patterns_that_end_in_texts_of_one_length_are_told_apart() -> None:
    dedup = Dedup([Rule("/{rest:path}.css", name="styles"), Rule("/{rest:path}.txt", name="texts")])

    assert [met(dedup, f"/a/b.{kind}") for kind in ("css", "txt", "png")] == ["styles", "texts", "default"]
