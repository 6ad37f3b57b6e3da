"""A plan is carried out once, whatever happens on the way: no secret is lost, and no endpoint doubled."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from service.credentials.book import Creation, Credentials, EndpointCredentials
from service.credentials.file import CredentialsFile
from service.errors import (
    JobHeld,
    SecretNotTold,
    StripeKeyRefused,
    StripePermissionMissing,
    StripeRequestRefused,
    StripeUnavailable,
    WebhookEndpointsFull,
)
from service.events import Secret
from service.normalize.event_types import NEWEST_API_VERSION
from service.stripe_account.endpoint_apply import carry_out
from service.stripe_account.endpoint_matching import CREATION, ENDPOINT
from service.stripe_account.endpoint_plan import StepKind
from tests.support.endpoints import (
    MOMENTS,
    PUBLIC_URL,
    Crash,
    MemoryCredentials,
    Moment,
    World,
    config,
    endpoint,
    keeping,
    signing,
)

URL = f"{PUBLIC_URL}/webhooks/shop"
EVENTS = ("charge.succeeded", "charge.refunded")


async def crashing(world: World, moment: Moment) -> bool:
    """Apply until this moment; whether it came."""
    moment.arrange(world)
    try:
        await world.apply()
    except Crash:
        return True
    finally:
        Moment.none(world)
    return False


def assert_right(world: World) -> None:
    """Each endpoint is there once, as configured, and the store has its secret."""
    by_name = {each.metadata[ENDPOINT]: each for each in world.stripe.endpoints}
    assert len(world.stripe.endpoints) == len(by_name) == len(world.configured)
    for name, wanted in world.wanted.items():
        made = by_name[name]
        assert (made.url, set(made.enabled_events), made.enabled) == (wanted.url, set(wanted.events), True)
        kept = world.store.kept.of(name)
        assert [(each.value, each.webhook_endpoint_id) for each in kept.signing] == [
            (world.stripe.secret_of(made.id), made.id)
        ]
        assert kept.creation is None


async def test_from_nothing_it_is_there_with_its_secret_and_again_nothing_changes() -> None:
    world = World(config(endpoint("shop"), endpoint("other")))

    done = await world.apply()

    assert [(each.step.kind, each.endpoint_id) for each in done] == [
        (StepKind.CREATE, "we_1"), (StepKind.CREATE, "we_2"),
    ]  # fmt: skip
    assert_right(world)
    made = world.stripe.endpoints[-1]
    assert (made.api_version, made.description) == (NEWEST_API_VERSION, "stripe-ingest: shop")
    calls, writes = world.stripe.calls, world.store.writes

    again = await world.apply()

    assert [each.step.kind for each in again] == [StepKind.NOTHING, StepKind.NOTHING]
    assert (world.stripe.calls, world.store.writes) == (calls + 1, writes)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_a_crash_at_any_moment_and_again_loses_no_secret_and_doubles_none(moment: Moment) -> None:
    for second in [None, *MOMENTS]:
        world = World(config(endpoint("shop"), endpoint("other")))
        if not await crashing(world, moment):
            assert_right(world)
            return
        if second is not None and not await crashing(world, second):
            assert_right(world)
            continue
        await world.apply()
        assert_right(world)
        assert [each.step.kind for each in await world.apply()] == [StepKind.NOTHING, StepKind.NOTHING]


async def test_the_moments_are_those_of_the_whole_run() -> None:
    came = [each for each in MOMENTS if await crashing(World(config(endpoint("shop"), endpoint("other"))), each)]

    # One list and two creations; two writes for each creation.
    assert len([each for each in came if each.at == "call"]) == 2 * 3
    assert len([each for each in came if each.at == "write"]) == 2 * 4


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_a_crash_while_others_are_changed_and_deleted_comes_to_the_same_end(moment: Moment) -> None:
    world = World(config(endpoint("moved"), endpoint("off"), endpoint("new")))
    moved = world.stripe.register("https://old.example.com/", ("*",), metadata={ENDPOINT: "moved"})
    off = world.stripe.register(f"{PUBLIC_URL}/webhooks/off", EVENTS, enabled=False, metadata={ENDPOINT: "off"})
    world.stripe.register(f"{PUBLIC_URL}/webhooks/gone", metadata={ENDPOINT: "gone"})
    for name, made in (("moved", moved), ("off", off)):
        signed = EndpointCredentials((signing(made.secret.value, made.endpoint.id),))
        world.store.kept = world.store.kept.having(name, signed)
    moment.arrange(world)

    try:
        await world.apply(prune=True)
    except Crash:
        Moment.none(world)
        await world.apply(prune=True)

    assert_right(world)


async def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    assert world.kept.creation is not None

    world.clock.advance(22 * 3600)
    (done,) = await world.apply()

    assert (done.step.kind, done.endpoint_id) == (StepKind.REPLAY, "we_1")
    assert_right(world)


async def test_a_request_that_was_still_on_its_way_is_not_doubled() -> None:
    world = World()
    world.stripe.fail(Crash(), after=1)
    with pytest.raises(Crash):
        await world.apply()
    creation = world.kept.creation
    assert creation is not None
    steps = world.plan().steps  # Stripe lists nothing yet
    world.stripe.create(creation.params, creation.idempotency_key)

    _ = [each async for each in carry_out(steps, world.registration)]

    assert_right(world)


async def test_what_the_configuration_says_by_then_counts() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.config = config(endpoint(events=("charge.failed",)))

    await world.apply()

    assert_right(world)
    assert world.stripe.endpoints[0].enabled_events == ("charge.failed",)


async def test_a_day_later_one_whose_secret_was_lost_needs_a_person_and_is_not_doubled() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.clock.advance(23 * 3600)

    (done,) = await world.apply()

    assert done.step.kind is StepKind.NOTHING
    assert [finding.kind for finding in world.plan().findings] == ["secret_not_told"]
    assert len(world.stripe.endpoints) == 1


async def test_a_day_later_one_that_was_never_made_is_made() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.clock.advance(23 * 3600)

    (done,) = await world.apply()

    assert done.step.kind is StepKind.CREATE
    assert_right(world)


async def test_a_key_that_has_made_what_was_deleted_since_makes_another() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.stripe.remove("we_1")

    (done,) = await world.apply()

    assert (done.step.kind, done.endpoint_id) == (StepKind.REPLAY, "we_2")
    assert_right(world)


async def test_a_creation_that_stripe_refuses_by_now_is_begun_anew() -> None:
    world = World()
    params = replace(world.wanted["shop"].params(), url="https://localhost/", metadata={CREATION: "key_0"})
    creation = Creation("key_0", world.clock.now(), params)
    world.store.kept = Credentials().having("shop", EndpointCredentials(creation=creation))

    await world.apply()

    assert_right(world)


async def test_a_secret_that_stripe_does_not_tell_is_never_guessed_at() -> None:
    world = World()
    world.stripe.tells_secrets = False

    (first,) = await world.apply()
    (second,) = await world.apply()

    assert [type(each.refused) for each in (first, second)] == [SecretNotTold, SecretNotTold]
    assert second.endpoint_id == "we_1"
    assert len(world.stripe.endpoints) == 1
    assert world.kept.signing == ()
    world.stripe.tells_secrets = True
    await world.apply()
    assert_right(world)


@pytest.mark.parametrize("listed_before", [True, False])
async def test_a_failure_that_stripe_repeats_although_it_has_made_the_endpoint_doubles_nothing(
    listed_before: bool,
) -> None:
    world = World()
    # Nobody knows what came of the first request; the second one is answered with the first one's failure.
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=listed_before)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.stripe.fail(StripeRequestRefused("500 repeated"), after=1, done=True)

    (done,) = await world.apply()

    assert isinstance(done.refused, SecretNotTold)
    assert "roll shop --replace" in str(done.refused)
    assert len(world.stripe.endpoints) == 1
    await world.apply()
    assert_right(world)


async def test_while_stripe_keeps_failing_to_tell_the_other_way_is_said() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.stripe.fail(StripeUnavailable("500", request_id="req_1"), after=1)

    with pytest.raises(StripeUnavailable, match=r"we_1 was made.*roll shop --replace") as unavailable:
        await world.apply()

    assert unavailable.value.request_id == "req_1"


@pytest.mark.parametrize("made", [True, False])
async def test_an_unavailable_stripe_is_tried_later(made: bool) -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), StripeUnavailable("no answer"), after=1, done=made)
    for _ in range(2):
        with pytest.raises(StripeUnavailable):
            await world.apply()
    Moment.none(world)

    await world.apply()

    assert_right(world)


async def test_one_that_is_refused_does_not_keep_the_others_back_and_nothing_of_it_stays() -> None:
    world = World(config(endpoint("one"), endpoint("two")))
    world.stripe.fail(StripeRequestRefused("Stripe says no"), after=1)

    first, second = await world.apply()

    assert isinstance(first.refused, StripeRequestRefused)
    assert second.refused is None
    assert world.store.kept.of("one") == EndpointCredentials()
    await world.apply()
    assert_right(world)


async def test_where_it_is_full_that_is_said_and_nothing_of_it_stays() -> None:
    world = World()
    for number in range(16):
        world.stripe.register(f"https://other.example.com/{number}")

    (done,) = await world.apply()

    assert isinstance(done.refused, WebhookEndpointsFull)
    assert world.kept == EndpointCredentials()
    for each in world.stripe.endpoints:
        world.stripe.remove(each.id)
    await world.apply()
    assert_right(world)


async def test_a_missing_permission_is_said_and_granted_it_goes_on() -> None:
    world = World()
    reading = world.registration_with(world.stripe.client({"webhook_read"}))

    (done,) = [each async for each in carry_out(world.plan().steps, reading)]

    assert isinstance(done.refused, StripePermissionMissing)
    assert done.refused.scope == "webhook_write"
    await world.apply()
    assert_right(world)


async def test_a_wrong_key_is_the_end() -> None:
    world = World()
    wrong = world.registration_with(world.stripe.client_with_wrong_key())

    with pytest.raises(StripeKeyRefused):
        _ = [each async for each in carry_out(world.plan().steps, wrong)]


async def test_other_credentials_of_the_endpoint_stay() -> None:
    world = World()
    world.store.kept = Credentials().having("shop", EndpointCredentials(api_key=Secret("sk_test_kept")))

    await world.apply()

    assert world.kept.api_key == Secret("sk_test_kept")


async def test_a_secret_of_one_that_was_deleted_verifies_on_beside_the_new_one() -> None:
    world = World()
    world.store.kept = keeping(signing("whsec_old", "we_deleted"))

    await world.apply()

    assert [each.webhook_endpoint_id for each in world.kept.signing] == ["we_1", "we_deleted"]


async def test_the_real_file_keeps_what_was_begun_before_stripe_is_asked(tmp_path: Path) -> None:
    world = World()
    file = CredentialsFile(tmp_path / "secrets.json", None)
    registration = replace(world.registration, store=file)
    world.stripe.fail(Crash(), done=True)

    with pytest.raises(Crash):
        _ = [each async for each in carry_out(world.plan().steps, registration)]

    world.store.kept = await asyncio.to_thread(file.read)
    begun = world.kept.creation
    assert begun is not None
    assert begun.params.metadata[CREATION] == begun.idempotency_key
    _ = [each async for each in carry_out(world.plan().steps, registration)]
    world.store.kept = await asyncio.to_thread(file.read)
    assert_right(world)


def test_a_second_one_at_the_same_time_is_held_off(tmp_path: Path) -> None:
    stores: Sequence[CredentialsFile | MemoryCredentials] = (
        CredentialsFile(tmp_path / "secrets.json", None), MemoryCredentials(),
    )  # fmt: skip
    for store in stores:
        with store.held(), pytest.raises(JobHeld), store.held():
            pass
        with store.held():
            pass


async def test_creations_within_the_time_are_those_of_the_last_23_hours() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    creation = world.kept.creation
    assert creation is not None

    assert creation.repeatable(world.clock.now() + timedelta(hours=22, minutes=59))
    assert not creation.repeatable(world.clock.now() + timedelta(hours=23))
