"""Since when the oldest record waits is never said to be earlier or later than what was seen allows."""

from hypothesis import given, settings
from hypothesis import strategies as st

from service.consumer.lag import LagWatch
from service.events import Partition

PARTITION = Partition("stripe.payments", 0)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("append", "look", "read", "apply")),
        st.integers(0, 5),
        st.integers(0, 30),
    ),
    max_size=50,  # with fewer points than are kept
)


@settings(max_examples=500, deadline=None)
@given(steps=STEPS, before=st.lists(st.integers(1, 100), max_size=10))
def test_what_is_said_is_between_what_was_seen(steps: list[tuple[str, int, int]], before: list[int]) -> None:
    came = [float(each) for each in sorted(before)]
    """The log: when each record came. What is in it before the first step came while nobody looked."""
    now, position, read = 101.0, 0, 0
    not_yet: list[tuple[int, float]] = []
    """(offset, time): the record at it, and what follows, came no earlier."""
    there: list[tuple[int, float]] = []
    """(offset, time): the record at it, and what is before, came no later."""
    known_end = None
    watch = LagWatch()
    watch.at(PARTITION, 0)

    for step, count, seconds in steps:
        now += seconds
        match step:
            case "append":
                came += [now] * count
            case "look":
                known_end = len(came)
                watch.ended({PARTITION: known_end}, now)
                not_yet.append((known_end, now))
                there.append((known_end - 1, now))
            case "read":
                for offset in range(read, min(read + count, len(came))):
                    watch.read(PARTITION, offset, came[offset], now)
                    not_yet.append((offset, came[offset]))
                    there.append((offset, came[offset]))
                    read = offset + 1
            case _:
                position = min(position + count, read)
                watch.at(PARTITION, position)
        if known_end is None:
            assert watch.lags() == {}
            continue
        lag = watch.lags()[PARTITION]
        end = max(known_end, read)
        assert lag.records == end - position
        if lag.records == 0:
            assert lag.since is None
            continue
        assert lag.since is not None
        latest = min(at for offset, at in there if offset >= position)
        earliest = max((at for offset, at in not_yet if offset <= position), default=latest)
        assert earliest - 1e-6 <= lag.since <= latest + 1e-6
