"""The operations: path, method, what is taken and given; routes and the OpenAPI document are made from this table.

Law: what is not in the table does not exist, in the API and in its document alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from ..core.explain import Explanation
from ..inventory import UnderWay
from . import shapes
from .analytics import KINDS, table, told
from .live import Tick
from .problems import answer

if TYPE_CHECKING:
    from .visit import Visit


class Operation(msgspec.Struct, frozen=True):
    """One thing that may be asked for; `open` to everybody, or only to whom `allow` names."""

    method: str
    path: str
    name: str
    summary: str
    run: Any
    """Called with the visit and what is asked; what it gives may have to be awaited."""
    takes: type[shapes.Strict] = shapes.Nothing
    gives: Any = None
    media: str = "application/json"
    problems: tuple[int, ...] = ()
    is_open: bool = False

    @property
    def changes(self) -> bool:
        """Whether it takes a body and is no plain look."""
        return self.method != "GET"


def _ready(visit: Visit, _: object) -> Response:
    status, ready = visit.api.ready()
    return answer(ready, status)


def _document(visit: Visit, _: object) -> Response:
    place = visit.request.scope.get("root_path") or "/"
    return answer(visit.document | {"servers": [{"url": place, "description": "Where the app is mounted"}]})


def _events(visit: Visit, _: object) -> Response:
    if visit.request.method == "HEAD":
        return Response(media_type="text/event-stream")
    return visit.streams.response(visit.still_allowed, visit.request.headers.get("last-event-id"))


def _responses(visit: Visit, asked: shapes.WhichResponses) -> Any:
    return visit.api.responses(asked)


_READS: Final = (
    Operation("GET", "api/health/live", "live", "Whether the process answers; needs no token",
              lambda *_: shapes.Live("live"), gives=shapes.Live, is_open=True),
    Operation("GET", "api/health/ready", "ready", "Whether store and ledger work",
              _ready, gives=shapes.Ready, problems=(503,)),
    Operation("GET", "api/session", "whoAmI", "Who is asking",
              lambda visit, _: shapes.Session(visit.who), gives=shapes.Session),
    Operation("GET", "api/stats", "stats", "The figures of this process",
              lambda visit, _: visit.api.overview(), gives=shapes.Overview),
    Operation("GET", "api/rules", "rules", "The rules in force, in the order in which they are tried",
              lambda visit, _: visit.api.rules(), gives=list[shapes.RuleInForce]),
    Operation("GET", "api/responses", "responses", "Stored responses: metadata, no body and no target",
              _responses, shapes.WhichResponses, shapes.Responses),
    Operation("GET", "api/flights", "flights", "Flights under way, the oldest first",
              lambda visit, _: visit.api.flights(), gives=list[UnderWay]),
    Operation("GET", "api/recent", "recent", "The last bursts, alerts and invalidations",
              lambda visit, _: visit.api.recent(), gives=shapes.Recent),
    Operation("GET", "api/audit", "audit", "Every change and every refusal, the latest first",
              lambda visit, asked: visit.api.audited(asked), shapes.Page, shapes.AuditLog),
    Operation("GET", "api/events", "events", "Server-sent events: tick (each second), burst, alert, invalidated",
              _events, gives=Tick, media="text/event-stream", problems=(503,)),
    Operation("GET", "api/openapi.json", "openapi", "This document",
              _document, gives=dict[str, Any]),
)  # fmt: skip

_CHANGES: Final = (
    Operation("POST", "api/session", "signIn", "Turn the token into a session of this browser",
              lambda visit, asked: visit.sign_in(asked), shapes.Token, shapes.Session,
              problems=(404,), is_open=True),
    Operation("DELETE", "api/session", "signOut", "End the session: its cookie opens nothing any more",
              lambda visit, _: visit.sign_out(), gives=shapes.Session),
    Operation("POST", "api/explain", "explain", "What would become of a request; nothing is executed",
              lambda visit, asked: visit.api.explain(asked), shapes.ToExplain, Explanation),
    Operation("POST", "api/invalidate", "invalidate", "Drop stored responses by tag, rule, fingerprint, or all",
              lambda visit, asked: visit.api.invalidate(asked, visit.who), shapes.ToInvalidate, shapes.Dropped,
              problems=(404,)),
    Operation("POST", "api/switch", "switch", "Switch a rule, or everything, off or on",
              lambda visit, asked: visit.api.switch(asked, visit.who), shapes.ToSwitch, shapes.Switched,
              problems=(404, 409)),
)  # fmt: skip

_ANALYTICS: Final = tuple(
    operation
    for kind in KINDS
    for operation in (
        Operation("GET", f"api/analytics/{kind.name}", kind.name, kind.summary,
                  told(kind), kind.takes, kind.gives, problems=(404, 503)),
        Operation("GET", f"api/analytics/{kind.name}.csv", f"{kind.name}Csv", f"{kind.summary}, as CSV",
                  table(kind), kind.takes, str, "text/csv", problems=(404, 503)),
    )
)  # fmt: skip

OPERATIONS: Final[tuple[Operation, ...]] = (*_READS, *_CHANGES, *_ANALYTICS)
