"""reinforcement learning of the last blocks: `python -m training.rl configs/rl.toml`, PPO, RLOO or GRPO.

One step: answers are sampled from the policy, the trunk's states are caught on the way, the reward model's branches
score them, the reference's branch holds the leash, and a few epochs on the cached states move the last blocks.
Everything random depends on seed, step and process alone, so a resumed run is bit-equal to one that never stopped.
Under `accelerate launch` each process takes its share of the prompts, under DDP or DeepSpeed's ZeRO-1, -2 or -3.
"""

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedType
from pydantic import Field
from tqdm import tqdm

from huatuo.errors import ConfigError, FrozenMoved, HuatuoError, NoData
from huatuo.models import branch as branches
from huatuo.models.checkpoint import sha256_of
from huatuo.models.layout import shapes_of
from huatuo.models.trunk import Load, Trunk, load_trunk
from huatuo.toml import ROOT, InsidePath, Settings, Texts, read_toml
from training import objectives, states
from training.cases import read_cases
from training.csv_log import CsvLog
from training.ensemble import RewardEnsemble
from training.flags import parse
from training.learner import Learner, UpdateSettings
from training.objectives import KlControl, LengthLeash
from training.reward_module import open_accelerator
from training.rl_report import write_report
from training.rl_step import Run, summed, take_step
from training.rollout_server import RolloutServer, ServerConfig
from training.zero import Engine


class RlConfig(Settings):
    """One run: configs/rl.toml, configs/nano/rl.toml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="names the run's folder")
    parent: InsidePath = Field(description="checkpoint folder whose last blocks learn")
    reward: InsidePath = Field(description="what training.reward wrote")
    prompts: Texts = Field(min_length=1, description="case files (JSONL), training side")
    out: InsidePath = Field(description="the finished branch checkpoint")
    work: InsidePath = Field(default=Path("data/rl"), description="logs and unfinished states")
    template: str = "huatuo"
    algorithm: Literal["ppo", "rloo", "grpo"] = "ppo"
    blocks: int = Field(default=2, ge=1, description="the last blocks, which learn")
    load: Load = Field(default="float32", description="precision of the frozen trunk")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's choice")
    steps: int = Field(default=100, ge=1)
    prompts_per_step: int = Field(default=32, ge=1, description="over all processes")
    samples: int = Field(default=4, ge=1, description="answers to each prompt")
    epochs: int = Field(default=4, ge=1, description="passes over the answers of one step")
    minibatches: int = Field(default=1, ge=1, description="optimiser steps per epoch")
    micro_batch: int = Field(default=16, ge=1, description="sequences run at once")
    rollout_rows: int = Field(default=64, ge=1, description="answers generated at once")
    learning_rate: float = Field(default=1e-5, gt=0)
    value_learning_rate: float = Field(default=1e-4, gt=0, description="PPO only")
    warm_up: int = Field(default=5, ge=0, description="steps to the full learning rate")
    schedule: Literal["constant", "linear"] = Field(
        default="constant", description="of the learning rate after that; linear: to 0 at the end"
    )
    offload: bool = Field(
        default=False, description="frozen branches wait in main memory while the policy learns"
    )
    eight_bit: bool = Field(default=False, description="bitsandbytes' 8-bit AdamW")
    clip: float = Field(default=0.2, gt=0)
    value_clip: float = Field(default=0.2, gt=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    max_norm: float = Field(default=1.0, gt=0)
    average: objectives.Average = "token"
    kl: float = Field(default=0.05, ge=0, description="coefficient of the leash to the parent")
    kl_target: float = Field(default=0, ge=0, description="nats per answer; 0: fixed coefficient")
    kl_budget: float = Field(default=0, ge=0, description="stops above it, nats per answer; 0: off")
    pessimism: float = Field(default=1.0, ge=0, description="standard deviations of the ensemble")
    reward_clip: float = Field(default=5.0, gt=0, description="bound on the whitened reward")
    length_leash: float = Field(
        default=0.5, ge=0, description="pull to the parent's length; 0: off"
    )
    unfinished: float = Field(default=2.0, ge=0, description="taken off an answer that did not end")
    missed_warning: float = Field(
        default=2.0, ge=0, description="taken off an answer to an emergency that sends to no help"
    )
    temperature: float = Field(default=1.0, gt=0, le=2)
    max_new_tokens: int = Field(default=512, ge=8)
    context_tokens: int = Field(default=1024, ge=64)
    capture: bool = Field(default=True, description="keep the states caught while generating")
    rollout_server: ServerConfig | None = Field(
        default=None, description="a vLLM server that answers instead; capture has no effect then"
    )
    save_steps: int = Field(default=10, ge=1)
    seed: int = 42


def start(config: RlConfig) -> Run:
    """Loads everything and proves the split. Raises CheckpointError, NoData, BadData, ConfigError."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.samples < 2 and config.algorithm != "ppo":
        raise ConfigError(
            f"{config.algorithm} compares the samples of a prompt: samples must be 2 or more"
        )
    cases = [case for name in config.prompts for case in read_cases(ROOT / name)]
    if not cases:
        raise NoData("prompts: the case files are empty")
    inputs = {
        "data": {Path(name).name: sha256_of(ROOT / name) for name in config.prompts},
        "reward": sha256_of(ROOT / config.reward / "reward.json"),
    }
    accelerator = open_accelerator(cpu=config.device == "cpu")
    torch.manual_seed(config.seed)
    trunk, tokenizer = load_trunk(
        ROOT / config.parent, config.blocks, config.load, str(accelerator.device)
    )
    server = _server(config, accelerator, trunk, tokenizer, cases[0].question)
    ensemble = RewardEnsemble.load(ROOT / config.reward, trunk, ROOT / config.parent)
    if config.prompts_per_step % accelerator.num_processes:
        raise ConfigError(
            f"prompts_per_step = {config.prompts_per_step} cannot be shared out evenly to {accelerator.num_processes} "
            "processes, which would wait for one another for ever"
        )
    reference = trunk.branch().requires_grad_(False).eval()
    value = trunk.branch(numbers=1) if config.algorithm == "ppo" else None
    policy: Any = trunk.policy.float().requires_grad_(True)
    groups = [{"params": list(policy.parameters()), "lr": config.learning_rate}]
    if value is not None:
        groups.append({"params": list(value.parameters()), "lr": config.value_learning_rate})
    optimizer: Any = _optimizer(config, groups)
    settings = UpdateSettings(
        epochs=config.epochs,
        minibatches=config.minibatches,
        micro_batch=config.micro_batch,
        clip=config.clip,
        value_clip=config.value_clip,
        average=config.average,
        max_norm=config.max_norm,
        temperature=config.temperature,
    )
    shared: dict[str, Any] = {
        "reduce": lambda number: summed(accelerator, number),
        "world": accelerator.num_processes,
    }
    engine, wrapped = None, policy
    if accelerator.distributed_type is DistributedType.DEEPSPEED:
        engine = Engine(accelerator, policy, value, optimizer, config.max_norm)
        wrapped, optimizer = engine.policy, engine.optimizer
        shared |= {"value": engine.value, "backward": engine.backward, "norm": engine.norm}
    else:
        if accelerator.num_processes > 1 and value is None:
            wrapped, optimizer = accelerator.prepare(policy, optimizer)
        elif accelerator.num_processes > 1:
            wrapped, value, optimizer = accelerator.prepare(policy, value, optimizer)
        shared |= {"value": value, "backward": lambda loss, _: accelerator.backward(loss)}
    learner = Learner(wrapped, reference, trunk.vocabulary, optimizer, settings, **shared)
    return Run(
        config, trunk, tokenizer, ensemble, learner, value, cases,
        KlControl(config.kl, config.kl_target), LengthLeash(config.length_leash), accelerator, inputs, trunk.digest(),
        engine, server,
    )  # fmt: skip


def _server(
    config: RlConfig, accelerator: Accelerator, trunk: Trunk, tokenizer: Any, probe: str
) -> RolloutServer | None:
    """The connection to the server that answers, checked; None where we answer ourselves."""
    if config.rollout_server is None:
        return None
    server = RolloutServer(
        config.rollout_server,
        ROOT / config.rollout_server.weights / config.name,
        shapes_of(ROOT / config.parent),
        config.blocks,
        len(trunk.vocabulary),
        process=accelerator.process_index,
        world=accelerator.num_processes,
        reduce=lambda number: summed(accelerator, number),
    )
    server.check(tokenizer, probe, config.context_tokens, config.temperature)
    return server


def _optimizer(config: RlConfig, groups: list[dict[str, Any]]) -> Any:
    if config.eight_bit:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, weight_decay=0.0)
    return torch.optim.AdamW(groups, weight_decay=0.0)


def train(config: RlConfig, *, resume: bool = False) -> dict[str, Any]:
    """Runs the stage; writes the branch checkpoint and the report; returns the summary.

    resume: goes on from the state saved last, bit-equal on a CPU. Raises HuatuoError subclasses.
    """
    run = start(config)
    work = ROOT / config.work / config.name
    file = work / "state.pt"
    main = run.accelerator.is_main_process
    if resume and file.exists():
        states.restore(run, file)
    elif main:
        file.unlink(missing_ok=True)  # or --resume might go on from an earlier run of the same name
    log = (
        CsvLog(work / "steps.csv", after=run.step if resume and run.step else None)
        if main
        else None
    )
    stopped = _Stop()
    reason = "all steps"
    bar = tqdm(
        total=config.steps, initial=run.step, desc=config.name, unit="step", disable=not main
    )
    with stopped, bar:
        while run.step < config.steps:
            figures = take_step(run)
            if log is not None:
                log.append(run.step, figures)
            bar.update()
            bar.set_postfix(
                {key: f"{figures[key]:.2f}" for key in ("reward", "kl", "rubric", "length")}
            )
            over = bool(config.kl_budget) and figures["kl"] > config.kl_budget
            halt = bool(summed(run.accelerator, float(stopped.asked)))  # all save the same step
            if run.step % config.save_steps == 0 or halt:
                states.save(run, file)
            if halt:
                raise SystemExit(f"stopped by a signal after step {run.step}; go on with --resume")
            if over:
                reason = f"KL {figures['kl']:.2f} above the budget of {config.kl_budget} after step {run.step}"
                break
    with run.whole():
        if config.kl_budget and reason != "all steps" and run.within is not None:
            run.trunk.policy.load_state_dict(run.within)
        return finish(run, work, reason) if main else {}


def finish(run: Run, work: Path, reason: str) -> dict[str, Any]:
    """Saves the branch, its summary and the report; returns the summary."""
    config = run.config
    if run.trunk.digest() != run.trunk_digest:
        raise FrozenMoved(
            "the frozen trunk's bytes are not those of the start; nothing is saved; is another program writing to it?"
        )
    summary: dict[str, Any] = {
        "stage": "rl", "algorithm": config.algorithm, "steps": run.step, "stopped_by": reason,
    }  # fmt: skip
    about = {
        **summary,
        "name": config.name,
        **run.inputs,
    }
    branches.save_branch(
        ROOT / config.out,
        run.trunk.branch_tensors(run.trunk.policy),
        kind="policy",
        blocks=config.blocks,
        parent=ROOT / config.parent,
        template=config.template,
        details={"config": config.model_dump(mode="json")},
        manifest=about,
    )
    write_report(run, work, reason)
    (work / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


class _Stop:
    """Remembers a SIGTERM or SIGINT until the step is done. Only the main thread can listen."""

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Stop":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._hear)
            except ValueError:  # not in the main thread: nothing to listen with
                return self
        return self

    def _hear(self, number: int, _: Any) -> None:
        self.asked = number

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    path, resume, overrides = parse("training.rl", "Reinforcement learning.", RlConfig, arguments)
    try:
        summary = train(read_toml(path, RlConfig, overrides), resume=resume)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    if summary:
        print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
