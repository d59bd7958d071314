"""What a run needs on disk, made in one folder that goes with it: a repository and the transcripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backend import TRANSCRIPTS
from .history import make_repository
from .settings import Settings
from .transcripts import Transcripts

if TYPE_CHECKING:
    from pathlib import Path

SCRATCH = "demo"


def prepare(folder: Path, given: dict[str, str] | None = None) -> Settings:
    """Settings for a fresh folder; the page asks for the first repository in `given`, else for the one made here."""
    make_repository(folder / SCRATCH)
    Transcripts(folder / TRANSCRIPTS).create()
    given = given or {}
    return Settings(
        folder=str(folder),
        repositories={SCRATCH: str(folder / SCRATCH), **given},
        repo=next(iter(given), SCRATCH),
        scratch=SCRATCH,
    )
