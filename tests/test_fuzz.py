"""Fuzzing: the corpus of each target breaks nothing, a bounded run finds nothing, and a planted bug is found.

More of it: `python -m tests.fuzz fingerprint --seconds 300 --seed 1`; one input again: `--replay FILE`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dedup_middleware import ConfigurationError, Dedup, Rule, config
from dedup_middleware.core import (
    answer,
    canonical,
    conditional,
    fields,
    masks,
    paths,
    ranges,
    reading,
    seen,
    structured,
)
from dedup_middleware.core.fingerprint import Fingerprinter, Hasher
from dedup_middleware.core.memo import Memo
from dedup_middleware.core.surroundings import Part

from .fuzz import __main__ as command
from .fuzz.engine import Search, SlowError, Target, limited
from .fuzz.mutations import shrunk
from .fuzz.targets import TARGETS, corpus
from .kit import make_scope

pytestmark = pytest.mark.slow

EXECUTIONS, LIMIT = 200, 600
INPUTS = [(name, file, data) for name in TARGETS for file, data in corpus(name).items()]

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


# -- the corpus, and a little more -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data"), [pytest.param(n, d, id=f"{n}-{f}") for n, f, d in INPUTS])
def test_what_was_worth_keeping_breaks_nothing(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@each_target
def test_a_bounded_run_finds_nothing(target: Target) -> None:
    running = Search(target, corpus(target.name).values()).run(EXECUTIONS)
    broken = [running.minimal(found) for found in running.findings.values()]
    assert not broken, "\n".join(f"{found.error} with {found.data!r}" for found in broken)


@each_target
def test_every_file_of_the_corpus_is_small_and_reaches_what_no_smaller_one_does(target: Target) -> None:
    files = corpus(target.name).values()
    assert 10 <= len(files) <= 100
    assert all(len(data) <= 2048 for data in files)
    running = Search(target, sorted(files, key=len))
    assert not running.findings
    assert len(running.kept) > 0.8 * len(files)


@each_target
def test_one_seed_is_one_run(target: Target) -> None:
    def story(seed: int) -> list[bytes]:
        return list(Search(target, list(corpus(target.name).values())[-4:], seed).run(25).kept)

    assert story(7) == story(7)
    assert story(7) != story(8)


# -- planted bugs ----------------------------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def forgets_the_query(patch: pytest.MonkeyPatch) -> None:
    read = Fingerprinter._read
    patch.setattr(
        Fingerprinter,
        "_read",
        lambda self, prefix, scope, body, shape, said: read(
            self, prefix, scope, body, shape, (*said[:4], b"", *said[5:])
        ),
    )


def forgets_the_body(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fingerprinter, "body_part", lambda self, scope, body, memo: b"raw")


def remembers_too_little_of_a_request(patch: pytest.MonkeyPatch) -> None:
    class Blunt(Memo[object, bytes]):
        def put(self, key: object, value: bytes) -> None:
            super().put(b"", value)

        def get(self, key: object) -> bytes | None:
            return super().get(b"")

    patch.setattr(seen, "Memo", Blunt)


def shows_a_field_that_is_not_keyed(patch: pytest.MonkeyPatch) -> None:
    part = reading.Reading.part
    patch.setattr(
        reading.Reading, "part", lambda self, name: Part.VISIBLE if name == b"x-a" else part(self, name)
    )


def takes_every_request_id_for_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reading.Reading, "against_grammar", lambda self, layout, values: [])


def takes_one_for_one_point_nought(patch: pytest.MonkeyPatch) -> None:
    import json

    patch.setattr(
        canonical, "parse", lambda body: json.loads(body, parse_float=lambda text: int(float(text)))
    )


def keeps_white_space(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(canonical, "canonical", lambda body, ignored=(): body)


def raises_where_there_is_no_client(patch: pytest.MonkeyPatch) -> None:
    read = Fingerprinter.key_below

    def broken(self: Any, prefix: bytes, scope: Any, body: bytes | None, *_read: object) -> Any:
        assert scope["client"][0]
        return read(self, prefix, scope, body)

    patch.setattr(Fingerprinter, "key_below", broken)


def overlooks_no_store(patch: pytest.MonkeyPatch) -> None:
    add = fields.Directives.add
    patch.setattr(
        fields.Directives,
        "add",
        lambda self, name, text: None if name == b"no-store" else add(self, name, text),
    )


def overlooks_what_does_not_parse(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields, "_RESTRICTING", ())


def reads_the_first_line_of_vary_only(patch: pytest.MonkeyPatch) -> None:
    read = fields.names_listed
    patch.setattr(fields, "names_listed", lambda lines: read([*lines][:1]))


def shares_what_connection_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(answer, "names_listed", lambda lines: frozenset())


def shares_cookies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(answer, "PERSONAL_FIELDS", frozenset())


def raises_for_an_odd_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields, "seconds", lambda value: None if value is None else int(value))


def never_finds_a_weak_tag(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields, "none_match", lambda lines, etag: any(etag in line for line in lines))


def believes_the_larger_of_two_ages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields.Directives, "_stricter_number", lambda self, name, text: text or b"0")


def forgets_a_field_that_is_limited(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields.Directives, "_stricter_names", lambda self, name, text: text)


def reads_two_digits_as_this_century(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields, "_nearest", lambda year, *rest: fields._epoch(2000 + year, *rest[:-1]))


def sends_a_byte_too_few(patch: pytest.MonkeyPatch) -> None:
    there = ranges.satisfiable
    patch.setattr(
        ranges, "satisfiable", lambda specs, length: [(a, max(a, b - 1)) for a, b in there(specs, length)]
    )


def ends_a_string_at_any_quote(patch: pytest.MonkeyPatch) -> None:
    import re

    patch.setattr(structured, "_STRING", re.compile(rb'"[^"]*+"'))


def takes_the_length_of_a_304(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(conditional, "_OF_THE_BODY", frozenset())


def drops_a_cookie_too_many(patch: pytest.MonkeyPatch) -> None:
    import re

    from dedup_middleware.core import callers

    patch.setattr(callers, "ANALYTICS_COOKIE", re.compile(rb"_ga.*|sid"))


def loads_with_a_key_error(patch: pytest.MonkeyPatch) -> None:
    load = config.load

    def broken(file: Any) -> Any:
        table = load(file)
        return {**table, "store": table["store"]}

    patch.setattr(config, "load", broken)


def accepts_a_negative_duration(patch: pytest.MonkeyPatch) -> None:
    from dedup_middleware.core import rules

    patch.setattr(
        rules, "duration", lambda place, value: float(value) if isinstance(value, (int, float)) else 0.0
    )


def shows_a_password(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(masks, "_url", lambda text: text)


def loses_a_pattern(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(paths._Bag, "ending", lambda self, text: [])


def names_no_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ConfigurationError, "__str__", lambda self: "no")


PLANTED: dict[str, list[Plant]] = {
    "fingerprint": [
        forgets_the_query,
        forgets_the_body,
        remembers_too_little_of_a_request,
        shows_a_field_that_is_not_keyed,
        takes_every_request_id_for_noise,
        takes_one_for_one_point_nought,
        keeps_white_space,
        raises_where_there_is_no_client,
    ],
    "headers": [
        overlooks_no_store,
        overlooks_what_does_not_parse,
        reads_the_first_line_of_vary_only,
        shares_what_connection_names,
        shares_cookies,
        raises_for_an_odd_number,
        never_finds_a_weak_tag,
        believes_the_larger_of_two_ages,
        forgets_a_field_that_is_limited,
        reads_two_digits_as_this_century,
        sends_a_byte_too_few,
        ends_a_string_at_any_quote,
        takes_the_length_of_a_304,
        drops_a_cookie_too_many,
    ],
    "configuration": [
        loads_with_a_key_error,
        accepts_a_negative_duration,
        shows_a_password,
        loses_a_pattern,
        names_no_place,
    ],
}


@pytest.mark.parametrize(
    ("name", "plant"),
    [pytest.param(name, plant, id=plant.__name__) for name, plants in PLANTED.items() for plant in plants],
)
def test_a_planted_bug_is_found(name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the corpus or by a bounded run from it."""
    known = already_broken(name)
    plant(monkeypatch)
    running, inputs = Search(TARGETS[name]), iter(corpus(name).values())
    while running.executions < LIMIT and running.findings.keys() <= known:
        if (data := next(inputs, None)) is not None:
            running.attempt(data)
        else:
            running.step()
    places = running.findings.keys() - known
    assert places, (
        f"{running.executions} inputs did not notice that the package {plant.__name__.replace('_', ' ')}"
    )
    print(f"{plant.__name__}: {running.findings[places.pop()].error[:200]} ({running.executions} inputs)")


@cache
def already_broken(name: str) -> frozenset[str]:
    """What the corpus finds without any planted bug: nothing, or the planted bugs prove nothing."""
    return frozenset(Search(TARGETS[name], corpus(name).values()).findings)


# -- the engine ------------------------------------------------------------------------------------------------------


LETTERS = [bytes([letter]) for letter in range(97, 123)]


def locked(data: bytes) -> Collection[str]:
    if data[:1] != b"f":
        return ()
    if data[1:2] != b"u":
        return ()
    if data[2:3] != b"z":
        return ()
    if data[3:4] != b"z":
        return ()
    raise KeyError(data)


def lock(watched: str) -> Target:
    return Target("lock", locked, LETTERS, [watched])


def test_the_search_is_guided_by_what_it_reaches() -> None:
    guided, blind = (Search(lock(watched), [b"a"]).run(5000) for watched in (__file__, "nowhere"))
    assert [found.error for found in guided.findings.values()]
    assert not blind.findings
    assert len(guided.kept) == 4


def test_words_guide_where_no_line_does() -> None:
    target = Target(
        "words",
        lambda data: {str(at) for at, (a, b) in enumerate(zip(data, b"fuzz", strict=False)) if a == b},
        LETTERS,
        [],
    )
    assert Search(target, [b"a"]).run(1500).known == {"0", "1", "2", "3"}


def test_a_tracer_that_was_there_is_there_again() -> None:
    before = sys.gettrace()
    Search(lock(__file__), [b"fuzz", b"a"])
    assert sys.gettrace() is before


def test_a_finding_shrinks_to_what_it_needs() -> None:
    running = Search(lock(__file__), [b"fuzz" + b"\nmore" * 20])
    (found,) = running.findings.values()
    assert running.minimal(found).data == b"fuzz"
    assert shrunk(b"a\nbc\nd", lambda data: b"c" in data) == b"c"


def test_a_loop_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from .fuzz import engine

    monkeypatch.setattr(engine, "CPU_SECONDS", 0.05)

    def stuck(data: bytes) -> Collection[str]:
        while data:
            pass
        return ()

    running = Search(Target("stuck", stuck, LETTERS, []), [b"", b"a"])
    assert [found.error for found in running.findings.values()] == ["SlowError: more than 0.05 s of CPU time"]
    with pytest.raises(SlowError), limited():
        stuck(b"a")


def test_a_finding_is_told_with_the_command_that_replays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overlooks_no_store(monkeypatch)
    arguments = ["headers", "--executions", "200", "--findings", str(tmp_path)]
    assert command.main(arguments) == 1
    told = capsys.readouterr().out
    file = next(iter(tmp_path.iterdir()))
    assert f"python -m tests.fuzz headers --replay {tmp_path}/headers-" in told
    assert "findings" in told
    with pytest.raises(AssertionError):
        command.main(["headers", "--replay", str(file)])
    monkeypatch.undo()
    assert command.main(["headers", "--replay", str(file)]) == 0
    assert "nothing is broken" in capsys.readouterr().out


def test_what_a_run_keeps_becomes_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "CORPUS", tmp_path)
    monkeypatch.setattr(command, "corpus", lambda name: {"a": b"a"})
    monkeypatch.setitem(
        TARGETS,
        "headers",
        lock(__file__)._replace(name="headers", run=lambda data: {data[:1].hex()} & {"61", "62"}),
    )
    assert command.main(["headers", "--executions", "3000", "--keep"]) == 0
    assert sorted(file.read_bytes() for file in (tmp_path / "headers").iterdir()) == [b"", b"a", b"b"][1:]


# -- what was found --------------------------------------------------------------------------------------------------


# leaves names in capitals, so that two bodies that differ only in white space share a key.
@pytest.mark.parametrize("name", [b"content-encoding", b"Content-Encoding"])
def test_an_encoded_body_is_never_read_as_json_however_its_field_is_spelled(name: bytes) -> None:
    scope = make_scope("/", "QUERY", [(b"content-type", b"application/json"), (name, b"x")])
    reader = Fingerprinter(Rule(), 0, Hasher(b"a secret"))
    assert reader.body_part(scope, b'{"a":1}', Memo(1)) != reader.body_part(scope, b'{"a": 1}', Memo(1))


def test_json_is_read_as_json_however_its_field_is_spelled() -> None:
    scope = make_scope("/", "QUERY", [(b"Content-Type", b"application/json")])
    reader = Fingerprinter(Rule(), 0, Hasher(b"a secret"))
    assert reader.body_part(scope, b'{"a":1}', Memo(1)) == reader.body_part(scope, b'{"a": 1}', Memo(1))


@pytest.mark.parametrize("field", ["ttl", "negative_ttl", "max_wait"])
@pytest.mark.parametrize("value", ["9" * 400 + "d", 10**400, math.inf], ids=["text", "int", "inf"])
def test_a_duration_that_no_clock_can_add_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^Rule.{field}: "):
        Rule(**{field: value})


def test_a_refused_number_of_thousands_of_digits_can_be_told() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Rule(name=16**5000)  # type: ignore[arg-type] # that is the mistake
    assert str(refused.value).startswith("Rule.name: ")


@pytest.mark.parametrize("key", ["a\\nb", "a\\u2028b", "a" * 5000], ids=["line feed", "separator", "long"])
@pytest.mark.parametrize("before", ["", "[default]\n", "[[rule]]\n"], ids=["file", "default", "rule"])
def test_a_strange_key_is_refused_in_one_short_line(tmp_path: Path, before: str, key: str) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(f'{before}"{key}" = 1')
    with pytest.raises(ConfigurationError) as refused:
        Dedup.from_toml(file)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("more", ["\n", "x" * 1000], ids=["line feed", "long"])
def test_a_strange_path_is_refused_in_one_short_line(more: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Rule("/{a}/{a}" + more)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("line", ['stroe = "redis://u:hunter2secret@h/0"', 'secrt = "hunter2secret"'])
def test_a_misspelled_key_shows_no_secret(tmp_path: Path, line: str) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(line)
    with pytest.raises(ConfigurationError) as refused:
        Dedup.from_toml(file)
    assert "hunter2secret" not in str(refused.value)
    assert "hunter2secret" not in repr(refused.value)


@pytest.mark.parametrize(
    "date",
    [b"Sun, 06 Nov 1994 28:49:37 GMT", b"Sat, 31 Feb 2024 08:49:37 GMT", b"Sun, 06 Nov 0000 08:49:37 GMT",
     b"Sun, 00 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:60:37 GMT"],
)  # fmt: skip
def test_a_date_that_does_not_exist_is_none(date: bytes) -> None:
    assert fields.http_date(date) is None
