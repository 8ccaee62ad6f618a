"""what an evaluation measures of its answers: metrics with intervals and paired tests, accuracies, counts of failures.

Models are compared on the questions that all of them answered, so that numbers stand on the same texts; who failed how
often stands beside. A model without a single answer is left out by name. Differences are tested by pair of models, with
Holm's correction over the metrics of the pair.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.answer_cache import digest
from training.choice import Marked, letters_of, paired, tally
from training.generate import Answers
from training.questions import Questions
from training.scores import METRICS, Convention, Floats, Scores, score
from training.significance import compare, holm, intervals

FEWEST_BY_LABEL = 3
"""Fewer questions than this under a label give no value of their own."""


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class Measured:
    """One benchmark's figures, for JSON, and per question the score that examples are chosen by, by model."""

    figures: dict[str, Any]
    each: dict[str, dict[str, float]]


def counts(found: Mapping[str, Answers]) -> dict[str, Any]:
    """By model: questions asked, finished answers, failures by kind, empty answers, mean length in characters."""
    result: dict[str, Any] = {}
    for model, answers in found.items():
        said = [kept.text for kept in answers.by.values() if kept.is_answer]
        result[model] = {
            "asked": len(answers.by),
            "finished": len(said),
            "failed": answers.failures,
            "empty": sum(not text.strip() for text in said),
            "mean_characters": sum(map(len, said)) / len(said) if said else None,
        }
    return result


def metrics(
    questions: Questions, found: Mapping[str, Answers], convention: Convention, draws: Draws
) -> Measured:
    """BLEU, GLEU, ROUGE and Distinct of every model on the questions that all answered, and all pairs' differences.

    figures: {questions, of, left_out, scored (digest of the ids), scores: {model: {metric: {value, interval}}}, differences: [...], by_label}.
    Raises what `score` raises.
    """
    kept, left_out = _entrants(questions, found)
    items = [
        item for item in questions.items if all(found[m].by[item.id].is_answer for m in kept)
    ]  # fmt: skip
    figures: dict[str, Any] = {"questions": len(items), "of": len(questions.items), "left_out": left_out,
                               "scored": digest(sorted(item.id for item in items)),
                               "scores": {}, "differences": [], "by_label": {}}  # fmt: skip
    if not items or not kept:
        return Measured(figures, {})
    references = [item.references for item in items]
    scores = {
        model: score([found[model].by[item.id].text for item in items], references, convention)
        for model in kept
    }
    figures["scores"] = {model: _values(each, draws) for model, each in scores.items()}
    figures["differences"] = _differences(scores, draws)
    labels = [item.label for item in items]
    figures["by_label"] = _by_label(scores, labels)
    each = {
        model: dict(zip((item.id for item in items), _rouge_l(one), strict=True))
        for model, one in scores.items()
    }
    return Measured(figures, each if questions.references else {})


def _entrants(
    questions: Questions, found: Mapping[str, Answers]
) -> tuple[list[str], dict[str, str]]:
    """(models whose answers are scored, why the others are not)."""
    left_out = {}
    references = [item.references for item in questions.items]
    for model, answers in found.items():
        texts = [answers.by[item.id] for item in questions.items]
        if not any(kept.is_answer for kept in texts):
            left_out[model] = "no finished answer"
        elif questions.references and all(
            kept.text in own for kept, own in zip(texts, references, strict=True)
        ):
            left_out[model] = "its answers are the references"
    return [model for model in found if model not in left_out], left_out


def _values(scores: Scores, draws: Draws) -> dict[str, Any]:
    bounds = intervals(scores.columns, scores.finish, resamples=draws.resamples, seed=draws.seed)
    limits = dict(zip(scores.names, bounds.tolist(), strict=True))
    return {
        name: {"value": value, "interval": limits.get(name) if value is not None else None}
        for name, value in scores.values.items()
    }


def _differences(scores: Mapping[str, Scores], draws: Draws) -> list[dict[str, Any]]:
    """Every pair of models, the first minus the second, in the models' order."""
    found = []
    for a, b in itertools.combinations(scores, 2):
        one, two = scores[a], scores[b]
        places = [i for i, name in enumerate(one.names) if one.values[name] is not None]

        def finish(sums: Floats, questions: int, own: Scores = one, at: Sequence[int] = places) -> Floats:  # fmt: skip
            return own.finish(sums, questions)[..., list(at)]

        names = [one.names[i] for i in places]
        tested = compare(
            one.columns, two.columns, finish, names, resamples=draws.resamples, seed=draws.seed
        )
        found += [{"a": a, "b": b, **asdict(each)} for each in tested]
    return found


def _by_label(scores: Mapping[str, Scores], labels: Sequence[str]) -> dict[str, Any]:
    """By label: the number of questions and each model's metrics; nothing where there is one label only."""
    names = sorted(set(labels) - {""})
    result: dict[str, Any] = {}
    if len(names) < 2:
        return result
    for name in names:
        rows = [place for place, label in enumerate(labels) if label == name]
        if len(rows) < FEWEST_BY_LABEL:
            continue
        by_model = {}
        for model, each in scores.items():
            values = each.finish(each.columns[rows].sum(0), len(rows))
            known = zip(each.names, values.tolist(), strict=True)
            by_model[model] = {n: v for n, v in known if each.values[n] is not None}
        result[name] = {"questions": len(rows), "scores": by_model}
    return result


def _rouge_l(scores: Scores) -> list[float]:
    """ROUGE-L of each answer by itself."""
    at = METRICS.index("rouge-l")
    return [float(scores.finish(row, 1)[at]) for row in scores.columns]


def mark(questions: Questions, answers: Answers) -> list[Marked]:
    """The items with what a model said to each."""
    marked = []
    for item in questions.items:
        kept, letters = answers.by[item.id], answers.letters.get(item.id)
        said = letters_of(kept.text, item.options) if kept.is_answer else None
        likeliest = letters.text if letters is not None and letters.is_answer else ""
        marked.append(Marked(item, said, not kept.is_answer, likeliest))
    return [m for m in marked if m.item.answer]


def choices(questions: Questions, found: Mapping[str, Answers], draws: Draws) -> Measured:
    """Accuracies by model, whole and by subject, and the paired differences, Holm's correction over all pairs.

    Items without a published answer are asked and not counted; `unmarked` says how many.
    """
    marked = {model: mark(questions, answers) for model, answers in found.items()}
    differences: list[dict[str, Any]] = []
    for a, b in itertools.combinations(marked, 2):
        tested = paired(marked[a], marked[b], draws.resamples, draws.seed)
        if tested is not None:
            differences.append({"a": a, "b": b, "metric": "accuracy", **tested})
    if differences:
        raised = holm(np.array([row["p"] for row in differences]))
        for row, p in zip(differences, raised.tolist(), strict=True):
            row["p_holm"] = p
    figures = {
        "unmarked": sum(not item.answer for item in questions.items),
        "models": {model: tally(rows) for model, rows in marked.items()},
        "differences": differences,
    }
    each = {
        model: {m.item.id: float(m.right) for m in rows if not m.failed}
        for model, rows in marked.items()
    }
    return Measured(figures, each)
