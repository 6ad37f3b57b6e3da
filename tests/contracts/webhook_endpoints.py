"""What every `WebhookEndpoints` promises. A test module inherits the class and gives a harness for its client."""

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Protocol

import pytest

from service.credentials.book import WebhookEndpointParams
from service.errors import (
    StripeKeyRefused,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
    WebhookEndpointsFull,
)
from service.ports import WebhookEndpoint, WebhookEndpoints

ENDPOINTS_MAX: Final = 16
API_VERSION: Final = "2026-10-28.endive"


class WebhookEndpointsHarness(Protocol):
    """An account in test mode without any webhook endpoint, and a client whose key may read and write them."""

    @property
    def client(self) -> WebhookEndpoints: ...

    def client_of(self, permissions: Collection[str]) -> AbstractAsyncContextManager[WebhookEndpoints]:
        """A client whose key has these permissions only."""
        ...

    def client_with_wrong_key(self) -> AbstractAsyncContextManager[WebhookEndpoints]:
        """A client whose key Stripe does not know."""
        ...


def params(
    path: str = "/webhooks/shop",
    *,
    events: Collection[str] = ("charge.refunded", "charge.succeeded"),
    api_version: str | None = API_VERSION,
    connect: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> WebhookEndpointParams:
    return WebhookEndpointParams(
        url=f"https://hooks.example.com{path}",
        enabled_events=tuple(events),
        api_version=api_version,
        connect=connect,
        description="stripe-ingest: shop",
        metadata={"stripe_ingest_endpoint": "shop"} if metadata is None else metadata,
    )


async def one(client: WebhookEndpoints) -> WebhookEndpoint:
    """The only one there is."""
    (endpoint,) = await client.all()
    return endpoint


class WebhookEndpointsContract:
    """Tests that hold for all clients; the subclass provides the `harness` fixture."""

    async def test_where_there_is_none_none_is_listed(self, harness: WebhookEndpointsHarness) -> None:
        assert list(await harness.client.all()) == []

    async def test_one_is_made_as_asked_for_and_its_secret_told(self, harness: WebhookEndpointsHarness) -> None:
        wanted = params()

        created = await harness.client.create(wanted, idempotency_key="key_1")

        assert created.secret.value.startswith("whsec_")
        assert created.secret.value not in repr(created)
        made = created.endpoint
        assert made.id.startswith("we_")
        assert (made.url, set(made.enabled_events), made.api_version) == (
            wanted.url, set(wanted.enabled_events), API_VERSION,
        )  # fmt: skip
        assert (made.enabled, made.description, dict(made.metadata)) == (
            True, wanted.description, dict(wanted.metadata),
        )  # fmt: skip
        assert made.created_at.tzinfo is not None
        assert await one(harness.client) == made

    async def test_without_an_api_version_it_follows_the_account(self, harness: WebhookEndpointsHarness) -> None:
        created = await harness.client.create(params(api_version=None), idempotency_key="key_1")

        assert created.endpoint.api_version is None

    async def test_all_events_and_no_metadata_are_as_good(self, harness: WebhookEndpointsHarness) -> None:
        created = await harness.client.create(params(events=["*"], metadata={}), idempotency_key="key_1")

        assert created.endpoint.enabled_events == ("*",)
        assert dict(created.endpoint.metadata) == {}

    async def test_one_for_connected_accounts_is_made(self, harness: WebhookEndpointsHarness) -> None:
        await harness.client.create(params(connect=True), idempotency_key="key_1")

        assert (await one(harness.client)).url == params().url

    async def test_the_same_key_gives_the_same_one_and_its_secret_again(self, harness: WebhookEndpointsHarness) -> None:
        first = await harness.client.create(params(), idempotency_key="key_1")
        again = await harness.client.create(params(), idempotency_key="key_1")

        assert (again.endpoint.id, again.secret) == (first.endpoint.id, first.secret)
        assert (await one(harness.client)).id == first.endpoint.id

    async def test_the_same_key_for_something_else_is_refused(self, harness: WebhookEndpointsHarness) -> None:
        await harness.client.create(params(), idempotency_key="key_1")

        with pytest.raises(StripeRequestRefused):
            await harness.client.create(params("/webhooks/other"), idempotency_key="key_1")

        assert (await one(harness.client)).url == params().url

    async def test_another_key_makes_another_one_at_the_same_url(self, harness: WebhookEndpointsHarness) -> None:
        first = await harness.client.create(params(), idempotency_key="key_1")
        other = await harness.client.create(params(), idempotency_key="key_2")

        assert other.endpoint.id != first.endpoint.id
        assert other.secret != first.secret
        assert {each.id for each in await harness.client.all()} == {first.endpoint.id, other.endpoint.id}

    async def test_all_are_listed_up_to_the_limit_and_then_it_is_full(self, harness: WebhookEndpointsHarness) -> None:
        for n in range(ENDPOINTS_MAX):
            await harness.client.create(params(f"/webhooks/{n}"), idempotency_key=f"key_{n}")

        with pytest.raises(WebhookEndpointsFull, match="16"):
            await harness.client.create(params("/webhooks/more"), idempotency_key="key_more")

        assert [each.url.rpartition("/")[2] for each in await harness.client.all()] == [
            str(n) for n in reversed(range(ENDPOINTS_MAX))
        ]
        again = await harness.client.create(params("/webhooks/3"), idempotency_key="key_3")
        assert again.endpoint.url.endswith("/3")

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (replace(params(), url="https://localhost/webhooks/shop"), "publicly accessible"),
            (replace(params(), url="hooks.example.com/webhooks/shop"), "explicit scheme"),
            (replace(params(), enabled_events=("nonsense",)), "enabled_events"),
        ],
    )
    async def test_what_stripe_refuses_is_said_in_its_words(
        self, harness: WebhookEndpointsHarness, wrong: WebhookEndpointParams, said: str
    ) -> None:
        with pytest.raises(StripeRequestRefused, match=said):
            await harness.client.create(wrong, idempotency_key="key_1")

        assert list(await harness.client.all()) == []

    async def test_each_change_leaves_the_rest(self, harness: WebhookEndpointsHarness) -> None:
        made = (await harness.client.create(params(), idempotency_key="key_1")).endpoint

        moved = await harness.client.update(made.id, url="https://hooks.example.com/moved")
        assert moved == replace(made, url="https://hooks.example.com/moved")
        widened = await harness.client.update(made.id, enabled_events=["*"])
        assert widened == replace(moved, enabled_events=("*",))
        off = await harness.client.update(made.id, enabled=False)
        assert off == replace(widened, enabled=False)
        on = await harness.client.update(made.id, enabled=True)
        assert on == widened
        marked = await harness.client.update(made.id, metadata={"more": "yes"})
        assert marked == replace(on, metadata={**made.metadata, "more": "yes"})
        assert await one(harness.client) == marked
        unmarked = await harness.client.update(made.id, metadata={"more": ""})
        assert unmarked == on

    async def test_several_changes_are_made_at_once(self, harness: WebhookEndpointsHarness) -> None:
        made = (await harness.client.create(params(), idempotency_key="key_1")).endpoint

        after = await harness.client.update(
            made.id, url="https://hooks.example.com/moved", enabled_events=["charge.succeeded"], enabled=False
        )

        assert (after.url, after.enabled_events, after.enabled) == (
            "https://hooks.example.com/moved", ("charge.succeeded",), False,
        )  # fmt: skip

    async def test_a_change_that_stripe_refuses_changes_nothing(self, harness: WebhookEndpointsHarness) -> None:
        made = (await harness.client.create(params(), idempotency_key="key_1")).endpoint

        with pytest.raises(StripeRequestRefused, match="publicly accessible"):
            await harness.client.update(made.id, url="https://localhost/")

        assert await one(harness.client) == made

    async def test_what_is_not_there_cannot_be_changed(self, harness: WebhookEndpointsHarness) -> None:
        with pytest.raises(StripeObjectMissing):
            await harness.client.update("we_unknown", enabled=False)

    async def test_one_that_is_deleted_is_gone_and_deleting_it_again_is_no_error(
        self, harness: WebhookEndpointsHarness
    ) -> None:
        first = (await harness.client.create(params(), idempotency_key="key_1")).endpoint
        other = (await harness.client.create(params("/other"), idempotency_key="key_2")).endpoint

        await harness.client.delete(first.id)
        await harness.client.delete(first.id)

        assert (await one(harness.client)).id == other.id

    async def test_a_key_that_may_read_may_not_write(self, harness: WebhookEndpointsHarness) -> None:
        made = (await harness.client.create(params(), idempotency_key="key_1")).endpoint
        async with harness.client_of({"webhook_read"}) as client:
            assert await one(client) == made
            with pytest.raises(StripePermissionMissing) as no_create:
                await client.create(params("/more"), idempotency_key="key_2")
            with pytest.raises(StripePermissionMissing) as no_update:
                await client.update(made.id, enabled=False)
            with pytest.raises(StripePermissionMissing) as no_delete:
                await client.delete(made.id)

        assert {refused.value.scope for refused in (no_create, no_update, no_delete)} == {"webhook_write"}
        assert await one(harness.client) == made

    async def test_a_key_that_may_write_may_read(self, harness: WebhookEndpointsHarness) -> None:
        async with harness.client_of({"webhook_write"}) as client:
            made = (await client.create(params(), idempotency_key="key_1")).endpoint
            assert await one(client) == made

    async def test_a_key_that_may_neither_is_told_what_it_lacks(self, harness: WebhookEndpointsHarness) -> None:
        async with harness.client_of({"event_read"}) as client:
            with pytest.raises(StripePermissionMissing, match="webhook_read") as refused:
                await client.all()

        assert refused.value.scope == "webhook_read"

    async def test_a_key_that_stripe_does_not_know_is_refused(self, harness: WebhookEndpointsHarness) -> None:
        async with harness.client_with_wrong_key() as client:
            with pytest.raises(StripeKeyRefused):
                await client.all()
            with pytest.raises(StripeKeyRefused):
                await client.create(params(), idempotency_key="key_1")
