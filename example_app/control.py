"""What the example asks its own servers: figures, spans, an explanation. It stands outside the middleware,
under /_example/, so that looking at a figure changes none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry import context, propagate
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from . import ask
from .work import REQUEST_ID, Step, Work

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from dedup_middleware import Dedup

    from .recorder import Recorder

PREFIX = "/_example/"
DASHBOARD = "/_dedup"


class Figures(msgspec.Struct, frozen=True):
    """What a server process has done since the last reset, and what it holds now."""

    executions: dict[str, int]
    log_lines: int
    cpu: float
    """Seconds of processor time of the process and of the git programs it ran, since its start."""
    resident: int | None
    """The most memory it ever held, in bytes; None where the system doesn't say."""
    dedup: dict[str, Any] | None
    """`dedup.stats()`."""


class ExplainQuestion(msgspec.Struct, forbid_unknown_fields=True):
    method: str
    target: str
    headers: list[tuple[str, str]] = []
    body: str = ""


class Control:
    """An ASGI app: /_example/ is its own, everything else goes to the backend with its request id noted.

    `dashboard` is the administration of the engine, where there is one.
    """

    def __init__(
        self,
        app: ASGIApp,
        work: Work,
        dedup: Dedup | None,
        recorder: Recorder | None,
        dashboard: ASGIApp | None = None,
    ) -> None:
        self._app = app
        self._work = work
        self._dedup = dedup
        self._recorder = recorder
        self._places = (PREFIX,) if dashboard is None else (PREFIX, DASHBOARD)
        self._own = Starlette(
            routes=[
                *([Mount(DASHBOARD, dashboard)] if dashboard is not None else []),
                Route(PREFIX + "figures", self._figures),
                Route(PREFIX + "reset", self._reset, methods=["POST"]),
                Route(PREFIX + "spans", self._spans),
                Route(PREFIX + "explain", self._explain, methods=["POST"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(self._places):
            await self._own(scope, receive, send)
        else:
            headers = {
                name: value for name, value in scope["headers"] if name in {b"x-request-id", b"traceparent"}
            }
            REQUEST_ID.set(headers.get(b"x-request-id", b"").decode("latin-1")[:128])
            if parent := headers.get(b"traceparent"):  # what a server's own instrumentation does
                context.attach(propagate.extract({"traceparent": parent.decode("latin-1")}))
            await self._app(scope, receive, send)

    async def _figures(self, _request: Request) -> Response:
        times = os.times()
        figures = Figures(
            executions=dict(self._work.executions),
            log_lines=self._work.log_lines,
            cpu=times.user + times.system + times.children_user + times.children_system,
            resident=peak_resident(),
            dedup=msgspec.to_builtins(self._dedup.stats()) if self._dedup else None,
        )
        return ask.json(figures)

    async def _reset(self, _request: Request) -> Response:
        self._work.reset()
        if self._dedup:
            self._dedup.clear()
        return ask.json({})

    async def _spans(self, request: Request) -> Response:
        traces = set(request.query_params.getlist("trace"))
        spans = self._recorder.of(traces) if self._recorder else []
        return ask.json({"spans": spans, "steps": list[Step](self._work.steps)})

    async def _explain(self, request: Request) -> Response:
        asked = await ask.body_of(request, ExplainQuestion)
        if self._dedup is None:
            return ask.json({"error": "this server runs without the middleware"}, 409)
        try:
            told = self._dedup.explain(
                asked.method, asked.target, headers=asked.headers, body=asked.body.encode()
            )
        except UnicodeEncodeError:
            return ask.json({"error": "a header field can't hold that character"}, 422)
        return ask.json(msgspec.to_builtins(told))


def peak_resident() -> int | None:
    """The process's highest resident memory in bytes; None where the system doesn't say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it forked
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource  # noqa: PLC0415  not on every system

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
