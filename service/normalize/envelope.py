"""A body of Stripe's as one normalized event, or why it is none."""

import re
from array import array
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Final

import msgspec
import orjson

from service.contract import Event, Other
from service.events import Endpoint, KnownEvent, QuarantineReason, Unprocessable
from service.normalize.event_types import category_of
from service.normalize.objects import OBJECT_TYPE, NormalizedObject, normalize_object, spelled
from service.normalize.previous import previous
from service.normalize.shapes import NOTHING, Malformed, Tree, account_id, context_path, optional_identity, timestamp
from service.redaction import Redaction, TooManyHashes

SNAPSHOT: Final = "event"
THIN: Final = "v2.core.event"

DEFAULT_ACCOUNT: Final = "default"

DEPTH_MAX: Final = 63
"""How deep a body may be nested; Stripe's own stay below 20. The record around it is one level more, and of the parsers
that consumers read it with the strictest stop by default at 64 (.NET), 100 (Ruby), 128 (Rust) and 1,000 (ours)."""

_STEPS: Final = bytes.maketrans(b"{[]}", b"\x01\x01\xff\xff")
"""Brackets as signed bytes: one level down, one level up."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{[]}"))

CONTAINERS_MAX: Final = 100_000
"""Objects and arrays of a body; an invoice of Stripe's has fewer than a hundred. Each costs whoever walks the tree."""

_EVENT_ID: Final = re.compile(r"evt_[A-Za-z0-9_]{1,255}")
_SNAPSHOT_ID: Final = re.compile(r"snapshot:[ -~]{1,255}:[0-9]{1,12}")
"""Ours, of what a read of Stripe gave. A product or price may have an id of its owner's making."""
# Some thin types name a part of their object: v2.core.account[requirements].updated.
_EVENT_TYPE: Final = re.compile(r"[a-zA-Z0-9_.\[\]]{1,100}")

# It becomes a header: printable, and of a length that a header may have.
_API_VERSION: Final = re.compile(r"[ -~]{1,500}")


class _Unfit(Exception):
    """Why a body is not an event that we can normalize; never leaves this module."""

    def __init__(self, reason: QuarantineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def normalize(event: KnownEvent, redaction: Redaction | None = None) -> Event | Unprocessable:
    """Normalize what Stripe said. Total: whatever the bytes are, the answer is one of the two, never an exception.

    With a `redaction` the event and its `raw` are made of the redacted tree; an `Unprocessable` has the body as it is.
    """
    event_id: str | None = None
    tree: Tree = NOTHING
    try:
        tree = _envelope(event.body)
        event_id = _event_id(tree)
        _check_structure(event.body)
        raw = event.body
        if redaction is not None:
            tree = _redacted(tree, redaction)
            raw = orjson.dumps(tree)
        read = _thin if tree["object"] == THIN else _snapshot
        return read(event, tree, event_id, msgspec.Raw(raw))
    except _Unfit as unfit:
        return Unprocessable(
            reason=unfit.reason,
            detail=unfit.detail,
            event_id=event_id,
            endpoint=event.endpoint,
            body=event.body,
            received_at=_milliseconds(event.received_at),
            event_type=_well_formed_type(tree),
        )


def _envelope(body: bytes) -> Tree:
    try:
        tree = orjson.loads(body)
    except orjson.JSONDecodeError:
        # The parser's own message may quote the body.
        raise _Unfit(QuarantineReason.MALFORMED_JSON, "body") from None
    if type(tree) is not dict or tree.get("object") not in (SNAPSHOT, THIN):
        raise _Unfit(QuarantineReason.NOT_AN_EVENT, "object")
    return tree


def _event_id(tree: Tree) -> str:
    value = tree.get("id")
    if value is None:
        raise _Unfit(QuarantineReason.EVENT_ID_MISSING, "id")
    if type(value) is not str or not (_EVENT_ID.fullmatch(value) or _SNAPSHOT_ID.fullmatch(value)):
        raise _Unfit(QuarantineReason.EVENT_ID_MALFORMED, "id")
    return value


def _check_structure(body: bytes) -> None:
    """Of the bytes, not of the tree: that has only the last of a key's values, and a reader of `raw` meets all."""
    # To count brackets is cheap, and almost every event has too few to be deep.
    brackets = body.count(b"{") + body.count(b"[")
    if brackets <= DEPTH_MAX:
        return
    if brackets > CONTAINERS_MAX:
        raise _Unfit(QuarantineReason.TOO_MANY_CONTAINERS, "body")
    without_escapes = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_of_strings = b"".join(without_escapes.split(b'"')[::2])
    steps = array("b", outside_of_strings.translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps)) > DEPTH_MAX:
        raise _Unfit(QuarantineReason.NESTED_TOO_DEEP, "body")


def _redacted(tree: Tree, redaction: Redaction) -> Tree:
    try:
        return redaction.apply(tree)
    except TooManyHashes:
        raise _Unfit(QuarantineReason.TOO_MANY_CONTAINERS, "kafka.redact") from None


def _snapshot(event: KnownEvent, tree: Tree, event_id: str, raw: msgspec.Raw) -> Event:
    """An event that carries its object as it was."""
    event_type = _event_type(tree)
    created_at = _seconds(tree)
    livemode = _livemode(tree, event.endpoint)
    account = _account(tree, event.endpoint)
    content = _mapping(tree.get("data"))
    object_tree = content.get("object")
    if type(object_tree) is not dict:
        raise _Unfit(QuarantineReason.OBJECT_MISSING, "data.object")
    try:
        normalized = normalize_object(object_tree, event_type=event_type)
    except Malformed as malformed:
        raise _Unfit(QuarantineReason.OBJECT_MALFORMED, f"data.object.{malformed.field}") from None
    request_id, idempotency_key = _request(tree.get("request"))
    return Event(
        category=category_of(event_type),
        event_id=event_id,
        event_type=event_type,
        account=account,
        context=context_path(tree),
        livemode=livemode,
        endpoint=event.endpoint.name,
        created_at=created_at,
        received_at=_milliseconds(event.received_at),
        api_version=_api_version(tree),
        request_id=request_id,
        idempotency_key=idempotency_key,
        object_type=normalized.object_type,
        object_id=normalized.object_id,
        data=normalized.data,
        previous=_previous(content, object_tree, normalized),
        raw=raw,
    )


def _thin(event: KnownEvent, tree: Tree, event_id: str, raw: msgspec.Raw) -> Event:
    """An event that only names its object: Stripe keeps the rest to be asked for."""
    event_type = _event_type(tree)
    created_at = _iso_moment(tree)
    livemode = _livemode(tree, event.endpoint)
    account = _account(tree, event.endpoint)
    related = tree.get("related_object")
    related = NOTHING if related is None else related
    try:
        if type(related) is not dict:
            raise Malformed("type")
        object_type, object_id = _related_type(related), optional_identity(related)
    except Malformed as malformed:
        raise _Unfit(QuarantineReason.OBJECT_MALFORMED, f"related_object.{malformed.field}") from None
    request_id, idempotency_key = _request(_mapping(tree.get("reason")).get("request"))
    return Event(
        category="other",
        event_id=event_id,
        event_type=event_type,
        account=account,
        context=context_path(tree),
        livemode=livemode,
        endpoint=event.endpoint.name,
        created_at=created_at,
        received_at=_milliseconds(event.received_at),
        api_version=None,
        request_id=request_id,
        idempotency_key=idempotency_key,
        object_type=object_type,
        object_id=object_id,
        snapshot_event=_twin(tree),
        data=Other(),
        previous=None,
        raw=raw,
    )


def _twin(tree: Tree) -> str | None:
    """The id of the snapshot event about the same fact, where it can be one: only a convenience, it refuses nothing."""
    value = tree.get("snapshot_event")
    return value if type(value) is str and _EVENT_ID.fullmatch(value) else None


def _related_type(related: Tree) -> str:
    value = related.get("type")
    if value is None:
        return THIN
    if type(value) is str and OBJECT_TYPE.fullmatch(value):
        return spelled(value)
    raise Malformed("type")


def _event_type(tree: Tree) -> str:
    value = _well_formed_type(tree)
    if value is None:
        raise _Unfit(QuarantineReason.EVENT_TYPE_MALFORMED, "type")
    return value


def _well_formed_type(tree: Tree) -> str | None:
    value = tree.get("type")
    return value if type(value) is str and _EVENT_TYPE.fullmatch(value) else None


def _api_version(tree: Tree) -> str | None:
    """With its suffixes, as in `2023-10-16; risk_in_requirements_beta=v1`; null where Stripe did not say."""
    value = tree.get("api_version")
    if value is None or value == "":
        return None
    if type(value) is str and _API_VERSION.fullmatch(value):
        return value
    raise _Unfit(QuarantineReason.API_VERSION_MALFORMED, "api_version")


def _seconds(tree: Tree) -> datetime:
    try:
        created_at = timestamp(tree, "created")
    except Malformed:
        created_at = None
    if created_at is None:
        raise _Unfit(QuarantineReason.CREATED_MALFORMED, "created")
    return created_at


def _iso_moment(tree: Tree) -> datetime:
    value = tree.get("created")
    try:
        created_at = datetime.fromisoformat(value) if type(value) is str else None
        if created_at is not None and created_at.tzinfo is not None:
            return _milliseconds(created_at.astimezone(UTC))
    except (ValueError, OverflowError):
        pass  # not ISO 8601, or a moment that UTC moves out of the calendar
    raise _Unfit(QuarantineReason.CREATED_MALFORMED, "created")


def _livemode(tree: Tree, endpoint: Endpoint) -> bool:
    livemode = tree.get("livemode")
    if livemode is None and endpoint.mode != "any":
        # The mode's own secret signed it: that says as much.
        return endpoint.mode == "live"
    if type(livemode) is not bool:
        raise _Unfit(QuarantineReason.LIVEMODE_MALFORMED, "livemode")
    if endpoint.mode not in ("any", "live" if livemode else "test"):
        raise _Unfit(QuarantineReason.MODE_MISMATCH, "livemode")
    return livemode


def _account(tree: Tree, endpoint: Endpoint) -> str:
    try:
        account = account_id(tree)
    except Malformed as malformed:
        raise _Unfit(QuarantineReason.ACCOUNT_MALFORMED, malformed.field) from None
    if account is None:
        return endpoint.account or DEFAULT_ACCOUNT
    if endpoint.account is not None and not endpoint.connect and account != endpoint.account:
        raise _Unfit(QuarantineReason.ACCOUNT_MISMATCH, "account")
    return account


def _previous(content: Tree, object_tree: Tree, normalized: NormalizedObject) -> Mapping[str, Any] | None:
    try:
        return previous(object_tree, content.get("previous_attributes"), normalized)
    except Malformed as malformed:
        raise _Unfit(QuarantineReason.OBJECT_MALFORMED, f"data.previous_attributes.{malformed.field}") from None


def _request(request: object) -> tuple[str | None, str | None]:
    """The id and the idempotency key of the request behind an event; until 2017-05-25 there was only the id."""
    if type(request) is dict:
        return _string(request.get("id")), _string(request.get("idempotency_key"))
    return _string(request), None


def _string(value: object) -> str | None:
    return value if type(value) is str and value else None


def _mapping(value: object) -> Tree:
    return value if type(value) is dict else NOTHING


def _milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
