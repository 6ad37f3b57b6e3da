"""Secrets that a command is given: piped in, or typed in unseen; never on the command line, which others see."""

import sys
from typing import Final

import click

from service.errors import ConfigurationError

INPUT_BYTES_MAX: Final = 4096


def asked_for(what: str) -> str:
    """A secret that is piped in or typed in. Raises `ConfigurationError` for none, and for more than one."""
    if sys.stdin is None:
        text = ""
    elif sys.stdin.isatty():
        text = click.prompt(f"The {what}", hide_input=True, err=True, type=str)
    else:
        text = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1).decode("ascii", errors="replace")
    if len(text) > INPUT_BYTES_MAX or len(text.split()) != 1:
        raise ConfigurationError(f"the {what}: one is expected on standard input, and nothing else")
    return text.strip()
