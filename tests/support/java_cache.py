"""Kafka's classes, loaded and linked once for all test runs: its Java then starts in half the time.

Nearly every second of a broker's start is Java reading classes, and tests that kill brokers start many.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from service.local.kafka import LocalKafka, class_path, java

OPTIONS = "JDK_JAVA_OPTIONS"
"""What any `java` that is started takes as options, before those of its command line."""

WRITING_SECONDS_MAX = 120.0


class Recording(LocalKafka):
    """A broker that writes the cache at its end."""

    stop_timeout_seconds = WRITING_SECONDS_MAX

    def __init__(self, data_dir: Path, cache: Path) -> None:
        super().__init__(data_dir)
        self._cache = cache

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, OPTIONS: f'"-XX:AOTCacheOutput={self._cache}"'}


def cache_file() -> Path:
    """Where it is kept: in the virtual environment. Java refuses one of another Java or of other jars."""
    release = java().parents[1] / "release"
    parts = [release.read_bytes(), *(bytes(jar) for jar in class_path())]
    return Path(sys.prefix) / f"kafka-{hashlib.sha256(b':'.join(parts)).hexdigest()[:16]}.aot"


async def use_java_cache() -> None:
    """Have every Java that is started from here on use it; made first, which takes ten seconds, where it is missing."""
    if OPTIONS in os.environ:
        return
    cache = cache_file()
    if not cache.exists() and os.access(cache.parent, os.W_OK):
        await _record(cache)
    if cache.exists():
        os.environ[OPTIONS] = f'"-XX:AOTCache={cache}"'


async def _record(cache: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache.parent) as folder:
        made = Path(folder) / "made.aot"
        broker = Recording(Path(folder) / "data", made)
        await broker.start()
        await broker.stop()
        if made.exists():
            for old in cache.parent.glob("kafka-*.aot"):
                old.unlink(missing_ok=True)
            made.replace(cache)
