"""Whole configurations for known integrations, each with a page for the people who run it."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from service.errors import ConfigurationError

_PUBLIC_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/\[\]-]+")
_NO_PUBLIC_URL: Final = re.compile(r'^# public_url = "[^"]*"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Preset:
    """An integration: `<name>.toml` and `<name>.md` in this package."""

    name: str

    @property
    def configuration(self) -> str:
        """A commented file that `config.load` takes as it is, once the files that it names are there."""
        return self._read("toml")

    @property
    def page(self) -> str:
        """What to do at Stripe and here, in Markdown."""
        return self._read("md")

    @property
    def title(self) -> str:
        """What the page is called."""
        return self.page.partition("\n")[0].removeprefix("# ")

    @property
    def paths(self) -> Sequence[str]:
        """Where its endpoints are, below `receiver.public_url`."""
        endpoints = tomllib.loads(self.configuration)["endpoints"]
        return [endpoint.get("path", f"/webhooks/{endpoint['name']}") for endpoint in endpoints]

    def _read(self, kind: str) -> str:
        return files(__name__).joinpath(f"{self.name}.{kind}").read_text(encoding="utf-8")


_NAMES: Final = ("allsto", "artha-job-board", "fluent-cart", "ultimate-member", "uncubus")

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType({name: Preset(name) for name in _NAMES})
"""All of them by name."""


def with_public_url(configuration: str, url: str) -> str:
    """A commented configuration with `receiver.public_url` set. Raises `ConfigurationError` for what is no URL."""
    if not _PUBLIC_URL.fullmatch(url):
        raise ConfigurationError("--public-url: must be https://host, with a port and a path at most")
    return _NO_PUBLIC_URL.sub(f'public_url = "{url.rstrip("/")}"', configuration, count=1)
