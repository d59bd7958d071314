"""The OpenAPI document against the implementation: a schema-driven tester asks every operation, wild things too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from dedup_middleware.admin.operations import OPERATIONS

from .admin_kit import BEARER, RULES, House, Stream
from .kit import eventually

pytestmark = pytest.mark.slow

MANY = 10**9
ASKED = [one for one in OPERATIONS if one.name != "events"]  # which has no end


@pytest.fixture(scope="module")
def schema() -> Iterator[Any]:
    house = House(*RULES, requests_per_minute=MANY, changes_per_minute=MANY, failures_per_minute=MANY)
    yield schemathesis.openapi.from_asgi("/_dedup/api/openapi.json", house.app, headers=BEARER)
    house.end()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("operation", ASKED, ids=lambda one: one.name)
@pytest.mark.parametrize("examples", [8, pytest.param(15, marks=pytest.mark.thorough)])
def test_every_operation_keeps_what_the_document_says(
    schema: Any, operation: Any, mode: GenerationMode, examples: int
) -> None:
    described = schema[f"/{operation.path}"][operation.method]
    if mode is GenerationMode.NEGATIVE and not (described.query or described.body):
        return  # nothing to get wrong

    @given(case=described.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        case.call_and_validate(headers=BEARER)

    ask()


def test_the_document_lists_what_there_is_and_nothing_else(schema: Any) -> None:
    told = {
        (method.upper(), path) for path, methods in schema.raw_schema["paths"].items() for method in methods
    }
    assert told == {(one.method, f"/{one.path}") for one in OPERATIONS}
    assert schema.raw_schema["openapi"] == "3.1.0"
    assert schema.raw_schema["servers"][0]["url"] == "/_dedup"


def test_every_reference_in_the_document_leads_somewhere(schema: Any) -> None:
    names = set(schema.raw_schema["components"]["schemas"])

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"].rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values())) if node else own
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    assert references(schema.raw_schema) == names


async def test_a_tick_is_what_the_document_says(schema: Any) -> None:
    house = House()
    stream = Stream(house.app, BEARER)
    await eventually(lambda: stream.events)
    await stream.leave()
    tick = schema.raw_schema["paths"]["/api/events"]["get"]["responses"]["200"]["content"][
        "text/event-stream"
    ]
    whole = tick["schema"] | {"components": schema.raw_schema["components"]}
    jsonschema_rs.validator_for(whole).validate(stream.events[0][1])


async def test_the_document_of_a_function_s_house_knows_no_token() -> None:
    house = House(allow=lambda _: "somebody")
    async with house.client() as client:
        told = (await client.get("api/openapi.json")).json()
    assert told["components"]["securitySchemes"] == {}
