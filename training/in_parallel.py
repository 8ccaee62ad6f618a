"""many items at the same time, in threads, until all are done or one failure stops the rest; what is done stays."""

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from huatuo.errors import HuatuoError

Item = TypeVar("Item")
Done = TypeVar("Done")


def run_all(
    one: Callable[[Item], Done], items: Sequence[Item], workers: int
) -> tuple[list[Done], BaseException | None]:
    """(what `one` made of every item that was done, in order; what stopped the run early, or None).

    A HuatuoError or OSError of one item, or an interruption, keeps the others from starting; those under way end.
    """
    done: dict[int, Done] = {}
    stopped: list[BaseException] = []
    stop = threading.Event()

    def work(place: int) -> None:
        if stop.is_set():
            return
        try:
            done[place] = one(items[place])
            bar.update()
        except (HuatuoError, OSError) as error:
            stopped.append(error)
            stop.set()

    bar = tqdm(total=len(items), desc="judged", unit="case", file=sys.stderr, disable=None)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            for future in [pool.submit(work, place) for place in range(len(items))]:
                future.result()
        except KeyboardInterrupt as error:
            stopped.append(error)
            stop.set()
    return [done[place] for place in sorted(done)], stopped[0] if stopped else None
