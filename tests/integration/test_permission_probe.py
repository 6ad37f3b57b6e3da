"""What a key may do, by harmless calls: each scope in turn on the fake Stripe, and each path at stripe-mock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from service.clock import SystemClock
from service.errors import StripeKeyRefused, StripeUnavailable
from service.events import Secret
from service.simulator.fake_stripe import FakeStripe, serving
from service.simulator.fake_stripe.keys import LABELS
from service.stripe_account.calling import Retries, StripeCaller
from service.stripe_account.observer import StripeCounts
from service.stripe_account.permission_probe import PermissionProbe, Probed
from service.stripe_account.scopes import PROBE, RESOURCES, SCOPES, labelled
from tests.support.fake_stripe import STRIPE_MOCK_BUILD_SECONDS, needs_stripe_mock, stripe_mock, stripe_mock_binary
from tests.support.scripted_stripe import Answer, refuses, says, scripted

KEY: Final = "sk_test_51NotAKeyThatAnybodyHas"


@asynccontextmanager
async def probe_of(base: str, key: str = KEY) -> AsyncIterator[PermissionProbe]:
    caller = StripeCaller(
        Secret(key),
        api_base=base,
        requests_per_second=1_000_000,
        clock=SystemClock(),
        observer=StripeCounts(),
        retries=Retries(base_seconds=0.001),
    )
    try:
        yield PermissionProbe(caller)
    finally:
        await caller.close()


def test_scopes_are_called_what_stripe_calls_them() -> None:
    assert {name: resource.label for name, resource in RESOURCES.items()} == {name: LABELS[name] for name in RESOURCES}
    assert labelled("webhook_write") == "webhook_write (Webhook Endpoints, Event Destinations Write)"
    assert labelled("payment_intent_read") == "payment_intent_read (PaymentIntents Read)"
    assert labelled("tax_1099_read") == "tax_1099_read"


def test_no_write_is_tried_on_a_path_that_makes_something() -> None:
    for resource in RESOURCES.values():
        assert resource.missing_path.startswith(f"{resource.list_path}/")
        assert resource.missing_path.removesuffix("/retry").endswith(f"_{PROBE}")


async def test_a_key_that_may_do_everything_has_every_scope() -> None:
    fake = FakeStripe()
    async with serving(fake) as base, probe_of(base, fake.new_key("test")) as probe:
        assert [await probe.probe(scope) for scope in SCOPES] == [Probed(scope, True) for scope in SCOPES]

    asked = {(request.method, request.path) for request in fake.requests}
    assert asked == {("GET", each.list_path) for each in RESOURCES.values()} | {
        ("POST", each.missing_path) for each in RESOURCES.values()
    }
    assert {request.status for request in fake.requests if request.method == "POST"} == {404}


async def test_a_key_that_may_do_nothing_lacks_every_scope_by_its_name() -> None:
    fake = FakeStripe()
    async with serving(fake) as base, probe_of(base, fake.new_key("test", ())) as probe:
        for scope in SCOPES:
            probed = await probe.probe(scope)

            assert probed.has is False
            assert probed.why is not None
            assert probed.why.endswith(f": it needs the permission {labelled(scope)}")


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_with_one_scope_has_that_one(scope: str) -> None:
    resource, _, access = scope.rpartition("_")
    fake = FakeStripe()
    async with serving(fake) as base, probe_of(base, fake.new_key("live", {scope})) as probe:
        found = {each for each in SCOPES if await probe.has(each)}

    assert found == {scope, f"{resource}_read"} if access == "write" else {scope}


async def test_of_a_scope_that_nobody_knows_it_is_said_that_nobody_knows() -> None:
    async with scripted(says(200, {"data": []})) as there, probe_of(there.base) as probe:
        for scope in ("tax_rate_read", "webhook_delete", "webhook", "_read", ""):
            assert await probe.has(scope) is None
            assert (await probe.probe(scope)).why

    assert there.asked == []


@pytest.mark.parametrize(
    ("scope", "answer", "why"),
    [
        ("customer_write", refuses(400, "Missing: jane@example.test", code="parameter_missing"), "Stripe answered 400"),
        ("customer_read", refuses(404, "Unrecognized request URL (jane@example.test)"), "no such"),
        ("customer_write", refuses(404, "Unrecognized request URL (jane@example.test)"), "no such"),
        ("customer_write", says(200, {"id": "jane@example.test"}), "what cannot exist"),
    ],
)
async def test_what_is_no_plain_answer_is_none_and_says_why(scope: str, answer: Answer, why: str) -> None:
    async with scripted(answer) as there, probe_of(there.base) as probe:
        probed = await probe.probe(scope)

    assert probed.has is None
    assert probed.why is not None
    assert why in probed.why
    assert "jane" not in probed.why


async def test_a_refusal_that_names_another_scope_is_passed_on() -> None:
    other = refuses(403, "Permission denied. … Enabling Charges and Refunds Write ('charge_write') permissions on …")
    async with scripted(other) as there, probe_of(there.base) as probe:
        assert await probe.probe("refund_write") == Probed(
            "refund_write",
            False,
            f"the API key may not write {RESOURCES['refund'].missing_path}: it needs the permission charge_write"
            " (Charges and Refunds Write)",
        )


async def test_what_is_about_the_key_and_what_may_pass_is_raised() -> None:
    async with scripted(refuses(401, "Invalid API Key provided")) as there, probe_of(there.base) as probe:
        with pytest.raises(StripeKeyRefused):
            await probe.has("customer_write")
    async with scripted(refuses(503, "no")) as there, probe_of(there.base) as probe:
        with pytest.raises(StripeUnavailable):
            await probe.has("customer_read")


@needs_stripe_mock
@pytest.mark.timeout(STRIPE_MOCK_BUILD_SECONDS + 60)
async def test_every_path_is_one_of_stripes() -> None:
    async with (
        stripe_mock(await asyncio.to_thread(stripe_mock_binary)) as base,
        probe_of(base, "sk_test_123") as probe,
    ):
        found = {scope: await probe.probe(scope) for scope in SCOPES}

    assert {scope for scope in SCOPES if found[scope].has} == {f"{name}_read" for name in RESOURCES}
    # The mock has one of every id. Stripe's OpenAPI does not have the retry of an event, which its CLI asks for.
    taken = {scope for scope, probed in found.items() if probed.why is not None and "taken a change" in probed.why}
    assert taken == {f"{name}_write" for name in RESOURCES} - {"event_write"}
