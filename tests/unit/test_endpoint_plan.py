"""What is planned: each step, each finding, and what is refused before Stripe is asked."""

from dataclasses import replace
from datetime import timedelta

import pytest

from service.config import Config, EndpointConfig, ReceiverConfig
from service.credentials.book import Creation, Credentials, EndpointCredentials
from service.errors import ConfigurationError
from service.events import Secret
from service.normalize.event_types import NEWEST_API_VERSION, THIN_TYPES
from service.stripe_account.endpoint_matching import CREATION, ENDPOINT, REPLACES, Deployment, matched
from service.stripe_account.endpoint_plan import (
    Changes,
    Create,
    Delete,
    FindingKind,
    Keep,
    Plan,
    Replay,
    StepKind,
    Update,
)
from service.stripe_account.endpoint_wanted import wanted_endpoints
from tests.support.endpoints import PUBLIC_URL, World, config, endpoint, keeping, signing
from tests.support.stripe_catalogue import API_VERSION

URL = f"{PUBLIC_URL}/webhooks/shop"
GONE = f"{PUBLIC_URL}/webhooks/gone"
EVENTS = ("charge.refunded", "charge.succeeded")


def deployment(*names: str) -> Deployment:
    return Deployment(frozenset(names), frozenset(), PUBLIC_URL)


def kinds(plan: Plan) -> list[StepKind]:
    return [step.kind for step in plan.steps]


def findings(plan: Plan) -> list[FindingKind]:
    return [finding.kind for finding in plan.findings]


# --- what is wanted --------------------------------------------------------------------------------------------------


def test_the_newest_api_version_is_that_of_the_catalogue() -> None:
    assert NEWEST_API_VERSION == API_VERSION


def test_the_url_is_the_receivers_and_the_path_or_the_endpoints_own() -> None:
    given = Config(
        receiver=ReceiverConfig(public_url="https://hooks.example.com/stripe/"),
        endpoints=(
            endpoint("one"),
            endpoint("two", path="/api/v1/webhook"),
            endpoint("three", url="https://three.example.com/x"),
        ),
    )

    wanted = wanted_endpoints(given, {"one": "live", "two": "live", "three": "live"})

    assert {name: each.url for name, each in wanted.items()} == {
        "one": "https://hooks.example.com/stripe/webhooks/one",
        "two": "https://hooks.example.com/stripe/api/v1/webhook",
        "three": "https://three.example.com/x",
    }


def test_no_events_are_all_of_them() -> None:
    (wanted,) = wanted_endpoints(config(endpoint(events=())), {"shop": "test"}).values()

    assert wanted.params().enabled_events == ("*",)


def test_only_those_that_are_asked_for_are_judged() -> None:
    given = config(endpoint("one"), endpoint("two", url="https://localhost/"))

    assert list(wanted_endpoints(given, {"one": "test"})) == ["one"]


@pytest.mark.parametrize(
    ("given", "mode", "said"),
    [
        (endpoint(url="https://localhost:8080/x"), "test", r"endpoints \(shop\)\.url: https://localhost:8080/x is on"),
        (endpoint(url="http://hooks.example.com/"), "live", r"endpoints \(shop\)\.url: .* must begin with https://"),
        (endpoint(events=("charge.succeded",)), "test", r"endpoints \(shop\)\.events: .* is it charge\.succeeded.*\?"),
        (endpoint(events=("charge.*",)), "test", r"charge\.\* is no event type"),
        (endpoint(events=(THIN_TYPES[0],)), "test", "thin event"),
        (endpoint(api_version="2026-10-28.endife"), "test", r"endpoints \(shop\)\.api_version: .*2026-10-28\.endive"),
    ],
)  # fmt: skip
def test_what_stripe_would_refuse_is_refused_with_the_settings_name(
    given: EndpointConfig, mode: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        wanted_endpoints(config(given), {"shop": mode})


def test_all_that_is_wrong_is_said_at_once() -> None:
    given = Config(
        receiver=ReceiverConfig(public_url="http://localhost:8080"),
        endpoints=(endpoint("one"), endpoint("two", events=("nonsense",), url="shop.example.com")),
    )

    with pytest.raises(ConfigurationError) as refused:
        wanted_endpoints(given, {"one": "test", "two": "test"})

    for said in (
        "receiver.public_url: http://localhost:8080/webhooks/one is on this",
        "endpoints (two).url",
        "nonsense",
    ):
        assert said in str(refused.value)


def test_without_any_url_the_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"receiver\.public_url: is needed, or endpoints \(shop\)\.url"):
        wanted_endpoints(Config(endpoints=(endpoint(),)), {"shop": "test"})


def test_an_unlisted_event_type_may_be_asked_for_and_a_thin_one_not() -> None:
    given = config(endpoint(events=("charge.teleported", "charge.succeeded"), api_version="2031-01-01.zinnia"))
    (wanted,) = wanted_endpoints(given, {"shop": "test"}, unlisted=True).values()
    assert wanted.events == ("charge.teleported", "charge.succeeded")

    with pytest.raises(ConfigurationError, match="thin"):
        wanted_endpoints(config(endpoint(events=(THIN_TYPES[0],))), {"shop": "test"}, unlisted=True)


def test_a_password_in_a_url_is_not_said() -> None:
    with pytest.raises(ConfigurationError) as refused:
        wanted_endpoints(config(endpoint(url="https://user:hidden@localhost/")), {"shop": "test"})

    assert "hidden" not in str(refused.value)


# --- the steps -------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_made() -> None:
    world = World()

    plan = world.plan()

    assert kinds(plan) == [StepKind.CREATE]
    assert (plan.findings, plan.used, plan.left) == ((), 0, 15)
    (create,) = plan.changes
    assert isinstance(create, Create)
    params = create.wanted.params(api_version=NEWEST_API_VERSION)
    assert (params.url, set(params.enabled_events), params.api_version, params.connect, params.metadata) == (
        URL, set(EVENTS), NEWEST_API_VERSION, False, {ENDPOINT: "shop"},
    )  # fmt: skip


def test_the_configured_api_version_comes_before_any_other() -> None:
    (wanted,) = World(config(endpoint(api_version="2020-08-27", connect=True))).wanted.values()

    assert (wanted.params(api_version="2024-06-20").api_version, wanted.params().connect) == ("2020-08-27", True)


def test_what_is_as_it_should_be_is_left() -> None:
    world = World()
    made = world.stripe.register(URL, ("charge.succeeded", "charge.refunded")).endpoint
    world.store.kept = keeping(signing("whsec_1", made.id))

    plan = world.plan()

    assert isinstance(plan.steps[0], Keep)
    assert (plan.changes, plan.findings, plan.left) == ((), (), 15)


def test_what_differs_is_changed_and_nothing_else() -> None:
    world = World()
    made = world.stripe.register("https://old.example.com/", ("charge.succeeded",), enabled=False).endpoint
    world.store.kept = keeping(signing("whsec_1", made.id))

    (step,) = world.plan().steps

    assert isinstance(step, Update)
    assert (step.kind, step.endpoint_id, step.changes) == (
        StepKind.UPDATE, made.id, Changes(URL, ("charge.succeeded", "charge.refunded"), enabled=True),
    )  # fmt: skip


def test_one_that_is_only_off_is_switched_on() -> None:
    world = World()
    made = world.stripe.register(URL, EVENTS, enabled=False).endpoint
    world.store.kept = keeping(signing("whsec_1", made.id))

    assert kinds(world.plan()) == [StepKind.ENABLE]


def test_one_that_stands_at_stripe_already_is_taken_over_by_its_url() -> None:
    world = World(config(endpoint(secrets=(Secret("whsec_given"),), path="/api/v1/webhook")))
    world.stripe.register(f"{PUBLIC_URL}/api/v1/webhook", EVENTS, api_version="2020-08-27")

    plan = world.plan()

    assert (kinds(plan), plan.findings) == ([StepKind.NOTHING], ())


def test_one_that_was_renamed_gets_its_new_name() -> None:
    world = World(config(endpoint("store", url=URL)))
    made = world.stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop", "own": "1"}).endpoint
    world.store.kept = keeping(signing("whsec_1", made.id), name="store")

    plan = world.plan(prune=True)

    (step,) = plan.steps
    assert isinstance(step, Update)
    assert step.changes == Changes(metadata={ENDPOINT: "store"})
    assert plan.findings == ()


# --- whose is which --------------------------------------------------------------------------------------------------


def test_the_id_in_the_store_comes_first_then_the_name_then_the_url() -> None:
    world = World()
    at_url = world.stripe.register(URL).endpoint
    named_and_off = world.stripe.register(f"{PUBLIC_URL}/x", enabled=False, metadata={ENDPOINT: "shop"}).endpoint
    named = world.stripe.register(f"{PUBLIC_URL}/x", metadata={ENDPOINT: "shop"}).endpoint
    known = world.stripe.register("https://y.example.com/", enabled=False).endpoint

    def found(credentials: Credentials, *gone: str) -> str | None:
        listed = [each for each in world.stripe.endpoints if each.id not in gone]
        endpoint = matched({"shop": URL}, listed, credentials, deployment("shop")).get("shop")
        return None if endpoint is None else endpoint.id

    assert found(keeping(signing("whsec_2", "we_gone"), signing("whsec_1", known.id))) == known.id
    assert found(Credentials()) == named.id
    assert found(Credentials(), named.id) == at_url.id
    assert found(Credentials(), named.id, at_url.id) == named_and_off.id
    world.stripe.register(URL, enabled=False)
    assert found(Credentials(), named.id, at_url.id, named_and_off.id) == "we_5"
    assert found(Credentials(), named.id, at_url.id, named_and_off.id, "we_5") is None


def test_no_endpoint_is_two_names() -> None:
    world = World()
    first, second = (world.stripe.register(URL).endpoint for _ in range(2))
    urls = {"one": URL, "two": URL, "three": URL}

    found = matched(urls, world.stripe.endpoints, Credentials(), deployment(*urls))

    assert {name: each.id for name, each in found.items()} == {"one": second.id, "two": first.id}


def test_what_is_another_ones_by_name_or_by_id_is_not_taken_by_url() -> None:
    world = World()
    world.stripe.register(URL, metadata={ENDPOINT: "other"})
    known = world.stripe.register(URL).endpoint
    others = keeping(signing("whsec_1", known.id), name="another")

    assert matched({"shop": URL}, world.stripe.endpoints, others, deployment("shop", "other", "another")) == {}
    # What is configured no more may be taken.
    assert matched({"shop": URL}, world.stripe.endpoints, Credentials(), deployment("shop"))["shop"].id == known.id


# --- the findings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", [Credentials(), keeping(signing("whsec_1", "we_another"))])
def test_one_whose_secret_nobody_has_is_told_of_and_left_as_it_is(credentials: Credentials) -> None:
    world = World()
    world.store.kept = credentials
    world.stripe.register(f"{PUBLIC_URL}/elsewhere", ("*",), enabled=False, metadata={ENDPOINT: "shop"})

    plan = world.plan()

    assert kinds(plan) == [StepKind.NOTHING]
    assert findings(plan) == [FindingKind.SECRET_UNKNOWN]
    assert "secrets set shop" in plan.findings[0].said
    assert f"{PUBLIC_URL}/elsewhere" in plan.findings[0].said


def test_a_secret_that_is_kept_without_an_endpoint_may_be_its() -> None:
    world = World()
    world.stripe.register(URL, EVENTS)
    world.store.kept = keeping(signing("whsec_1"))

    assert world.plan().findings == ()


def test_none_is_made_whose_secret_the_configuration_would_hide() -> None:
    plan = World(config(endpoint(secrets=(Secret("whsec_given"),)))).plan()

    assert plan.steps == ()
    assert findings(plan) == [FindingKind.SECRET_OVERRIDES]
    assert "whsec_given" not in plan.findings[0].said


@pytest.mark.parametrize(
    ("configured", "stands", "found"),
    [
        ("2026-10-28.endive", "2020-08-27", [FindingKind.VERSION_DRIFT]),
        ("2026-10-28.endive", None, [FindingKind.VERSION_DRIFT]),
        ("2020-08-27", "2020-08-27", []),
        (None, "2020-08-27", []),
        (None, None, []),
    ],
)
def test_another_api_version_is_wrong_where_one_is_configured(
    configured: str | None, stands: str | None, found: list[FindingKind]
) -> None:
    world = World(config(endpoint(api_version=configured)))
    made = world.stripe.register(URL, EVENTS, api_version=stands).endpoint
    world.store.kept = keeping(signing("whsec_1", made.id))

    plan = world.plan()

    assert kinds(plan) == [StepKind.NOTHING]
    assert findings(plan) == found


def test_a_second_one_of_ours_is_told_of_but_not_one_that_is_being_replaced() -> None:
    world = World()
    first = world.stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop"}).endpoint
    doubled = world.stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop"}).endpoint
    world.store.kept = keeping(signing("whsec_1", first.id))
    assert [(each.kind, each.endpoint_id) for each in world.plan().findings] == [(FindingKind.DOUBLED, doubled.id)]

    new = world.stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop", REPLACES: f"{first.id},{doubled.id}"}).endpoint
    world.store.kept = keeping(signing("whsec_2", new.id), signing("whsec_1", first.id))
    assert world.plan().findings == ()


# --- a creation that was begun ---------------------------------------------------------------------------------------


def begun(world: World, *, made: bool, ago: timedelta, secret: bool = False) -> Creation:
    """A creation whose answer was lost."""
    params = world.wanted["shop"].params(metadata={CREATION: "key_0"})
    creation = Creation("key_0", world.clock.now() - ago, params)
    signed = (signing("whsec_found", clock=world.clock),) if secret else ()
    world.store.kept = Credentials().having("shop", EndpointCredentials(signed, creation=creation))
    if made:
        world.stripe.register(URL, EVENTS, metadata=params.metadata)
    return creation


@pytest.mark.parametrize("made", [True, False])
def test_within_the_time_it_is_repeated(made: bool) -> None:
    world = World()
    creation = begun(world, made=made, ago=timedelta(hours=22, minutes=59))

    (step,) = world.plan().steps

    assert isinstance(step, Replay)
    assert step.creation == creation
    assert step.endpoint_id == ("we_1" if made else None)
    assert world.plan().left == 15


def test_too_late_what_was_made_needs_a_person() -> None:
    world = World()
    begun(world, made=True, ago=timedelta(hours=23))

    plan = world.plan()

    assert kinds(plan) == [StepKind.NOTHING]
    assert findings(plan) == [FindingKind.SECRET_NOT_TOLD]
    assert "roll shop --replace" in plan.findings[0].said


def test_too_late_what_was_not_made_is_made_anew() -> None:
    world = World()
    begun(world, made=False, ago=timedelta(hours=23))

    assert (kinds(world.plan()), world.plan().findings) == ([StepKind.CREATE], ())


def test_a_secret_that_somebody_has_looked_up_is_the_end_of_it() -> None:
    world = World()
    begun(world, made=True, ago=timedelta(hours=23), secret=True)

    assert (kinds(world.plan()), world.plan().findings) == ([StepKind.NOTHING], ())


# --- the limit, and what is deleted ----------------------------------------------------------------------------------


def test_how_many_are_left_is_said_and_one_too_many_is_told_of() -> None:
    world = World(config(endpoint("one"), endpoint("two")))
    for number in range(14):
        world.stripe.register(f"https://other.example.com/{number}")
    assert (world.plan().left, world.plan().findings) == (0, ())

    world.stripe.register("https://other.example.com/more")

    plan = world.plan()
    assert (plan.used, plan.left) == (15, -1)
    assert findings(plan) == [FindingKind.LIMIT]
    assert "16" in plan.findings[0].said
    assert "17" in plan.findings[0].said


def test_without_prune_nothing_is_deleted_and_what_is_left_over_is_told_of() -> None:
    world = World(config(endpoint("one")))
    world.stripe.register("https://stranger.example.com/")
    gone = world.stripe.register(GONE, metadata={ENDPOINT: "gone"}).endpoint
    world.stripe.register(GONE, enabled=False, metadata={ENDPOINT: "gone"})

    plan = world.plan()

    assert kinds(plan) == [StepKind.CREATE]
    assert [(each.kind, each.endpoint_id) for each in plan.findings] == [(FindingKind.LEFT_OVER, gone.id)]


def test_prune_deletes_ours_that_are_configured_no_more_or_replaced_and_no_strangers() -> None:
    world = World()
    stripe = world.stripe
    stripe.register("https://stranger.example.com/", enabled=False)
    gone = stripe.register(GONE, metadata={ENDPOINT: "gone"}).endpoint
    gone_and_off = stripe.register(GONE, enabled=False, metadata={ENDPOINT: "gone"}).endpoint
    replaced = stripe.register(URL, enabled=False, metadata={ENDPOINT: "shop"}).endpoint
    in_roll = stripe.register(URL, enabled=False, metadata={ENDPOINT: "shop"}).endpoint
    stripe.register(URL, metadata={ENDPOINT: "shop"})  # enabled: nobody has switched it off yet
    present = stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop", REPLACES: replaced.id}).endpoint
    world.store.kept = keeping(signing("whsec_2", present.id), signing("whsec_1", in_roll.id))

    plan = world.plan(prune=True)

    assert {step.endpoint_id for step in plan.steps if isinstance(step, Delete)} == {
        gone.id, gone_and_off.id, replaced.id,
    }  # fmt: skip
    assert kinds(plan)[0] is StepKind.NOTHING
    assert plan.left == 16 - 7 + 3


def test_prune_leaves_what_another_account_of_the_configuration_is_called() -> None:
    world = World()
    world.stripe.register(f"{PUBLIC_URL}/webhooks/live", metadata={ENDPOINT: "live"})
    world.config = replace_endpoints(world.config, endpoint(), endpoint("live", mode="live"))

    assert StepKind.DELETE not in kinds(world.plan(prune=True))


def replace_endpoints(given: Config, *endpoints: EndpointConfig) -> Config:
    return Config(receiver=given.receiver, endpoints=endpoints)


def test_another_deployments_endpoints_are_nobodys_here() -> None:
    # Of the same preset, say: the names are the same, and there is no store in common.
    world = World()
    mine = world.stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop"}).endpoint
    world.store.kept = keeping(signing("whsec_1", mine.id))
    for name in ("shop", "gone"):
        for enabled in (True, False):
            world.stripe.register("https://theirs.example.com/x", enabled=enabled, metadata={ENDPOINT: name})

    for plan in (world.plan(), world.plan(prune=True)):
        assert (kinds(plan), plan.findings) == ([StepKind.NOTHING], ())


def test_one_that_another_deployment_calls_the_same_is_not_taken_over() -> None:
    world = World()
    world.stripe.register("https://theirs.example.com/x", EVENTS, metadata={ENDPOINT: "shop"})

    assert (kinds(world.plan()), world.plan().findings) == ([StepKind.CREATE], ())


@pytest.mark.parametrize("known", ["by its secret", "by its successor", "by its url"])
def test_prune_deletes_what_is_known_to_be_of_here(known: str) -> None:
    world = World(config(endpoint("shop", url="https://shop.example.com/hook")))
    gone, successor = "gone", {ENDPOINT: "shop", REPLACES: "we_1"}
    url = "https://shop.example.com/hook" if known == "by its url" else "https://moved.example.com/"
    old = world.stripe.register(url, EVENTS, enabled=False, metadata={ENDPOINT: gone}).endpoint
    new = world.stripe.register("https://shop.example.com/hook", EVENTS, metadata=successor).endpoint
    world.store.kept = keeping(signing("whsec_2", new.id))
    if known == "by its secret":
        world.store.kept = world.store.kept.having(gone, EndpointCredentials((signing("whsec_1", old.id),)))
        world.stripe.remove(new.id)

    assert [step.endpoint_id for step in world.plan(prune=True).steps if isinstance(step, Delete)] == [old.id]


def test_one_of_nobodys_at_the_same_url_is_told_of_and_never_deleted() -> None:
    world = World()
    mine = world.stripe.register(URL, EVENTS, metadata={ENDPOINT: "shop"}).endpoint
    other = world.stripe.register(URL, EVENTS).endpoint
    world.store.kept = keeping(signing("whsec_1", mine.id))

    assert [(each.kind, each.endpoint_id) for each in world.plan().findings] == [(FindingKind.DOUBLED, other.id)]
    assert StepKind.DELETE not in kinds(world.plan(prune=True))
    world.store.kept = keeping(signing("whsec_2"), signing("whsec_1", mine.id))
    assert world.plan().findings == ()


def test_more_than_stripes_usual_limit_is_no_finding_where_nothing_is_to_be_made() -> None:
    world = World()
    mine = world.stripe.register(URL, EVENTS).endpoint
    world.store.kept = keeping(signing("whsec_1", mine.id))
    for number in range(20):
        world.stripe.register(f"https://other.example.com/{number}")

    assert (world.plan().left, world.plan().findings) == (-5, ())


def test_what_is_deleted_goes_last_unless_its_room_is_needed() -> None:
    world = World()
    for number in range(16):
        world.stripe.register(f"{GONE}/{number}", metadata={ENDPOINT: f"gone_{number}"})
    assert kinds(world.plan(prune=True))[0] is StepKind.DELETE

    world.stripe.remove("we_1")

    assert kinds(world.plan(prune=True))[0] is StepKind.CREATE
    assert kinds(world.plan(prune=True))[-1] is StepKind.DELETE


def test_a_plan_shows_no_secret() -> None:
    world = World()
    made = world.stripe.register(URL, ("*",)).endpoint
    world.store.kept = keeping(replace(signing("whsec_1"), webhook_endpoint_id=made.id))

    assert "whsec_" not in repr(world.plan())
