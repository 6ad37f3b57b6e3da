"""Mutations of Stripe's shapes: what another API version, a bug or somebody with a signing secret could send.

Each takes a `Random`, so that one set of them serves both engines: a seeded generator makes tens of thousands of
inputs a second, and Hypothesis' own generator shrinks what it finds.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeAlias

import orjson
from hypothesis import strategies as st

from service.contract import DATA_TYPES
from service.events import Delivery, Endpoint
from service.signature import sign
from service.simulator.events import SAMPLE_EVENT_TYPES
from tests.fuzz.target import ENDPOINTS, NOW, SECRET, SIGNED_AT

Container: TypeAlias = dict[str, Any] | list[Any]
Place: TypeAlias = tuple[Container, Any]
"""A container and a key or an index that is in it."""

MUTATIONS_MAX: Final = 4
MUTATED_BYTES_MAX: Final = 1024 * 1024
"""What a receiver takes, unless told otherwise."""
DESCENT: Final = 0.8
"""How likely the way down goes on, at each container."""

OBJECT_TYPES: Final = (*DATA_TYPES, "checkout.session", "subscription_item", "line_item", "card", "source", "widget")
EVENT_TYPES: Final = (*sorted(SAMPLE_EVENT_TYPES), "widget.created", "charge.refund.updated", "plan.updated",
                      "account.updated", "v2.core.account[requirements].updated", "ping")  # fmt: skip
NAMES: Final = (
    "id", "object", "type", "created", "livemode", "account", "context", "request", "related_object", "data", "amount",
    "previous_attributes", "status", "currency", "customer", "charge", "refunds", "charges", "latest_charge", "items",
    "price", "plan", "recurring", "parent", "subscription_details", "subscription", "lines", "payments", "payment",
    "metadata", "total_taxes", "tax", "last_payment_error", "payment_method", "payment_method_details", "source", "card",
    "payment_method_types", "dispute", "deleted", "current_period_end", "status_transitions", "paid_at", "discounts",
    "balance_transactions", "outcome", "period", "pricing", "pending_update", "pause_collection", "cancel_at", "api_version",
)  # fmt: skip

TEXTS: Final = (
    "", " ", "x", "evt_1", "pi_1", "sub_1", "acct_1", "0", "-1", "null", "true", "2026-10-28T12:00:00Z", "\x00", "a\x00b",
    "\n", "\x7f", "\u0085", "é", "\u202e", "\ufeff", "\uffff", "😀", "e\u0301", "'; --", "<b>", "%s{}", "a" * 499, "a" * 501,
    "é" * 500, "😀" * 500, "a" * 3000, "evt_" + "a" * 300, *OBJECT_TYPES,
)  # fmt: skip
NUMBERS: Final = (
    0, 1, -1, 99, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 1_763_699_000, 253_402_300_799,
    253_402_300_800, 0.0, -0.0, 0.5, 1.0, 1e15, 2.0**53, 1e22, 1e300, -1e300, 5e-324, 1_763_699_000.0, 1_763_699_000.5,
)  # fmt: skip
LEAVES: Final[tuple[Any, ...]] = (None, True, False, [], {}, *TEXTS, *NUMBERS)

LITERALS: Final = (
    b"1e400", b"-1e400", b"NaN", b"Infinity", b"18446744073709551616", b"-9223372036854775809", b"-0", b"1E5", b"01",
    b"123456789012345678901234567890", b"9" * 400, b"9007199254740993.0", b"1.0000000000000001", b"0." + b"1" * 400,
    b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x00"',
    b'"\\x"', b"'a'", b"undefined", b"{,}", b"[1,]", b'{"id":"a","id":"b"}', b'{"id":"a","id":null}', b"/**/1",
    *(b"[" * n + b"]" * n for n in (55, 62, 64, 250, 900, 1020, 3000)),
    *(b'{"a":' * n + b"1" + b"}" * n for n in (55, 62, 64, 250, 900, 1020, 3000)),
)  # fmt: skip
"""What only bytes can say: numbers and texts that no serializer writes, and nesting."""
_MARK: Final = "~literal~"
_MARK_BYTES: Final = b'"~literal~"'


class _Mutator:
    """Changes one event in place; each method is one thing that may have happened to it."""

    def __init__(self, tree: dict[str, Any], random: Random) -> None:
        self._tree = tree
        self._random = random

    def _place(self) -> Place:
        """Somewhere in the event: mostly within its object, where the facts are."""
        random = self._random
        node: Container = self._tree
        data = self._tree.get("data")
        if type(data) is dict and random.random() < 0.85:
            stripe_object = data.get("object")
            node = stripe_object if type(stripe_object) is dict and stripe_object and random.random() < 0.85 else data
        while random.random() < DESCENT:
            members = node.values() if isinstance(node, dict) else node
            inner = [value for value in members if value and (type(value) is dict or type(value) is list)]
            if not inner:
                break
            node = random.choice(inner)
        node = node or self._tree
        return node, random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))

    def replace(self) -> None:
        """Another type, another value, null."""
        container, key = self._place()
        container[key] = self._random.choice(LEAVES)

    def remove(self) -> None:
        container, key = self._place()
        del container[key]

    def rename(self) -> None:
        container, key = self._place()
        if isinstance(container, dict):
            container[self._random.choice(NAMES)] = container.pop(key)

    def add(self) -> None:
        container, key = self._place()
        if isinstance(container, dict):
            container[self._random.choice(NAMES)] = container[key]
        else:
            container.append(self._random.choice(LEAVES))

    def wrap(self) -> None:
        """A list for an object, an object for a list, a list object for either."""
        container, key = self._place()
        value = container[key]
        container[key] = self._random.choice(
            ([value], {"data": [value]}, {"data": value}, {"id": value}, {"object": value}, [[value]], [value, None])
        )

    def refer(self) -> None:
        """A reference in one of its other forms."""
        container, key = self._place()
        value = container[key]
        own = value.get("id") if type(value) is dict else value
        stub = {"id": own, "object": self._random.choice(OBJECT_TYPES)}
        forms = (own, stub, {**stub, "deleted": True}, {**stub, "metadata": {"a": "b"}}, None, "")
        container[key] = self._random.choice(forms)

    def repeat(self) -> None:
        container, key = self._place()
        value = container[key]
        times = self._random.choice((2, 3, 10, 30) if value else (3, 100, 1500))
        container[key] = value * times if type(value) is list or type(value) is str else [value] * times

    def nest(self) -> None:
        container, key = self._place()
        value = container[key]
        name = self._random.choice(NAMES)
        for _ in range(self._random.choice((3, 10, 40, 60, 80))):
            value = {name: value} if self._random.random() < 0.7 else [value]
        container[key] = value

    def copy(self) -> None:
        """What stands somewhere else, so that one fact is another's."""
        container, key = self._place()
        other, there = self._place()
        container[key] = orjson.loads(orjson.dumps(other[there]))

    def retype(self) -> None:
        """Another object than the event's type speaks of, or another event of this object."""
        data = self._tree.get("data")
        if self._random.random() < 0.5 and type(data) is dict and type(data.get("object")) is dict:
            data["object"]["object"] = self._random.choice(OBJECT_TYPES)
        else:
            self._tree["type"] = self._random.choice(EVENT_TYPES)

    def change_before(self) -> None:
        """`previous_attributes` of another shape than the object."""
        random = self._random
        data = self._tree.get("data")
        if type(data) is not dict:
            return
        container, key = self._place()
        stripe_object = data.get("object")
        names = list(stripe_object) if type(stripe_object) is dict and stripe_object else list(NAMES)
        patch = random.choice(LEAVES)
        match random.randrange(5):
            case 0:
                data["previous_attributes"] = patch
            case 1:
                data["previous_attributes"] = {random.choice(names): patch for _ in range(random.randrange(1, 5))}
            case 2:
                data["previous_attributes"] = {random.choice(names): {random.choice(NAMES): patch}}
            case 3:
                data["previous_attributes"] = {random.choice(names): [{random.choice(NAMES): patch}]}
            case _:
                data["previous_attributes"] = {str(key): orjson.loads(orjson.dumps(container))}

    def say_in_bytes(self) -> None:
        container, key = self._place()
        container[key] = _MARK


_MUTATIONS: Final[tuple[Callable[[_Mutator], None], ...]] = (
    _Mutator.replace, _Mutator.replace, _Mutator.replace, _Mutator.remove, _Mutator.rename, _Mutator.add, _Mutator.wrap,
    _Mutator.refer, _Mutator.refer, _Mutator.repeat, _Mutator.nest, _Mutator.copy, _Mutator.retype,
    _Mutator.change_before, _Mutator.change_before, _Mutator.say_in_bytes,
)  # fmt: skip


def mutated(body: bytes, random: Random) -> bytes:
    """An event's body with a few things in it changed; what is no JSON object comes back as it is."""
    try:
        tree = orjson.loads(body) if len(body) <= MUTATED_BYTES_MAX else None
    except orjson.JSONDecodeError:
        return body
    if type(tree) is not dict or not tree:
        return body
    mutator = _Mutator(tree, random)
    try:
        for _ in range(random.randrange(1, MUTATIONS_MAX + 1)):
            if tree:
                random.choice(_MUTATIONS)(mutator)
        changed = orjson.dumps(tree, option=orjson.OPT_INDENT_2 if random.random() < 0.2 else None)
    except orjson.JSONEncodeError:
        return body  # mutations upon mutations: deeper than the serializer goes
    if _MARK_BYTES in changed:
        changed = changed.replace(_MARK_BYTES, random.choice(LITERALS))
    return changed if len(changed) <= MUTATED_BYTES_MAX else body


def damaged(body: bytes, random: Random) -> bytes:
    """A body with a few of its bytes changed, cut out, doubled; or in another encoding."""
    changed = bytearray(body)
    for _ in range(random.randrange(1, MUTATIONS_MAX + 1)):
        start = random.randrange(len(changed) + 1)
        length = random.choice((0, 1, 1, 2, 8, 64))
        match random.randrange(6):
            case 0:
                changed[start : start + length] = random.randbytes(length)
            case 1:
                del changed[start : start + length]
            case 2:
                changed[start:start] = changed[start : start + length]
            case 3:
                changed[start:start] = random.choice(LITERALS)
            case 4:
                changed[start:start] = random.choice(
                    (b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\x00", b"\xff")
                )
            case _:
                if random.random() < 0.05:
                    text = body.decode("utf-8", "replace")
                    return text.encode(random.choice(("utf-8-sig", "utf-16", "utf-32", "utf-16-be")))
                opening = changed.find(b"{", start)
                if opening >= 0:
                    name = random.choice(NAMES).encode()
                    changed[opening + 1 : opening + 1] = b'"%b":%b,' % (name, random.choice(LITERALS))
    return bytes(changed)


def endpoint(random: Random) -> Endpoint:
    """Mostly the one that takes everything: the others refuse most events for their mode or account."""
    return ENDPOINTS[0] if random.random() < 0.9 else random.choice(ENDPOINTS)


def missigned(body: bytes, random: Random) -> Delivery:
    """A delivery whose signature header is anything: right, nearly right, random."""
    right = sign(body, SECRET, SIGNED_AT + random.choice((0, 0, 0, 299, 300, 301, -300, -301, 10**9))).encode()
    match random.randrange(7):
        case 0:
            headers: tuple[bytes, ...] = (damaged(right, random),)
        case 1:
            headers = (random.randbytes(random.randrange(200)),)
        case 2:
            headers = (b",".join(random.sample(right.split(b",") * 3, 4)),)
        case 3:
            parts = (b"t", b"v1", b"v0", b"=", b",", b"0" * 64, b"9" * 5000, str(SIGNED_AT).encode(), b"\xff", right)
            headers = (b"".join(random.choices(parts, k=random.randrange(12))),)
        case 4:
            headers = random.choice(((), (right, right), (b"",)))
        case 5:
            headers = (right + b",v1=" + b",v1=".join([b"0" * 64] * random.choice((1, 14, 15, 16, 100))),)
        case _:
            headers = (right,)
    return Delivery(endpoint=endpoint(random), body=body, signature_headers=headers, received_at=NOW)


def events(bodies: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bodies that are nearly Stripe's, for Hypothesis."""
    return st.builds(mutated, st.sampled_from(bodies), st.randoms(use_true_random=False))
