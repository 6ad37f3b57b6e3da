"""The configuration that `up` writes: the user's own, at the local stack's addresses."""

import io
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import asdict, replace
from rich.console import Console

from service.config import Config, allowed_networks, load_given
from service.events import Secret
from service.local.stack import Stack, StackOptions
from service.local.up import Up, _toml

STACK: Final = Stack(
    receiver="http://127.0.0.1:8081",
    admin="http://127.0.0.1:9191",
    bootstrap_servers="127.0.0.1:9093",
    database_url="postgresql://postgres:local@127.0.0.1:5433/postgres",
    settings={},
)
KEY, OLD_KEY = b64encode(bytes(range(32))).decode(), b64encode(b"o" * 32).decode()
GIVEN: Final = f"""
[receiver]
host = "10.1.1.2"
port = 80
workers = 4
max_body_bytes = 65536
max_in_flight = 7
answer_timeout_seconds = 2.5
tolerance_seconds = 600
shutdown_timeout_seconds = 3.5
allow_ips = ["stripe", "10.0.0.0/8"]
public_url = "https://hooks.example.com"

[admin]
host = "10.1.1.1"
port = 90
token = "production-token-0123456789"
allowed_hosts = ["ingest.production.invalid"]

[kafka]
bootstrap_servers = "production.invalid:9092"
topic_prefix = "shop"
include_raw = false
redact = ["customer.email", "hash:*.metadata.Größe 😀"]
redact_key = "{KEY}\\n{OLD_KEY}"
compression = "zstd"
partitions = 2
replication_factor = 5
min_insync_replicas = 4

[kafka.security]
protocol = "SASL_SSL"
username = "production"
password = "secret"

[dedupe]
url = "redis://production.invalid/0"
timeout_seconds = 0.5
retention_days = 60
on_error = "refuse"

[consumer]
dead_letter_limit = 7

[event_log]
retention_days = 3

[tracing]
otlp_endpoint = "http://collector.production.invalid:4318"
sample_ratio = 0.5

[stripe]
api_base = "https://stripe.example.com"
requests_per_second = 7.5
watch_interval_seconds = 30

[reconcile]
api_key = "rk_test_of_the_events"
interval_seconds = 60
lookback_hours = 7
grace_seconds = 30

[database]
url = "postgresql://production.invalid/payments"

[secrets]
store = "/var/lib/stripe-ingest/secrets.json"
key = "a key"

[logging]
level = "debug"

[[endpoints]]
name = "shop"
path = "/api/hook"
mode = "live"
account = "acct_1"
connect = true
secrets = ["whsec_a", 'whsec_"\\']
events = ["charge.succeeded"]
api_key = "sk_live_x"
url = "https://shop.example.com/hook"
api_version = "2020-08-27"
permissions = ["payment_intent_write"]

[[endpoints]]
name = "test"
mode = "test"
secrets = ["whsec_t"]
"""


def written(tmp_path: Path, given: str) -> tuple[Config, Config]:
    """The configuration that is given, and the one that the stack's processes then read."""
    (tmp_path / "given.toml").write_text(given, encoding="utf-8")
    config = load_given(str(tmp_path / "given.toml"), {})
    up = Up(StackOptions(data_dir=tmp_path), config, simulate=False, console=Console(file=io.StringIO()))
    (tmp_path / "written.toml").write_text(_toml(up._settings(STACK)), encoding="utf-8")
    return config, load_given(str(tmp_path / "written.toml"), {})


def plain(value: Any) -> Any:
    """Comparable: secrets are not, by themselves."""
    if isinstance(value, Secret):
        return value.value
    if isinstance(value, tuple):
        return [plain(member) for member in value]
    return (
        {name: plain(below) for name, below in asdict(value).items()} if hasattr(value, "__struct_fields__") else value
    )


def differences(one: Any, other: Any, at: str = "") -> set[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            found
            for name in one | other
            for found in differences(one.get(name), other.get(name), f"{at}.{name}".strip("."))
        }
    return set() if one == other else {at}


def test_all_but_addresses_is_as_it_was_given(tmp_path: Path) -> None:
    given, found = written(tmp_path, GIVEN)

    assert differences(plain(given), plain(found)) == {
        "receiver.host", "receiver.port", "receiver.workers", "receiver.allow_ips", "admin.host", "admin.port",
        "admin.token", "admin.allowed_hosts", "tracing.otlp_endpoint",
        "kafka.bootstrap_servers", "kafka.replication_factor", "kafka.min_insync_replicas", "kafka.security.protocol",
        "kafka.security.username", "kafka.security.password", "dedupe.url", "database.url",
        "reconcile.interval_seconds", "stripe.watch_interval_seconds",
    }  # fmt: skip
    assert "production" not in (tmp_path / "written.toml").read_text("utf-8")


def test_every_setting_is_given_another_value_than_its_default(tmp_path: Path) -> None:
    """Else one that is left out would not be missed. Files of certificates are of the security, which is replaced."""
    given, _ = written(tmp_path, GIVEN)
    defaults = Config(endpoints=given.endpoints)

    every = {
        f"{section}.{name}" for section, table in plain(defaults).items() if section != "endpoints" for name in table
    }
    assert every - differences(plain(defaults), plain(given)) - {"logging.format", "kafka.security"} == set()


def test_the_stack_is_found_where_it_is(tmp_path: Path) -> None:
    _, found = written(tmp_path, GIVEN)

    assert (found.receiver.host, found.receiver.port, found.receiver.workers) == ("127.0.0.1", 8081, 1)
    assert (found.admin.host, found.admin.port) == ("127.0.0.1", 9191)
    assert (found.kafka.bootstrap_servers, found.kafka.security.protocol) == ("127.0.0.1:9093", "PLAINTEXT")
    assert found.database_url == found.dedupe_url == STACK.database_url


def test_what_is_redacted_in_production_is_redacted_here_under_the_same_keys(tmp_path: Path) -> None:
    given, found = written(tmp_path, GIVEN)
    there, here = given.redaction(), found.redaction()
    event = {"object": "customer", "email": "a", "name": "b", "metadata": {"Größe 😀": "c"}}

    assert there is not None
    assert here is not None
    assert here.apply(event) == there.apply(event) != event
    assert here.sealing.keys == there.sealing.keys
    assert len(here.sealing.keys.opening) == 2


@pytest.mark.parametrize("allowed", ['"stripe"', '"10.0.0.0/8, stripe"', '["10.0.0.0/8"]', '["127.0.0.0/8"]'])
def test_this_machine_is_let_in(tmp_path: Path, allowed: str) -> None:
    given, found = written(tmp_path, f"[receiver]\nallow_ips = {allowed}\n")
    before, after = allowed_networks(given.receiver.allow_ips), allowed_networks(found.receiver.allow_ips)

    assert before is not None
    assert after is not None
    assert set(after) - set(before) == set(allowed_networks("127.0.0.1") or ())


def test_without_a_configuration_it_is_the_defaults_and_a_secret_that_stays(tmp_path: Path) -> None:
    _, first = written(tmp_path, "")
    _, second = written(tmp_path, "")

    (endpoint,) = first.endpoints
    assert (endpoint.name, endpoint.mode) == ("stripe", "any")
    assert endpoint.secrets[0].value.startswith("whsec_")
    assert plain(second) == plain(first)
    assert first.receiver.allow_ips == "any"
    assert plain(first.kafka) == plain(
        replace(Config().kafka, bootstrap_servers="127.0.0.1:9093", replication_factor=1, min_insync_replicas=1)
    )
