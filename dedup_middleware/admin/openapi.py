"""The OpenAPI 3.1 document, made from the table of operations and the shapes.

Law: nothing in it is written by hand that the code knows.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from . import shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .operations import Operation

_REFERENCE: Final = "#/components/schemas/{name}"
_WHY: Final = {
    400: "What was asked is not what the operation takes",
    401: "No credentials, or wrong ones: the same answer for every path",
    403: "Not allowed: `allow` names nobody, or a change that comes from another site",
    404: "There is no such thing",
    408: "The body did not come in time",
    409: "Not as things are",
    413: "The body is longer than 64 KiB",
    415: "The body is no JSON",
    429: "Too many requests; Retry-After says when",
    503: "Not now",
}


@cache
def document(operations: tuple[Operation, ...], version: str, *, with_token: bool) -> dict[str, Any]:
    """The document, made once; its paths are relative to where the app is mounted, which whoever serves it adds."""
    types = [shapes.Error, *(one.takes for one in operations), *(one.gives for one in operations)]
    schemas, components = _tuples(msgspec.json.schema_components(types, ref_template=_REFERENCE))
    given = dict(zip(operations, schemas[1 + len(operations) :], strict=True))
    for one in operations:
        components.get(one.takes.__name__, {}).update(one.takes.more_schema)
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(f"/{one.path}", {})[one.method.lower()] = _operation(one, given[one], components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dedup-middleware administration",
            "version": version,
            "description": "What the middleware saves in this process, and the switches.",
        },
        "paths": paths,
        "components": {
            "schemas": _without_parameters(components, operations),
            "securitySchemes": _schemes(with_token=with_token),
        },
        "security": [{name: []} for name in _schemes(with_token=with_token)],
    }


def _tuples(schema: Any) -> Any:
    """Schemas that say a pair of the same as a list of two, which every tool reads."""
    if isinstance(schema, dict):
        found = {name: _tuples(part) for name, part in schema.items()}
        first, *others = found.get("prefixItems", [None])
        if first is not None and all(one == first for one in others):
            del found["prefixItems"]
            found["items"] = first
        return found
    return [_tuples(part) for part in schema] if isinstance(schema, (list, tuple)) else schema


def _schemes(*, with_token: bool) -> dict[str, Any]:
    if not with_token:
        return {}
    return {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": "dedup_admin"},
    }


def _operation(one: Operation, gives: Any, components: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": one.name, "summary": one.summary}
    if one.is_open and one.method == "GET":
        told["security"] = []
    fields = components.get(one.takes.__name__, {}).get("properties", {})
    statuses = [400, 401, 403, 429, *one.problems]
    if one.method == "POST":
        reference = {"$ref": _REFERENCE.format(name=one.takes.__name__)}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
        statuses += [408, 413, 415]
    elif fields:
        told["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": _parameter(schema)}
            for name, schema in fields.items()
        ]
    told["responses"] = {
        "200": {"description": one.summary, "content": {one.media: {"schema": gives}}},
        **{str(status): _refusal(status, one, gives) for status in sorted(statuses)},
    }
    return told


def _parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is left out is null; none can be sent."""
    kept = {name: value for name, value in schema.items() if name != "default" or value is not None}
    kinds = [kind for kind in kept.pop("anyOf", []) if kind != {"type": "null"}]
    return {**kinds[0], **kept} if kinds else kept


def _refusal(status: int, one: Operation, gives: Any) -> dict[str, Any]:
    schema: Any = {"$ref": _REFERENCE.format(name="Error")}
    if status == 503 and one.name == "ready":
        schema = gives
    told: dict[str, Any] = {
        "description": _WHY[status],
        "content": {"application/json": {"schema": schema}},
    }
    if status == 429:
        told["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}}
    return told


def _without_parameters(components: dict[str, Any], operations: Sequence[Operation]) -> dict[str, Any]:
    """Query shapes stand as parameters; only bodies need their schemas."""
    queries = {one.takes.__name__ for one in operations if one.method != "POST"}
    return {name: schema for name, schema in components.items() if name not in queries}
