"""The shape readers, each over what its field can hold and what it cannot."""

from collections.abc import Callable
from typing import Any

import pytest

from service.normalize import shapes
from service.normalize.shapes import (
    EMBEDDED_MAX,
    Malformed,
    children,
    integer,
    metadata,
    optional_identity,
    reference,
    total,
)
from tests.unit.normalize.building import at

Read = Callable[[shapes.Tree, str], Any]


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (shapes.text, "card", "card"),
        (shapes.text, "", ""),
        (shapes.text, 123, "123"),
        (shapes.integer, 0, 0),
        (shapes.integer, -5, -5),
        (shapes.integer, 2000.0, 2000),
        (shapes.integer, "-2000", -2000),
        (shapes.integer, 2**63 - 1, 2**63 - 1),
        (shapes.integer, -(2**63), -(2**63)),
        (shapes.timestamp, 0, at(0)),
        (shapes.timestamp, 1_700_000_000, at(1_700_000_000)),
        (shapes.timestamp, 1_700_000_000.0, at(1_700_000_000)),
        (shapes.timestamp, "1700000000", at(1_700_000_000)),
        (shapes.whole_decimal, "5", 5),
        (shapes.whole_decimal, "-5.000", -5),
        (shapes.whole_decimal, "5.5", None),
        (shapes.whole_decimal, "", None),
        (shapes.flag, True, True),
        (shapes.flag, False, False),
        (shapes.reference, "cus_1", "cus_1"),
        (shapes.reference, "", None),
        (shapes.reference, {"id": "cus_1", "object": "customer", "email": "a@example.com"}, "cus_1"),
        (shapes.reference, {"id": "cus_1", "object": "customer", "deleted": True}, "cus_1"),
        (shapes.reference, {"id": None, "object": "invoice"}, None),
        (shapes.reference, "p" * shapes.ID_CHARACTERS_MAX, "p" * shapes.ID_CHARACTERS_MAX),
        (shapes.child, {"a": 1}, {"a": 1}),
        (shapes.child, "ch_1", {}),
        (shapes.child, [], {}),
        (shapes.children, {"object": "list", "data": [{"id": "re_1"}]}, [{"id": "re_1"}]),
        (shapes.children, [{"id": "re_1"}], [{"id": "re_1"}]),
    ],
)
def test_a_reader_gives_what_the_field_holds(read: Read, value: object, expected: object) -> None:
    found = read({"field": value}, "field")

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("tree", [{}, {"field": None}])
@pytest.mark.parametrize("read", [shapes.text, shapes.integer, shapes.timestamp, shapes.flag, shapes.reference])
def test_what_stripe_did_not_say_is_none(read: Read, tree: shapes.Tree) -> None:
    assert read(tree, "field") is None


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (shapes.text, True),
        (shapes.text, 1.5),
        (shapes.text, {}),
        (shapes.text, []),
        (shapes.integer, True),
        (shapes.integer, "1.00"),
        (shapes.integer, 10.5),
        (shapes.integer, 1e300),
        (shapes.integer, 2**63),
        (shapes.integer, -(2**63) - 1),
        (shapes.integer, {}),
        (shapes.integer, []),
        (shapes.timestamp, False),
        (shapes.timestamp, -1),
        (shapes.timestamp, "2023-11-14T22:13:20Z"),
        (shapes.timestamp, "2026-10-28T12:00:00Z"),
        (shapes.timestamp, 1.5),
        (shapes.timestamp, 253_402_300_800),
        (shapes.timestamp, {}),
        (shapes.flag, 0),
        (shapes.flag, "true"),
        (shapes.flag, []),
        (shapes.reference, 1),
        (shapes.reference, True),
        (shapes.reference, []),
        (shapes.reference, {"id": 7}),
        (shapes.reference, {"id": {"id": "cus_1"}}),
        (shapes.reference, "p" * (shapes.ID_CHARACTERS_MAX + 1)),
        (shapes.child, 1),
        (shapes.child, [{"a": 1}]),
        (shapes.children, "re_1"),
        (shapes.children, 1),
        (shapes.children, ["re_1"]),
        (shapes.children, {"data": {}}),
    ],
)
def test_a_reader_refuses_what_the_field_cannot_hold(read: Read, value: object) -> None:
    with pytest.raises(Malformed) as caught:
        read({"field": value}, "field")

    assert caught.value.field == "field"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ({}, {}),
        ([], {}),
        ({"order": "42"}, {"order": "42"}),
        ({"order": 42, "gift": True, "rate": 0.5, "gone": None}, {"order": "42", "gift": "true", "rate": "0.5"}),
    ],
)
def test_metadata_is_a_map_of_strings(value: object, expected: dict[str, str]) -> None:
    assert shapes.metadata({"metadata": value}) == expected


@pytest.mark.parametrize("value", ["a", 1, [1], {"a": {"b": "c"}}, {"a": "b", "c": [1]}])
def test_metadata_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(Malformed):
        shapes.metadata({"metadata": value})


def test_a_field_inside_of_a_list_is_named_with_its_path() -> None:
    def read(tree: shapes.Tree) -> int | None:
        return shapes.integer(tree, "amount")

    with pytest.raises(Malformed) as caught:
        shapes.each({"refunds": {"data": [{"amount": 1}, {"amount": "x"}]}}, "refunds", read)

    assert caught.value.field == "refunds.amount"


@pytest.mark.parametrize("value", [{}, 5, "p" * (shapes.ID_CHARACTERS_MAX + 1)])
def test_an_impossible_id_is_refused(value: object) -> None:
    with pytest.raises(Malformed):
        shapes.optional_identity({"id": value})


@pytest.mark.parametrize("value", ["a\x00b", "a\nb", "\ud7ff\x85"])
def test_an_id_with_control_characters_is_malformed(value: str) -> None:
    with pytest.raises(Malformed):
        reference({"customer": value}, "customer")
    with pytest.raises(Malformed):
        optional_identity({"id": value})


def test_an_embedded_object_without_an_id_names_nothing() -> None:
    assert reference({"card": {"object": "card", "last4": "4242"}}, "card") is None
    assert reference({"card": {"last4": "4242"}}, "card") is None


def test_a_float_that_may_have_lost_its_last_digits_is_malformed() -> None:
    assert integer({"amount": 2.0**53 - 1}, "amount") == 2**53 - 1
    with pytest.raises(Malformed):
        integer({"amount": 2.0**53}, "amount")
    with pytest.raises(Malformed):
        metadata({"metadata": {"n": 1e30}})


def test_a_list_longer_than_any_of_stripes_is_malformed() -> None:
    assert len(children({"lines": {"data": [{}] * EMBEDDED_MAX}}, "lines")) == EMBEDDED_MAX
    with pytest.raises(Malformed):
        children({"lines": {"data": [{}] * (EMBEDDED_MAX + 1)}}, "lines")


def test_a_sum_beyond_64_bits_is_malformed() -> None:
    assert total([{"amount": 2}, {}, {"amount": 3}], "amount") == 5
    assert total([{}], "amount") is None
    with pytest.raises(Malformed):
        total([{"amount": 2**63 - 1}, {"amount": 1}], "amount")
