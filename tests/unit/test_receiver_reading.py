"""Room for bodies: bounded in number and bytes, and who is there for longest goes."""

import asyncio
import resource
from collections.abc import Iterator

import pytest

from service.bootstrap.receiver import raise_open_files
from service.errors import BodyTooSlow, Overloaded
from service.receiver.accepting import CONNECTIONS_MAX, CONNECTIONS_MIN, connections_max
from service.receiver.reading import Reading


class Bodies:
    """Bodies that are read until they are let go."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.ended = asyncio.Event()

    async def read(self, size: int, *, seconds: float = 30.0) -> None:
        async with self._reading.body(size, until=asyncio.get_running_loop().time() + seconds):
            await self.ended.wait()

    async def begin(self, size: int) -> asyncio.Task[None]:
        task = asyncio.create_task(self.read(size))
        await asyncio.sleep(0)
        return task


async def test_beyond_the_number_the_one_that_is_there_for_longest_is_sent_away() -> None:
    bodies = Bodies(Reading(bodies_max=2, bytes_max=1000))
    first, second, third = [await bodies.begin(10) for _ in range(3)]

    with pytest.raises(Overloaded):
        await first
    bodies.ended.set()
    await asyncio.gather(second, third)


async def test_beyond_the_bytes_as_many_are_sent_away_as_there_must_be() -> None:
    bodies = Bodies(Reading(bodies_max=100, bytes_max=100))
    small = [await bodies.begin(30) for _ in range(3)]
    large = await bodies.begin(70)

    results = await asyncio.gather(*small[:2], return_exceptions=True)
    assert [type(result) for result in results] == [Overloaded, Overloaded]
    bodies.ended.set()
    await asyncio.gather(small[2], large)


async def test_who_has_gone_leaves_the_room_that_it_took() -> None:
    reading = Reading(bodies_max=2, bytes_max=100)
    for size in (100, 60, 40, 100):
        bodies = Bodies(reading)
        bodies.ended.set()
        await asyncio.gather(bodies.read(size), bodies.read(0))

    waiting = Bodies(reading)
    cancelled = await waiting.begin(100)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    stays = await waiting.begin(50)
    waiting.ended.set()
    await stays


async def test_a_body_that_does_not_come_in_time_is_too_slow_and_not_in_the_way() -> None:
    bodies = Bodies(Reading(bodies_max=1, bytes_max=100))

    with pytest.raises(BodyTooSlow):
        await bodies.read(10, seconds=0.01)


@pytest.mark.parametrize(("open_files", "most"), [(1, CONNECTIONS_MIN), (1024, 1024 - 128), (1 << 20, CONNECTIONS_MAX)])
def test_connections_leave_descriptors_for_everything_else(open_files: int, most: int) -> None:
    assert connections_max(open_files) == most


@pytest.fixture
def few_open_files() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard) - 1, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_takes_all_the_descriptors_that_it_may_have(few_open_files: int) -> None:
    assert raise_open_files() == few_open_files
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few_open_files, few_open_files)
