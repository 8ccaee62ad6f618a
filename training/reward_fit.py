"""fits one member of the reward ensemble: soft-label Bradley-Terry with ties, head first, then the blocks.

The head is fitted first, on the pooled states of the untouched blocks (a ridge regression in hundreds of numbers, seconds),
then head and blocks together: from a random head the first steps would spoil the blocks (source: Kumar et al. 2022,
linear probing then fine-tuning). The best state by validation NLL is kept.
Letters: B pairs, T tokens, H hidden width.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from huatuo.errors import NotFinite

EVIDENCE_RIDGE = 100.0
"""Ridge of the evidence's standardised numbers, which say much the same: a prior deviation of 0.1 log-odds each."""


@dataclass(frozen=True)
class Recipe:
    """What a fit is done with. Learning rates are per optimiser step."""

    epochs: int
    batch: int
    learning_rate: float
    head_learning_rate: float
    weight_decay: float
    warm_up: float
    clip: float
    centering: float
    evaluations: int
    patience: int


@dataclass(frozen=True)
class Aim:
    """Targets of pairs: (N, 3) probabilities of a better, tie, b better; weight (N,)."""

    target: Tensor
    weight: Tensor

    def take(self, rows: NDArray[np.int64]) -> "Aim":
        """Some rows, in their order."""
        at = torch.as_tensor(rows, dtype=torch.long)
        return Aim(self.target[at], self.weight[at])


def log_shares(d: Tensor, log_theta: Tensor) -> Tensor:
    """(B, 3) log-probabilities of a better, tie, b better. Source: Rao and Kupper 1967; log_theta > 0."""
    a = functional.logsigmoid(d - log_theta)
    b = functional.logsigmoid(-d - log_theta)
    return torch.stack([a, torch.log(torch.expm1(2 * log_theta)) + a + b, b], dim=1)


def preference_loss(d: Tensor, aim: Aim, log_theta: Tensor) -> Tensor:
    """(B,) weighted cross entropy of the soft targets; not yet divided by the weights' sum.

    d: (B,) reward(a) - reward(b). Without any tie in the targets log_theta only shrinks, down to its lower bound.
    """
    return -(aim.target * log_shares(d, log_theta)).sum(1) * aim.weight


class Ties(nn.Module):
    """The tie parameter: log theta = softplus(raw) + 0.001, started at what the share of ties says of equals."""

    def __init__(self, share: float) -> None:
        super().__init__()
        share = min(max(share, 0.01), 0.8)
        start = math.log((1 + share) / (1 - share))
        # (1,) and not (): DeepSpeed views every parameter as bytes, which a tensor without dimensions refuses
        self.raw = nn.Parameter(torch.tensor([math.log(math.expm1(start))]))

    def forward(self) -> Tensor:
        """Log theta, a scalar above 0."""
        return functional.softplus(self.raw).squeeze() + 1e-3


@dataclass(frozen=True)
class Probe:
    """The head's solution: weight (H,) and bias (1,) on pooled states, weights (E,) on the evidence."""

    weight: Tensor
    bias: Tensor
    evidence: Tensor


def probe(
    states: Tensor,
    evidence: Tensor,
    pairs: NDArray[np.int64],
    aim: Aim,
    rows: NDArray[np.int64],
    ridge: float,
) -> Probe:
    """The best linear reward on pooled states (N, H) and evidence (N, E) for some pairs, which may repeat.

    Both are standardised over these pairs' answers, so a ridge is 1 over the prior variance of each direction; the few
    numbers of the evidence have EVIDENCE_RIDGE. Rewards have mean 0 over these answers.
    """
    features = torch.cat([states, evidence], 1)
    seen = torch.as_tensor(np.unique(pairs[rows]))
    mean, std = features[seen].mean(0), features[seen].std(0).clamp(min=1e-6)
    z = ((features - mean) / std).double()
    penalty = torch.full((features.shape[1],), ridge, dtype=torch.double)
    penalty[states.shape[1] :] = EVIDENCE_RIDGE
    difference = (z[pairs[:, 0]] - z[pairs[:, 1]])[rows]
    w = _ridge_fit(difference, aim.take(rows), start_of_ties(aim, rows), penalty)
    weight = (w / std).float()
    split = states.shape[1]
    return Probe(weight[:split], -(weight @ mean).reshape(1), weight[split:])


def probe_loss(
    found: Probe,
    states: Tensor,
    evidence: Tensor,
    pairs: NDArray[np.int64],
    aim: Aim,
    rows: NDArray[np.int64],
) -> float:
    """The preference loss of a probe over some pairs, with the tie rate of these targets."""
    r = states @ found.weight + evidence @ found.evidence
    held = aim.take(rows)
    loss = preference_loss(
        (r[pairs[:, 0]] - r[pairs[:, 1]])[rows], held, start_of_ties(aim, rows).float()
    )
    return float(loss.sum() / held.weight.sum())


def choose_ridge(
    states: Tensor,
    evidence: Tensor,
    pairs: NDArray[np.int64],
    aim: Aim,
    rows: NDArray[np.int64],
    cases: Sequence[str],
    ridges: Sequence[float],
    folds: int = 5,
) -> tuple[float, dict[str, float]]:
    """(ridge, {ridge: loss}) by cross-validation over the cases of the given rows.

    The strongest whose loss exceeds the least by no more than one standard error of their difference over the folds
    (Breiman et al. 1984, paired: all ridges see the same cases): weaker ridges fit the noise of votes.
    """
    if len(ridges) == 1:
        return ridges[0], {}
    names = sorted({cases[i] for i in rows})
    order = np.random.default_rng(0).permutation(len(names))
    fold = {names[n]: place % folds for place, n in enumerate(order)}
    of = np.array([fold[cases[i]] for i in rows])
    used = range(min(folds, len(names)))
    ordered = sorted(ridges, reverse=True)
    each = np.array(
        [
            [
                probe_loss(
                    probe(states, evidence, pairs, aim, rows[of != k], ridge),
                    states,
                    evidence,
                    pairs,
                    aim,
                    rows[of == k],
                )
                for k in used
            ]
            for ridge in ordered
        ]
    )
    losses = each @ np.array([float((of == k).mean()) for k in used])
    best = int(losses.argmin())
    errors = (each - each[best]).std(1, ddof=1) / math.sqrt(len(used)) if len(used) > 1 else 0.0
    chosen = ordered[int(np.flatnonzero(losses <= losses[best] + errors)[0])]
    return float(chosen), dict(zip(map(str, ordered), losses.tolist(), strict=True))


def start_of_ties(aim: Aim, rows: NDArray[np.int64]) -> Tensor:
    """Log theta, float64, that the share of ties in some targets says of equals."""
    return Ties(_tie_share(aim, rows))().detach().double()


def _tie_share(aim: Aim, rows: NDArray[np.int64]) -> float:
    weight = aim.weight[torch.as_tensor(rows)]
    return float(
        (aim.target[torch.as_tensor(rows), 1] * weight).sum() / weight.sum().clamp(min=1e-9)
    )


def _ridge_fit(x: Tensor, aim: Aim, log_theta: Tensor, penalty: Tensor) -> Tensor:
    """(F,) minimum of the weighted loss plus half of the sum of penalty * w^2, by L-BFGS."""
    w = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    aim = Aim(aim.target.double(), aim.weight.double())
    optimiser = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = preference_loss(x @ w, aim, log_theta).sum() + (penalty * w * w).sum() / 2
        loss.backward()
        return loss

    optimiser.step(closure)
    return w.detach()


def bootstrap(cases: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of as many cases as there are, drawn with replacement; all rows of a drawn case each time."""
    names, of = np.unique(np.asarray(cases), return_inverse=True)
    drawn = rng.integers(0, len(names), len(names))
    return np.concatenate([np.flatnonzero(of == i) for i in drawn])


def train_member(
    module: nn.Module,
    rewards: Callable[[nn.Module, NDArray[np.int64]], tuple[Tensor, Tensor]],
    aim: Aim,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    recipe: Recipe,
    *,
    accelerator: Accelerator,
    seed: int,
    trainable: Callable[[nn.Module], Any],
    restore: Callable[[nn.Module, Any], None],
    note: Callable[[dict[str, float]], None],
) -> tuple[nn.Module, float]:
    """Fits the module in place; returns the prepared module and its best validation NLL, whose state it then holds.

    rewards: (module, pairs) -> rewards of a and of b. trainable, restore: copy the module's state out and back.
    note: gets {step, steps, loss, validation} as it goes. Every process calls it with the same arguments; each takes
    its share of every batch, and gradients are those of one process. Raises NotFinite naming the batch.
    """
    ties = Ties(_tie_share(aim, train)).to(accelerator.device)
    module.add_module("ties", ties)
    heads = [p for n, p in module.named_parameters() if p.requires_grad and _is_head(n)]
    rest = [p for n, p in module.named_parameters() if p.requires_grad and not _is_head(n)]
    groups = [
        {"params": rest, "lr": recipe.learning_rate, "weight_decay": recipe.weight_decay},
        {"params": heads, "lr": recipe.head_learning_rate, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]])
    steps = math.ceil(len(train) / recipe.batch) * recipe.epochs
    warm = max(1, int(recipe.warm_up * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(s / max(steps, 1), 1)))),
    )
    model, optimiser = accelerator.prepare(module, optimiser)
    best = evaluate(model, rewards, aim, validation, recipe, accelerator)
    kept, worse = trainable(model), 0
    note({"step": 0, "steps": steps, "loss": math.nan, "validation": best})
    every = max(1, steps // max(recipe.evaluations, 1))
    for step, rows in enumerate(_batches(train, recipe, np.random.default_rng(seed)), 1):
        model.train()
        loss = _share_of_loss(model, rewards, aim, rows, recipe, accelerator)
        if not bool(torch.isfinite(loss)):
            raise NotFinite(
                f"loss is {float(loss)} in batch {step} (pairs {rows[:6].tolist()}…); lower learning_rate, or check these "
                "pairs; finished members are kept: continue with --resume"
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        said = {
            "step": step,
            "steps": steps,
            "loss": float(accelerator.reduce(loss.detach(), "mean")),
        }
        if step % every == 0 or step == steps:
            said["validation"] = evaluate(model, rewards, aim, validation, recipe, accelerator)
            worse = 0 if said["validation"] < best else worse + 1
            if said["validation"] < best:
                best, kept = said["validation"], trainable(model)
        note(said)
        if worse > recipe.patience:
            break
    restore(model, kept)
    return model, best


def _is_head(name: str) -> bool:
    return name.startswith(("head.", "ties."))


def _batches(
    train: NDArray[np.int64], recipe: Recipe, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    for _ in range(recipe.epochs):
        order = rng.permutation(train)
        for start in range(0, len(order), recipe.batch):
            yield order[start : start + recipe.batch]


def _own(
    rows: NDArray[np.int64], accelerator: Accelerator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """This process's rows of a batch, equally many on each, and which of them are real and not filled up."""
    world, rank = accelerator.num_processes, accelerator.process_index
    each = math.ceil(len(rows) / world)
    full = np.resize(rows, each * world)
    real = np.arange(each * world) < len(rows)
    return full[rank::world], real[rank::world]


def _share_of_loss(
    model: nn.Module,
    rewards: Any,
    aim: Aim,
    rows: NDArray[np.int64],
    recipe: Recipe,
    accelerator: Accelerator,
) -> Tensor:
    """This process's part of the batch's loss, scaled so that the mean over processes is the loss of the batch."""
    own, real = _own(rows, accelerator)
    a, b = rewards(model, own)
    mine = aim.take(own)
    valid = torch.as_tensor(real, device=a.device, dtype=a.dtype)
    mine = Aim(mine.target.to(a.device), mine.weight.to(a.device) * valid)
    ties: Ties = accelerator.unwrap_model(model).ties
    loss = preference_loss(a - b, mine, ties()).sum() / aim.weight[torch.as_tensor(rows)].sum()
    loss = loss + recipe.centering * ((a + b) ** 2 * valid).sum() / len(rows)
    return loss * accelerator.num_processes


@torch.no_grad()
def evaluate(
    model: nn.Module,
    rewards: Any,
    aim: Aim,
    rows: NDArray[np.int64],
    recipe: Recipe,
    accelerator: Accelerator,
) -> float:
    """The preference loss over some pairs, without centering."""
    model.eval()
    total = 0.0
    ties: Ties = accelerator.unwrap_model(model).ties
    for start in range(0, len(rows), recipe.batch):
        some = rows[start : start + recipe.batch]
        own, real = _own(some, accelerator)
        a, b = rewards(model, own)
        mine = aim.take(own)
        valid = torch.as_tensor(real, device=a.device, dtype=a.dtype)
        mine = Aim(mine.target.to(a.device), mine.weight.to(a.device) * valid)
        loss = preference_loss(a - b, mine, ties()).sum()
        total += float(accelerator.reduce(loss, "sum"))
    return total / float(aim.weight[torch.as_tensor(rows)].sum())
