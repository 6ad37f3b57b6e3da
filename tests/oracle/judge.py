"""The verdict on each field of a normalized event: what the payload says against what the event holds."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from service.contract import DATA_TYPES, Data, Event, Other
from tests.oracle.facts import ENVELOPE, table_of
from tests.oracle.kinds import NOTHING, Fact, Found, Parts, Table
from tests.oracle.tree import Leaf, Path, Scope, dotted, walk


class Verdict(StrEnum):
    """What the oracle says of one field of one event."""

    FILLED = "filled"
    """The payload says it, and the field holds exactly that."""
    ABSENT = "absent"
    """The payload says it nowhere, and the field holds nothing."""
    LOST = "lost"
    """The payload says it; the field holds nothing."""
    WRONG = "wrong"
    """The field holds something else than the payload says."""
    INVENTED = "invented"
    """The field holds what the payload says nowhere."""


DEFAULTS: Final[Mapping[str, object]] = {"account": "default"}
"""What a field of the envelope holds, not null, where the event says nothing."""

FAULTS: Final = frozenset({Verdict.LOST, Verdict.WRONG, Verdict.INVENTED})


@dataclass(frozen=True)
class Judgement:
    """The verdict on one field of one event.

    `field` is as in `items[].price_id`; `sources` are all leaves that say it, `best` those of the best place.
    """

    field: str
    verdict: Verdict
    said: Any
    held: Any
    sources: tuple[Path, ...]
    best: tuple[Path, ...] = ()
    unexplained: tuple[Leaf, ...] = ()

    def __str__(self) -> str:
        where = ", ".join(dotted(path) for path in self.sources) or "nowhere"
        return f"{self.field} {self.verdict}: the payload says {self.said!r} ({where}), the event {self.held!r}"


def data_type_of(tree: Any, category: str) -> type[Data]:
    """The type that an event's data must have: that of its object, unless the event is about something else."""
    stripes = tree["data"]["object"].get("object", "").replace(".", "_")
    return Other if category == "other" else DATA_TYPES.get(stripes, Other)


def judge(tree: Any, event: Event) -> list[Judgement]:
    """The verdicts on an event: its envelope and, of a snapshot, its `data` and `previous`."""
    return [*judge_envelope(tree, event), *judge_data(tree, event), *judge_previous(tree, event)]


def judge_envelope(tree: Any, event: Event) -> list[Judgement]:
    """The verdicts on what stands around the object."""
    scope = Scope(tree, ())
    found = (
        _judged_fact(scope, getattr(event, name), fact, name)
        for name, fact in ENVELOPE.items()
        if isinstance(fact, Fact)
    )
    return [
        replace(
            judgement,
            field=f"event.{judgement.field}",
            unexplained=(),
            verdict=Verdict.ABSENT
            if judgement.said is None and judgement.held == DEFAULTS.get(judgement.field)
            else judgement.verdict,
        )
        for judgement in found
    ]


def judge_data(tree: Any, event: Event) -> list[Judgement]:
    """The verdicts on `data`."""
    if not is_snapshot(tree):
        return []
    expected = data_type_of(tree, event.category)
    if type(event.data) is not expected:
        return [Judgement("data", Verdict.WRONG, expected.__name__, type(event.data).__name__, ())]
    stripe_object = Scope(tree["data"]["object"], ("data", "object"))
    return list(_judged(stripe_object, event.data, table_of(expected, stripe_object.node), ""))


def judge_previous(tree: Any, event: Event) -> list[Judgement]:
    """The verdicts on `previous`: the facts that the object said otherwise before `previous_attributes` were changed."""
    patch = tree["data"].get("previous_attributes") if is_snapshot(tree) else None
    if not isinstance(patch, dict):
        return []
    present = tree["data"]["object"]
    before = Scope(_patched(present, patch), ("data", "previous_attributes"))
    now = Scope(present, ("data", "object"))
    held: Mapping[str, Any] = event.previous or {}
    return list(_judged_previous(before, now, patch, held, table_of(type(event.data), present)))


def _judged_previous(
    before: Scope, now: Scope, patch: Any, held: Mapping[str, Any], table: Table
) -> Iterator[Judgement]:
    for name, entry in table.items():
        if not isinstance(entry, Fact):
            continue
        was, is_ = (None if (found := entry.read(scope)) is None else found.value for scope in (before, now))
        field = f"previous.{name}"
        if was == is_:
            changed = name in held and held[name] not in NOTHING
            if changed and held[name] != _on_wire(was):
                yield Judgement(field, Verdict.INVENTED, None, held[name], ())
        elif name not in held:
            if was is None and not _is_said_null(patch, entry):
                continue  # lists were partial in patches until 2017: what they leave out was not null
            yield Judgement(field, Verdict.LOST, was, None, entry.sources(before))
        else:
            same = held[name] == _on_wire(was) or (was is None and held[name] in NOTHING)
            yield Judgement(
                field, Verdict.FILLED if same else Verdict.WRONG, _on_wire(was), held[name], entry.sources(before)
            )


def _is_said_null(patch: Any, fact: Fact) -> bool:
    return any(patch.get(name, "") is None for name in fact.names)


def _patched(present: Any, patch: Any) -> Any:
    """The object as it was: Stripe sends the old values, of an inner object only the members that changed."""
    if not (isinstance(present, dict) and isinstance(patch, dict)):
        return patch
    return present | {name: _patched(present.get(name), old) for name, old in patch.items()}


def _on_wire(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else msgspec.to_builtins(value)


def is_snapshot(tree: Any) -> bool:
    """Whether the event carries its object; a thin one only names it."""
    return bool(tree.get("object") == "event")


def _judged(scope: Scope, held: Any, table: Table, prefix: str) -> Iterator[Judgement]:
    for name, entry in table.items():
        value = getattr(held, name)
        if isinstance(entry, Fact):
            yield _judged_fact(scope, value, entry, prefix + name)
        else:
            yield from _judged_parts(scope, value, entry, prefix + name)


def _judged_fact(scope: Scope, held: Any, fact: Fact, name: str) -> Judgement:
    said = fact.read(scope)
    verdict = _verdict(said, held)
    best = () if said is None else said.sources
    strays = tuple(stray_leaves(scope, fact, name)) if said is None else ()
    return Judgement(name, verdict, None if said is None else said.value, held, fact.sources(scope), best, strays)


def _verdict(said: Found | None, held: Any) -> Verdict:
    holds_nothing = held is False or held in NOTHING
    if said is None:
        return Verdict.ABSENT if holds_nothing else Verdict.INVENTED
    if held == said.value and type(held) is type(said.value):
        return Verdict.FILLED
    return Verdict.LOST if held in NOTHING and held is not False else Verdict.WRONG


def _judged_parts(scope: Scope, held: Any, parts: Parts, name: str) -> Iterator[Judgement]:
    nodes = parts.nodes(scope)
    structs: Sequence[Any] = held if parts.many else () if held is None else (held,)
    paths = tuple(node.path for node, _ in nodes)
    if len(nodes) == len(structs):
        verdict = Verdict.FILLED if nodes else Verdict.ABSENT
    elif not nodes:
        verdict = Verdict.INVENTED
    else:
        verdict = Verdict.LOST if len(structs) < len(nodes) else Verdict.WRONG
    yield Judgement(name, verdict, len(nodes), len(structs), paths)
    for (node, table), struct in zip(nodes, structs, strict=False):
        yield from _judged(node, struct, table, f"{name}[]." if parts.many else f"{name}.")


VAGUE: Final = frozenset({"id", "type", "amount", "code", "object", "start", "end", "message", "data"})
"""Leaf names that mean something else in every object: only the field's own name is searched then."""


def stray_leaves(scope: Scope, fact: Fact, field: str) -> Iterator[Leaf]:
    """What could be the fact at a place that nobody declared: the leaf's name below, or an id of the kind anywhere."""
    names = (fact.names - VAGUE) | {bare_name(field)}
    others = {leaf.path for pattern in fact.others for leaf in scope.find(pattern)}
    whole = Leaf(scope.path, scope.node)
    for leaf in walk(whole, into_objects=False):
        if leaf.path[-1] in names and not _is_below(leaf.path, others) and fact.kind(leaf.value) is not None:
            yield leaf
    if fact.prefixes:
        is_such_id = re.compile(rf"(?:{'|'.join(fact.prefixes)})(?=[a-zA-Z]*[0-9])[a-zA-Z0-9]+").fullmatch
        for leaf in walk(whole, into_objects=True):
            if isinstance(leaf.value, str) and not _is_below(leaf.path, others) and is_such_id(leaf.value):
                yield leaf


def _is_below(path: Path, places: set[Path]) -> bool:
    return any(path[: len(place)] == place for place in places)


def bare_name(field: str) -> str:
    """The field's name without what the contract adds to Stripe's: `items[].price_id` is `price`."""
    name = field.rpartition(".")[2]
    for suffix in ("_minor", "_id", "_at"):
        name = name.removesuffix(suffix)
    return name
