"""A branch against its parent: a copy ties, a better or a spoilt one is told, and the figures are those of their definitions."""

import numpy as np
import pytest
import torch

from huatuo.config import Generation
from huatuo.errors import ConfigError, Mismatch, NoData
from huatuo.models.branch import save_branch
from huatuo.models.trunk import load_trunk
from huatuo.toml import ROOT
from training.cases import draw_cases
from training.verdict import Pair, Reference, compare, distinct, interval, read_references

PARENT = ROOT / "huatuo/nano/hybrid"
SERVED = Generation(temperature=0.1, top_p=0.5, max_new_tokens=160, context_tokens=640)
REFERENCES = [
    Reference("最近总是胃疼", "您好，胃疼多久了？饭前疼还是饭后疼？", "vague"),
    Reference("胸口压着疼，出冷汗", "请立即去急诊。", "emergency"),
]


@pytest.fixture(scope="module")
def branch(tmp_path_factory):
    """branch(spoil): a branch of the bundled hybrid, moved by noise of that spread."""
    trunk, _ = load_trunk(PARENT, 2)

    def made(spoil: float):
        folder = tmp_path_factory.mktemp("branch") / "b"
        generator = torch.Generator().manual_seed(0)
        tensors = {
            name: t + spoil * torch.randn(t.shape, generator=generator)
            for name, t in trunk.branch_tensors(trunk.policy).items()
        }
        save_branch(folder, tensors, kind="policy", blocks=2, parent=PARENT, template="huatuo-nano")
        return folder

    return made


def judged(folder, cases):
    pair = Pair(folder, PARENT, "huatuo-nano")
    return compare(pair, cases, REFERENCES, SERVED, kl_budget=10.0, temperature=0.7, seed=3)


def test_a_copy_of_the_parent_ties_everywhere(branch):
    outcome, more, rows = judged(branch(0.0), draw_cases(12, held_out=True, seed=5))
    assert (outcome.win_rate, outcome.win_rate_low, outcome.win_rate_high) == (0.5, 0.5, 0.5)
    assert outcome.kl == pytest.approx(0.0, abs=1e-5) and outcome.length_ratio == 1.0
    assert outcome.asks_back == outcome.asks_back_parent > 0.5
    assert outcome.metrics == outcome.metrics_parent
    assert more["ties"] == 12 and {row["note"] for row in rows} == {"tie"}
    assert "toy world" in outcome.judge_note


def test_a_spoilt_branch_loses_and_is_far_from_its_parent(branch):
    outcome, more, rows = judged(branch(0.3), draw_cases(12, held_out=True, seed=5))
    assert outcome.win_rate_high < 0.5 and outcome.kl > 1.0
    assert more["losses"] > more["wins"]
    assert outcome.metrics["rouge-l"] < outcome.metrics_parent["rouge-l"]
    assert any(row["note"] == "parent wins" for row in rows)


def test_a_branch_of_another_parent_is_refused(branch):
    with pytest.raises(Mismatch, match="parent"):
        Pair(branch(0.0), ROOT / "huatuo/nano/doctor", "huatuo-nano")


def test_settings_that_cannot_be_kept_are_refused(branch):
    pair = Pair(branch(0.0), PARENT, "huatuo-nano")
    with pytest.raises(ConfigError, match="repetition_penalty"):
        pair.answer(["头疼"], SERVED.model_copy(update={"repetition_penalty": 1.1}), 0)


def test_the_interval_is_that_of_the_mean_of_independent_cases():
    points = np.array([1.0] * 130 + [0.0] * 70)
    low, high = interval(points, 0)
    half = 1.96 * np.sqrt(0.65 * 0.35 / 200)
    assert low == pytest.approx(0.65 - half, abs=0.01)
    assert high == pytest.approx(0.65 + half, abs=0.01)


def test_distinct_counts_runs_over_all_texts():
    assert distinct(["abab"], 2) == pytest.approx(2 / 3)
    assert distinct(["aa", "aa"], 1) == 0.25
    assert distinct([], 2) == 0.0


def test_missing_references_say_what_to_run(tmp_path):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(NoData, match=r"training\.corpus"):
        read_references([tmp_path / "empty.jsonl"], 5)
