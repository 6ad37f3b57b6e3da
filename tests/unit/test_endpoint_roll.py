"""A signing secret is rolled in two ways, and at no moment is there a secret less than deliveries need."""

from dataclasses import replace

import pytest

from service.credentials.book import Creation, EndpointCredentials, SigningSecret
from service.errors import SecretNotTold, StripeRequestRefused, StripeUnavailable, WebhookEndpointsFull
from service.events import Secret
from service.normalize.event_types import SNAPSHOT_TYPES
from service.signature import fingerprint
from service.stripe_account.endpoint_matching import ENDPOINT, QUIET, REPLACES
from service.stripe_account.endpoint_plan import Delete, StepKind
from service.stripe_account.endpoint_roll import (
    QUIET_EVENT,
    RollRefused,
    RollStage,
    Standing,
    finish,
    prepare,
    standing,
    take_over,
    with_rolled,
)
from tests.support.endpoints import (
    MOMENTS,
    PUBLIC_URL,
    Crash,
    Moment,
    World,
    config,
    endpoint,
    keeping,
    signing,
)

URL = f"{PUBLIC_URL}/webhooks/shop"
EVENTS = ("charge.succeeded", "charge.refunded")


async def registered() -> World:
    """An endpoint that this service has made."""
    world = World()
    await world.apply()
    return world


def stands(world: World) -> Standing:
    return standing("shop", world.kept, world.stripe.endpoints)


async def roll(world: World) -> Standing:
    """As the command does it: with receivers that know every secret that is kept."""
    made = await prepare_only(world)
    if made.stage is not RollStage.PREPARED:
        return made
    assert made.endpoint_id is not None
    await take_over(world.wanted["shop"], made.endpoint_id, world.client)
    return stands(world)


async def prepare_only(world: World) -> Standing:
    return await prepare(world.wanted["shop"], world.registration, world.deployment)


async def end(world: World) -> None:
    await finish(stands(world), world.store, world.client, settled=at_once)


async def at_once() -> None:
    """Nothing is under way."""


def assert_all_verify(world: World) -> None:
    """Whatever an enabled endpoint delivers, the store has its secret."""
    kept = {each.value for each in world.kept.signing}
    for each in world.stripe.endpoints:
        assert not each.enabled or world.stripe.secret_of(each.id) in kept


# --- rolled in the dashboard -----------------------------------------------------------------------------------------


async def test_a_rolled_secret_is_kept_beside_the_old_one_until_the_end() -> None:
    world = await registered()
    old = world.kept.signing[0]
    assert stands(world) == Standing("shop", RollStage.NONE, (fingerprint(old.value),), "we_1", ())

    rolled = with_rolled("shop", world.kept, Secret("whsec_new"), world.clock.now())
    world.store.kept = world.store.kept.having("shop", rolled)

    assert rolled.signing == (SigningSecret(Secret("whsec_new"), world.clock.now(), "we_1"), old)
    assert stands(world).stage is RollStage.ROLLED
    assert with_rolled("shop", rolled, Secret("whsec_new"), world.clock.now()) == rolled

    await end(world)

    assert [each.value for each in world.kept.signing] == [Secret("whsec_new")]
    assert stands(world).stage is RollStage.NONE
    assert world.stripe.endpoints[0].enabled
    writes = world.store.writes
    await end(world)
    assert world.store.writes == writes


async def test_the_old_secret_is_not_taken_for_a_new_one() -> None:
    world = await registered()
    old = world.kept.signing[0].value
    rolled = with_rolled("shop", world.kept, Secret("whsec_new"), world.clock.now())

    with pytest.raises(RollRefused, match="old signing secret") as refused:
        with_rolled("shop", rolled, old, world.clock.now())

    assert old.value not in str(refused.value)


def test_without_a_secret_there_is_none_to_roll() -> None:
    with pytest.raises(RollRefused, match="secrets set"):
        with_rolled("shop", EndpointCredentials(), Secret("whsec_new"), World().clock.now())


async def test_the_two_ways_are_not_mixed() -> None:
    world = await registered()
    await roll(world)
    with pytest.raises(RollRefused, match="--finish"):
        with_rolled("shop", world.kept, Secret("whsec_new"), world.clock.now())

    world = await registered()
    rolled = with_rolled("shop", world.kept, Secret("whsec_new"), world.clock.now())
    world.store.kept = world.store.kept.having("shop", rolled)
    with pytest.raises(RollRefused, match="--finish"):
        await roll(world)


# --- a second endpoint -----------------------------------------------------------------------------------------------


async def test_a_second_endpoint_takes_over_and_the_first_is_switched_off() -> None:
    world = await registered()
    old = world.stripe.endpoints[0]

    made = await roll(world)

    new = world.stripe.endpoints[0]
    assert made == Standing(
        "shop", RollStage.REPLACED, tuple(fingerprint(world.stripe.secret_of(each)) for each in ("we_2", "we_1")),
        "we_2", ("we_1",),
    )  # fmt: skip
    assert (new.url, new.enabled_events, new.api_version) == (old.url, old.enabled_events, old.api_version)
    assert (new.metadata[ENDPOINT], new.metadata[REPLACES]) == ("shop", "we_1")
    assert all(each.enabled for each in world.stripe.endpoints)
    assert_all_verify(world)
    assert world.plan().findings == ()

    await end(world)

    assert [(each.id, each.enabled) for each in world.stripe.endpoints] == [("we_2", True), ("we_1", False)]
    assert [each.webhook_endpoint_id for each in world.kept.signing] == ["we_2"]
    assert stands(world).stage is RollStage.NONE
    assert world.plan().changes == ()
    assert world.plan().findings == ()
    assert [step.endpoint_id for step in world.plan(prune=True).steps if isinstance(step, Delete)] == ["we_1"]


async def test_the_same_again_makes_no_third() -> None:
    world = await registered()
    first = await roll(world)

    assert await roll(world) == first
    assert len(world.stripe.endpoints) == 2


async def test_after_one_roll_another_may_come() -> None:
    world = await registered()
    for _ in range(2):
        await roll(world)
        await end(world)

    assert [(each.id, each.enabled) for each in world.stripe.endpoints] == [
        ("we_3", True), ("we_2", False), ("we_1", False),
    ]  # fmt: skip
    assert stands(world).stage is RollStage.NONE


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_a_crash_at_any_moment_of_a_roll_and_again_loses_no_secret(moment: Moment) -> None:
    for second in [None, *MOMENTS]:
        world = await registered()
        for arranged in (moment, second):
            if arranged is None or (len(world.stripe.endpoints) == 2 and stands(world).stage is RollStage.NONE):
                continue  # it has come to its end: the same again would be another roll
            arranged.arrange(world)
            try:
                await roll(world)
                assert_all_verify(world)
                await end(world)
            except Crash:
                # Of one that is just made the secret may be on its way; it is not lost.
                begun = world.kept.creation is not None
                assert begun or all(
                    not each.enabled or world.stripe.secret_of(each.id) in {kept.value for kept in world.kept.signing}
                    for each in world.stripe.endpoints
                )
            else:
                break
            finally:
                Moment.none(world)
        if len(world.stripe.endpoints) == 1 or stands(world).stage is not RollStage.NONE:
            await roll(world)
            assert_all_verify(world)
            await end(world)

        enabled = [each for each in world.stripe.endpoints if each.enabled]
        assert len(enabled) == 1
        assert len(world.stripe.endpoints) == 2
        assert [(each.value, each.webhook_endpoint_id) for each in world.kept.signing] == [
            (world.stripe.secret_of(enabled[0].id), enabled[0].id)
        ]
        assert world.kept.creation is None
        assert stands(world).stage is RollStage.NONE


async def test_apply_takes_up_a_roll_that_was_begun() -> None:
    world = await registered()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await roll(world)
    assert stands(world).stage is RollStage.BEGUN
    with pytest.raises(RollRefused, match="--replace"):
        await end(world)

    await world.apply()

    assert stands(world).stage is RollStage.PREPARED
    assert_all_verify(world)
    assert world.plan().changes == ()


async def test_one_whose_secret_nobody_has_is_replaced_too() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.clock.advance(24 * 3600)

    made = await roll(world)

    assert (made.stage, made.endpoint_id, made.replaced) == (RollStage.REPLACED, "we_2", ("we_1",))
    assert world.kept.creation is None
    assert world.plan().findings == ()
    await end(world)
    assert [(each.id, each.enabled) for each in world.stripe.endpoints] == [("we_2", True), ("we_1", False)]


async def test_a_registration_whose_answer_was_lost_is_ended_rather_than_replaced() -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()

    made = await roll(world)

    assert (made.stage, made.endpoint_id) == (RollStage.NONE, "we_1")
    assert_all_verify(world)


@pytest.mark.parametrize("silence", [SecretNotTold("no secret"), StripeUnavailable("500"), StripeRequestRefused("no")])
async def test_where_stripe_does_not_repeat_the_secret_the_endpoint_is_replaced(silence: Exception) -> None:
    world = World()
    world.stripe.fail(StripeUnavailable("no answer"), after=1, done=True)
    with pytest.raises(StripeUnavailable):
        await world.apply()
    world.stripe.fail(silence, after=1)

    made = await roll(world)

    assert (made.stage, made.endpoint_id, made.replaced) == (RollStage.REPLACED, "we_2", ("we_1",))


async def test_one_from_the_dashboard_is_replaced_and_not_ours_to_delete() -> None:
    world = World()
    world.stripe.register(URL, EVENTS, api_version="2020-08-27")
    world.store.kept = keeping(signing("whsec_of_we_1"))

    await roll(world)

    assert world.stripe.endpoints[0].api_version == "2020-08-27"
    assert [each.webhook_endpoint_id for each in world.kept.signing] == ["we_2", "we_1"]
    await end(world)
    assert [(each.id, each.enabled) for each in world.stripe.endpoints] == [("we_2", True), ("we_1", False)]
    assert world.plan(prune=True).changes == ()


async def test_another_api_version_comes_by_replacing() -> None:
    world = await registered()
    world.config = config(endpoint(api_version="2024-06-20"))
    assert [finding.kind for finding in world.plan().findings] == ["version_drift"]

    await roll(world)
    await end(world)

    assert world.stripe.endpoints[0].api_version == "2024-06-20"
    assert world.plan().findings == ()


async def test_a_second_one_that_somebody_has_deleted_is_made_anew() -> None:
    world = await registered()
    await roll(world)
    world.stripe.remove("we_2")

    again = await roll(world)

    assert (again.stage, again.endpoint_id, again.replaced) == (RollStage.REPLACED, "we_3", ("we_1",))
    assert [each.webhook_endpoint_id for each in world.kept.signing] == ["we_3", "we_1"]
    await end(world)
    assert [(each.id, each.enabled) for each in world.stripe.endpoints] == [("we_3", True), ("we_1", False)]


async def test_with_the_key_of_another_account_no_secret_is_let_go() -> None:
    world = await registered()
    await roll(world)
    before = world.kept
    world.stripe.remove("we_2")
    world.stripe.remove("we_1")

    await roll(world)

    assert world.kept == before


# --- until receivers know the secret ---------------------------------------------------------------------------------


async def test_before_receivers_know_its_secret_a_second_endpoint_gets_next_to_nothing() -> None:
    world = await registered()

    made = await prepare_only(world)

    new, old = world.stripe.endpoints
    assert (made.stage, made.endpoint_id, made.replaced) == (RollStage.PREPARED, "we_2", ("we_1",))
    assert (new.enabled_events, new.enabled) == ((QUIET_EVENT,), True)
    assert QUIET_EVENT in SNAPSHOT_TYPES
    assert (old.enabled_events, old.enabled) == (EVENTS, True)
    assert await prepare_only(world) == made
    with pytest.raises(RollRefused, match=r"gets no events yet: `endpoints roll shop --replace` goes on"):
        await end(world)

    assert (await roll(world)).stage is RollStage.REPLACED
    assert world.stripe.endpoints[0].enabled_events == EVENTS
    assert QUIET not in world.stripe.endpoints[0].metadata


async def test_meanwhile_nothing_is_wrong_and_the_old_one_is_looked_after() -> None:
    world = await registered()
    await prepare_only(world)
    assert (world.plan().changes, world.plan().findings) == ((), ())
    await world.client.update("we_1", enabled=False)

    await world.apply()

    assert [(each.id, each.enabled, each.enabled_events) for each in world.stripe.endpoints] == [
        ("we_2", True, (QUIET_EVENT,)), ("we_1", True, EVENTS),
    ]  # fmt: skip
    assert StepKind.DELETE not in [step.kind for step in world.plan(prune=True).steps]


async def test_one_that_waits_for_an_old_one_of_an_unknown_secret_is_left_waiting() -> None:
    world = World()
    world.stripe.register(URL, EVENTS)
    assert [finding.kind for finding in world.plan().findings] == ["secret_unknown"]

    await prepare_only(world)

    assert (world.plan().changes, world.plan().findings) == ((), ())
    assert (await roll(world)).stage is RollStage.REPLACED


async def test_one_that_is_alone_gets_its_events_by_apply() -> None:
    world = await registered()
    await prepare_only(world)
    world.stripe.remove("we_1")

    await world.apply()

    (alone,) = world.stripe.endpoints
    assert (alone.id, alone.enabled_events, QUIET in alone.metadata) == ("we_2", EVENTS, False)
    assert world.plan().changes == ()


async def test_apply_makes_no_second_endpoint_where_stripe_had_refused_it() -> None:
    world = await registered()
    params = replace(world.wanted["shop"].params(), url="https://localhost/", metadata={REPLACES: "we_1"})
    creation = Creation("key_0", world.clock.now(), params)
    world.store.kept = world.store.kept.having("shop", replace(world.kept, creation=creation))

    await world.apply()

    assert [each.id for each in world.stripe.endpoints] == ["we_1"]
    assert (world.kept.creation, stands(world).stage, world.plan().changes) == (None, RollStage.NONE, ())


async def test_what_another_deployment_calls_the_same_is_not_switched_off() -> None:
    world = await registered()
    other = world.stripe.register("https://elsewhere.example.com/", EVENTS, metadata={ENDPOINT: "shop"}).endpoint

    made = await roll(world)
    await end(world)

    assert made.replaced == ("we_1",)
    assert other in world.stripe.endpoints


async def test_without_room_for_a_second_nothing_of_it_stays() -> None:
    world = await registered()
    for number in range(15):
        world.stripe.register(f"https://other.example.com/{number}")

    with pytest.raises(WebhookEndpointsFull):
        await roll(world)

    assert stands(world).stage is RollStage.NONE
    assert world.plan().changes == ()


async def test_what_is_not_at_stripe_cannot_be_replaced() -> None:
    with pytest.raises(RollRefused, match="endpoints apply shop"):
        await roll(World())


@pytest.mark.parametrize("gone", [True, False])
async def test_the_old_one_stays_on_where_the_new_one_does_not_take_over(gone: bool) -> None:
    world = await registered()
    await roll(world)
    if gone:
        world.stripe.remove("we_2")
    else:
        await world.client.update("we_2", enabled=False)

    way_out = r"not there any more.*roll shop --replace" if gone else r"not enabled.*endpoints enable shop"
    with pytest.raises(RollRefused, match=rf"we_2.*{way_out}"):
        await end(world)

    assert world.stripe.endpoints[-1].enabled
    assert len(world.kept.signing) == 2


async def test_an_old_one_that_somebody_has_deleted_is_no_obstacle() -> None:
    world = await registered()
    await roll(world)
    before = stands(world)
    world.stripe.remove("we_1")

    await finish(before, world.store, world.client, settled=at_once)

    assert [each.webhook_endpoint_id for each in world.kept.signing] == ["we_2"]


async def test_what_is_kept_of_others_stays() -> None:
    world = await registered()
    world.store.kept = world.store.kept.having("shop", replace(world.kept, api_key=Secret("sk_test_1"))).having(
        "other", EndpointCredentials((signing("whsec_other"),))
    )

    await roll(world)
    await end(world)

    assert world.kept.api_key == Secret("sk_test_1")
    assert world.store.kept.of("other").signing[0].value == Secret("whsec_other")


async def test_by_the_store_alone_it_is_known_as_well() -> None:
    world = await registered()
    await roll(world)

    by_store = standing("shop", world.kept, None)

    assert (by_store.stage, by_store.endpoint_id, by_store.replaced) == (RollStage.REPLACED, "we_2", ())
    assert standing("shop", EndpointCredentials(), None).stage is RollStage.NONE


def test_a_secret_without_an_endpoint_is_taken_for_the_same_ones() -> None:
    kept = EndpointCredentials((signing("whsec_new"), signing("whsec_old", "we_1")))

    assert standing("shop", kept, None).stage is RollStage.ROLLED
