"""the reward model as reinforcement learning uses it: several branches on one trunk, calibrated and whitened.

A reward is the head's mean over the answer's tokens (pool "mean"), its value at the last one ("last"), or the sum of the
means over the answer's halves with a head for each ("halves": what opens an answer well need not end it well), plus a
weighted sum of what the parent itself says of the answer (training/evidence.py), divided by the temperature
fitted on validation cases, so that a difference of two rewards is in log-odds; whitened, it has mean 0 and standard
deviation 1 over the training answers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from huatuo.errors import Damaged, Mismatch
from huatuo.models.branch import BranchInfo, check_parent, read_branch, tensors_of
from huatuo.models.trunk import Branch, Trunk
from training.evidence import EVIDENCE, evidence_of

REWARD = "reward.json"
Pool = Literal["mean", "last", "halves"]
NUMBERS: dict[Pool, int] = {"mean": 1, "last": 1, "halves": 2}
"""By pool: how many numbers the head says of each token, one for each part of the answer."""


def parts_of(answer_mask: Tensor, pool: Pool) -> Tensor:
    """(B, P, T) weights that take the mean over each of the answer's P parts; 0 for a part without tokens.

    answer_mask: (B, T). An odd token in the middle belongs to the first half.
    """
    mask = answer_mask.bool()
    if pool == "last":
        place = torch.arange(mask.shape[1], device=mask.device)
        parts = ((place == (mask * place).argmax(1, keepdim=True)) & mask)[:, None]
    elif pool == "halves":
        first = mask.cumsum(1) * 2 <= mask.sum(1, keepdim=True) + 1
        parts = torch.stack([mask & first, mask & ~first], 1)
    else:
        parts = mask[:, None]
    return parts / parts.sum(2, keepdim=True).clamp(min=1)


def pooled(states: Tensor, answer_mask: Tensor, pool: Pool) -> Tensor:
    """(B, P * H): the means of (B, T, H) over the answer's parts, side by side."""
    return (parts_of(answer_mask, pool).to(states.dtype) @ states).flatten(1)


def rewards_of(numbers: Tensor, answer_mask: Tensor, pool: Pool) -> Tensor:
    """(B,) the sum over the answer's parts of the mean of what the head says for it. numbers: (B, T) or (B, T, P)."""
    each = numbers.unsqueeze(-1) if numbers.dim() == 2 else numbers
    return torch.einsum("btp,bpt->b", each, parts_of(answer_mask, pool).to(each.dtype))


@dataclass(frozen=True)
class Scale:
    """How raw rewards become calibrated and whitened. mean, std: of the calibrated ensemble mean on training answers."""

    temperature: float
    log_theta: float
    mean: float
    std: float


class RewardEnsemble:
    """Reward branches on one trunk, without gradients. members: at least one. weights: (members, E) of EVIDENCE.

    Members whose blocks never moved share one copy of the parent's, which also serves the evidence. It is taken when the
    ensemble is made: make it before the policy moves.
    """

    def __init__(
        self,
        trunk: Trunk,
        members: Sequence[Branch],
        pool: Pool,
        scale: Scale,
        weights: Tensor | None = None,
    ) -> None:
        parent = trunk.branch().eval().requires_grad_(False)
        self.members = [
            _head_of(member, parent) or member.eval().requires_grad_(False) for member in members
        ]
        self.pool, self.scale = pool, scale
        self.weights = None if weights is None else weights.to(trunk.device)
        self._vocabulary = trunk.vocabulary
        bare = any(isinstance(member, nn.Linear) for member in self.members)
        self._parent = parent if bare or weights is not None else None

    @property
    def branches(self) -> list[nn.Module]:
        """Everything that has to be on the device for scoring."""
        return [*self.members, *([self._parent] if self._parent is not None else [])]

    @classmethod
    def load(cls, folder: Path, trunk: Trunk, parent: Path | None = None) -> "RewardEnsemble":
        """The ensemble that training.reward wrote. parent: the trunk's folder, checked when given.

        Raises Damaged naming the file, Mismatch when a member belongs to another parent or number of blocks.
        """
        about = read_about(folder)
        members, weights = [], []
        for name in about["members"]:
            info = read_branch(folder / name)
            if info.kind != "reward" or info.blocks != trunk.blocks:
                raise Mismatch(
                    f"{folder / name}: a {info.kind} branch of {info.blocks} blocks; a reward branch of {trunk.blocks} "
                    "is expected"
                )
            if info.parent_sha256 != about["parent_sha256"]:
                raise Mismatch(f"{folder / name}: belongs to another parent than {REWARD} names")
            if parent is not None:
                check_parent(info, parent)
            member = trunk.branch(numbers=NUMBERS[about["pool"]])
            trunk.put(member, tensors_of(folder / name))
            members.append(member)
            weights.append(evidence_weights(info))
        scale = Scale(*(float(about[key]) for key in ("temperature", "log_theta", "mean", "std")))
        used = torch.tensor(weights) if any(map(any, weights)) else None
        return cls(trunk, members, about["pool"], scale, used)

    @torch.no_grad()
    def raw(
        self,
        states: Tensor,
        attention_mask: Tensor,
        answer_mask: Tensor,
        input_ids: Tensor | None = None,
    ) -> Tensor:
        """(members, B) float32, as the heads and the evidence say. See `scores`."""
        hidden = None if self._parent is None else self._parent(states, attention_mask)
        found = [
            member(hidden.float()).squeeze(-1)
            if hidden is not None and isinstance(member, nn.Linear)
            else member(states, attention_mask)
            for member in self.members
        ]
        rewards = torch.stack([rewards_of(s, answer_mask, self.pool) for s in found])
        if self.weights is None or hidden is None:
            return rewards
        if input_ids is None:
            raise ValueError("this reward model weighs what the parent says: give input_ids")
        evidence = evidence_of(hidden, self._vocabulary, input_ids, attention_mask, answer_mask)
        return rewards + self.weights @ evidence.T

    def scores(
        self,
        states: Tensor,
        attention_mask: Tensor,
        answer_mask: Tensor,
        input_ids: Tensor | None = None,
        *,
        whiten: bool = True,
    ) -> Tensor:
        """(members, B) float32: calibrated and, by default, whitened.

        states: (B, T, H) of Trunk.states. attention_mask: (B, T), padding on either side. answer_mask: (B, T), the
        answer's tokens without its end mark. input_ids: (B, T), needed when the ensemble weighs evidence
        (ValueError without). whiten=False: differences are in log-odds.
        """
        calibrated = (
            self.raw(states, attention_mask, answer_mask, input_ids) / self.scale.temperature
        )
        return (calibrated - self.scale.mean) / self.scale.std if whiten else calibrated


def _head_of(member: Branch, parent: Branch) -> nn.Linear | None:
    """The head of a member whose blocks are the parent's own; None for one that moved."""
    own = parent.state_dict()
    moved = {name: t for name, t in member.state_dict().items() if not name.startswith("head.")}
    if moved.keys() != own.keys() or not all(torch.equal(moved[k], own[k]) for k in own):
        return None
    return None if member.head is None else member.head.eval().requires_grad_(False)


def evidence_weights(info: BranchInfo) -> list[float]:
    """The weights of EVIDENCE that a member was saved with. Raises Damaged."""
    said = info.details.get("evidence")
    try:
        weights = [float(said[name]) for name in EVIDENCE]  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        raise Damaged(
            f"{info.folder}: branch.json lacks the evidence weights; train it again"
        ) from None
    return weights


def read_about(folder: Path) -> dict[str, Any]:
    """reward.json, checked for the keys that scoring needs. Raises Damaged."""
    path = folder / REWARD
    try:
        about: Any = json.loads(path.read_text(encoding="utf-8"))
        ok = (
            isinstance(about["members"], list)
            and about["members"]
            and all(isinstance(m, str) and Path(m).name == m for m in about["members"])
            and about["pool"] in NUMBERS
            and all(float(about[key]) > 0 for key in ("temperature", "std"))
            and float(about["log_theta"]) >= 0
            and isinstance(about["parent_sha256"], str)
        )
        float(about["mean"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(
            f"{path}: cannot be read ({type(error).__name__}); train the reward model again"
        ) from None
    if not ok:
        raise Damaged(f"{path}: does not describe a reward model; train it again")
    checked: dict[str, Any] = about
    return checked
