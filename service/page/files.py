"""The page's own files, from the installed package: read once, small, and never by a name that somebody chose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import resources
from typing import Final

INDEX: Final = "index.html"
FILE_BYTES_MAX: Final = 1024 * 1024

_CONTENT_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file to be served; its `etag` is quoted as headers have it."""

    body: bytes = field(repr=False)
    content_type: str
    etag: str


def read_files() -> Mapping[str, StaticFile]:
    """All of them, by name. Blocks while it reads."""
    folder = resources.files("service.page") / "static"
    found: dict[str, StaticFile] = {}
    for each in folder.iterdir():
        content_type = _CONTENT_TYPES.get("." + each.name.rpartition(".")[2])
        if content_type is None or not each.is_file():
            continue
        body = each.read_bytes()
        if len(body) > FILE_BYTES_MAX:
            raise ValueError(f"service/page/static/{each.name} is over {FILE_BYTES_MAX} bytes")
        found[each.name] = StaticFile(body, content_type, f'"{sha256(body).hexdigest()[:32]}"')
    return found
