"""Outcomes of stored responses that are not fresh: stale, and revalidated."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"

_NEW: Final = ("stale", "revalidated")


def upgrade() -> None:
    """Make their columns; there were none of them before."""
    for name in _NEW:
        op.add_column("dedup_minutes", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Count them as hits: the older version's rates stay what they were."""
    op.execute("UPDATE dedup_minutes SET hit = hit + stale + revalidated WHERE stale > 0 OR revalidated > 0")
    for name in _NEW:
        op.drop_column("dedup_minutes", name)
