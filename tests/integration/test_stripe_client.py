"""Reading Stripe's API with the official client: the port's promises, each failure, the rate, and what stays unsaid."""

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any, Final

import pytest
import pytest_asyncio
import stripe
from aiohttp import web

from service.clock import SystemClock
from service.errors import (
    StripeApiError,
    StripeKeyRefused,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
    StripeUnavailable,
)
from service.events import Secret
from service.ports import StripeList, StripeReader
from service.simulator.fake_stripe import Failing, FakeStripe, Held, Lost, RateLimited, serving
from service.stripe_account.calling import Retries
from service.stripe_account.client import StripeApiReader
from service.stripe_account.observer import RetryReason, StripeCounts
from tests.contracts.stripe_reader import StripeReaderContract, all_of, an_object, event, ids, now
from tests.support.waiting import eventually, free_port

KEY: Final = "sk_test_51NotAKeyThatAnybodyHas"
PERSON: Final = "Jane Doe <jane@example.test>"
EPOCH: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass
class SkippingTime:
    """A clock whose sleeps take no time, but end only while time `passes`; it remembers those that ended."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)
    sleeping: int = 0
    passes: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.passes.set()

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.sleeping += 1
        try:
            await self.passes.wait()
        finally:
            self.sleeping -= 1
        self.slept.append(seconds)
        self.seconds += seconds


def new_reader(base: str, key: str = KEY, *, account: str | None = None) -> StripeApiReader:
    return StripeApiReader(
        Secret(key),
        api_base=base,
        requests_per_second=1_000_000,
        clock=SystemClock(),
        observer=StripeCounts(),
        account=account,
    )


@asynccontextmanager
async def closing(reader: StripeApiReader) -> AsyncIterator[StripeApiReader]:
    try:
        yield reader
    finally:
        await reader.close()


# The promises, kept on the fake Stripe.


class FakeHarness:
    """The fake Stripe on a port, and a reader of it."""

    def __init__(self, fake: FakeStripe, base: str, reader: StripeApiReader) -> None:
        self.fake = fake
        self.reader = reader
        self._base = base

    def put(self, name: StripeList, obj: dict[str, Any]) -> None:  # noqa: ARG002 -- an object says its kind
        self.fake.put(obj)

    def add(self, event: dict[str, Any], *, delivered: bool = True) -> None:
        if not delivered:
            self.fake.register(f"http://127.0.0.1:{free_port()}/", ["*"])
        self.fake.add(event)

    @asynccontextmanager
    async def reader_of(self, permissions: Collection[str]) -> AsyncIterator[StripeReader]:
        async with closing(new_reader(self._base, self.fake.new_key("test", permissions))) as reader:
            yield reader

    @asynccontextmanager
    async def reader_with_wrong_key(self) -> AsyncIterator[StripeReader]:
        async with closing(new_reader(self._base)) as reader:
            yield reader


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[FakeHarness]:
    fake = FakeStripe()
    async with serving(fake) as base, closing(new_reader(base, fake.new_key("test"))) as reader:
        yield FakeHarness(fake, base, reader)


class TestStripeApiReader(StripeReaderContract):
    """The contract."""

    async def test_a_connected_account_is_read_with_the_platforms_key(self, harness: FakeHarness) -> None:
        harness.add(event("evt_own", created=now()))
        harness.add(event("evt_connected", created=now()) | {"account": "acct_1Connected"})

        platform = harness.fake.new_key("test")
        async with closing(new_reader(harness._base, platform, account="acct_1Connected")) as reader:
            assert ids(await reader.events()) == ["evt_connected"]
            assert ids(await harness.reader.events()) == ["evt_own"]


# Each failure, on the fake Stripe.


@dataclass
class Troubled:
    """The fake Stripe with one event in it, and a reader that waits for nothing."""

    fake: FakeStripe
    reader: StripeApiReader
    time: SkippingTime
    counts: StripeCounts


@asynccontextmanager
async def troubled(
    *,
    retries: Retries | None = None,
    requests_per_second: float = 1000,
    jitter: Callable[[], float] = lambda: 1.0,
) -> AsyncIterator[Troubled]:
    fake, time, counts = FakeStripe(), SkippingTime(), StripeCounts()
    fake.add(event("evt_1", created=now()))
    async with serving(fake) as base:
        reader = StripeApiReader(
            Secret(fake.new_key("test")),
            api_base=base,
            requests_per_second=requests_per_second,
            clock=time,
            observer=counts,
            retries=retries or Retries(),
            sleep=time.sleep,
            jitter=jitter,
        )
        async with closing(reader):
            yield Troubled(fake, reader, time, counts)


@pytest.mark.parametrize(
    ("kind", "times", "reason"),
    [
        (RateLimited(retry_after=3), 2, RetryReason.RATE_LIMITED),
        (RateLimited(retry_after=None), 2, RetryReason.RATE_LIMITED),
        (Failing(500), 2, RetryReason.SERVER_ERROR),
        (Failing(503), 2, RetryReason.SERVER_ERROR),
        (Failing(409), 2, RetryReason.CONFLICT),
        (Lost.BEFORE, 4, RetryReason.NO_ANSWER),  # aiohttp itself tries twice
        (Lost.AFTER, 4, RetryReason.NO_ANSWER),
        (Lost.WITHIN, 2, RetryReason.NO_ANSWER),
    ],
    ids=str,
)
async def test_what_may_pass_is_asked_for_again_and_counted_by_its_reason(
    kind: Any, times: int, reason: RetryReason
) -> None:
    async with troubled() as there:
        there.fake.trouble.next(kind, times=times)

        assert ids(await there.reader.events()) == ["evt_1"]

        assert there.counts.retries == {reason: 2}
        assert there.counts.requests == 3


async def test_a_server_that_stays_broken_is_unavailable_after_the_last_attempt() -> None:
    async with troubled(retries=Retries(attempts=4)) as there:
        there.fake.trouble.next(Failing(502), times=100)

        with pytest.raises(StripeUnavailable, match=r"GET /v1/events: Stripe answered 502; asked 4 times") as caught:
            await there.reader.events()

        assert caught.value.request_id is not None
        assert there.counts.requests == len(there.fake.requests) == 4
        assert there.counts.retries == {RetryReason.SERVER_ERROR: 3}


async def test_nobody_listening_is_unavailable() -> None:
    time = SkippingTime()
    async with closing(
        StripeApiReader(
            Secret(KEY),
            api_base=f"http://127.0.0.1:{free_port()}",
            requests_per_second=1000,
            clock=time,
            observer=StripeCounts(),
            sleep=time.sleep,
        )
    ) as reader:
        with pytest.raises(StripeUnavailable, match="no answer"):
            await reader.events()


async def test_back_off_doubles_to_its_bound_and_a_random_part_of_it_is_waited() -> None:
    retries = Retries(attempts=6, base_seconds=0.5, backoff_seconds_max=3.0)
    async with troubled(retries=retries, jitter=lambda: 0.5) as there:
        there.fake.trouble.next(Failing(500), times=5)

        await there.reader.events()

        assert [slept for slept in there.time.slept if slept > 0.01] == [0.25, 0.5, 1.0, 1.5, 1.5]


async def test_retry_after_is_waited_for_to_the_second() -> None:
    async with troubled() as there:
        there.fake.trouble.next(RateLimited(retry_after=7))

        await there.reader.events()

        assert there.time.slept == [7.0]


async def test_a_retry_after_that_is_too_long_is_not_disregarded_but_given_up_on() -> None:
    async with troubled(retries=Retries(retry_after_seconds_max=60)) as there:
        there.fake.trouble.next(RateLimited(retry_after=61), times=100)

        with pytest.raises(StripeUnavailable, match="wants 61 s of quiet; asked once"):
            await there.reader.events()

        assert len(there.fake.requests) == 1
        assert there.time.slept == []


async def test_while_one_call_is_told_to_wait_all_others_wait_too() -> None:
    async with troubled(requests_per_second=1e9) as there:  # no rate of our own to wait for
        there.time.passes.clear()
        there.fake.trouble.next(RateLimited(retry_after=5))
        calls = [asyncio.create_task(there.reader.event("evt_1"))]
        await eventually(lambda: there.time.sleeping, what="the call waits")
        calls += [asyncio.create_task(there.reader.event("evt_1")) for _ in range(3)]
        await eventually(lambda: there.reader._caller._turn._waiters, what="the others wait")
        assert there.counts.requests == 1

        there.time.passes.set()
        await asyncio.gather(*calls)

        assert there.time.slept[0] == pytest.approx(5, abs=0.01)
        assert there.counts.requests == 5


async def test_a_key_that_has_expired_is_refused_at_once_and_not_shown() -> None:
    fake = FakeStripe()
    key = fake.new_key("test")
    fake.expire_key(key)
    async with serving(fake) as base, closing(new_reader(base, key)) as reader:
        with pytest.raises(StripeKeyRefused) as caught:
            await reader.events()

    assert key not in str(caught.value)
    assert len(fake.requests) == 1


class Moments(StripeCounts):
    """When each request went out, on this clock."""

    def __init__(self, time: SkippingTime) -> None:
        super().__init__()
        self.at: list[float] = []
        self._time = time

    def requested(self) -> None:
        super().requested()
        self.at.append(self._time.seconds)


async def test_the_rate_holds_over_all_calls_of_a_reader() -> None:
    fake, time = FakeStripe(), SkippingTime()
    fake.add(event("evt_1", created=now()))
    moments = Moments(time)
    async with serving(fake) as base:
        reader = StripeApiReader(
            Secret(fake.new_key("test")),
            api_base=base,
            requests_per_second=20,
            clock=time,
            observer=moments,
            sleep=time.sleep,
        )
        async with closing(reader):
            await asyncio.gather(*(reader.event("evt_1") for _ in range(50)))

    assert len(moments.at) == 50
    assert all(later - earlier == pytest.approx(1 / 20) for earlier, later in pairwise(moments.at))


async def test_a_reader_above_stripes_limit_is_told_so_and_gets_through() -> None:
    time, counts = SkippingTime(), StripeCounts()
    fake = FakeStripe(clock=time)
    for n in range(6):
        fake.put(an_object("charges", f"ch_{n}", created=now()))
    fake.trouble.limit(2)
    async with serving(fake) as base:
        reader = StripeApiReader(
            Secret(fake.new_key("test")),
            api_base=base,
            requests_per_second=1000,
            clock=time,
            observer=counts,
            sleep=time.sleep,
        )
        async with closing(reader):
            found = await asyncio.gather(*(reader.object("charges", f"ch_{n}") for n in range(6)))

    assert [obj.id for obj in found] == [f"ch_{n}" for n in range(6)]
    assert counts.retries == {RetryReason.RATE_LIMITED: fake.trouble.rate_limited}
    assert fake.trouble.rate_limited > 0
    assert sum(request.status == 200 for request in fake.requests) == 6


async def test_who_is_cancelled_leaves_the_reader_as_it_was() -> None:
    async with troubled() as there:
        held = Held()
        there.fake.trouble.next(held)
        waiting = asyncio.create_task(there.reader.events())
        await held.reached.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert ids(await there.reader.events()) == ["evt_1"]
        assert there.counts.retries == {}


async def test_who_is_cancelled_in_the_queue_takes_no_turn() -> None:
    async with troubled(requests_per_second=1) as there:
        await there.reader.event("evt_1")
        there.time.passes.clear()
        queued = [asyncio.create_task(there.reader.event("evt_1")) for _ in range(5)]
        await eventually(lambda: there.time.sleeping, what="the first of them waits for its turn")
        for task in queued[:4]:
            task.cancel()
        there.time.passes.set()
        await asyncio.gather(*queued, return_exceptions=True)

        assert queued[4].result().id == "evt_1"
        assert there.time.seconds == pytest.approx(1)
        assert there.counts.requests == 2


# What only a server of the test's own would answer.

Answer = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Scripted:
    """A server that gives the answers in turn, the last one for ever; it remembers what it was asked."""

    base: str
    asked: list[web.Request]
    reader: StripeApiReader
    time: SkippingTime
    counts: StripeCounts


@asynccontextmanager
async def scripted(
    *answers: web.Response | Callable[[], web.Response], seconds: float = 0.0
) -> AsyncIterator[Scripted]:
    asked: list[web.Request] = []
    time, counts = SkippingTime(), StripeCounts()

    async def answer(request: web.Request) -> web.Response:
        given = answers[min(len(asked), len(answers) - 1)]
        asked.append(request)
        time.seconds += seconds
        return given if isinstance(given, web.Response) else given()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    reader = StripeApiReader(
        Secret(KEY),
        api_base=f"{base}/",
        requests_per_second=1000,
        clock=time,
        observer=counts,
        sleep=time.sleep,
    )
    try:
        async with closing(reader):
            yield Scripted(base, asked, reader, time, counts)
    finally:
        await runner.cleanup()


def says(status: int, body: str, **headers: str) -> Callable[[], web.Response]:
    """The same answer as often as it is asked for."""
    dated = {"Date": format_datetime(EPOCH, usegmt=True)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return lambda: web.Response(status=status, body=body.encode(), headers=dated, content_type="application/json")


def refuses(status: int, message: str, *, code: str | None = None, **headers: str) -> Callable[[], web.Response]:
    error = {"type": "invalid_request_error", "message": message} | ({"code": code} if code else {})
    return says(status, json.dumps({"error": error}), **headers)


EMPTY: Final = '{"object": "list", "data": [], "has_more": false, "url": "/v1/events"}'


async def test_each_object_keeps_stripes_own_bytes() -> None:
    first = '{\n      "id": "evt_1",\n      "created": 1, "n": 1.50, "big": 12345678901234567890123, "s": "\\u00e9é\\/"\n    }'
    second = '{"id":"evt_2", "created":2,"dup":1,"dup":2, "empty": [\n      ]}'
    body = f'{{\n  "data": [\n    {first},\n    {second}\n  ],\n  "has_more": false\n}}\n'
    async with scripted(says(200, body)) as there:
        page = await there.reader.events()

    assert [obj.body.decode() for obj in page.objects] == [first, second]


async def test_a_single_object_keeps_stripes_own_bytes() -> None:
    body = '{\n  "id": "cus_1",\n  "object": "customer",\n  "deleted": true\n}'
    async with scripted(says(200, body + "\n")) as there:
        obj = await there.reader.object("customers", "cus_1")

    assert (obj.body.decode(), obj.created) == (body, None)


async def test_what_was_read_is_as_of_stripes_date_less_the_requests_duration() -> None:
    version = {"Stripe_Version": "2026-10-28.endive"}
    for seconds, earlier in ((0.0, 0), (0.3, 1), (1.0, 1), (2.4, 3)):
        async with scripted(says(200, '{"id": "evt_1"}', **version), seconds=seconds) as there:
            obj = await there.reader.event("evt_1")

        assert obj.as_of == EPOCH - timedelta(seconds=earlier)
        assert obj.api_version == "2026-10-28.endive"


async def test_the_waits_before_an_answer_do_not_make_it_older() -> None:
    limited = refuses(429, "slow down", Retry_After="30")
    async with scripted(limited, says(200, '{"id": "evt_1"}')) as there:
        obj = await there.reader.event("evt_1")

    assert there.time.seconds >= 30
    assert obj.as_of == EPOCH


async def test_a_request_says_what_is_wanted_in_stripes_terms() -> None:
    async with scripted(says(200, EMPTY)) as there:
        await there.reader.events(
            created_from=EPOCH - timedelta(seconds=0.5),
            created_to=EPOCH,
            types=["charge.refunded", "refund.failed"],
            delivery_success=False,
            after="evt_9",
        )
        await there.reader.events(types=["charge.*"])
        await there.reader.objects("checkout_sessions")
        queries = [dict(request.query) for request in there.asked]

    start = int(EPOCH.timestamp())
    assert queries[0] == {
        "limit": "100",
        "types[0]": "charge.refunded",
        "types[1]": "refund.failed",
        "delivery_success": "false",
        "created[gte]": str(start),
        "created[lt]": str(start),
        "starting_after": "evt_9",
    }
    assert queries[1] == {"limit": "100", "type": "charge.*"}
    assert [request.path for request in there.asked] == ["/v1/events", "/v1/events", "/v1/checkout/sessions"]
    assert {request.headers["Authorization"] for request in there.asked} == {f"Bearer {KEY}"}
    assert {request.headers["Stripe-Version"] for request in there.asked} == {stripe.api_version}


NOT_STRIPES: Final = {
    "a proxy's page": says(200, "<html>please log in</html>"),
    "a proxy's refusal": says(403, "<html>forbidden</html>"),
    "an error that is a word": says(403, '{"error": "forbidden"}'),
    "an error that is null": says(404, '{"error": null}'),
    "no error": says(401, "{}"),
    "no list": says(200, '{"object": "event"}'),
    "a member without an id": says(200, '{"data": [{"object": "event"}], "has_more": false}'),
    "no Date": says(200, EMPTY, Date="yesterday"),
    "no UTF-8": lambda: web.Response(body=b'{"data": ["\xff"], "has_more": false}'),
}


@pytest.mark.parametrize("answer", NOT_STRIPES.values(), ids=NOT_STRIPES)
async def test_an_answer_that_is_none_of_stripes_is_asked_for_again(answer: Callable[[], web.Response]) -> None:
    async with scripted(answer, says(200, EMPTY)) as there:
        assert ids(await there.reader.events()) == []
        assert there.counts.retries == {RetryReason.UNREADABLE: 1}


@pytest.mark.parametrize("object_id", ["", ".", ".."])
async def test_an_id_that_makes_another_path_is_not_asked_for(object_id: str) -> None:
    async with scripted(says(200, '{"object": "account", "id": "acct_1"}')) as there:
        with pytest.raises(StripeObjectMissing):
            await there.reader.object("charges", object_id)

        assert there.asked == []


async def test_stripe_may_say_not_to_ask_again() -> None:
    async with scripted(refuses(500, "no", Stripe_Should_Retry="false", Request_Id="req_1")) as there:
        with pytest.raises(StripeUnavailable) as caught:
            await there.reader.events()

        assert len(there.asked) == 1
        assert caught.value.request_id == "req_1"


@pytest.mark.parametrize(
    ("message", "scope"),
    [
        (
            (
                "The provided key 'rk_test_***' does not have the required permissions for this endpoint on account"
                " 'acct_1'. Having the 'rak_subscription_read' permission would allow this request to continue."
            ),
            "subscription_read",
        ),
        (
            (
                "Permission denied. The provided key 'rk_test_***' does not have … Enabling Events Read ('event_read')"
                " permissions on this key would allow this request to continue."
            ),
            "event_read",
        ),
        ("Permission denied. … Enabling \"Tax 1099s Read\" ('tax_1099_read') permissions on …", "tax_1099_read"),
        ("The provided key does not have access to account 'acct_1'.", None),
    ],
)
async def test_the_missing_permission_is_read_from_stripes_words(message: str, scope: str | None) -> None:
    async with scripted(refuses(403, message)) as there:
        with pytest.raises(StripePermissionMissing) as caught:
            await there.reader.events()

        assert caught.value.scope == scope
        assert len(there.asked) == 1


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ("Expired API Key provided: sk_test_***", "api_key_expired", "it has expired"),
        ("The API key provided does not allow requests from your IP address.", None, "this machine's IP address"),
        ("Invalid API Key provided: sk_test_***", None, "it is mistyped, rolled or deleted"),
    ],
)
async def test_a_refused_key_says_what_is_wrong_with_it(message: str, code: str | None, said: str) -> None:
    async with scripted(refuses(401, message, code=code)) as there:
        with pytest.raises(StripeKeyRefused, match=said):
            await there.reader.events()


async def test_a_key_without_access_to_the_account_is_not_said_to_lack_a_permission() -> None:
    async with scripted(refuses(403, "The provided key does not have access …", code="account_invalid")) as there:
        with pytest.raises(StripePermissionMissing, match="no access to the account") as caught:
            await there.reader.events()

        assert caught.value.scope is None


async def test_an_error_whose_message_is_none_is_still_a_refusal() -> None:
    async with scripted(says(403, '{"error": {"message": ["no"], "type": "invalid_request_error"}}')) as there:
        with pytest.raises(StripePermissionMissing):
            await there.reader.events()


FAILURES: Final = {
    StripeKeyRefused: refuses(401, f"Invalid API Key provided: {KEY} {PERSON}"),
    StripePermissionMissing: refuses(403, f"{KEY} may not see {PERSON}"),
    StripeObjectMissing: refuses(404, f"No such customer: {PERSON}", code="resource_missing"),
    StripeRequestRefused: refuses(400, f"Invalid: {PERSON} {KEY}", code="parameter_invalid_integer"),
    StripeUnavailable: refuses(500, f"{PERSON} {KEY}"),
}


@pytest.mark.parametrize(("kind", "answer"), FAILURES.items(), ids=lambda value: getattr(value, "__name__", ""))
async def test_no_error_shows_the_key_or_what_stripe_said(
    kind: type[StripeApiError], answer: Callable[[], web.Response]
) -> None:
    async with scripted(answer) as there:
        with pytest.raises(kind) as caught:
            await there.reader.events()

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in shown
    assert "jane" not in shown.lower()


@pytest.mark.parametrize("body", [f'{{"oops": "{PERSON}"}}', f"<p>{PERSON}</p>", f'{{"error": "{PERSON}"}}'])
async def test_no_error_shows_an_answer_that_is_none_of_stripes(body: str) -> None:
    async with scripted(says(200, body)) as there:
        with pytest.raises(StripeUnavailable) as caught:
            await there.reader.events()

    assert "jane" not in "".join(traceback.format_exception(caught.value)).lower()


async def test_a_reader_does_not_show_its_key() -> None:
    async with closing(new_reader("http://127.0.0.1:1")) as reader:
        assert KEY not in repr(reader)


async def test_the_clients_own_debugging_does_not_print_what_it_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stripe._util.STRIPE_LOG", "debug")  # as STRIPE_LOG=debug in the environment does

    async with scripted(says(200, f'{{"id": "cus_1", "name": "{PERSON}"}}')) as there:
        await there.reader.object("customers", "cus_1")

    captured = capsys.readouterr()
    assert "jane" not in (captured.err + captured.out).lower()


async def test_an_answer_that_does_not_come_in_time_is_no_answer() -> None:
    fake, counts = FakeStripe(), StripeCounts()
    held = Held()
    fake.trouble.next(held)
    async with serving(fake) as base:
        reader = StripeApiReader(
            Secret(fake.new_key("test")),
            api_base=base,
            requests_per_second=1000,
            clock=SystemClock(),
            observer=counts,
            timeout_seconds=0.2,
            jitter=lambda: 0.0,
        )
        async with closing(reader):
            assert ids(await reader.events()) == []

    assert counts.retries == {RetryReason.NO_ANSWER: 1}


async def test_a_page_after_page_walk_under_limits_and_failures_gives_everything_once() -> None:
    async with troubled(requests_per_second=1000, retries=Retries(attempts=20)) as there:
        for n in range(750):
            there.fake.add(event(f"evt_more_{n}", created=now() - n))
        there.fake.trouble.share(RateLimited(retry_after=1), 0.3, seed=1)
        there.fake.trouble.share(Failing(500), 0.3, seed=2)

        found = await all_of(lambda after: there.reader.events(after=after))

    assert sorted(obj.id for obj in found) == sorted(["evt_1", *(f"evt_more_{n}" for n in range(750))])
    assert there.counts.requests == 8 + there.counts.retries.total()
    assert there.counts.retries.total() > 0
