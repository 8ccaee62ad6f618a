"""For a machine that is slow or stands still for a while: deadlines that only a real hang meets, and ways without a clock."""

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Callable

LONG_S = 600.0
"""A deadline for what succeeds: it costs nothing while things go well."""
LOWEST, HIGHEST = 20_000, 32_000
"""Below the ports that the system itself gives to whoever asks for any, on either end of a connection."""
_next = itertools.count(os.getpid() * 997)  # two workers, two runs: each begins elsewhere


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given between this answer and its use."""
    for number in itertools.islice(_next, HIGHEST - LOWEST):
        port = LOWEST + number % (HIGHEST - LOWEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


def cpu_seconds(work: Callable[[], object], enough: float) -> float:
    """The thread's CPU seconds for `work`, the least of up to three runs: a machine that stalls may be charged for one.

    What really takes longer than `enough` takes longer each time.
    """
    least = float("inf")
    for _ in range(3):
        started = time.thread_time()
        work()
        least = min(least, time.thread_time() - started)
        if least < enough:
            break
    return least


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock goes on only while all wait, and then at once: timers fire in order, however slow the machine.

    For coroutines that wait for timers and each other, not for threads or sockets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now, self._real = 0.0, self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def _jump(self, timeout: float | None = None) -> object:
        self._now += timeout or 0.0
        return self._real(0)
