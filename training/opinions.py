"""what others say of the answers, for the report: a judge's verdicts, physicians' votes, consultations with a patient.

Each is read from a file that its own command wrote; a judge may also be asked here (training/judge.py), the first model
against each other one, with its own estimate, caps and kept replies.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huatuo.errors import ConfigError, NoData
from huatuo.toml import ROOT, read_toml
from training.answer_files import Said
from training.benchmark_layouts import Item
from training.data import BadData
from training.generate import Answers
from training.judge_rows import read_rows
from training.judge_summary import summary
from training.questions import Questions
from training.rows import Source
from training.spending import sum_of
from training.yardsticks import Yardstick, of_verdicts, of_votes, read_votes

if TYPE_CHECKING:
    from training.judge import JudgeConfig


@dataclass(frozen=True)
class Opinion:
    """figures: for report.json, None if there is no such opinion. files: SHA-256 of what was read. rows: verdicts."""

    figures: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)
    sticks: tuple[Yardstick, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()


def judged(files: Sequence[str], models: Sequence[str]) -> Opinion:
    """The verdicts on pairs of these models, from files of training.judge or training.huatuo_judge.

    Verdicts on other models are left out and counted; two judges stay apart. Raises BadData for damaged rows and for a
    verdict that is given twice, NoData if none is about these models.
    """
    if not files:
        return Opinion()
    read: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, ...], str] = {}
    for text in files:
        path = _path(text)
        for row in read_rows(path):
            told = (
                str(row.get("judge") or ""),
                row["id"],
                *sorted((row["model_a"], row["model_b"])),
            )
            if seen.setdefault(told, text) != text:
                raise BadData(
                    f"{path.name}: id {row['id']}: the same judge says it in {Path(seen[told]).name} too; name one of them"
                )
            rows.append(row)
        read[f"verdicts: {path.name}"] = Source(path).sha256()
    return _opinion(rows, models, read)


def _opinion(rows: Sequence[dict[str, Any]], models: Sequence[str], read: dict[str, str]) -> Opinion:  # fmt: skip
    own = [row for row in rows if {row["model_a"], row["model_b"]} <= set(models)]
    if not own:
        raise NoData(f"judge: none of {len(rows)} verdicts is about two of {', '.join(models)}")
    judges = sorted({str(row.get("judge") or "") for row in own})
    summaries: list[dict[str, Any]] = []
    sticks = []
    for judge in judges:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        its = [row for row in own if str(row.get("judge") or "") == judge]
        for row in its:
            groups.setdefault((row["model_a"], row["model_b"]), []).append(row)
        found = [summary(group) for group in groups.values()]
        summaries += found
        stick = of_verdicts(found, its)
        sticks.append(stick if len(judges) == 1 else replace(stick, name=f"judge {judge}".strip()))
    figures = {
        "judges": [judge for judge in judges if judge],
        "left_out": len(rows) - len(own),
        "pairs": summaries,
    }
    return Opinion(figures, read, tuple(sticks), tuple(own))


def asked(
    settings: "JudgeConfig",
    benchmarks: Sequence[Questions],
    found: Mapping[str, Mapping[str, Answers]],
    *,
    yes: bool = False,
) -> Opinion:
    """The judge's own verdicts, the first model against each other one, on questions both answered.

    The estimate and the caps are those of all pairs together. Raises ConfigError for a run that is too dear, and what
    the judge raises.
    """
    from training.judge import Judge, Pair, confirm, run

    work = []
    for questions in benchmarks:
        if questions.is_choice:
            continue
        items = {item.id: item for item in questions.items}
        ours, *others = found[questions.name]
        for other in others:
            sides = [found[questions.name][model] for model in (ours, other)]
            pairs = [
                Pair(*(_said(item, side.by[id].text) for side in sides))
                for id, item in items.items()
                if all(side.by[id].is_answer for side in sides)
            ]
            work.append((Judge(settings, (ours, other)), pairs))
    if not work:
        raise ConfigError("judge_config: nothing to judge; it takes two models and free answers")
    purse = work[0][0].endpoint.purse
    estimate = sum_of([judge.estimate(pairs) for judge, pairs in work])
    print(f"judge: {estimate}", file=sys.stderr)
    confirm(work[0][0].endpoint, settings.confirm_above, estimate, yes=yes)
    rows: list[dict[str, Any]] = []
    for judge, pairs in work:
        judge.endpoint.purse = purse
        more, stopped = run(judge, pairs)
        if stopped is not None:
            raise stopped
        rows += more
    models = list(dict.fromkeys(model for by in found.values() for model in by))
    return _opinion(rows, models, {})


def judge_settings(path: str) -> "JudgeConfig":
    """The judge's file, tried before anything is answered. Raises ConfigError, also for a missing key."""
    from training.judge import Judge, JudgeConfig

    settings = read_toml(_path(path), JudgeConfig)
    Judge(settings, ("a", "b")).endpoint.close()
    return settings


def _said(item: Item, text: str) -> Said:
    return Said(item.id, text, item.question, item.references, item.label, (), item.place,
                intent=item.label)  # fmt: skip


def voted(path: str, study: str, models: Sequence[str]) -> Opinion:
    """The physicians' votes on these models. Raises what read_votes raises."""
    if not path:
        return Opinion()
    votes = read_votes(_path(path), study, models)
    figures, stick = of_votes(votes, models)
    return Opinion(figures, {f"votes: {votes.source}": votes.sha256}, (stick,))


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
