import msgspec

from service.contract import Charge, Refund
from service.projections import PROJECTIONS
from service.projections.model import Links
from tests.support.histories import at, event, key, oracle_rows

REFUNDS = PROJECTIONS["refunds"]


def test_a_row_has_every_field_of_the_refund_and_its_last_event() -> None:
    refund = Refund(
        refund_id="re_1",
        charge_id="ch_1",
        payment_intent_id="pi_1",
        status="failed",
        amount_minor=50,
        currency="eur",
        reason="duplicate",
        failure_reason="lost_or_stolen_card",
        balance_transaction_id="txn_1",
        metadata={"k": "v"},
        created_at=at(0),
    )
    expected = msgspec.structs.asdict(refund) | {"last_event_id": "evt_1", "last_event_at": at(3)}
    del expected["refund_id"]
    rows = oracle_rows(REFUNDS, [event("refund.failed", refund, second=3)])
    assert rows == {("refunds", key("re_1")): expected}


def test_embedded_refunds_have_rows_and_their_charge_has_none() -> None:
    embedded = Refund(refund_id="re_1", charge_id="ch_1", payment_intent_id="pi_1", status="succeeded", amount_minor=50)
    charge = Charge(charge_id="ch_1", payment_intent_id="pi_1", refunds=(embedded,))
    rows = oracle_rows(REFUNDS, [event("charge.refunded", charge)])
    assert set(rows) == {("refunds", key("re_1"))}
    row = rows["refunds", key("re_1")]
    assert (row["status"], row["charge_id"], row["payment_intent_id"]) == ("succeeded", "ch_1", "pi_1")


def test_a_refund_event_continues_what_an_embedded_refund_began() -> None:
    embedded = Refund(refund_id="re_1", charge_id="ch_1", status="succeeded", balance_transaction_id="txn_1")
    history = [
        event("charge.refunded", Charge(charge_id="ch_1", refunds=(embedded,)), second=0, event_id="evt_1"),
        event("refund.failed", Refund(refund_id="re_1", status="failed"), second=1, event_id="evt_2"),
    ]
    row = oracle_rows(REFUNDS, reversed(history))["refunds", key("re_1")]
    assert (row["status"], row["charge_id"], row["balance_transaction_id"]) == ("failed", "ch_1", "txn_1")


def test_each_refund_is_its_own_and_only_root() -> None:
    (seen,) = REFUNDS.observe(event("refund.updated", Refund(refund_id="re_1", payment_intent_id="pi_1")))
    assert REFUNDS.links(seen) == Links(roots=frozenset({"re_1"}), refs=frozenset(), via=None)
