"""the three yardsticks beside each other: verdicts of a judge, votes of physicians, automatic metrics, and their agreement.

A yardstick says of each pair of models who is better and how surely. Agreement is the share of pairs with the same winner
among those that both decide, and the rank correlation over models; with few models both say little, and that is said.
Between judge, physicians and a metric it is also counted question by question.
"""

import contextlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from huatuo.errors import ConfigError, NoData
from huatuo.toml import shown_path
from reviews import stats
from reviews.database import DEFAULT_NAME
from reviews.errors import RecordError
from reviews.records import VoteCount, VoteRow, case_of, winner_of
from reviews.stats import wilson
from reviews.store import Store
from training.data import BadData
from training.plots import ranks
from training.rows import Source, csv_rows
from training.significance import intervals

Pair = tuple[str, str]
EXPORTED = ("study", "case", "rater", "contestant_a", "contestant_b", "choice", "left_is")
"""Columns of votes.csv that must be there."""
FEW_MODELS = 6
"""With fewer models a rank correlation can hardly be told from chance: of 5, p < 0.05 needs a perfect one."""


@dataclass(frozen=True)
class Yardstick:
    """What one yardstick says.

    of: model to score, higher is better; of models that can be ranked together. pairs: (first, second) to -1..1, above
    0 for the first. sure: pairs whose 95 % interval leaves out 0. each: pair to question (named()) to 1 (first), 0
    (equal) or -1.
    """

    name: str
    of: Mapping[str, float]
    pairs: Mapping[Pair, float]
    sure: frozenset[Pair] = frozenset()
    each: Mapping[Pair, Mapping[str, int]] = field(default_factory=dict)


def named(benchmark: str, id: str) -> str:
    """A question among those of all benchmarks, whose ids may be the same; benchmark: "" for none of them."""
    return f"{benchmark}/{id}" if benchmark else id


@dataclass(frozen=True)
class Votes:
    """Physicians' votes on the models of an evaluation. left_out: votes on others. sha256: of what they were read from."""

    rows: Sequence[VoteCount]
    cases: Sequence[str]
    """Of each row, the id in the study's file."""
    left_out: int
    raters: int
    source: str
    sha256: str


def read_votes(path: Path, study: str, models: Iterable[str]) -> Votes:
    """The votes of a record's folder, or of an export (the folder with votes.csv), on pairs of these models.

    Raises NoData for none, BadData for a damaged export, ConfigError for neither, and what opening a record raises.
    """
    if (path / "votes.csv").is_file():
        found = [_vote(row) for _, row in exported(path / "votes.csv", study)]
        sha256 = Source(path / "votes.csv").sha256()
    elif (path / DEFAULT_NAME).is_file():
        try:
            with contextlib.closing(Store.open(path / DEFAULT_NAME)) as store:
                sha256 = str(store.verify_audit().last_hash)
                found = [(row.external_id, _count(row)) for row in store.votes(study or None)]
        except RecordError as error:
            raise ConfigError(f"votes: {shown_path(path)}: {error}") from None
    else:
        raise ConfigError(f"votes: {shown_path(path)} holds neither {DEFAULT_NAME} nor votes.csv")
    wanted = set(models)
    own = [(case, v) for case, v in found if {v.contestant_a, v.contestant_b} <= wanted]
    if not own:
        raise NoData(
            f"votes: {shown_path(path)} holds {len(found)} votes, none on two of the models "
            f"{', '.join(sorted(wanted))}; contestants are matched by name"
        )
    raters = len({vote.rater for _, vote in own})
    return Votes(
        [v for _, v in own], [case for case, _ in own], len(found) - len(own), raters, path.name, sha256,
    )  # fmt: skip


def _count(row: VoteRow) -> VoteCount:
    return VoteCount(
        row.study, row.contestant_a, row.contestant_b, row.case, row.choice, row.left_is, row.rater, 1
    )  # fmt: skip


def exported(path: Path, study: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of the votes in an export's votes.csv, ratings and spans read; a senior's verdicts are left out.

    study: only of this one. Raises BadData with file and line for a cell that no export writes.
    """
    for place, row in csv_rows(Source(path), EXPORTED):
        if (study and row["study"] != study) or row.get("purpose", "vote") != "vote":
            continue
        if row["choice"] not in ("left", "right", "tie", "both_bad") or row["left_is"] not in ("a", "b"):  # fmt: skip
            raise BadData(f"{place}: choice or left_is is none that a vote can have")
        if not row["rater"].isdecimal():
            raise BadData(f"{place}: rater {row['rater'][:20]!r} is no number")
        for key in ("case", "contestant_a", "contestant_b", "department"):
            if (
                key in row
            ):  # without the apostrophe that keeps spreadsheets from taking it for a formula
                row[key] = row[key].removeprefix("'")
            if key != "department" and not row[key].strip():
                raise BadData(f"{place}: {key} is empty")
        for key, kind in (("ratings", dict), ("spans", list)):
            if key in row:
                row[key] = _json(row[key], kind, f"{place}: {key}")
        yield place, row


def _json(text: str, kind: type, place: str) -> Any:
    try:
        found = json.loads(text) if text else kind()
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise BadData(f"{place} is not what an export writes")
    return found


def _vote(row: Mapping[str, Any]) -> tuple[str, VoteCount]:
    case = case_of(row["study"], row["case"], row["case"])
    return row["case"], VoteCount(row["study"], row["contestant_a"], row["contestant_b"], case,
                                  row["choice"], row["left_is"], int(row["rater"]), 1)  # fmt: skip


def of_votes(
    votes: Votes, order: Sequence[str] = (), places: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, Any], Yardstick]:
    """(figures for JSON, the yardstick): wins, ties, losses with Wilson intervals, and the board's scores.

    order: of the models in a pair, where it is not that of their names. places: id to the benchmarks that hold it; a
    case that several hold is left out where yardsticks are compared question by question.
    """
    found = stats.pairs(votes.rows)
    board = stats.board(votes.rows)
    figures: dict[str, Any] = {
        "votes": len(votes.rows), "raters": votes.raters, "left_out": votes.left_out,
        "source": votes.source, "clustered_by": board.clustered_by, "notes": list(board.notes),
        "pairs": _in_order([
            {"a": p.first, "b": p.second, "win": p.wins, "tie": p.ties + p.both_bad, "loss": p.losses,
             "both_bad": p.both_bad, "share": _points(votes, (p.first, p.second)), "win_interval": list(p.win_interval), "loss_interval": list(p.loss_interval)}
            for p in found
        ], order),
        "board": [
            {"model": r.name, "score": r.score.value, "interval": [r.score.low, r.score.high], "votes": r.votes,
             "rank": r.rank, "group": r.group}
            for r in board.ratings
        ],
    }  # fmt: skip
    sure = {
        (p.first, p.second)
        for p in found
        if p.wins + p.losses and not p.decisive_interval[0] <= 0.5 <= p.decisive_interval[1]
    }
    each: dict[Pair, dict[str, int]] = defaultdict(dict)
    sums: dict[tuple[Pair, str], int] = Counter()
    for case, vote in zip(votes.cases, votes.rows, strict=True):
        if case and len((places or {}).get(case, ())) < 2:
            pair, sign = _ordered(vote.contestant_a, vote.contestant_b)
            winner = winner_of(vote.choice, vote.left_is)
            sums[pair, case] += sign * {"a": 1, "b": -1}.get(winner, 0)
    for (pair, case), value in sums.items():
        each[pair][named("".join((places or {}).get(case, ())), case)] = int(np.sign(value))
    together = board.groups[0] if board.groups else ()
    return figures, Yardstick(
        "physicians",
        {r.name: r.score.value for r in board.ratings if r.name in together},
        {(p.first, p.second): (p.wins - p.losses) / p.total for p in found},
        frozenset(sure),
        each,
    )


def _in_order(pairs: list[dict[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs with the model first that stands first in `order`."""
    place = {model: number for number, model in enumerate(order)}
    turned = []
    for pair in pairs:
        if place.get(pair["a"], 0) > place.get(pair["b"], 0):
            share = pair["share"]
            pair = {
                **pair, "a": pair["b"], "b": pair["a"], "win": pair["loss"], "loss": pair["win"],
                "win_interval": pair["loss_interval"], "loss_interval": pair["win_interval"],
                "share": {"value": 1 - share["value"], "low": 1 - share["high"], "high": 1 - share["low"]},
            }  # fmt: skip
        turned.append(pair)
    return sorted(turned, key=lambda pair: (place.get(pair["a"], 0), place.get(pair["b"], 0)))


def _points(votes: Votes, pair: Pair, resamples: int = 2000) -> dict[str, float]:
    """The first model's share of points, a tie as half, with a percentile bootstrap interval over cases."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for vote in votes.rows:
        own, sign = _ordered(vote.contestant_a, vote.contestant_b)
        if own == pair:
            value = sign * {"a": 1, "b": -1}.get(winner_of(vote.choice, vote.left_is), 0)
            sums[vote.case][0] += (1 + value) / 2
            sums[vote.case][1] += 1
    table = np.array(list(sums.values()))
    ((low, high),) = intervals(table, lambda s, _: s[..., :1] / s[..., 1:], resamples=resamples)
    return {"value": float(table[:, 0].sum() / table[:, 1].sum()), "low": float(low), "high": float(high)}  # fmt: skip


def _ordered(a: str, b: str) -> tuple[Pair, int]:
    """(the pair by name, 1 or -1 if it was turned)."""
    return ((a, b), 1) if a <= b else ((b, a), -1)


def of_verdicts(summaries: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Yardstick:  # fmt: skip
    """The judge's: each model's mean points over all its verdicts (a tie is half)."""
    points: dict[str, list[float]] = defaultdict(list)
    each: dict[Pair, dict[str, int]] = defaultdict(dict)
    for row in rows:
        if row["winner"] is None:
            continue
        value = {"a": 1, "b": -1, "tie": 0}[row["winner"]]
        points[row["model_a"]].append((1 + value) / 2)
        points[row["model_b"]].append((1 - value) / 2)
        pair, sign = _ordered(row["model_a"], row["model_b"])
        each[pair][named(row.get("benchmark") or "", row["id"])] = sign * value
    pairs: dict[Pair, float] = {}
    sure = set()
    for found in summaries:
        if found["share"] is None:
            continue
        pair, sign = _ordered(found["model_a"], found["model_b"])
        pairs[pair] = sign * (2 * found["share"]["value"] - 1)
        if not found["share"]["low"] <= 0.5 <= found["share"]["high"]:
            sure.add(pair)
    means = {model: float(np.mean(values)) for model, values in sorted(points.items())}
    return Yardstick("judge", means, pairs, frozenset(sure), each)


def of_metric(
    name: str,
    metric: str,
    scores: Mapping[str, float],
    differences: Sequence[Mapping[str, Any]],
    each: Mapping[str, Mapping[str, float]] | None = None,
) -> Yardstick:
    """A metric's: scores by model, its paired differences, and, where known, the score of each question."""
    pairs, sure = {}, set()
    for row in differences:
        if row["metric"] == metric:
            pair, sign = _ordered(row["a"], row["b"])
            pairs[pair] = sign * row["difference"]
            if not row["low"] <= 0 <= row["high"]:
                sure.add(pair)
    single: dict[Pair, dict[str, int]] = {}
    for a, b in itertools.combinations(sorted(each or {}), 2):
        assert each is not None
        single[a, b] = {
            id: int(np.sign(each[a][id] - each[b][id])) for id in each[a] if id in each[b]
        }
    return Yardstick(name, scores, pairs, frozenset(sure), single)


def agreement(yardsticks: Sequence[Yardstick], order: Sequence[str]) -> dict[str, Any]:
    """How far yardsticks agree, for JSON: {pairs, between, few_models}.

    order: of the models. pairs: who is ahead by each yardstick. between: for two yardsticks same winner {same, decided, interval}; rank
    correlation over the models both rank (Spearman; None under 3); questions {same, decided} where both decide.
    """
    pairs = {pair for stick in yardsticks for pair in stick.pairs}
    place = {model: number for number, model in enumerate(order)}
    ranked = sorted(tuple(sorted(pair, key=place.__getitem__)) for pair in pairs)
    ranked.sort(key=lambda pair: [place[model] for model in pair])
    models = {model for stick in yardsticks for model in stick.of}
    return {
        "yardsticks": [stick.name for stick in yardsticks],
        "models": len(models),
        "few_models": len(models) < FEW_MODELS,
        "pairs": [
            {"a": a, "b": b,
             "says": {s.name: _says(s, _ordered(a, b)[0]) for s in yardsticks if _ordered(a, b)[0] in s.pairs}}
            for a, b in ranked
        ],
        "between": [_between(one, two) for one, two in itertools.combinations(yardsticks, 2)],
    }  # fmt: skip


def _says(stick: Yardstick, pair: Pair) -> dict[str, Any]:
    value = stick.pairs[pair]
    ahead = pair[0] if value > 0 else pair[1] if value < 0 else ""
    return {"value": value, "ahead": ahead, "sure": pair in stick.sure}


def _between(one: Yardstick, two: Yardstick) -> dict[str, Any]:
    shared = [p for p in one.pairs if p in two.pairs and one.pairs[p] and two.pairs[p]]
    same = sum((one.pairs[p] > 0) == (two.pairs[p] > 0) for p in shared)
    both = sorted(set(one.of) & set(two.of))
    questions = [
        (value, two.each[pair][id])
        for pair, own in one.each.items()
        for id, value in own.items()
        if id in two.each.get(pair, {})
    ]
    decided = [(a, b) for a, b in questions if a and b]
    return {
        "one": one.name, "two": two.name,
        "same_winner": _share(same, len(shared)),
        "models": len(both),
        "rank_correlation": _spearman([one.of[m] for m in both], [two.of[m] for m in both]),
        "questions": _share(sum(a == b for a, b in decided), len(decided)) | {"compared": len(questions)},
    }  # fmt: skip


def _share(same: int, of: int) -> dict[str, Any]:
    return {"same": same, "decided": of, "interval": list(wilson(same, of)) if of else None}


def _spearman(one: Sequence[float], two: Sequence[float]) -> float | None:
    """Correlation of ranks; None for fewer than three models, or where one yardstick ranks all alike."""
    a, b = np.asarray(one, float), np.asarray(two, float)
    if len(a) < 3 or not np.ptp(a) or not np.ptp(b):
        return None
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])
