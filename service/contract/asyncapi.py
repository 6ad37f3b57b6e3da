"""The topics as an AsyncAPI 3.0 document: channels, messages, headers, keys and what each topic needs of the broker.

Made from the tables that the service itself works by. The document stands alone: payloads are among its components.
"""

from collections.abc import Iterable, Mapping
from typing import Final, get_args

from service.contract.schema import OTHER, SCHEMA_NAMES, Json, definitions_of, record_title, schema_id
from service.contract.types import SCHEMA_VERSION, Category
from service.events import DedupeMark, IngestSource, QuarantineReason
from service.records import KEYS, Topics, topic_configs
from service.redaction import ALGORITHM

OBJECT_TYPES: Final[Mapping[Category, tuple[str, ...]]] = {
    "payment": ("payment_intent", "charge", "dispute", "checkout_session", "invoice_payment", OTHER),
    "refund": ("refund", "charge", OTHER),
    "subscription": ("subscription", "invoice", OTHER),
    "customer": ("customer", OTHER),
    "catalog": ("product", "price", "plan", OTHER),
    "other": (OTHER,),
}
"""Category → the schemas of the records on its topic."""

TITLE: Final = "stripe-ingest"

PARTITIONER: Final = "murmur2"
"""Kafka's default: the same key is in the same partition, whichever client asks."""

_KAFKA_BINDING: Final = "0.5.0"
_LAST_KEYS: Final = ("object_id", "data.customer_id", "account")
"""What makes a key where an event knows none of its category's ids."""

_OPAQUE: Final = "application/octet-stream"

_SUMMARIES: Final[Mapping[Category, str]] = {
    "payment": "Payment intents, charges, disputes, Checkout sessions and invoice payments.",
    "refund": "Refunds, and charges as `charge.refunded` shows them.",
    "subscription": "Subscriptions and invoices.",
    "customer": "Customers and what belongs to them.",
    "catalog": "Products, prices and plans.",
    "other": "Every other event, and all thin events, with the event as Stripe sent it in `raw`.",
}


def asyncapi(topics: Topics) -> Json:
    """The AsyncAPI document for the topics under a prefix."""
    side = {
        "quarantine": _quarantine(topics),
        "dead-letter": _dead_letter(topics),
    }
    channels = {topics.of(category).removeprefix(f"{topics.prefix}."): _data(topics, category) for category in KEYS}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": TITLE,
            "version": str(SCHEMA_VERSION),
            "description": (
                "Normalized Stripe events on Kafka: at least once, in order of arrival per key. Skip an event whose "
                "`ce_id` you have seen. Pass over fields, headers, object types and event types that you do not know: "
                "within a schema version they are only added, and an object type that gets a schema of its own leaves "
                "`other`. Header values are UTF-8."
            ),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {**channels, **side},
        "operations": {
            f"publish-{name}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": f"stripe-ingest publishes to {channel['address']}.",
            }
            for name, channel in {**channels, **side}.items()
        },
        "components": {
            "schemas": {
                "EventHeaders": _headers("The headers of a normalized event.", _EVENT_HEADERS),
                "QuarantineHeaders": _headers("The headers of a quarantined body.", _QUARANTINE_HEADERS),
                "DeadLetterHeaders": _headers(
                    "The headers of a dead letter: the record's own, and where it stood and why it is here.",
                    {
                        **{name: {**shape, "required": False} for name, shape in _EVENT_HEADERS.items()},
                        **_LETTER_HEADERS,
                    },
                ),
                **definitions_of(SCHEMA_NAMES, ref_template="#/components/schemas/{name}"),
            }
        },
    }


def _data(topics: Topics, category: Category) -> Json:
    key = [*(f"data.{name}" for name in KEYS[category]), *_LAST_KEYS]
    return {
        **_channel(topics, topics.of(category), _SUMMARIES[category]),
        "messages": {
            name: {
                "name": name,
                "title": f"About {'any other object' if name == OTHER else name.replace('_', ' ')}",
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/EventHeaders"},
                "payload": {"$ref": f"#/components/schemas/{record_title(name)}"},
                "bindings": _key(_first_of(key)),
                "x-dataschema": schema_id(name),
            }
            for name in OBJECT_TYPES[category]
        },
        "x-key": key,
    }


def _quarantine(topics: Topics) -> Json:
    key = ["headers.event_id", "headers.body_sha256", "headers.body_hmac_sha256"]
    return {
        **_channel(topics, topics.quarantine, "Verified bodies that could not be normalized."),
        "messages": {
            "quarantined": {
                "name": "quarantined",
                "title": "A quarantined body",
                "contentType": _OPAQUE,
                "headers": {"$ref": "#/components/schemas/QuarantineHeaders"},
                "payload": {
                    "description": "The body as Stripe sent it, any bytes at all; encrypted where `encryption` says so."
                },
                "bindings": _key(_first_of(key)),
            }
        },
        "x-key": key,
    }


def _dead_letter(topics: Topics) -> Json:
    return {
        **_channel(topics, topics.dead_letter, "Records that a consumer could never apply, as they were."),
        "messages": {
            "dead-letter": {
                "name": "dead-letter",
                "title": "A record that could not be applied",
                "contentType": _OPAQUE,
                "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
                "payload": {"description": "The value of the record as it was; any bytes at all."},
                "bindings": _key("The key of the record as it was."),
            }
        },
        "x-key": ["original"],
    }


def _channel(topics: Topics, topic: str, summary: str) -> Json:
    # The largest body that may be configured fits into the smallest quarantine topic, so no size needs to be given.
    configs = topic_configs(topics, max_body_bytes=0)[topic]
    return {
        "address": topic,
        "summary": summary,
        "bindings": {"kafka": {"topic": topic, "topicConfiguration": {**configs}, "bindingVersion": _KAFKA_BINDING}},
        "x-partitioner": PARTITIONER,
    }


def _first_of(paths: Iterable[str]) -> str:
    return f"The first of these that is there: {', '.join(f'`{path}`' for path in paths)}."


def _key(description: str) -> Json:
    key = {"type": "string", "description": description}
    return {"kafka": {"key": key, "bindingVersion": _KAFKA_BINDING}}


def _headers(description: str, headers: Mapping[str, Json]) -> Json:
    return {
        "type": "object",
        "description": description,
        "properties": {
            name: {"type": "string", **{keyword: value for keyword, value in shape.items() if keyword != "required"}}
            for name, shape in headers.items()
        },
        "required": [name for name, shape in headers.items() if shape.get("required", True)],
    }


_ENDPOINT: Final[Json] = {"description": "The name of the webhook endpoint.", "examples": ["shop"]}
_INGEST_SOURCE: Final[Json] = {
    "description": "How the event came to stripe-ingest. An open set.",
    "examples": list(get_args(IngestSource)),
}
_DEDUPE: Final[Json] = {
    "description": "Whether a dedupe store vouches for the record being the first of its event. An open set.",
    "examples": list(get_args(DedupeMark)),
}
_TRACEPARENT: Final[Json] = {
    "description": "The W3C trace context of the delivery.",
    "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
}

_EVENT_HEADERS: Final[Mapping[str, Json]] = {
    "ce_specversion": {"description": "CloudEvents, Kafka binary content mode.", "const": "1.0"},
    "ce_id": {"description": "Stripe's event id: skip what you have seen.", "examples": ["evt_1MqqbKLt4dXK03v5"]},
    "ce_source": {
        "description": "`/stripe/<account>/<live or test>`.",
        "examples": ["/stripe/default/live", "/stripe/acct_1/test"],
    },
    "ce_type": {
        "description": "`com.stripe.` and Stripe's event type. An open set.",
        "examples": ["com.stripe.payment_intent.succeeded"],
    },
    "ce_subject": {
        "description": "The id of the object that the event is about, where it has one.",
        "examples": ["pi_3MtwBwLkdIwHu7ix"],
        "required": False,
    },
    "ce_time": {"description": "When Stripe created the event.", "format": "date-time"},
    "ce_dataschema": {
        "description": "The `$id` of the JSON Schema of the value: the message's `x-dataschema`.",
        "examples": [schema_id("payment_intent"), schema_id(OTHER)],
    },
    "content-type": {"description": "CloudEvents' `datacontenttype`.", "const": "application/json"},
    "stripe_api_version": {
        "description": "The Stripe API version that rendered the event; not there for a thin event.",
        "examples": ["2020-08-27"],
        "required": False,
    },
    "stripe_context": {
        "description": "On events that say it: the way to the account from whoever the endpoint belongs to.",
        "examples": ["org_6SA2BcdFGH/acct_1Nv0FGQ9RKHgCVdK"],
        "required": False,
    },
    "snapshot_event": {
        "description": "On thin events whose body names it: the id of the snapshot event that is its twin.",
        "examples": ["evt_1MqqbKLt4dXK03v5"],
        "required": False,
    },
    "endpoint": _ENDPOINT,
    "ingest_source": _INGEST_SOURCE,
    "dedupe": _DEDUPE,
    "traceparent": _TRACEPARENT,
    "replay_group": {
        "description": "On a record that was replayed from the dead-letter topic: the consumer group that it is for,"
        " which could not apply it before. For any other group it is one that it has seen.",
        "examples": ["stripe-ingest.payments"],
        "required": False,
    },
    "replay_of": {
        "description": "With `replay_group`: where the record stood first, `<topic>/<partition>/<offset>`.",
        "examples": ["stripe.payments/3/1234"],
        "required": False,
    },
}

_QUARANTINE_HEADERS: Final[Mapping[str, Json]] = {
    "reason": {
        "description": "Why the body is here. An open set.",
        "examples": [reason.value for reason in QuarantineReason],
    },
    "detail": {"description": "The field that is wrong, never its value.", "examples": ["data.object.amount"]},
    "endpoint": _ENDPOINT,
    "event_id": {"description": "Stripe's event id, where the body has a well-formed one.", "required": False},
    "event_type": {
        "description": "Stripe's event type, where the body has a well-formed one.",
        "examples": ["payment_intent.succeeded"],
        "required": False,
    },
    "body_sha256": {
        "description": "The SHA-256 of the body, in hexadecimal, where there is no `event_id`.",
        "required": False,
    },
    "body_hmac_sha256": {
        "description": "Instead of `body_sha256` where bodies are encrypted: an HMAC, which nobody without the key can"
        " tell a guessed body by.",
        "required": False,
    },
    "encryption": {
        "description": "How the value is encrypted; not there where it is the body itself. An open set.",
        "examples": [ALGORITHM],
        "required": False,
    },
    "encryption_key": {
        "description": "The fingerprint of the key that the value is encrypted with; not there without `encryption`,"
        " nor where an earlier release encrypted it.",
        "examples": ["3f1c9a70e2b84d56"],
        "required": False,
    },
    "received_at": {"description": "When the body was received.", "format": "date-time"},
    "ingest_source": _INGEST_SOURCE,
    "dedupe": _DEDUPE,
    "traceparent": _TRACEPARENT,
}

_LETTER_HEADERS: Final[Mapping[str, Json]] = {
    "dead_letter_reason": {
        "description": "Why the record could not be applied. An open set.",
        "examples": ["not_json", "schema_mismatch", "empty_value"],
    },
    "dead_letter_detail": {"description": "Where in the record, never the value."},
    "consumer_group": {"description": "Who could not apply it."},
    "original_topic": {"description": "The record's topic."},
    "original_partition": {"description": "The record's partition, a decimal number.", "pattern": "^[0-9]+$"},
    "original_offset": {"description": "The record's offset, a decimal number.", "pattern": "^[0-9]+$"},
}
