"""How often somebody may ask: fixed windows of a minute, counted in bounded memory.

Law: a counter costs a dict look-up; when there are too many, the one that is over first makes room.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from ..forking import OwnLock

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_COUNTERS: Final = 10_000


class BoundedStorage(Storage):
    """Counters in memory, so many at most; all windows have one length, so the oldest is over first."""

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._own = OwnLock()
        self._counters: OrderedDict[str, list[Any]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        """What `limits` may wrap: nothing here fails."""
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, in a new window where the last one is over."""
        with self._own.lock:
            now = self._clock()
            counter = self._counters.get(key)
            if counter is None or counter[1] <= now:
                self._counters.pop(key, None)
                while len(self._counters) >= MAX_COUNTERS:
                    self._counters.popitem(last=False)
                counter = self._counters[key] = [0, now + expiry]
            counter[0] += amount
            return int(counter[0])

    def get(self, key: str) -> int:
        """The count of the window that runs."""
        count, end = self._counters.get(key, (0, 0.0))
        return int(count) if end > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        """When the window is over."""
        return float(self._counters.get(key, (0, self._clock()))[1])

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget all."""
        with self._own.lock:
            count = len(self._counters)
            self._counters.clear()
            return count

    def clear(self, key: str) -> None:
        """Forget one."""
        with self._own.lock:
            self._counters.pop(key, None)

    def __len__(self) -> int:
        return len(self._counters)


class Limiter:
    """Counts by kind and by who; each kind has so many a minute."""

    def __init__(self, clock: Callable[[], float], **per_minute: int) -> None:
        self.storage = BoundedStorage(clock)
        self._clock = clock
        self._windows = FixedWindowRateLimiter(self.storage)
        self._items = {
            kind: RateLimitItemPerMinute(number, namespace=kind) for kind, number in per_minute.items()
        }

    def hit(self, kind: str, who: str) -> int:
        """Count one: 0 where it is allowed, else the seconds until it may be tried again."""
        item = self._items[kind]
        return 0 if self._windows.hit(item, who) else self._wait(kind, who)

    def blocked(self, kind: str, who: str) -> int:
        """The same without counting."""
        return 0 if self._windows.test(self._items[kind], who) else self._wait(kind, who)

    def _wait(self, kind: str, who: str) -> int:
        reset = self._windows.get_window_stats(self._items[kind], who).reset_time
        return max(1, int(reset - self._clock()) + 1)
