"""Benchmarks, each beside a baseline of the same run: `python -m tests.bench.receiver`, `python -m tests.bench.consumer`.

pytest does not collect them: a machine that others use too is no place for a limit in µs.
"""
