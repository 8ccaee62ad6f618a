"""the reward model from votes: `python -m training.reward configs/reward.toml`.

An ensemble of branches with a reward head on the frozen trunk of the parent, fitted to soft targets of a Bradley-Terry
model with ties. The trunk's states are computed once and serve every member and epoch (`cache = true`); without the cache
the whole model runs with its lower blocks frozen, as it must under DeepSpeed ZeRO-3: `accelerate launch -m
training.reward ... --cache false`. Ends with reward.json (what training.ensemble loads), report.json and report.html.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from huatuo.errors import HuatuoError
from huatuo.models.branch import parent_digest, read_branch, save_branch
from huatuo.models.checkpoint import sha256_of
from huatuo.models.trunk import Trunk, load_trunk
from huatuo.prompts import template_of
from huatuo.toml import ROOT, read_toml
from training import raters
from training.answers import StateCache, cache_states
from training.csv_log import CsvLog
from training.evidence import EVIDENCE
from training.flags import parse
from training.pairs import Votes
from training.reward_cross import held_out_scores, probe_rewards
from training.reward_data import Choice, Floats, Material, RewardConfig, aim_of, choose, gather
from training.reward_fit import Aim, Recipe, bootstrap, probe, probe_loss, train_member
from training.reward_module import Member, features, open_accelerator, put_back, snapshot
from training.reward_report import write_report
from training.reward_result import (
    Shape,
    figures_of,
    fit_scale,
    gap_to_ceiling,
    head_rewards,
    length_figures,
    paired_accuracy,
    raw_rewards,
    scale_of,
    write_ensemble,
)
from training.trl_reward import train_trl


@dataclass
class Run:
    """One run's surroundings, the same for every member."""

    config: RewardConfig
    accelerator: Accelerator
    trunk: Trunk
    tokenizer: Any
    material: Material
    cache: StateCache | None
    states: Tensor
    evidence: Tensor
    parent_sha256: str
    work: Path
    key: str


def train(config: RewardConfig, *, resume: bool = False) -> dict[str, Any]:
    """Runs the stage and writes the ensemble with its report; returns what report.json says.

    resume: cached states and finished members of the same inputs are kept. Raises HuatuoError subclasses.
    """
    began = time.monotonic()
    if config.threads:
        torch.set_num_threads(config.threads)
    template_of(config.template)
    transformers.set_seed(config.seed)
    accelerator = open_accelerator(cpu=config.device == "cpu")
    work = ROOT / config.work / config.name
    if accelerator.is_main_process and not resume:
        shutil.rmtree(work, ignore_errors=True)
    accelerator.wait_for_everyone()
    trunk, tokenizer = _trunk(config, accelerator)
    material = gather(config, tokenizer)
    sha256 = parent_digest(ROOT / config.parent)
    cache = None
    if config.cache:
        cache = cache_states(
            material.sequences, trunk.states, trunk.hidden_size, folder=work / f"states-{accelerator.process_index}",
            key=f"{sha256}/{config.blocks}/{config.load}", cache_gb=config.cache_gb, device=trunk.device,
            progress=accelerator.is_main_process,
        )  # fmt: skip
    key = _key(config, material.votes, sha256)
    states, evidence = features(trunk, material.sequences, cache, config.pool)
    if not config.evidence:
        evidence = torch.zeros_like(evidence)
    run = Run(
        config, accelerator, trunk, tokenizer, material, cache, states, evidence, sha256, work, key
    )
    choice = choose(config, material, states, evidence)
    aim = aim_of(material, choice.ai_weight)
    fits = []
    for number in range(config.members):
        done = _finished(work / f"member-{number}", key) if resume else None
        fits.append(done or _fit(run, number, aim, choice.ridge))
    report = conclude(run, fits, choice, aim, began) if accelerator.is_main_process else {}
    if cache is not None:
        cache.drop()
    accelerator.wait_for_everyone()
    return report


def _trunk(config: RewardConfig, accelerator: Accelerator) -> tuple[Trunk, Any]:
    return load_trunk(ROOT / config.parent, config.blocks, config.load, str(accelerator.device))


def _fit(run: Run, number: int, aim: Aim, ridge: float) -> dict[str, Any]:
    """Fits and saves one member in the work folder; returns what the report says of it."""
    config, material, accelerator = run.config, run.material, run.accelerator
    seed = config.seed * 1000 + number
    rows, validation = material.rows("train"), material.rows("validation")
    if config.bootstrap and config.members > 1:
        cases = [material.split.cases[i] for i in rows]
        rows = rows[bootstrap(cases, np.random.default_rng(seed))]
    index = material.sequences.pairs
    found = probe(run.states, run.evidence, index, aim, rows, ridge)
    about: dict[str, Any] = {"pairs": len(rows)}
    best = None
    if len(validation):
        best = probe_loss(found, run.states, run.evidence, index, aim, validation)
        about["validation_nll_of_head_alone"] = best
    # Without a cache the member is made of a trunk of its own, which any engine may take apart.
    trunk = run.trunk if run.cache is not None else _trunk(config, accelerator)[0]
    member = Member(trunk, material.sequences, run.cache, config.pool, accelerator)
    member.set_head(found.weight, found.bias)
    member.offset = run.evidence @ found.evidence
    log = (
        CsvLog(run.work / f"member-{number}.csv", ("loss", "validation"))
        if accelerator.is_main_process
        else None
    )
    bar = tqdm(desc=f"member {number + 1} of {config.members}", unit="step", disable=log is None)

    def note(said: dict[str, float]) -> None:
        bar.total = int(said["steps"])
        bar.update(int(said["step"]) - bar.n)
        if log is not None:
            log.append(int(said["step"]), {key: said.get(key) for key in ("loss", "validation")})

    model = None
    if config.epochs:
        model, best = train_member(
            member.module, member.rewards, aim, rows, validation, recipe_of(config), accelerator=accelerator, seed=seed,
            trainable=lambda m: snapshot(accelerator, m), restore=lambda m, kept: put_back(accelerator, m, kept), note=note,
        )  # fmt: skip
    bar.close()
    weights = dict(zip(EVIDENCE, found.evidence.tolist(), strict=True))
    about |= {"validation_nll": best, **weights}
    tensors = member.tensors(model)
    accelerator.free_memory()
    if accelerator.is_main_process:
        save_branch(
            run.work / f"member-{number}", tensors, kind="reward", blocks=config.blocks, parent=ROOT / config.parent,
            template=config.template, details={"pool": config.pool, "member": number, "evidence": weights, "fit": about, "run": run.key},
            manifest={"stage": "reward", "name": config.name, "votes": material.votes.files, "figures": about},
        )  # fmt: skip
    accelerator.wait_for_everyone()
    return about


def conclude(
    run: Run, fits: list[dict[str, Any]], choice: Choice, aim: Aim, began: float
) -> dict[str, Any]:
    """Scores, calibrates, reports and writes the finished folder; returns what report.json says."""
    config, material = run.config, run.material
    index = material.sequences.pairs
    folders = [run.work / f"member-{number}" for number in range(config.members)]
    if config.epochs:
        raw = raw_rewards(
            folders, run.trunk, material.sequences, run.cache, config.pool, run.evidence
        )
    else:  # the blocks are the parent's own: their states are at hand
        raw = head_rewards(folders, run.states, run.evidence)
    figures, temperature, shape = _figures(run, raw, choice, aim)
    scale = scale_of(raw, temperature, shape[0], np.unique(index[material.rows("train")]))
    held = np.unique(index[material.rows("test")])
    white = (raw.mean(0) / scale.temperature - scale.mean) / scale.std
    characters = material.characters
    report = {
        "name": config.name,
        "models": figures,
        "ceiling": dataclasses.asdict(material.ceiling),
        "folds": config.folds,
        "scale": dataclasses.asdict(scale),
        "slip": shape[1],
        "length": {
            **length_figures(white[held], characters[held]),
            "points": np.stack([characters[held], white[held].round(4)], 1).tolist(),
        },
        "spread": float(raw.std(0).mean() / scale.temperature),
        "counts": material.counts.numbers,
        "raters": [dataclasses.asdict(rater) for rater in material.reliabilities],
        "members": [{"member": number, **fit} for number, fit in enumerate(fits)],
        **dataclasses.asdict(choice),
        "parent_sha256": run.parent_sha256,
        "votes": material.votes.files,
        "seconds": round(time.monotonic() - began, 1),
    }
    html = run.work / "report.html"
    logs = {f"member {n}": run.work / f"member-{n}.csv" for n in range(config.members)}
    logs = {name: log for name, log in logs.items() if log.is_file()}
    write_report(html, report, logs)
    short = {name: figures["ensemble"][name]["value"] for name in ("accuracy", "nll", "ece")}
    write_ensemble(
        ROOT / config.out, folders, scale, config.pool, blocks=config.blocks, parent_sha256=run.parent_sha256,
        resolved=config.model_dump(mode="json"),
        manifest={"stage": "reward", "name": config.name, "parent": run.parent_sha256, "votes": material.votes.files,
                  "figures": short},
        files={"report.json": json.dumps(report, ensure_ascii=False) + "\n", "report.html": html.read_text("utf-8"),
               **{log.name: log.read_text("utf-8") for log in logs.values()}},
    )  # fmt: skip
    return report


def _figures(
    run: Run, raw: Floats, choice: Choice, aim: Aim
) -> tuple[dict[str, Any], float, Shape]:
    """({model: figures on held-out cases}, temperature, (log theta, slip)): the ensemble's, and TRL's where it is wanted."""
    config, material = run.config, run.material
    pairs, cases, test = material.pairs, material.split.cases, material.split.test
    index, sides = material.sequences.pairs, np.array([1.0, -1.0])

    def trl(fold: int, rows: NDArray[np.int64]) -> Floats:
        return train_trl(
            ROOT / config.parent, run.tokenizer, pairs, material.sequences, rows.tolist(), blocks=config.blocks,
            epochs=config.baseline_epochs, batch=config.batch, max_tokens=config.max_tokens,
            work=run.work / f"trl-{fold}", seed=config.seed,
        )  # fmt: skip

    def judged(rewards: Floats | None, make: Any) -> tuple[Floats, Floats, float, Shape]:
        """(raw and calibrated differences, temperature, (log theta, slip)) for held-out cases."""
        if material.folds is not None:
            found = held_out_scores(material, make)
            return found.uncalibrated, found.d, found.temperature, found.shape
        d = (make(0, material.rows("train")) if rewards is None else rewards)[index] @ sides
        temperature, shape = fit_scale(d, pairs, material.rows("validation"))
        return d, d / temperature, temperature, shape

    ours = probe_rewards(
        material, run.states, run.evidence, aim, choice.ridge, config.members if config.bootstrap else 1, config.seed
    )  # fmt: skip
    _, d, temperature, shape = judged(raw.mean(0), ours)
    figures = {"ensemble": figures_of(d, pairs, test, cases, shape)}
    shared = sorted({*raters.overlapping(pairs)} & {*test})
    figures["ensemble"]["accuracy_on_pairs_of_the_ceiling"] = paired_accuracy(
        d, pairs, shared, cases
    )
    figures["ensemble"]["gap_to_ceiling"] = gap_to_ceiling(d, pairs, test, cases, material.ceiling)
    if config.baseline:
        before, after, _, ties = judged(None, trl)
        figures["TRL RewardTrainer, as it comes"] = figures_of(
            before, pairs, test, cases, (0.0, 0.0)
        )
        figures["TRL RewardTrainer, calibrated"] = figures_of(after, pairs, test, cases, ties)
    return figures, temperature, shape


def _finished(folder: Path, key: str) -> dict[str, Any] | None:
    """What a finished member of the same run says of its fit; None if there is none."""
    try:
        info = read_branch(folder)
    except HuatuoError:
        return None
    fit: dict[str, Any] | None = info.details.get("fit") if info.details.get("run") == key else None
    return fit


def _key(config: RewardConfig, votes: Votes, parent: str) -> str:
    """What a member depends on: the config without places and thread counts, the votes, held-out cases, the parent."""
    free = {"out", "work", "members", "threads", "cache_gb", "baseline", "device"}
    settings = {k: v for k, v in config.model_dump(mode="json").items() if k not in free}
    held_out = [sha256_of(ROOT / name) for name in config.held_out]
    text = json.dumps([settings, votes.files, held_out, parent], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_of(config: RewardConfig) -> Recipe:
    """The part of the config that a fit needs."""
    return Recipe(**{name: getattr(config, name) for name in Recipe.__dataclass_fields__})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 2 a clear error, 130 stopped."""
    path, resume, overrides = parse(
        "training.reward", "Reward model from votes.", RewardConfig, arguments
    )
    try:
        config = read_toml(path, RewardConfig, overrides)
        report = train(config, resume=resume)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; continue with: python -m training.reward {path} --resume", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    if report:
        said = {
            key: report["models"]["ensemble"][key]["value"]
            for key in ("accuracy", "nll", "ece", "auc")
        }
        said |= {"ceiling": report["ceiling"]["value"], "seconds": report["seconds"]}
        print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
