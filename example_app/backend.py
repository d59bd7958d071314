"""The backend itself: a plain Starlette app, with the middleware added by one line when there is a `Dedup`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from . import ask
from .git_routes import GitRoutes
from .panel_routes import PanelRoutes
from .repository import GitError, Refused, Repository
from .transcripts import Transcripts
from .work import Work

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from dedup_middleware import Dedup

    from .settings import Settings

TRANSCRIPTS = "transcripts.sqlite"


def make_app(settings: Settings, dedup: Dedup | None = None, work: Work | None = None) -> Starlette:
    work = work or Work()
    repositories = {name: Repository(name, Path(path)) for name, path in settings.repositories.items()}
    transcripts = Transcripts(Path(settings.folder) / TRANSCRIPTS)
    panels = PanelRoutes(
        transcripts, repositories[settings.repo], work, wait_for_ready=settings.wait_for_ready
    )
    app = Starlette(
        routes=[*GitRoutes(repositories, work, dedup).routes(), *panels.routes()],
        exception_handlers={HTTPException: _refuse, Refused: _refuse, GitError: _failed},
    )
    if dedup is not None:
        from dedup_middleware import DedupMiddleware  # noqa: PLC0415  the bare backend runs without the package

        app.add_middleware(DedupMiddleware, dedup=dedup)
    return app


async def _refuse(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        response = ask.json({"error": error.detail}, error.status_code)
        response.headers.update(error.headers or {})
        return response
    return ask.json({"error": str(error)}, 422)


async def _failed(_request: Request, error: Exception) -> Response:
    return ask.json({"error": f"git: {error}"}, 502)
