"""the resumable state of a reinforcement-learning run: one file, and under DeepSpeed one more per process, written whole or not at all, read without unpickling code."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from huatuo.errors import CheckpointError, Damaged, Mismatch

if TYPE_CHECKING:
    from training.rl_step import Run

FREE_KEYS = frozenset(["steps", "save_steps", "threads", "work", "out", "rollout_server"])
"""Settings that may differ when a run goes on. Of a server only that there is one counts."""

PLAIN = "no DeepSpeed"


def save(run: "Run", file: Path) -> None:
    """Writes the state; every process calls it. Raises CheckpointError when the disk is full: the state saved before is whole.

    Under DeepSpeed each process writes its share of the optimiser beside the file, named by the step that the file names.
    """
    engine, main = run.engine, run.accelerator.is_main_process
    if engine is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(engine.moments(), _share(run, file, run.step))
        run.accelerator.wait_for_everyone()
    with run.whole():
        if main:
            _write(_state(run), file)
    if main and engine is not None:
        for share in file.parent.glob(f"{file.stem}-*{file.suffix}"):
            if not share.name.startswith(f"{file.stem}-{run.step}-"):
                share.unlink()


def _state(run: "Run") -> dict[str, Any]:
    return {
        "config": _made_of(run),
        "engine": _engine(run),
        "step": run.step,
        "policy": run.trunk.policy.state_dict(),
        "value": run.value.state_dict() if run.value is not None else None,
        "optimizer": None if run.engine is not None else run.learner.optimizer.state_dict(),
        "kl_coefficient": run.kl.coefficient,
        "length": [run.length.wanted, run.length.pull, run.length.seen],
        "within": run.within,
    }


def _engine(run: "Run") -> str:
    return PLAIN if run.engine is None else str(run.engine)


def _share(run: "Run", file: Path, step: int) -> Path:
    return file.with_stem(f"{file.stem}-{step}-{run.accelerator.process_index}")


def _write(content: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(content, stream)
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
    state = _read(file, run.trunk.device)
    if not isinstance(state, dict) or "config" not in state:
        raise Damaged(f"{file}: is not the state of a run; remove it and begin anew")
    if state["config"] != _made_of(run):
        raise Mismatch(
            f"{file}: was saved under other settings, prompts or another reward model; go on with those, or begin anew "
            "without --resume"
        )
    if state.get("engine", PLAIN) != _engine(run):
        raise Mismatch(
            f"{file}: was saved under {state.get('engine', PLAIN)}, and this run is under {_engine(run)}; launch it "
            "as before, or begin anew without --resume"
        )
    with run.whole(changed=True):
        run.trunk.policy.load_state_dict(state["policy"])
        if run.value is not None:
            run.value.load_state_dict(state["value"])
    if run.engine is None:
        run.learner.optimizer.load_state_dict(state["optimizer"])
    else:
        run.engine.put_moments(_read(_share(run, file, int(state["step"])), run.trunk.device))
    run.step, run.within = int(state["step"]), state["within"]
    run.kl.coefficient = float(state["kl_coefficient"])
    run.length.wanted, run.length.pull, run.length.seen = state["length"]


def _read(file: Path, device: torch.device) -> Any:
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise Damaged(
            f"{file}: cannot be read ({type(error).__name__}); remove it and begin anew"
        ) from None


def _made_of(run: "Run") -> str:
    """Settings and inputs that a run must not change on its way, as text."""
    free = set(FREE_KEYS) - ({"steps"} if run.config.schedule == "linear" else set())
    made_of = run.config.model_dump_json(exclude=free) + json.dumps(run.inputs, sort_keys=True)
    return made_of if run.server is None else f"{made_of} answered by a server"
