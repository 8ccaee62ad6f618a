"""notices new, changed and removed files in configs/models while the app runs, and tells the pool.

Looks at names, sizes and times, no more; a file counts once two looks agree, so one that is just being written is
left until it is whole. A file that is wrong is shown as such, its model is gone, and the next change is looked at again.
A model that is down is tried again when its checkpoint's folder changes.
"""

import asyncio
import logging
from pathlib import Path

from huatuo.config import read_models
from huatuo.engines.pool import Pool

log = logging.getLogger(__name__)
EVERY_S = 1.0
"""Seconds between two looks: a change is taken up after two of them, long before the promised five."""

Look = frozenset[tuple[str, int, int, int]]
"""(path, inode, bytes, time of change in ns) of every file that counts."""


class Watcher:
    """Watches the folder of the models' files. root: where relative checkpoint paths start."""

    def __init__(self, folder: Path, root: Path, pool: Pool) -> None:
        self._folder, self._root, self._pool = folder, root, pool
        self._taken = self._last = self._look()

    async def run(self) -> None:
        """Looks until cancelled; what goes wrong is logged, and the next look comes."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.step()
            except Exception:  # a border: the app and the models that run live on
                log.exception("the models' files cannot be taken over")

    async def step(self) -> bool:
        """One look; whether a change was taken over."""
        seen = await asyncio.to_thread(self._look)
        settled, self._last = seen == self._last, seen
        if not settled or seen == self._taken or not self._folder.is_dir():
            return False
        models, broken = await asyncio.to_thread(read_models, self._folder, roots=(self._root,))
        for file, why in broken.items():
            if str(self._pool.broken.get(file, "")) != str(why):
                log.warning("%s is left out: %s", file, why)
        await self._pool.refresh(models, broken)
        self._taken = seen
        return True

    def _look(self) -> Look:
        files = list(self._folder.glob("*.toml"))
        for config in self._pool.configs.values():
            if config.path and config.enabled:
                named = (config.path, config.parent, config.adapter)
                folders = [self._root / path for path in named if path]
                files += [file for folder in folders for file in (folder, *folder.glob("*"))]
        return frozenset(filter(None, map(_stamp, files)))


def _stamp(path: Path) -> tuple[str, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:  # gone between two looks
        return None
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns
