"""Redaction of any tree: total, exact, and held against an implementation that walks the tree the plain way."""

import copy
from base64 import b64encode
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import Event
from service.normalize import normalize
from service.records import key_of
from service.redaction import HASHED, Redaction, RedactionKeys, parse_paths
from tests.unit.normalize.building import endpoint, event, verified

KEYS = RedactionKeys.of(b64encode(bytes(range(32))).decode())
TYPES = ("customer", "checkout.session", "list")
FIELDS = ("email", "nested")
NAMES = st.sampled_from([*FIELDS, "data"])
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.sampled_from(TYPES)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES, inner, max_size=3)
        | st.builds(
            lambda object_type, rest: {"object": object_type, **rest},
            st.sampled_from(TYPES),
            st.dictionaries(NAMES, inner, max_size=3),
        )
    ),
    max_leaves=15,
)
OBJECTS = st.dictionaries(st.sampled_from([*FIELDS, "data", "list"]), TREES, max_size=3)
CUSTOMERS = st.builds(lambda rest: {**rest, "id": "cus_1", "object": "customer"}, OBJECTS)
PATH = st.builds(
    lambda how, object_type, fields: f"{how}{object_type}.{'.'.join(fields)}",
    st.sampled_from(["", "hash:"]),
    st.sampled_from(["customer", "checkout.session", "*"]),
    st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3),
)
PATHS = st.lists(PATH, max_size=4)


def redaction(paths: list[str]) -> Redaction:
    return Redaction.of(parse_paths(paths), KEYS)


# --- the same, the plain way: recursive, in place -------------------------------------------------------


def blotted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: blotted(below) for name, below in value.items()}
    if isinstance(value, list):
        return [blotted(below) for below in value]
    return HASHED if isinstance(value, str) else None


def strike(tree: Any, fields: list[str], how: str) -> None:
    """Follow the fields from here, through lists, and take what they name away."""
    if isinstance(tree, list):
        for member in tree:
            strike(member, fields, how)
    elif isinstance(tree, dict):
        if tree.get("object") == "list" and "data" in tree:
            strike(tree["data"], fields, how)
        strike_own(tree, fields, how)


def struck(tree: Any, path: str) -> Any:
    tree = copy.deepcopy(tree)
    how = "hash" if path.startswith("hash:") else "drop"
    name = path.removeprefix("hash:")
    object_type = next(known for known in ("checkout.session", "customer", "*") if name.startswith(known))
    fields = name.removeprefix(object_type + ".").split(".")
    for node in objects_within(tree):
        if object_type == "*" or node.get("object") == object_type:
            strike_own(node, fields, how)
    return tree


def strike_own(node: dict[str, Any], fields: list[str], how: str) -> None:
    """A path begins in the object itself: a list is transparent only on the way."""
    if fields[0] in node:
        if len(fields) > 1:
            strike(node[fields[0]], fields[1:], how)
        elif how == "drop":
            del node[fields[0]]
        else:
            node[fields[0]] = blotted(node[fields[0]])


def objects_within(tree: Any) -> list[dict[str, Any]]:
    if isinstance(tree, list):
        return [found for member in tree for found in objects_within(member)]
    if isinstance(tree, dict):
        return [tree, *(found for value in tree.values() for found in objects_within(value))]
    return []


def without_hashes(tree: Any) -> Any:
    """Every hash as the mark that it begins with: what a value became is shown elsewhere."""
    if isinstance(tree, dict):
        return {name: without_hashes(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [without_hashes(value) for value in tree]
    return HASHED if isinstance(tree, str) and tree.startswith(HASHED) else tree


@settings(deadline=None, max_examples=300)
@given(OBJECTS, PATH)
def test_a_path_takes_away_what_it_names_and_nothing_else(tree: dict[str, Any], path: str) -> None:
    before = copy.deepcopy(tree)

    after = redaction([path]).apply(tree, None)

    assert tree == before
    assert without_hashes(after) == struck(tree, path)


@settings(deadline=None, max_examples=300)
@given(OBJECTS, PATHS)
def test_dropping_twice_is_dropping_once_and_the_order_of_paths_does_not_matter(
    tree: dict[str, Any], paths: list[str]
) -> None:
    dropping = redaction([path.removeprefix("hash:") for path in paths])

    once = dropping.apply(tree, None)

    assert dropping.apply(once, None) == once
    assert redaction(paths[::-1]).apply(tree, None) == redaction(paths).apply(tree, None)
    assert redaction([]).apply(tree, None) == tree


@settings(deadline=None, max_examples=200)
@given(
    CUSTOMERS | OBJECTS,
    st.none() | OBJECTS,
    PATHS,
    st.sampled_from(["customer.updated", "checkout.session.completed", "x"]),
)
def test_an_event_of_any_object_is_answered(
    tree: dict[str, Any], previous: Any, paths: list[str], event_type: str
) -> None:
    body = orjson.dumps(event(tree, event_type, data={"object": tree, "previous_attributes": previous}))

    plain, redacted = normalize(verified(body, endpoint())), normalize(verified(body, endpoint()), redaction(paths))

    if isinstance(plain, Event):  # nothing that is taken away is missed
        assert isinstance(redacted, Event)
        assert (redacted.object_type, key_of(redacted)) == (plain.object_type, key_of(plain))
    if isinstance(redacted, Event) and not paths:
        assert orjson.loads(bytes(redacted.raw)) == orjson.loads(body)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5_000), st.booleans(), PATHS)
def test_no_depth_is_too_deep(levels: int, in_lists: bool, paths: list[str]) -> None:
    tree: dict[str, Any] = {"object": "customer", "email": "a"}
    for _ in range(levels):
        tree = {"object": "customer", "nested": [tree] if in_lists else tree}

    found = redaction([*paths, "customer.email"]).apply(tree, None)

    for _ in range(levels):
        nested = found.get("nested")
        if nested is None:  # a path took it
            return
        found = nested[0] if in_lists else nested
    assert "email" not in found
