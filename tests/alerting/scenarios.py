"""A fault for each alert: what is done to a deployment in which everything is well, so that this alert fires.

A step is done once, or goes on until the scenario ends; the runner cancels it then. What a step has broken for good goes
with the deployment.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeAlias

import aiohttp
import orjson

from service.receiver.accepting import CONNECTIONS_MIN, DESCRIPTORS_KEPT
from service.simulator.events import sample
from service.simulator.fake_stripe import Failing
from service.simulator.objects import Object
from tests.alerting.faults import (
    again_and_again,
    changed,
    execute,
    garbage,
    hold_table,
    join_and_leave,
    post,
    stand_still,
    stop_and_go,
    with_object,
)
from tests.alerting.front import Front
from tests.alerting.planted import TRIGGER
from tests.alerting.scaling import compressed, seconds_of
from tests.alerting.traffic import Traffic, payment
from tests.alerting.world import RECEIVER, SECOND, Prepare, World, nothing

Step: TypeAlias = Callable[[World], Awaitable[object]]

WRONG_SECRET: Final = "whsec_of_another_endpoint"
NEW_SECRET: Final = "whsec_rolled_in_the_dashboard"
TOKEN: Final = "an-operator-signs-in-with-this"


@dataclass(frozen=True)
class Scenario:
    """How to have one alert fire."""

    alert: str
    fault: str
    """In words, for the table."""
    step: Step
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    prepare: Prepare = nothing
    warm_up: str = "5m"
    """How long everything has to be well before: an alert that compares with yesterday needs one."""
    redis: bool = False
    """Whether events are deduplicated in Redis: then a database that is away is another fault than a store that is."""
    second: bool = False
    """Whether there is a second receiver."""
    stretch: float = 1.0
    """How many times as slow as usual time passes: where the fault itself takes its time."""


SCENARIOS: list[Scenario] = []


def scenario(
    alert: str,
    fault: str,
    *,
    settings: Mapping[str, str] | None = None,
    prepare: Prepare = nothing,
    warm_up: str = "5m",
    redis: bool = False,
    second: bool = False,
    stretch: float = 1.0,
) -> Callable[[Step], Step]:
    """Have a step be the fault that an alert tells of."""

    def decorated(step: Step) -> Step:
        SCENARIOS.append(Scenario(alert, fault, step, settings or {}, prepare, warm_up, redis, second, stretch))
        return step

    return decorated


# Objectives ----------------------------------------------------------------------------------------------------------


@scenario("StripeIngestErrorBudgetBurnFast", "Kafka stands still (SIGSTOP)")
async def kafka_stands_still(world: World) -> None:
    world.servers.kafka.pause()


@scenario("StripeIngestErrorBudgetBurnSlow", "Kafka stands still for 12 s, then goes on")
async def kafka_stood_still(world: World) -> None:
    await stand_still(world.servers.kafka.pause, world.servers.kafka.resume, seconds=12)


@scenario("StripeIngestLatencyBudgetBurnFast", "Kafka stands still for 0.6 s of each second")
async def kafka_stutters(world: World) -> None:
    kafka = world.servers.kafka
    await stop_and_go(kafka.pause, kafka.resume, stopped=0.6, going=0.4)


@scenario("StripeIngestLatencyBudgetBurnSlow", "Kafka stands still for 1 s of each 2 s, for 10 s")
async def kafka_stuttered(world: World) -> None:
    kafka = world.servers.kafka
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await stop_and_go(kafka.pause, kafka.resume, stopped=1.0, going=1.0)


@scenario("StripeIngestFreshnessBudgetBurnFast", "the payments consumer stands still for 12 s, then goes on")
@scenario("StripeIngestFreshnessBudgetBurnSlow", "the payments consumer stands still for 12 s, then goes on")
async def consumer_stood_still(world: World) -> None:
    await stand_still(
        lambda: world.signal("payments", signal.SIGSTOP), lambda: world.signal("payments", signal.SIGCONT), seconds=12
    )


# Arrival -------------------------------------------------------------------------------------------------------------


@scenario("StripeIngestNoEvents", "Stripe sends nothing any more", warm_up="30d")
@scenario("StripeIngestEndpointQuiet", "Stripe sends nothing any more", warm_up="1d")
async def silence(world: World) -> None:
    world.traffic.per_second = 0


@scenario("StripeIngestClockSkew", "deliveries are signed 100 s ago")
async def clock_is_ahead(world: World) -> None:
    world.traffic.signed_seconds_ago = 100


@scenario("StripeIngestTimestampsRefused", "deliveries are signed 20 min ago")
async def clock_is_wrong(world: World) -> None:
    world.traffic.signed_seconds_ago = 1200


@scenario("StripeIngestSecretWrong", "deliveries are signed with another secret")
async def secret_is_wrong(world: World) -> None:
    world.traffic.secret = type(world.traffic.secret)(WRONG_SECRET)


@scenario("StripeIngestSignatureFailures", "a second sender has another secret")
async def second_sender(world: World) -> None:
    await Traffic(world.url, per_second=5, secret=type(world.traffic.secret)(WRONG_SECRET)).run()


@scenario("StripeIngestEndpointWithoutSecret", "a second endpoint without a secret (SIGHUP)")
async def endpoint_without_secret(world: World) -> None:
    world.write_config(more='[[endpoints]]\nname = "bare"\nmode = "test"\n')
    world.signal(RECEIVER, signal.SIGHUP)


@scenario("StripeIngestSecretRollUnfinished", "a second secret, and nobody takes the first away")
async def roll_without_end(world: World) -> None:
    world.write_config(secrets=(NEW_SECRET, world.traffic.secret.value))
    world.signal(RECEIVER, signal.SIGHUP)


@scenario("StripeIngestDeliveriesRefused", "a proxy compresses the bodies")
async def proxy_compresses(world: World) -> None:
    await again_and_again(lambda: post(world.url, {"Content-Encoding": "gzip"}), every_seconds=0.1)


@scenario("StripeIngestEventsArriveLate", "events are an hour old")
@scenario("StripeIngestResends", "events are an hour old, and signed now")
async def old_events(world: World) -> None:
    world.traffic.event = lambda number: payment(number) | {"created": int(time.time()) - 3600}


@scenario("StripeIngestQuarantineGrowing", "events of live mode at an endpoint of test mode")
async def other_mode(world: World) -> None:
    await Traffic(world.url, per_second=1, event=changed(livemode=True)).run()


@scenario("StripeIngestUnknownEventTypes", "an event type that Stripe does not have yet")
async def new_type(world: World) -> None:
    await Traffic(world.url, per_second=1, event=changed(type="payment_intent.teleported")).run()


@scenario("StripeIngestUnknownValues", "a status that Stripe does not have yet")
async def new_status(world: World) -> None:
    await Traffic(world.url, per_second=1, event=with_object(status="teleported")).run()


# At Stripe -----------------------------------------------------------------------------------------------------------


def _happened() -> Object:
    """An event at Stripe; no endpoint is asked about what is older than itself."""
    return sample("payment_intent.succeeded", seed=-1, created=int(time.time()) - 1)


@scenario("StripeIngestEndpointBroken", "the endpoint is switched off at Stripe")
async def endpoint_switched_off(world: World) -> None:
    world.fake.switch_off(world.endpoint_id)


@scenario("StripeIngestEndpointProblem", "the configuration has an event type that the endpoint at Stripe has not")
async def events_missing(world: World) -> None:
    text = world.config_file.read_text("utf-8")
    world.config_file.write_text(text.replace('"charge.refunded",', '"charge.refunded", "charge.expired",'), "utf-8")
    world.signal(RECEIVER, signal.SIGHUP)


@scenario("StripeIngestUndeliveredEvents", "another endpoint of the account takes no events")
async def another_endpoint_fails(world: World) -> None:
    world.fake.register("http://127.0.0.1:9/nobody", ["payment_intent.succeeded"])
    world.fake.add(_happened())


@scenario("StripeIngestEndpointWatchStale", "Stripe fails whenever it is asked for the webhook endpoints")
async def watch_fails(world: World) -> None:
    world.fake.trouble.share(Failing(500), 1.0, seed=1, path="/v1/webhook_endpoints")


@scenario("StripeIngestMissedEvents", "Stripe never delivers an event")
async def never_delivered(world: World) -> None:
    world.fake.deliveries.pause()
    world.fake.add(_happened())


@scenario("StripeIngestReconcileFailing", "Stripe fails whenever it is asked for events")
@scenario("StripeIngestReconciledUntilOld", "Stripe fails whenever it is asked for events")
async def events_fail(world: World) -> None:
    world.fake.trouble.share(Failing(500), 1.0, seed=1, path="/v1/events")


@scenario("StripeIngestTiesUndecided", "many subscriptions change twice within one second")
async def ties(world: World) -> None:
    second = int(time.time())

    def one_of_two(number: int) -> Object:
        event = sample("customer.subscription.updated", seed=number // 2, created=second)
        event["data"]["object"]["metadata"] = {"note": str(number)}
        event["data"].pop("previous_attributes", None)
        return event | {"id": f"evt_tie_{number}"}

    await Traffic(world.url, per_second=20, event=one_of_two).run()


# Publishing ----------------------------------------------------------------------------------------------------------


@scenario("StripeIngestProducerDown", "Kafka is killed")
@scenario("StripeIngestPublishFailing", "Kafka is killed")
async def kafka_killed(world: World) -> None:
    world.servers.kafka.kill()


@scenario("StripeIngestPublishSlow", "Kafka stands still for 1.6 s of each 2 s")
async def kafka_crawls(world: World) -> None:
    world.traffic.per_second = 40
    kafka = world.servers.kafka
    await stop_and_go(kafka.pause, kafka.resume, stopped=1.6, going=0.4)


@scenario("StripeIngestProducerReplaced", "Kafka stands still for 4 s of each 6 s", stretch=4)
async def kafka_comes_and_goes(world: World) -> None:
    kafka = world.servers.kafka
    await stop_and_go(kafka.pause, kafka.resume, stopped=4.0, going=2.0)


@scenario("StripeIngestDedupeBypassed", "Redis stands still (SIGSTOP)", redis=True)
@scenario("StripeIngestDedupeFailing", "Redis stands still (SIGSTOP)", redis=True)
async def redis_stands_still(world: World) -> None:
    world.servers.redis.pause()


@scenario("StripeIngestDedupeSlow", "Redis stands still for 0.2 s of each 0.5 s", redis=True)
async def redis_stutters(world: World) -> None:
    world.traffic.per_second = 40
    redis = world.servers.redis
    await stop_and_go(redis.pause, redis.resume, stopped=0.2, going=0.3)


@scenario("StripeIngestDedupeUnforeseen", "a planted bug: every tenth claim raises what nobody has foreseen")
async def dedupe_bug(world: World) -> None:
    await world.restart(RECEIVER, bug="dedupe-unforeseen")


@scenario("StripeIngestDedupeConfirmsLost", "Redis stands still, and there is room for 20 confirmations", redis=True)
async def no_room_for_confirmations(world: World) -> None:
    await world.restart(RECEIVER, bug="few-confirmations")
    world.servers.redis.pause()


@scenario("StripeIngestInFlightHigh", "Kafka stutters with room for 10 deliveries",
          settings={"STRIPE_INGEST__RECEIVER__MAX_IN_FLIGHT": "10"})  # fmt: skip
@scenario("StripeIngestOverloaded", "Kafka stutters with room for 10 deliveries",
          settings={"STRIPE_INGEST__RECEIVER__MAX_IN_FLIGHT": "10"})  # fmt: skip
async def no_room(world: World) -> None:
    world.traffic.per_second = 40
    kafka = world.servers.kafka
    await stop_and_go(kafka.pause, kafka.resume, stopped=2.0, going=0.1)


@scenario("StripeIngestConnectionsRefused", "a stranger opens connections until there is no room",
          settings={"STRIPE_INGEST__RECEIVER__MAX_IN_FLIGHT": "50"})  # fmt: skip
async def many_connections(world: World) -> None:
    await world.kill(RECEIVER)
    await world.start(RECEIVER, open_files=DESCRIPTORS_KEPT + CONNECTIONS_MIN)
    await world.ready(RECEIVER)

    async def one() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        stack.callback(writer.close)

    async with AsyncExitStack() as stack:
        await again_and_again(one, every_seconds=0.02)


@scenario("StripeIngestInternalErrors", "a planted bug: normalizing one event type fails unforeseen")
async def normalizing_bug(world: World) -> None:
    await world.restart(RECEIVER, bug="internal-error")
    await Traffic(world.url, per_second=1, event=changed(type=f"payment_intent.{TRIGGER}")).run()


@scenario("StripeIngestReloadRefused", "a configuration that is wrong (SIGHUP)")
async def wrong_configuration(world: World) -> None:
    world.write_config(more='[[endpoints]]\nname = "Not a name"\n')
    world.signal(RECEIVER, signal.SIGHUP)


# Consuming -----------------------------------------------------------------------------------------------------------


@scenario("StripeIngestConsumerAbsent", "the refunds consumer is killed")
async def consumer_killed(world: World) -> None:
    await world.kill("refunds")


@scenario("StripeIngestConsumerDown", "the refunds consumer stands still (SIGSTOP)")
async def consumer_stands_still(world: World) -> None:
    world.signal("refunds", signal.SIGSTOP)


@scenario("StripeIngestConsumerLag", "somebody holds a lock on the payments table")
@scenario("StripeIngestConsumerStuck", "somebody holds a lock on the payments table")
@scenario("StripeIngestConsumerNotReady", "somebody holds a lock on the payments table")
async def table_locked(world: World) -> None:
    await hold_table(world, "payments")


@scenario("StripeIngestStoreRetries", "the database ends the consumers' connections again and again")
async def connections_end(world: World) -> None:
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'stripe-ingest payments'"
    )
    await again_and_again(lambda: execute(world, statement), every_seconds=0.1)


@scenario("StripeIngestPartitionStopped", "the stored offset of a partition is outside its log")
async def offset_outside(world: World) -> None:
    await execute(
        world,
        "UPDATE consumer_offsets SET next_offset = next_offset + 1000000"
        f" WHERE consumer_group = '{world.topics.group('payments')}'",
    )


@scenario("StripeIngestDeadLetters", "one record that nobody can read")
async def one_unreadable(world: World) -> None:
    await garbage(world, 1)


@scenario("StripeIngestDeadLetterLimit", "many records that nobody can read",
          settings={"STRIPE_INGEST__CONSUMER__DEAD_LETTER_LIMIT": "10"})  # fmt: skip
async def many_unreadable(world: World) -> None:
    world.traffic.per_second = 0
    await garbage(world, 30)


@scenario("StripeIngestFencesLost", "somebody changes a stored offset again and again")
async def fences(world: World) -> None:
    statement = (
        "UPDATE consumer_offsets SET next_offset = greatest(next_offset - 1, 0)"
        f" WHERE consumer_group = '{world.topics.group('payments')}'"
    )
    await again_and_again(lambda: execute(world, statement), every_seconds=0.5)


@scenario(
    "StripeIngestRebalanceStorm", "another member joins the payments group and leaves, again and again", stretch=6
)
async def rebalances(world: World) -> None:
    await again_and_again(lambda: join_and_leave(world, "payments"), every_seconds=0.2)


# Process -------------------------------------------------------------------------------------------------------------


@scenario("StripeIngestReceiverAbsent", "the only receiver is killed")
async def receiver_killed(world: World) -> None:
    await world.kill(RECEIVER)


@scenario("StripeIngestReceiverDown", "one of two receivers stands still (SIGSTOP)", second=True)
async def receiver_stands_still(world: World) -> None:
    world.signal(SECOND, signal.SIGSTOP)


@scenario(
    "StripeIngestProcessRestarting", "the catalog consumer is killed and started again, again and again", stretch=4
)
async def restarts(world: World) -> None:
    await again_and_again(lambda: world.restart("catalog"), every_seconds=1.5)


@scenario("StripeIngestEventLoopLag", "the receiver stands still for 0.7 s of each second")
async def loop_lags(world: World) -> None:
    await stop_and_go(
        lambda: world.signal(RECEIVER, signal.SIGSTOP),
        lambda: world.signal(RECEIVER, signal.SIGCONT),
        stopped=0.7,
        going=0.3,
    )


@scenario("StripeIngestLogLinesDropped", "nobody reads what the receiver logs")
async def log_is_full(world: World) -> None:
    reading, writing = os.pipe()
    try:
        await world.kill(RECEIVER)
        await world.start(RECEIVER, log=writing, STRIPE_INGEST__LOGGING__LEVEL="debug")
        os.close(writing)
        await world.ready(RECEIVER)
        async with aiohttp.ClientSession() as session:
            for _ in range(15_000):  # more lines than are kept waiting
                async with session.post(world.url, data=b"{}") as response:
                    await response.read()
        await asyncio.Event().wait()
    finally:
        os.close(reading)


async def tls_in_front(world: World) -> None:
    """Have Stripe reach the endpoint by https, with a certificate that is good for a year."""
    world.front = await Front.opened(world.exits, world.folder)
    world.public_url = f"{world.front.url}/webhooks/shop"


def certificate_for(world: World, seconds: float) -> None:
    """Have the certificate end in so many seconds."""
    assert world.front is not None
    world.front.certify(datetime.now(UTC) + timedelta(seconds=seconds))


@scenario("StripeIngestCertificateExpiring", "a certificate that ends within 21 days", prepare=tls_in_front)
async def expiring(world: World) -> None:
    certificate_for(world, compressed(seconds_of("21d")) - 2)


@scenario("StripeIngestCertificateExpiresSoon", "a certificate that ends within 7 days", prepare=tls_in_front)
async def expires_soon(world: World) -> None:
    certificate_for(world, compressed(seconds_of("7d")) - 2)


@scenario("StripeIngestCertificateExpired", "a certificate that ends now", prepare=tls_in_front)
async def expired(world: World) -> None:
    certificate_for(world, 5)


@scenario(
    "StripeIngestSignInsRefused", "somebody guesses the page's token", settings={"STRIPE_INGEST__ADMIN__TOKEN": TOKEN}
)
async def guessing(world: World) -> None:
    session = f"http://127.0.0.1:{world.admin[RECEIVER]}/api/session"
    guess = orjson.dumps({"token": "a-guess-that-is-long-enough"})
    await again_and_again(lambda: post(session, {"Content-Type": "application/json"}, guess), every_seconds=0.1)


@scenario("StripeIngestEventLogDropping", "the event log's table is gone")
async def no_event_log(world: World) -> None:
    await execute(world, "ALTER TABLE event_log RENAME TO event_log_of_somebody")


@scenario("StripeIngestVersionsDiffer", "one of two receivers is of another release", second=True)
async def another_release(world: World) -> None:
    await world.restart(SECOND, bug="other-version")


@scenario("StripeIngestWatchdog", "nothing: it always fires")
async def all_is_well(_: World) -> None:
    return
