"""The real app as a process of its own, with its own database in data/, on the models of models.py."""

import json
import re
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.browser.models import CONTESTANTS, TALKER, Models

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_MS = 300_000
"""A busy machine may take so long for one step; nothing is shown by how long something takes."""
START_S = 900
NO_DEADLINES = {"first-token-s": 3600, "between-tokens-s": 3600, "whole-answer-s": 7200}
"""An answer that a test holds back does not break off by itself."""


@dataclass
class App:
    """The running app."""

    url: str
    data: Path
    models: Models
    log: Path
    admin: dict[str, Any] = field(default_factory=dict)
    made: int = 0

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What SQLite holds, read by another connection than the app's."""
        place = f"file:{self.data / 'reviews.sqlite3'}?mode=ro"
        with sqlite3.connect(place, uri=True, timeout=PATIENCE_MS / 1000) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def link(self) -> str:
        """The first administrator's link, as the app printed it."""
        found = re.search(r"http://\S+/invite/\S+", self.log.read_text(encoding="utf-8"))
        assert found, self.log.read_text(encoding="utf-8")
        return found[0]

    def import_pairs(self, study: str, pairs: list[dict[str, str]]) -> None:
        """Files pairs in a study by the importer's command line."""
        path = self.data / f"{study}.jsonl"
        path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in pairs), "utf-8")
        command = [sys.executable, "-m", "reviews.importer", str(path)]
        command += ["--study", study, "--data", str(self.data)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def free_port() -> int:
    """A port nobody listens on, of those that the system gives to no connection meanwhile."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def write_models(folder: Path, port: int) -> None:
    """One file for each model that stands on the server at `port`."""
    folder.mkdir()
    for name, (zh, en) in {TALKER: ("问诊演示", "Talk demo"), **CONTESTANTS}.items():
        contestant = str(name in CONTESTANTS).lower()
        text = (
            f'name = "{name}"\ntitle_zh = "{zh}"\ntitle_en = "{en}"\nengine = "remote"\n'
            f'base_url = "http://127.0.0.1:{port}/v1"\nmodel = "{name}"\n'
            f"leaves_country = false\ncontestant = {contestant}\n"
        )
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


@contextmanager
def served(write: Callable[[Path, int], None], chat_model: str) -> Iterator[App]:
    """The app as `python app.py` starts it. write: fills the folder of models, given the models' port."""
    models = Models()
    data = ROOT / "data" / f"test-browser-{secrets.token_hex(4)}"
    data.mkdir(parents=True)
    write(data / "models", models.server_port)
    port, log = free_port(), data / "app.log"
    inside = data.relative_to(ROOT)
    flags = {
        "port": port,
        "data-dir": inside,
        "models-dir": inside / "models",
        "chat-model": chat_model,
        **NO_DEADLINES,
        **dict.fromkeys(("asks-per-minute", "visitor-asks-per-minute", "asks-per-day"), 9999),
    }
    command = [sys.executable, "app.py", *(f"--{key}={value}" for key, value in flags.items())]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        app = App(f"http://127.0.0.1:{port}", data, models, log)
        _await_answer(app, process)
        yield app
        faults = re.findall(r".*(?:Traceback|unexpected error).*", log.read_text("utf-8"))
        assert faults == [], log.read_text("utf-8")[-5000:]
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        models.shutdown()
        shutil.rmtree(data, ignore_errors=True)


def _await_answer(app: App, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{app.url}/healthz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the app did not start:\n{app.log.read_text('utf-8')[-5000:]}", pytrace=False)
