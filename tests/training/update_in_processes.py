"""One update of training.learner on fixed answers, in one process or shared out; writes figures and parameters.

Run by test_scale_out.py under the launcher: MODEL OUT ALGORITHM.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import DistributedType
from safetensors.torch import save_file

from huatuo.models.trunk import load_trunk
from training import objectives
from training.learner import Learner, Tokens, UpdateSettings, owners
from training.reward_module import open_accelerator
from training.rl_step import summed
from training.rollout import Drawing, sample
from training.zero import Engine

MAX_NORM = 0.1


def main(model: Path, out: Path, algorithm: str) -> None:
    """The same eight answers for every process; each takes every n-th prompt's, as training.rl_step does."""
    torch.set_num_threads(1)
    accelerator = open_accelerator(cpu=True)
    trunk, tokenizer = load_trunk(model, 1)
    prompts = [list(range(5, 9 + 2 * n)) for n in range(4)]
    how = Drawing(12, frozenset(range(10, len(tokenizer), 15)), int(tokenizer.pad_token_id))
    everything = sample(trunk, prompts, 2, how, torch.Generator().manual_seed(3))
    rewards = torch.randn(len(everything), generator=torch.Generator().manual_seed(4))
    torch.manual_seed(0)
    reference = trunk.branch().requires_grad_(False)
    value = trunk.branch(numbers=1) if algorithm == "ppo" else None
    policy = trunk.policy.requires_grad_(True)
    groups = [{"params": list(policy.parameters()), "lr": 1e-4}]
    if value is not None:
        groups.append({"params": list(value.parameters()), "lr": 1e-4})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    engine = None
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        engine = Engine(accelerator, policy, value, optimizer, MAX_NORM)
        wrapped, held, optimizer = engine.policy, engine.value, engine.optimizer
    else:
        wrapped, held, optimizer = accelerator.prepare(policy, value, optimizer)
    share, many = accelerator.process_index, accelerator.num_processes
    mine = [row for row in range(len(everything)) if row // 2 % many == share]
    rollouts = everything.select(mine)
    settings = UpdateSettings(
        epochs=2,
        micro_batch=2,
        average="sequence" if algorithm == "grpo" else "token",
        max_norm=MAX_NORM,
    )
    learner = Learner(
        wrapped,
        reference,
        trunk.vocabulary,
        optimizer,
        settings,
        value=held,
        backward=engine.backward if engine else lambda loss, _: accelerator.backward(loss),
        norm=engine.norm if engine else None,
        reduce=lambda number: summed(accelerator, number),
        world=many,
    )
    old, wanted, values = learner.score(rollouts)
    owner = owners(rollouts)
    advantages = objectives.group_normalised(rewards, 2)[mine][owner]
    returns = None if values is None else values + advantages
    leash = 0.05 if algorithm == "grpo" else 0.0
    tokens = Tokens(owner, old, wanted, advantages, values, returns, leash)
    figures = learner.update(rollouts, tokens, [list(range(len(mine)))] * 2)
    with engine.whole() if engine else nullcontext():
        if accelerator.is_main_process:
            save(trunk, policy, value, figures, out)


def save(trunk, policy, value, figures, out):
    """The branches' tensors and the update's figures."""
    tensors = {name: t.contiguous() for name, t in trunk.branch_tensors(policy).items()}
    if value is not None:
        tensors |= {f"value.{n}": t.clone() for n, t in value.state_dict().items()}
    tensors["figures"] = torch.tensor(list(figures.values()), dtype=torch.float64)
    save_file(tensors, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
