import socket
from pathlib import Path

import pytest

from service.local.errors import DataFolderInUse, LocalStackError, PortTaken
from service.local.kafka import verify
from service.local.ports import LOOPBACK, free_port, is_free
from service.local.stack import Stack, StackOptions, choose_ports, locked

STACK = Stack(
    receiver="http://127.0.0.1:1",
    admin="http://127.0.0.1:2",
    bootstrap_servers="127.0.0.1:3",
    database_url="postgresql://postgres:hunter2@127.0.0.1:4/postgres",
    settings={"STRIPE_INGEST__DATABASE__URL": "postgresql://postgres:hunter2@127.0.0.1:4/postgres"},
)


def listening(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


def test_no_two_parts_get_the_same_port() -> None:
    """Kafka likes 9092, and so would the second consumer's admin side."""
    options = StackOptions(port=free_port(), admin_port=9090, projections=("payments", "refunds", "subscriptions"))
    if not is_free(9090):
        options = StackOptions(port=free_port(), admin_port=free_port(), projections=options.projections)

    ports = choose_ports(options)

    assert len(set(ports.values())) == len(ports)


def test_a_port_that_is_listened_on_is_not_free() -> None:
    port = free_port()
    with listening(port):
        assert not is_free(port)
    assert is_free(port)


def test_a_free_port_is_never_one_that_the_system_gives_to_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])

    assert all(free_port() < first for _ in range(20))


def test_port_zero_means_free_ports_for_everything() -> None:
    ports = choose_ports(StackOptions(port=0, projections=("payments", "refunds")))

    assert set(ports) == {"receiver", "receiver admin", "kafka", "postgres", "payments admin", "refunds admin"}
    assert len(set(ports.values())) == len(ports)
    assert not {8080, 9090, 9092, 5432} & set(ports.values())


@pytest.mark.parametrize("taken", ["--port", "--admin-port"])
def test_a_taken_port_is_named_with_the_option_that_moves_it(taken: str) -> None:
    ports = {"--port": free_port(), "--admin-port": free_port()}
    options = StackOptions(port=ports["--port"], admin_port=ports["--admin-port"])
    with listening(ports[taken]), pytest.raises(PortTaken, match=rf"port {ports[taken]} .* with {taken}$") as refused:
        choose_ports(options)

    assert refused.value.exit_code == 2


def test_a_port_that_nobody_asked_for_moves_when_it_is_taken() -> None:
    admin_port = free_port()
    with listening(admin_port + 1):
        ports = choose_ports(StackOptions(port=free_port(), admin_port=admin_port, projections=("payments",)))

    assert ports["receiver admin"] == admin_port
    assert ports["payments admin"] not in {admin_port, admin_port + 1}


def test_a_secret_file_of_the_environment_does_not_win_over_the_stacks_own_database() -> None:
    inherited = {"PATH": "/bin", "STRIPE_INGEST__DATABASE__URL_FILE": "/run/production-url"}

    assert STACK.environment(inherited) == {"PATH": "/bin", **STACK.settings}


def test_the_password_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(STACK)


def test_two_stacks_cannot_share_a_data_folder(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    refused = pytest.raises(DataFolderInUse, match=f"runs on {data_dir}: stop it")
    with locked(data_dir), refused, locked(data_dir):
        pytest.fail("both have the folder")

    with locked(data_dir):
        assert data_dir.is_dir()


def test_a_new_stack_removes_the_addresses_of_one_that_was_killed(tmp_path: Path) -> None:
    addresses = tmp_path / "stack.json"
    addresses.write_text("{}")
    with locked(tmp_path):
        assert not addresses.exists()


def test_a_data_folder_is_closed_to_others_and_to_git(tmp_path: Path) -> None:
    with locked(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"


def test_jars_that_are_not_the_tested_ones_are_not_run(tmp_path: Path) -> None:
    jar = tmp_path / "kafka-clients-4.3.0.jar"
    jar.write_bytes(b"something else")
    with pytest.raises(LocalStackError, match=r"kafka-clients-4\.3\.0\.jar"):
        verify([jar], {jar.name: "0" * 64})


def test_a_jar_too_many_or_too_few_is_not_run(tmp_path: Path) -> None:
    extra = tmp_path / "extra.jar"
    extra.write_bytes(b"")
    with pytest.raises(LocalStackError, match=r"extra\.jar, missing\.jar"):
        verify([extra], {"missing.jar": "0" * 64})
