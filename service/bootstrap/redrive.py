"""Composition of redriving: the side topics, and what is done with each record of theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.bootstrap import ingest as bootstrap_ingest
from service.bootstrap import kafka as bootstrap_kafka
from service.config import Config
from service.events import Endpoint
from service.records import Topics
from service.recovery.redrive import (
    Bodies,
    Describe,
    PlanBodies,
    PlanDeadLetters,
    ReplayBodies,
    ReplayDeadLetters,
    Search,
    Selection,
    Step,
    dead_letter_of,
    quarantined,
    search,
)


@dataclass(frozen=True, slots=True)
class Side:
    """A side topic."""

    topic: str
    describe: Describe

    @asynccontextmanager
    async def searching(self, config: Config, selection: Selection) -> AsyncIterator[Search]:
        """Where the records of a selection are, inside the block."""
        async with bootstrap_kafka.record_log(config) as log:
            yield await search(log, self.topic, self.describe, selection)


def dead_letters(config: Config) -> Side:
    """Where consumers put what they cannot apply."""
    return Side(Topics(config.kafka.topic_prefix).dead_letter, dead_letter_of)


def quarantine(config: Config) -> Side:
    """Where receivers put what they cannot normalize."""
    return Side(Topics(config.kafka.topic_prefix).quarantine, quarantined)


@asynccontextmanager
async def dead_letter_step(config: Config, *, dry_run: bool) -> AsyncIterator[Step]:
    """What replays a dead letter, or says what that would come to, inside the block."""
    readers = bootstrap_kafka.readers(config)
    if dry_run:
        yield PlanDeadLetters(readers)
        return
    async with bootstrap_kafka.replay_publisher(config) as publisher:
        yield ReplayDeadLetters(readers, publisher)


@asynccontextmanager
async def body_step(config: Config, *, dry_run: bool, endpoint_as: Endpoint | None = None) -> AsyncIterator[Step]:
    """The same for a quarantined body."""
    endpoints = {endpoint.name: endpoint for endpoint in config.webhook_endpoints()}
    bodies = Bodies(endpoints, endpoint_as, config.sealing())
    async with bootstrap_ingest.recovery_ingest(config) as ingest:
        yield PlanBodies(bodies, ingest) if dry_run else ReplayBodies(bodies, ingest)
