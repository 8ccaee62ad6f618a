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


def test_a_torn_line_is_cut_off_and_its_question_asked_again(tmp_path: Path) -> None:
    out, kept = tmp_path / "pairs.jsonl", tmp_path / "pairs.answers.jsonl"
    rows = [["jia", "q0", "先前的回答"], ["yi", "q0", "也是先前的"], ["jia", "q1", "断在这里"]]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    kept.write_bytes(lines[0] + b"\n" + lines[1] + b"\n" + lines[2][:-7])  # inside of a character
    assert asyncio.run(write_study(QUESTIONS, MODELS, out, seed=0)) == (4, 0)
    said = {row["id"]: {row["answer_a"], row["answer_b"]} for row in written(out)}
    assert said.pop("q0") == {"先前的回答", "也是先前的"}
    assert all(answers == {"jia 说", "yi 说"} for answers in said.values())
    assert not kept.exists()
    store = Store.open(tmp_path / "reviews.sqlite3")
    assert import_files(store, [out], "s").stored.added == 4
    store.close()


def test_a_run_that_was_killed_twice_glues_no_two_answers_together(tmp_path: Path) -> None:
    out, kept = tmp_path / "pairs.jsonl", tmp_path / "pairs.answers.jsonl"
    kept.write_bytes(b'["jia", "q0", "half')
    broken = {**MODELS, "yi": MODELS["yi"].model_copy(update={"enabled": False})}
    asyncio.run(
        write_study(QUESTIONS, broken, out, seed=0)
    )  # jia's answers come after the torn line
    assert out.read_text() == "" and not kept.exists()
    kept.write_bytes(b'["jia", "q0", "first"]\n["jia", "q1", "se')
    asyncio.run(write_study(QUESTIONS, MODELS, out, seed=0))
    said = {row["id"]: {row["answer_a"], row["answer_b"]} for row in written(out)}
    assert said["q0"] == {"first", "yi 说"} and said["q1"] == {"jia 说", "yi 说"}


def test_damage_before_the_end_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "pairs.answers.jsonl"
    kept.write_bytes(b'["jia", "q0", "a"]\n{broken\n["yi", "q0", "b"]\n')
    with pytest.raises(NoData, match=r"answers\.jsonl, line 2: not a kept answer"):
        asyncio.run(write_study(QUESTIONS, MODELS, tmp_path / "pairs.jsonl", seed=0))
