"""what others say of the answers, for the report: a judge's verdicts, physicians' votes, consultations with a patient.

Each is read from a file that its own command wrote; a judge may also be asked here (training/judge.py), the first model
against each other one, with its own estimate, caps and kept replies.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huatuo.errors import ConfigError, NoData
from huatuo.toml import ROOT, read_toml
from training.answer_files import Said
from training.data import BadData
from training.generate import Answers
from training.judge_rows import read_rows
from training.judge_summary import summary
from training.questions import Questions
from training.rows import Source
from training.yardsticks import Yardstick, of_verdicts, of_votes, read_votes


@dataclass(frozen=True)
class Opinion:
    """figures: for report.json, None if there is no such opinion. files: SHA-256 of what was read. rows: verdicts."""

    figures: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)
    stick: Yardstick | None = None
    rows: tuple[Mapping[str, Any], ...] = ()


def judged(
    files: Sequence[str],
    config: str,
    benchmarks: Sequence[Questions],
    found: Mapping[str, Mapping[str, Answers]],
    *,
    yes: bool = False,
) -> Opinion:
    """The verdicts on pairs of the evaluation's models, from files or from the judge itself.

    Verdicts on other models are left out and counted. Raises BadData for damaged rows, NoData if none is about these
    models, ConfigError for both at once or a judge that is too dear, and what the judge raises.
    """
    if files and config:
        raise ConfigError("judge and judge_config: give files of verdicts or a judge, not both")
    if not files and not config:
        return Opinion()
    models = list(dict.fromkeys(m for by in found.values() for m in by))
    read: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for text in files:
        path = _path(text)
        rows += read_rows(path)
        read[f"verdicts: {path.name}"] = Source(path).sha256()
    if config:
        rows = _asked(_path(config), benchmarks, found, yes)
    own = [row for row in rows if {row["model_a"], row["model_b"]} <= set(models)]
    if not own:
        raise NoData(f"judge: none of {len(rows)} verdicts is about two of {', '.join(models)}")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in own:
        groups.setdefault((row["model_a"], row["model_b"]), []).append(row)
    summaries = [summary(group) for group in groups.values()]
    figures = {
        "judges": sorted({str(row.get("judge", "")) for row in own} - {""}),
        "left_out": len(rows) - len(own),
        "pairs": summaries,
    }
    return Opinion(figures, read, of_verdicts(summaries, own), tuple(own))


def _asked(
    path: Path,
    benchmarks: Sequence[Questions],
    found: Mapping[str, Mapping[str, Answers]],
    yes: bool,
) -> list[dict[str, Any]]:
    """Rows of the judge's own verdicts, the first model against each other one, on questions both answered."""
    from training.judge import Judge, JudgeConfig, Pair, run

    settings = read_toml(path, JudgeConfig)
    rows: list[dict[str, Any]] = []
    for questions in benchmarks:
        if questions.is_choice:
            continue
        ours, *others = found[questions.name]
        for other in others:
            pairs = [
                Pair(*(_said(questions, item.id, found[questions.name][m]) for m in (ours, other)))
                for item in questions.items
                if all(found[questions.name][m].by[item.id].is_answer for m in (ours, other))
            ]
            judge = Judge(settings, (ours, other))
            estimate = judge.estimate(pairs)
            if estimate.cost is not None and estimate.cost > settings.confirm_above and not yes:
                raise ConfigError(
                    f"judge_config: {ours} against {other}: {estimate}; more than confirm_above, say --yes"
                )
            more, stopped = run(judge, pairs)
            if stopped is not None:
                raise stopped
            rows += more
    return rows


def _said(questions: Questions, id: str, answers: Answers) -> Said:
    item = next(item for item in questions.items if item.id == id)
    return Said(id, answers.by[id].text, item.question, item.references, item.label, (),
                item.place, intent=item.label)  # fmt: skip


def voted(path: str, study: str, models: Sequence[str]) -> Opinion:
    """The physicians' votes on these models. Raises what read_votes raises."""
    if not path:
        return Opinion()
    votes = read_votes(_path(path), study, models)
    figures, stick = of_votes(votes)
    return Opinion(figures, {f"votes: {votes.source}": votes.sha256}, stick)


def consulted(path: str) -> Opinion:
    """The JSON of training.multiturn. Raises BadData if it is none."""
    if not path:
        return Opinion()
    place = _path(path)
    try:
        figures = json.loads(place.read_text(encoding="utf-8"))
        models = figures["models"]
        if not all("shares" in each and "means" in each for each in models.values()):
            raise ValueError
    except OSError as error:
        raise BadData(f"{place.name}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadData(
            f"{place.name}: not what training.multiturn writes (`models` with figures)"
        ) from None
    kept = {model: {k: v for k, v in each.items() if k != "cases"} for model, each in models.items()}  # fmt: skip
    return Opinion({**figures, "models": kept}, {f"consultations: {place.name}": Source(place).sha256()})  # fmt: skip


def _path(text: str) -> Path:
    return Path(text) if Path(text).is_absolute() else ROOT / text
