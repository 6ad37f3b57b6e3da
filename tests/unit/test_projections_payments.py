from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from service.contract import (
    Charge,
    CheckoutSession,
    Data,
    Dispute,
    Event,
    InvoicePayment,
    Other,
    PaymentIntent,
    Refund,
)
from service.projections import PROJECTIONS
from service.projections.model import Links
from tests.support.histories import at, event, key, oracle_rows

PAYMENTS = PROJECTIONS["payments"]


def payments(*events: Event) -> dict[str, Mapping[str, Any]]:
    """Rows by payment id; the events get distinct ids."""
    numbered = [replace(e, event_id=f"evt_{n}") for n, e in enumerate(events)]
    return {row_key.object_id: columns for (_, row_key), columns in oracle_rows(PAYMENTS, numbered).items()}


def seen(data: Data, second: int = 0, event_type: str | None = None) -> Event:
    types: dict[type[Data], str] = {
        PaymentIntent: "payment_intent.processing",
        Charge: "charge.updated",
        Refund: "refund.updated",
        Dispute: "charge.dispute.updated",
        CheckoutSession: "checkout.session.completed",
        InvoicePayment: "invoice_payment.paid",
    }
    return event(event_type or types[type(data)], data, second=second)


def intent(payment_intent_id: str = "pi_1", **fields: Any) -> PaymentIntent:
    return PaymentIntent(payment_intent_id=payment_intent_id, **fields)


def charge(charge_id: str = "ch_1", payment_intent_id: str | None = "pi_1", **fields: Any) -> Charge:
    return Charge(charge_id=charge_id, payment_intent_id=payment_intent_id, **fields)


def test_the_payment_intent_owns_status_and_amounts_and_the_charge_speaks_until_it_is_seen() -> None:
    paid = charge(status="succeeded", amount_minor=100, amount_captured_minor=90, currency="eur", captured=True)
    row = payments(seen(paid))["pi_1"]
    assert (row["status"], row["amount_minor"], row["amount_received_minor"], row["currency"]) == (
        "succeeded", 100, 90, "eur",
    )  # fmt: skip
    row = payments(seen(paid), seen(intent(status="requires_capture", amount_minor=120, amount_received_minor=0)))[
        "pi_1"
    ]
    assert (row["status"], row["amount_minor"], row["amount_received_minor"]) == ("requires_capture", 120, 0)


@pytest.mark.parametrize(
    ("fields", "received"),
    [
        ({"status": "failed", "amount_minor": 100, "amount_captured_minor": 0}, 0),
        ({"status": "succeeded", "captured": False, "amount_minor": 100}, 0),
        ({"status": "succeeded", "captured": True, "amount_minor": 100}, 100),
        ({"status": "succeeded", "captured": True, "amount_minor": 100, "amount_captured_minor": 70}, 70),
        ({"amount_minor": 100}, None),
    ],
)
def test_a_charge_without_payment_intent_received_what_it_captured(
    fields: Mapping[str, Any], received: int | None
) -> None:
    assert payments(seen(charge(payment_intent_id=None, **fields)))["ch_1"]["amount_received_minor"] == received


def test_a_failure_that_the_payment_intent_has_cleared_is_not_taken_from_its_failed_charge() -> None:
    failed = charge(status="failed", failure_code="card_declined", decline_code="do_not_honor", failure_message="No.")
    row = payments(seen(failed))["pi_1"]
    assert (row["failure_code"], row["decline_code"], row["failure_message"]) == (
        "card_declined", "do_not_honor", "No.",
    )  # fmt: skip
    row = payments(seen(failed), seen(intent(status="succeeded")))["pi_1"]
    assert (row["failure_code"], row["decline_code"], row["failure_message"]) == (None, None, None)


def test_the_charge_that_the_payment_intent_names_speaks_for_it() -> None:
    attempts = [
        seen(charge("ch_1", payment_method_type="card", created_at=at(9))),
        seen(charge("ch_2", payment_method_type="sepa_debit", created_at=at(5))),
    ]
    assert payments(*attempts)["pi_1"]["payment_method_type"] == "card"
    row = payments(*attempts, seen(intent(latest_charge_id="ch_2")))["pi_1"]
    assert (row["charge_id"], row["payment_method_type"]) == ("ch_2", "sepa_debit")


def test_a_failed_attempt_does_not_speak_for_the_charge_that_was_not_seen_yet() -> None:
    row = payments(seen(charge("ch_1", payment_method_type="card")), seen(intent(latest_charge_id="ch_2")))["pi_1"]
    assert (row["charge_id"], row["payment_method_type"]) == ("ch_2", None)


def test_a_charge_without_payment_intent_is_a_payment_of_its_own() -> None:
    rows = payments(seen(charge("ch_9", None, status="succeeded", description="a", metadata={"k": "v"})))
    assert list(rows) == ["ch_9"]
    row = rows["ch_9"]
    assert (row["status"], row["charge_id"], row["description"], row["metadata"]) == (
        "succeeded", "ch_9", "a", {"k": "v"},
    )  # fmt: skip


def test_a_charge_that_turns_out_to_have_a_payment_intent_has_no_row_of_its_own() -> None:
    rows = payments(seen(charge("ch_1", None, amount_refunded_minor=5)), seen(charge("ch_1", "pi_1"), second=1))
    assert list(rows) == ["pi_1"]
    rowless = PAYMENTS.rows(key("ch_1"), [])
    assert (rowless.rows, rowless.owned) == ((), {"payments": "payment_id"})


def test_a_refund_that_comes_alone_makes_a_row_with_what_it_knows() -> None:
    refund = Refund(
        refund_id="re_1",
        charge_id="ch_1",
        payment_intent_id="pi_1",
        status="succeeded",
        amount_minor=30,
        currency="eur",
    )
    row = payments(seen(refund, second=4))["pi_1"]
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {
        "amount_refunded_minor": 30,
        "amount_disputed_minor": 0,
        "currency": "eur",
        "charge_id": "ch_1",
        "disputed": False,
        "metadata": {},
        "last_event_id": "evt_0",
        "last_event_at": at(4),
    }


def test_a_refund_and_a_dispute_that_know_only_their_charge_wait_for_it() -> None:
    refund = seen(Refund(refund_id="re_1", charge_id="ch_1", status="succeeded", amount_minor=30))
    dispute = seen(Dispute(dispute_id="dp_1", charge_id="ch_1", status="needs_response"), second=7)
    assert payments(refund, dispute) == {}
    row = payments(refund, dispute, seen(charge("ch_1", "pi_1")))["pi_1"]
    assert (row["amount_refunded_minor"], row["disputed"], row["dispute_id"], row["dispute_status"]) == (
        30, True, "dp_1", "needs_response",
    )  # fmt: skip
    assert (row["last_event_id"], row["last_event_at"]) == ("evt_1", at(7))


def test_a_charge_is_known_by_its_payment_intent_before_it_is_seen() -> None:
    dispute = seen(Dispute(dispute_id="dp_1", charge_id="ch_1", status="won"))
    assert payments(dispute, seen(intent(latest_charge_id="ch_1")))["pi_1"]["dispute_status"] == "won"


def test_a_session_of_an_invoice_belongs_to_every_payment_of_that_invoice() -> None:
    session = seen(CheckoutSession(checkout_session_id="cs_1", invoice_id="in_1", customer_id="cus_1"))
    paid = [
        seen(InvoicePayment(invoice_payment_id=f"inpay_{n}", invoice_id="in_1", payment_intent_id=f"pi_{n}"))
        for n in (1, 2)
    ]
    assert payments(session) == {}
    rows = payments(session, *paid)
    assert set(rows) == {"pi_1", "pi_2"}
    for row in rows.values():
        assert (row["invoice_id"], row["checkout_session_id"], row["customer_id"]) == ("in_1", "cs_1", "cus_1")


def test_the_completed_session_is_the_payment_s() -> None:
    sessions = [
        seen(CheckoutSession(checkout_session_id=name, payment_intent_id="pi_1", status=status, created_at=at(n)))
        for n, (name, status) in enumerate([("cs_1", "expired"), ("cs_2", "complete"), ("cs_3", "expired")])
    ]
    assert payments(*sessions)["pi_1"]["checkout_session_id"] == "cs_2"
    assert payments(sessions[0], sessions[2])["pi_1"]["checkout_session_id"] == "cs_3"


def test_a_charge_that_is_disputed_says_so_before_its_dispute_comes() -> None:
    assert payments(seen(charge(disputed=True)))["pi_1"]["disputed"] is True
    assert payments(seen(charge(disputed=False)))["pi_1"]["disputed"] is False


def test_of_several_disputes_the_latest_is_shown() -> None:
    disputes = [
        seen(Dispute(dispute_id=name, payment_intent_id="pi_1", status=status, created_at=at(n)), second=5 - n)
        for n, (name, status) in enumerate([("dp_2", "won"), ("dp_1", "needs_response")])
    ]
    row = payments(*disputes)["pi_1"]
    assert (row["dispute_id"], row["dispute_status"]) == ("dp_1", "needs_response")


@pytest.mark.parametrize(
    ("fields", "refund_amounts", "refunded"),
    [
        ({"captured": False, "amount_captured_minor": 0, "amount_refunded_minor": 1000}, [], 0),
        ({"captured": True, "amount_captured_minor": 600, "amount_refunded_minor": 400}, [], 0),
        ({"captured": True, "amount_captured_minor": 600, "amount_refunded_minor": 400}, [400], 0),
        ({"captured": True, "amount_captured_minor": 600, "amount_refunded_minor": 600}, [400, 200], 200),
        ({"captured": True, "amount_captured_minor": 1000, "amount_refunded_minor": 300}, [300], 300),
    ],
    ids=["expired", "partial-capture", "its-refund-object", "and-a-real-refund", "captured-whole"],
)
def test_an_authorization_that_was_released_is_no_money_given_back(
    fields: dict[str, Any], refund_amounts: list[int], refunded: int
) -> None:
    refunds = [
        Refund(refund_id=f"re_{n}", charge_id="ch_1", payment_intent_id="pi_1", status="succeeded", amount_minor=amount)
        for n, amount in enumerate(refund_amounts)
    ]

    rows = payments(seen(charge(amount_minor=1000, status="succeeded", **fields), 5), *map(seen, refunds))

    assert rows["pi_1"]["amount_refunded_minor"] == refunded


def session(**fields: Any) -> CheckoutSession:
    return CheckoutSession(checkout_session_id="cs_1", **fields)


def invoice_payment(**fields: Any) -> InvoicePayment:
    return InvoicePayment(invoice_payment_id="inpay_1", **fields)


@pytest.mark.parametrize(
    ("data", "roots", "refs", "via"),
    [
        (intent(latest_charge_id="ch_1", invoice_id="in_1"), {"pi_1"}, {"ch_1", "in_1"}, None),
        (charge(invoice_id="in_1"), {"pi_1"}, {"in_1"}, None),
        (charge(payment_intent_id=None, invoice_id="in_1"), {"ch_1"}, {"in_1"}, None),
        (Refund(refund_id="re_1", payment_intent_id="pi_1", charge_id="ch_1"), {"pi_1"}, {"ch_1"}, None),
        (Refund(refund_id="re_1", charge_id="ch_1"), set(), set(), "ch_1"),
        (Dispute(dispute_id="dp_1", payment_intent_id="pi_1", charge_id="ch_1"), {"pi_1"}, {"ch_1"}, None),
        (Dispute(dispute_id="dp_1", charge_id="ch_1"), set(), set(), "ch_1"),
        (session(payment_intent_id="pi_1", invoice_id="in_1"), {"pi_1"}, {"in_1"}, None),
        (session(invoice_id="in_1"), set(), set(), "in_1"),
        (session(), set(), set(), None),
        (invoice_payment(payment_intent_id="pi_1", invoice_id="in_1"), {"pi_1"}, {"in_1"}, None),
        (invoice_payment(charge_id="ch_1", invoice_id="in_1"), set(), set(), "ch_1"),
        (invoice_payment(invoice_id="in_1"), set(), set(), None),
    ],
)
def test_an_object_belongs_to_the_payment_it_names_else_to_that_of_its_charge_or_invoice(
    data: Data, roots: set[str], refs: set[str], via: str | None
) -> None:
    (seen_object,) = PAYMENTS.observe(seen(data))
    assert PAYMENTS.links(seen_object) == Links(frozenset(roots), frozenset(refs), via)


def test_embedded_refunds_are_observed() -> None:
    embedded = Charge(
        charge_id="ch_1",
        payment_intent_id="pi_1",
        refunds=(Refund(refund_id="re_1", amount_minor=5), Refund(refund_id="re_2", charge_id="ch_1")),
    )
    own, *refunds = PAYMENTS.observe(event("charge.refunded", embedded, previous={"amount_refunded_minor": 0}))
    assert (own.object_type, own.previous) == ("charge", {"amount_refunded_minor": 0})
    assert [o.key for o in refunds] == [key("re_1"), key("re_2")]
    assert tuple(o.data for o in refunds) == embedded.refunds
    for o in refunds:
        assert (o.object_type, o.event_type, o.previous) == ("refund", "charge.refunded", None)


def test_an_object_without_a_type_or_an_id_is_not_observed() -> None:
    known = seen(intent())
    assert PAYMENTS.observe(replace(known, data=Other())) == ()
    assert PAYMENTS.observe(replace(known, object_id=None)) == ()
    assert PAYMENTS.observe(replace(known, object_type="review")) == ()


# The refunded amount -------------------------------------------------------------------------------------------------


def refunded(*events: Event) -> int:
    (row,) = payments(*events).values()
    return int(row["amount_refunded_minor"])


def total(amount: int, second: int, charge_id: str = "ch_1", **fields: Any) -> Event:
    return seen(charge(charge_id, amount_refunded_minor=amount, **fields), second, "charge.refunded")


def refund(
    name: str, status: str, amount: int, second: int, *, created: int | None, charge_id: str | None = "ch_1"
) -> Event:
    return seen(
        Refund(
            refund_id=name,
            charge_id=charge_id,
            payment_intent_id="pi_1",
            status=status,
            amount_minor=amount,
            created_at=None if created is None else at(created),
        ),
        second,
    )


def test_nothing_refunded_is_zero() -> None:
    assert refunded(seen(intent())) == 0


def test_the_charges_total_counts_refunds_of_which_no_event_came() -> None:
    assert refunded(total(70, 1)) == 70
    assert refunded(total(70, 1), refund("re_1", "succeeded", 30, 1, created=1)) == 70


def test_a_pending_refund_counts_as_soon_as_its_charge_counts_it() -> None:
    pending = refund("re_1", "pending", 50, 1, created=1)
    assert refunded(pending) == 0
    assert refunded(pending, total(50, 1)) == 50
    assert refunded(pending, total(50, 1), refund("re_1", "succeeded", 50, 9, created=1)) == 50


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_refund_that_fails_after_its_charges_last_event_is_taken_back(status: str) -> None:
    history = [total(100, 1), refund("re_1", "succeeded", 100, 1, created=1)]
    assert refunded(*history) == 100
    assert refunded(*history, refund("re_1", status, 100, 9, created=1)) == 0


def test_a_refund_that_fails_in_the_second_of_the_charges_event_is_taken_back_once() -> None:
    failed = refund("re_1", "failed", 100, 1, created=1)
    assert refunded(total(100, 1), failed) == 0
    assert refunded(total(0, 1), failed) == 0
    assert refunded(total(40, 1), failed, refund("re_2", "succeeded", 40, 1, created=1)) == 40
    assert refunded(total(140, 1), failed, refund("re_2", "succeeded", 40, 1, created=1)) == 40


def test_a_failure_that_the_charge_already_knows_is_not_taken_back_again() -> None:
    failed = refund("re_1", "failed", 30, 2, created=1)
    assert refunded(failed, total(70, 3)) == 70
    touched_later = refund("re_1", "failed", 30, 5, created=1)
    assert refunded(failed, total(0, 3), touched_later) == 0
    assert refunded(failed, total(70, 3), touched_later, refund("re_2", "succeeded", 70, 2, created=2)) == 70
    assert refunded(failed, total(70, 3), touched_later, refund("re_2", "pending", 70, 2, created=2)) == 70


def test_a_partial_refund_that_fails_leaves_the_others() -> None:
    history = [total(80, 2), refund("re_1", "succeeded", 50, 1, created=1), refund("re_2", "failed", 30, 9, created=2)]
    assert refunded(*history) == 50
    assert refunded(history[0], history[2]) == 50, "of the other refund no event came"


def test_a_refund_that_is_newer_than_its_charges_total_is_added_to_it() -> None:
    newer = refund("re_2", "succeeded", 30, 8, created=7)
    assert refunded(total(0, 1), newer) == 30
    assert refunded(total(50, 1), newer) == 80
    assert refunded(total(50, 1), newer, refund("re_3", "failed", 20, 9, created=8)) == 80
    assert refunded(total(50, 1), newer, total(80, 7)) == 80


def test_a_refund_whose_creation_is_not_known_counts_as_part_of_the_total() -> None:
    assert refunded(total(50, 1), refund("re_1", "succeeded", 30, 5, created=None)) == 50
    assert refunded(total(0, 1), refund("re_1", "succeeded", 30, 5, created=None)) == 30


def test_the_totals_of_several_charges_add_up() -> None:
    assert refunded(total(50, 1), total(20, 1, "ch_2")) == 70
    assert refunded(total(50, 1), refund("re_1", "succeeded", 20, 1, created=1, charge_id="ch_2")) == 70


def test_a_refund_that_names_no_charge_is_the_main_charges() -> None:
    nameless = refund("re_1", "succeeded", 50, 1, created=1, charge_id=None)
    assert refunded(nameless) == 50
    assert refunded(nameless, total(50, 1)) == 50


def test_an_embedded_refund_is_not_counted_twice() -> None:
    embedded = (
        Refund(
            refund_id="re_1",
            charge_id="ch_1",
            payment_intent_id="pi_1",
            status="succeeded",
            amount_minor=40,
            created_at=at(1),
        ),
    )
    assert refunded(total(40, 1, refunds=embedded)) == 40
    assert refunded(seen(charge(refunds=embedded), 1)) == 40, "the charge says no total"


# Disputes ------------------------------------------------------------------------------------------------------------


def disputed(*events: Event) -> int | None:
    (row,) = payments(*events).values()
    amount = row["amount_disputed_minor"]
    return None if amount is None else int(amount)


def dispute(status: str, dispute_id: str = "dp_1", **fields: Any) -> Event:
    stated = {"charge_id": "ch_1", "payment_intent_id": "pi_1", "amount_minor": 1000, "currency": "eur", **fields}
    return seen(Dispute(dispute_id=dispute_id, status=status, **stated), 5, "charge.dispute.updated")


@pytest.mark.parametrize(
    ("status", "held_back"),
    [
        ("warning_needs_response", 0),
        ("warning_closed", 0),
        ("needs_response", 1000),
        ("under_review", 1000),
        ("lost", 1000),
        ("appeal_under_review", 1000),
        ("won", 0),
        ("prevented", 0),
        ("unheard_of", 0),
    ],
)
def test_a_dispute_holds_back_its_amount_while_it_is_open_or_lost(status: str, held_back: int) -> None:
    assert disputed(seen(charge(currency="eur")), dispute(status)) == held_back


def test_what_moved_on_the_balance_says_better_what_a_dispute_took() -> None:
    took_the_rest = dispute("lost", balance_change_minor=-600, balance_currency="eur")
    reinstated = dispute("under_review", balance_change_minor=0, balance_currency="eur")
    elsewhere = dispute("lost", balance_change_minor=-700, balance_currency="usd")

    assert disputed(seen(charge(currency="eur")), took_the_rest) == 600
    assert disputed(seen(charge(currency="eur")), reinstated) == 0
    assert disputed(seen(charge(currency="eur")), elsewhere) == 1000


def test_several_disputes_add_up() -> None:
    assert (
        disputed(seen(charge(currency="eur")), dispute("lost"), dispute("won", "dp_2"), dispute("lost", "dp_3")) == 2000
    )


def test_how_much_is_disputed_is_not_known_without_its_dispute_or_in_another_currency() -> None:
    assert disputed(seen(charge(currency="eur", disputed=True))) is None
    assert disputed(seen(charge(currency="eur", disputed=False))) == 0
    assert disputed(seen(charge(currency="eur")), dispute("lost", currency="usd")) is None
