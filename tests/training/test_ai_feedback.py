"""AI feedback on a model's own answers: what is written, going on after a stop, and what is refused."""

import json
import shutil
import uuid

import pytest

from huatuo.toml import ROOT
from training import ai_feedback
from training.ai_feedback import FeedbackConfig, main, make
from training.cases import draw_cases, write_cases
from training.pairs import read_votes


@pytest.fixture
def folder():
    """A folder inside the project, as paths of configs must be; gone afterwards."""
    path = ROOT / "data" / f"test-feedback-{uuid.uuid4().hex[:8]}"
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


def config_of(folder, count=18, **changes):
    write_cases(folder / "cases.jsonl", draw_cases(count, held_out=False, seed=3))
    inside = folder.relative_to(ROOT)
    keys = {
        "name": "nano-hybrid", "parent": "huatuo/nano/hybrid", "template": "huatuo-nano",
        "cases": (str(inside / "cases.jsonl"),), "out": inside / "judged.jsonl", "samples": 3, "pairs": 2,
        "temperature": 0.7, "max_new_tokens": 120, "context_tokens": 512,
    }  # fmt: skip
    return FeedbackConfig(**(keys | changes))


def test_a_stopped_run_goes_on_to_the_same_rows(folder, monkeypatch):
    config = config_of(folder)
    assert make(config) > 10
    whole = (folder / "judged.jsonl").read_bytes()
    (folder / "judged.jsonl").unlink()
    sampled = ai_feedback.sample

    def stop_at_the_second_chunk(trunk, prompts, *rest):
        if len(prompts) == 2:
            raise KeyboardInterrupt
        return sampled(trunk, prompts, *rest)

    monkeypatch.setattr(ai_feedback, "sample", stop_at_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        make(config)
    assert not (folder / "judged.jsonl").exists()
    unfinished = folder / ".judged.jsonl.unfinished"
    unfinished.write_text(unfinished.read_text(encoding="utf-8") + '{"case": "half a li', "utf-8")
    calls = []
    monkeypatch.setattr(
        ai_feedback, "sample", lambda *given: (calls.append(len(given[1])), sampled(*given))[1]
    )
    make(config, resume=True)
    assert calls == [2], "the first chunk is not answered again"
    assert (folder / "judged.jsonl").read_bytes() == whole
    assert not unfinished.exists()


def test_the_rows_are_read_as_the_judges_votes(folder):
    config = config_of(folder, count=6)
    number = make(config)
    rows = [json.loads(line) for line in (folder / "judged.jsonl").read_text("utf-8").splitlines()]
    assert {row["judge"] for row in rows} == {"rubric"} and {row["source"] for row in rows} == {
        "ai"
    }
    assert all(row["answer_a"] != row["answer_b"] for row in rows)
    votes = read_votes([], [], [folder / "judged.jsonl"])
    assert sum(len(pair.judgements) for pair in votes.pairs) == number
    assert {j.rater for pair in votes.pairs for j in pair.judgements} == {"ai:rubric"}


def test_a_run_of_other_cases_never_goes_on_from_a_stopped_one(folder):
    config = config_of(folder, count=4)
    unfinished = folder / ".judged.jsonl.unfinished"
    unfinished.write_text('{"key": "another run"}\n{"winner": "a"}\n{"chunk": 0}\n', "utf-8")
    make(config, resume=True)
    assert '{"winner": "a"}' not in (folder / "judged.jsonl").read_text("utf-8")


def test_empty_case_files_are_refused(folder, capsys):
    config_of(folder, count=2)
    (folder / "cases.jsonl").write_text("", "utf-8")
    inside = folder.relative_to(ROOT)
    arguments = [
        "configs/nano/ai_feedback.toml",
        "--cases",
        json.dumps([str(inside / "cases.jsonl")]),
    ]
    assert main([*arguments, "--out", str(inside / "judged.jsonl")]) == 2
    assert "cases" in capsys.readouterr().err
