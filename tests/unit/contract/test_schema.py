"""The JSON Schemas: valid, described, the same as in the repository, and of one mind with the Python client."""

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson
import pytest
from jsonschema import Draft202012Validator

from service.contract import ContractError, Other, decode
from service.contract.files import contract_files, write_contract
from service.contract.schema import SCHEMA_NAMES, schema, schema_id
from service.records import Topics
from tests.support.published_contract import PUBLISHED, SCHEMAS, references, resolved, violations
from tests.unit.contract.records import event, record

REGENERATE = "stripe-ingest contract write service/contract/published --prefix stripe"


def objects(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The envelope, and every object in it."""
    yield "", SCHEMAS[name]
    yield from SCHEMAS[name]["$defs"].items()


def test_the_files_in_the_repository_are_what_the_types_say() -> None:
    committed = {path.relative_to(PUBLISHED).as_posix(): path.read_text("utf-8") for path in PUBLISHED.rglob("*.json")}
    generated = contract_files(Topics("stripe"))

    assert committed.keys() == generated.keys(), f"files have come or gone: run `{REGENERATE}`"
    drifted = [name for name in generated if committed[name] != generated[name]]
    assert not drifted, f"{', '.join(drifted)}: not what the types say: run `{REGENERATE}`"


def test_the_same_files_are_written_each_time(tmp_path: Any) -> None:
    written = write_contract(tmp_path, Topics("stripe"))
    first = {path: path.read_bytes() for path in written}

    assert write_contract(tmp_path, Topics("stripe")) == written
    assert {path: path.read_bytes() for path in written} == first
    assert all(content.endswith(b"}\n") for content in first.values())


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_schema_is_valid_and_stands_alone(name: str) -> None:
    document = SCHEMAS[name]

    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"] == f"urn:stripe-ingest:schema:1:{name}"
    assert all(resolved(reference, document) for reference in references(document))
    assert all(reference.startswith("#/$defs/") for reference in references(document))


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_every_field_has_its_meaning_money_its_unit_and_times_their_zone(name: str) -> None:
    for _, schema_of in objects(name):
        assert schema_of["title"]
        assert schema_of["description"]
        for field, shape in schema_of["properties"].items():
            assert shape.get("description") or "$ref" in shape, field
            if field.endswith("_minor"):
                assert "integer in the minor unit" in shape["description"]
                assert (shape["format"], shape["minimum"], shape["maximum"]) == ("int64", -(2**63), 2**63 - 1)
            if shape.get("format") == "date-time":
                assert "UTC" in shape["description"]


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_nothing_is_closed_but_the_version_the_category_and_the_object_type(name: str) -> None:
    for where, schema_of in objects(name):
        closed = {field for field, shape in schema_of["properties"].items() if {"const", "enum"} & shape.keys()}
        allowed = {"schema_version", "category"} | ({"object_type"} if name != "other" else set())
        assert closed == (set() if where else allowed)
        assert schema_of.get("additionalProperties", True) is True


def test_what_is_required_is_what_the_python_client_requires_and_the_version() -> None:
    for name in SCHEMA_NAMES:
        value = orjson.loads(record(event(name)).value)
        for field in SCHEMAS[name]["properties"]:
            lacking = orjson.dumps({key: kept for key, kept in value.items() if key != field})
            required = field in SCHEMAS[name]["required"]
            assert bool(violations(schema_id(name), orjson.loads(lacking))) is required
            if field != "schema_version":
                assert readable(lacking) is not required, field


def readable(value: bytes) -> bool:
    try:
        decode(value)
    except ContractError:
        return False
    return True


@pytest.mark.parametrize("include_raw", [True, False])
@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_record_with_every_field_set_is_valid_and_so_is_one_with_none(name: str, include_raw: bool) -> None:
    full = event(name)
    ids = {field.name: "x_1" for field in msgspec.structs.fields(type(full.data)) if field.required}
    bare = event(name, type(full.data)(**ids), previous=None, api_version=None, request_id=None, object_id=None)

    for given in (full, bare):
        encoded = record(given, include_raw=include_raw)
        assert violations(dict(encoded.headers)["ce_dataschema"].decode(), orjson.loads(encoded.value)) == []


@pytest.mark.parametrize("wrong", [None, "2026-13-45", 1.5, [7]], ids=repr)
@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_the_schema_and_the_python_client_refuse_the_same(name: str, wrong: object) -> None:
    for where in ("data", None):
        value = orjson.loads(record(event(name)).value)
        fields = value[where] if where else value
        # Another object type is another schema, `raw` and `previous` are nobody's but the consumer's.
        for field in set(fields) - {"object_type", "raw", "previous"}:
            changed = orjson.loads(orjson.dumps(value))
            (changed[where] if where else changed)[field] = wrong
            found = violations(schema_id(name), changed)
            assert readable(orjson.dumps(changed)) is (not found), (where, field, found)


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_previous_has_the_types_of_data_and_needs_none_of_its_fields(name: str) -> None:
    value = orjson.loads(record(event(name)).value)

    for field, before in value["data"].items():
        assert violations(schema_id(name), value | {"previous": {field: before}}) == []
        assert violations(schema_id(name), value | {"previous": {field: [[7]]}}) != []


def test_a_reader_passes_over_what_a_later_release_adds() -> None:
    value = orjson.loads(record(event("subscription")).value)
    value["added"] = value["data"]["added"] = value["data"]["items"][0]["added"] = {"any": ["thing"]}

    assert violations(schema_id("subscription"), value) == []


def test_a_thin_event_names_a_typed_object_and_is_described_by_other() -> None:
    thin = event("other", Other(), object_type="invoice", object_id="in_1", api_version=None, previous=None)
    encoded = record(thin)

    assert dict(encoded.headers)["ce_dataschema"] == b"urn:stripe-ingest:schema:1:other"
    assert violations(schema_id("other"), orjson.loads(encoded.value)) == []


def test_a_schema_is_made_anew_each_time() -> None:
    schema("charge")["properties"].clear()

    assert schema("charge")["properties"]
