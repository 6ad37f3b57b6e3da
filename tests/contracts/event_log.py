"""What every `EventLog` promises. A test module inherits the class and gives a harness for its log."""

from collections.abc import Sequence
from typing import Protocol

from service.events import Arrival
from service.ports import EventLog
from tests.support.arrivals import arrival, bare_arrival


class EventLogHarness(Protocol):
    """A log with nothing in it."""

    @property
    def log(self) -> EventLog: ...

    async def written(self, count: int) -> Sequence[Arrival]:
        """What is in it, oldest first, once it is so many."""
        ...


class EventLogContract:
    """Inherited by a test class whose module has a fixture `harness`."""

    async def test_what_was_noted_is_found_as_it_was_in_its_order(self, harness: EventLogHarness) -> None:
        noted = [arrival("evt_2"), bare_arrival(), arrival("evt_1"), arrival("evt_1", outcome="duplicate")]

        for each in noted:
            harness.log.note(each)

        assert list(await harness.written(len(noted))) == noted

    async def test_nothing_is_merged_however_often_an_event_comes(self, harness: EventLogHarness) -> None:
        for _ in range(3):
            harness.log.note(arrival())
        await harness.written(3)
        for _ in range(2):
            harness.log.note(arrival())

        assert [each.event_id for each in await harness.written(5)] == ["evt_1"] * 5

    async def test_no_text_that_an_id_may_have_is_changed(self, harness: EventLogHarness) -> None:
        strange = [r"gold\plan", "a\"b'c", "plan, monthly", r"\N", "Zürich-Abo", "价格", "{}", "NULL"]

        for each in strange:
            harness.log.note(arrival(object_id=each))

        assert [each.object_id for each in await harness.written(len(strange))] == strange
