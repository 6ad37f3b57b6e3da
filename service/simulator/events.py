"""Events around objects, their bytes as Stripe sends them, and one realistic sample of every type that is handled."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, TypeAlias

import orjson

from service.errors import ConfigurationError
from service.simulator import changes, objects
from service.simulator.objects import API_VERSION, Ids, Object

DAY: Final = 86_400
MONTH: Final = 30 * DAY

_CHANGES_WITHOUT_UPDATED: Final = frozenset({
    "charge.captured",
    "charge.dispute.closed",
    "charge.expired",
    "charge.refunded",
    "customer.subscription.paused",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    "customer.subscription.resumed",
})  # fmt: skip
_SUGGESTIONS_MAX: Final = 5
_EMPTY_CONTAINER: Final = re.compile(rb'^( *)((?:"[^"\n]*": )?[\[{])([\]}])', re.MULTILINE)
"""A line whose value is `[]` or `{}`; the same signs inside of a string come after its quote, and never match."""


class UnknownEventType(ConfigurationError):
    """There is no sample of this event type; `suggestions` are the closest ones there are."""

    tag = "event_type_unknown"

    def __init__(self, event_type: str) -> None:
        self.suggestions = _suggestions(event_type)
        hint = f"did you mean {' or '.join(self.suggestions)}?" if self.suggestions else "none is close to it"
        super().__init__(f"there is no sample of the event type {event_type[:80]!r}: {hint}")


@dataclass(frozen=True, slots=True)
class Request:
    """The API request that caused an event; both null for what Stripe did by itself."""

    id: str | None = None
    idempotency_key: str | None = None


AUTOMATIC: Final = Request()


def snapshot_event(
    event_type: str,
    obj: Object,
    *,
    event_id: str,
    created: int,
    livemode: bool,
    previous: Object | None = None,
    account: str | None = None,
    request: Request = AUTOMATIC,
) -> Object:
    """The event that Stripe makes when `event_type` happened to `obj` at `created` (Unix seconds).

    `previous` are the old values of what changed; `account` is the connected account, for a Connect endpoint.
    """
    data = {"object": obj} if previous is None else {"object": obj, "previous_attributes": previous}
    return {
        "id": event_id,
        "object": "event",
        **({} if account is None else {"account": account}),
        "api_version": API_VERSION,
        "created": created,
        "data": data,
        "livemode": livemode,
        "pending_webhooks": 1,
        "request": {"id": request.id, "idempotency_key": request.idempotency_key},
        "type": event_type,
    }


def carries_previous(event_type: str) -> bool:
    """Whether Stripe puts `previous_attributes` into events of this type."""
    return event_type.endswith(".updated") or event_type in _CHANGES_WITHOUT_UPDATED


def render(event: Object) -> bytes:
    """The event's bytes as Stripe sends them: UTF-8, two spaces of indent, an empty container over two lines.

    The form matters to a receiver that parses and writes again before it verifies: its bytes are then other ones.
    """
    return _EMPTY_CONTAINER.sub(rb"\1\2\n\1\3", orjson.dumps(event, option=orjson.OPT_INDENT_2))


def sample(event_type: str, *, seed: int, created: int, livemode: bool = False, account: str | None = None) -> Object:
    """A realistic event of `event_type`, made at `created` (Unix seconds); the same arguments give the same event.

    Raises `UnknownEventType` for a type that is not in `SAMPLE_EVENT_TYPES`.
    """
    happening = _SAMPLES.get(event_type)
    if happening is None:
        raise UnknownEventType(event_type)
    ids = Ids(seed)
    before, after = happening(_Scene(ids, created, livemode))
    return snapshot_event(
        event_type,
        after,
        event_id=ids.new("evt"),
        created=created,
        livemode=livemode,
        previous=changes.previous_attributes(before, after) if carries_previous(event_type) else None,
        account=account,
        request=Request(ids.new("req"), f"simulated-{ids.amount(100_000, 999_999)}"),
    )


@dataclass(frozen=True, slots=True)
class _Scene:
    """The objects that a sample needs around its own; `now` is when the sample's event happens."""

    ids: Ids
    now: int
    livemode: bool

    def customer(self) -> Object:
        return objects.customer(self.ids, created=self.now, livemode=self.livemode)

    def product(self) -> Object:
        return objects.product(self.ids, created=self.now, livemode=self.livemode)

    def price(self) -> Object:
        return objects.price(
            self.ids,
            created=self.now,
            product_id=self.ids.new("prod"),
            unit_amount=2_000,
            currency="eur",
            interval="month",
            livemode=self.livemode,
        )

    def intent(self, capture_method: str = "automatic_async") -> Object:
        return objects.payment_intent(
            self.ids,
            created=self.now,
            amount=self.ids.amount(500, 20_000),
            currency="eur",
            customer_id=self.ids.new("cus"),
            livemode=self.livemode,
            capture_method=capture_method,
        )

    def charge(self) -> Object:
        return objects.charge(self.ids, self.intent(), created=self.now)

    def paid_charge(self) -> Object:
        return changes.charge_settled(changes.charge_succeeded(self.charge()), self.ids.new("txn"))

    def refund(self) -> Object:
        charge = self.paid_charge()
        return objects.refund(self.ids, charge, created=self.now, amount=charge["amount"] // 2)

    def dispute(self) -> Object:
        return objects.dispute(self.ids, changes.charge_disputed(self.paid_charge()), created=self.now - DAY)

    def session(self) -> Object:
        return objects.checkout_session(
            self.ids,
            created=self.now - 300,
            amount=self.ids.amount(500, 20_000),
            currency="eur",
            customer_id=None,
            livemode=self.livemode,
        )

    def new_subscription(self) -> Object:
        return objects.subscription(
            self.ids, [self.price()], created=self.now, period_end=self.now + MONTH, customer_id=self.ids.new("cus")
        )

    def subscription(self) -> Object:
        """One that is active."""
        return changes.subscription_with(self.new_subscription(), "active")

    def draft_invoice(self) -> Object:
        return objects.invoice(self.ids, self.subscription(), created=self.now, billing_reason="subscription_cycle")

    def invoice(self) -> Object:
        """One that is open."""
        return changes.invoice_finalized(self.draft_invoice(), self.now, "SIM-0001")

    def mailed_invoice(self) -> Object:
        return changes.invoice_by_mail(self.invoice(), self.now + DAY)


_Change: TypeAlias = tuple[Object, Object]
_Happening: TypeAlias = Callable[[_Scene], _Change]


def _to(make: Callable[[_Scene], Object], change: Callable[[_Scene, Object], Object]) -> _Happening:
    """What happens to an object that the scene makes."""

    def happening(scene: _Scene) -> _Change:
        before = make(scene)
        return before, change(scene, before)

    return happening


def _as_it_is(make: Callable[[_Scene], Object]) -> _Happening:
    """An event that shows an object without changing it."""
    return _to(make, lambda _, obj: obj)


def _completed_session(scene: _Scene, session: Object, payment_status: str) -> Object:
    return changes.session_completed(session, scene.intent(), payment_status=payment_status)


def _unpaid_session(scene: _Scene) -> Object:
    return _completed_session(scene, scene.session(), "unpaid")


def _disputed_and_withdrawn(scene: _Scene) -> Object:
    return changes.dispute_funds_withdrawn(scene.dispute(), scene.ids.new("txn"))


def _paid_invoice_payment(scene: _Scene) -> _Change:
    before = objects.invoice_payment(scene.ids, scene.invoice(), scene.intent(), created=scene.now)
    return before, changes.invoice_payment_paid(before, scene.now)


def _with_update_pending(scene: _Scene) -> Object:
    return changes.subscription_update_pending(scene.subscription(), scene.now + DAY)


_SAMPLES: Final[Mapping[str, _Happening]] = MappingProxyType({
    # Payment intents
    "payment_intent.created": _as_it_is(_Scene.intent),
    "payment_intent.requires_action": _to(_Scene.intent, lambda _, o: changes.payment_requires_action(o)),
    "payment_intent.processing": _to(
        _Scene.intent, lambda s, o: changes.payment_processing(o, objects.charge(s.ids, o, created=s.now))
    ),
    "payment_intent.partially_funded": _to(
        _Scene.intent, lambda _, o: changes.payment_partially_funded(o, o["amount"] // 2)
    ),
    "payment_intent.amount_capturable_updated": _to(
        lambda s: s.intent("manual"),
        lambda s, o: changes.payment_capturable(o, objects.charge(s.ids, o, created=s.now)),
    ),
    "payment_intent.payment_failed": _to(
        _Scene.intent, lambda s, o: changes.payment_failed(o, objects.charge(s.ids, o, created=s.now))
    ),
    "payment_intent.succeeded": _to(
        _Scene.intent, lambda s, o: changes.payment_succeeded(o, objects.charge(s.ids, o, created=s.now))
    ),
    "payment_intent.canceled": _to(_Scene.intent, lambda s, o: changes.payment_canceled(o, s.now)),
    # Charges
    "charge.pending": _as_it_is(_Scene.charge),
    "charge.succeeded": _to(_Scene.charge, lambda _, o: changes.charge_succeeded(o)),
    "charge.failed": _to(_Scene.charge, lambda _, o: changes.charge_failed(o)),
    "charge.captured": _to(
        lambda s: changes.charge_authorized(s.charge()), lambda _, o: changes.charge_captured(o)
    ),
    "charge.expired": _to(lambda s: changes.charge_authorized(s.charge()), lambda _, o: changes.charge_expired(o)),
    "charge.updated": _to(
        lambda s: changes.charge_succeeded(s.charge()), lambda s, o: changes.charge_settled(o, s.ids.new("txn"))
    ),
    "charge.refunded": _to(_Scene.paid_charge, lambda _, o: changes.charge_refunded(o, o["amount"] // 2)),
    "charge.dispute.created": _as_it_is(_Scene.dispute),
    "charge.dispute.funds_withdrawn": _as_it_is(_disputed_and_withdrawn),
    "charge.dispute.updated": _to(_disputed_and_withdrawn, lambda _, o: changes.dispute_answered(o)),
    "charge.dispute.funds_reinstated": _to(
        _disputed_and_withdrawn,
        lambda s, o: changes.dispute_funds_reinstated(changes.dispute_won(o), s.ids.new("txn")),
    ),
    "charge.dispute.closed": _to(
        lambda s: changes.dispute_answered(_disputed_and_withdrawn(s)), lambda _, o: changes.dispute_won(o)
    ),
    # Refunds
    "refund.created": _as_it_is(_Scene.refund),
    "refund.updated": _to(_Scene.refund, lambda _, o: changes.refund_succeeded(o)),
    "refund.failed": _to(
        lambda s: changes.refund_succeeded(s.refund()), lambda s, o: changes.refund_failed(o, s.ids.new("txn"))
    ),
    "charge.refund.updated": _to(
        lambda s: changes.refund_succeeded(s.refund()),
        lambda s, o: changes.refund_referenced(o, str(s.ids.amount(10**10, 10**11 - 1))),
    ),
    # Checkout
    "checkout.session.completed": _to(_Scene.session, lambda s, o: _completed_session(s, o, "paid")),
    "checkout.session.async_payment_succeeded": _to(_unpaid_session, lambda _, o: changes.session_paid(o)),
    "checkout.session.async_payment_failed": _as_it_is(_unpaid_session),
    "checkout.session.expired": _to(_Scene.session, lambda _, o: changes.session_expired(o)),
    # Subscriptions
    "customer.subscription.created": _as_it_is(_Scene.new_subscription),
    "customer.subscription.updated": _to(
        _Scene.new_subscription, lambda _, o: changes.subscription_with(o, "active")
    ),
    "customer.subscription.deleted": _to(_Scene.subscription, lambda s, o: changes.subscription_ended(o, s.now)),
    "customer.subscription.paused": _to(
        lambda s: changes.subscription_trialing(s.new_subscription(), s.now - 14 * DAY, s.now),
        lambda s, o: changes.subscription_paused(o, s.now),
    ),
    "customer.subscription.resumed": _to(
        lambda s: changes.subscription_paused(s.subscription(), s.now - DAY),
        lambda _, o: changes.subscription_resumed(o),
    ),
    "customer.subscription.trial_will_end": _as_it_is(
        lambda s: changes.subscription_trialing(s.new_subscription(), s.now - 11 * DAY, s.now + 3 * DAY)
    ),
    "customer.subscription.pending_update_applied": _to(
        _with_update_pending, lambda _, o: changes.subscription_update_applied(o)
    ),
    "customer.subscription.pending_update_expired": _to(
        _with_update_pending, lambda _, o: changes.subscription_update_expired(o)
    ),
    # Invoices
    "invoice.created": _as_it_is(_Scene.draft_invoice),
    "invoice.deleted": _as_it_is(_Scene.draft_invoice),
    "invoice.finalization_failed": _to(_Scene.draft_invoice, lambda _, o: changes.invoice_finalization_failed(o)),
    "invoice.finalized": _as_it_is(_Scene.invoice),
    "invoice.marked_uncollectible": _to(_Scene.invoice, lambda s, o: changes.invoice_uncollectible(o, s.now)),
    "invoice.overdue": _as_it_is(lambda s: changes.invoice_by_mail(s.invoice(), s.now - DAY)),
    "invoice.overpaid": _to(
        _Scene.mailed_invoice, lambda s, o: changes.invoice_overpaid(changes.invoice_paid(o, s.now), 500)
    ),
    "invoice.paid": _to(_Scene.invoice, lambda s, o: changes.invoice_paid(o, s.now)),
    "invoice.payment_action_required": _to(
        _Scene.invoice, lambda s, o: changes.invoice_payment_failed(o, s.now + 3 * DAY)
    ),
    "invoice.payment_attempt_required": _as_it_is(_Scene.invoice),
    "invoice.payment_failed": _to(_Scene.invoice, lambda s, o: changes.invoice_payment_failed(o, s.now + 3 * DAY)),
    "invoice.payment_succeeded": _to(_Scene.invoice, lambda s, o: changes.invoice_paid(o, s.now)),
    "invoice.sent": _as_it_is(_Scene.mailed_invoice),
    "invoice.upcoming": _to(_Scene.draft_invoice, lambda _, o: changes.invoice_preview(o)),
    "invoice.updated": _to(_Scene.draft_invoice, lambda s, o: changes.invoice_finalized(o, s.now, "SIM-0001")),
    "invoice.voided": _to(_Scene.invoice, lambda s, o: changes.invoice_voided(o, s.now)),
    "invoice.will_be_due": _as_it_is(_Scene.mailed_invoice),
    "invoice_payment.paid": _paid_invoice_payment,
    # Customers
    "customer.created": _as_it_is(_Scene.customer),
    "customer.updated": _to(
        _Scene.customer, lambda s, o: changes.changed(o, email=f"moved-{s.ids.amount(1_000, 9_999)}@example.com")
    ),
    "customer.deleted": _as_it_is(_Scene.customer),
    # Catalog
    "product.created": _as_it_is(_Scene.product),
    "product.updated": _to(
        _Scene.product, lambda s, o: changes.changed(o, name=f"{o['name']} (new)", updated=s.now + 1)
    ),
    "product.deleted": _to(_Scene.product, lambda _, o: changes.changed(o, active=False)),
    "price.created": _as_it_is(_Scene.price),
    "price.updated": _to(_Scene.price, lambda _, o: changes.changed(o, nickname="Monthly")),
    "price.deleted": _to(_Scene.price, lambda _, o: changes.changed(o, active=False)),
})  # fmt: skip
"""Event type → the object before and after; the same functions make the stories of `shop`."""

SAMPLE_EVENT_TYPES: Final = tuple(sorted(_SAMPLES))
"""Every event type that `sample` makes."""


def _suggestions(event_type: str) -> tuple[str, ...]:
    """The closest types by spelling, then those of the same family."""
    close = get_close_matches(event_type, SAMPLE_EVENT_TYPES, n=_SUGGESTIONS_MAX, cutoff=0.6)
    family = event_type.rpartition(".")[0]
    relatives = [known for known in SAMPLE_EVENT_TYPES if family and known.startswith(f"{family}.")]
    return tuple(dict.fromkeys([*close, *relatives]))[:_SUGGESTIONS_MAX]
