"""The memory twin of Stripe's API keeps the port's promises, and fails on command."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.adapters.memory_stripe import MemoryStripe
from service.clock import SystemClock
from service.errors import StripeObjectMissing, StripeUnavailable
from service.ports import StripeList, StripeReader
from tests.contracts.stripe_reader import StripeReaderContract, an_object, event, ids, now


class MemoryHarness:
    """An account in this process."""

    def __init__(self) -> None:
        self.stripe = MemoryStripe(SystemClock())
        self.reader = self.stripe.reader()

    def put(self, name: StripeList, obj: dict[str, Any]) -> None:
        self.stripe.put(name, obj)

    def add(self, event: dict[str, Any], *, delivered: bool = True) -> None:
        self.stripe.add(event if delivered else event | {"pending_webhooks": 1})

    @asynccontextmanager
    async def reader_of(self, permissions: Collection[str]) -> AsyncIterator[StripeReader]:
        yield self.stripe.reader(permissions)

    @asynccontextmanager
    async def reader_with_wrong_key(self) -> AsyncIterator[StripeReader]:
        yield self.stripe.reader_with_wrong_key()


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestMemoryStripe(StripeReaderContract):
    """The contract."""

    async def test_a_fault_meets_one_call_and_the_next_is_answered(self, harness: MemoryHarness) -> None:
        harness.add(event("evt_1", created=now()))
        harness.stripe.fail(StripeUnavailable("away"))

        with pytest.raises(StripeUnavailable):
            await harness.reader.events()

        assert ids(await harness.reader.events()) == ["evt_1"]
        assert harness.stripe.requests == 2

    async def test_a_page_cannot_go_on_after_an_object_that_was_deleted(self, harness: MemoryHarness) -> None:
        for n in range(101):
            harness.put("customers", an_object("customers", f"cus_{n}", created=now() - n))
        page = await harness.reader.objects("customers")
        harness.stripe.remove("customers", "cus_99")

        with pytest.raises(StripeObjectMissing):
            await harness.reader.objects("customers", after=page.next_after)
