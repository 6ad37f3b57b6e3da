"""The image's build stage, without an engine: what the Dockerfile copies and runs, done in a folder.

`python -m tests.deploy.image` does all of it, from the package index; the tests do what needs none.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "deploy" / "Dockerfile"
IGNORED: Final = shutil.ignore_patterns("__pycache__", "*.pyc")
"""As .dockerignore has it."""
RUN_SECONDS_MAX: Final = 600


@dataclass(frozen=True)
class Instruction:
    """One of a Dockerfile, its lines joined: `RUN`, and what."""

    name: str
    arguments: str


def stages() -> Iterator[list[Instruction]]:
    """The Dockerfile's stages, each from its FROM on."""
    lines = [line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    stage: list[Instruction] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name == "FROM" and any(instruction.name == "FROM" for instruction in stage):
            yield stage
            stage = []
        if name:
            stage.append(Instruction(name, " ".join(arguments.split())))
    yield stage


def copy(arguments: str, source: Path) -> None:
    """A COPY of the build stage: files of the repository, into the stage's folder."""
    *names, target = arguments.split()
    for name in names:
        whence, whither = ROOT / name, source / target
        if whence.is_dir():
            shutil.copytree(whence, whither, ignore=IGNORED)
        else:
            whither.mkdir(parents=True, exist_ok=True)
            shutil.copy2(whence, whither)


def run(arguments: str, folder: Path, source: Path, environment: Mapping[str, str]) -> None:
    """A RUN: commands joined by &&, the stage's folders being in `folder`."""
    for command in arguments.split(" && "):
        words = [word.replace("/opt/", f"{folder}/opt/") for word in command.split()]
        words[0] = sys.executable if words[0] == "python" else words[0]
        subprocess.run(words, cwd=source, env={**os.environ, **environment}, check=True, timeout=RUN_SECONDS_MAX)


def build(folder: Path) -> Path:
    """Do the build stage in a folder; gives the `stripe-ingest` that it has installed."""
    (stage, _) = stages()
    source = folder / "src"
    source.mkdir()
    environment: dict[str, str] = {}
    for instruction in stage:
        if instruction.name == "COPY":
            copy(instruction.arguments, source)
        elif instruction.name == "ENV":
            environment |= dict(setting.split("=", 1) for setting in instruction.arguments.split())
        elif instruction.name == "RUN":
            run(instruction.arguments, folder, source, environment)
    return folder / "opt" / "stripe-ingest" / "bin" / "stripe-ingest"


def main() -> None:
    """Build it, and have it say its version and its presets."""
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for arguments in (["--version"], ["config", "presets"], ["contract", "list"]):
            subprocess.run([program, *arguments], check=True, cwd=folder, timeout=RUN_SECONDS_MAX)


if __name__ == "__main__":
    main()
