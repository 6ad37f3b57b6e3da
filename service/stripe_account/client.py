"""Stripe's API behind the `StripeReader` port.

`raw` is to be Stripe's own bytes: each object is cut out of the answer's text as it stands there.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from service.errors import StripeObjectMissing
from service.events import Secret
from service.ports import Clock, StripeList, StripeObject, StripePage
from service.stripe_account.calling import RETRIES, Answer, Params, Retries, StripeCaller, decoded
from service.stripe_account.observer import StripeObserver

PAGE_OBJECTS: Final = 100
"""As many as Stripe gives at once."""


@dataclass(frozen=True, slots=True)
class _List:
    path: str
    parts: Sequence[Params] = ({},)
    """The list's pages come with the first parameters, then with the second: what Stripe gives no list of both of."""


_LISTS: Final[Mapping[StripeList, _List]] = {
    "products": _List("/v1/products"),
    "prices": _List("/v1/prices", ({"active": True}, {"active": False})),
    "customers": _List("/v1/customers"),
    "subscriptions": _List("/v1/subscriptions", ({"status": "all"},)),
    "payment_intents": _List("/v1/payment_intents"),
    "charges": _List("/v1/charges"),
    "refunds": _List("/v1/refunds"),
    "invoices": _List("/v1/invoices"),
    "disputes": _List("/v1/disputes"),
    "checkout_sessions": _List("/v1/checkout/sessions"),
    "invoice_payments": _List("/v1/invoice_payments"),
}
_EVENTS: Final = "/v1/events"


class _Listing(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


class _Named(msgspec.Struct):
    id: str
    created: int | None = None


_listing: Final = msgspec.json.Decoder(_Listing)
_named: Final = msgspec.json.Decoder(_Named)


class StripeApiReader:
    """`StripeReader` over HTTPS. All calls of one reader, concurrent ones too, share its rate.

    `account` reads a connected account with the platform's key; `sleep` and `jitter` are time and chance for tests.
    A connection that breaks before it has answered is tried anew once by aiohttp, which tells nobody and does not wait.
    """

    def __init__(
        self,
        key: Secret,
        *,
        api_base: str,
        requests_per_second: float,
        clock: Clock,
        observer: StripeObserver,
        account: str | None = None,
        timeout_seconds: float = 30.0,
        retries: Retries = RETRIES,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._caller = StripeCaller(
            key,
            api_base=api_base,
            requests_per_second=requests_per_second,
            clock=clock,
            observer=observer,
            account=account,
            timeout_seconds=timeout_seconds,
            retries=retries,
            sleep=sleep,
            jitter=jitter,
        )

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
        chosen: dict[str, Any] = {"type": types[0]} if len(types) == 1 else {"types": list(types)}
        if delivery_success is not None:
            chosen["delivery_success"] = delivery_success
        return await self._page(_List(_EVENTS, (chosen,)), _created(created_from, created_to), after)

    async def objects(
        self,
        name: StripeList,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        after: str | None = None,
    ) -> StripePage:
        """See `StripeReader.objects`."""
        return await self._page(_LISTS[name], _created(created_from, created_to), after)

    async def object(self, name: StripeList, object_id: str) -> StripeObject:
        """See `StripeReader.object`."""
        return await self._one(_LISTS[name].path, object_id)

    async def event(self, event_id: str) -> StripeObject:
        """See `StripeReader.event`."""
        return await self._one(_EVENTS, event_id)

    async def close(self) -> None:
        """See `StripeReader.close`."""
        await self._caller.close()

    async def _page(self, listed: _List, created: Params, after: str | None) -> StripePage:
        part, last_id = _cursor(listed, after)
        params = {"limit": PAGE_OBJECTS, **listed.parts[part], **created}
        if last_id:
            params["starting_after"] = last_id

        def page(answer: Answer) -> StripePage:
            listing, as_of = decoded(_listing, answer.text), answer.as_of
            objects = [_object(bytes(member), as_of, answer.api_version) for member in listing.data]
            more = listing.has_more and bool(objects)
            return StripePage(objects, _next_cursor(listed, part, objects[-1].id if more else None))

        return await self._caller.get(listed.path, params, page)

    async def _one(self, path: str, object_id: str) -> StripeObject:
        # Ids come out of records too: none may turn the path into another one.
        if object_id in {"", ".", ".."}:
            raise StripeObjectMissing(f"{path}: {object_id!r} is no object's id")
        return await self._caller.get(
            f"{path}/{quote(object_id, safe='')}",
            {},
            lambda answer: _object(answer.text.strip(), answer.as_of, answer.api_version),
        )


def _created(created_from: datetime | None, created_to: datetime | None) -> Params:
    """Stripe's filter. Objects have whole seconds: what is created in a part of one lies before or after all of it."""
    bounds = {}
    if created_from is not None:
        bounds["gte"] = math.ceil(created_from.timestamp())
    if created_to is not None:
        bounds["lt"] = math.ceil(created_to.timestamp())
    return {"created": bounds} if bounds else {}


def _cursor(listed: _List, after: str | None) -> tuple[int, str]:
    """Which part of the list to go on with, and after which of its objects, if any."""
    if after is None or len(listed.parts) == 1:
        return 0, after or ""
    part, _, last_id = after.partition(":")
    return int(part), last_id


def _next_cursor(listed: _List, part: int, last_id: str | None) -> str | None:
    """The cursor after this page, whose part of the list goes on after `last_id`, or is at its end."""
    if len(listed.parts) == 1:
        return last_id
    if last_id is not None:
        return f"{part}:{last_id}"
    return f"{part + 1}:" if part + 1 < len(listed.parts) else None


def _object(body: bytes, as_of: datetime, api_version: str | None) -> StripeObject:
    named = decoded(_named, body)
    created = None if named.created is None else datetime.fromtimestamp(named.created, UTC)
    return StripeObject(named.id, created, body, as_of, api_version)
