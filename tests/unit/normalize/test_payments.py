"""Payment intents, charges, disputes, sessions and invoice payments, in the shapes of different API versions."""

from typing import Any

import pytest

from service.contract import Charge, CheckoutSession, Dispute, InvoicePayment, PaymentIntent, Refund
from service.events import QuarantineReason
from tests.unit.normalize.building import at, data_of, event, normalized, refused

INTENT: dict[str, Any] = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 2000,
    "amount_capturable": 0,
    "amount_received": 2000,
    "canceled_at": None,
    "cancellation_reason": None,
    "capture_method": "automatic",
    "created": 1_700_000_000,
    "currency": "eur",
    "customer": "cus_1",
    "description": "A tea box",
    "last_payment_error": None,
    "metadata": {"order": "42"},
    "payment_method": "pm_1",
    "payment_method_types": ["card", "link"],
    "status": "succeeded",
}
CHARGE: dict[str, Any] = {
    "id": "ch_1",
    "object": "charge",
    "amount": 2000,
    "amount_captured": 2000,
    "amount_refunded": 500,
    "balance_transaction": "txn_1",
    "captured": True,
    "created": 1_700_000_000,
    "currency": "eur",
    "customer": "cus_1",
    "description": None,
    "disputed": False,
    "failure_code": None,
    "failure_message": None,
    "metadata": {},
    "payment_intent": "pi_1",
    "payment_method": "pm_1",
    "payment_method_details": {"card": {"brand": "visa"}, "type": "card"},
    "refunded": False,
    "status": "succeeded",
}
REFUND: dict[str, Any] = {
    "id": "re_1",
    "object": "refund",
    "amount": 500,
    "charge": "ch_1",
    "created": 1_700_000_100,
    "currency": "eur",
    "payment_intent": "pi_1",
    "reason": "requested_by_customer",
    "status": "succeeded",
}


def intent(**fields: Any) -> PaymentIntent:
    return data_of({**INTENT, **fields}, "payment_intent.succeeded", PaymentIntent)


def charge(**fields: Any) -> Charge:
    return data_of({**CHARGE, **fields}, "charge.succeeded", Charge)


def test_a_payment_intent_is_read() -> None:
    assert intent(latest_charge="ch_1") == PaymentIntent(
        payment_intent_id="pi_1",
        status="succeeded",
        amount_minor=2000,
        amount_received_minor=2000,
        amount_capturable_minor=0,
        currency="eur",
        customer_id="cus_1",
        latest_charge_id="ch_1",
        payment_method_id="pm_1",
        capture_method="automatic",
        description="A tea box",
        metadata={"order": "42"},
        created_at=at(1_700_000_000),
    )


@pytest.mark.parametrize(
    "shape",
    [
        {"charges": {"object": "list", "data": [{"id": "ch_2", "object": "charge"}, {"id": "ch_1"}]}},
        {"latest_charge": "ch_2"},
        {"latest_charge": {"id": "ch_2", "object": "charge"}},
        {"charges": {"object": "list", "data": [{"id": "ch_1"}]}, "latest_charge": "ch_2"},
        {"latest_charge": None, "charges": {"object": "list", "data": [{"id": "ch_2"}]}},
        {"last_payment_error": {"charge": "ch_2", "code": "card_declined"}},
    ],
    ids=["before 2022-11-15", "after", "expanded", "both", "null and list", "only the error"],
)
def test_the_latest_charge_is_found_in_every_shape(shape: dict[str, Any]) -> None:
    assert intent(**shape).latest_charge_id == "ch_2"


@pytest.mark.parametrize("empty", [{}, {"charges": {"object": "list", "data": []}}, {"latest_charge": None}])
def test_an_intent_without_a_charge_has_none(empty: dict[str, Any]) -> None:
    assert intent(**empty).latest_charge_id is None


def test_a_failed_intent_says_why() -> None:
    found = intent(
        status="requires_payment_method",
        payment_method=None,
        last_payment_error={
            "code": "card_declined",
            "decline_code": "insufficient_funds",
            "message": "Your card has insufficient funds.",
            "payment_method": {"id": "pm_9", "object": "payment_method", "type": "card"},
            "type": "card_error",
        },
    )

    assert found.failure_code == "card_declined"
    assert found.decline_code == "insufficient_funds"
    assert found.failure_message == "Your card has insufficient funds."
    assert found.payment_method_type == "card"
    assert found.payment_method_id == "pm_9"


def test_a_charges_embedded_refunds_know_what_their_charge_knows() -> None:
    bare = {"id": "re_1", "object": "refund", "amount": 500}
    (refund,) = charge(refunds=[bare]).refunds
    (other,) = charge(refunds=[{**bare, "charge": "ch_9", "payment_intent": "pi_9", "customer": "cus_9"}]).refunds

    assert (refund.charge_id, refund.payment_intent_id, refund.customer_id) == ("ch_1", "pi_1", "cus_1")
    assert (other.charge_id, other.payment_intent_id, other.customer_id) == ("ch_9", "pi_9", "cus_9")


@pytest.mark.parametrize(
    ("shape", "brand"),
    [
        ({"payment_method_details": {"type": "card", "card": {"brand": "amex"}}}, "amex"),
        ({"source": {"object": "card", "brand": "American Express"}}, "amex"),
        ({"source": {"object": "source", "type": "card", "card": {"brand": "MasterCard"}}}, "mastercard"),
        ({"card": {"object": "card", "type": "Diners Club"}}, "diners"),
        ({"card": {"object": "card", "brand": "Cartes Bancaires"}}, "cartes_bancaires"),
        ({"source": {"object": "source", "type": "sepa_debit"}}, None),
    ],
)
def test_a_cards_brand_is_spelled_as_payment_methods_spell_it(shape: dict[str, Any], brand: str | None) -> None:
    assert charge(**{"payment_method_details": None, **shape}).card_brand == brand


def test_a_canceled_intent_says_when_and_why() -> None:
    found = intent(status="canceled", canceled_at=1_700_000_060, cancellation_reason="abandoned")

    assert (found.canceled_at, found.cancellation_reason) == (at(1_700_000_060), "abandoned")


@pytest.mark.parametrize(
    ("shape", "method"),
    [
        ({"payment_method": {"id": "pm_1", "type": "ideal"}}, "ideal"),
        ({"latest_charge": {"id": "ch_1", "payment_method_details": {"type": "sepa_debit"}}}, "sepa_debit"),
        ({"charges": {"data": [{"id": "ch_1", "payment_method_details": {"type": "p24"}}]}}, "p24"),
        ({"payment_method_types": ["card"]}, "card"),
        ({"payment_method_types": ["card", "link"]}, None),
        ({"payment_method_types": []}, None),
        ({"payment_method_types": None, "allowed_source_types": ["card"]}, "card"),
    ],
)
def test_the_payment_method_type_is_read_where_it_is_certain(shape: dict[str, Any], method: str | None) -> None:
    assert intent(**shape).payment_method_type == method


def test_references_of_an_intent_may_be_expanded_deleted_or_old() -> None:
    found = intent(
        customer={"id": "cus_9", "object": "customer", "deleted": True},
        invoice={"id": "in_9", "object": "invoice", "number": "A-1"},
        payment_method=None,
        source="card_9",
    )

    assert (found.customer_id, found.invoice_id, found.payment_method_id) == ("cus_9", "in_9", "card_9")


def test_a_status_never_seen_before_passes() -> None:
    assert intent(status="pending_review_by_owl").status == "pending_review_by_owl"


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"amount": "20.00"}, "data.object.amount"),
        ({"amount_received": [1]}, "data.object.amount_received"),
        ({"created": "today"}, "data.object.created"),
        ({"customer": 5}, "data.object.customer"),
        ({"charges": "ch_1"}, "data.object.charges"),
        ({"payment_method_types": "card"}, "data.object.payment_method_types"),
    ],
)
def test_an_intent_of_an_impossible_shape_is_refused_by_field(fields: dict[str, Any], detail: str) -> None:
    outcome = refused(event({**INTENT, **fields}, "payment_intent.succeeded"))

    assert (outcome.reason, outcome.detail) == (QuarantineReason.OBJECT_MALFORMED, detail)


def test_a_charge_is_read() -> None:
    assert charge() == Charge(
        charge_id="ch_1",
        payment_intent_id="pi_1",
        status="succeeded",
        amount_minor=2000,
        amount_captured_minor=2000,
        amount_refunded_minor=500,
        captured=True,
        refunded=False,
        disputed=False,
        currency="eur",
        customer_id="cus_1",
        payment_method_id="pm_1",
        payment_method_type="card",
        card_brand="visa",
        balance_transaction_id="txn_1",
        created_at=at(1_700_000_000),
    )


@pytest.mark.parametrize("wrap", [lambda refunds: {"object": "list", "data": refunds}, lambda refunds: refunds])
def test_a_charges_embedded_refunds_are_read(wrap: Any) -> None:
    found = charge(refunds=wrap([REFUND, {**REFUND, "id": "re_2", "amount": 100}]))

    assert [(refund.refund_id, refund.amount_minor) for refund in found.refunds] == [("re_1", 500), ("re_2", 100)]


@pytest.mark.parametrize("refunds", [{}, {"refunds": None}, {"refunds": {"object": "list", "data": []}}])
def test_a_refunded_charge_without_embedded_refunds_keeps_its_total(refunds: dict[str, Any]) -> None:
    found = normalized(event({**CHARGE, **refunds}, "charge.refunded", api_version="2022-11-15"))

    assert found.category == "refund"
    assert isinstance(found.data, Charge)
    assert (found.data.refunds, found.data.amount_refunded_minor) == ((), 500)


def test_an_embedded_refund_of_an_impossible_shape_is_refused_with_its_path() -> None:
    tree = event({**CHARGE, "refunds": {"data": [{**REFUND, "amount": "all"}]}}, "charge.refunded")

    assert refused(tree).detail == "data.object.refunds.amount"


def test_references_of_a_charge_may_be_expanded_or_deleted() -> None:
    found = charge(
        balance_transaction={"id": "txn_9", "object": "balance_transaction"},
        customer={"id": "cus_9", "object": "customer", "deleted": True},
        description="A tea box",
        invoice={"id": "in_9", "object": "invoice"},
        metadata={"order": "42"},
        payment_intent={"id": "pi_9", "object": "payment_intent"},
    )

    assert (found.balance_transaction_id, found.customer_id) == ("txn_9", "cus_9")
    assert (found.invoice_id, found.payment_intent_id) == ("in_9", "pi_9")
    assert (found.description, found.metadata) == ("A tea box", {"order": "42"})


@pytest.mark.parametrize(
    ("source", "method", "kind"),
    [
        ({"id": "card_1", "object": "card", "brand": "Visa"}, "card_1", "card"),
        ({"id": "src_1", "object": "source", "type": "sofort"}, "src_1", "sofort"),
        ({"id": "ba_1", "object": "bank_account"}, "ba_1", "bank_account"),
        ("card_1", "card_1", None),
        (None, None, None),
    ],
)
def test_a_charge_before_payment_methods_was_paid_by_a_source(
    source: object, method: str | None, kind: str | None
) -> None:
    found = charge(payment_method=None, payment_method_details=None, source=source)

    assert (found.payment_method_id, found.payment_method_type) == (method, kind)


@pytest.mark.parametrize(("dispute", "disputed"), [("dp_1", True), ({"id": "dp_1"}, True), (None, False)])
def test_an_old_charge_is_disputed_when_it_names_a_dispute(dispute: object, disputed: bool) -> None:
    assert charge(disputed=None, dispute=dispute).disputed is disputed


def test_a_charge_that_says_nothing_of_disputes_leaves_it_open() -> None:
    assert charge(disputed=None).disputed is None


@pytest.mark.parametrize(
    ("outcome", "decline_code"),
    [
        ({"type": "issuer_declined", "reason": "do_not_honor"}, "do_not_honor"),
        ({"type": "blocked", "reason": "highest_risk_level"}, None),
        (None, None),
    ],
)
def test_a_failed_charge_says_why(outcome: object, decline_code: str | None) -> None:
    found = charge(status="failed", failure_code="card_declined", failure_message="No.", outcome=outcome)

    assert (found.failure_code, found.failure_message, found.decline_code) == ("card_declined", "No.", decline_code)


@pytest.mark.parametrize("event_type", ["charge.refund.updated", "refund.updated", "refund.failed"])
def test_a_refund_is_the_same_in_both_families_of_events(event_type: str) -> None:
    tree = event(
        {**REFUND, "status": "failed", "failure_reason": "lost_or_stolen_card", "balance_transaction": {"id": "txn_2"},
         "metadata": {"ticket": "7"}},
        event_type,
    )  # fmt: skip
    found = normalized(tree)

    assert (found.category, found.object_type, found.object_id) == ("refund", "refund", "re_1")
    assert found.data == Refund(
        refund_id="re_1",
        charge_id="ch_1",
        payment_intent_id="pi_1",
        status="failed",
        amount_minor=500,
        currency="eur",
        reason="requested_by_customer",
        failure_reason="lost_or_stolen_card",
        balance_transaction_id="txn_2",
        metadata={"ticket": "7"},
        created_at=at(1_700_000_100),
    )


def test_a_refund_of_a_payment_without_a_charge_has_none() -> None:
    assert data_of({**REFUND, "charge": None}, "refund.created", Refund).charge_id is None


@pytest.mark.parametrize("due", [{"evidence_details": {"due_by": 1_700_500_000}}, {"evidence_due_by": 1_700_500_000}])
def test_a_dispute_is_read_in_both_shapes(due: dict[str, Any]) -> None:
    dispute = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 2000,
        "charge": {"id": "ch_1", "object": "charge"},
        "created": 1_700_000_200,
        "currency": "eur",
        "is_charge_refundable": False,
        "payment_intent": "pi_1",
        "reason": "fraudulent",
        "status": "needs_response",
    }
    found = normalized(event({**dispute, **due}, "charge.dispute.created"))

    assert found.category == "payment"
    assert found.data == Dispute(
        dispute_id="dp_1",
        charge_id="ch_1",
        payment_intent_id="pi_1",
        status="needs_response",
        amount_minor=2000,
        currency="eur",
        reason="fraudulent",
        is_charge_refundable=False,
        evidence_due_by=at(1_700_500_000),
        created_at=at(1_700_000_200),
    )


def test_a_checkout_session_is_read_under_our_name() -> None:
    session = {
        "id": "cs_1",
        "object": "checkout.session",
        "amount_subtotal": 1800,
        "amount_total": 2000,
        "client_reference_id": "cart-7",
        "created": 1_700_000_000,
        "currency": "eur",
        "customer": None,
        "customer_details": {"email": "typed@example.com"},
        "customer_email": "prepared@example.com",
        "expires_at": 1_700_086_400,
        "invoice": "in_1",
        "mode": "payment",
        "payment_intent": {"id": "pi_1", "object": "payment_intent"},
        "payment_link": "plink_1",
        "payment_status": "paid",
        "status": "complete",
        "subscription": None,
    }
    found = normalized(event(session, "checkout.session.completed"))

    assert (found.object_type, found.object_id, found.category) == ("checkout_session", "cs_1", "payment")
    assert found.data == CheckoutSession(
        checkout_session_id="cs_1",
        mode="payment",
        status="complete",
        payment_status="paid",
        payment_intent_id="pi_1",
        invoice_id="in_1",
        customer_email="typed@example.com",
        client_reference_id="cart-7",
        payment_link_id="plink_1",
        amount_subtotal_minor=1800,
        amount_total_minor=2000,
        currency="eur",
        expires_at=at(1_700_086_400),
        created_at=at(1_700_000_000),
    )


@pytest.mark.parametrize(
    ("made", "mode"),
    [
        ({"subscription": "sub_1"}, "subscription"),
        ({"payment_intent": "pi_1"}, "payment"),
        ({"setup_intent": "seti_1"}, "setup"),
        ({}, None),
        ({"mode": "rental", "payment_intent": "pi_1"}, "rental"),
    ],
)
def test_a_session_of_2019_says_its_mode_by_what_it_made(made: dict[str, Any], mode: str | None) -> None:
    session = {"id": "cs_1", "object": "checkout.session", "mode": None, "customer_email": "prepared@example.com"}

    found = data_of({**session, **made}, "checkout.session.completed", CheckoutSession)

    assert (found.mode, found.customer_email) == (mode, "prepared@example.com")


@pytest.mark.parametrize(
    ("payment", "ids"),
    [
        ({"type": "payment_intent", "payment_intent": "pi_1"}, ("pi_1", None, None)),
        ({"type": "payment_intent", "payment_intent": {"id": "pi_1"}}, ("pi_1", None, None)),
        ({"type": "charge", "charge": "ch_1"}, (None, "ch_1", None)),
        ({"type": "payment_record", "payment_record": "pr_1"}, (None, None, "pr_1")),
    ],
)
def test_an_invoice_payment_links_an_invoice_to_what_paid_it(
    payment: dict[str, Any], ids: tuple[str | None, ...]
) -> None:
    tree = {
        "id": "inpay_1",
        "object": "invoice_payment",
        "amount_paid": 2000,
        "amount_requested": 2000,
        "created": 1_700_000_000,
        "currency": "eur",
        "invoice": "in_1",
        "is_default": True,
        "payment": payment,
        "status": "paid",
        "status_transitions": {"canceled_at": None, "paid_at": 1_700_000_005},
    }
    found = normalized(event(tree, "invoice_payment.paid"))

    assert found.category == "payment"
    assert found.data == InvoicePayment(
        invoice_payment_id="inpay_1",
        invoice_id="in_1",
        payment_type=payment["type"],
        payment_intent_id=ids[0],
        charge_id=ids[1],
        payment_record_id=ids[2],
        status="paid",
        amount_requested_minor=2000,
        amount_paid_minor=2000,
        currency="eur",
        is_default=True,
        paid_at=at(1_700_000_005),
        created_at=at(1_700_000_000),
    )


@pytest.mark.parametrize("kind", ["refund", "dispute"])
def test_a_refund_or_dispute_knows_its_payment_from_an_expanded_charge(kind: str) -> None:
    tree = {"id": "x_1", "object": kind, "charge": {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"}}
    data = normalized(event(tree, "refund.updated" if kind == "refund" else "charge.dispute.created")).data

    assert isinstance(data, Refund | Dispute)
    assert (data.charge_id, data.payment_intent_id) == ("ch_1", "pi_1")


@pytest.mark.parametrize(
    ("shape", "field", "value"),
    [
        ({"payment_intent": {"id": "pi_1", "object": "payment_intent", "invoice": "in_1"}}, "invoice_id", "in_1"),
        ({"customer": None, "source": {"id": "card_1", "object": "card", "customer": "cus_9"}}, "customer_id", "cus_9"),
        (
            {"customer": None, "payment_intent": {"id": "pi_1", "object": "payment_intent", "customer": "cus_9"}},
            "customer_id",
            "cus_9",
        ),
        ({"application_fee": {"id": "fee_1", "amount": 30}}, "application_fee_amount_minor", 30),
        ({"application_fee": "fee_1"}, "application_fee_amount_minor", None),
        (
            {"fee_details": [{"type": "stripe_fee", "amount": 42}, {"type": "application_fee", "amount": 7}]},
            "application_fee_amount_minor",
            7,
        ),
        ({"fee": 42}, "fee_minor", 42),
        ({"balance_transaction": {"id": "txn_1", "fee": 0}, "fee": 42}, "fee_minor", 0),
        ({"dispute": "dp_1"}, "dispute_id", "dp_1"),
        ({"dispute": {"amount": 5, "status": "lost"}}, "dispute_id", None),
        ({"dispute": {"amount": 5}, "disputed": None}, "disputed", True),
        (
            {"payment_method_details": {"type": "card_present", "card_present": {"last4": "1881"}}},
            "card_last4",
            "1881",
        ),
        (
            {"payment_method_details": {"type": "interac_present", "interac_present": {"brand": "interac"}}},
            "card_brand",
            "interac",
        ),
        (
            {"payment_method_details": None, "payment_method": {"id": "pm_1", "type": "card", "card": {"last4": "1"}}},
            "card_last4",
            "1",
        ),
        (
            {"payment_method_details": None, "source": {"object": "bank_account", "id": "ba_1", "last4": "6789"}},
            "card_last4",
            None,
        ),
        ({"status": None, "paid": True}, "status", "succeeded"),
        ({"status": "paid"}, "status", "succeeded"),
        ({"status": None, "paid": False, "failure_code": "card_declined"}, "status", "failed"),
        ({"status": None, "paid": False}, "status", None),
    ],
)
def test_a_charges_facts_are_read_wherever_they_stand(shape: dict[str, Any], field: str, value: object) -> None:
    assert getattr(charge(**shape), field) == value


@pytest.mark.parametrize(
    ("shape", "field", "value"),
    [
        ({"latest_charge": {"id": "ch_1", "object": "charge", "invoice": "in_1"}}, "invoice_id", "in_1"),
        ({"customer": None, "charges": {"data": [{"id": "ch_1", "customer": "cus_9"}]}}, "customer_id", "cus_9"),
        (
            {"payment_method": None, "charges": {"data": [{"id": "ch_1", "payment_method": "pm_9"}]}},
            "payment_method_id",
            "pm_9",
        ),
        ({"payment_method": None, "last_payment_error": {"source": {"id": "src_1"}}}, "payment_method_id", "src_1"),
        ({"latest_charge": {"id": "ch_1", "on_behalf_of": "acct_1"}}, "on_behalf_of_id", "acct_1"),
        ({"application_fee": 30}, "application_fee_amount_minor", 30),
        ({"application_fee_amount": 0, "application_fee": 30}, "application_fee_amount_minor", 0),
        ({"customer": {"id": "cus_1", "customer_account": "acct_1"}}, "customer_account_id", "acct_1"),
    ],
)
def test_an_intents_facts_are_read_wherever_they_stand(shape: dict[str, Any], field: str, value: object) -> None:
    assert getattr(intent(**shape), field) == value


@pytest.mark.parametrize(
    ("moved", "change", "fee"),
    [
        ({"balance_transactions": []}, None, None),
        ({"balance_transactions": [{"amount": -2000, "fee": 1500, "currency": "eur"}]}, -2000, 1500),
        (
            {
                "balance_transactions": [
                    {"amount": -2000, "fee": 1500, "currency": "eur"},
                    {"amount": 2000, "fee": -1500, "currency": "eur"},
                ]
            },
            0,
            0,
        ),
        ({"balance_transaction": {"id": "txn_1", "amount": -2000, "fee": 1500, "currency": "eur"}}, -2000, 1500),
        ({"balance_transaction": "txn_1"}, None, None),
    ],
)
def test_what_a_dispute_moved_is_the_sum_of_its_transactions(
    moved: dict[str, Any], change: int | None, fee: int | None
) -> None:
    dispute = data_of({"id": "dp_1", "object": "dispute", **moved}, "charge.dispute.closed", Dispute)

    assert (dispute.balance_change_minor, dispute.balance_fee_minor) == (change, fee)
    assert dispute.balance_currency == (None if change is None else "eur")


def test_a_session_of_2019_is_as_much_as_its_items() -> None:
    items = [{"amount": 500, "quantity": 2, "currency": "eur"}, {"amount": 100, "quantity": 1, "currency": "eur"}]
    tree = {"id": "cs_1", "object": "checkout.session", "display_items": items, "payment_intent": "pi_1"}
    found = data_of(tree, "checkout.session.completed", CheckoutSession)

    assert (found.amount_subtotal_minor, found.amount_total_minor, found.currency) == (1100, 1100, "eur")
    assert found.mode == "payment"
