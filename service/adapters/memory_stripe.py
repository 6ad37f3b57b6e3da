"""A Stripe account in this process: the twin of `StripeReader`, for tests and simulations, with faults to order.

A `MemoryStripe` is the account; readers are its clients, each with a key that may do some things. Nothing here waits.
"""

import itertools
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from service.errors import (
    StripeApiError,
    StripeKeyRefused,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
)
from service.ports import EVENT_TYPES_MAX, Clock, StripeList, StripeObject, StripePage

PAGE_OBJECTS: Final = 100
EVENTS_KEPT: Final = timedelta(days=30)
_EVENTS: Final = "events"
_SCOPES: Final[Mapping[str, str]] = {
    _EVENTS: "event_read",
    "products": "product_read",
    "prices": "plan_read",
    "customers": "customer_read",
    "subscriptions": "subscription_read",
    "payment_intents": "payment_intent_read",
    "charges": "charge_read",
    "refunds": "refund_read",
    "invoices": "invoice_read",
    "disputes": "dispute_read",
    "checkout_sessions": "checkout_session_read",
    "invoice_payments": "invoice_read",
}


@dataclass(frozen=True, slots=True)
class _Kept:
    place: tuple[int, int]
    """`created`, and how many came before it: where it stands in its list."""
    tree: Mapping[str, Any]
    body: bytes

    @property
    def part(self) -> int:
        """Of prices: 0 for the active ones, 1 for the others, in the order in which they are listed."""
        return int(self.tree.get("object") == "price" and not self.tree.get("active"))


class MemoryStripe:
    """What one account has in one mode."""

    def __init__(self, clock: Clock, *, api_version: str = "2026-10-28.endive") -> None:
        self.api_version = api_version
        self.requests = 0
        """How often a reader has asked, refused or not."""
        self._clock = clock
        self._lists: dict[str, dict[str, _Kept]] = {name: {} for name in _SCOPES}
        self._count = itertools.count()
        self._faults: deque[StripeApiError] = deque()

    def put(self, name: StripeList, obj: Mapping[str, Any]) -> None:
        """Put a new object in, or an object's new state."""
        self._keep(name, obj)

    def add(self, event: Mapping[str, Any]) -> None:
        """Something happened. Of what is pending at an endpoint `pending_webhooks` is above 0."""
        self._keep(_EVENTS, event)

    def remove(self, name: StripeList, object_id: str) -> None:
        """Delete an object; nothing is left of it."""
        del self._lists[name][object_id]

    def forget(self, event_id: str) -> None:
        """Have an event no longer be listed."""
        del self._lists[_EVENTS][event_id]

    def fail(self, *errors: StripeApiError) -> None:
        """The next calls raise these, one each, instead of being answered."""
        self._faults.extend(errors)

    def reader(self, permissions: Collection[str] | None = None) -> "MemoryStripeReader":
        """A reader with a key of these permissions (`event_read`, …), or of all of them."""
        return MemoryStripeReader(self, None if permissions is None else frozenset(permissions))

    def reader_with_wrong_key(self) -> "MemoryStripeReader":
        """A reader whose key nobody knows."""
        return MemoryStripeReader(self, frozenset(), known=False)

    def admit(self, name: str, permissions: frozenset[str] | None, *, known: bool) -> None:
        """Count a request; raise what it meets."""
        self.requests += 1
        if self._faults:
            raise self._faults.popleft()
        if not known:
            raise StripeKeyRefused("Stripe refuses the API key")
        scope = _SCOPES[name]
        if permissions is not None and scope not in permissions:
            raise StripePermissionMissing(f"the API key may not read {name}", scope=scope)

    def newest_first(self, name: str) -> Sequence[_Kept]:
        """All that the list has, of events those that Stripe still tells of."""
        found = sorted(self._lists[name].values(), key=lambda kept: kept.place, reverse=True)
        if name == _EVENTS:
            oldest = (self._clock.now() - EVENTS_KEPT).timestamp()
            found = [kept for kept in found if kept.place[0] >= oldest]
        return sorted(found, key=lambda kept: kept.part)

    def one(self, name: str, object_id: str) -> _Kept:
        """The object of this id. Raises `StripeObjectMissing`."""
        for kept in self.newest_first(name):
            if kept.tree["id"] == object_id:
                return kept
        raise StripeObjectMissing(f"{name}: Stripe has no such object")

    def told(self, kept: _Kept) -> StripeObject:
        """The object as a read gives it now."""
        created = kept.tree.get("created")
        return StripeObject(
            id=kept.tree["id"],
            created=None if created is None else datetime.fromtimestamp(created, UTC),
            body=kept.body,
            as_of=self._clock.now().replace(microsecond=0),
            api_version=self.api_version,
        )

    def _keep(self, name: str, tree: Mapping[str, Any]) -> None:
        before = self._lists[name].get(tree["id"])
        place = (int(tree.get("created") or 0), next(self._count)) if before is None else before.place
        self._lists[name][tree["id"]] = _Kept(place, dict(tree), msgspec.json.encode(tree))


class MemoryStripeReader:
    """`StripeReader` of a `MemoryStripe`."""

    def __init__(self, stripe: MemoryStripe, permissions: frozenset[str] | None, *, known: bool = True) -> None:
        self._stripe = stripe
        self._permissions = permissions
        self._known = known

    async def events(
        self,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        types: Sequence[str] = (),
        delivery_success: bool | None = None,
        after: str | None = None,
    ) -> StripePage:
        """See `StripeReader.events`."""
        self._stripe.admit(_EVENTS, self._permissions, known=self._known)
        if len(types) > EVENT_TYPES_MAX:
            raise StripeRequestRefused(f"events: more than {EVENT_TYPES_MAX} types")
        wanted = [
            kept
            for kept in self._stripe.newest_first(_EVENTS)
            if (not types or any(_matches(kept.tree["type"], name) for name in types))
            and delivery_success in {None, not kept.tree.get("pending_webhooks")}
        ]
        return self._page(_EVENTS, wanted, created_from, created_to, after)

    async def objects(
        self,
        name: StripeList,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        after: str | None = None,
    ) -> StripePage:
        """See `StripeReader.objects`."""
        self._stripe.admit(name, self._permissions, known=self._known)
        return self._page(name, self._stripe.newest_first(name), created_from, created_to, after)

    async def object(self, name: StripeList, object_id: str) -> StripeObject:
        """See `StripeReader.object`."""
        self._stripe.admit(name, self._permissions, known=self._known)
        return self._stripe.told(self._stripe.one(name, object_id))

    async def event(self, event_id: str) -> StripeObject:
        """See `StripeReader.event`."""
        self._stripe.admit(_EVENTS, self._permissions, known=self._known)
        return self._stripe.told(self._stripe.one(_EVENTS, event_id))

    async def close(self) -> None:
        """There is nothing to give back."""

    def _page(
        self,
        name: str,
        listed: Sequence[_Kept],
        created_from: datetime | None,
        created_to: datetime | None,
        after: str | None,
    ) -> StripePage:
        start = -math.inf if created_from is None else created_from.timestamp()
        end = math.inf if created_to is None else created_to.timestamp()
        if after is not None:
            last = self._stripe.one(name, after)
            listed = [kept for kept in listed if (kept.part, _back(kept)) > (last.part, _back(last))]
        found = [kept for kept in listed if start <= kept.place[0] < end]
        page = found[:PAGE_OBJECTS]
        return StripePage(
            [self._stripe.told(kept) for kept in page], page[-1].tree["id"] if len(found) > PAGE_OBJECTS else None
        )


def _back(kept: _Kept) -> tuple[int, int]:
    """A place, counted from the newest."""
    created, count = kept.place
    return -created, -count


def _matches(event_type: str, name: str) -> bool:
    return event_type == name or (name.endswith("*") and event_type.startswith(name[:-1]))
