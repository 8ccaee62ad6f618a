"""what others say of the answers, for the report: a judge's verdicts, physicians' votes, consultations with a patient.

Each is read from a file that its own command wrote; a judge may also be asked here (training/judge.py), the first model
against each other one, with its own estimate, caps and kept replies.
"""

import json
import math
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


def judged(
    files: Sequence[str], models: Sequence[str], places: Mapping[str, Sequence[str]]
) -> Opinion:
    """The verdicts on pairs of these models, from files of training.judge or training.huatuo_judge.

    places: id to the benchmarks that hold it. Verdicts on other models or benchmarks are left out and counted; two
    judges stay apart. Raises BadData for damaged rows, for a verdict that is given twice, and for one that does not say
    which of several benchmarks it is about; NoData if none is about these models.
    """
    if not files:
        return Opinion()
    read: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, ...], str] = {}
    for text in files:
        path = _path(text)
        for row in read_rows(path):
            if not row.get("benchmark"):
                row["benchmark"] = _place(row["id"], places, path.name)
            told = (
                str(row.get("judge") or ""),
                row["benchmark"],
                row["id"],
                *sorted((row["model_a"], row["model_b"])),
            )
            if told in seen:
                where = "here too" if seen[told] == path.name else f"in {seen[told]} too"
                raise BadData(
                    f"{path.name}: id {row['id']}: the same judge says it {where}; name each verdict once"
                )
            seen[told] = path.name
            rows.append(row)
        read[f"verdicts: {path.name}"] = Source(path).sha256()
    names = {"", *(name for known in places.values() for name in known)}
    kept = [row for row in rows if row["benchmark"] in names]
    found = _opinion(kept, models, read)
    assert found.figures is not None
    left_out = found.figures["left_out"] + len(rows) - len(kept)
    return replace(found, figures=found.figures | {"left_out": left_out})


def _place(id: str, places: Mapping[str, Sequence[str]], file: str) -> str:
    """The benchmark that a verdict without one is about: the one that holds its id, "" if none does."""
    known = places.get(id, ())
    if len(known) > 1:
        raise BadData(
            f"{file}: id {id} is in {' and in '.join(known)}; judge again with --benchmark NAME (kept replies cost "
            "nothing), so that the verdicts say which is meant"
        )
    return known[0] if known else ""


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
            work.append((questions.name, Judge(settings, (ours, other)), pairs))
    if not work:
        raise ConfigError("judge_config: nothing to judge; it takes two models and free answers")
    first = work[0][1].endpoint
    estimate = sum_of([judge.estimate(pairs) for _, judge, pairs in work])
    print(f"judge: {estimate}", file=sys.stderr)
    confirm(first, settings.confirm_above, estimate, yes=yes)
    rows: list[dict[str, Any]] = []
    for name, judge, pairs in work:
        judge.endpoint.purse = first.purse
        more, stopped = run(judge, pairs)
        if stopped is not None:
            raise stopped
        rows += [{**row, "benchmark": name} for row in more]
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


def voted(
    path: str, study: str, models: Sequence[str], places: Mapping[str, Sequence[str]]
) -> Opinion:
    """The physicians' votes on these models; places as for judged(). Raises what read_votes raises."""
    if not path:
        return Opinion()
    votes = read_votes(_path(path), study, models)
    figures, stick = of_votes(votes, models, places)
    return Opinion(figures, {f"votes: {votes.source}": votes.sha256}, (stick,))


def consulted(path: str) -> Opinion:
    """The JSON of training.multiturn. Raises BadData if it is none."""
    if not path:
        return Opinion()
    place = _path(path)
    try:
        figures = json.loads(place.read_text(encoding="utf-8-sig"))
        models = figures["models"]
        names = [[list(each[key]) for key in ("shares", "means")] for each in models.values()]
        same = models and all(own == names[0] for own in names)
        if not same or not isinstance(figures["note"]["en"], str):
            raise ValueError
        for each in models.values():
            _check_talks(each)
    except OSError as error:
        raise BadData(f"{place.name}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadData(
            f"{place.name}: not what training.multiturn writes (`models` with figures)"
        ) from None
    kept = {model: {k: v for k, v in each.items() if k != "cases"} for model, each in models.items()}  # fmt: skip
    return Opinion({**figures, "models": kept}, {f"consultations: {place.name}": Source(place).sha256()})  # fmt: skip


def _check_talks(each: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError unless these are one model's figures as training.multiturn writes them."""
    counts = [each["consultations"], *each["unfinished"].values()]
    numbers = [
        n for one in each["shares"].values() for n in (one["value"], one["low"], one["high"])
    ]
    numbers += [one["value"] for one in each["means"].values()]
    if not all(isinstance(n, int) for n in counts):
        raise ValueError
    if not all(math.isfinite(n) for n in numbers if n is not None):
        raise ValueError


def _path(text: str) -> Path:
    return Path(text) if Path(text).is_absolute() else ROOT / text
