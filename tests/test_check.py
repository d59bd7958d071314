"""`python -m dedup_middleware check FILE.toml`: a right configuration as a table, a wrong one as one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dedup_middleware.__main__ import main

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
