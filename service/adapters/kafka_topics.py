"""Topics as they should be and as they are: look, create, correct, and, only when asked for by name, add partitions."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from service.adapters.kafka_security import KafkaSecurity
from service.errors import BrokerUnavailable, ConfigurationError

MAX_MESSAGE_BYTES: Final = "max.message.bytes"
_SET_ON_THE_TOPIC: Final = 1
"""DescribeConfigs' source of a value that was set on the topic itself; all others are defaults from elsewhere."""

_PROPAGATION_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be; configs by their Kafka names (`retention.ms`, `min.insync.replicas`, …)."""

    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is. `configs` is empty where this client may not read them."""

    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]
    own_configs: Mapping[str, str]
    """Those set on the topic itself."""

    @property
    def max_message_bytes(self) -> int | None:
        """The largest batch that the broker takes, in bytes, where it is known."""
        value = self.configs.get(MAX_MESSAGE_BYTES)
        return None if value is None else int(value)


class ChangeKind(StrEnum):
    """What became of a difference between what should be and what is."""

    CREATED = "created"
    ALTERED = "altered"
    """A config was set to what it should be."""
    PARTITIONS_ADDED = "partitions_added"
    DIFFERS = "differs"
    """Left alone: to change it moves keys or data, or what it is now cannot be read (`actual` is None)."""


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One line of what `apply` and `add_partitions` did or found, for a person and for `--json`."""

    topic: str
    kind: ChangeKind
    what: str
    """`topic`, `partitions`, `replication.factor` or the name of a config."""
    actual: str | None
    expected: str


@asynccontextmanager
async def admin_client(
    bootstrap_servers: str, *, security: KafkaSecurity, request_timeout_seconds: float = 10
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client inside the block. Raises `BrokerUnavailable` where Kafka does not answer in time."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap_servers,
        request_timeout_ms=int(request_timeout_seconds * 1000),
        **security.client_arguments(),
    )
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(f"kafka did not answer an administrative request: {type(error).__name__}") from error
    finally:
        await admin.close()


async def cluster_id(admin: AIOKafkaAdminClient) -> str:
    """The cluster's own id, which tells whether stored offsets are about this cluster."""
    return str((await admin.describe_cluster())["cluster_id"])


async def describe_topics(admin: AIOKafkaAdminClient, names: Collection[str]) -> Mapping[str, TopicState]:
    """Those of the named topics that exist and that this client may see."""
    # Asked for by name, a missing topic would be created by a broker that has auto.create.topics.enable.
    found = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    existing = sorted(set(names) & found.keys())
    configs = await _configs(admin, existing)
    return {
        name: TopicState(
            name=name,
            partitions=len(found[name]),
            replication_factor=min((len(p["replicas"]) for p in found[name]), default=0),
            configs={key: value for key, (value, _) in configs[name].items()},
            own_configs={key: value for key, (value, own) in configs[name].items() if own},
        )
        for name in existing
    }


async def _configs(admin: AIOKafkaAdminClient, names: Sequence[str]) -> Mapping[str, Mapping[str, tuple[str, bool]]]:
    """Config → (value, whether it is set on the topic itself), by topic; empty where they may not be read."""
    described: dict[str, dict[str, tuple[str, bool]]] = {name: {} for name in names}
    if not names:
        return described
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for response in await admin.describe_configs(resources):
        for code, _, _, name, entries in response.resources:
            error = for_code(code)
            if error in (TopicAuthorizationFailedError, ClusterAuthorizationFailedError):
                continue
            if code:
                raise error()
            described[name] = {
                key: (value, source == _SET_ON_THE_TOPIC) for key, value, _, source, *_ in entries if value is not None
            }
    return described


async def apply(admin: AIOKafkaAdminClient, specs: Collection[TopicSpec]) -> list[TopicChange]:
    """Create missing topics and set configs that differ; report what else differs. Doing it again changes nothing.

    Never touches partitions or replicas of a topic that exists. Raises `ConfigurationError` where the cluster
    refuses a topic (a replication factor above the number of brokers, say), `BrokerUnavailable` from the client's
    block.
    """
    states = await describe_topics(admin, [spec.name for spec in specs])
    missing = [spec for spec in specs if spec.name not in states]
    changes = await _create(admin, missing)
    for spec in specs:
        if state := states.get(spec.name):
            changes += _differences(spec, state)
            changes += await _alter(admin, spec, state)
    return changes


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec]) -> list[TopicChange]:
    if not specs:
        return []
    response = await admin.create_topics(
        [
            NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=dict(spec.configs))
            for spec in specs
        ]
    )
    for name, code, message in response.topic_errors:
        # Somebody else has just created it: the next run compares it.
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise ConfigurationError(f"kafka: the cluster refuses to create {name}: {message or for_code(code)}")
    # The controller answers before the brokers know.
    await _until(lambda: _led(admin, {spec.name for spec in specs}))
    return [
        TopicChange(
            spec.name,
            ChangeKind.CREATED,
            "topic",
            None,
            f"{spec.partitions} partitions, replication factor {spec.replication_factor}",
        )
        for spec in specs
    ]


async def _led(admin: AIOKafkaAdminClient, names: Collection[str]) -> bool:
    """Whether every partition of the topics has a leader."""
    led = {
        topic["topic"]
        for topic in await admin.describe_topics()
        if topic["partitions"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }
    return led >= set(names)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the brokers have heard of a change. Raises `TimeoutError` when they have not in 10 s."""
    async with asyncio.timeout(_PROPAGATION_SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(_LOOK_SECONDS)


def _differences(spec: TopicSpec, state: TopicState) -> Iterable[TopicChange]:
    for what, actual, expected in (
        ("partitions", state.partitions, spec.partitions),
        ("replication.factor", state.replication_factor, spec.replication_factor),
    ):
        if actual != expected:
            yield TopicChange(spec.name, ChangeKind.DIFFERS, what, str(actual), str(expected))


async def _alter(admin: AIOKafkaAdminClient, spec: TopicSpec, state: TopicState) -> list[TopicChange]:
    wrong = {key: value for key, value in spec.configs.items() if state.configs.get(key) != value}
    if not wrong:
        return []
    if not state.configs:
        # Not allowed to read them: sending ours alone would reset all others.
        return [TopicChange(spec.name, ChangeKind.DIFFERS, key, None, value) for key, value in sorted(wrong.items())]
    # AlterConfigs replaces all of a topic's own values, so those that nobody asked to change are sent along.
    resource = ConfigResource(ConfigResourceType.TOPIC, spec.name, {**state.own_configs, **wrong})
    for response in await admin.alter_configs([resource]):
        for code, message, *_ in response.resources:
            if code:
                raise ConfigurationError(
                    f"kafka: the cluster refuses the configs of {spec.name}: {message or for_code(code).__name__}"
                )

    async def heard_of() -> bool:
        now = (await _configs(admin, [spec.name]))[spec.name]
        return all(now[key][0] == value for key, value in wrong.items())

    await _until(heard_of)
    return [
        TopicChange(spec.name, ChangeKind.ALTERED, key, state.configs.get(key), value)
        for key, value in sorted(wrong.items())
    ]


async def add_partitions(admin: AIOKafkaAdminClient, specs: Collection[TopicSpec]) -> list[TopicChange]:
    """Raise topics to their number of partitions, never lower it.

    From then on most keys have another partition than before, so Kafka's order per key breaks at that moment: fine
    for the projections, which never rely on it, and for a person to decide about the other readers.
    """
    states = await describe_topics(admin, [spec.name for spec in specs])
    few = [spec for spec in specs if spec.name in states and states[spec.name].partitions < spec.partitions]
    if few:
        await admin.create_partitions({spec.name: NewPartitions(spec.partitions) for spec in few})
    return [
        TopicChange(
            spec.name,
            ChangeKind.PARTITIONS_ADDED,
            "partitions",
            str(states[spec.name].partitions),
            str(spec.partitions),
        )
        for spec in few
    ]
