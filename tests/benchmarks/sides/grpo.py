"""The sides of rl_update.py: what each gets, how it is measured, and the update as TRL, this project and a textbook do it."""

import copy
import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import transformers
from datasets import Dataset
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoTokenizer, BloomForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from huatuo.models.trunk import Trunk, load_trunk
from training.learner import Learner, Tokens, UpdateSettings, owners
from training.objectives import group_normalised
from training.rollout import Rollouts, recomputed

BLOCKS, GROUP, BETA, CLIP, NORM, RATE = 2, 4, 0.04, 0.2, 1.0, 1e-4
ROLLOUTS = [field.name for field in fields(Rollouts)]


@dataclass(frozen=True)
class Task:
    """What every side gets: model, answers, and which came from one prompt. rewards: (B,), by groups of GROUP."""

    folder: Path
    rollouts: Rollouts
    rewards: Tensor
    device: str

    @property
    def advantages(self) -> Tensor:
        """(B,) each reward against its prompt's group, as TRL computes it."""
        groups = self.rewards.view(-1, GROUP)
        spread = groups.std(1, keepdim=True) + 1e-4
        return ((groups - groups.mean(1, keepdim=True)) / spread).flatten().to(self.device)

    @property
    def attended(self) -> Tensor:
        """(B, T) 1 on prompt and answer."""
        whole = torch.nn.functional.pad(self.rollouts.fed, (0, 1))
        return (whole.bool() | self.rollouts.answer).long()


class Meter:
    """Seconds, peak memory and, if asked for, FLOPs between start and stop."""

    def __init__(self, device: str, *, flops: bool = False) -> None:
        self.device, self.seconds, self.flops, self.peak = device, 0.0, 0, 0
        aten = torch.ops.aten
        added: dict[Any, Any] = {  # what both sides use and torch's counter leaves out
            aten.addmm_: lambda _, a, b, *__, **___: 2 * a[0] * a[1] * b[1],
            aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
                sdpa_flop_count(q, k, v)
            ),
            aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
                sdpa_backward_flop_count(g, q, k, v)
            ),
        }
        self.counter = FlopCounterMode(display=False, custom_mapping=added) if flops else None

    def start(self) -> None:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the kernel counts the peak anew
        if self.counter:
            self.counter.__enter__()
        self.began = self._now()

    def stop(self) -> None:
        self.seconds = self._now() - self.began
        if self.counter:
            self.counter.__exit__(None, None, None)
            self.flops = self.counter.get_total_flops()
        self.peak = (
            torch.cuda.max_memory_allocated() if self.device == "cuda" else resident("VmHWM")
        )

    def _now(self) -> float:
        if self.device != "cuda":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def resident(key: str) -> int:
    """Bytes of this process: VmRSS, now; VmHWM, the highest since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def trl(task: Task, epochs: int, meter: Meter, *, checkpointing: bool = True) -> dict[str, Tensor]:
    """GRPOTrainer with a rollout function that hands over the finished completions; what was learned."""
    model, rollouts = whole_model(task), task.rollouts
    rows = list(zip(rollouts.ids, rollouts.answer, task.attended.bool(), strict=True))

    def hand_over(prompts: list[str], trainer: Any) -> dict[str, Any]:
        given = {
            "prompt_ids": [ids[there & ~answer].tolist() for ids, answer, there in rows],
            "completion_ids": [ids[answer].tolist() for ids, answer, _ in rows],
            "logprobs": None,
        }
        meter.start()
        return given

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == epochs:
                meter.stop()

    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: task.rewards.tolist(),
            args=GRPOConfig(
                output_dir=out,
                use_cpu=task.device == "cpu",
                bf16=task.device == "cuda",
                max_steps=epochs,
                num_iterations=epochs,
                per_device_train_batch_size=len(rollouts),
                num_generations=GROUP,
                max_completion_length=int(rollouts.lengths.max()),
                gradient_checkpointing=checkpointing,
                beta=BETA,
                epsilon=CLIP,
                loss_type="grpo",
                use_bias_correction_kl=False,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                max_grad_norm=NORM,
                shuffle_dataset=False,  # row n of the rewards is row n of the batch
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                log_level="error",
            ),
            train_dataset=Dataset.from_dict(
                {"prompt": [str(n) for n in range(len(rollouts) // GROUP)]}
            ),
            processing_class=AutoTokenizer.from_pretrained(task.folder, local_files_only=True),
            rollout_func=hand_over,
            callbacks=[Stop()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return learned(model)


def trl_kept(task: Task, epochs: int, meter: Meter) -> dict[str, Tensor]:
    """TRL with gradient checkpointing off."""
    return trl(task, epochs, meter, checkpointing=False)


def ours(task: Task, epochs: int, meter: Meter, *, captured: bool = False) -> dict[str, Tensor]:
    """The project's own update, with the calls of training.rl_step.take_step; what was learned."""
    trunk, rollouts = trunk_of(task.folder, task.device), task.rollouts
    reference = trunk.branch().requires_grad_(False).eval()
    policy = trunk.policy.float().requires_grad_(True)
    settings = UpdateSettings(
        epochs=epochs,
        micro_batch=len(rollouts),
        clip=CLIP,
        average="sequence",
        max_norm=NORM,
    )
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE, weight_decay=0.0)
    learner = Learner(policy, reference, trunk.vocabulary, optimizer, settings)
    meter.start()
    if not captured:
        rollouts = recomputed(trunk, rollouts)
    old, wanted, _ = learner.score(rollouts)
    owner = owners(rollouts)
    advantages = group_normalised(task.rewards, GROUP).to(task.device)[owner]
    order = [list(range(len(rollouts)))] * epochs
    learner.update(rollouts, Tokens(owner, old, wanted, advantages, kl_in_loss=BETA), order)
    trunk.check_frozen()
    meter.stop()
    return {name: tensor.clone() for name, tensor in trunk.branch_tensors(policy).items()}


def captured(task: Task, epochs: int, meter: Meter) -> dict[str, Tensor]:
    """Ours with the states that came with the completions."""
    return ours(task, epochs, meter, captured=True)


def plain(task: Task, epochs: int, meter: Meter) -> dict[str, Tensor]:
    """The textbook: whole model, full logits, log_softmax, autograd. What an update ought to be."""
    model, rollouts = whole_model(task), task.rollouts
    reference = copy.deepcopy(model)
    answer, advantages = rollouts.answer[:, 1:], task.advantages[:, None]

    def score(which: BloomForCausalLM) -> Tensor:
        logits = which(input_ids=rollouts.ids, attention_mask=task.attended).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, rollouts.ids[:, 1:, None]).squeeze(-1)

    meter.start()
    moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=RATE, weight_decay=0.0)
    with torch.no_grad():
        wanted, old = score(reference), score(model)
    for _ in range(epochs):
        new = score(model)
        ratio = (new - old).exp()
        gain = torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
        leash = (wanted - new).exp() - (wanted - new) - 1
        per_answer = ((BETA * leash - gain) * answer).sum(1) / answer.sum(1)
        optimizer.zero_grad()
        per_answer.mean().backward()
        torch.nn.utils.clip_grad_norm_(moving, NORM)
        optimizer.step()
    meter.stop()
    return learned(model)


SIDES: dict[str, Callable[[Task, int, Meter], dict[str, Tensor]]] = {
    "trl": trl,
    "trl_kept": trl_kept,
    "ours": ours,
    "captured": captured,
}


def whole_model(task: Task) -> BloomForCausalLM:
    """The model as transformers loads it, all but the last blocks and the final norm frozen."""
    dtype = torch.bfloat16 if task.device == "cuda" else torch.float32
    model = BloomForCausalLM.from_pretrained(task.folder, dtype=dtype, local_files_only=True)
    model.to(task.device).requires_grad_(False)
    model.transformer.h[-BLOCKS:].requires_grad_(True)
    model.transformer.ln_f.requires_grad_(True)
    return model


def learned(model: BloomForCausalLM) -> dict[str, Tensor]:
    """The parameters that may move, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def trunk_of(folder: Path, device: str) -> Trunk:
    """The same model split below its last blocks."""
    load: Any = "bfloat16" if device == "cuda" else "float32"
    return load_trunk(folder, BLOCKS, load, device)[0]
