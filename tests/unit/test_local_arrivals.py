"""Tables as people read them: amounts in their currency."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg

from service.local.arrivals import TABLES, _rows


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
