"""The documentation: every snippet runs, every list is the code's, every link leads somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

import dedup_middleware
from dedup_middleware import ConfigurationError, Dedup, DedupMiddleware, Rule
from dedup_middleware.__main__ import main as command_line
from dedup_middleware.core import names
from dedup_middleware.core.status import REASONS
from docs._burst import Bar, draw, tree

from .kit import GatedApp, get

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", *PAGES]
INSTALL = (
    "python3 -m venv .venv && .venv/bin/python -m pip install -q -e '.[{extra}]' && .venv/bin/python -m "
)


class Block(msgspec.Struct, frozen=True):
    """A fenced block: its language, what it shall show (`refused`, `check`), and the text block that follows."""

    page: str
    line: int
    language: str
    shows: str
    code: str
    followed_by: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Any]:
    found = []
    for file in TEXTS:
        text = file.read_text(encoding="utf-8")
        fences = list(re.finditer(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        for number, fence in enumerate(fences, 1):
            followed = "".join(after[3] for after in fences[number : number + 1] if after[1] == "text")
            line = text.count("\n", 0, fence.start()) + 1
            block = Block(file.name, line, fence[1], fence[2] or "", fence[3], followed)
            if block.language in languages:
                found.append(pytest.param(block, id=str(block)))
    return found


def compiled(code: str, name: str) -> CodeType:
    found: CodeType = compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return found


async def executed(code: CodeType, given: dict[str, Any]) -> dict[str, Any]:
    result = eval(code, given)
    if inspect.isawaitable(result):
        await result
    return given


def around(block: Block) -> dict[str, Any]:
    """What a snippet finds: an app and, where it imports nothing, the package's public names."""
    given: dict[str, Any] = {"__name__": "snippet", "app": Starlette()}
    if "import " not in block.code:
        given |= {name: getattr(dedup_middleware, name) for name in dedup_middleware.__all__}
    return given


async def answers(app: Any) -> bool:
    """Whether the app, with whatever middleware the snippet gave it, is built and answers."""
    return (await get(app, "/nothing/is/here")).status in (200, 404)


# -- snippets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"))
async def test_a_python_snippet_runs_or_is_refused_as_it_says(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = compiled(block.code, str(block))
    if block.shows == "refused":
        with pytest.raises(ConfigurationError) as caught:
            await executed(code, around(block))
        assert str(caught.value) == block.followed_by.strip()
        return
    assert not block.shows
    after = await executed(code, around(block))
    assert await answers(after["app"])


@pytest.mark.parametrize("block", blocks("toml"))
async def test_a_toml_snippet_is_a_configuration_or_refused_as_it_says(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dedup.toml").write_text(block.code, encoding="utf-8")
    if block.shows == "refused":
        with pytest.raises(ConfigurationError) as caught:
            Dedup.from_toml("dedup.toml")
        assert str(caught.value) == block.followed_by.strip()
        return
    assert await answers(DedupMiddleware(Starlette(), config="dedup.toml"))
    assert block.shows in {"", "check"}
    if block.shows == "check":
        assert command_line(["check", "dedup.toml"]) == 0
        assert capsys.readouterr().out == block.followed_by


@pytest.mark.parametrize("block", blocks("sh"))
def test_a_shell_snippet_names_only_what_there_is(block: Block) -> None:
    words = shlex.split(block.code, comments=True)
    for module in (words[i + 1] for i, word in enumerate(words) if word == "-m"):
        assert module in {
            "venv",
            "pip",
            "pytest",
            "uvicorn",
            "example_app",
            "dedup_middleware",
            "tests.benchmarks",
            "tests.benchmarks.records",
            "docs._burst",
            "docs._dashboard",
        }
    assert not [word for word in words if word.endswith((".yaml", ".toml")) and not (ROOT / word).exists()]


def test_no_block_is_left_out_of_these_tests() -> None:
    known = {"python", "toml", "sh", "text", "mermaid", "promql", "json", "yaml"}
    fences = re.findall(r"^```([^\n]*)\n.*?^```$", "\n".join(map(read, TEXTS)), re.MULTILINE | re.DOTALL)

    assert {fence.partition(" ")[0] for fence in fences} <= known


FRAMEWORKS = dict(
    re.findall(
        r"^\| ([^|]+) \| `([^`]+)` \|$",
        (ROOT / "docs/quickstart.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_one_line_of_each_framework_wraps_its_app(framework: str) -> None:
    """With stand-ins for what is not installed here: what counts is the line."""
    inner = Starlette() if framework in {"Starlette", "FastAPI"} else GatedApp(opened=True)
    given: dict[str, Any] = {
        "DedupMiddleware": DedupMiddleware,
        "app": SimpleNamespace(asgi_app=inner) if framework == "Quart" else inner,
        "get_asgi_application": lambda: inner,
    }
    await executed(compiled(FRAMEWORKS[framework], framework), given)

    app = {"Quart": lambda: given["app"].asgi_app, "Django (in `asgi.py`)": lambda: given["application"]}
    call = await get(app.get(framework, lambda: given["app"])())
    assert (call.header(b"cache-status") or b"").startswith(b"dedup; fwd=uri-miss")


def test_every_framework_has_its_line() -> None:
    wanted = "Starlette FastAPI Litestar Quart Django Falcon BlackSheep Sanic plain"

    assert [framework.split()[0] for framework in FRAMEWORKS] == wanted.split()


# -- lists that are the code's ---------------------------------------------------------------------------------------


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[0].splitlines()[2:]]


def test_the_table_of_rules_has_every_field_with_its_default() -> None:
    documented = {
        cells[0].strip("`| "): ast.literal_eval(cells[2].strip("`"))
        for cells in table("rules.md", "## All fields")
    }
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in msgspec.structs.fields(Rule)
    }

    assert documented == defaults


def test_every_reason_is_explained_once() -> None:
    documented = [
        reason
        for cells in table("collapsing.md", "## Why was this not shared?")
        for reason in re.findall(r"`([\w-]+)`", cells[0])
    ]

    assert sorted(documented) == sorted(REASONS)


def test_noise_is_what_the_page_says_and_its_samples_match() -> None:
    documented = {
        cells[0].strip("`| ").encode(): cells[2].strip("`| ").encode()
        for cells in table("security.md", "## What is noise")
    }

    assert set(documented) == set(names.NOISE)
    for field, sample in documented.items():
        assert names.NOISE[field].fullmatch(sample), field


def listed(label: str) -> str:
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- names: {label} -->\n```text\n(.*?)```", text, re.DOTALL)
    assert found is not None, label
    return found[1]


@pytest.mark.parametrize(
    "label",
    [
        "_CREDENTIALS",
        "_CREDENTIAL_WORDS",
        "ADDRESS_FIELDS",
        "OVERRIDES",
        "PERSONAL_FIELDS",
        "ONE_EXCHANGE",
        "HOP_BY_HOP",
    ],
)
def test_each_list_of_names_on_the_page_is_the_code_s(label: str) -> None:
    assert {name.encode() for name in listed(label).split()} == getattr(names, label)


def test_the_analytics_cookies_on_the_page_are_the_code_s() -> None:
    assert listed("ANALYTICS_COOKIE").strip().encode() == names.ANALYTICS_COOKIE.pattern


def test_each_secret_on_the_page_is_one() -> None:
    words = listed("secret").split()

    assert words
    assert not [word for word in words if not names.is_secret(word)]


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", dedup_middleware.__all__)
def test_every_public_name_is_in_the_docs(name: str) -> None:
    assert any(re.search(rf"(?<!\w){name}(?!\w)", read(file)) for file in TEXTS)


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(Rule)])
def test_every_field_of_a_rule_is_in_the_changelog(field: str) -> None:
    assert f"`{field}`" in read(ROOT / "CHANGELOG.md")


def test_the_design_names_every_room_and_no_other() -> None:
    package = ROOT / "dedup_middleware"
    rooms = {
        file.relative_to(package).as_posix()
        for file in (*package.glob("*.py"), *(package / "core").glob("*.py"))
        if file.name != "__init__.py"
    } | {f"{file.parent.name}/" for file in package.glob("*/__init__.py") if file.parent.name != "core"}
    documented = {cells[0].strip("`| ") for cells in table("design.md", "## Rooms")}

    assert documented == rooms


def test_the_changelog_has_this_version() -> None:
    assert f"## [{dedup_middleware.__version__}]" in read(ROOT / "CHANGELOG.md")


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_opens_with_its_answer_in_two_lines(page: Path) -> None:
    title, _, *rest = read(page).splitlines()

    assert title.startswith("# ")
    assert [line.startswith("> ") for line in rest[:3]] == [True, True, False]


def anchors(file: Path) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.+)$", read(file), re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*TEXTS, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    links = [
        link for link in re.findall(r"\]\(([^)\s]+)\)", read(page)) if not re.match(r"https?:|mailto:", link)
    ]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.is_file(), link
        assert not anchor or anchor in set(anchors(target)), link


def test_the_readme_leads_to_every_page() -> None:
    assert not [page.name for page in PAGES if f"(docs/{page.name})" not in read(ROOT / "README.md")]


def test_the_readme_tells_in_the_agreed_order() -> None:
    text = read(ROOT / "README.md")
    wanted = [
        "app.add_middleware(DedupMiddleware)",
        "## What it saves",
        "## What is never shared",
        "## A rule",
        "docs/burst.svg",
        INSTALL.format(extra="example") + "example_app\n",
        INSTALL.format(extra="test") + "pytest -n auto\n",
        "## Compared with others",
        "## Scope and limits",
        "**One execution per process.**",
        "DEDUP_ENABLED=0",
        "## Licence",
    ]
    places = [text.index(part) for part in wanted]

    assert places == sorted(places)


# -- the picture -----------------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"
TRACE = [
    Bar("page refresh", "00", None, 0, 90_000_000),
    Bar("collapsed /a", "03", "00", 5_000_000, 61_000_000, "02", ("02",)),
    Bar("forwarded /a", "01", "00", 1_000_000, 62_000_000, "02"),
    Bar("forward /a", "02", "01", 2_000_000, 60_000_000, "02"),
    Bar('app "<work>"', "04", "02", 3_000_000, 59_000_000),
]


def test_the_picture_lists_spans_below_their_parents_by_start() -> None:
    assert [(depth, bar.span) for depth, bar in tree(TRACE)] == [
        (0, "00"),
        (1, "01"),
        (2, "02"),
        (3, "04"),
        (1, "03"),
    ]


def test_the_picture_counts_and_links_what_the_trace_holds() -> None:
    root = ET.fromstring(draw(TRACE))
    texts = [element.text for element in root.iter(f"{SVG}text")]

    assert root[0].text == "page refresh: 2 requests, 1 forwards, 1 collapsed into them"
    assert 'app "<work>"' in texts
    assert len(list(root.iter(f"{SVG}circle"))) == 1


def test_the_readme_s_picture_is_of_a_whole_page_refresh() -> None:
    pytest.importorskip("uvicorn", reason="the example needs its extra: pip install -e '.[example]'")
    from example_app.burst import MIX, REQUESTS

    root = ET.parse(ROOT / "docs/burst.svg").getroot()
    shown = [element.text or "" for element in root.iter(f"{SVG}text")]
    requests = [text for text in shown if re.match(r"(forwarded|collapsed) /", text)]

    assert len(requests) == REQUESTS
    assert sum(text.startswith("forwarded /") for text in requests) == len(MIX)
    assert len([text for text in shown if text.startswith("forward /")]) == len(MIX)


def test_the_picture_does_not_depend_on_the_order_in_which_spans_were_exported() -> None:
    assert draw(TRACE) == draw(reversed(TRACE))


def test_no_figure_is_left_open() -> None:
    assert "FIGURES" not in read(ROOT / "README.md")


def test_the_readme_has_one_figure_for_a_hit() -> None:
    text = read(ROOT / "README.md")
    ours = re.search(r"^\| hit, 1 KiB, 5 header fields \| ([\d.]+) \|", text, re.MULTILINE)
    compared = re.search(r"^\| \*\*this package\*\* \| ([\d.]+) \|", text, re.MULTILINE)

    assert ours
    assert compared
    assert ours[1] == compared[1]
