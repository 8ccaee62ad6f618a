"""what a reinforcement-learning run did: curves, settings and answers before and after, in one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from huatuo.messages import Message
from huatuo.models.trunk import Branch
from huatuo.prompts import encode
from training import memory
from training.cases import OPENERS, Case
from training.report import Page, curves
from training.rollout import Drawing, sample
from training.rubric import NOTE, RubricJudge

if TYPE_CHECKING:
    from training.rl_step import Run

CURVES = {
    "reward": "reward of the model, whitened",
    "rubric": "rubric judge on the same answers (not trained on)",
    "kl": "KL to the parent, nats per answer",
    "length": "answer length, tokens",
    "entropy": "entropy, nats per token",
    "unfinished": "share that did not end",
    "unwarned": "emergencies answered without a warning",
    "repeated": "share of repeated text",
    "spread": "disagreement of the reward models",
    "sampling_gap_mean": "log-probabilities, the server's against ours, mean difference",
}
SAMPLES = 8
DECIDED = 0.1
"""Temperature of the samples: nearly always the likeliest word."""


def write_report(run: "Run", work: Path, reason: str) -> Path:
    """Writes report.html beside steps.csv; returns its path."""
    config = run.config
    page = Page(
        f"Reinforcement learning: {config.name}",
        f"{config.algorithm.upper()} on the last {config.blocks} blocks, {run.step} steps, ended by: {reason}.\n{NOTE['en']}",
    )
    page.heading("Curves").figure(
        curves(
            work / "steps.csv",
            CURVES,
            limits={"kl": config.kl_budget} if config.kl_budget else None,
        ),
        "Pale: each step. Dark: running mean. While the reward rises and the rubric does not, the policy exploits the "
        "reward model.",
    )
    page.heading("Before and after").samples(_samples(run, run.cases[:SAMPLES]))
    plan = memory.plan_of(config, members=len(run.ensemble.members))
    page.heading("Memory").table(memory.table(memory.estimate(run.trunk.model.config, plan)))
    page.text(
        "Computed from the shapes beforehand, not measured; by part, on one device.", note=True
    )
    page.heading("Settings").table(
        [(key, str(value)) for key, value in config.model_dump(mode="json").items()],
        ["key", "value"],
    )
    return page.save(work / "report.html")


def _samples(run: "Run", cases: Sequence[Case]) -> list[dict[str, object]]:
    judge = RubricJudge()
    after = answers(run, cases)
    learned = {name: tensor.clone() for name, tensor in run.trunk.policy.state_dict().items()}
    reference = run.learner.reference
    assert isinstance(reference, Branch)
    run.trunk.policy.load_state_dict(reference.state_dict())
    try:
        before = answers(run, cases)
    finally:
        run.trunk.policy.load_state_dict(learned)
    rows: list[dict[str, object]] = []
    for case, old, new in zip(cases, before, after, strict=True):
        row: dict[str, object] = {
            "prompt": case.question,
            "answers": {"parent": old, "refined": new},
        }
        if case.condition and case.kind in OPENERS:
            row["scores"] = {
                name: {"rubric": judge.grade(case, text).score}
                for name, text in (("parent", old), ("refined", new))
            }
        rows.append(row)
    return rows


def answers(run: "Run", cases: Sequence[Case]) -> list[str]:
    """One nearly greedy answer to each case by the policy as it is."""
    config, tokenizer = run.config, run.tokenizer
    room = config.context_tokens - config.max_new_tokens
    prompts = [
        encode(tokenizer, (Message("user", c.question),), config.template, max_tokens=room).ids
        for c in cases
    ]
    how = Drawing(
        config.max_new_tokens, frozenset([tokenizer.eos_token_id]), tokenizer.pad_token_id, DECIDED
    )
    drawn = sample(
        run.trunk, prompts, 1, how, torch.Generator(run.trunk.device).manual_seed(config.seed)
    )
    return [
        tokenizer.decode(ids[answer], skip_special_tokens=True).strip()
        for ids, answer in zip(drawn.ids, drawn.answer, strict=True)
    ]
