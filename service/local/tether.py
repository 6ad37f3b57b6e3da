"""Runs a command that must not outlive the process that started it.

Run as a script: `python tether.py <parent's pid> <death signal> <uid or -> <command> [argument …]`. It becomes the
command by `exec`, so the pid stays the same. It is a program of its own, not a `preexec_fn`: code between `fork` and
`exec` is unsafe in a process that has threads. It imports nothing of the service: it is on every child's way up.
"""

import ctypes
import os
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAP_DAC_OVERRIDE: Final = 1


def _become(libc: ctypes.CDLL, uid: int) -> None:
    """Give up root for a command that refuses it (Postgres does), but keep the right to pass closed folders.

    Without that right neither a virtual environment in /root nor a private temporary folder could be reached. Where
    the container withholds it, the command starts without: whatever it cannot reach it will name in its log.
    """
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    kept = 1 << _CAP_DAC_OVERRIDE
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)
    if libc.capset(header, effective_permitted_inheritable) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the command."""
    parent, death_signal, uid, *command = arguments
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if uid != "-":
            _become(libc, int(uid))
        # After the change of user, which clears it.
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        # The parent may have died before the line above; then no signal will ever come.
        if os.getppid() != int(parent):
            raise SystemExit(1)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
