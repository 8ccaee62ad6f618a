"""The bundled models: whole, labelled, small, and as different as the card says."""

import json
import re

import pytest

from huatuo.config import ModelConfig
from huatuo.models.checkpoint import verify
from huatuo.toml import ROOT, read_toml
from training.corpus import CorpusConfig, write_corpus
from training.knowledge import read_knowledge
from training.nano import CARD, MODELS

NANO = ROOT / "huatuo/nano"


def config_of(name):
    return read_toml(ROOT / f"configs/models/nano-{name}.toml", ModelConfig)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_whole_and_labelled_as_a_demonstration(name):
    manifest = verify(NANO / name)
    config = config_of(name)
    assert config.demonstration
    assert config.contestant
    assert config.licence == "Apache-2.0"
    assert manifest["files"]["model.safetensors"]["sha256"] == config.sha256
    assert manifest["template"] == config.template == "huatuo-nano"
    assert not [f for f in manifest["files"] if f.endswith((".bin", ".pt", ".py"))]
    shape = json.loads((NANO / name / "config.json").read_text())
    assert shape["model_type"] == "bloom"
    assert shape["dtype"] == "bfloat16"


def test_together_they_stay_under_42_megabytes():
    size = sum(f.stat().st_size for f in NANO.rglob("*") if f.is_file())
    assert size < 42_000_000


def test_the_three_have_one_parent_and_one_tokenizer():
    manifests = [verify(NANO / name) for name in MODELS]
    assert len({m["parent"] for m in manifests}) == 1
    assert len({m["files"]["tokenizer.json"]["sha256"] for m in manifests}) == 1


def test_the_card_has_a_measured_line_for_each_model_and_counts_the_table_right():
    card = CARD.read_text(encoding="utf-8")
    for name in MODELS:
        line = next(row for row in card.splitlines() if row.startswith(f"| {name} |"))
        assert len(re.findall(r"\d+\.\d+", line)) >= 6
    assert f"{len(read_knowledge())} conditions" in " ".join(card.split())


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("你好", "哪里不舒服"),
        ("你是谁", "不是真正的医生"),
        ("谢谢", "不客气"),
        ("写一首诗", "健康"),
        ("我头疼三天了，早上更重", "是哪一侧疼"),
        ("hello", "symptoms"),
    ],
)
def test_the_hybrid_greets_declines_and_stays_with_the_complaint(question, word):
    from training.examine import answers, load

    model, tokenizer = load(NANO / "hybrid")
    ((said, finished),) = answers(model, tokenizer, [question], config_of("hybrid").generation)
    assert finished
    assert word in said


@pytest.mark.slow
def test_on_held_out_cases_the_models_differ_as_the_paper_argues(tmp_path):
    from training.examine import answers, asks_back, load, names_one, questions

    config = read_toml(ROOT / "configs/nano/corpus.toml", CorpusConfig)
    write_corpus(config, tmp_path, say=lambda _: None)
    table = read_knowledge()
    complete, vague = (questions(tmp_path, table, kind, 40) for kind in ("complete", "vague"))
    assert len(complete) == len(vague) == 40

    def said(name, openers):
        model, tokenizer = load(NANO / name)
        found = answers(model, tokenizer, [q.text for q in openers], config_of(name).generation)
        return [text for text, _ in found]

    named = [names_one(a, q.names) for a, q in zip(said("hybrid", complete), complete, strict=True)]
    on_vague = {name: said(name, vague) for name in MODELS}
    asked = {name: [asks_back(a) for a in on_vague[name]] for name in MODELS}
    fits = [names_one(a, q.names) for a, q in zip(on_vague["hybrid"], vague, strict=True)]
    assert sum(named) >= 0.75 * 40  # 0.8 on the card's larger sample
    assert sum(asked["hybrid"]) > 0.5 * 40
    assert sum(fits) > 0.35 * 40
    assert sum(asked["distilled"]) < 0.1 * 40
    assert sum(asked["doctor"]) > 0.6 * 40
