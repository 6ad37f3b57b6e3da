"""How the path's CPU time and memory grow with the size of a body that somebody has built to hurt.

`python -m tests.fuzz.growth` prints a table. The suite does not measure time: it counts bytecodes, which are the same
on every machine and every day.
"""

import gc
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, TypeAlias

import orjson

from service.events import Delivery
from tests.fuzz.target import settle, signed

Family: TypeAlias = Callable[[int], bytes]
"""From a size in bytes to a body of about that size."""

KIB: Final = 1024
SIZES: Final = (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB)
REPEATS: Final = 3
RATIO_MAX: Final = 5.0
"""CPU time for a byte at 1 MiB, as a multiple of that at 64 KiB: quadratic would be 16. A tree of nothing but small
containers comes to 3: it no longer fits into the processor's caches, and Python's collector walks through it."""


def _event(stripe_object: Mapping[str, Any], event_type: str, previous: object = None) -> bytes:
    content: dict[str, Any] = {"object": stripe_object}
    if previous is not None:
        content["previous_attributes"] = previous
    return orjson.dumps({
        "id": "evt_1", "object": "event", "type": event_type, "created": 1_763_699_000, "livemode": False, "data": content,
        "api_version": "2020-08-27",
    })  # fmt: skip


def _filled(size: int, member: object, make: Callable[[list[Any]], bytes]) -> bytes:
    """`make` of as many members as fit."""
    return make([member] * max(1, (size - len(make([]))) // (len(orjson.dumps(member)) + 1)))


def _subscription(items: object) -> dict[str, Any]:
    return {"id": "sub_1", "object": "subscription", "items": items}


def _invoice(**fields: object) -> dict[str, Any]:
    return {"id": "in_1", "object": "invoice", **fields}


def _charge(**fields: object) -> dict[str, Any]:
    return {"id": "ch_1", "object": "charge", **fields}


def _intent(**fields: object) -> dict[str, Any]:
    return {"id": "pi_1", "object": "payment_intent", **fields}


_ITEM: Final = {"id": "si_1", "price": {"id": "price_1", "unit_amount": 1, "recurring": {"interval": "month"}}}
_LINE: Final = {"id": "il_1", "amount": 1, "period": {"start": 1, "end": 2}, "parent": {"subscription_item_details": {"subscription": "sub_1"}}}  # fmt: skip


def _many_keys(size: int, characters: int) -> dict[str, str]:
    return {f"k{number:07}": "v" * characters for number in range(size // (characters + 14))}


def _nested(depth: int, value: object) -> object:
    for _ in range(depth):
        value = {"a": [value]}
    return value


def _deepest(size: int) -> bytes:
    """As deep as orjson reads, again and again."""
    nest = b"[" * 1000 + b"]" * 1000
    return b'{"id":"evt_1","object":"event","data":[' + b",".join([nest] * max(1, size // 2001)) + b"]}"


FAMILIES: Final[Mapping[str, Family]] = {
    "empty items": lambda size: _filled(size, {}, lambda m: _event(_subscription(m), "customer.subscription.updated")),
    "items": lambda size: _filled(size, _ITEM, lambda m: _event(_subscription(m), "customer.subscription.updated")),
    "items before": lambda size: _filled(
        size // 2,
        _ITEM,
        lambda m: _event(_subscription(m), "customer.subscription.updated", {"items": {"data": [{}, *m]}}),
    ),
    "empty lines": lambda size: _filled(size, {}, lambda m: _event(_invoice(lines={"data": m}), "invoice.paid")),
    "lines": lambda size: _filled(size, _LINE, lambda m: _event(_invoice(lines={"data": m}), "invoice.paid")),
    "lines before": lambda size: _filled(
        size, {}, lambda m: _event(_invoice(lines={"data": m}), "invoice.updated", {"lines": []})
    ),
    "taxes": lambda size: _filled(size, {"amount": 1}, lambda m: _event(_invoice(total_taxes=m), "invoice.paid")),
    "refunds": lambda size: _filled(size, {"id": "re_1"}, lambda m: _event(_charge(refunds=m), "charge.refunded")),
    "discounts": lambda size: _filled(
        size, {"coupon": "c"}, lambda m: _event({**_subscription([]), "discounts": m}, "customer.subscription.updated")
    ),
    "metadata keys": lambda size: _event(_intent(metadata=_many_keys(size, 1)), "payment_intent.created"),
    "metadata before": lambda size: _event(
        _intent(metadata=_many_keys(size // 2, 1)), "payment_intent.created", {"metadata": _many_keys(size // 2, 2)}
    ),
    "a long text": lambda size: _event(_intent(description="é" * (size // 2)), "payment_intent.created"),
    "escapes": lambda size: _event(_intent(description='"\n' * (size // 4)), "payment_intent.created"),
    "a long number": lambda size: _event(_intent(amount=1), "payment_intent.created").replace(
        b'"amount":1', b'"amount":0.' + b"7" * size
    ),
    "many numbers": lambda size: _filled(
        size, 1.7976931348623157e308, lambda m: _event(_intent(next_action=m), "payment_intent.created")
    ),
    "expanded objects": lambda size: _filled(
        size, _charge(payment_intent=_intent()), lambda m: _event(_intent(charges={"data": m}), "payment_intent.created")
    ),
    "shallow nests": lambda size: _filled(
        size, _nested(24, 1), lambda m: _event(_intent(next_action=m), "payment_intent.created")
    ),
    "deep nests": _deepest,
    "attributes before": lambda size: _event(_intent(), "payment_intent.created", _many_keys(size, 1)),
    "brackets in a text": lambda size: _event(_intent(description="{[" * (size // 2)), "payment_intent.created"),
    "empty lists": lambda size: _filled(size, [], lambda m: _event(_intent(next_action=m), "payment_intent.created")),
    "unknown fields": lambda size: _event({"id": "x", "object": "widget", **_many_keys(size, 1)}, "widget.created"),
    "no JSON": lambda size: b"[" * size,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """One family at one size; `cpu_ns` is the fastest of a few runs."""

    family: str
    size: int
    cpu_ns: int
    peak_bytes: int
    outcome: str

    @property
    def ns_per_byte(self) -> float:
        """CPU time by size."""
        return self.cpu_ns / self.size


def measure(family: str, size: int) -> Point:
    """CPU time of the whole path, and the peak of what Python has allocated meanwhile."""
    delivery = signed(FAMILIES[family](size))
    outcomes = [settle(delivery) for _ in range(REPEATS)]
    return Point(
        family=family,
        size=len(delivery.body),
        cpu_ns=min(outcome.cpu_ns for outcome in outcomes),
        peak_bytes=peak_bytes(delivery),
        outcome=f"{outcomes[0].kind} {outcomes[0].detail}",
    )


def peak_bytes(delivery: Delivery) -> int:
    """The most memory that Python holds at once on a delivery's way, beyond what it held before."""
    gc.collect()
    tracemalloc.start()
    try:
        settle(delivery)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bytecodes(work: Callable[[], object]) -> int:
    """How many bytecodes `work` executes, in Python's own code."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def table(progress: Callable[[str], None] = lambda _: None) -> list[Point]:
    """Every family at every size."""
    points: list[Point] = []
    for family in FAMILIES:
        progress(family)
        points.extend(measure(family, size) for size in SIZES)
    return points


def ratio(points: list[Point], family: str) -> float:
    """CPU time for a byte at the largest size, by that at 64 KiB."""
    of_family = [point for point in points if point.family == family]
    return of_family[-1].ns_per_byte / of_family[SIZES.index(64 * KIB)].ns_per_byte


def show(points: list[Point]) -> str:
    """The table for a person."""
    lines = [
        f"{'family':<20}" + "".join(f"{size // KIB:>8} KiB" for size in SIZES) + "   µs/KiB  ratio  peak MB  outcome"
    ]
    for family in FAMILIES:
        of_family = [point for point in points if point.family == family]
        last = of_family[-1]
        lines.append(
            f"{family:<20}"
            + "".join(f"{point.cpu_ns / 1e6:>9.2f} ms" for point in of_family)
            + f"{last.ns_per_byte * KIB / 1e3:>9.1f}{ratio(points, family):>7.2f}{last.peak_bytes / 1e6:>9.1f}"
            + f"  {last.outcome}"
        )
    worst = max(points, key=lambda point: point.cpu_ns)
    lines.append(f"worst: {worst.family} of {worst.size:,} bytes, {worst.cpu_ns / 1e6:.1f} ms of process CPU time")
    return "\n".join(lines)
