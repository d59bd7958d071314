"""The administration: one Starlette app to mount, with a JSON API and a dashboard.

`app.mount("/_dedup", admin(dedup, allow="a long random token"))`
"""

from .app import Administration, admin

__all__ = ["Administration", "admin"]
