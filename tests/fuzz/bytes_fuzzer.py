"""Coverage-guided fuzzing of a body's bytes (atheris, libFuzzer): inputs that reach new code are kept and bred.

`python -m tests.fuzz.bytes_fuzzer RUNS SEED CORPUS REPORT` runs in a process of its own: libFuzzer never gives it back.
Half of the children are made by libFuzzer, half by the mutations of `structure`, which keep a body nearly Stripe's.
"""

import gc
import os
import pickle
import sys
from pathlib import Path
from random import Random
from typing import Final

import atheris

INSTRUMENTED: Final = ("service.normalize", "service.contract", "service.records", "service.signature")
BODY_BYTES_MAX: Final = 64 * 1024
INPUT_SECONDS_MAX: Final = 20
KIND: Final = "bytes, guided by coverage"

with atheris.instrument_imports(include=list(INSTRUMENTED)):
    from tests.fuzz.structure import mutated
    from tests.fuzz.tally import Tally
    from tests.fuzz.target import ENDPOINTS, signed


def fuzz(runs: int, seed: int, corpus: Path, report: Path) -> None:
    """Never returns: the process ends after `runs` inputs, its tally pickled to `report`."""
    tally = Tally()

    def one(data: bytes) -> None:
        tally.run(KIND, signed(data, ENDPOINTS[tally.inputs[KIND] % len(ENDPOINTS)]))
        if tally.inputs[KIND] >= runs:
            report.write_bytes(pickle.dumps(tally))
            os._exit(0)

    def mutate(data: bytes, max_size: int, child_seed: int) -> bytes:
        random = Random(child_seed)
        if random.random() < 0.5:
            return mutated(data, random)[:max_size]
        return bytes(atheris.Mutate(data, max_size))

    options = [f"-seed={seed}", f"-max_len={BODY_BYTES_MAX}", f"-timeout={INPUT_SECONDS_MAX}", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    gc.freeze()
    atheris.Fuzz()


if __name__ == "__main__":
    fuzz(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
