"""The fine-tuning stage through its own entry point, on a model of a few thousand parameters."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from huatuo import toml
from huatuo.errors import NotFinite
from huatuo.models.checkpoint import verify
from huatuo.toml import read_toml
from training import sft

LINES = [
    {"data": [f"问：第{i}个人{pain}怎么办", f"答：{advice}。", "问：谢谢", "答：不客气。"]}
    for i in range(12)
    for pain, advice in [("头疼", "多休息"), ("胃疼", "少吃辣")]
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder of its own, with data and a tokenizer."""
    monkeypatch.setattr(sft, "ROOT", tmp_path)
    monkeypatch.setattr(toml, "ROOT", tmp_path)
    text = "\n".join(json.dumps(line, ensure_ascii=False) for line in LINES)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "held.jsonl").write_text(text.splitlines()[0], encoding="utf-8")
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bare.train_from_iterator([text], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def config_of(project, **changes):
    keys = {
        "name": "tiny",
        "tokenizer": "tokenizer",
        "template": "huatuo-nano",
        "train": ["train.jsonl"],
        "held_out": ["held.jsonl"],
        "out": "models/tiny",
        "work": "work",
        "max_tokens": 96,
        "epochs": 2,
        "learning_rate": 0.01,
        "batch": 4,
        "save_steps": 4,
        "log_steps": 2,
        "device": "cpu",
        "threads": 1,
    } | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    lines.append("shape = { hidden = 32, layers = 2, heads = 4 }")
    file = project / "tiny.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_run_writes_a_whole_checkpoint_that_learned(project, capsys):
    assert sft.main([str(config_of(project)), "--epochs", "3", "--save-dtype", "bfloat16"]) == 0
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures["steps"] == 18
    out = project / "models/tiny"
    manifest = verify(out)
    assert manifest["stage"] == "sft"
    assert set(manifest["data"]) == {"train.jsonl"}
    assert json.loads((out / "sft.json").read_text())["epochs"] == 3
    assert not list(out.glob("*.bin"))
    model = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert (
        AutoTokenizer.from_pretrained(out, local_files_only=True).eos_token_id
        == model.config.eos_token_id
    )
    log = (project / "work/tiny/loss.csv").read_text().splitlines()
    first, last = (float(log[i].split(",")[1]) for i in (1, -3))
    assert last < 0.7 * first
    assert (project / "work/tiny/loss.svg").read_text().startswith("<svg")


def test_a_stopped_run_resumes_where_it_was_and_ends_the_same(project, monkeypatch):
    whole = read_toml(
        config_of(project, name="whole", out="models/whole"), sft.SftConfig, roots=(project,)
    )
    sft.train(whole)
    broken = read_toml(
        config_of(project, name="broken", out="models/broken"), sft.SftConfig, roots=(project,)
    )

    class PullThePlug(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 6:
                raise KeyboardInterrupt

    original = sft.LossLog
    monkeypatch.setattr(sft, "LossLog", lambda folder: PullThePlug())
    with pytest.raises(KeyboardInterrupt):
        sft.train(broken)
    monkeypatch.setattr(sft, "LossLog", original)
    assert not (project / "models/broken").exists()
    figures = sft.train(broken, resume=True)
    assert figures["steps"] == 12
    a, b = (
        AutoModelForCausalLM.from_pretrained(
            project / "models" / name, local_files_only=True
        ).state_dict()
        for name in ("whole", "broken")
    )
    assert all(torch.allclose(a[key], b[key], atol=1e-5) for key in a)


def test_a_loss_that_is_no_number_stops_and_names_the_step(project):
    config = read_toml(
        config_of(project, learning_rate=1e30, clip=0.0, warm_up=0.0),
        sft.SftConfig,
        roots=(project,),
    )
    with pytest.raises(NotFinite, match=r"at step \d+"):
        sft.train(config)
    assert not (project / "models/tiny").exists()


def test_errors_are_one_sentence_that_says_where(project, capsys):
    assert sft.main([str(config_of(project, lr=1))]) == 2
    assert "unknown key lr; did you mean learning_rate?" in capsys.readouterr().err
    (project / "train.jsonl").write_text(
        '{"data": ["问：a", "答：b"]}\n{"data": 3}', encoding="utf-8"
    )
    assert sft.main([str(config_of(project))]) == 2
    assert "train.jsonl:2: data is not a list" in capsys.readouterr().err
    assert sft.main([str(config_of(project, base="no/such/model"))]) == 2
    assert capsys.readouterr().err.count("\n") <= 3
