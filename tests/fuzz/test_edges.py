"""JSON's edges: what becomes of bodies that parsers read differently. Nothing is altered in silence, nothing is lost."""

import msgspec
import orjson
import pytest

from service import contract
from service.contract import Event, PaymentIntent
from service.events import QuarantineReason, Unprocessable
from service.normalize import normalize
from service.normalize.envelope import DEPTH_MAX
from tests.fuzz.target import settle, signed
from tests.unit.normalize.building import event, verified

INTENT = {"id": "pi_1", "object": "payment_intent", "amount": 1, "description": "d", "metadata": {"k": "v"}}
BODY = orjson.dumps(event(INTENT, "payment_intent.created"))


def with_bytes(old: bytes, new: bytes) -> bytes:
    assert BODY.count(old) == 1
    return BODY.replace(old, new)


def outcome_of(body: bytes) -> Event | Unprocessable:
    """The outcome, of which everything that must hold does hold."""
    settle(signed(body))
    return normalize(verified(body))


def intent_of(body: bytes) -> PaymentIntent:
    outcome = outcome_of(body)
    assert isinstance(outcome, Event)
    assert isinstance(outcome.data, PaymentIntent)
    return outcome.data


def kept(body: bytes) -> tuple[QuarantineReason, str]:
    """Why it is in quarantine, where it lies as it came."""
    outcome = outcome_of(body)
    assert isinstance(outcome, Unprocessable)
    assert outcome.body == body
    return outcome.reason, outcome.detail


# Numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [b"9223372036854775807", b"-9223372036854775808", b"0", b"-0"])
def test_an_amount_of_64_bits_is_taken(number: bytes) -> None:
    assert intent_of(with_bytes(b'"amount":1', b'"amount":' + number)).amount_minor == int(number)


@pytest.mark.parametrize(("number", "amount"), [(b"1000.0", 1000), (b"1e3", 1000), (b"-0.0", 0), (b'"1000"', 1000)])
def test_an_amount_in_another_spelling_is_the_same_amount(number: bytes, amount: int) -> None:
    assert intent_of(with_bytes(b'"amount":1', b'"amount":' + number)).amount_minor == amount


@pytest.mark.parametrize(
    "number",
    [b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"1.5", b"1e300",
     b"9007199254740993.0", b"9007199254740992.5", b"true", b'"1e3"', b'"9223372036854775808"', b'" 1"', '"\u0663"'.encode(), b"[]"],
)  # fmt: skip
def test_an_amount_that_64_bits_cannot_hold_exactly_is_kept_and_never_rounded(number: bytes) -> None:
    body = with_bytes(b'"amount":1', b'"amount":' + number)

    reason = QuarantineReason.MALFORMED_JSON if len(number) > 300 else QuarantineReason.OBJECT_MALFORMED
    assert kept(body)[0] is reason


@pytest.mark.parametrize("amounts", [[2**63 - 1, 1], [-(2**63), -1], [2**63 - 1] * 1000])
def test_a_sum_that_64_bits_cannot_hold_is_kept(amounts: list[int]) -> None:
    invoice = {"id": "in_1", "object": "invoice", "total_taxes": [{"amount": amount} for amount in amounts]}

    body = orjson.dumps(event(invoice, "invoice.paid"))

    assert kept(body) == (QuarantineReason.OBJECT_MALFORMED, "data.object.amount")


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"NaN", b"Infinity", b"01", b"+1", b".5", b"0x1"])
def test_what_is_no_number_of_json_is_kept(number: bytes) -> None:
    assert kept(with_bytes(b'"amount":1', b'"amount":' + number)) == (QuarantineReason.MALFORMED_JSON, "body")


# Encodings and characters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_a_body_in_another_encoding_or_with_its_mark_is_kept(encoding: str) -> None:
    text = with_bytes(b'"d"', '"é"'.encode()).decode()

    assert kept(text.encode(encoding)) == (QuarantineReason.MALFORMED_JSON, "body")


@pytest.mark.parametrize(
    "text",
    [b'"\\ud800"', b'"\\udc00"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x00"', b'"a\nb"', b'"\\x"'],
)
@pytest.mark.parametrize("field", [b'"d"', b'"v"', b'"pi_1"', b'"k"'])
def test_text_that_is_not_unicode_is_kept(field: bytes, text: bytes) -> None:
    assert kept(with_bytes(field, text)) == (QuarantineReason.MALFORMED_JSON, "body")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b'"\\ud83d\\ude00"', "😀"),
        ('"😀"'.encode(), "😀"),
        (b'"\\u00e9"', "é"),
        (b'"e\\u0301"', "e\u0301"),
        (b'"\\/"', "/"),
    ],
)
def test_text_is_taken_as_it_is_and_never_normalized(text: bytes, read: str) -> None:
    data = intent_of(BODY.replace(b'"d"', text).replace(b'"v"', text).replace(b'"k"', text))

    assert (data.description, data.metadata) == (read, {read: read})


def test_a_nul_in_a_text_is_published_as_it_is() -> None:
    """Postgres refuses it: the consumer dead-letters that record alone, and goes on."""
    body = with_bytes(b'"d"', b'"a\\u0000b"').replace(b'"v"', b'"\\u0000"')

    data = intent_of(body)

    assert (data.description, data.metadata) == ("a\0b", {"k": "\0"})
    assert settle(signed(body)).unstorable


@pytest.mark.parametrize("character", [b"\\u0000", b"\\n", b"\\u007f", b"\\u0085", b"\\uffff", b"\\u202e", b"\\ufeff"])
def test_an_id_with_a_character_that_no_header_may_have_is_kept(character: bytes) -> None:
    assert kept(with_bytes(b'"pi_1"', b'"pi_' + character + b'1"')) == (
        QuarantineReason.OBJECT_MALFORMED,
        "data.object.id",
    )
    assert kept(with_bytes(b'"amount":1', b'"customer":"cus_' + character + b'"')) == (
        QuarantineReason.OBJECT_MALFORMED,
        "data.object.customer",
    )


# Keys ----------------------------------------------------------------------------------------------------------------


def test_of_a_key_given_twice_the_last_value_holds_for_every_reader() -> None:
    body = with_bytes(b'"amount":1', b'"amount":1,"amount":2')

    outcome = outcome_of(body)

    assert isinstance(outcome, Event)
    assert isinstance(outcome.data, PaymentIntent)
    assert outcome.data.amount_minor == 2
    assert orjson.loads(bytes(outcome.raw))["data"]["object"]["amount"] == 2
    assert bytes(outcome.raw) == body


@pytest.mark.parametrize("body", [BODY + b"\x00", BODY + b"{}", BODY + b",", BODY[:-1], b"\x00" + BODY, b"/**/" + BODY])
def test_an_event_with_something_before_or_after_it_is_kept(body: bytes) -> None:
    assert kept(body) == (QuarantineReason.MALFORMED_JSON, "body")


def test_white_space_around_an_event_is_none_of_it() -> None:
    assert intent_of(b"\r\n\t " + BODY + b" \n") == intent_of(BODY)


# Nesting -------------------------------------------------------------------------------------------------------------


def nested(levels: int, *, opening: bytes = b"[", inner: bytes = b"", closing: bytes = b"]") -> bytes:
    """An event whose deepest container is `levels` deep; three are the event's own."""
    return with_bytes(b'"d"', b'"d","x":' + opening * (levels - 3) + inner + closing * (levels - 3))


LISTS = {"opening": b"[", "closing": b"]"}
OBJECTS = {"opening": b'{"a":', "inner": b"1", "closing": b"}"}


@pytest.mark.parametrize("containers", [LISTS, OBJECTS], ids=["lists", "objects"])
def test_an_event_as_deep_as_the_strictest_reader_goes_is_published_and_read(containers: dict[str, bytes]) -> None:
    outcome = outcome_of(nested(DEPTH_MAX, **containers))

    assert isinstance(outcome, Event)
    assert contract.decode(msgspec.json.encode(outcome)) == outcome


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 254, 255, 1000, 1020])
@pytest.mark.parametrize("containers", [LISTS, OBJECTS], ids=["lists", "objects"])
def test_a_deeper_event_is_kept_under_its_id(levels: int, containers: dict[str, bytes]) -> None:
    body = nested(levels, **containers)

    assert kept(body) == (QuarantineReason.NESTED_TOO_DEEP, "body")
    outcome = normalize(verified(body))
    assert isinstance(outcome, Unprocessable)
    assert outcome.event_id == "evt_1"


def test_depth_that_a_second_value_of_the_key_hides_from_the_tree_is_depth_all_the_same() -> None:
    body = nested(1000).replace(b'"x":', b'"amount":').replace(b'"amount":1', b'"y":1')
    body = body.replace(b'"metadata"', b'"amount":2,"metadata"')
    assert orjson.loads(body)["data"]["object"]["amount"] == 2

    assert kept(body)[0] is QuarantineReason.NESTED_TOO_DEEP


@pytest.mark.parametrize("text", [b"{" * 200, b"[" * 200, b'\\"[' * 200, b"\\\\" * 3 + b"[" * 200, b"]" * 200])
def test_brackets_in_a_text_are_no_depth(text: bytes) -> None:
    assert intent_of(with_bytes(b'"d"', b'"' + text + b'"')).description == orjson.loads(b'"' + text + b'"')


@pytest.mark.parametrize("text", [b"]" * 200, b"}" * 200, b'\\"' + b"]" * 200, b"\\\\", b"\\\\\\\\"])
def test_brackets_in_a_text_hide_no_depth(text: bytes) -> None:
    body = nested(200, opening=b'["' + text + b'",')
    body = body.replace(b",]", b"]")

    assert kept(body)[0] is QuarantineReason.NESTED_TOO_DEEP


def test_a_wide_event_is_not_deep() -> None:
    assert isinstance(outcome_of(with_bytes(b'"d"', b'"d","x":[' + b"[]," * 5000 + b"{}]")), Event)
