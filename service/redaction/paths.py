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
_FIELD: Final = re.compile(r"[^\s.*:][^.*:\x00-\x1f\x7f]{0,99}")
_SETTING: Final = "kafka.redact"


@dataclass(frozen=True, slots=True)
class RedactionPath:
    """One field, in every object of a type. `hashed`: its strings are replaced by hashes; else the field is dropped."""

    object_type: str
    fields: tuple[str, ...]
    hashed: bool


def parse_paths(written: Iterable[str]) -> tuple[RedactionPath, ...]:
    """Read the setting. Raises `ConfigurationError` for a path that is none, or that must not be redacted."""
    return tuple(_parse(text) for text in written)


def _parse(written: str) -> RedactionPath:
    path = written.removeprefix(HASH_PREFIX)
    parts = path.split(".")
    if len(parts) < 2 or not all(_FIELD.fullmatch(part) for part in parts[1:]):
        raise ConfigurationError(
            f"{_SETTING}: {written!r} is no path: expected [hash:]<object type>.<field>[.<field>…],"
            " such as customer.email or hash:charge.billing_details.phone"
        )
    object_type, fields = _split(written, parts)
    if is_protected(object_type, fields):
        raise ConfigurationError(
            f"{_SETTING}: {written!r} cannot be redacted: keys, identities, amounts, states, times or links are made"
            " of it; name a field beside or below that is not"
        )
    return RedactionPath(object_type, fields, hashed=written.startswith(HASH_PREFIX))


def _split(written: str, parts: list[str]) -> tuple[str, tuple[str, ...]]:
    """The object type, which may have dots of its own, and the fields."""
    if parts[0] == ANY:
        return ANY, tuple(parts[1:])
    if parts[0] == "checkout_session":  # our spelling, beside Stripe's
        parts = ["checkout", "session", *parts[1:]]
    for length in range(min(OBJECT_TYPE_PARTS_MAX, len(parts) - 1), 0, -1):
        if (stripes := ".".join(parts[:length])) in OBJECT_TYPES:
            return stripes, tuple(parts[length:])
    # A name that no object has would look accepted, and leave what it was to protect as it is.
    near = difflib.get_close_matches(parts[0], OBJECT_TYPES, n=1)
    raise ConfigurationError(
        f"{_SETTING}: {written!r} names no object of Stripe's"
        + (f" (is {near[0]} meant?)" if near else "")
        + "; *.<field> takes the field of any"
    )
