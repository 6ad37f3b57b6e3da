"""TCP ports on the loopback interface."""

import random
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"

# Below the range that Linux takes source ports from (32768 and up). A client that keeps dialling a stopped server's
# port would otherwise one day be given that very port as its source, connect to itself, and hold it for ever.
_RANGE: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 100


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nothing listens on, and that the system will not give to an outgoing connection.

    Raises `OSError` when a hundred tries found none.
    """
    # Not `random.choice`: whoever seeds the global generator (test runs do) would get the same "free" port each time.
    candidates = random.SystemRandom().sample(_RANGE, _ATTEMPTS)
    for port in candidates:
        if is_free(port):
            return port
    msg = f"no free port among {_ATTEMPTS} tried between {_RANGE.start} and {_RANGE.stop}"
    raise OSError(msg)
