"""Alert: what is watched, and when somebody should hear of it.

Law: an alert is flat, frozen and checked when it is made, whichever front door made it; what it cannot mean is
refused with its place, its value and what is allowed. Its secret and its webhook's path are never shown.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import force_setattr

from ..core.checks import check_fields, duration, is_async
from ..core.errors import ConfigurationError
from ..core.masks import MASK
from ..core.status import REASONS
from ..events import AlertRaised

Watched = Literal[
    "executions",
    "hit-rate",
    "collapse-ratio",
    "bypasses",
    "store-failures",
    "ledger-failures",
    "evictions",
    "flight-age",
]
WATCHED: Final[tuple[Watched, ...]] = get_args(Watched)
RATIOS: Final = frozenset({"hit-rate", "collapse-ratio"})
FAILURES: Final = frozenset({"store-failures", "ledger-failures"})
BY_RULE: Final = RATIOS | {"executions", "bypasses", "flight-age"}
BYPASSES: Final = REASONS[REASONS.index("disabled") :]
"""The reasons for which requests are bypassed."""

SECRET_VARIABLE: Final = "DEDUP_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
WINDOW: Final = 60.0
MINIMUM: Final = 20
_LONGEST: Final = 86_400.0
_TENTH: Final = 0.1
_PREFIX: Final = "whsec_"
_SECRET: Final = (
    f"a text of at least 16 characters, or {_PREFIX} and 24 bytes or more in base64; "
    f"here, or in {SECRET_VARIABLE}"
)
_URL: Final = "an https:// or http:// URL without user, password and fragment"


class _AlertMeta(msgspec.StructMeta):
    """Refuses unknown keywords with the package's own sentence."""

    def __call__(self, *args: Any, **fields: Any) -> Any:
        check_fields("Alert.", fields, self.__struct_fields__)
        return super().__call__(*args, **fields)


class _Named(msgspec.Struct, frozen=True, metaclass=_AlertMeta):
    name: str = ""
    watch: Watched | Literal[""] = ""


class Alert(_Named, frozen=True, kw_only=True):
    """What is watched, the threshold, and who hears of it.

    Durations are seconds, or text such as `"30s"`, `"5m"`. Every field, its default and its meaning stand in
    docs/alerts.md.

    Raises:
        ConfigurationError: for a value that a field cannot have.
    """

    above: float | str | None = None
    below: float | None = None
    clear: float | str | None = None
    window: float | str | None = None
    minimum: int | None = None
    rule: str | None = None
    reason: str | None = None
    after: float | str = 0
    calm: float | str = 60
    repeat: float | str = 3600
    callback: Callable[[AlertRaised], object] | None = None
    webhook: str | None = None
    secret: str | None = None

    def __post_init__(self) -> None:
        """Check every field and put it into the form that the watch reads."""
        _text("Alert.name", self.name)
        if self.watch not in WATCHED:
            raise ConfigurationError("Alert.watch", self.watch, f"one of {', '.join(WATCHED)}")
        for field in ("after", "calm", "repeat"):
            force_setattr(self, field, duration(f"Alert.{field}", getattr(self, field)))
        self._check_threshold()
        self._check_window()
        if self.rule is not None:
            _text("Alert.rule", self.rule)
            self._only("rule", BY_RULE)
        if self.watch == "bypasses" or self.reason is not None:
            self._only("reason", frozenset({"bypasses"}))
            if self.reason not in BYPASSES:
                raise ConfigurationError("Alert.reason", self.reason, f"one of {', '.join(BYPASSES)}")
        if self.callback is not None and not _is_function(self.callback):
            raise ConfigurationError("Alert.callback", self.callback, "a function, not an async one")
        self._check_webhook()

    def _only(self, field: str, kinds: frozenset[str]) -> None:
        if self.watch not in kinds:
            known = ", ".join(kind for kind in WATCHED if kind in kinds)
            raise ConfigurationError(
                f"Alert.{field}", getattr(self, field), f"nothing for {self.watch}; it belongs to {known}"
            )

    def _check_threshold(self) -> None:
        if self.below is not None:
            self._only("below", RATIOS)
            if self.above is not None:
                raise ConfigurationError("Alert.below", self.below, "either above or below, not both")
            force_setattr(self, "below", self._level("below", self.below))
        elif self.above is None and self.watch in FAILURES:
            force_setattr(self, "above", 0.0)
        else:
            force_setattr(self, "above", self._level("above", self.above))
        start, given = self.threshold, self.clear
        rises = self.above is not None
        if given is None:
            level = start * (1 - _TENTH) if rises else start + _TENTH * (1 - start)
        else:
            level = self._level("clear", given)
            if level > start if rises else level < start:
                side = "most what above says" if rises else "least what below says"
                raise ConfigurationError("Alert.clear", given, f"at {side}, {start:g}")
        force_setattr(self, "clear", level)

    def _level(self, field: str, value: object) -> float:
        place = f"Alert.{field}"
        if self.watch == "flight-age":
            return duration(place, value)
        allowed = "a number from 0 to 1" if self.watch in RATIOS else "a number from 0 on"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigurationError(place, value, allowed)
        if not math.isfinite(value) or value < 0 or (self.watch in RATIOS and value > 1):
            raise ConfigurationError(place, value, allowed)
        return float(value)

    def _check_window(self) -> None:
        if self.watch == "flight-age":
            if self.window is not None:
                raise ConfigurationError("Alert.window", self.window, "nothing for flight-age")
        else:
            given = WINDOW if self.window is None else self.window
            force_setattr(self, "window", duration("Alert.window", given))
            if not 1 <= self.span <= _LONGEST:
                raise ConfigurationError("Alert.window", given, "a duration from 1 second to 1 day")
        if self.minimum is not None:
            self._only("minimum", RATIOS)
            if type(self.minimum) is not int or self.minimum < 1:
                raise ConfigurationError("Alert.minimum", self.minimum, "a whole number from 1 on")
        elif self.watch in RATIOS:
            force_setattr(self, "minimum", MINIMUM)

    def _check_webhook(self) -> None:
        if self.secret is not None:
            if self.webhook is None:
                raise ConfigurationError("Alert.secret", self.secret, "nothing without a webhook")
            signing_key("Alert.secret", self.secret)
        if self.webhook is None:
            return
        if not _is_receiver(self.webhook):
            raise ConfigurationError("Alert.webhook", shown(self.webhook), _URL)

    @property
    def threshold(self) -> float:
        """What must be passed for the alert to be raised."""
        return float(self.below if self.above is None else self.above)  # type: ignore[arg-type] # one of them is set

    @property
    def span(self) -> float:
        """The window in seconds."""
        return float(self.window or 0)

    def is_passed(self, value: float | None) -> bool:
        """Whether this raises it; nothing to measure raises nothing."""
        if value is None:
            return False
        return value > self.threshold if self.above is not None else value < self.threshold

    def is_calm(self, value: float | None) -> bool:
        """Whether this ends it."""
        level = float(self.clear or 0)
        if value is None:
            return True
        return value <= level if self.above is not None else value >= level

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        fields["webhook"] = shown(self.webhook)
        fields["secret"] = None if self.secret is None else MASK
        return [(name, value) for name, value in fields.items() if value is not None]

    def __repr__(self) -> str:
        return f"Alert({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


ALERT_FIELDS: Final = tuple(field.name for field in msgspec.structs.fields(Alert))


def shown(url: object) -> object:
    """A webhook's URL as it may be told: who has its path may post there."""
    if not isinstance(url, str) or "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}://{host}/{MASK}"


def _is_function(value: object) -> bool:
    return callable(value) and not is_async(value)


def _is_receiver(url: object) -> bool:
    """Whether alerts may be posted there."""
    if not isinstance(url, str) or not re.fullmatch(r"https?://[!-~]+", url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc and not parts.fragment
    except ValueError:
        return False


def _text(place: str, value: object) -> None:
    if not (type(value) is str and value and value.isprintable()):
        raise ConfigurationError(place, value, "a text that is not empty, in one line")


def signing_key(place: str, secret: object) -> bytes:
    """The key that a secret stands for."""
    if isinstance(secret, str) and secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) >= 24:
            return key
    elif isinstance(secret, str) and len(secret) >= 16:
        return secret.encode()
    raise ConfigurationError(place, MASK, _SECRET)


def checked_alerts(alerts: object, *, has_ledger: bool) -> tuple[Alert, ...]:
    """Alerts as given by keyword."""
    if isinstance(alerts, (str, bytes, Alert)) or not isinstance(alerts, Iterable):
        raise ConfigurationError("Dedup.alerts", alerts, "a list of alerts")
    checked = tuple(alerts)
    names: set[str] = set()
    for index, alert in enumerate(checked):
        place = f"Dedup.alerts[{index}]"
        if not isinstance(alert, Alert):
            raise ConfigurationError(place, alert, "an Alert")
        if alert.name in names:
            raise ConfigurationError("Alert.name", alert.name, "a name that no other alert has")
        names.add(alert.name)
        if alert.watch == "ledger-failures" and not has_ledger:
            raise ConfigurationError(
                f"{place}.watch", alert.watch, "only beside records=..., which is what may fail"
            )
        if alert.webhook is not None:
            signing_key(f"{place}.secret", key_of(alert))
    return checked


def key_of(alert: Alert) -> str | None:
    """The alert's secret, else the one in the environment."""
    return alert.secret or os.environ.get(SECRET_VARIABLE)
