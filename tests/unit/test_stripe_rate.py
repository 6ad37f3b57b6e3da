"""The token bucket in front of Stripe's API."""

from bisect import bisect_left
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.stripe_account.rate import TokenBucket


def go(bucket: TokenBucket, now: float) -> float:
    """Wait for the bucket, as a caller does; gives the time after it."""
    while wait := bucket.wait(now):
        now += wait
    bucket.take(now)
    return now


def test_the_first_goes_at_once_and_the_next_at_an_even_distance() -> None:
    bucket = TokenBucket(20)

    assert [go(bucket, 100.0) for _ in range(4)] == pytest.approx([100.0, 100.05, 100.1, 100.15])


def test_a_pause_saves_nothing_up() -> None:
    bucket = TokenBucket(10)
    go(bucket, 0.0)

    assert [go(bucket, 60.0) for _ in range(3)] == pytest.approx([60.0, 60.1, 60.2])


def test_asking_how_long_takes_nothing() -> None:
    bucket = TokenBucket(10)
    go(bucket, 0.0)

    assert {bucket.wait(0.0) for _ in range(5)} == {0.1}


def test_a_hold_lets_nothing_through_before_its_end() -> None:
    bucket = TokenBucket(10)
    go(bucket, 0.0)
    bucket.hold(5.0)

    assert bucket.wait(2.0) == pytest.approx(3.0)
    assert [go(bucket, 2.0) for _ in range(2)] == pytest.approx([5.0, 5.1])


def test_of_two_holds_the_later_end_counts() -> None:
    bucket = TokenBucket(10)
    bucket.hold(5.0)
    bucket.hold(3.0)

    assert go(bucket, 0.0) == pytest.approx(5.0)


def test_a_hold_that_is_over_changes_nothing() -> None:
    bucket = TokenBucket(10)
    go(bucket, 10.0)
    bucket.hold(4.0)

    assert go(bucket, 10.0) == pytest.approx(10.1)


@pytest.mark.parametrize("start", [0.0, 1e5, 1e9])
def test_a_sum_of_times_that_is_a_little_off_makes_nobody_wait_for_ever(start: float) -> None:
    bucket = TokenBucket(3)
    at = start
    for _ in range(10_000):
        at = go(bucket, at)

    assert at - start == pytest.approx(9_999 / 3, rel=1e-3)


@given(
    per_second=st.floats(0.5, 100),
    pauses=st.lists(st.one_of(st.just(0.0), st.floats(0, 3)), min_size=2, max_size=60),
)
def test_no_second_has_more_than_its_share_whenever_one_comes(per_second: float, pauses: list[float]) -> None:
    bucket, at, now = TokenBucket(per_second), [], 0.0
    for pause in pauses:
        now = go(bucket, now + pause)
        at.append(now)

    for first, moment in enumerate(at):
        assert bisect_left(at, moment + 1 - 1e-4) - first <= ceil(per_second)
    assert all(later - earlier >= 1 / per_second - 1e-5 for earlier, later in pairwise(at))
