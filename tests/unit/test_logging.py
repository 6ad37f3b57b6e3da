"""Logs: one parseable line per event whatever is in it, and no secret in any of them."""

import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from service.telemetry.logging import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.rstrip("\n").split("\n")


@pytest.mark.parametrize(
    "hostile",
    ["two\nlines", '\n{"level":"forged"}', "\x1b[31mred", "\u2028", "\ud800", 2**70, {1: object()}, "x" * 1_000_000],
    ids=["newline", "forged", "escape", "separator", "surrogate", "huge-int", "object", "long"],
)
def test_a_hostile_value_is_one_bounded_json_line(hostile: object, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")

    structlog.get_logger("service.test").info("delivery.accepted", value=hostile)

    (line,) = lines(capsys)
    assert orjson.loads(line.encode("utf-8", "replace").replace(b"\\ud800", b""))["event"] == "delivery.accepted"
    assert len(line) < 10_000


@pytest.mark.parametrize("format_", ["json", "console"])
@pytest.mark.parametrize(
    "secret",
    ["whsec_0123456789abcdef", "sk_live_0123456789", "rk_test_0123456789", "postgresql://user:hunter2hunter2@host/db"],
)
def test_no_secret_reaches_a_line(format_: str, secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json" if format_ == "json" else "console", "info")

    structlog.get_logger("service.test").warning("config.loaded", given=[secret], nested={"url": secret})
    logging.getLogger("aiokafka").error("cannot use %s", secret)

    shown = "\n".join(lines(capsys))
    assert "cannot use" in shown
    for part in ("0123456789", "hunter2"):
        assert part not in shown


def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    body = b"planted-in-a-local"

    try:
        raise ValueError(len(body))
    except ValueError:
        structlog.get_logger("service.test").exception("delivery.unforeseen")

    (line,) = lines(capsys)
    assert orjson.loads(line)["exception"][0]["exc_type"] == "ValueError"
    assert "planted-in-a-local" not in line


def test_the_level_is_kept_and_libraries_speak_only_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")

    structlog.get_logger("service.test").debug("not.shown")
    logging.getLogger("aiokafka").warning("not shown: its retries")
    logging.getLogger("aiohttp").info("not shown")
    logging.getLogger("aiohttp").warning("shown")

    assert [orjson.loads(line)["event"] for line in lines(capsys)] == ["shown"]
