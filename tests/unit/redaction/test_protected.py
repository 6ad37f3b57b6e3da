"""What may be redacted, shown on events: taking a field away changes facts exactly where the path is refused.

The oracle here knows nothing of the service's tables: it takes every field of every object away in turn, by code of
its own, and looks at what else the normalized event then says.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import orjson
import pytest

import service.normalize as normalize_package
from service.contract import DATA_TYPES, Event
from service.errors import ConfigurationError
from service.normalize import normalize
from service.projections import PROJECTIONS
from service.records import key_of
from service.redaction import Redaction, RedactionKeys, parse_paths
from service.redaction.object_types import OBJECT_TYPES
from service.simulator.events import SAMPLE_EVENT_TYPES, sample
from tests.support.corpus import CORPUS, payloads
from tests.unit.normalize.building import endpoint, verified
from tests.unit.redaction.old_shapes import OLD_SHAPES

PersonalPath: TypeAlias = tuple[str, tuple[str, ...]]
Place: TypeAlias = tuple[dict[str, Any], str]

DESCRIPTIVE: Final = frozenset({
    "email", "name", "phone", "description", "metadata", "nickname", "failure_message", "customer_email",
    "client_reference_id", "card_brand", "card_last4", "idempotency_key", "raw",
})  # fmt: skip
"""The contract's fields that are only passed on: nothing else is made of them."""

TRIES_MAX: Final = 6
"""In how many events a field is taken away without any effect before it counts as having none."""

DESCRIPTIVE_AT_STRIPE: Final = DESCRIPTIVE | {"message", "brand", "last4"}
"""Their names in Stripe's objects, where those differ."""

KEYS: Final = RedactionKeys.of("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")


# --- the oracle -----------------------------------------------------------------------------------------------------


def facts(value: Any) -> Any:
    """What a normalized event says, without what is only passed on."""
    if isinstance(value, Mapping):
        return {name: facts(below) for name, below in value.items() if name not in DESCRIPTIVE}
    return [facts(below) for below in value] if isinstance(value, list) else value


def said(event: Mapping[str, Any]) -> Any:
    """All facts of an event, its record's key and the objects that the tables take from it; None if it is no event."""
    outcome = normalize(verified(orjson.dumps(event), endpoint(mode="any")))
    if not isinstance(outcome, Event):
        return None
    observed = [
        (observation.key, observation.object_type, projection.links(observation))
        for projection in PROJECTIONS.values()
        for observation in projection.observe(outcome)
    ]
    return facts(orjson.loads(msgspec.json.encode(outcome))), key_of(outcome), observed


def fields_within(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Place]]:
    """Every field below an object, with the way there; members of a list stand where the list does."""
    if isinstance(tree, list):
        for member in tree:
            yield from fields_within(member, above)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield (*above, name), (tree, name)
            if tree.get("object") == "list" and name == "data":
                yield from fields_within(value, above)
            elif name != "metadata":
                yield from fields_within(value, (*above, name))


def objects_within(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(tree, list):
        for member in tree:
            yield from objects_within(member)
    elif isinstance(tree, dict):
        if isinstance(tree.get("object"), str) and tree["object"] != "list":
            yield tree["object"], tree
        for value in tree.values():
            yield from objects_within(value)


def places(event: dict[str, Any]) -> Mapping[PersonalPath, Sequence[Place]]:
    """Path → all places of the event that it names."""
    found: dict[PersonalPath, list[Place]] = {}
    content = event.get("data")
    top = content.get("object") if isinstance(content, dict) else None
    objects = list(objects_within(event))
    if isinstance(content, dict) and isinstance(top, dict) and isinstance(top.get("object"), str):
        objects.append((top["object"], content.get("previous_attributes") or {}))
    for object_type, tree in objects:
        for fields, place in fields_within(tree):
            if object_type != "event" or fields[0] != "data" or len(fields) == 1:
                found.setdefault((object_type, fields), []).append(place)
    return found


def without(event: Mapping[str, Any], path: PersonalPath) -> Mapping[str, Any]:
    changed = copy.deepcopy(dict(event))
    for tree, name in places(changed)[path]:
        tree.pop(name, None)
    return changed


# --- the events ------------------------------------------------------------------------------------------------------


def fixtures() -> list[dict[str, Any]]:
    """Samples of every type; old shapes; and of the corpus one of each type and year of its API version."""
    found = [sample(event_type, seed=1, created=1_700_000_000) for event_type in SAMPLE_EVENT_TYPES]
    found += OLD_SHAPES
    seen: set[object] = set()
    for payload in payloads() if CORPUS.is_dir() else ():
        kind = (payload.event["type"], str(payload.event.get("api_version"))[:4])
        if kind not in seen:
            seen.add(kind)
            found.append(payload.event)
    return found


def is_refused(path: PersonalPath) -> bool:
    object_type, fields = path
    try:
        parse_paths([f"{object_type}.{'.'.join(fields)}"])
    except ConfigurationError as error:
        assert "cannot be redacted" in str(error), error  # noqa: PT017 -- nothing else may be wrong with it
        return True
    return False


@dataclass(frozen=True)
class Findings:
    """Paths by what taking them away does, each with the type of an event that shows it."""

    telling: dict[PersonalPath, str] = field(default_factory=dict)
    silent: dict[PersonalPath, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def findings() -> Findings:
    found, tries = Findings(), Counter[PersonalPath]()
    for event in fixtures():
        if (before := said(event)) is None:
            continue
        for path in places(event):
            if path[0] not in OBJECT_TYPES or path in found.telling or tries[path] == TRIES_MAX:
                continue
            tries[path] += 1
            (found.silent if said(without(event, path)) == before else found.telling)[path] = event["type"]
    for path in found.telling:
        found.silent.pop(path, None)
    assert len(found.telling) > 400
    assert len(found.silent) > 500
    return found


def names_read() -> frozenset[str]:
    """Every field that the readers name, as their source has it."""
    source = Path(normalize_package.__file__).parent
    names = set()
    for module in source.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            arguments: list[ast.expr] = []
            if isinstance(node, ast.Call):
                got = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
                arguments = node.args[:1] if got else node.args[1:]
            elif isinstance(node, ast.Subscript):
                arguments = [node.slice]
            names |= {a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return frozenset(names)


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_whatever_a_fact_is_made_of_is_refused(findings: Findings) -> None:
    assert {path: shown_by for path, shown_by in findings.telling.items() if not is_refused(path)} == {}


def test_what_is_refused_is_read_for_a_fact(findings: Findings) -> None:
    """Here a field may be null, or stand where another speaks first: but some reader names it, or it is an identity."""
    facts_read = names_read() - DESCRIPTIVE_AT_STRIPE | {"id", "object", "data", "has_more"}

    refused = {path: shown_by for path, shown_by in findings.silent.items() if is_refused(path)}

    assert {path: shown_by for path, shown_by in refused.items() if path[1][-1] not in facts_read} == {}


def test_every_field_that_a_reader_names_is_decided_on() -> None:
    """A reader that is taught a new field must have it here: protected in some object, or only passed on."""
    # What only holds such fields, and what is no field of Stripe's.
    none = {"body", "data.object", "kafka.redact", "_"}
    containers = {"customer_details", "card_present", "interac_present", "three_d_secure"} | none

    undecided = {
        name
        for name in names_read() - DESCRIPTIVE_AT_STRIPE - containers
        if not any(is_refused((object_type, (name,))) for object_type in ("*", *OBJECT_TYPES))
    }

    assert undecided == set()


@pytest.mark.parametrize("how", ["", "hash:"])
def test_all_that_is_not_refused_can_go_at_once_and_no_fact_changes(findings: Findings, how: str) -> None:
    allowed = [f"{how}{path[0]}.{'.'.join(path[1])}" for path in findings.silent if not is_refused(path)]
    redaction = Redaction.of(parse_paths(allowed), KEYS)
    assert len(allowed) > 400

    for event in fixtures():
        before = said(event)
        outcome = normalize(verified(orjson.dumps(event), endpoint(mode="any")), redaction)
        assert before is None or isinstance(outcome, Event), event["type"]
        if isinstance(outcome, Event):
            assert facts(orjson.loads(msgspec.json.encode(outcome))) == before[0], event["type"]
            assert key_of(outcome) == before[1]


@pytest.mark.parametrize("object_type", sorted(DATA_TYPES))
def test_a_path_for_any_object_is_refused_where_one_of_them_needs_it(findings: Findings, object_type: str) -> None:
    stripes = "checkout.session" if object_type == "checkout_session" else object_type

    allowed = {path[1] for path in findings.telling if path[0] == stripes and not is_refused(("*", path[1]))}

    assert allowed == set()
