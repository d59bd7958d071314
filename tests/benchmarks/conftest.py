"""What the benchmarks' own tests leave as they found it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ..conftest import keep_what_is_there


@pytest.fixture(autouse=True)
def what_a_race_thaws_is_frozen_again() -> Iterator[None]:
    """A race thaws all that it finds frozen; the tests that come later would look at it in every collection."""
    yield
    if gc.get_freeze_count() == 0:
        keep_what_is_there()
