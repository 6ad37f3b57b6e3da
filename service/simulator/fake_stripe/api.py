"""The operations of Stripe's API that are simulated: who may call them, and what they give."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from service.simulator.fake_stripe.endpoints import Endpoints
from service.simulator.fake_stripe.fake import Book, FakeStripe
from service.simulator.fake_stripe.forms import boolean, strings, text
from service.simulator.fake_stripe.refusals import (
    API_ERROR,
    Refusal,
    invalid,
    missing_param,
    no_such,
    unknown_param,
)
from service.simulator.fake_stripe.resources import PORTAL_SESSION, RESOURCES, Resource, Wanted
from service.simulator.fake_stripe.shelf import PAGE_PARAMS, Page
from service.simulator.objects import Object

TYPES_MAX: Final = 20
_EVENT_PARAMS: Final = PAGE_PARAMS | {"delivery_success", "type", "types"}
_ENDPOINT_PAGE_PARAMS: Final = PAGE_PARAMS - {"created"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is let in: whose objects it is about, which one the path names ("" for none), its parameters."""

    fake: FakeStripe
    book: Book
    path: str
    id: str
    params: dict[str, Any]


Run: TypeAlias = Callable[[Call], Object]


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method on a path does, and the permission that a restricted key needs for it."""

    method: str
    path: str
    permission: str
    run: Run


def _listed(call: Call, page: tuple[list[Object], bool]) -> Object:
    data, has_more = page
    return {"object": "list", "data": data, "has_more": has_more, "url": call.path}


# Events


def _list_events(call: Call) -> Object:
    if unknown := call.params.keys() - _EVENT_PARAMS:
        raise unknown_param(min(unknown))
    page = Page.of(call.params)
    recent = Page(page.limit, page.starting_after, page.ending_before, page.created.within(call.fake.oldest_told()))
    for param in ("starting_after", "ending_before"):
        if param in call.params:
            _event(call, call.params[param], param=param)
    events, more = call.book.events.page(recent, _wanted_events(call))
    return _listed(call, ([call.fake.told(event) for event in events], more))


def _wanted_events(call: Call) -> Wanted:
    one, several = text(call.params, "type"), strings(call.params, "types")
    if one is not None and several is not None:
        raise invalid("types", "You may pass either `type` or `types`, but not both.", code="parameters_exclusive")
    if several is not None and len(several) > TYPES_MAX:
        raise invalid("types", f"Array types exceeded maximum {TYPES_MAX} allowed elements.")
    delivered = boolean(call.params, "delivery_success")
    names = several if several is not None else None if one is None else [one]

    def wanted(event: Object) -> bool:
        if names is not None and not any(_matches(event["type"], name) for name in names):
            return False
        return delivered is None or delivered is (call.fake.pending(event["id"]) == 0)

    return wanted


def _matches(event_type: str, name: str) -> bool:
    return name in {event_type, "*"} or (name.endswith(".*") and event_type.startswith(name[:-1]))


def _event(call: Call, event_id: str, *, param: str = "id") -> Object:
    event = call.book.events.get(event_id)
    if event is None or event["created"] < call.fake.oldest_told():
        raise no_such("event", event_id, param=param)
    return event


def _retrieve_event(call: Call) -> Object:
    return call.fake.told(_event(call, call.id))


def _retry_event(call: Call) -> Object:
    event = _event(call, call.id)
    endpoint_id = text(call.params, "webhook_endpoint")
    if endpoint_id is None:
        raise missing_param("webhook_endpoint")
    if not call.book.endpoints.exists(endpoint_id):
        raise no_such("webhook endpoint", endpoint_id, param="webhook_endpoint")
    call.fake.deliveries.resend(event["id"], endpoint_id)
    return call.fake.told(event)


# Webhook endpoints


def _list_endpoints(call: Call) -> Object:
    if unknown := call.params.keys() - _ENDPOINT_PAGE_PARAMS:
        raise unknown_param(min(unknown))
    return _listed(call, call.book.endpoints.page(Page.of(call.params)))


def _create_endpoint(call: Call) -> Object:
    return call.book.endpoints.create(call.params, call.fake.now())


def _retrieve_endpoint(call: Call) -> Object:
    return _endpoints(call).retrieve(call.id)


def _update_endpoint(call: Call) -> Object:
    return _endpoints(call).update(call.id, call.params)


def _delete_endpoint(call: Call) -> Object:
    return _endpoints(call).delete(call.id)


def _endpoints(call: Call) -> Endpoints:
    """Those among which the path's one is. Raises `Refusal`."""
    if not call.book.endpoints.exists(call.id):
        other = _other_mode(call)
        raise no_such("webhook endpoint", call.id, other_mode=other.mode if other.endpoints.exists(call.id) else None)
    return call.book.endpoints


def _other_mode(call: Call) -> Book:
    return call.fake.book(call.book.account, livemode=not call.book.livemode)


# The other objects


def _lists(resource: Resource) -> Run:
    def run(call: Call) -> Object:
        objects, more = call.book.of(resource.object).page(Page.of(call.params), resource.wanted(call.params))
        return _listed(call, ([_expanded(call, obj, under="data") for obj in objects], more))

    return run


def _retrieves(resource: Resource) -> Run:
    def run(call: Call) -> Object:
        return _expanded(call, _object(call, resource), under="")

    return run


def _object(call: Call, resource: Resource) -> Object:
    found = call.book.of(resource.object).get(call.id)
    if found is not None:
        return found
    other = _other_mode(call)
    known = other.of(resource.object).get(call.id) is not None
    raise no_such(resource.object, call.id, other_mode=other.mode if known else None)


def _does_not_create(resource: Resource) -> Run:
    """A key can be tried on it: who may not write gets the 403, who may is told what is missing."""

    def run(call: Call) -> Object:
        if resource.needed is not None and resource.needed not in call.params:
            raise missing_param(resource.needed)
        raise _not_simulated(f"creating a {resource.object}")

    return run


def _does_not_update(resource: Resource) -> Run:
    def run(call: Call) -> Object:
        _object(call, resource)
        raise _not_simulated(f"changing a {resource.object}")

    return run


def _not_simulated(what: str) -> Refusal:
    return Refusal(501, f"This is a fake Stripe: {what} is not simulated; things happen by its events.", kind=API_ERROR)


def _expanded(call: Call, obj: Object, *, under: str) -> Object:
    """The object with the references that `expand` names replaced by the objects; for a list they begin with `data.`"""
    for path in strings(call.params, "expand") or ():
        fields = path.removeprefix(f"{under}.").split(".") if under else path.split(".")
        if under and not path.startswith(f"{under}."):
            raise invalid("expand", f"This property cannot be expanded ({path}). You may want to try expanding"
                          f" 'data.{path}' instead.")  # fmt: skip
        obj = _with_expanded(call, obj, fields)
    return obj


def _with_expanded(call: Call, obj: Object, fields: list[str]) -> Object:
    name, *deeper = fields
    value = obj.get(name)
    if isinstance(value, str):
        value = _anything(call, value) or value
    if not deeper:
        return {**obj, name: value}
    if isinstance(value, dict):
        value = _with_expanded(call, value, deeper)
    elif isinstance(value, list):
        value = [_with_expanded(call, each, deeper) if isinstance(each, dict) else each for each in value]
    return {**obj, name: value}


def _anything(call: Call, object_id: str) -> Object | None:
    found = (shelf.get(object_id) for shelf in call.book.objects.values())
    return next((obj for obj in found if obj is not None), None)


def _account(call: Call) -> Object:
    return {
        "id": call.book.account,
        "object": "account",
        "charges_enabled": True,
        "country": "DE",
        "default_currency": "eur",
        "details_submitted": True,
        "email": None,
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }


def _operations(resource: Resource) -> Iterator[Operation]:
    path, one = f"/v1/{resource.path}", f"/v1/{resource.path}/{{id}}"
    reading, writing = f"{resource.permission}_read", f"{resource.permission}_write"
    yield Operation("GET", path, reading, _lists(resource))
    yield Operation("GET", one, reading, _retrieves(resource))
    if resource.creates:
        yield Operation("POST", path, writing, _does_not_create(resource))
    if resource.updates:
        yield Operation("POST", one, writing, _does_not_update(resource))


OPERATIONS: Final = (
    Operation("GET", "/v1/account", "accounts_kyc_basic_read", _account),
    Operation("GET", "/v1/events", "event_read", _list_events),
    Operation("GET", "/v1/events/{id}", "event_read", _retrieve_event),
    Operation("POST", "/v1/events/{id}/retry", "event_write", _retry_event),
    Operation("GET", "/v1/webhook_endpoints", "webhook_read", _list_endpoints),
    Operation("POST", "/v1/webhook_endpoints", "webhook_write", _create_endpoint),
    Operation("GET", "/v1/webhook_endpoints/{id}", "webhook_read", _retrieve_endpoint),
    Operation("POST", "/v1/webhook_endpoints/{id}", "webhook_write", _update_endpoint),
    Operation("DELETE", "/v1/webhook_endpoints/{id}", "webhook_write", _delete_endpoint),
    Operation(
        "POST", f"/v1/{PORTAL_SESSION.path}", f"{PORTAL_SESSION.permission}_write", _does_not_create(PORTAL_SESSION)
    ),
    *(operation for resource in RESOURCES for operation in _operations(resource)),
)
"""Everything that is simulated."""
