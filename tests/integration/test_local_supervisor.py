"""The supervisor, on real processes: small Python programs that stand for the receiver and the consumers."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.local import supervisor
from service.local.errors import ChildMisconfigured, LocalStackError
from service.local.supervisor import Child, Supervisor
from tests.support.waiting import alive, eventually, free_port

# Answers 200 on /readyz; says its pid when it is up and "bye" when it is told to stop.
READY_PROGRAM = """
import http.server, os, signal, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
def bye(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready)
print("up", os.getpid(), flush=True)
server.serve_forever()
"""
DEAF_PROGRAM = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", os.getpid(), flush=True)
time.sleep(600)
"""


@dataclass
class Output:
    """What the supervisor showed."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def write(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[1]) for said_by, line in self.lines if said_by == name and line.startswith("up ")]


def child(name: str, program: str) -> Child:
    port = free_port()
    command = [sys.executable, "-I", "-S", "-c", program, str(port)]
    return Child(name, command, dict(os.environ), f"http://127.0.0.1:{port}/readyz")


async def test_a_killed_child_starts_again_and_it_is_said() -> None:
    output = Output()
    async with Supervisor([[child("receiver", READY_PROGRAM)]], write=output.write) as supervised:
        await supervised.ready()
        [first] = output.pids("receiver")
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(output.pids("receiver")) == 2, what="a second start", timeout_seconds=30)
        await supervised.ready()

    assert ("receiver", "was ended by SIGKILL; starts again in 0.5 s") in output.lines
    assert not any(map(alive, output.pids("receiver")))


async def test_a_child_that_keeps_crashing_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY_SECONDS", 0.04)
    output = Output()
    async with Supervisor([[child("refunds", "raise SystemExit(75)")]], write=output.write):
        await eventually(lambda: len(output.lines) >= 4, what="four crashes", timeout_seconds=30)

    assert [line for _, line in output.lines[:4]] == [
        f"ended with exit code 75; starts again in {delay} s" for delay in ("0.01", "0.02", "0.04", "0.04")
    ]


async def test_stages_stop_one_after_the_other() -> None:
    output = Output()
    names = ("receiver", "payments", "refunds")
    receiver, *consumers = (child(name, READY_PROGRAM) for name in names)
    async with Supervisor([[receiver], consumers], write=output.write) as supervised:
        await supervised.ready()
        pids = [pid for name in names for pid in output.pids(name)]

    goodbyes = [name for name, line in output.lines if line == "bye"]
    assert goodbyes[0] == "receiver"
    assert sorted(goodbyes) == sorted(names)
    assert not any(map(alive, pids))


async def test_a_child_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT_SECONDS", 0.2)
    output = Output()
    async with Supervisor([[child("payments", DEAF_PROGRAM)]], write=output.write):
        await eventually(lambda: output.pids("payments"), what="the child is up", timeout_seconds=30)

    assert ("payments", "did not end within 0.2 s: killed") in output.lines
    assert not alive(*output.pids("payments"))


async def test_kill_ends_a_stop_that_waits_for_a_deaf_child() -> None:
    output = Output()
    supervised = Supervisor([[child("payments", DEAF_PROGRAM)]], write=output.write)
    await supervised.__aenter__()
    await eventually(lambda: output.pids("payments"), what="the child is up", timeout_seconds=30)
    stop = asyncio.create_task(supervised.__aexit__(None, None, None))
    await asyncio.sleep(0)
    supervised.kill()
    await stop

    assert not alive(*output.pids("payments"))
    assert not any("did not end" in line for _, line in output.lines)


async def test_a_child_that_refuses_its_configuration_is_not_started_again() -> None:
    output = Output()
    refusing = child("receiver", "print('receiver.port: must be a number'); raise SystemExit(2)")
    async with Supervisor([[refusing]], write=output.write) as supervised:
        with pytest.raises(ChildMisconfigured, match=r"^receiver does not start with this configuration"):
            await supervised.ready()
        with pytest.raises(ChildMisconfigured):
            await supervised.failed()

    assert output.lines == [("receiver", "receiver.port: must be a number")]


async def test_the_child_that_is_not_ready_in_time_is_named() -> None:
    children = [child("payments", DEAF_PROGRAM), child("receiver", READY_PROGRAM)]
    deaf = Supervisor([children[:1]], write=Output().write)
    async with Supervisor([children[1:]], write=Output().write) as supervised:
        await supervised.ready()
    try:
        await deaf.__aenter__()
        with pytest.raises(LocalStackError, match=r"^not ready within 0\.2 s: payments \(no answer: "):
            await deaf.ready(timeout_seconds=0.2)
    finally:
        deaf.kill()
        await deaf.__aexit__(None, None, None)


async def test_output_comes_line_by_line_and_no_line_is_without_a_bound() -> None:
    output = Output()
    program = "import sys; sys.stdout.write('one\\ntwo\\r\\n' + 'x' * 200_000 + '\\nlast'); sys.exit(2)"
    async with Supervisor([[child("receiver", program)]], write=output.write) as supervised:
        with pytest.raises(ChildMisconfigured):
            await supervised.failed()

    lines = [line for _, line in output.lines]
    assert lines[:2] == ["one", "two"]
    assert "".join(lines[2:-1]) == "x" * 200_000
    assert max(map(len, lines)) < 200_000
    assert lines[-1] == "last"


async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    deaf = f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()));" + DEAF_PROGRAM
    program = f"""
import asyncio, os, sys
from service.local.supervisor import Child, Supervisor
async def main():
    child = Child("payments", [sys.executable, "-c", {deaf!r}], dict(os.environ), "http://127.0.0.1:1/readyz")
    async with Supervisor([[child]], write=print) as supervised:
        await supervised.failed()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", program, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    assert b"up" in await parent.stdout.readline()
    orphan = int(pid_file.read_text("ascii"))
    assert alive(orphan)
    parent.kill()
    await parent.wait()

    await eventually(lambda: not alive(orphan), what="the child is gone")
