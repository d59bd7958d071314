"""Requirements for .ci/run, read from pyproject.toml, where each is stated once.

tests    what the quick tests need: the extra `test` without the tools that only the gate itself runs, and without
         what only the slow tests need, whose newest releases may want newer parts than the lowest
lowest   constraints: every lower bound (of the dependencies and the extras but `test`) as that very version
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
EXTRAS = PROJECT["optional-dependencies"]
TOOLS = {"build", "mypy", "playwright", "ruff", "types-cachetools", "types-pyyaml"}
SERVERS = {"daphne", "granian", "gunicorn", "h2", "hypercorn", "twisted", "uvicorn-worker"}
FRAMEWORKS = {"blacksheep", "django", "falcon", "litestar", "quart", "sanic"}
OTHERS = {
    "opentelemetry-instrumentation-asgi",
    "opentelemetry-instrumentation-fastapi",
    "pyyaml",
    "schemathesis",
    "websockets",
}


def expanded(extra: str) -> Iterator[str]:
    for requirement in EXTRAS[extra]:
        if inner := re.fullmatch(r"dedup-middleware\[(\w+)\]", requirement):
            yield from expanded(inner[1])
        else:
            yield requirement


def tests() -> Iterator[str]:
    return (
        r
        for r in expanded("test")
        if re.split(r"[\s><=!~;\[]", r)[0] not in TOOLS | SERVERS | FRAMEWORKS | OTHERS
    )


def lowest() -> Iterator[str]:
    for requirement in (*PROJECT["dependencies"], *(r for e in EXTRAS if e != "test" for r in expanded(e))):
        pinned, changes = re.subn(r">=\s*([\w.]+)", r"==\1", requirement)
        assert changes == 1, f"{requirement} has no lower bound, and each must have one"
        yield re.sub(r"\[[^]]*\]", "", pinned)  # a constraint names no extras


print("\n".join(dict.fromkeys({"tests": tests, "lowest": lowest}[sys.argv[1]]())))
