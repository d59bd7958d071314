"""Rules: where one applies and what it asks for.

Law: a rule is flat, frozen and checked when it is made, whichever front door made it; what it cannot mean is
refused with its place, its value and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import force_setattr

from . import masks
from .errors import ConfigurationError
from .http import SAFE_METHODS
from .paths import PathPattern

DEFAULT_METHODS: Final = ("GET", "HEAD", "QUERY")
WRITING_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")
LATER: Final = frozenset(
    {
        "stale_while_revalidate",
        "stale_if_error",
        "honor_request_directives",
        "ttl_jitter",
        "refresh_ahead",
        "heuristic_freshness",
        "targeted_cache_control",
        "add_etag",
    }
)
"""Fields that a coming version brings: refused by name until they work."""

NOT_YET: Final = "not available in this version"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TAG_PARAMETER = re.compile(r"\{([^{}]*)\}")


class Anonymous:
    """The type of `ANONYMOUS`: what an identity function returns for a caller who is nobody in particular."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANONYMOUS"


ANONYMOUS: Final = Anonymous()

Identity = str | Sequence[str] | Callable[[Mapping[str, Any]], "str | bytes | Anonymous"]


class _RuleMeta(msgspec.StructMeta):
    """Refuses unknown keywords with the package's own sentence (msgspec's TypeError does not say what is allowed)."""

    def __call__(self, *args: Any, **fields: Any) -> Any:
        check_fields("Rule.", fields, self.__struct_fields__)
        return super().__call__(*args, **fields)


class _Path(msgspec.Struct, frozen=True, metaclass=_RuleMeta):
    path: str = "/{path:path}"


class Rule(_Path, frozen=True, kw_only=True):
    """Where a rule applies, how long a response lives there and who may share it.

    Durations are seconds, or text such as `"250ms"`, `"5m"`, `"2h5m"`; sizes are bytes. Every field, its default
    and its meaning stand in docs/rules.md.

    Raises:
        ConfigurationError: for a value that a field cannot have.
    """

    methods: Sequence[str] | None = None
    name: str | None = None
    ttl: float | str = 0
    vary: Sequence[str] | Literal["origin"] | None = None
    ignore: Sequence[str] = ()
    identity: Identity = "separate"
    tags: Sequence[str] = ()
    invalidates: Sequence[str] = ()
    collapse: bool | None = None
    max_wait: float | str = 30
    max_followers: int = 1000
    max_responses: int = 1000
    max_bytes: int | None = None
    max_request_body: int = 64 * 1024
    max_response_body: int = 1024 * 1024
    negative_ttl: float | str = 0
    share_errors: bool = True
    mode: Literal["on", "off"] = "on"

    def __post_init__(self) -> None:
        """Check every field and put it into the form that the engine reads."""
        parameters = PathPattern(self.path).parameters
        for field in ("ttl", "negative_ttl", "max_wait"):
            given = getattr(self, field)
            force_setattr(self, field, duration(f"Rule.{field}", given))
            if field == "max_wait" and self.max_wait == 0:
                raise ConfigurationError("Rule.max_wait", given, "a duration above 0")
        for field in ("max_followers", "max_responses", "max_request_body", "max_response_body"):
            _whole(f"Rule.{field}", getattr(self, field))
        if self.max_bytes is not None:
            _whole("Rule.max_bytes", self.max_bytes)
        if self.max_responses == 0:
            raise ConfigurationError("Rule.max_responses", 0, "a whole number above 0 (ttl=0 stores nothing)")
        for field in ("tags", "invalidates", "ignore"):
            force_setattr(self, field, _texts(f"Rule.{field}", getattr(self, field)))
        for field in ("tags", "invalidates"):
            _check_parameters(f"Rule.{field}", getattr(self, field), parameters)
        if self.name is not None and not (type(self.name) is str and self.name):
            raise ConfigurationError("Rule.name", self.name, "a text that is not empty")
        if type(self.share_errors) is not bool:
            raise ConfigurationError("Rule.share_errors", self.share_errors, "true or false")
        if self.collapse is not None and type(self.collapse) is not bool:
            raise ConfigurationError("Rule.collapse", self.collapse, "true or false")
        if str(self.mode) == "shadow":
            raise ConfigurationError("Rule.mode", self.mode, f'"on" or "off" ("shadow" is {NOT_YET})')
        if self.mode not in ("on", "off"):
            raise ConfigurationError("Rule.mode", self.mode, '"on" or "off"')
        force_setattr(self, "methods", self._checked_methods())
        force_setattr(self, "vary", _vary(self.vary))
        for item in self.ignore:
            _check_ignore(item)
        force_setattr(self, "identity", _identity(self.identity))
        self._check_together()

    def _checked_methods(self) -> tuple[str, ...]:
        if self.methods is None:
            return WRITING_METHODS if self.invalidates else DEFAULT_METHODS
        methods = _texts("Rule.methods", self.methods)
        if not methods:
            raise ConfigurationError("Rule.methods", [], "at least one method")
        for method in methods:
            if not _TOKEN.fullmatch(method):
                raise ConfigurationError("Rule.methods", method, "method names, such as GET")
        return tuple(dict.fromkeys(method.upper() for method in methods))

    def _check_together(self) -> None:
        if self.invalidates:
            for field in ("ttl", "negative_ttl"):
                if getattr(self, field):
                    raise ConfigurationError(
                        f"Rule.{field}",
                        getattr(self, field),
                        "0 beside invalidates (such a rule does not store)",
                    )
            if self.collapse:
                raise ConfigurationError(
                    "Rule.collapse", True, "false beside invalidates (such a rule does not collapse)"
                )
            if self.tags:
                raise ConfigurationError(
                    "Rule.tags", list(self.tags), "none beside invalidates (such a rule does not store)"
                )
        elif self.mode == "on" and not any(self.shares(method) for method in self.methods or ()):
            for field in ("ttl", "negative_ttl"):
                if getattr(self, field):
                    raise ConfigurationError(
                        f"Rule.{field}",
                        getattr(self, field),
                        f"0 for {', '.join(self.methods or ())}, which may change something: "
                        "write collapse=True to say that it is safe here",
                    )

    def shares(self, method: str) -> bool:
        """Whether requests with this method may be answered together or from the store."""
        return not self.invalidates and (self.collapse is True or method in SAFE_METHODS)

    @property
    def stores(self) -> bool:
        """Whether anything can be stored under this rule."""
        return (self.ttl != 0 or self.negative_ttl != 0) and self.mode == "on"

    @property
    def label(self) -> str:
        """What the rule is called in metrics, spans and statistics."""
        return self.name or self.path


RULE_FIELDS: Final = frozenset(field.name for field in msgspec.structs.fields(Rule))


def is_async(function: object) -> bool:
    """Whether calling it gives a coroutine: a function, or an object whose call is one."""
    called = getattr(function, "__call__", None)  # noqa: B004 - not whether it can be called, but what that does
    return iscoroutinefunction(function) or iscoroutinefunction(called)


_LONGEST: Final = 1_000_000_000
"""Seconds, some thirty years: more is a slip, and no timer takes every number."""


def check_fields(place: str, fields: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuse what is not a field, and say of coming ones that they are not there yet."""
    for field, value in fields.items():
        if field in LATER:
            raise ConfigurationError(f"{place}{field}", value, f"nothing yet; {field} is {NOT_YET}")
        if field not in allowed:
            # What a mistyped name holds may be a secret.
            shown = value if isinstance(value, (int, float)) else masks.MASK
            raise ConfigurationError(f"{place}{field}", shown, f"only the fields {', '.join(allowed)}")


def duration(place: str, value: object) -> float:
    """Seconds as a setting has them: a number, or a text such as "1h30m".

    Raises:
        ConfigurationError: for anything else.
    """
    allowed = '0, seconds, or a text such as "5m"'
    if place == "Rule.ttl" and value == "origin":
        raise ConfigurationError(place, value, f'{allowed} ("origin" is {NOT_YET})')
    seconds = value
    if isinstance(value, str) and _DURATION.fullmatch(value):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(value))
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds <= _LONGEST:
        return float(seconds)
    too_long = isinstance(seconds, (int, float)) and seconds > _LONGEST
    raise ConfigurationError(place, value, f"at most {_LONGEST} seconds" if too_long else allowed)


def _whole(place: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(place, value, "a whole number from 0 on")


def _texts(place: str, value: object, allowed: str = "a list of texts") -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, set, frozenset)):
        raise ConfigurationError(place, value, allowed)
    for item in value:
        if not isinstance(item, str) or not item:
            raise ConfigurationError(place, item, allowed)
    return tuple(value)


def _check_parameters(place: str, templates: Sequence[str], parameters: frozenset[str]) -> None:
    for template in templates:
        for name in _TAG_PARAMETER.findall(template):
            if name not in parameters:
                known = ", ".join(sorted(f"{{{p}}}" for p in parameters)) or "none in this path"
                raise ConfigurationError(place, template, f"parameters of the path: {known}")
        if re.search(r"[{}]", _TAG_PARAMETER.sub("", template)):
            raise ConfigurationError(place, template, "a text with {parameters} of the path")


def _vary(value: object) -> tuple[str, ...] | str | None:
    if value is None:
        return None
    if value == "origin":
        return "origin"
    allowed = (
        '"origin", or a list of field names, "client", "cookie:NAME", "state:NAME", "scope:NAME"; '
        '"*" for everything, with "-NAME" for what it should leave out'
    )
    items = tuple(
        item.lower() if not item.startswith(("cookie:", "state:", "scope:")) else item
        for item in _texts("Rule.vary", value, allowed)
    )
    for item in items:
        name = item.removeprefix("-")
        for prefix in ("cookie:", "state:", "scope:"):
            if not item.startswith("-") and name.startswith(prefix):
                name = name.removeprefix(prefix)
        if item != "*" and not _TOKEN.fullmatch(name):
            raise ConfigurationError("Rule.vary", item, allowed)
        if item.startswith("-") and "*" not in items:
            raise ConfigurationError("Rule.vary", item, '"-NAME" only beside "*"')
    return items


def _check_ignore(item: str) -> None:
    from .names import is_credential, is_secret  # noqa: PLC0415 - names is needed here only

    kind, _, pattern = item.partition(":")
    if kind not in ("query", "body", "header", "state", "scope") or not pattern:
        raise ConfigurationError(
            "Rule.ignore",
            item,
            '"query:NAME", "body:NAME", "header:NAME", "state:NAME" or "scope:NAME"; NAME may hold *',
        )
    never = "no credential: leaving one out of the key would give one caller's response to another"
    if kind == "header" and (
        is_credential(pattern.lower()) or pattern.lower() in ("range", "if-range", "host")
    ):
        raise ConfigurationError("Rule.ignore", item, never)
    if kind in ("query", "body") and is_secret(pattern):
        raise ConfigurationError("Rule.ignore", item, never)


def _identity(value: object) -> Identity:
    allowed = '"separate", "credentials", "shared", a list of credentials, or a function'
    if isinstance(value, str):
        if value not in ("separate", "credentials", "shared"):
            raise ConfigurationError("Rule.identity", value, allowed)
        return value
    if callable(value):
        if is_async(value):
            raise ConfigurationError("Rule.identity", value, f"{allowed} (not an async one)")
        return value
    items = _texts("Rule.identity", value, allowed)
    if not items:
        raise ConfigurationError(
            "Rule.identity", [], 'a list that names something ("shared" means one response for all)'
        )
    for item in items:
        kind, colon, name = item.partition(":")
        text = name if colon and kind in ("cookie", "header") else item
        if not _TOKEN.fullmatch(text):
            raise ConfigurationError(
                "Rule.identity",
                item,
                '"cookie:NAME", "header:NAME", "user", "session", "certificate" or "client"',
            )
    return tuple(
        item if item.startswith("cookie:") else item.removeprefix("header:").lower() for item in items
    )
