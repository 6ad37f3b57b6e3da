"""Objects of one kind in the order in which Stripe lists them, and pages of such a list."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from service.simulator.fake_stripe.forms import integer, text, whole
from service.simulator.fake_stripe.refusals import invalid, no_such, unknown_param
from service.simulator.objects import Object

DEFAULT_LIMIT: Final = 10
LIMIT_MAX: Final = 100
PAGE_PARAMS: Final = frozenset({"limit", "starting_after", "ending_before", "created", "expand"})

_Place: TypeAlias = tuple[int, int, str]
"""`created`, how many came before it, and the id: later ones are newer."""


@dataclass(frozen=True, slots=True)
class Span:
    """Times in Unix seconds, from `start` on, up to and without `end`; None is unbounded."""

    start: int | None = None
    end: int | None = None

    def within(self, start: int) -> "Span":
        """The part of it from `start` on."""
        return Span(start if self.start is None else max(start, self.start), self.end)

    @classmethod
    def of(cls, value: object, name: str) -> "Span":
        """A time, or an object of gt, gte, lt and lte. Raises `Refusal`."""
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            second = whole(value, name)
            return cls(second, second + 1)
        bounds = {bound: whole(second, f"{name}[{bound}]") for bound, second in value.items()}
        if unknown := bounds.keys() - {"gt", "gte", "lt", "lte"}:
            raise unknown_param(f"{name}[{min(unknown)}]")
        starts = [bounds[bound] + (bound == "gt") for bound in ("gt", "gte") if bound in bounds]
        ends = [bounds[bound] + (bound == "lte") for bound in ("lt", "lte") if bound in bounds]
        return cls(max(starts, default=None), min(ends, default=None))

    def __contains__(self, second: int) -> bool:
        return (self.start is None or second >= self.start) and (self.end is None or second < self.end)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list somebody wants."""

    limit: int
    starting_after: str | None
    ending_before: str | None
    created: Span

    @classmethod
    def of(cls, params: dict[str, Any]) -> "Page":
        """The page that the parameters ask for. Raises `Refusal`."""
        limit = integer(params, "limit")
        if limit is not None and limit < 1:
            raise invalid("limit", "This value must be greater than or equal to 1.", code="parameter_invalid_integer")
        if limit is not None and limit > LIMIT_MAX:
            raise invalid(
                "limit", f"This value must be less than or equal to {LIMIT_MAX}.", code="parameter_invalid_integer"
            )
        after, before = text(params, "starting_after"), text(params, "ending_before")
        if after is not None and before is not None:
            raise invalid(
                "ending_before",
                "Received both starting_after and ending_before parameters. Please pass in only one.",
                code="parameters_exclusive",
            )
        return cls(limit or DEFAULT_LIMIT, after, before, Span.of(params.get("created"), "created"))


class Shelf:
    """Objects by id, newest first. What is deleted leaves the list but stays a place to go on from."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._order: list[_Place] = []
        self._places: dict[str, _Place] = {}
        self._objects: dict[str, Object] = {}

    def __len__(self) -> int:
        return len(self._order)

    def put(self, obj: Object) -> None:
        """Put a new object in, or an object's new state; what was deleted stays so."""
        object_id = obj["id"]
        if object_id in self._places:
            if object_id in self._objects:
                self._objects[object_id] = obj
            return
        place = (int(obj.get("created") or 0), len(self._places), object_id)
        self._places[object_id] = place
        self._objects[object_id] = obj
        insort(self._order, place)

    def delete(self, object_id: str) -> None:
        """Take an object out of the list."""
        if self._objects.pop(object_id, None) is not None:
            self._order.remove(self._places[object_id])

    def get(self, object_id: str) -> Object | None:
        """The object as it is now; of a deleted one what Stripe still says; None where there never was one."""
        if object_id not in self._places:
            return None
        return self._objects.get(object_id) or {"id": object_id, "object": self._kind, "deleted": True}

    def page(self, page: Page, wanted: Callable[[Object], bool]) -> tuple[list[Object], bool]:
        """The wanted objects of a page, newest first, and whether more of them lie beyond it. Raises `Refusal`."""
        created = page.created
        first = 0 if created.start is None else bisect_left(self._order, (created.start,))
        end = len(self._order) if created.end is None else bisect_left(self._order, (created.end,))
        if page.ending_before is not None:
            place = self._place(page.ending_before, "ending_before")
            found = self._walk(range(max(first, bisect_right(self._order, place)), end), page.limit, wanted)
            return found[: page.limit][::-1], len(found) > page.limit
        if page.starting_after is not None:
            end = min(end, bisect_left(self._order, self._place(page.starting_after, "starting_after")))
        found = self._walk(range(end - 1, first - 1, -1), page.limit, wanted)
        return found[: page.limit], len(found) > page.limit

    def _walk(self, places: range, limit: int, wanted: Callable[[Object], bool]) -> list[Object]:
        """Up to one more than the limit: that one says that there are more."""
        found: list[Object] = []
        for place in places:
            obj = self._objects[self._order[place][2]]
            if wanted(obj):
                found.append(obj)
                if len(found) > limit:
                    break
        return found

    def _place(self, object_id: str, param: str) -> _Place:
        if object_id not in self._places:
            raise no_such(self._kind, object_id, param=param)
        return self._places[object_id]
