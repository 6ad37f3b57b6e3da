"""What counts as missing, and that a walk which was interrupted ends where an uninterrupted one does."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.dedupe_memory import MemoryDedupeStore
from service.errors import DedupeUnavailable, JobHeld, StripePermissionMissing, StripeUnavailable
from service.events import ClaimKey, ClaimState
from service.receiver.ingest import EVENT_SCOPE
from service.recovery.reconcile import PageReport, Report, Span, Window, endpoint_of, is_due
from tests.support.recovering import DAY, GRACE, Reconciled, World, endpoint, headers
from tests.support.waiting import eventually

T0 = datetime(2026, 11, 20, tzinfo=UTC)


class Killed(Exception):
    """What a test does to a walk."""


class Dying(Reconciled):
    """Has the walk end when so many pages are done and saved."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self._after = after

    def page(self, page: PageReport) -> None:
        super().page(page)
        if len(self.pages) == self._after:
            raise Killed


async def caught_up(world: World) -> Report:
    """Catch up with a day to look back and an hour of overlap."""
    report = await world.reconciler.catch_up(DAY, timedelta(hours=1), Reconciled())
    assert report is not None
    return report


async def test_what_was_never_delivered_is_published_with_its_source_told() -> None:
    world = World()
    missed = world.happens(5)
    delivered = world.happens(2, ago=timedelta(hours=2))
    for event_id in delivered:
        await world.delivered(event_id)
    seen = Reconciled()

    report = await world.reconciler.run(DAY, seen)

    assert world.published() == Counter([*missed, *delivered])
    sources = Counter(headers(record)["ingest_source"] for record in world.records())
    assert sources == {"reconcile": 5, "webhook": 2}
    assert (report.listed, report.known, report.missing) == (7, 2, Counter({"payment_intent.succeeded": 5}))
    assert {each.event_id for each in seen.missing} == set(missed)


async def test_a_second_run_finds_nothing() -> None:
    world = World()
    missed = world.happens(5)
    await world.reconciler.run(DAY, Reconciled())

    report = await world.reconciler.run(DAY, Reconciled())

    assert (report.known, report.missing) == (5, Counter())
    assert world.published() == Counter(missed)


async def test_what_stripe_may_still_be_delivering_is_left_alone() -> None:
    world = World()
    world.happens(2, ago=timedelta(minutes=5))

    report = await world.reconciler.run(DAY, Reconciled())

    assert report.listed == 0
    assert world.published() == Counter()


async def test_what_stripe_has_not_given_up_is_told_apart() -> None:
    world = World()
    (event_id,) = world.happens(1)
    tree = dict(world.stripe.one("events", event_id).tree)
    world.stripe.add({**tree, "pending_webhooks": 1})

    report = await world.reconciler.run(DAY, Reconciled())

    assert (report.missing.total(), report.pending) == (1, 1)


async def test_what_a_killed_process_had_claimed_is_waited_for_and_taken() -> None:
    """Its walk stood at this page: passed over now, nobody would ever look at it again."""
    world = World()
    missed = world.happens(2)
    key = ClaimKey(EVENT_SCOPE, missed[0])
    await world.dedupe.claim([key], owner="killed")
    run = asyncio.create_task(world.reconciler.run(DAY, Reconciled()))
    await eventually(world.published, what="the page is being taken")
    world.clock.advance(31)  # its lease runs out

    report = await run

    assert world.published() == Counter(missed)
    assert (report.missing.total(), report.in_flight) == (2, 0)


async def test_what_is_delivered_while_the_walk_waits_for_it_was_not_missing() -> None:
    world = World()
    (event_id,) = world.happens(1)
    key = ClaimKey(EVENT_SCOPE, event_id)

    class Slow(MemoryDedupeStore):
        """Whoever asks for what another has, waits; by then that one is done."""

        async def claim(self, keys: Collection[ClaimKey], *, owner: str) -> Mapping[ClaimKey, ClaimState]:
            states = await super().claim(keys, owner=owner)
            await self.confirm([key for key, state in states.items() if state is ClaimState.IN_FLIGHT])
            return states

    world.dedupe = Slow(world.clock, max_entries=10)
    await world.dedupe.claim([key], owner="a receiver")

    assert (await world.reconciler.preview(DAY, Reconciled())).in_flight == 1
    report = await world.reconciler.run(DAY, Reconciled())

    assert (report.in_flight, report.known, report.missing) == (1, 0, Counter())
    assert world.published() == Counter()


async def test_only_types_that_an_endpoint_takes_are_missed() -> None:
    world = World(endpoints=(endpoint("refunds", "refund.created"), endpoint("all", "*", mode="live")))
    world.happens(2)
    wanted = world.happens(1, kind="refund.created", ago=timedelta(hours=2))

    report = await world.reconciler.run(DAY, Reconciled())

    assert (report.not_ours, report.missing) == (2, Counter({"refund.created": 1}))
    assert world.published("stripe.refunds") == Counter(wanted)


def test_an_endpoint_takes_its_mode_and_its_types() -> None:
    live, test = endpoint("live", "charge.failed", mode="live"), endpoint("test")

    assert endpoint_of("charge.failed", True, [test, live]) is live
    assert endpoint_of("charge.captured", True, [test, live]) is None
    assert endpoint_of("charge.captured", False, [test, live]) is test
    assert endpoint_of("charge.failed", None, [live]) is live


async def test_connected_accounts_are_not_on_this_list() -> None:
    world = World(endpoints=(endpoint("connect", connect=True),))
    world.happens(1)

    assert (await world.reconciler.run(DAY, Reconciled())).not_ours == 1


async def test_a_body_in_quarantine_is_not_missing_and_not_kept_twice() -> None:
    world = World()
    (event_id,) = world.happens(1)
    tree = dict(world.stripe.one("events", event_id).tree)
    world.stripe.add({**tree, "data": {}})
    await world.delivered(event_id)
    assert len(world.records("stripe.quarantine")) == 1

    report = await world.reconciler.run(DAY, Reconciled())

    assert (report.unprocessable, report.missing) == (1, Counter())
    assert len(world.records("stripe.quarantine")) == 1


async def test_a_preview_publishes_nothing_and_claims_nothing() -> None:
    world = World()
    missed = world.happens(5)
    seen = Reconciled()

    report = await world.reconciler.preview(DAY, seen)

    assert {each.event_id for each in seen.missing} == set(missed)
    assert report.missing.total() == 5
    assert world.published() == Counter()
    assert (await world.reconciler.run(DAY, Reconciled())).missing.total() == 5


@pytest.mark.parametrize("pages", range(1, 7))
async def test_a_walk_interrupted_after_any_page_ends_where_an_uninterrupted_one_does(pages: int) -> None:
    world = World()
    missed = world.happens(16)
    begin = world.stripe.requests
    if pages < 6:
        with pytest.raises(Killed):
            await world.reconciler.run(DAY, Dying(after=pages))
    world.clock.advance(3600)
    later = world.happens(4, ago=timedelta(minutes=20))

    report = await world.reconciler.run(DAY, Reconciled())

    assert world.published() == Counter([*missed, *later])
    assert report.missing.total() == 4 + (16 if pages == 6 else max(0, 16 - 3 * pages))
    # Nothing is read twice but what the crash left in doubt.
    assert world.stripe.requests - begin <= 2 + 6 + 2


async def test_what_is_listed_late_is_found_after_an_interrupted_run_too() -> None:
    world = World()
    world.happens(9)
    with pytest.raises(Killed):
        await world.reconciler.catch_up(DAY, timedelta(hours=1), Dying(after=1))
    (late,) = world.happens(1, ago=timedelta(minutes=20))
    world.clock.advance(3 * 3600)

    await caught_up(world)
    world.clock.advance(900)
    await caught_up(world)

    assert late in world.published()


async def test_a_cursor_that_stripe_does_not_know_costs_a_second_look_and_no_event() -> None:
    world = World()
    missed = world.happens(9)
    with pytest.raises(Killed):
        await world.reconciler.run(DAY, Dying(after=1))
    for event_id in missed[-3:]:
        world.stripe.forget(event_id)

    await world.reconciler.run(DAY, Reconciled())

    assert world.published() == Counter(missed)


async def test_a_walk_whose_place_is_too_old_to_be_listed_is_over() -> None:
    world = World()
    world.happens(9, ago=timedelta(days=29))
    with pytest.raises(Killed):
        await world.reconciler.run(timedelta(days=30), Dying(after=1))
    world.clock.advance(2 * 86_400)
    missed = world.happens(2)

    report = await world.reconciler.run(DAY, Reconciled())

    assert report.missing.total() == 2
    assert set(missed) < set(world.published())
    assert (await world.reconciler.run(DAY, Reconciled())).known == 2


async def test_one_process_at_a_time() -> None:
    world = World()
    world.happens(1)
    await world.jobs.begin("reconcile:acct_1/test", owner="another", lease_seconds=60)

    with pytest.raises(JobHeld):
        await world.reconciler.run(DAY, Reconciled())

    assert world.published() == Counter()


async def test_catching_up_begins_before_the_end_of_the_last_time() -> None:
    world = World()
    world.happens(2, ago=timedelta(hours=30))
    first = await caught_up(world)
    assert first.listed == 0
    world.clock.advance(7 * 86_400)
    missed = world.happens(3, ago=timedelta(days=6, hours=12))

    report = await caught_up(world)

    assert report.begin == first.end - timedelta(hours=1)
    assert world.published() == Counter(missed)


async def test_catching_up_begins_even_where_the_first_look_back_is_all_grace() -> None:
    world = World()
    await world.reconciler.catch_up(timedelta(minutes=5), timedelta(hours=1), Reconciled())
    missed = world.happens(1, ago=timedelta(0))
    world.clock.advance(3600)

    await world.reconciler.catch_up(timedelta(minutes=5), timedelta(hours=1), Reconciled())

    assert world.published() == Counter(missed)


async def test_who_comes_after_another_has_caught_up_does_nothing() -> None:
    world = World()
    await caught_up(world)
    world.clock.advance(600)
    world.happens(1)
    asked = world.stripe.requests

    every = timedelta(minutes=15)
    assert await world.reconciler.catch_up(DAY, timedelta(hours=1), Reconciled(), every=every) is None
    assert world.stripe.requests == asked
    world.clock.advance(600)
    assert await world.reconciler.catch_up(DAY, timedelta(hours=1), Reconciled(), every=every) is not None


async def test_who_has_to_open_much_can_ask_before_whether_it_is_due() -> None:
    world = World()
    every = timedelta(minutes=15)

    async def due() -> bool:
        return await is_due(world.source, world.jobs, world.clock, grace=GRACE, every=every)

    assert await due()
    assert await due()
    await caught_up(world)
    assert not await due()
    world.clock.advance(900)
    assert await due()
    await world.jobs.begin("reconcile:acct_1/test", owner="another", lease_seconds=60)
    with pytest.raises(JobHeld):
        await due()


async def test_a_dedupe_store_that_is_away_for_a_moment_is_asked_again() -> None:
    world = World()
    missed = world.happens(1)

    class Away(MemoryDedupeStore):
        away = True

        async def look(self, keys: Collection[ClaimKey]) -> Mapping[ClaimKey, ClaimState]:
            if self.away:
                self.away = False
                raise DedupeUnavailable("away")
            return await super().look(keys)

    world.dedupe = Away(world.clock, max_entries=10)

    await world.reconciler.run(DAY, Reconciled())

    assert world.published() == Counter(missed)


async def test_a_short_look_back_does_not_make_the_next_catching_up_skip_a_gap() -> None:
    world = World()
    first = await caught_up(world)
    world.clock.advance(3 * 86_400)
    await world.reconciler.run(timedelta(hours=1), Reconciled())

    report = await caught_up(world)

    assert report.begin == first.end - timedelta(hours=1)


async def test_a_key_that_may_not_read_events_is_told_so() -> None:
    world = World(permissions=frozenset({"charge_read"}))

    with pytest.raises(StripePermissionMissing, match="may not"):
        await world.reconciler.run(DAY, Reconciled())


async def test_a_stripe_that_is_away_leaves_the_rest_for_the_next_run() -> None:
    world = World()
    missed = world.happens(9)
    reconciler = world.reconciler

    class Failing(Reconciled):
        def page(self, page: PageReport) -> None:
            super().page(page)
            world.stripe.fail(StripeUnavailable("away"))

    with pytest.raises(StripeUnavailable):
        await reconciler.run(DAY, Failing())
    assert len(world.published()) == 3

    await reconciler.run(DAY, Reconciled())

    assert world.published() == Counter(missed)


def at(hour: int) -> datetime:
    return T0 + timedelta(hours=hour)


def hours_of(*spans: Span | Window) -> set[int]:
    return {hour for span in spans for hour in range(-1, 301) if span.begin <= at(hour) < span.end}


@given(
    asked=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), min_size=1, max_size=6),
    pages=st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_windows_that_grow_while_they_are_walked_are_walked_whole_and_nothing_twice(
    asked: list[tuple[int, int]], pages: list[int]
) -> None:
    """Each run asks for a window, and dies after some pages, of which the last of a span ends it."""
    walked: list[int] = []
    window: Window | None = None
    for (begin, length), count in zip(asked, pages, strict=False):
        end = at(begin + length)
        window = Window.whole(at(begin), end) if window is None else window.grown(at(begin), end)
        assert hours_of(*window.rest) & set(walked) == set()
        for _ in range(count):
            if window.rest:
                span, *others = window.rest
                if span.after is None and span.end - span.begin > timedelta(hours=1):
                    # Half of it, from its newest on.
                    middle = span.begin + timedelta(hours=(span.end - span.begin) // timedelta(hours=2))
                    walked += hours_of(Span(middle, span.end))
                    others.insert(0, Span(span.begin, middle, after="evt_1"))
                else:
                    walked += hours_of(span)
                window = Window(window.begin, window.end, tuple(others))

    assert window is not None
    assert len(walked) == len(set(walked))
    assert set(walked) | hours_of(*window.rest) == hours_of(window)
    assert len(window.rest) <= 2 * len(asked)
