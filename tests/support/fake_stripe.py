"""A fake Stripe on a free port, and official clients that talk to it."""

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import stripe

from service.local.ports import free_port
from service.simulator.fake_stripe import FakeStripe, serving
from tests.support.signing import NOW
from tests.support.waiting import eventually

STRIPE_MOCK_MODULE: Final = "github.com/stripe/stripe-mock@v0.203.0"
"""Pinned: a test does not change because Stripe has published something."""
STRIPE_MOCK_BUILD_SECONDS: Final = 420
_BUILT: Final = Path.home() / ".cache" / "stripe-ingest-tests" / "stripe-mock"
"""Not in the folder for temporary files: anybody could have put a program there."""
NO_STRIPE_MOCK: Final = "no stripe-mock, and no Go to build it with: the fake Stripe is not held against it here"


@dataclass
class ManualClock:
    """Time goes on when a test says so."""

    time: datetime = field(default=NOW)
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.time += timedelta(seconds=seconds)
        self.seconds += seconds


@asynccontextmanager
async def client_of(url: str, key: str, **options: Any) -> AsyncIterator[stripe.StripeClient]:
    """The official client, without retries of its own unless `max_network_retries` says so."""
    http = stripe.AIOHTTPClient(timeout=30)
    try:
        yield stripe.StripeClient(
            key, base_addresses={"api": url}, http_client=http, **{"max_network_retries": 0, **options}
        )
    finally:
        await http.close_async()  # type: ignore[no-untyped-call] # the package has no types here


@asynccontextmanager
async def fake_and_client(
    fake: FakeStripe, *, permissions: frozenset[str] | None = None, **options: Any
) -> AsyncIterator[stripe.StripeClient]:
    """The fake on a port, and a client of it with a new test key."""
    async with serving(fake) as url, client_of(url, fake.new_key("test", permissions), **options) as client:
        yield client


def stripe_mock_possible() -> bool:
    """Whether the official stripe-mock is here, or can be built."""
    return any(shutil.which(name) for name in ("stripe-mock", "go")) or _BUILT.exists()


needs_stripe_mock: Final = pytest.mark.skipif(not stripe_mock_possible(), reason=NO_STRIPE_MOCK)


def stripe_mock_binary() -> Path:
    """The official stripe-mock, built once through Go's module proxy where it is not installed."""
    installed = shutil.which("stripe-mock")
    if installed is not None:
        return Path(installed)
    binary = _BUILT
    if not binary.exists():
        command = ["go", "install", STRIPE_MOCK_MODULE]
        environment = {**os.environ, "GOBIN": str(binary.parent), "GOFLAGS": "-modcacherw"}
        try:
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=STRIPE_MOCK_BUILD_SECONDS)
        except (subprocess.SubprocessError, OSError) as failed:
            pytest.skip(f"stripe-mock could not be built here ({type(failed).__name__}): nothing to be held against")
    return binary


@asynccontextmanager
async def stripe_mock(binary: Path) -> AsyncIterator[str]:
    """The official stripe-mock on a free port; gives its URL."""
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220 -- a test may wait for a fork
        [binary, "-http-addr", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await eventually(lambda: _listens(port), timeout_seconds=30, what="stripe-mock listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
