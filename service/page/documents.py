"""What the database tells, as the page's API tells it: pure functions from values to what becomes JSON."""

from collections.abc import Mapping, Sequence

from service.page.timeline import entries
from service.ports import EventEffect, FoundObject, LoggedArrival, NamedRow
from service.projections.model import ObjectKey


def arrivals_document(logged: Sequence[LoggedArrival], limit: int) -> Mapping[str, object]:
    """A page of arrivals, of which one more than `limit` was asked for to know whether there is a next."""
    shown = logged[:limit]
    return {
        "arrivals": [arrival_document(each) for each in shown],
        "next": shown[-1].arrival_id if len(logged) > limit else None,
    }


def arrival_document(logged: LoggedArrival) -> Mapping[str, object]:
    """One arrival, column by column."""
    return {"arrival_id": logged.arrival_id, **logged.arrival._asdict()}


def way_document(
    event_id: str, logged: Sequence[LoggedArrival], effects: Sequence[EventEffect]
) -> Mapping[str, object]:
    """An event's way: each time that it came, and what it did."""
    return {
        "event_id": event_id,
        "arrivals": [{**arrival_document(each), "duplicate_of": _first_of(each, logged)} for each in logged],
        "effects": [_effect(effect) for effect in effects],
    }


def object_document(key: ObjectKey, found: FoundObject) -> Mapping[str, object]:
    """An object with its timeline."""
    return {
        "kind": found.kind,
        "account": key.account,
        "livemode": key.livemode,
        "row": found.row,
        "rows": [row_document(row) for row in found.rows],
        "entries": entries(found.lines, cut=found.cut),
        "arrivals": [arrival_document(each) for each in found.arrivals],
        "truncated": found.cut,
    }


def row_document(row: NamedRow) -> Mapping[str, object]:
    """A row by its name."""
    return {"table": row.table, "id": row.id, "status": row.status}


def _first_of(logged: LoggedArrival, all_of_event: Sequence[LoggedArrival]) -> Mapping[str, object] | None:
    """The arrival that has put the record there which spares a duplicate its own; None where none is on the log.

    A body that is quarantined again is one too: its claim found the record of the first.
    """
    arrival = logged.arrival
    if arrival.topic is not None or arrival.outcome not in {"duplicate", "quarantined"}:
        return None
    wanted = "accepted" if arrival.outcome == "duplicate" else "quarantined"
    for each in all_of_event:
        if each.arrival.outcome == wanted and each.arrival.topic is not None:
            return {
                "arrival_id": each.arrival_id,
                "topic": each.arrival.topic,
                "partition": each.arrival.partition,
                "record_offset": each.arrival.record_offset,
            }
    return None


def _effect(effect: EventEffect) -> Mapping[str, object]:
    line = effect.line
    return {
        "projection": effect.projection,
        "account": line.account,
        "livemode": line.livemode,
        "object_type": line.object_type,
        "object_id": line.object_id,
        "event_type": line.event_type,
        "created_at": line.created_at,
        "applied_at": line.applied_at,
        "no_op": line.no_op,
        "rows": [row_document(row) for row in effect.rows],
    }
