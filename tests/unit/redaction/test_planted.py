"""A value planted at every string that a path names is nowhere in the record, however the event is shaped.

What a path names is found in Stripe's own shape, by code of this test's own; then the same event is given in shapes
that the readers take as well, or that only raw keeps: lists bare and not, objects that do not say what they are.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import orjson
import pytest

from service.contract import Event
from service.errors import ConfigurationError
from service.normalize import normalize
from service.records import Topics, encode
from service.redaction import Redaction, RedactionKeys, parse_paths
from tests.unit.normalize.building import endpoint, verified
from tests.unit.redaction.old_shapes import OLD_SHAPES

Tree: TypeAlias = dict[str, Any]
Shape: TypeAlias = Callable[[Tree], None]

KEYS: Final = RedactionKeys.of("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
TOPICS: Final = Topics("stripe")
MARK: Final = re.compile(rb"Planted\d+x")

REFERENCES: Final = frozenset({
    "application_fee", "balance_transaction", "balance_transactions", "card", "charge", "charges", "coupon", "customer",
    "default_source", "discount", "discounts", "dispute", "invoice", "items", "latest_charge", "latest_invoice",
    "lines", "payment_intent", "payment_method", "payments", "plan", "price", "product", "refunds", "source",
    "subscription", "subscription_items", "subscriptions",
})  # fmt: skip
"""Fields in which an object's type is known by the field's name."""


# --- planting -------------------------------------------------------------------------------------------------------


def leaves(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tree, str]]:
    """Every string below, with the fields on the way there: lists are passed over."""
    if isinstance(tree, list):
        for member in tree:
            yield from leaves(member, above)
    elif isinstance(tree, dict):
        is_list = tree.get("object") == "list"
        for name, value in tree.items():
            if isinstance(value, str):
                yield (*above, name), tree, name
            else:
                yield from leaves(value, above if is_list and name == "data" else (*above, name))


def objects(tree: Any) -> Iterator[Tree]:
    if isinstance(tree, list):
        for member in tree:
            yield from objects(member)
    elif isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from objects(value)


def path_of(object_type: str, fields: tuple[str, ...]) -> str | None:
    path = f"{object_type}.{'.'.join(fields)}"
    try:
        parse_paths([path])
    except ConfigurationError:
        return None
    return path


def planted(event: Tree) -> tuple[Tree, dict[str, set[bytes]]]:
    """The event with a value of its own in every string that may be redacted; path → the values that it names."""
    event = orjson.loads(orjson.dumps(event))  # a copy that shares nothing with itself
    named: dict[str, set[bytes]] = {}
    marks: dict[tuple[int, str], str] = {}
    for tree in objects(event["data"]["object"]):
        if isinstance(tree.get("object"), str) and tree["object"] != "list":
            for fields, holder, name in leaves(tree):
                if (path := path_of(tree["object"], fields)) is not None:
                    mark = marks.setdefault((id(holder), name), f"Planted{len(marks)}x")
                    named.setdefault(path, set()).add(mark.encode())
    for tree in objects(event):
        for name in tree:
            tree[name] = marks.get((id(tree), name), tree[name])
    return event, named


# --- shapes ---------------------------------------------------------------------------------------------------------


def bare_lists(event: Tree) -> None:
    for tree in objects(event["data"]):
        for name, value in tree.items():
            if isinstance(value, dict) and value.get("object") == "list":
                tree[name] = value["data"]


def lists_without_object(event: Tree) -> None:
    for tree in objects(event["data"]):
        if tree.get("object") == "list":
            del tree["object"]


def lists_of_another_object(event: Tree) -> None:
    for tree in objects(event["data"]):
        if tree.get("object") == "list":
            tree["object"] = "search_result"


def lists_in_objects(event: Tree) -> None:
    for tree in list(objects(event["data"])):
        for name, value in tree.items():
            if name != "data" and isinstance(value, list) and any(isinstance(each, dict) for each in value):
                tree[name] = {"data": value}


def lines_by_kind(event: Tree) -> None:
    for tree in list(objects(event["data"])):
        if isinstance(lines := tree.get("lines"), dict) and "data" in lines:
            tree["lines"] = {"subscriptions": lines["data"][:1], "prorations": lines["data"][1:], "invoiceitems": []}


def top_without_object(event: Tree) -> None:
    del event["data"]["object"]["object"]


def top_null(event: Tree) -> None:
    event["data"]["object"]["object"] = None


def top_in_our_spelling(event: Tree) -> None:
    top = event["data"]["object"]
    top["object"] = top["object"].replace(".", "_") if top["object"] == "checkout.session" else top["object"]


def referred(tree: Tree) -> Iterator[Tree]:
    """The objects whose field says what they are."""
    for below in objects(tree):
        for name, value in below.items():
            if name in REFERENCES:
                members = value.get("data", [value]) if isinstance(value, dict) else value
                yield from (
                    (member for member in members if isinstance(member, dict)) if isinstance(members, list) else ()
                )


def references_without_object(event: Tree) -> None:
    for tree in list(referred(event["data"]["object"])):
        tree.pop("object", None)


def references_null(event: Tree) -> None:
    for tree in list(referred(event["data"]["object"])):
        tree["object"] = None


def references_unknown(event: Tree) -> None:
    for tree in list(referred(event["data"]["object"])):
        tree["object"] = "what_is_to_come"


def _bare_today(event: Tree) -> None:
    """The object without what was planted, its references not expanded, its lists empty."""
    top = event["data"]["object"]
    today = {name: value for name, value in top.items() if not isinstance(value, dict | list)}
    expanded = {name for name, value in top.items() if name in REFERENCES and isinstance(value, dict) and "id" in value}
    today |= {name: f"id_{name}" for name in expanded}
    event["data"]["object"] = {
        name: "x" if isinstance(value, str) and MARK.fullmatch(value.encode()) else value
        for name, value in today.items()
    }


def _moved_before(event: Tree, own: Any) -> None:
    before = copy.deepcopy(event["data"]["object"])
    before.pop("object")
    event["data"]["previous_attributes"] = before | ({} if own is None else {"object": own})
    _bare_today(event)


def before(event: Tree) -> None:
    _moved_before(event, None)


def before_as_another(event: Tree) -> None:
    _moved_before(event, "card")


def before_untyped(event: Tree) -> None:
    references_without_object(event)
    _moved_before(event, None)


def before_null(event: Tree) -> None:
    _moved_before(event, None)
    event["data"]["previous_attributes"]["object"] = None
    event["data"]["object"]["object"] = None


def before_as_another_of_an_untyped_object(event: Tree) -> None:
    _moved_before(event, "card")
    del event["data"]["object"]["object"]


def before_in_a_list(event: Tree) -> None:
    _moved_before(event, None)
    event["data"]["previous_attributes"] = [event["data"]["previous_attributes"]]


def before_as_text(event: Tree) -> None:
    _moved_before(event, None)
    event["data"]["previous_attributes"] = orjson.dumps(event["data"]["previous_attributes"]).decode()


def before_beside_data(event: Tree) -> None:
    _moved_before(event, None)
    event["previous_attributes"] = event["data"].pop("previous_attributes")


def before_beside_data_in_a_list(event: Tree) -> None:
    before_in_a_list(event)
    event["previous_attributes"] = event["data"].pop("previous_attributes")


def astray_in_data(event: Tree) -> None:
    astray = copy.deepcopy(event["data"]["object"])
    astray.pop("object")
    _bare_today(event)
    event["data"] = {**astray, **event["data"]}


SHAPES: Final[Mapping[str, tuple[Shape, ...]]] = {
    "as Stripe has it": (),
    **{
        shape.__name__: (shape,)
        for shape in (
            bare_lists, lists_without_object, lists_of_another_object, lists_in_objects, lines_by_kind,
            top_without_object, top_null, top_in_our_spelling, references_without_object, references_null,
            references_unknown, before, before_as_another, before_untyped, before_null,
            before_as_another_of_an_untyped_object, before_in_a_list, before_as_text, before_beside_data,
            before_beside_data_in_a_list, astray_in_data,
        )
    },
    "untyped references in bare lists": (references_without_object, bare_lists),
    "untyped references in lists without object": (references_null, lists_without_object),
    "all untyped before": (bare_lists, before_untyped),
    "lines by kind before": (references_without_object, lines_by_kind, before),
    "all untyped": (references_without_object, lists_without_object, top_without_object),
}  # fmt: skip


# --- what it shows --------------------------------------------------------------------------------------------------


def left(event: Tree, redaction: Redaction | None) -> set[bytes]:
    """The planted values that are in an event's record, be it only as the name of something."""
    outcome = normalize(verified(orjson.dumps(event), endpoint(mode="any")), redaction)
    assert isinstance(outcome, Event), outcome
    record = encode(outcome, topics=TOPICS, ingest_source="webhook", include_raw=True, traceparent="00-0-0-01")
    return set(MARK.findall(b" ".join([record.key, record.value, *(value for _, value in record.headers)])))


def with_data(path: str) -> str:
    """The path as JSON shows the way to it: each list's `data` written."""
    return re.sub(r"\b(refunds|lines|items|charges|subscriptions)\.(?!data)", r"\1.data.", path)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_path_names_is_nowhere_in_the_record(shape: str) -> None:
    shown = 0
    for given in OLD_SHAPES:
        if given["object"] != "event":
            continue
        event, named = planted(given)
        for change in SHAPES[shape]:
            change(event)
        there = left(event, None)
        for number, (path, values) in enumerate(named.items()):
            written = ("hash:" if number % 2 else "") + (with_data(path) if number % 3 else path)
            remaining = left(event, Redaction.of(parse_paths([written]), KEYS))

            assert values.isdisjoint(remaining), (given["type"], written, values & remaining)
            shown += len(values & there)
    assert shown > 0 if "list" in shape or "text" in shape else shown > 500


def test_a_path_takes_nothing_that_another_object_alone_is_said_to_have() -> None:
    """In Stripe's own shape, where everything says what it is, a path goes no further than what it names."""
    for given in OLD_SHAPES:
        if given["object"] != "event":
            continue
        event, named = planted(given)
        there = left(event, None)
        for path, values in named.items():
            assert there - left(event, Redaction.of(parse_paths([path]), KEYS)) == values & there, path


THIN: Final = {
    "id": "evt_1", "object": "v2.core.event", "type": "v2.core.account[identity].updated", "livemode": False,
    "created": "2026-10-28T12:00:00.000Z", "related_object": {"id": "acct_1", "type": "v2.core.account"},
}  # fmt: skip


@pytest.mark.parametrize("own", [{}, {"object": None}, {"object": "v2.core.account"}, {"object": "card"}])
@pytest.mark.parametrize("path", ["v2.core.account.contact_email", "hash:v2.core.account.identity.individual.email"])
def test_a_thin_events_pieces_are_of_its_related_object(path: str, own: Tree) -> None:
    piece = {**own, "contact_email": "Planted1x", "identity": {"individual": {"email": "Planted2x"}}}
    value = b"Planted1x" if "contact" in path else b"Planted2x"
    redaction = Redaction.of(parse_paths([path]), KEYS)

    for event in (
        {**THIN, "data": piece},
        {**THIN, "changes": {"before": piece, "after": {}}},
        {**THIN, "changes": {"after": piece}},
        {**THIN, "data": piece, "related_object": None},
    ):
        assert left(event, None) == {b"Planted1x", b"Planted2x"}
        assert left(event, redaction) == left(event, None) - {value}


def test_the_paths_that_are_planted_under_are_many() -> None:
    paths = {path for given in OLD_SHAPES if given["object"] == "event" for path in planted(given)[1]}

    assert len(paths) > 200
    assert {"invoice.lines.description", "subscription.items.metadata.a", "charge.customer.email"} <= paths
