"""what a reward run works on: its settings, the votes as sequences and soft targets, and what is chosen before any fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from huatuo.errors import ConfigError, NoData
from huatuo.toml import ROOT, InsidePath, Settings, Texts
from training import raters
from training.answers import Sequences, encode_pairs
from training.ensemble import Pool
from training.pairs import Counts, Pair, Votes, read_votes
from training.reward_fit import Aim, choose_ridge, probe, probe_loss
from training.split import Split, deal_folds, split, without_held_out

Floats = NDArray[np.float64]


class RewardConfig(Settings):
    """One reward model: configs/reward.toml, configs/nano/reward.toml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="names the run's folder")
    parent: InsidePath = Field(description="the model whose trunk is shared, as in RL")
    blocks: int = Field(default=2, ge=1, description="top blocks that move, as in RL")
    template: str = "huatuo"
    load: Literal["float32", "bfloat16", "int8", "nf4"] = "float32"
    exports: Texts = Field(default=(), description="folders of python -m reviews.export")
    preferences: Texts = Field(default=(), description="TRL preference JSONL files")
    feedback: Texts = Field(default=(), description="AI feedback JSONL files")
    held_out: Texts = Field(default=(), description="case files that no vote may be on")
    out: InsidePath = Field(description="the finished ensemble")
    work: InsidePath = Field(default=Path("data/reward"), description="states, unfinished members")
    pool: Pool = Field(
        default="mean", description="read the answer's mean, last token, or both halves"
    )
    members: int = Field(default=3, ge=1, le=16, description="seeds of the ensemble")
    bootstrap: bool = Field(default=True, description="each member draws its cases anew")
    validation: float = Field(default=0.15, gt=0, lt=0.5, description="share of cases")
    test: float = Field(default=0.2, gt=0, lt=0.5, description="share of cases")
    evidence: bool = Field(
        default=True, description="weigh what the parent says of the answer: training/evidence.py"
    )
    folds: int = Field(
        default=0,
        ge=0,
        le=20,
        description="0: one split; else each case is held out once, head alone, final fit on all",
    )
    max_tokens: int = Field(default=2048, ge=16)
    cache: bool = Field(default=True, description="compute the trunk's states once")
    cache_gb: float = Field(default=4.0, ge=0, description="above it the states go to a file")
    epochs: int = Field(default=2, ge=0, description="over blocks and head; 0: the head alone")
    batch: int = Field(default=16, ge=1, description="pairs per step, over all processes")
    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="share of the steps")
    clip: float = Field(default=1.0, gt=0)
    centering: float = Field(default=0.01, ge=0, description="keeps rewards around 0")
    ridges: tuple[float, ...] = Field(
        default=(100.0, 300.0, 1000.0, 3000.0, 10000.0),
        strict=False,
        min_length=1,
        description="tried for the head by cross-validation",
    )
    ai_weights: tuple[float, ...] = Field(
        default=(0.25, 0.5, 1.0), strict=False, min_length=1, description="tried for AI votes, on physicians' validation votes"
    )  # fmt: skip
    evaluations: int = Field(default=6, ge=1, description="validations per member")
    patience: int = Field(default=2, ge=0, description="worse validations before an early stop")
    baseline: bool = Field(default=False, description="train TRL's RewardTrainer beside it")
    baseline_epochs: int = Field(default=2, ge=1, description="of TRL's RewardTrainer")
    device: Literal["auto", "cpu"] = "auto"
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's choice")
    seed: int = 42


@dataclass(frozen=True)
class Material:
    """What a run works on. rows: of each split, numbers into `pairs` and `sequences.pairs`."""

    votes: Votes
    pairs: list[Pair]
    sequences: Sequences
    split: Split
    reliabilities: list[raters.Rater]
    ceiling: raters.Ceiling
    counts: Counts
    folds: NDArray[np.int64] | None = None
    """(P,) fold of every pair; then `split` has all pairs in train and in test, none in validation."""

    def rows(self, part: Literal["train", "validation", "test"]) -> NDArray[np.int64]:
        """Numbers of a part's pairs."""
        return np.array(getattr(self.split, part), np.int64)

    @property
    def characters(self) -> Floats:
        """(N,) length of the last answer of every sequence."""
        lengths = np.zeros(len(self.sequences.ids))
        for pair, (a, b) in zip(self.pairs, self.sequences.pairs, strict=True):
            lengths[a], lengths[b] = len(pair.a[-1].text), len(pair.b[-1].text)
        return lengths


def gather(config: RewardConfig, tokenizer: Any) -> Material:
    """Votes, sequences, split and raters. Raises BadData, Damaged, NoData."""
    if not (config.exports or config.preferences or config.feedback):
        raise ConfigError("none of exports, preferences and feedback is set: where are the votes?")
    paths = [
        [ROOT / name for name in names]
        for names in (config.exports, config.preferences, config.feedback)
    ]
    votes = read_votes(*paths)
    counts = votes.counts
    kept = without_held_out(votes.pairs, [ROOT / name for name in config.held_out], counts)
    sequences = encode_pairs(
        kept, tokenizer, config.template, max_tokens=config.max_tokens, counts=counts
    )
    pairs = [kept[i] for i in sequences.kept]
    folds = None
    if config.folds:
        if config.folds < 3 or config.epochs:
            raise ConfigError(
                "folds: at least 3, and only with epochs = 0, where a fit takes seconds"
            )
        dealt, groups = deal_folds(pairs, config.folds, config.seed)
        everything = tuple(range(len(pairs)))
        folds, parts = np.array(dealt), Split(everything, (), everything, tuple(groups))
        counts.add("pairs_each_held_out_once", len(pairs))
    else:
        parts = split(
            pairs, validation=config.validation, test=config.test, seed=config.seed, counts=counts
        )
    train = [pairs[i] for i in parts.train]
    if not any(j.outcome in ("a", "b") for pair in train for j in pair.judgements):
        raise NoData(
            "every vote on the training cases is a tie; collect more votes, or change seed"
        )
    known = raters.reliabilities([pairs[i] for i in (*parts.train, *parts.validation)])
    return Material(votes, pairs, sequences, parts, known, raters.ceiling(pairs), counts, folds)


def aim_of(material: Material, ai_weight: float) -> Aim:
    """The soft targets of all pairs, by the reliabilities that training and validation cases show."""
    side = raters.side_bias([material.pairs[i] for i in material.split.train])
    found = raters.targets(
        material.pairs, material.reliabilities, ai_weight=ai_weight, ai_side=side
    )
    target = torch.tensor([[t.a, t.tie, t.b] for t in found], dtype=torch.float32)
    return Aim(target, torch.tensor([t.weight for t in found], dtype=torch.float32))


def physicians_aim(material: Material) -> Aim:
    """The votes of physicians alone as they are, shares and number; what validation compares AI weights by."""
    tally = np.array([pair.tally("physician") for pair in material.pairs], float)  # (P, 4)
    share = np.stack([tally[:, 0], tally[:, 1] + tally[:, 3], tally[:, 2]], 1)
    number = share.sum(1)
    share /= np.maximum(number, 1)[:, None]
    return Aim(torch.tensor(share, dtype=torch.float32), torch.tensor(number, dtype=torch.float32))


@dataclass(frozen=True)
class Choice:
    """What was chosen before the members are fitted, and what the other choices would have given (losses)."""

    ai_weight: float
    ai_weights_tried: dict[str, float]
    ridge: float
    ridges_tried: dict[str, float]


def choose(config: RewardConfig, material: Material, states: Tensor, evidence: Tensor) -> Choice:
    """The head's ridge by cross-validation on training cases; the weight of AI votes on physicians' validation votes."""
    index, rows = material.sequences.pairs, material.rows("train")
    validation, held = material.rows("validation"), physicians_aim(material)
    if (
        material.folds is not None
    ):  # for the weight of AI votes one fold is as good as a validation part
        validation = np.flatnonzero(material.folds == 0)
    ridge, ridges = choose_ridge(
        states, evidence, index, aim_of(material, 1.0), rows, material.split.cases, config.ridges
    )
    mixed = any("ai" in pair.sources for pair in material.pairs)
    if not mixed or float(held.weight[torch.as_tensor(validation)].sum()) == 0:
        return Choice(1.0, {}, ridge, ridges)
    tried = {}
    rows = np.setdiff1d(rows, validation)
    for weight in config.ai_weights:
        found = probe(states, evidence, index, aim_of(material, weight), rows, ridge)
        tried[str(weight)] = probe_loss(found, states, evidence, index, held, validation)
    return Choice(float(min(tried, key=lambda w: tried[w])), tried, ridge, ridges)
