"""A short life of a shop: its events in Stripe's true order, what they come to, and the order in which they arrive."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from service.simulator import changes, objects
from service.simulator.events import AUTOMATIC, DAY, MONTH, Request, carries_previous, snapshot_event
from service.simulator.objects import Ids, Object

STORY_SPAN: Final = timedelta(days=91)
"""How long before now a shop must open for its whole story to be in the past."""
DUPLICATED_SHARE: Final = 8
"""One delivery in so many comes a second time."""
DISORDER_WINDOW: Final = 12
"""How many places an event may fall behind the others; its repetition falls up to four times as far behind."""

Expected: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Table → id → column → value: the facts that a story ends with."""


@dataclass(frozen=True, slots=True)
class Story:
    """What happened at a shop: `events` in Stripe's true order (`created` never goes back), and the facts at the end.

    `expected` is stated by the story itself. Times are aware datetimes in UTC, amounts in the currency's minor unit;
    a refund that failed takes nothing from its payment.
    """

    events: tuple[Object, ...]
    expected: Expected


def shop(seed: int, start: datetime, *, livemode: bool = False, account: str | None = None) -> Story:
    """The life of a shop that opens at `start` (aware) and is watched for less than `STORY_SPAN`.

    The same arguments give the same story, and another seed gives other ids and amounts: many shops make a crowd.
    Raises `ValueError` when `start` has no time zone.
    """
    if start.tzinfo is None:
        raise ValueError("the start of a story needs a time zone")
    telling = _Telling(Ids(seed), int(start.timestamp()), livemode, account)
    recurring = _opens(telling)
    _is_paid_at_the_second_try(telling)
    _is_paid_back_in_two_parts(telling)
    _is_paid_back_in_vain(telling)
    _sells_by_checkout(telling)
    _gives_up_a_payment(telling)
    _has_a_subscriber(telling, recurring)
    return telling.story()


def deliveries(story: Story, seed: int) -> list[Object]:
    """The story's events as they arrive: every one at least once, some twice, many out of order."""
    chance = random.Random(f"stripe-deliveries:{seed}")  # noqa: S311 -- repeatable on purpose, nothing is secret
    count = len(story.events)
    arrivals = [(place + chance.uniform(0, DISORDER_WINDOW), place) for place in range(count)]
    again = chance.sample(arrivals, k=-(-count // DUPLICATED_SHARE))
    arrivals += [(first + chance.uniform(0, 4 * DISORDER_WINDOW), place) for first, place in again]
    return [story.events[place] for _, place in sorted(arrivals)]


class _Telling:
    """A story while it is told. Chapters overlap in time; events of one second keep the order of their telling."""

    def __init__(self, ids: Ids, start: int, livemode: bool, account: str | None) -> None:
        self.ids = ids
        self.start = start
        self.livemode = livemode
        self._account = account
        self._events: list[Object] = []
        self._expected: dict[str, dict[str, dict[str, Any]]] = {}

    def tell(
        self, event_type: str, at: int, after: Object, before: Object | None = None, request: Request = AUTOMATIC
    ) -> Object:
        """Something happens to an object; gives the object as it is now."""
        previous = None
        if before is not None and carries_previous(event_type):
            previous = changes.previous_attributes(before, after)
        self._events.append(
            snapshot_event(
                event_type,
                after,
                event_id=self.ids.new("evt"),
                created=at,
                livemode=self.livemode,
                previous=previous,
                account=self._account,
                request=request,
            )
        )
        return after

    def tell_all(self, event_types: Iterable[str], at: int, after: Object, before: Object | None = None) -> Object:
        """One thing happens, and Stripe has several event types for it."""
        for event_type in event_types:
            self.tell(event_type, at, after, before)
        return after

    def expect(self, table: str, object_id: str, **facts: Any) -> None:
        """State what the object's row must say in the end."""
        self._expected.setdefault(table, {})[object_id] = facts

    def request(self) -> Request:
        """A request of the shop's own to Stripe."""
        return Request(self.ids.new("req"), f"simulated-{self.ids.amount(100_000, 999_999)}")

    def new_intent(self, at: int, amount: int, currency: str, customer_id: str | None) -> Object:
        """The shop asks for a payment."""
        intent = objects.payment_intent(
            self.ids, created=at, amount=amount, currency=currency, customer_id=customer_id, livemode=self.livemode
        )
        return self.tell("payment_intent.created", at, intent, request=self.request())

    def declined(self, at: int, intent: Object) -> Object:
        """An attempt to pay is declined; gives the intent as it is then."""
        charge = changes.charge_failed(objects.charge(self.ids, intent, created=at))
        self.tell("charge.failed", at, charge)
        return self.tell("payment_intent.payment_failed", at, changes.payment_failed(intent, charge))

    def paid(self, at: int, intent: Object) -> Object:
        """An attempt to pay goes through, and settles two seconds later; gives the charge as it is then."""
        charge = changes.charge_succeeded(objects.charge(self.ids, intent, created=at))
        self.tell("charge.succeeded", at, charge)
        self.tell("payment_intent.succeeded", at, changes.payment_succeeded(intent, charge))
        settled = changes.charge_settled(charge, self.ids.new("txn"))
        return self.tell("charge.updated", at + 2, settled, charge)

    def refunded(self, at: int, charge: Object, amount: int) -> tuple[Object, Object]:
        """The shop gives money back, at once as far as anybody can see; gives the charge and the refund."""
        request = self.request()
        refund = self.tell(
            "refund.created",
            at,
            changes.refund_succeeded(objects.refund(self.ids, charge, created=at, amount=amount)),
            request=request,
        )
        return self.tell("charge.refunded", at, changes.charge_refunded(charge, amount), charge, request), refund

    def tell_twice(self) -> None:
        """Stripe makes two Event objects of the last change, each with an id of its own."""
        self._events.append({**self._events[-1], "id": self.ids.new("evt")})

    def story(self) -> Story:
        """All chapters, in the order of time."""
        expected = {
            table: MappingProxyType({object_id: MappingProxyType(facts) for object_id, facts in rows.items()})
            for table, rows in self._expected.items()
        }
        return Story(tuple(sorted(self._events, key=lambda event: event["created"])), MappingProxyType(expected))


def _opens(telling: _Telling) -> Object:
    """The shop makes its catalog; gives the monthly price. One product and its price are withdrawn later."""
    at = telling.start
    product = objects.product(telling.ids, created=at, livemode=telling.livemode)
    telling.tell("product.created", at, product, request=telling.request())
    price = objects.price(
        telling.ids,
        created=at + 1,
        product_id=product["id"],
        unit_amount=telling.ids.amount(5, 90) * 100,
        currency="eur",
        interval="month",
        livemode=telling.livemode,
    )
    telling.tell("price.created", at + 1, price, request=telling.request())
    renamed = changes.changed(product, name="Simulated Club", default_price=price["id"], updated=at + 60)
    telling.tell("product.updated", at + 60, renamed, product)
    named = changes.changed(price, nickname="Monthly")
    telling.tell("price.updated", at + 60, named, price)

    withdrawn = objects.product(telling.ids, created=at + 90, livemode=telling.livemode)
    telling.tell("product.created", at + 90, withdrawn)
    once = objects.price(
        telling.ids,
        created=at + 90,
        product_id=withdrawn["id"],
        unit_amount=1_500,
        currency="eur",
        interval=None,
        livemode=telling.livemode,
    )
    telling.tell("price.created", at + 90, once)
    telling.tell("price.deleted", at + DAY, changes.changed(once, active=False))
    telling.tell("product.deleted", at + DAY, changes.changed(withdrawn, active=False))

    telling.expect("products", product["id"], name="Simulated Club", active=True, default_price_id=price["id"])
    telling.expect("products", withdrawn["id"], active=False)
    telling.expect(
        "prices",
        price["id"],
        product_id=product["id"],
        active=True,
        unit_amount_minor=price["unit_amount"],
        currency="eur",
        interval="month",
    )
    telling.expect("prices", once["id"], product_id=withdrawn["id"], active=False, unit_amount_minor=1_500)
    return named


def _new_customer(telling: _Telling, at: int) -> str:
    customer = objects.customer(telling.ids, created=at, livemode=telling.livemode)
    telling.tell("customer.created", at, customer, request=telling.request())
    return str(customer["id"])


def _is_paid_at_the_second_try(telling: _Telling) -> None:
    """A payment in a currency without minor units is declined, then authenticated and paid."""
    at = telling.start + 3_600
    amount = telling.ids.amount(800, 60_000)
    intent = telling.new_intent(at, amount, "jpy", _new_customer(telling, at - 5))
    intent = telling.declined(at + 20, intent)
    intent = telling.tell("payment_intent.requires_action", at + 80, changes.payment_requires_action(intent))
    telling.paid(at + 110, intent)
    _expect_payment(telling, intent, status="succeeded", received=amount, refunded=0)


def _is_paid_back_in_two_parts(telling: _Telling) -> None:
    """A payment is refunded partially, then fully; Stripe tells of the first part twice."""
    at = telling.start + 2 * 3_600
    amount = telling.ids.amount(30, 300) * 100
    first = amount // 3
    customer_id = _new_customer(telling, at - 5)
    intent = telling.new_intent(at, amount, "eur", customer_id)
    charge = telling.paid(at, intent)
    charge, part = telling.refunded(at + DAY, charge, first)
    telling.tell_twice()
    charge, rest = telling.refunded(at + 2 * DAY, charge, amount - first)
    referenced = changes.refund_referenced(part, "20000000001")
    telling.tell_all(("refund.updated", "charge.refund.updated"), at + 2 * DAY + 30, referenced, part)
    _expect_payment(telling, intent, status="succeeded", received=amount, refunded=amount)
    _expect_refund(telling, part, status="succeeded", amount=first)
    _expect_refund(telling, rest, status="succeeded", amount=amount - first)


def _is_paid_back_in_vain(telling: _Telling) -> None:
    """A refund fails days after it had succeeded. Stripe tells of the refund only: no event shows the charge again."""
    at = telling.start + 3 * 3_600
    amount = telling.ids.amount(20, 200) * 100
    lost, kept = amount // 2, amount // 4
    intent = telling.new_intent(at, amount, "eur", _new_customer(telling, at - 5))
    charge = telling.paid(at + 4, intent)
    charge, good = telling.refunded(at + DAY, charge, kept)
    _, refund = telling.refunded(at + 2 * DAY, charge, lost)
    failed = changes.refund_failed(refund, telling.ids.new("txn"))
    telling.tell_all(("refund.updated", "charge.refund.updated", "refund.failed"), at + 6 * DAY, failed, refund)
    _expect_payment(telling, intent, status="succeeded", received=amount, refunded=kept)
    _expect_refund(telling, good, status="succeeded", amount=kept)
    _expect_refund(telling, refund, status="failed", amount=lost)


def _sells_by_checkout(telling: _Telling) -> None:
    """A Checkout Session is paid by somebody who never becomes a customer; another one expires."""
    at = telling.start + 4 * 3_600
    amount = telling.ids.amount(5, 150) * 100
    session = objects.checkout_session(
        telling.ids, created=at, amount=amount, currency="eur", customer_id=None, livemode=telling.livemode
    )
    intent = telling.new_intent(at + 40, amount, "eur", None)
    telling.paid(at + 41, intent)
    telling.tell(
        "checkout.session.completed", at + 42, changes.session_completed(session, intent, payment_status="paid")
    )
    left = objects.checkout_session(
        telling.ids, created=at, amount=amount, currency="eur", customer_id=None, livemode=telling.livemode
    )
    telling.tell("checkout.session.expired", at + DAY, changes.session_expired(left))
    _expect_payment(telling, intent, status="succeeded", received=amount, refunded=0)


def _gives_up_a_payment(telling: _Telling) -> None:
    """A payment is declined, and canceled the next day; the customer goes."""
    at = telling.start + 5 * 3_600
    customer = objects.customer(telling.ids, created=at - 5, livemode=telling.livemode)
    telling.tell("customer.created", at - 5, customer)
    moved = changes.changed(customer, email="moved@example.com")
    telling.tell("customer.updated", at - 4, moved, customer)
    intent = telling.new_intent(at, telling.ids.amount(5, 150) * 100, "eur", customer["id"])
    intent = telling.declined(at + 9, intent)
    telling.tell("payment_intent.canceled", at + DAY, changes.payment_canceled(intent, at + DAY))
    telling.tell("customer.deleted", at + 2 * DAY, moved)
    _expect_payment(telling, intent, status="canceled", received=0, refunded=0)


def _has_a_subscriber(telling: _Telling, price: Object) -> None:
    """A subscription starts, renews, falls behind, recovers, and ends when the customer wants."""
    at = telling.start + 6 * 3_600
    period_ends = [at + months * MONTH for months in range(1, 4)]
    customer_id = _new_customer(telling, at - 60)
    subscription, first = _starts(telling, price, at, period_ends[0], customer_id)
    subscription, second = _renews(telling, subscription, period_ends[0], period_ends[1])
    subscription, third = _falls_behind_and_recovers(telling, subscription, period_ends[1], period_ends[2])
    asked_at = period_ends[1] + 10 * DAY
    asked = changes.subscription_cancel_scheduled(subscription, asked_at)
    telling.tell("customer.subscription.updated", asked_at, asked, subscription, telling.request())
    telling.tell("customer.subscription.deleted", period_ends[2], changes.subscription_ended(asked, period_ends[2]))

    telling.expect(
        "subscriptions",
        subscription["id"],
        status="canceled",
        customer_id=customer_id,
        current_period_start=_time(period_ends[1]),
        current_period_end=_time(period_ends[2]),
        cancel_at_period_end=True,
        canceled_at=_time(asked_at),
        ended_at=_time(period_ends[2]),
        latest_invoice_id=third["id"],
    )
    for invoice, reason, attempts in (
        (first, "subscription_create", 1),
        (second, "subscription_cycle", 1),
        (third, "subscription_cycle", 2),
    ):
        telling.expect(
            "invoices",
            invoice["id"],
            status="paid",
            billing_reason=reason,
            subscription_id=subscription["id"],
            customer_id=customer_id,
            amount_due_minor=price["unit_amount"],
            amount_paid_minor=price["unit_amount"],
            amount_remaining_minor=0,
            currency="eur",
            attempt_count=attempts,
        )


def _starts(telling: _Telling, price: Object, at: int, period_end: int, customer_id: str) -> tuple[Object, Object]:
    """All in one second, as Stripe has it: incomplete, invoiced, paid, active. Gives subscription and invoice."""
    subscription = objects.subscription(
        telling.ids, [price], created=at, period_end=period_end, customer_id=customer_id
    )
    invoice = objects.invoice(telling.ids, subscription, created=at, billing_reason="subscription_create")
    subscription = changes.subscription_invoiced(subscription, invoice)
    telling.tell("customer.subscription.created", at, subscription, request=telling.request())
    telling.tell("invoice.created", at, invoice)
    invoice = _finalized(telling, invoice, at, "SIM-0001")
    intent = telling.new_intent(at, invoice["amount_due"], "eur", customer_id)
    telling.paid(at, intent)
    _collected(telling, invoice, intent, at)
    active = changes.subscription_with(subscription, "active")
    telling.tell("customer.subscription.updated", at, active, subscription)
    return active, invoice


def _renews(telling: _Telling, subscription: Object, at: int, period_end: int) -> tuple[Object, Object]:
    """A new period and its invoice, which is finalized and paid an hour later."""
    subscription, invoice = _next_period(telling, subscription, at, period_end)
    invoice = _finalized(telling, invoice, at + 3_600, "SIM-0002")
    intent = telling.new_intent(at + 3_600, invoice["amount_due"], "eur", subscription["customer"])
    telling.paid(at + 3_602, intent)
    _collected(telling, invoice, intent, at + 3_602)
    return subscription, invoice


def _falls_behind_and_recovers(
    telling: _Telling, subscription: Object, at: int, period_end: int
) -> tuple[Object, Object]:
    """The card is declined at renewal; three days later the same invoice and the same payment intent are paid."""
    subscription, invoice = _next_period(telling, subscription, at, period_end)
    invoice = _finalized(telling, invoice, at + 3_600, "SIM-0003")
    intent = telling.new_intent(at + 3_600, invoice["amount_due"], "eur", subscription["customer"])
    intent = telling.declined(at + 3_602, intent)
    again_at = at + 3_602 + 3 * DAY
    invoice = changes.invoice_payment_failed(invoice, again_at)
    telling.tell("invoice.payment_failed", at + 3_602, invoice)
    behind = changes.subscription_with(subscription, "past_due")
    telling.tell("customer.subscription.updated", at + 3_603, behind, subscription)
    telling.paid(again_at, intent)
    _collected(telling, invoice, intent, again_at)
    recovered = changes.subscription_with(behind, "active")
    telling.tell("customer.subscription.updated", again_at + 1, recovered, behind)
    return recovered, invoice


def _next_period(telling: _Telling, subscription: Object, at: int, period_end: int) -> tuple[Object, Object]:
    renewed = changes.subscription_renewed(subscription, at, period_end)
    invoice = objects.invoice(telling.ids, renewed, created=at, billing_reason="subscription_cycle")
    renewed = changes.subscription_invoiced(renewed, invoice)
    telling.tell("customer.subscription.updated", at, renewed, subscription)
    telling.tell("invoice.created", at, invoice)
    return renewed, invoice


def _finalized(telling: _Telling, invoice: Object, at: int, number: str) -> Object:
    return telling.tell("invoice.finalized", at, changes.invoice_finalized(invoice, at, number))


def _collected(telling: _Telling, invoice: Object, intent: Object, at: int) -> None:
    """The invoice is paid by the intent: Stripe tells of it three times."""
    payment = objects.invoice_payment(telling.ids, invoice, intent, created=invoice["created"])
    telling.tell("invoice_payment.paid", at, changes.invoice_payment_paid(payment, at))
    telling.tell_all(("invoice.paid", "invoice.payment_succeeded"), at, changes.invoice_paid(invoice, at))
    _expect_payment(
        telling, intent, status="succeeded", received=intent["amount"], refunded=0, invoice_id=invoice["id"]
    )


def _expect_payment(
    telling: _Telling, intent: Object, *, status: str, received: int, refunded: int, invoice_id: str | None = None
) -> None:
    telling.expect(
        "payments",
        intent["id"],
        status=status,
        amount_minor=intent["amount"],
        amount_received_minor=received,
        amount_refunded_minor=refunded,
        currency=intent["currency"],
        customer_id=intent["customer"],
        invoice_id=invoice_id,
    )


def _expect_refund(telling: _Telling, refund: Object, *, status: str, amount: int) -> None:
    telling.expect(
        "refunds",
        refund["id"],
        status=status,
        amount_minor=amount,
        currency=refund["currency"],
        charge_id=refund["charge"],
        payment_intent_id=refund["payment_intent"],
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
