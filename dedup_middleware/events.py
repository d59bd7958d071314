"""Events: what listeners in this process hear.

Law: whoever is heard of pays a place in a queue; a slow listener loses events, a failing one a log line, nobody else.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_WAITING: Final = 10_000
"""Events that wait for one listener; those that come when so many do are dropped, and counted."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What happened at a time (seconds since the epoch)."""

    at: float


class ExecutionStarted(Event, frozen=True, kw_only=True, tag="execution.started"):
    """A forward, or a function, runs; `key` is the fingerprint's digest in hex, `flight` tells flights apart."""

    rule: str
    key: str
    flight: int
    method: str = ""


class ExecutionCompleted(Event, frozen=True, kw_only=True, tag="execution.completed"):
    """It is over: after `duration` seconds, with a body of so many bytes and so many followers.

    `error` is the exception's type, or a server error's status; `route` the template, where a framework told it.
    """

    rule: str
    key: str
    flight: int
    duration: float
    followers: int
    bytes: int = 0
    method: str = ""
    status: int = 0
    error: str | None = None
    route: str | None = None
    trace_id: str | None = None


class ExecutionCollapsed(Event, frozen=True, kw_only=True, tag="execution.collapsed"):
    """A request was answered by a flight that another one opened, after `waited` seconds."""

    rule: str
    key: str
    flight: int
    waited: float
    saved: float
    trace_id: str | None = None


class ResponseServed(Event, frozen=True, kw_only=True, tag="response.served"):
    """A sample of the hits, about one a second (each one while a tracer records): it took `duration` seconds."""

    rule: str
    key: str
    duration: float
    age: float


class ResponseStored(Event, frozen=True, kw_only=True, tag="response.stored"):
    """A response, or a function's value, is stored for `ttl` seconds; `bytes` is what the store is charged."""

    rule: str
    key: str
    bytes: int
    ttl: float
    tags: tuple[str, ...] = ()


class ResponseInvalidated(Event, frozen=True, kw_only=True, tag="response.invalidated"):
    """So many stored responses went because somebody asked.

    `by` is "code", "request" (one that writes) or "administrator". `tags`, `rule` or `key` (a digest in hex) say what
    was named: without them all, or, by a request, its own target alone, which is not told.
    """

    by: str
    tags: tuple[str, ...]
    dropped: int
    rule: str | None = None
    key: str | None = None


class AlertRaised(Event, frozen=True, kw_only=True, tag="alert.raised"):
    """An alert's condition holds, or (`over`) holds no more; `value` is what was measured, against `threshold`."""

    alert: str
    message: str
    value: float
    threshold: float
    rule: str | None = None
    over: bool = False


def tags_in(names: Iterable[str]) -> tuple[str, ...]:
    """The tags among the names by which something is invalidated."""
    return tuple(name[4:] for name in names if name.startswith("tag:"))


Listener = Callable[[Event], object]


class Subscription:
    """One listener, called in a thread of its own, which begins with the first event.

    `dropped` counts what it was too slow for.
    """

    def __init__(
        self,
        listener: Listener,
        kinds: tuple[type[Event], ...],
        failed: Callable[[Exception], None],
        forget: Callable[[Subscription, bool], None],
    ) -> None:
        self.dropped = 0
        self._listener = listener
        self._kinds = kinds
        self._failed = failed
        self._forget = forget
        self.reset()

    def reset(self) -> None:
        """Nothing waits; after a fork, which leaves threads and what they held behind."""
        self._waiting: queue.SimpleQueue[Event | Subscription | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._listens = False

    def put(self, event: Event) -> None:
        """From any thread, and never for long."""
        if isinstance(event, self._kinds):
            if self._waiting.qsize() >= MAX_WAITING:
                self.dropped += 1
            else:
                self._waiting.put(event)
                if not self._listens:
                    self._listen()

    def _listen(self) -> None:
        with self._lock:
            if self._listens:
                return
            # The thread keeps nothing alive while it waits: a subscription that is gone, with its engine, ends it.
            thread = threading.Thread(
                target=_run, args=(weakref.ref(self), self._waiting), name="dedup-listener", daemon=True
            )
            weakref.finalize(self, self._waiting.put, None)
            with contextlib.suppress(RuntimeError):  # no thread to be had: the next event asks again
                thread.start()
                self._listens = True

    def close(self) -> None:
        """Hear no more; what waits is still delivered."""
        self._forget(self, True)
        self._waiting.put(self)

    def end(self) -> None:
        """`close`, wherever the collector may call it: it waits for no lock, but leaves it to the listener's thread.

        Where there is no such thread, and the lock is held, the next event begins one.
        """
        self._waiting.put(self)
        if not self._listens:
            self._forget(self, False)

    def hear(self, event: Event | Subscription) -> bool:
        """In its own thread: an event, or itself as the end; whether it listens on."""
        if isinstance(event, Subscription):
            self._forget(self, True)
            return False
        try:
            self._listener(event)
        except Exception as error:  # noqa: BLE001 - the listener is the user's
            self._failed(error)
        return True


def _run(
    reference: weakref.ref[Subscription], waiting: queue.SimpleQueue[Event | Subscription | None]
) -> None:
    while (event := waiting.get()) is not None:
        subscription = reference()
        if subscription is None or not subscription.hear(event):
            return
        del event, subscription


class Events:
    """Who listens; `heard` says whether anybody does, so that nothing is made for nobody."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self.heard = False
        self._failed = failed
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()

    def subscribe(self, listener: Listener, kinds: Iterable[type[Event]] = ()) -> Subscription:
        """Call `listener` with every event of these kinds (all of them unless named), one after the other.

        Raises:
            TypeError: for a listener that can't be called, or a kind that is no event.
        """
        wanted = tuple(kinds) or (Event,)
        if not callable(listener):
            raise TypeError(f"a listener is called with an event; {type(listener).__name__} is not callable")
        for kind in wanted:
            if not issubclass(kind, Event):
                raise TypeError(
                    f"kinds of events are classes such as ExecutionCompleted, not {kind.__name__}"
                )
        with self._lock:
            subscription = Subscription(listener, wanted, self._failed, self._drop)
            self._subscriptions = (*self._subscriptions, subscription)
            self.heard = True
        return subscription

    def publish(self, event: Event) -> None:
        """Tell all who listen."""
        for subscription in self._subscriptions:
            subscription.put(event)

    def restart(self) -> None:
        """After a fork: what waited is the parent's to deliver."""
        self._lock = threading.Lock()
        for subscription in self._subscriptions:
            subscription.reset()

    def _drop(self, subscription: Subscription, wait: bool) -> None:
        if self._lock.acquire(blocking=wait):
            try:
                self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)
                self.heard = bool(self._subscriptions)
            finally:
                self._lock.release()
