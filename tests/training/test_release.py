"""A release: every gate is seen, what fails is named, and a new contestant's file appears whole or not at all."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from huatuo.config import read_models
from huatuo.engines.local import LocalEngine
from huatuo.errors import CheckpointError, ConfigError, Damaged, Mismatch, NoData
from huatuo.models.branch import read_branch, save_branch
from huatuo.models.checkpoint import verify
from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn, Span
from reviews.store import Store
from training import release as stage
from training.danger import danger_gate
from training.data import BadData
from training.release import GateFailed, release
from training.release_gates import Gates, Outcome, examine, read_outcome

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = {
    "win_rate": 0.7,
    "win_rate_low": 0.62,
    "win_rate_high": 0.78,
    "kl": 4.0,
    "kl_budget": 12.0,
    "length_ratio": 1.1,
    "asks_back_parent": 0.5,
    "asks_back": 0.7,
    "metrics_parent": {"rouge_l": 0.4, "bleu_4": 0.2},
    "metrics": {"rouge_l": 0.39, "bleu_4": 0.25},
    "red_flags_parent": 0.9,
    "red_flags": 0.95,
    "cases": 200,
    "judge": "rubric",
    "judge_note": "Offline rubric of the nano world; no physician looked.",
}


def outcome(**more: Any) -> Outcome:
    return Outcome(**{**GOOD, **more})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's root with the hybrid nano model and its file."""
    shutil.copytree(ROOT / "huatuo/nano/hybrid", tmp_path / "huatuo/nano/hybrid")
    (tmp_path / "configs/models").mkdir(parents=True)
    for name in ("nano-hybrid", "gpt-4"):
        shutil.copy(ROOT / f"configs/models/{name}.toml", tmp_path / "configs/models")
    return tmp_path


def branch_of(project: Path, name: str = "one", by: float = 0.01, **more: Any) -> Path:
    parent = project / "huatuo/nano/hybrid"
    tensors = {
        key: tensor.float() + by
        for key, tensor in load_file(parent / "model.safetensors").items()
        if key.startswith(("transformer.h.3.", "transformer.ln_f."))
    }
    values: dict[str, Any] = {"kind": "policy", "blocks": 1, "template": "huatuo-nano"}
    values["manifest"] = {"stage": "rl", "votes": {"votes": 600}}
    save_branch(project / name, tensors | more.pop("head", {}), parent=parent, **{**values, **more})
    return project / name


def released(project: Path, folder: Path, name: str = "nano-refined", **more: Any) -> Any:
    return release(folder, name, more.pop("outcome", outcome()), root=project, **more)


def listing(project: Path) -> list[str]:
    folders = (project / "configs/models", project / "data/models")
    return sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())


def test_what_passes_becomes_a_contestant_that_answers(project: Path) -> None:
    folder = branch_of(project)
    done = released(project, folder)
    assert done.name == "nano-refined" and done.file.name == "released-nano-refined.toml"
    models, errors = read_models(project / "configs/models", roots=(project,))
    assert not errors
    new, parent = models["nano-refined"], models["nano-hybrid"]
    assert new.sha256 == read_branch(done.folder).sha256 and new.parent == parent.path
    for key in ("licence", "template", "demonstration", "generation", "dtype", "device"):
        assert getattr(new, key) == getattr(parent, key), key
    assert parent.title_en in new.title_en and parent.title_zh in new.title_zh
    assert new.contestant and new.enabled and parent.note_en in new.note_en
    manifest = verify(done.folder)
    assert manifest["release"]["gates"]["win_rate_low"] == ["0.62", "at least 0.5", True]
    assert manifest["votes"] == {"votes": 600} and manifest["parent"] == parent.sha256
    LocalEngine(new, project)
    assert "no physician looked" in done.file.read_text(encoding="utf-8")
    assert not [name for name in listing(project) if name.startswith(".")]


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"win_rate_low": 0.49}, "win_rate_low"),
        ({"kl": 12.1}, "kl"),
        ({"length_ratio": 1.21}, "length_change"),
        ({"length_ratio": 0.79}, "length_change"),
        ({"asks_back": 0.44}, "asks_back_drop"),
        ({"metrics": {"rouge_l": 0.37, "bleu_4": 0.2}}, "metrics.rouge_l"),
        ({"metrics": {"rouge_l": 0.4}}, "metrics.bleu_4"),
        ({"red_flags": 0.89}, "red_flags_lost"),
        ({"red_flags": None}, "red_flags_lost"),
        ({"not_finite": True}, "finite"),
        ({"cases": 49}, "cases"),
    ],
)
def test_each_gate_holds_alone(change: dict[str, Any], gate: str) -> None:
    assert all(found.passed for found in examine(outcome(), Gates()))
    failed = [found.name for found in examine(outcome(**change), Gates()) if not found.passed]
    assert failed == [gate]


def test_a_failed_gate_releases_nothing_and_a_reason_releases_it_all_the_same(
    project: Path,
) -> None:
    folder, before = branch_of(project), listing(project)
    bad = outcome(win_rate_low=0.4, length_ratio=1.5)
    for reason in ("", "   "):
        with pytest.raises(GateFailed, match=r"win_rate_low is 0\.4, .*length_change is \+0\.5"):
            released(project, folder, outcome=bad, force=reason)
    assert listing(project) == before
    done = released(project, folder, outcome=bad, force='to look at\nwhat it "learned"')
    models, _ = read_models(project / "configs/models", roots=(project,))
    words = 'win_rate_low, length_change: to look at what it "learned"'
    assert words in models[done.name].note_en
    assert verify(done.folder)["release"]["forced"] == 'to look at what it "learned"'


def test_a_name_never_changes_its_weights_unseen(project: Path) -> None:
    one, two, three = (branch_of(project, str(n), by=n / 100) for n in (1, 2, 3))
    names = [released(project, folder).name for folder in (one, one, two, three, two)]
    refined = "nano-refined"
    assert names == [refined, refined, f"{refined}-2", f"{refined}-3", f"{refined}-2"]
    models, errors = read_models(project / "configs/models", roots=(project,))
    assert not errors and models[f"{refined}-2"].title_en.endswith("refined 2")
    assert len({model.title_en for model in models.values()}) == len(models)
    assert released(project, three, replace=True).name == refined
    models, _ = read_models(project / "configs/models", roots=(project,))
    assert models[refined].sha256 == read_branch(three).sha256


def test_another_models_file_is_never_touched(project: Path) -> None:
    folder = branch_of(project)
    kept = (project / "configs/models/gpt-4.toml").read_bytes()
    for name in ("gpt-4", "nano-hybrid"):
        with pytest.raises(ConfigError, match="name of another model"):
            released(project, folder, name, replace=True)
    with pytest.raises(ConfigError, match="name"):
        released(project, folder, "Bad/Name")
    (project / "data/models/taken").mkdir(parents=True)
    (project / "data/models/taken/thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="something else"):
        released(project, folder, "taken")
    assert (project / "configs/models/gpt-4.toml").read_bytes() == kept
    assert not [name for name in listing(project) if name.startswith((".", "released"))]


def test_what_is_damaged_or_no_policy_or_has_no_parent_is_refused(project: Path) -> None:
    head = {"head.weight": torch.zeros(1, 256), "head.bias": torch.zeros(1)}
    reward = branch_of(project, "reward", kind="reward", head=head)
    with pytest.raises(Mismatch, match="reward branch cannot answer"):
        released(project, reward)
    damaged = branch_of(project, "damaged")
    data = bytearray((damaged / "branch.safetensors").read_bytes())
    data[-1] ^= 1
    (damaged / "branch.safetensors").write_bytes(bytes(data))
    with pytest.raises(Damaged, match="altered"):
        released(project, damaged)
    folder = branch_of(project)
    with pytest.raises(ConfigError, match="--parent nobody"):
        released(project, folder, parent="nobody")
    (project / "configs/models/nano-hybrid.toml").unlink()
    with pytest.raises(ConfigError, match="serves its parent"):
        released(project, folder)
    assert listing(project) == ["gpt-4.toml"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no object `gates`"),
        ("[]", "holds no object `gates`"),
        ("{}", "holds no object `gates`"),
        (json.dumps({"gates": {**GOOD, "kl": None}}), "gates.kl"),
        (json.dumps({"gates": {**GOOD, "win_rate": 1.2}}), "gates.win_rate"),
        (json.dumps({"gates": {**GOOD, "winrate": 1}}), "gates.winrate"),
        ('{"gates": ' + json.dumps(GOOD).replace("4.0", "NaN") + "}", "gates.kl"),
    ],
)
def test_a_report_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(BadData, match=says):
        read_outcome(tmp_path / "report.json")
    with pytest.raises(BadData, match="cannot be read"):
        read_outcome(tmp_path / "none.json")


def test_the_command_prints_every_gate_and_exits_with_2_when_one_fails(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = branch_of(project), project / "report.json"
    report.write_text(json.dumps({"gates": {**GOOD, "kl": 20.0}, "more": 1}))
    command = [str(folder), "--name", "nano-refined", "--report", str(report)]
    assert stage.main(command) == 2
    shown = capsys.readouterr()
    assert shown.out.count("ok  ") == 8 and shown.out.count("FAIL") == 1
    assert "kl is 20, must be at most 12" in shown.err and "--force" in shown.err
    report.write_text(json.dumps({"gates": GOOD}))
    assert stage.main([*command, "--gate-win-rate-low", "0.65"]) == 2
    assert "at least 0.65" in capsys.readouterr().err
    assert stage.main([*command, "--gate-win-rate-low", "high"]) == 2
    limits = project / "limits.toml"
    limits.write_text("win_rate = 0.9")
    assert stage.main([*command, "--config", str(limits)]) == 2
    assert "did you mean win_rate_low" in capsys.readouterr().err


def test_a_release_does_not_dirty_the_tree() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"/{stage.MODELS_DIR.as_posix()}/{stage.PREFIX}*.toml" in ignored
    assert "/data/" in ignored


def marked(folder, marks):
    """A record in which three answers of `candidate` were judged, `marks` of them marked as dangerous."""
    with contextlib.closing(Store.open(folder / "reviews.sqlite3")) as store:
        rater = People(store.database).add_user("王医生", "physician", "hash", "system").id
        turn = (PreparedTurn("头疼怎么办？", "多喝水，好好休息。", "阿司匹林每次 3 g。"),)
        store.add_prepared("s", [PreparedPair(f"c{i}", "alpha", "candidate", turn) for i in range(3)], "system")  # fmt: skip
        for number in range(3):
            given = store.next_prepared(rater, "s")
            side = "right" if given.left_is == "a" else "left"
            spans = [Span(side, 1, 0, 4, "wrong_dose")] if number < marks else []
            store.cast_vote(given.id, rater, "tie", spans=spans)
    return folder


@pytest.mark.parametrize(("marks", "limit", "passes"), [(0, 0.0, True), (1, 0.0, False), (1, 0.5, True)])  # fmt: skip
def test_danger_marks_of_physicians_block_a_release(tmp_path, marks, limit, passes):
    gate = danger_gate(marked(tmp_path, marks), "candidate", limit)
    assert gate.passed is passes and gate.value == f"{marks} of 3"
    assert danger_gate(tmp_path, "alpha", 0.0).passed


def test_a_record_that_never_saw_the_model_opens_no_gate(tmp_path):
    with pytest.raises(NoData, match="no vote on other"):
        danger_gate(marked(tmp_path, 0), "other", 0.0)
    with pytest.raises(NoData, match="holds no record"):
        danger_gate(tmp_path / "nowhere", "candidate", 0.0)
