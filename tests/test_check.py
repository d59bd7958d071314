"""`python -m dedup_middleware check FILE.toml`: a right configuration as a table, a wrong one as one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dedup_middleware.__main__ import main
from dedup_middleware.records import engines

RIGHT = """
[[rule]]
name = "chat"
path = "/chat/{port}/history"
ttl = "5m"
vary = []
tags = ["chat:{port}"]

[[rule]]
path = "/chat/{port}/messages"
methods = ["POST"]
invalidates = ["chat:{port}"]
"""


def test_a_right_configuration_is_printed_in_the_order_in_which_its_rules_are_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(RIGHT, encoding="utf-8")

    assert main(["check", str(file)]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    _, head, *rows = printed.out.splitlines()
    assert head.split() == ["rule", "path", "methods", "ttl", "vary", "identity", "tags", "invalidates"]
    assert [row.split() for row in rows] == [
        ["chat", "/chat/{port}/history", "GET,HEAD,QUERY", "300s", "[]", "separate", "chat:{port}", "-"],
        ["2", "/chat/{port}/messages", "POST", "0s", "-", "separate", "-", "chat:{port}"],
        ["default", "/{path:path}", "GET,HEAD,QUERY", "0s", "-", "separate", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[[rule]]\npath = '/x'\nttl = -1\n", ("ttl", "-1")),
        ("[[rule]]\npath = '/x'\ntll = 5\n", ("tll",)),
        ("[[rule]]\npath = '/x'\ntags = ['chat:{port}']\n", ("tags", "{port}")),
        ("[[rule]\n", ()),
    ],
)
def test_a_wrong_configuration_is_one_sentence_with_the_file_and_the_place(
    wrong: str, said: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(wrong, encoding="utf-8")

    assert main(["check", str(file)]) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    (sentence,) = printed.err.splitlines()
    assert all(word in sentence for word in (str(file), *said))


def test_a_configuration_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "no-such-file.toml"]) == 1

    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("no-such-file.toml: ")


@pytest.mark.parametrize(
    "url", ["sqlite:///{folder}/records.db", "postgresql://user:password@database.test/records"]
)
def test_a_ledger_is_neither_made_nor_asked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    for kind in (engines._Sqlite, engines._Postgres):
        monkeypatch.setattr(kind, "do", lambda *_, **__: asked.append(url))
    file = tmp_path / "dedup.toml"
    file.write_text(f'secret = "s3cret"\nrecords = "{url.format(folder=tmp_path)}"\n', encoding="utf-8")

    assert main(["check", str(file)]) == 0

    assert "is right" in capsys.readouterr().out
    assert [one.name for one in tmp_path.iterdir()] == ["dedup.toml"]
    assert asked == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("records = 'mysql:///x'\nsecret = 'x'", ("mysql:///x", "sqlite:///FILE")),
        ("records = 'sqlite:///records.db'", ("sqlite:///records.db", "DEDUP_SECRET")),
        ("records = 5\nsecret = 'x'", ("5", "sqlite:///FILE")),
        ("records_detail = ['tags']", ("records_detail", "beside records")),
    ],
)
def test_what_names_no_ledger_is_refused_all_the_same(
    settings: str, said: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dedup.toml"
    file.write_text(settings, encoding="utf-8")

    assert main(["check", str(file)]) == 1

    (sentence,) = capsys.readouterr().err.splitlines()
    assert all(word in sentence for word in said), sentence


@pytest.mark.parametrize("file", ["dedup.toml", "\x1b[2J\nforged.toml"])
def test_no_name_moves_the_cursor_or_makes_a_line_of_its_own(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong, missing = tmp_path / file, tmp_path / f"wrong {file}", tmp_path / f"missing {file}"
    name = r"\u001b[2J\n\u202eforged  /admin"
    right.write_text(f'[[rule]]\npath = "/a"\nname = "{name}"\ntags = ["{name}"]\n', encoding="utf-8")
    wrong.write_text(f'[[rule]]\nmethods = ["{name}"]\n', encoding="utf-8")

    assert [main(["check", str(one)]) for one in (right, wrong, missing)] == [0, 1, 1]

    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert len(printed.err.splitlines()) == 2
    assert (printed.out + printed.err).replace("\n", "").isprintable()
    assert r"\x1b[2J\n\u202eforged  /admin" in printed.out
