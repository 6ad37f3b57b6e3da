"""How long records wait, as far as it can be known by where a log ended when, and what was read of it."""

import pytest

from service.consumer.lag import POINTS_MAX, Lag, LagWatch
from service.events import Partition

FIRST, SECOND = Partition("stripe.payments", 0), Partition("stripe.payments", 1)


@pytest.fixture
def watch() -> LagWatch:
    made = LagWatch()
    made.at(FIRST, 10)
    return made


def test_nothing_is_said_of_a_log_whose_end_is_not_known(watch: LagWatch) -> None:
    watch.read(FIRST, 10, came_at=90, now=100)

    assert watch.lags() == {}


def test_who_is_at_the_end_waits_for_nothing(watch: LagWatch) -> None:
    watch.ended({FIRST: 10}, now=100)

    assert watch.lags() == {FIRST: Lag(0, None)}


def test_a_record_waits_since_it_was_first_seen_to_be_there(watch: LagWatch) -> None:
    watch.ended({FIRST: 10}, now=100)
    watch.ended({FIRST: 11}, now=105)
    watch.ended({FIRST: 13}, now=110)

    assert watch.lags() == {FIRST: Lag(3, 105)}


def test_of_several_that_came_between_two_looks_they_are_taken_to_have_come_evenly(watch: LagWatch) -> None:
    watch.ended({FIRST: 10}, now=100)
    watch.ended({FIRST: 10}, now=200)
    watch.ended({FIRST: 20}, now=210)

    watch.at(FIRST, 14)

    assert watch.lags() == {FIRST: Lag(6, 205)}


def test_what_waited_before_a_start_waits_since_its_own_time_once_it_is_read(watch: LagWatch) -> None:
    watch.ended({FIRST: 1000}, now=7200)
    assert watch.lags() == {FIRST: Lag(990, 7200)}

    watch.read(FIRST, 10, came_at=3600, now=7200)
    watch.read(FIRST, 509, came_at=4000, now=7200)
    assert watch.lags() == {FIRST: Lag(990, 3600)}

    watch.at(FIRST, 510)
    (lag,) = watch.lags().values()
    assert lag.records == 490
    assert lag.since == pytest.approx(4000, abs=10)


def test_a_record_of_the_future_or_of_no_time_says_nothing_that_cannot_be(watch: LagWatch) -> None:
    watch.ended({FIRST: 10}, now=100)
    watch.ended({FIRST: 20}, now=110)

    watch.read(FIRST, 10, came_at=999, now=111)
    assert watch.lags() == {FIRST: Lag(10, 110)}
    watch.read(FIRST, 10, came_at=5, now=111)
    assert watch.lags() == {FIRST: Lag(10, 100)}
    watch.at(FIRST, 11)
    watch.read(FIRST, 11, came_at=-0.001, now=111)

    (lag,) = watch.lags().values()
    assert lag.since is not None
    assert 100 <= lag.since <= 110


def test_a_log_that_is_made_anew_has_no_past(watch: LagWatch) -> None:
    watch.ended({FIRST: 1000}, now=100)
    watch.at(FIRST, 0)
    watch.ended({FIRST: 3}, now=200)

    assert watch.lags() == {FIRST: Lag(3, 200)}


def test_a_position_may_go_back(watch: LagWatch) -> None:
    watch.ended({FIRST: 10}, now=100)
    watch.at(FIRST, 4)
    assert watch.lags() == {FIRST: Lag(6, 100)}

    watch.read(FIRST, 4, came_at=70, now=101)
    assert watch.lags() == {FIRST: Lag(6, 70)}


def test_a_partition_of_somebody_else_is_forgotten(watch: LagWatch) -> None:
    watch.at(SECOND, 0)
    watch.ended({FIRST: 10, SECOND: 5}, now=100)
    watch.ended({FIRST: 10}, now=105)
    watch.read(SECOND, 0, came_at=90, now=106)

    assert watch.lags() == {FIRST: Lag(0, None)}


def test_a_partition_without_a_position_is_not_looked_at(watch: LagWatch) -> None:
    watch.ended({FIRST: 10, SECOND: 5}, now=100)

    assert watch.lags() == {FIRST: Lag(0, None)}


def test_a_day_of_looks_takes_little_room_and_is_still_known_about(watch: LagWatch) -> None:
    day = 24 * 3600
    watch.ended({FIRST: 10}, now=0)
    for at in range(5, day + 1, 5):
        watch.ended({FIRST: 10 + at // 5}, now=at)

    assert len(watch._points[FIRST]) <= POINTS_MAX
    assert watch.lags() == {FIRST: Lag(day // 5, 5)}
    for position in (11, 100, 5_000, 17_000):
        watch.at(FIRST, position)
        since = watch.lags()[FIRST].since
        assert since == pytest.approx((position - 9) * 5, abs=1)
