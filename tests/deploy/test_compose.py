"""The compose stack holds together: what it mounts is there, what it runs is there, and what it says fits."""

import re
import shlex
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Final

import click
import pytest
import yaml

from deploy.compose.credentials import FOLDER, written
from deploy.grafana.generating import FOLDER as DASHBOARDS
from service.cli import cli
from service.config import Config, load
from service.projections import PROJECTIONS
from tests.tools import promtool

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
STACK: Final[Mapping[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: Final[Mapping[str, Mapping[str, Any]]] = STACK["services"]
OURS: Final = sorted(name for name, service in SERVICES.items() if service["image"].startswith("stripe-ingest:"))
ONCE: Final = ("migrate", "topics")
PROCESSES: Final = sorted(set(OURS) - set(ONCE))
RUN_SECONDS_MAX: Final = 60


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The stack's secrets, made up."""
    folder = tmp_path / "secrets"
    written(folder, {})
    return folder


def configured(name: str) -> Path:
    """The configuration file that one of our services gets."""
    (mounted,) = SERVICES[name]["configs"]
    assert PurePosixPath(mounted["target"]) == PurePosixPath("/etc/stripe-ingest/stripe-ingest.toml")
    file: str = STACK["configs"][mounted["source"]]["file"]
    return DEPLOY / file


def with_secrets(name: str, folder: Path, secrets: Path) -> Path:
    """The service's configuration, as it finds it in its container: only its own secrets are there."""
    own = folder / name
    own.mkdir()
    for secret in SERVICES[name]["secrets"]:
        (own / secret).write_bytes((secrets / secret).read_bytes())
    here = folder / f"{name}.toml"
    here.write_text(configured(name).read_text("utf-8").replace("/run/secrets/", f"{own}/"), encoding="utf-8")
    return here


def binds(service: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What a service mounts: source, target, options."""
    for volume in service.get("volumes", ()):
        source, target, *options = volume.split(":")
        yield source, target, ":".join(options)


def ran(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)


def test_the_file_is_what_the_specification_allows() -> None:
    checked = ran(f"{Path(sys.executable).parent}/check-jsonschema", "--builtin-schema", "vendor.compose-spec",
                  str(DEPLOY / "compose.yaml"))  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_everything_that_is_mounted_is_there(secrets: Path) -> None:
    for name, service in SERVICES.items():
        for source, target, options in binds(service):
            if source.startswith("."):
                assert (DEPLOY / source).exists(), (name, source)
                assert options == "ro", (name, source)
            else:
                assert source in STACK["volumes"], (name, source)
            assert target.startswith("/")
        assert set(service.get("secrets", ())) <= set(STACK["secrets"]), name
        assert set(service["networks"]) <= set(STACK["networks"]), name
    mounted = {source for service in SERVICES.values() for source, _, _ in binds(service)}
    assert set(STACK["volumes"]) <= mounted
    assert {Path(secret["file"]).name for secret in STACK["secrets"].values()} == {
        path.name for path in secrets.iterdir()
    }
    assert all(Path(secret["file"]).parent == Path("compose/secrets") for secret in STACK["secrets"].values())
    assert {secret for service in SERVICES.values() for secret in service.get("secrets", ())} == set(STACK["secrets"])


def test_images_are_pinned() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"]), service["image"]
    assert {SERVICES[name]["image"] for name in OURS} == {f"stripe-ingest:{version('stripe-ingest')}"}


def test_nothing_is_published_but_on_the_loopback_and_kafka_and_postgres_nowhere() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"receiver", "prometheus", "grafana"}
    ports = [port for ports in published.values() for port in ports]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)
    assert STACK["networks"]["inside"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == set(published)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    if name in OURS:
        assert service["read_only"]
        assert service["init"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_can_come(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        if other in ONCE:
            assert wanted == {"condition": "service_completed_successfully"}
        else:
            assert wanted == {"condition": "service_healthy"}
            assert SERVICES[other]["healthcheck"]["test"][0] == "CMD"
    if name in PROCESSES:
        assert set(SERVICES[name]["depends_on"]) == {*ONCE, "kafka", "postgres"}
        assert "healthcheck" not in SERVICES[name], "the image's own"


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_there_is(name: str) -> None:
    """Down to its arguments: click parses them, and nothing is run."""
    command: click.Command = cli
    arguments = list(SERVICES[name]["command"])
    context = click.Context(command, info_name="stripe-ingest")
    while isinstance(command, click.Group):
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command = found
        context = click.Context(command, parent=context)
    command.make_context(command.name, list(arguments), parent=context.parent)


def test_every_projection_has_a_consumer() -> None:
    assert {tuple(SERVICES[name]["command"]) for name in PROCESSES} == {
        ("receive",),
        *(("consume", projection) for projection in PROJECTIONS),
    }


@pytest.mark.parametrize("name", OURS)
def test_a_configuration_loads_with_the_secrets_that_its_service_has(name: str, tmp_path: Path, secrets: Path) -> None:
    config = load(str(with_secrets(name, tmp_path, secrets)), {})

    assert config.database_url == (secrets / "database-url").read_text()
    assert config.kafka.bootstrap_servers == "kafka:9092"
    assert (config.admin.host, config.admin.port) == ("0.0.0.0", 9090)  # noqa: S104 -- in a container
    assert bool(config.endpoints) == (name == "receiver")
    assert SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://kafka:9092"


def test_the_receivers_configuration_passes_config_check(tmp_path: Path, secrets: Path) -> None:
    file = with_secrets("receiver", tmp_path, secrets)

    checked = ran(sys.executable, "-m", "service", "config", "check", "--config", str(file))

    assert checked.returncode == 0, checked.stderr
    assert "The configuration is right." in checked.stdout
    assert checked.stderr == ""


def test_what_both_configurations_say_is_the_same() -> None:
    receiver, consumer = (tomllib.loads(configured(name).read_text("utf-8")) for name in ("receiver", "migrate"))
    for section in ("kafka", "database"):
        assert receiver[section] == consumer[section]


def test_ports_match() -> None:
    config = Config()
    assert SERVICES["receiver"]["ports"] == [
        f"127.0.0.1:{port}:{port}" for port in (config.receiver.port, config.admin.port)
    ]


def test_a_stop_leaves_the_receiver_its_time() -> None:
    for name in PROCESSES:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Config().receiver.shutdown_timeout_seconds


def test_secrets_are_made_up_once_and_kept_from_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = written(folder, {"STRIPE_WEBHOOK_SECRET": "whsec_of_stripe"})
    before = {name: (folder / name).read_text() for name in first}

    assert before["stripe-webhook-secret"] == "whsec_of_stripe"
    assert before["postgres-password"] in before["database-url"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert f"{FOLDER.relative_to(DEPLOY.parent)}/" in (DEPLOY.parent / ".gitignore").read_text("utf-8").splitlines()
    (folder / "database-url").unlink()
    assert written(folder, {}) == ["database-url"]
    assert {name: (folder / name).read_text() for name in first} == before


def test_an_endpoints_secret_that_is_given_later_takes_the_place_of_the_one_made_up(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    written(folder, {})
    given = {"STRIPE_WEBHOOK_SECRET": "whsec_of_stripe"}

    assert written(folder, given) == ["stripe-webhook-secret"]
    assert (folder / "stripe-webhook-secret").read_text() == "whsec_of_stripe"
    assert written(folder, given) == written(folder, {}) == []


# Prometheus and Grafana


def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    checked = ran(str(promtool), "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_scrapes_every_process_and_no_other() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    scraped = {
        job["job_name"]: sorted(target for static in job["static_configs"] for target in static["targets"])
        for job in jobs
    }
    port = Config().admin.port
    assert scraped == {
        "stripe-ingest-receiver": [f"receiver:{port}"],
        "stripe-ingest-consumer": [f"{name}:{port}" for name in PROCESSES if name != "receiver"],
    }


def test_prometheus_is_started_with_what_the_rules_and_dashboards_need() -> None:
    flags = dict(flag.removeprefix("--").split("=") for flag in SERVICES["prometheus"]["command"])
    targets = {target: source for source, target, _ in binds(SERVICES["prometheus"])}
    assert flags["enable-feature"] == "exemplar-storage"
    assert int(flags["storage.tsdb.retention.time"].removesuffix("d")) > 30
    assert targets[flags["storage.tsdb.path"]] == "prometheus"
    assert targets[str(PurePosixPath(flags["config.file"]).parent)] == "./prometheus"


def provisioned(kind: str) -> Sequence[Any]:
    (file,) = (DEPLOY / "grafana" / "provisioning" / kind).iterdir()
    document = yaml.safe_load(file.read_text("utf-8"))
    assert document["apiVersion"] == 1
    found: Sequence[Any] = document["datasources" if kind == "datasources" else "providers"]
    return found


def test_grafana_finds_its_data_source_and_the_dashboards() -> None:
    (source,) = provisioned("datasources")
    (provider,) = provisioned("dashboards")
    mounts = {target: DEPLOY / bound for bound, target, _ in binds(SERVICES["grafana"]) if bound.startswith(".")}
    interval = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["global"][
        "scrape_interval"
    ]

    assert source["url"] == "http://prometheus:9090"
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert source["jsonData"]["timeInterval"] == interval
    assert mounts["/etc/grafana/provisioning"].resolve() == DASHBOARDS.parent / "provisioning"
    assert mounts[provider["options"]["path"]].resolve() == DASHBOARDS
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[str(home.parent)] / home.name).is_file()


def test_a_healthcheck_of_prometheus_is_a_command_that_there_is() -> None:
    _, program, *arguments = SERVICES["prometheus"]["healthcheck"]["test"]
    assert program == "promtool"
    said = ran(str(promtool), *arguments[:2], "--help")
    assert said.returncode == 0, said.stderr
    assert shlex.split(arguments[2])[0].partition("=")[0] in said.stdout + said.stderr
