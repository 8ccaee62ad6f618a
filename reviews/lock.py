"""A lock file between processes: the kernel wakes the next one, and waiting has an end.

It only makes waiting fair and short; that two writers never meet is SQLite's own doing. The
kernel drops the lock when a process dies. While the lock is free, taking it is one system
call. Else a thread of this object waits for it, since the system's wait knows no time limit.
`hold` keeps a second app away from a folder: it never waits and is never given back.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from reviews.errors import StoreBusy, StoreReadOnly


def hold(path: Path) -> None:
    """Lock a file for as long as this process lives, and write the process's id into it.

    The kernel lets go of it when the process ends in any way, so what a killed app leaves behind
    is only a file. Raises StoreBusy, naming the process that holds it, and StoreReadOnly.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreBusy(
                f"another app (process {holder}) already serves the folder {path.parent} and holds "
                f"{path.name}; stop that one, or give this one another folder with --data-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise StoreReadOnly(f"{path}: it cannot be locked ({error.strerror})") from error


class FileLock:
    """One lock file. `acquire` and `release` must be called by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, mode 0600. Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._guard = threading.Lock()  # for the three flags below
        self._given_up = False  # the waiting thread still waits, but nobody wants the lock
        self._closing = False
        self._waiter: threading.Thread | None = None
        self._asked = threading.Semaphore(0)
        self._granted = threading.Lock()
        self._granted.acquire()

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock; False when the time is over."""
        with self._guard:
            already_asked, self._given_up = self._given_up, False
        if not already_asked:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                self._ask()
        if self._granted.acquire(timeout=timeout_s):
            return True
        with self._guard:
            if self._granted.acquire(blocking=False):
                return True
            self._given_up = True
            return False

    def release(self) -> None:
        """Let the next process in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. A thread that still waits for the lock closes it when it gets there."""
        with self._guard:
            self._closing = True
            waiting = self._waiter is not None
        if waiting:
            self._asked.release()
        else:
            os.close(self._fd)

    def _ask(self) -> None:
        if self._waiter is None:
            self._waiter = threading.Thread(target=self._wait, name="record-lock", daemon=True)
            self._waiter.start()
        self._asked.release()

    def _wait(self) -> None:
        while True:
            self._asked.acquire()
            if not self._closing:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            with self._guard:
                if self._closing:
                    os.close(self._fd)
                    return
                if self._given_up:
                    self._given_up = False
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
                else:
                    self._granted.release()
