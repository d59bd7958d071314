"""Engines: how a piece of work reaches a database without holding up an event loop.

Law: whoever awaits waits for a bounded time; SQLite works in threads of its own, one hop there and back for a whole
transaction, and PostgreSQL in connections of each loop's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .places import Place

T = TypeVar("T")
Work = Callable[["Connection"], T]

BUSY: Final = 1.0
"""Seconds that SQLite waits for another writer before it says that it is locked; then it is tried again."""
ANSWER: Final = 10.0
"""Seconds that an answer may take."""
_THREADS: Final = 2

_abandoned: Final[list[object]] = []
"""What a parent process has opened: closing it, here, would close it there."""


class Engines(Protocol):
    """Runs work in a transaction."""

    async def do(self, work: Work[T], *, writes: bool = False) -> T:
        """Run it, commit where it returns and roll back where it raises."""

    async def aclose(self) -> None:
        """Close what this loop has opened."""

    def forked(self) -> None:
        """In a child process: leave alone what the parent has opened."""


def engines_for(place: Place) -> Engines:
    """What a place needs."""
    return _Sqlite(place) if place.file is not None else _Postgres(place)


_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class _Sqlite:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._engine = self.make()

    def make(self) -> Engine:
        """An engine whose transactions begin where they are told to, not by the driver's guess."""
        engine = create_engine(
            self._place.url, connect_args={"timeout": BUSY, "check_same_thread": False}, pool_timeout=ANSWER
        )
        event.listen(engine, "connect", _opened)
        event.listen(engine, "begin", _began)
        return engine

    async def do(self, work: Work[T], *, writes: bool = False) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> T:
            with self._engine.connect() as connection:
                connection.execution_options(dedup_writes=writes)
                with connection.begin():
                    return work(connection)

        with self._lock:
            if self._jobs is None:
                self._jobs = SimpleQueue()
                for _ in range(_THREADS):
                    # Daemons, and none of a pool: at the end of a process a pool takes no more work.
                    threading.Thread(
                        target=_serve, args=(self._jobs,), name="dedup-sqlite", daemon=True
                    ).start()
            self._jobs.put((loop, future, run))
        async with asyncio.timeout(ANSWER):
            return await future

    async def aclose(self) -> None:
        with self._lock:
            jobs, self._jobs = self._jobs, None
        if jobs is not None:
            for _ in range(_THREADS):
                jobs.put(None)
        self._engine.dispose()

    def forked(self) -> None:
        _abandoned.append(self._engine)
        self._begin_anew()


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        loop, future, run = job
        if future.cancelled():
            continue
        try:
            tell = _teller(future, run())
        except BaseException as error:  # noqa: BLE001 - it goes to who waits
            tell = _teller(future, error=error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell)
        del job, future, run, tell


def _teller(
    future: asyncio.Future[Any], value: Any = None, error: BaseException | None = None
) -> Callable[[], None]:
    def tell() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    return tell


def _opened(connection: Any, _: object) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _began(connection: Connection) -> None:
    if connection.get_execution_options().get("dedup_writes"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:  # it can't fail, and costs a tenth without SQLAlchemy
        connection.connection.cursor().execute("BEGIN")


class _Pair(NamedTuple):
    reading: AsyncEngine
    writing: AsyncEngine


class _Postgres:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pair] = (
            weakref.WeakKeyDictionary()
        )

    def _pair(self) -> _Pair:
        """This loop's engines, over the same connections."""
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - it needs what SQLite does not

        loop = asyncio.get_running_loop()
        found = self._engines.get(loop)
        if found is None:
            writing = create_async_engine(
                self._place.url,
                pool_size=2,
                max_overflow=3,
                pool_timeout=ANSWER,
                connect_args={
                    "timeout": ANSWER / 2,
                    "command_timeout": ANSWER,
                    "server_settings": {"application_name": "dedup-middleware", "jit": "off"},
                },
            )
            # A statement that reads is a transaction of its own: two round trips less.
            reading = writing.execution_options(isolation_level="AUTOCOMMIT")
            found = self._engines[loop] = _Pair(reading, writing)
        return found

    async def do(self, work: Work[T], *, writes: bool = False) -> T:
        async with asyncio.timeout(ANSWER):
            try:
                return await self._do(work, writes=writes)
            except DBAPIError as error:
                if writes or not error.connection_invalidated:
                    raise
                return await self._do(work, writes=writes)  # it was cut while nobody used it

    async def _do(self, work: Work[T], *, writes: bool) -> T:
        pair = self._pair()
        async with pair.writing.begin() if writes else pair.reading.connect() as connection:
            return await connection.run_sync(work)

    async def aclose(self) -> None:
        pair = self._engines.pop(asyncio.get_running_loop(), None)
        if pair is not None:
            await pair.writing.dispose()

    def forked(self) -> None:
        _abandoned.append(self._engines)
        self._begin_anew()
