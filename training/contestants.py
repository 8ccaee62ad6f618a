"""who is evaluated: a model of configs/models, a model's file, a checkpoint or branch folder, or a file of ready answers.

    nano-hybrid                         the name of a model of configs/models, local, remote or scripted
    my.toml                             a file as those in configs/models, an OpenAI endpoint for example
    refined=data/refine/x/policy        a branch or checkpoint folder, under a name
    GPT-4=data/answers/GPT4.json        answers that exist already, by the ids of the benchmark's questions

What stands before the `=` is the name in the report; without it, the model's own or the file's.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from huatuo.config import Generation, ModelConfig, read_models, read_toml
from huatuo.errors import ConfigError
from huatuo.models import branch, checkpoint, registry
from huatuo.prompts import template_of
from huatuo.toml import ROOT, shown_path
from training.answer_cache import digest
from training.answer_files import Said, read_answers
from training.rows import Source

MODELS = Path("configs/models")
_NAME = re.compile(r"[^a-z0-9.-]+")


@dataclass(frozen=True)
class Contestant:
    """One entrant. config: how it answers; None for ready answers, which are in `said`.

    sha256: of all that makes its words but the settings (weights, tokenizer, template, or the file of answers).
    weights: what a report shows of it. origin: where it was named.
    """

    name: str
    config: ModelConfig | None
    sha256: str
    weights: str
    origin: str
    said: Mapping[str, Said] | None = None

    def settings(self, generation: Generation | None) -> dict[str, object]:
        """The settings in use: those given, else the model's own; empty for ready answers."""
        if self.config is None:
            return {}
        return self.config.used(generation or self.config.generation)

    def about(self, generation: Generation | None) -> dict[str, Any]:
        """What a report says of it, for JSON."""
        config = self.config
        if config is None:
            return {"engine": "answers", "origin": self.origin, "sha256": self.sha256, "weights": self.weights,
                    "title": self.name, "template": "", "licence": "", "study_use": "unknown", "settings": {}}  # fmt: skip
        return {
            "engine": config.engine,
            "origin": self.origin,
            "sha256": self.sha256,
            "weights": self.weights,
            "title": config.title_en,
            "template": config.template if config.engine == "local" else "",
            "licence": config.licence,
            "study_use": config.study_use,
            "settings": self.settings(generation),
        }


def find(text: str) -> Contestant:
    """The contestant that a text names. Raises ConfigError, BadData, CheckpointError naming what is wrong."""
    name, _, place = text.rpartition("=")
    path = Path(place) if Path(place).is_absolute() else ROOT / place
    if path.is_dir():
        return _of_config(_of_folder(path, name), shown_path(path))
    if path.suffix in (".json", ".jsonl"):
        said = read_answers(path)
        sha256 = Source(path).sha256()
        return Contestant(
            name or path.stem, None, sha256, f"answers {sha256[:12]}", path.name, said
        )
    if path.suffix == ".toml":
        config = read_toml(path, ModelConfig)
        return _of_config(config.model_copy(update={"name": name or config.name}), shown_path(path))
    known, broken = read_models(ROOT / MODELS)
    if place not in known:
        wrong = "".join(f"; {error}" for error in broken.values())
        raise ConfigError(
            f"models: {text} is no model of {MODELS}, no folder, and no .toml, .json or .jsonl file{wrong}"
        )
    config = known[place].model_copy(update={"name": name or place})
    return _of_config(config, f"{MODELS}: {place}")


def _of_folder(folder: Path, name: str) -> ModelConfig:
    """A configuration for a folder; its settings are those of the model in configs/models with the same parent."""
    folder = folder.resolve()
    row: dict[str, Any] = {"engine": "local", "path": shown_path(folder), "dtype": "float32"}
    if (folder / branch.INFO).is_file():
        info = branch.read_branch(folder)
        parent = branch.parent_folder(info)
        row |= {"parent": shown_path(parent), "template": info.template}
        served = parent
    else:
        template = checkpoint.read_manifest(folder).get("template", "")
        if not template:
            raise ConfigError(
                f"{folder}: its manifest names no template; write a file as in {MODELS} and name that"
            )
        row["template"], served = template, folder
    known, _ = read_models(ROOT / MODELS)
    for config in known.values():
        if config.path is not None and (ROOT / config.path).resolve() == served.resolve():
            row |= {"dtype": config.dtype, "device": config.device, "licence": config.licence,
                    "generation": config.generation, "study_use": config.study_use}  # fmt: skip
            break
    named = name or folder.name
    row |= {"name": _NAME.sub("-", named.lower()).strip("-.") or "model"}
    row |= {"title_zh": named[:60], "title_en": named[:60]}
    try:
        return ModelConfig.model_validate(row, context={"roots": (ROOT,)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{folder}: {'.'.join(map(str, first['loc']))} {first['msg']}") from None


def _of_config(config: ModelConfig, origin: str) -> Contestant:
    if not config.enabled:
        raise ConfigError(f"{config.name}: is switched off by `enabled = false` in its file")
    if config.engine == "remote":
        made_of: dict[str, object] = {"base_url": config.base_url, "model": config.model}
        shown = f"{config.model} at {urlsplit(config.base_url).hostname}, known by its name only"
    elif config.engine == "scripted":
        made_of = {"says": config.says, "fails": config.fails}
        shown = "scripted"
    else:
        made_of, shown = _weights(config)
    return Contestant(config.name, config, digest(made_of), shown, origin)


def _weights(config: ModelConfig) -> tuple[dict[str, object], str]:
    """(what a local model's words are made from, what a report shows). Raises Damaged, Mismatch, Untrusted."""
    assert config.path is not None
    folder = ROOT / config.path
    made_of: dict[str, object] = {"load": config.load, "dtype": config.dtype}
    if config.parent is not None:
        info = branch.read_branch(folder)
        parent = ROOT / config.parent
        branch.check_parent(info, parent)
        made_of |= {"branch": info.sha256, "weights": info.parent_sha256}
        shown = f"branch {info.sha256[:12]} on {info.parent_sha256[:12]}"
    else:
        parent = folder
        sha256 = branch.parent_digest(folder)
        made_of["weights"] = sha256
        shown = sha256[:12]
    if config.adapter is not None:
        files = sorted((ROOT / config.adapter).glob("adapter*"))
        made_of["adapter"] = registry.digest(files) if files else ""
        shown += " with an adapter"
    made_of["tokenizer"] = branch.tokenizer_digest(parent)
    made_of["template"] = asdict(template_of(config.template))
    return made_of, shown
