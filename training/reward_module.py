"""one member of the reward ensemble while it is fitted: on cached states, or as the whole model with its lower blocks frozen.

Both compute the same rewards; a member without a cache is a model of its own that any engine may wrap (DDP, DeepSpeed
ZeRO-3), because every call goes through its own forward.
"""

import os
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers.integrations import unset_hf_deepspeed_config

from huatuo.models.trunk import Branch, Trunk, positions
from training.answers import Sequences, StateCache, answer_mask, length_batches, padded
from training.ensemble import NUMBERS, Pool, pooled, rewards_of
from training.evidence import EVIDENCE, evidence_of

Tensors = dict[str, Tensor]


def open_accelerator(*, cpu: bool) -> Accelerator:
    """accelerate's view of this process; several processes without a GPU talk through gloo, also under DeepSpeed."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = cpu or not torch.cuda.is_available()
    handlers = [InitProcessGroupKwargs(backend="gloo")] if several and on_cpu else []
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    accelerator = Accelerator(cpu=(on_cpu and not deepspeed) or None, kwargs_handlers=handlers)
    # transformers would cut the weights into shards while it reads them, and the split proves itself on whole ones.
    unset_hf_deepspeed_config()
    return accelerator


class CachedReward(nn.Module):
    """Branch with a head on the trunk's states."""

    def __init__(self, branch: Branch, pool: Pool) -> None:
        super().__init__()
        self.branch, self.pool = branch, pool

    def forward(self, states: Tensor, attention_mask: Tensor, judged: Tensor) -> Tensor:
        """(B,) rewards."""
        return rewards_of(self.branch(states, attention_mask), judged, self.pool)


class WholeReward(nn.Module):
    """The parent's base model with a head; only the blocks above the trunk move."""

    def __init__(self, trunk: Trunk, pool: Pool) -> None:
        super().__init__()
        self.base = trunk.model.base_model
        self.pool, self.takes_positions = pool, trunk.takes_positions
        trunk.policy.requires_grad_(True)
        self.head = nn.Linear(
            trunk.hidden_size, NUMBERS[pool], device=trunk.device, dtype=torch.float32
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, judged: Tensor) -> Tensor:
        """(B,) rewards."""
        hidden = self.base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            **positions(attention_mask, self.takes_positions),
        ).last_hidden_state
        return rewards_of(self.head(hidden.float()), judged, self.pool)


class Member:
    """A module being fitted, with what training.reward_fit needs around it.

    cache None: the trunk given is used up, its top blocks become the member. `offset` (N,) is added to the rewards: what
    the evidence says of each sequence.
    """

    def __init__(
        self,
        trunk: Trunk,
        sequences: Sequences,
        cache: StateCache | None,
        pool: Pool,
        accelerator: Accelerator,
    ) -> None:
        self.sequences, self.cache, self.accelerator, self._trunk = (
            sequences,
            cache,
            accelerator,
            trunk,
        )
        self._names = list(trunk.branch_tensors(trunk.policy))
        self.module: CachedReward | WholeReward
        if cache is not None:
            self.module = CachedReward(trunk.branch(numbers=NUMBERS[pool]), pool)
        else:
            self.module = WholeReward(trunk, pool)
        self.offset = torch.zeros(len(sequences.ids))

    @property
    def head(self) -> nn.Linear:
        """The head."""
        module = self.module
        head = module.branch.head if isinstance(module, CachedReward) else module.head
        assert head is not None
        return head

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Starts the head at the probe's solution. weight: (P * H,). bias: (1,)."""
        self.head.weight.copy_(weight.reshape(self.head.weight.shape))
        self.head.bias.copy_(bias.expand_as(self.head.bias) / len(self.head.bias))

    def rewards(self, model: nn.Module, pairs: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Rewards of a and of b of some pairs, each (B,); a sequence in several of them is run once."""
        both = self.sequences.pairs[pairs]
        numbers, where = np.unique(both, return_inverse=True)
        found = model(*(t.to(self.accelerator.device) for t in self.inputs(numbers)))
        found = found + self.offset[torch.as_tensor(numbers)].to(found.device)
        at = torch.as_tensor(where.reshape(both.shape), device=found.device)
        return found[at[:, 0]], found[at[:, 1]]

    def inputs(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """What the module's forward takes for some sequences."""
        if self.cache is not None:
            return self.cache.batch(numbers)
        ids, mask = padded([self.sequences.ids[n] for n in numbers])
        return ids, mask, answer_mask(self.sequences, numbers, ids.shape[1])

    def tensors(self, model: nn.Module | None = None) -> Tensors:
        """The member's tensors as a branch checkpoint names them. model: the prepared module, if it was prepared."""
        if isinstance(self.module, CachedReward):
            return self._trunk.branch_tensors(self.module.branch)
        state = (
            self.module.state_dict() if model is None else self.accelerator.get_state_dict(model)
        )
        prefix = self._trunk.model.base_model_prefix + "."
        named = {n: state["base." + n.removeprefix(prefix)] for n in self._names} if state else {}
        return named | {n: state[n] for n in ("head.weight", "head.bias")} if state else {}


def snapshot(accelerator: Accelerator, model: nn.Module) -> Tensors:
    """A copy of every trainable tensor of a prepared module, by name; gathered under ZeRO-3 (every process takes part)."""
    whole = accelerator.unwrap_model(model)
    wanted = {name for name, p in whole.named_parameters() if p.requires_grad}
    if _is_sharded(whole):
        import deepspeed

        some = [p for n, p in whole.named_parameters() if n in wanted]
        with deepspeed.zero.GatheredParameters(some):
            return {n: p.detach().clone() for n, p in whole.named_parameters() if n in wanted}
    return {n: p.detach().clone() for n, p in whole.named_parameters() if n in wanted}


@torch.no_grad()
def put_back(accelerator: Accelerator, model: nn.Module, kept: Tensors) -> None:
    """Writes a snapshot back."""
    whole = accelerator.unwrap_model(model)
    own = {n: p for n, p in whole.named_parameters() if n in kept}
    if _is_sharded(whole):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(own.values()), modifier_rank=0):
            for name, p in own.items():
                p.copy_(kept[name])
        return
    for name, p in own.items():
        p.copy_(kept[name])


def _is_sharded(module: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in module.parameters())


@torch.no_grad()
def over_sequences(
    trunk: Trunk,
    sequences: Sequences,
    cache: StateCache | None,
    read: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    batch_tokens: int = 8192,
    label: str = "",
) -> Tensor:
    """read(states, attention mask, answer mask, ids) for all sequences, in their order: (N, ...) on the CPU.

    read: gives (B, ...). States come from the cache, or from the trunk when there is none.
    """
    order: list[int] = []
    found: list[Tensor] = []
    bar = tqdm(total=len(sequences.ids), desc=label, unit="answer", disable=not label)
    for numbers in length_batches([len(ids) for ids in sequences.ids], batch_tokens):
        ids, mask = (t.to(trunk.device) for t in padded([sequences.ids[n] for n in numbers]))
        states = (
            cache.batch(numbers)[0].to(trunk.device) if cache else trunk.states(ids, mask).float()
        )
        judged = answer_mask(sequences, numbers, ids.shape[1]).to(trunk.device)
        found.append(read(states, mask, judged, ids).float().cpu())
        order += numbers
        bar.update(len(numbers))
    bar.close()
    return torch.cat(found)[torch.as_tensor(np.argsort(order))]


def features(
    trunk: Trunk,
    sequences: Sequences,
    cache: StateCache | None,
    pool: Pool,
    *,
    label: str = "answers",
) -> tuple[Tensor, Tensor]:
    """(pooled final states (N, P * H), evidence (N, E)) of all sequences under the parent's own blocks."""
    branch = trunk.branch()

    def read(states: Tensor, mask: Tensor, judged: Tensor, ids: Tensor) -> Tensor:
        hidden = branch(states, mask)
        likely = evidence_of(hidden, trunk.vocabulary, ids, mask, judged)
        return torch.cat([pooled(hidden.float(), judged, pool), likely], 1)

    both = over_sequences(trunk, sequences, cache, read, label=label)
    return both.split([both.shape[1] - len(EVIDENCE), len(EVIDENCE)], 1)
