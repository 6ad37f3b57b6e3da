"""The statements of a rebuild, besides those of applying. Names of tables are ours, never input."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from service.adapters.postgres_statements import KEYS, Statements, Tables, statements_for

OVERLAY: Final = "rebuild_ledger"
SEEN: Final = "rebuild_seen"
LINKS: Final = "rebuild_links"
ALL_REFS: Final = "rebuild_refs"

_COLUMNS: Final = """
account, livemode, object_id, object_type, event_id, event_type, created_at, api_version, data, previous, via
"""

# What is found on the way is kept for the length of the session, and never in memory: it may be as large as the tables.
_BEGIN: Final = """
CREATE TEMPORARY TABLE {overlay} (LIKE {ledger} INCLUDING DEFAULTS INCLUDING INDEXES);
CREATE TEMPORARY TABLE {seen} (
    account text COLLATE "C", livemode boolean, object_id text COLLATE "C", event_id text COLLATE "C",
    PRIMARY KEY (account, livemode, object_id, event_id)
)
"""
_BEGIN_REFS: Final = """
CREATE TEMPORARY TABLE {links} (LIKE {refs} INCLUDING INDEXES);
CREATE TEMPORARY VIEW {all_refs} AS SELECT * FROM {refs} UNION ALL SELECT * FROM {links}
"""

_FOUND: Final = """
SELECT k.place, l.object_type, l.event_type, l.api_version, l.data, l.previous, l.no_op, l.via
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::timestamptz[], $5::text[])
  WITH ORDINALITY AS k (account, livemode, object_id, created_at, event_id, place)
JOIN {ledger} AS l USING (account, livemode, object_id, created_at, event_id)
"""

_SEE: Final = """
INSERT INTO {seen} (account, livemode, object_id, event_id)
SELECT * FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[])
ON CONFLICT DO NOTHING
RETURNING account, livemode, object_id, event_id
"""

_MERGE: Final = """
INSERT INTO {ledger} ({columns})
SELECT {columns} FROM {keys} JOIN {overlay} USING (account, livemode, object_id)
ON CONFLICT (account, livemode, object_id, created_at, event_id) DO UPDATE
SET object_type = excluded.object_type, event_type = excluded.event_type, api_version = excluded.api_version,
    data = excluded.data, previous = excluded.previous, via = excluded.via
"""

_SET_VIAS: Final = """
UPDATE {ledger} AS l
SET via = v.via
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
  AS v (account, livemode, object_id, event_id, created_at, via)
WHERE (l.account, l.livemode, l.object_id, l.created_at, l.event_id)
    = (v.account, v.livemode, v.object_id, v.created_at, v.event_id)
"""

_ENTRIES: Final = """
SELECT k.account, k.livemode, k.object_id, count(*) AS entries
FROM {keys} JOIN {ledger} AS l USING (account, livemode, object_id)
GROUP BY k.account, k.livemode, k.object_id
"""

_STORED: Final = """
SELECT o.account, o.livemode, o.object_id, o.object_type, o.data, o.last_event_id, o.last_event_type, o.last_event_at,
       o.undecided
FROM {keys} JOIN {objects} AS o USING (account, livemode, object_id)
"""

# An anchor stays: others may wait for its lock, and would hold none if it were gone.
_FORGET: Final = """
UPDATE {objects} AS o
SET object_type = NULL, data = NULL, last_event_id = NULL, last_event_type = NULL, last_event_at = NULL, undecided = 0
FROM {keys}
WHERE (o.account, o.livemode, o.object_id) = (k.account, k.livemode, k.object_id)
"""

_MEMBERS: Final = """
SELECT r.account, r.livemode, r.ref_id AS object_id, r.payment_id
FROM {keys}
JOIN {refs} AS r ON (r.account, r.livemode, r.payment_id) = (k.account, k.livemode, k.object_id)
"""

_LINK_FOUND: Final = """
INSERT INTO {links} (account, livemode, ref_id, payment_id)
SELECT k.account, k.livemode, k.ref_id, k.payment_id
FROM unnest($1::text[], $2::boolean[], $3::text[], $4::text[]) AS k (account, livemode, ref_id, payment_id)
WHERE NOT EXISTS (
    SELECT FROM {refs} AS r
    WHERE (r.account, r.livemode, r.ref_id, r.payment_id) = (k.account, k.livemode, k.ref_id, k.payment_id)
)
ON CONFLICT DO NOTHING
"""

_UNLINK: Final = """
DELETE FROM {refs} AS r
USING unnest($1::text[], $2::boolean[], $3::text[], $4::text[]) AS k (account, livemode, ref_id, payment_id)
WHERE (r.account, r.livemode, r.ref_id, r.payment_id) = (k.account, k.livemode, k.ref_id, k.payment_id)
"""

_ROWS: Final = """
SELECT t.account, t.livemode, t.{id_column} AS object_id, t.applied_at, to_jsonb(t) AS content
FROM {keys} JOIN {table} AS t ON (t.account, t.livemode, t.{column}) = (k.account, k.livemode, k.object_id)
"""

_WOULD_BE: Final = """
SELECT n.account, n.livemode, n.{id_column} AS object_id, to_jsonb(n) AS content
FROM json_populate_recordset(NULL::{table}, $1::json) AS n
"""

# A row that somebody has written meanwhile is somebody's.
_REMOVE_ROWS: Final = """
DELETE FROM {table} AS t
USING unnest($1::text[], $2::boolean[], $3::text[], $4::timestamptz[]) AS k (account, livemode, object_id, applied_at)
WHERE (t.account, t.livemode, t.{id_column}, t.applied_at) = (k.account, k.livemode, k.object_id, k.applied_at)
"""

_OBJECTS_OF_EVENTS: Final = """
SELECT l.account, l.livemode, l.event_id, l.object_id
FROM unnest($1::text[], $2::boolean[], $3::text[]) AS k (account, livemode, event_id)
JOIN {ledger} AS l USING (account, livemode, event_id)
"""

_NEXT: Final = """
SELECT account, livemode, object_id FROM ({parts}) AS ids
ORDER BY account COLLATE "C", livemode, object_id COLLATE "C"
LIMIT {limit}
"""
_NEXT_PART: Final = """
(SELECT DISTINCT account, livemode, {column} AS object_id FROM {table}
 WHERE (account, livemode, {column}) > ($1::text, $2::boolean, $3::text){condition}
 ORDER BY account, livemode, {column}
 LIMIT {limit})
"""

OFFSETS: Final = "SELECT topic, partition, next_offset FROM consumer_offsets WHERE consumer_group = $1"

ESTIMATE: Final = "SELECT reltuples::bigint FROM pg_class WHERE oid = $1::regclass"


@dataclass(frozen=True, slots=True)
class RebuildStatements:
    """One projection's."""

    begin: str
    found: str
    see: str
    stage: Statements
    """Those of the ledger laid beside the ledger."""
    link_found: str
    known_roots: str
    merge: str
    set_vias: str
    entries: str
    overlay_entries: str
    stored: str
    forget: str
    members: str
    all_members: str
    unlink: str
    objects_of_events: str
    next_objects: str
    next_roots: str


def rebuild_statements(tables: Tables, page: int) -> RebuildStatements:
    """The statements with the projection's tables in them, for pages of at most so many keys."""
    refs = tables.refs or ""
    names = {
        "ledger": tables.ledger,
        "objects": tables.objects,
        "refs": refs,
        "overlay": OVERLAY,
        "seen": SEEN,
        "links": LINKS,
        "all_refs": ALL_REFS,
        "keys": KEYS,
        "columns": _COLUMNS.strip(),
    }
    ledger_ids = [(tables.ledger, "object_id", ""), (OVERLAY, "object_id", "")]
    root_ids = [(refs, "payment_id", ""), (LINKS, "payment_id", "")] if refs else ledger_ids
    row_ids = [(table, tables.owners.get(table, id_column), "") for table, id_column in tables.rows.items()]
    return RebuildStatements(
        begin=(_BEGIN + (";" + _BEGIN_REFS if refs else "")).format(**names),
        found=_FOUND.format(**names),
        see=_SEE.format(**names),
        stage=statements_for(replace(tables, ledger=OVERLAY)),
        link_found=_LINK_FOUND.format(**names),
        known_roots=statements_for(replace(tables, refs=ALL_REFS)).known_roots,
        merge=_MERGE.format(**names),
        set_vias=_SET_VIAS.format(**names),
        entries=_ENTRIES.format(**names),
        overlay_entries=_ENTRIES.format(**{**names, "ledger": OVERLAY}),
        stored=_STORED.format(**names),
        forget=_FORGET.format(**names),
        members=_MEMBERS.format(**names),
        all_members=_MEMBERS.format(**{**names, "refs": ALL_REFS}),
        unlink=_UNLINK.format(**names),
        objects_of_events=_OBJECTS_OF_EVENTS.format(**names),
        next_objects=_next([*ledger_ids, (tables.objects, "object_id", " AND data IS NOT NULL")], page),
        next_roots=_next([*root_ids, *row_ids], page),
    )


def rows_by(table: str, id_column: str, column: str) -> str:
    """The rows whose `column` is among the keys."""
    return _ROWS.format(table=table, id_column=id_column, column=column, keys=KEYS)


def would_be(table: str, id_column: str) -> str:
    """What rows, given as one JSON array, would be in the table."""
    return _WOULD_BE.format(table=table, id_column=id_column)


def remove_rows(table: str, id_column: str) -> str:
    """Remove rows as they were seen."""
    return _REMOVE_ROWS.format(table=table, id_column=id_column)


def count(table: str, most: int) -> str:
    """How many rows there are, counted no further than this: a table may be as large as it likes."""
    return f"SELECT count(*) FROM (SELECT FROM {table} LIMIT {most}) AS counted"  # noqa: S608 -- our own name


def _next(columns: Iterable[tuple[str, str, str]], limit: int) -> str:
    parts = " UNION ".join(
        _NEXT_PART.format(table=table, column=column, condition=condition, limit=limit)
        for table, column, condition in columns
    )
    return _NEXT.format(parts=parts, limit=limit)
