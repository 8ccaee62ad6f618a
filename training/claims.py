"""what the four models of the paper's argument do, who wins, and which of its claims hold in how many seeds.

Asking back, naming and fluency are counts of strings (training/examine.py); wins are the offline rubric's, a yardstick of
the toy world and no physician (training/rubric.py NOTE). A claim is looked at seed by seed; nothing is averaged away.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.cases import Case
from training.examine import asks_back, names_one
from training.plots import bars, wilson
from training.report import Page
from training.rubric import NOTE, RubricJudge
from training.verdict import distinct, interval

CONTESTANTS = ("distilled", "doctor", "hybrid", "refined")
TITLES = {
    "distilled": "distilled data only",
    "doctor": "doctors' data only",
    "hybrid": "hybrid",
    "refined": "hybrid + RL",
}
MATCHES = (("hybrid", "distilled"), ("hybrid", "doctor"), ("refined", "hybrid"), ("refined", "distilled"), ("refined", "doctor"))  # fmt: skip
SHARES = ("asks_incomplete", "fits_incomplete", "names_complete", "fluent")
_SENTENCE = re.compile(r"[。！？?!\n]+")

Figures = dict[str, float]
Seed = dict[str, Any]
"""{"figures": {contestant: Figures}, "wins": {"hybrid > doctor": (share, low, high)}}."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to the cases, in order; finished: whether each ended by itself."""

    name: str
    cases: list[Case]
    texts: list[str]
    finished: list[bool]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper in small, and what must be so in a seed for it to hold."""

    says: str
    holds: Callable[[Seed], bool]


def _of(seed: Seed, name: str, figure: str) -> float:
    return float(seed["figures"][name][figure])


def _beats(winner: str, loser: str) -> Callable[[Seed], bool]:
    return lambda seed: seed["wins"][f"{winner} > {loser}"][1] > 0.5


CLAIMS = (
    Claim("Distilled data alone: under 10 % of incomplete openers are asked back.",
          lambda s: _of(s, "distilled", "asks_incomplete") < 0.1),
    Claim("Doctors' data alone: over 60 % are asked back.",
          lambda s: _of(s, "doctor", "asks_incomplete") > 0.6),
    Claim("Doctors' data alone is terse: its answers to complete openers are shorter than the distilled model's.",
          lambda s: _of(s, "doctor", "length_complete") < _of(s, "distilled", "length_complete")),
    Claim("The hybrid asks back at least 30 points more often than the distilled model.",
          lambda s: _of(s, "hybrid", "asks_incomplete") >= _of(s, "distilled", "asks_incomplete") + 0.3),
    Claim("The hybrid names condition or department at least as often as either of its parts.",
          lambda s: _of(s, "hybrid", "names_complete")
          >= max(_of(s, part, "names_complete") for part in ("distilled", "doctor"))),
    Claim("The hybrid beats the distilled model (interval above 50 %).", _beats("hybrid", "distilled")),
    Claim("The hybrid beats the doctor model (interval above 50 %).", _beats("hybrid", "doctor")),
    Claim("RL beats the hybrid it started from (interval above 50 %).", _beats("refined", "hybrid")),
    Claim("RL asks back at least as often as the hybrid.",
          lambda s: _of(s, "refined", "asks_incomplete") >= _of(s, "hybrid", "asks_incomplete")),
    Claim("RL names condition or department at most 3 points less often than the hybrid.",
          lambda s: _of(s, "refined", "names_complete") >= _of(s, "hybrid", "names_complete") - 0.03),
)  # fmt: skip


def summary(found: Mapping[int, Sequence[Answers]]) -> dict[str, Any]:
    """The report for machines: figures and wins per seed, and the claims with the seeds in which each holds."""
    seeds = {str(seed): _seed(answers, seed) for seed, answers in found.items()}
    return {
        "cases": {str(seed): len(answers[0].cases) for seed, answers in found.items()},
        "seeds": seeds,
        "claims": [
            {
                "claim": claim.says,
                "holds": sum(claim.holds(s) for s in seeds.values()),
                "seeds": len(seeds),
                "in": [name for name, s in seeds.items() if claim.holds(s)],
            }
            for claim in CLAIMS
        ],
        "judge": RubricJudge.name,
        "note": NOTE["en"],
    }


def _seed(answers: Sequence[Answers], seed: int) -> Seed:
    by_name = {a.name: a for a in answers}
    return {
        "figures": {name: figures(by_name[name]) for name in CONTESTANTS},
        "wins": {
            f"{first} > {second}": wins(by_name[first], by_name[second], seed)
            for first, second in MATCHES
        },
    }


def figures(answers: Answers) -> Figures:
    """Shares in [0, 1], lengths in characters, and the rubric's mean score by kind of opener."""
    judge = RubricJudge()
    rows = list(zip(answers.cases, answers.texts, answers.finished, strict=True))
    complete = [(c, t) for c, t, _ in rows if c.kind == "complete"]
    incomplete = [(c, t) for c, t, _ in rows if c.kind == "incomplete"]
    return {
        "asks_incomplete": _mean([asks_back(t) for _, t in incomplete]),
        "asks_complete": _mean([asks_back(t) for _, t in complete]),
        "fits_incomplete": _mean([names_one(t, c.asks) for c, t in incomplete]),
        "names_complete": _mean([names_one(t, c.names) for c, t in complete]),
        "fluent": _mean([done and not _repeats(t) for _, t, done in rows]),
        "length_complete": _mean([len(t) for _, t in complete]),
        "length_incomplete": _mean([len(t) for _, t in incomplete]),
        "distinct_2": round(distinct(answers.texts, 2), 4),
        "rubric_complete": _mean([judge.grade(c, t).score for c, t in complete]),
        "rubric_incomplete": _mean([judge.grade(c, t).score for c, t in incomplete]),
    }


def wins(first: Answers, second: Answers, seed: int) -> tuple[float, float, float]:
    """(share won by `first`, a tie counting half, and its 95 % interval by bootstrap over cases)."""
    judge = RubricJudge()
    worth = {"a": 1.0, "tie": 0.5, "b": 0.0}
    points = np.array(
        [
            worth[judge.compare(case, one, other).winner]
            for case, one, other in zip(first.cases, first.texts, second.texts, strict=True)
        ]
    )
    low, high = interval(points, seed)
    return round(float(points.mean()), 4), round(low, 4), round(high, 4)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0


def _repeats(text: str) -> bool:
    """Whether a sentence of at least six characters stands twice in the text."""
    said = [part.strip() for part in _SENTENCE.split(text) if len(part.strip()) >= 6]
    return len(said) != len(set(said))


def page(report: Mapping[str, Any], found: Mapping[int, Sequence[Answers]]) -> Page:
    """The report for people: the claims first, then figures by seed, wins, and answers side by side."""
    sheet = Page(
        "The paper's argument in small",
        f"{len(found)} seeds. Wins by the offline rubric. {NOTE['en']}",
    )
    sheet.heading("Does it hold?").table(
        [(c["claim"], f"{c['holds']} of {c['seeds']}", ", ".join(c["in"])) for c in report["claims"]],
        ["claim", "holds in", "seeds"],
    )  # fmt: skip
    sheet.heading("What each model does")
    labels = {
        "asks_incomplete": "Asks back on incomplete openers",
        "fits_incomplete": "Asks what fits the complaint, on incomplete openers",
        "names_complete": "Names condition or department, on complete openers",
        "fluent": "Ends by itself and repeats no sentence",
    }
    kinds = {
        key: sum(
            case.kind == key.rpartition("_")[2] for case in next(iter(found.values()))[0].cases
        )
        for key in SHARES[:3]
    } | {"fluent": len(next(iter(found.values()))[0].cases)}
    for key in SHARES:
        groups = {
            TITLES[name]: {
                f"seed {seed}": _with_interval(s["figures"][name][key], kinds[key])
                for seed, s in report["seeds"].items()
            }
            for name in CONTESTANTS
        }
        sheet.figure(bars(groups, labels[key]), "One bar per seed, with 95 % Wilson intervals.")
    sheet.table(
        [
            {"model": TITLES[name], "seed": seed, **s["figures"][name]}
            for name in CONTESTANTS
            for seed, s in report["seeds"].items()
        ]
    )
    sheet.heading("Who wins")
    sheet.figure(
        bars(
            {
                f"{TITLES[a]} against {TITLES[b]}": {
                    f"seed {seed}": s["wins"][f"{a} > {b}"] for seed, s in report["seeds"].items()
                }
                for a, b in MATCHES
            },
            "share of cases won, a tie counts half",
            reference=0.5,
        ),
        "95 % intervals by bootstrap over the cases of a seed.",
    )
    seed, answers = next(iter(found.items()))
    sheet.heading(f"Answers, seed {seed}").samples(
        [
            {"prompt": case.question, "answers": {TITLES[a.name]: a.texts[i] for a in answers}}
            for i, case in enumerate(answers[0].cases[:8])
        ]
    )
    return sheet


def _with_interval(share: float, count: int) -> tuple[float, float, float]:
    return (share, *wilson(share, count))
