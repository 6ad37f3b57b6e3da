"""What every `StripeReader` promises. A test module inherits the class and gives a harness for its reader."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, get_args

import pytest

from service.errors import StripeKeyRefused, StripeObjectMissing, StripePermissionMissing, StripeRequestRefused
from service.ports import EVENT_TYPES_MAX, StripeList, StripeObject, StripePage, StripeReader

PAGES_MAX: Final = 100
OBJECT_TYPES: Final[dict[StripeList, str]] = {
    "products": "product",
    "prices": "price",
    "customers": "customer",
    "subscriptions": "subscription",
    "payment_intents": "payment_intent",
    "charges": "charge",
    "refunds": "refund",
    "invoices": "invoice",
    "disputes": "dispute",
    "checkout_sessions": "checkout.session",
    "invoice_payments": "invoice_payment",
}


class StripeHarness(Protocol):
    """An account in test mode with nothing in it, and a reader whose key may read everything."""

    @property
    def reader(self) -> StripeReader: ...

    def put(self, name: StripeList, obj: dict[str, Any]) -> None:
        """Put an object in, or its new state."""
        ...

    def add(self, event: dict[str, Any], *, delivered: bool = True) -> None:
        """Something happened, and every endpoint has taken it or one has not."""
        ...

    def reader_of(self, permissions: Collection[str]) -> AbstractAsyncContextManager[StripeReader]:
        """A reader whose key has these permissions only."""
        ...

    def reader_with_wrong_key(self) -> AbstractAsyncContextManager[StripeReader]:
        """A reader whose key Stripe does not know."""
        ...


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def event(id_: str, *, created: int, type_: str = "customer.created") -> dict[str, Any]:
    return {
        "id": id_,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": created,
        "data": {
            "object": {"id": f"cus_{id_}", "object": "customer", "name": "Zoë \U0001f600 / \\", "created": created}
        },
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": None, "idempotency_key": None},
        "type": type_,
    }


def an_object(name: StripeList, id_: str, *, created: int, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "object": OBJECT_TYPES[name], "created": created, "livemode": False, "metadata": {}} | fields


def ids(page: StripePage) -> list[str]:
    return [obj.id for obj in page.objects]


async def walk(read: Callable[[str | None], Awaitable[StripePage]]) -> AsyncIterator[StripePage]:
    after: str | None = None
    for _ in range(PAGES_MAX):
        page = await read(after)
        yield page
        after = page.next_after
        if after is None:
            return
    pytest.fail("the list has no end")


async def all_of(read: Callable[[str | None], Awaitable[StripePage]]) -> list[StripeObject]:
    return [obj async for page in walk(read) for obj in page.objects]


class StripeReaderContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    async def test_an_empty_list_is_one_empty_page(self, harness: StripeHarness) -> None:
        page = await harness.reader.events()

        assert (list(page.objects), page.next_after) == ([], None)

    async def test_events_come_newest_first_a_hundred_a_page_and_each_once(self, harness: StripeHarness) -> None:
        start = now() - 3600
        for n in range(250):
            harness.add(event(f"evt_{n}", created=start + n // 7))  # several share a second

        pages = [page async for page in walk(lambda after: harness.reader.events(after=after))]

        found = [obj for page in pages for obj in page.objects]
        assert [len(page.objects) for page in pages] == [100, 100, 50]
        assert {obj.id for obj in found} == {f"evt_{n}" for n in range(250)}
        times = [obj.created for obj in found]
        assert times == sorted(times, key=lambda time: time or at(0), reverse=True)

    async def test_a_last_page_that_is_full_has_none_after_it(self, harness: StripeHarness) -> None:
        for n in range(100):
            harness.add(event(f"evt_{n}", created=now() - n))

        page = await harness.reader.events()

        assert (len(page.objects), page.next_after) == (100, None)

    async def test_an_object_comes_with_its_json_its_time_and_when_it_was_so(self, harness: StripeHarness) -> None:
        created = now() - 5
        harness.add(event("evt_1", created=created))
        before = datetime.now(UTC).replace(microsecond=0)

        (listed,) = (await harness.reader.events()).objects
        single = await harness.reader.event("evt_1")

        for obj in (listed, single):
            assert json.loads(obj.body) == event("evt_1", created=created)
            assert (obj.id, obj.created) == ("evt_1", at(created))
            assert obj.api_version is not None
            assert obj.as_of.tzinfo is UTC
            assert obj.as_of.microsecond == 0
            # Its second may have begun before ours has ended, and the request has taken a part of one.
            assert before - timedelta(seconds=60) <= obj.as_of <= datetime.now(UTC)

    async def test_no_repr_shows_what_is_in_an_object(self, harness: StripeHarness) -> None:
        harness.add(event("evt_1", created=now()))

        assert "Zo" not in repr(await harness.reader.events())

    async def test_a_window_has_its_start_and_not_its_end(self, harness: StripeHarness) -> None:
        start = now() - 100
        for n in range(10):
            harness.add(event(f"evt_{n}", created=start + n))

        page = await harness.reader.events(created_from=at(start + 3), created_to=at(start + 6))

        assert ids(page) == ["evt_5", "evt_4", "evt_3"]

    async def test_a_window_may_begin_and_end_within_a_second(self, harness: StripeHarness) -> None:
        start = now() - 100
        for n in range(10):
            harness.add(event(f"evt_{n}", created=start + n))

        page = await harness.reader.events(created_from=at(start + 2.5), created_to=at(start + 5.5))

        assert ids(page) == ["evt_5", "evt_4", "evt_3"]

    @pytest.mark.parametrize(
        ("types", "found"),
        [
            ((), ["evt_4", "evt_3", "evt_2", "evt_1"]),
            (("charge.refunded",), ["evt_3"]),
            (("charge.refunded", "customer.created"), ["evt_3", "evt_1"]),
            (("charge.*",), ["evt_4", "evt_3"]),
        ],
    )
    async def test_events_of_some_types(self, harness: StripeHarness, types: tuple[str, ...], found: list[str]) -> None:
        for n, type_ in enumerate(("customer.created", "price.updated", "charge.refunded", "charge.succeeded"), 1):
            harness.add(event(f"evt_{n}", created=now() - 10 + n, type_=type_))

        assert ids(await harness.reader.events(types=types)) == found

    async def test_more_types_than_stripe_takes_are_refused(self, harness: StripeHarness) -> None:
        with pytest.raises(StripeRequestRefused):
            await harness.reader.events(types=[f"customer.n{n}" for n in range(EVENT_TYPES_MAX + 1)])

    async def test_events_by_whether_all_endpoints_have_taken_them(self, harness: StripeHarness) -> None:
        harness.add(event("evt_taken", created=now() - 2))
        harness.add(event("evt_pending", created=now() - 1), delivered=False)

        assert ids(await harness.reader.events()) == ["evt_pending", "evt_taken"]
        assert ids(await harness.reader.events(delivery_success=False)) == ["evt_pending"]
        assert ids(await harness.reader.events(delivery_success=True)) == ["evt_taken"]

    async def test_events_are_told_of_for_thirty_days(self, harness: StripeHarness) -> None:
        day = 86_400
        harness.add(event("evt_kept", created=now() - 29 * day))
        harness.add(event("evt_forgotten", created=now() - 31 * day))

        assert ids(await harness.reader.events()) == ["evt_kept"]
        with pytest.raises(StripeObjectMissing):
            await harness.reader.event("evt_forgotten")

    async def test_what_is_new_meanwhile_moves_nothing_that_is_still_to_come(self, harness: StripeHarness) -> None:
        start = now() - 1000
        for n in range(150):
            harness.add(event(f"evt_{n}", created=start + n))
        first = await harness.reader.events()
        for n in range(150, 200):
            harness.add(event(f"evt_{n}", created=start + n))

        second = await harness.reader.events(after=first.next_after)

        assert ids(first) + ids(second) == [f"evt_{n}" for n in reversed(range(150))]

    async def test_going_on_after_what_stripe_does_not_know_is_said_so(self, harness: StripeHarness) -> None:
        with pytest.raises(StripeObjectMissing):
            await harness.reader.events(after="evt_unknown")

    @pytest.mark.parametrize("name", get_args(StripeList))
    async def test_each_list_gives_its_objects_and_each_of_them_alone(
        self, harness: StripeHarness, name: StripeList
    ) -> None:
        created = now() - 60
        for n in range(3):
            harness.put(name, an_object(name, f"id_{n}", created=created + n, active=True, status="open"))

        found = await all_of(lambda after: harness.reader.objects(name, after=after))
        alone = await harness.reader.object(name, "id_1")

        assert [obj.id for obj in found] == ["id_2", "id_1", "id_0"]
        assert (
            json.loads(alone.body)
            == json.loads(found[1].body)
            == an_object(name, "id_1", created=created + 1, active=True, status="open")
        )

    async def test_a_list_of_objects_has_pages_and_a_window(self, harness: StripeHarness) -> None:
        start = now() - 1000
        for n in range(130):
            harness.put("charges", an_object("charges", f"ch_{n}", created=start + n))

        found = await all_of(
            lambda after: harness.reader.objects(
                "charges", created_from=at(start + 5), created_to=at(start + 125), after=after
            )
        )

        assert [obj.id for obj in found] == [f"ch_{n}" for n in reversed(range(5, 125))]

    async def test_a_canceled_subscription_is_listed_too(self, harness: StripeHarness) -> None:
        for n, status in enumerate(("active", "canceled", "incomplete_expired")):
            harness.put("subscriptions", an_object("subscriptions", f"sub_{n}", created=now() - n, status=status))

        assert ids(await harness.reader.objects("subscriptions")) == ["sub_0", "sub_1", "sub_2"]

    @pytest.mark.parametrize("name", ["products", "prices"])
    async def test_what_is_sold_no_more_is_listed_too(self, harness: StripeHarness, name: StripeList) -> None:
        for n in range(330):
            harness.put(name, an_object(name, f"id_{n}", created=now() - n, active=n % 3 == 0))

        found = await all_of(lambda after: harness.reader.objects(name, after=after))

        assert sorted(obj.id for obj in found) == sorted(f"id_{n}" for n in range(330))

    async def test_prices_that_are_all_sold_no_more_are_listed(self, harness: StripeHarness) -> None:
        harness.put("prices", an_object("prices", "price_1", created=now(), active=False))

        found = await all_of(lambda after: harness.reader.objects("prices", after=after))

        assert [obj.id for obj in found] == ["price_1"]

    async def test_a_read_gives_the_present_state(self, harness: StripeHarness) -> None:
        harness.put("refunds", an_object("refunds", "re_1", created=now(), status="pending"))
        harness.put("refunds", an_object("refunds", "re_1", created=now(), status="succeeded"))

        assert json.loads((await harness.reader.object("refunds", "re_1")).body)["status"] == "succeeded"
        (listed,) = (await harness.reader.objects("refunds")).objects
        assert json.loads(listed.body)["status"] == "succeeded"

    @pytest.mark.parametrize("object_id", ["ch_unknown", "../events", "a/b", "?limit=1", "..", "."])
    async def test_what_is_no_objects_id_is_missing_and_nothing_else(
        self, harness: StripeHarness, object_id: str
    ) -> None:
        with pytest.raises(StripeObjectMissing):
            await harness.reader.object("charges", object_id)
        with pytest.raises(StripeObjectMissing):
            await harness.reader.event(object_id)

    async def test_a_key_without_the_permission_is_told_which(self, harness: StripeHarness) -> None:
        harness.put("charges", an_object("charges", "ch_1", created=now()))
        async with harness.reader_of({"charge_read"}) as reader:
            assert ids(await reader.objects("charges")) == ["ch_1"]
            with pytest.raises(StripePermissionMissing) as no_events:
                await reader.events()
            with pytest.raises(StripePermissionMissing) as no_products:
                await reader.object("products", "prod_1")

        assert no_events.value.scope == "event_read"
        assert no_products.value.scope == "product_read"

    async def test_a_key_that_stripe_does_not_know_is_refused(self, harness: StripeHarness) -> None:
        async with harness.reader_with_wrong_key() as reader:
            with pytest.raises(StripeKeyRefused):
                await reader.events()

    async def test_of_many_at_once_each_gets_its_own_answer(self, harness: StripeHarness) -> None:
        for n in range(30):
            harness.put("customers", an_object("customers", f"cus_{n}", created=now()))

        found = await asyncio.gather(*(harness.reader.object("customers", f"cus_{n}") for n in range(30)))

        assert [obj.id for obj in found] == [f"cus_{n}" for n in range(30)]
