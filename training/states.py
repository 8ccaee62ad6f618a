"""the resumable state of a reinforcement-learning run: one file, written whole or not at all, read without unpickling code."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from huatuo.errors import CheckpointError, Damaged, Mismatch

if TYPE_CHECKING:
    from training.rl_step import Run

FREE_KEYS = frozenset(["steps", "save_steps", "threads", "work", "out"])
"""Settings that may differ when a run goes on."""


def save(run: "Run", file: Path) -> None:
    """Writes the state. Raises CheckpointError when the disk is full: the state saved before is then whole."""
    state = {
        "config": _made_of(run),
        "step": run.step,
        "policy": run.trunk.policy.state_dict(),
        "value": run.value.state_dict() if run.value is not None else None,
        "optimizer": run.learner.optimizer.state_dict(),
        "kl_coefficient": run.kl.coefficient,
        "length": [run.length.wanted, run.length.pull],
        "within": run.within,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{file}: the state cannot be written ({error}); free some space and go on with --resume: "
            "the state saved before is whole"
        ) from None
    finally:
        Path(name).unlink(missing_ok=True)


def restore(run: "Run", file: Path) -> None:
    """Puts a saved state into a freshly started run. Raises Damaged, Mismatch when the settings are others."""
    try:
        state: dict[str, Any] = torch.load(file, map_location=run.trunk.device, weights_only=True)
        saved = state["config"]
    except Exception as error:  # torch raises many kinds for a broken file
        raise Damaged(
            f"{file}: cannot be read ({type(error).__name__}); remove it and begin anew"
        ) from None
    if saved != _made_of(run):
        raise Mismatch(
            f"{file}: was saved under other settings, prompts or another reward model; go on with those, or begin anew "
            "without --resume"
        )
    run.trunk.policy.load_state_dict(state["policy"])
    if run.value is not None:
        run.value.load_state_dict(state["value"])
    run.learner.optimizer.load_state_dict(state["optimizer"])
    run.step, run.within = int(state["step"]), state["within"]
    run.kl.coefficient = float(state["kl_coefficient"])
    run.length.wanted, run.length.pull = map(float, state["length"])


def _made_of(run: "Run") -> str:
    """Settings and inputs that a run must not change on its way, as text."""
    return run.config.model_dump_json(exclude=set(FREE_KEYS)) + json.dumps(
        run.inputs, sort_keys=True
    )
