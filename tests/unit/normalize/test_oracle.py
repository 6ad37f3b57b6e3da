"""Nothing is lost, wrong or invented, says a judge that shares no code with the readers; and the judge is judged."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
import pytest

from service.contract import Data, Event, types
from service.events import Unprocessable
from service.simulator.events import sample as simulated
from tests.oracle.facts import ENVELOPE, FACTS, OBJECTS, OURS
from tests.oracle.judge import FAULTS, Judgement, Verdict, judge, judge_data
from tests.oracle.kinds import Fact, Parts, Table
from tests.oracle.report import main, report_on
from tests.oracle.samples import CREATED, Sample, outcome_of, own_samples, samples_below
from tests.oracle.tree import without
from tests.support.corpus import CORPUS, NO_CORPUS

STRUCTS = tuple(
    struct
    for struct in vars(types).values()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct) and struct not in (Data, Event, msgspec.Struct)
)


@pytest.fixture(scope="module")
def corpus() -> tuple[Sample, ...]:
    if not CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    found = tuple(samples_below(CORPUS))
    assert found
    return found


@pytest.fixture(scope="module")
def own() -> tuple[Sample, ...]:
    return tuple(own_samples())


def fields_of(table: Table, prefix: str = "") -> Iterator[str]:
    """Every field of a table that the payload can say, nested ones too."""
    for name, entry in table.items():
        if isinstance(entry, Parts):
            yield prefix + name
            for _, inner in entry.places:
                yield from fields_of(inner, f"{prefix}{name}[]." if entry.many else f"{prefix}{name}.")
        elif entry.places:
            yield prefix + name


ALL_FIELDS = sorted({(struct, field) for struct in types.DATA_TYPES.values() for field in fields_of(FACTS[struct])}
                    | {(types.Other, field) for field in fields_of(FACTS[types.Other])},
                    key=lambda it: (it[0].__name__, it[1]))  # fmt: skip


def filled(own: tuple[Sample, ...]) -> Mapping[tuple[type, str], list[tuple[Sample, Event, Judgement]]]:
    """Type and field → the events of our own in which it is filled."""
    found: dict[tuple[type, str], list[tuple[Sample, Event, Judgement]]] = {}
    for sample in own:
        event = outcome_of(sample.tree)
        assert isinstance(event, Event), (sample.name, event)
        for judgement in judge_data(sample.tree, event):
            if judgement.verdict is Verdict.FILLED:
                found.setdefault((type(event.data), judgement.field), []).append((sample, event, judgement))
    return found


@pytest.fixture(scope="module")
def filled_fields(own: tuple[Sample, ...]) -> Mapping[tuple[type, str], list[tuple[Sample, Event, Judgement]]]:
    return filled(own)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_of_the_contract_has_an_entry(struct: type) -> None:
    assert set(FACTS[struct]) == set(struct.__struct_fields__)  # type: ignore[attr-defined]


def test_every_field_of_an_event_has_an_entry_or_is_ours() -> None:
    assert {*ENVELOPE, *OURS} == set(Event.__struct_fields__)


def test_a_variant_of_a_table_has_the_fields_of_its_type() -> None:
    for table in OBJECTS.values():
        assert set(table) == set(FACTS[types.Price])


def test_nothing_of_our_own_events_is_lost_wrong_or_invented(own: tuple[Sample, ...]) -> None:
    report = report_on(own)

    assert not report.refused
    assert not [f"{name}: {judgement}" for name, judgement in report.faults]


def test_nothing_of_the_corpus_is_lost_wrong_or_invented(corpus: tuple[Sample, ...]) -> None:
    report = report_on(corpus)

    assert report.events > 0
    assert not [f"{name}: {judgement}" for name, judgement in report.faults]


def test_nothing_in_the_corpus_may_be_a_fact_at_a_place_that_nobody_knows(corpus: tuple[Sample, ...]) -> None:
    assert not [(name, judgement.field, judgement.unexplained) for name, judgement in report_on(corpus).unexplained]


@pytest.mark.parametrize(("data_type", "field"), ALL_FIELDS, ids=lambda it: it if isinstance(it, str) else it.__name__)
def test_every_field_is_filled_by_some_event_of_our_own(
    data_type: type, field: str, filled_fields: Mapping[tuple[type, str], Any]
) -> None:
    assert (data_type, field) in filled_fields


def telling(events: list[tuple[Sample, Event, Judgement]], field: str) -> Iterator[tuple[Sample, Event, Judgement]]:
    """The events that say a field in a way of their own: its specimens, the cases, one of the simulator's."""
    yield from (it for it in events if it[0].name.startswith("case: ") or f": {field} from " in it[0].name)
    yield from islice((it for it in events if it[0].name.startswith("simulator: ")), 1)


@pytest.mark.parametrize("renamed", [False, True], ids=["removed", "renamed"])
def test_a_fact_without_its_sources_is_gone_from_the_data(
    renamed: bool, filled_fields: Mapping[tuple[type, str], list[tuple[Sample, Event, Judgement]]]
) -> None:
    for (data_type, field), events in filled_fields.items():
        chosen = list(telling(events, field))
        assert chosen, f"nothing tells {data_type.__name__}.{field}"
        for sample, event, judgement in chosen:
            poorer = without(sample.tree, judgement.sources, renamed=renamed)
            outcome = outcome_of(poorer)
            if isinstance(outcome, Unprocessable):
                continue
            if field == "deleted" and judgement.held is False:
                continue  # not deleted is what no word about it means, too
            assert outcome.data != event.data, f"{sample.name}: {data_type.__name__}.{field} is not from its sources"
            faults = [str(it) for it in judge(poorer, outcome) if it.verdict in FAULTS]
            assert not faults, f"{sample.name} without the sources of {field}"


def changed(struct: Any, field: str, change: Any) -> Any:
    """The struct with one field changed; of a tuple's structs the first that the change applies to."""
    name, _, rest = field.partition(".")
    if not rest:
        bare = name.removesuffix("[]")
        return msgspec.structs.replace(struct, **{bare: change(getattr(struct, bare))})
    bare = name.removesuffix("[]")
    value = getattr(struct, bare)
    if name.endswith("[]"):
        first, *others = value
        return msgspec.structs.replace(struct, **{bare: (changed(first, rest, change), *others)})
    return msgspec.structs.replace(struct, **{bare: changed(value, rest, change)})


def first_value(struct: Any, field: str) -> Any:
    """The value of the field that `changed` changes."""
    name, _, rest = field.partition(".")
    value = getattr(struct, name.removesuffix("[]"))
    if not rest:
        return value
    return first_value(value[0] if name.endswith("[]") else value, rest)


def emptied(value: Any) -> Any:
    """What a field holds when it says nothing."""
    return () if isinstance(value, tuple) else {} if isinstance(value, dict) else None


def altered(value: Any) -> Any:
    """Another value of the field's kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return f"{value}?"
        case tuple():
            return (*value, *value[:1])
        case dict():
            return {**value, "altered": "7"}
        case msgspec.Struct():
            return None
        case _:
            return value.replace(year=value.year + 1)


@pytest.mark.parametrize("change", [emptied, altered], ids=["emptied", "altered"])
@pytest.mark.parametrize(("data_type", "field"), ALL_FIELDS, ids=lambda it: it if isinstance(it, str) else it.__name__)
def test_the_oracle_notices_a_field_that_was_emptied_or_altered(
    data_type: type,
    field: str,
    change: Any,
    filled_fields: Mapping[tuple[type, str], list[tuple[Sample, Event, Judgement]]],
) -> None:
    sample, event, _ = next(
        it for it in filled_fields[data_type, field] if first_value(it[1].data, field) not in (False, None)
    )
    broken = msgspec.structs.replace(event, data=changed(event.data, field, change))

    assert any(it.field == field and it.verdict in FAULTS for it in judge_data(sample.tree, broken))


@pytest.mark.parametrize("name", sorted(ENVELOPE))
def test_the_oracle_notices_an_altered_envelope(name: str, own: tuple[Sample, ...]) -> None:
    saying_more = {"snapshot_event": "case: thin, with its twin", "context": "case: an organization's account"}
    case = saying_more.get(name, "case: connected account")
    sample = next(it for it in own if it.name == case)
    event = outcome_of(sample.tree)
    assert isinstance(event, Event)
    broken = msgspec.structs.replace(event, **{name: altered(getattr(event, name))})

    assert any(it.field == f"event.{name}" and it.verdict in FAULTS for it in judge(sample.tree, broken))


def test_the_oracle_notices_an_altered_and_a_missing_previous_value(own: tuple[Sample, ...]) -> None:
    sample = next(it for it in own if it.name == "case: invoice changed")
    event = outcome_of(sample.tree)
    assert isinstance(event, Event)
    assert event.previous is not None

    for name, value in event.previous.items():
        for broken in (
            dict(event.previous) | {name: "altered"},
            {k: v for k, v in event.previous.items() if k != name},
        ):
            found = judge(sample.tree, msgspec.structs.replace(event, previous=broken))
            assert any(it.field == f"previous.{name}" and it.verdict in FAULTS for it in found), (name, value)


def test_the_report_ends_with_1_when_something_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setattr("tests.oracle.report.own_samples", lambda: iter(()))  # nothing but the folder
    (tmp_path / "charge.json").write_text(json.dumps(simulated("charge.succeeded", seed=1, created=CREATED)))
    assert main([str(tmp_path), "--markdown", str(tmp_path / "report.md")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("1 events, 0 refused; ")
    assert "lost 0" in out
    assert "## charge" in (tmp_path / "report.md").read_text()

    def forgetful(tree: Any) -> Event | Unprocessable:
        event = outcome_of(tree)
        if isinstance(event, Event) and isinstance(event.data, types.Charge):
            return msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, currency=None))
        return event

    monkeypatch.setattr("tests.oracle.report.outcome_of", forgetful)
    assert main([str(tmp_path), "--json"]) == 1
    assert '"currency"' in capsys.readouterr().out


def test_a_fact_has_a_kind_and_every_place_a_name() -> None:
    for table in FACTS.values():
        for entry in table.values():
            if isinstance(entry, Fact):
                assert all(place.names for place in entry.places)
