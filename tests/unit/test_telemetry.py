"""What is said seldom, and how little is told of an exception that nobody foresaw."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.telemetry.metrics import ReceiverMetrics
from service.telemetry.observers import DedupeMetricsObserver
from service.telemetry.seldom import Seldom
from service.telemetry.traces import CAUSES_MAX, FRAMES_MAX, traced


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_one_message_comes_through_in_its_time_and_those_between_are_counted() -> None:
    clock = Hands()
    seldom = Seldom(60, monotonic=clock)

    assert [seldom.due() for _ in range(4)] == [0, None, None, None]
    clock.seconds = 59.9
    assert seldom.due() is None
    clock.seconds = 60
    assert [seldom.due(), seldom.due()] == [4, None]


def test_a_bug_of_the_dedupe_store_is_always_counted_seldom_told_and_never_quoted() -> None:
    metrics = ReceiverMetrics(CollectorRegistry())
    clock = Hands()
    observer = DedupeMetricsObserver(metrics, seldom=Seldom(60, monotonic=clock))

    with capture_logs() as lines:
        for _ in range(5):
            observer.unforeseen("claim", KeyError("planted"))
        clock.seconds = 60
        observer.unforeseen("claim", KeyError("planted"))

    assert metrics.dedupe_unforeseen.labels("claim")._value.get() == 6
    assert [(line["event"], line["error"], line["unsaid"]) for line in lines] == [
        ("dedupe.unforeseen", "KeyError", 0),
        ("dedupe.unforeseen", "KeyError", 4),
    ]
    assert "planted" not in str(lines)


def test_an_exception_is_told_by_its_types_and_its_innermost_frames() -> None:
    def deep(frames: int) -> None:
        if frames:
            deep(frames - 1)
        try:
            raise KeyError("planted")
        except KeyError as error:
            raise ValueError("planted too") from error

    with pytest.raises(ValueError, match="planted too") as raised:
        deep(50)
    told = traced(raised.value)

    assert told["error"] == "ValueError"
    causes, frames = told["causes"], told["frames"]
    assert isinstance(causes, list)
    assert isinstance(frames, list)
    assert causes[0] == "KeyError"
    assert len(causes) <= CAUSES_MAX
    assert len(frames) == FRAMES_MAX
    assert frames[-1].endswith(" deep")
    assert "planted" not in str(told)
