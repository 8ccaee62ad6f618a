"""one update of the policy on a batch of answers: the trunk's states serve reference, values and every epoch.

Below the branch nothing is run, kept or differentiated. The same update as on the whole model, to rounding
(tests/training/test_learner.py, tests/benchmarks/rl_update.py).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from huatuo.errors import NotFinite
from training import objectives
from training.logprob import token_log_probs
from training.objectives import Average
from training.rollout import Rollouts

Forward = Callable[[Tensor, Tensor], Tensor]
"""A branch, or what runs it: the trunk's states (B, T, H) and the mask (B, T) in, final states or values out."""


@dataclass(frozen=True)
class UpdateSettings:
    """How a batch of answers moves the policy. micro_batch: sequences run at once. minibatches: optimiser steps an epoch."""

    epochs: int = 1
    minibatches: int = 1
    micro_batch: int = 16
    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 0.5
    average: Average = "token"
    max_norm: float = 1.0
    temperature: float = 1.0


@dataclass
class Tokens:
    """The answer tokens of a batch end to end: (N,) each, with the sequence that owns them.

    kl_in_loss: coefficient of the k3 leash in the loss (GRPO); PPO and RLOO have theirs in the reward.
    """

    owner: Tensor
    old: Tensor
    reference: Tensor
    advantages: Tensor
    values: Tensor | None = None
    returns: Tensor | None = None
    kl_in_loss: float = 0.0


class Learner:
    """Policy, reference and, for PPO, a value branch on one trunk, with their optimiser.

    policy, value: branches, maybe wrapped for several processes. backward: takes a loss, and whether it is the last of
    its minibatch. norm: for an engine that clips and steps within that last backward, says the gradient's norm before
    clipping. reduce: sums a float over the processes. world: their number.
    """

    def __init__(
        self,
        policy: Forward,
        reference: nn.Module,
        vocabulary: Tensor,
        optimizer: Any,
        settings: UpdateSettings,
        *,
        value: Forward | None = None,
        backward: Callable[[Tensor, bool], None] = lambda loss, last: loss.backward(),
        norm: Callable[[], float] | None = None,
        reduce: Callable[[float], float] = lambda number: number,
        world: int = 1,
    ) -> None:
        self.policy, self.reference, self.value = policy, reference, value
        self.vocabulary, self.optimizer, self.settings = vocabulary, optimizer, settings
        self._backward, self._norm = backward, norm
        self._reduce, self._world = reduce, world

    def log_probs(self, branch: Forward, batch: Rollouts) -> tuple[Tensor, Tensor]:
        """(log-probabilities, entropies) of the batch's answer tokens, (N,) float32, row by row."""
        hidden = branch(batch.states, batch.fed)  # (B, T-1, H)
        asked = batch.answer[:, 1:]  # the state before a token tells its probability
        return token_log_probs(
            hidden[asked],
            self.vocabulary,
            batch.ids[:, 1:][asked],
            temperature=self.settings.temperature,
        )

    @torch.no_grad()
    def score(self, rollouts: Rollouts) -> tuple[Tensor, Tensor, Tensor | None]:
        """(policy's log-probabilities, the reference's, values or None), (N,) over all answer tokens in order."""
        count = int(rollouts.lengths.sum())
        found = torch.zeros(3, count, device=rollouts.ids.device)
        spans = _spans(owners(rollouts), len(rollouts))
        for rows in _chunks(by_length(rollouts), self.settings.micro_batch):
            batch, at = rollouts.select(rows), _places(rows, spans, found.device)
            found[0, at] = self.log_probs(self.policy, batch)[0]
            found[1, at] = self.log_probs(self.reference, batch)[0]
            if self.value is not None:
                found[2, at] = self.value(batch.states, batch.fed)[batch.answer[:, 1:]].float()
        return found[0], found[1], found[2] if self.value is not None else None

    def update(
        self, rollouts: Rollouts, tokens: Tokens, order: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        """All epochs on one batch; returns {loss, value_loss, clipped, entropy, gradient_norm} of the run.

        order: one permutation of the rows per epoch. Raises NotFinite before the optimiser's step (with an engine, before
        the next: it steps on its own).
        """
        settings = self.settings
        sums = dict.fromkeys(("loss", "value_loss", "clipped", "entropy", "gradient_norm"), 0.0)
        steps = 0
        spans = _spans(tokens.owner, len(rollouts))
        for rows in order:
            size = -(-len(rows) // settings.minibatches)
            for minibatch in _chunks(rows, size):
                self.optimizer.zero_grad(set_to_none=True)
                share = self._share(rollouts, minibatch)
                micros = list(_chunks(by_length(rollouts, minibatch), settings.micro_batch))
                for micro in micros:
                    loss, figures = self._micro(rollouts, tokens, micro, share, spans)
                    self._backward(loss, micro is micros[-1])
                    for name, figure in figures.items():
                        sums[name] += figure
                sums["gradient_norm"] += self._step()
                steps += 1
        return {
            name: self._reduce(value) / max(steps, 1) / self._world for name, value in sums.items()
        }

    def _share(self, rollouts: Rollouts, rows: Sequence[int]) -> float:
        """What a minibatch's sum is divided by: its tokens or sequences, over all processes, per process."""
        mine = (
            len(rows)
            if self.settings.average == "sequence"
            else int(rollouts.lengths[list(rows)].sum())
        )
        return self._reduce(float(mine)) / self._world

    def _micro(
        self,
        rollouts: Rollouts,
        tokens: Tokens,
        rows: Sequence[int],
        share: float,
        spans: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, dict[str, float]]:
        """(loss of some rows, its figures)."""
        settings = self.settings
        batch = rollouts.select(list(rows))
        at = _places(rows, spans, tokens.owner.device)
        counts = batch.lengths
        owner = torch.repeat_interleave(torch.arange(len(rows), device=counts.device), counts)
        new, entropy = self.log_probs(self.policy, batch)
        old = tokens.old[at]
        gain = objectives.clipped_gain(new, old, tokens.advantages[at], settings.clip)
        per_token = -gain
        if tokens.kl_in_loss:
            per_token = per_token + tokens.kl_in_loss * objectives.k3(new, tokens.reference[at])

        def mean(values: Tensor) -> Tensor:
            return objectives.averaged(values, owner, settings.average, counts, share)

        loss = mean(per_token)
        value_loss = torch.zeros((), device=new.device)
        if self.value is not None and tokens.values is not None and tokens.returns is not None:
            values = self.value(batch.states, batch.fed)[batch.answer[:, 1:]]
            value_loss = mean(
                objectives.clipped_value_loss(
                    values, tokens.values[at], tokens.returns[at], settings.value_clip
                )
            )
        whole = loss + settings.value_coefficient * value_loss
        if not torch.isfinite(whole):
            raise NotFinite(f"the loss is {whole.item()} on the rows {list(rows)[:8]} of the batch")
        outside = ((new.detach() - old).exp() - 1).abs() > settings.clip
        return whole, {
            "loss": float(loss.detach()),
            "value_loss": float(value_loss.detach()),
            "clipped": float(mean(outside.float())),
            "entropy": float(mean(entropy)),
        }

    def _step(self) -> float:
        """Clips and steps, where no engine has done so; the gradient's norm before clipping."""
        if self._norm is not None:
            norm = self._norm()
        else:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = float(nn.utils.clip_grad_norm_(parameters, self.settings.max_norm))
        if not math.isfinite(norm):
            raise NotFinite(f"the gradient's norm is {norm}")
        if self._norm is None:
            self.optimizer.step()
        return norm


def owners(rollouts: Rollouts) -> Tensor:
    """(N,) the row of each answer token."""
    rows = torch.arange(len(rollouts), device=rollouts.ids.device)
    return torch.repeat_interleave(rows, rollouts.lengths)


def by_length(rollouts: Rollouts, rows: Sequence[int] | None = None) -> list[int]:
    """The rows (by default all) by rising length, so that those run together need little padding."""
    lengths = rollouts.lengths.tolist()
    return sorted(range(len(rollouts)) if rows is None else rows, key=lambda row: lengths[row])


def _places(rows: Sequence[int], spans: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Where the answer tokens of some rows are among all, row by row."""
    return torch.cat([torch.arange(*spans[row], device=device) for row in rows])


def _spans(owner: Tensor, rows: int) -> list[tuple[int, int]]:
    ends = torch.bincount(owner, minlength=rows).cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), max(size, 1)):
        yield items[start : start + size]
