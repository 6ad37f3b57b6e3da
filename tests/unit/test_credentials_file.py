"""The file of credentials: whole at any moment, its owner's alone, and no message shows what is in it."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from service.credentials.book import (
    Creation,
    Credentials,
    EndpointCredentials,
    SigningSecret,
    WebhookEndpointParams,
)
from service.credentials.file import FILE_BYTES_MAX, CredentialsFile, new_key
from service.errors import ConfigurationError
from service.events import Secret
from service.ports import CredentialStore
from service.signature import fingerprint
from tests.contracts.credential_store import SHOP, TEST, CredentialStoreContract

KEY: Final = Secret(new_key())
CREDENTIALS: Final = Credentials().having("shop", SHOP).having("test", TEST)
SECRETS: Final = ("whsec_new", "whsec_old", "whsec_test", "rk_test_1", KEY.value)


class FileHarness:
    """A file in a folder of its own."""

    def __init__(self, folder: Path, key: Secret | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path, self._key, self._monkeypatch = folder / "secrets.json", key, monkeypatch
        self.store = self.another()

    def another(self) -> CredentialStore:
        return CredentialsFile(self._path, self._key)

    def fail_next_write(self) -> None:
        real = os.fsync

        def full(_: int) -> None:
            self._monkeypatch.setattr("os.fsync", real)
            raise OSError(28, "No space left on device")

        self._monkeypatch.setattr("os.fsync", full)


class TestCredentialsFile(CredentialStoreContract):
    """The file, without a key and with one."""

    @pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileHarness:
        return FileHarness(tmp_path, request.param, monkeypatch)


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CredentialsFile:
    """A file with something in it."""
    file = CredentialsFile(tmp_path / "secrets.json", request.param)
    file.write(CREDENTIALS)
    return file


@pytest.fixture
def plain(tmp_path: Path) -> CredentialsFile:
    return CredentialsFile(tmp_path / "secrets.json")


def refusal(call: Callable[[], object]) -> str:
    """The message of what a call is refused with, once it is shown to tell no secret."""
    with pytest.raises(ConfigurationError) as refused:
        call()
    told = "".join(traceback.format_exception(refused.value))
    assert not [secret for secret in SECRETS if secret in told]
    assert "\n" not in str(refused.value)
    return str(refused.value)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
moments = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- the strategy adds it
signing_secrets = st.builds(
    SigningSecret,
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1).map(
        lambda text: Secret(f"whsec_{text}")
    ),
    moments,
    st.none() | texts,
)
params = st.builds(
    WebhookEndpointParams,
    texts,
    st.lists(texts, max_size=3).map(tuple),
    st.none() | texts,
    st.booleans(),
    texts,
    st.dictionaries(texts, texts, max_size=3),
)
books = st.dictionaries(
    texts,
    st.builds(
        EndpointCredentials,
        st.lists(signing_secrets, max_size=3).map(tuple),
        st.none() | texts.map(Secret),
        st.none() | st.builds(Creation, texts, moments, params),
    ),
    max_size=3,
).map(Credentials)


@given(books, st.sampled_from([None, KEY]))
def test_any_credentials_come_back_as_they_were(credentials: Credentials, key: Secret | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = CredentialsFile(Path(folder) / "secrets.json", key)

        file.write(credentials)

        assert file.read() == credentials


def test_an_encrypted_file_shows_nothing(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path / "secrets.json", KEY)
    file.write(CREDENTIALS)

    text = file.path.read_text(encoding="ascii")

    assert not [part for part in (*SECRETS, "shop", "we_2", "example.com") if part in text]
    assert fingerprint(KEY) in text
    assert KEY.value not in repr(file) + str(file)


def test_a_file_is_its_owners_alone_whatever_the_umask(store: CredentialsFile) -> None:
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            store.write(CREDENTIALS)
        finally:
            os.umask(before)
        assert mode_of(store.path) == 0o600


def test_the_lock_beside_it_is_its_owners_alone(plain: CredentialsFile) -> None:
    with plain.held():
        assert mode_of(plain.path.with_name("secrets.json.lock")) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o666, 0o601])
def test_a_plain_file_that_others_have_rights_to_is_refused(plain: CredentialsFile, mode: int) -> None:
    plain.write(CREDENTIALS)
    plain.path.chmod(mode)

    message = refusal(plain.read)

    assert f"(mode {mode:04o}): `chmod 600 {plain.path}`" in message
    plain.path.chmod(0o600)
    assert plain.read() == CREDENTIALS


def test_an_encrypted_file_may_be_read_but_not_written_by_everybody(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path / "secrets.json", KEY)
    file.write(CREDENTIALS)

    file.path.chmod(0o664)
    assert file.read() == CREDENTIALS
    file.path.chmod(0o666)
    assert "can be written by everybody (mode 0666)" in refusal(file.read)


def test_every_truncation_is_refused(store: CredentialsFile) -> None:
    for length in reversed(range(store.path.stat().st_size)):
        os.truncate(store.path, length)
        with pytest.raises(ConfigurationError) as refused:
            store.read()
        assert str(refused.value) == (
            f"secrets.store: {store.path} is no file of credentials, or was cut short or changed"
        )


def test_every_flipped_byte_of_an_encrypted_file_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    file = CredentialsFile(tmp_path / "secrets.json", KEY)
    kept = Credentials().having("shop", TEST)
    file.write(kept)
    text = file.path.read_bytes()
    harmless = 0

    for at, byte in enumerate(text):
        for flip in (0x01, 0x20, 0x80):
            file.path.write_bytes(text[:at] + bytes([byte ^ flip]) + text[at + 1 :])
            try:
                assert file.read() == kept
                harmless += 1  # the key's fingerprint, say, which only messages show
            except ConfigurationError as refused:
                message = str(refused)
                assert message.startswith(("secrets.store: ", "secrets.key: "))
                assert not [secret for secret in SECRETS if secret in message]

    assert harmless < 30


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": "1", "endpoints": {}}',
        '{"version": 1, "endpoints": {}, "encrypted": "gAAA"}',
        '{"version": 1, "endpoints": {}, "whsec_new": 1}',
        '{"version": 1, "endpoints": {"shop": {"signing": [{"value": "whsec_new"}]}}}',
        '{"version": 1, "endpoints": {"shop": {"signing": "whsec_new"}}}',
        '{"version": 1, "endpoints": {"shop": {"api_key": ["rk_test_1"]}}}',
        '{"version": 1, "endpoints": {"shop": {"signing": [{"value": "whsec_new", "added_at": "whsec_old"}]}}}',
        '{"version": 1, "key": "whsec_new", "encrypted": "gAAA"}',
        "[" * 100_000,
        '{"version": 1, "endpoints": {"\\ud800": {}}}',
        "whsec_new",
    ],
    ids=range(16),
)
def test_what_is_no_file_of_credentials_is_refused(plain: CredentialsFile, text: str) -> None:
    plain.path.write_text(text, encoding="utf-8")
    plain.path.chmod(0o600)

    assert "is no file of credentials" in refusal(plain.read)


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        ('{"shop": {"signing": [{"value": "", "added_at": "2026-01-01T00:00:00Z"}]}}', "does not begin with whsec_"),
        ('{"shop": {"signing": [{"value": "rk_test_1", "added_at": "2026-01-01T00:00:00Z"}]}}', "does not begin with whsec_"),
        ('{"shop": {"signing": [{"value": "whsec_new", "added_at": "2026-01-01T00:00:00"}]}}', "a time of 'shop' has no time zone"),
    ],
)  # fmt: skip
def test_what_a_hand_has_put_in_is_judged(plain: CredentialsFile, endpoints: str, message: str) -> None:
    plain.path.write_text(f'{{"version": 1, "endpoints": {endpoints}}}', encoding="utf-8")
    plain.path.chmod(0o600)

    assert message in refusal(plain.read)


def test_a_file_of_a_later_version_is_not_guessed_at(plain: CredentialsFile) -> None:
    plain.path.write_text('{"version": 2, "shops": {}}', encoding="utf-8")

    assert "is of version 2; this one reads 1" in refusal(plain.read)


def test_an_encrypted_file_needs_its_key(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    CredentialsFile(path, KEY).write(CREDENTIALS)

    assert refusal(CredentialsFile(path).read).startswith(
        f"secrets.key: is needed: {path} is encrypted with the key {fingerprint(KEY)}"
    )


def test_another_key_is_told_from_a_changed_file(tmp_path: Path) -> None:
    path, other = tmp_path / "secrets.json", Secret(new_key())
    CredentialsFile(path, KEY).write(CREDENTIALS)

    wrong = refusal(CredentialsFile(path, other).read)
    path.write_text(path.read_text().replace("gAAAAA", "gAAAAB"))
    changed = refusal(CredentialsFile(path, KEY).read)

    assert wrong == (f"secrets.key: {path} was encrypted with the key {fingerprint(KEY)}; here is {fingerprint(other)}")
    assert changed == f"secrets.store: {path} was changed without the key {fingerprint(KEY)} that it was encrypted with"
    assert other.value not in wrong


def test_of_several_keys_the_first_encrypts_and_all_decrypt(tmp_path: Path) -> None:
    path, new = tmp_path / "secrets.json", new_key()
    CredentialsFile(path, KEY).write(CREDENTIALS)
    both = CredentialsFile(path, Secret(f"{new}\n  {KEY.value}\n"))

    assert both.read() == CREDENTIALS
    both.write(both.read())

    assert CredentialsFile(path, Secret(new)).read() == CREDENTIALS
    assert both.key_fingerprint == fingerprint(Secret(new))
    assert f"was encrypted with the key {fingerprint(Secret(new))}" in refusal(CredentialsFile(path, KEY).read)


@pytest.mark.parametrize("key", ["", " ", "hunter2", "hunter2" * 8, f"{KEY.value} hunter2", KEY.value[:-2], "hünter2"])
def test_a_key_that_is_none_is_refused_before_anything_is_read(tmp_path: Path, key: str) -> None:
    message = refusal(lambda: CredentialsFile(tmp_path / "secrets.json", Secret(key)))

    assert message.startswith("secrets.key: must be 32 bytes in URL-safe base64")
    assert "nter2" not in message


def test_with_a_key_a_file_that_is_not_encrypted_is_taken_to_be_encrypted_only(plain: CredentialsFile) -> None:
    plain.write(CREDENTIALS)
    file = CredentialsFile(plain.path, KEY)

    message = refusal(file.read)

    assert message.endswith("is not encrypted, and there is a secrets.key: `stripe-ingest secrets encrypt` encrypts it")
    assert file.read_to_encrypt() == CREDENTIALS


def test_a_file_that_is_too_long_is_neither_written_nor_read(plain: CredentialsFile) -> None:
    plain.write(CREDENTIALS)
    long = Credentials().having("shop", EndpointCredentials(api_key=Secret("k" * FILE_BYTES_MAX)))

    assert "would be longer than" in refusal(lambda: plain.write(long))
    assert plain.read() == CREDENTIALS
    plain.path.write_bytes(b" " * (FILE_BYTES_MAX + 1))
    assert "is longer than" in refusal(plain.read)


def test_no_file_yet_is_nothing_kept_but_its_folder_must_be_there(tmp_path: Path) -> None:
    missing = CredentialsFile(tmp_path / "not" / "secrets.json")

    def hold() -> None:
        with missing.held():
            pass

    assert CredentialsFile(tmp_path / "secrets.json").read() == Credentials()
    for call in (missing.read, lambda: missing.write(CREDENTIALS), hold):
        assert refusal(call) == f"secrets.store: the folder of {missing.path} is not there"


def test_what_is_no_regular_file_is_refused_without_waiting(plain: CredentialsFile) -> None:
    os.mkfifo(plain.path)
    assert "is no regular file" in refusal(plain.read)
    plain.path.unlink()

    plain.path.mkdir()
    assert "secrets.json" in refusal(plain.read)
    assert "cannot be written" in refusal(lambda: plain.write(CREDENTIALS))
    assert names(plain.path.parent) == ["secrets.json"]


def test_a_path_under_a_file_cannot_be_read(plain: CredentialsFile) -> None:
    plain.write(CREDENTIALS)

    assert "Not a directory" in refusal(CredentialsFile(plain.path / "secrets.json").read)


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    target, link = tmp_path / "volume" / "kept.json", tmp_path / "secrets.json"
    link.symlink_to(target)
    file = CredentialsFile(link)

    file.write(Credentials())
    file.write(CREDENTIALS)

    assert link.is_symlink()
    assert CredentialsFile(target).read() == file.read() == CREDENTIALS
    assert names(tmp_path) == ["secrets.json", "volume"]
    with file.held():
        assert names(target.parent) == ["kept.json", "kept.json.lock"]


def test_a_link_to_itself_is_refused(plain: CredentialsFile) -> None:
    plain.path.symlink_to(plain.path)

    assert "cannot be read" in refusal(plain.read)
    assert "cannot be written" in refusal(lambda: plain.write(CREDENTIALS))


@pytest.mark.parametrize("suffix", ["new", "lock"])
def test_a_link_that_somebody_has_laid_beside_it_leads_nowhere(plain: CredentialsFile, suffix: str) -> None:
    victim = plain.path.with_name("victim")
    victim.write_text("as it was")
    beside = plain.path.with_name(f"secrets.json.{suffix}")
    beside.symlink_to(victim)

    if suffix == "new":
        plain.write(CREDENTIALS)
        assert plain.read() == CREDENTIALS
        assert not beside.exists()
    else:
        with pytest.raises(ConfigurationError), plain.held():
            pass

    assert victim.read_text() == "as it was"


@pytest.mark.parametrize("leftover", [b"", b'{"version": 1, "endp', b"x" * 10_000])
def test_what_a_crash_has_left_is_not_read_and_goes_with_the_next_write(
    store: CredentialsFile, leftover: bytes
) -> None:
    beside = store.path.with_name("secrets.json.new")
    beside.write_bytes(leftover)
    beside.chmod(0o644)

    assert store.read() == CREDENTIALS
    store.write(Credentials().having("test", TEST))

    assert store.read() == Credentials().having("test", TEST)
    assert not beside.exists()
    assert mode_of(store.path) == 0o600


@pytest.mark.parametrize("call", ["open", "fchmod", "fdopen", "fsync", "replace"])
def test_a_failure_of_any_step_leaves_the_old_and_nothing_beside_it(
    store: CredentialsFile, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr("pathlib.Path.replace" if call == "replace" else f"os.{call}", fail)
        message = refusal(lambda: store.write(Credentials()))

    assert message == f"secrets.store: {store.path} cannot be written: Input/output error"
    assert store.read() == CREDENTIALS
    assert names(store.path.parent) == ["secrets.json"]


def test_it_is_on_the_disk_under_its_name_when_write_returns(
    plain: CredentialsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        steps.append("name")
        return replace(self, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("pathlib.Path.replace", replaced)
    plain.write(CREDENTIALS)

    assert steps == ["file", "name", "folder"]


KILLED_AT: Final = """
import os, pathlib, signal, sys
from pathlib import Path
from service.credentials.book import Credentials
from service.credentials.file import CredentialsFile

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

target = {"fsync": os, "fchmod": os, "replace": pathlib.Path}[sys.argv[2]]
setattr(target, sys.argv[2], die)
file = CredentialsFile(Path(sys.argv[1]))
with file.held():
    file.write(Credentials())
"""


@pytest.mark.parametrize("call", ["fchmod", "fsync", "replace"])
def test_a_process_that_is_killed_before_the_rename_leaves_the_old(plain: CredentialsFile, call: str) -> None:
    plain.write(CREDENTIALS)

    ended = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(plain.path), call], timeout=60, check=False, capture_output=True
    )

    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert plain.read() == CREDENTIALS
    with plain.held():  # the lock went with the process
        plain.write(Credentials())
    assert plain.read() == Credentials()
    assert names(plain.path.parent) == ["secrets.json", "secrets.json.lock"]


def test_a_file_of_another_user_is_not_taken_from_him(plain: CredentialsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.write(CREDENTIALS)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)

    assert f"belongs to another user (uid {os.getuid()})" in refusal(lambda: plain.write(Credentials()))
    assert plain.read() == CREDENTIALS


def test_root_leaves_the_file_to_whom_it_belongs(plain: CredentialsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only root gives files away. Anybody else is root to the code alone, and the file goes to whom it comes from.
    us = (os.getuid(), os.getgid())
    first, second = ((4321, 8765), (1234, 5678)) if os.getuid() == 0 else (us, us)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    given: list[tuple[int, int]] = []
    give = os.fchown

    def recorded(descriptor: int, user: int, group: int) -> None:
        given.append((user, group))
        give(descriptor, user, group)

    monkeypatch.setattr("os.fchown", recorded)

    def owners(*paths: Path) -> Mapping[str, tuple[int, int]]:
        return {path.name: (path.stat().st_uid, path.stat().st_gid) for path in paths}

    lock = plain.path.with_name("secrets.json.lock")
    os.chown(plain.path.parent, *first)
    with plain.held():
        plain.write(CREDENTIALS)
    assert owners(plain.path, lock) == {"secrets.json": first, "secrets.json.lock": first}
    assert set(given) == {first}

    os.chown(plain.path, *second)
    plain.write(CREDENTIALS)
    assert owners(plain.path) == {"secrets.json": second}
    assert given[-1] == second
    assert mode_of(plain.path) == 0o600


def test_the_key_that_is_made_is_one() -> None:
    first, second = new_key(), new_key()

    assert first != second
    assert Fernet(first).decrypt(Fernet(first).encrypt(b"x")) == b"x"
