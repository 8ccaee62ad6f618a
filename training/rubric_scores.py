"""scores of graded answers: by case, tag and axis with intervals, worst of k, and the grader against physicians.

As HealthBench counts (Arora et al. 2025; openai/simple-evals, healthbench_eval.py): a case's score is the points of the
criteria that are met, faults taken off, divided by those above 0; it may be below 0; means over cases are cut to 0..1.
A criterion's tag is scored within each case that has points above 0 there; a case's tag takes the whole case's score.
A case with a criterion that could not be graded has no score: a failure never counts as "not met".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.rubric_cases import Criterion, Label, RubricCase
from training.significance import intervals

Floats = NDArray[np.float64]
Met = Sequence[bool | None]
DRAWS = 1000


def score(criteria: Sequence[Criterion], met: Met) -> float | None:
    """Points reached divided by points above 0; None where there are none or a criterion has no grade."""
    possible = sum(c.points for c in criteria if c.points > 0)
    if not possible or any(one is None for one in met):
        return None
    return sum(c.points for c, one in zip(criteria, met, strict=True) if one) / possible


def worst_of(scores: Sequence[float], k: int) -> float:
    """The expected lowest of k of these scores drawn without putting back. Raises ValueError for k out of range.

    Source: the unbiased estimate behind HealthBench's worst-at-k, over sorted scores and binomial coefficients.
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, there are {n} scores")
    return sum(
        value * math.comb(n - place, k - 1) for place, value in enumerate(sorted(scores), 1)
    ) / math.comb(n, k)


def summary(
    cases: Mapping[str, RubricCase], grades: Mapping[tuple[str, int], Met], seed: int = 0
) -> dict[str, Any]:
    """All scores, ready for JSON. grades: (case, sample from 1) -> met by criterion, None where it has no grade.

    worst_at: k to the mean over cases that have all samples. Intervals draw whole cases, with all their samples.
    """
    by_case: dict[str, list[float]] = {}
    by_tag: dict[str, dict[str, list[float]]] = {}
    for (id, _), met in sorted(grades.items()):
        case = cases[id]
        whole = score(case.criteria, met)
        if whole is None:
            continue
        by_case.setdefault(id, []).append(whole)
        for tag in case.tags:
            by_tag.setdefault(tag, {}).setdefault(id, []).append(whole)
        for tag in sorted({tag for c in case.criteria for tag in c.tags} - set(case.tags)):
            own = [(c, m) for c, m in zip(case.criteria, met, strict=True) if tag in c.tags]
            part = score([c for c, _ in own], [m for _, m in own])
            if part is not None:
                by_tag.setdefault(tag, {}).setdefault(id, []).append(part)
    samples = max((sample for _, sample in grades), default=0)
    full = [scores for scores in by_case.values() if len(scores) == samples]
    return {
        "cases": len({id for id, _ in grades}),
        "samples": samples,
        "answers": len(grades),
        "not_graded": len(grades) - sum(map(len, by_case.values())),
        "score": _clipped([float(np.mean(s)) for s in by_case.values()], seed),
        "tags": {
            tag: _clipped([float(np.mean(s)) for s in scores.values()], seed)
            for tag, scores in sorted(by_tag.items())
        },
        "worst_at": {
            str(k): _clipped([worst_of(scores, k) for scores in full], seed)
            for k in range(1, samples + 1)
        }
        if samples > 1
        else {},
        "criteria": _criteria(cases, grades),
    }


def against_physicians(
    cases: Mapping[str, RubricCase],
    grades: Mapping[tuple[str, int], Met],
    labels: Sequence[Label],
    seed: int = 0,
) -> dict[str, Any]:
    """The grader's macro F1 against each physician's label, beside physicians' against each other; also by tag.

    Macro F1: mean of the F1 of "met" and of "not met" over all pairs (grade, label), or of ordered pairs of labels on
    the same answer and criterion. Intervals draw whole cases. Source: HealthBench's meta-evaluation (Arora et al. 2025).
    """
    by_tag: dict[str, list[Label]] = {}
    for label in labels:
        for tag in cases[label.case].criteria[label.place].tags:
            by_tag.setdefault(tag, []).append(label)
    return {
        "labels": len(labels),
        "raters": len({label.rater for label in labels}),
        "whole": _meta(grades, labels, seed),
        "tags": {tag: _meta(grades, own, seed) for tag, own in sorted(by_tag.items())},
    }


def macro_f1(tables: Floats) -> Floats:
    """Tables (..., 4) of (both met, only the first, only the second, neither) -> (...); a class nobody names counts 0."""
    both, first, second, neither = np.moveaxis(tables, -1, 0)
    wrong = first + second
    halves = [2 * hit / np.maximum(2 * hit + wrong, 1e-12) for hit in (both, neither)]
    return np.asarray((halves[0] + halves[1]) / 2)


def _meta(
    grades: Mapping[tuple[str, int], Met], labels: Sequence[Label], seed: int
) -> dict[str, Any]:
    own: dict[str, Floats] = {}
    theirs: dict[str, Floats] = {}
    items: dict[tuple[str, int, int], list[bool]] = {}
    for label in labels:
        met = grades.get((label.case, label.sample))
        grade = met[label.place] if met is not None else None
        if grade is not None:
            own.setdefault(label.case, np.zeros(4))[_cell(grade, label.met)] += 1
        items.setdefault((label.case, label.sample, label.place), []).append(label.met)
    for (case, _, _), said in items.items():
        for i, one in enumerate(said):
            for j, other in enumerate(said):
                if i != j:
                    theirs.setdefault(case, np.zeros(4))[_cell(one, other)] += 1
    return {"grader": _f1(own, seed), "physicians": _f1(theirs, seed)}


def _cell(one: bool, other: bool) -> int:
    return 0 if one and other else 1 if one else 2 if other else 3


def _f1(tables: Mapping[str, Floats], seed: int) -> dict[str, Any] | None:
    if not tables:
        return None
    columns = np.stack(list(tables.values()))
    total = columns.sum(0)

    def finish(sums: Floats, _: int) -> Floats:
        return macro_f1(sums)[..., None]

    low, high = intervals(columns, finish, resamples=DRAWS, seed=seed)[0]
    return {
        "value": float(macro_f1(total)),
        "low": float(low),
        "high": float(high),
        "pairs": int(total.sum()),
        "agreement": float((total[0] + total[3]) / total.sum()),
    }


def _clipped(values: Sequence[float], seed: int) -> dict[str, Any] | None:
    if not values:
        return None
    column = np.array(values, np.float64)[:, None]

    def finish(sums: Floats, count: int) -> Floats:
        return np.clip(sums / count, 0, 1)

    low, high = intervals(column, finish, resamples=DRAWS, seed=seed)[0]
    value = float(np.clip(column.mean(), 0, 1))
    return {"value": value, "low": float(low), "high": float(high), "n": len(values)}


def _criteria(
    cases: Mapping[str, RubricCase], grades: Mapping[tuple[str, int], Met]
) -> dict[str, int]:
    """How many criteria of each kind are met, of how many graded."""
    counts = dict.fromkeys(("good_met", "good", "faults_met", "faults", "without_grade"), 0)
    for (id, _), met in grades.items():
        for criterion, one in zip(cases[id].criteria, met, strict=True):
            if one is None:
                counts["without_grade"] += 1
                continue
            kind = "good" if criterion.points > 0 else "faults"
            counts[kind] += 1
            counts[f"{kind}_met"] += one
    return counts
