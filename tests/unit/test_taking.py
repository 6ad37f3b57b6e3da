"""The patience of jobs: what is away for a while is waited for, what stays away ends the job, and nothing goes on."""

import asyncio
from collections import Counter

import pytest

from service.errors import BrokerUnavailable, IngestError, PublishRefused, Unavailable
from service.events import Accepted, TrustedEvent
from service.recovery import taking as module
from service.recovery.taking import insist, take_all
from tests.support.recovering import World


def no_time(*_: float) -> float:
    return 0.0


async def bodies(world: World, count: int) -> list[TrustedEvent]:
    reader = world.stripe.reader()
    return [
        TrustedEvent(world.endpoints[0], (await reader.event(event_id)).body, world.clock.now())
        for event_id in world.happens(count)
    ]


async def test_a_broker_that_is_away_for_a_while_is_waited_for_and_the_order_is_kept() -> None:
    world = World()
    wanted = await bodies(world, 5)
    world.publisher.fail_next(7, BrokerUnavailable("away"))

    taken = await take_all(wanted, "reconcile", world.ingest, jitter=no_time)

    assert [type(each.outcome) for each in taken] == [Accepted] * 5
    assert [each.event and each.event.created_at for each in taken] == sorted(
        each.event.created_at for each in taken if each.event
    )
    assert set(world.published().values()) == {1}


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), PublishRefused("no")], ids=lambda error: error.tag)
async def test_a_broker_that_does_not_take_one_ends_it_when_the_others_are_through(
    monkeypatch: pytest.MonkeyPatch, error: IngestError
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    world = World()
    wanted = await bodies(world, 5)
    world.publisher.fail_next(1, error)

    with pytest.raises(type(error)):
        await take_all(wanted, "reconcile", world.ingest, jitter=no_time)

    assert world.published().total() == 4
    assert Counter(type(each.outcome) for each in await take_all(wanted, "reconcile", world.ingest))[Accepted] == 1


async def test_who_is_told_to_stop_tries_once_more_and_waits_no_longer() -> None:
    stop = asyncio.Event()
    attempts = 0

    async def away() -> None:
        nonlocal attempts
        attempts += 1
        asyncio.get_running_loop().call_soon(stop.set)
        raise Unavailable("away")

    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await insist(away, give_up_at=float("inf"), jitter=lambda *_: 1000.0, stop=stop)

    assert attempts == 2
