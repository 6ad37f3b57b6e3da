"""The image: what the Dockerfile says, and that the wheel in it has everything that the program reads."""

import json
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.config import AdminConfig, ReceiverConfig
from tests.deploy.image import DOCKERFILE, ROOT, Instruction, copy, run, stages

BIN: Final = Path(sys.executable).parent
RUN_SECONDS_MAX: Final = 100


def needed(distribution: str) -> set[str]:
    """A distribution's name, and the names of all that it needs here."""
    found = {distribution}
    for line in requires(distribution) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= needed(requirement.name)
    return found


def final_stage() -> Mapping[str, str]:
    """The instructions of the image itself, by name; those that it has several of are left out."""
    *_, last = stages()
    return {instruction.name: instruction.arguments for instruction in last}


def build_stage(name: str) -> list[Instruction]:
    first, *_ = stages()
    return [instruction for instruction in first if instruction.name == name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as the Dockerfile builds it, by the hatchling of this virtual environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "src"
    source.mkdir()
    for instruction in build_stage("COPY"):
        copy(instruction.arguments, source)
    (building,) = (part for each in build_stage("RUN") for part in each.arguments.split(" && ") if " build " in part)
    run(building.replace("/opt/build/bin", str(BIN)), folder, source, {})
    (built,) = (folder / "opt" / "wheel").iterdir()
    return built


def test_hadolint_finds_nothing() -> None:
    checked = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_base_is_pinned_slim_and_the_same_for_both_stages() -> None:
    first, last = stages()
    (argument,) = (instruction.arguments for instruction in first if instruction.name == "ARG")
    assert re.fullmatch(r"PYTHON=3\.1[1-9]\.\d+-slim-[a-z]+", argument)
    assert [each.arguments for each in (*first, *last) if each.name == "FROM"] == [
        "python:${PYTHON} AS build",
        "python:${PYTHON}",
    ]


def test_it_runs_as_nobody_in_particular_and_is_stopped_as_the_service_expects() -> None:
    image = final_stage()
    user, _, group = image["USER"].partition(":")
    assert int(user) > 10_000
    assert int(group) > 10_000
    assert image["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(image["ENTRYPOINT"]) == ["stripe-ingest"]
    assert json.loads(image["CMD"]) == ["receive"]
    assert image["EXPOSE"].split() == [str(ReceiverConfig().port), str(AdminConfig().port)]
    assert "RUN" not in image, "nothing is run in the image itself: it is what the build stage made"


def test_its_version_is_the_projects() -> None:
    stated = re.search(r'image\.version="([^"]+)"', final_stage()["LABEL"])
    project = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert stated is not None
    assert project is not None
    assert stated[1] == project[1]


def test_what_is_installed_has_hashes_and_is_what_the_project_has_locked() -> None:
    installs = [
        shlex.split(part)
        for each in build_stage("RUN")
        for part in each.arguments.split(" && ")
        if "pip install" in part
    ]
    assert len(installs) == 3
    assert all(("--require-hashes" in words) != ("--no-index" in words) for words in installs)
    locked = (ROOT / "requirements-dev.txt").read_text("utf-8")
    building = (ROOT / "deploy" / "requirements-build.txt").read_text("utf-8")
    blocks = re.findall(r"^\S+==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+", building, re.MULTILINE)
    assert blocks
    assert building == building.splitlines(keepends=True)[0] + "".join(blocks)
    assert [block for block in blocks if block not in locked] == []
    assert {block.partition("==")[0] for block in blocks} == {canonicalize_name(name) for name in needed("hatchling")}


def test_only_what_is_copied_gets_into_the_builds_context() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")} - {"deploy"}
    copied = {name for each in build_stage("COPY") for name in each.arguments.split()[:-1]}
    assert lines[1] == "*"
    assert let_in == copied


def test_the_healthcheck_tells_alive_from_dead() -> None:
    """Against nothing: it fails. Against what answers: tests/acceptance/test_dashboards.py runs it."""
    _, _, command = final_stage()["HEALTHCHECK"].partition("CMD ")
    _, flag, program = json.loads(command)
    there_is_none = program.replace(":9090/", ":9/")
    assert flag == "-c"
    assert subprocess.run(
        [sys.executable, flag, there_is_none], capture_output=True, timeout=30, check=False
    ).returncode


def test_the_wheel_has_every_file_that_is_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("service/")}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "service").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    endings = {Path(name).suffix for name in packed}
    assert {".py", ".sql", ".toml", ".json", ".html", ".css", ".js"} <= endings


def test_what_the_wheel_installs_runs(wheel: Path, tmp_path: Path) -> None:
    """Beside the dependencies that are here already, and away from the checkout."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-index", "--no-deps",
         "--ignore-installed", "--disable-pip-version-check", str(wheel)],
        check=True, timeout=RUN_SECONDS_MAX,
    )  # fmt: skip

    def said(*arguments: str) -> str:
        return subprocess.run(
            [home / "bin" / "stripe-ingest", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True,
            timeout=RUN_SECONDS_MAX,
        ).stdout  # fmt: skip

    assert "0.1.0" in said("--version")
    assert "uncubus" in said("config", "presets")
    assert "payment_intent" in said("contract", "list")
    where = subprocess.run(
        [home / "bin" / "python", "-c", "import service; print(service.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=RUN_SECONDS_MAX,
    ).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(home)
