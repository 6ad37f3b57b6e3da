"""A payload for every place of every fact: the smallest object that says it there and nowhere else."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from service.contract import types
from tests.oracle import kinds
from tests.oracle.facts import table_of
from tests.oracle.kinds import At, Fact, Kind, Of, Place, Preferred, Table, Told
from tests.oracle.tree import ABOVE, EVERY

Node: TypeAlias = dict[str, Any]
Wrap: TypeAlias = Callable[[Node, Node], Node]
"""From a node, and what the object around it says, to the whole object."""

OBJECTS: Final[tuple[tuple[type, Node, str], ...]] = (
    (types.PaymentIntent, {"id": "pi_1", "object": "payment_intent"}, "payment_intent.succeeded"),
    (types.Charge, {"id": "ch_1", "object": "charge"}, "charge.succeeded"),
    (types.Refund, {"id": "re_1", "object": "refund"}, "refund.updated"),
    (types.Dispute, {"id": "dp_1", "object": "dispute"}, "charge.dispute.updated"),
    (types.CheckoutSession, {"id": "cs_1", "object": "checkout.session"}, "checkout.session.completed"),
    (types.InvoicePayment, {"id": "inpay_1", "object": "invoice_payment"}, "invoice_payment.paid"),
    (types.Subscription, {"id": "sub_1", "object": "subscription"}, "customer.subscription.updated"),
    (types.Invoice, {"id": "in_1", "object": "invoice"}, "invoice.paid"),
    (types.Customer, {"id": "cus_1", "object": "customer"}, "customer.updated"),
    (types.Product, {"id": "prod_1", "object": "product"}, "product.updated"),
    (types.Price, {"id": "price_1", "object": "price"}, "price.updated"),
    (types.Price, {"id": "plan_1", "object": "plan"}, "plan.updated"),
    (types.Other, {"id": "x_1", "object": "setup_intent"}, "setup_intent.succeeded"),
)
IDS_OF_PARTS: Final[Mapping[type, str]] = {
    types.Refund: "re_1",
    types.SubscriptionItem: "si_1",
    types.InvoiceLine: "il_1",
}
EXPANDABLE: Final = frozenset({
    "application_fee",
    "balance_transaction",
    "card",
    "charge",
    "customer",
    "latest_charge",
    "payment_intent",
    "payment_method",
    "plan",
    "price",
    "source",
    "subscription",
})  # fmt: skip
"""References that may be whole objects: those have an id."""
VALUES: Final[Mapping[Kind, tuple[Any, ...]]] = {
    kinds.as_text: ("specimen",),
    kinds.as_number: (7,),
    kinds.as_flag: (True, False),
    kinds.as_moment: (1_600_000_000,),
    kinds.as_metadata: ({"order": "7"},),
    kinds.as_decimal_text: ("7.25",),
}


@dataclass(frozen=True)
class Specimen:
    """An event around an object that says one fact at one place."""

    name: str
    field: str
    event: Node


def specimens() -> Iterator[Specimen]:
    """One for each place and form of its value: references as an id, an expanded object and a deleted one's stub."""
    for data_type, base, event_type in OBJECTS:
        for field, where, stripe_object in _of_table(table_of(data_type, base), "", _root(base)):
            name = f"{base['object']}: {field} from {where}"
            yield Specimen(name, field, snapshot(stripe_object, event_type))


def snapshot(stripe_object: Node, event_type: str, **envelope: Any) -> Node:
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": "2020-08-27",
        "created": 1_700_000_000,
        "data": {"object": stripe_object},
        "livemode": False,
        "request": {"id": "req_1", "idempotency_key": "key-1"},
        "type": event_type,
        **envelope,
    }


def _root(base: Node) -> Wrap:
    return lambda node, _: base | node


def _of_table(table: Table, prefix: str, wrap: Wrap) -> Iterator[tuple[str, str, Node]]:
    for name, entry in table.items():
        if isinstance(entry, Fact):
            for place in entry.places:
                for where, node, around in _said_at(place, entry):
                    yield prefix + name, where, wrap(node, around)
            continue
        for patterns, inner in entry.places:
            pattern = patterns.split("|")[0]
            node = {"id": IDS_OF_PARTS[entry.struct]} if entry.struct in IDS_OF_PARTS else {}
            inside = f"{prefix}{name}[]." if entry.many else f"{prefix}{name}."
            yield prefix + name, pattern, wrap(grown({}, pattern, node or {"expires_at": 9}), {})
            yield from _of_table(inner, inside, _part(pattern, node, wrap))


def _part(pattern: str, base: Node, wrap: Wrap) -> Wrap:
    return lambda node, around: wrap(grown(around, pattern, base | node), {})


def _said_at(place: Place, fact: Fact) -> Iterator[tuple[str, Node, Node]]:
    """Where, the node that says it, and what the object around it says."""
    match place:
        case Told():
            yield _split([(p, v) for p, v in zip(place.patterns, place.example, strict=True) if v is not None])
        case Preferred():
            for value in _values(fact):
                unmarked = grown({}, place.pattern, "unmarked_1")
                marked = grown({place.mark: True}, place.pattern, value)
                elements = place.elements.removesuffix(f".{EVERY}")
                yield place.elements, {elements: {"object": "list", "data": [unmarked, marked]}}, {}
                yield place.elements, {elements: [marked]}, {}
        case At() | Of():
            for value in _values(fact):
                if isinstance(value, dict) and place.pattern.lstrip(ABOVE).rpartition(".")[2] in ("id", "0"):
                    continue
                yield _split([(place.pattern, value)])
        case _:
            raise TypeError(f"no specimen is known for a {type(place).__name__}")


def _split(values: list[tuple[str, Any]]) -> tuple[str, Node, Node]:
    node: Node = {}
    around: Node = {}
    for pattern, value in values:
        if pattern.startswith(ABOVE):
            around = grown(around, pattern.removeprefix(ABOVE), value)
        else:
            node = grown(node, pattern, value)
    return " and ".join(pattern for pattern, _ in values), node, around


def _values(fact: Fact) -> tuple[Any, ...]:
    if fact.kind is not kinds.as_id:
        return VALUES[fact.kind]
    id_ = f"{(fact.prefixes or ('x_',))[0]}1specimen"
    return id_, {"id": id_, "object": "specimen"}, {"id": id_, "object": "specimen", "deleted": True}


def grown(tree: Node, pattern: str, value: Any) -> Node:
    """The tree with the value at the pattern; elements of lists stand in list objects."""
    step, _, rest = pattern.partition(".")
    below = tree.get(step)
    index, _, deeper = rest.partition(".")
    if index == EVERY or index.isdigit():
        first = below["data"][0] if below else {"id": f"{step}_1"}
        first = grown(first, deeper, value) if deeper else _element(value)
        return tree | {step: {"object": "list", "data": [first], "has_more": False}}
    if rest:
        fresh = {"id": f"{step}_1"} if step in EXPANDABLE else {}
        return tree | {step: grown(below or fresh, rest, value)}
    return tree | {step: value}


def _element(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value
