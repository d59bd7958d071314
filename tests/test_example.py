"""The example's backend: what it answers, what it shares, what it refuses."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

pytest.importorskip("uvicorn", reason="the example needs its extra: pip install -e '.[example]'")

from dedup_middleware import Dedup
from example_app.backend import make_app
from example_app.folder import prepare
from example_app.repository import Change, Repository, parse_status
from example_app.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from example_app.settings import Settings

JSON = {"content-type": "application/json"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return msgspec.structs.replace(prepare(tmp_path), wait_for_ready=True)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One folder for all that is refused."""
    return prepare(tmp_path_factory.mktemp("untouched"))


class Backend:
    """The app in this process, without a server."""

    def __init__(self, settings: Settings, dedup: Dedup | None) -> None:
        self.work = Work()
        self.app = make_app(settings, dedup, self.work)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost")
        self.get = self.client.get

    async def post(self, path: str, /, **value: object) -> httpx.Response:
        return await self.client.post(path, json=value)


@pytest.fixture
async def bare(settings: Settings) -> AsyncIterator[Backend]:
    backend = Backend(settings, None)
    yield backend
    await backend.client.aclose()


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[Backend]:
    dedup = Dedup.from_toml(settings.rules)
    backend = Backend(settings, dedup)
    yield backend
    await backend.client.aclose()
    await dedup.aclose()


async def test_status_branch_and_overview_share_one_git_status(backend: Backend) -> None:
    paths = ["/git/demo", "/git/demo/status", "/git/demo/branch", "/git/demo/status"]
    overview, status, branch, again = await asyncio.gather(*map(backend.get, paths))

    assert backend.work.executions == {"git status:demo": 1, "git log:demo": 1}
    assert status.json() == again.json() == overview.json()["status"]
    assert branch.json()["branch"] == overview.json()["branch"] == "main"
    assert [change["path"] for change in status.json()["changes"]] == ["server.py", "notes.txt"]


async def test_without_the_middleware_each_of_them_runs_its_own(bare: Backend) -> None:
    await asyncio.gather(*map(bare.get, ["/git/demo", "/git/demo/status", "/git/demo/branch"]))

    assert bare.work.executions == {"git status:demo": 4, "git log:demo": 1}
    assert bare.work.log_lines == 5


@pytest.mark.parametrize(
    ("read", "write", "value"),
    [
        ("/git/demo/status", "/git/demo/checkout", {"branch": "timeline"}),
        ("/git/demo/log", "/git/demo/commit", {"message": "One more"}),
        ("/git/demo", "/git/demo/commit", {"message": "One more"}),
        ("/chat/9222/history", "/chat/9222/messages", {"text": "hello"}),
        ("/ide/9222/editors", "/ide/9222/files", {"path": "new.py"}),
    ],
)
async def test_a_read_after_a_write_shows_it(
    backend: Backend, read: str, write: str, value: dict[str, object]
) -> None:
    before = await backend.get(read)
    assert (await backend.get(read)).headers["cache-status"].startswith("dedup; hit")
    assert (await backend.post(write, **value)).status_code in {200, 201}
    after = await backend.get(read)

    assert "hit" not in after.headers["cache-status"]
    assert after.json() != before.json()


async def test_a_search_is_kept_until_something_it_reads_changes(backend: Backend) -> None:
    first = await backend.post("/search", words="hello there")
    again = await backend.client.post("/search", content='{"words":  "hello there"}', headers=JSON)
    await backend.post("/chat/9223/messages", text="Hello there!")
    after = await backend.post("/search", words="hello there")

    assert first.json() == again.json() == {"lines": [], "messages": []}
    assert again.headers["cache-status"].startswith("dedup; hit")
    assert [message["text"] for message in after.json()["messages"]] == ["Hello there!"]


async def test_nobody_gets_the_profile_of_another(backend: Backend) -> None:
    tokens = ["ada-token", "grace-token", "linus-token", "nobodys"] * 5
    asked = (backend.get("/me", headers={"authorization": f"Bearer {token}"}) for token in tokens)
    names = [reply.json().get("name") for reply in await asyncio.gather(*asked)]

    assert names == ["Ada Okafor", "Grace Moreau", "Linus Brandt", None] * 5


async def test_two_who_watch_a_build_watch_the_same_one(backend: Backend) -> None:
    one, other = await asyncio.gather(backend.get("/build/all/log"), backend.get("/build/all/log"))

    assert one.text == other.text
    assert one.text.count("\n") == 10
    assert backend.work.executions == {"build:all": 1}


@pytest.mark.parametrize(
    "branch",
    [
        "-f",
        "--orphan=x",
        "--",
        "-",
        "",
        "main --",
        "../main",
        "ma\nin",
        "main\0",
        "HEAD",
        "notes.txt",
        "refs/heads/main",
        "a" * 101,
    ],
)
async def test_no_branch_name_becomes_an_option_or_a_path(untouched: Settings, branch: str) -> None:
    bare = Backend(untouched, None)
    before = (Path(untouched.folder) / "demo" / ".git" / "HEAD").read_text()
    reply = await bare.post("/git/demo/checkout", branch=branch)

    assert reply.status_code == 422
    assert (Path(untouched.folder) / "demo" / ".git" / "HEAD").read_text() == before
    assert len((await bare.get("/git/demo/status")).json()["changes"]) == 2


async def test_no_commit_message_becomes_an_option(bare: Backend) -> None:
    before = (await bare.get("/git/demo/log")).json()
    for message in ("--amend", "-a", "--author=x <y>", "--help"):
        assert (await bare.post("/git/demo/commit", message=message)).status_code == 201
    after = (await bare.get("/git/demo/log")).json()

    assert [commit["subject"] for commit in after[:4]] == ["--help", "--author=x <y>", "-a", "--amend"]
    assert after[4:] == before
    assert {commit["author"] for commit in after[:4]} == {"Example"}
    assert (await bare.post("/git/demo/commit", message=" \n")).status_code == 422
    assert (await bare.post("/git/demo/commit", message="a\0b")).status_code == 422


async def test_no_search_becomes_an_option(bare: Backend, tmp_path: Path) -> None:
    for words in (f"--open-files-in-pager=touch {tmp_path}/owned", "-O", "--", "-e", "* ["):
        assert (await bare.post("/search", words=words)).status_code == 200

    assert not (tmp_path / "owned").exists()
    assert (await bare.post("/search", words="FIXME")).json()["lines"] == ["chat.py:1:WAIT = 1.0  # FIXME"]
    assert (await bare.post("/search", words="a\0b")).status_code == 422


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/git/demo/commit", '{"message": "x"}', {"content-type": "text/plain"}, 415),
        ("/git/demo/commit", '{"message": "x"}', {}, 415),
        ("/git/demo/commit", "{", JSON, 422),
        ("/git/demo/commit", '{"message": 1}', JSON, 422),
        ("/git/demo/commit", '{"message": "x", "more": 1}', JSON, 422),
        ("/git/demo/commit", b'{"message": "\xff"}', JSON, 422),
        ("/git/demo/commit", '{"message": "' + "x" * 70_000 + '"}', JSON, 413),
        ("/git/other/commit", '{"message": "x"}', JSON, 404),
        ("/chat/80/messages", '{"text": "x"}', JSON, 404),
        ("/ide/9222x/files", '{"path": "x"}', JSON, 404),
        ("/search", '{"words": " "}', JSON, 422),
    ],
)
async def test_a_bad_write_is_refused_with_a_reason(
    untouched: Settings, path: str, content: str | bytes, headers: dict[str, str], status: int
) -> None:
    bare = Backend(untouched, None)
    reply = await bare.client.post(path, content=content, headers=headers)

    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert not {"git commit:demo", "chat message:9222", "editor open:9222"} & set(bare.work.executions)


async def test_a_repository_without_a_commit_has_an_empty_log(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    repository = Repository("new", tmp_path)

    assert await repository.log() == []
    assert (await repository.status()).changes == ()


def test_every_kind_of_changed_file_is_read() -> None:
    status = parse_status(
        "# branch.oid 0123456789abcdef0123\n# branch.head topic\n# branch.upstream origin/topic\n"
        "# branch.ab +2 -3\n"
        "1 .M N... 100644 100644 100644 aaa bbb with a space.py\n"
        "2 R. N... 100644 100644 100644 aaa bbb R100 new name.py\told name.py\n"
        "u UU N... 100644 100644 100644 100644 aaa bbb ccc both.py\n"
        "? unknown.txt\n"
    )

    assert (status.branch, status.upstream, status.ahead, status.behind) == ("topic", "origin/topic", 2, 3)
    assert status.changes == (
        Change(".M", "with a space.py"),
        Change("R.", "new name.py"),
        Change("UU", "both.py"),
        Change("??", "unknown.txt"),
    )
