"""The configuration: one TOML file, the environment over it, secrets also from files.

The file is `--config`, else `STRIPE_INGEST_CONFIG`, else `./stripe-ingest.toml`. Every value can be overridden by
`STRIPE_INGEST__SECTION__KEY`, an endpoint's by `STRIPE_INGEST__ENDPOINTS__<NAME>__KEY`; lists are comma-separated.
Without any endpoint, `STRIPE_WEBHOOK_SECRET` (and optionally `STRIPE_API_KEY`) define one called `stripe`.

Nothing here connects, starts or reads anything at import. A bad value is a `ConfigurationError` that names the key
and what is allowed, never a secret's value.
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta

from service.credentials.book import Credentials, is_signing_secret
from service.credentials.file import CredentialsFile
from service.errors import ConfigurationError
from service.events import Endpoint, Mode, Secret
from service.redaction import Redaction, RedactionKeys, Sealing, parse_paths

ENVIRONMENT_PREFIX: Final = "STRIPE_INGEST__"
_TOPIC_PREFIX: Final = f"{ENVIRONMENT_PREFIX}KAFKA__TOPIC_PREFIX"
DEFAULT_FILE: Final = "stripe-ingest.toml"
SECRET_FILE_BYTES_MAX: Final = 64 * 1024
ADMIN_TOKEN_LENGTH_MIN: Final = 20

STRIPE_WEBHOOK_IPS: Final = (
    "3.18.12.63", "3.69.109.8", "3.120.168.93", "3.130.192.231", "13.235.14.237", "13.235.122.149",
    "18.211.135.69", "35.154.171.200", "35.157.207.129", "52.15.183.38", "54.88.130.119", "54.88.130.237",
    "54.187.174.169", "54.187.205.235", "54.187.216.72",
)  # fmt: skip
"""Where Stripe sends webhooks from, as Stripe publishes it (list of 2026-05). Beside signatures, never instead."""

Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
OnDedupeError: TypeAlias = Literal["publish", "refuse"]
LogFormat: TypeAlias = Literal["auto", "json", "console"]
SecurityProtocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; an unknown key is an error, since it is most often a misspelt one."""


class ReceiverConfig(_Section, frozen=True, kw_only=True):
    """`[receiver]`: the public HTTP side."""

    host: str = "0.0.0.0"  # noqa: S104 -- Stripe must reach it; the admin side stays on loopback
    port: Port = 8080
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    max_body_bytes: Annotated[int, Meta(ge=1024, le=3 * 1024 * 1024)] = 1024 * 1024
    max_in_flight: Annotated[int, Meta(ge=1, le=100_000)] = 256
    answer_timeout_seconds: Annotated[float, Meta(ge=1, le=20)] = 8.0  # below the lease of a claim, 30 s
    tolerance_seconds: Annotated[int, Meta(ge=30, le=900)] = 300
    shutdown_timeout_seconds: Annotated[float, Meta(ge=1, le=300)] = 15.0
    allow_ips: str | tuple[str, ...] = "any"
    public_url: str | None = None
    """Where Stripe reaches the endpoints' paths, such as https://hooks.example.com; only `endpoints` reads it."""


class AdminConfig(_Section, frozen=True, kw_only=True):
    """`[admin]`: metrics, probes and the operator's page; never on the public listener."""

    host: str = "127.0.0.1"
    port: Port = 9090
    token: Secret | None = None
    """What somebody signs in with who is not on this machine, or wants to replay; without it nobody can."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the page is asked by, besides this machine's own: any other is somebody's who points a name at us."""


class KafkaSecurityConfig(_Section, frozen=True, kw_only=True):
    """`[kafka.security]`: TLS and SASL."""

    protocol: SecurityProtocol = "PLAINTEXT"
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: Secret | None = None


class KafkaConfig(_Section, frozen=True, kw_only=True):
    """`[kafka]`: the cluster and the topics."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security: KafkaSecurityConfig = KafkaSecurityConfig()
    topic_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "stripe"
    include_raw: bool = True
    redact: tuple[str, ...] = ()
    redact_key: Secret | None = None
    compression: Compression = "none"
    partitions: Annotated[int, Meta(ge=1, le=1000)] = 6
    replication_factor: Annotated[int, Meta(ge=1, le=9)] = 3
    min_insync_replicas: Annotated[int, Meta(ge=1, le=9)] = 2


class DedupeConfig(_Section, frozen=True, kw_only=True):
    """`[dedupe]`: where published ids are remembered. Without a `url`, the database."""

    url: Secret | None = None
    timeout_seconds: Annotated[float, Meta(ge=0.01, le=2)] = 0.1
    retention_days: Annotated[int, Meta(ge=31, le=400)] = 31
    on_error: OnDedupeError = "publish"


class DatabaseConfig(_Section, frozen=True, kw_only=True):
    """`[database]`: the Postgres that holds the tables."""

    url: Secret | None = None


class ConsumerConfig(_Section, frozen=True, kw_only=True):
    """`[consumer]`: dead letters in a row at which a partition stops; a tenth of them before anything was applied."""

    dead_letter_limit: Annotated[int, Meta(ge=1)] = 100


class StripeConfig(_Section, frozen=True, kw_only=True):
    """`[stripe]`: reading Stripe's API. Stripe allows 100 requests/s in live mode, 25 in test mode and on each list."""

    api_base: str = "https://api.stripe.com"
    requests_per_second: Annotated[float, Meta(ge=0.1, le=100)] = 20.0  # by one key; leaves the shop its share
    watch_interval_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 900  # the endpoints at Stripe; 0: not at all


class SecretsConfig(_Section, frozen=True, kw_only=True):
    """`[secrets]`: the store of signing secrets and API keys; encrypted where there is a `key`, 0600 in any case."""

    store: str | None = None
    key: Secret | None = None

    def file(self) -> CredentialsFile | None:
        """The store, where one is configured. Raises `ConfigurationError` for a key that is none."""
        if self.store is None:
            return None
        return CredentialsFile(Path(self.store), self.key)


class ReconcileConfig(_Section, frozen=True, kw_only=True):
    """`[reconcile]`: finding what was missed. `api_key` reads events where the endpoints' own keys may not."""

    api_key: Secret | None = None
    interval_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 900  # 0: only when somebody asks for it
    lookback_hours: Annotated[int, Meta(ge=1, le=720)] = 24  # Stripe lists events of the last 30 days
    grace_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 900


class EventLogConfig(_Section, frozen=True, kw_only=True):
    """`[event_log]`: what came, when, and what became of it, for the operator's page; in the database, best effort."""

    retention_days: Annotated[int, Meta(ge=0, le=400)] = 7  # 0: none is kept


class TracingConfig(_Section, frozen=True, kw_only=True):
    """`[tracing]`: OpenTelemetry spans, sent by OTLP over HTTP. Needs the extra `otel`."""

    otlp_endpoint: str | None = None
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0


class LoggingConfig(_Section, frozen=True, kw_only=True):
    """`[logging]`: JSON lines, or readable ones; `auto` is readable on a terminal."""

    format: LogFormat = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class EndpointConfig(_Section, frozen=True, kw_only=True):
    """One `[[endpoints]]`."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    path: str | None = None
    mode: Mode | None = None
    account: Annotated[str, Meta(pattern=r"^acct_[A-Za-z0-9]+$")] | None = None
    connect: bool = False
    secrets: tuple[Secret, ...] = ()
    events: tuple[str, ...] = ()
    api_key: Secret | None = None
    url: str | None = None
    """Where Stripe reaches it, where that is not `receiver.public_url` and its path."""
    api_version: str | None = None
    """What Stripe renders its events in; to be chosen once, when it is registered."""
    permissions: tuple[str, ...] = ()
    """What else its `api_key` is there for (`payment_intent_write`, …): `keys check` looks whether it has them."""

    def endpoint(self) -> Endpoint:
        """The endpoint as the receiver needs it."""
        return Endpoint(
            name=self.name,
            path=self.path or f"/webhooks/{self.name}",
            secrets=self.secrets,
            mode=self.mode or "any",
            account=self.account,
            connect=self.connect,
            events=self.events,
        )


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    receiver: ReceiverConfig = ReceiverConfig()
    admin: AdminConfig = AdminConfig()
    kafka: KafkaConfig = KafkaConfig()
    dedupe: DedupeConfig = DedupeConfig()
    database: DatabaseConfig = DatabaseConfig()
    consumer: ConsumerConfig = ConsumerConfig()
    stripe: StripeConfig = StripeConfig()
    reconcile: ReconcileConfig = ReconcileConfig()
    secrets: SecretsConfig = SecretsConfig()
    event_log: EventLogConfig = EventLogConfig()
    tracing: TracingConfig = TracingConfig()
    logging: LoggingConfig = LoggingConfig()
    endpoints: tuple[EndpointConfig, ...] = ()

    @property
    def database_url(self) -> str:
        """The database's URL. Raises `ConfigurationError` where none is set."""
        if self.database.url is None:
            raise ConfigurationError(
                "database.url: is needed, such as postgresql://user:password@host:5432/name"
                " (or database.url_file, or STRIPE_INGEST__DATABASE__URL)"
            )
        return self.database.url.value

    @property
    def dedupe_url(self) -> str:
        """The dedupe store's URL: its own, else the database's."""
        return self.dedupe.url.value if self.dedupe.url is not None else self.database_url

    def redaction(self) -> Redaction | None:
        """What is to be redacted; None where nothing is. Raises `ConfigurationError` for a path or key that is none."""
        keys = self._redaction_keys()
        paths = parse_paths(self.kafka.redact)
        if not paths:
            return None
        if keys is None:
            raise ConfigurationError(
                "kafka.redact_key: is needed with kafka.redact: at least 32 random bytes in base64,"
                " as `openssl rand -base64 32` writes them (or kafka.redact_key_file)"
            )
        return Redaction.of(paths, keys)

    def sealing(self) -> Sealing | None:
        """What opens sealed bodies; None where there is no key. Also where nothing is redacted any more."""
        keys = self._redaction_keys()
        return None if keys is None else Sealing(keys)

    def _redaction_keys(self) -> RedactionKeys | None:
        return RedactionKeys.of(self.kafka.redact_key.value) if self.kafka.redact_key is not None else None

    def webhook_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints to serve. Raises `ConfigurationError` where there is none."""
        if not self.endpoints:
            raise ConfigurationError(
                "endpoints: at least one is needed: an [[endpoints]] table in the file,"
                " or STRIPE_WEBHOOK_SECRET in the environment for a single one called 'stripe'"
            )
        return tuple(endpoint.endpoint() for endpoint in self.endpoints)


def load(path: str | None, environment: Mapping[str, str]) -> Config:
    """The configuration with what the secret store adds. Raises `ConfigurationError` with one message."""
    return merged(load_given(path, environment))


def merged(given: Config) -> Config:
    """A configuration with what its secret store adds. Raises `ConfigurationError` where an endpoint has no secret."""
    store = given.secrets.file()
    config = given if store is None else with_stored(given, store.read())
    _check_secrets(config)
    return config


def with_stored(given: Config, credentials: Credentials) -> Config:
    """A configuration with the credentials of its endpoints; what it says itself, it keeps."""

    def completed(endpoint: EndpointConfig) -> EndpointConfig:
        stored = credentials.of(endpoint.name)
        return msgspec.structs.replace(
            endpoint,
            secrets=endpoint.secrets or tuple(each.value for each in stored.signing),
            api_key=endpoint.api_key or stored.api_key,
        )

    return msgspec.structs.replace(given, endpoints=tuple(map(completed, given.endpoints)))


def load_given(path: str | None, environment: Mapping[str, str]) -> Config:
    """The configuration as file and environment have it, without the secret store.

    Raises `ConfigurationError` with one message that names the key.
    """
    tree = _read_file(path, environment)
    _apply_environment(tree, environment)
    _apply_single_endpoint(tree, environment)
    _read_secret_files(tree)
    try:
        config = msgspec.convert(tree, Config, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_message(str(error))) from None
    _check(config)
    return config


def load_topic_prefix(path: str | None, environment: Mapping[str, str]) -> str:
    """`kafka.topic_prefix` alone, for what needs no more: no other setting is judged, and no secret's file is read.

    Raises `ConfigurationError` as `load` does.
    """
    tree = _read_file(path, environment)
    _apply_environment(tree, {name: value for name, value in environment.items() if name.upper() == _TOPIC_PREFIX})
    return checked_topic_prefix(_table(tree, "kafka").get("topic_prefix", KafkaConfig().topic_prefix))


def checked_topic_prefix(prefix: object) -> str:
    """A prefix that was given. Raises `ConfigurationError` where topics cannot begin with it."""
    try:
        return msgspec.convert({"kafka": {"topic_prefix": prefix}}, Config).kafka.topic_prefix
    except msgspec.ValidationError as error:
        raise ConfigurationError(_message(str(error))) from None


def _read_file(path: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    named = path or environment.get("STRIPE_INGEST_CONFIG")
    file = Path(named or DEFAULT_FILE)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise ConfigurationError(f"{file}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {type(error).__name__}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: is not TOML: {error}") from None


def _apply_environment(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        keys = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        value = environment[variable].strip()
        section: type[_Section]
        if keys[0] == "endpoints" and len(keys) == 3:
            table, section = _endpoint_table(tree, keys[1]), EndpointConfig
        elif keys[:2] == ["kafka", "security"] and len(keys) == 3:
            table, section = _table(_table(tree, "kafka"), "security"), KafkaSecurityConfig
        elif len(keys) == 2 and keys[0] in _SECTIONS:
            table, section = _table(tree, keys[0]), _SECTIONS[keys[0]]
        else:
            raise ConfigurationError(
                f"{variable}: is no setting; allowed are {ENVIRONMENT_PREFIX}<SECTION>__<KEY> with the sections "
                + ", ".join(sorted(_SECTIONS))
                + f", and {ENVIRONMENT_PREFIX}ENDPOINTS__<NAME>__<KEY>"
            )
        key = keys[-1]
        table.pop(f"{key}_file", None)  # a value overrides a file's path, and the reverse
        if key.endswith("_file"):
            table.pop(key.removesuffix("_file"), None)
        table[key] = [part.strip() for part in value.split(",") if part.strip()] if _is_list(section, key) else value


def _table(tree: dict[str, Any], key: str) -> dict[str, Any]:
    table = tree.setdefault(key, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{key}: expected a table")
    return table


def _endpoint_table(tree: dict[str, Any], variable_name: str) -> dict[str, Any]:
    endpoints = tree.setdefault("endpoints", [])
    if not isinstance(endpoints, list):
        raise ConfigurationError("endpoints: expected an array of tables, [[endpoints]]")
    for endpoint in endpoints:
        if isinstance(endpoint, dict) and str(endpoint.get("name", "")).replace("-", "_") == variable_name:
            return endpoint
    created: dict[str, Any] = {"name": variable_name}
    endpoints.append(created)
    return created


def _apply_single_endpoint(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    secret = environment.get("STRIPE_WEBHOOK_SECRET", "").strip()
    if not secret or tree.get("endpoints"):
        return
    endpoint: dict[str, Any] = {
        "name": "stripe",
        "mode": "any",
        "secrets": [part.strip() for part in secret.split(",")],
    }
    if api_key := environment.get("STRIPE_API_KEY", "").strip():
        endpoint["api_key"] = api_key
    tree["endpoints"] = [endpoint]


def _read_secret_files(tree: dict[str, Any]) -> None:
    endpoints, kafka = tree.get("endpoints"), tree.get("kafka")
    tables = [
        ("admin", tree.get("admin"), "token", False),
        ("database", tree.get("database"), "url", False),
        ("dedupe", tree.get("dedupe"), "url", False),
        ("kafka", kafka, "redact_key", False),
        ("reconcile", tree.get("reconcile"), "api_key", False),
        ("secrets", tree.get("secrets"), "key", False),
        ("kafka.security", kafka.get("security") if isinstance(kafka, dict) else None, "password", False),
    ]
    for index, endpoint in enumerate(endpoints if isinstance(endpoints, list) else ()):
        tables.append((f"endpoints[{index}]", endpoint, "secrets", True))
        tables.append((f"endpoints[{index}]", endpoint, "api_key", False))
    for where, table, key, several in tables:
        if not isinstance(table, dict) or f"{key}_file" not in table:
            continue
        if key in table:
            raise ConfigurationError(f"{where}.{key}: is set beside {key}_file; set one of the two")
        text = _read_secret(f"{where}.{key}_file", table.pop(f"{key}_file"))
        table[key] = text.split() if several else text


def _read_secret(where: str, path: object) -> str:
    if not isinstance(path, str):
        raise ConfigurationError(f"{where}: expected a path")
    try:
        with Path(path).open("rb") as file:
            text = file.read(SECRET_FILE_BYTES_MAX + 1).decode("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{where}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where}: {path} is not UTF-8 text") from None
    if not text or len(text) > SECRET_FILE_BYTES_MAX:
        raise ConfigurationError(f"{where}: {path} is empty or longer than {SECRET_FILE_BYTES_MAX} bytes")
    return text


def _decode_secret(expected: type, value: Any) -> Any:
    if expected is not Secret:
        raise NotImplementedError
    if not isinstance(value, str):
        raise ValueError("Expected `str`")  # noqa: TRY004 -- msgspec turns a ValueError into its own, with the path
    return Secret(value.strip())


def _message(error: str) -> str:
    """Turn msgspec's "Expected … - at `$.section.key`" around."""
    said, _, path = error.partition(" - at ")
    where = path.strip("`").removeprefix("$").lstrip(".")
    if said.startswith("Invalid enum value"):
        said = "allowed are " + ", ".join(map(str, _ENUMERATIONS.get(where.rpartition(".")[2], ())))
    elif said.startswith("Object contains unknown field"):
        return f"{where + '.' if where else ''}{said.split('`')[1]}: is no setting"
    elif said.startswith("Object missing required field"):
        return f"{where}.{said.split('`')[1]}: is needed"
    return f"{where}: {said[0].lower()}{said[1:]}"


def _check(config: Config) -> None:
    """What the types alone cannot say."""
    config.redaction()
    if config.kafka.min_insync_replicas > config.kafka.replication_factor:
        raise ConfigurationError("kafka.min_insync_replicas: must not be more than kafka.replication_factor")
    security = config.kafka.security
    if security.protocol == "PLAINTEXT" and (security.username or security.password or security.ca_file):
        raise ConfigurationError("kafka.security.protocol: is needed beside the others; PLAINTEXT uses none of them")
    if config.receiver.workers > 1 and config.receiver.port == 0:
        raise ConfigurationError("receiver.port: must be given with receiver.workers > 1: they share it")
    if security.protocol.startswith("SASL") and not (security.username and security.password):
        raise ConfigurationError(f"kafka.security.username: and password are needed with {security.protocol}")
    _check_url("database.url", config.database.url, ("postgresql", "postgres"))
    _check_url("dedupe.url", config.dedupe.url, ("postgresql", "postgres", "redis", "rediss", "memory"))
    if config.receiver.workers > 1 and config.dedupe.url and config.dedupe.url.value.startswith("memory:"):
        raise ConfigurationError(
            "dedupe.url: memory:// is one process's own; with receiver.workers > 1 use a shared one"
        )
    allowed_networks(config.receiver.allow_ips)
    _check_api_base(config.stripe.api_base)
    if config.reconcile.lookback_hours * 3600 <= config.reconcile.grace_seconds:
        raise ConfigurationError("reconcile.lookback_hours: must be longer than reconcile.grace_seconds")
    _check_admin(config.admin)
    if config.tracing.otlp_endpoint is not None:
        _check_base_url("tracing.otlp_endpoint", config.tracing.otlp_endpoint)
    if config.secrets.key is not None and config.secrets.store is None:
        raise ConfigurationError("secrets.store: is needed beside secrets.key: the file that it encrypts")
    _check_endpoints(config.endpoints)


def _check_admin(admin: AdminConfig) -> None:
    if admin.token is not None and len(admin.token.value) < ADMIN_TOKEN_LENGTH_MIN:
        raise ConfigurationError(
            f"admin.token: must have at least {ADMIN_TOKEN_LENGTH_MIN} characters; `openssl rand -hex 32` writes one"
        )
    for name in admin.allowed_hosts:
        if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]", name):
            raise ConfigurationError("admin.allowed_hosts: names or addresses only, without scheme, port and path")


def _check_url(key: str, url: Secret | None, schemes: tuple[str, ...]) -> None:
    if url is None:
        return
    scheme, separator, _ = url.value.partition("://")
    if not separator or scheme not in schemes:
        raise ConfigurationError(f"{key}: must begin with " + " or ".join(f"{name}://" for name in schemes))
    try:
        _ = urlsplit(url.value).port
    except ValueError:
        # Its own message would show what stands where the port should: part of a password, most likely.
        raise ConfigurationError(f"{key}: is no URL; percent-encode what is special in user and password") from None


def _check_base_url(key: str, base: str) -> SplitResult:
    try:
        parts = urlsplit(base)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(f"{key}: is no URL") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigurationError(f"{key}: must be https://host, with a port and a path at most")
    return parts


def _check_api_base(base: str) -> None:
    parts = _check_base_url("stripe.api_base", base)
    if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        # Every request carries the API key.
        raise ConfigurationError("stripe.api_base: must begin with https:// unless it is on this machine")


def _check_endpoints(endpoints: tuple[EndpointConfig, ...]) -> None:
    names: set[str] = set()
    paths: set[str] = set()
    for index, endpoint in enumerate(endpoints):
        where = f"endpoints[{index}] ({endpoint.name})"
        path = endpoint.endpoint().path
        if endpoint.name in names:
            raise ConfigurationError(f"{where}.name: is taken by another endpoint")
        if not re.fullmatch(r"/[A-Za-z0-9._~/-]{1,200}", path):
            raise ConfigurationError(f"{where}.path: must begin with / and hold letters, digits and . _ ~ / - only")
        if path in paths:
            raise ConfigurationError(f"{where}.path: {path} is taken by another endpoint")
        if endpoint.mode is None and not endpoint.connect:
            raise ConfigurationError(f"{where}.mode: is needed; allowed are " + ", ".join(get_args(Mode)))
        for secret in endpoint.secrets:
            if not is_signing_secret(secret):
                raise ConfigurationError(f"{where}.secrets: a signing secret begins with whsec_ and has no blanks")
        names.add(endpoint.name)
        paths.add(path)


def _check_secrets(config: Config) -> None:
    for index, endpoint in enumerate(config.endpoints):
        if not endpoint.secrets and config.secrets.store is None:
            # Verifying against no secret, or an empty one, is verifying nothing: anyone can sign with it.
            raise ConfigurationError(
                f"endpoints[{index}] ({endpoint.name}).secrets: at least one signing secret (whsec_…) is needed,"
                " or secrets.store, where `endpoints apply` puts it"
            )


IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def allowed_networks(allow_ips: str | tuple[str, ...]) -> tuple[IPNetwork, ...] | None:
    """The networks that may connect; None means any."""
    entries = [part.strip() for part in allow_ips.split(",")] if isinstance(allow_ips, str) else allow_ips
    if "any" in entries:
        return None
    if not entries:
        raise ConfigurationError('receiver.allow_ips: an empty list would refuse everybody; "any" allows them')
    networks: list[IPNetwork] = []
    for entry in entries:
        try:
            networks += map(ipaddress.ip_network, STRIPE_WEBHOOK_IPS if entry == "stripe" else (entry,))
        except ValueError:
            raise ConfigurationError(
                f'receiver.allow_ips: {entry!r} is neither "any", "stripe" nor an address or network'
            ) from None
    return tuple(networks)


_SECTIONS: Final[Mapping[str, type[_Section]]] = {
    name: hint for name, hint in get_type_hints(Config).items() if isinstance(hint, type) and issubclass(hint, _Section)
}

_ENUMERATIONS: Final[Mapping[str, tuple[Any, ...]]] = {
    "mode": get_args(Mode),
    "on_error": get_args(OnDedupeError),
    "format": get_args(LogFormat),
    "level": ("debug", "info", "warning", "error"),
    "protocol": get_args(SecurityProtocol),
    "sasl_mechanism": get_args(SaslMechanism),
    "compression": get_args(Compression),
}


def _is_list(section: type[_Section], key: str) -> bool:
    return get_origin(get_type_hints(section).get(key)) is tuple
