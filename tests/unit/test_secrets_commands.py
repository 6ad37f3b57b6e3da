"""`secrets`, and `config check` of what the store has: what they keep and tell, and that none of it is a secret."""

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from cryptography.fernet import Fernet

from service.__main__ import main
from service.credentials.book import Credentials, EndpointCredentials, SigningSecret
from service.credentials.file import CredentialsFile, new_key
from service.events import Secret
from service.signature import fingerprint
from tests.contracts.credential_store import SHOP

CONFIGURATION: Final = """
[dedupe]
url = "memory://"
[secrets]
store = "secrets.json"
[[endpoints]]
name = "shop"
mode = "test"
[[endpoints]]
name = "live"
mode = "live"
secrets = ["whsec_configured"]
api_key = "rk_live_configured"
"""
T0: Final = datetime(2026, 11, 20, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


class Terminal(io.TextIOWrapper):
    """Input that somebody types."""

    def isatty(self) -> bool:
        return True


Run: TypeAlias = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in a folder with a configuration. Each time, what was given as a secret must not be shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "stripe-ingest.toml").write_text(CONFIGURATION)

    def ended(*arguments: str, given: str | bytes = "", terminal: bool = False) -> Ended:
        text = io.BytesIO(given.encode() if isinstance(given, str) else given)
        monkeypatch.setattr(sys, "stdin", Terminal(text) if terminal else io.TextIOWrapper(text))
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        assert not [part for part in ("whsec_configured", "rk_live_configured", "hunter") if part in out + err]
        return Ended(done.value.code, out, err)

    return ended


@pytest.fixture
def store(tmp_path: Path) -> CredentialsFile:
    return CredentialsFile(tmp_path / "secrets.json")


def name_of(value: str) -> str:
    return fingerprint(Secret(value))


def values(kept: EndpointCredentials) -> list[str]:
    return [each.value.value for each in kept.signing]


def listed(run: Run) -> list[dict[str, Any]]:
    ended = run("secrets", "list", "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert isinstance(found, list)
    return found


def test_a_signing_secret_is_read_from_standard_input_and_kept(run: Run, store: CredentialsFile) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    ended = run("secrets", "set", "shop", "signing-secret", given="whsec_hunter1\n")

    prints = name_of("whsec_hunter1")
    assert ended == Ended(
        0, f"shop: the signing-secret {prints} is kept now; the store has {prints} (newest first).\n", ""
    )
    (kept,) = store.read().of("shop").signing
    assert kept.value == Secret("whsec_hunter1")
    assert before <= kept.added_at <= datetime.now(UTC)
    assert kept.webhook_endpoint_id is None


def test_a_new_signing_secret_comes_before_the_one_that_is_kept_unless_it_is_to_replace_it(
    run: Run, store: CredentialsFile
) -> None:
    run("secrets", "set", "shop", "signing-secret", given="whsec_hunter1")

    run("secrets", "set", "shop", "signing-secret", "--webhook-endpoint", "we_2", given="whsec_hunter2")
    kept = store.read().of("shop")
    assert values(kept) == ["whsec_hunter2", "whsec_hunter1"]
    assert [each.webhook_endpoint_id for each in kept.signing] == ["we_2", None]

    run("secrets", "set", "shop", "signing-secret", "--replace", given="whsec_hunter3")
    assert values(store.read().of("shop")) == ["whsec_hunter3"]


def test_a_secret_that_is_kept_already_changes_nothing(run: Run, store: CredentialsFile) -> None:
    run("secrets", "set", "shop", "signing-secret", given="whsec_hunter1")
    credentials, written = store.read(), store.path.stat().st_mtime_ns

    ended = run("secrets", "set", "shop", "signing-secret", given="whsec_hunter1")

    assert "is kept already" in ended.out
    assert store.read() == credentials
    assert store.path.stat().st_mtime_ns == written


def test_an_api_key_takes_the_place_of_the_one_before(run: Run, store: CredentialsFile) -> None:
    run("secrets", "set", "shop", "api-key", given="sk_test_hunter1\n")
    ended = run("secrets", "set", "shop", "api-key", given="rk_test_hunter2\n")

    assert ended == Ended(0, f"shop: the api-key {name_of('rk_test_hunter2')} is kept now.\n", "")
    assert store.read().of("shop") == EndpointCredentials(api_key=Secret("rk_test_hunter2"))


def test_what_the_configuration_has_itself_is_kept_with_a_warning(run: Run, store: CredentialsFile) -> None:
    for kind, value in (("signing-secret", "whsec_hunter1"), ("api-key", "sk_live_hunter1")):
        ended = run("secrets", "set", "live", kind, given=value)
        assert ended.code == 0
        assert ended.err == "warning: live: the configuration has its own, which overrides what is kept\n"

    assert values(store.read().of("live")) == ["whsec_hunter1"]


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("signing-secret", "", "the signing-secret of shop: one is expected on standard input"),
        ("signing-secret", "\n", "the signing-secret of shop: one is expected on standard input"),
        ("signing-secret", "whsec_hunter1 whsec_hunter2", "the signing-secret of shop: one is expected"),
        ("signing-secret", "whsec_hunter" * 1000, "the signing-secret of shop: one is expected"),
        ("signing-secret", "hunter2", "the signing-secret of shop: must begin with whsec_"),
        ("signing-secret", "sk_test_hunter2", "the signing-secret of shop: must begin with whsec_"),
        ("signing-secret", "whsec_hünter2".encode("latin-1"), "the signing-secret of shop: must begin with whsec_"),
        ("api-key", "", "the api-key of shop: one is expected"),
        ("api-key", "whsec_hunter2", "endpoints (shop).api_key: must be a secret or restricted key"),
        ("api-key", "pk_test_hunter2", "endpoints (shop).api_key: must be a secret or restricted key"),
        ("api-key", "sk_live_hunter2", "endpoints (shop).api_key: is a live key, and the endpoint's mode is test"),
        ("api-key", "rk_live_hunter2", "endpoints (shop).api_key: is a live key, and the endpoint's mode is test"),
    ],
)  # fmt: skip
def test_what_cannot_be_the_secret_is_refused(
    run: Run, store: CredentialsFile, kind: str, given: str | bytes, message: str
) -> None:
    ended = run("secrets", "set", "shop", kind, given=given)

    assert ended.code == 2
    assert ended.err.startswith(f"stripe-ingest: configuration: {message}")
    assert ended.err.count("\n") == 1
    assert store.read() == Credentials()


def test_a_test_key_is_refused_for_a_live_endpoint(run: Run) -> None:
    ended = run("secrets", "set", "live", "api-key", given="rk_test_hunter2")

    assert ended.code == 2
    assert "endpoints (live).api_key: is a test key, and the endpoint's mode is live" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("shop", "signing-secret", "whsec_hunter2"),
        ("shop", "whsec_hunter2"),
        ("whsec_hunter2", "signing-secret"),
        ("sk_live_hunter2", "api-key"),
    ],
)
def test_a_secret_in_argv_is_refused_and_not_shown_again(
    run: Run, store: CredentialsFile, arguments: tuple[str, ...]
) -> None:
    ended = run("secrets", "set", *arguments, given="whsec_hunter1")

    assert ended.code == 2
    assert (
        "read from standard input, never from the command line" in ended.err or "must be signing-secret or" in ended.err
    )
    assert store.read() == Credentials()


@pytest.mark.parametrize(
    "arguments",
    [
        ("shop", "signing-secret", "whsec_hunter2"),
        ("shop", "whsec_hunter2"),
        ("shop", "signing-secret", "--fingerprint", "whsec_hunter2"),
        ("whsec_hunter2", "signing-secret"),
    ],
)
def test_a_secret_that_is_named_by_itself_is_not_removed_and_not_shown_again(
    run: Run, store: CredentialsFile, arguments: tuple[str, ...]
) -> None:
    run("secrets", "set", "shop", "signing-secret", given="whsec_hunter2")

    assert run("secrets", "remove", *arguments, "--yes").code == 2

    assert values(store.read().of("shop")) == ["whsec_hunter2"]


@pytest.mark.parametrize("command", [("set", "shp", "api-key"), ("remove", "shp", "api-key")])
def test_an_endpoint_that_is_not_there_is_told_with_those_that_are(run: Run, command: tuple[str, ...]) -> None:
    ended = run("secrets", *command, given="sk_test_hunter2")

    assert (ended.code, ended.err) == (
        2,
        "stripe-ingest: configuration: there is no endpoint 'shp'; there are live, shop\n",
    )


def test_without_a_store_nothing_is_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "stripe-ingest.toml").write_text(CONFIGURATION.replace('store = "secrets.json"', ""))

    for command in (("set", "shop", "api-key"), ("remove", "shop", "api-key"), ("encrypt",)):
        ended = run("secrets", *command, given="sk_test_hunter2")
        assert ended.code == 2
        assert "configuration: secrets.store: is needed" in ended.err
    assert [each["source"] for each in listed(run)] == ["configuration", "configuration"]


def test_options_that_mean_nothing_are_refused(run: Run) -> None:
    for command in (
        ("set", "shop", "api-key", "--replace"),
        ("set", "shop", "api-key", "--webhook-endpoint", "we_1"),
        ("set", "shop", "signing-secret", "--webhook-endpoint", "ep_1"),
        ("remove", "shop", "api-key", "--fingerprint", "0" * 12),
        ("set", "shop", "api-keys"),
    ):
        assert run("secrets", *command, given="sk_test_hunter2").code == 2


def test_on_a_terminal_the_secret_is_asked_for_and_not_echoed(
    run: Run, store: CredentialsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "whsec_hunter1"

    monkeypatch.setattr("click.termui.hidden_prompt_func", prompt)

    ended = run("secrets", "set", "shop", "signing-secret", terminal=True)

    assert asked == ["The signing-secret of shop: "]
    assert ended.code == 0
    assert values(store.read().of("shop")) == ["whsec_hunter1"]


def test_a_registration_that_cannot_be_repeated_ends_with_the_secret_that_was_looked_up(
    run: Run, store: CredentialsFile
) -> None:
    creation = SHOP.creation
    assert creation is not None
    begun = {"shop": timedelta(hours=24), "live": timedelta(minutes=5)}
    store.write(
        Credentials(
            {
                name: EndpointCredentials(creation=replace(creation, begun_at=datetime.now(UTC) - age))
                for name, age in begun.items()
            }
        )
    )

    told = [run("secrets", "set", name, "signing-secret", given="whsec_hunter1").out for name in begun]

    assert "the registration begun" in told[0]
    assert store.read().of("shop").creation is None
    assert "the registration begun" not in told[1]
    assert store.read().of("live").creation is not None


def test_the_list_tells_where_each_secret_comes_from(run: Run, store: CredentialsFile) -> None:
    def kept(*values: str, api_key: str) -> EndpointCredentials:
        signing = tuple(SigningSecret(Secret(value), T0, "we_1") for value in values)
        return EndpointCredentials(signing, Secret(api_key))

    store.write(
        Credentials()
        .having("old", EndpointCredentials(signing=(SigningSecret(Secret("whsec_hunter4"), T0),)))
        .having("live", replace(kept("whsec_hunter3", api_key="rk_live_hunter3"), creation=SHOP.creation))
        .having("shop", kept("whsec_hunter2", "whsec_hunter1", api_key="rk_test_hunter1"))
    )

    def row(endpoint: str, kind: str, value: str, source: str, **more: Any) -> dict[str, Any]:
        of_store = source == "store" and kind == "signing-secret"
        return {
            "endpoint": endpoint,
            "kind": kind,
            "fingerprint": name_of(value),
            "source": source,
            "added_at": "2026-11-20T10:00:00Z" if of_store else None,
            "webhook_endpoint_id": "we_1" if of_store else None,
            "overridden": False,
            "configured": True,
        } | more

    assert listed(run) == [
        row("shop", "signing-secret", "whsec_hunter2", "store"),
        row("shop", "signing-secret", "whsec_hunter1", "store"),
        row("shop", "api-key", "rk_test_hunter1", "store"),
        row("live", "signing-secret", "whsec_configured", "configuration"),
        row("live", "api-key", "rk_live_configured", "configuration"),
        row("live", "signing-secret", "whsec_hunter3", "store", overridden=True),
        row("live", "api-key", "rk_live_hunter3", "store", overridden=True),
        row("old", "signing-secret", "whsec_hunter4", "store", webhook_endpoint_id=None, configured=False),
    ]  # fmt: skip
    ended = run("secrets", "list")
    assert ended.code == 0
    assert all(name_of(value) in ended.out for value in ("whsec_configured", "whsec_hunter1", "rk_live_hunter3"))
    assert ended.out.count("store (overridden)") == 2
    assert ended.out.count("store (no such endpoint)") == 1
    assert len(ended.out.splitlines()) == 1 + 8
    assert ended.err == "live: its registration at Stripe was begun 2026-11-20T09:00:00Z: `endpoints apply` ends it\n"


def test_an_empty_list_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "stripe-ingest.toml").write_text("")

    assert run("secrets", "list") == Ended(0, "There is none.\n", "")
    assert listed(run) == []


def test_one_of_several_signing_secrets_is_removed_by_its_fingerprint(run: Run, store: CredentialsFile) -> None:
    for value in ("whsec_hunter1", "whsec_hunter2"):
        run("secrets", "set", "shop", "signing-secret", given=value)

    ambiguous = run("secrets", "remove", "shop", "signing-secret")
    unknown = run("secrets", "remove", "shop", "signing-secret", "--fingerprint", "whsec_hunter1")
    ended = run("secrets", "remove", "shop", "signing-secret", "--fingerprint", name_of("whsec_hunter1"))

    assert ambiguous.code == unknown.code == 2
    assert f"--fingerprint {name_of('whsec_hunter2')} or {name_of('whsec_hunter1')}" in ambiguous.err
    assert f"there are {name_of('whsec_hunter2')}, {name_of('whsec_hunter1')}" in unknown.err
    assert ended.code == 0
    assert values(store.read().of("shop")) == ["whsec_hunter2"]


def test_the_last_signing_secret_is_removed_only_where_that_is_meant(run: Run, store: CredentialsFile) -> None:
    for name in ("shop", "live"):
        run("secrets", "set", name, "signing-secret", given="whsec_hunter1")

    refused = run("secrets", "remove", "shop", "signing-secret")
    assert refused.code == 2
    assert "shop would be left without a signing secret" in refused.err
    assert values(store.read().of("shop")) == ["whsec_hunter1"]

    assert run("secrets", "remove", "shop", "signing-secret", "--yes").code == 0
    assert run("secrets", "remove", "live", "signing-secret").code == 0  # the configuration has its own
    assert store.read() == Credentials()


def test_all_that_is_kept_of_an_endpoint_is_removed_also_where_it_is_configured_no_more(
    run: Run, store: CredentialsFile
) -> None:
    store.write(Credentials().having("old", SHOP).having("shop", SHOP))

    assert run("secrets", "remove", "old", "everything").code == 0
    assert run("secrets", "remove", "shop", "everything").code == 2
    assert run("secrets", "remove", "shop", "api-key").code == 0

    assert store.read() == Credentials().having("shop", replace(SHOP, api_key=None))
    for name, kind in (("shop", "api-key"), ("live", "signing-secret"), ("live", "everything")):
        ended = run("secrets", "remove", name, kind)
        assert (ended.code, "there is no" in ended.err) == (2, True)


def test_while_another_process_changes_the_store_the_command_is_to_come_again(run: Run, store: CredentialsFile) -> None:
    with store.held():
        for command in (("set", "shop", "api-key"), ("remove", "shop", "api-key")):
            ended = run("secrets", *command, given="sk_test_hunter2")
            assert (ended.code, ended.err) == (75, "stripe-ingest: secrets.json is being changed by another process\n")


def test_a_key_is_printed_or_written_where_no_file_is(run: Run, tmp_path: Path) -> None:
    printed = run("secrets", "key").out.strip()
    file = tmp_path / "store-key"
    ended = run("secrets", "key", "--output", str(file))
    written = file.read_text().strip()

    assert printed != written
    for key in (printed, written):
        Fernet(key)
    assert ended == Ended(0, f"wrote {file}: the key {name_of(written)}\n", "")
    assert file.stat().st_mode & 0o777 == 0o600
    again = run("secrets", "key", "--output", str(file))
    assert (again.code, again.err) == (
        2,
        f"stripe-ingest: configuration: {file}: is there already; it is left as it is\n",
    )
    assert file.read_text().strip() == written


def test_a_key_that_cannot_be_put_on_the_disk_is_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, synced, fsync = tmp_path / "store-key", list[bool](), os.fsync

    def full(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if synced == [False, True]:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", full)
    ended = run("secrets", "key", "--output", str(file))

    assert (ended.code, ended.err) == (
        2,
        f"stripe-ingest: configuration: {file}: cannot be written: No space left on device\n",
    )
    assert synced == [False, True]
    assert not file.exists()
    assert run("secrets", "key", "--output", str(file)).code == 0


def test_the_store_is_encrypted_and_its_key_changed_without_losing_anything(
    run: Run, store: CredentialsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_key(), new_key()
    store.write(Credentials().having("shop", SHOP))
    credentials = store.read()
    assert "configuration: secrets.key: is needed" in run("secrets", "encrypt").err

    monkeypatch.setenv("STRIPE_INGEST__SECRETS__KEY", first)
    assert "secrets.json is not encrypted" in run("secrets", "list").err
    assert run("secrets", "encrypt").out == f"secrets.json is encrypted with the key {name_of(first)}.\n"
    assert "whsec" not in store.path.read_text()

    monkeypatch.setenv("STRIPE_INGEST__SECRETS__KEY", f"{second} {first}")
    assert len(listed(run)) == 5
    assert run("secrets", "encrypt").code == 0

    monkeypatch.setenv("STRIPE_INGEST__SECRETS__KEY", second)
    assert len(listed(run)) == 5
    assert replace(store, key=Secret(second)).read() == credentials
    monkeypatch.setenv("STRIPE_INGEST__SECRETS__KEY", first)
    ended = run("secrets", "list")
    assert ended.code == 2
    assert f"was encrypted with the key {name_of(second)}; here is {name_of(first)}" in ended.err
    assert not [key for key in (first, second) if key in ended.err]


def test_where_nothing_is_kept_yet_there_is_nothing_to_encrypt(
    run: Run, store: CredentialsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_INGEST__SECRETS__KEY", new_key())

    assert run("secrets", "encrypt") == Ended(
        0, "There is no secrets.json yet: what will be kept will be encrypted.\n", ""
    )
    assert not store.path.exists()


def test_the_check_of_a_configuration_tells_what_the_store_has(run: Run, store: CredentialsFile) -> None:
    before = run("config", "check")
    store.write(Credentials().having("shop", replace(SHOP, creation=None)).having("live", SHOP))

    after = run("config", "check")

    assert before.code == after.code == 0
    assert before.err == "warning: endpoints[0] (shop).secrets: there is none yet, so that every delivery is refused\n"
    assert after.err == ""
    rows = [" ".join(line.split()) for line in after.out.splitlines()]
    assert "shop /webhooks/shop test - 2 in the store in the store" in rows
    assert "live /webhooks/live live - 1 yes" in rows
    assert not [part for part in ("whsec_", "rk_test", "rk_live") if part in after.out + after.err]


def test_a_key_in_the_store_is_checked_as_one_in_the_configuration(run: Run, store: CredentialsFile) -> None:
    store.write(Credentials().having("shop", EndpointCredentials(api_key=Secret("sk_live_hunter2"))))

    ended = run("config", "check")

    assert ended.code == 2
    assert "endpoints (shop).api_key: is a live key, and the endpoint's mode is test" in ended.err


@pytest.mark.parametrize(
    "text", ["", "{", '{"version": 1, "endpoints": {"shop": {"api_key": "sk_test_hunter2", "x": }}}']
)
def test_a_store_that_cannot_be_read_is_told_in_a_line(run: Run, store: CredentialsFile, text: str) -> None:
    store.path.write_text(text)

    for command in (("config", "check"), ("secrets", "list"), ("secrets", "set", "shop", "api-key")):
        ended = run(*command, given="sk_test_hunter2")
        assert ended.code == 2
        assert ended.err == (
            "stripe-ingest: configuration: secrets.store: secrets.json is no file of credentials, or was cut short or"
            " changed\n"
        )
        assert store.path.read_text() == text
