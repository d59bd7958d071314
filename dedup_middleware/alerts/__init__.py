"""Alerts: when somebody should hear, and how; the words of the page docs/alerts.md.

Law: evaluated and delivered in threads of their own, from counts that are there anyway; nothing personal in any.
"""

from __future__ import annotations

from .alert import ALERT_FIELDS, Alert, checked_alerts
from .watch import Engine, Watch

__all__ = ["ALERT_FIELDS", "Alert", "Engine", "Watch", "checked_alerts"]
