"""What the command line ends with: exit codes, messages of one line, and commands that need no configuration."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO, TypeAlias

import pytest

from service.__main__ import main
from service.errors import (
    IngestError,
    PublishRefused,
    RowRefused,
    StoreUnavailable,
    StripeKeyRefused,
    StripeObjectMissing,
    StripePermissionMissing,
    StripeRequestRefused,
    StripeUnavailable,
)

WITHOUT_CONFIGURATION: Final = (
    ("events", "list", "refund.created"),
    ("contract", "list"),
    ("contract", "asyncapi"),
    ("contract", "write", "published"),
)
JUNK: Final = (
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"info": []}',
    '{"info": null}',
    '{"info": {"title": "another"}, "channels": {}, "components": {"schemas": {}}}',
    *(
        f'{{"info": {{"title": "stripe-ingest"}}, "channels": {channels}, "components": {components}}}'
        for channels, components in (
            ("null", '{"schemas": {}}'),
            ("[]", '{"schemas": {}}'),
            ('"payments"', '{"schemas": {}}'),
            ('{"payments": null}', '{"schemas": {}}'),
            ("{}", "null"),
            ("{}", "[]"),
            ("{}", '{"schemas": "Charge"}'),
            ("{}", '{"schemas": {"Charge": null}}'),
            ("{}", '{"schemas": {"Charge": []}}'),
        )
    ),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


Run: TypeAlias = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in an empty folder, without any setting in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "service.commands.options.configure", lambda *_: None
    )  # the log of the other tests stays as it is
    for name in [name for name in os.environ if name.startswith("STRIPE_INGEST")]:
        monkeypatch.delenv(name)

    def ended(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return Ended(done.value.code, out, err)

    return ended


def is_one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StripeUnavailable("GET /v1/events: Stripe answered 503; asked 6 times"), 75),
        (StripeKeyRefused("Stripe refuses the API key"), 2),
        (StripePermissionMissing("the API key may not read /v1/events", scope="event_read"), 1),
        (StripeObjectMissing("GET /v1/charges/ch_1: Stripe has no such object"), 1),
        (StripeRequestRefused("GET /v1/events: Stripe answered 400 (parameter_unknown)"), 1),
        (PublishRefused("the topic stripe.payments refuses the record"), 1),
        (RowRefused("Postgres refuses a row: SQLSTATE 22003", "22003"), 1),
        (StoreUnavailable("no answer from Postgres: TimeoutError"), 75),
    ],
    ids=lambda value: getattr(value, "tag", ""),
)
def test_whether_trying_again_may_help_decides_the_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: IngestError, code: int
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("service.__main__.cli.main", fail)

    ended = run()

    assert (ended.code, ended.err) == (code, f"stripe-ingest: {error}\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('api_key = "hunter2"', "endpoints (shop).api_key: must be a secret or restricted key"),
        ('api_key = "sk_test_hunter2"', "endpoints (shop).api_key: is a test key"),
        ('[reconcile]\napi_key = "pk_live_hunter2"', "reconcile.api_key: must be a secret or restricted key"),
    ],
)
def test_a_configuration_with_a_key_that_cannot_be_used_is_not_right(
    run: Run, tmp_path: Path, settings: str, message: str
) -> None:
    (tmp_path / "stripe-ingest.toml").write_text(
        '[dedupe]\nurl = "memory://"\n[[endpoints]]\nname = "shop"\nmode = "live"\nsecrets = ["whsec_1"]\n' + settings
    )

    ended = run("config", "check")

    assert ended.code == 2
    assert ended.err.startswith(f"stripe-ingest: configuration: {message}")
    assert "hunter2" not in ended.err + ended.out


@pytest.mark.parametrize("command", WITHOUT_CONFIGURATION, ids=" ".join)
def test_a_configuration_whose_secrets_are_elsewhere_is_in_nobodys_way(
    run: Run, command: tuple[str, ...], tmp_path: Path
) -> None:
    assert run("config", "init").code == 0
    assert "/run/secrets/database-url" in run("config", "check").err

    ended = run(*command)

    assert (ended.code, ended.err) == (0, "")
    assert "stripe.refunds" in ended.out + "".join(path.read_text() for path in tmp_path.glob("published/*.json"))


@pytest.mark.parametrize("command", [("events", "list", "refund.created"), ("contract", "list")], ids=" ".join)
def test_the_prefix_is_the_options_else_the_environments_else_the_files(
    run: Run, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stripe-ingest.toml").write_text('[kafka]\ntopic_prefix = "here"\nno.setting = 1\n')
    (tmp_path / "other.toml").write_text('[kafka]\ntopic_prefix = "there"\n')
    (tmp_path / "silent.toml").write_text("")

    assert "here.refunds" in run(*command).out
    assert "there.refunds" in run(*command, "--config", "other.toml").out
    assert "stripe.refunds" in run(*command, "--config", "silent.toml").out
    assert "given.refunds" in run(*command, "--config", "other.toml", "--prefix", "given").out
    monkeypatch.setenv("STRIPE_INGEST__KAFKA__TOPIC_PREFIX", "around")
    monkeypatch.setenv("STRIPE_INGEST__NO__SETTING", "1")
    assert "around.refunds" in run(*command, "--config", "other.toml").out
    assert "given.refunds" in run(*command, "--prefix", "given").out


def test_with_a_prefix_given_no_configuration_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "stripe-ingest.toml").write_text("no TOML")

    assert run("contract", "list").code == 2
    assert run("contract", "list", "--prefix", "given").code == 0
    assert run("contract", "list", "--prefix", "given", "--config", "missing.toml").code == 0


@pytest.mark.parametrize("toml", ['kafka = "x"', "[kafka]\ntopic_prefix = 7", '[kafka]\ntopic_prefix = "a b"'])
def test_a_prefix_that_no_topic_can_have_is_refused(run: Run, toml: str, tmp_path: Path) -> None:
    (tmp_path / "stripe-ingest.toml").write_text(toml)

    for ended in (run("contract", "list"), run("contract", "list", "--prefix", "a b")):
        assert ended.code == 2
        assert ended.err.startswith("stripe-ingest: configuration: kafka")
        assert is_one_line(ended.err)


def test_a_contract_is_compared_with_an_earlier_one(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("contract", "asyncapi").out)
    (tmp_path / "same.json").write_text(json.dumps(document))
    document["components"]["schemas"]["Charge"]["properties"]["tip"] = {"type": "integer"}
    (tmp_path / "earlier.json").write_text(json.dumps(document))

    assert run("contract", "compare", "same.json").code == 0
    broken = run("contract", "compare", "earlier.json")
    assert (broken.code, broken.out) == (1, "Charge.tip: is gone\n")


def test_what_is_no_contract_is_refused_in_a_line(run: Run, tmp_path: Path) -> None:
    for junk in JUNK:
        (tmp_path / "earlier.json").write_text(junk)

        ended = run("contract", "compare", "earlier.json")

        assert (ended.code, ended.out) == (2, ""), junk
        assert ended.err.startswith("Error: earlier.json: is not "), junk
        assert is_one_line(ended.err), junk


@pytest.mark.parametrize(
    "command",
    [("config", "init", "--output", "file/x.toml"), ("contract", "write", "file/folder")],
    ids=" ".join,
)
def test_a_file_that_cannot_be_written_is_told_in_a_line(run: Run, command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    ended = run(*command)

    assert (ended.code, ended.err) == (2, f"stripe-ingest: {command[-1]}: Not a directory\n")


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (ConnectionRefusedError(111, "Connection refused"), 75, "stripe-ingest: Connection refused\n"),
        (TimeoutError(), 75, "stripe-ingest: TimeoutError\n"),
        (OSError(24, "Too many open files"), 2, "stripe-ingest: Too many open files\n"),
    ],
    ids=["refused", "late", "local"],
)
def test_what_the_system_refuses_is_told_in_a_line(
    run: Run, failure: OSError, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("service.commands.options.load_given", fail)

    ended = run("config", "check")

    assert (ended.code, ended.err) == (code, message)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["receive"], {"STRIPE_WEBHOOK_SECRET": "nonsense"}, "endpoints[0] (stripe).secrets: a signing secret begins"),
        (["receive"], {"STRIPE_INGEST__RECEIVER__TOLERANCE_SECONDS": "0"}, "receiver.tolerance_seconds: expected `int` >= 30"),
        (["consume", "payments"], {"STRIPE_INGEST__DATABASE__URL": ""}, "database.url: must begin with postgresql://"),
        (["config", "check", "--config", "/nowhere.toml"], {}, "/nowhere.toml: there is no such file"),
        (["send", "payment_intent.succeded"], {}, "did you mean payment_intent.succeeded"),
        (["consume", "paymets"], {}, "Invalid value"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_message_and_exit_2(
    run: Run, arguments: list[str], settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_x")
    monkeypatch.setenv("STRIPE_INGEST__DATABASE__URL", "postgresql://h/d")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    ended = run(*arguments)

    assert ended.code == 2
    assert message in ended.err


@pytest.fixture
def unread_pipe() -> Iterator[TextIO]:
    """Standard output, which nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    with abandoned(writing) as stream:
        yield stream


@pytest.fixture
def full_disk() -> Iterator[TextIO]:
    """Standard output on a disk that is full."""
    with abandoned(os.open("/dev/full", os.O_WRONLY)) as stream:
        yield stream


@contextmanager
def abandoned(file_descriptor: int) -> Iterator[TextIO]:
    with os.fdopen(file_descriptor, "w", encoding="utf-8") as stream, Path(os.devnull).open("wb") as nothing:
        try:
            yield stream
        finally:
            os.dup2(nothing.fileno(), file_descriptor)  # what is still in the buffer can go


# A line is written by click, a table by rich: each has a way of its own to end.
PRINTING: Final = (("events", "list", "refund.created"), ("contract", "list"), ("--help",))


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_whose_reader_has_left_ends_in_silence_as_by_sigpipe(
    run: Run, command: tuple[str, ...], unread_pipe: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", unread_pipe)
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # which click replaces too

    ended = run(*command)

    sys.stdout.flush()  # as Python does at its end
    assert (ended.code, ended.err) == (141, "")


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_output_that_cannot_be_written_is_told_in_a_line(
    run: Run, command: tuple[str, ...], full_disk: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", full_disk)

    ended = run(*command)

    sys.stdout.flush()  # as Python does at its end
    assert (ended.code, ended.err) == (2, "stripe-ingest: No space left on device\n")


def test_without_any_output_a_failure_is_told_as_well(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    assert run("config", "init", "--output", "missing/x.toml").err.startswith("stripe-ingest: missing/x.toml: ")


def test_a_process_whose_reader_has_left_has_nothing_to_say() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as unread:
        ended = subprocess.run(
            [sys.executable, "-m", "service", "events", "list"], stdout=unread, stderr=subprocess.PIPE, check=False
        )

    assert (ended.returncode, ended.stderr) == (141, b"")
