"""The parts of the fake Stripe that need no connection: pages, parameters, keys, limits, what it remembers."""

from typing import Any
from urllib.parse import urlencode

import pytest

from service.simulator.events import DAY, sample
from service.simulator.fake_stripe import PERMISSIONS, FakeStripe, KeyMode, RateLimited, Request
from service.simulator.fake_stripe.forms import decode
from service.simulator.fake_stripe.keys import LABELS, Key, Keys, masked
from service.simulator.fake_stripe.refusals import Refusal
from service.simulator.fake_stripe.shelf import Page, Shelf, Span
from service.simulator.fake_stripe.trouble import Lost, Trouble
from service.simulator.objects import Ids, Object
from tests.support.fake_stripe import ManualClock
from tests.support.signing import SIGNED_AT


def shelf(*created: int) -> Shelf:
    """Objects a, b, c, … made at these times."""
    made = Shelf("thing")
    for name, second in zip("abcdefghij", created, strict=False):
        made.put({"id": name, "created": second})
    return made


def ids(page: tuple[list[Object], bool]) -> str:
    objects, more = page
    return "".join(obj["id"] for obj in objects) + ("…" if more else "")


def everything(_: Object) -> bool:
    return True


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "ecdba"),
        ({"limit": "2"}, "ec…"),
        ({"limit": "5"}, "ecdba"),
        ({"limit": "2", "starting_after": "c"}, "db…"),
        ({"starting_after": "a"}, ""),
        ({"limit": "2", "ending_before": "a"}, "db…"),
        ({"limit": "9", "ending_before": "d"}, "ec"),
        ({"ending_before": "e"}, ""),
        ({"created": "20"}, "db"),
        ({"created": {"gt": "20"}}, "ec"),
        ({"created": {"gte": "20", "lt": "30"}}, "db"),
        ({"created": {"lte": "20"}, "limit": "2"}, "db…"),
        ({"created": {"gte": "20"}, "starting_after": "e"}, "cdb"),
        ({"created": {"lt": "30"}, "ending_before": "a"}, "db"),
        ({"created": {"gte": "30", "lt": "20"}}, ""),
    ],
)
def test_a_page_is_newest_first_within_its_bounds(params: dict[str, Any], expected: str) -> None:
    things = shelf(10, 20, 30, 20, 40)

    assert ids(things.page(Page.of(params), everything)) == expected


def test_has_more_counts_only_what_is_wanted() -> None:
    things = shelf(10, 20, 30, 40)

    def wanted(obj: Object) -> bool:
        return bool(obj["created"] >= 30)

    assert ids(things.page(Page.of({"limit": "2"}), wanted)) == "dc"


def test_paging_goes_on_from_an_object_that_was_deleted_meanwhile() -> None:
    things = shelf(10, 20, 30)
    first = things.page(Page.of({"limit": "2"}), everything)
    things.delete("b")

    assert ids(first) == "cb…"
    assert ids(things.page(Page.of({"starting_after": "b"}), everything)) == "a"
    assert things.get("b") == {"id": "b", "object": "thing", "deleted": True}
    assert len(things) == 2


def test_what_comes_while_somebody_pages_neither_moves_nor_repeats_the_rest() -> None:
    things = shelf(10, 20, 30)
    first = things.page(Page.of({"limit": "2"}), everything)
    things.put({"id": "new", "created": 99})
    things.put({"id": "late", "created": 15})

    assert ids(first) == "cb…"
    assert ids(things.page(Page.of({"starting_after": "b"}), everything)) == "latea"


def test_a_later_state_of_a_deleted_object_does_not_bring_it_back() -> None:
    things = shelf(10)
    things.delete("a")
    things.put({"id": "a", "created": 10})

    assert ids(things.page(Page.of({}), everything)) == ""
    assert things.get("a") == {"id": "a", "object": "thing", "deleted": True}


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"limit": "0"}, "limit", "parameter_invalid_integer"),
        ({"limit": "101"}, "limit", "parameter_invalid_integer"),
        ({"limit": "ten"}, "limit", "parameter_invalid_integer"),
        ({"starting_after": "x"}, "starting_after", "resource_missing"),
        ({"ending_before": "x"}, "ending_before", "resource_missing"),
        ({"starting_after": "a", "ending_before": "a"}, "ending_before", "parameters_exclusive"),
        ({"created": {"since": "1"}}, "created[since]", "parameter_unknown"),
        ({"created": {"gt": "noon"}}, "created[gt]", "parameter_invalid_integer"),
    ],
)
def test_a_page_that_cannot_be_is_refused_by_the_name_of_its_parameter(
    params: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(Refusal) as refused:
        shelf(10).page(Page.of(params), everything)

    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)
    assert refused.value.body()["error"]["type"] == "invalid_request_error"


def test_a_span_within_another_begins_at_the_later_of_both() -> None:
    assert Span(5, 10).within(7) == Span(7, 10)
    assert Span(5, 10).within(3) == Span(5, 10)
    assert Span().within(3) == Span(3)


def test_parameters_are_decoded_as_the_official_clients_encode_them() -> None:
    encoded = urlencode(
        [
            ("limit", "3"),
            ("types[1]", "b.c"),
            ("types[0]", "a.b"),
            ("expand[]", "data.customer"),
            ("expand[]", "data.invoice"),
            ("created[gte]", "17"),
            ("metadata[order]", "ä&="),
            ("description", ""),
        ]
    )

    assert decode(encoded) == {
        "limit": "3",
        "types": ["a.b", "b.c"],
        "expand": ["data.customer", "data.invoice"],
        "created": {"gte": "17"},
        "metadata": {"order": "ä&="},
        "description": "",
    }


@pytest.mark.parametrize(
    "encoded", ["a=1&a[b]=2", "a[b[=1", "[x]=1", "a[b][c][d][e][f][g]=1", "&".join(f"p{n}=1" for n in range(1_001))]
)
def test_parameters_that_make_no_sense_are_refused(encoded: str) -> None:
    with pytest.raises(Refusal):
        decode(encoded)


def test_to_write_is_to_read_and_nothing_else() -> None:
    key = Key("rk_test_x", "acct_1", livemode=False, permissions=frozenset({"plan_write", "event_read"}))

    assert {permission for permission in PERMISSIONS if key.allows(permission)} == {
        "plan_write",
        "plan_read",
        "event_read",
    }


def test_a_secret_key_may_do_everything() -> None:
    assert all(Key("sk_test_x", "acct_1", livemode=False).allows(permission) for permission in PERMISSIONS)


def test_a_missing_permission_is_named_as_stripe_names_it() -> None:
    value = "rk_live_1AbCdEfGhIjKlMnOpQrStUvW"
    key = Key(value, "acct_1Shop", livemode=True, permissions=frozenset())

    with pytest.raises(Refusal) as refused:
        key.require("webhook_read")

    assert refused.value.status == 403
    assert refused.value.code == "more_permissions_required"
    assert str(refused.value).startswith("Permission denied. The provided key 'rk_live_")
    assert (
        "on account 'acct_1Shop'. Enabling Webhook Endpoints, Event Destinations Read ('webhook_read') permissions on"
        " this key would allow this request to continue." in str(refused.value)
    )
    assert value not in str(refused.value)


def test_every_permission_has_a_label() -> None:
    assert {permission.rpartition("_")[0] for permission in PERMISSIONS} == LABELS.keys()


@pytest.mark.parametrize(
    "value", ["", "x", "sk_test", "sk_test_abc", "sk_test_abcdef", "no key at all of any kind", "ü" * 40]
)
def test_a_masked_key_is_not_the_key(value: str) -> None:
    assert masked(value) != value or value == ""
    assert len(masked(value)) == len(value)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic !", "Basic w7w6", "Digest abc"])
def test_a_request_without_a_key_is_told_how_to_send_one(header: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        Keys(Ids(1)).of(header)

    assert refused.value.status == 401
    assert str(refused.value).startswith("You did not provide an API key.")


def test_a_permission_that_there_is_not_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="price_read"):
        FakeStripe().new_key(permissions={"price_read", "event_read"})


def test_a_rate_limit_lets_a_burst_through_and_then_its_rate() -> None:
    trouble = Trouble()
    trouble.limit(2.0, burst=3)
    refused: list[str] = []
    for tenth in range(40):
        try:
            trouble.pass_through("account", tenth / 10)
        except Refusal as refusal:
            refused.append(refusal.headers["Retry-After"])

    # Three at once, and two in each of the seconds after.
    assert 40 - len(refused) == 3 + 7
    assert set(refused) == {"1"}
    assert trouble.rate_limited == len(refused)


def test_a_rate_limit_saves_no_more_than_a_burst() -> None:
    trouble = Trouble()
    trouble.limit(5.0, burst=2)
    trouble.pass_through("account", 0.0)
    trouble.pass_through("account", 1_000.0)
    trouble.pass_through("account", 1_000.0)

    with pytest.raises(Refusal):
        trouble.pass_through("account", 1_000.0)


def test_each_account_has_a_rate_of_its_own() -> None:
    trouble = Trouble()
    trouble.limit(1.0)
    trouble.pass_through("one", 0.0)
    trouble.pass_through("other", 0.0)

    with pytest.raises(Refusal):
        trouble.pass_through("one", 0.5)


def test_trouble_strikes_the_requests_that_it_was_planned_for() -> None:
    trouble = Trouble()
    trouble.next(RateLimited(2), times=2, after=1, path="/v1/events")
    trouble.next(Lost.BEFORE, method="POST")

    asked = [("GET", "/v1/prices"), ("GET", "/v1/events"), ("GET", "/v1/events"), ("POST", "/v1/prices")]
    assert [trouble.take(*request) for request in asked] == [None, None, RateLimited(2), Lost.BEFORE]
    assert [trouble.take("GET", "/v1/events/evt_1") for _ in range(2)] == [RateLimited(2), None]


def test_a_share_of_trouble_is_repeatable_and_ends_with_clear() -> None:
    def struck(seed: int) -> list[bool]:
        trouble = Trouble()
        trouble.share(Lost.AFTER, 0.3, seed=seed)
        return [trouble.take("GET", "/v1/events") is not None for _ in range(200)]

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90
    trouble = Trouble()
    trouble.share(Lost.AFTER, 1.0, seed=1)
    trouble.clear()
    assert trouble.take("GET", "/v1/events") is None


def test_the_most_requests_within_a_time_are_counted_by_path() -> None:
    fake = FakeStripe()
    for path, at in (("/v1/events", 0.0), ("/v1/events", 0.9), ("/v1/events", 1.0), ("/v1/prices", 1.0)):
        fake.record(Request("GET", path, at, 200))

    assert fake.most_within(1.0) == 3
    assert fake.most_within(1.0, path="/v1/events") == 2
    assert fake.most_within(1.5, path="/v1/events") == 3
    assert fake.most_within(1.0, path="/v1/refunds") == 0


def test_the_objects_are_as_the_event_added_last_shows_them() -> None:
    fake = FakeStripe(clock=ManualClock())
    event = sample("product.updated", seed=1, created=SIGNED_AT)
    newer = {**event["data"]["object"], "name": "newer"}
    fake.add({**event, "id": "evt_new", "data": {"object": newer}})
    fake.add(event)
    fake.add({**event, "id": "evt_new", "data": {"object": {**newer, "name": "an id that is there"}}})
    book = fake.book(fake.account, livemode=False)

    assert len(book.events) == 2
    found = book.of("product").get(event["data"]["object"]["id"])
    assert found is not None
    assert found["name"] == event["data"]["object"]["name"]


@pytest.mark.parametrize("event_type", ["customer.deleted", "product.deleted", "price.deleted", "invoice.deleted"])
def test_what_is_deleted_leaves_the_list_and_says_so(event_type: str) -> None:
    fake = FakeStripe(clock=ManualClock())
    event = sample(event_type, seed=1, created=SIGNED_AT)
    obj = event["data"]["object"]
    fake.add(event)
    objects = fake.book(fake.account, livemode=False).of(obj["object"])

    assert len(objects) == 0
    assert objects.get(obj["id"]) == {"id": obj["id"], "object": obj["object"], "deleted": True}


def test_a_subscription_that_ended_is_still_there() -> None:
    fake = FakeStripe(clock=ManualClock())
    event = sample("customer.subscription.deleted", seed=1, created=SIGNED_AT)
    fake.add(event)

    found = fake.book(fake.account, livemode=False).of("subscription").get(event["data"]["object"]["id"])
    assert found is not None
    assert found["status"] == "canceled"


def test_a_preview_is_an_event_and_no_object() -> None:
    fake = FakeStripe(clock=ManualClock())
    fake.add(sample("invoice.upcoming", seed=1, created=SIGNED_AT))
    book = fake.book(fake.account, livemode=False)

    assert len(book.events) == 1
    assert len(book.of("invoice")) == 0


def test_a_thin_event_is_no_event_of_the_list() -> None:
    with pytest.raises(ValueError, match="snapshot"):
        FakeStripe().add({"object": "v2.core.event", "id": "evt_1"})


def test_an_event_is_told_of_for_thirty_days() -> None:
    clock = ManualClock()
    fake = FakeStripe(clock=clock)

    assert fake.oldest_told() == SIGNED_AT - 30 * DAY
    clock.advance(DAY)
    assert fake.oldest_told() == SIGNED_AT - 29 * DAY


def test_pending_counts_the_endpoints_that_an_event_was_for() -> None:
    fake = FakeStripe(clock=ManualClock())
    all_events = fake.register("http://127.0.0.1:1/all", ["*"])
    fake.register("http://127.0.0.1:1/refunds", ["charge.refunded"])
    fake.register("http://127.0.0.1:1/prices", ["price.created"])
    fake.register("http://127.0.0.1:1/live", ["*"], mode="live")
    fake.register("http://127.0.0.1:1/connect", ["*"], connect=True)
    event = sample("charge.refunded", seed=1, created=SIGNED_AT)
    fake.add(event)

    assert fake.pending(event["id"]) == 2
    fake.book(fake.account, livemode=False).endpoints.delete(all_events["id"])
    assert fake.pending(event["id"]) == 1
    fake.mark_delivered(event["id"])
    assert fake.pending(event["id"]) == 0


def test_a_connected_accounts_event_is_for_the_platforms_connect_endpoint() -> None:
    fake = FakeStripe(clock=ManualClock())
    fake.register("http://127.0.0.1:1/own", ["*"])
    fake.register("http://127.0.0.1:1/connect", ["*"], connect=True)
    event = sample("charge.refunded", seed=1, created=SIGNED_AT, account="acct_connected")
    fake.add(event)

    assert fake.pending(event["id"]) == 1
    assert fake.deliveries.waiting == 1
    assert len(fake.book("acct_connected", livemode=False).events) == 1
    assert len(fake.book(fake.account, livemode=False).events) == 0


@pytest.mark.parametrize(("livemode", "pending"), [(False, 2), (True, 1)])
def test_a_live_connect_endpoint_gets_the_test_events_of_connected_accounts_too(livemode: bool, pending: int) -> None:
    fake = FakeStripe(clock=ManualClock())
    modes: tuple[KeyMode, ...] = ("test", "live")
    for mode in modes:
        fake.register("http://127.0.0.1:1/own", ["*"], mode=mode)
        fake.register("http://127.0.0.1:1/connect", ["*"], mode=mode, connect=True)
    event = sample("charge.refunded", seed=1, created=SIGNED_AT, account="acct_connected", livemode=livemode)
    fake.add(event)

    assert fake.pending(event["id"]) == pending


def test_a_share_of_deliveries_never_begins_and_stays_pending() -> None:
    def begun(seed: int) -> list[bool]:
        fake = FakeStripe(clock=ManualClock())
        fake.register("http://127.0.0.1:1/all", ["*"])
        fake.deliveries.drop(0.25, seed=seed)
        outcome = []
        for number in range(100):
            before = fake.deliveries.waiting
            event = sample("charge.refunded", seed=number, created=SIGNED_AT)
            fake.add(event)
            assert fake.pending(event["id"]) == 1
            outcome.append(fake.deliveries.waiting > before)
        return outcome

    assert begun(1) == begun(1) != begun(2)
    assert 60 <= sum(begun(1)) <= 90
