"""The exception tree. Each class has a `tag`: log field, metric label and HTTP error code read the same one.

    IngestError
    ├── ConfigurationError          exit 2, before anything starts
    ├── DeliveryRefused             an HTTP 4xx: the sender's fault, or nobody's we know
    │   ├── AddressNotAllowed       403
    │   ├── EndpointUnknown         404
    │   ├── MethodNotAllowed        405
    │   ├── BodyTooLarge            413
    │   ├── BodyTooSlow             408
    │   ├── BodyCutShort            400
    │   ├── EncodingUnsupported     415
    │   └── SignatureRefused        400; its four kinds below
    │       ├── SignatureMissing
    │       ├── SignatureMalformed
    │       ├── SignatureMismatch
    │       └── TimestampOutsideTolerance
    ├── Unavailable                 an HTTP 503 with Retry-After: Stripe's queue is our outermost spool
    │   ├── BrokerUnavailable       nothing was sent, or it may have been (see PublishOutcomeUnknown)
    │   │   └── PublishOutcomeUnknown
    │   ├── DedupeUnavailable
    │   ├── InFlight
    │   ├── Overloaded
    │   └── ShuttingDown
    ├── PublishRefused              the broker said no for good: the record is certainly not in the log
    │   └── RecordTooLarge
    ├── StoreUnavailable            a consumer's database is away: back off with jitter, try again
    ├── FenceLost                   another process moved a partition's offset: drop, read the database, seek
    ├── RowRefused                  the database refuses this data for good: halve the batch, dead-letter the one
    ├── JobHeld                     another process is doing this job: try again later
    ├── ConsumerStopped             a consumer must not go on; a person decides
    │   ├── OffsetOutOfRange
    │   ├── ForeignCluster
    │   └── LedgerUnreadable
    └── StripeApiError              Stripe's API did not give what it was asked for
        ├── StripeUnavailable       5xx, 429 or no answer, more than once: exit 75
        ├── StripeKeyRefused        401: exit 2
        ├── StripePermissionMissing 403: exit 1
        ├── StripeObjectMissing     404: exit 1
        └── StripeRequestRefused    any other 4xx: exit 1
            ├── WebhookEndpointsFull
            └── SecretNotTold

No message carries a secret, a signature or any part of a payload.
"""

from collections.abc import Mapping
from typing import ClassVar


class IngestError(Exception):
    """The base of everything raised on purpose here."""

    tag: ClassVar[str] = "internal_error"


class ConfigurationError(IngestError):
    """A setting is missing or wrong. The message names the key and what is allowed."""

    tag = "configuration"


class DeliveryRefused(IngestError):
    """A delivery that is answered with a 4xx; nothing of it is parsed, stored or logged."""

    status: ClassVar[int] = 400
    headers: ClassVar[Mapping[str, str]] = {}


class AddressNotAllowed(DeliveryRefused):
    """The peer is not among `receiver.allow_ips`."""

    tag = "address_not_allowed"
    status = 403


class MethodNotAllowed(DeliveryRefused):
    """A delivery is a POST."""

    tag = "method_not_allowed"
    status = 405
    headers: ClassVar[Mapping[str, str]] = {"Allow": "POST"}


class EndpointUnknown(DeliveryRefused):
    """No endpoint of the configuration has this path."""

    tag = "endpoint_unknown"
    status = 404


class BodyTooLarge(DeliveryRefused):
    """The body is over `receiver.max_body_bytes`."""

    tag = "body_too_large"
    status = 413


class BodyTooSlow(DeliveryRefused):
    """The body did not arrive within its part of the time budget."""

    tag = "body_too_slow"
    status = 408


class BodyCutShort(DeliveryRefused):
    """The body ended before its end, or is not framed as it must be: nobody may be left to read the answer."""

    tag = "client_gone"


class EncodingUnsupported(DeliveryRefused):
    """The body has a Content-Encoding. Stripe sends none, and inflating for strangers is an amplifier."""

    tag = "encoding_unsupported"
    status = 415


class SignatureRefused(DeliveryRefused):
    """The delivery is not shown to be Stripe's."""


class SignatureMissing(SignatureRefused):
    """There is no Stripe-Signature header."""

    tag = "signature_missing"


class SignatureMalformed(SignatureRefused):
    """The Stripe-Signature header is not `t=<seconds>,v1=<hex>[,v1=<hex>…]`, or there is more than one."""

    tag = "signature_malformed"


class SignatureMismatch(SignatureRefused):
    """No active secret of the endpoint made any of the header's v1 signatures over these bytes."""

    tag = "signature_mismatch"


class TimestampOutsideTolerance(SignatureRefused):
    """The signature is right, but it was made too long ago or in the future: a replay, or a wrong clock."""

    tag = "timestamp_outside_tolerance"

    def __init__(self, message: str, skew_seconds: float) -> None:
        super().__init__(message)
        self.skew_seconds = skew_seconds
        """When it says it was signed, minus now."""


class Unavailable(IngestError):
    """Nothing durable took the event now. Answered 503 with Retry-After, so that Stripe sends it again."""

    retry_after_seconds: ClassVar[int] = 5


class BrokerUnavailable(Unavailable):
    """Kafka is known to be away; the record was not handed to it."""

    tag = "broker_unavailable"


class PublishOutcomeUnknown(BrokerUnavailable):
    """Kafka has not answered in time. The record may be in the log or get there later: the claim must stay."""


class DedupeUnavailable(Unavailable):
    """The dedupe store did not answer and `dedupe.on_error` is "refuse"."""

    tag = "dedupe_unavailable"


class InFlight(Unavailable):
    """Another delivery of this event is being published and its outcome is not known yet."""

    tag = "in_flight"


class Overloaded(Unavailable):
    """More deliveries are in flight than `receiver.max_in_flight`, or more bodies are being read than there is room."""

    tag = "overloaded"
    retry_after_seconds = 2


class ShuttingDown(Unavailable):
    """This process is draining."""

    tag = "shutting_down"
    retry_after_seconds = 1


class PublishRefused(IngestError):
    """The broker refused the record for good: it is certainly not in the log, so its claim can be released."""

    tag = "publish_refused"


class RecordTooLarge(PublishRefused):
    """The record is over its topic's `max.message.bytes`."""

    tag = "record_too_large"


class StoreUnavailable(IngestError):
    """The projection's database cannot take the batch now; `sqlstate` is its reason, where it gave one."""

    tag = "store_unavailable"

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class FenceLost(IngestError):
    """The offsets in the database are no longer those that a batch was fetched from; nothing was applied."""

    tag = "fence_lost"


class RowRefused(IngestError):
    """The database refuses the data of a batch: some record in it is poison."""

    tag = "row_refused"

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class JobHeld(IngestError):
    """Another process has the lease on a job."""

    tag = "job_held"


class ConsumerStopped(IngestError):
    """A consumer (or one of its partitions) must stop rather than guess. The message names the way out."""


class OffsetOutOfRange(ConsumerStopped):
    """The stored offset is outside the log: records were deleted before they were read, or the log is another one."""

    tag = "offset_out_of_range"


class ForeignCluster(ConsumerStopped):
    """The stored offsets belong to another Kafka cluster."""

    tag = "foreign_cluster"


class LedgerUnreadable(ConsumerStopped):
    """An entry of a ledger is none that this version can read: neither a consumer nor a rebuild can fold its object."""

    tag = "ledger_unreadable"


class StripeApiError(IngestError):
    """Stripe's API did not give what it was asked for. `request_id` finds the request in Stripe's dashboard."""

    tag = "stripe_api_error"

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class StripeUnavailable(StripeApiError):
    """Stripe gave no usable answer, however often it was asked; later it may."""

    tag = "stripe_unavailable"


class StripeKeyRefused(StripeApiError):
    """The API key is none of Stripe's: mistyped, rolled, expired or deleted."""

    tag = "stripe_key_refused"


class StripePermissionMissing(StripeApiError):
    """The API key may not do this; `scope` is the permission that Stripe says would help, such as `event_read`."""

    tag = "stripe_permission_missing"

    def __init__(self, message: str, *, scope: str | None, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.scope = scope


class StripeObjectMissing(StripeApiError):
    """Stripe has no object of this id: it never had, it was deleted, or it is in the other mode or account."""

    tag = "stripe_object_missing"


class StripeRequestRefused(StripeApiError):
    """Stripe refused the request itself; asking again would give the same."""

    tag = "stripe_request_refused"


class WebhookEndpointsFull(StripeRequestRefused):
    """The account has as many webhook endpoints in this mode as Stripe allows."""

    tag = "webhook_endpoints_full"


class SecretNotTold(StripeRequestRefused):
    """A webhook endpoint is there whose signing secret Stripe has not shown, and will not: a person must look it up."""

    tag = "secret_not_told"
