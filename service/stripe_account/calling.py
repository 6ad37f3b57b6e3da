"""Calls to Stripe's API: the official client, asked at a steady rate, and again where that helps.

The client's own retries are off: they would know neither the rate nor who counts. What it makes of an answer is not
used either: an answer is Stripe's own bytes.
"""

import asyncio
import random
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias, TypeVar

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
from service.ports import Clock
from service.stripe_account.observer import RetryReason, StripeObserver
from service.stripe_account.rate import TokenBucket
from service.stripe_account.scopes import labelled

SAID_CHARACTERS_MAX: Final = 300
"""How much of what Stripe says goes into an error."""

_SCOPE: Final = re.compile(r"'(?:rak_)?([a-z][a-z0-9_]{0,60}_(?:read|write))'")
_OTHER_ADDRESS: Final = "does not allow requests from your IP address"
_OTHER_MODE: Final = re.compile(r"a similar object exists in (live|test) mode")
_NOT_STRIPES: Final = "the answer is none of Stripe's"
_SECONDS: Final = re.compile(r"\d{1,6}")
_SECRETS: Final = re.compile(r"\b(?:[a-z]k|whsec)_[A-Za-z0-9_*.…-]+")
_USER: Final = re.compile(r"//[^/?#\s]*@")

Method: TypeAlias = Literal["GET", "POST", "DELETE"]
Params: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


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


RETRIES: Final = Retries()
"""What does for an account that others use too."""


class AskAgain(Exception):
    """Asking once more may help. It leaves a call as `StripeUnavailable`, when that has not helped."""

    def __init__(
        self, reason: RetryReason, said: str, *, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(said)
        self.reason = reason
        self.retry_after = retry_after
        self.request_id = request_id


class FailureRepeated(StripeUnavailable):
    """Stripe repeats the failure that an earlier request with this Idempotency-Key came to, and will for a day.

    Whether that request did its work is not known; with another key it can be asked for anew.
    """


class PathUnknown(StripeObjectMissing):
    """A 404 that is about no object: there is nothing at the path, or whoever answers is not Stripe."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Stripe answered: the bytes of its body, and what goes with them."""

    text: bytes = field(repr=False)
    api_version: str | None
    date: str | None
    seconds: float
    """How long the request took."""

    @property
    def as_of(self) -> datetime:
        """In whole seconds: what was read is not older. Raises `AskAgain` where the answer does not say its time."""
        try:
            answered_at = parsedate_to_datetime(self.date or "")
        except ValueError:
            raise AskAgain(RetryReason.UNREADABLE, "the answer has no Date") from None
        return (answered_at.astimezone(UTC) - timedelta(seconds=self.seconds)).replace(microsecond=0)


def decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """What the bytes are. Raises `AskAgain` where they are something else: no such answer is Stripe's."""
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError:
        raise AskAgain(RetryReason.UNREADABLE, _NOT_STRIPES) from None


@dataclass(frozen=True, slots=True)
class _Call:
    method: Method
    path: str
    params: Params = field(repr=False)
    idempotency_key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class StripeCaller:
    """One API key at Stripe. All its calls, concurrent ones too, share its rate.

    Each call gives what its `made` makes of the answer, and asks again while that raises `AskAgain`, or where what went
    wrong may pass. Calls raise `StripeUnavailable` when it did not, and a `StripeApiError` for what Stripe refuses, as
    `service.ports.StripeReader` says.

    `account` is a connected one, called with the platform's key. `quotes_refusals` puts what Stripe says of a refused
    request into the error: only for calls about nobody's data, since Stripe quotes. `sleep` and `jitter` are time and
    chance for tests. A connection that breaks before it has answered a GET or a DELETE is tried anew once by aiohttp,
    which tells nobody and does not wait.
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
        quotes_refusals: bool = False,
        timeout_seconds: float = 30.0,
        retries: Retries = RETRIES,
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
        self._quotes_refusals = quotes_refusals
        self._retries = retries
        self._sleep = sleep
        self._jitter = jitter

    async def get(self, path: str, params: Params, made: Callable[[Answer], T]) -> T:
        """Read something."""
        return await self._called(_Call("GET", path, params), made)

    async def post(
        self, path: str, params: Params, made: Callable[[Answer], T], *, idempotency_key: str | None = None
    ) -> T:
        """Make or change something, once, however often Stripe has to be asked: by the key, or by one of its own.

        Stripe answers a key of the last 24 hours as it did the first time, whatever that was, and refuses it with other
        parameters. Raises `FailureRepeated` where the first time was a failure.
        """
        return await self._called(_Call("POST", path, params, idempotency_key or str(uuid.uuid4())), made)

    async def delete(self, path: str, made: Callable[[Answer], T]) -> T:
        """Remove something. Where the answer to the first attempt was lost, a later one is a `StripeObjectMissing`."""
        return await self._called(_Call("DELETE", path, {}), made)

    async def close(self) -> None:
        """Give back connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _called(self, call: _Call, made: Callable[[Answer], T]) -> T:
        """What is `made` of the answer; asked for until there is one, or `_back_off` says that it is of no use."""
        attempt = 0
        while True:
            await self._go()
            try:
                return made(await self._ask(call))
            except AskAgain as again:
                await self._back_off(call, again, attempt)
            attempt += 1

    async def _go(self) -> None:
        """Wait for our turn. In order, and one at a time, so that whoever is cancelled has taken no token."""
        async with self._turn:
            while wait := self._bucket.wait(self._clock.monotonic()):
                await self._sleep(wait)
            self._bucket.take(self._clock.monotonic())

    async def _back_off(self, call: _Call, again: AskAgain, attempt: int) -> None:
        """Wait after the failed attempt of this number, from 0, or raise `StripeUnavailable`."""
        wait = again.retry_after
        if wait is None:
            wait = self._retries.backoff(attempt, self._jitter())
        if attempt + 1 >= self._retries.attempts or wait > self._retries.retry_after_seconds_max:
            asked = "once" if attempt == 0 else f"{attempt + 1} times"
            raise StripeUnavailable(f"{call}: {again}; asked {asked}", request_id=again.request_id) from None
        self._observer.retried(again.reason)
        if again.reason is RetryReason.RATE_LIMITED:
            # The account is over its limit, and not only this call.
            self._bucket.hold(self._clock.monotonic() + wait)
        else:
            await self._sleep(wait)

    async def _ask(self, call: _Call) -> Answer:
        """One request. Raises `AskAgain` or a `StripeApiError`."""
        self._observer.requested()
        started = self._clock.monotonic()
        options = {} if call.idempotency_key is None else {"idempotency_key": call.idempotency_key}
        try:
            response = await self._stripe.raw_request_async(call.method.lower(), call.path, **call.params, **options)
        except stripe.StripeError as error:
            raise _failure(error, call, quotes=self._quotes_refusals) from None
        except (aiohttp.ClientError, TimeoutError) as error:  # in the middle of the body
            raise AskAgain(RetryReason.NO_ANSWER, f"no whole answer ({type(error).__name__})") from None
        except (AttributeError, UnicodeDecodeError):
            # The client's own, where `error` is no object, or the text no UTF-8: somebody is between us and Stripe.
            raise AskAgain(RetryReason.UNREADABLE, _NOT_STRIPES) from None
        return Answer(
            text=response.body.encode(),
            api_version=response.headers.get("Stripe-Version"),
            date=response.headers.get("Date"),
            seconds=self._clock.monotonic() - started,
        )


def _failure(error: stripe.StripeError, call: _Call, *, quotes: bool) -> AskAgain | StripeApiError:
    """What the client's error means to us: it decides by the status and by whether the answer is Stripe's at all."""
    status, request_id = error.http_status or 0, error.request_id
    if isinstance(error, stripe.APIConnectionError):
        return AskAgain(RetryReason.NO_ANSWER, "no answer")
    if isinstance(error, stripe.RateLimitError) or status == HTTPStatus.TOO_MANY_REQUESTS:
        retry_after = _retry_after(error.headers)
        said = "Stripe answered 429" + ("" if retry_after is None else f" and wants {retry_after:.0f} s of quiet")
        return AskAgain(RetryReason.RATE_LIMITED, said, retry_after=retry_after, request_id=request_id)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.CONFLICT:
        return _broken(error, status, call)
    if isinstance(error, stripe.APIError):
        return AskAgain(RetryReason.UNREADABLE, f"the answer, a {status}, is none of Stripe's")
    return _refusal(error, status, call, quotes=quotes)


def _broken(error: stripe.StripeError, status: int, call: _Call) -> AskAgain | StripeApiError:
    """What a 5xx or a 409 means."""
    said, request_id = f"Stripe answered {status}", error.request_id
    headers = error.headers or {}
    if headers.get("Idempotent-Replayed") == "true":
        return FailureRepeated(f"{call}: {said}, as it did before to the same request", request_id=request_id)
    if headers.get("Stripe-Should-Retry") == "false":
        return StripeUnavailable(f"{call}: {said}, and not to ask again", request_id=request_id)
    reason = RetryReason.CONFLICT if status == HTTPStatus.CONFLICT else RetryReason.SERVER_ERROR
    return AskAgain(reason, said, request_id=request_id)


def _refusal(error: stripe.StripeError, status: int, call: _Call, *, quotes: bool) -> StripeApiError:
    request_id = error.request_id
    # The client's own `code` is there for some kinds of errors only.
    code = error.error.code if error.error is not None else None
    said = str(error.user_message)
    if isinstance(error, stripe.AuthenticationError):
        return StripeKeyRefused(f"Stripe refuses the API key: {_why_refused(code, said)}", request_id=request_id)
    if isinstance(error, stripe.PermissionError):
        return _not_permitted(said, code, call, request_id)
    if code == "resource_missing":
        return StripeObjectMissing(f"{call}: Stripe has no such object{_elsewhere(said)}", request_id=request_id)
    if status == HTTPStatus.NOT_FOUND:
        return PathUnknown(f"{call}: Stripe has no such object", request_id=request_id)
    why = f" ({code})" if code else ""
    quoted = f": {_quoted(said)}" if quotes and error.user_message else ""
    return StripeRequestRefused(f"{call}: Stripe answered {status}{why}{quoted}", request_id=request_id)


def _not_permitted(said: str, code: object, call: _Call, request_id: str | None) -> StripePermissionMissing:
    scope = _scope(said)
    needed = f": it needs the permission {labelled(scope)}" if scope else ""
    if code == "account_invalid":
        needed = ": it has no access to the account that is asked for"
    does = "read" if call.method == "GET" else "write"
    return StripePermissionMissing(
        f"the API key may not {does} {call.path}{needed}", scope=scope, request_id=request_id
    )


def _why_refused(code: object, said: str) -> str:
    """What is wrong with a key that Stripe answers 401 to: by the answer's code, or one fixed phrase of its message."""
    if code == "api_key_expired":
        return "it has expired"
    if _OTHER_ADDRESS in said:
        return "it may not be used from this machine's IP address"
    return "it is mistyped, rolled or deleted"


def _scope(message: str) -> str | None:
    """The permission in "… Having the 'rak_event_read' permission …", or "… Events Read ('event_read') …"."""
    found = _SCOPE.search(message)
    return found[1] if found else None


def _elsewhere(message: str) -> str:
    """What is missing in one mode may be in the other, as Stripe says by a fixed phrase."""
    found = _OTHER_MODE.search(message)
    return f" in the API key's mode; one of this id is in {found[1]} mode" if found else ""


def _quoted(message: str) -> str:
    """What Stripe says, in one line of bounded length, without what in it may be a key, a secret or a password."""
    line = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    line = _USER.sub("//***@", _SECRETS.sub("***", line))
    return line if len(line) <= SAID_CHARACTERS_MAX else f"{line[: SAID_CHARACTERS_MAX - 1]}…"


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    said = (headers or {}).get("Retry-After", "")
    return float(said) if _SECONDS.fullmatch(said) else None


def _keep_payloads_off_stderr() -> None:
    """The client prints what it reads where STRIPE_LOG is "debug" in the environment, and there is no other way out."""
    stripe_util.STRIPE_LOG = None
    # It also logs every body, new signing secrets among them, where somebody has set the root logger to DEBUG.
    stripe_util.logger.disabled = True
