"""The fake Stripe beside Stripe's official stripe-mock, which answers every request by Stripe's own OpenAPI."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import stripe

from service.simulator.events import SAMPLE_EVENT_TYPES, sample
from service.simulator.fake_stripe import FakeStripe, serving
from service.simulator.objects import Object
from tests.support.fake_stripe import (
    STRIPE_MOCK_BUILD_SECONDS,
    ManualClock,
    needs_stripe_mock,
    stripe_mock,
    stripe_mock_binary,
)
from tests.support.signing import SIGNED_AT

pytestmark = [needs_stripe_mock, pytest.mark.timeout(STRIPE_MOCK_BUILD_SECONDS + 60)]

LISTS: dict[str, type[stripe.StripeObject]] = {
    "charges": stripe.Charge,
    "checkout/sessions": stripe.checkout.Session,
    "customers": stripe.Customer,
    "disputes": stripe.Dispute,
    "events": stripe.Event,
    "invoice_payments": stripe.InvoicePayment,
    "invoices": stripe.Invoice,
    "payment_intents": stripe.PaymentIntent,
    "prices": stripe.Price,
    "products": stripe.Product,
    "refunds": stripe.Refund,
    "subscriptions": stripe.Subscription,
    "webhook_endpoints": stripe.WebhookEndpoint,
}
KINDS = {vars(kind)["OBJECT_NAME"]: kind for kind in LISTS.values()}
JsonAnswer = tuple[int, dict[str, str], Any]


@pytest.fixture(scope="module")
async def mock_url() -> AsyncIterator[str]:
    async with stripe_mock(await asyncio.to_thread(stripe_mock_binary)) as url:
        yield url


@dataclass(frozen=True)
class Both:
    """The fake and the mock, and a key that either takes."""

    fake_url: str
    mock_url: str
    key: str

    async def answers(self, path: str, *, method: str = "GET", form: str = "") -> tuple[JsonAnswer, JsonAnswer]:
        """Ours and theirs to the same request."""
        asking = [asked(url, path, method=method, key=self.key, form=form) for url in (self.fake_url, self.mock_url)]
        ours, theirs = await asyncio.gather(*asking)
        return ours, theirs


@pytest.fixture
async def both(mock_url: str) -> AsyncIterator[Both]:
    """The fake has an object of every kind."""
    fake = FakeStripe(clock=ManualClock())
    fake.add_all(
        sample(event_type, seed=place, created=SIGNED_AT - 1)
        for place, event_type in enumerate(SAMPLE_EVENT_TYPES)
        if not event_type.endswith(".deleted")
    )
    fake.register("https://shop.example.com/webhooks", ["*"])
    async with serving(fake) as url:
        yield Both(url, mock_url, fake.new_key())


async def asked(url: str, path: str, *, method: str = "GET", key: str | None, form: str = "") -> JsonAnswer:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if form:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url + path, data=form or None) as response,
    ):
        return response.status, dict(response.headers), await response.json()


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_has_the_shape_of_stripes(path: str, both: Both) -> None:
    (status, headers, ours), (mock_status, mock_headers, theirs) = await both.answers(f"/v1/{path}?limit=1")

    assert status == mock_status == 200
    assert ours.keys() == theirs.keys() == {"object", "data", "has_more", "url"}
    assert (ours["object"], ours["url"]) == (theirs["object"], theirs["url"]) == ("list", f"/v1/{path}")
    kinds = [[obj["object"] for obj in listed["data"]] for listed in (ours, theirs)]
    assert kinds == [[name for name, kind in KINDS.items() if kind is LISTS[path]]] * 2
    assert headers["Request-Id"].startswith("req_")
    assert mock_headers["Request-Id"].startswith("req_")


@pytest.mark.parametrize("path", LISTS)
async def test_an_object_has_the_fields_of_stripes(path: str, both: Both) -> None:
    (_, _, listed), _ = await both.answers(f"/v1/{path}?limit=1")
    object_id = listed["data"][0]["id"]
    (status, _, ours), (mock_status, _, theirs) = await both.answers(f"/v1/{path}/{object_id}")

    assert status == mock_status == 200
    assert ours["id"] == theirs["id"] == object_id
    assert not differing(ours, theirs)


def differing(ours: Object, theirs: Object) -> dict[str, str]:
    """Fields of ours that Stripe's object does not have, or has with a value of another JSON type.

    The mock's fixtures leave out what is not always there; the official library knows those fields.
    """
    known = theirs.keys() | KINDS[ours["object"]].__annotations__.keys()
    found = dict.fromkeys(ours.keys() - known, "only ours")
    for name in ours.keys() & theirs.keys():
        if None not in (ours[name], theirs[name]) and type(ours[name]) is not type(theirs[name]):
            found[name] = f"{type(ours[name]).__name__}, at Stripe {type(theirs[name]).__name__}"
    return found


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("GET", "/v1/nothing", ""),
        ("GET", "/v1/customers?colour=red", ""),
        ("GET", "/v1/customers?limit=ten", ""),
        ("POST", "/v1/webhook_endpoints", "url=https%3A%2F%2Fshop.example.com"),
        ("POST", "/v1/webhook_endpoints", "enabled_events[0]=charge.failed"),
        ("POST", "/v1/webhook_endpoints", "url=https%3A%2F%2Fshop.example.com&enabled_events[0]=charge.created"),
    ],
)
async def test_what_stripe_refuses_is_refused_with_the_same_status_and_type(
    method: str, path: str, form: str, both: Both
) -> None:
    (status, _, ours), (mock_status, _, theirs) = await both.answers(path, method=method, form=form)

    assert status == mock_status
    assert ours["error"]["type"] == theirs["error"]["type"] == "invalid_request_error"
    assert ours["error"]["message"]


async def test_a_request_without_a_key_is_refused_alike(both: Both) -> None:
    status, _, ours = await asked(both.fake_url, "/v1/customers", key=None)
    mock_status, _, theirs = await asked(both.mock_url, "/v1/customers", key=None)

    assert status == mock_status == 401
    assert ours["error"]["type"] == theirs["error"]["type"]


async def test_an_endpoint_is_made_changed_and_deleted_alike(both: Both) -> None:
    form = "url=https%3A%2F%2Fshop.example.com%2Fmade&enabled_events[0]=charge.failed&description=made"
    answers = []
    for url in (both.fake_url, both.mock_url):
        made = (await asked(url, "/v1/webhook_endpoints", method="POST", key=both.key, form=form))[2]
        path = f"/v1/webhook_endpoints/{made['id']}"
        changed = (await asked(url, path, method="POST", key=both.key, form="description=changed"))[2]
        deleted = (await asked(url, path, method="DELETE", key=both.key))[2]
        answers.append((made, changed, deleted))
    (made, changed, deleted), (mock_made, mock_changed, mock_deleted) = answers

    assert not differing(made, mock_made)
    assert "secret" in made
    assert not differing(changed, mock_changed)
    assert "secret" not in changed
    assert deleted.keys() == mock_deleted.keys() == {"id", "object", "deleted"}
    assert (made["description"], changed["description"]) == ("made", "changed")
    assert (mock_made["url"], mock_changed["description"]) == (made["url"], changed["description"])
