"""Shape readers: how one field of a Stripe object is read, whatever API version rendered it.

Each reader gives the value or, where Stripe said nothing (null, or no such field), None. A field that holds something
else than it can hold raises `Malformed`: an unknown shape is kept in quarantine and counted, never read as a null.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeGuard, TypeVar

import orjson

from service.contract import Metadata

T = TypeVar("T")

Tree: TypeAlias = dict[str, Any]
"""A JSON object as orjson reads it. Readers never change one."""

NOTHING: Final[Tree] = {}
"""What an absent object reads as: none of its fields says anything."""

EMBEDDED_MAX: Final = 1_000
"""Members of an embedded list: Stripe cuts its own off at 100. A body full of empty ones would grow many times over."""

ID_CHARACTERS_MAX: Final = 500
"""Some ids are chosen by the merchant (products, plans). Postgres cannot index more than 2704 bytes, and refuses a
longer key in a way that would stop a consumer for everybody."""

_FLOAT_EXACT_MAX: Final = 2**53
"""Above this a float no longer holds every whole number: what it says may not be what Stripe said."""
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_SECONDS_MAX: Final = 253_402_300_799
"""The end of the year 9999, the last that a datetime can hold."""
_DIGITS: Final = re.compile(r"-?[0-9]{1,18}")
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_]{1,255}")
_CONTEXT: Final = re.compile(r"(?=.{1,1024}\Z)[A-Za-z0-9_]+(?:/[A-Za-z0-9_]+)*")


class Malformed(ValueError):
    """A field has an impossible type or value; `field` is its path, and never shows the value."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


def text(tree: Tree, name: str) -> str | None:
    """A string. Statuses and enumerations are strings too: a value never seen before passes."""
    value = tree.get(name)
    if value is None or type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise Malformed(name)


def integer(tree: Tree, name: str) -> int | None:
    """A whole number within int64: a quantity, a count, or money in the currency's minor unit."""
    value = tree.get(name)
    if value is None:
        return None
    value = _whole(value)
    if type(value) is int and _INT64_MIN <= value <= _INT64_MAX:
        return value
    raise Malformed(name)


def _whole(value: object) -> object:
    """A whole number that came as a float or a string, as one: what passed through other encoders may say 1000.0."""
    if type(value) is float and value.is_integer() and abs(value) < _FLOAT_EXACT_MAX:
        return int(value)
    if type(value) is str and _DIGITS.fullmatch(value):
        return int(value)
    return value


def whole_decimal(tree: Tree, name: str) -> int | None:
    """A decimal string as a whole number; None where it holds a fraction: then only the string says it."""
    whole, _, fraction = (text(tree, name) or "").partition(".")
    return int(whole) if _DIGITS.fullmatch(whole) and not fraction.strip("0") else None


def timestamp(tree: Tree, name: str) -> datetime | None:
    """Unix seconds as a moment in UTC."""
    value = tree.get(name)
    if value is None:
        return None
    value = _whole(value)
    if type(value) is int and 0 <= value <= _SECONDS_MAX:
        return datetime.fromtimestamp(value, UTC)
    raise Malformed(name)


def flag(tree: Tree, name: str) -> bool | None:
    """A boolean."""
    value = tree.get(name)
    if value is None or type(value) is bool:
        return value
    raise Malformed(name)


def reference(tree: Tree, name: str) -> str | None:
    """The id of another object, which is rendered as that id, expanded, or as the stub of a deleted one.

    Some objects had no id long ago (a card of 2012): embedded, they name nothing.
    """
    value = tree.get(name)
    if type(value) is dict:
        value = value.get("id")
    if value is None or value == "":
        return None
    if _is_id(value):
        return value
    raise Malformed(name)


def _is_id(value: object) -> TypeGuard[str]:
    """Ids go into keys, headers and indexes. No id has control characters in it."""
    return type(value) is str and 0 < len(value) <= ID_CHARACTERS_MAX and value.isprintable()


def identity(tree: Tree) -> str:
    """The object's own id, which it must have."""
    own = optional_identity(tree)
    if own is None:
        raise Malformed("id")
    return own


def optional_identity(tree: Tree) -> str | None:
    """The object's own id, where it has one: a balance, a preview and an embedded value object have none."""
    value = tree.get("id")
    if value is None or value == "":
        return None
    if _is_id(value):
        return value
    raise Malformed("id")


def customer_account(tree: Tree) -> str | None:
    """The account of a customer (Accounts v2), said beside the customer or by an expanded one."""
    return reference(tree, "customer_account") or reference(child(tree, "customer"), "customer_account")


def child(tree: Tree, name: str) -> Tree:
    """An embedded or expanded object, `NOTHING` where there is only an id or nothing at all."""
    value = tree.get(name)
    if type(value) is dict:
        return value
    if not value or type(value) is str:  # [] too, where PHP has written an empty object
        return NOTHING
    raise Malformed(name)


def listed(tree: Tree, name: str) -> Sequence[Any]:
    """The members of a list, which older versions render bare and newer ones as a list object."""
    value = tree.get(name)
    if type(value) is dict:
        value = value.get("data")
    if value is None:
        return ()
    if type(value) is list and len(value) <= EMBEDDED_MAX:
        return value
    raise Malformed(name)


def children(tree: Tree, name: str) -> Sequence[Tree]:
    """The embedded objects of a list."""
    members = listed(tree, name)
    if all(type(member) is dict for member in members):
        return members
    raise Malformed(name)


def each(tree: Tree, name: str, read: Callable[[Tree], T]) -> tuple[T, ...]:
    """Every embedded object of a list, read."""
    try:
        return tuple([read(item) for item in children(tree, name)])
    except Malformed as malformed:
        raise Malformed(malformed.field if malformed.field == name else f"{name}.{malformed.field}") from None


def total(trees: Sequence[Tree], name: str) -> int | None:
    """The sum of one integer field over embedded objects; None where none of them has it."""
    return sum_of([value for tree in trees if (value := integer(tree, name)) is not None], name)


def sum_of(values: Sequence[int], name: str) -> int | None:
    """The sum of a field's values, within int64; None of none."""
    if not values:
        return None
    if _INT64_MIN <= (found := sum(values)) <= _INT64_MAX:
        return found
    raise Malformed(name)


def has_more(tree: Tree, name: str) -> bool | None:
    """Whether Stripe has cut an embedded list off; a list that is bare or absent does not say."""
    value = tree.get(name)
    return flag(value, "has_more") if type(value) is dict else None


def first(*values: T | None) -> T | None:
    """The first value that is one: where 0 and false are values too."""
    return next((value for value in values if value is not None), None)


def metadata(tree: Tree) -> Metadata:
    """The merchant's own keys and values; the values are strings at Stripe."""
    value = tree.get("metadata")
    if not value:  # {} and null, and [] where PHP has written an empty one
        return {}
    if type(value) is not dict:
        raise Malformed("metadata")
    for item in value.values():
        if type(item) is not str:
            return {key: _metadata_value(item) for key, item in value.items() if item is not None}
    return value


def _metadata_value(value: object) -> str:
    if type(value) is str:
        return value
    if type(value) is bool or (isinstance(value, int | float) and abs(value) < _FLOAT_EXACT_MAX):
        return orjson.dumps(value).decode()
    raise Malformed("metadata")


def account_id(tree: Tree) -> str | None:
    """The event's account: `account`, else the last account of `context` (`acct_…`, or `<organization>/acct_…`).

    Until 2017-05-25 `account` was called `user_id`. It becomes part of a record's `ce_source`, so nothing but an id's
    characters may be in it.
    """
    value = tree.get("account")
    if value is None:
        value = tree.get("user_id")
    if value is None:
        return _account_of_context(tree.get("context"))
    if type(value) is str and _ACCOUNT.fullmatch(value):
        return value
    raise Malformed("account")


def context_path(tree: Tree) -> str | None:
    """The event's `context`, where it can be one: it goes into a header, and refuses nothing."""
    value = tree.get("context")
    return value if type(value) is str and _CONTEXT.fullmatch(value) else None


def _account_of_context(context: object) -> str | None:
    if type(context) is not str:
        return None
    last = context.rpartition("/")[2]
    return last if last.startswith("acct_") and _ACCOUNT.fullmatch(last) else None
