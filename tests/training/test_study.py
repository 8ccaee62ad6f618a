"""Questions answered by two models for a study: a run that was killed goes on where it stood."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from huatuo.config import ModelConfig
from huatuo.errors import NoData
from reviews.importer import import_files
from reviews.store import Store
from training.study import write_study

QUESTIONS = [{"id": f"q{n}", "query": f"第 {n} 问：头痛怎么办？"} for n in range(4)]
MODELS = {
    name: ModelConfig(
        name=name, title_zh="甲", title_en="A", engine="scripted", says=(f"{name} 说",)
    )
    for name in ("jia", "yi")
}


def written(out: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def half_a_run(out: Path) -> Path:
    """A run in which one model is off: no pair, and the other's answers are kept. Returns where."""
    broken = {**MODELS, "yi": MODELS["yi"].model_copy(update={"enabled": False})}
    assert asyncio.run(write_study(QUESTIONS, broken, out, seed=0)) == (0, 4)
    assert out.read_text() == ""
    return out.with_suffix(".answers.jsonl")


def test_a_torn_line_is_cut_off_and_its_question_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    kept = half_a_run(out)
    lines = kept.read_text(encoding="utf-8").replace("jia 说", "先前的回答").splitlines()
    torn = f"{lines[0]}\n{lines[1]}\n".encode() + lines[2].encode()[:-7]  # inside of a character
    kept.write_bytes(torn)
    half_a_run(out)  # what comes after the torn line is not glued to it
    assert asyncio.run(write_study(QUESTIONS, MODELS, out, seed=0)) == (4, 0)
    said = [{row["answer_a"], row["answer_b"]} for row in written(out)]
    before, after = {"先前的回答", "yi 说"}, {"jia 说", "yi 说"}
    assert (said.count(before), said.count(after)) == (2, 2)
    assert not kept.exists()
    store = Store.open(tmp_path / "reviews.sqlite3")
    assert import_files(store, [out], "s").stored.added == 4
    store.close()


@pytest.mark.parametrize("change", ["question", "seed", "weights", "settings"])
def test_an_answer_to_something_else_is_made_anew(tmp_path: Path, change: str) -> None:
    out = tmp_path / "pairs.jsonl"
    kept = half_a_run(out)
    kept.write_text(
        kept.read_text(encoding="utf-8").replace("jia 说", "先前的回答"), encoding="utf-8"
    )
    questions, models, seed = list(QUESTIONS), dict(MODELS), 0
    if change == "question":
        questions[1] = {"id": "q1", "query": "改过的问题"}
    elif change == "seed":
        seed = 1
    else:
        other = {"sha256": "ab" * 32} if change == "weights" else {"template": "huatuo2"}
        models["jia"] = models["jia"].model_copy(update=other)
    assert asyncio.run(write_study(questions, models, out, seed=seed)) == (4, 0)
    again = {
        row["id"] for row in written(out) if "先前的回答" not in (row["answer_a"], row["answer_b"])
    }
    assert again == ({"q1"} if change == "question" else {"q0", "q1", "q2", "q3"})


def test_damage_before_the_end_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "pairs.answers.jsonl"
    kept.write_bytes(b'["jia", "q0", "m", "a"]\n{broken\n["yi", "q0", "n", "b"]\n')
    with pytest.raises(NoData, match=r"answers\.jsonl, line 2: not a kept answer"):
        asyncio.run(write_study(QUESTIONS, MODELS, tmp_path / "pairs.jsonl", seed=0))
