"""A lock file between processes: the kernel wakes the next one, and waiting has an end.

It only makes waiting fair and short; that two writers never meet is SQLite's own doing. The
kernel drops the lock when a process dies. While the lock is free, taking it is one system
call. Else a thread of this object waits for it, since the system's wait knows no time limit.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path


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
