"""Alerts against real faults: the real processes, a real Prometheus with the real rules, and time compressed.

`python -m tests.alerting` injects a fault for each alert, waits until it fires, and shows what else did.
"""
