"""The package as such: its version, what importing it loads, its command line, where its imports point."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import dedup_middleware
from dedup_middleware import __main__ as command_line

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dedup_middleware"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

#: The floors of the house. A room may use rooms of its own floor and of those below it.
FLOORS = {
    "core": 0,
    "alerts": 1,
    "cached": 1,
    "call": 1,
    "calls": 1,
    "config": 1,
    "events": 1,
    "body": 1,
    "flight": 1,
    "flights": 1,
    "forking": 1,
    "function": 1,
    "holdings": 1,
    "inventory": 1,
    "marks": 1,
    "nesting": 1,
    "records": 1,
    "routes": 1,
    "ruling": 1,
    "settled": 1,
    "stats": 1,
    "stores": 1,
    "telemetry": 1,
    "telling": 1,
    "dedup": 2,
    "engine": 2,
    "admin": 3,
    "asgi": 3,
    "bypass": 3,
    "client": 3,
    "exchange": 3,
    "following": 3,
    "leading": 3,
    "turns": 3,
    "forward": 3,
    "heads": 3,
    "hit": 3,
    "keeping": 3,
    "refresh": 3,
    "serving": 3,
    "validation": 3,
    "waiter": 1,
    "work": 1,
    "scopes": 1,
    "incoming": 3,
    "__main__": 3,
}

#: What a room may import because it is used only where an extra is installed.
BY_EXTRAS = {"admin": {"limits"}, "records": {"alembic", "sqlalchemy"}}

#: What would bring a clock, a log, concurrency or I/O into the core.
IMPURE = {
    "asyncio",
    "concurrent",
    "logging",
    "opentelemetry",
    "select",
    "selectors",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "threading",
    "time",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; a package goes by its own name, the root by ''."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(module: str) -> Iterator[tuple[str, str | None]]:
    """Every import anywhere in the module, absolute: (module, None) or (module, name)."""
    file = MODULES[module]
    package = ["dedup_middleware", *(module.split(".") if module else [])]
    if file.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield source, alias.name


def inner_imports(module: str) -> Iterator[str]:
    """The modules of the package that this one imports; '' is the package itself."""
    for source, name in imports(module):
        if source.partition(".")[0] != "dedup_middleware":
            continue
        inner = source.removeprefix("dedup_middleware").removeprefix(".")
        below = f"{inner}.{name}".removeprefix(".") if name else inner
        if below in MODULES:
            yield below
        elif (inner, name) != ("", "__version__"):  # a constant that the package states before anything else
            yield inner


def room(module: str) -> str:
    return module.partition(".")[0]


def test_the_version_is_stated_once_and_is_the_installed_one() -> None:
    assert metadata.version("dedup-middleware") == dedup_middleware.__version__
    assert PROJECT["project"]["dynamic"] == ["version"]
    stated = [
        file
        for file in (ROOT / "pyproject.toml", *PACKAGE.rglob("*.py"))
        if dedup_middleware.__version__ in file.read_text(encoding="utf-8")
    ]
    assert stated == [PACKAGE / "__init__.py"]


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{dedup_middleware.__version__}] - " in changelog


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_importing_the_package_loads_no_sdk_no_database_no_client_and_no_server() -> None:
    answer = run("-c", "import sys, json, dedup_middleware; print(json.dumps(sorted(sys.modules)))")
    assert answer.returncode == 0, answer.stderr
    loaded = set(json.loads(answer.stdout))
    assert "dedup_middleware" in loaded
    heavy = {
        *("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests"),
        *("sqlalchemy", "sqlite3", "alembic", "asyncpg", "redis"),
        *("fastapi", "httpx", "uvicorn", "pytest"),
    }
    assert loaded & heavy == set()


def test_the_package_needs_nothing_but_its_declared_dependencies() -> None:
    declared = {name(requirement).replace("-", "_") for requirement in PROJECT["project"]["dependencies"]}
    declared.add("opentelemetry")
    used = {
        source.partition(".")[0]
        for module in MODULES
        if room(module) != "__main__"
        for source, _ in imports(module)
        if source.partition(".")[0] not in BY_EXTRAS.get(room(module), set())
    }
    assert used - declared - set(sys.stdlib_module_names) == {"dedup_middleware"}


def name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_go_down_only(module: str) -> None:
    assert room(module) in FLOORS, f"{module} has no floor: give its room one, or change the plan"
    for target in inner_imports(module):
        if target == "":
            assert module == "__main__", f"{module} imports the package that imports it"
            continue
        assert FLOORS[room(target)] <= FLOORS[room(module)], f"{module} imports {target}, which is above it"
        assert room(target) != "__main__", f"{module} imports the command line"


def test_imports_make_no_circle() -> None:
    # A package's modules import one another through its __init__, so those edges are left out.
    graph = {
        module: {target for target in inner_imports(module) if not f"{module}.".startswith(f"{target}.")}
        for module in MODULES
    }
    tuple(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", sorted(m for m in MODULES if room(m) == "core") or ["no core yet"])
def test_the_core_is_pure(module: str) -> None:
    if module not in MODULES:
        return
    impure = {source.partition(".")[0] for source, _ in imports(module)} & IMPURE
    assert not impure, f"{module} imports {impure}"
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{module}:{node.lineno} is async"


def test_only_telemetry_imports_opentelemetry() -> None:
    users = {
        room(module)
        for module in MODULES
        for source, _ in imports(module)
        if source.startswith("opentelemetry")
    }
    assert users <= {"telemetry"}


def test_the_command_prints_the_version_and_the_extras() -> None:
    answer = run("-m", "dedup_middleware")
    assert answer.returncode == 0, answer.stderr
    first, *extras = answer.stdout.splitlines()
    assert first.startswith(f"dedup-middleware {dedup_middleware.__version__} on ")
    assert [line.split()[0] for line in extras] == list(command_line.EXTRAS)
    assert (
        run("-m", "dedup_middleware", "--version").stdout
        == f"dedup-middleware {dedup_middleware.__version__}\n"
    )


def test_a_missing_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(distribution: str) -> str:
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, "version", absent)
    assert command_line.main([]) == 0
    printed = capsys.readouterr().out
    for extra in command_line.EXTRAS:
        assert f"python -m pip install 'dedup-middleware[{extra}]'" in printed


def test_the_command_knows_the_extras_that_are_declared() -> None:
    declared: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]

    def brought(extra: str) -> set[str]:
        wanted = set()
        for requirement in declared[extra]:
            if inner := re.match(r"dedup-middleware\[(.+)\]", requirement):
                wanted |= brought(inner[1])
            else:
                wanted.add(name(requirement))
        return wanted

    assert {e: set(d) for e, d in command_line.EXTRAS.items()} == {
        extra: brought(extra) for extra in declared if extra != "test"
    }


def test_an_unknown_command_is_refused_with_the_usage() -> None:
    answer = run("-m", "dedup_middleware", "chekc")
    assert answer.returncode == 2
    assert "usage: python -m dedup_middleware" in answer.stderr


def test_the_readme_gives_each_job_in_one_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = "python3 -m venv .venv && .venv/bin/python -m pip install -q -e"
    needed = (
        "Python 3.11",
        "git",
        "sudo apt install python3-venv git",
        "py -m venv .venv",
        ".venv\\Scripts\\python",
    )
    commands = (
        f"\n{start} '.[example]' && .venv/bin/python -m example_app\n",
        f"\n{start} '.[test]' && .venv/bin/python -m pytest -n auto\n",
    )
    for command in commands:
        before, found, _ = readme.partition(command)
        assert found, command
        for condition in needed:
            assert condition in before


def test_no_lock_is_taken_so_that_a_signal_could_leave_it_held() -> None:
    """What a handler raises between an `acquire()` and its `try` leaves the lock held; `with` has no between."""
    taken = [
        f"{module}:{node.lineno}"
        for module, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "acquire"
        if not node.args and not node.keywords
    ]
    assert taken == []
