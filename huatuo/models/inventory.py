"""which models of configs/models are ready, which lack weights or a key, how large they are and what they need.

Reads files, headers and the environment; loads and contacts nothing. Used by `python -m huatuo.models` and the models page.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huatuo.config import ModelConfig
from huatuo.errors import CheckpointError, ConfigError, Damaged
from huatuo.models import memory, registry

State = Literal["ready", "lacks_weights", "lacks_key", "off", "broken"]
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BRANCH_WEIGHTS = "branch.safetensors"


@dataclass(frozen=True)
class Entry:
    """One model as it stands. bytes: of its weights on disk; need: an estimate in memory; None where there are none."""

    name: str
    title_zh: str
    title_en: str
    engine: str
    state: State
    why: str
    bytes: int | None = None
    need: int | None = None
    licence: str = ""
    study_use: str = "unknown"
    source: str = ""
    get: str = ""
    demonstration: bool = False
    contestant: bool = True


def inventory(
    models: Mapping[str, ModelConfig], broken: Mapping[str, ConfigError], root: Path
) -> list[Entry]:
    """Every model by name, then the files that name none. root: where relative checkpoint paths start."""
    entries = [entry(config, root) for _, config in sorted(models.items())]
    return entries + [
        Entry(Path(file).stem, file, file, "", "broken", str(error))
        for file, error in sorted(broken.items())
    ]


def entry(config: ModelConfig, root: Path) -> Entry:
    """The model as its files and the environment have it now."""
    state, why = standing(config, root)
    size = need = None
    if config.engine == "local" and state in ("ready", "off") and not lacks(config, root):
        try:
            size = sum(file.stat().st_size for file in _weights(config, root))
            need = estimate(config, root)
        except CheckpointError as error:
            state, why = "broken", str(error)
    return Entry(
        config.name,
        config.title_zh,
        config.title_en,
        config.engine,
        state,
        why,
        size,
        need.total if need else None,
        config.licence,
        config.study_use,
        config.source,
        config.get.strip(),
        config.demonstration,
        config.contestant,
    )


def standing(config: ModelConfig, root: Path) -> tuple[State, str]:
    """(state, a sentence that says why when it is not ready); the folder's files are looked at, not read whole."""
    if config.engine == "local" and (lacking := lacks(config, root)):
        return "lacks_weights", lacking
    if not config.enabled:
        return "off", "is switched off by `enabled = false` in its file"
    if config.engine == "remote":
        variable = config.api_key_env
        if variable and not os.environ.get(variable):
            return "lacks_key", f"the environment variable {variable} is not set"
    if config.engine == "local":
        try:
            for folder in folders(config, root):
                registry.refuse_untrusted(folder)
        except CheckpointError as error:
            return "broken", str(error)
    return "ready", ""


def lacks(config: ModelConfig, root: Path) -> str:
    """Which folder of a local model is not there yet and the command that makes it, or ''."""
    for folder in folders(config, root):
        if not folder.is_dir():
            shown = folder.relative_to(root) if folder.is_relative_to(root) else folder
            lines = config.get.strip().splitlines()
            how = " && ".join(line for line in lines if not line.startswith("#"))
            return f"{shown}: no such folder" + (
                f"; get it with: {how}" if how else "; check its file"
            )
    return ""


def folders(config: ModelConfig, root: Path) -> list[Path]:
    """The folders of a local model: its own, and its parent's or its adapter's."""
    named = (config.path, config.parent, config.adapter)
    return [root / path for path in named if path is not None]


def estimate(config: ModelConfig, root: Path) -> memory.Estimate:
    """What a local model will need in memory when it alone is loaded. Raises CheckpointError."""
    from huatuo.models.loaded import device_of  # brings torch

    try:
        device = device_of(config.device)
    except ConfigError:
        device = config.device
    whole = root / (config.parent or config.path or "")
    return memory.estimate(
        whole,
        adapter=root / config.adapter if config.adapter else None,
        load=config.load,
        dtype=config.dtype,
        device=device,
        context_tokens=config.generation.context_tokens,
        beams=config.generation.num_beams,
    )


def _weights(config: ModelConfig, root: Path) -> list[Path]:
    """The files of weights. Raises Damaged for one that is missing."""
    files = registry.weight_files(root / (config.parent or config.path or ""))
    if config.parent and config.path:
        files.append(root / config.path / BRANCH_WEIGHTS)
    if config.adapter:
        files.append(root / config.adapter / ADAPTER_WEIGHTS)
    for file in files:
        if not file.is_file():
            raise Damaged(f"{file}: missing; copy the whole folder again")
    return files
