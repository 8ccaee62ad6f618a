"""the whole loop as one command: `python -m training.refine configs/nano/refine.toml`.

Votes of a record -> export -> AI feedback on the model's own answers -> reward model -> reinforcement learning ->
evaluation on held-out cases -> release behind gates. Each stage also runs alone; a stage whose inputs have not changed since it was finished is not run again, and one
that was stopped goes on where it was.
"""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from huatuo.config import ModelConfig
from huatuo.errors import ConfigError, HuatuoError, NoData, TrainingError
from huatuo.models.branch import parent_digest
from huatuo.models.checkpoint import sha256_of
from huatuo.toml import ROOT, InsidePath, Settings, Texts, read_toml, shown_path
from reviews.database import DEFAULT_NAME
from reviews.errors import RecordError
from reviews.export import export
from reviews.store import Store
from training import ai_feedback, reward, rl
from training.cases import EMERGENCY, draw_cases, read_cases, write_cases
from training.flags import parse
from training.pairs import EXPORT_FILES
from training.refine_report import page
from training.release import GateFailed, release
from training.release_gates import Gates, Outcome, examine
from training.reward_data import RewardConfig
from training.rubric import NOTE
from training.simulate import SimulationConfig, simulate
from training.verdict import Pair, Reference, compare, read_references


class RefineConfig(Settings):
    """One loop: configs/nano/refine.toml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$", description="the new model's name")
    record: InsidePath = Field(description="folder of the record whose votes are used")
    study: str = Field(default="", description="only this study; default: all votes")
    simulation: SimulationConfig | None = Field(
        default=None,
        description="votes to simulate when the record has none; without it that is an error",
    )
    model: InsidePath = Field(description="the parent's file in configs/models")
    ai_feedback: InsidePath | None = Field(
        default=None, description="the AI feedback's TOML file; without it the votes stand alone"
    )
    reward: InsidePath = Field(description="the reward model's TOML file")
    rl: InsidePath = Field(description="the reinforcement learning's TOML file")
    work: InsidePath = Field(default=Path("data/refine"), description="everything the loop writes")
    prompts: int = Field(
        default=600, ge=1, description="training cases to draw when `cases` is empty"
    )
    emergencies: int = Field(
        default=0, ge=0, description="emergencies to draw beside them, for reinforcement learning"
    )
    cases: Texts = Field(default=(), description="case files to learn on")
    held_out: int = Field(default=200, ge=10, description="held-out cases of the evaluation")
    references: Texts = Field(
        min_length=1, description="held-out corpus files for automatic metrics"
    )
    reference_count: int = Field(default=160, ge=1)
    held_out_emergencies: int = Field(default=40, ge=1, description="openers that need a warning")
    gates: Gates = Gates()
    release: bool = Field(default=True, description="false: stop after the evaluation")
    replace: bool = Field(default=False, description="take an earlier release's place")
    seed: int = 42


@dataclass
class Loop:
    """The loop's folder and what each stage was made from."""

    config: RefineConfig
    resume: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where this run's files lie."""
        return ROOT / self.config.work / self.config.name

    @property
    def inside(self) -> Path:
        """The same, from the project's folder."""
        return self.config.work / self.config.name

    def stage(
        self, name: str, inputs: Sequence[Any], output: Path, make: Callable[[bool], object]
    ) -> None:
        """Runs `make` unless a finished stage of the same inputs left `output`; only then is it marked finished.

        make gets whether a stop of the same inputs may be gone on from: never from one of others.
        """
        mark, begun = self.folder / f"{name}.done", self.folder / f"{name}.begun"
        key = hashlib.sha256(json.dumps([str(part) for part in inputs]).encode()).hexdigest()
        if self.resume and output.exists() and mark.exists() and mark.read_text() == key:
            print(f"{name}: finished before", flush=True)
            return
        mark.unlink(missing_ok=True)
        same = self.resume and begun.exists() and begun.read_text() == key
        begun.write_text(key)
        began = time.monotonic()
        make(same)
        self.seconds[name] = time.monotonic() - began
        self.folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(key)
        print(f"{name}: {self.seconds[name]:.0f} s", flush=True)


def refine(config: RefineConfig, *, resume: bool = False) -> dict[str, Any]:
    """Runs the loop; returns {outcome, released}. Raises HuatuoError subclasses, RecordError; GateFailed last."""
    loop = Loop(config, resume)
    loop.folder.mkdir(parents=True, exist_ok=True)
    model = read_toml(ROOT / config.model, ModelConfig)
    if model.path is None or model.parent is not None:
        raise ConfigError(
            f"{config.model}: names no folder of whole weights; a branch's parent must be one"
        )
    parent = parent_digest(ROOT / model.path)
    votes = _votes(loop)
    cases = _cases(loop)
    judged = _ai_feedback(loop, model, cases, parent)
    reward_config = _reward_config(loop, model, judged)
    held_out = sha256_of(loop.folder / "held-out.jsonl")
    made_of = [reward_config.model_dump_json(), parent, votes, held_out, *map(sha256_of, judged)]
    loop.stage(
        "reward", made_of, loop.folder / "reward/reward.json",
        lambda same: reward.train(reward_config, resume=same),
    )  # fmt: skip
    prompts = [*cases, *_emergencies(loop)]
    rl_config = _rl_config(loop, model, prompts)
    made_of = [
        rl_config.model_dump_json(),
        parent,
        sha256_of(loop.folder / "reward/reward.json"),
        *map(sha256_of, prompts),
    ]
    loop.stage(
        "rl",
        made_of,
        loop.folder / "policy/branch.json",
        lambda same: rl.train(rl_config, resume=same),
    )
    made_of = [
        sha256_of(loop.folder / "policy/branch.safetensors"),
        config.model_dump_json(),
        rl_config.model_dump_json(),
        model.generation.model_dump_json(),
        held_out,
        *(sha256_of(ROOT / name) for name in config.references),
    ]
    loop.stage(
        "evaluate", made_of, loop.folder / "report.json",
        lambda _: _evaluate(loop, model, rl_config),
    )  # fmt: skip
    report = json.loads((loop.folder / "report.json").read_text(encoding="utf-8"))
    outcome = Outcome.model_validate(report["gates"])
    for gate in examine(outcome, config.gates):
        print(f"{'ok  ' if gate.passed else 'FAIL'}  {gate.name:<22} {gate.value:<14} {gate.limit}")
    result = {
        "outcome": outcome.model_dump(),
        "report": shown_path(loop.folder / "report.html"),
        "released": None,
    }
    if config.release:
        done = release(
            loop.folder / "policy", config.name, outcome, config.gates, replace=config.replace
        )
        result["released"] = done.name
    return result


def _votes(loop: Loop) -> str:
    """Exports the record's votes into votes/; returns what the files that training reads hash to."""
    config = loop.config
    data, out = ROOT / config.record, loop.folder / "votes"
    wanted = config.study or None
    if config.simulation is not None and not _count(data, wanted):
        print(
            f"{config.record}: holds no votes; simulating {config.simulation.votes}. {NOTE['en']}",
            flush=True,
        )
        data.mkdir(parents=True, exist_ok=True)
        simulate(config.simulation, data)
    count = _count(data, wanted)
    if not count:
        raise NoData(
            f"{config.record}: no votes{f' in the study {wanted}' if wanted else ''}; let physicians vote first, or name "
            "another record; [simulation] plays simulated ones"
        )
    with contextlib.closing(Store.open(data / DEFAULT_NAME)) as store:
        manifest = export(store.database, out, study=wanted, force=True)
    print(f"votes: {count} from {config.record}", flush=True)
    read = {name: manifest.sha256[name] for name in EXPORT_FILES}
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def _count(data: Path, study: str | None) -> int:
    if not (data / DEFAULT_NAME).exists():
        return 0
    with contextlib.closing(Store.open(data / DEFAULT_NAME)) as store:
        return sum(study in (None, vote.study) for vote in store.votes())


def _cases(loop: Loop) -> list[Path]:
    """The case files to learn on, and held-out.jsonl to be judged on, drawn once per seed."""
    config = loop.config
    held_out, train = loop.folder / "held-out.jsonl", loop.folder / "prompts.jsonl"

    def make(_: bool) -> None:
        write_cases(held_out, draw_cases(config.held_out, held_out=True, seed=config.seed))
        if not config.cases:
            write_cases(train, draw_cases(config.prompts, held_out=False, seed=config.seed + 1))

    loop.stage(
        "cases", [config.held_out, config.prompts, config.seed, config.cases], held_out, make
    )
    return [ROOT / name for name in config.cases] or [train]


def _emergencies(loop: Loop) -> list[Path]:
    """The file of emergencies to learn on, which no judge grades: the guard of reinforcement learning sees to them."""
    config, out = loop.config, loop.folder / "emergencies.jsonl"
    if not config.emergencies:
        return []
    loop.stage(
        "emergencies", [config.emergencies, config.seed], out,
        lambda _: write_cases(
            out, draw_cases(config.emergencies, kinds=[EMERGENCY], held_out=False, seed=config.seed + 2)
        ),
    )  # fmt: skip
    return [out]


def _ai_feedback(loop: Loop, model: ModelConfig, cases: Sequence[Path], parent: str) -> list[Path]:
    """The file of judged pairs of the model's own answers; none where the loop has no such stage."""
    if loop.config.ai_feedback is None:
        return []
    out = loop.folder / "ai_feedback.jsonl"
    config = read_toml(
        ROOT / loop.config.ai_feedback,
        ai_feedback.FeedbackConfig,
        {
            "name": model.name,
            "parent": str(model.path),
            "template": model.template,
            "cases": json.dumps([str(path.relative_to(ROOT)) for path in cases]),
            "out": str(loop.inside / out.name),
            "seed": str(loop.config.seed),
        },
    )
    made_of = [config.model_dump_json(), parent, *map(sha256_of, cases)]
    loop.stage("ai_feedback", made_of, out, lambda same: ai_feedback.make(config, resume=same))
    return [out]


def _reward_config(loop: Loop, model: ModelConfig, judged: Sequence[Path]) -> RewardConfig:
    return read_toml(
        ROOT / loop.config.reward,
        RewardConfig,
        {
            "name": loop.config.name,
            "parent": str(model.path),
            "template": model.template,
            "exports": json.dumps([str(loop.inside / "votes")]),
            "feedback": json.dumps([str(path.relative_to(ROOT)) for path in judged]),
            "held_out": json.dumps([str(loop.inside / "held-out.jsonl")]),
            "out": str(loop.inside / "reward"),
            "work": str(loop.inside / "work/reward"),
            "seed": str(loop.config.seed),
        },
    )


def _rl_config(loop: Loop, model: ModelConfig, cases: Sequence[Path]) -> rl.RlConfig:
    return read_toml(
        ROOT / loop.config.rl,
        rl.RlConfig,
        {
            "name": loop.config.name,
            "parent": str(model.path),
            "template": model.template,
            "reward": str(loop.inside / "reward"),
            "prompts": json.dumps([str(path.relative_to(ROOT)) for path in cases]),
            "out": str(loop.inside / "policy"),
            "work": str(loop.inside / "work/rl"),
            "seed": str(loop.config.seed),
        },
    )


def _evaluate(loop: Loop, model: ModelConfig, trained: rl.RlConfig) -> None:
    """Writes report.json, with the gates' figures, and report.html."""
    config = loop.config
    assert model.path is not None
    pair = Pair(
        loop.folder / "policy", ROOT / model.path, model.template, trained.load, device_of(trained)
    )
    references = read_references(
        [ROOT / name for name in config.references], config.reference_count
    ) + [
        Reference(case.question, "", EMERGENCY)
        for case in draw_cases(
            config.held_out_emergencies, kinds=[EMERGENCY], held_out=True, seed=config.seed
        )
    ]
    outcome, more, rows = compare(
        pair,
        read_cases(loop.folder / "held-out.jsonl"),
        references,
        model.generation,
        kl_budget=trained.kl_budget or float("1e9"),
        temperature=trained.temperature,
        seed=config.seed,
    )
    report = {
        "gates": outcome.model_dump(),
        "figures": more,
        "seconds": loop.seconds,
        "seed": config.seed,
    }
    page(config, loop.folder, outcome, more, rows).save(loop.folder / "report.html")
    temporary = loop.folder / ".report.json.tmp"
    temporary.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(loop.folder / "report.json")


def device_of(trained: rl.RlConfig) -> str:
    """Where the training ran, for the evaluation to run there too."""
    return "cuda" if trained.device != "cpu" and torch.cuda.is_available() else "cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 when a gate failed or a stage could not run."""
    path, resume, overrides = parse(
        "training.refine", "From votes to a released model.", RefineConfig, arguments
    )
    try:
        result = refine(read_toml(path, RefineConfig, overrides), resume=resume)
    except GateFailed as error:
        print(error, file=sys.stderr)
        return 2
    except (HuatuoError, TrainingError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
