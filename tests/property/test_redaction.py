"""Redaction of any tree: total, exact, and held against an implementation that walks the tree the plain way."""

import copy
from base64 import b64encode
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import Event
from service.errors import ConfigurationError
from service.normalize import normalize
from service.records import key_of
from service.redaction import HASHED, Redaction, RedactionKeys, parse_paths
from tests.unit.normalize.building import endpoint, event, verified

KEYS = RedactionKeys.of(b64encode(bytes(range(32))).decode())
TYPES = ("customer", "checkout.session", "checkout_session", "list", "no_object_of_stripes", None)
KNOWN = {"customer", "checkout.session", "list"}
REFERENCES = {"customer": ("customer",)}
"""The fields, of those here, that say what stands in them."""

FIELDS = ("email", "nested", "customer")
NAMES = st.sampled_from([*FIELDS, "data"])
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
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


def is_allowed(path: str) -> bool:
    """`customer` is what keys are made of, of some objects."""
    try:
        parse_paths([path])
    except ConfigurationError:
        return False
    return True


OBJECTS = st.dictionaries(st.sampled_from([*FIELDS, "data", "list"]), TREES, max_size=3)
CUSTOMERS = st.builds(lambda rest: {**rest, "id": "cus_1", "object": "customer"}, OBJECTS)
PATH = st.builds(
    lambda how, object_type, way, last: f"{how}{object_type}.{'.'.join((*way, last))}",
    st.sampled_from(["", "hash:"]),
    st.sampled_from(["customer", "checkout.session", "*"]),
    st.just(())
    | st.tuples(st.sampled_from(FIELDS))
    | st.tuples(st.sampled_from(FIELDS), st.sampled_from([*FIELDS, "data"])),
    st.sampled_from(FIELDS),
).filter(is_allowed)
PATHS = st.lists(PATH, max_size=4)


def redaction(paths: list[str]) -> Redaction:
    return Redaction.of(parse_paths(paths), KEYS)


# --- the same, the plain way: where each value stands, and whether a path names that place ---------------------------


def blotted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: blotted(below) for name, below in value.items()}
    if isinstance(value, list):
        return [blotted(below) for below in value]
    return HASHED if isinstance(value, str) else None


def passed_over(fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields without `data`: of what leads through a list nobody must say whether it is one, nor how it is shown."""
    return tuple(name for name in fields if name != "data")


def names(chain: tuple[str, ...], fields: tuple[str, ...]) -> bool:
    """Whether the fields from an object to a place are what a path says."""
    return chain[0] == fields[0] and passed_over(chain[1:]) == passed_over(fields[1:])


def types_of(tree: dict[str, Any], expected: tuple[str, ...]) -> tuple[str, ...]:
    own = tree.get("object")
    own = "checkout.session" if own == "checkout_session" else own
    return (own,) if own in KNOWN else expected


def struck(tree: Any, path: str) -> Any:
    plain = path.removeprefix("hash:")
    object_type = next(known for known in ("checkout.session", "customer", "*") if plain.startswith(f"{known}."))
    fields, hashed = tuple(plain.removeprefix(f"{object_type}.").split(".")), path.startswith("hash:")

    def copied(value: Any, chains: list[tuple[str, ...]], expected: tuple[str, ...]) -> Any:
        """`chains` are the fields from each object of the type, that this is in, to here."""
        if isinstance(value, list):
            return [copied(member, chains, expected) for member in value]
        if not isinstance(value, dict):
            return value
        types = types_of(value, expected)
        here = [*chains, ()] if object_type in {*types, "*"} else chains
        kept = {}
        for name, below in value.items():
            onward = [(*chain, name) for chain in here]
            if not any(names(chain, fields) for chain in onward):
                within = expected if name == "data" else REFERENCES.get(name, ())
                kept[name] = copied(below, onward, within)
            elif hashed:
                kept[name] = blotted(below)
        return kept

    return copied(tree, [], ())


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

    after = redaction([path]).apply(tree)

    assert tree == before
    assert without_hashes(after) == struck(tree, path)


@settings(deadline=None, max_examples=300)
@given(OBJECTS, PATHS)
def test_dropping_twice_is_dropping_once_and_the_order_of_paths_does_not_matter(
    tree: dict[str, Any], paths: list[str]
) -> None:
    dropping = redaction([path.removeprefix("hash:") for path in paths])

    once = dropping.apply(tree)

    assert dropping.apply(once) == once
    assert redaction(paths[::-1]).apply(tree) == redaction(paths).apply(tree)
    assert redaction([]).apply(tree) == tree


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

    found = redaction([*paths, "customer.email"]).apply(tree)

    for _ in range(levels):
        nested = found.get("nested")
        if nested is None:  # a path took it
            return
        found = nested[0] if in_lists else nested
    assert "email" not in found
