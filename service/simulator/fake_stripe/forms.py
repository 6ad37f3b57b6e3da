"""Parameters as Stripe's clients encode them: `types[0]=…`, `types[]=…`, `created[gte]=…`, `metadata[order]=…`."""

import re
from typing import Any, Final
from urllib.parse import parse_qsl

from service.simulator.fake_stripe.refusals import Refusal, invalid

PARAMETERS_MAX: Final = 1_000
TEXT_MAX: Final = 5_000
_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){0,5})")
_PART: Final = re.compile(r"\[([^\[\]]*)\]")


def decode(text: str) -> dict[str, Any]:
    """The parameters of a query or a form: strings, and arrays and objects of them. Raises `Refusal`."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise Refusal(400, "The request has too many parameters.") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        matched = _NAME.fullmatch(name)
        if matched is None:
            raise Refusal(400, f"Invalid parameter name: {name[:80]}")
        _put(found, [matched[1], *_PART.findall(matched[2])], value)
    return {name: _with_arrays(value) for name, value in found.items()}


def integer(params: dict[str, Any], name: str) -> int | None:
    """A whole number, or None where it is not given."""
    return None if name not in params else whole(params[name], name)


def whole(value: object, name: str) -> int:
    """The value as a whole number. Raises `Refusal`."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    raise invalid(name, f"Invalid integer: {str(value)[:80]}", code="parameter_invalid_integer")


def boolean(params: dict[str, Any], name: str) -> bool | None:
    """Whether something is so, or None where it is not given."""
    if name not in params:
        return None
    if params[name] not in {"true", "false"}:
        raise invalid(name, f"Invalid boolean: {str(params[name])[:80]}")
    return bool(params[name] == "true")


def text(params: dict[str, Any], name: str) -> str | None:
    """A string, or None where it is not given."""
    value = params.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(name, "Invalid string: it must not be an array or an object.")
    if value is not None and len(value) > TEXT_MAX:
        raise invalid(name, f"Invalid string: {value[:4]}...{value[-4:]}; must be at most {TEXT_MAX} characters")
    return value


def strings(params: dict[str, Any], name: str) -> list[str] | None:
    """An array of strings, or None where it is not given."""
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(name, "Invalid array")
    return value


def _put(into: dict[str, Any], parts: list[str], value: str) -> None:
    *above, last = parts
    for part in above:
        inner = into.setdefault(part, {})
        if not isinstance(inner, dict):
            raise Refusal(400, "A parameter is given both as a value and as an object.")
        into = inner
    into[str(len(into)) if last == "" else last] = value


def _with_arrays(value: Any) -> Any:
    """An object whose names are all numbers is an array."""
    if not isinstance(value, dict):
        return value
    inner = {name: _with_arrays(each) for name, each in value.items()}
    if all(name.isdecimal() for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner
