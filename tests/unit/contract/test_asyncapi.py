"""The AsyncAPI document: valid, complete, and true of what is published."""

import base64
import copy
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from jsonschema import Draft7Validator

from service.contract import DATA_TYPES, Category, Other
from service.contract.asyncapi import OBJECT_TYPES, asyncapi
from service.contract.schema import SCHEMA_NAMES, record_title
from service.events import (
    ConsumedRecord,
    Endpoint,
    InvalidRecord,
    Partition,
    QuarantineReason,
    Record,
    Secret,
    Unprocessable,
)
from service.records import Topics, dead_letter, marked, quarantine, read_dead_letter, replayed, topic_configs
from service.redaction import RedactionKeys, Sealing
from service.routing import routes
from tests.support.published_contract import ASYNCAPI, SCHEMAS, references, resolved
from tests.unit.contract.records import TOPICS, TRACEPARENT, event, record

with warnings.catch_warnings():
    # Two of its fields are called `schema`, which pydantic has a method for.
    warnings.simplefilter("ignore", UserWarning)
    from asyncapi3 import AsyncAPI3  # type: ignore[import-untyped]

Change = Callable[[dict[str, Any]], object]


def test_it_is_a_valid_asyncapi_3_document() -> None:
    model = AsyncAPI3.model_validate(ASYNCAPI)

    assert model.asyncapi == "3.0.0"
    assert len(model.channels.root) == 8


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.update(servants={}),
        lambda document: document["info"].pop("version"),
        lambda document: document["operations"]["publish-payments"].update(action="publish"),
        lambda document: document["channels"]["payments"].update(adress="stripe.payments"),
        lambda document: document["channels"]["payments"]["messages"]["charge"].update(payloads={}),
        lambda document: document["channels"]["payments"]["bindings"]["kafka"].update(retention=1),
    ],
)
def test_the_validator_would_notice(spoil: Change) -> None:
    document = copy.deepcopy(ASYNCAPI)
    spoil(document)

    with pytest.raises(ValueError, match="validation error"):
        AsyncAPI3.model_validate(document)


def test_every_reference_leads_somewhere_and_every_component_is_a_schema() -> None:
    assert all(resolved(reference, ASYNCAPI) is not None for reference in references(ASYNCAPI))
    for component in ASYNCAPI["components"]["schemas"].values():
        Draft7Validator.check_schema(component)


def test_payloads_are_the_schemas_of_the_files() -> None:
    components = ASYNCAPI["components"]["schemas"]

    def inlined(name: str) -> Any:
        text = orjson.dumps(components[name]).decode()
        return orjson.loads(text.replace("#/components/schemas/", "#/$defs/"))

    for name, schema in SCHEMAS.items():
        own = {keyword: value for keyword, value in schema.items() if keyword not in {"$schema", "$id", "$defs"}}
        assert inlined(record_title(name)) == own
        assert {title: inlined(title) for title in schema["$defs"]} == schema["$defs"]


def test_every_topic_is_there_with_what_it_needs_of_the_broker() -> None:
    configs = topic_configs(TOPICS, max_body_bytes=1024 * 1024)
    bindings = {
        channel["address"]: channel["bindings"]["kafka"]["topicConfiguration"]
        for channel in ASYNCAPI["channels"].values()
    }

    assert bindings == configs
    assert {operation["channel"]["$ref"] for operation in ASYNCAPI["operations"].values()} == {
        f"#/channels/{name}" for name in ASYNCAPI["channels"]
    }


def test_the_prefix_is_in_the_topics_and_nowhere_else() -> None:
    given = orjson.dumps(asyncapi(Topics("acme"))).decode()

    assert orjson.loads(re.sub(r"\bacme\.", "stripe.", given)) == ASYNCAPI


def test_each_message_names_its_schema_and_the_topic_has_it() -> None:
    for category, names in OBJECT_TYPES.items():
        channel = ASYNCAPI["channels"][TOPICS.of(category).removeprefix("stripe.")]
        assert {name: message["x-dataschema"] for name, message in channel["messages"].items()} == {
            name: SCHEMAS[name]["$id"] for name in names
        }
    assert {name for names in OBJECT_TYPES.values() for name in names} == set(SCHEMA_NAMES)


def test_the_object_types_of_a_topic_are_those_of_the_event_types_that_go_there() -> None:
    expected: dict[str, set[str]] = {category: {"other"} for category in OBJECT_TYPES}
    for route in routes(TOPICS):
        if route.category != "other" and route.object_type is not None and route.object_type in DATA_TYPES:
            expected[route.category].add(route.object_type)

    assert {category: set(names) for category, names in OBJECT_TYPES.items()} == expected


# --- headers -------------------------------------------------------------------------------------------------------


def quarantined(event_id: str | None, sealing: Sealing | None) -> Record:
    unprocessable = Unprocessable(
        reason=QuarantineReason.MALFORMED_JSON,
        detail="body",
        event_id=event_id,
        event_type=event_id and "charge.failed",
        endpoint=Endpoint(name="shop", path="/webhooks/shop", secrets=(Secret("whsec_x"),)),
        body=b"{",
        received_at=datetime(2026, 11, 20, tzinfo=UTC),
    )
    made = quarantine(unprocessable, topics=TOPICS, ingest_source="webhook", traceparent=TRACEPARENT, sealing=sealing)
    return marked(made, "checked")


def lettered(of: Record) -> Record:
    origin = ConsumedRecord(Partition(of.topic, 3), 41, of.key, of.value, of.headers, 0)
    return dead_letter(InvalidRecord(origin, "not_json", "no JSON"), topics=TOPICS, consumer_group="g")


def replayed_of(letter: Record) -> Record:
    read = read_dead_letter(ConsumedRecord(Partition(letter.topic, 1), 7, letter.key, letter.value, letter.headers, 0))
    assert read is not None
    return replayed(read)


SEALING = Sealing(RedactionKeys.of(base64.b64encode(b"k" * 32).decode()))
THIN = event(
    "other", Other(), api_version=None, object_id=None, snapshot_event="evt_2", context="org_1/acct_1", account="acct_1"
)
WITH_HEADERS = {
    "EventHeaders": [record(event("charge")), record(THIN), replayed_of(lettered(record(event("charge"))))],
    "QuarantineHeaders": [
        quarantined(event_id, sealing) for event_id in ("evt_1", None) for sealing in (None, SEALING)
    ],
    "DeadLetterHeaders": [
        lettered(record(event("charge"))),
        lettered(record(THIN)),
        lettered(replayed_of(lettered(record(THIN)))),
        lettered(Record("stripe.payments", b"", b"", ())),
    ],
}


@pytest.mark.parametrize("name", WITH_HEADERS)
def test_the_headers_that_are_written_are_the_headers_that_are_described(name: str) -> None:
    described = ASYNCAPI["components"]["schemas"][name]
    written = [{header: value.decode() for header, value in made.headers} for made in WITH_HEADERS[name]]
    check = Draft7Validator(described, format_checker=Draft7Validator.FORMAT_CHECKER)

    for headers in written:
        assert [error.message for error in check.iter_errors(headers)] == []
    assert set().union(*written) == set(described["properties"])
    assert set.intersection(*map(set, written)) == set(described["required"])


def test_every_message_has_the_headers_of_its_topic() -> None:
    assert {
        (name, message["headers"]["$ref"].rpartition("/")[2])
        for name, channel in ASYNCAPI["channels"].items()
        for message in channel["messages"].values()
    } == {
        *((TOPICS.of(category).removeprefix("stripe."), "EventHeaders") for category in OBJECT_TYPES),
        ("quarantine", "QuarantineHeaders"),
        ("dead-letter", "DeadLetterHeaders"),
    }


# --- keys: the rule as a consumer reads it -------------------------------------------------------------------------


def key_by_the_rule(made: Record) -> str:
    source = {**orjson.loads(made.value), "headers": {name: value.decode() for name, value in made.headers}}
    for path in ASYNCAPI["channels"][made.topic.removeprefix("stripe.")]["x-key"]:
        found: Any = source
        for step in path.split("."):
            found = found.get(step)
            if found is None:
                break
        if found:
            return str(found)
    raise AssertionError("the rule makes no key")


IDS: list[dict[str, str]] = [
    {},
    {"object_id": "own_1"},
    {"object_id": "own_1", "customer_id": "cus_1"},
    {"customer_id": "cus_1"},
    {"object_id": "own_1", "charge_id": "ch_1"},
    {"object_id": "own_1", "charge_id": "ch_1", "payment_intent_id": "pi_1"},
    {"object_id": "own_1", "invoice_id": "in_1", "subscription_id": "sub_1"},
    {"object_id": "own_1", "product_id": "prod_1", "customer_id": "cus_1"},
]


@pytest.mark.parametrize("ids", IDS, ids=lambda ids: ",".join(ids) or "none")
@pytest.mark.parametrize("category", OBJECT_TYPES)
def test_the_key_is_what_the_rule_of_the_topic_says(category: Category, ids: dict[str, str]) -> None:
    known = {name: value for name, value in ids.items() if name in Other.__struct_fields__}
    given = event("other", Other(**known), category=category, object_id=ids.get("object_id"), account="acct_1")
    made = record(given)

    assert made.key.decode() == key_by_the_rule(made)


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_the_key_of_a_record_with_every_id_is_what_the_rule_of_its_topic_says(name: str) -> None:
    made = record(event(name))

    assert made.key.decode() == key_by_the_rule(made)


@pytest.mark.parametrize("made", WITH_HEADERS["QuarantineHeaders"], ids=lambda made: made.key.decode()[:8])
def test_the_key_of_a_quarantined_body_is_what_the_rule_says(made: Record) -> None:
    headers = {name: value.decode() for name, value in made.headers}
    rule = [path.removeprefix("headers.") for path in ASYNCAPI["channels"]["quarantine"]["x-key"]]

    assert made.key.decode() == next(headers[name] for name in rule if name in headers)
