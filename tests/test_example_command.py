"""The example's one command: what it prints, what it exports, and what it leaves behind: nothing."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="the example needs its extra: pip install -e '.[example]'")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from example_app import page
from example_app.__main__ import INSTALL
from example_app.burst import REQUESTS
from example_app.progress import Bar

from .example_kit import BRIEFLY
from .kit import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


class Collector:
    """An OTLP/HTTP receiver that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.metrics: set[str] = set()
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self._service(resource.resource)
                for scope in resource.scope_spans:
                    self.spans += [(scope.scope.name, span) for span in scope.spans]
        elif path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self._service(resource.resource)
                self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}

    def _service(self, resource: Any) -> None:
        self.services |= {
            entry.value.string_value for entry in resource.attributes if entry.key == "service.name"
        }

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def _command(tmp_path: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """How to start the example so that all it leaves can be seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return {
        "args": [sys.executable, "-m", "example_app", *arguments],
        "cwd": ROOT,
        "env": os.environ | {"TMPDIR": str(folder), "PYTHONWARNINGS": "error::ResourceWarning"} | variables,
        "stdin": subprocess.DEVNULL,
        "text": True,
    }


def _processes_with(text: str) -> list[str]:
    """Processes (Linux only) whose environment holds the text; the example gives its own to its children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow
def test_one_run_reaches_its_marks_and_its_traces_hold_together(tmp_path: Path, collector: Collector) -> None:
    figures_file = tmp_path / "figures.json"
    command = _command(tmp_path, "--once", "--json", str(figures_file), "--otlp", collector.url)
    done = subprocess.run(**command, capture_output=True, timeout=120, check=False)

    assert "Traceback" not in done.stderr, done.stderr
    assert figures_file.exists(), done.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
    figures = json.loads(figures_file.read_text())
    _check_figures(figures, done)
    _check_traces(collector, figures)


def _check_figures(figures: Any, done: subprocess.CompletedProcess[str]) -> None:
    marks = {mark["name"]: mark["met"] for mark in figures["marks"]}
    timed = {"every operation's p50 is faster", "a hit's p95"}
    assert {name for name, met in marks.items() if not met} <= timed, done.stdout
    assert done.returncode == (0 if all(marks.values()) else 1)
    assert figures["passed"] == all(marks.values())

    without, with_ = figures["without"], figures["with"]
    assert without["burst"]["requests"] == with_["burst"]["requests"] == 5 * REQUESTS
    assert without["burst"]["executions"] == 5 * 22 == without["burst"]["log_lines"]
    assert with_["burst"]["executions"] == with_["burst"]["distinct"] == 4 == with_["burst"]["log_lines"]
    assert figures["duplicates_removed"] == 1
    assert without["refreshes"]["outcomes"] == {"bare": 180}
    assert with_["refreshes"]["hit_rate"] > 0.8
    assert with_["refreshes"]["hit_rates"]["chat"] > 0.9
    assert with_["hits"]["count"] == 200
    assert with_["writes"]["stale"] == 0
    assert with_["writes"]["failed"] == 0
    assert min(with_["writes"]["reads"].values()) > 10
    assert with_["resident"] < 200e6
    assert with_["spans_lost"] == without["spans_lost"] == 0
    assert with_["server_errors"] == without["server_errors"] == ""
    for shown in (
        "downstream executions",
        "duplicates removed",
        "hit rate",
        "log lines",
        "CPU seconds",
        "p95",
    ):
        assert shown in done.stdout


def _check_traces(collector: Collector, figures: Any) -> None:
    spans = {span.span_id: span for _, span in collector.spans}
    ours = {span.span_id for scope, span in collector.spans if scope == "dedup_middleware"}
    refreshes = {span.span_id: span for span in spans.values() if span.name == "page refresh"}

    assert collector.services == {"devtools"}
    assert {"dedup.requests", "dedup.forward.duration", "dedup.store.size"} <= collector.metrics
    assert len(refreshes) == 2 * (figures["pages"] + figures["refreshes"])
    assert len({span.trace_id for span in refreshes.values()}) == len(refreshes)
    for span in spans.values():
        if span.span_id not in refreshes:
            assert spans[span.parent_span_id].trace_id == span.trace_id
        for link in span.links:
            assert spans[link.span_id].trace_id == link.trace_id
            assert spans[link.span_id].name.startswith("forward ")
            assert _attribute(span, "dedup.flight") == link.span_id.hex()
    requests = [
        span for identity, span in spans.items() if identity in ours and span.parent_span_id in refreshes
    ]
    assert len(requests) == REQUESTS * (figures["pages"] + figures["refreshes"])
    for request in requests:
        outcome = _attribute(request, "dedup.outcome")
        route = _attribute(request, "http.route") or _attribute(
            request, "dedup.rule"
        )  # older Starlettes tell none
        assert request.name == f"{outcome} {route}"
        assert len(request.links) == (0 if outcome == "forwarded" else 1)
    for forward in (
        span for identity, span in spans.items() if identity in ours and span.name.startswith("forward ")
    ):
        assert spans[forward.parent_span_id].name == forward.name.replace("forward ", "forwarded ", 1)


def _attribute(span: Any, name: str) -> str:
    return next((entry.value.string_value for entry in span.attributes if entry.key == name), "")


@pytest.mark.slow
def test_traffic_moves_the_dashboard_of_whoever_has_its_token_until_ctrl_c(tmp_path: Path) -> None:
    command = _command(tmp_path, EXAMPLE_TEST=str(tmp_path))
    command["args"] = [sys.executable, "-c", BRIEFLY, "--traffic", "--port", "0"]
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout
            lines = filter(None, (DASHBOARD.search(line) for line in process.stdout))
            url, token = next(lines).groups()
            assert httpx.get(url).status_code == 200
            assert httpx.get(f"{url}api/stats").status_code == 401
            bearer = {"Authorization": f"Bearer {token}"}
            ticks = islice(_requests_as_they_come(f"{url}api/events", bearer), 120)
            first = next(ticks)
            moving = ("hit", "collapsed", "forwarded")
            assert any(all(now[outcome] > first[outcome] for outcome in moving) for now in ticks)
        finally:
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)

    assert process.returncode == 0, error
    assert "Traceback" not in error
    assert error.endswith("Stopped.\n")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _processes_with(str(tmp_path)) == []


DASHBOARD = re.compile(r"Dashboard: +(http://127\.0\.0\.1:\d+/_dedup/) +token: (\S+)")


def _requests_as_they_come(url: str, headers: dict[str, str]) -> Iterator[dict[str, int]]:
    """Requests by outcome, each time that the live stream tells them: about once a second."""
    with httpx.stream("GET", url, headers=headers, timeout=30) as stream:
        kind = ""
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kind = value
            elif field == "data" and kind == "tick":
                yield json.loads(value)["stats"]["requests"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(tmp_path: Path, sent: signal.Signals) -> None:
    command = _command(tmp_path, "--once", EXAMPLE_TEST=str(tmp_path))
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        assert "without" in process.stderr.readline()
        process.send_signal(sent)
        out, error = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in error
    assert error.endswith("Stopped.\n")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _processes_with(str(tmp_path)) == []


def test_ctrl_c_pressed_again_cuts_no_end_short(tmp_path: Path) -> None:
    command = _command(tmp_path, "--once", EXAMPLE_TEST=str(tmp_path))
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        assert "without" in process.stderr.readline()
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        error = process.stderr.read()

    assert (process.returncode, error) == (130, "\n  Stopped.\n")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert _processes_with(str(tmp_path)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; run it on Linux")
def test_a_killed_run_leaves_no_server_behind(tmp_path: Path) -> None:
    command = _command(tmp_path, "--once", EXAMPLE_TEST=str(tmp_path))
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        assert "without" in process.stderr.readline()
        process.kill()
        process.communicate(timeout=30)
    wait_for(lambda: not _processes_with(str(tmp_path)), 10)


@pytest.mark.parametrize("missing", ["uvicorn", "opentelemetry.sdk.trace"])
def test_without_its_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    script = (
        f"import sys, runpy; sys.modules[{missing!r}] = None; "
        "sys.argv = ['example_app']; runpy.run_module('example_app', run_name='__main__')"
    )
    command = _command(tmp_path) | {"args": [sys.executable, "-c", script]}
    done = subprocess.run(**command, capture_output=True, timeout=30, check=False)

    assert done.returncode == 2
    assert INSTALL in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


def test_the_install_line_is_the_readmes() -> None:
    assert INSTALL in (ROOT / "README.md").read_text(encoding="utf-8")


def test_without_git_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(**_command(tmp_path, PATH=""), capture_output=True, timeout=30, check=False)

    assert done.returncode == 2
    assert "git program" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "no/such/folder.json"], "there is no such folder"),
        (["--json", "docs"], os.strerror(errno.EISDIR)),
        (["--json", "x" * 300], os.strerror(errno.ENAMETOOLONG)),
        (["--repo", "no/such/folder"], "there is no such folder"),
        (["--port", "65536"], "'65536' is no port; 0 to 65535"),
        (["--otlp", "localhost:4318"], "'localhost:4318' does not begin with http:// or https://"),
        (["--otlp", "http://"], "'http://' names no host and port"),
        (["--otlp", "http://localhost:http"], "'http://localhost:http' names no host and port"),
        (["--otlp-metrics", "http://localhost:9090"], "--otlp-metrics goes beside --otlp"),
    ],
    ids=str,
)
def test_what_it_can_t_do_it_says_before_the_run(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = subprocess.run(**_command(tmp_path, *arguments), capture_output=True, timeout=30, check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.endswith(f"{said}\n")
    assert "Traceback" not in done.stderr


def test_a_port_that_may_not_be_had_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_nobody(port: int) -> None:
        if 0 < port < 1024:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(page, "listen", as_nobody)

    assert page._listen(8000)[1] == ""
    assert page._listen(80)[1] == os.strerror(errno.EACCES).lower()


def test_a_terminal_that_knows_no_codes_is_sent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    bar = Bar()
    bar.begin("a part", 1)
    bar.step()

    assert terminal.getvalue() == "  a part\n"


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    command = _command(tmp_path, "--repo", str(tmp_path), GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    done = subprocess.run(**command, capture_output=True, timeout=30, check=False)

    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
