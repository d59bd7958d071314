"""Settings that nobody would write: only ConfigurationError comes out, and what loads works.

Law: a refusal is one line that names the place and shows no secret; a configuration that loads explains every request.
An input is a TOML file; `#rule` and a Python dict are the keywords of a Rule, `#store` and a text the URL of a store,
`#path` and a text a pattern with the paths that it is asked for in the lines below.
"""

from __future__ import annotations

import ast
import math
import re
import tempfile
import tomllib
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from dedup_middleware import ConfigurationError, Dedup, Rule
from dedup_middleware.config import FILE_FIELDS
from dedup_middleware.core.paths import PathPattern, PathTable
from dedup_middleware.core.rules import RULE_FIELDS

WORDS = (
    b'store = "memory://"', b'store = "memory://?max_bytes=5000"', b'store = "redis://u:hunter2secret@h/0"',
    b'secret = "hunter2secret"', b"enabled = false", b"[default]", b"[[rule]]", b"[rule]", b"rule = 5",
    b'path = "/a/{b}"', b'path = "/a/{b:int}/{c:path}"', b'methods = ["GET", "post"]', b'name = "n"', b'ttl = "1h5m"',
    b"ttl = 60", b"ttl = inf", b"ttl = nan", b"ttl = -1", b'vary = "origin"', b'vary = ["*", "-accept"]',
    b'vary = ["cookie:a", "state:b", "client"]', b'ignore = ["query:utm_*", "body:id", "header:x-*", "state:s"]',
    b'identity = "shared"', b'identity = ["cookie:sid", "user"]', b'tags = ["a:{b}"]', b'invalidates = ["a:{b}"]',
    b"collapse = true", b"max_wait = 1", b"max_bytes = 5", b"negative_ttl = 5", b"share_errors = false",
    b'mode = "off"', b'mode = "shadow"', b"max_responses = 0", b"stale_if_error = 5", b'records = "sqlite://"',
    b"1979-05-27T07:32:00Z", b"0xff", b"{a = 1}", b"[1, 2]", b"'''", b'"""', b'"\\n"', b'"a\\nb" = 1', b"\\u2028",
    b"#rule\n", b"#store\n", b"#path\n", b"memory://", b"?max_bytes=", b"file:///a", b"//u:p@h", b"{id:int}",
    b"{rest:path}", b"{a:uuid}", b"{a:float}", b"None", b"b''", b"()", b"{1, 2}", b"1e999", b"...", b'"\\ud800"',
    b'{"path": "/a/{b}", "ttl": 60}', b'"identity": ', b'"vary": ', b'"max_wait": ', b"0x" + b"f" * 4500,
)  # fmt: skip

PATHS = ("/", "/a/1", "/a/x/y", "/a/00000000-0000-0000-0000-000000000000", "/%61//b")
REQUESTS: tuple[tuple[str, bytes], ...] = (
    ("GET", b""),
    ("QUERY", b'{"id": 1, "token": "t"}'),
    ("POST", b"{}"),
)
HEADERS = {
    "Cookie": "sid=1; a=2",
    "X-A": "1",
    "Content-Type": "application/json",
    "Authorization": "Basic eA==",
}
KNOWN = frozenset((*RULE_FIELDS, *FILE_FIELDS, "records"))
_PASSWORD = re.compile(r"[a-z]+://[^/?#\s\"'@:]*:([^/?#\s\"'@]{6,})@[a-z]")


def run(data: bytes) -> Collection[str]:
    """Load it; refuse it in a sentence, or work with it."""
    kind, _, rest = data.partition(b"\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            match kind:
                case b"#rule":
                    return rule(rest)
                case b"#store":
                    return store(rest.decode("utf-8", "surrogateescape"))
                case b"#path":
                    return path(*rest.decode("utf-8", "surrogateescape").split("\n"))
                case _:
                    return file(data)
    except ConfigurationError as error:
        return refused(error, data)


def refused(error: ConfigurationError, data: bytes) -> Collection[str]:
    """A refusal: one line of bounded length that begins with the place and ends with what is allowed."""
    told = str(error)
    assert told.isprintable(), f"a refusal of more than one line, or not of text: {told[:200]!r}"
    assert len(told) < 1000, f"a refusal of {len(told)} characters: {told[:200]!r}"
    assert told.startswith(error.place)
    assert error.place
    assert error.allowed in told
    for secret in secrets(data):
        assert secret not in told, f"a secret shows: {told!r}"
        assert secret not in repr(error), f"a secret shows: {error!r}"
    name = error.place.rpartition(".")[2].rpartition(" ")[2]
    return [f"{name if name in KNOWN else 'another'}: {error.allowed[:30]}"]


def secrets(data: bytes) -> Iterator[str]:
    """The secret, and the passwords in URLs, of a file that says each once."""
    text = data.decode("utf-8", "replace")
    try:
        table = {"store": text[7:]} if text.startswith("#store\n") else tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    for name, value in table.items():
        if isinstance(value, str):
            found = [value] if name == "secret" and len(value) > 6 else _PASSWORD.findall(value)
            yield from (secret for secret in found if text.count(secret) == 1)


def file(data: bytes) -> Collection[str]:
    """A TOML file."""
    with tempfile.TemporaryDirectory() as folder:
        toml = Path(folder, "fuzzed.toml")
        toml.write_bytes(data)
        return works(_dedup(lambda **quiet: Dedup.from_toml(toml, **quiet)))


def rule(text: bytes) -> Collection[str]:
    """The keywords of a rule, as they are written in Python."""
    try:
        fields = ast.literal_eval(text.decode())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, SyntaxWarning):
        return ()
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        return ()
    made = Rule(**fields)
    assert hash(made) == hash(Rule(**fields))
    assert made == Rule(**fields)
    return works(_dedup(lambda **quiet: Dedup([made], **quiet)))


def store(url: str) -> Collection[str]:
    """The URL of a store."""
    return works(_dedup(lambda **quiet: Dedup(store=url, **quiet)))


def path(pattern: str, *paths: str) -> Collection[str]:
    """A pattern beside others: the table finds what trying one after the other finds."""
    patterns = [PathPattern(text) for text in ("/{path:path}", pattern, "/a/{b}", pattern + "/x", "/a/1")]
    table = PathTable((one, number) for number, one in enumerate(patterns))
    told = set()
    for asked in (*PATHS, *paths[:5]):
        matched = [(number, one.match(asked)) for number, one in enumerate(patterns)]
        expected = [(number, parameters) for number, parameters in matched if parameters is not None]
        assert table.matches(asked) == expected, f"{asked!r} under {pattern!r}"
        for number, parameters in expected:
            assert set(parameters) == patterns[number].parameters
        told.add(f"{[number for number, _ in expected]}")
    return told


def _dedup(make: Any) -> Dedup:
    made: Dedup = make(meter_provider=NoOpMeterProvider(), tracer_provider=NoOpTracerProvider())
    return made


def works(dedup: Dedup) -> Collection[str]:
    """What was loaded can be used: durations that clocks can add, limits, an explanation of any request."""
    told: set[str] = set()
    for one in (*dedup.rules, dedup.default):
        for field in ("ttl", "negative_ttl", "max_wait"):
            seconds = getattr(one, field)
            assert type(seconds) is float, f"{field} is {seconds!r}"
            assert seconds >= 0, f"{field} is {seconds!r}"
            assert math.isfinite(seconds), f"{field} is {seconds!r}"
        filled = re.sub(r"\{[^{}]*\}", "1", one.path)
        for asked in (filled, *PATHS):
            for method, body in (*REQUESTS, *((name, b"") for name in (one.methods or ())[:3])):
                explained = dedup.explain(method, asked, headers=HEADERS, body=body)
                told.add(f"{explained.decision} {explained.reason}")
    return told
