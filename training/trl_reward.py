"""the baseline of the reward report: TRL's RewardTrainer on the same votes, cases, parent and frozen blocks.

One row per decisive vote of the training cases (TRL knows neither ties nor raters nor soft labels), the sequence with its
end mark and the reward at its last token, as TRL's sequence classifiers have it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForSequenceClassification

from training.answers import Sequences, length_batches, padded
from training.pairs import Pair


def train_trl(
    parent: Path,
    tokenizer: Any,
    pairs: Sequence[Pair],
    sequences: Sequences,
    rows: Sequence[int],
    *,
    blocks: int,
    epochs: int,
    batch: int,
    max_tokens: int,
    work: Path,
    seed: int,
    learning_rate: float = 1e-4,
) -> NDArray[np.float64]:
    """(N,) rewards of all sequences by TRL's model. learning_rate: RewardConfig's own default; centering 0.01."""
    from datasets import Dataset
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(
        parent, num_labels=1, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    _freeze_below(model, blocks)
    end = int(tokenizer.eos_token_id)
    examples = [
        {"chosen_ids": [*sequences.ids[won], end], "rejected_ids": [*sequences.ids[lost], end]}
        for won, lost in decisive(pairs, sequences, rows)
    ]
    on_cpu = not torch.cuda.is_available() or PartialState().device.type == "cpu"
    settings = RewardConfig(
        output_dir=str(work), num_train_epochs=max(epochs, 1), per_device_train_batch_size=batch,
        learning_rate=learning_rate, center_rewards_coefficient=0.01, max_length=max_tokens + 1, warmup_steps=0.1,
        use_cpu=on_cpu, bf16=not on_cpu, gradient_checkpointing=False, report_to=[], save_strategy="no", seed=seed,
        logging_steps=1000, dataloader_pin_memory=not on_cpu,
    )  # fmt: skip
    trainer = RewardTrainer(
        model, settings, train_dataset=Dataset.from_list(examples), processing_class=tokenizer
    )
    trainer.train()
    rewards = _score(model.eval(), sequences, end)
    shutil.rmtree(work, ignore_errors=True)
    return rewards


def decisive(
    pairs: Sequence[Pair], sequences: Sequences, rows: Sequence[int]
) -> list[tuple[int, int]]:
    """(chosen, rejected) sequences, one per decisive vote of the given pairs."""
    found = []
    for i in rows:
        a, b = (int(n) for n in sequences.pairs[i])
        for judgement in pairs[i].judgements:
            if judgement.outcome in ("a", "b"):
                found.append((a, b) if judgement.outcome == "a" else (b, a))
    return found


def _freeze_below(model: Any, blocks: int) -> None:
    """Leaves the top blocks, what follows them and the score head trainable."""
    wanted = int(model.config.get_text_config().num_hidden_layers)
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            module[wanted - blocks :].requires_grad_(True)
            owner = model.get_submodule(name.rpartition(".")[0])
            listed = [child for _, child in owner.named_children()]
            for child in listed[listed.index(module) + 1 :]:
                child.requires_grad_(True)
            break
    model.get_submodule("score").requires_grad_(True)


@torch.no_grad()
def _score(model: Any, sequences: Sequences, end: int) -> NDArray[np.float64]:
    order: list[int] = []
    found: list[torch.Tensor] = []
    for numbers in length_batches([len(ids) for ids in sequences.ids], 8192):
        ids, mask = padded(
            [(*sequences.ids[n], end) for n in numbers], int(model.config.pad_token_id)
        )
        said = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        found.append(said.squeeze(-1).double().cpu())
        order += numbers
    return np.asarray(torch.cat(found).numpy()[np.argsort(order)])
