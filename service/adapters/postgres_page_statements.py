"""The statements of the operator's page. Each is bounded by LIMITs, and finds what it reads by an index.

A ledger's and an anchor's key begins with account and mode, and somebody who looks for an id knows neither. So the
accounts are walked through: from each to the next is one step in the index, however many rows lie between (a loose
index scan), and each is asked for the id. Names of tables are ours, never input; everything else is a parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from service.adapters.postgres_statements import TABLES
from service.events import Arrival

ACCOUNTS_MAX: Final = 5000
"""Of a table, so many accounts are asked for an id: a few hundredths of a second."""
SORTED_MAX: Final = 1000
"""Of a customer's rows, the newest are among so many."""
ROWS_MAX: Final = 50
REFS_MAX: Final = 200
"""Of a payment, so many objects: its charges, refunds, disputes, sessions."""
ROOTS_MAX: Final = 20

_COLUMNS: Final = ", ".join(("arrival_id", *Arrival._fields))

NEWEST: Final = f"""
SELECT {_COLUMNS} FROM event_log
WHERE arrival_id < coalesce($1::bigint, 9223372036854775807)
ORDER BY arrival_id DESC LIMIT $2
"""  # noqa: S608 -- our own names

# Of an id the newest by time, as the indexes have them; arrivals of one moment by their ids. What is asked to come
# before an arrival that has been pruned is older still, and pruned as well.
_BEFORE: Final = (
    "(CASE WHEN $2::bigint IS NULL THEN 'infinity'::timestamptz"
    " ELSE (SELECT received_at FROM event_log WHERE arrival_id = $2) END)"
)
_OF_ID: Final = """
(SELECT {columns} FROM event_log
 WHERE {column} = $1 AND received_at <= {before}
   AND (received_at, arrival_id) < ({before}, coalesce($2::bigint, 9223372036854775807))
 ORDER BY received_at DESC, arrival_id DESC LIMIT $3)
"""
# UNION: an arrival may be found twice, since a customer's own events have its id as object and as customer.
OF_ID: Final = (
    "UNION".join(
        _OF_ID.format(columns=_COLUMNS, column=name, before=_BEFORE)
        for name in ("event_id", "object_id", "customer_id")
    )
    + "ORDER BY received_at DESC, arrival_id DESC LIMIT $3"
)

OF_EVENT: Final = f"""
SELECT {_COLUMNS} FROM event_log WHERE event_id = $1 ORDER BY received_at, arrival_id LIMIT $2
"""  # noqa: S608 -- our own names

_LINE: Final = (
    "{0}.account, {0}.livemode, {0}.object_type, {0}.object_id, {0}.event_id, {0}.event_type, {0}.created_at,"
    " {0}.recorded_at, {0}.no_op, {0}.data, {0}.previous"
)

_ACTIVE: Final = (
    "CASE WHEN {0}.deleted THEN 'deleted' WHEN {0}.active THEN 'active' WHEN NOT {0}.active THEN 'inactive' END"
)


@dataclass(frozen=True, slots=True)
class RowTable:
    """A public table: what an operator calls one of its rows, its id column, and how a row stands, as an expression."""

    kind: str
    id_column: str
    status: str = "t.status"


ROW_TABLES: Final[Mapping[str, RowTable]] = {
    "payments": RowTable("payment", "payment_id"),
    "refunds": RowTable("refund", "refund_id"),
    "subscriptions": RowTable("subscription", "subscription_id"),
    "subscription_items": RowTable("subscription_item", "subscription_item_id", "NULL::text"),
    "invoices": RowTable("invoice", "invoice_id"),
    "products": RowTable("product", "product_id", _ACTIVE.format("t")),
    "prices": RowTable("price", "price_id", _ACTIVE.format("t")),
}

_OWN: Final = """
SELECT '{table}' AS name, t.{id_column} AS id, {status} AS status, to_jsonb(t) AS row FROM {table} AS t
WHERE (t.account, t.livemode, t.{id_column}) = ($1, $2, $3)
"""
OWN_ROWS: Final = "UNION ALL".join(
    _OWN.format(table=name, id_column=table.id_column, status=table.status) for name, table in ROW_TABLES.items()
)
"""The rows of which an id is the key, in the order of `ROW_TABLES`."""

ROOTS: Final = f"""
SELECT payment_id FROM payment_refs WHERE (account, livemode, ref_id) = ($1, $2, $3)
ORDER BY payment_id LIMIT {ROOTS_MAX + 1}
"""  # noqa: S608 -- our own number

REFS: Final = f"""
SELECT ref_id FROM payment_refs WHERE (account, livemode, payment_id) = ($1, $2, $3) LIMIT {REFS_MAX + 1}
"""  # noqa: S608 -- our own number

ANCHOR: Final = "UNION ALL".join(
    f" SELECT '{name}' AS projection, object_type FROM {tables.objects}"  # noqa: S608 -- our own names
    " WHERE (account, livemode, object_id) = ($1, $2, $3) AND object_type IS NOT NULL "
    for name, tables in TABLES.items()
)
"""What an id is the id of, where a projection has seen the object itself."""

_RELATED: Final = """
(SELECT name, id, status FROM (
    SELECT '{table}' AS name, t.{id_column} AS id, {status} AS status, t.created FROM (
        SELECT t.*, {created} AS created FROM {table} AS t
        WHERE t.account = $1 AND t.livemode = $2 AND t.{column} = ANY ($3::text[]) LIMIT {sorted_max}
    ) AS t
 ) AS found ORDER BY created DESC NULLS LAST, id LIMIT {rows_max})
"""


def related(*columns: str) -> str:
    """The rows that name some ids in these columns (`table.column`), the newest of each first."""
    parts = []
    for each in columns:
        name, _, column = each.partition(".")
        table = ROW_TABLES[name]
        parts.append(
            _RELATED.format(
                table=name,
                id_column=table.id_column,
                status=table.status,
                created="t.last_event_at" if name == "subscription_items" else "t.created_at",
                column=column,
                sorted_max=SORTED_MAX,
                rows_max=ROWS_MAX + 1,
            )
        )
    return "UNION ALL".join(parts)


OF_CUSTOMER: Final = related("payments.customer_id", "subscriptions.customer_id", "invoices.customer_id")

_LINES: Final = """
SELECT {line} FROM unnest($3::text[]) AS k (object_id)
CROSS JOIN LATERAL (
    SELECT * FROM {ledger} AS l
    WHERE l.account = $1 AND l.livemode = $2 AND l.object_id = k.object_id
    ORDER BY l.created_at DESC, l.event_id DESC LIMIT $4
) AS l
ORDER BY l.created_at DESC, l.event_id DESC LIMIT $4
"""
LINES: Final[Mapping[str, str]] = {
    name: _LINES.format(line=_LINE.format("l"), ledger=tables.ledger) for name, tables in TABLES.items()
}
"""The newest lines of some objects, by projection."""

_EFFECTS: Final = """
SELECT {line}, rows.named FROM (SELECT * FROM {ledger} WHERE event_id = $1 ORDER BY object_id LIMIT $2) AS l
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(found.name, found.id, found.status)) AS named FROM ({rows}) AS found
) AS rows ON true
"""
_BY_KEY: Final = (
    " SELECT '{table}' AS name, t.{id_column} AS id, {status} AS status FROM {table} AS t"
    " WHERE (t.account, t.livemode, t.{id_column}) = (l.account, l.livemode, {id})"
    " AND l.object_type = ANY ('{{{types}}}') "
)


def _by_key(table: str, types: str, object_id: str = "l.object_id") -> str:
    row = ROW_TABLES[table]
    return _BY_KEY.format(table=table, id_column=row.id_column, status=row.status, id=object_id, types=types)


_ROWS_OF_LINE: Final[Mapping[str, str]] = {
    "payments": f"""
        SELECT 'payments' AS name, t.payment_id AS id, t.status FROM payment_refs AS r
        JOIN payments AS t ON (t.account, t.livemode, t.payment_id) = (r.account, r.livemode, r.payment_id)
        WHERE (r.account, r.livemode, r.ref_id) = (l.account, l.livemode, l.object_id) LIMIT {ROOTS_MAX}
    """,  # noqa: S608 -- our own number
    "refunds": _by_key("refunds", "refund"),
    "subscriptions": _by_key("subscriptions", "subscription") + "UNION ALL" + _by_key("invoices", "invoice"),
    # The ledger's ids are not always Stripe's: a product and a plan may both be called `gold`.
    "catalog": _by_key("products", "product", "l.data ->> 'product_id'")
    + "UNION ALL"
    + _by_key("prices", "price,plan", "l.data ->> 'price_id'"),
}
EFFECTS: Final[Mapping[str, str]] = {
    name: _EFFECTS.format(line=_LINE.format("l"), ledger=tables.ledger, rows=_ROWS_OF_LINE[name])
    for name, tables in TABLES.items()
}
"""What one event has done, by projection."""

_ACCOUNTS: Final = """
{name} AS (
    (SELECT account, livemode FROM {table} ORDER BY account, livemode LIMIT 1)
    UNION ALL
    SELECT n.account, n.livemode FROM {name} AS a CROSS JOIN LATERAL (
        SELECT o.account, o.livemode FROM {table} AS o WHERE (o.account, o.livemode) > (a.account, a.livemode)
        ORDER BY o.account, o.livemode LIMIT 1
    ) AS n
)"""
_WHOSE: Final = """
SELECT a.account, a.livemode FROM (SELECT account, livemode FROM {name} LIMIT {accounts_max}) AS a
WHERE EXISTS (
    SELECT FROM {table} AS o
    WHERE o.account = a.account AND o.livemode = a.livemode AND o.{column} = ANY ({ids})
)
"""
_WHOSE_LOGGED: Final = f"""
SELECT account, livemode FROM (
    (SELECT account, livemode FROM event_log WHERE object_id = $1 ORDER BY received_at DESC LIMIT {SORTED_MAX})
    UNION ALL
    (SELECT account, livemode FROM event_log WHERE customer_id = $1 ORDER BY received_at DESC LIMIT {SORTED_MAX})
) AS logged WHERE account IS NOT NULL AND livemode IS NOT NULL
"""  # noqa: S608 -- our own numbers
_PROBED: Final[Mapping[str, tuple[str, str, str]]] = {
    **{
        f"{name}_anchors": (
            tables.objects,
            "object_id",
            "ARRAY[" + ", ".join(["$1", *(f"'{prefix}' || $1" for prefix in tables.root_prefixes)]) + "]",
        )
        for name, tables in TABLES.items()
    },
    **{f"{name}_customers": (name, "customer_id", "ARRAY[$1]") for name in ("payments", "subscriptions", "invoices")},
    "items": ("subscription_items", "subscription_item_id", "ARRAY[$1]"),
}
"""Where an id is looked for: table, column, and what stands there for it."""

_WALKED: Final = ",".join(_ACCOUNTS.format(name=name, table=table) for name, (table, _, _) in _PROBED.items())
_KNOWN: Final = "UNION".join(
    [
        *(
            _WHOSE.format(name=name, table=table, column=column, ids=ids, accounts_max=ACCOUNTS_MAX)
            for name, (table, column, ids) in _PROBED.items()
        ),
        _WHOSE_LOGGED,
    ]
)
WHOSE: Final = f"""
WITH RECURSIVE {_WALKED}
SELECT account, livemode FROM ({_KNOWN}) AS known ORDER BY account, livemode LIMIT $2
"""  # noqa: S608 -- our own names
"""The accounts and modes in which an id is known."""

OFFSETS: Final = """
SELECT consumer_group, topic, partition, next_offset, updated_at FROM consumer_offsets
WHERE consumer_group = ANY ($1::text[]) LIMIT 10000
"""
