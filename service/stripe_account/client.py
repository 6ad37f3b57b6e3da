"""Stripe's API behind the `StripeReader` port: the official client, asked at a steady rate, and again where that helps.

The client's own retries are off: they would know neither the rate nor who counts. What it makes of an answer is not
used either, for `raw` is to be Stripe's own bytes: each object is cut out of the answer's text as it stands there.
"""

import asyncio
import math
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
import stripe
from stripe import _util as stripe_util

from service.errors import (
    StripeApiError,
    StripeKeyRefused,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
    StripeUnavailable,
)
from service.events import Secret
from service.ports import Clock, StripeList, StripeObject, StripePage
from service.stripe_account.observer import RetryReason, StripeObserver
from service.stripe_account.rate import TokenBucket

PAGE_OBJECTS: Final = 100
"""As many as Stripe gives at once."""

_SCOPE: Final = re.compile(r"'(?:rak_)?([a-z][a-z_]{0,60}_(?:read|write))'")
_NOT_STRIPES: Final = "the answer is none of Stripe's"
_SECONDS: Final = re.compile(r"\d{1,6}")

Params: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently Stripe is asked again. Back-off n is a random part of `base` times 2 to the n."""

    attempts: int = 6
    base_seconds: float = 0.5
    backoff_seconds_max: float = 20.0
    retry_after_seconds_max: float = 60.0
    """Where Stripe wants to be left alone for longer, it is: the call fails, and somebody tries later."""

    def backoff(self, attempt: int, jitter: float) -> float:
        """The seconds before asking again after the attempt of this number, from 0; `jitter` is from 0 to 1."""
        return jitter * min(self.backoff_seconds_max, self.base_seconds * 2.0**attempt)


@dataclass(frozen=True, slots=True)
class _Answer:
    text: bytes
    as_of: datetime
    api_version: str | None


class _Again(Exception):
    """Asking once more may help."""

    def __init__(
        self, reason: RetryReason, said: str, *, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(said)
        self.reason = reason
        self.retry_after = retry_after
        self.request_id = request_id


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
        retries: Retries = Retries(),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        _keep_payloads_off_stderr()
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_seconds))
        self._stripe = stripe.StripeClient(
            key.value,
            stripe_account=account,
            base_addresses={"api": api_base.rstrip("/")},
            max_network_retries=0,
            http_client=self._http,
        )
        self._bucket = TokenBucket(requests_per_second)
        self._turn = asyncio.Lock()
        self._clock = clock
        self._observer = observer
        self._retries = retries
        self._sleep = sleep
        self._jitter = jitter

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
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _page(self, listed: _List, created: Params, after: str | None) -> StripePage:
        part, last_id = _cursor(listed, after)
        params = {"limit": PAGE_OBJECTS, **listed.parts[part], **created}
        if last_id:
            params["starting_after"] = last_id

        def page(answer: _Answer) -> StripePage:
            listing = _decoded(_listing, answer.text)
            objects = [_object(bytes(member), answer) for member in listing.data]
            more = listing.has_more and bool(objects)
            return StripePage(objects, _next_cursor(listed, part, objects[-1].id if more else None))

        return await self._read(listed.path, params, page)

    async def _one(self, path: str, object_id: str) -> StripeObject:
        # Ids come out of records too: none may turn the path into another one.
        if object_id in {"", ".", ".."}:
            raise StripeObjectMissing(f"{path}: {object_id!r} is no object's id")
        return await self._read(
            f"{path}/{quote(object_id, safe='')}", {}, lambda answer: _object(answer.text.strip(), answer)
        )

    async def _read(self, path: str, params: Params, made: Callable[[_Answer], T]) -> T:
        """What is `made` of the answer; asked for until there is one, or `_back_off` says that it is of no use."""
        attempt = 0
        while True:
            await self._go()
            try:
                return made(await self._ask(path, params))
            except _Again as again:
                await self._back_off(path, again, attempt)
            attempt += 1

    async def _go(self) -> None:
        """Wait for our turn. In order, and one at a time, so that whoever is cancelled has taken no token."""
        async with self._turn:
            while wait := self._bucket.wait(self._clock.monotonic()):
                await self._sleep(wait)
            self._bucket.take(self._clock.monotonic())

    async def _back_off(self, path: str, again: _Again, attempt: int) -> None:
        """Wait after the failed attempt of this number, from 0, or raise `StripeUnavailable`."""
        wait = again.retry_after
        if wait is None:
            wait = self._retries.backoff(attempt, self._jitter())
        if attempt + 1 >= self._retries.attempts or wait > self._retries.retry_after_seconds_max:
            asked = "once" if attempt == 0 else f"{attempt + 1} times"
            raise StripeUnavailable(f"GET {path}: {again}; asked {asked}", request_id=again.request_id) from None
        self._observer.retried(again.reason)
        if again.reason is RetryReason.RATE_LIMITED:
            # The account is over its limit, and not only this call.
            self._bucket.hold(self._clock.monotonic() + wait)
        else:
            await self._sleep(wait)

    async def _ask(self, path: str, params: Params) -> _Answer:
        """One request. Raises `_Again` or a `StripeApiError`, without what Stripe said: that may quote an object."""
        self._observer.requested()
        started = self._clock.monotonic()
        try:
            response = await self._stripe.raw_request_async("get", path, **params)
        except stripe.StripeError as error:
            raise _failure(error, path) from None
        except (aiohttp.ClientError, TimeoutError) as error:  # in the middle of the body
            raise _Again(RetryReason.NO_ANSWER, f"no whole answer ({type(error).__name__})") from None
        except (AttributeError, UnicodeDecodeError):
            # The client's own, where `error` is no object, or the text no UTF-8: somebody is between us and Stripe.
            raise _Again(RetryReason.UNREADABLE, _NOT_STRIPES) from None
        seconds = self._clock.monotonic() - started
        return _Answer(
            text=response.body.encode(),
            as_of=_as_of(response.headers.get("Date"), seconds),
            api_version=response.headers.get("Stripe-Version"),
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


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError:
        raise _Again(RetryReason.UNREADABLE, _NOT_STRIPES) from None


def _object(body: bytes, answer: _Answer) -> StripeObject:
    named = _decoded(_named, body)
    created = None if named.created is None else datetime.fromtimestamp(named.created, UTC)
    return StripeObject(named.id, created, body, answer.as_of, answer.api_version)


def _as_of(date: str | None, seconds: float) -> datetime:
    try:
        answered_at = parsedate_to_datetime(date or "")
    except ValueError:
        raise _Again(RetryReason.UNREADABLE, "the answer has no Date") from None
    return (answered_at.astimezone(UTC) - timedelta(seconds=seconds)).replace(microsecond=0)


def _failure(error: stripe.StripeError, path: str) -> _Again | StripeApiError:
    """What the client's error means to us: it decides by the status and by whether the answer is Stripe's at all."""
    status, request_id = error.http_status or 0, error.request_id
    if isinstance(error, stripe.APIConnectionError):
        return _Again(RetryReason.NO_ANSWER, "no answer")
    if isinstance(error, stripe.RateLimitError) or status == HTTPStatus.TOO_MANY_REQUESTS:
        retry_after = _retry_after(error.headers)
        said = "Stripe answered 429" + ("" if retry_after is None else f" and wants {retry_after:.0f} s of quiet")
        return _Again(RetryReason.RATE_LIMITED, said, retry_after=retry_after, request_id=request_id)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.CONFLICT:
        said = f"Stripe answered {status}"
        if error.headers and error.headers.get("Stripe-Should-Retry") == "false":
            return StripeUnavailable(f"GET {path}: {said}, and not to ask again", request_id=request_id)
        reason = RetryReason.CONFLICT if status == HTTPStatus.CONFLICT else RetryReason.SERVER_ERROR
        return _Again(reason, said, request_id=request_id)
    if isinstance(error, stripe.APIError):
        return _Again(RetryReason.UNREADABLE, f"the answer, a {status}, is none of Stripe's")
    return _refusal(error, status, path)


def _refusal(error: stripe.StripeError, status: int, path: str) -> StripeApiError:
    request_id = error.request_id
    if isinstance(error, stripe.AuthenticationError):
        return StripeKeyRefused(
            "Stripe refuses the API key: it is mistyped, expired, rolled or deleted", request_id=request_id
        )
    if isinstance(error, stripe.PermissionError):
        scope = _scope(error.user_message or "")
        needed = f": it needs the permission {scope}" if scope else ""
        return StripePermissionMissing(f"the API key may not read {path}{needed}", scope=scope, request_id=request_id)
    if status == HTTPStatus.NOT_FOUND or error.code == "resource_missing":
        return StripeObjectMissing(f"GET {path}: Stripe has no such object", request_id=request_id)
    return StripeRequestRefused(f"GET {path}: Stripe answered {status} ({error.code})", request_id=request_id)


def _scope(message: str) -> str | None:
    """The permission in "… Having the 'rak_event_read' permission …", or "… Events Read ('event_read') …"."""
    found = _SCOPE.search(message)
    return found[1] if found else None


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    said = (headers or {}).get("Retry-After", "")
    return float(said) if _SECONDS.fullmatch(said) else None


def _keep_payloads_off_stderr() -> None:
    """The client prints what it reads where STRIPE_LOG is "debug" in the environment, and there is no other way out."""
    stripe_util.STRIPE_LOG = None
