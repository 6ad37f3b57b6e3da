"""Finding things in a raw payload: patterns over the tree, each finding with the path it came from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

EVERY: Final = "*"
"""In a pattern: each element of a list, bare or in a list object."""

ABOVE: Final = "^"
"""Before a pattern: it starts at the object around this one."""


@dataclass(frozen=True)
class Leaf:
    """A value of the tree and where it stands."""

    path: Path
    value: Any


@dataclass(frozen=True)
class Scope:
    """One object of a payload, and the object around it; `path` leads to it from the payload's root."""

    node: Any
    path: Path
    around: "Scope | None" = None

    def find(self, pattern: str) -> Iterator[Leaf]:
        """The values at a pattern such as `charges.*.id`, `lines.0.amount` or `^currency`; nulls too."""
        if pattern.startswith(ABOVE):
            if self.around is not None:
                yield from self.around.find(pattern.removeprefix(ABOVE))
            return
        yield from _follow(Leaf(self.path, self.node), pattern.split("."))

    def within(self, leaf: Leaf) -> "Scope":
        """The scope of something found below this one."""
        return Scope(leaf.value, leaf.path, self)


def _follow(leaf: Leaf, steps: Sequence[str]) -> Iterator[Leaf]:
    if not steps:
        yield leaf
        return
    step, rest = steps[0], steps[1:]
    if step == EVERY or step.isdigit():
        elements = tuple(_elements(leaf))
        for element in elements if step == EVERY else elements[int(step) : int(step) + 1]:
            yield from _follow(element, rest)
    elif isinstance(leaf.value, dict) and step in leaf.value:
        yield from _follow(Leaf((*leaf.path, step), leaf.value[step]), rest)


def _elements(leaf: Leaf) -> Iterator[Leaf]:
    path, value = leaf.path, leaf.value
    if isinstance(value, dict):
        path, value = (*path, "data"), value.get("data")
    if isinstance(value, list):
        for number, element in enumerate(value):
            yield Leaf((*path, number), element)


def walk(leaf: Leaf, *, into_objects: bool) -> Iterator[Leaf]:
    """Everything below; of other Stripe objects the reference alone, unless `into_objects`."""
    value = leaf.value
    children: Iterator[tuple[str | int, Any]]
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list):
        children = iter(enumerate(value))
    else:
        return
    for key, child in children:
        below = Leaf((*leaf.path, key), child)
        yield below
        if into_objects or not is_object(child):
            yield from walk(below, into_objects=into_objects)


def is_object(value: object) -> bool:
    """Whether this is a Stripe object of its own, with facts of its own."""
    return isinstance(value, dict) and "id" in value and "object" in value


def dotted(path: Path) -> str:
    """`data.object.items.data.0.id`"""
    return ".".join(str(step) for step in path)


def without(tree: Any, paths: Sequence[Path], *, renamed: bool = False) -> Any:
    """A copy of the tree in which these leaves are gone, or stand under another name.

    An element of a list becomes null instead: its neighbours keep their places.
    """
    doomed = {path[0] for path in paths if len(path) == 1}
    deeper: dict[str | int, list[Path]] = {}
    for path in paths:
        if len(path) > 1 and path[0] not in doomed:
            deeper.setdefault(path[0], []).append(path[1:])
    if isinstance(tree, dict):
        kept = {
            key: without(value, deeper[key], renamed=renamed) if key in deeper else value
            for key, value in tree.items()
            if key not in doomed
        }
        if renamed:
            kept |= {f"{key}_of_another_name": tree[key] for key in doomed if key in tree}
        return kept
    return [
        None if number in doomed else without(value, deeper[number], renamed=renamed) if number in deeper else value
        for number, value in enumerate(tree)
    ]
