"""what DPO and KTO learned: implicit rewards on held-out cases with intervals, samples, and the report.

The implicit reward of an answer is beta * (log p under the trained model - log p under its parent). Intervals come from
resampling cases, not pairs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from huatuo.models.trunk import Trunk
from huatuo.prompts import encode
from training.logprob import token_log_probs
from training.pairs import Counts, Pair
from training.preferences import Choice
from training.report import Page, bars, curves, reliability, scatter

Floats = NDArray[np.float64]
BATCH_TOKENS = 8192
DRAWS = 1000
"""Bootstrap samples of the cases."""
FEW = 8
"""Pairs below which a group gets no bar of its own."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures. margin, gap, choice: (N,) per pair: implicit margin, chosen minus rejected tokens, the pair."""

    figures: dict[str, Any]
    margin: Floats
    gap: Floats
    departments: tuple[str, ...]


@torch.no_grad()
def log_probs(trunk: Trunk, rows: Sequence[Choice]) -> Floats:
    """log p of the chosen and the rejected answers under the policy as it is now: (N, 2), sums over tokens."""
    flat = [
        (2 * place + side, row.prompt, answer)
        for place, row in enumerate(rows)
        for side, answer in enumerate((row.chosen, row.rejected))
    ]
    flat.sort(key=lambda item: len(item[1]) + len(item[2]))
    sums = np.zeros(2 * len(rows))
    while flat:
        longest = len(flat[-1][1]) + len(flat[-1][2])
        batch = [flat.pop() for _ in range(min(len(flat), max(1, BATCH_TOKENS // longest)))]
        for (place, _, _), value in zip(batch, _batch(trunk, batch, longest), strict=True):
            sums[place] = value
    return sums.reshape(-1, 2)


def _batch(trunk: Trunk, batch: Sequence[Any], longest: int) -> list[float]:
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask, answers = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (_, prompt, answer) in enumerate(batch):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, :end] = 1
        answers[row, len(prompt) : end] = 1
    ids, mask, answers = (tensor.to(trunk.device) for tensor in (ids, mask, answers))
    hidden = trunk.policy(trunk.states(ids, mask), mask)[:, :-1]  # (B, T-1, H)
    wanted = answers[:, 1:].bool()
    values, _ = token_log_probs(hidden[wanted], trunk.vocabulary, ids[:, 1:][wanted])
    owner = torch.nonzero(wanted)[:, 0]
    sums = torch.zeros(len(batch), dtype=torch.float64, device=values.device)
    return [float(v) for v in sums.index_add_(0, owner, values.double())]


def evaluate(
    before: Floats,
    after: Floats,
    rows: Sequence[Choice],
    pairs: Sequence[Pair],
    cases: Sequence[str],
    beta: float,
) -> Evaluation:
    """Accuracy, margin and NLL of the implicit reward. before, after: (N, 2) of log_probs; cases: group per pair."""
    reward = beta * (after - before)  # (N, 2)
    margin = reward[:, 0] - reward[:, 1]
    right = (margin > 0) + 0.5 * (margin == 0)
    groups = np.array([cases[row.pair] for row in rows])
    gap = np.array([len(row.chosen) - len(row.rejected) for row in rows], float)
    same = float(np.std(gap)) == 0 or float(np.std(margin)) == 0
    figures: dict[str, Any] = {
        "held_out_pairs": len(rows),
        "held_out_cases": len(set(groups.tolist())),
        "accuracy": _with_interval(right, groups),
        "margin": _with_interval(margin, groups),
        "nll": _with_interval(np.logaddexp(0, -margin), groups),
        "parent_accuracy": _with_interval((before[:, 0] > before[:, 1]).astype(float), groups),
        "reward_chosen": float(reward[:, 0].mean()),
        "reward_rejected": float(reward[:, 1].mean()),
        "log_prob_chosen_change": float((after - before)[:, 0].mean()),
        "correlation_with_length": None if same else float(np.corrcoef(gap, margin)[0, 1]),
    }
    if (gap < 0).any():
        figures["accuracy_where_shorter_is_better"] = float(right[gap < 0].mean())
    departments = tuple(pairs[row.pair].department for row in rows)
    return Evaluation(figures, margin, gap, departments)


def _with_interval(values: Floats, groups: NDArray[Any], seed: int = 0) -> list[float]:
    """[mean, low, high]: 95 % percentile interval over resampled cases."""
    _, owner = np.unique(groups, return_inverse=True)
    number = int(owner.max()) + 1
    sums, sizes = np.bincount(owner, values), np.bincount(owner)
    drawn = np.random.default_rng(seed).integers(0, number, (DRAWS, number))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return [float(values.mean()), *(float(v) for v in np.percentile(means, (2.5, 97.5)))]


@torch.no_grad()
def sample_rows(
    trunk: Trunk,
    tokenizer: Any,
    pairs: Sequence[Pair],
    rows: Sequence[Choice],
    template: str,
    count: int,
    tokens: int,
) -> list[tuple[str, str]]:
    """(question, answer) for the first `count` held-out cases, the likeliest token each time."""
    seen: dict[str, int] = {}
    for row in rows:
        seen.setdefault(pairs[row.pair].question, row.pair)
    said = []
    for question, number in list(seen.items())[:count]:
        prompt = encode(tokenizer, pairs[number].a[:-1], template, max_tokens=10**9).ids
        ids = torch.tensor([prompt], device=trunk.device)
        out = trunk.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        said.append(
            (question, tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True).strip())
        )
    return said


def write_report(
    folder: Path,
    config: Any,
    evaluation: Evaluation,
    counts: Counts,
    log: Path,
    samples: Sequence[Any],
) -> None:
    """report.json and report.html beside the branch's files."""
    figures = evaluation.figures
    summary = {
        "figures": figures,
        "counts": counts.numbers,
        "settings": config.model_dump(mode="json"),
    }
    text = json.dumps(summary, ensure_ascii=False, indent=1) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    page = Page(
        f"{config.name}: {config.method.upper()}",
        "Implicit rewards on held-out cases, judged by the votes on them. They say how well the votes were learned, not "
        "whether answers are better: for that, compare the models blind.",
    )
    page.heading("Held-out cases")
    page.table(
        [
            {"measure": name, "value": value[0], "low": value[1], "high": value[2]}
            if isinstance(value, list)
            else {"measure": name, "value": value}
            for name, value in figures.items()
        ],
        ["measure", "value", "low", "high"],
        "Intervals: 95 %, cases resampled. parent_accuracy: the likelier answer under the parent.",
    )
    names = [
        n for n in dict.fromkeys(evaluation.departments) if evaluation.departments.count(n) >= FEW
    ]
    right = (evaluation.margin > 0).astype(float)
    member = np.array(evaluation.departments)
    groups: dict[str, Any] = {"all": tuple(figures["accuracy"])}
    for name in names if len(names) > 1 else []:
        groups[name or "unknown"] = tuple(
            _with_interval(right[member == name], np.arange((member == name).sum()))
        )
    page.figure(bars(groups, "Accuracy of the implicit reward", reference=0.5), "Dashed: chance.")
    probability = 1 / (1 + np.exp(-evaluation.margin))
    flip = np.random.default_rng(0).random(len(probability)) < 0.5  # a pair has no first side
    shown = np.where(flip, probability, 1 - probability)
    page.figure(
        reliability({config.method: (shown.tolist(), flip.astype(float).tolist())}, "Reliability"),
        "Sides drawn at random. 95 % Wilson intervals.",
    )
    page.figure(
        scatter(
            evaluation.gap.tolist(),
            evaluation.margin.tolist(),
            "Length and implicit reward",
            x_label="chosen minus rejected, tokens",
            y_label="margin",
        )
    )
    page.heading("Training")
    if log.exists():
        keys = ["loss", "accuracy", "margin", "reward_chosen", "reward_rejected", "kl"]
        page.figure(curves(log, keys), "Pale: each logged step; line: running mean.")
    page.heading("Votes used and left out")
    page.table([{"what": k.replace("_", " "), "number": n} for k, n in counts.numbers.items()])
    if samples:
        page.heading("Samples").text(
            "Held-out questions, the likeliest token each time.", note=True
        )
        page.samples(samples)
    page.save(folder / "report.html")
