"""The whole loop through its command line, very small: votes, reward model, one step, evaluation, gates, resume."""

import contextlib
import json
import shutil
import uuid
from pathlib import Path

import pytest

from huatuo.errors import ConfigError
from huatuo.models.branch import read_branch
from huatuo.toml import ROOT, read_toml
from reviews.database import DEFAULT_NAME
from reviews.errors import NotYours
from reviews.people import People
from reviews.store import Store
from training import refine
from training.cases import read_cases

pytestmark = pytest.mark.slow


@pytest.fixture
def folder():
    """A folder inside the project, as paths of configs must be; gone afterwards."""
    path = ROOT / "data" / f"test-refine-{uuid.uuid4().hex[:8]}"
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


def written(folder, **changes):
    inside = folder.relative_to(ROOT)
    (folder / "rl.toml").write_text(
        (ROOT / "configs/nano/rl.toml").read_text(encoding="utf-8")
        .replace("steps = 30", "steps = 2").replace("prompts_per_step = 16", "prompts_per_step = 4")
        .replace("samples = 8", "samples = 2\nsave_steps = 1").replace("max_new_tokens = 200", "max_new_tokens = 60"),
        encoding="utf-8",
    )  # fmt: skip
    reference = folder / "references.jsonl"
    turns = [
        {"role": "user", "content": "胸口压着疼，出冷汗"},
        {"role": "assistant", "content": "请立即去急诊。"},
    ]
    lines = [
        {
            "language": "zh",
            "opener": opener,
            "messages": [{**turns[0], "content": turns[0]["content"] + opener}, turns[1]],
        }
        for opener in ("emergency", "vague")
    ]
    reference.write_text(
        "\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8"
    )
    keys = {
        "name": "tiny", "record": str(inside / "record"), "model": "configs/models/nano-hybrid.toml",
        "reward": "configs/nano/reward.toml", "rl": str(inside / "rl.toml"), "work": str(inside / "work"),
        "prompts": 12, "held_out": 10, "emergencies": 4, "held_out_emergencies": 2, "references": [str(inside / "references.jsonl")], "release": False, **changes,
    }  # fmt: skip
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    simulation = "[simulation]\nvotes = 60\nraters = 3\n"
    (folder / "refine.toml").write_text(f"{text}\n{simulation}", encoding="utf-8")
    return str(folder / "refine.toml")


def test_the_loop_runs_is_not_run_twice_and_follows_new_votes(folder, capfd):
    config = written(folder)
    assert refine.main([config]) == 0
    said = capfd.readouterr()
    assert "toy world" in said.out and "win_rate_low" in said.out
    work = folder / "work/tiny"
    report = json.loads((work / "report.json").read_text(encoding="utf-8"))
    assert report["gates"]["cases"] == 10 and report["gates"]["judge"] == "rubric"
    assert "Answers" in (work / "report.html").read_text(encoding="utf-8")
    with contextlib.closing(Store.open(folder / "record" / DEFAULT_NAME)) as store:
        assert sum(1 for _ in store.votes()) == 60
    assert [case.kind for case in read_cases(work / "emergencies.jsonl")] == ["emergency"] * 4
    trained = read_branch(work / "policy").details["config"]["prompts"]
    assert [Path(name).name for name in trained] == ["prompts.jsonl", "emergencies.jsonl"]

    before = (work / "policy/branch.safetensors").stat().st_mtime_ns
    assert refine.main([config, "--resume"]) == 0
    said = capfd.readouterr()
    assert all(
        f"{stage}: finished before" in said.out for stage in ("cases", "reward", "rl", "evaluate")
    )
    assert (work / "policy/branch.safetensors").stat().st_mtime_ns == before

    # what is in the log beside the votes changes nothing; other references, or another way of answering, are measured anew
    with contextlib.closing(Store.open(folder / "record" / DEFAULT_NAME)) as store:
        People(store.database).add_user("new", "physician", "h", "system")
    known = (folder / "references.jsonl").read_text(encoding="utf-8")
    (folder / "references.jsonl").write_text(known + "\n" + known, encoding="utf-8")
    assert refine.main([config, "--resume"]) == 0
    said = capfd.readouterr()
    assert all(f"{stage}: finished before" in said.out for stage in ("cases", "reward", "rl"))
    assert "evaluate: finished before" not in said.out

    # a gate that fails: status 2, nothing released, the name of the gate
    assert refine.main([config, "--resume", "--release", "true"]) == 2
    said = capfd.readouterr()
    assert "not released" in said.err and "cases" in said.err
    assert not list((ROOT / "configs/models").glob("released-tiny*"))

    # one vote changed: every later stage is made anew, none from the old run's states
    with contextlib.closing(Store.open(folder / "record" / DEFAULT_NAME)) as store:
        vote = next(v for v in store.votes() if v.choice == "left")
        _revise(store, vote)
    assert refine.main([config, "--resume"]) == 0
    said = capfd.readouterr()
    assert "cases: finished before" in said.out
    assert "reward: finished before" not in said.out and "rl: finished before" not in said.out
    rows = (work / "work/rl/tiny/steps.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3  # header and two fresh steps
    assert (work / "policy/branch.safetensors").stat().st_mtime_ns > before


def _revise(store, vote):
    """The rater of a vote changes it, as in the app."""
    people = People(store.database)
    for number in (1, 2, 3):
        user = people.user_named(f"simulated-physician-{number}")
        try:
            store.cast_vote(vote.assignment_id, user.id, "right", reason="changed", revise=True)
        except NotYours:
            continue
        return
    raise AssertionError("nobody could change the vote")


def test_a_record_without_votes_says_what_to_do(folder, capfd):
    config = written(folder)
    text = (folder / "refine.toml").read_text(encoding="utf-8")
    (folder / "refine.toml").write_text(text[: text.index("[simulation]")], encoding="utf-8")
    assert refine.main([config]) == 2
    assert "no votes" in capfd.readouterr().err


def test_a_released_branch_is_no_parent(folder):
    config = read_toml(written(folder), refine.RefineConfig)
    model = (ROOT / "configs/models/nano-hybrid.toml").read_text(encoding="utf-8")
    lines = model.replace('path = "', 'parent = "huatuo/nano/doctor"\npath = "')
    (folder / "model.toml").write_text(lines, encoding="utf-8")
    inside = (folder / "model.toml").relative_to(ROOT)
    with pytest.raises(ConfigError, match="whole weights"):
        refine.refine(config.model_copy(update={"model": inside}))
