"""DPO and KTO learn the votes with the last blocks alone, on the project's own tokens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from huatuo.errors import ConfigError, NoData, NotFinite
from huatuo.messages import Message
from huatuo.models.branch import merge, read_branch, tensors_of
from huatuo.prompts import encode, encode_training
from huatuo.toml import ROOT, read_toml
from tests.patience import LONG_S, free_port
from training import dpo
from training.csv_log import read_columns
from training.dpo import PreferenceConfig, main, train
from training.pairs import Counts, read_votes
from training.preferences import choices, encode_last, verdicts

NANO = ROOT / "huatuo/nano/hybrid"
ASKS = "您好。请问有没有发热？疼了多久？平时血压多少？"
TELLS = "多喝水，注意休息就好，不用去医院。"
PLACES = ["头", "胃", "腰", "膝盖", "嗓子", "牙", "耳朵", "肩膀", "脚踝", "胸口"]
TIMES = ("三天", "一周", "两个月", "半年")


def line(number: int, **facts: Any) -> dict[str, Any]:
    """One vote in TRL's preference format, with the record's own keys."""
    question = f"{PLACES[number % 10]}疼{TIMES[number // 10 % 4]}了，怎么回事？"
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": f"{ASKS}{PLACES[number % 10]}肿吗？"}],
        "rejected": [{"role": "assistant", "content": TELLS + "。" * (number % 3)}],
        "case": f"c{number}",
        "rater": number % 3,
        **facts,
    }


def tied(number: int, winner: str) -> dict[str, Any]:
    row = line(number)
    return {
        "prompt": row["prompt"],
        "answer_a": row["chosen"],
        "answer_b": row["rejected"],
        "winner": winner,
        "case": f"t{number}",
        "rater": 1,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four narrow blocks with random weights over the nano models' vocabulary."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("parent") / "bloom"
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    config = BloomConfig(
        vocab_size=len(tokenizer), hidden_size=64, n_layer=4, n_head=2, initializer_range=0.08
    )
    BloomForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, parent: Path) -> Callable[..., PreferenceConfig]:
    votes = write(
        tmp_path / "votes.jsonl",
        [*(line(n) for n in range(40)), tied(41, "tie"), tied(42, "both_bad"), tied(43, "tie")],
    )

    def make(**changes: Any) -> PreferenceConfig:
        return PreferenceConfig(
            **{
                "name": "try",
                "parent": parent,
                "template": "huatuo-nano",
                "preferences": (str(votes),),
                "out": tmp_path / "out",
                "work": tmp_path / "work",
                "blocks": 2,
                "learning_rate": 1e-3,
                "epochs": 3,
                "batch": 8,
                "max_tokens": 256,
                "save_steps": 4,
                "samples": 2,
                "sample_tokens": 8,
                "device": "cpu",
                "threads": 1,
                **changes,
            }
        )

    return make


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_votes_are_learned_and_nothing_frozen_moves(
    method: str, settings: Callable[..., PreferenceConfig], parent: Path, tmp_path: Path
) -> None:
    config = settings(method=method)
    figures = train(config)
    said = read_columns(config.work / "try" / "steps.csv")
    assert said["loss"][-1] < said["loss"][0]
    assert figures["accuracy"][0] > 0.9 and figures["margin"][1] > 0
    info = read_branch(config.out)
    assert (info.kind, info.blocks) == ("policy", 2)
    merge(config.out, tmp_path / "merged", parent)
    old = load_file(parent / "model.safetensors")
    new = load_file(tmp_path / "merged/model.safetensors")
    moved = {name for name in old if not torch.equal(old[name].float(), new[name].float())}
    assert moved and moved <= set(tensors_of(config.out))
    assert all(".h.2." in name or ".h.3." in name or "ln_f" in name for name in moved)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = encode(tokenizer, (Message("user", "头疼三天了"),), "huatuo-nano", max_tokens=200).ids
    assert torch.isfinite(model(torch.tensor([ids])).logits).all()
    report = json.loads((config.out / "report.json").read_text("utf-8"))
    assert report["figures"] == json.loads(json.dumps(figures))
    html = (config.out / "report.html").read_text("utf-8")
    assert "parent" in html and "http://" not in html


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(
    settings: Callable[..., PreferenceConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(samples=0, epochs=2))
    whole = tensors_of(tmp_path / "out")
    log = (tmp_path / "work/try/steps.csv").read_text()
    config = settings(samples=0, epochs=2, out=tmp_path / "again", name="stopped")
    step = dpo._AsGiven.training_step

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(dpo._AsGiven, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert not (tmp_path / "again").exists()
    monkeypatch.setattr(dpo._AsGiven, "training_step", step)
    train(config, resume=True)
    again = tensors_of(tmp_path / "again")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert (tmp_path / "work/stopped/steps.csv").read_text() == log


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(
    settings: Callable[..., PreferenceConfig], tmp_path: Path
) -> None:
    config = settings(samples=0, epochs=1, batch=16)
    train(config)
    values = config.model_dump(mode="json") | {"batch": 8, "name": "two", "max_steps": -1}
    values["out"] = str(tmp_path / "two")
    path = tmp_path / "two.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    script = "import sys; from training import dpo; from huatuo import toml; dpo.read_toml = "
    script += "lambda path, model, over: toml.read_toml(path, model, over, roots=('/',)); "
    runner = tmp_path / "run.py"
    runner.write_text(f"{script}sys.exit(dpo.main())")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(free_port()), str(runner), str(path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=5 * LONG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "two")
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-4
    assert len(read_columns(tmp_path / "work/two/steps.csv")["loss"]) == 2


def test_a_loss_that_is_no_number_stops_and_leaves_the_old_branch(
    settings: Callable[..., PreferenceConfig], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").touch()
    with pytest.raises(NotFinite, match="step 2"):
        train(settings(learning_rate=1e30, warm_up=0.0, samples=0))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]


def test_tokens_are_those_of_supervised_training(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    said = (
        Message("user", "头疼三天了"),
        Message("assistant", ASKS),
        Message("user", "没有发热<病人>：，</s>血压140"),
        Message("assistant", f"{TELLS} OK, see a doctor."),
    )
    for template in ("huatuo-nano", "huatuo"):
        for turns in (said, said[:2]):
            prompt, answer = encode_last(tokenizer, turns, template, max_tokens=500)
            whole = encode_training(tokenizer, turns, template, max_tokens=500).input_ids
            assert prompt + answer == whole
            opened = encode(tokenizer, turns[:-1], template, max_tokens=500).ids
            assert len(opened) - len(prompt) <= 1 and opened[: len(prompt)] == prompt
            assert answer[-1] == tokenizer.eos_token_id and len(answer) > 4


def test_trl_sees_exactly_these_tokens_and_no_others(
    settings: Callable[..., PreferenceConfig], parent: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    config = settings()
    pairs = read_votes((), [Path(config.preferences[0])]).pairs
    rows = choices(
        pairs, range(4), tokenizer, "huatuo-nano", max_tokens=256, counts=Counts(), part="train"
    )
    trunk, tokenizer = dpo.load_trunk(parent, 2)
    trunk.policy.requires_grad_(True)
    trainer = dpo._trainer(config, trunk, tokenizer, rows, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    wanted = [row.prompt + row.chosen for row in rows] + [row.prompt + row.rejected for row in rows]
    for ids, mask, answer, whole in zip(
        batch["input_ids"], batch["attention_mask"], batch["completion_mask"], wanted, strict=True
    ):
        assert tuple(ids[mask.bool()].tolist()) == whole
        assert not answer[: len(rows[0].prompt) - 2].any()
    own = dpo.log_probs(trunk, rows)
    theirs = [trainer.train_dataset[i]["ref_chosen_logps"] for i in range(4)]
    assert own[:, 0].tolist() == pytest.approx(theirs, rel=1e-4)
    moving = [name for name, p in trunk.model.named_parameters() if p.requires_grad]
    assert moving and all(".h.2." in n or ".h.3." in n or "ln_f" in n for n in moving)
    assert not trainer.args.gradient_checkpointing and trainer.ref_model is None


def test_ties_are_left_out_by_dpo_and_used_by_kto_and_both_say_so(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    rows = [
        *(line(n) for n in range(4)),
        tied(5, "tie"),
        tied(6, "both_bad"),
        line(1, rater=9, chosen=line(1)["rejected"], rejected=line(1)["chosen"]),  # cancels out
        line(7, chosen=[{"role": "assistant", "content": "好" * 300}]),
    ]
    pairs = read_votes((), [write(tmp_path / "v.jsonl", rows)]).pairs
    fixed: dict[str, Any] = {"max_tokens": 120, "part": "train"}
    counts = Counts()
    found = choices(pairs, range(len(pairs)), tokenizer, "huatuo-nano", counts=counts, **fixed)
    assert len(found) == 3
    assert counts.numbers == {
        "train_pairs_used": 3,
        "train_raters_cancel_out": 1,
        "train_ties_without_a_winner": 1,
        "train_both_bad_without_a_winner": 1,
        "train_too_long": 1,
    }
    counts = Counts()
    answers = verdicts(
        pairs, range(len(pairs)), tokenizer, "huatuo-nano", counts=counts, seed=1, **fixed
    )
    good = sum(row.desirable for row in answers)
    assert (good, len(answers) - good) == (3 + 2, 3 + 2 + 1)
    assert counts["train_answers_on_which_raters_cancel_out"] == 2
    assert counts["train_answers_too_long"] == 1
    again = verdicts(
        pairs, range(len(pairs)), tokenizer, "huatuo-nano", counts=Counts(), seed=1, **fixed
    )
    assert again == answers


def test_the_word_of_physicians_goes_before_that_of_a_judge(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    swapped = {"chosen": line(1)["rejected"], "rejected": line(1)["chosen"], "source": "ai"}
    ai = [line(1, judge=f"j{n}", **swapped) for n in range(3)]
    pairs = read_votes((), [write(tmp_path / "v.jsonl", [line(1), line(2), *ai])]).pairs
    found = choices(
        pairs, [0], tokenizer, "huatuo-nano", max_tokens=256, counts=Counts(), part="train"
    )
    assert "血压" in tokenizer.decode(found[0].chosen)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"preferences": ()}, ValueError, "names no votes"),
        ({"method": "kto", "batch": 1}, ValueError, "at least 2"),
        ({"max_tokens": 16}, NoData, "no held-out pair has a winner"),
        ({"template": "nobody"}, ConfigError, "unknown template"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    settings: Callable[..., PreferenceConfig],
) -> None:
    with pytest.raises(error, match=words):
        train(settings(**changes))


def test_the_configs_are_valid_and_the_command_line_names_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("configs/dpo.toml", "configs/nano/dpo.toml"):
        read_toml(ROOT / name, PreferenceConfig)
    missing = "data/no-such-export"
    assert main([str(ROOT / "configs/nano/dpo.toml"), "--exports", f'["{missing}"]']) == 2
    assert "manifest.json" in capsys.readouterr().err
