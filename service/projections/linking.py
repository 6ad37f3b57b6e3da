"""Which rows an object belongs to, as far as everything said so far tells: a closure that only grows.

An observation states its object's roots, or names the id `via` which they will be known. Both may come from different
events, in any order and at once in different processes; so what a batch adds is computed here, from what the store
knows, and the store must hold the locks that `Growth.locks` names while it asks and writes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

from service.contract import Event
from service.projections.model import Links, ObjectKey, Observation, Projection

Link: TypeAlias = tuple[ObjectKey, ObjectKey]
"""(an id, a root it belongs to)."""

Observed: TypeAlias = Sequence[tuple[Observation, Links]]
"""What some events say, with the links that each observation states."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a store has about some ids: their roots, and by `via` the objects that take part in its roots."""

    roots: Mapping[ObjectKey, Set[ObjectKey]] = field(default_factory=dict)
    dependants: Mapping[ObjectKey, Set[ObjectKey]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Growth:
    """What a batch adds: links that were not known, and the roots whose rows it may change."""

    links: frozenset[Link]
    roots: frozenset[ObjectKey]
    locks: frozenset[ObjectKey]
    """The ids that must be locked while this is computed and written: observed objects, the ids through which they are
    linked, both ends of every new link, and all roots above. Links that are known need no lock: only a rebuild takes
    one away that no event states, under the lock of its root."""


def observe(projection: Projection, events: Iterable[Event]) -> Observed:
    """What events say, each (event, object) once: where an event comes in two renderings, the first one wins."""
    observed: dict[tuple[ObjectKey, str], tuple[Observation, Links]] = {}
    for event in events:
        for observation in projection.observe(event):
            identity = (observation.key, observation.event_id)
            if identity not in observed:
                observed[identity] = (observation, projection.links(observation))
    return tuple(observed.values())


def mentioned(observed: Observed) -> set[ObjectKey]:
    """Every id that the observations name: `Known` must cover them."""
    ids: set[ObjectKey] = set()
    for observation, links in observed:
        key = observation.key
        ids.add(key)
        ids.update(_within(key, links.roots))
        ids.update(_within(key, links.refs))
        if links.via is not None:
            ids.update(_within(key, (links.via,)))
    return ids


def grow(observed: Observed, known: Known) -> Growth:
    """What the observations add to what is known. Pure, and monotone in both."""
    roots: dict[ObjectKey, set[ObjectKey]] = {}
    dependants: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)

    def roots_of(key: ObjectKey) -> set[ObjectKey]:
        if key not in roots:
            roots[key] = set(known.roots.get(key, ()))
        return roots[key]

    objects_seen: set[ObjectKey] = set()
    vias: set[ObjectKey] = set()
    to_link: list[Link] = []
    for observation, links in observed:
        key = observation.key
        objects_seen.add(key)
        members = (key, *_within(key, links.refs))
        for root in _within(key, links.roots):
            to_link.append((root, root))
            to_link.extend((member, root) for member in members)
        if links.via is not None:
            via = ObjectKey(key.account, key.livemode, links.via)
            vias.add(via)
            dependants[via].add(key)
            to_link.extend((key, root) for root in roots_of(via))
    new: set[Link] = set()
    while to_link:  # ends: each link is followed once, and there are finitely many
        member, root = to_link.pop()
        if root in roots_of(member):
            continue
        roots_of(member).add(root)
        new.add((member, root))
        to_link.extend((dependant, root) for dependant in dependants[member] | known.dependants.get(member, set()))
    touched = {root for _, root in new}.union(*(roots_of(key) for key in objects_seen))
    return Growth(
        links=frozenset(new),
        roots=frozenset(touched),
        locks=frozenset({*objects_seen, *vias, *touched, *(member for member, _ in new)}),
    )


def _within(key: ObjectKey, ids: Iterable[str]) -> Iterable[ObjectKey]:
    return (key if name == key.object_id else ObjectKey(key.account, key.livemode, name) for name in ids)
