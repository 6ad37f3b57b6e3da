"""The whole service on virtual time, with everything going wrong that can: histories by seed, and a checker of them.

    loop ── time and races by seed         stories ── what happens at Stripe       stripe ── how Stripe sends it
    faults ── what goes wrong              twins ── the ports, with faults         processes ── receivers, consumers
    world ── one history                   history, checker ── what came of it     planted ── bugs that must be found

`python -m tests.simulation --seeds 10000` plays many, `--seed K` tells one; `python -m tests.simulation.outages` shows
72 hours with an outage of each part in turn.
"""
