"""Sealed bodies: readable with the key and under their own record key, and no other way."""

import hashlib
import re
from base64 import b64encode

import pytest

from service.errors import ConfigurationError
from service.redaction import SEALING_BYTES, CannotUnseal, RedactionKeys, Sealing

KEYS = RedactionKeys.of(b64encode(bytes(range(32))).decode())
BODY = b'{"email": "a@example.org"'


def test_a_sealed_body_is_read_again_with_the_key() -> None:
    sealed = Sealing(KEYS).seal(BODY, record_key=b"evt_1")

    assert Sealing(KEYS).unseal(sealed, record_key=b"evt_1") == BODY
    assert len(sealed) == len(BODY) + SEALING_BYTES
    assert b"example" not in sealed


def test_the_same_body_is_sealed_differently_each_time() -> None:
    assert len({Sealing(KEYS).seal(BODY, record_key=b"evt_1") for _ in range(50)}) == 50


@pytest.mark.parametrize("position", [0, 11, 12, 20, -1])
def test_a_changed_body_cannot_be_read(position: int) -> None:
    sealed = bytearray(Sealing(KEYS).seal(BODY, record_key=b"evt_1"))
    sealed[position] ^= 1

    with pytest.raises(CannotUnseal):
        Sealing(KEYS).unseal(bytes(sealed), record_key=b"evt_1")


def test_neither_another_key_nor_another_record_key_opens_it() -> None:
    sealed = Sealing(KEYS).seal(BODY, record_key=b"evt_1")
    other = RedactionKeys.of(b64encode(bytes(32)).decode())

    with pytest.raises(CannotUnseal):
        Sealing(other).unseal(sealed, record_key=b"evt_1")
    with pytest.raises(CannotUnseal):
        Sealing(KEYS).unseal(sealed, record_key=b"evt_2")
    with pytest.raises(CannotUnseal):
        Sealing(KEYS).unseal(sealed[:27], record_key=b"evt_1")


def test_a_bodys_name_needs_the_key() -> None:
    other = RedactionKeys.of(b64encode(bytes(32)).decode())

    assert Sealing(KEYS).name(BODY) == Sealing(KEYS).name(BODY) != Sealing(KEYS).name(BODY + b" ")
    assert Sealing(KEYS).name(BODY) != Sealing(other).name(BODY)


def test_the_first_of_several_keys_seals_hashes_and_names_and_all_of_them_open() -> None:
    old, new = b64encode(bytes(range(32))).decode(), b64encode(b"n" * 32).decode()
    rotated, alone = RedactionKeys.of(f"  {new}\r\n\n{old} \n"), RedactionKeys.of(new)

    assert (rotated.hashing, rotated.sealing, rotated.naming, rotated.fingerprint) == (
        alone.hashing, alone.sealing, alone.naming, alone.fingerprint,
    )  # fmt: skip
    assert set(rotated.opening) == {alone.fingerprint, KEYS.fingerprint}
    assert Sealing(rotated).unseal(Sealing(KEYS).seal(BODY, record_key=b"k"), record_key=b"k") == BODY
    assert Sealing(alone).unseal(Sealing(rotated).seal(BODY, record_key=b"k"), record_key=b"k") == BODY


@pytest.mark.parametrize("older", ["short", "not base64 at all! " * 4])
def test_an_older_key_that_is_none_is_refused_too(older: str) -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.redact_key: must be at least 32") as refused:
        RedactionKeys.of(f"{b64encode(bytes(32)).decode()}\n{older}")

    assert older not in str(refused.value)


def test_a_fingerprint_tells_keys_apart_and_is_no_part_of_one() -> None:
    secrets = [bytes([number]) * 32 for number in range(50)]
    prints = {RedactionKeys.of(b64encode(secret).decode()).fingerprint for secret in secrets}

    assert len(prints) == 50
    assert re.fullmatch(r"[0-9a-f]{16}", KEYS.fingerprint)
    assert KEYS.fingerprint == RedactionKeys.of(b64encode(bytes(range(32))).decode()).fingerprint
    assert KEYS.fingerprint not in {hashlib.sha256(bytes(range(32))).hexdigest()[:16], bytes(range(8)).hex()}
    assert not any(bytes.fromhex(KEYS.fingerprint) in key for key in (KEYS.hashing, KEYS.sealing, KEYS.naming))


def test_the_three_keys_are_different_ones() -> None:
    assert len({KEYS.hashing, KEYS.sealing, KEYS.naming}) == 3
    assert {len(key) for key in (KEYS.hashing, KEYS.sealing, KEYS.naming)} == {32}


def test_a_hexadecimal_key_will_do() -> None:
    assert RedactionKeys.of("0123456789abcdef" * 4) != KEYS  # as base64 reads it, 48 bytes


@pytest.mark.parametrize("secret", ["", "short", b64encode(bytes(31)).decode(), "not base64 at all! " * 4, "ä" * 64])
def test_a_key_that_is_none_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.redact_key: must be at least 32") as refused:
        RedactionKeys.of(secret)

    assert not secret or secret not in str(refused.value)
    assert refused.value.__cause__ is None


def test_keys_are_not_shown() -> None:
    assert repr(KEYS) == f"RedactionKeys(fingerprint={KEYS.fingerprint!r})"
    assert repr(Sealing(KEYS)) == "Sealing()"
