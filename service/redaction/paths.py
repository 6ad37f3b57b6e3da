"""Redaction paths, as the configuration writes them: `[hash:]<object type>.<field>[.<field>…]`."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from service.errors import ConfigurationError
from service.redaction.object_types import OBJECT_TYPE_PARTS_MAX, OBJECT_TYPES
from service.redaction.protected import ANY, is_protected

HASH_PREFIX: Final = "hash:"
_FIELD: Final = re.compile(r"[a-z0-9_]{1,100}")
_METADATA: Final = "metadata"
_METADATA_KEY_MAX: Final = 100
_SETTING: Final = "kafka.redact"
_OUR_SPELLING: Final = "checkout_session"
_EXPECTED: Final = (
    "expected [hash:]<object type>.<field>[.<field>…], such as customer.email or hash:charge.billing_details.phone"
)


@dataclass(frozen=True, slots=True)
class RedactionPath:
    """One field, in every object of a type. `hashed`: its strings are replaced by hashes; else the field is dropped.

    What follows `metadata` is one key, whatever characters it has: Stripe's metadata is flat.
    """

    object_type: str
    fields: tuple[str, ...]
    hashed: bool


def parse_paths(written: Iterable[str]) -> tuple[RedactionPath, ...]:
    """Read the setting. Raises `ConfigurationError` for a path that is none, or that must not be redacted."""
    return tuple(_parse(text) for text in written)


def _parse(written: str) -> RedactionPath:
    object_type, below = _split(written, written.removeprefix(HASH_PREFIX))
    fields = _fields(below)
    if fields is None:
        raise ConfigurationError(
            f"{_SETTING}: {written!r} is no path: {_EXPECTED}; a field has a-z, 0-9 and _, each path is a string of its"
            " own, and what follows metadata. is one key"
        )
    if is_protected(object_type, fields):
        raise ConfigurationError(
            f"{_SETTING}: {written!r} cannot be redacted: keys, identities, amounts, states, times or links are made"
            " of it; name a field beside or below that is not"
        )
    return RedactionPath(object_type, fields, hashed=written.startswith(HASH_PREFIX))


def _split(written: str, path: str) -> tuple[str, str]:
    """The object type, which may have dots of its own, and what is written of its fields."""
    parts = path.split(".")
    if parts[0] == _OUR_SPELLING:
        parts = ["checkout", "session", *parts[1:]]
    for length in range(min(OBJECT_TYPE_PARTS_MAX, len(parts)), 0, -1):
        object_type = ".".join(parts[:length])
        if object_type in OBJECT_TYPES or object_type == ANY:
            if length == len(parts):
                raise ConfigurationError(
                    f"{_SETTING}: {written!r} is no path: the field of {object_type} is missing; {_EXPECTED}"
                )
            return object_type, ".".join(parts[length:])
    if len(parts) < 2:
        raise ConfigurationError(f"{_SETTING}: {written!r} is no path: {_EXPECTED}")
    # A name that no object has would look accepted, and leave what it was to protect as it is.
    near = difflib.get_close_matches(parts[0], OBJECT_TYPES, n=1)
    raise ConfigurationError(
        f"{_SETTING}: {written!r} names no object of Stripe's"
        + (f" (is {near[0]} meant?)" if near else "")
        + "; *.<field> takes the field of any"
    )


def _fields(written: str) -> tuple[str, ...] | None:
    """The fields, None where one could never be one: it would look accepted, and match nothing."""
    fields = tuple(written.split("."))
    key: tuple[str, ...] = ()
    if _METADATA in fields[:-1]:
        after = fields.index(_METADATA) + 1
        fields, key = fields[:after], (".".join(fields[after:]),)
    if all(_FIELD.fullmatch(field) for field in fields) and all(map(_is_metadata_key, key)):
        return fields + key
    return None


def _is_metadata_key(key: str) -> bool:
    """A comma, a wildcard and blanks around it may be in one too, but are mistakes far more often."""
    return 0 < len(key) <= _METADATA_KEY_MAX and key.isprintable() and key == key.strip() and not {",", "*"} & {*key}
