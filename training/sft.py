"""supervised fine-tuning, the first stage: `python -m training.sft configs/sft.toml`.

One script for the demonstration models (from scratch, two cores) and for BLOOMZ-7b1-mt under accelerate and DeepSpeed
ZeRO-3: `accelerate launch -m training.sft configs/sft.toml`. Built on transformers' Trainer. Batches are padded and
grouped by length, not packed: BLOOM's ALiBi positions come from the attention mask.
"""

import csv
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import Field
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    DataCollatorForSeq2Seq,
    GenerationConfig,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from huatuo.errors import HuatuoError, NoData, NotFinite
from huatuo.models.checkpoint import replacing, save_manifest, sha256_of
from huatuo.prompts import template_of
from huatuo.toml import ROOT, InsidePath, Settings, Texts, read_toml
from training import processes
from training.data import read_conversations, tokenise
from training.flags import parse


class Shape(Settings):
    """A BLOOM to start from scratch."""

    hidden: int = Field(default=256, ge=8)
    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=8, ge=1)
    init: float = Field(
        default=0.06,
        gt=0,
        description="spread of the first weights; BLOOM's 0.02 is made for wide models and a narrow one "
        "hardly learns to look back with it",
    )


class SftConfig(Settings):
    """One fine-tuning run: configs/sft.toml, configs/nano/*.toml."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="names the run's folder and the model"
    )
    base: InsidePath | None = Field(
        default=None, description="checkpoint to start from; none: `shape`"
    )
    tokenizer: InsidePath | None = Field(default=None, description="default: the base's own")
    shape: Shape = Field(default=Shape(), description="used only without a base")
    template: str = "huatuo"
    train: Texts = Field(min_length=1, description="JSONL files")
    held_out: Texts = Field(default=(), description="JSONL files of held-out cases")
    out: InsidePath = Field(description="the finished checkpoint")
    work: InsidePath = Field(
        default=Path("data/sft"), description="logs and unfinished states, one folder per run"
    )
    supervise: Literal["doctor", "all"] = Field(default="doctor", description="tokens with loss")
    max_tokens: int = Field(default=2048, ge=16)
    skip_long: bool = Field(
        default=False, description="leave out what does not fit, and say how many"
    )
    epochs: float = Field(default=3, gt=0)
    max_steps: int = Field(default=-1, description="stop earlier; -1: off")
    learning_rate: float = Field(default=5e-5, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    beta2: float = Field(default=0.999, gt=0, lt=1)
    warm_up: float = Field(default=0.05, ge=0, lt=1, description="share of the steps")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    batch: int = Field(default=2, ge=1, description="conversations per device and step")
    accumulate: int = Field(default=1, ge=1, description="batches per optimiser step")
    clip: float = Field(default=1.0, ge=0)
    bf16: bool = Field(default=False, description="autocast; True needs hardware for it")
    load_dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    save_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False
    deepspeed: InsidePath | None = Field(default=None, description="DeepSpeed JSON, e.g. ZeRO-3")
    device: Literal["auto", "cpu"] = "auto"
    threads: int = Field(default=0, ge=0, description="CPU threads; 0: torch's choice")
    log_steps: int = Field(default=20, ge=1)
    save_steps: int = Field(default=200, ge=1, description="steps between resumable states")
    evaluate: bool = Field(default=True, description="held-out loss at the end")
    seed: int = 42


class LossLog(TrainerCallback):
    """Writes every logged figure to loss.csv in the work folder and draws loss.svg at the end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "loss.csv"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Appends one line {step, loss, eval_loss, learning_rate, grad_norm}."""
        if not state.is_world_process_zero or not logs:
            return
        keys = ("loss", "eval_loss", "learning_rate", "grad_norm")
        if not any(key in logs for key in keys[:2]):
            return
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *keys])
            writer.writerow([state.global_step, *(logs.get(key, "") for key in keys)])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draws the curve."""
        if state.is_world_process_zero and self.path.exists():
            self.path.with_suffix(".svg").write_text(curve(self.path), encoding="utf-8")


def curve(path: Path) -> str:
    """loss.csv as a small SVG line, lowest loss at the bottom."""
    with path.open(encoding="utf-8") as file:
        points = [
            (int(row["step"]), float(row["loss"])) for row in csv.DictReader(file) if row["loss"]
        ]
    if not points:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>'
    last, top = max(step for step, _ in points), max(loss for _, loss in points)
    line = " ".join(
        f"{40 + 540 * s / max(last, 1):.1f},{20 + 240 * (1 - v / max(top, 1e-9)):.1f}"
        for s, v in points
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 300" font-family="sans-serif" font-size="12">'
        f'<polyline fill="none" stroke="#2a6f97" stroke-width="2" points="{line}"/>'
        f'<text x="2" y="20">{top:.2f}</text><text x="2" y="262">0</text>'
        f'<text x="300" y="290" text-anchor="middle">loss by step, to step {last}</text></svg>\n'
    )


class SftTrainer(Trainer):
    """transformers' Trainer that stops at the first loss that is no number."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The detached loss of one batch. Raises NotFinite naming the step."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise NotFinite(
                f"loss is {loss.item()} at step {self.state.global_step + 1}; lower learning_rate, or check the data; "
                "the last saved state is kept: continue from it with --resume"
            )
        return loss


def build_model(config: SftConfig, tokenizer: Any) -> PreTrainedModel:
    """The base from disk, or a fresh BLOOM of `shape` over the tokenizer's vocabulary."""
    if config.base is not None:
        dtype = "auto" if config.load_dtype == "auto" else getattr(torch, config.load_dtype)
        model = AutoModelForCausalLM.from_pretrained(
            ROOT / config.base,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    else:
        shape = BloomConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.shape.hidden,
            n_layer=config.shape.layers,
            n_head=config.shape.heads,
            initializer_range=config.shape.init,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attention_dropout=0.0,
            hidden_dropout=0.0,
        )
        model = BloomForCausalLM(shape)
    if isinstance(model, BloomForCausalLM):
        for block in model.transformer.h:  # the same function in one kernel: 15 % faster on CPU
            block.mlp.gelu_impl = torch.nn.GELU(approximate="tanh")
    model.config.use_cache = False
    return model


def read_rows(
    config: SftConfig, names: Sequence[str], tokenizer: Any
) -> list[dict[str, list[int]]]:
    """The tokenised conversations of the named files. Raises BadData naming file and line, NoData."""
    rows: list[dict[str, list[int]]] = []
    for name in names:
        rows += tokenise(
            read_conversations(ROOT / name),
            tokenizer,
            config.template,
            max_tokens=config.max_tokens,
            supervise=config.supervise,
            skip_long=config.skip_long,
        )
    if not rows:
        raise NoData("no conversations to train on")
    return rows


def arguments_of(config: SftConfig, work: Path, rows: int) -> TrainingArguments:
    """The Trainer's own arguments."""
    steps = config.max_steps
    if steps < 0:
        together = config.batch * config.accumulate * processes.count()
        steps = math.ceil(rows / together) * config.epochs
    return TrainingArguments(
        output_dir=str(work),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta2=config.beta2,
        warmup_steps=int(steps * config.warm_up),
        lr_scheduler_type=config.schedule,
        per_device_train_batch_size=config.batch,
        per_device_eval_batch_size=config.batch * 2,
        gradient_accumulation_steps=config.accumulate,
        max_grad_norm=config.clip,
        bf16=config.bf16,
        gradient_checkpointing=config.gradient_checkpointing,
        deepspeed=str(ROOT / config.deepspeed) if config.deepspeed else None,
        # transformers would leave DeepSpeed out under use_cpu; without a GPU it runs on the CPU anyway
        use_cpu=config.device == "cpu" and not config.deepspeed,
        train_sampling_strategy="group_by_length",
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        save_steps=config.save_steps,
        save_total_limit=1,
        prediction_loss_only=True,
        dataloader_pin_memory=config.device != "cpu",
        remove_unused_columns=False,
        seed=config.seed,
        report_to="none",
        **processes.join(deepspeed=config.deepspeed is not None),
    )


def train(config: SftConfig, *, resume: bool = False) -> dict[str, float]:
    """Runs the stage and writes the checkpoint; returns {loss, held_out_loss, steps, seconds}.

    resume: continues the last saved state of the same name. Raises HuatuoError subclasses, see huatuo.errors.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    template_of(config.template)
    transformers.set_seed(config.seed)
    work = ROOT / config.work / config.name
    last = get_last_checkpoint(str(work)) if resume and work.is_dir() else None
    if not resume and processes.rank() == 0:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(config)
    rows = read_rows(config, config.train, tokenizer)
    arguments = arguments_of(
        config, work, len(rows)
    )  # before the model: ZeRO-3 shards it while loading
    trainer = SftTrainer(
        model=build_model(config, tokenizer),
        args=arguments,
        train_dataset=rows,
        eval_dataset=read_rows(config, config.held_out, tokenizer) if config.held_out else None,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        processing_class=tokenizer,
        callbacks=[LossLog(work)],
    )
    result = trainer.train(resume_from_checkpoint=last)
    figures = {
        "loss": float(result.training_loss),
        "steps": float(trainer.state.global_step),
        "seconds": float(result.metrics.get("train_runtime", 0.0)),
    }
    if config.held_out and config.evaluate:
        figures["held_out_loss"] = float(trainer.evaluate()["eval_loss"])
    _save(config, trainer, tokenizer, figures, work)
    return figures


def _tokenizer(config: SftConfig) -> Any:
    folder = config.tokenizer or config.base
    if folder is None:
        raise NoData("neither base nor tokenizer is set: which vocabulary is meant?")
    tokenizer = AutoTokenizer.from_pretrained(
        ROOT / folder, local_files_only=True, trust_remote_code=False
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def _save(
    config: SftConfig, trainer: Trainer, tokenizer: Any, figures: dict[str, float], work: Path
) -> None:
    """The finished checkpoint, written whole or not at all; every rank takes part, the first one writes."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    if config.save_dtype != "auto" and not trainer.is_deepspeed_enabled:
        model.to(getattr(torch, config.save_dtype))
    final = work / "final"
    trainer.save_model(str(final))
    if not trainer.is_world_process_zero():
        return
    tokenizer.save_pretrained(final)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(final)
    (final / "training_args.bin").unlink(
        missing_ok=True
    )  # a pickle; the resolved config says the same
    resolved = config.model_dump(mode="json")
    (final / "sft.json").write_text(
        json.dumps(resolved, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    base = ROOT / config.base / "model.safetensors" if config.base else None
    details = {
        "stage": "sft",
        "name": config.name,
        "template": config.template,
        "parent": sha256_of(base) if base and base.is_file() else None,
        "data": {Path(name).name: sha256_of(ROOT / name) for name in config.train},
        "figures": figures,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    with replacing(ROOT / config.out) as fresh:
        shutil.copytree(final, fresh, dirs_exist_ok=True)
        save_manifest(fresh, details)
    shutil.rmtree(final, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 2 a clear error, 130 stopped."""
    path, resume, overrides = parse("training.sft", "Supervised fine-tuning.", SftConfig, arguments)
    try:
        config = read_toml(path, SftConfig, overrides)
        figures = train(config, resume=resume)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; continue with: python -m training.sft {path} --resume", file=sys.stderr)
        return 130
    except (
        OSError,
        ValueError,
    ) as error:  # the outer border: a model folder that transformers cannot load
        print(f"{path}: {' '.join(str(error).split())[:400]}", file=sys.stderr)
        return 2
    if processes.rank() == 0:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
