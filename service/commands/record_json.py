"""A record of any topic as JSON, for whoever holds the keys: sealed bodies are opened, and bytes kept as they are."""

import base64
import json

from service.events import ConsumedRecord
from service.records import quarantined_body
from service.redaction import CannotUnseal, Sealing


def record_line(record: ConsumedRecord, sealing: Sealing | None) -> str:
    """A line: where it is, its key and headers, and its value: as JSON, else as text, else in base64.

    What cannot be opened is there sealed, in base64, and `sealed` says why. What only Python takes for JSON (`NaN`, a
    number beyond all floats, UTF-16) is no JSON here: such a body is parked for just that.
    """
    shown = {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "key": (record.key or b"").decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in record.headers},
    }
    try:
        body = quarantined_body(record, sealing)
    except CannotUnseal as sealed:
        return json.dumps({**shown, "value_base64": _base64(record.value or b""), "sealed": str(sealed)})
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return json.dumps({**shown, "value_base64": _base64(body)})
    try:
        return json.dumps({**shown, "value": json.loads(text)}, allow_nan=False)
    except (ValueError, RecursionError):
        return json.dumps({**shown, "value": text})


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
