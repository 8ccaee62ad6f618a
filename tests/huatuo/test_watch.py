"""Files that come, change and go in configs/models while the app runs."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from huatuo.config import read_models
from huatuo.engines.base import Deadlines
from huatuo.engines.pool import Pool
from huatuo.engines.watch import EVERY_S, Watcher
from tests.patience import LONG_S

sys.path.insert(0, str(Path(__file__).parent))
from test_engines_pool import ASK, collect

FILE = 'name = "{name}"\ntitle_zh = "甲"\ntitle_en = "{title}"\nengine = "scripted"\nsays = ["{says}"]\n'


def write(folder: Path, name: str, says: str = "好", title: str = "A", more: str = "") -> None:
    """As a release does: a finished file takes its name in one step."""
    text = FILE.format(name=name, says=says, title=title) + more
    (folder / f".{name}.tmp").write_text(text, encoding="utf-8")
    os.replace(folder / f".{name}.tmp", folder / f"{name}.toml")


class Scene:
    """A folder of models, a pool and its watcher."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        models, broken = read_models(folder, roots=(folder,))
        self.pool = Pool(models, folder, Deadlines(), broken)
        self.watcher = Watcher(folder, folder, self.pool)
        self.looks, look = 0, self.watcher.step

        async def counted() -> bool:
            self.looks += 1
            return await look()

        self.watcher.step = counted  # type: ignore[method-assign]
        self.pool.start()

    async def until(self, holds: Callable[[], bool]) -> None:
        started = time.monotonic()
        while not holds():
            assert time.monotonic() - started < LONG_S, (self.pool.ready(), self.pool.broken)
            await asyncio.sleep(0.02)

    async def taken(self, holds: Callable[[], bool]) -> None:
        """Until a change is taken over: in few looks, for on a slow machine seconds tell nothing of the app."""
        before = self.looks
        await self.until(holds)
        assert (self.looks - before) * EVERY_S < 5


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    write(tmp_path, "a")
    return Scene(tmp_path)


def test_a_new_a_changed_and_a_removed_model_within_five_seconds(scene: Scene) -> None:
    async def act() -> None:
        watching = asyncio.create_task(scene.watcher.run())
        pool = scene.pool
        write(scene.folder, "b", "二")
        await scene.taken(lambda: "b" in pool.configs)
        await scene.until(lambda: pool.contestants() == ["a", "b"])
        write(scene.folder, "b", "两个")
        await scene.taken(lambda: pool.configs["b"].says == ("两个",))
        await scene.until(lambda: "b" in pool.ready())
        assert await collect(pool.stream("b", ASK, 1)) == ("两个", "stop")
        (scene.folder / "a.toml").unlink()
        await scene.taken(lambda: pool.ready() == ["b"])
        assert {"a", "b", "A", "甲"} <= pool.called, "what a blind answer must not say"
        watching.cancel()

    asyncio.run(act())


def test_a_file_that_is_wrong_is_told_and_taken_when_it_is_mended(scene: Scene) -> None:
    async def act() -> None:
        watching = asyncio.create_task(scene.watcher.run())
        (scene.folder / "b.toml").write_text('name = "b"\ntitle_zh = "', encoding="utf-8")
        await scene.until(lambda: len(scene.pool.broken) == 1)
        assert "b.toml" in next(iter(scene.pool.broken)) and scene.pool.ready() == ["a"]
        write(scene.folder, "b")
        await scene.until(lambda: scene.pool.ready() == ["a", "b"] and not scene.pool.broken)
        watching.cancel()

    asyncio.run(act())


def test_a_file_is_left_until_it_is_no_longer_being_written(scene: Scene) -> None:
    async def act() -> None:
        for length in (20, 60, 90):
            text = FILE.format(name="b", says="好", title="B" * length)
            (scene.folder / "b.toml").write_text(text[:length], encoding="utf-8")
            assert not await scene.watcher.step()
        assert scene.pool.broken == {} and list(scene.pool.configs) == ["a"]
        assert await scene.watcher.step() and len(scene.pool.broken) == 1

    asyncio.run(act())


def test_nothing_is_loaded_again_when_nothing_changed_or_only_a_title(scene: Scene) -> None:
    async def act() -> None:
        await scene.until(lambda: scene.pool.ready() == ["a"])
        engine = scene.pool._slots["a"].engine
        assert not await scene.watcher.step() and not await scene.watcher.step()
        write(scene.folder, "a", title="Another", more="contestant = false\n")
        await scene.watcher.step()
        assert await scene.watcher.step()
        assert scene.pool._slots["a"].engine is engine and scene.pool.ready() == ["a"]
        assert scene.pool.configs["a"].title_en == "Another" and scene.pool.contestants() == []

    asyncio.run(act())


def test_a_folder_that_vanishes_takes_no_model_away(scene: Scene, tmp_path: Path) -> None:
    async def act() -> None:
        scene.folder.rename(tmp_path.with_name("elsewhere"))
        assert not any([await scene.watcher.step() for _ in range(3)])
        assert list(scene.pool.configs) == ["a"]

    asyncio.run(act())
    tmp_path.with_name("elsewhere").rename(tmp_path)


def test_a_model_that_is_down_is_tried_again_when_its_folder_changes(
    scene: Scene, tiny_checkpoint: Path
) -> None:
    import shutil

    text = FILE.format(name="w", says="", title="W").split("engine")[0]
    text += 'engine = "local"\npath = "weights"\ntemplate = "huatuo-nano"\n'
    (scene.folder / "w.toml").write_text(text, encoding="utf-8")

    async def act() -> None:
        watching = asyncio.create_task(scene.watcher.run())
        await scene.until(lambda: scene.pool.state("w") == "down" and "w" in scene.pool.configs)
        assert "no such folder" in scene.pool.why("w")
        shutil.copytree(tiny_checkpoint, scene.folder / "weights")
        await scene.until(lambda: scene.pool.state("w") == "ready")
        watching.cancel()
        await scene.pool.close()

    asyncio.run(act())
