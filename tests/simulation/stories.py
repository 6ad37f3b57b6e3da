"""Small lives of Stripe's objects: events in Stripe's true order, where each belongs, and what they come to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from service.simulator import changes, objects
from service.simulator.events import DAY, carries_previous, snapshot_event
from service.simulator.objects import Ids, Object
from tests.simulation.loop import EPOCH

START: Final = int(EPOCH.timestamp())
HOUR: Final = 3_600


@dataclass(frozen=True, slots=True)
class Told:
    """One event, and what must become of it by the published contract: its topic's family and its record's key."""

    event: Object = field(repr=False)
    family: str
    key: str

    @property
    def event_id(self) -> str:
        """Stripe's id of the event."""
        return str(self.event["id"])

    @property
    def at(self) -> int:
        """When it happened, in seconds since the history began."""
        return int(self.event["created"]) - START


@dataclass(frozen=True, slots=True)
class Story:
    """`facts`: table → id → columns, once every event has arrived."""

    events: Sequence[Told]
    facts: Mapping[str, Mapping[str, Mapping[str, Any]]]


class _Telling:
    def __init__(self, seed: int, *, livemode: bool, twins: Callable[[], bool]) -> None:
        self.ids = Ids(seed)
        self.livemode = livemode
        self.events: list[Told] = []
        self.facts: dict[str, dict[str, dict[str, Any]]] = {}
        self._twins = twins

    def tell(
        self, event_type: str, at: int, after: Object, to: tuple[str, str], before: Object | None = None
    ) -> Object:
        """Something happens to an object; `to` is where its record must go: family and key."""
        family, key = to
        previous = None
        if before is not None and carries_previous(event_type):
            previous = changes.previous_attributes(before, after)
        event = snapshot_event(
            event_type,
            after,
            event_id=self.ids.new("evt"),
            created=START + at,
            livemode=self.livemode,
            previous=previous,
        )
        self.events.append(Told(event, family, key))
        if self._twins():
            self.events.append(Told({**event, "id": self.ids.new("evt")}, family, key))
        return after

    def expect(self, table: str, object_id: str, **facts: Any) -> None:
        self.facts.setdefault(table, {})[object_id] = facts


def story(seed: int, chance: Random, *, livemode: bool, span: int, twins: Callable[[], bool]) -> Story:
    """A few chapters, each begun at some time within `span` seconds. `twins` decides which changes make two events."""
    telling = _Telling(seed, livemode=livemode, twins=twins)
    for chapter in chance.choices(_CHAPTERS, k=chance.randint(2, 4)):
        chapter(telling, chance.randrange(span), chance)
    return Story(tuple(sorted(telling.events, key=lambda told: told.at)), telling.facts)


def _intent(telling: _Telling, at: int, amount: int) -> Object:
    intent = objects.payment_intent(
        telling.ids,
        created=START + at,
        amount=amount,
        currency="eur",
        customer_id=telling.ids.new("cus"),
        livemode=telling.livemode,
    )
    return telling.tell("payment_intent.created", at, intent, ("payments", intent["id"]))


def _paid(telling: _Telling, at: int, intent: Object) -> Object:
    key = intent["id"]
    charge = changes.charge_succeeded(objects.charge(telling.ids, intent, created=START + at))
    telling.tell("charge.succeeded", at, charge, ("payments", key))
    telling.tell("payment_intent.succeeded", at, changes.payment_succeeded(intent, charge), ("payments", key))
    settled = changes.charge_settled(charge, telling.ids.new("txn"))
    return telling.tell("charge.updated", at + 2, settled, ("payments", key), charge)


def _refunded(telling: _Telling, at: int, charge: Object, amount: int) -> tuple[Object, Object]:
    key = charge["payment_intent"]
    refund = changes.refund_succeeded(objects.refund(telling.ids, charge, created=START + at, amount=amount))
    telling.tell("refund.created", at, refund, ("refunds", key))
    after = changes.charge_refunded(charge, amount)
    return telling.tell("charge.refunded", at, after, ("refunds", key), charge), refund


def _expect_payment(telling: _Telling, intent: Object, status: str, received: int, refunded: int) -> None:
    telling.expect(
        "payments",
        intent["id"],
        status=status,
        amount_minor=intent["amount"],
        amount_received_minor=received,
        amount_refunded_minor=refunded,
    )


def _second_try(telling: _Telling, at: int, chance: Random) -> None:
    """Declined, then paid: seconds or an hour later, or within the same second."""
    intent = _intent(telling, at, telling.ids.amount(500, 9_000))
    pause = chance.choice((0, 20, HOUR))
    charge = changes.charge_failed(objects.charge(telling.ids, intent, created=START + at + pause))
    telling.tell("charge.failed", at + pause, charge, ("payments", intent["id"]))
    failed = changes.payment_failed(intent, charge)
    telling.tell("payment_intent.payment_failed", at + pause, failed, ("payments", intent["id"]))
    _paid(telling, at + 2 * pause, failed)
    _expect_payment(telling, intent, "succeeded", intent["amount"], 0)


def _paid_back(telling: _Telling, at: int, chance: Random) -> None:
    """Refunded in two parts."""
    amount = telling.ids.amount(30, 300) * 100
    pause = chance.choice((1, 30, DAY))
    intent = _intent(telling, at, amount)
    charge = _paid(telling, at, intent)
    charge, part = _refunded(telling, at + 3 + pause, charge, amount // 3)
    charge, rest = _refunded(telling, at + 3 + 2 * pause, charge, amount - amount // 3)
    _expect_payment(telling, intent, "succeeded", amount, amount)
    telling.expect("refunds", part["id"], status="succeeded", amount_minor=amount // 3)
    telling.expect("refunds", rest["id"], status="succeeded", amount_minor=amount - amount // 3)


def _paid_back_in_vain(telling: _Telling, at: int, chance: Random) -> None:
    """A refund that fails after it had succeeded; Stripe shows the charge no more."""
    amount = telling.ids.amount(20, 200) * 100
    intent = _intent(telling, at, amount)
    charge = _paid(telling, at + 4, intent)
    _, refund = _refunded(telling, at + 40, charge, amount // 2)
    later = at + 40 + chance.choice((1, HOUR, 4 * DAY))
    failed = changes.refund_failed(refund, telling.ids.new("txn"))
    for event_type in ("refund.updated", "charge.refund.updated", "refund.failed"):
        telling.tell(event_type, later, failed, ("refunds", intent["id"]), refund)
    _expect_payment(telling, intent, "succeeded", amount, 0)
    telling.expect("refunds", refund["id"], status="failed", amount_minor=amount // 2)


def _gives_up(telling: _Telling, at: int, chance: Random) -> None:
    intent = _intent(telling, at, telling.ids.amount(5, 150) * 100)
    later = at + chance.choice((0, 60, DAY))
    canceled = changes.payment_canceled(intent, START + later)
    telling.tell("payment_intent.canceled", later, canceled, ("payments", intent["id"]))
    _expect_payment(telling, intent, "canceled", 0, 0)


def _subscribes(telling: _Telling, at: int, chance: Random) -> None:
    """All in one second, as Stripe has it; then a month that takes hours, past_due and back, and the end."""
    month = chance.choice((HOUR, 6 * HOUR, 2 * DAY))
    price = objects.price(
        telling.ids,
        created=START + at,
        product_id=telling.ids.new("prod"),
        unit_amount=2_000,
        currency="eur",
        interval="month",
        livemode=telling.livemode,
    )
    subscription = objects.subscription(
        telling.ids, [price], created=START + at, period_end=START + at + month, customer_id=telling.ids.new("cus")
    )
    key = subscription["id"]
    invoice = objects.invoice(telling.ids, subscription, created=START + at, billing_reason="subscription_create")
    subscription = changes.subscription_invoiced(subscription, invoice)
    telling.tell("customer.subscription.created", at, subscription, ("subscriptions", key))
    telling.tell("invoice.created", at, invoice, ("subscriptions", key))
    invoice = changes.invoice_finalized(invoice, START + at, "SIM-1")
    telling.tell("invoice.finalized", at, invoice, ("subscriptions", key))
    paid = changes.invoice_paid(invoice, START + at)
    telling.tell("invoice.paid", at, paid, ("subscriptions", key))
    active = changes.subscription_with(subscription, "active")
    telling.tell("customer.subscription.updated", at, active, ("subscriptions", key), subscription)
    behind = changes.subscription_with(active, "past_due")
    telling.tell("customer.subscription.updated", at + month, behind, ("subscriptions", key), active)
    again = changes.subscription_with(behind, "active")
    telling.tell("customer.subscription.updated", at + month, again, ("subscriptions", key), behind)
    status = "active"
    if chance.random() < 0.5:
        end = at + month + chance.choice((0, 90))
        ended = changes.subscription_ended(again, START + end)
        telling.tell("customer.subscription.deleted", end, ended, ("subscriptions", key))
        status = "canceled"
    telling.expect("subscriptions", key, status=status, latest_invoice_id=invoice["id"])
    telling.expect("invoices", invoice["id"], status="paid", subscription_id=key, amount_remaining_minor=0)


def _moves(telling: _Telling, at: int, chance: Random) -> None:
    """A customer, and an event of a type that nobody has heard of."""
    customer = objects.customer(telling.ids, created=START + at, livemode=telling.livemode)
    telling.tell("customer.created", at, customer, ("customers", customer["id"]))
    moved = changes.changed(customer, email="moved@example.com")
    telling.tell("customer.updated", at + chance.choice((0, 5)), moved, ("customers", customer["id"]), customer)
    thing: Object = {"id": telling.ids.new("novelty"), "object": "novelty", "livemode": telling.livemode}
    telling.tell("novelty.invented", at, thing, ("other", thing["id"]))


def _plan_of(price: Object) -> Object:
    """A recurring price under its older name: Stripe tells of both."""
    recurring = price["recurring"]
    shared = ("id", "active", "billing_scheme", "created", "currency", "livemode", "metadata", "nickname", "product")
    return {
        **{name: price[name] for name in shared},
        "object": "plan",
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": recurring["trial_period_days"],
        "usage_type": recurring["usage_type"],
    }


def _sells(telling: _Telling, at: int, chance: Random) -> None:
    """A product with two prices. It is renamed; one price is changed twice and archived, all of it may be deleted."""
    product = objects.product(telling.ids, created=START + at, livemode=telling.livemode)
    to = ("catalog", product["id"])
    monthly, once = (
        objects.price(
            telling.ids,
            created=START + at,
            product_id=product["id"],
            unit_amount=telling.ids.amount(5, 90) * 100,
            currency="eur",
            interval=interval,
            livemode=telling.livemode,
        )
        for interval in ("month", None)
    )

    def changes_price(moment: int, what: str, price: Object, before: Object | None = None) -> None:
        telling.tell(f"plan.{what}", moment, _plan_of(price), to, None if before is None else _plan_of(before))
        telling.tell(f"price.{what}", moment, price, to, before)

    telling.tell("product.created", at, product, to)
    changes_price(at, "created", monthly)
    telling.tell("price.created", at, once, to)
    later = at + chance.choice((0, 20, HOUR))
    renamed = changes.changed(product, name="Club", default_price=monthly["id"], updated=START + later)
    telling.tell("product.updated", later, renamed, to, product)
    named = changes.changed(monthly, nickname="Monthly")
    changes_price(later, "updated", named, monthly)
    again = changes.changed(named, nickname="Each month")
    changes_price(later, "updated", again, named)
    archived = changes.changed(once, active=False)
    telling.tell("price.updated", later, archived, to, once)
    deleted = chance.random() < 0.5
    if deleted:
        end = later + chance.choice((0, 3, DAY))
        changes_price(end, "deleted", again)
        telling.tell("price.deleted", end, archived, to)
        telling.tell("product.deleted", end, renamed, to)
    there = {"active": not deleted, "deleted": deleted}
    telling.expect("products", product["id"], name="Club", default_price_id=monthly["id"], **there)
    telling.expect(
        "prices",
        monthly["id"],
        product_id=product["id"],
        nickname="Each month",
        tax_behavior="unspecified",
        unit_amount_minor=monthly["unit_amount"],
        interval="month",
        **there,
    )
    telling.expect("prices", once["id"], product_id=product["id"], active=False, deleted=deleted, interval=None)


_CHAPTERS: Final[Sequence[Callable[[_Telling, int, Random], None]]] = (
    _second_try,
    _second_try,
    _paid_back,
    _paid_back,
    _paid_back_in_vain,
    _gives_up,
    _subscribes,
    _subscribes,
    _moves,
    _sells,
)
