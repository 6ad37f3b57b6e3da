"""Redaction paths: what they may look like, and why one is refused."""

import tomllib

import pytest
from stripe._object_classes import OBJECT_CLASSES, V2_OBJECT_CLASSES

from service.commands.initial_configuration import INITIAL_CONFIGURATION
from service.errors import ConfigurationError
from service.redaction import RedactionPath, parse_paths
from service.redaction.object_types import OBJECT_TYPES


@pytest.mark.parametrize(
    ("written", "object_type", "fields", "hashed"),
    [
        ("customer.email", "customer", ("email",), False),
        ("hash:customer.email", "customer", ("email",), True),
        ("charge.billing_details.address.line1", "charge", ("billing_details", "address", "line1"), False),
        ("checkout.session.customer_details", "checkout.session", ("customer_details",), False),
        ("checkout_session.customer_details", "checkout.session", ("customer_details",), False),
        ("hash:v2.core.event.data", "v2.core.event", ("data",), True),
        ("issuing.card.cardholder.name", "issuing.card", ("cardholder", "name"), False),
        ("v2.core.vault.us_bank_account.last4", "v2.core.vault.us_bank_account", ("last4",), False),
        ("*.metadata.ssn", "*", ("metadata", "ssn"), False),
        ("*.metadata.id", "*", ("metadata", "id"), False),
        ("customer.metadata.Tax number", "customer", ("metadata", "Tax number"), False),
        ("*.metadata.a.b", "*", ("metadata", "a.b"), False),
        ("hash:*.metadata.vat:id.of buyer", "*", ("metadata", "vat:id.of buyer"), True),
        ("subscription.items.data.metadata.data.x", "subscription", ("items", "data", "metadata", "data.x"), False),
        ("charge.metadata.metadata.id", "charge", ("metadata", "metadata.id"), False),
        ("event.request.idempotency_key", "event", ("request", "idempotency_key"), False),
    ],
)
def test_a_path_is_an_object_type_and_fields(
    written: str, object_type: str, fields: tuple[str, ...], hashed: bool
) -> None:
    assert parse_paths([written]) == (RedactionPath(object_type, fields, hashed),)


@pytest.mark.parametrize(
    "written",
    ["", "customer", "customer.", ".email", "customer..email", "customer.*", "customer.address.*.line1", "hash:",
     "hash:customer", "mask:customer.email", "customer.email ", "customer. email", "customer.a\nb", "customer." + "x" * 101,
     "$.data.object.email", "customer.hash:email", "customer.email,customer.phone", "customer.email, customer.phone",
     " customer.email", "hash: customer.email", "customer.Email", "customer.e-mail", "customer.email\u00a0", "customer.émail",
     "customer.metadata.", "customer.metadata. ssn", "customer.metadata.ssn ", "customer.metadata.ssn,customer.email",
     "customer.metadata.*", "customer.metadata.a\nb", "customer.metadata." + "x" * 101, "customer,charge.email", "*", "*."],
)  # fmt: skip
def test_what_is_no_path_is_refused_by_its_name(written: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^kafka\.redact: ") as refused:
        parse_paths(["customer.name", written])

    assert repr(written) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("written", "object_type"),
    [("customer", "customer"), ("checkout.session", "checkout.session"), ("hash:checkout_session", "checkout.session"),
     ("v2.core.event", "v2.core.event"), ("*", "*")],
)  # fmt: skip
def test_an_object_alone_is_refused_for_the_field_that_is_missing(written: str, object_type: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_paths([written])

    assert f"{written!r} is no path: the field of {object_type} is missing" in str(refused.value)
    assert "meant?" not in str(refused.value)


@pytest.mark.parametrize(
    ("written", "hint"), [("custmer.email", "is customer meant?"), ("data.object.email", "*.<field>")]
)
def test_an_object_that_stripe_has_not_is_refused(written: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_paths([written])

    assert f"kafka.redact: {written!r} names no object of Stripe's" in str(refused.value)
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    "written",
    ["charge.id", "customer.object", "charge.amount", "hash:charge.currency", "payment_intent.charges", "charge.refunds",
     "subscription.items", "subscription.items.data", "subscription.items.price", "subscription.items.data.price.product",
     "invoice.lines", "invoice.lines.data.amount", "invoice.lines.has_more", "payment_intent.latest_charge",
     "payment_intent.latest_charge.payment_method_details.type", "payment_intent.last_payment_error", "charge.customer",
     "charge.customer.id", "setup_intent.customer", "checkout.session.payment_status", "checkout_session.payment_status",
     "subscription.status", "dispute.evidence_details.due_by", "event.type", "event.id", "event.data", "event.data.object.email",
     "event.data.previous_attributes", "event.request", "event.request.id", "event.account", "event.livemode",
     "v2.core.event.related_object", "v2.core.event.related_object.id", "*.id", "*.amount", "*.type", "*.data",
     "*.data.object.amount", "*.object.amount", "*.previous_attributes.amount", "*.due_by", "*.request", "*.refunds",
     "payment_intent.payment_method_types.data", "subscription.items.data.data.price", "charge.refunds.data.data",
     "payment_intent.status.data", "invoice.lines.subscriptions.data.amount",
     "*.charges.amount", "list.data", "*.customer", "product.active", "price.unit_amount", "source.type"],
)  # fmt: skip
def test_keys_identities_and_what_tables_are_made_of_are_refused(written: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_paths([written])

    assert f"kafka.redact: {written!r} cannot be redacted" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "written",
    ["customer.email", "customer.name", "customer.phone", "customer.description", "customer.address", "customer.metadata",
     "charge.billing_details", "charge.payment_method_details.card", "charge.payment_method_details.card.fingerprint",
     "charge.failure_message", "charge.receipt_email", "charge.shipping", "charge.outcome.seller_message", "charge.customer.email",
     "payment_intent.last_payment_error.message", "payment_intent.description", "payment_intent.charges.billing_details",
     "payment_intent.charges.data.billing_details", "checkout.session.customer_email", "checkout.session.customer_details",
     "invoice.customer_email", "invoice.lines.description", "subscription.cancellation_details.comment", "price.nickname",
     "product.name", "dispute.evidence", "*.email", "*.name", "*.address", "*.metadata", "*.billing_details",
     "payment_method.billing_details", "v2.core.event.data", "person.dob", "issuing.cardholder.individual"],
)  # fmt: skip
def test_what_is_only_passed_on_or_never_read_may_go(written: str) -> None:
    assert len(parse_paths([written, f"hash:{written}"])) == 2


def test_every_object_of_stripes_own_package_is_known() -> None:
    assert set(OBJECT_CLASSES) | set(V2_OBJECT_CLASSES) <= OBJECT_TYPES


def test_the_first_configuration_shows_how() -> None:
    commented = INITIAL_CONFIGURATION.replace("\n# ", "\n")
    (line,) = [line for line in commented.splitlines() if line.startswith("redact = ")]

    assert len(parse_paths(tomllib.loads(line)["redact"])) == 4
    assert "redact_key_file = " in commented
