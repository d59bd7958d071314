"""A world: the real engine and middleware on a seeded loop, among scripted apps, clients and faults.

Law: everything that happens is noted in one story, and the same seed gives the same story in any process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dedup_middleware import Dedup, DedupMiddleware, Rule
from dedup_middleware.flight import Flight
from dedup_middleware.waiter import Waiter

from .app import App
from .client import Client, FaultyStore
from .functions import Functions
from .loop import START, SeededLoop, StuckError
from .patching import patched
from .records import Asked, Invalidation, Message, Moment, Receive, Request, Run, Send, Worked, asker
from .scripts import Asking, Caller, Deed, Plan, Visit, draw, tag_of

_SECRET = b"the same in every process, always"


class World:
    """Everything of one seed; `run` it, and read what was seen."""

    draws = staticmethod(draw)
    app = App

    def __init__(self, seed: int) -> None:
        source = random.Random(seed)
        self.seed = seed
        self.plan: Plan = self.draws(source)
        shuffle = random.Random(source.random()) if source.random() < 0.8 else None
        self.loop = SeededLoop(shuffle)
        self.story: list[tuple[Any, ...]] = []
        self.requests: list[Request] = []
        self.runs: list[Run] = []
        self.asked: list[Asked] = []
        self.worked: list[Worked] = []
        self.invalidations: list[Invalidation] = []
        self.complaints: list[str] = []
        self.stuck: str | None = None
        self.left_behind: list[str] = []
        self.versions = dict.fromkeys(self.plan.reads, 0)
        self._read_under = {
            target: next(rule for rule in self.plan.rules if rule.path[1] == target[1])
            for target in self.plan.reads
        }
        self.commits: list[tuple[Run, int]] = []
        self.functions = Functions(self)
        self.dedup = Dedup(self.plan.rules, secret=_SECRET, clock=self.loop.time)
        self.dedup.wall = self.loop.time
        self.middleware = DedupMiddleware(self.app(self), dedup=self.dedup)
        if self.plan.store_faults:
            faults = random.Random(source.random())
            self.dedup.store = FaultyStore(self.dedup.store, faults, self.plan.store_faults)
        self.writes_tags = {rule.path for rule in self.plan.rules if rule.invalidates}

    def note(self, *what: Any) -> Moment:
        """One more line of the story."""
        moment = Moment(len(self.story), self.loop.time())
        self.story.append((moment.at, *what))
        return moment

    def rule_of(self, target: str) -> Rule:
        """The rule under which a target is read."""
        return self._read_under[target]

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self) -> World:
        """Let everything happen until nothing is left to happen."""
        self.loop.set_exception_handler(lambda _, about: self.complaints.append(str(about["message"])))
        with _stable_order():
            try:
                self.loop.run_until_complete(self._main())
            except StuckError as stuck:
                self.stuck = str(stuck)
            finally:
                self._end()
        return self

    async def _main(self) -> None:
        plan, loop = self.plan, self.loop
        tasks: list[asyncio.Task[None]] = []
        for visit in plan.visits:
            loop.call_at(START + visit.at, self._visit, visit, tasks)
        for asking in plan.askings:
            loop.call_at(START + asking.at, self._asking, asking, tasks)
        for deed in plan.deeds:
            loop.call_at(START + deed.at, self._deed, deed, tasks)
        times = [*(v.at for v in plan.visits), *(a.at for a in plan.askings), *(d.at for d in plan.deeds)]
        await asyncio.sleep(max(times) + 3.0)
        while waiting := [task for task in tasks if not task.done()]:
            await asyncio.wait(waiting)
        for _ in range(80):
            if self.dedup.flights.is_empty:
                break
            await asyncio.sleep(0.5)  # of virtual time, as all of it here
        await asyncio.sleep(0.5)
        here = asyncio.current_task()
        self.left_behind = [repr(task.get_coro()) for task in asyncio.all_tasks() if task is not here]

    def _end(self) -> None:
        """Leave nothing to the collector but memory."""
        for _ in range(10):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            self.loop.forgive()
            for task in tasks:
                task.cancel()
            try:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=5))
            except StuckError:
                continue
        self.loop.close()

    def _visit(self, visit: Visit, tasks: list[asyncio.Task[None]]) -> None:
        client = Client(self, visit)
        tasks.append(client.start())

    def _asking(self, asking: Asking, tasks: list[asyncio.Task[None]]) -> None:
        task = self.loop.create_task(self.functions.call_alone(asking.key))
        tasks.append(task)
        if asking.cancelled_after is not None:
            self.loop.call_later(asking.cancelled_after, task.cancel)

    def _deed(self, deed: Deed, tasks: list[asyncio.Task[None]]) -> None:
        tasks.append(self.loop.create_task(self._do(deed)))

    async def _do(self, deed: Deed) -> None:
        names: frozenset[str] | None = None
        if deed.what in ("on", "off") and self.dedup.enabled == (deed.what == "on"):
            return  # it is so already
        if deed.what == "invalidate":
            await self.dedup.invalidate(deed.tag)
            names = frozenset({f"tag:{deed.tag}"})
        elif deed.what == "clear":
            self.dedup.clear()
        else:
            self.dedup.enabled = deed.what == "on"
        self.invalidations.append(Invalidation(self.note(deed.what, deed.tag), names))

    def describe(self) -> str:
        """The story, a line for each moment, after what was drawn."""
        rules = [f"rule {rule}" for rule in self.plan.rules]
        lines = [
            f"{tick:5} {at - START:8.3f}  " + " ".join(str(part) for part in what)
            for tick, (at, *what) in enumerate(self.story)
        ]
        faults = f"store faults: {self.plan.store_faults:.0%}, call ttl: {self.plan.call_ttl}"
        return "\n".join([f"seed {self.seed}", *rules, faults, *lines])

    # -- requests -----------------------------------------------------------------------------------------------

    async def ask(self, request: Request, receive: Receive, send: Send) -> None:
        """One request through the middleware, its beginning and end noted."""
        self.requests.append(request)
        about = (request.caller.credentials, request.caller.address, request.language)
        request.began = self.note("request", request.serial, request.method, request.target, *about)
        request.off = not self.dedup.enabled
        token = asker.set(request)
        try:
            await self.middleware(_scope(request), receive, send)
        except BaseException as error:
            request.error = error
            if isinstance(error, asyncio.CancelledError) and request.nested and request.left is None:
                request.left = self.note("nested request cancelled", request.serial)
            raise
        finally:
            asker.reset(token)
            request.ended = self.note(
                "request ended", request.serial, type(request.error).__name__ if request.error else "well"
            )
            if not request.is_read and (request.error is not None or not self._refused(request)):
                self._wrote(request, request.ended)

    def answered(self, request: Request, message: Message) -> None:
        """What the middleware sent for a request."""
        request.messages.append(dict(message))
        if message["type"] == "http.response.start":
            told = request.header(b"cache-status").decode()
            request.head = self.note("head", request.serial, request.status, f"run {request.run}", told)
            if not request.is_read and not 400 <= request.status < 500:
                self._wrote(request, request.head)
        else:
            self.note("chunk", request.serial, message["body"], "more" if message["more_body"] else "last")

    def _refused(self, request: Request) -> bool:
        """Whether the app answered a write with a 4xx, seen or not."""
        own = next((run for run in reversed(self.runs) if run.leader is request), None)
        return own is not None and own.head is not None and 400 <= own.script.status < 500

    def _wrote(self, request: Request, moment: Moment) -> None:
        names = {f"target:{request.target}"}
        if self.rule_path(request.target) in self.writes_tags:
            names.add(f"tag:{tag_of(request.target)}")
        self.invalidations.append(Invalidation(moment, frozenset(names), request.caller))

    @staticmethod
    def rule_path(target: str) -> str:
        """The path of a target's rules."""
        return f"/{target[1]}/{{n}}"


def _scope(request: Request) -> dict[str, Any]:
    caller: Caller = request.caller
    headers = [(b"host", b"example.test"), (b"x-request-id", b"%d" % request.serial)]
    if caller.credentials is not None:
        headers.append((b"authorization", caller.credentials))
    if request.language is not None:
        headers.append((b"accept-language", request.language))
    headers += request.fields
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.target,
        "raw_path": request.target.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": (caller.address, 50_000 + request.serial),
        "server": ("127.0.0.1", 8000),
    }


@contextmanager
def _stable_order() -> Iterator[None]:
    """Sets of flights and readers in the order of their making, not of their addresses."""
    serials: dict[int, tuple[int, object]] = {}

    def serial(self: object) -> int:
        return serials.setdefault(id(self), (len(serials), self))[0]

    with patched((Flight, "__hash__", serial), (Waiter, "__hash__", serial)):
        yield
