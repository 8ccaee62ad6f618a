"""what a reward run leaves: calibrated scale, figures on held-out cases, and the folder that training.ensemble loads."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from huatuo.models.branch import read_branch, tensors_of
from huatuo.models.checkpoint import replacing, save_manifest
from huatuo.models.trunk import Trunk
from training import calibration, raters
from training.answers import Sequences, StateCache
from training.calibration import Scored
from training.ensemble import NUMBERS, REWARD, Pool, Scale, evidence_weights, rewards_of
from training.pairs import Pair
from training.raters import Ceiling
from training.reward_module import over_sequences

Floats = NDArray[np.float64]
Shape = tuple[float, float]
"""(log theta, slip): ties and slips of votes, see training.calibration."""


def raw_rewards(
    folders: Sequence[Path],
    trunk: Trunk,
    sequences: Sequences,
    cache: StateCache | None,
    pool: Pool,
    evidence: Tensor,
) -> Floats:
    """(members, N) raw rewards of all sequences by the members saved in these folders. evidence: (N, E)."""
    rows = []
    for number, folder in enumerate(folders, 1):
        branch = trunk.branch(numbers=NUMBERS[pool]).eval()
        trunk.put(branch, tensors_of(folder))
        said = over_sequences(
            trunk, sequences, cache, lambda s, m, judged, _, b=branch: rewards_of(b(s, m), judged, pool),  # type: ignore[misc]
            label=f"scores of member {number}",
        )  # fmt: skip
        said = said + evidence @ torch.tensor(evidence_weights(read_branch(folder)))
        rows.append(said.double().numpy())
    return np.stack(rows)


def head_rewards(folders: Sequence[Path], states: Tensor, evidence: Tensor) -> Floats:
    """(members, N) raw rewards of members whose blocks are the parent's. states: (N, P * H) pooled, evidence: (N, E)."""
    rows = []
    for folder in folders:
        tensors, weights = tensors_of(folder), torch.tensor(evidence_weights(read_branch(folder)))
        said = (
            states @ tensors["head.weight"].flatten()
            + tensors["head.bias"].sum()
            + evidence @ weights
        )
        rows.append(said.double().numpy())
    return np.stack(rows)


def votes_of(
    pairs: Sequence[Pair],
    rows: Sequence[int] | NDArray[np.int64],
    d: Floats,
    cases: Sequence[str],
    shape: Shape,
    *,
    firm: bool = False,
) -> Scored:
    """One row per vote on the given pairs. d: (P,) calibrated reward(a) - reward(b) of every pair.

    firm: only votes as the raters' ceiling is made of, known physicians' that chose a side.
    """
    sign = {"a": 1.0, "b": -1.0}
    found = [(i, j) for i in rows for j in (raters.firm(pairs[i]) if firm else pairs[i].judgements)]
    lengths = np.array([len(p.a[-1].text) - len(p.b[-1].text) for p in pairs], float)
    at = np.array([i for i, _ in found], int)
    return Scored(
        d=d[at] if len(at) else np.zeros(0),
        outcome=np.array([sign.get(j.outcome, 0.0) for _, j in found]),
        weight=np.ones(len(found)),
        case=[cases[i] for i in at],
        source=[j.source for _, j in found],
        department=[pairs[i].department for i in at],
        length=lengths[at] if len(at) else np.zeros(0),
        log_theta=shape[0],
        slip=shape[1],
    )


def fit_scale(
    d: Floats, pairs: Sequence[Pair], rows: Sequence[int] | NDArray[np.int64]
) -> tuple[float, Shape]:
    """(temperature, (log theta, slip)) on the votes of some pairs, physicians' if there are any. d: (P,) raw differences."""
    some = physicians(votes_of(pairs, rows, d, [""] * len(pairs), (0.0, 0.0)))
    temperature, log_theta, slip = calibration.fit_temperature(some.d, some.outcome, some.weight)
    return temperature, (log_theta, slip)


def figures_of(
    d: Floats, pairs: Sequence[Pair], rows: Sequence[int], cases: Sequence[str], shape: Shape
) -> dict[str, Any]:
    """The figures of one model on the votes of some pairs, physicians' if there are any; by source on all votes.

    d: (P,) calibrated differences.
    """
    everybody = votes_of(pairs, rows, d, cases, shape)
    scored = physicians(everybody)
    return {
        **calibration.as_json(calibration.figures(scored)),
        "ece_by_chance": calibration.ece_floor(scored),
        "bins": len(calibration.reliability(scored)),
        "reliability": calibration.reliability(scored),
        "groups": calibration.by_group(scored)
        | {"source": calibration.by_group(everybody)["source"]},
        "confidence": calibration.confidence_in_a(scored.d, *shape).tolist(),
        "outcome": scored.outcome.tolist(),
        "votes": len(scored.d),
        "decisive_votes": int((scored.outcome != 0).sum()),
        "cases": len(set(scored.case)),
    }


def physicians(votes: Scored) -> Scored:
    """The physicians' votes, if there are any; else all."""
    human = np.array([source == "physician" for source in votes.source], bool)
    return votes.take(human) if human.any() else votes


def paired_accuracy(
    d: Floats, pairs: Sequence[Pair], rows: Sequence[int], cases: Sequence[str]
) -> dict[str, float | None]:
    """Accuracy on the votes of these pairs that the raters' ceiling is made of, with its interval."""
    scored = votes_of(pairs, rows, d, cases, (0.0, 0.0), firm=True)
    return calibration.as_json(calibration.figures(scored))["accuracy"]


def length_figures(rewards: Floats, lengths: Floats) -> dict[str, float | None]:
    """Correlation of reward with length over answers."""
    return {
        "pearson": calibration.correlation(rewards, lengths),
        "spearman": calibration.correlation(rewards, lengths, ranks=True),
    }


def gap_to_ceiling(
    d: Floats,
    pairs: Sequence[Pair],
    rows: Sequence[int],
    cases: Sequence[str],
    ceiling: Ceiling,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, float | None]:
    """Ceiling of all pairs less accuracy on physicians' votes on some, in [-1, 1], with its 95 % interval by case bootstrap.

    Both are measured anew in each draw: their chance is shared, as they rest on the same votes. None without a ceiling
    or without such a vote on these pairs.
    """
    firm = votes_of(pairs, rows, d, cases, (0.0, 0.0), firm=True)
    if ceiling.value is None or not len(firm.d):
        return {"value": None, "low": None, "high": None}
    right = (np.sign(firm.d) * firm.outcome + 1) / 2
    agreed = raters.agreements(pairs)
    names, of = np.unique([*firm.case, *cases], return_inverse=True)
    mine, theirs = of[: len(right)], of[len(right) :]
    sums = np.stack(
        [
            np.bincount(mine, right, len(names)),
            np.bincount(mine, minlength=len(names)),
            np.bincount(theirs, agreed[:, 0], len(names)),
            np.bincount(theirs, agreed[:, 1], len(names)),
        ],
        1,
    )

    def gap(total: Floats) -> Floats:
        return np.asarray(total[..., 2] / total[..., 3] - total[..., 0] / total[..., 1])

    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), draws) @ sums
    found = gap(drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)])
    low, high = np.quantile(found, (0.025, 0.975))
    return {"value": float(gap(sums.sum(0))), "low": float(low), "high": float(high)}


def scale_of(
    raw: Floats, temperature: float, log_theta: float, answers: NDArray[np.int64]
) -> Scale:
    """The whitening over the given (training) answers."""
    calibrated = raw.mean(0)[answers] / temperature
    return Scale(
        temperature, log_theta, float(calibrated.mean()), float(max(calibrated.std(), 1e-6))
    )


def write_ensemble(
    out: Path,
    members: Sequence[Path],
    scale: Scale,
    pool: Pool,
    *,
    blocks: int,
    parent_sha256: str,
    resolved: Mapping[str, Any],
    manifest: Mapping[str, Any],
    files: Mapping[str, str],
) -> None:
    """Writes the folder whole or not at all. files: further texts by name, such as report.json."""
    about = {
        **dataclasses.asdict(scale),
        "pool": pool,
        "blocks": blocks,
        "members": [folder.name for folder in members],
        "parent_sha256": parent_sha256,
    }
    with replacing(out) as fresh:
        for folder in members:
            shutil.copytree(folder, fresh / folder.name)
        (fresh / REWARD).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        config = json.dumps(resolved, ensure_ascii=False, indent=1) + "\n"
        (fresh / "settings.json").write_text(config, encoding="utf-8")
        for name, text in files.items():
            (fresh / name).write_text(text, encoding="utf-8")
        save_manifest(
            fresh,
            {**manifest, "transformers": transformers.__version__, "torch": torch.__version__},
        )
