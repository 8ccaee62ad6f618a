"""the paper's argument in small: distilled, doctor, hybrid and hybrid + RL over seeds: `python -m training.argument`.

For each seed: three fine-tunings from the common start, the whole loop of training/refine.py on that seed's hybrid, and
the four models' answers to held-out cases drawn anew. What is measured of them, and which of the paper's claims hold in
how many seeds, is in training/claims.py. Resumable: what lies finished in the folder is not made again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from huatuo.config import ModelConfig
from huatuo.errors import HuatuoError, TrainingError
from huatuo.models.branch import merge
from huatuo.models.checkpoint import read_manifest, sha256_of
from huatuo.toml import ROOT, InsidePath, Settings, read_toml, shown_path
from reviews.errors import RecordError
from training import examine
from training.cases import Case, draw_cases
from training.claims import CONTESTANTS, Answers, page, summary
from training.flags import parse
from training.refine import RefineConfig, refine

FINE_TUNED = CONTESTANTS[:3]
CASE_SEED = 1000
"""Added to a seed for its held-out cases, so that they are not those the loop's own gates look at."""


class ArgumentConfig(Settings):
    """One reproduction: configs/nano/argument.toml."""

    seeds: tuple[int, ...] = Field(
        strict=False, min_length=1, description="one round of training for each"
    )
    bundled_seed: int | None = Field(
        default=None, description="the seed whose fine-tunings are those of huatuo/nano"
    )
    refine: InsidePath = Field(description="the loop's TOML file")
    work: InsidePath = Field(default=Path("data/argument"), description="everything it writes")
    cases: int = Field(default=200, ge=10, description="held-out cases per seed")
    threads: int = Field(default=1, ge=1, description="CPU threads of a fine-tuning")


def argue(config: ArgumentConfig) -> dict[str, Any]:
    """Trains what is missing, answers, measures, and writes report.json and report.html; returns the report.

    Raises HuatuoError subclasses and RecordError.
    """
    found: dict[int, list[Answers]] = {}
    for seed in config.seeds:
        folder = ROOT / config.work / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        models = {name: _fine_tuned(config, name, seed) for name in FINE_TUNED}
        models["refined"] = _refined(config, models["hybrid"], seed)
        cases = draw_cases(config.cases, held_out=True, seed=CASE_SEED + seed, english=0.0)
        found[seed] = [_answered(folder, n, models[n], cases) for n in CONTESTANTS]
    report = summary(found)
    out = ROOT / config.work
    page(report, found).save(out / "report.html")
    temporary = out / ".report.json.tmp"
    temporary.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / "report.json")
    return report


def _fine_tuned(config: ArgumentConfig, name: str, seed: int) -> Path:
    """The folder of one seed's fine-tuning; trained in its own process, as training/nano.py does."""
    if seed == config.bundled_seed:
        return ROOT / "huatuo/nano" / name
    inside = config.work / str(seed) / name
    if (ROOT / inside / "manifest.json").exists():
        return ROOT / inside
    print(f"{name}, seed {seed}: fine-tuning", flush=True)
    command = [sys.executable, "-m", "training.sft", str(ROOT / f"configs/nano/{name}.toml")]
    flags = {"out": inside, "seed": seed, "name": f"{name}-{seed}", "threads": config.threads}
    work = config.work / str(seed) / "work"
    flags["work"] = work
    log = ROOT / config.work / str(seed) / f"{name}.log"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(config.threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # as in training/nano.py
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [*command, "--resume", *(x for k, v in flags.items() for x in (f"--{k}", str(v)))],
            stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, check=False,
        )  # fmt: skip
    if done.returncode:
        raise TrainingError(f"{name}, seed {seed}: training stopped; why is in {shown_path(log)}")
    return ROOT / inside


def _refined(config: ArgumentConfig, hybrid: Path, seed: int) -> Path:
    """The folder of whole weights that the loop made of a seed's hybrid."""
    inside = config.work / str(seed)
    merged = ROOT / inside / "refined"
    loop = read_toml(ROOT / config.refine, RefineConfig)
    told = {"name": f"refined-{seed}", "work": str(inside), "seed": str(seed), "release": "false"}
    told["model"] = str(_model_file(ROOT / loop.model, hybrid, ROOT / inside).relative_to(ROOT))
    refine(read_toml(ROOT / config.refine, RefineConfig, told), resume=True)
    branch = ROOT / inside / told["name"] / "policy"
    mark = sha256_of(branch / "branch.safetensors")
    if (
        not (merged / "manifest.json").exists()
        or (merged.parent / "refined.of").read_text() != mark
    ):
        merge(branch, merged, hybrid)
        (merged.parent / "refined.of").write_text(mark)
    return merged


def _model_file(given: Path, hybrid: Path, folder: Path) -> Path:
    """A models file for the seed's hybrid, otherwise as the bundled one's."""
    digest = read_manifest(hybrid)["files"]["model.safetensors"]["sha256"]
    inside = hybrid.relative_to(ROOT).as_posix()
    lines = []
    for line in given.read_text(encoding="utf-8").splitlines():
        key = line.partition("=")[0].strip()
        lines.append(
            {"path": f'path = "{inside}"', "sha256": f'sha256 = "{digest}"'}.get(key, line)
        )
    path = folder / "hybrid.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _answered(folder: Path, name: str, model: Path, cases: Sequence[Case]) -> Answers:
    """A model's answers to the cases, as the app draws them, kept in the folder with the model's digest."""
    path = folder / f"answers-{name}.json"
    settings = read_toml(ROOT / "configs/models/nano-hybrid.toml", ModelConfig).generation
    made_of = {
        "weights": read_manifest(model)["files"]["model.safetensors"]["sha256"],
        "settings": settings.model_dump(mode="json"),
        "questions": [case.question for case in cases],
    }
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["made_of"] == made_of:
            return Answers(name, list(cases), kept["answers"], kept["finished"])
    print(f"{name}: answers {len(cases)} cases", flush=True)
    drawn = examine.answers(*examine.load(model), made_of["questions"], settings)
    texts, finished = [text for text, _ in drawn], [done for _, done in drawn]
    temporary = path.with_suffix(".tmp")
    kept = {"made_of": made_of, "answers": texts, "finished": finished}
    temporary.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)
    return Answers(name, list(cases), texts, finished)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 when a stage could not run."""
    path, _, overrides = parse(
        "training.argument", "The paper's argument in small.", ArgumentConfig, arguments
    )
    try:
        config = read_toml(path, ArgumentConfig, overrides)
        report = argue(config)
    except (HuatuoError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    for claim in report["claims"]:
        print(f"{claim['holds']} of {claim['seeds']}  {claim['claim']}")
    print(json.dumps({"report": shown_path(ROOT / config.work / "report.html")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
