"""An object's timeline: the order of its entries, and what each changed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

from service.page.timeline import entries
from service.ports import LedgerLine

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def line(
    event_id: str,
    event_type: str,
    seconds: int,
    previous: Mapping[str, Any] | None = None,
    *,
    object_type: str = "payment_intent",
    object_id: str = "pi_1",
    **data: Any,
) -> LedgerLine:
    at = NOON + timedelta(seconds=seconds)
    named = {f"{object_type}_id": object_id, **data}
    return LedgerLine(
        "acct_1", True, object_type, object_id, event_id, event_type, at, at, no_op=False, data=named, previous=previous
    )


def told(lines: Sequence[LedgerLine], *, cut: bool = False) -> list[tuple[object, dict[str, tuple[Any, Any]]]]:
    found = []
    for entry in entries(lines, cut=cut):
        changes = entry["changes"]
        assert isinstance(changes, list)
        found.append((entry["event_id"], {each["field"]: (each["from"], each["to"]) for each in changes}))
    return found


CREATED = line("evt_9", "payment_intent.created", 0, status="requires_payment_method", amount_minor=100, metadata={})
PROCESSING = line("evt_5", "payment_intent.processing", 1, status="processing", amount_minor=100)
SUCCEEDED = line(
    "evt_1", "payment_intent.succeeded", 1, status="succeeded", amount_minor=100, amount_received_minor=100
)


def test_entries_stand_in_the_tables_own_order_and_say_what_they_changed() -> None:
    for lines in permutations((CREATED, PROCESSING, SUCCEEDED)):
        assert told(lines) == [
            ("evt_9", {"payment_intent_id": (None, "pi_1"), "status": (None, "requires_payment_method"),
                       "amount_minor": (None, 100)}),
            ("evt_5", {"status": ("requires_payment_method", "processing")}),
            ("evt_1", {"status": ("processing", "succeeded"), "amount_received_minor": (None, 100)}),
        ]  # fmt: skip


def test_what_the_event_says_it_changed_counts() -> None:
    updated = line(
        "evt_2", "payment_intent.canceled", 9, {"status": "requires_capture"}, status="canceled", amount_minor=7
    )

    assert told([CREATED, updated])[1] == ("evt_2", {"status": ("requires_capture", "canceled")})
    same = line("evt_3", "payment_intent.canceled", 9, {"status": "canceled"}, status="canceled")
    assert told([same]) == [("evt_3", {})]


def test_of_what_came_before_a_cut_nothing_is_made_up() -> None:
    assert told([PROCESSING, SUCCEEDED], cut=True) == [
        ("evt_5", {}),
        ("evt_1", {"status": ("processing", "succeeded"), "amount_received_minor": (None, 100)}),
    ]


def test_each_object_has_changes_of_its_own() -> None:
    charge = line("evt_7", "charge.succeeded", 1, object_type="charge", object_id="ch_1", status="succeeded")
    refunded = line(
        "evt_8", "charge.refunded", 5, {"refunded": False}, object_type="charge", object_id="ch_1", status="succeeded",
        refunded=True,
    )  # fmt: skip

    assert [event_id for event_id, _ in told([refunded, SUCCEEDED, charge, CREATED])] == [
        "evt_9", "evt_1", "evt_7", "evt_8",
    ]  # fmt: skip
    assert dict(told([refunded, SUCCEEDED, charge, CREATED]))["evt_8"] == {"refunded": (False, True)}


def test_a_line_that_cannot_be_read_is_shown_all_the_same() -> None:
    odd = line("evt_4", "payment_intent.succeeded", 2, status=["no", "status"])

    assert [event_id for event_id, _ in told([odd, CREATED])] == ["evt_9", "evt_4"]
