"""What `config check` warns of beside what is wrong, and what a receiver refuses before it starts."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from service.__main__ import main

ENDPOINT = '[[endpoints]]\nname = "{name}"\nmode = "test"\nsecrets = ["whsec_0123456789abcdef"]\n{more}\n'


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


Run: TypeAlias = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, with these lines in the endpoints of its configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("service.commands.options.configure", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        monkeypatch.delenv(name)

    def ended(command: str, *endpoints: str, head: str = "") -> Ended:
        tables = [ENDPOINT.format(name=f"shop{place}", more=more) for place, more in enumerate(endpoints)]
        text = f'[database]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n{head}\n{"".join(tables)}'
        (tmp_path / "stripe-ingest.toml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["stripe-ingest", *command.split()])
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return Ended(done.value.code, out, err)

    return ended


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("2026-10-28.endive", None),
        ("2020-08-27", None),
        ("2026-10-28.endiv", "did you mean 2026-10-28.endive?"),
        ("2099-01-01.zinnia", "is newer than this release knows"),
        ("latest", "is no API version"),
    ],
)
def test_an_api_version_that_stripe_is_not_known_to_have_is_warned_of(run: Run, version: str, said: str | None) -> None:
    ended = run("config check", f'api_version = "{version}"')

    assert ended.code == 0
    if said is None:
        assert ended.err == ""
    else:
        assert ended.err.startswith(f"warning: endpoints[0] (shop0).api_version: '{version}' ")
        assert said in ended.err


def test_two_that_take_the_same_type_in_different_versions_are_warned_of(run: Run) -> None:
    ended = run(
        "config check",
        'events = ["charge.succeeded"]\napi_version = "2020-08-27"',
        'events = ["charge.succeeded", "charge.failed"]\napi_version = "2026-10-28.endive"',
    )

    assert ended.code == 0
    assert ended.err == (
        "warning: endpoints.api_version: shop0 and shop1 take charge.succeeded in different API versions"
        " (2020-08-27, 2026-10-28.endive): of each such event the rendering that comes first is kept\n"
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("endpoints", "head", "said"),
    [
        (['api_key = "pk_test_public"'], "", "endpoints (shop0).api_key: must be a secret or restricted key"),
        (['api_key = "sk_live_other"'], "", "endpoints (shop0).api_key: is a live key"),
        (
            ['account = "acct_1"', 'account = "acct_2"'],
            '[reconcile]\napi_key = "rk_test_events"',
            "reconcile.api_key: reads one account",
        ),
    ],
)
def test_a_receiver_does_not_start_with_a_key_that_is_wrong(
    run: Run, endpoints: list[str], head: str, said: str, workers: int
) -> None:
    ended = run("receive", *endpoints, head=f"[receiver]\nworkers = {workers}\n{head}")

    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert not [part for part in ("_public", "_other", "_events") if part in ended.err]
