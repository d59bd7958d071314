"""What goes wrong by name: errors that users see.

Law: every error of the package is defined here, and each one's text can be read without its traceback.
"""

from __future__ import annotations

from . import masks


class ConfigurationError(ValueError):
    """A setting that can't be: raised by constructors, naming the place, the value and what is allowed.

    Where it is not the value that is wrong (a file that is not there), `why` says what is, and
    `allowed` what it needs.
    """

    def __init__(self, place: str, value: object, allowed: str, *, why: str = "") -> None:
        value = masks.setting(place, value)
        place, allowed = _line(place, 200), _line(allowed, 600)
        super().__init__(place, value, allowed)
        self.place = place
        self.value = value
        self.allowed = allowed
        self.why = _line(why, 200)

    def __str__(self) -> str:
        if self.why:
            return f"{self.place}: {self.why}; needed: {self.allowed}"
        return f"{self.place}: {_shown(self.value)} is not allowed here; allowed: {self.allowed}"

    def elsewhere(self, old: str, new: str) -> ConfigurationError:
        """The same error as the user knows its place: where this begins with `old`, there it begins with `new`."""
        return ConfigurationError(new + self.place.removeprefix(old), self.value, self.allowed)


class ForwardFailed(RuntimeError):  # noqa: N818 - the word of the domain: a forward fails, a flight is abandoned
    """The forward that this request shared ended without a complete response.

    Raised to followers only, one object each; the leader raises the app's own exception. It names the type of
    that exception and, where the forward was traced, its trace (32 hex digits).
    """

    def __init__(self, error_type: str, trace_id: str | None = None) -> None:
        where = f" (trace {trace_id})" if trace_id else ""
        super().__init__(f"the shared forward failed with {error_type}{where}")
        self.error_type = error_type
        self.trace_id = trace_id

    def __reduce__(self) -> tuple[type[ForwardFailed], tuple[str, str | None]]:
        return ForwardFailed, (self.error_type, self.trace_id)


def _shown(value: object) -> str:
    try:
        return _line(repr(value), 100)
    except ValueError:  # CPython spells no integer of more than 4,300 digits
        return "a number of too many digits"


def printable(text: str) -> str:
    """A text in which nothing moves a terminal's cursor or begins a line: what is not printable is escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _line(text: str, limit: int) -> str:
    """One line of at most `limit` characters, whatever a file's names hold."""
    line = printable(text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."
