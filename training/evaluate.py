"""one report of models by three yardsticks: automatic metrics, an LLM judge, physicians, and whether they agree.

    python -m training.evaluate configs/evaluate.toml [--models A B ...] [--benchmarks X ...] [--gate configs/gate.toml]
        [--baseline EARLIER/report.json]

Answers are made where they are missing (training/generate.py), measured, and written to OUT as report.html and
report.json; the same inputs give the same bytes, also after a kill at any point. Exit status: 0 done; 1 the gate failed;
2 an error, one line on stderr; 130 interrupted, what came is kept.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from huatuo.config import Generation, read_protocol, read_toml
from huatuo.errors import ConfigError, HuatuoError, TrainingError
from huatuo.toml import ROOT, InsidePath, Settings, Texts, shown_path
from training import evaluate_report, gate, measures, opinions, published
from training.contestants import Contestant, find
from training.flags import add_keys
from training.gate import GateConfig
from training.generate import FOLDER, Answers, How, answers
from training.overlap import Tokens
from training.questions import BenchmarkConfig, Questions, read
from training.rows import write_text
from training.scores import Average, Convention
from training.significance import RESAMPLES
from training.yardsticks import Yardstick, agreement, named, of_metric

FORMAT = 1
"""Of report.json: raised when a key changes its meaning."""
LIBRARIES = ("numpy", "rapidfuzz", "torch", "transformers", "matplotlib")
SHOWN_METRICS = ("bleu-4", "rouge-l", "distinct-2")
"""What stands beside judge and physicians among the yardsticks."""


class ConventionConfig(Settings):
    """The table [convention]: see training/scores.py, whose defaults these are."""

    tokens: Tokens = "characters"
    punctuation: Literal["keep", "drop"] = "keep"
    bleu: Average = "corpus"
    gleu: Average = "corpus"
    smoothing: Literal["none", "epsilon", "add-one", "nist"] = "none"
    rouge: Literal["f", "recall", "precision"] = "f"
    distinct: Average = "sentence"
    library: Literal["nltk", "sacrebleu"] = "nltk"


class Keys(Settings):
    """The plain keys of configs/evaluate.toml, which are flags too."""

    name: str = Field(default="evaluation", max_length=80, description="title of the report")
    out: InsidePath = Field(
        default=Path("data/evaluate/report"), description="folder of the report"
    )
    cache: InsidePath = Field(default=FOLDER, description="folder of the kept answers")
    protocol: str = Field(default="", description="settings of configs/protocols for every model")
    seed: int = Field(default=0, ge=0)
    resamples: int = Field(default=RESAMPLES, ge=100, le=100_000)
    batch: int = Field(default=16, ge=1, description="questions a local model answers at a time")
    at_once: int = Field(default=8, ge=1, le=256, description="requests to a server at a time")
    letters: bool = Field(
        default=False, description="choice: also the likelihood of the letters, of local models"
    )
    judge: Texts = Field(
        default=(),
        description="files of verdicts: training.judge's JSONL, training.huatuo_judge's JSON",
    )
    judge_config: str = Field(
        default="", description="or the judge's TOML: the first model against each other one"
    )
    multiturn: str = Field(default="", description="JSON of training.multiturn")
    votes: str = Field(default="", description="folder of a record, or of an export, with votes")
    study: str = Field(default="", description="only votes of this study")
    examples: int = Field(
        default=3, ge=0, le=20, description="wins and losses shown per pair of models"
    )


class EvaluateConfig(Keys):
    """configs/evaluate.toml"""

    models: Texts = Field(
        min_length=1,
        description="see training/contestants.py; the first is ours, and the others stand against it",
    )
    benchmark: Annotated[tuple[BenchmarkConfig, ...], Field(strict=False)] = Field(
        min_length=1, description="tables [[benchmark]]"
    )
    generation: Generation | None = Field(
        default=None, description="settings for every model, instead of a protocol"
    )
    convention: ConventionConfig = ConventionConfig()
    gate: GateConfig | None = None


def evaluate(config: EvaluateConfig, *, retry: bool = False, yes: bool = False) -> dict[str, Any]:
    """Runs everything and writes the report; returns what report.json holds. Raises HuatuoError subclasses, OSError."""
    contestants = _contestants(config.models)
    models = [contestant.name for contestant in contestants]
    names = [table.name for table in config.benchmark]
    if len(set(names)) < len(names):
        raise ConfigError("benchmark: two have the same name; give each its own")
    convention = Convention(**config.convention.model_dump())
    benchmarks = [read(table, config.seed) for table in config.benchmark]
    generation = _generation(config)
    head = _head(config, contestants, benchmarks, generation)
    earlier = gate.read_earlier(config.gate, ROOT) if config.gate else None
    if config.gate:
        gate.check_config(config.gate, head, earlier)
    if config.judge and config.judge_config:
        raise ConfigError("judge and judge_config: give files of verdicts or a judge, not both")
    places: dict[str, list[str]] = {}
    for questions in benchmarks:
        for item in questions.items:
            places.setdefault(item.id, []).append(questions.name)
    judged, asked = opinions.judged(config.judge, models, places), None
    if config.judge_config:
        asked = opinions.judge_settings(config.judge_config)
    voted = opinions.voted(config.votes, config.study, models, places)
    told = opinions.consulted(config.multiturn)
    # All that can be wrong by then is; what follows may take days.
    how = How(
        generation, config.seed, config.batch, config.at_once, retry, config.letters, ROOT / config.cache
    )  # fmt: skip
    found: dict[str, dict[str, Answers]] = {questions.name: {} for questions in benchmarks}
    notes: list[str] = []
    for contestant in contestants:
        for questions, each in zip(benchmarks, answers(contestant, benchmarks, how), strict=True):
            found[questions.name][contestant.name] = each
            notes += each.notes
    for note in notes:
        print(note, file=sys.stderr)
    report, measured = _measure(config, convention, benchmarks, found)
    report = head | report
    if asked:
        judged = opinions.asked(asked, benchmarks, found, yes=yes)
    report |= {"judge": judged.figures, "physicians": voted.figures, "multiturn": told.figures}
    report["files"] |= judged.files | voted.files | told.files
    if earlier:
        report["files"][f"baseline: {earlier.name}"] = earlier.sha256
    sticks = [*judged.sticks, *voted.sticks, *_metric_sticks(report, measured)]
    report["agreement"] = agreement(sticks, models)
    report["gate"] = gate.check(config.gate, report, earlier) if config.gate else None
    out = ROOT / config.out
    samples = evaluate_report.examples(
        report, benchmarks, found, measured, judged.rows, config.examples
    )
    page = evaluate_report.page(report, samples)
    text = json.dumps(report, ensure_ascii=False, indent=1, sort_keys=True)
    write_text(out / "report.json", text + "\n")
    page.save(out / "report.html")
    return report


def _contestants(texts: Sequence[str]) -> list[Contestant]:
    found = [find(text) for text in texts]
    names = [contestant.name for contestant in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"models: two are called {name}; name one by NAME={texts[names.index(name)]}")  # fmt: skip
    return found


def _generation(config: EvaluateConfig) -> Generation | None:
    """What every model answers with, None: each by its own file."""
    if config.protocol and config.generation:
        raise ConfigError("protocol and [generation]: give one of them")
    protocol = read_protocol(config.protocol, ROOT / "configs/protocols")
    return protocol.generation if protocol else config.generation


def _head(
    config: EvaluateConfig,
    contestants: Sequence[Contestant],
    benchmarks: Sequence[Questions],
    generation: Generation | None,
) -> dict[str, Any]:
    """What the report says before anything is answered: models, questions, settings, files."""
    files = {f"{q.name}: {file}": sha256 for q in benchmarks for file, sha256 in q.files.items()}
    files |= {f"answers: {c.origin}": c.sha256 for c in contestants if c.said is not None}
    return {
        "format": FORMAT,
        "name": config.name,
        "ours": contestants[0].name,
        "seed": config.seed,
        "resamples": config.resamples,
        "convention": config.convention.model_dump(),
        "models": {c.name: c.about(generation) for c in contestants},
        "benchmarks": {questions.name: questions.about() for questions in benchmarks},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        "files": files,
    }


def _measure(
    config: EvaluateConfig,
    convention: Convention,
    benchmarks: Sequence[Questions],
    found: dict[str, dict[str, Answers]],
) -> tuple[dict[str, Any], dict[str, measures.Measured]]:
    """(what the answers say, for the report; each benchmark's scores by question)."""
    draws = measures.Draws(config.resamples, config.seed)
    measured: dict[str, measures.Measured] = {}
    for questions in benchmarks:
        said = found[questions.name]
        measured[questions.name] = (
            measures.choices(questions, said, draws)
            if questions.is_choice
            else measures.metrics(questions, said, convention, draws)
        )
    choice = {questions.name for questions in benchmarks if questions.is_choice}
    report: dict[str, Any] = {
        "answers": {name: measures.counts(said) for name, said in found.items()},
        "metrics": {n: m.figures for n, m in measured.items() if n not in choice},
        "choice": {n: m.figures for n, m in measured.items() if n in choice},
        "published": {q.name: published.beside(q.published) for q in benchmarks if q.published},
    }
    return report, measured


def _metric_sticks(
    report: dict[str, Any], measured: dict[str, measures.Measured]
) -> list[Yardstick]:
    """Some metrics and the accuracy of every benchmark, as yardsticks."""
    sticks = []
    for name, figures in report["metrics"].items():
        for metric in SHOWN_METRICS:
            scores = {m: v[metric]["value"] for m, v in figures["scores"].items()}
            if len(scores) > 1 and None not in scores.values():
                each = _each(name, measured[name]) if metric == "rouge-l" else None
                sticks.append(of_metric(f"{metric}, {name}", metric, scores, figures["differences"], each))  # fmt: skip
    for name, figures in report["choice"].items():
        scores = {m: v["accuracy"] for m, v in figures["models"].items() if v["accuracy"] is not None}  # fmt: skip
        if len(scores) > 1:
            sticks.append(of_metric(f"accuracy, {name}", "accuracy", scores, figures["differences"], _each(name, measured[name])))  # fmt: skip
    return sticks


def _each(benchmark: str, found: measures.Measured) -> dict[str, dict[str, float]]:
    """By model, the score of each question, named as among all benchmarks."""
    return {m: {named(benchmark, id): v for id, v in by.items()} for m, by in found.each.items()}


def read_config(path: Path, given: argparse.Namespace) -> EvaluateConfig:
    """The file, with what the command line says in its stead. Raises ConfigError naming file and key."""
    plain = {key: value for key in Keys.model_fields if (value := getattr(given, key)) is not None}
    config = read_toml(path, EvaluateConfig, plain)
    changed: dict[str, Any] = {}
    if given.models:
        changed["models"] = tuple(given.models)
    if given.benchmarks:
        changed["benchmark"] = tuple(_chosen(config.benchmark, text) for text in given.benchmarks)
    if given.gate:
        changed["gate"] = read_toml(given.gate, GateConfig)
    if given.baseline:
        found: GateConfig | None = changed.get("gate", config.gate)
        if found is None:
            raise ConfigError(
                "--baseline: takes a table [gate], or --gate FILE, that says what may fall"
            )
        changed["gate"] = found.model_copy(update={"report": str(given.baseline.absolute())})
    return config.model_copy(update=changed)


def _chosen(tables: Sequence[BenchmarkConfig], text: str) -> BenchmarkConfig:
    """A benchmark of the file by its name, or a file of questions of our own."""
    for table in tables:
        if table.name == text:
            return table
    path = Path(text)
    if path.suffix in (".json", ".jsonl"):
        return BenchmarkConfig(name=path.stem, file=text if path.is_absolute() else str(path.absolute()))  # fmt: skip
    known = ", ".join(table.name for table in tables)
    raise ConfigError(
        f"--benchmarks {text}: no [[benchmark]] of this name ({known}) and no .json or .jsonl file"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="One report.")
    parser.add_argument("config", type=Path, help="TOML file, such as configs/evaluate.toml")
    parser.add_argument("--models", nargs="+", help="instead of the file's")
    parser.add_argument("--benchmarks", nargs="+", help="names of the file's, or files of questions")  # fmt: skip
    parser.add_argument("--gate", type=Path, help="TOML file of the gate, instead of [gate]")
    parser.add_argument("--baseline", type=Path, metavar="REPORT", help="report.json of an earlier evaluation that holds the gate's baseline")  # fmt: skip
    parser.add_argument("--retry", action="store_true", help="ask again for what failed before")
    parser.add_argument("--yes", action="store_true", help="judge although it is dear")
    add_keys(parser, Keys)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; for the exit status see the module."""
    given = _parser().parse_args(arguments)
    try:
        config = read_config(given.config, given)
        report = evaluate(config, retry=given.retry, yes=given.yes)
    except (HuatuoError, TrainingError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for name, by_model in report["answers"].items():
        for model, count in by_model.items():
            if count["failed"]:
                print(f"{name}: {model}: {sum(count['failed'].values())} of {count['asked']} failed: {count['failed']}")  # fmt: skip
    print(f"written to {shown_path(ROOT / config.out / 'report.html')} and report.json")
    if report["gate"] is None:
        return 0
    print("\n".join(gate.told(report["gate"])))
    for row in report["gate"]["checks"]:
        if not row["passed"]:
            print(f"gate: {row['name']} {row['why']}", file=sys.stderr)
    return 0 if report["gate"]["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
