"""One app for one folder, and the command line tools beside it (K13), with real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reviews.errors import StoreBusy
from reviews.lock import hold
from reviews.store import Store
from tests.patience import LONG_S, free_port

ROOT = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys, time; from pathlib import Path; from reviews.lock import hold\n"
    "hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(3600)"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder inside the project, where the app must have it; named from the root."""
    made = Path("data") / f"test-one-app-{secrets.token_hex(4)}"
    yield made
    shutil.rmtree(ROOT / made, ignore_errors=True)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=LONG_S
    )


def start(port: int, folder: Path) -> subprocess.Popen[str]:
    """A real app that serves; read until it says so."""
    app = subprocess.Popen(
        [sys.executable, "app.py", f"--port={port}", f"--data-dir={folder}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert app.stdout is not None
    said = ""
    for line in app.stdout:
        said += line
        if "is served at" in line:
            return app
    app.wait()
    pytest.fail(f"the app did not start: {said}")


def test_k13_a_file_is_held_by_one_process_until_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "app.lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for _ in range(2):
            with pytest.raises(StoreBusy, match=rf"process {other.pid}\).*{tmp_path}.*app\.lock"):
                hold(file)
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert file.exists()  # what a killed app leaves behind is in nobody's way
    hold(file)
    assert file.read_text() == f"{os.getpid()}\n"
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_k13_a_second_app_refuses_to_start_and_the_tools_work_beside_the_first(
    folder: Path, tmp_path: Path
) -> None:
    first, port = start(free_port(), folder), free_port()
    try:
        second = run("app.py", f"--port={port}", f"--data-dir={folder}")
        assert (second.returncode, second.stdout) == (2, "")
        (told,) = [line for line in second.stderr.splitlines() if "cannot start" in line]
        for word in (str(first.pid), str(ROOT / folder), "app.lock", "--data-dir"):
            assert word in told
        assert "Traceback" not in second.stderr

        config = tmp_path / "app.toml"
        config.write_text(f'data_dir = "{folder}"\n', encoding="utf-8")
        pair = {"id": "1", "question": "q", "answer_a": "a", "answer_b": "b",
                "model_a": "m", "model_b": "n"}  # fmt: skip
        (tmp_path / "pairs.jsonl").write_text(json.dumps(pair), encoding="utf-8")
        record = ("--data", str(folder))
        for words in (
            ("-m", "reviews.importer", str(tmp_path / "pairs.jsonl"), "--study", "s", *record),
            ("-m", "reviews.export", "--out", str(tmp_path / "out"), *record),
            ("-m", "huatuo.accounts", "--config", str(config), "invite", "--role=physician", "--name=x"),
        ):  # fmt: skip
            done = run(*words)
            assert done.returncode == 0, done.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    again = start(port, folder)  # the killed app's lock file is still there
    again.kill()
    again.communicate()


def test_k13_many_starts_at_once_make_one_schema(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    starts = [context.Process(target=lambda: Store.open(path).close()) for _ in range(8)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert [start.exitcode for start in starts] == [0] * 8
    Store.open(path).close()  # looks at every page
