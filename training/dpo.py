"""DPO and KTO through TRL, the simple alternative to reward model and RL: `python -m training.dpo configs/dpo.toml`.

The last blocks train, all else is frozen; the reference's log-probabilities are computed beforehand by the same model, so
there is no second one. Held-out cases are evaluated by the implicit reward beta * (log p - log p of the parent). Ends
with a branch checkpoint, report.json and report.html in `out`.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from datasets import Dataset, load_from_disk
from pydantic import Field, model_validator
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from huatuo.errors import FrozenMoved, HuatuoError, NoData, NotFinite
from huatuo.models.branch import save_branch
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.prompts import template_of
from huatuo.toml import ROOT, InsidePath, Settings, Texts, read_toml
from training.csv_log import CsvLog
from training.dpo_report import Evaluation, evaluate, log_probs, sample_rows, write_report
from training.flags import parse
from training.pairs import Counts, Pair, read_votes
from training.preferences import Choice, Verdict, choices, verdicts
from training.processes import count, rank
from training.split import Split, split, without_held_out

COLUMNS = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "log_prob_chosen",
    "logps/rejected": "log_prob_rejected",
    "kl": "kl",
    "entropy": "entropy",
    "grad_norm": "gradient_norm",
    "learning_rate": "learning_rate",
}
"""TRL's names and ours in steps.csv."""


class PreferenceConfig(Settings):
    """One run of DPO or KTO: configs/dpo.toml, configs/nano/dpo.toml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="names the run's folder")
    method: Literal["dpo", "kto"] = "dpo"
    parent: InsidePath = Field(description="model folder to start from; also the reference")
    blocks: int = Field(default=2, ge=1, description="top blocks that train")
    template: str = "huatuo"
    exports: Texts = Field(default=(), description="folders of python -m reviews.export")
    preferences: Texts = Field(default=(), description="TRL preference JSONL files")
    feedback: Texts = Field(default=(), description="AI feedback JSONL files")
    held_out: Texts = Field(default=(), description="case files that no vote may be on")
    out: InsidePath = Field(description="the finished branch checkpoint")
    work: InsidePath = Field(default=Path("data/dpo"), description="log and unfinished states")
    beta: float = Field(default=0.1, gt=0, description="strength of the leash to the parent")
    loss: Literal["sigmoid", "ipo", "robust", "hinge"] = Field(
        default="sigmoid",
        description="DPO's; robust expects label_smoothing, the share of wrong votes",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    balance: float = Field(
        default=0,
        ge=0,
        description="KTO's weight of desirable against undesirable; 0: evens them out",
    )
    validation: float = Field(
        default=0.15, gt=0, lt=0.5, description="as in the reward model's config, so that `test` is the same cases; trained on"
    )  # fmt: skip
    test: float = Field(default=0.2, gt=0, lt=0.5, description="share of cases held out")
    max_tokens: int = Field(default=2048, ge=16, description="longer pairs are left out, counted")
    epochs: float = Field(default=1, gt=0)
    max_steps: int = Field(default=-1, description="stop earlier; -1: off")
    learning_rate: float = Field(default=1e-5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warm_up: float = Field(default=0.1, ge=0, lt=1, description="share of the steps")
    batch: int = Field(default=4, ge=1, description="pairs (KTO: answers) per device and step")
    accumulate: int = Field(default=1, ge=1, description="batches per optimiser step")
    clip: float = Field(default=1.0, ge=0)
    bf16: bool = Field(default=False, description="autocast; True needs hardware for it")
    device: Literal["auto", "cpu"] = "auto"
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's choice")
    log_steps: int = Field(default=1, ge=1)
    save_steps: int = Field(default=100, ge=1, description="steps between resumable states")
    samples: int = Field(default=6, ge=0, description="held-out cases answered in the report")
    sample_tokens: int = Field(default=256, ge=1, description="longest sample")
    seed: int = 42

    @model_validator(mode="after")
    def _fits(self) -> "PreferenceConfig":
        if self.method == "kto" and self.batch < 2:
            raise ValueError("batch must be at least 2 for KTO, which compares answers within one")
        if not (self.exports or self.preferences or self.feedback):
            raise ValueError("names no votes: set exports, preferences or feedback")
        return self


class _AsGiven:
    """Mixed into TRL's trainers: takes rows of ids as they are, and stops at the first loss that is no number."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: unfinished states are nobody's to read, and TRL's card names model hubs."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The detached loss of one batch. Raises NotFinite naming the step."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not torch.isfinite(loss):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise NotFinite(
                f"loss is {loss.item()} at step {step}; lower learning_rate or raise beta; "
                "the last saved state is kept: continue from it with --resume"
            )
        return loss


class _Dpo(_AsGiven, DPOTrainer):
    """DPO on rows of ids."""


class _Kto(_AsGiven, KTOTrainer):
    """KTO on rows of ids."""


class _StepLog(TrainerCallback):
    """Writes what TRL logs to steps.csv."""

    def __init__(self, log: CsvLog) -> None:
        self._log = log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """One row per logged step."""
        if state.is_world_process_zero and logs and "loss" in logs:
            row = {ours: logs.get(theirs) for theirs, ours in COLUMNS.items()}
            self._log.append(
                state.global_step, {k: None if v is None else float(v) for k, v in row.items()}
            )


def train(config: PreferenceConfig, *, resume: bool = False) -> dict[str, Any]:
    """Runs the stage; returns the held-out figures, as they stand in report.json.

    resume: continues the last saved state of the same name. Raises HuatuoError subclasses, see huatuo.errors.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    template_of(config.template)
    transformers.set_seed(config.seed)
    work = ROOT / config.work / config.name
    last = get_last_checkpoint(str(work)) if resume and work.is_dir() else None
    if not resume and not rank():
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    paths = [
        [ROOT / n for n in names] for names in (config.exports, config.preferences, config.feedback)
    ]
    votes = read_votes(*paths)
    counts = votes.counts
    pairs = without_held_out(votes.pairs, [ROOT / name for name in config.held_out], counts)
    parts = split(
        pairs, validation=config.validation, test=config.test, seed=config.seed, counts=counts
    )
    trunk, tokenizer = load_trunk(
        ROOT / config.parent, config.blocks, "float32", _device(config)
    )  # bfloat16 weights would swallow small updates; `bf16` computes in it
    frozen = trunk.digest()
    tokenizer.padding_side = "right"
    rows, tested = _rows(config, pairs, parts, tokenizer, counts)
    before = log_probs(trunk, tested)
    said = sample_rows(
        trunk, tokenizer, pairs, tested, config.template, config.samples, config.sample_tokens
    )
    step = int(last.rpartition("-")[2]) if last else None
    log = work / "steps.csv"
    trunk.policy.requires_grad_(True)
    trainer = _trainer(config, trunk, tokenizer, rows, work)
    if not rank():
        trainer.add_callback(_StepLog(CsvLog(log, tuple(COLUMNS.values()), after=step)))
    trainer.train(resume_from_checkpoint=last)
    if trunk.digest() != frozen:  # by bytes: a resumed run loads its tensors anew
        raise FrozenMoved("a tensor below the last blocks was changed; nothing is saved")
    trunk.model.eval()
    evaluation = evaluate(before, log_probs(trunk, tested), tested, pairs, parts.cases, config.beta)
    if trainer.is_world_process_zero():
        after = sample_rows(
            trunk, tokenizer, pairs, tested, config.template, config.samples, config.sample_tokens
        )
        samples = [
            {"prompt": question, "answers": {"parent": was, config.method: now}}
            for (question, was), (_, now) in zip(said, after, strict=True)
        ]  # fmt: skip
        _save(config, trunk, evaluation, counts, votes.files, trainer.state.global_step)
        write_report(ROOT / config.out, config, evaluation, counts, log, samples)
    return evaluation.figures


def _rows(
    config: PreferenceConfig, pairs: Sequence[Pair], parts: Split, tokenizer: Any, counts: Counts
) -> tuple[list[Choice] | list[Verdict], list[Choice]]:
    """(training rows, held-out pairs with a winner). Raises NoData."""
    learned = sorted((*parts.train, *parts.validation))
    fixed: dict[str, Any] = {"max_tokens": config.max_tokens, "counts": counts}
    given = (tokenizer, config.template)
    tested = choices(pairs, parts.test, *given, part="test", **fixed)
    if not tested:
        raise NoData("no held-out pair has a winner; collect more votes, or change seed or test")
    if config.method == "kto":
        return verdicts(pairs, learned, *given, part="train", seed=config.seed, **fixed), tested
    rows = choices(pairs, learned, *given, part="train", **fixed)
    if not rows:
        raise NoData('no training pair has a winner; DPO cannot use ties, try method = "kto"')
    return rows, tested


def _trainer(
    config: PreferenceConfig,
    trunk: Trunk,
    tokenizer: Any,
    rows: Sequence[Choice] | Sequence[Verdict],
    work: Path,
) -> Any:
    """TRL's trainer over the model whose top blocks alone require a gradient; computes the reference's figures."""
    per_epoch = -(-len(rows) // (config.batch * config.accumulate * count()))
    steps = config.max_steps if config.max_steps > 0 else per_epoch * config.epochs
    shared: dict[str, Any] = {
        "output_dir": str(work),
        "beta": config.beta,
        "precompute_ref_log_probs": True,
        "max_length": None,  # too long pairs are out already, and counted
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": int(steps * config.warm_up),
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": config.batch,
        "gradient_accumulation_steps": config.accumulate,
        "max_grad_norm": config.clip,
        "bf16": config.bf16,  # TRL's default is True
        "gradient_checkpointing": False,  # TRL's default is True and makes the frozen trunk recompute
        "use_cpu": config.device == "cpu",
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "save_steps": config.save_steps,
        "save_total_limit": 1,
        "dataloader_pin_memory": config.device != "cpu",
        "seed": config.seed,
        "report_to": "none",
    }
    common: dict[str, Any] = {
        "model": trunk.model,
        "processing_class": tokenizer,
    }
    if config.method == "dpo":
        dpo = DPOConfig(loss_type=[config.loss], label_smoothing=config.label_smoothing, **shared)
        return _Dpo(args=dpo, train_dataset=_on_disk(_paired(rows), work, dpo), **common)
    good, poor = _weights(rows, config.balance)
    kto = KTOConfig(desirable_weight=good, undesirable_weight=poor, **shared)
    return _Kto(args=kto, train_dataset=_on_disk(_unpaired(rows), work, kto), **common)


def _on_disk(rows: Dataset, work: Path, arguments: TrainingArguments) -> Dataset:
    """The same rows, read from a folder that all processes share: TRL keeps the reference's figures beside them."""
    folder = work / "rows"
    with arguments.main_process_first(local=False):
        if not rank():
            shutil.rmtree(folder, ignore_errors=True)
            rows.save_to_disk(folder)
        return load_from_disk(folder)


def _paired(rows: Sequence[Any]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt_ids": [list(row.prompt) for row in rows],
            "chosen_ids": [list(row.chosen) for row in rows],
            "rejected_ids": [list(row.rejected) for row in rows],
        }
    )


def _unpaired(rows: Sequence[Any]) -> Dataset:
    """KL rows are another case's answer to the same prompt: the rows stand in random order, each takes its neighbour's."""
    return Dataset.from_dict(
        {
            "prompt_ids": [list(row.prompt) for row in rows],
            "completion_ids": [list(row.answer) for row in rows],
            "KL_completion_ids": [list(rows[place - 1].answer) for place in range(len(rows))],
            "label": [row.desirable for row in rows],
        }
    )


def _weights(rows: Sequence[Any], balance: float) -> tuple[float, float]:
    """(desirable, undesirable) weights; even sums unless `balance` says otherwise. Source: KTO, arXiv 2402.01306, Eq. 8."""
    good = sum(row.desirable for row in rows)
    poor = len(rows) - good
    ratio = balance or poor / good
    return (ratio, 1.0) if ratio >= 1 else (1.0, 1 / ratio)


def _device(config: PreferenceConfig) -> str:
    if config.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _save(
    config: PreferenceConfig,
    trunk: Trunk,
    evaluation: Evaluation,
    counts: Counts,
    files: dict[str, str],
    steps: int,
) -> None:
    """The branch checkpoint, written whole or not at all."""
    save_branch(
        ROOT / config.out,
        trunk.branch_tensors(trunk.policy),
        kind="policy",
        blocks=config.blocks,
        parent=ROOT / config.parent,
        template=config.template,
        details={"stage": config.method, "name": config.name, "beta": config.beta},
        manifest={
            "stage": config.method,
            "data": files,
            "votes": counts.numbers,
            "settings": config.model_dump(mode="json"),
            "figures": {**evaluation.figures, "steps": steps},
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 2 a clear error, 130 stopped."""
    path, resume, overrides = parse("training.dpo", "DPO and KTO.", PreferenceConfig, arguments)
    try:
        figures = train(read_toml(path, PreferenceConfig, overrides), resume=resume)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; continue with: python -m training.dpo {path} --resume", file=sys.stderr)
        return 130
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
