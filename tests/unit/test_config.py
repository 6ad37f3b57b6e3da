"""The configuration: every source, every refusal, and that no secret is ever shown."""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from service.commands.initial_configuration import INITIAL_CONFIGURATION
from service.config import Config, ReconcileConfig, StripeConfig, allowed_networks, load, load_given, with_stored
from service.credentials.book import Credentials, EndpointCredentials
from service.credentials.file import CredentialsFile, new_key
from service.errors import ConfigurationError
from service.events import Secret
from tests.contracts.credential_store import SHOP

Configure: TypeAlias = Callable[..., Config]

ENDPOINT = '[[endpoints]]\nname = "shop"\nmode = "live"\nsecrets = ["whsec_one"]\n'


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def make(toml: str, **environment: str) -> Config:
        file = tmp_path / "stripe-ingest.toml"
        file.write_text(toml, encoding="utf-8")
        return load(str(file), environment)

    return make


def test_two_variables_define_one_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    config = load(None, {"STRIPE_WEBHOOK_SECRET": "whsec_abc", "STRIPE_API_KEY": "rk_test_x"})

    (endpoint,) = config.webhook_endpoints()
    assert (endpoint.name, endpoint.path, endpoint.mode) == ("stripe", "/webhooks/stripe", "any")
    assert [secret.value for secret in endpoint.secrets] == ["whsec_abc"]
    assert config.endpoints[0].api_key is not None


def test_the_file_is_named_by_option_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, port in (("option.toml", 1), ("environment.toml", 2), ("stripe-ingest.toml", 3)):
        (tmp_path / name).write_text(f"[receiver]\nport = {port}\n", encoding="utf-8")
    environment = {"STRIPE_INGEST_CONFIG": "environment.toml"}

    assert load("option.toml", environment).receiver.port == 1
    assert load(None, environment).receiver.port == 2
    assert load(None, {}).receiver.port == 3


def test_the_environment_overrides_the_file(configure: Configure) -> None:
    config = configure(
        "[receiver]\nport = 1\n[kafka]\ninclude_raw = true\n" + ENDPOINT,
        STRIPE_INGEST__RECEIVER__PORT="8081",
        STRIPE_INGEST__KAFKA__INCLUDE_RAW="false",
        STRIPE_INGEST__KAFKA__SECURITY__PROTOCOL="SSL",
        STRIPE_INGEST__ENDPOINTS__SHOP__SECRETS="whsec_two, whsec_three",
    )

    assert config.receiver.port == 8081
    assert config.kafka.include_raw is False
    assert config.kafka.security.protocol == "SSL"
    assert [secret.value for secret in config.endpoints[0].secrets] == ["whsec_two", "whsec_three"]


def test_secrets_come_from_files_too(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("whsec_one\nwhsec_two\n", encoding="utf-8")
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n", encoding="utf-8")

    config = configure(
        f'[[endpoints]]\nname = "shop"\nmode = "test"\nsecrets_file = "{tmp_path / "secrets"}"\n',
        STRIPE_INGEST__DATABASE__URL_FILE=str(tmp_path / "url"),
    )

    assert [secret.value for secret in config.endpoints[0].secrets] == ["whsec_one", "whsec_two"]
    assert config.database_url == "postgresql://u:p@h/d"
    assert config.dedupe_url == config.database_url


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[receiver]\nport = 99999", "receiver.port: expected `int` <= 65535"),
        ('[receiver]\nport = "x"', "receiver.port: expected `int`"),
        ("[receiver]\nprot = 1", "receiver.prot: is no setting"),
        ("[reciever]\nport = 1", "reciever: is no setting"),
        ("receiver = 1", "receiver: expected"),
        ("[receiver]\ntolerance_seconds = 0", "receiver.tolerance_seconds: expected `int` >= 30"),
        ('[receiver]\nallow_ips = ["stripes"]', "receiver.allow_ips: 'stripes' is neither"),
        ('[dedupe]\non_error = "ignore"', "dedupe.on_error: allowed are publish, refuse"),
        ('[dedupe]\nurl = "mysql://x"', "dedupe.url: must begin with postgresql://"),
        ('[dedupe]\nurl = "memory://"\n[receiver]\nworkers = 2', "dedupe.url: memory:// is one process's own"),
        ("[dedupe]\nretention_days = 3", "dedupe.retention_days: expected `int` >= 31"),
        ('[database]\nurl = "x"', "database.url: must begin with"),
        ('[dedupe]\nurl = "memory"', "dedupe.url: must begin with"),
        ('[database]\nurl = "postgresql://u:s3cr3t/rest@h/x"', "database.url: is no URL"),
        ("[receiver]\nallow_ips = []", "receiver.allow_ips: an empty list"),
        ("[receiver]\nworkers = 2\nport = 0", "receiver.port: must be given"),
        ('[kafka.security]\nusername = "u"', "kafka.security.protocol: is needed"),
        ('kafka = "x"', "kafka: expected"),
        ('[database]\nurl_file = "/does/not/exist"', "database.url_file: /does/not/exist cannot be read"),
        ('[kafka]\nredact = ["data.email"]', "kafka.redact: 'data.email' names no object"),
        ('[kafka]\nredact = ["customer"]', "kafka.redact: 'customer' is no path"),
        ('[kafka]\nredact = ["charge.amount"]', "kafka.redact: 'charge.amount' cannot be redacted"),
        ('[kafka]\nredact = "customer.email"', "kafka.redact: expected `array`"),
        ('[kafka]\nredact = ["customer.email"]', "kafka.redact_key: is needed with kafka.redact"),
        ('[kafka]\nredact = ["customer.email"]\nredact_key = "x"', "kafka.redact_key: must be at least 32 random bytes"),
        ('[kafka]\nredact_key = "x"', "kafka.redact_key: must be at least 32 random bytes"),
        ('[kafka]\nredact_key_file = "/does/not/exist"', "kafka.redact_key_file: /does/not/exist cannot be read"),
        ("[kafka]\nmin_insync_replicas = 4", "kafka.min_insync_replicas: must not be more"),
        ('[kafka.security]\nprotocol = "SASL_SSL"', "kafka.security.username: and password are needed"),
        ('[[endpoints]]\nname = "shop"\nmode = "live"', "endpoints[0] (shop).secrets: at least one"),
        ('[[endpoints]]\nname = "shop"\nsecrets = ["whsec_1"]', "endpoints[0] (shop).mode: is needed"),
        ('[[endpoints]]\nname = "shop"\nmode = "prod"', "endpoints[0].mode: allowed are live, test, any"),
        ('[[endpoints]]\nname = "Shop!"\nmode = "live"', "endpoints[0].name: expected"),
        ('[[endpoints]]\nmode = "live"', "endpoints[0].name: is needed"),
        (ENDPOINT + ENDPOINT, "endpoints[1] (shop).name: is taken"),
        (ENDPOINT + ENDPOINT.replace('"shop"', '"b"\npath = "/webhooks/shop"'), "endpoints[1] (b).path: /webhooks/shop is taken"),
        (ENDPOINT.replace('"shop"', '"shop"\npath = "hook"'), "endpoints[0] (shop).path: must begin with /"),
        (
            "[reconcile]\nlookback_hours = 1\ngrace_seconds = 3600",
            "reconcile.lookback_hours: must be longer than reconcile.grace_seconds",
        ),
        ("[reconcile]\nlookback_hours = 721", "reconcile.lookback_hours: expected `int` <= 720"),
        ("[reconcile]\ninterval_seconds = -1", "reconcile.interval_seconds: expected `int` >= 0"),
        ("[reconcile]\ngrace_seconds = 1.5", "reconcile.grace_seconds: expected `int`"),
        ('[reconcile]\napi_key_file = "/does/not/exist"', "reconcile.api_key_file: /does/not/exist cannot be read"),
        ('[reconcile]\napi_key = "x"\napi_key_file = "y"', "reconcile.api_key: is set beside api_key_file"),
        ("[stripe]\nrequests_per_second = 0", "stripe.requests_per_second: expected `float` >= 0.1"),
        ('[stripe]\napi_base = "http://api.stripe.test"', "stripe.api_base: must begin with https://"),
        ('[stripe]\napi_base = "http://localhost.stripe.test"', "stripe.api_base: must begin with https://"),
        ('[stripe]\napi_base = "api.stripe.com"', "stripe.api_base: must be https://host"),
        ('[stripe]\napi_base = "https://user:s3cr3t@host"', "stripe.api_base: must be https://host"),
        ('[stripe]\napi_base = "https://host:s3cr3t"', "stripe.api_base: is no URL"),
        ("[receiver", "is not TOML"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_message_that_names_the_key(configure: Configure, toml: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configure(toml)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value).strip()


def test_reading_stripe_is_on_demand_and_below_both_of_its_limits_unless_said_otherwise(configure: Configure) -> None:
    config = configure("")

    assert config.stripe.api_base == "https://api.stripe.com"
    assert config.stripe.requests_per_second == 20
    assert config.reconcile.api_key is None
    assert (config.reconcile.interval_seconds, config.reconcile.lookback_hours, config.reconcile.grace_seconds) == (
        900,
        24,
        900,
    )


def test_reading_stripe_is_configured_from_the_file_the_environment_and_a_secrets_file(
    configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("rk_test_1\n", encoding="utf-8")

    config = configure(
        f'[reconcile]\ninterval_seconds = 3600\napi_key_file = "{tmp_path / "key"}"\n',
        STRIPE_INGEST__STRIPE__API_BASE="http://127.0.0.1:12111",
        STRIPE_INGEST__RECONCILE__GRACE_SECONDS="0",
    )

    assert config.reconcile.api_key is not None
    assert config.reconcile.api_key.value == "rk_test_1"
    assert "rk_test_1" not in repr(config)
    assert (config.reconcile.interval_seconds, config.reconcile.grace_seconds) == (3600, 0)
    assert config.stripe.api_base == "http://127.0.0.1:12111"


def test_the_first_configuration_shows_the_settings_of_reading_stripe_with_their_defaults(
    configure: Configure, tmp_path: Path
) -> None:
    key = tmp_path / "stripe-events-key"
    key.write_text("rk_test_1", encoding="utf-8")
    shown = INITIAL_CONFIGURATION.partition("[reconcile]")[2].partition("[secrets]")[0]
    assert "# api_key_file = " in shown

    settings = "[reconcile]" + shown.replace("\n# ", "\n").replace("/run/secrets/stripe-events-key", str(key))
    config = configure(settings)

    assert config.stripe == Config().stripe
    assert config.reconcile == ReconcileConfig(api_key=Secret("rk_test_1"))
    assert all(f"\n{name} = " in settings for name in (*StripeConfig.__struct_fields__, "interval_seconds"))


def test_an_endpoint_carries_the_events_it_is_registered_for(configure: Configure) -> None:
    (endpoint,) = configure(ENDPOINT + 'events = ["charge.refunded", "refund.failed"]').webhook_endpoints()

    assert endpoint.events == ("charge.refunded", "refund.failed")


def test_redaction_comes_from_the_environment_and_a_file_too(configure: Configure, tmp_path: Path) -> None:
    key = b64encode(bytes(32)).decode()
    (tmp_path / "key").write_text(f"{key}\n", encoding="utf-8")

    config = configure(
        '[kafka]\nredact = ["customer.name"]\n',
        STRIPE_INGEST__KAFKA__REDACT="customer.email, hash:*.metadata.Tax number",
        STRIPE_INGEST__KAFKA__REDACT_KEY_FILE=str(tmp_path / "key"),
    )

    assert config.kafka.redact == ("customer.email", "hash:*.metadata.Tax number")
    redaction = config.redaction()
    assert redaction is not None
    customer = {"object": "customer", "email": "a@example.org", "name": "Ada"}
    assert redaction.apply(customer) == {"object": "customer", "name": "Ada"}
    assert key not in repr(config)


def test_a_key_file_has_the_key_first_and_older_ones_below(configure: Configure, tmp_path: Path) -> None:
    new, old = (b64encode(bytes([number]) * 32).decode() for number in range(2))
    (tmp_path / "keys").write_text(f"{new}\n{old}\n", encoding="utf-8")
    config = configure(f'[kafka]\nredact = ["customer.name"]\nredact_key_file = "{tmp_path / "keys"}"')
    alone = {number: configure(f'[kafka]\nredact_key = "{key}"').sealing() for number, key in enumerate((new, old))}

    redaction, sealing = config.redaction(), config.sealing()

    assert redaction is not None
    assert sealing == redaction.sealing
    assert alone[0] is not None
    assert alone[1] is not None
    assert sealing.keys.fingerprint == alone[0].keys.fingerprint
    assert set(sealing.keys.opening) == {alone[0].keys.fingerprint, alone[1].keys.fingerprint}


def test_what_was_sealed_can_be_opened_when_nothing_is_redacted_any_more(configure: Configure) -> None:
    key = b64encode(bytes(32)).decode()

    assert configure(f'[kafka]\nredact_key = "{key}"').sealing() is not None
    assert configure("").sealing() is None


def test_nothing_is_redacted_unless_it_is_asked_for(configure: Configure) -> None:
    key = b64encode(bytes(32)).decode()

    assert configure("").redaction() is None
    assert configure(f'[kafka]\nredact = []\nredact_key = "{key}"').redaction() is None


@pytest.mark.parametrize("secret", ["", " ", "whsec_", "sk_live_oops", "whsec_a b"])
def test_a_secret_that_cannot_be_one_is_refused_without_showing_it(configure: Configure, secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configure(f'[[endpoints]]\nname = "shop"\nmode = "live"\nsecrets = ["{secret}"]\n')

    assert "secrets" in str(refused.value)
    assert "oops" not in str(refused.value)


@pytest.mark.parametrize("variable", ["STRIPE_INGEST__RECIEVER__PORT", "STRIPE_INGEST__PORT", "STRIPE_INGEST__A__B__C"])
def test_a_misspelt_variable_is_refused(configure: Configure, variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        configure("", **{variable: "1"})


def test_a_file_that_was_asked_for_must_exist() -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        load("/does/not/exist.toml", {})


def test_what_a_command_needs_is_asked_for_by_name(configure: Configure) -> None:
    config = configure("")

    with pytest.raises(ConfigurationError, match=r"database\.url: is needed"):
        _ = config.database_url
    with pytest.raises(ConfigurationError, match="endpoints: at least one"):
        config.webhook_endpoints()


def test_no_secret_is_in_the_repr(configure: Configure) -> None:
    config = configure(
        '[database]\nurl = "postgresql://user:hunter2@host/db"\n[kafka.security]\nprotocol = "SASL_SSL"\nusername = "u"\npassword = "hunter3"\n'
        + ENDPOINT
    )

    shown = repr(config) + str(config) + repr(config.webhook_endpoints())
    assert "hunter" not in shown
    assert "whsec_one" not in shown


def test_allow_ips_knows_stripes_own_addresses() -> None:
    networks = allowed_networks("stripe")

    assert networks is not None
    assert len(networks) == 15
    assert allowed_networks("any") is None


UNSAID = '[[endpoints]]\nname = "shop"\nmode = "test"\n'


def stored(tmp_path: Path, key: Secret | None = None) -> CredentialsFile:
    """A store with two signing secrets and an API key of `shop`."""
    file = CredentialsFile(tmp_path / "secrets.json", key)
    file.write(Credentials().having("shop", SHOP))
    return file


def values(config: Config) -> list[list[str | None]]:
    """The secrets of each endpoint, and its API key."""
    return [
        [*(secret.value for secret in endpoint.secrets), endpoint.api_key.value if endpoint.api_key else None]
        for endpoint in config.endpoints
    ]


def test_what_an_endpoint_does_not_say_comes_from_the_store(configure: Configure, tmp_path: Path) -> None:
    file = stored(tmp_path)

    config = configure(f'[secrets]\nstore = "{file.path}"\n' + UNSAID + UNSAID.replace("shop", "another"))

    assert values(config) == [["whsec_new", "whsec_old", "rk_test_1"], [None]]
    assert [secret.value for secret in config.webhook_endpoints()[0].secrets] == ["whsec_new", "whsec_old"]
    assert "whsec_" not in repr(config)
    assert "rk_test" not in repr(config)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('secrets = ["whsec_said"]', ["whsec_said", "rk_test_1"]),
        ('api_key = "sk_test_said"', ["whsec_new", "whsec_old", "sk_test_said"]),
        ('secrets = ["whsec_said"]\napi_key = "sk_test_said"', ["whsec_said", "sk_test_said"]),
        ("secrets = []", ["whsec_new", "whsec_old", "rk_test_1"]),
    ],
)
def test_the_configuration_overrides_the_store_kind_by_kind(
    configure: Configure, tmp_path: Path, said: str, expected: list[str]
) -> None:
    file = stored(tmp_path)

    assert values(configure(f'[secrets]\nstore = "{file.path}"\n{UNSAID}{said}\n')) == [expected]


def test_the_environment_overrides_the_store(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("rk_test_said\n")

    config = configure(
        UNSAID,
        STRIPE_INGEST__SECRETS__STORE=str(stored(tmp_path).path),
        STRIPE_INGEST__ENDPOINTS__SHOP__SECRETS="whsec_said",
        STRIPE_INGEST__ENDPOINTS__SHOP__API_KEY_FILE=str(tmp_path / "key"),
    )

    assert values(config) == [["whsec_said", "rk_test_said"]]


def test_what_was_given_is_known_without_the_store(tmp_path: Path) -> None:
    file = tmp_path / "stripe-ingest.toml"
    file.write_text('[secrets]\nstore = "/does/not/exist/secrets.json"\n' + UNSAID)

    given = load_given(str(file), {})

    assert values(given) == [[None]]
    assert values(with_stored(given, Credentials().having("shop", SHOP))) == [["whsec_new", "whsec_old", "rk_test_1"]]
    assert values(with_stored(given, Credentials().having("shop", EndpointCredentials()))) == [[None]]
    with pytest.raises(ConfigurationError, match=r"secrets\.store: the folder of /does/not/exist/secrets\.json is not"):
        load(str(file), {})


def test_a_store_that_is_not_there_yet_is_empty(configure: Configure, tmp_path: Path) -> None:
    config = configure(f'[secrets]\nstore = "{tmp_path / "secrets.json"}"\n' + UNSAID + ENDPOINT.replace("shop", "b"))

    assert values(config) == [[None], ["whsec_one", None]]


def test_without_a_store_every_endpoint_says_its_secrets(configure: Configure) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configure(ENDPOINT + UNSAID.replace("shop", "b"))

    assert str(refused.value) == (
        "endpoints[1] (b).secrets: at least one signing secret (whsec_…) is needed, or secrets.store, where `endpoints"
        " apply` puts it"
    )


def test_the_stores_key_comes_from_a_file_with_older_ones_below(configure: Configure, tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    store = stored(tmp_path, Secret(old))
    (tmp_path / "keys").write_text(f"{new}\n{old}\n")
    settings = f'[secrets]\nstore = "{store.path}"\nkey_file = "{tmp_path / "keys"}"\n' + UNSAID

    config = configure(settings)

    assert values(config) == [["whsec_new", "whsec_old", "rk_test_1"]]
    file = config.secrets.file()
    assert file is not None
    file.write(file.read())
    (tmp_path / "keys").write_text(f"{new}\n")
    assert values(configure(settings)) == [["whsec_new", "whsec_old", "rk_test_1"]]
    assert not [key for key in (old, new) if key in repr(config)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "secrets.key: is needed: "),
        ('key = "hunter2"', "secrets.key: must be 32 bytes in URL-safe base64"),
        ('key_file = "/does/not/exist"', "secrets.key_file: /does/not/exist cannot be read"),
        ('key = "hunter2"\nkey_file = "x"', "secrets.key: is set beside key_file"),
    ],
)
def test_an_encrypted_store_without_its_key_is_refused(
    configure: Configure, tmp_path: Path, settings: str, message: str
) -> None:
    store = stored(tmp_path, Secret(new_key()))

    with pytest.raises(ConfigurationError) as refused:
        configure(f'[secrets]\nstore = "{store.path}"\n{settings}\n' + UNSAID)

    assert str(refused.value).startswith(message)
    assert "hunter2" not in str(refused.value)


def test_a_key_without_a_store_is_refused(configure: Configure) -> None:
    with pytest.raises(ConfigurationError, match=r"secrets\.store: is needed beside secrets\.key"):
        configure(f'[secrets]\nkey = "{new_key()}"\n' + ENDPOINT)
