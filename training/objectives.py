"""advantages, losses and KL of PPO, RLOO and GRPO, as plain functions of tensors.

Letters: B sequences, N answer tokens of a batch laid end to end, G samples of one prompt. `owner`: (N,) the sequence
each token belongs to, in rising order, the tokens of a sequence in order.
"""

from typing import Literal

import torch
from torch import Tensor

Average = Literal["token", "sequence"]


def gae(
    rewards: Tensor, values: Tensor, owner: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """(advantages, returns), both (N,), by generalised advantage estimation within each sequence.

    rewards, values: (N,) float32. Source: Schulman et al. 2015 (arXiv 1506.02438), Eq. 16.
    """
    told, worth, sequence = rewards.tolist(), values.tolist(), owner.tolist()
    advantages = [0.0] * len(told)
    for n in range(len(told) - 1, -1, -1):
        goes_on = n + 1 < len(told) and sequence[n + 1] == sequence[n]
        following, later = (worth[n + 1], advantages[n + 1]) if goes_on else (0.0, 0.0)
        advantages[n] = told[n] + gamma * following - worth[n] + gamma * lam * later
    found = torch.tensor(advantages, dtype=rewards.dtype, device=rewards.device)
    return found, found + values


def leave_one_out(rewards: Tensor, samples: int) -> Tensor:
    """(B,) each reward less the mean of the other samples of its prompt. Source: RLOO, Ahmadian et al. 2024, Eq. 8."""
    groups = rewards.view(-1, samples)  # (P, G)
    others = (groups.sum(1, keepdim=True) - groups) / (samples - 1)
    return (groups - others).flatten()


def group_normalised(rewards: Tensor, samples: int, *, scale: bool = True) -> Tensor:
    """(B,) each reward less its prompt's mean, over its standard deviation. Source: GRPO, arXiv 2402.03300, 4.1.2.

    scale=False leaves the division out, which weights easy and hard prompts alike (Dr. GRPO, arXiv 2503.20783).
    """
    groups = rewards.view(-1, samples)
    centred = groups - groups.mean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True) + 1e-4) if scale else centred).flatten()


def whitened(values: Tensor, *, shift: bool = True) -> Tensor:
    """Mean 0 (with shift) and standard deviation 1 over all elements."""
    centred = (values - values.mean()) / (values.std(correction=0) + 1e-8)
    return centred if shift else centred + values.mean()


def clipped_gain(new: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """(N,) PPO's clipped surrogate, to be made large. Source: Schulman et al. 2017 (arXiv 1707.06347), Eq. 7."""
    ratio = (new - old).exp()
    return torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """(N,) half the squared error, the larger of the plain and the clipped one, as in InstructGPT's PPO."""
    bounded = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.max((values - returns) ** 2, (bounded - returns) ** 2)


def k3(new: Tensor, reference: Tensor) -> Tensor:
    """(N,) unbiased, never negative estimate of KL(new, reference) from samples of `new`. Source: Schulman 2020."""
    gap = reference - new
    return gap.exp() - gap - 1


def averaged(
    values: Tensor, owner: Tensor, average: Average, tokens: Tensor, sequences: float
) -> Tensor:
    """The part of a whole batch's mean that these (N,) values make up, a scalar; parts add up over micro-batches.

    average "token": sum over all tokens of the batch (tokens.sum()). "sequence": mean per sequence, then over
    `sequences`. tokens: (B,) tokens of each sequence that `owner` points to.
    """
    if average == "token":
        return values.sum() / sequences
    return (values / tokens[owner]).sum() / sequences


class KlControl:
    """The coefficient of the leash: fixed, or moved so that the KL per sequence stays near a target.

    Source: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2: a proportional controller with clipped error.
    """

    def __init__(self, coefficient: float, target: float = 0.0, horizon: float = 10.0) -> None:
        self.coefficient, self.target, self.horizon = coefficient, target, horizon

    def move(self, kl: float) -> None:
        """Takes in the last step's KL per sequence, in nats; target 0 keeps the coefficient fixed."""
        if self.target > 0:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error / self.horizon


class LengthLeash:
    """A pull on the reward that grows while answers drift from the parent's mean length, and fades when they return.

    Reward models like length, and a policy learns to be long for it (ODIN, arXiv 2402.07319). The parent's length is that
    of the first few steps, whose policy is near it: one step's prompts are too few, and a wrong length would be learned.
    Within a tenth of it answers may be as long as they like.
    """

    MEASURED = 5
    """Steps that make up the wanted length."""
    SLACK = 0.1

    def __init__(self, rate: float, wanted: float = 0.0) -> None:
        self.rate, self.wanted, self.pull = rate, wanted, 0.0
        self.seen = self.MEASURED if wanted else 0

    def penalty(self, lengths: Tensor) -> Tensor:
        """(B,) to be taken off the rewards, in units of their standard deviation. lengths: (B,) tokens."""
        return self.pull * (lengths.float() / max(self.wanted, 1.0) - 1)

    def move(self, mean_length: float) -> None:
        """Takes in the last step's mean length."""
        if self.seen < self.MEASURED:
            self.seen += 1
            self.wanted += (mean_length - self.wanted) / self.seen
            return
        drift = mean_length / max(self.wanted, 1.0) - 1
        beyond = drift - min(max(drift, -self.SLACK), self.SLACK)
        self.pull = self.pull + self.rate * beyond if beyond else self.pull * max(0, 1 - self.rate)
