"""The fake Stripe as the official client library sees it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from service.commands.fake_stripe import fake_stripe
from service.errors import SignatureRefused
from service.events import Delivery, Endpoint, Secret
from service.signature import verify
from service.simulator import changes, objects
from service.simulator.events import DAY, sample, snapshot_event
from service.simulator.fake_stripe import Failing, FakeStripe, Held, Lost, RateLimited, Slow, serving
from service.simulator.objects import Ids, Object
from service.simulator.shop import STORY_SPAN, Story, shop
from tests.support.fake_stripe import ManualClock, client_of, fake_and_client
from tests.support.signing import NOW, SIGNED_AT
from tests.support.waiting import eventually

PUBLIC = "https://shop.example.com"
LISTS = ("products", "prices", "customers", "subscriptions", "payment_intents", "charges", "refunds", "invoices")


def story() -> Story:
    """A shop's whole life, which ended just before the manual clock's now."""
    return shop(3, NOW - STORY_SPAN)


def told() -> FakeStripe:
    fake = FakeStripe(clock=ManualClock())
    fake.add_all(story().events)
    return fake


def numbered(count: int, *, first: int = 0) -> list[Object]:
    """Events of customers that were created one second after another, just before now."""
    return [
        sample("customer.created", seed=number, created=SIGNED_AT - 1_000 + number)
        for number in range(first, first + count)
    ]


def listing(client: stripe.StripeClient, name: str) -> Callable[[Any], Awaitable[Any]]:
    method: Callable[[Any], Awaitable[Any]] = getattr(client.v1, name).list_async
    return method


async def ids_of(page: Any) -> list[str]:
    return [obj.id async for obj in page.auto_paging_iter()]


def code_of(error: stripe.StripeError) -> str | None:
    """The error code of the answer; the library's own `code` is there for some kinds of errors only."""
    return None if error.error is None else error.error.code


def last_states(events: tuple[Object, ...]) -> dict[str, Object]:
    return {event["data"]["object"]["id"]: event["data"]["object"] for event in events}


# Events


async def test_auto_pagination_gives_every_event_of_thirty_days_once_newest_first() -> None:
    fake = told()
    recent = [event for event in story().events if event["created"] >= SIGNED_AT - 30 * DAY]
    assert 5 < len(recent) < len(story().events)

    async with fake_and_client(fake) as client:
        found = await ids_of(await client.v1.events.list_async({"limit": 2}))

    assert found == [event["id"] for event in reversed(recent)]
    assert len(fake.requests) == -(-len(recent) // 2)
    assert {request[:2] for request in fake.requests} == {("GET", "/v1/events")}


async def test_paging_with_ending_before_is_chronological() -> None:
    fake = FakeStripe(clock=ManualClock())
    events = numbered(7)
    fake.add_all(events)

    async with fake_and_client(fake) as client:
        page = await client.v1.events.list_async({"limit": 2, "ending_before": events[1]["id"]})
        found = await ids_of(page)

    assert found == [event["id"] for event in events[2:]]


async def test_events_that_appear_while_somebody_pages_are_not_among_the_older_ones() -> None:
    fake = FakeStripe(clock=ManualClock())
    events = numbered(6)
    fake.add_all(events)

    async with fake_and_client(fake) as client:
        page = await client.v1.events.list_async({"limit": 3})
        fake.add_all(numbered(2, first=50))
        found = await ids_of(page)
        again = await ids_of(await client.v1.events.list_async({"limit": 3}))

    assert found == [event["id"] for event in reversed(events)]
    assert len(again) == 8


async def test_events_are_found_by_time_and_type() -> None:
    fake = FakeStripe(clock=ManualClock())
    events = [
        sample(event_type, seed=place, created=SIGNED_AT - 100 + place)
        for place, event_type in enumerate(["charge.succeeded", "charge.refunded", "price.created", "charge.failed"])
    ]
    fake.add_all(events)

    async with fake_and_client(fake) as client:

        async def places(params: Any) -> list[int]:
            found = await ids_of(await client.v1.events.list_async(params))
            return [[event["id"] for event in events].index(event_id) for event_id in found]

        assert await places({"type": "charge.refunded"}) == [1]
        assert await places({"type": "charge.*"}) == [3, 1, 0]
        assert await places({"types": ["price.created", "charge.failed"]}) == [3, 2]
        assert await places({"created": {"gte": SIGNED_AT - 99, "lt": SIGNED_AT - 97}}) == [2, 1]
        assert await places({"created": {"gt": SIGNED_AT - 99}, "type": "charge.*"}) == [3]
        with pytest.raises(stripe.InvalidRequestError, match="not both"):
            await places({"type": "charge.*", "types": ["charge.failed"]})
        with pytest.raises(stripe.InvalidRequestError, match="maximum 20"):
            await places({"types": ["charge.failed"] * 21})


async def test_an_event_of_thirty_one_days_ago_is_gone_and_no_cursor() -> None:
    clock = ManualClock()
    fake = FakeStripe(clock=clock)
    event = numbered(1)[0]
    fake.add(event)

    async with fake_and_client(fake) as client:
        found = await client.v1.events.retrieve_async(event["id"])
        clock.advance(31 * DAY)
        assert found.to_dict() == {**event, "pending_webhooks": 0}
        assert (await client.v1.events.list_async()).data == []
        with pytest.raises(stripe.InvalidRequestError) as gone:
            await client.v1.events.retrieve_async(event["id"])
        with pytest.raises(stripe.InvalidRequestError) as lost:
            await client.v1.events.list_async({"starting_after": event["id"]})

    assert (gone.value.http_status, gone.value.code, gone.value.param) == (404, "resource_missing", "id")
    assert (lost.value.http_status, lost.value.code, lost.value.param) == (400, "resource_missing", "starting_after")


# Objects


@pytest.mark.parametrize("name", LISTS)
async def test_the_lists_hold_the_last_state_of_what_is_there(name: str) -> None:
    fake = told()
    kind = name.removesuffix("s")
    gone = {event["data"]["object"]["id"] for event in story().events if event["type"] == f"{kind}.deleted"}
    expected = {
        object_id: obj
        for object_id, obj in last_states(story().events).items()
        if obj["object"] == kind and object_id not in gone
    }
    params: Any = {"limit": 2, "status": "all"} if name == "subscriptions" else {"limit": 2}

    async with fake_and_client(fake) as client:
        page = await listing(client, name)(params)
        found = {obj.id: obj.to_dict(for_json=True) async for obj in page.auto_paging_iter()}

    assert found == expected
    assert found
    assert list(found) == sorted(found, key=lambda object_id: found[object_id]["created"], reverse=True)


async def test_what_stripe_lets_nobody_create_has_no_path_for_it() -> None:
    async with fake_and_client(FakeStripe()) as client:
        for path in ("/v1/disputes", "/v1/invoice_payments", "/v1/invoice_payments/inpay_1"):
            with pytest.raises(stripe.InvalidRequestError, match=r"Unrecognized request URL \(POST"):
                await client.raw_request_async("post", path)


@pytest.mark.parametrize("name", ["products", "customers", "prices"])
async def test_a_deleted_object_is_retrieved_as_deleted(name: str) -> None:
    kind = name.removesuffix("s")
    gone = next(event for event in story().events if event["type"] == f"{kind}.deleted")["data"]["object"]["id"]

    async with fake_and_client(told()) as client:
        found = await getattr(client.v1, name).retrieve_async(gone)

    assert found.to_dict() == {"id": gone, "object": kind, "deleted": True}


async def test_subscriptions_that_were_canceled_are_listed_when_asked_for() -> None:
    fake = FakeStripe(clock=ManualClock())
    active = sample("customer.subscription.updated", seed=1, created=SIGNED_AT)
    canceled = sample("customer.subscription.deleted", seed=2, created=SIGNED_AT)
    fake.add_all([active, canceled])
    id_of = {"active": active["data"]["object"]["id"], "canceled": canceled["data"]["object"]["id"]}

    async with fake_and_client(fake) as client:

        async def listed(params: Any) -> set[str]:
            return set(await ids_of(await client.v1.subscriptions.list_async(params)))

        assert await listed({}) == {id_of["active"]}
        assert await listed({"status": "all"}) == set(id_of.values())
        assert await listed({"status": "ended"}) == {id_of["canceled"]}
        assert await listed({"status": "canceled"}) == {id_of["canceled"]}
        assert await listed({"status": "past_due"}) == set()


async def test_prices_that_are_not_active_are_listed_when_asked_for() -> None:
    fake = FakeStripe(clock=ManualClock())
    event = sample("price.created", seed=1, created=SIGNED_AT)
    price = event["data"]["object"]
    fake.put(price)
    fake.put({**price, "id": "price_old", "active": False})

    async with fake_and_client(fake) as client:
        assert await ids_of(await client.v1.prices.list_async()) == [price["id"]]
        assert await ids_of(await client.v1.prices.list_async({"active": True})) == [price["id"]]
        assert await ids_of(await client.v1.prices.list_async({"active": False})) == ["price_old"]


async def test_objects_are_found_by_what_they_refer_to() -> None:
    fake = told()
    refund = next(event for event in story().events if event["type"] == "refund.created")["data"]["object"]
    subscription = next(e for e in story().events if e["type"] == "customer.subscription.created")["data"]["object"]
    price_id = subscription["items"]["data"][0]["price"]["id"]

    async with fake_and_client(fake) as client:
        refunds = await client.v1.refunds.list_async({"payment_intent": refund["payment_intent"], "limit": 100})
        invoices = await client.v1.invoices.list_async({"subscription": subscription["id"], "status": "paid"})
        with_price = await client.v1.subscriptions.list_async({"price": price_id, "status": "all"})
        with_other = await client.v1.subscriptions.list_async({"price": "price_other", "status": "all"})

    assert refund["id"] in {found.id for found in refunds.data}
    assert {found.payment_intent for found in refunds.data} == {refund["payment_intent"]}
    assert len(invoices.data) == 3
    assert [found.id for found in with_price.data] == [subscription["id"]]
    assert with_other.data == []


async def test_references_are_expanded_on_request() -> None:
    fake = told()
    invoice = next(event for event in story().events if event["type"] == "invoice.paid")["data"]["object"]

    async with fake_and_client(fake) as client:
        one = await client.v1.invoices.retrieve_async(invoice["id"], {"expand": ["customer"]})
        several = await client.v1.subscriptions.list_async(
            {"status": "all", "expand": ["data.latest_invoice.customer", "data.items.data.price.product"]}
        )
        with pytest.raises(stripe.InvalidRequestError, match=r"'data\.customer'"):
            await client.v1.invoices.list_async({"expand": ["customer"]})

    assert one.to_dict()["customer"]["id"] == invoice["customer"]
    subscription = several.data[0].to_dict()
    assert subscription["latest_invoice"]["customer"]["object"] == "customer"
    assert subscription["items"]["data"][0]["price"]["product"]["object"] == "product"


# Keys


@pytest.mark.parametrize(
    ("permission", "call"),
    [
        ("event_read", lambda c: c.v1.events.list_async()),
        ("event_read", lambda c: c.v1.events.retrieve_async("evt_1")),
        ("plan_read", lambda c: c.v1.prices.list_async()),
        ("product_read", lambda c: c.v1.products.list_async()),
        ("customer_read", lambda c: c.v1.customers.list_async()),
        ("customer_write", lambda c: c.v1.customers.update_async("cus_1", {"name": "x"})),
        ("subscription_read", lambda c: c.v1.subscriptions.list_async()),
        ("payment_intent_read", lambda c: c.v1.payment_intents.list_async()),
        ("payment_intent_write", lambda c: c.v1.payment_intents.create_async({"amount": 1, "currency": "eur"})),
        ("charge_read", lambda c: c.v1.charges.list_async()),
        ("refund_read", lambda c: c.v1.refunds.list_async()),
        ("invoice_read", lambda c: c.v1.invoices.list_async()),
        ("checkout_session_read", lambda c: c.v1.checkout.sessions.list_async()),
        ("checkout_session_write", lambda c: c.v1.checkout.sessions.create_async({})),
        ("customer_portal_read", lambda c: c.v1.billing_portal.configurations.list_async()),
        ("customer_portal_write", lambda c: c.v1.billing_portal.sessions.create_async({})),
        ("webhook_read", lambda c: c.v1.webhook_endpoints.list_async()),
        ("webhook_write", lambda c: c.v1.webhook_endpoints.delete_async("we_1")),
    ],
)
async def test_a_missing_permission_is_a_permission_error_that_names_it(
    permission: str, call: Callable[[stripe.StripeClient], Awaitable[Any]]
) -> None:
    fake = FakeStripe()
    async with serving(fake) as url:
        async with client_of(url, fake.new_key(permissions=frozenset())) as client:
            with pytest.raises(stripe.PermissionError, match=rf"\('{permission}'\) permissions on this key") as refused:
                await call(client)
        async with client_of(url, fake.new_key(permissions={permission})) as client:
            # Whatever else is wrong with the call: a PermissionError is none of these.
            with suppress(stripe.InvalidRequestError, stripe.APIError):
                await call(client)

    assert refused.value.http_status == 403
    assert code_of(refused.value) == "more_permissions_required"
    assert fake.requests[0].status == 403


async def test_a_key_that_is_not_right_is_an_authentication_error() -> None:
    fake = FakeStripe()
    expired = fake.new_key()
    fake.expire_key(expired)
    async with serving(fake) as url:
        for key, said in (
            ("sk_test_unknown0123456789", "Invalid API Key provided: sk_test_"),
            (expired, "Expired API"),
        ):
            async with client_of(url, key) as client:
                with pytest.raises(stripe.AuthenticationError, match=said) as refused:
                    await client.v1.events.list_async()
                assert refused.value.http_status == 401
                assert key not in str(refused.value)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/events") as response:
            assert response.status == 401
            assert response.headers["Request-Id"].startswith("req_")
        as_curl_does = {"Authorization": aiohttp.encode_basic_auth(fake.new_key(), "")}
        async with aiohttp.ClientSession(headers=as_curl_does) as session, session.get(f"{url}/v1/events") as response:
            assert response.status == 200


async def test_a_key_sees_its_own_mode_and_account() -> None:
    fake = FakeStripe(clock=ManualClock())
    test = sample("customer.created", seed=1, created=SIGNED_AT)
    live = sample("customer.created", seed=2, created=SIGNED_AT, livemode=True)
    connected = sample("customer.created", seed=3, created=SIGNED_AT, account="acct_connected")
    fake.add_all([test, live, connected])

    async with serving(fake) as url:

        async def seen(key: str, options: Any) -> list[str]:
            async with client_of(url, key) as client:
                return [event.id for event in (await client.v1.events.list_async(options=options)).data]

        platform = fake.new_key("test")
        assert await seen(platform, {}) == [test["id"]]
        assert await seen(fake.new_key("live"), {}) == [live["id"]]
        assert await seen(fake.new_key("test", account="acct_connected"), {}) == [connected["id"]]
        assert await seen(platform, {"stripe_account": "acct_connected"}) == [connected["id"]]
        with pytest.raises(stripe.PermissionError, match="does not have access to account 'acct_stranger'"):
            await seen(platform, {"stripe_account": "acct_stranger"})
        async with client_of(url, platform) as client:
            with pytest.raises(stripe.InvalidRequestError, match="a similar object exists in live mode"):
                await client.v1.customers.retrieve_async(live["data"]["object"]["id"])


# The wire


async def test_every_answer_says_which_it_is_when_and_in_which_version() -> None:
    fake = FakeStripe(clock=ManualClock())
    key = fake.new_key()
    async with serving(fake) as url, aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        for path, status in (("/v1/events", 200), ("/v1/nothing", 404), ("/v1/customers/cus_1", 404)):
            async with session.get(url + path, headers={"Stripe-Version": "2020-08-27"}) as response:
                assert response.status == status
                assert response.headers["Request-Id"].startswith("req_")
                assert response.headers["Stripe-Version"] == "2020-08-27"
                assert response.headers["Date"] == NOW.strftime("%a, %d %b %Y %H:%M:%S GMT")
        async with session.get(f"{url}/v1/events") as response:
            assert response.headers["Stripe-Version"] == objects.API_VERSION

    assert [(request.path, request.status) for request in fake.requests] == [
        ("/v1/events", 200),
        ("/v1/nothing", 404),
        ("/v1/customers/cus_1", 404),
        ("/v1/events", 200),
    ]


async def test_an_unknown_parameter_and_an_unknown_path_are_refused() -> None:
    async with fake_and_client(FakeStripe()) as client:
        unknown: Any = {"colour": "red"}
        for name in (*LISTS, "events", "webhook_endpoints"):
            with pytest.raises(stripe.InvalidRequestError, match="Received unknown parameter: colour"):
                await listing(client, name)(unknown)
        with pytest.raises(stripe.InvalidRequestError, match=r"Unrecognized request URL \(GET: /v1/coupons\)"):
            await client.v1.coupons.list_async()


async def test_an_idempotency_key_repeats_the_first_answer_and_not_the_work() -> None:
    params: Any = {"url": f"{PUBLIC}/one", "enabled_events": ["charge.refunded"]}
    other: Any = {**params, "url": f"{PUBLIC}/two"}
    async with fake_and_client(FakeStripe()) as client:
        first = await client.v1.webhook_endpoints.create_async(params, {"idempotency_key": "once"})
        again = await client.v1.webhook_endpoints.create_async(params, {"idempotency_key": "once"})
        with pytest.raises(stripe.IdempotencyError, match="same parameters"):
            await client.v1.webhook_endpoints.create_async(other, {"idempotency_key": "once"})
        assert len((await client.v1.webhook_endpoints.list_async()).data) == 1

    assert first.to_dict() == again.to_dict()
    assert first.last_response is not None
    assert again.last_response is not None
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert again.last_response.headers["Request-Id"] != first.last_response.headers["Request-Id"]


ENDPOINT: Any = {"url": f"{PUBLIC}/one", "enabled_events": ["charge.refunded"]}


async def test_an_idempotency_key_is_forgotten_after_a_day() -> None:
    clock = ManualClock()
    async with fake_and_client(FakeStripe(clock=clock)) as client:
        first = await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})
        clock.advance(DAY - 1)
        within = await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})
        clock.advance(1)
        after = await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})
        again = await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})

    assert within.secret == first.secret
    assert after.id != first.id
    assert again.id == after.id


async def test_an_idempotency_key_of_another_mode_is_another_one() -> None:
    fake = FakeStripe()
    made = []
    async with serving(fake) as url:
        for key in (fake.new_key("test"), fake.new_key("live")):
            async with client_of(url, key) as client:
                made.append(await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"}))

    assert [endpoint.livemode for endpoint in made] == [False, True]


async def test_a_request_that_was_not_begun_may_be_made_again_with_its_idempotency_key() -> None:
    wrong: Any = {**ENDPOINT, "enabled_events": ["charge.created"]}
    async with fake_and_client(FakeStripe()) as client:
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.webhook_endpoints.create_async(wrong, {"idempotency_key": "once"})

        assert (await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})).secret


async def test_the_limits_refusal_is_repeated_by_its_idempotency_key_when_there_is_room_again() -> None:
    async with fake_and_client(FakeStripe(endpoints_max=1)) as client:
        only = await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "first"})
        with pytest.raises(stripe.InvalidRequestError, match="the maximum of 1 test webhook endpoints"):
            await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "second"})
        await client.v1.webhook_endpoints.delete_async(only.id)
        with pytest.raises(stripe.InvalidRequestError, match="the maximum of 1 test webhook endpoints"):
            await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "second"})

        assert (await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "third"})).secret


async def test_a_failure_after_everything_was_done_is_repeated_by_its_idempotency_key() -> None:
    fake = FakeStripe()
    fake.trouble.next(Failing(500, done=True), method="POST")
    async with fake_and_client(fake) as client:
        for _ in range(2):
            with pytest.raises(stripe.APIError) as failed:
                await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})
            assert failed.value.http_status == 500
            assert failed.value.headers is not None
            assert failed.value.headers["Stripe-Should-Retry"] == "false"
        made = (await client.v1.webhook_endpoints.list_async()).data

    assert [endpoint.url for endpoint in made] == [ENDPOINT["url"]]


async def test_a_failure_before_anything_was_done_is_not_repeated() -> None:
    fake = FakeStripe()
    fake.trouble.next(Failing(503), method="POST")
    async with fake_and_client(fake) as client:
        with pytest.raises(stripe.APIError):
            await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})

        assert (await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})).secret


async def test_an_idempotency_key_that_is_in_use_is_a_conflict() -> None:
    fake = FakeStripe()
    held = Held()
    fake.trouble.next(held, method="POST")
    async with fake_and_client(fake) as client:
        first = asyncio.create_task(client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"}))
        await asyncio.wait_for(held.reached.wait(), 10)
        with pytest.raises(stripe.APIError, match="another in-progress request") as refused:
            await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})
        await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "other"})
        held.release.set()
        made = await first
        again = await client.v1.webhook_endpoints.create_async(ENDPOINT, {"idempotency_key": "once"})
        listed = await client.v1.webhook_endpoints.list_async()

    assert (refused.value.http_status, code_of(refused.value)) == (409, "idempotency_key_in_use")
    assert again.id == made.id
    assert len(listed.data) == 2


# Webhook endpoints


async def test_the_secret_of_an_endpoint_is_told_once() -> None:
    async with fake_and_client(FakeStripe()) as client:
        made = await client.v1.webhook_endpoints.create_async(
            {
                "url": f"{PUBLIC}/webhooks/shop",
                "enabled_events": ["charge.refunded", "invoice.paid"],
                "api_version": "2020-08-27",
                "description": "the shop",
                "metadata": {"name": "shop"},
            }
        )
        found = await client.v1.webhook_endpoints.retrieve_async(made.id)
        listed = await client.v1.webhook_endpoints.list_async()
        changed = await client.v1.webhook_endpoints.update_async(
            made.id,
            {"disabled": True, "enabled_events": ["*"], "url": f"{PUBLIC}/moved", "metadata": {"name": "", "a": "b"}},
        )

    secret = made.to_dict().pop("secret")
    assert secret.startswith("whsec_")
    without = {name: value for name, value in made.to_dict().items() if name != "secret"}
    assert found.to_dict() == without
    assert [endpoint.to_dict() for endpoint in listed.data] == [without]
    assert without["api_version"] == "2020-08-27"
    assert without["metadata"] == {"name": "shop"}
    assert changed.to_dict() == {
        **without,
        "status": "disabled",
        "enabled_events": ["*"],
        "url": f"{PUBLIC}/moved",
        "metadata": {"a": "b"},
    }


async def test_a_deleted_endpoint_is_gone() -> None:
    async with fake_and_client(FakeStripe()) as client:
        made = await client.v1.webhook_endpoints.create_async({"url": PUBLIC, "enabled_events": ["*"]})
        deleted = await client.v1.webhook_endpoints.delete_async(made.id)
        assert (await client.v1.webhook_endpoints.list_async()).data == []
        for call in (client.v1.webhook_endpoints.retrieve_async, client.v1.webhook_endpoints.delete_async):
            with pytest.raises(stripe.InvalidRequestError, match="No such webhook endpoint") as gone:
                await call(made.id)
            assert gone.value.http_status == 404

    assert deleted.to_dict() == {"id": made.id, "object": "webhook_endpoint", "deleted": True}


async def test_an_endpoint_of_the_other_mode_is_said_to_be_there() -> None:
    fake = FakeStripe()
    live = fake.register(PUBLIC, ["*"], mode="live")
    async with fake_and_client(fake) as client:
        with pytest.raises(stripe.InvalidRequestError, match="a similar object exists in live mode") as missing:
            await client.v1.webhook_endpoints.update_async(live["id"], {"disabled": True})

    assert missing.value.http_status == 404


async def test_an_endpoint_that_was_registered_before_has_its_own_api_version() -> None:
    fake = FakeStripe()
    made = fake.register("http://127.0.0.1:1/own", ["*"], api_version="2020-08-27")
    async with fake_and_client(fake) as client:
        found = await client.v1.webhook_endpoints.retrieve_async(made["id"])

    assert found.api_version == "2020-08-27"


@pytest.mark.parametrize(
    ("mode", "changed", "said", "param"),
    [
        ("test", {"url": "http://localhost:8080/x"}, "URL must be publicly accessible", "url"),
        ("test", {"url": "http://127.0.0.1/x"}, "URL must be publicly accessible", "url"),
        ("test", {"url": "https://10.1.2.3/x"}, "URL must be publicly accessible", "url"),
        ("test", {"url": "https://[::1]/x"}, "URL must be publicly accessible", "url"),
        ("test", {"url": "https://receiver.internal/x"}, "URL must be publicly accessible", "url"),
        ("test", {"url": "https://receiver/x"}, "URL must be publicly accessible", "url"),
        ("test", {"url": "shop.example.com/x"}, "An explicit scheme", "url"),
        ("test", {"url": "https://[oops/x"}, "Not a valid URL", "url"),
        ("live", {"url": "http://shop.example.com/x"}, 'URLs in livemode must begin with "https://"', "url"),
        ("test", {"enabled_events": ["charge.created"]}, r"Invalid enabled_events\[0\]: must be one of", "enabled_events[0]"),
        ("test", {"enabled_events": ["charge.failed", "v1.charge.failed"]}, r"enabled_events\[1\]", "enabled_events[1]"),
        ("test", {"enabled_events": []}, "enabled_events", "enabled_events"),
        ("test", {"url": None}, "Missing required param: url", "url"),
        ("test", {"api_version": "newest"}, "Invalid Stripe API version", "api_version"),
        ("test", {"api_version": "2026-10-29.endive"}, "Invalid Stripe API version", "api_version"),
        ("test", {"disabled": True}, "Received unknown parameter: disabled", "disabled"),
        ("test", {"description": "x" * 5_001}, "must be at most 5000 characters", "description"),
        ("test", {"metadata": {"n" * 41: "x"}}, "keys can have up to 40 characters", "metadata"),
        ("test", {"metadata": {"name": "x" * 501}}, "values can have up to 500 characters", "metadata"),
        ("test", {"metadata": {f"n{n}": "x" for n in range(51)}}, "up to 50 metadata keys", "metadata"),
        ("test", {"metadata": {"name": {"deeper": "x"}}}, "must be strings", "metadata[name]"),
    ],
)  # fmt: skip
async def test_an_endpoint_that_stripe_would_not_take_is_refused(
    mode: Any, changed: dict[str, Any], said: str, param: str
) -> None:
    fake = FakeStripe()
    params: Any = {"url": f"{PUBLIC}/x", "enabled_events": ["charge.refunded"], **changed}
    params = {name: value for name, value in params.items() if value is not None}
    async with serving(fake) as url, client_of(url, fake.new_key(mode)) as client:
        with pytest.raises(stripe.InvalidRequestError, match=said) as refused:
            await client.v1.webhook_endpoints.create_async(params)

    assert (refused.value.http_status, refused.value.param) == (400, param)


@pytest.mark.parametrize("url", ["http://shop.example.com/x", "https://1.1.1.1/x", "https://shop.example.com:8443"])
async def test_any_public_url_is_taken_in_test_mode(url: str) -> None:
    async with fake_and_client(FakeStripe()) as client:
        made = await client.v1.webhook_endpoints.create_async({"url": url, "enabled_events": ["*"]})

    assert made.status == "enabled"


async def test_the_api_version_of_an_endpoint_cannot_be_changed() -> None:
    async with fake_and_client(FakeStripe()) as client:
        made = await client.v1.webhook_endpoints.create_async({"url": PUBLIC, "enabled_events": ["*"]})
        params: Any = {"api_version": "2020-08-27"}
        with pytest.raises(stripe.InvalidRequestError, match="Received unknown parameter: api_version"):
            await client.v1.webhook_endpoints.update_async(made.id, params)


async def test_the_seventeenth_endpoint_is_one_too_many() -> None:
    fake = FakeStripe()
    async with fake_and_client(fake) as client:
        for number in range(16):
            await client.v1.webhook_endpoints.create_async({"url": f"{PUBLIC}/{number}", "enabled_events": ["*"]})
        with pytest.raises(stripe.InvalidRequestError, match="the maximum of 16 test webhook endpoints"):
            await client.v1.webhook_endpoints.create_async({"url": f"{PUBLIC}/16", "enabled_events": ["*"]})
        assert len(await ids_of(await client.v1.webhook_endpoints.list_async({"limit": 5}))) == 16


# Trouble


async def test_a_client_within_the_rate_is_let_through_and_a_faster_one_is_told_when_to_come_again() -> None:
    clock = ManualClock()
    fake = FakeStripe(clock=clock)
    fake.trouble.limit(2.0)
    async with fake_and_client(fake) as client:
        for _ in range(6):
            await client.v1.events.list_async()
            clock.advance(0.5)
        await client.v1.events.list_async()
        await client.v1.events.list_async()
        with pytest.raises(stripe.RateLimitError) as refused:
            await client.v1.events.list_async()
        fake.trouble.clear()
        await client.v1.events.list_async()

    assert refused.value.http_status == 429
    assert code_of(refused.value) == "rate_limit"
    assert refused.value.headers is not None
    assert refused.value.headers["Retry-After"] == "1"
    assert fake.trouble.rate_limited == 1
    assert fake.most_within(1.0, path="/v1/events") == 5
    assert [request.status for request in fake.requests].count(429) == 1


async def test_scripted_failures_come_as_often_as_said() -> None:
    fake = FakeStripe()
    fake.trouble.next(RateLimited(retry_after=7), path="/v1/events")
    fake.trouble.next(Failing(503), times=2, path="/v1/prices")
    async with fake_and_client(fake) as client:
        with pytest.raises(stripe.RateLimitError) as limited:
            await client.v1.events.list_async()
        for _ in range(2):
            with pytest.raises(stripe.APIError) as failed:
                await client.v1.prices.list_async()
            assert failed.value.http_status == 503
        await client.v1.events.list_async()
        await client.v1.prices.list_async()

    assert limited.value.headers is not None
    assert limited.value.headers["Retry-After"] == "7"
    assert [request.status for request in fake.requests] == [429, 503, 503, 200, 200]


async def test_the_official_client_gets_over_what_it_may_try_again() -> None:
    fake = FakeStripe(clock=ManualClock())
    fake.add_all(numbered(5))
    fake.trouble.next(Failing(500), after=1)
    fake.trouble.next(Lost.BEFORE, after=2)
    async with fake_and_client(fake, max_network_retries=3) as client:
        found = await ids_of(await client.v1.events.list_async({"limit": 2}))

    assert len(found) == len(set(found)) == 5
    assert sorted(str(request.status) for request in fake.requests) == ["200", "200", "200", "500", "None"]


@pytest.mark.parametrize("where", list(Lost))
async def test_a_broken_connection_is_no_answer(where: Lost) -> None:
    fake = FakeStripe()
    fake.trouble.next(where, method="POST")
    params: Any = {"url": PUBLIC, "enabled_events": ["*"]}
    async with fake_and_client(fake) as client:
        # The library lets aiohttp's own error through where half of an answer came.
        with pytest.raises((stripe.APIConnectionError, aiohttp.ClientPayloadError)):
            await client.v1.webhook_endpoints.create_async(params, {"idempotency_key": "once"})
        done = len((await client.v1.webhook_endpoints.list_async()).data)
        made = await client.v1.webhook_endpoints.create_async(params, {"idempotency_key": "once"})
        listed = await client.v1.webhook_endpoints.list_async()

    assert done == (0 if where is Lost.BEFORE else 1)
    assert [endpoint.id for endpoint in listed.data] == [made.id]
    assert made.secret is not None
    assert fake.requests[0].status is None


async def test_a_held_request_waits_until_it_is_let_go() -> None:
    fake = FakeStripe(clock=ManualClock())
    fake.add_all(numbered(4))
    held = Held()
    fake.trouble.next(held, after=1)
    async with fake_and_client(fake) as client:
        listing = asyncio.create_task(_all_events(client))
        await asyncio.wait_for(held.reached.wait(), 10)
        assert len(fake.requests) == 1
        assert not listing.done()
        held.release.set()

        assert len(await listing) == 4


async def test_a_slow_answer_comes_after_the_others() -> None:
    fake = FakeStripe()
    fake.trouble.next(Slow(0.2), path="/v1/events")
    async with fake_and_client(fake) as client:
        slow = asyncio.create_task(client.v1.events.list_async())
        await eventually(lambda: not fake.trouble.planned, what="the slow request has begun")
        await client.v1.prices.list_async()
        await slow

    assert [request.path for request in fake.requests][-1] == "/v1/events"


async def _all_events(client: stripe.StripeClient) -> list[str]:
    return await ids_of(await client.v1.events.list_async({"limit": 2}))


# Deliveries


class Inbox:
    """A receiver: what came, and the statuses that it answers with, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses) or [200]
        self.deliveries: list[tuple[bytes, str]] = []

    @property
    def ids(self) -> list[str]:
        return [orjson.loads(body)["id"] for body, _ in self.deliveries]

    async def take(self, request: web.Request) -> web.Response:
        self.deliveries.append((await request.read(), request.headers["Stripe-Signature"]))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status)

    def verified_with(self, secret: str) -> list[bool]:
        """Which of the deliveries this secret has signed, just now."""
        return [self._is_verified(body, header, secret) for body, header in self.deliveries]

    @staticmethod
    def _is_verified(body: bytes, header: str, secret: str) -> bool:
        now = datetime.now(UTC)
        endpoint = Endpoint("shop", "/webhooks/shop", (Secret(secret),))
        try:
            verify(Delivery(endpoint, body, (header.encode(),), now), now=now, tolerance_seconds=300)
        except SignatureRefused:
            return False
        return True


@asynccontextmanager
async def receiving(inbox: Inbox) -> AsyncIterator[str]:
    """The origin at which the inbox takes what is posted."""
    app = web.Application()
    app.router.add_post("/webhooks/shop", inbox.take)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_events_are_delivered_to_what_was_registered_with_its_secret() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    refund = sample("charge.refunded", seed=1, created=SIGNED_AT)
    async with receiving(inbox) as origin, fake_and_client(fake) as client:
        fake.deliveries.reach(PUBLIC, origin)
        made = await client.v1.webhook_endpoints.create_async(
            {"url": f"{PUBLIC}/webhooks/shop", "enabled_events": ["charge.refunded"]}
        )
        fake.add(sample("charge.failed", seed=2, created=SIGNED_AT))
        fake.add(refund)
        await eventually(lambda: not fake.pending(refund["id"]), what="the event was delivered")
        told_now = await client.v1.events.retrieve_async(refund["id"])

    assert inbox.ids == [refund["id"]]
    assert inbox.verified_with(str(made.secret)) == [True]
    assert inbox.verified_with("whsec_other") == [False]
    assert orjson.loads(inbox.deliveries[0][0]) == refund
    assert told_now.pending_webhooks == 0


async def test_a_refused_delivery_comes_again_until_stripes_schedule_ends() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox(500, 302, 404, 200)
    given_up = Inbox(400)
    event, other = numbered(2)
    async with receiving(inbox) as one, receiving(given_up) as two, fake_and_client(fake) as client:
        fake.register(f"{one}/webhooks/shop", ["*"])
        fake.add(event)
        await eventually(lambda: not fake.deliveries.waiting, what="the first event was delivered")
        fake.register(f"{two}/webhooks/shop", ["*"])
        fake.add(other)
        await eventually(lambda: not fake.deliveries.waiting, what="the second was given up by one endpoint")
        undelivered = await ids_of(await client.v1.events.list_async({"delivery_success": False}))
        delivered = await ids_of(await client.v1.events.list_async({"delivery_success": True}))

    assert inbox.ids == [event["id"]] * 4 + [other["id"]]
    assert given_up.ids == [other["id"]] * 4
    assert (undelivered, delivered) == ([other["id"]], [event["id"]])
    assert [attempt.status for attempt in fake.deliveries.attempts if attempt.event_id == event["id"]] == [
        500,
        302,
        404,
        200,
    ]


async def test_live_mode_has_more_attempts_than_a_sandbox() -> None:
    fake = FakeStripe(speed=1e7)
    inbox = Inbox(503)
    async with receiving(inbox) as origin, serving(fake):
        fake.register(f"{origin}/webhooks/shop", ["*"], mode="live")
        fake.add(sample("charge.failed", seed=1, created=SIGNED_AT, livemode=True))
        await eventually(lambda: not fake.deliveries.waiting, what="Stripe has given up")

    assert len(inbox.deliveries) == 10
    assert [attempt.number for attempt in fake.deliveries.attempts] == list(range(1, 11))


async def test_nothing_is_delivered_to_an_endpoint_that_was_switched_off() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    first, second = numbered(2)
    async with receiving(inbox) as origin, fake_and_client(fake) as client:
        endpoint = fake.register(f"{origin}/webhooks/shop", ["*"])
        fake.deliveries.pause()
        fake.add(first)
        await client.v1.webhook_endpoints.update_async(endpoint["id"], {"disabled": True})
        fake.add(second)
        fake.deliveries.resume()
        await eventually(lambda: not fake.deliveries.waiting, what="nothing waits any more")
        assert fake.pending(first["id"]) == 1
        assert fake.pending(second["id"]) == 0

    assert inbox.deliveries == []


async def test_an_endpoint_that_stripe_switched_off_gets_deliveries_again_when_somebody_enables_it() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    first, second = numbered(2)
    async with receiving(inbox) as origin, fake_and_client(fake) as client:
        endpoint = fake.register(f"{origin}/webhooks/shop", ["*"])
        fake.switch_off(endpoint["id"])
        fake.add(first)
        assert (await client.v1.webhook_endpoints.retrieve_async(endpoint["id"])).status == "disabled"
        enabled = await client.v1.webhook_endpoints.update_async(endpoint["id"], {"disabled": False})
        fake.add(second)
        await eventually(lambda: not fake.deliveries.waiting, what="nothing waits any more")

    assert enabled.status == "enabled"
    assert inbox.ids == [second["id"]]
    assert inbox.verified_with(endpoint["secret"]) == [True]


async def test_a_dropped_delivery_never_comes_until_somebody_resends_it() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    fake.deliveries.drop(1.0, seed=1)
    event = numbered(1)[0]
    async with receiving(inbox) as origin, serving(fake) as url:
        endpoint = fake.register(f"{origin}/webhooks/shop", ["*"])
        fake.add(event)
        assert fake.deliveries.waiting == 0
        assert fake.pending(event["id"]) == 1
        async with client_of(url, fake.new_key()) as client:
            await client.raw_request_async("post", f"/v1/events/{event['id']}/retry", webhook_endpoint=endpoint["id"])
            await eventually(lambda: not fake.pending(event["id"]), what="it was resent")
            with pytest.raises(stripe.InvalidRequestError, match="No such webhook endpoint: 'we_other'"):
                await client.raw_request_async("post", f"/v1/events/{event['id']}/retry", webhook_endpoint="we_other")

    assert inbox.ids == [event["id"]]


async def test_a_resend_does_not_cancel_the_automatic_attempts() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    event = numbered(1)[0]
    async with receiving(inbox) as origin, fake_and_client(fake) as client:
        endpoint = fake.register(f"{origin}/webhooks/shop", ["*"])
        fake.deliveries.pause()
        fake.add(event)
        await client.raw_request_async("post", f"/v1/events/{event['id']}/retry", webhook_endpoint=endpoint["id"])
        fake.deliveries.resume()
        await eventually(lambda: not fake.deliveries.waiting, what="both deliveries were made")

    assert inbox.ids == [event["id"]] * 2


async def test_a_resend_that_is_refused_is_not_made_again() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox(500)
    fake.deliveries.drop(1.0, seed=1)
    event = numbered(1)[0]
    async with receiving(inbox) as origin, serving(fake):
        endpoint = fake.register(f"{origin}/webhooks/shop", ["*"])
        fake.add(event)
        fake.deliveries.resend(event["id"], endpoint["id"])
        await eventually(lambda: not fake.deliveries.waiting, what="it was resent")

    assert inbox.ids == [event["id"]]
    assert fake.pending(event["id"]) == 1


async def test_while_a_secret_is_rolled_deliveries_are_signed_with_both() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    first, second = numbered(2)
    async with receiving(inbox) as origin, serving(fake):
        endpoint = fake.register(f"{origin}/webhooks/shop", ["*"])
        old, new = endpoint["secret"], fake.roll_secret(endpoint["id"])
        fake.add(first)
        await eventually(lambda: not fake.deliveries.waiting, what="signed with both")
        fake.expire_old_secrets(endpoint["id"])
        fake.add(second)
        await eventually(lambda: not fake.deliveries.waiting, what="signed with the new one")

    assert inbox.verified_with(old) == [True, False]
    assert inbox.verified_with(new) == [True, True]


async def test_nothing_is_delivered_beyond_loopback() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    inbox = Inbox()
    async with receiving(inbox) as origin, serving(fake):
        # An address that is not loopback's and that the receiver can be reached at all the same.
        fake.register(origin.replace("127.0.0.1", "0.0.0.0") + "/webhooks/shop", ["*"])  # noqa: S104 -- not listened on
        fake.add(numbered(1)[0])
        await eventually(lambda: not fake.deliveries.waiting, what="Stripe has given up")

    assert [attempt.status for attempt in fake.deliveries.attempts] == [None] * 4
    assert inbox.deliveries == []


def test_a_fake_that_is_served_again_in_another_loop_goes_on_delivering() -> None:
    fake = FakeStripe(clock=ManualClock(), speed=1e6)
    fake.register(f"{PUBLIC}/webhooks/shop", ["*"])

    async def served_while(event: Object) -> None:
        async with serving(fake):
            fake.add(event)
            await eventually(lambda: not fake.deliveries.waiting, what="Stripe has given up")

    for event in numbered(2):
        asyncio.run(served_while(event))

    assert len(fake.deliveries.attempts) == 8


# Objects that no event tells of


async def test_an_object_without_an_event_is_in_the_lists() -> None:
    fake = FakeStripe(clock=ManualClock())
    ids = Ids(1)
    product = objects.product(ids, created=SIGNED_AT, livemode=False)
    fake.put(product)
    renamed = changes.changed(product, name="renamed")
    fake.add(snapshot_event("product.updated", renamed, event_id=ids.new("evt"), created=SIGNED_AT, livemode=False))

    async with fake_and_client(fake) as client:
        found = await client.v1.products.list_async()

    assert [obj.to_dict() for obj in found.data] == [renamed]


# The command


@asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "fake-stripe", "--port", "0", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await asyncio.wait_for(process.stdout.readline(), 30)


async def test_the_command_serves_a_shops_life_with_the_key_that_it_prints() -> None:
    inbox = Inbox()
    async with (
        receiving(inbox) as origin,
        command("--json", "--shops", "1", "--every", "0.01", "--reach", f"{PUBLIC}={origin}") as process,
    ):
        said = orjson.loads(await _line(process))
        async with client_of(said["url"], said["key"]) as client:
            past = await client.v1.payment_intents.list_async({"limit": 100})
            await client.v1.webhook_endpoints.create_async({"url": f"{PUBLIC}/webhooks/shop", "enabled_events": ["*"]})
            await eventually(lambda: len(inbox.deliveries) > 3, what="new events are delivered")
            delivered = await client.v1.events.retrieve_async(inbox.ids[0])
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0

    assert len(past.data) >= 8
    assert abs(delivered.created - datetime.now(UTC).timestamp()) < 120
    assert said["account"].startswith("acct_")


async def test_the_command_makes_a_restricted_key_and_keeps_to_a_rate() -> None:
    async with command(
        "--json", "--every", "0", "--mode", "live", "--permission", "event_read", "--rate", "0.1"
    ) as process:
        said = orjson.loads(await _line(process))
        assert said["key"].startswith("rk_live_")
        async with client_of(said["url"], said["key"]) as client:
            assert len((await client.v1.events.list_async({"limit": 5})).data) == 5
            with pytest.raises(stripe.RateLimitError):
                await client.v1.prices.list_async()


async def test_the_command_says_what_a_person_needs() -> None:
    async with command("--shops", "0", "--every", "0.05") as process:
        lines = [await _line(process) for _ in range(7)]

    assert lines[0].startswith(b"A fake Stripe is at http://127.0.0.1:")
    assert lines[1].split()[1].startswith(b"sk_test_")
    assert b"base_addresses" in lines[4]
    assert lines[6].split()[0].startswith(b"evt_")


@pytest.mark.parametrize("arguments", [("--reach", "https://shop.example.com"), ("--permission", "price_read")])
def test_the_command_refuses_what_it_does_not_understand(arguments: tuple[str, ...]) -> None:
    refused = CliRunner().invoke(fake_stripe, arguments)

    assert refused.exit_code == 2
    assert arguments[0] in refused.output
