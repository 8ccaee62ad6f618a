"""several processes of one launcher (torchrun, accelerate): who writes, and gloo where there is no GPU."""

import os
from typing import Any

import torch
from accelerate import PartialState


def rank() -> int:
    """Number of this process, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Number of processes, 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(*, deepspeed: bool) -> dict[str, Any]:
    """Joins the launcher's processes before TrainingArguments does; returns arguments for it.

    Only several DeepSpeed processes without a GPU need it: accelerate 1.15 names no backend for them, and every one
    takes itself for the only one. Elsewhere nothing happens and {} comes back.
    """
    if not deepspeed or count() == 1 or torch.cuda.is_available():
        return {}
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")
    return {"accelerator_config": {"use_configured_state": True}}


def wait() -> None:
    """Returns once every process is here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
