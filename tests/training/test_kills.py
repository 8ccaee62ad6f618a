"""Evaluations that are killed at chosen moments end in the same report; no answer is made and no call paid twice."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from huatuo.config import Generation
from huatuo.toml import ROOT
from tests.patience import LONG_S
from tests.training import test_huatuo_judge as theirs
from tests.training import test_judge as ours
from tests.training.answering_server import AnsweringServer
from tests.training.openai_server import OpenAiServer
from tests.training.test_evaluate import DRIVER, config, world

KILLER = Path(__file__).with_name("kill_at.py")
Moment = tuple[str, str, int]
QUIET = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


def run(command: Sequence[str], status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=QUIET,
        capture_output=True,
        text=True,
        timeout=5 * LONG_S,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def killed(module: str, arguments: Sequence[str], moments: Sequence[Moment]) -> None:
    """The command dies at each moment in turn, then it may end."""
    for event, part, count in moments:
        run([str(KILLER), event, part, str(count), module, *arguments], -9)
    run(["-m", module, *arguments])


def test_an_evaluation_with_its_judge_killed_between_any_two_steps(tmp_path: Path) -> None:
    far = AnsweringServer(lambda q: f"关于“{q[:6]}”，建议就医。")
    judge = OpenAiServer(lambda body, _: ours.form("12"[len(ours.texts(body)[0]) % 2]))
    made = world(tmp_path, 6)
    models = ["nano-doctor", far.file(tmp_path, "far"), made["poor"]]

    def evaluated(name: str, kills: list[Moment | int]) -> list[int]:
        folder = tmp_path / name
        folder.mkdir()
        toml = folder / "judge.toml"
        toml.write_text(
            f'base_url = "{judge.url}"\nmodel = "toy"\nworkers = 1\ncache = "{folder / "replies"}"\n'
        )
        wanted = config(folder, models, made["questions"], batch=2, at_once=1, judge_config=str(toml),
                        generation=Generation(max_new_tokens=16))  # fmt: skip
        job = {"config": json.loads(wanted.model_dump_json()), "cache": str(folder / "cache"), "kills": kills}  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job), "utf-8")
        found: list[int] = json.loads(run([str(DRIVER), str(folder / "job.json")]).splitlines()[-1])
        return found

    assert evaluated("whole", []) == [0]
    asked, judged = len(far.asked), len(judge.bodies)
    assert asked == 6 and judged > 6
    moments: list[Moment | int] = [
        ("open", ".jsonl", 1),  # before anything is kept
        2,  # while the first model answers
        ("open", ".jsonl", 2),  # between two models
        ("os.rename", ".json", 3),  # a reply of the judge has come and is not kept yet
        ("open", ".report.json", 1),
        ("os.rename", "report.json", 1),
        ("open", ".report.html", 1),
        ("os.rename", "report.html", 1),
    ]
    assert evaluated("killed", moments) == [-9] * len(moments) + [0]
    assert len(far.asked) == 2 * asked
    assert len(judge.bodies) == 2 * judged + 1  # the one reply that was under way
    for file in ("report.json", "report.html"):
        whole, again = ((tmp_path / name / "out" / file).read_bytes() for name in ("whole", "killed"))  # fmt: skip
        assert whole == again, file
    far.close()
    judge.close()


JUDGES: dict[str, tuple[Any, Any, list[str], list[Moment]]] = {
    "training.judge": (
        ours.planted, ours.command, ["out/v.jsonl", "out/v.json", "out/v.html"],
        [("open", ".v.jsonl", 1), ("os.rename", "v.jsonl", 1), ("os.rename", "v.json", 2), ("open", ".v.html", 1)],
    ),
    "training.huatuo_judge": (
        theirs.by_prompt(theirs.plain), theirs.prepare, ["out.json"],
        [("open", ".out.json", 1), ("os.rename", "out.json", 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("module", JUDGES)
def test_a_judge_killed_at_any_moment_pays_for_no_reply_twice(module: str, tmp_path: Path) -> None:
    say, arguments, files, ends = JUDGES[module]
    server = OpenAiServer(say)

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    def flags(name: str) -> list[str]:
        found = arguments(folder(name), server, price_in=1.0, price_out=2.0)
        return [flag for flag in found if flag != "--no-report"]

    killed(module, flags("whole"), [])
    once = len(server.bodies)
    replies: list[Moment] = [("os.rename", ".json", n) for n in (1, 4)]
    killed(module, flags("killed"), [*replies, *ends])
    again = len(server.bodies) - once
    workers = 4 if module == "training.judge" else 1
    assert once <= again <= once + len(replies) * workers  # what was under way, and nothing else
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()
    bill = json.loads(
        (tmp_path / "killed" / files[-1 if len(files) == 1 else 1]).read_text("utf-8")
    )
    bill = bill.get("spent", bill)
    assert (bill["replies"], bill["cost"]) == (once, pytest.approx(once * (1000 + 400) / 1e6))
    server.close()
