"""What the installed `stripe` package says there is: event types, and the values of enumerations.

`python -m tests.support.stripe_catalogue` writes the package's event types and API versions into our catalogue.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import stripe
from stripe._api_version import _ApiVersion
from stripe.events import _event_classes
from stripe.params._webhook_endpoint_create_params import WebhookEndpointCreateParams

CATALOGUE: Final = Path(__file__).parents[2] / "service" / "normalize" / "catalogue"
API_VERSION: Final[str] = _ApiVersion.CURRENT
UPDATE: Final = "update the catalogue: pip install --upgrade stripe; python -m tests.support.stripe_catalogue"


def literals(annotation: Any) -> frozenset[str]:
    """Every string that an annotation's `Literal`s name, however deep; none where it is an open `str`."""
    if get_origin(annotation) is Literal:
        return frozenset(get_args(annotation))
    return frozenset[str]().union(*map(literals, get_args(annotation)))


def snapshot_types() -> frozenset[str]:
    """The types an endpoint can ask for."""
    return literals(WebhookEndpointCreateParams.__annotations__["enabled_events"]) - {"*"}


def api_versions() -> frozenset[str]:
    """The API versions that an endpoint can be made with."""
    return literals(WebhookEndpointCreateParams.__annotations__["api_version"])


def thin_types() -> frozenset[str]:
    """The types of which the package has a class."""
    return frozenset(_event_classes._V2_EVENT_NOTIFICATION_CLASS_LOOKUP)


@cache
def _objects() -> Mapping[tuple[str, str], str]:
    """(module, class) of the package → the object that the class is."""
    found = {}
    for module in pkgutil.walk_packages(stripe.__path__, "stripe."):
        if not module.name.startswith(("stripe.params", "stripe.events")):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, type) and "OBJECT_NAME" in vars(value):
                    found[value.__module__, name] = str(vars(value)["OBJECT_NAME"])
    return found


def object_types() -> frozenset[str]:
    """Every object that the package has a class of."""
    return frozenset(_objects().values())


def related_object(thin_type: str) -> str | None:
    """The object that the package fetches for a thin event; None where there is none to fetch."""
    module, name = _event_classes._V2_EVENT_NOTIFICATION_CLASS_LOOKUP[thin_type]
    notification = getattr(importlib.import_module(module), name)
    fetch = getattr(notification, "fetch_related_object", None)
    if fetch is None:
        return None
    tree = ast.parse(inspect.getsource(inspect.getmodule(notification)))  # type: ignore[arg-type]
    sources = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    # Annotated by a name that is imported for type checkers only.
    return _objects()[sources[fetch.__annotations__["return"]]]


def known_to_stripe(stripe_class: str, *path: str) -> frozenset[str]:
    """The values of a field, by its path from a class of the package such as `checkout.Session`."""
    owner: Any = stripe
    for name in (*stripe_class.split("."), *path[:-1]):
        owner = getattr(owner, name)
    return literals(owner.__annotations__[path[-1]])


def files() -> Iterator[tuple[str, str]]:
    """Each file of the catalogue: its name and its text."""
    for form, types in (("snapshot", snapshot_types()), ("thin", thin_types())):
        yield f"{form}.txt", _text(f"Stripe's {form} event types at API version {API_VERSION}.", types)
    yield "api_versions.txt", _text(f"Stripe's API versions of webhook endpoints up to {API_VERSION}.", api_versions())


def _text(title: str, lines: frozenset[str]) -> str:
    return "\n".join((f"# {title}", *sorted(lines))) + "\n"


if __name__ == "__main__":
    for name, text in files():
        (CATALOGUE / name).write_text(text, encoding="ascii")
