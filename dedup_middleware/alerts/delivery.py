"""Delivery: who hears of an alert.

Law: each receiver has a thread and a bounded queue of its own, so that one that fails or hangs harms nobody else;
what does not fit is counted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Final, Protocol

from .alert import key_of, shown, signing_key
from .webhook import Webhook, WebhookError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from ..events import AlertRaised, Events
    from ..telemetry import Telemetry
    from .alert import Alert
    from .level import Turn

    Receiver: TypeAlias = Callable[[AlertRaised, threading.Event], object]

MAX_WAITING: Final = 100
"""Alerts that wait for one receiver."""


class Engine(Protocol):
    """What delivery asks of the engine."""

    telemetry: Telemetry
    events: Events

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds of a monotonic clock."""


class Courier:
    """Brings alerts to one receiver; its thread begins with the first of them."""

    def __init__(self, name: str, receiver: Receiver, telemetry: Telemetry) -> None:
        self.lost = 0
        self._name = name
        self._receiver = receiver
        self._telemetry = telemetry
        self.reset()

    def reset(self) -> None:
        """Begin anew; after a fork what waited is the parent's to deliver."""
        self._waiting: queue.Queue[AlertRaised | None] = queue.Queue(MAX_WAITING)
        self._closing = threading.Event()
        self._running = False

    def put(self, event: AlertRaised) -> None:
        """Never for long; from the watch's thread alone."""
        if not self._running:
            self._running = True
            threading.Thread(
                target=self._run, args=(self._waiting, self._closing), name="dedup-alert-courier", daemon=True
            ).start()
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """What waits gets one more try each, and the thread ends."""
        self._closing.set()
        if self._running:
            with contextlib.suppress(queue.Full):  # then it looks at `closing` after each
                self._waiting.put_nowait(None)
        self.reset()

    def _run(self, waiting: queue.Queue[AlertRaised | None], closing: threading.Event) -> None:
        while not (closing.is_set() and waiting.empty()) and (event := waiting.get()) is not None:
            try:
                self._receiver(event, closing)
            except Exception as error:  # noqa: BLE001 - the receiver is the user's
                cause = error if isinstance(error, WebhookError) else type(error).__qualname__
                self._telemetry.warn(
                    self._name, "an alert was not delivered: %s failed with %s", self._name, cause
                )
                self.lost += 1


class Delivery:
    """Tells of alerts: in the log and a span at once, to listeners, callbacks and webhooks by their own threads."""

    def __init__(self, engine: Engine, alerts: Iterable[Alert], version: str) -> None:
        self._engine = engine
        self._couriers: dict[object, Courier] = {}
        self._of: dict[str, list[Courier]] = {}
        for alert in alerts:
            couriers = self._of[alert.name] = []
            if (callback := alert.callback) is not None:
                couriers.append(self._courier(id(callback), "a callback", _called(callback)))
            if alert.webhook is not None:
                key = signing_key("Alert.secret", key_of(alert))
                webhook = Webhook(alert.webhook, key, version)
                couriers.append(
                    self._courier((alert.webhook, key), f"the webhook {shown(alert.webhook)}", webhook)
                )

    def _courier(self, place: object, name: str, receiver: Receiver) -> Courier:
        """One a receiver, however many alerts it hears of."""
        if place not in self._couriers:
            self._couriers[place] = Courier(name, receiver, self._engine.telemetry)
        return self._couriers[place]

    @property
    def lost(self) -> int:
        """Alerts that a callback or a webhook did not get."""
        return sum(courier.lost for courier in self._couriers.values())

    def tell(self, alert: Alert, event: AlertRaised, turn: Turn) -> None:
        """Tell everybody."""
        engine = self._engine
        engine.telemetry.alert(engine.clock(), event, turn)
        if engine.events.heard:
            engine.events.publish(event)
        for courier in self._of[alert.name]:
            courier.put(event)

    def reset(self) -> None:
        """After a fork."""
        for courier in self._couriers.values():
            courier.reset()

    def close(self) -> None:
        """What waits gets one more try each."""
        for courier in self._couriers.values():
            courier.close()


def _called(callback: Callable[[AlertRaised], object]) -> Receiver:
    return lambda event, _: callback(event)
