"""The targets: the fingerprint, the parsers of fields, the configuration.

Law: a target runs one input from nothing; whatever it raises is a finding, and the corpus beside it raises nothing.
"""

from __future__ import annotations

from pathlib import Path

import dedup_middleware
from dedup_middleware.core import answer, names, shape, targets

from . import configuration, fingerprint, headers, requests
from .engine import Target

CORPUS = Path(__file__).with_name("corpus")
_PACKAGE = Path(dedup_middleware.__file__).parent
_CORE = f"{_PACKAGE / 'core'}"
_CONFIG = [str(_PACKAGE / name) for name in ("config.py", "dedup.py", "stores")]


def _forget() -> None:
    for cached in (names._is_credential, names._is_secret, targets._host_name):
        cached.cache_clear()
    answer._shapes.clear()
    shape._found.clear()


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("fingerprint", fingerprint.run, requests.WORDS, [_CORE], _forget),
        Target("headers", headers.run, headers.WORDS, [_CORE], _forget),
        Target(
            "configuration",
            configuration.run,
            configuration.WORDS,
            [_CORE, *_CONFIG],
            _forget,
        ),
    )
}


def corpus(name: str) -> dict[str, bytes]:
    """The inputs that are worth keeping, by their file."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}
