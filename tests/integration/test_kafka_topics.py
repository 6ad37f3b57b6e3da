"""Topics are created, compared and corrected on a real broker."""

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from service.adapters.kafka_security import KafkaSecurity
from service.adapters.kafka_topics import (
    ChangeKind,
    TopicChange,
    TopicSpec,
    add_partitions,
    admin_client,
    apply,
    cluster_id,
    describe_topics,
)
from service.errors import BrokerUnavailable, ConfigurationError
from service.local.kafka import LocalKafka
from tests.support.waiting import eventually, free_port

CONFIGS = {"max.message.bytes": "4194304", "min.insync.replicas": "1", "retention.ms": "3024000000"}


@pytest.fixture
def spec(topic_prefix: str) -> TopicSpec:
    return TopicSpec(f"{topic_prefix}.payments", 3, 1, CONFIGS)


async def test_missing_topics_are_created_as_specified(kafka: LocalKafka, spec: TopicSpec) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        changes = await apply(admin, [spec])
        state = (await describe_topics(admin, [spec.name, "missing"]))[spec.name]

    assert [(change.topic, change.kind) for change in changes] == [(spec.name, ChangeKind.CREATED)]
    assert (state.partitions, state.replication_factor) == (3, 1)
    assert state.own_configs == CONFIGS
    assert state.max_message_bytes == 4194304


async def test_applying_again_changes_nothing(kafka: LocalKafka, spec: TopicSpec) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [spec])

        assert await apply(admin, [spec]) == []


async def test_a_config_that_differs_is_set_and_what_others_have_set_stays(kafka: LocalKafka, spec: TopicSpec) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [TopicSpec(spec.name, 3, 1, {"cleanup.policy": "compact", "max.message.bytes": "1000000"})])
        wanted = TopicSpec(spec.name, 3, 1, {"max.message.bytes": "4194304"})

        changes = await apply(admin, [wanted])

        assert changes == [TopicChange(spec.name, ChangeKind.ALTERED, "max.message.bytes", "1000000", "4194304")]
        own = (await describe_topics(admin, [spec.name]))[spec.name].own_configs
        assert own == {"cleanup.policy": "compact", "max.message.bytes": "4194304"}


async def test_partitions_that_differ_are_reported_and_added_only_by_name(kafka: LocalKafka, spec: TopicSpec) -> None:
    more = TopicSpec(spec.name, 5, 1, CONFIGS)
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [spec])

        assert await apply(admin, [more]) == [TopicChange(spec.name, ChangeKind.DIFFERS, "partitions", "3", "5")]
        assert (await describe_topics(admin, [spec.name]))[spec.name].partitions == 3

        assert await add_partitions(admin, [more]) == [
            TopicChange(spec.name, ChangeKind.PARTITIONS_ADDED, "partitions", "3", "5")
        ]
        assert (await describe_topics(admin, [spec.name]))[spec.name].partitions == 5
        assert await add_partitions(admin, [spec, more]) == []


async def test_a_replication_factor_that_the_cluster_cannot_have_is_a_configuration_error(
    kafka: LocalKafka, topic_prefix: str
) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        with pytest.raises(ConfigurationError, match=f"{topic_prefix}.payments"):
            await apply(admin, [TopicSpec(f"{topic_prefix}.payments", 1, 3)])


async def test_a_config_that_the_cluster_refuses_is_a_configuration_error(kafka: LocalKafka, spec: TopicSpec) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [spec])

        with pytest.raises(ConfigurationError, match=spec.name):
            await apply(admin, [TopicSpec(spec.name, 3, 1, {"retention.ms": "soon"})])


async def test_a_default_that_is_as_it_should_be_is_no_difference(kafka: LocalKafka, topic_prefix: str) -> None:
    name = f"{topic_prefix}.payments"
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [TopicSpec(name, 1, 1)])
        defaults = (await describe_topics(admin, [name]))[name].configs

        assert await apply(admin, [TopicSpec(name, 1, 1, {"retention.ms": defaults["retention.ms"]})]) == []


async def test_configs_that_somebody_has_reset_are_set_again(kafka: LocalKafka, spec: TopicSpec) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        await apply(admin, [spec])
        # Replaces all of the topic's own configs.
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, {"retention.ms": "60000"})])

        async def reset() -> bool:
            return (await describe_topics(admin, [spec.name]))[spec.name].own_configs == {"retention.ms": "60000"}

        await eventually(reset, what="reset")
        changed = {change.what for change in await apply(admin, [spec])}

    # The third has the same value by default.
    assert changed == {"max.message.bytes", "retention.ms"}


async def test_the_cluster_says_which_one_it_is(kafka: LocalKafka) -> None:
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        first = await cluster_id(admin)
    async with admin_client(kafka.bootstrap_servers, security=KafkaSecurity()) as admin:
        assert await cluster_id(admin) == first != "None"


async def test_no_broker_at_all_is_unavailable() -> None:
    with pytest.raises(BrokerUnavailable):
        async with admin_client(f"127.0.0.1:{free_port()}", security=KafkaSecurity(), request_timeout_seconds=1):
            pytest.fail("there is no broker")
