"""Rules: where one applies and what it asks for.

Law: a rule is flat, frozen and checked when it is made, whichever front door made it; what it cannot mean is
refused with its place, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import force_setattr

from .checks import NOT_YET, check_fields, duration, share, texts, truth, whole
from .errors import ConfigurationError
from .http import RESPONSE_OVERHEAD, SAFE_METHODS
from .paths import PathPattern, check_shared
from .selectors import TOKEN, Identity, check_parameters, identity_of, ignore_of, vary_of

DEFAULT_METHODS: Final = ("GET", "HEAD", "QUERY")
WRITING_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")


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
    invalidate_on_error: bool = True
    mode: Literal["on", "off"] = "on"
    stale_while_revalidate: float | str = 0
    stale_if_error: float | str = 0
    ttl_jitter: float = 0
    refresh_ahead: float | str = 0
    honor_request_directives: bool = False
    heuristic_freshness: bool = False
    targeted_cache_control: bool = False
    share_cookies: bool = False
    ignore_language_order: bool = False
    ignore_field_spelling: bool = False
    add_etag: bool = False
    cache_status_key: bool = False

    @classmethod
    def shared_cache(cls, path: str = "/{path:path}", **fields: Any) -> Rule:
        """A rule that does all that RFC 9111 lets a shared cache do; `fields` override or add to the preset.

        It shares the cookies of a response that states a lifetime (s.7.3): where the app sets a session's cookie on
        one, say `share_cookies=False`.
        """
        return cls(path, **{**SHARED_CACHE, **fields})

    def __post_init__(self) -> None:
        """Check every field and put it into the form that the engine reads."""
        parameters = PathPattern(self.path).parameters
        for field in _DURATIONS:
            given = getattr(self, field)
            if field == "ttl" and given == "origin":
                continue
            also = '"origin", ' if field == "ttl" else ""
            force_setattr(self, field, duration(f"Rule.{field}", given, also))
            if field == "max_wait" and self.max_wait == 0:
                raise ConfigurationError("Rule.max_wait", given, "a duration above 0")
        force_setattr(self, "ttl_jitter", share("Rule.ttl_jitter", self.ttl_jitter, 0.5))
        for field in ("max_followers", "max_responses", "max_request_body", "max_response_body"):
            whole(f"Rule.{field}", getattr(self, field))
        if self.max_bytes is not None:
            whole("Rule.max_bytes", self.max_bytes)
        if self.max_responses == 0:
            raise ConfigurationError("Rule.max_responses", 0, "a whole number above 0 (ttl=0 stores nothing)")
        for field in ("tags", "invalidates"):
            force_setattr(self, field, texts(f"Rule.{field}", getattr(self, field)))
            check_parameters(f"Rule.{field}", getattr(self, field), parameters)
        if self.name is not None and not (type(self.name) is str and self.name):
            raise ConfigurationError("Rule.name", self.name, "a text that is not empty")
        for field in _SWITCHES:
            truth(f"Rule.{field}", getattr(self, field))
        if self.collapse is not None:
            truth("Rule.collapse", self.collapse)
        if str(self.mode) == "shadow":
            raise ConfigurationError("Rule.mode", self.mode, f'"on" or "off" ("shadow" is {NOT_YET})')
        if self.mode not in ("on", "off"):
            raise ConfigurationError("Rule.mode", self.mode, '"on" or "off"')
        force_setattr(self, "methods", self._checked_methods())
        force_setattr(self, "vary", vary_of(self.vary))
        force_setattr(self, "ignore", ignore_of(self.ignore))
        force_setattr(self, "identity", identity_of(self.identity))
        self._check_together()
        self._check_caching()

    def _checked_methods(self) -> tuple[str, ...]:
        if self.methods is None:
            return WRITING_METHODS if self.invalidates else DEFAULT_METHODS
        methods = texts("Rule.methods", self.methods)
        if not methods:
            raise ConfigurationError("Rule.methods", [], "at least one method")
        for method in methods:
            if not TOKEN.fullmatch(method):
                raise ConfigurationError("Rule.methods", method, "method names, such as GET")
        return tuple(dict.fromkeys(method.upper() for method in methods))

    def _check_together(self) -> None:
        if self.invalidates:
            self._refuse(_LIFETIMES, "0 beside invalidates (such a rule does not store)")
            self._refuse(("collapse",), "false beside invalidates (such a rule does not collapse)")
            if self.tags:
                raise ConfigurationError(
                    "Rule.tags", list(self.tags), "none beside invalidates (such a rule does not store)"
                )
            return
        check_shared(self.path)
        if self.mode == "on" and not any(self.shares(method) for method in self.methods or ()):
            self._refuse(
                _LIFETIMES,
                f"0 for {', '.join(self.methods or ())}, which may change something: "
                "write collapse=True to say that it is safe here",
            )
        if self.stores:
            self._check_room()

    def _check_room(self) -> None:
        """A rule that could never store, and would tell every client that it does, is refused."""
        if not any(self.shares(method) and method != "HEAD" for method in self.methods or ()):
            self._refuse(
                _LIFETIMES,
                f"0 for {', '.join(self.methods or ())}: what answers a HEAD is not stored, so name GET too",
            )
        if self.max_bytes is not None and self.max_bytes < RESPONSE_OVERHEAD:
            raise ConfigurationError(
                "Rule.max_bytes",
                self.max_bytes,
                f"a whole number from {RESPONSE_OVERHEAD} on beside a ttl (an empty response takes as many)",
            )
        if self.max_response_body == 0:
            raise ConfigurationError("Rule.max_response_body", 0, "a whole number above 0 beside a ttl")

    def _check_caching(self) -> None:
        """What only a rule that stores, or one that follows the origin, can mean."""
        if not self.ttl:
            self._refuse(_STORING, "only beside a ttl")
        if self.ttl != "origin":
            self._refuse(_BY_ORIGIN, 'only beside ttl="origin"')
            if self.identity == "origin":
                raise ConfigurationError("Rule.identity", "origin", 'only beside ttl="origin"')
            if self.ttl and float(self.refresh_ahead) >= float(self.ttl):
                raise ConfigurationError("Rule.refresh_ahead", self.refresh_ahead, "less than the ttl")
        else:
            self._refuse(("negative_ttl",), '0 beside ttl="origin" (the app says how long)')

    def _refuse(self, fields: Sequence[str], allowed: str) -> None:
        """Refuse the first of these fields that asks for something."""
        for field in fields:
            if given := getattr(self, field):
                raise ConfigurationError(f"Rule.{field}", given, allowed)

    def shares(self, method: str) -> bool:
        """Whether requests with this method may be answered together or from the store."""
        return not self.invalidates and (self.collapse is True or method in SAFE_METHODS)

    @property
    def stores(self) -> bool:
        """Whether anything can be stored under this rule."""
        return (self.ttl != 0 or self.negative_ttl != 0) and self.mode == "on"

    @property
    def assesses(self) -> bool:
        """Whether a stored response may be of use when it is stale."""
        return self.stores and bool(
            self.ttl == "origin"
            or self.stale_while_revalidate
            or self.stale_if_error
            or self.honor_request_directives
        )

    @property
    def follows_origin(self) -> bool:
        """Whether the app's own Cache-Control says how long a response lives."""
        return self.ttl == "origin"

    @property
    def label(self) -> str:
        """What the rule is called in metrics, spans and statistics."""
        return self.name or self.path


_DURATIONS: Final = (
    "ttl",
    "negative_ttl",
    "max_wait",
    "stale_while_revalidate",
    "stale_if_error",
    "refresh_ahead",
)
_LIFETIMES: Final = ("ttl", "negative_ttl")
_BY_ORIGIN: Final = (
    "heuristic_freshness",
    "targeted_cache_control",
    "share_cookies",
    "ignore_language_order",
    "ignore_field_spelling",
)
_STORING: Final = (
    "stale_while_revalidate",
    "stale_if_error",
    "ttl_jitter",
    "refresh_ahead",
    "honor_request_directives",
    "add_etag",
)
_SWITCHES: Final = (
    "share_errors",
    "invalidate_on_error",
    "honor_request_directives",
    *_BY_ORIGIN,
    "add_etag",
    "cache_status_key",
)

SHARED_CACHE: Final[Mapping[str, Any]] = {
    "ttl": "origin",
    "vary": "origin",
    "identity": "origin",
    "honor_request_directives": True,
    "heuristic_freshness": True,
    "targeted_cache_control": True,
    "share_cookies": True,
    "ignore_language_order": True,
    "ignore_field_spelling": True,
    "invalidate_on_error": False,
    "stale_if_error": "1d",
}
"""The preset `Rule.shared_cache()`, in TOML `preset = "shared-cache"`."""

RULE_FIELDS: Final = frozenset(field.name for field in msgspec.structs.fields(Rule))
