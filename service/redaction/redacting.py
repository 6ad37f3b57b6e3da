"""A redacted event is a copy of its tree, before anything reads it: whatever is made of the copy cannot leak."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

from service.redaction.paths import RedactionPath
from service.redaction.protected import ANY
from service.redaction.sealing import RedactionKeys, Sealing

HASHED: Final = "hmac-sha256:"

Tree: TypeAlias = dict[str, Any]
"""A JSON object."""

_NOTHING: Final[Tree] = {}

_OUR_SPELLING: Final = {"checkout_session": "checkout.session"}


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

_Visit: TypeAlias = tuple[Any, Any, _Rules, Any, bool]
"""A container that is still to be copied: it, its empty copy, the rules that lead into it, what stands in its place in
the object of today, and whether all below is hashed."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is taken out of every event, and the keys for what must stay recognizable, or readable to their holder."""

    _of_type: Mapping[Any, _Rules]
    _of_any: _Rules
    _hash_key: bytes = field(repr=False)
    sealing: Sealing
    """For bodies that have no paths: what cannot be normalized is sealed whole."""

    @classmethod
    def of(cls, paths: Iterable[RedactionPath], keys: RedactionKeys) -> Self:
        """The redaction of these paths."""
        by_type: dict[str, list[tuple[tuple[str, ...], bool]]] = {}
        for path in paths:
            by_type.setdefault(path.object_type, []).append((path.fields, path.hashed))
        rules = {object_type: _Rule.of(of_type) for object_type, of_type in by_type.items()}
        of_any = (rules.pop(ANY),) if ANY in rules else _NO_RULES
        return cls({name: (rule, *of_any) for name, rule in rules.items()}, of_any, keys.hashing, Sealing(keys))

    def apply(self, event: Tree, top_type: str | None) -> Tree:
        """A copy of an event without what is to go.

        `top_type` is for the event's object where that does not say what it is. Total, and linear in the event's size:
        each value is visited once, however deep it lies, and the rules at work there are bounded by the paths' number.
        """
        redacted: Tree = {}
        work: list[_Visit] = [(event, redacted, _NO_RULES, _shape(event, top_type), False)]
        while work:  # ends: a parsed tree is finite
            visit = work.pop()
            if type(visit[0]) is list:
                self._copy_list(visit, work)
            else:
                self._copy_object(visit, work)
        return redacted

    def _copy_object(self, visit: _Visit, work: list[_Visit]) -> None:
        source, target, leading, shape, hashed = visit
        if type(shape) is not dict:
            shape = _NOTHING
        object_type = source.get("object", shape.get("object"))
        own = self._of_type.get(object_type, self._of_any) if type(object_type) is str else self._of_any
        found = _found(leading + own, source)
        if object_type == "list" and leading:  # a list is transparent, bare or as an object
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
                    work.append((value, copy, below, shape.get(name), hashed_below))
                else:
                    target[name] = self._hash(value) if hashed_below else value

    def _copy_list(self, visit: _Visit, work: list[_Visit]) -> None:
        source, target, leading, shape, hashed = visit
        if type(shape) is dict:
            shape = shape.get("data")
        members = shape if type(shape) is list and shape else [None]
        for index, value in enumerate(source):
            kind = type(value)
            if kind is dict or kind is list:
                copy: Any = kind()
                target.append(copy)
                work.append((value, copy, leading, members[min(index, len(members) - 1)], hashed))
            else:
                target.append(self._hash(value) if hashed else value)

    def _hash(self, value: Any) -> str | None:
        if type(value) is not str:
            return None
        return HASHED + hmac.digest(self._hash_key, value.encode(), "sha256").hex()


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


def _shape(event: Tree, top_type: str | None) -> Tree:
    """Where an event's parts do not say what they are: the object of old events, and what was there before.

    `previous_attributes` are pieces of the object, each of the type of what stands in its place today.
    """
    content = event.get("data")
    top = content.get("object") if type(content) is dict else None
    if type(top) is not dict:
        return {}
    own = top.get("object")
    shape = {**top, "object": own if type(own) is str else _OUR_SPELLING.get(top_type or "", top_type)}
    return {"data": {"object": shape, "previous_attributes": shape}}
