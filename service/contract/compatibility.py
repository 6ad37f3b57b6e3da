"""Whether a consumer written against an earlier contract can read what is published under a later one.

Both are AsyncAPI documents of `asyncapi`. A change is allowed where everything that may now be published is what the
earlier document allowed, and nothing is gone that it described: fields, headers, object types and topics may be added,
a field may become surer (required, never null, fewer values). A keyword that is not judged here is reported when it
changes, never passed over. What descriptions say is for people to compare.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from service.contract.schema import Json

_ANNOTATIONS: Final = frozenset({"title", "description", "examples", "default", "format", "$id", "$schema", "$comment"})
"""What validates nothing. `default` and `format` mean something to readers all the same: they are judged apart."""

_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")


class NotTheContract(ValueError):
    """The earlier document is not one of this contract; the message says what of it is otherwise."""


def breaking_changes(earlier: Json, later: Json) -> list[str]:
    """Every change that would break a consumer of the earlier document, each as one line that begins with the place.

    The later document is ours; of the earlier one nothing is taken for granted. Raises `NotTheContract` where it is
    something else.
    """
    try:
        _check(earlier, title=later["info"]["title"])
        # What several messages refer to is found once for each.
        return list(dict.fromkeys(_channels(earlier, later)))
    except RecursionError:
        raise NotTheContract("its schemas refer to themselves, or stand too deep within each other") from None


def _check(document: Json, *, title: str) -> None:
    try:
        found = msgspec.convert(document, _Document).info.title
    except msgspec.ValidationError as error:
        raise NotTheContract(str(error)) from None
    if found != title:
        raise NotTheContract(f"its title is {found!r}")


class _Schema(msgspec.Struct, rename="camel"):
    """The keywords that are read, where they are there; any other may be anything."""

    ref: Annotated[str, Meta(pattern="^#/components/schemas/[^/]+$")] | UnsetType = field(default=UNSET, name="$ref")
    any_of: Annotated[list["_Schema"], Meta(min_length=1)] | UnsetType = UNSET
    type: str | list[str] | UnsetType = UNSET
    enum: list[Any] | UnsetType = UNSET
    properties: dict[str, "_Schema"] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    items: "bool | _Schema | UnsetType" = UNSET
    additional_properties: "bool | _Schema | UnsetType" = UNSET
    minimum: float | UnsetType = UNSET
    min_length: float | UnsetType = UNSET
    min_items: float | UnsetType = UNSET
    maximum: float | UnsetType = UNSET
    max_length: float | UnsetType = UNSET
    max_items: float | UnsetType = UNSET
    format: str | UnsetType = UNSET
    pattern: str | UnsetType = UNSET


class _Message(msgspec.Struct):
    headers: _Schema
    payload: _Schema


class _TopicConfiguration(msgspec.Struct):
    retention_ms: int = field(name="retention.ms")
    max_message_bytes: int = field(name="max.message.bytes")


class _KafkaBinding(msgspec.Struct, rename="camel"):
    topic_configuration: _TopicConfiguration


class _Bindings(msgspec.Struct):
    kafka: _KafkaBinding


class _Channel(msgspec.Struct):
    address: str
    messages: dict[str, _Message]
    bindings: _Bindings
    key: list[str] = field(name="x-key")
    partitioner: str = field(name="x-partitioner")


class _Components(msgspec.Struct):
    schemas: dict[str, _Schema]


class _Info(msgspec.Struct):
    title: str


class _Document(msgspec.Struct):
    """What the comparison reads of a document, and may rely on."""

    info: _Info
    channels: dict[str, _Channel]
    components: _Components


def _channels(earlier: Json, later: Json) -> Iterator[str]:
    for name, channel in earlier["channels"].items():
        if name not in later["channels"]:
            yield f"{name}: the topic is gone"
        else:
            yield from _channel(_Place(name, earlier, later), channel, later["channels"][name])


def _channel(place: "_Place", earlier: Json, later: Json) -> Iterator[str]:
    for keyword, what in {"address": "topic", "x-key": "key", "x-partitioner": "partitioner"}.items():
        if earlier[keyword] != later[keyword]:
            yield f"{place}: the {what} was {earlier[keyword]} and is {later[keyword]}"
    had, has = (channel["bindings"]["kafka"]["topicConfiguration"] for channel in (earlier, later))
    if has["retention.ms"] < had["retention.ms"]:
        yield f"{place}: records are kept for {has['retention.ms']} ms, and were for {had['retention.ms']} ms"
    if has["max.message.bytes"] > had["max.message.bytes"]:
        yield f"{place}: records may have {has['max.message.bytes']} bytes, and had at most {had['max.message.bytes']}"
    for name, message in earlier["messages"].items():
        if name not in later["messages"]:
            yield f"{place}: {name} is no longer on this topic"
        else:
            yield from _message(place / name, message, later["messages"][name])


def _message(place: "_Place", earlier: Json, later: Json) -> Iterator[str]:
    for keyword in ("x-dataschema", "contentType"):
        if earlier.get(keyword) != later.get(keyword):
            yield f"{place}: {keyword} was {earlier.get(keyword)} and is {later.get(keyword)}"
    for part in ("headers", "payload"):
        yield from _schemas(place / part, earlier[part], later[part])


class _Place:
    """Where in the contract, for people; and the documents that references are resolved in."""

    def __init__(self, path: str, earlier: Json, later: Json) -> None:
        self._path = path
        self.earlier = earlier
        self.later = later

    def at(self, earlier: Json, later: Json) -> "_Place":
        """What messages refer to has a place of its own, apart from them."""
        title = str(earlier.get("$ref")).rpartition("/")[2]
        return _Place(title, self.earlier, self.later) if earlier.get("$ref") == later.get("$ref", "") else self

    def __truediv__(self, name: str) -> "_Place":
        return _Place(f"{self._path}.{name}", self.earlier, self.later)

    def __str__(self) -> str:
        return self._path


def _schemas(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    """What the later schema lets through that the earlier one did not, and what it no longer describes."""
    place = place.at(earlier, later)
    earlier, later = _resolved(earlier, place.earlier), _resolved(later, place.later)
    if "anyOf" in earlier or "anyOf" in later:
        yield from _alternatives(place, earlier, later)
        return
    yield from _types(place, earlier, later)
    if not _types_of(earlier) & _types_of(later):
        return  # nothing else can be compared
    for judge in _JUDGES:
        yield from judge(place, earlier, later)
    for keyword in sorted((earlier.keys() | later.keys()) - _JUDGED):
        if earlier.get(keyword) != later.get(keyword):
            yield f"{place}: {keyword} has changed, which nobody has judged"


def _resolved(schema: Json, document: Json) -> Json:
    if "$ref" not in schema:
        return schema
    schemas, name = document["components"]["schemas"], schema["$ref"].rpartition("/")[2]
    if name not in schemas:
        raise NotTheContract(f"there is no {name!r} among its schemas")
    return _resolved(schemas[name], document)


def _alternatives(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    """Each of the later alternatives must be fine where one of the earlier ones was expected."""
    yield from _defaults(place, earlier, later)
    allowed = earlier.get("anyOf", [earlier])
    for schema in later.get("anyOf", [later]):
        types = _types_of(_resolved(schema, place.later))
        alike = [each for each in allowed if types & _types_of(_resolved(each, place.earlier))]
        found = [list(_schemas(place, each, schema)) for each in alike or allowed]
        if all(found):
            yield from min(found, key=len)


def _types(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    had, has = _types_of(earlier), _types_of(later)
    if added := sorted(has - had - ({"integer"} if "number" in had else set())):
        yield f"{place}: may now be {' or '.join(added)}, and was {' or '.join(sorted(had))}"


def _types_of(schema: Json) -> set[str]:
    types = schema.get("type", list(_TYPES))
    return {types} if isinstance(types, str) else set(types)


def _values(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    had, has = _values_of(earlier), _values_of(later)
    if had is None:
        return
    if has is None:
        yield f"{place}: may now have any value, and was one of {_listed(had)}"
    elif added := [value for value in has if value not in had]:
        yield f"{place}: may now be {_listed(added)}, and was one of {_listed(had)}"


def _values_of(schema: Json) -> list[Any] | None:
    """The values of a closed set; None where the set is open."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _listed(values: list[Any]) -> str:
    return ", ".join(map(repr, values))


def _bounds(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    for keyword, within in _BOUNDS.items():
        if keyword in earlier and not (keyword in later and within(later[keyword], earlier[keyword])):
            yield f"{place}: {keyword} was {earlier[keyword]} and is {later.get(keyword, 'without bound')}"


_BOUNDS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "minimum": lambda now, then: now >= then,
    "minLength": lambda now, then: now >= then,
    "minItems": lambda now, then: now >= then,
    "maximum": lambda now, then: now <= then,
    "maxLength": lambda now, then: now <= then,
    "maxItems": lambda now, then: now <= then,
}


def _forms(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    for keyword in ("format", "pattern"):
        if keyword in earlier and later.get(keyword) != earlier[keyword]:
            yield f"{place}: {keyword} was {earlier[keyword]} and is {later.get(keyword, 'any')}"


def _defaults(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    """Records that lack the field are read by its default, for as long as the topics keep them."""
    if "default" in earlier and ("default" not in later or later["default"] != earlier["default"]):
        yield f"{place}: the default was {earlier['default']!r} and is {later.get('default', 'none')!r}"


def _properties(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    had, has = earlier.get("properties", {}), later.get("properties", {})
    sure = set(later.get("required", ()))
    for name, schema in had.items():
        if name not in has:
            yield f"{place / name}: is gone"
            continue
        yield from _schemas(place / name, schema, has[name])
        if name in earlier.get("required", ()) and name not in sure:
            yield f"{place / name}: was in every record, and may now be missing"


def _members(place: _Place, earlier: Json, later: Json) -> Iterator[str]:
    for keyword in ("items", "additionalProperties"):
        had, has = earlier.get(keyword, True), later.get(keyword, True)
        if isinstance(had, dict) and isinstance(has, dict):
            yield from _schemas(place / "*", had, has)
        elif had is not True and had != has:
            yield f"{place}: {keyword} was {had} and is {has}"


_JUDGES: Final[tuple[Callable[[_Place, Json, Json], Iterator[str]], ...]] = (
    _values,
    _bounds,
    _forms,
    _defaults,
    _properties,
    _members,
)
_JUDGED: Final = _ANNOTATIONS | {
    "type", "const", "enum", *_BOUNDS, "pattern", "properties", "required", "items", "additionalProperties",
}  # fmt: skip
