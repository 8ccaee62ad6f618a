"""gates, then a new contestant: `python -m training.release BRANCH --name nano-refined --report report.json`.

A branch that passes every gate is copied to data/models/NAME, and configs/models/released-NAME.toml is written last, in
one step; a running app notices it within seconds. Files `released-*` are results of running and not tracked by git.
Votes belong to a name, so a name never changes its weights unseen: the next branch of a name that is taken by an earlier
release becomes NAME-2, NAME-3, ...; with `--replace` it takes the earlier one's place. No other model's file is touched.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from huatuo.config import ModelConfig, read_models
from huatuo.errors import CheckpointError, ConfigError, HuatuoError, Mismatch, TrainingError
from huatuo.models import branch, checkpoint
from huatuo.toml import ROOT, read_toml, shown_path
from reviews.errors import RecordError
from training.danger import danger_gate
from training.gate import read_gates
from training.release_gates import Gate, Gates, Outcome, examine, read_outcome

MODELS_DIR = Path("configs/models")
FOLDER = Path("data/models")
PREFIX = "released-"
LONGEST_REASON = 300
TITLES = {"zh": "{title}·改进", "en": "{title}, refined"}
NOTES = {
    "zh": "由“{title}”按投票改进而来。{note}",
    "en": "Refined from “{title}” by votes. {note}",
}
FORCED = {
    "zh": "未通过 {gates} 仍发布：{reason}",
    "en": "Released in spite of {gates}: {reason}",
}


@dataclass(frozen=True)
class Released:
    """What a release wrote."""

    name: str
    file: Path
    folder: Path


class GateFailed(TrainingError):
    """A branch that is not good enough; `gates` holds all of them."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self.gates = tuple(gates)
        failed = "; ".join(
            f"{g.name} is {g.value}, must be {g.limit}" for g in gates if not g.passed
        )
        super().__init__(f"not released: {failed}. `--force REASON` releases it all the same")


def release(
    folder: Path,
    name: str,
    outcome: Outcome,
    gates: Gates | None = None,
    *,
    more: Sequence[Gate] = (),
    force: str = "",
    replace: bool = False,
    parent: str = "",
    titles: Mapping[str, str] | None = None,
    root: Path = ROOT,
    models_dir: Path = MODELS_DIR,
    models_folder: Path = FOLDER,
) -> Released:
    """Makes the branch a contestant; returns under which name.

    more: further gates, of an evaluation. parent: name of the model whose file is inherited from, '' to find it by
    sha256. titles: {"zh", "en"}.
    Raises GateFailed, ConfigError (name taken, no file of the parent), Damaged, Mismatch, CheckpointError (disk full).
    """
    found = [*examine(outcome, gates or Gates()), *more]
    failed = [gate.name for gate in found if not gate.passed]
    if failed and not force.strip():
        raise GateFailed(found)
    reason = " ".join(force.split())[:LONGEST_REASON] if failed else ""
    info = branch.read_branch(folder)
    if info.kind != "policy":
        raise Mismatch(f"{folder}: a {info.kind} branch cannot answer; release a policy branch")
    branch.tensors_of(folder)  # finite, every one
    models, _ = read_models(root / models_dir, roots=(root,))
    base = _parent(info, models, parent, root)
    wanted, name = name, _free_name(name, info.sha256, models, root / models_dir, replace)
    version = name.removeprefix(wanted).replace("-", " ")
    place = models_folder / name
    about = {
        "gates": {gate.name: [gate.value, gate.limit, gate.passed] for gate in found},
        "outcome": outcome.model_dump(),
        "forced": reason,
    }
    config = _config(name, version, info, base, place, titles or {}, reason, failed)
    _copy(info, root / place, about)
    file = root / models_dir / f"{PREFIX}{name}.toml"
    _write(file, config, _remarks(outcome, reason), root)
    return Released(name, file, root / place)


def _parent(
    info: branch.BranchInfo, models: Mapping[str, ModelConfig], named: str, root: Path
) -> ModelConfig:
    """The model whose weights are the branch's parent. Raises ConfigError, Mismatch."""
    if named and named not in models:
        raise ConfigError(f"--parent {named}: no file in configs/models has this name")
    for name, config in models.items():
        if config.path is None or config.parent is not None or named not in ("", name):
            continue
        known = config.sha256 or _digest_of(root / config.path)
        if known != info.parent_sha256:
            continue
        branch.check_parent(info, root / config.path)
        if config.template != info.template:
            raise Mismatch(
                f"{info.folder}: template {info.template}, but {name} has {config.template}"
            )
        return config
    raise ConfigError(
        f"{info.folder}: no file in configs/models serves its parent, sha256 {info.parent_sha256[:12]}…; "
        "write one first: licence, template and generation come from there"
    )


def _digest_of(folder: Path) -> str:
    try:
        return branch.parent_digest(folder)
    except CheckpointError:
        return ""


def _free_name(
    name: str, sha256: str, models: Mapping[str, ModelConfig], folder: Path, replace: bool
) -> str:
    """The name itself, or its next version if an earlier release with other weights has it."""
    number, wanted = 1, name
    while True:
        file = folder / f"{PREFIX}{wanted}.toml"
        if wanted in models and not file.exists():
            raise ConfigError(
                f"--name {wanted}: is the name of another model in {shown_path(folder)}; choose another"
            )
        known = models.get(wanted)
        if not file.exists() or replace or (known is not None and known.sha256 == sha256):
            return wanted
        number += 1
        wanted = f"{name}-{number}"


def _config(
    name: str,
    version: str,
    info: branch.BranchInfo,
    base: ModelConfig,
    place: Path,
    titles: Mapping[str, str],
    reason: str,
    failed: Sequence[str],
) -> dict[str, Any]:
    """The keys of the new model's file. Raises ConfigError for a name or a title that cannot be used."""
    own = {"zh": (base.title_zh, base.note_zh), "en": (base.title_en, base.note_en)}
    config: dict[str, Any] = {"name": name}
    for language, (title, _) in own.items():
        config[f"title_{language}"] = titles.get(language) or (
            TITLES[language].format(title=title) + version
        )
    config |= {"engine": "local", "demonstration": base.demonstration, "licence": base.licence}
    for language, (title, note) in own.items():
        said = NOTES[language].format(title=title, note=note).strip()
        if reason:
            said += " " + FORCED[language].format(gates=", ".join(failed), reason=reason)
        config[f"note_{language}"] = said
    config |= {"path": place.as_posix(), "parent": str(base.path), "template": info.template}
    config |= {"sha256": info.sha256, "dtype": base.dtype, "device": base.device}
    config["generation"] = base.generation.model_dump(exclude_unset=True)
    try:
        ModelConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{name}: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    return config


def _copy(info: branch.BranchInfo, target: Path, about: Mapping[str, Any]) -> None:
    """The branch with the release in its manifest, whole or not at all. Raises CheckpointError."""
    if target.exists() and any(target.iterdir()) and not (target / branch.INFO).is_file():
        raise CheckpointError(f"{target}: holds something else than a branch; move it away")
    details = {k: v for k, v in info.manifest.items() if k not in ("format", "files")}
    try:
        with checkpoint.replacing(target) as fresh:
            for name in (branch.WEIGHTS, branch.INFO):
                shutil.copyfile(info.folder / name, fresh / name)
            checkpoint.save_manifest(fresh, {**details, "release": dict(about)})
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error.strerror})") from None
    if branch.read_branch(target).sha256 != info.sha256:
        raise CheckpointError(f"{target}: was changed while it was copied; release it again")


def _remarks(outcome: Outcome, reason: str) -> list[str]:
    figures = (
        f"win rate {outcome.win_rate:.2f} [{outcome.win_rate_low:.2f}, {outcome.win_rate_high:.2f}] against its "
        f"parent on {outcome.cases} held-out cases, judged by {outcome.judge}. {outcome.judge_note}"
    )
    lines = [
        f"Released by training.release on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {figures}",
        *([f"Forced: {reason}"] if reason else []),
    ]
    return [" ".join(line.split())[:900] for line in lines]


def _write(file: Path, config: Mapping[str, Any], remarks: Sequence[str], root: Path) -> None:
    """Writes the model's file in one step, after it was read back. Raises ConfigError."""
    generation = config["generation"]
    lines = [f"# {remark}" for remark in remarks]
    lines += [f"{key} = {_toml(value)}" for key, value in config.items() if key != "generation"]
    lines += ["", "[generation]", *(f"{key} = {_toml(value)}" for key, value in generation.items())]
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        read_toml(temporary, ModelConfig, roots=(root,))
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise ConfigError(f"{shown_path(file)}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _toml(value: object) -> str:
    """A string, number or truth value as TOML writes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints every gate; returns 0, or 2 when a gate failed or nothing could be released."""
    parser = argparse.ArgumentParser(prog="python -m training.release", description="Release.")
    parser.add_argument("branch", type=Path, help="folder of the policy branch")
    parser.add_argument("--name", required=True, help="the new model's name, e.g. nano-refined")
    parser.add_argument("--report", type=Path, required=True, help="report.json of the refinement")
    parser.add_argument(
        "--evaluation", type=Path, help="report.json of training.evaluate: its gate"
    )
    parser.add_argument("--record", type=Path, help="a record with physicians' danger marks")
    parser.add_argument("--tried-as", default="", help="the contestant's name there; default: name")
    parser.add_argument("--config", type=Path, help="TOML file with other limits than the defaults")
    parser.add_argument("--force", default="", metavar="REASON", help="release in spite of gates")
    parser.add_argument("--replace", action="store_true", help="take an earlier release's place")
    parser.add_argument("--parent", default="", help="name of the parent's model; default: found")
    parser.add_argument("--title-zh", default="")
    parser.add_argument("--title-en", default="")
    for key, field in Gates.model_fields.items():
        flag = "--gate-" + key.replace("_", "-")
        parser.add_argument(flag, dest=f"gate.{key}", metavar="LIMIT", help=field.description)
    options = vars(parser.parse_args(arguments))
    limits = {key[5:]: options.pop(key) for key in list(options) if key.startswith("gate.")}
    try:
        outcome = read_outcome(options["report"])
        gates = _gates(options["config"], {k: v for k, v in limits.items() if v is not None})
        more = read_gates(file, options["branch"]) if (file := options["evaluation"]) else []
        if options["record"]:
            tried_as = options["tried_as"] or options["name"]
            more.append(danger_gate(options["record"], tried_as, gates.danger))
        for gate in [*examine(outcome, gates), *more]:
            sign = "ok  " if gate.passed else "FAIL"
            print(f"{sign}  {gate.name:<22} {gate.value:<14} {gate.limit}")
        titles = {"zh": options["title_zh"], "en": options["title_en"]}
        done = release(
            options["branch"], options["name"], outcome, gates, more=more, titles=titles,
            **{key: options[key] for key in ("force", "replace", "parent")},
        )  # fmt: skip
    except (HuatuoError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"released as {done.name}: {shown_path(done.file)}")
    return 0


def _gates(path: Path | None, limits: Mapping[str, str]) -> Gates:
    """The limits of a file, with flags over them. Raises ConfigError."""
    if path is not None:
        return read_toml(path, Gates, dict(limits))
    try:
        return Gates.model_validate({key: json.loads(text) for key, text in limits.items()})
    except (ValueError, ValidationError):
        raise ConfigError("--gate-…: a limit must be a number in its range; see --help") from None


if __name__ == "__main__":
    sys.exit(main())
