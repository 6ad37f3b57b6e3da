"""A redacted event is a copy of its tree, before anything reads it: whatever is made of the copy cannot leak."""

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

from service.redaction.object_types import OBJECT_TYPES
from service.redaction.paths import RedactionPath
from service.redaction.protected import ANY
from service.redaction.references import Types, referred, types_of_event
from service.redaction.sealing import RedactionKeys, Sealing

HASHED: Final = "hmac-sha256:"

HASHES_MAX: Final = 10_000
"""Hashes of one event: 25 ms of work. In a body full of short strings each is many times longer than its value."""

Tree: TypeAlias = dict[str, Any]
"""A JSON object."""

_NOTHING: Final[Tree] = {}

_STRIPES_SPELLING: Final = {"checkout_session": "checkout.session"}

_LINES: Final = "lines"
_LINES_BY_KIND: Final = ("subscriptions", "prorations", "invoiceitems")
"""Until 2012-10-26 an invoice's lines were three lists in an object."""


class TooManyHashes(ValueError):
    """An event has more than `HASHES_MAX` strings to hash."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What happens to a field, and below it to the fields of its own."""

    dropped: bool = False
    hashed: bool = False
    below: Mapping[str, "_Rule"] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[tuple[tuple[str, ...], bool]]) -> Self:
        """The rule of a place, from what is still to go of the paths that lead through it."""
        ending = [hashed for fields, hashed in paths if not fields]
        onward: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
        for fields, hashed in paths:
            if fields:
                onward.setdefault(fields[0], []).append((fields[1:], hashed))
        return cls(
            dropped=not all(ending),
            hashed=any(ending),
            below={name: cls.of(rest) for name, rest in onward.items()},
        )


_Rules: TypeAlias = tuple[_Rule, ...]
_NO_RULES: Final[_Rules] = ()

_Visit: TypeAlias = tuple[Any, Any, _Rules, Any, Types, bool]
"""A container that is still to be copied: it, its empty copy, the rules that lead into it, what stands in its place in
the object of today, the types it may have where it does not say its own, and whether all below is hashed."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is taken out of every event, and the keys for what must stay recognizable, or readable to their holder."""

    _of_type: Mapping[str, _Rules]
    _of_any: _Rules
    _hash_key: bytes = field(repr=False)
    sealing: Sealing
    """For bodies that have no paths: what cannot be normalized is sealed whole."""

    @classmethod
    def of(cls, paths: Iterable[RedactionPath], keys: RedactionKeys) -> Self:
        """The redaction of these paths."""
        by_type: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
        for path in paths:
            by_type.setdefault(path.object_type, []).extend((fields, path.hashed) for fields in _followed(path))
        rules = {object_type: _Rule.of(of_type) for object_type, of_type in by_type.items()}
        of_any = (rules.pop(ANY),) if ANY in rules else _NO_RULES
        return cls({name: (rule, *of_any) for name, rule in rules.items()}, of_any, keys.hashing, Sealing(keys))

    def apply(self, event: Tree) -> Tree:
        """A copy of an event without what is to go. Raises `TooManyHashes`, and nothing else.

        Linear in the event's size: each value is visited once, however deep it lies, and the rules at work there are
        bounded by the paths' number.
        """
        event = _with_pieces_of_objects(event)
        today, types = _expectations(event)
        return _Copying(self).copied(event, today, types)

    def rules_of(self, types: Types) -> _Rules:
        """The rules for the fields of an object that is one of these types."""
        if len(types) == 1:
            return self._of_type.get(types[0], self._of_any)
        rules = self._of_any
        for object_type in types:
            rules = _merged(rules, self._of_type.get(object_type, _NO_RULES))
        return rules

    def hash(self, value: str) -> str:
        """The same for the same value."""
        return HASHED + hmac.digest(self._hash_key, value.encode(), "sha256").hex()


class _Copying:
    """The copying of one event."""

    __slots__ = ("_hashes_left", "_redaction", "_work")

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._work: list[_Visit] = []
        self._hashes_left = HASHES_MAX

    def copied(self, event: Tree, today: Tree, types: Types) -> Tree:
        redacted: Tree = {}
        work = self._work
        work.append((event, redacted, _NO_RULES, today, types, False))
        while work:  # ends: a parsed tree is finite
            visit = work.pop()
            if type(visit[0]) is list:
                self._copy_list(visit)
            else:
                self._copy_object(visit)
        return redacted

    def _copy_object(self, visit: _Visit) -> None:
        source, target, leading, today, expected, hashed = visit
        if type(today) is not dict:
            today = {"data": today} if type(today) is list else _NOTHING
        types = _types(source.get("object"), today.get("object"), expected)
        found = _found(leading + self._redaction.rules_of(types), source)
        if leading and "data" in source:  # a list is transparent, bare or as an object, whatever it says it is
            found["data"] = _merged(found.get("data", _NO_RULES), leading)
        for name, value in source.items():
            below = found.get(name, _NO_RULES)
            hashed_below = hashed
            for rule in below:
                if rule.dropped:
                    break
                hashed_below = hashed_below or rule.hashed
            else:
                kind = type(value)
                if kind is dict or kind is list:
                    copy: Any = kind()
                    target[name] = copy
                    within = expected if name == "data" else referred(types, name)
                    self._work.append((value, copy, below, today.get(name), within, hashed_below))
                else:
                    target[name] = self._hash(value) if hashed_below else value

    def _copy_list(self, visit: _Visit) -> None:
        source, target, leading, today, expected, hashed = visit
        # A path that ends in a list's `data` names the members, which a bare list has without it.
        members_rules = [rule.below["data"] for rule in leading if "data" in rule.below]
        if any(rule.dropped for rule in members_rules):
            return
        hashed = hashed or any(rule.hashed for rule in members_rules)
        if type(today) is dict:
            today = today.get("data")
        members = today if type(today) is list and today else [None]
        for index, value in enumerate(source):
            kind = type(value)
            if kind is dict or kind is list:
                copy: Any = kind()
                target.append(copy)
                self._work.append((value, copy, leading, members[min(index, len(members) - 1)], expected, hashed))
            else:
                target.append(self._hash(value) if hashed else value)

    def _hash(self, value: Any) -> str | None:
        if type(value) is not str:
            return None
        if not self._hashes_left:
            raise TooManyHashes
        self._hashes_left -= 1
        return self._redaction.hash(value)


def _followed(path: RedactionPath) -> Iterator[tuple[str, ...]]:
    """The fields of a path as an event is searched for them: `data` is passed over there, so it is here."""
    first, *rest = path.fields
    fields = (first, *(name for name in rest[:-1] if name != "data"), *rest[-1:])
    yield fields
    if _LINES in fields[:-1]:
        after = fields.index(_LINES) + 1
        for kind in _LINES_BY_KIND:
            yield (*fields[:after], kind, *fields[after:])


def _types(own: object, todays: object, expected: Types) -> Types:
    """The types of an object by what it says of itself, by what stands in its place today, and by where it stands.

    The last only where it does not name a type of Stripe's itself. All others count: a piece of an object must not
    escape by what it says it is. `todays` may be several already.
    """
    if type(own) is str:
        own = _STRIPES_SPELLING.get(own, own)
        expected = (own,) if own in OBJECT_TYPES else (own, *expected)
    if type(todays) is str:
        todays = (_STRIPES_SPELLING.get(todays, todays),)
    elif type(todays) is not tuple:
        return expected
    return expected if todays == expected else tuple(dict.fromkeys((*expected, *todays)))


def _found(rules: _Rules, source: Tree) -> dict[str, _Rules]:
    """Field → the rules for it, of the fields that there are."""
    found: dict[str, _Rules] = {}
    for rule in rules:
        for name, below in rule.below.items():
            if name in source:
                found[name] = (*found.get(name, _NO_RULES), below)
    return found


def _merged(rules: _Rules, others: _Rules) -> _Rules:
    return rules + tuple([other for other in others if not any(other is rule for rule in rules)])


def _with_pieces_of_objects(event: Tree) -> Tree:
    """The event without `previous_attributes` that are no object: nothing says which fields their values are of."""
    content = event.get("data")
    if type(content) is dict and (kept := _without_odd_pieces(content)) is not content:
        event = {**event, "data": kept}
    return _without_odd_pieces(event)


def _without_odd_pieces(tree: Tree) -> Tree:
    previous = tree.get("previous_attributes")
    if previous is None or type(previous) is dict:
        return tree
    return {name: value for name, value in tree.items() if name != "previous_attributes"}


def _expectations(event: Tree) -> tuple[Tree, Types]:
    """Where an event's parts do not say what they are: what stands in their place today, and the object's types.

    `previous_attributes` are pieces of the object, each of the type of what stands in its place today; a thin event's
    `data` and `changes` are about its related object.
    """
    event_type, content, related = event.get("type"), event.get("data"), event.get("related_object")
    types = types_of_event(event_type) if type(event_type) is str else ()
    if type(related) is dict:
        types = _types(related.get("type"), None, types)
    top = content.get("object") if type(content) is dict else None
    if type(top) is not dict:
        piece = {"object": types}
        return {"data": piece, "changes": {"before": piece, "after": piece}, "previous_attributes": piece}, types
    types = _types(top.get("object"), None, types)
    today = {**top, "object": types}
    return {"data": {"object": today, "previous_attributes": today}, "previous_attributes": today}, types
