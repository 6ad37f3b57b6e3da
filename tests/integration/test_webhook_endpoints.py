"""Webhook endpoints over HTTPS: the port's promises on the fake Stripe, what is done once, and what stays unsaid."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
import pytest_asyncio

from service.clock import SystemClock
from service.errors import (
    SecretNotTold,
    StripeApiError,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
    StripeUnavailable,
    WebhookEndpointsFull,
)
from service.events import Secret
from service.ports import WebhookEndpoints
from service.simulator.fake_stripe import Failing, FakeStripe, Held, Lost, RateLimited, serving
from service.stripe_account.calling import SAID_CHARACTERS_MAX, Retries
from service.stripe_account.observer import StripeCounts
from service.stripe_account.webhook_endpoints import StripeWebhookEndpoints
from tests.contracts.webhook_endpoints import WebhookEndpointsContract, one, params
from tests.support.fake_stripe import STRIPE_MOCK_BUILD_SECONDS, needs_stripe_mock, stripe_mock, stripe_mock_binary
from tests.support.scripted_stripe import Answer, refuses, says, scripted
from tests.support.waiting import eventually

KEY: Final = "sk_test_51NotAKeyThatAnybodyHas"
PATH: Final = "/v1/webhook_endpoints"
AT_ONCE: Final = Retries(base_seconds=0.001)


@asynccontextmanager
async def client_of(base: str, key: str = KEY) -> AsyncIterator[StripeWebhookEndpoints]:
    client = StripeWebhookEndpoints(
        Secret(key),
        api_base=base,
        requests_per_second=1_000_000,
        clock=SystemClock(),
        observer=StripeCounts(),
        retries=AT_ONCE,
    )
    try:
        yield client
    finally:
        await client.close()


# The promises, kept on the fake Stripe.


class FakeHarness:
    """The fake Stripe on a port, and a client of it."""

    def __init__(self, fake: FakeStripe, base: str, client: StripeWebhookEndpoints) -> None:
        self.fake = fake
        self.base = base
        self.client = client

    @asynccontextmanager
    async def client_of(self, permissions: Collection[str]) -> AsyncIterator[WebhookEndpoints]:
        async with client_of(self.base, self.fake.new_key("test", permissions)) as client:
            yield client

    @asynccontextmanager
    async def client_with_wrong_key(self) -> AsyncIterator[WebhookEndpoints]:
        async with client_of(self.base) as client:
            yield client


@asynccontextmanager
async def harness_of(fake: FakeStripe) -> AsyncIterator[FakeHarness]:
    async with serving(fake) as base, client_of(base, fake.new_key("test")) as client:
        yield FakeHarness(fake, base, client)


@pytest_asyncio.fixture
async def harness() -> AsyncIterator[FakeHarness]:
    async with harness_of(FakeStripe()) as made:
        yield made


class TestStripeWebhookEndpoints(WebhookEndpointsContract):
    """The contract."""


async def test_more_than_a_page_of_them_are_all_listed() -> None:
    async with harness_of(FakeStripe(endpoints_max=250)) as there:
        made = [there.fake.register(f"https://hooks.example.com/{n}", ["*"])["id"] for n in range(205)]

        assert [each.id for each in await there.client.all()] == made[::-1]
        assert len(there.fake.requests) == 3


async def test_one_that_is_of_the_other_mode_is_said_to_be(harness: FakeHarness) -> None:
    live = harness.fake.register("https://hooks.example.com/", ["*"], mode="live")

    with pytest.raises(StripeObjectMissing, match="one of this id is in live mode"):
        await harness.client.update(live["id"], enabled=False)


async def test_a_missing_permission_is_named_as_the_dashboard_names_it(harness: FakeHarness) -> None:
    label = "Webhook Endpoints, Event Destinations"
    async with harness.client_of({"webhook_read"}) as client:
        with pytest.raises(StripePermissionMissing) as no_writing:
            await client.create(params(), idempotency_key="key_1")
    async with harness.client_of({"event_read"}) as client:
        with pytest.raises(StripePermissionMissing) as no_reading:
            await client.all()

    assert str(no_writing.value) == (
        f"the API key may not write {PATH}: it needs the permission webhook_write ({label} Write)"
    )
    assert (
        str(no_reading.value) == f"the API key may not read {PATH}: it needs the permission webhook_read ({label} Read)"
    )


# Whatever happens to a request, what it asks for is done once.


TROUBLES: Final = [
    RateLimited(retry_after=0), Failing(500), Failing(503), Failing(409), Lost.BEFORE, Lost.AFTER, Lost.WITHIN,
]  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_one_is_made_once_and_its_secret_is_told(trouble: Any, harness: FakeHarness) -> None:
    harness.fake.trouble.next(trouble, times=3, method="POST")

    created = await harness.client.create(params(), idempotency_key="key_1")

    assert (await one(harness.client)) == created.endpoint
    endpoints = harness.fake.book(harness.fake.account, livemode=False).endpoints
    assert endpoints.secrets(created.endpoint.id) == (created.secret,)


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_one_is_changed_and_deleted_all_the_same(trouble: Any, harness: FakeHarness) -> None:
    made = (await harness.client.create(params(), idempotency_key="key_1")).endpoint

    harness.fake.trouble.next(trouble, times=3, method="POST")
    assert await harness.client.update(made.id, enabled=False) == replace(made, enabled=False)
    harness.fake.trouble.next(trouble, times=3, method="DELETE")
    await harness.client.delete(made.id)

    assert list(await harness.client.all()) == []


async def test_who_comes_while_another_makes_the_same_gets_the_same(harness: FakeHarness) -> None:
    held = Held()
    harness.fake.trouble.next(held, method="POST")
    first = asyncio.create_task(harness.client.create(params(), idempotency_key="key_1"))
    await held.reached.wait()
    second = asyncio.create_task(harness.client.create(params(), idempotency_key="key_1"))
    await eventually(lambda: [each.status for each in harness.fake.requests].count(409), what="the second is told off")

    held.release.set()

    assert (await first).secret == (await second).secret
    assert (await one(harness.client)) == (await first).endpoint


async def test_a_failure_that_stripe_repeats_is_not_asked_for_for_ever(harness: FakeHarness) -> None:
    harness.fake.trouble.next(Failing(500, done=True), method="POST")
    with pytest.raises(StripeUnavailable, match="not to ask again"):
        await harness.client.create(params(), idempotency_key="key_1")

    # Stripe gives this key nothing else for a day, though one was made: another key is needed.
    with pytest.raises(StripeRequestRefused, match="Stripe answered 500, as it did before to the same request"):
        await harness.client.create(params(), idempotency_key="key_1")

    assert (await one(harness.client)).url == params().url
    assert len(harness.fake.requests) == 3
    assert (await harness.client.create(params(), idempotency_key="key_2")).secret.value.startswith("whsec_")


async def test_a_refusal_is_repeated_too_until_another_key_is_used() -> None:
    async with harness_of(FakeStripe(endpoints_max=1)) as there:
        first = (await there.client.create(params(), idempotency_key="key_1")).endpoint
        for _ in range(2):
            with pytest.raises(WebhookEndpointsFull, match="1 webhook endpoints in this mode"):
                await there.client.create(params("/more"), idempotency_key="key_2")
            await there.client.delete(first.id)

        assert (await there.client.create(params("/more"), idempotency_key="key_3")).endpoint.url.endswith("/more")


# What only a server of the test's own would answer.


def endpoint(**fields: object) -> dict[str, object]:
    told: dict[str, object] = {
        "id": "we_1",
        "object": "webhook_endpoint",
        "api_version": None,
        "created": 1,
        "description": None,
        "enabled_events": ["*"],
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": "https://hooks.example.com/webhooks/shop",
    }
    return told | fields


MADE: Final = says(200, endpoint(secret="whsec_told"))


async def test_a_request_says_what_is_wanted_in_stripes_terms() -> None:
    async with scripted(MADE) as there, client_of(there.base) as client:
        await client.create(params(connect=True, metadata={"one": "1", "two": ""}), idempotency_key="key_1")
        await client.create(replace(params(api_version=None), description=""), idempotency_key="key_2")
        await client.update(
            "we_1", url="https://x.example.com/?a=1&b=2", enabled_events=("a.b",), enabled=True, metadata={"one": ""}
        )
        await client.update("we_1", enabled=False)

    assert [(each.method, each.path) for each in there.asked] == [
        ("POST", PATH), ("POST", PATH), ("POST", f"{PATH}/we_1"), ("POST", f"{PATH}/we_1"),
    ]  # fmt: skip
    assert [dict(each.params) for each in there.asked] == [
        {
            "url": "https://hooks.example.com/webhooks/shop",
            "enabled_events[0]": "charge.refunded",
            "enabled_events[1]": "charge.succeeded",
            "connect": "true",
            "description": "stripe-ingest: shop",
            "metadata[one]": "1",
            "metadata[two]": "",
            "api_version": "2026-10-28.endive",
        },
        {
            "url": "https://hooks.example.com/webhooks/shop",
            "enabled_events[0]": "charge.refunded",
            "enabled_events[1]": "charge.succeeded",
            "connect": "false",
            "description": "",
            "metadata[stripe_ingest_endpoint]": "shop",
        },
        {
            "url": "https://x.example.com/?a=1&b=2",
            "enabled_events[0]": "a.b",
            "disabled": "false",
            "metadata[one]": "",
        },
        {"disabled": "true"},
    ]
    assert [each.headers["Idempotency-Key"] for each in there.asked[:2]] == ["key_1", "key_2"]


async def test_no_events_at_all_are_sent_as_such_and_not_left_out() -> None:
    async with scripted(refuses(400, "Invalid array")) as there, client_of(there.base) as client:
        with pytest.raises(StripeRequestRefused):
            await client.update("we_1", enabled_events=[])

    assert dict(there.asked[0].params) == {"enabled_events": ""}


async def test_a_change_has_a_key_of_its_own_which_its_retries_keep() -> None:
    broken = refuses(500, "no")
    async with scripted(broken, broken, MADE) as there, client_of(there.base) as client:
        await client.update("we_1", enabled=True)
        await client.update("we_1", enabled=True)

    first, *retries, other = [each.headers["Idempotency-Key"] for each in there.asked]
    assert set(retries) == {first}
    assert other != first


async def test_a_list_that_repeats_itself_comes_to_an_end() -> None:
    async with scripted(says(200, {"data": [endpoint()], "has_more": True})) as there, client_of(there.base) as client:
        assert [each.id for each in await client.all()] == ["we_1"]

    assert len(there.asked) == 2


async def test_a_list_without_an_end_and_without_members_is_none() -> None:
    async with scripted(says(200, {"data": [], "has_more": True})) as there, client_of(there.base) as client:
        assert list(await client.all()) == []


@pytest.mark.parametrize("untold", [{}, {"secret": None}, {"secret": ""}, {"secret": "something else"}])
async def test_one_that_is_made_without_its_secret_being_told_is_named(untold: dict[str, object]) -> None:
    async with scripted(says(200, endpoint(**untold))) as there, client_of(there.base) as client:
        with pytest.raises(SecretNotTold, match="we_1") as caught:
            await client.create(params(), idempotency_key="key_1")

    assert "something else" not in str(caught.value)
    assert len(there.asked) == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Invalid URL: URL must be publicly accessible.", "Invalid URL: URL must be publicly accessible."),
        ("two\nlines\x1b[31m", "two lines [31m"),
        (f"the key {KEY} or rk_live_***abc, whsec_abc", "the key *** or ***, ***"),
        ("Invalid URL: http://user:pa@ss@hooks.example.com/a@b", "Invalid URL: http://***@hooks.example.com/a@b"),
        ("must be one of webhook_endpoint, tax_rate.created", "must be one of webhook_endpoint, tax_rate.created"),
    ],
)
async def test_what_stripe_says_is_shown_without_keys_secrets_and_passwords(said: str, shown: str) -> None:
    async with scripted(refuses(400, said, code="url_invalid")) as there, client_of(there.base) as client:
        with pytest.raises(StripeRequestRefused) as caught:
            await client.create(params(), idempotency_key="key_1")

    assert str(caught.value) == f"POST {PATH}: Stripe answered 400 (url_invalid): {shown}"


async def test_what_stripe_says_at_length_is_cut() -> None:
    async with scripted(refuses(400, "so " * 10_000)) as there, client_of(there.base) as client:
        with pytest.raises(StripeRequestRefused) as caught:
            await client.update("we_1", enabled=True)

    assert len(str(caught.value)) < SAID_CHARACTERS_MAX + 100


FAILURES: Final[dict[str, Answer]] = {
    "401": refuses(401, f"Invalid API Key provided: {KEY}"),
    "403": refuses(403, f"{KEY} may not"),
    "404": refuses(404, f"No such webhook endpoint for {KEY}", code="resource_missing"),
    "400": refuses(400, f"Invalid: {KEY} whsec_told"),
    "500": refuses(500, f"{KEY} whsec_told"),
    "no answer of Stripe's": says(200, {"secret": "whsec_told", "key": KEY}),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_no_error_shows_the_key_or_a_secret(answer: Answer) -> None:
    async with scripted(answer) as there, client_of(there.base) as client:
        with pytest.raises(StripeApiError) as caught:
            await client.create(params(), idempotency_key="key_1")

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in shown
    assert "whsec_" not in shown


async def test_nothing_is_logged_of_what_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with scripted(MADE) as there, client_of(there.base) as client:
        await client.create(params(), idempotency_key="key_1")

    assert "whsec_told" not in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("endpoint_id", ["", ".", ".."])
async def test_an_id_that_makes_another_path_is_not_asked_for(endpoint_id: str) -> None:
    async with scripted(MADE) as there, client_of(there.base) as client:
        with pytest.raises(StripeObjectMissing):
            await client.update(endpoint_id, enabled=True)
        with pytest.raises(StripeObjectMissing):
            await client.delete(endpoint_id)

    assert there.asked == []


async def test_an_id_cannot_lead_elsewhere() -> None:
    async with scripted(MADE) as there, client_of(there.base) as client:
        await client.update("we_1/../../customers?x=1#", enabled=True)

    assert there.asked[0].path == f"{PATH}/we_1%2F..%2F..%2Fcustomers%3Fx%3D1%23" or there.asked[0].path.startswith(
        PATH
    )


async def test_a_404_that_is_about_no_endpoint_does_not_mean_that_one_is_deleted() -> None:
    async with scripted(refuses(404, "Unrecognized request URL")) as there, client_of(there.base) as client:
        with pytest.raises(StripeObjectMissing):
            await client.delete("we_1")

    assert len(there.asked) == 1


async def test_what_is_not_said_to_be_deleted_is_asked_for_again() -> None:
    kept, gone = says(200, {"id": "we_1", "deleted": False}), says(200, {"id": "we_1", "deleted": True})
    async with scripted(kept, MADE, gone) as there, client_of(there.base) as client:
        await client.delete("we_1")

    assert [each.method for each in there.asked] == ["DELETE"] * 3


# Beside Stripe's official stripe-mock, which answers by Stripe's own OpenAPI.


@needs_stripe_mock
@pytest.mark.timeout(STRIPE_MOCK_BUILD_SECONDS + 60)
async def test_every_call_is_one_of_stripes() -> None:
    async with (
        stripe_mock(await asyncio.to_thread(stripe_mock_binary)) as base,
        client_of(base, "sk_test_123") as client,
    ):
        listed = await one(client)
        # The mock tells no secret, and knows the API versions up to its own.
        with pytest.raises(SecretNotTold, match="we_"):
            await client.create(params(connect=True, api_version="2024-06-20"), idempotency_key="key_1")
        changed = await client.update(
            listed.id, url="https://x.example.com/", enabled_events=["*"], enabled=False, metadata={"a": "b"}
        )
        await client.delete(listed.id)

    assert (changed.id, changed.url, changed.enabled_events) == (listed.id, "https://x.example.com/", ("*",))
