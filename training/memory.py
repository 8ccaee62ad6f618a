"""what a reinforcement-learning run needs in memory, computed beforehand from the model's config: bytes by part.

Weights, gradients, optimizer and quantisation are counted tensor by tensor on a model without storage; activations and
cache follow from the widths of the layers. One figure is an allowance and says so. Nothing is loaded, no GPU is needed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from huatuo.models.trunk import Load
from training.logprob import CHUNK_BYTES

if TYPE_CHECKING:
    from training.rl import RlConfig

Phase = Literal["always", "generate", "score", "update"]
GB = 10**9
WIDE = 4
"""Bytes of a float32: branches, gradients and what their forward keeps."""
CONTEXT = int(0.6 * GB)
"""Allowance for the CUDA context, kernels and the allocator's slack."""


@dataclass(frozen=True)
class Plan:
    """What is to run; by default PPO on a trunk in NF4. Branches are float32, as training.rl has them."""

    load: Load = "nf4"
    dtype: str = "bfloat16"
    """Of what is not quantised, and of the cached keys, values and states."""
    blocks: int = 2
    trained: tuple[str, ...] = ("policy", "value")
    frozen: tuple[str, ...] = ("reference", "reward")
    offload: bool = False
    """Frozen branches and the last good policy wait in main memory; the former come when they score."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw8bit"
    rollouts: int = 64
    """Sequences whose states are kept for the epochs."""
    generated: int = 8
    """Sequences that are generated at once."""
    micro_batch: int = 1
    """Sequences per forward and backward of a branch."""
    tokens: int = 1024
    """Prompt and completion together."""
    cuda: bool = True


def plan_of(
    config: "RlConfig",
    *,
    members: int,
    evidence: bool = True,
    processes: int = 1,
    cuda: bool = True,
) -> Plan:
    """The plan of a run of training.rl. members: of the reward model's ensemble. evidence: it weighs the parent's
    likelihood, for which it holds the parent's blocks once more."""
    rewards = [f"reward {number + 1}" for number in range(members)]
    return Plan(
        load=config.load,
        dtype="bfloat16" if config.load != "float32" and cuda else "float32",
        blocks=config.blocks,
        trained=("policy", "value") if config.algorithm == "ppo" else ("policy",),
        frozen=("reference", *rewards, *(["the reward's parent"] if evidence else [])),
        offload=bool(getattr(config, "offload", False)),
        optimizer="adamw8bit" if config.eight_bit else "adamw",
        rollouts=math.ceil(config.prompts_per_step / processes) * config.samples,
        generated=config.rollout_rows,
        micro_batch=config.micro_batch,
        tokens=config.context_tokens,
        cuda=cuda,
    )


@dataclass(frozen=True)
class Part:
    """One line of the table. phase: when it is held."""

    name: str
    phase: Phase
    bytes: int


def estimate(config: Any, plan: Plan) -> tuple[Part, ...]:
    """The parts of a run on the model that a transformers config describes. Raises ValueError for too many blocks."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = _blocks(model)
    if not 1 <= plan.blocks <= len(blocks):
        raise ValueError(f"blocks = {plan.blocks}, but the model has {len(blocks)}")
    low, top = list(blocks[: -plan.blocks]), list(blocks[-plan.blocks :])
    own = _size(plan.dtype)
    in_blocks = {id(p) for block in blocks for p in block.parameters()}
    outside = sum(p.numel() for p in model.parameters() if id(p) not in in_blocks)
    branch = [p for block in top for p in block.parameters()]
    weights = sum(p.numel() for p in branch)
    text = config.get_text_config()
    hidden, heads = text.hidden_size, text.num_attention_heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    width = getattr(text, "head_dim", None) or hidden // heads
    parts = [
        Part("embeddings, head and norms beside the blocks", "always", outside * own),
        Part(f"trunk of {len(low)} blocks in {plan.load}", "always", trunk_bytes(low, plan)),
    ]
    for name in plan.trained:
        state = optimizer_bytes((p.numel() for p in branch), plan.optimizer)
        parts.append(Part(f"{name}, weights", "always", weights * WIDE))
        parts.append(Part(f"{name}, {plan.optimizer} state", "always", state))
        parts.append(Part(f"{name}, gradients", "update", weights * WIDE))
    held: Phase = "score" if plan.offload else "always"
    parts += [Part(f"{name}, weights", held, weights * WIDE) for name in plan.frozen]
    if not plan.offload:
        parts.append(Part("policy as it was within the KL budget", "always", weights * WIDE))
    states = plan.rollouts * plan.tokens * hidden * own
    parts.append(Part(f"states of {plan.rollouts} sequences", "always", states))
    cache = plan.generated * plan.tokens * 2 * shared * width * len(blocks) * own
    parts.append(Part(f"keys and values of {plan.generated} sequences", "generate", cache))
    active = activation_bytes(top, plan, heads)
    for name in plan.trained:  # one backward for both
        parts.append(Part(f"{name}, activations of {plan.micro_batch}", "update", active))
    # a chunk's logits as they come, in float32, and their probabilities
    parts.append(Part("vocabulary head, one chunk", "update", 3 * CHUNK_BYTES))
    if plan.cuda:
        parts.append(Part("CUDA context and slack (allowance)", "always", CONTEXT))
    return tuple(parts)


def peak(parts: Iterable[Part]) -> int:
    """Bytes at the worst moment: what is always held, and the largest of the phases."""
    sums: dict[str, int] = {"always": 0, "generate": 0, "score": 0, "update": 0}
    for part in parts:
        sums[part.phase] += part.bytes
    return sums.pop("always") + max(sums.values())


def table(parts: Iterable[Part]) -> list[tuple[str, str, str]]:
    """Rows (part, phase, GB to two decimals), the peak last, for a report."""
    listed = list(parts)
    rows = [(part.name, str(part.phase), f"{part.bytes / GB:.2f}") for part in listed]
    return [*rows, ("highest at once", "", f"{peak(listed) / GB:.2f}")]


def trunk_bytes(blocks: Iterable[nn.Module], plan: Plan) -> int:
    """Bytes of frozen blocks: bitsandbytes quantises the weights of linear layers, the rest keeps plan.dtype.

    NF4 with double quantisation: half a byte per weight; per 64 weights one byte of scale; per 256 scales a float32.
    int8: one byte per weight and a float32 per row.
    """
    total = 0
    for block in blocks:
        linear = {id(m.weight) for m in block.modules() if isinstance(m, nn.Linear)}
        for tensor in block.parameters():
            count = tensor.numel()
            if id(tensor) not in linear or plan.load in ("float32", "bfloat16"):
                total += count * _size(plan.dtype)
            elif plan.load == "int8":
                total += count + 4 * tensor.shape[0]
            else:
                scales = math.ceil(count / 64)
                total += math.ceil(count / 2) + scales + 4 * math.ceil(scales / 256)
    return total


def optimizer_bytes(counts: Iterable[int], optimizer: str) -> int:
    """Bytes of the two moments. adamw8bit (bitsandbytes): a byte each and a float32 per 256 of them; below 4,096
    numbers float32."""
    total = 0
    for count in counts:
        wide = optimizer == "adamw" or count < 4096
        total += 8 * count if wide else 2 * (count + 4 * math.ceil(count / 256))
    return total


def activation_bytes(blocks: Iterable[nn.Module], plan: Plan, heads: int) -> int:
    """Bytes that autograd keeps for one forward of a branch, attention through the fused kernel.

    Per token: what goes into and comes out of each linear layer, and four more vectors for norms and residuals; and
    once per forward the additive attention mask, (sequences, heads, tokens, tokens).
    """
    numbers = 0
    for block in blocks:
        linear = [m for m in block.modules() if isinstance(m, nn.Linear)]
        numbers += sum(m.in_features + m.out_features for m in linear)
        numbers += 4 * min(m.in_features for m in linear)
    tokens = plan.micro_batch * plan.tokens
    mask = plan.micro_batch * heads * plan.tokens**2
    return (numbers * tokens + mask) * WIDE


def _size(dtype: str) -> int:
    return int(getattr(torch, dtype).itemsize)


def _blocks(model: nn.Module) -> nn.ModuleList:
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks")
    return max(lists, key=len)
