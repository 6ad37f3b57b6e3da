"""The memory twin of an account's webhook endpoints keeps the port's promises, and fails on command."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from service.adapters.memory_webhook_endpoints import MemoryWebhookEndpoints
from service.errors import SecretNotTold, StripeUnavailable
from service.ports import WebhookEndpoints
from tests.contracts.webhook_endpoints import WebhookEndpointsContract, one, params
from tests.support.fake_stripe import ManualClock


class MemoryHarness:
    """An account in this process."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.account = MemoryWebhookEndpoints(self.clock)
        self.client = self.account.client()

    @asynccontextmanager
    async def client_of(self, permissions: Collection[str]) -> AsyncIterator[WebhookEndpoints]:
        yield self.account.client(permissions)

    @asynccontextmanager
    async def client_with_wrong_key(self) -> AsyncIterator[WebhookEndpoints]:
        yield self.account.client_with_wrong_key()


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestMemoryWebhookEndpoints(WebhookEndpointsContract):
    """The contract."""

    async def test_a_fault_meets_the_call_it_is_for(self, harness: MemoryHarness) -> None:
        harness.account.fail(StripeUnavailable("away"), after=1)

        await harness.client.create(params(), idempotency_key="key_1")
        with pytest.raises(StripeUnavailable):
            await harness.client.create(params(), idempotency_key="key_2")

        assert (await one(harness.client)).url == params().url
        assert harness.account.calls == 3

    async def test_an_answer_is_lost_and_the_work_is_done(self, harness: MemoryHarness) -> None:
        harness.account.fail(KeyboardInterrupt(), done=True)

        with pytest.raises(KeyboardInterrupt):
            await harness.client.create(params(), idempotency_key="key_1")

        again = await harness.client.create(params(), idempotency_key="key_1")
        assert await one(harness.client) == again.endpoint

    async def test_an_idempotency_key_is_forgotten_after_a_day(self, harness: MemoryHarness) -> None:
        first = await harness.client.create(params(), idempotency_key="key_1")
        harness.clock.advance(24 * 3600)

        assert (await harness.client.create(params(), idempotency_key="key_1")).endpoint.id != first.endpoint.id

    async def test_an_answer_may_have_no_secret(self, harness: MemoryHarness) -> None:
        harness.account.tells_secrets = False

        with pytest.raises(SecretNotTold):
            await harness.client.create(params(), idempotency_key="key_1")

        assert (await one(harness.client)).url == params().url
