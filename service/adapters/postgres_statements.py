"""The statements that apply a batch, for one projection's tables. Every one works on a whole batch, as arrays.

Names of tables are ours, never input; everything else is a parameter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

KEYS: Final = "unnest($1::text[], $2::boolean[], $3::text[]) AS k (account, livemode, object_id)"
"""Keys, as a relation of three arrays."""


@dataclass(frozen=True, slots=True)
class Tables:
    """A projection's tables; `rows` gives the id column of each table of rows.

    `refs` is None where every object is its own and only root: there is nothing to look up. `owners` gives the column
    that names a row's root where that is not its own id (`RowSet.owned`), `root_prefixes` what may stand before a row's
    id in its root's.
    """

    ledger: str
    objects: str
    refs: str | None
    rows: Mapping[str, str]
    owners: Mapping[str, str] = field(default_factory=dict)
    root_prefixes: tuple[str, ...] = ()


TABLES: Final[Mapping[str, Tables]] = {
    "payments": Tables("payment_events", "payment_objects", "payment_refs", {"payments": "payment_id"}),
    "refunds": Tables("refund_events", "refund_objects", None, {"refunds": "refund_id"}),
    "subscriptions": Tables(
        "subscription_events",
        "subscription_objects",
        None,
        {
            "subscriptions": "subscription_id",
            "subscription_items": "subscription_item_id",
            "invoices": "invoice_id",
        },
        owners={"subscription_items": "subscription_id"},
    ),
    "catalog": Tables(
        "catalog_events",
        "catalog_objects",
        None,
        {"products": "product_id", "prices": "price_id"},
        root_prefixes=("product:", "price:"),
    ),
}
"""By the projection's name."""

OFFSET: Final = """
SELECT next_offset, cluster_id FROM consumer_offsets WHERE consumer_group = $1 AND topic = $2 AND partition = $3
"""

OFFSETS_CHECK: Final = "SELECT FROM consumer_offsets LIMIT 1"

OFFSETS_MOVE: Final = """
WITH mine AS MATERIALIZED (
    SELECT o.topic, o.partition, b.next_offset
    FROM consumer_offsets AS o
    JOIN unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[])
      AS b (topic, partition, stored, next_offset) USING (topic, partition)
    WHERE o.consumer_group = $1 AND o.cluster_id = $2 AND o.next_offset = b.stored
    ORDER BY o.topic, o.partition
    FOR UPDATE OF o
)
UPDATE consumer_offsets AS o
SET next_offset = mine.next_offset, updated_at = now()
FROM mine
WHERE o.consumer_group = $1 AND o.topic = mine.topic AND o.partition = mine.partition
RETURNING o.topic, o.partition
"""

OFFSETS_BEGIN: Final = """
INSERT INTO consumer_offsets (consumer_group, cluster_id, topic, partition, next_offset)
SELECT $1, $2, b.topic, b.partition, b.next_offset
FROM unnest($3::text[], $4::integer[], $5::bigint[]) AS b (topic, partition, next_offset)
ORDER BY b.topic COLLATE "C", b.partition
ON CONFLICT (consumer_group, topic, partition) DO NOTHING
RETURNING topic, partition
"""

_STATE: Final = "o.object_type, o.data, o.last_event_id, o.last_event_type, o.last_event_at, o.undecided"

_KNOWN_ROOTS: Final = """
SELECT k.account, k.livemode, k.object_id, r.payment_id
FROM {keys}
JOIN {refs} AS r ON (r.account, r.livemode, r.ref_id) = (k.account, k.livemode, k.object_id)
"""

_DEPENDANTS: Final = """
WITH RECURSIVE dependants (account, livemode, via, object_id) AS (
    SELECT l.account, l.livemode, l.via, l.object_id
    FROM {keys}
    JOIN {ledger} AS l ON (l.account, l.livemode, l.via) = (k.account, k.livemode, k.object_id)
    UNION
    SELECT l.account, l.livemode, l.via, l.object_id
    FROM dependants AS d
    JOIN {ledger} AS l ON (l.account, l.livemode, l.via) = (d.account, d.livemode, d.object_id)
)
SELECT account, livemode, via, object_id FROM dependants
"""

_ANCHOR: Final = """
INSERT INTO {objects} (account, livemode, object_id)
SELECT k.account, k.livemode, k.object_id
FROM {keys}
ORDER BY k.account COLLATE "C", k.livemode, k.object_id COLLATE "C"
ON CONFLICT (account, livemode, object_id) DO NOTHING
"""

_LOCK: Final = """
SELECT o.account, o.livemode, o.object_id, {state}
FROM {keys}
JOIN {objects} AS o USING (account, livemode, object_id)
ORDER BY o.account, o.livemode, o.object_id
FOR UPDATE OF o
"""

_RECORD: Final = """
INSERT INTO {ledger} (account, livemode, object_id, object_type, event_id, event_type, created_at, api_version,
                      data, previous, via)
SELECT *
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
            $9::jsonb[], $10::jsonb[], $11::text[])
ON CONFLICT (account, livemode, object_id, created_at, event_id) DO NOTHING
RETURNING account, livemode, object_id, event_id
"""

_HISTORY: Final = """
SELECT l.account, l.livemode, l.object_id, l.object_type, l.event_id, l.event_type, l.created_at, l.api_version,
       l.data, l.previous, l.no_op, l.via
FROM {keys}
JOIN {ledger} AS l USING (account, livemode, object_id)
"""

_MARK_NO_OPS: Final = """
UPDATE {ledger} AS l
SET no_op = m.no_op
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[], $5::timestamptz[], $6::boolean[])
  AS m (account, livemode, object_id, event_id, created_at, no_op)
WHERE (l.account, l.livemode, l.object_id, l.created_at, l.event_id)
    = (m.account, m.livemode, m.object_id, m.created_at, m.event_id)
"""

_KEEP_STATES: Final = """
UPDATE {objects} AS o
SET object_type = s.object_type, data = s.data, last_event_id = s.last_event_id,
    last_event_type = s.last_event_type, last_event_at = s.last_event_at, undecided = s.undecided
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[], $8::timestamptz[],
            $9::integer[])
  AS s (account, livemode, object_id, object_type, data, last_event_id, last_event_type, last_event_at, undecided)
WHERE (o.account, o.livemode, o.object_id) = (s.account, s.livemode, s.object_id)
"""

_LINK: Final = """
INSERT INTO {refs} (account, livemode, ref_id, payment_id)
SELECT * FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[])
ON CONFLICT DO NOTHING
"""

_LINKED_STATES: Final = """
SELECT r.payment_id, o.account, o.livemode, o.object_id, {state}
FROM {keys}
JOIN {refs} AS r ON (r.account, r.livemode, r.payment_id) = (k.account, k.livemode, k.object_id)
JOIN {objects} AS o ON (o.account, o.livemode, o.object_id) = (r.account, r.livemode, r.ref_id)
WHERE o.data IS NOT NULL
"""

_UPSERT: Final = """
INSERT INTO {table} AS t (account, livemode, {id_column}, {names})
SELECT n.account, n.livemode, n.{id_column}, {new}
FROM json_populate_recordset(NULL::{table}, $1::json) AS n
ON CONFLICT (account, livemode, {id_column}) DO UPDATE SET {assignments}, applied_at = now()
WHERE ({old}) IS DISTINCT FROM ({excluded})
"""

_REMOVE: Final = """
DELETE FROM {table} AS t
USING unnest($1::text[], $2::boolean[], $3::text[]) AS k (account, livemode, owner)
WHERE (t.account, t.livemode, t.{owner_column}) = (k.account, k.livemode, k.owner)
  AND (t.account, t.livemode, t.{id_column}) NOT IN (
    SELECT * FROM unnest($4::text[], $5::boolean[], $6::text[])
  )
"""


@dataclass(frozen=True, slots=True)
class Statements:
    """One projection's statements."""

    anchor: str
    lock: str
    record: str
    history: str
    mark_no_ops: str
    keep_states: str
    known_roots: str
    dependants: str
    link: str
    linked_states: str


def statements_for(tables: Tables) -> Statements:
    """The statements with the projection's tables in them."""
    names = {
        "ledger": tables.ledger,
        "objects": tables.objects,
        "refs": tables.refs or "",
        "keys": KEYS,
        "state": _STATE,
    }
    return Statements(
        anchor=_ANCHOR.format(**names),
        lock=_LOCK.format(**names),
        record=_RECORD.format(**names),
        history=_HISTORY.format(**names),
        mark_no_ops=_MARK_NO_OPS.format(**names),
        keep_states=_KEEP_STATES.format(**names),
        known_roots=_KNOWN_ROOTS.format(**names),
        dependants=_DEPENDANTS.format(**names),
        link=_LINK.format(**names),
        linked_states=_LINKED_STATES.format(**names),
    )


def upsert(table: str, id_column: str, columns: Sequence[str]) -> str:
    """Write rows, given as one JSON array; a row that says what stands there already is left alone."""
    quoted = [f'"{name}"' for name in columns]
    return _UPSERT.format(
        table=table,
        id_column=id_column,
        names=", ".join(quoted),
        new=", ".join(f"n.{name}" for name in quoted),
        assignments=", ".join(f"{name} = excluded.{name}" for name in quoted),
        old=", ".join(f"t.{name}" for name in quoted),
        excluded=", ".join(f"excluded.{name}" for name in quoted),
    )


def remove(table: str, id_column: str, owner_column: str) -> str:
    """Remove the rows of some owners that are not among those to keep."""
    return _REMOVE.format(table=table, id_column=id_column, owner_column=owner_column)
