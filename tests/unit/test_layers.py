"""A module imports what stands above it and, at the edges, its own driver. The table is the architecture."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "service"

CORE = {"errors", "contract", "events"}

# module or package -> (what of service/ it may import, which third-party packages)
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "__init__": (set(), set()),
    "errors": (set(), set()),
    "contract": (set(), {"msgspec"}),
    # What describes the topics reads the tables that they are made by; consumers never import these two.
    "contract.asyncapi": (CORE | {"records", "redaction"}, set()),
    "contract.files": (CORE | {"records"}, set()),
    "events": ({"contract"}, set()),
    "signature": (CORE, set()),
    "redaction": ({"errors", "redaction"}, {"cryptography"}),
    "normalize": (CORE | {"redaction"}, {"msgspec", "orjson"}),
    "records": (CORE | {"redaction"}, {"msgspec"}),
    "routing": (CORE | {"normalize", "records"}, set()),
    "money": (set(), set()),
    "projections": (CORE, {"msgspec"}),
    "credentials": (CORE, set()),
    "credentials.file": (CORE | {"credentials", "signature"}, {"cryptography", "msgspec"}),
    "tracing": (set(), set()),
    "ports": (CORE | {"projections", "credentials.book"}, set()),
    "clock": (set(), set()),
    "hangup": (set(), set()),
    "stopping": (set(), set()),
    "telemetry": (
        CORE | {"ports", "consumer.lag", "consumer.observer", "records"},
        {"prometheus_client", "structlog", "orjson"},
    ),
    # The SDK's packages are an extra: nothing imports this module but its composition, where it is asked for.
    "telemetry.tracing": (CORE | {"telemetry", "tracing"}, {"opentelemetry", "structlog"}),
    # What metrics are called by the values that the code knows.
    "telemetry.catalogue": (CORE | {"normalize", "projections", "telemetry"}, set()),
    "receiver.dedupe": (CORE | {"ports"}, set()),
    "receiver.arriving": (CORE, set()),
    "receiver.ingest": (
        CORE
        | {
            "ports",
            "normalize",
            "records",
            "redaction",
            "signature",
            "tracing",
            "receiver.arriving",
            "receiver.dedupe",
        },
        set(),
    ),
    "receiver.http": (
        CORE
        | {
            "config",
            "normalize",
            "receiver.ingest",
            "receiver.reading",
            "receiver.skew",
            "signature",
            "telemetry",
            "tracing",
        },
        {"aiohttp", "orjson", "structlog"},
    ),
    "receiver.reading": ({"errors"}, set()),
    "receiver.accepting": (set(), {"aiohttp"}),
    "receiver.skew": ({"telemetry"}, {"structlog"}),
    "receiver.workers": ({"errors", "hangup"}, {"structlog"}),
    "receiver.reloading": (CORE | {"config", "signature", "telemetry"}, {"msgspec", "structlog"}),
    "receiver": (set(), set()),
    "consumer": (CORE | {"ports", "records", "consumer", "projections", "tracing"}, {"structlog"}),
    "recovery.redrive": (
        CORE | {"ports", "normalize", "records", "redaction", "receiver.ingest", "recovery.taking"},
        set(),
    ),
    "recovery": (
        CORE | {"ports", "normalize", "projections", "receiver.ingest", "records", "redaction", "recovery"},
        {"msgspec"},
    ),
    "admin": ({"errors"}, {"aiohttp", "orjson", "prometheus_client"}),
    "config": ({"errors", "events", "redaction", "credentials"}, {"msgspec"}),
    "stripe_account": (set(), set()),
    "stripe_account.rate": (set(), set()),
    "stripe_account.observer": (set(), set()),
    "stripe_account.api_keys": (CORE | {"config"}, set()),
    "stripe_account.scopes": (set(), set()),
    "stripe_account.calling": (CORE | {"ports", "stripe_account"}, {"stripe", "aiohttp", "msgspec"}),
    "stripe_account.client": (CORE | {"ports", "stripe_account"}, {"msgspec"}),
    "stripe_account.webhook_endpoints": (CORE | {"ports", "credentials.book", "stripe_account"}, {"msgspec"}),
    "stripe_account.permission_probe": (CORE | {"stripe_account"}, {"msgspec"}),
    "stripe_account.needs": (CORE | {"config", "ports", "recovery.snapshots", "routing", "stripe_account"}, set()),
    "stripe_account.keys_check": (CORE | {"stripe_account"}, set()),
    "stripe_account.endpoint_versions": ({"normalize.event_types"}, set()),
    "stripe_account.endpoint_urls": (set(), set()),
    "stripe_account.endpoint_wanted": (CORE | {"config", "credentials.book", "normalize", "routing"}, set()),
    "stripe_account.endpoint_matching": (CORE | {"credentials.book", "ports"}, set()),
    "stripe_account.endpoint_plan": (CORE | {"credentials.book", "ports"}, set()),
    "stripe_account.endpoint_apply": (CORE | {"credentials.book", "normalize.event_types", "ports"}, set()),
    "stripe_account.endpoint_roll": (CORE | {"credentials.book", "ports", "signature"}, set()),
    "stripe_account.endpoint_problems": (set(), set()),
    "stripe_account.endpoint_renderings": ({"config", "normalize.envelope"}, set()),
    "stripe_account.endpoint_subjects": ({"config", "credentials.book", "normalize.event_types", "ports"}, set()),
    "stripe_account.endpoint_status": (CORE | {"config", "normalize.event_types", "ports"}, {"msgspec"}),
    "stripe_account.endpoint_look": (
        CORE | {"config", "credentials.book", "normalize.envelope", "ports"},
        {"msgspec"},
    ),
    # The page's rules and figures are pure; `http` and `asking` alone know the web framework, and none a driver.
    "page": (set(), set()),
    "page.sessions": (set(), set()),
    "page.access": (CORE, set()),
    "page.live": (CORE | {"ports", "signature", "telemetry"}, {"prometheus_client", "structlog"}),
    "page.timeline": (CORE | {"ports", "projections"}, {"msgspec"}),
    "page.documents": ({"ports", "projections.model"}, set()),
    "page.consumers": (CORE | {"ports", "telemetry"}, {"structlog"}),
    "page.parked": (CORE | {"ports", "recovery.redrive", "telemetry"}, {"structlog"}),
    "page.files": (set(), set()),
    "page.asking": (set(), {"aiohttp", "msgspec"}),
    "page.http": (CORE | {"ports", "projections.model", "telemetry"}, {"aiohttp", "msgspec", "structlog"}),
    "presets": ({"errors"}, set()),
    "sql": ({"sql"}, {"alembic", "sqlalchemy"}),
    # The fake Stripe knows Stripe's event types from the one list there is of them, and takes time as an argument.
    "simulator": (
        {"errors", "events", "signature", "simulator", "clock", "ports", "normalize.event_types"},
        {"aiohttp", "orjson", "rich"},
    ),
}
ADAPTERS: dict[str, set[str]] = {
    "kafka_": {"aiokafka"},
    "postgres_": {"asyncpg", "msgspec", "orjson"},
    "dedupe_postgres": {"asyncpg"},
    "migrations": {"alembic", "sqlalchemy", "psycopg"},
    "memory_": {"msgspec"},
    "dedupe_memory": set(),
    "dedupe_redis": {"redis", "hiredis"},
    "http_probe": {"aiohttp"},
    "certificates": {"cryptography"},
}
"""An adapter: the core, ports, projections, records, its siblings of the same driver, and that one driver (with its
parser, where that is a package of its own)."""

UNBOUND = {"bootstrap", "cli", "commands", "__main__", "local"}
"""Where everything is put together; `local` has the servers' own wheels."""


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "migrations/versions" not in path.as_posix())


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found |= {
                f"{node.module}.{alias.name}" if node.module == "service" else node.module for alias in node.names
            }
    return found


def allowed(module: str) -> tuple[set[str], set[str]] | None:
    """What a module may import, or None where everything meets."""
    top = module.partition(".")[0]
    if top in UNBOUND:
        return None
    if top == "adapters":
        own = {"adapters"} | CORE | {"ports", "projections", "records", "clock", "credentials.book"}
        drivers = [d for prefix, d in ADAPTERS.items() if module.removeprefix("adapters.").startswith(prefix)]
        assert drivers or module == "adapters", f"service/{module}: no row for this adapter in ADAPTERS"
        return own, set().union(*drivers)
    row = LAYERS.get(module) or LAYERS.get(top)
    assert row is not None, f"service/{module}: no row for this module in LAYERS"
    return row


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    module = name_of(path)
    limits = allowed(module)
    if limits is None:
        return
    ours, theirs = limits
    top = module.partition(".")[0]
    for name in imports_of(path):
        package, _, rest = name.partition(".")
        if package == "service":
            assert any(
                rest == layer or rest.startswith(f"{layer}.") for layer in ours | ({top} if top in LAYERS else set())
            ), f"service/{path.relative_to(ROOT)} imports service.{rest}; its layer may import {sorted(ours)}"
        elif package not in sys.stdlib_module_names:
            assert package in theirs, (
                f"service/{path.relative_to(ROOT)} imports {package}; its layer may import {sorted(theirs)}"
            )


def test_only_signature_makes_a_verified_event() -> None:
    makers = {
        name_of(path)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "VerifiedEvent"
    }

    assert makers == {"signature"}
