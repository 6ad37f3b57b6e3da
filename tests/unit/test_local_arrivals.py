"""Tables as people read them: amounts in their currency. Records as they were, whatever bytes they are."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import orjson
import pytest

from service.commands.record_json import record_line
from service.events import ConsumedRecord, Partition, QuarantineReason, Unprocessable
from service.local.arrivals import TABLES, _rows
from service.records import Topics, quarantine
from service.redaction import RedactionKeys, Sealing
from tests.unit.normalize.building import endpoint


class OneTable:
    """A connection to a table of these rows."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    async def fetch(self, _: str) -> Sequence[dict[str, Any]]:
        return self._rows

    async def fetchval(self, _: str) -> int:
        return len(self._rows)


async def shown(table: str, *rows: dict[str, Any]) -> tuple[Sequence[str], list[dict[str, str]]]:
    connection = cast("asyncpg.Connection[asyncpg.Record]", OneTable(rows))
    found = await _rows(connection, table, TABLES[table])
    return found.columns, [dict(zip(found.columns, row, strict=True)) for row in found.rows]


async def test_amounts_are_shown_in_their_currency_which_needs_no_column() -> None:
    payment = {"payment_id": "pi_1", "status": "succeeded", "amount_minor": 1234, "amount_received_minor": 1234,
               "amount_refunded_minor": 0, "currency": "eur"}  # fmt: skip
    yen = {**payment, "payment_id": "pi_2", "amount_minor": 500, "amount_received_minor": None, "currency": "jpy"}
    unknown = {**payment, "payment_id": "pi_3", "currency": None}

    columns, rows = await shown("payments", payment, yen, unknown)

    assert "currency" not in columns
    assert [row["amount_minor"] for row in rows] == ["12.34 EUR", "500 JPY", "1234 minor units"]
    assert [row["amount_received_minor"] for row in rows] == ["12.34 EUR", "", "1234 minor units"]
    assert rows[0]["amount_refunded_minor"] == "0.00 EUR"


async def test_times_and_nothing_are_shown_shortly() -> None:
    subscription = {"subscription_id": "sub_1", "status": "active", "canceled_at": None,
                    "current_period_end": datetime(2026, 12, 1, 10, 30, 59, tzinfo=UTC)}  # fmt: skip

    columns, rows = await shown("subscriptions", subscription)

    assert list(columns) == list(TABLES["subscriptions"])
    assert rows == [{**subscription, "current_period_end": "2026-12-01 10:30", "canceled_at": ""}]


def test_every_table_with_amounts_has_their_currency() -> None:
    for columns in TABLES.values():
        assert "currency" in columns or not any(column.endswith("_minor") for column in columns)


# --- records ---------------------------------------------------------------------------------------------------------

SEALING = Sealing(RedactionKeys.of(base64.b64encode(bytes(range(32))).decode()))
OTHER = Sealing(RedactionKeys.of(base64.b64encode(bytes(32)).decode()))


def read(body: bytes, *, sealed: Sealing | None, opened: Sealing | None) -> dict[str, Any]:
    """What `topics read quarantine` says of a body, that is kept with one key and read with another."""
    unprocessable = Unprocessable(
        reason=QuarantineReason.MALFORMED_JSON, detail="body", event_id="evt_1", endpoint=endpoint(), body=body,
        received_at=datetime(2026, 11, 20, tzinfo=UTC),
    )  # fmt: skip
    record = quarantine(
        unprocessable, topics=Topics("stripe"), ingest_source="webhook", traceparent="00-0-0-01", sealing=sealed
    )
    line = record_line(
        ConsumedRecord(Partition(record.topic, 2), 7, record.key, record.value, record.headers, 0), opened
    )
    assert "\n" not in line
    shown: dict[str, Any] = orjson.loads(line)
    assert (shown["topic"], shown["partition"], shown["offset"], shown["key"]) == ("stripe.quarantine", 2, 7, "evt_1")
    assert shown["headers"]["reason"] == "malformed_json"
    return shown


@pytest.mark.parametrize("sealed", [None, SEALING], ids=["plain", "sealed"])
@pytest.mark.parametrize(
    ("body", "value"),
    [(b'{"a": [1]}', {"a": [1]}), (b'{"a": [1', '{"a": [1'), (b"", ""), ("ä".encode(), "ä"), (b"[" * 5000, "[" * 5000),
     (b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000)],
    ids=["JSON", "no JSON", "nothing", "text", "deep", "deep JSON"],
)  # fmt: skip
def test_a_quarantined_body_is_shown_as_stripe_sent_it_sealed_or_not(
    sealed: Sealing | None, body: bytes, value: object
) -> None:
    shown = read(body, sealed=sealed, opened=SEALING)

    assert shown["value"] == value
    assert shown.keys().isdisjoint({"value_base64", "sealed"})


def test_bytes_that_are_no_text_are_shown_without_loss() -> None:
    body = b"\xff\xfe{"

    shown = read(body, sealed=SEALING, opened=SEALING)

    assert base64.b64decode(shown["value_base64"]) == body
    assert "value" not in shown


@pytest.mark.parametrize(("opened", "said"), [(None, "is needed"), (OTHER, f"here is {OTHER.keys.fingerprint}")])
def test_a_body_that_cannot_be_opened_is_shown_sealed_with_the_key_it_needs(opened: Sealing | None, said: str) -> None:
    shown = read(b'{"email": "PLANTED"', sealed=SEALING, opened=opened)

    sealed = base64.b64decode(shown["value_base64"])
    assert SEALING.unseal(sealed, record_key=b"evt_1") == b'{"email": "PLANTED"'
    assert said in shown["sealed"]
    assert SEALING.keys.fingerprint in shown["sealed"]
    assert shown["headers"]["encryption_key"] == SEALING.keys.fingerprint
    assert "value" not in shown
