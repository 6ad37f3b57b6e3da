"""Kinds of facts: what a raw value says, in the contract's terms; null where it says nothing of that kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias

import orjson

from tests.oracle.tree import EVERY, Path, Scope

Kind: TypeAlias = Callable[[object], Any]


def as_text(value: object) -> str | None:
    """A text; an empty one says nothing."""
    return value if isinstance(value, str) and value else None


def as_number(value: object) -> int | None:
    """A whole number; some clients have written amounts as `900.0`."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def as_moment(value: object) -> datetime | None:
    """Seconds since 1970, or the ISO form of v2."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    seconds = as_number(value)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def as_id(value: object) -> str | None:
    """A reference in any of its forms: id, expanded object, stub of a deleted one."""
    return as_text(value.get("id") if isinstance(value, dict) else value)


def as_ids(value: object) -> tuple[str, ...] | None:
    """References, each in any of its forms."""
    found = tuple(it for one in value if (it := as_id(one)) is not None) if isinstance(value, list) else ()
    return found or None


def as_metadata(value: object) -> Mapping[str, str] | None:
    """Texts by name; what is no text, as JSON. A name that is null was not there."""
    if not isinstance(value, dict):
        return None
    kept = ((name, it) for name, it in value.items() if it is not None)
    return {name: it if isinstance(it, str) else orjson.dumps(it).decode() for name, it in kept} or None


def as_decimal_text(value: object) -> str | None:
    """A decimal number, as the text that Stripe sends."""
    return as_text(value)


@dataclass(frozen=True)
class Found:
    """What the payload says, and every leaf that says it."""

    value: Any
    sources: tuple[Path, ...]


class Place(Protocol):
    """Somewhere the fact may stand."""

    @property
    def names(self) -> frozenset[str]:
        """The leaf names looked at."""
        ...

    def read(self, scope: Scope, kind: Kind) -> Found | None:
        """What is said there; null where nothing is."""
        ...


def leaf_name(pattern: str) -> str:
    """The last name of a pattern."""
    return next(step for step in reversed(pattern.lstrip("^").split(".")) if step != EVERY and not step.isdigit())


@dataclass(frozen=True)
class At:
    """The first value at a pattern."""

    pattern: str

    @property
    def names(self) -> frozenset[str]:
        return frozenset({leaf_name(self.pattern)})

    def read(self, scope: Scope, kind: Kind) -> Found | None:
        for leaf in scope.find(self.pattern):
            if (value := kind(leaf.value)) is not None:
                return Found(value, (leaf.path,))
        return None


@dataclass(frozen=True)
class Of:
    """What all values at a pattern come to: their sum, the earliest, all of them. An empty list says nothing."""

    pattern: str
    combine: Callable[[list[Any]], Any]

    @property
    def names(self) -> frozenset[str]:
        return frozenset({leaf_name(self.pattern)})

    def read(self, scope: Scope, kind: Kind) -> Found | None:
        found = [(leaf.path, value) for leaf in scope.find(self.pattern) if (value := kind(leaf.value)) is not None]
        return Found(self.combine([value for _, value in found]), tuple(path for path, _ in found)) if found else None


@dataclass(frozen=True)
class Told:
    """What follows from the values at some patterns: `tell` gets the first value of each, null where there is none.

    `example` are values of these patterns from which something follows.
    """

    tell: Callable[..., Any]
    patterns: tuple[str, ...]
    example: tuple[Any, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(leaf_name(pattern) for pattern in self.patterns)

    def read(self, scope: Scope, kind: Kind) -> Found | None:
        leaves = [next(iter(scope.find(pattern)), None) for pattern in self.patterns]
        value = kind(self.tell(*(None if leaf is None else leaf.value for leaf in leaves)))
        if value is None:
            return None
        return Found(value, tuple(leaf.path for leaf in leaves if leaf is not None and leaf.value is not None))


@dataclass(frozen=True)
class Preferred:
    """The value at `pattern` in those of the `elements` that are paid, else that have `mark` set, else in any of them."""

    elements: str
    mark: str
    pattern: str

    @property
    def names(self) -> frozenset[str]:
        return frozenset({leaf_name(self.pattern)})

    def read(self, scope: Scope, kind: Kind) -> Found | None:
        every = list(scope.find(self.elements))
        paid = [leaf for leaf in every if isinstance(leaf.value, dict) and leaf.value.get("status") == "paid"]
        elements = paid or [leaf for leaf in every if self._is_marked(leaf.value)] or every
        found = (At(self.pattern).read(scope.within(leaf), kind) for leaf in elements)
        return next((it for it in found if it is not None), None)

    def _is_marked(self, element: object) -> bool:
        return isinstance(element, dict) and bool(element.get(self.mark))


def told(tell: Callable[..., Any], *patterns: str, example: tuple[Any, ...]) -> Told:
    return Told(tell, patterns, example)


def total(pattern: str) -> Of:
    return Of(pattern, sum)


def earliest(pattern: str) -> Of:
    return Of(pattern, min)


def latest(pattern: str) -> Of:
    return Of(pattern, max)


def each(pattern: str) -> Of:
    return Of(pattern, tuple)


@dataclass(frozen=True)
class Fact:
    """One field's kind and places, the best place first.

    `prefixes` are those of the ids that the field may hold: any other such id in the payload is worth a look, but for
    what stands at the patterns of `others`.
    """

    kind: Kind
    places: tuple[Place, ...]
    prefixes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def besides(self, *patterns: str) -> "Fact":
        """The same fact; what stands at these patterns looks like it and is another one."""
        return replace(self, others=patterns)

    def read(self, scope: Scope) -> Found | None:
        """What the payload says: the best place's word."""
        return next((found for place in self.places if (found := place.read(scope, self.kind)) is not None), None)

    def sources(self, scope: Scope) -> tuple[Path, ...]:
        """Every leaf that says the fact, at whichever place."""
        said = (place.read(scope, self.kind) for place in self.places)
        return tuple(dict.fromkeys(path for found in said if found is not None for path in found.sources))

    @property
    def names(self) -> frozenset[str]:
        """The leaf names that all the places look at."""
        return frozenset().union(*(place.names for place in self.places))


Table: TypeAlias = "dict[str, Fact | Parts]"


@dataclass(frozen=True)
class Parts:
    """A field that holds structs: where their raw nodes are, each pattern with the table of what such a node says.

    The first pattern that finds nodes counts; `|` puts together what several patterns find. `many` is whether the field holds a tuple of them or one. At `named` patterns, a node
    without an id is none; neither is an empty one where there can be only one.
    """

    struct: type
    places: tuple[tuple[str, Table], ...]
    many: bool = True
    named: tuple[str, ...] = ()

    def nodes(self, scope: Scope) -> tuple[tuple[Scope, Table], ...]:
        """The raw nodes, each with its table."""
        for pattern, table in self.places:
            leaves = (leaf for part in pattern.split("|") for leaf in scope.find(part))
            if found := [scope.within(leaf) for leaf in leaves if self._is_node(leaf.value, pattern)]:
                return tuple((node, table) for node in found if self.many or node.node)
        return ()

    def _is_node(self, value: object, pattern: str) -> bool:
        return isinstance(value, dict) and (pattern not in self.named or "id" in value)


def _places(places: tuple[str | Place, ...]) -> tuple[Place, ...]:
    return tuple(At(place) if isinstance(place, str) else place for place in places)


def text(*places: str | Place) -> Fact:
    return Fact(as_text, _places(places))


def number(*places: str | Place) -> Fact:
    return Fact(as_number, _places(places))


def flag(*places: str | Place) -> Fact:
    return Fact(as_flag, _places(places))


def moment(*places: str | Place) -> Fact:
    return Fact(as_moment, _places(places))


def reference(*places: str | Place, prefixes: tuple[str, ...] = ()) -> Fact:
    return Fact(as_id, _places(places), prefixes)


def references(*places: Place) -> Fact:
    """A tuple of references."""
    return Fact(as_id, places)


def metadata(*places: str | Place) -> Fact:
    return Fact(as_metadata, _places(places))


NOTHING: Final[tuple[Any, ...]] = (None, "", (), [], {})
"""What a field holds when it says nothing; `False` says something."""
