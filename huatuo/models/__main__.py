"""says which models are ready and tries one: `python -m huatuo.models list`, `python -m huatuo.models check NAME`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huatuo.config import ROOT, AppConfig, read_models, read_toml
from huatuo.engines.trial import Trial, try_model
from huatuo.errors import ConfigError, HuatuoError
from huatuo.models.inventory import Entry, inventory, standing
from huatuo.ui.text import TEXT

GB = 10**9
WORDS = {
    "ready": "ready",
    "lacks_weights": "lacks weights",
    "lacks_key": "lacks the key",
    "off": "switched off",
    "broken": "broken",
}
STUDY = {
    "yes": "may be used in a hospital's study",
    "research": "research only, no commercial use",
    "ask": "ask its makers before a hospital's study",
    "no": "not for a hospital's study",
    "unknown": "not known whether it may be used in a study",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 0, 1 for a model that does not work, 2 for wrong use or files."""
    parser = argparse.ArgumentParser(prog="python -m huatuo.models", description=__doc__)
    parser.add_argument("--models-dir", type=Path, help="folder of the models' files")
    commands = parser.add_subparsers(dest="command", required=True)
    every = commands.add_parser("list", help="every model, its state, licence and how to get it")
    one = commands.add_parser("check", help="digest, memory, loading and a test question")
    one.add_argument("name")
    for command in (every, one):
        command.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    try:
        folder = (
            options.models_dir or ROOT / read_toml(ROOT / "configs/app.toml", AppConfig).models_dir
        )
        models, broken = read_models(folder)
        if options.command == "list":
            return _list(inventory(models, broken, ROOT), options.json)
        return _check(options.name, models, broken, options.json)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2


def _list(entries: list[Entry], as_json: bool) -> int:
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], ensure_ascii=False, indent=1))
    else:
        print("\n\n".join(map(_lines, entries)))
    return 1 if any(entry.state == "broken" for entry in entries) else 0


def _lines(entry: Entry) -> str:
    """One model in a few lines, the command to get it last and ready to be copied."""
    size = f"{entry.bytes / GB:.2f} GB on disk" if entry.bytes is not None else ""
    need = f"about {entry.need / GB:.2f} GB in memory" if entry.need is not None else ""
    facts = ", ".join(filter(None, (WORDS[entry.state], size, need)))
    lines = [f"{entry.name}: {facts}"]
    if entry.state in ("broken", "lacks_key"):
        lines.append(entry.why)
    if entry.engine:
        lines.append(
            f"{entry.title_en}; {entry.licence or 'no licence named'}; {STUDY[entry.study_use]}"
        )
    if entry.source:
        lines.append(f"source: {entry.source}")
    if entry.state == "lacks_weights" and entry.get:
        lines += ["get it with:", *(f"  {line}" for line in entry.get.splitlines())]
    elif entry.state == "lacks_weights":
        lines.append(entry.why)
    return "\n  ".join(lines)


def _check(name: str, models: Any, broken: Any, as_json: bool) -> int:
    if name not in models:
        at_fault = [str(error) for file, error in broken.items() if Path(file).stem == name]
        known = ", ".join(sorted(models))
        raise ConfigError(
            at_fault[0] if at_fault else f"no file names the model {name}; one of {known}"
        )
    config = models[name]
    state, why = standing(config, ROOT)
    if state not in ("ready", "off") or (state == "off" and config.engine != "local"):
        trial = Trial(name, problem=f"{WORDS[state]}: {why}")
    else:
        trial = try_model(config, ROOT, TEXT["models.question"]["zh"], None if as_json else print)
    if as_json:
        print(json.dumps({**asdict(trial), "works": trial.works}, ensure_ascii=False, indent=1))
    elif trial.problem:
        print(f"{name}: {trial.problem}", file=sys.stderr)
    return 0 if trial.works else 1


if __name__ == "__main__":
    sys.exit(main())
