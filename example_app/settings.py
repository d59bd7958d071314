"""What one run is about: plain data, handed to each server process as one line of JSON."""

from __future__ import annotations

from pathlib import Path

import msgspec

SERVICE = "devtools"
PORTS = (9222, 9223, 9224)
"""The debug ports of the editors that the backend watches."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    """The temporary folder of this run: transcripts, journal, log."""
    repositories: dict[str, str]
    """Name in the URL -> path on disk."""
    repo: str
    """The repository that the page asks for."""
    scratch: str
    """The repository that the example made and may write to."""
    middleware: bool = True
    rules: str = str(Path(__file__).with_name("dedup.toml"))
    wait_for_ready: bool = False
    record: bool = False
    """Keep the last spans in memory: the page draws its timeline from them."""
    otlp: str | None = None
    """OTLP/HTTP base URL, such as http://localhost:4318."""
    otlp_metrics: str | None = None
    """Where metrics go when not to `otlp` + /v1/metrics."""
    token: str | None = None
    """Who may see the dashboard; without one the server has none, and records nothing."""
