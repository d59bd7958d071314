"""The dashboard in Firefox, driven by WebDriver BiDi: it renders, it lives, nothing overflows."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the pages are served: python -m pip install '.[test]'")
pytest.importorskip("websockets", reason="Firefox is driven over a socket: python -m pip install '.[test]'")

from websockets.sync.client import connect

from .dashboard_kit import Scripted, burst, serving
from .kit import wait_for

pytestmark = pytest.mark.browser

SECONDS = 60
PREFERENCES = {
    "app.normandy.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.ipc.processCount": 1,
    "dom.ipc.processPrelaunch.enabled": False,
    "extensions.enabledScopes": 0,
    "fission.autostart": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}
"""No page but ours, no process in advance and nothing asked from elsewhere: a third of what a start costs."""


class Firefox:
    """One tab, and what its console said."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.said: list[str] = []
        self.command("session.new", capabilities={})
        self.command("session.subscribe", events=["log.entryAdded"])
        self._tab = self.command("browsingContext.getTree")["contexts"][0]["context"]

    def command(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(SECONDS))
            if told.get("method") == "log.entryAdded":
                self.said.append(told["params"]["text"])
            if told.get("id") == number:
                assert told["type"] == "success", told
                return told["result"]

    def open(self, url: str, width: int = 1280) -> None:
        size = {"width": width, "height": 800}
        self.command("browsingContext.setViewport", context=self._tab, viewport=size)
        self.command("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def ask(self, expression: str) -> Any:
        told = self.command(
            "script.evaluate", expression=expression, target={"context": self._tab}, awaitPromise=True
        )
        assert told["type"] == "success", told
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        wait_for(lambda: self.ask(expression), SECONDS)

    def picture(self) -> bytes:
        return base64.b64decode(self.command("browsingContext.captureScreenshot", context=self._tab)["data"])


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("no Firefox in PATH; on Debian: sudo apt install firefox-esr")
    with (
        _started(path, tmp_path_factory.mktemp("profile")) as address,
        connect(f"{address}/session", max_size=None, compression=None) as socket,
    ):
        yield Firefox(socket)


@contextlib.contextmanager
def _started(path: str, profile: Path) -> Iterator[str]:
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [path, "--headless", "--remote-debugging-port", "0", "--no-remote", "--profile", str(profile)]
    with subprocess.Popen(
        command,
        env={"HOME": str(profile), "PATH": "/usr/bin:/bin", "MOZ_CRASHREPORTER_DISABLE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr
            yield next(
                found[1]
                for line in process.stderr
                if (found := re.search(r"BiDi listening on (ws://\S+)", line))
            )
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


@pytest.fixture
def opened(firefox: Firefox) -> Iterator[Callable[[int], Scripted]]:
    with contextlib.ExitStack() as stack:

        def open_(width: int) -> Scripted:
            scripted = Scripted()
            scripted.count("git status", saved=9.0, hit=80, collapsed=15, forwarded=5)
            scripted.recent["bursts"] = [burst(followers=4)]
            origin = stack.enter_context(serving(scripted.app()))
            stack.callback(firefox.open, "about:blank")  # or its stream would hold the server up
            firefox.said.clear()
            firefox.open(f"{origin}/_dedup/", width)
            firefox.wait("document.querySelector('#connection').dataset.state === 'live'")
            return scripted

        yield open_


@pytest.mark.parametrize("width", [390, 1280])
def test_it_lives_and_fits(firefox: Firefox, opened: Callable[[int], Scripted], width: int) -> None:
    scripted = opened(width)
    assert firefox.ask("document.querySelectorAll('.bars li').length") == 5
    scripted.count("git status", hit=900)
    scripted.tick()
    firefox.wait("document.querySelector('#figures').innerText.includes('of 1,000 requests')")
    scripted.count("git status", hit=900)
    scripted.tick()
    firefox.wait("document.querySelectorAll('.area').length === 4")

    assert firefox.ask("document.documentElement.scrollWidth <= innerWidth")
    assert firefox.picture().startswith(b"\x89PNG")
    assert firefox.said == []


def test_a_question_is_asked_and_answered(firefox: Firefox, opened: Callable[[int], Scripted]) -> None:
    scripted = opened(1280)
    firefox.ask("document.querySelector('#engine').click()")
    firefox.wait("document.querySelector('dialog').open && document.activeElement.textContent === 'Cancel'")
    firefox.ask("document.querySelector('dialog .danger').click()")
    firefox.wait("!document.querySelector('#switched-off').hidden")

    assert not scripted.enabled
    assert firefox.said == []
