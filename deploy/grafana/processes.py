"""What a process of ours takes of its machine: the same panels on every dashboard that shows processes."""

from deploy.grafana.frame import Row
from deploy.grafana.panels import About, Levels, Query, counts, lines
from deploy.grafana.promql import PREFIX, Scope, highest, increase, quantile, rate


def processes(scope: Scope) -> Row:
    """CPU, memory, files, the event loop, garbage collection and lost log lines, by instance."""
    return Row(
        "Processes",
        [
            lines(
                "CPU",
                About(
                    "Cores taken by each process. One process can take one core: near 1 it is at its end, and needs"
                    " siblings (receivers: workers or replicas; consumers: as many as there are partitions)."
                ),
                "short",
                Query(rate(scope.of_any("process_cpu_seconds_total"), "instance"), "{{instance}}"),
                levels=Levels(orange=0.8, red=0.95),
            ),
            lines(
                "Resident memory",
                About(
                    "Flat after the first minutes, some 100 to 200 MB a process. What grows for hours is a leak:"
                    " note the version, restart, report it."
                ),
                "bytes",
                Query(highest(scope.of_any("process_resident_memory_bytes"), "instance"), "{{instance}}"),
            ),
            lines(
                "Event loop lag",
                About(
                    "How late the event loop wakes up. Below 10 ms as a rule; above 100 ms everything that the process"
                    " does waits: CPU is short, or something blocks.",
                    ("StripeIngestEventLoopLag",),
                ),
                "s",
                Query(quantile(0.5, scope.of("event_loop_lag_seconds_bucket"), "instance"), "p50 {{instance}}"),
                Query(quantile(0.99, scope.of("event_loop_lag_seconds_bucket"), "instance"), "p99 {{instance}}"),
                levels=Levels(orange=0.1, red=0.5),
            ),
            lines(
                "Open files, of what is allowed",
                About(
                    "Share of the file descriptors in use, connections among them. Below half. Near 1 nothing can be"
                    " accepted any more: raise the limit (ulimit -n), and look for who opens so many connections."
                ),
                "percentunit",
                Query(
                    f"{highest(scope.of_any('process_open_fds'), 'instance')}"
                    f" / {highest(scope.of_any('process_max_fds'), 'instance')}",
                    "{{instance}}",
                ),
                levels=Levels(orange=0.5, red=0.8),
            ),
            lines(
                "Garbage collections",
                About(
                    "A second, by generation. Generation 2 stops the process for longest and is rare; where it is not,"
                    " event loop lag shows whether it hurts."
                ),
                "ops",
                Query(rate(scope.of_any("python_gc_collections_total"), "generation"), "generation {{generation}}"),
            ),
            counts(
                "Log lines dropped",
                About(
                    "How many, and when. 0: otherwise whoever reads the processes' standard error is too slow, and what"
                    " they had to say is lost.",
                    ("StripeIngestLogLinesDropped",),
                ),
                Query(increase(scope.of("log_lines_dropped_total"), "instance"), "{{instance}}"),
                levels=Levels(red=1),
            ),
        ],
    )


def versions(scope: Scope) -> Query:
    """How many processes run each version."""
    return Query(f"count by (version, python) ({scope.of_any(PREFIX + 'build_info')})", "{{version}}")
