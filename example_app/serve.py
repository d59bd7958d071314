"""One server process: `python -m example_app.serve`, started by the example, settings on its standard input.

It prints its port as a line of JSON, serves, and ends when its standard input does: no parent, no server.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn

from .backend import make_app
from .control import Control
from .settings import Settings
from .work import Work

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dedup_middleware import Dedup

    from .recorder import Recorder
    from .telemetry import Telemetry


class Started(msgspec.Struct, frozen=True):
    port: int


class Ended(msgspec.Struct, frozen=True):
    spans_lost: int = 0
    metrics_failed: bool = False


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    recorder, telemetry = _telemetry(settings)
    work = Work(Path(settings.folder) / "devtools.log", telemetry.tracer_provider if telemetry else None)
    dedup = _dedup(settings, telemetry) if settings.middleware else None
    dashboard = _dashboard(settings, dedup)
    app = Control(make_app(settings, dedup, work), work, dedup, recorder, dashboard)
    listening = listen(0)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        ws="none",
        timeout_keep_alive=600,  # no measured request has to open a connection
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    _end_with_the_parent(server, asyncio.get_running_loop())
    _tell(Started(listening.getsockname()[1]))
    await server.serve([listening])
    if dedup is not None:
        await dedup.aclose()
    work.close()
    if telemetry is not None:
        _tell(Ended(*telemetry.close()))


def listen(port: int) -> socket.socket:
    """A listening socket on this machine alone."""
    # Its protocol is named: asyncio switches Nagle's delay off (40 ms an answer) only where it reads "TCP".
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":  # there it would let two servers share a port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening


def _telemetry(settings: Settings) -> tuple[Recorder | None, Telemetry | None]:
    """No SDK at all unless spans are looked at: that is how the middleware is measured."""
    if not (settings.record or settings.otlp):
        return None, None
    from .recorder import Recorder  # noqa: PLC0415  the SDK takes a tenth of a second
    from .telemetry import Telemetry  # noqa: PLC0415  as above

    recorder = Recorder() if settings.record else None
    return recorder, Telemetry(settings.otlp, settings.otlp_metrics, [recorder] if recorder else [])


def _dedup(settings: Settings, telemetry: Telemetry | None) -> Dedup:
    from dedup_middleware import Alert, Dedup  # noqa: PLC0415  the bare server runs without it

    more: dict[str, Any] = {}
    if telemetry is not None:
        more |= {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
    if settings.token is not None:  # what is measured records nothing
        more |= {
            "records": f"sqlite:///{settings.folder}/records.db",
            "secret": settings.token,
            "alerts": [
                Alert("few hits", "hit-rate", below=0.5, minimum=50, window="1m"),
                Alert("the chat runs often", "executions", rule="chat", above=5, window="1m"),
            ],
        }
    return Dedup.from_toml(settings.rules, **more)


def _dashboard(settings: Settings, dedup: Dedup | None) -> ASGIApp | None:
    if settings.token is None or dedup is None:
        return None
    from dedup_middleware.admin import admin  # noqa: PLC0415  only the page's server has one

    return admin(dedup, allow=settings.token)


class _Server(uvicorn.Server):
    """uvicorn, ended by its parent alone."""

    def handle_exit(self, sig: int, frame: object) -> None:
        del sig, frame
        self.should_exit = True


def _end_with_the_parent(server: _Server, loop: asyncio.AbstractEventLoop) -> None:
    def wait() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(server.handle_exit, 0, None)

    threading.Thread(target=wait, daemon=True).start()


def _tell(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a collector that hangs holds a thread of its exporter; nothing of ours is left to do
