"""The records are CloudEvents 1.0 in Kafka's binary mode: the SDK of CloudEvents itself reads them."""

from datetime import UTC, datetime

import orjson
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from cloudevents.core.exceptions import CloudEventValidationError

from service.contract import Other
from service.contract.schema import SCHEMA_NAMES
from service.events import Record
from tests.unit.contract.records import event, record


def read(made: Record) -> BaseCloudEvent:
    return from_binary_event(KafkaMessage(headers=dict(made.headers), key=made.key, value=made.value))


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_the_sdk_reads_every_object_type(name: str) -> None:
    made = record(event(name, account="acct_1", livemode=False))

    cloud = read(made)

    assert cloud.get_specversion() == "1.0"
    assert cloud.get_id() == "evt_1"
    assert cloud.get_source() == "/stripe/acct_1/test"
    assert cloud.get_type() == f"com.stripe.{name}.updated"
    assert cloud.get_subject() == "x_1"
    assert cloud.get_time() == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert cloud.get_dataschema() == f"urn:stripe-ingest:schema:1:{name}"
    assert cloud.get_datacontenttype() == "application/json"
    assert cloud.get_extension("partitionkey") == made.key.decode()
    assert cloud.get_data() == orjson.loads(made.value)


def test_the_sdk_reads_a_thin_event() -> None:
    thin = event(
        "other",
        Other(),
        event_type="v1.billing.meter.error_report_triggered",
        object_type="billing.meter",
        object_id="mtr_1",
        api_version=None,
        previous=None,
        snapshot_event="evt_2",
        created_at=datetime(2026, 11, 20, 10, 0, 0, 250_000, tzinfo=UTC),
    )

    cloud = read(record(thin))

    assert cloud.get_type() == "com.stripe.v1.billing.meter.error_report_triggered"
    assert cloud.get_subject() == "mtr_1"
    assert cloud.get_time() == datetime(2026, 11, 20, 10, 0, 0, 250_000, tzinfo=UTC)
    assert cloud.get_dataschema() == "urn:stripe-ingest:schema:1:other"


def test_the_sdk_reads_an_unlisted_event_about_nothing_with_an_id() -> None:
    unlisted = event("other", Other(), event_type="v2.core.account[requirements].updated", object_id=None)

    cloud = read(record(unlisted))

    assert cloud.get_type() == "com.stripe.v2.core.account[requirements].updated"
    assert cloud.get_subject() is None
    assert cloud.get_extension("partitionkey") == "default"


@pytest.mark.parametrize("header", ["ce_source", "ce_type"])
def test_the_sdk_would_notice_a_missing_attribute(header: str) -> None:
    made = record(event())
    less = tuple((name, value) for name, value in made.headers if name != header)

    with pytest.raises(CloudEventValidationError):
        read(Record(made.topic, made.key, made.value, less))
