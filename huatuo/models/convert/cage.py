"""the walls of the process that reads a downloaded folder: no network, no secrets, no pickles, no other programs.

`enter` is called once in a child that was started with an empty environment. The kernel cuts the network where it
permits a network namespace; in any case Python refuses sockets, pickles, programs, and files written elsewhere.
"""

import ctypes
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_REFUSED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.",
)
SCRATCH = "scratch"
"""Folder for temporary files, removed at the end."""
_MEMORY = 6 << 30
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def enter(folder: Path) -> str:
    """Puts up the walls; files may be written under `folder` only. Returns how the network was cut."""
    how = _without_network()
    scratch = os.path.join(os.path.realpath(folder), SCRATCH)
    os.makedirs(scratch, exist_ok=True)
    tempfile.tempdir = scratch  # torch wants one when it is imported
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    home = os.path.realpath(folder)
    allowed = (home + os.sep, "/dev/null", "/dev/shm/")

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is refused while a downloaded folder is read")
        if event == "open" and _writes(arguments) and not _lies_in(arguments[0], allowed):
            raise PermissionError(
                f"{arguments[0]} may not be written while a downloaded folder is read"
            )

    sys.addaudithook(refuse)
    return how


def _without_network() -> str:
    """A network of its own, empty: for root as it is, else within a user namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    for flags, how in (
        (_CLONE_NEWNET, "network namespace"),
        (_CLONE_NEWUSER | _CLONE_NEWNET, "user and network namespace"),
    ):
        if libc.unshare(flags) == 0:
            if flags & _CLONE_NEWUSER:
                _map(user, group)
            return how
    return "refused in Python only; the kernel permits no namespace"


def _map(user: int, group: int) -> None:
    """The same user in the new namespace, so that files keep their owner."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        try:
            Path(f"/proc/self/{name}").write_text(text)
        except OSError:
            return


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str) and any(letter in mode for letter in "wax+"):
        return True
    return isinstance(flags, int) and bool(flags & _WRITING)


def _lies_in(path: Any, allowed: tuple[str, ...]) -> bool:
    if isinstance(path, int):
        return True
    return (os.path.realpath(os.fsdecode(path)) + os.sep).startswith(allowed[0]) or os.fsdecode(
        path
    ).startswith(allowed[1:])
