"""Runs of many inputs: seeded ones in this process or in several, coverage-guided ones in processes of their own."""

import base64
import gc
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Self

from service.redaction import Redaction, RedactionKeys, parse_paths
from tests.fuzz.seeds import seeds
from tests.fuzz.structure import damaged, endpoint, missigned, mutated
from tests.fuzz.tally import Tally
from tests.fuzz.target import signed

Progress = Callable[[int], None]

CHUNK: Final = 1000
"""Inputs of one seed: the unit that is handed to a process, and that can be run again."""

STRUCTURE: Final = "structure"
REDACTED: Final = "structure, redacted"
BYTES: Final = "bytes, at random"
SIGNATURE: Final = "signature header"
RANDOM: Final = "no JSON at all"
KINDS: Final[Mapping[str, int]] = {STRUCTURE: 72, REDACTED: 8, BYTES: 12, SIGNATURE: 7, RANDOM: 1}
"""Of a hundred seeded inputs, how many are of which kind."""

REDACTION: Final = Redaction.of(
    parse_paths([
        "customer.email", "hash:charge.billing_details.email", "*.description", "hash:payment_intent.metadata", "hash:*.name",
        "*.metadata.secret", "checkout_session.customer_details.address", "subscription.items.metadata",
    ]),
    RedactionKeys.of(base64.b64encode(b"k" * 32).decode()),
)  # fmt: skip

_COVERAGE: Final = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)")


def run_chunk(seed: int, chunk: int, inputs: int) -> Tally:
    """`inputs` inputs that depend on (seed, chunk) alone."""
    tally = Tally()
    random = Random(f"{seed}/{chunk}")
    bodies = seeds()
    for kind in random.choices(tuple(KINDS), tuple(KINDS.values()), k=inputs):
        body = random.choice(bodies)
        if kind == STRUCTURE:
            tally.run(kind, signed(mutated(body, random), endpoint(random)))
        elif kind == REDACTED:
            tally.run(kind, signed(mutated(body, random), endpoint(random)), REDACTION)
        elif kind == BYTES:
            tally.run(kind, signed(damaged(body, random), endpoint(random)))
        elif kind == SIGNATURE:
            tally.run(kind, missigned(body, random))
        else:
            tally.run(kind, signed(random.randbytes(random.randrange(300))))
    return tally


def run_seeded(inputs: int, seed: int, *, processes: int, until: float, advanced: Progress) -> Tally:
    """Seeded inputs in `processes` processes; none is begun after `until` (monotonic seconds)."""
    tally = Tally()
    chunks = ((chunk, min(CHUNK, inputs - start)) for chunk, start in enumerate(range(0, inputs, CHUNK)))
    with ProcessPoolExecutor(processes, initializer=_settle_down) as pool:
        running = {pool.submit(run_chunk, seed, *chunk) for chunk in _first(chunks, processes * 2)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                part = future.result()
                tally.add(part)
                advanced(part.inputs.total())
                if time.monotonic() < until:
                    running |= {pool.submit(run_chunk, seed, *chunk) for chunk in _first(chunks, 1)}
    return tally


def _settle_down() -> None:
    """What a process holds from its start on would make every collection of garbage as slow as the worst input."""
    seeds()
    gc.freeze()


def _first(chunks: Iterator[tuple[int, int]], count: int) -> Iterator[tuple[int, int]]:
    for _, chunk in zip(range(count), chunks, strict=False):
        yield chunk


@dataclass(frozen=True, slots=True)
class Guided:
    """What coverage guidance came to: `edges` of code reached, `corpus` inputs that each reached something new."""

    tally: Tally
    edges: int
    corpus: int


def run_guided(inputs: int, seed: int, scratch: Path, *, processes: int, until: float, advanced: Progress) -> Guided:
    """Coverage-guided inputs in `processes` processes over one corpus in `scratch`.

    What is not done by `until` (monotonic seconds) is ended and not counted.
    """
    corpus = scratch / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, body in enumerate(seeds()):
        (corpus / f"seed-{number:04}").write_bytes(body)
    shares = [inputs // processes + (number < inputs % processes) for number in range(processes)]
    guided = Guided(Tally(), 0, 0)
    with ExitStack() as running:
        fuzzers = [
            running.enter_context(_Fuzzer(share, seed + number, corpus, scratch / str(number)))
            for number, share in enumerate(shares)
            if share
        ]
        for fuzzer in fuzzers:
            found = fuzzer.result(until)
            guided.tally.add(found.tally)
            advanced(found.tally.inputs.total())
            guided = Guided(guided.tally, max(guided.edges, found.edges), max(guided.corpus, found.corpus))
    return guided


class _Fuzzer:
    """One process of `bytes_fuzzer`, which does not outlive the `with` block."""

    def __init__(self, inputs: int, seed: int, corpus: Path, scratch: Path) -> None:
        scratch.mkdir()
        self._report, self._log = scratch / "report", scratch / "log"
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.bytes_fuzzer",
            str(inputs),
            str(seed),
            str(corpus),
            str(self._report),
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=scratch, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def result(self, until: float) -> Guided:
        """What it came to; nothing where it is not done by `until`."""
        try:
            code = self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return Guided(Tally(), 0, 0)
        log = self._log.read_bytes()
        if code != 0:
            raise RuntimeError(f"the bytes fuzzer ended with {code}:\n{log[-4000:].decode('utf-8', 'replace')}")
        tally: Tally = pickle.loads(self._report.read_bytes())  # noqa: S301 - our own child wrote it
        edges, _, kept = max((tuple(map(int, found)) for found in _COVERAGE.findall(log)), default=(0, 0, 0))
        return Guided(tally, edges, kept)
