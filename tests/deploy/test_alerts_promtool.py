"""The rules as Prometheus reads them, and their own tests: each alert fires, with these words, and does not otherwise."""

import subprocess

import pytest

from tests.support.alert_rules import ALERTS, RECORDING, TESTS, alerts
from tests.tools import promtool

SECONDS_MAX = 100


def test_prometheus_finds_nothing_wrong_with_the_rules() -> None:
    files = [RECORDING, *sorted(ALERTS.glob("*.yml"))]

    checked = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", *files],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("SUCCESS") == len(files)


@pytest.mark.parametrize("name", sorted(alerts()))
def test_the_alert_fires_where_it_is_to_and_not_otherwise(name: str) -> None:
    tested = subprocess.run(
        [promtool, "test", "rules", TESTS / f"{name}.yml"],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )

    assert tested.returncode == 0, tested.stdout + tested.stderr
