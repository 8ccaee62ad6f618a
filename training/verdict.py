"""a branch against its parent on held-out cases: who wins, who asks back, how long, how far apart, which metrics fell.

Both answer the same cases with the same settings and seeds. Wins are judged on cases that no training saw; intervals are
bootstraps over cases. Automatic metrics are the paper's ten, as training/scores.py counts them by default, against the
corpus's own held-out answers; how different the answers are from each other stands beside them and opens no gate.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from huatuo.config import Generation
from huatuo.errors import ConfigError, NoData
from huatuo.messages import Message
from huatuo.models.branch import check_parent, read_branch, tensors_of
from huatuo.models.trunk import Load, Trunk, load_trunk
from huatuo.prompts import encode
from training.cases import EMERGENCY, Case
from training.examine import asks_back
from training.feedback import Judge
from training.logprob import token_log_probs
from training.release_gates import Outcome
from training.rollout import Drawing, Rollouts, sample
from training.rubric import NOTE, Grade, RubricJudge, urges
from training.scores import score

RESAMPLES = 2000
KL_CASES = 64
SIDES = ("parent", "refined")


@dataclass(frozen=True)
class Answered:
    """The two sides' answers to the same questions, in order."""

    parent: list[str]
    refined: list[str]


@dataclass(frozen=True)
class Reference:
    """A held-out question with the corpus's own answer, empty for an emergency. opener: its kind there."""

    question: str
    answer: str
    opener: str


def read_references(files: Sequence[Path], most: int, seed: int = 0) -> list[Reference]:
    """Up to `most` first exchanges of held-out corpus files, each question once, in Chinese, always the same."""
    found: dict[str, Reference] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["language"] == "zh":
                question, answer = (turn["content"] for turn in row["messages"][:2])
                found[question] = Reference(question, answer, row["opener"])
    chosen = sorted(found.values(), key=lambda reference: reference.question)
    random.Random(seed).shuffle(chosen)
    if not chosen:
        raise NoData(
            "no held-out conversations to compare with; write the corpus: python -m training.corpus"
        )
    return chosen[:most]


class Pair:
    """A parent and the branch laid over it, on one trunk; answers as either."""

    def __init__(
        self,
        branch: Path,
        parent: Path,
        template: str,
        load: Load = "float32",
        device: str = "cpu",
    ) -> None:
        info = read_branch(branch)
        check_parent(info, parent)
        self.trunk, self.tokenizer = load_trunk(parent, info.blocks, load, device)
        self.template = template
        self.reference = self.trunk.branch().requires_grad_(False)
        self._sides = {
            "parent": {
                k: v.clone() for k, v in self.trunk.branch_tensors(self.trunk.policy).items()
            },
            "refined": tensors_of(branch),
        }

    def become(self, side: str) -> Trunk:
        """The trunk, saying what `parent` or `refined` says."""
        self.trunk.put(self.trunk.policy, self._sides[side])
        return self.trunk

    def answer(self, questions: Sequence[str], settings: Generation, seed: int) -> Answered:
        """Both sides' answers, drawn as the app draws them. Raises ConfigError for settings it cannot keep to."""
        if settings.repetition_penalty != 1 or settings.top_k:
            raise ConfigError(
                "the parent's file sets repetition_penalty or top_k, which an evaluation does not know"
            )
        how = self._drawing(settings, max(settings.temperature, 1e-2), settings.top_p)
        prompts = self._prompts(questions, settings)
        return Answered(
            *(self._texts(self._draw(self.become(side), prompts, how, seed)) for side in SIDES)
        )

    def _drawing(self, settings: Generation, temperature: float, top_p: float = 1.0) -> Drawing:
        ends = frozenset([int(self.tokenizer.eos_token_id)])
        return Drawing(
            settings.max_new_tokens,
            ends,
            int(self.tokenizer.pad_token_id),
            temperature,
            top_p=top_p,
        )

    def _prompts(self, questions: Sequence[str], settings: Generation) -> list[list[int]]:
        room = settings.context_tokens - settings.max_new_tokens
        return [
            encode(self.tokenizer, (Message("user", q),), self.template, max_tokens=room).ids
            for q in questions
        ]

    def _draw(
        self, trunk: Trunk, prompts: Sequence[Sequence[int]], how: Drawing, seed: int
    ) -> Rollouts:
        return sample(trunk, prompts, 1, how, torch.Generator(trunk.device).manual_seed(seed))

    def _texts(self, drawn: Rollouts) -> list[str]:
        return [
            self.tokenizer.decode(ids[answer], skip_special_tokens=True).strip()
            for ids, answer in zip(drawn.ids, drawn.answer, strict=True)
        ]

    @torch.no_grad()
    def kl(
        self, cases: Sequence[Case], settings: Generation, temperature: float, seed: int
    ) -> float:
        """Mean over answers of log p_refined - log p_parent, in nats per answer, on answers of the refined side.

        temperature: of the distributions compared, as in training.
        """
        trunk = self.become("refined")
        prompts = self._prompts([case.question for case in cases[:KL_CASES]], settings)
        batch = self._draw(trunk, prompts, self._drawing(settings, temperature), seed)
        asked = batch.answer[:, 1:]
        tokens = batch.ids[:, 1:][asked]
        told = [
            token_log_probs(
                branch(batch.states, batch.fed)[asked],
                trunk.vocabulary,
                tokens,
                temperature=temperature,
            )[0]
            for branch in (trunk.policy, self.reference)
        ]
        return float((told[0] - told[1]).sum()) / len(batch)


@dataclass(frozen=True)
class Judged:
    """Both sides' answers to the same cases, who won each, and the rubric's grades by side."""

    cases: Sequence[Case]
    said: Answered
    winners: list[str]
    grades: dict[str, list[Grade]]

    @property
    def points(self) -> np.ndarray:
        """(cases,) 1 for a win of the refined side, 0.5 for a tie, 0 for a loss."""
        return np.array([{"a": 1.0, "b": 0.0, "tie": 0.5}[winner] for winner in self.winners])

    def of(self, kind: str) -> list[int]:
        """Which cases are of a kind."""
        return [i for i, case in enumerate(self.cases) if case.kind == kind]

    def asks(self, side: str) -> float:
        """Share of incomplete openers that a side answers with a question."""
        rows = self.of("incomplete")
        return sum(asks_back(getattr(self.said, side)[i]) for i in rows) / max(len(rows), 1)

    def length(self, side: str) -> float:
        """Mean characters of a side's answers."""
        return float(np.mean([len(text) for text in getattr(self.said, side)]))

    def figures(self, seed: int) -> dict[str, Any]:
        """What a report says: wins, intervals, lengths, and the rubric by kind, side and part."""
        low, high = interval(self.points, seed)
        found: dict[str, Any] = {
            **{name: self.winners.count(sign) for name, sign in (("wins", "a"), ("losses", "b"), ("ties", "tie"))},
            "win_rate": float(self.points.mean()), "win_rate_low": low, "win_rate_high": high,
            **{f"length_{side}": self.length(side) for side in SIDES},
            **{f"asks_back_{side}": self.asks(side) for side in SIDES},
        }  # fmt: skip
        for kind in ("complete", "incomplete"):
            if rows := self.of(kind):
                found[f"win_rate_{kind}"] = float(self.points[rows].mean())
                for side in SIDES:
                    score, parts = _means([self.grades[side][i] for i in rows])
                    found |= {f"rubric_{kind}_{side}": score, f"parts_{kind}_{side}": parts}
        return found


def judged(
    pair: Pair, cases: Sequence[Case], settings: Generation, judge: Judge, seed: int
) -> Judged:
    """Both sides answer the cases and are compared. Raises NoData for cases that no judge can grade."""
    said = pair.answer([case.question for case in cases], settings, seed)
    winners = [
        judge.compare(c, a, b).winner
        for c, a, b in zip(cases, said.refined, said.parent, strict=True)
    ]
    rubric = RubricJudge()
    grades = {
        side: [rubric.grade(c, t) for c, t in zip(cases, getattr(said, side), strict=True)]
        for side in SIDES
    }
    return Judged(cases, said, winners, grades)


def compare(
    pair: Pair,
    cases: Sequence[Case],
    references: Sequence[Reference],
    settings: Generation,
    *,
    kl_budget: float,
    temperature: float,
    judge: Judge | None = None,
    seed: int = 0,
) -> tuple[Outcome, dict[str, Any], list[dict[str, Any]]]:
    """(what the gates ask about, further figures, sample rows for a report).

    settings: as the app draws answers, for the gates. The further figures hold "sampled" too: the same comparison with
    both drawing from their own whole distributions, where what learning moved shows before settings hide it.
    Raises NoData for cases that no judge can grade.
    """
    judge = judge or RubricJudge()
    served = judged(pair, cases, settings, judge, seed)
    own = settings.model_copy(update={"temperature": 1.0, "top_p": 1.0})
    sampled = judged(pair, cases, own, judge, seed)
    metrics, warned, variety = _against(pair, references, settings, seed)
    more = served.figures(seed) | variety
    outcome = Outcome(
        **{name: more[name] for name in ("win_rate", "win_rate_low", "win_rate_high")},
        kl=pair.kl(cases, settings, temperature, seed),
        kl_budget=kl_budget,
        length_ratio=more["length_refined"] / max(more["length_parent"], 1.0),
        asks_back_parent=more["asks_back_parent"],
        asks_back=more["asks_back_refined"],
        metrics_parent=metrics["parent"],
        metrics=metrics["refined"],
        red_flags_parent=warned["parent"],
        red_flags=warned["refined"],
        cases=len(cases),
        judge=judge.name,
        judge_note=NOTE["en"] if judge.name == RubricJudge.name else "",
    )
    return outcome, more | {"sampled": sampled.figures(seed)}, _rows(served)


def _means(grades: Sequence[Grade]) -> tuple[float, dict[str, float]]:
    """(mean score, mean of each part)."""
    parts = {
        name: round(float(np.mean([g.parts[name] for g in grades])), 3) for name in grades[0].parts
    }
    return float(np.mean([g.score for g in grades])), parts


def _rows(served: Judged) -> list[dict[str, Any]]:
    """Sample rows for a report: wins and losses alike, so that it does not flatter."""
    words = {"a": "refined wins", "b": "parent wins", "tie": "tie"}
    chosen: list[int] = []
    for winner, most in (("a", 5), ("b", 5), ("tie", 2)):
        chosen += [i for i, found in enumerate(served.winners) if found == winner][:most]
    return [
        {
            "prompt": served.cases[i].question,
            "answers": {side: getattr(served.said, side)[i] for side in SIDES},
            "scores": {side: {"rubric": served.grades[side][i].score} for side in SIDES},
            "note": words[served.winners[i]],
        }
        for i in chosen
    ]


def interval(points: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over cases."""
    rng = np.random.default_rng(seed)
    means = points[rng.integers(0, len(points), (RESAMPLES, len(points)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _against(
    pair: Pair, references: Sequence[Reference], settings: Generation, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, float | None], dict[str, float]]:
    """Per side: metrics, higher is better; the share of emergency openers answered with a warning; variety.

    variety: different runs of one and two characters over all answers together, which falls when a model says the same
    good thing to more people; the metrics' Distinct is the mean within answers.
    """
    said = pair.answer([reference.question for reference in references], settings, seed)
    plain = [i for i, r in enumerate(references) if r.opener != EMERGENCY]
    urgent = [i for i, r in enumerate(references) if r.opener == EMERGENCY]
    truth = [[references[i].answer] for i in plain]
    metrics, warned, variety = {}, {}, {}
    for side in SIDES:
        texts = getattr(said, side)
        chosen = [texts[i] for i in plain]
        found = score(chosen, truth).values
        metrics[side] = {name: value for name, value in found.items() if value is not None}
        variety |= {f"variety_{n}_{side}": distinct(chosen, n) for n in (1, 2)}
        hits = [urges(texts[i], "zh") for i in urgent]
        warned[side] = sum(hits) / len(hits) if hits else None
    return metrics, warned, variety


def distinct(texts: Sequence[str], n: int) -> float:
    """Different runs of n characters over all of them. Source: Li et al. 2016 (arXiv 1510.03055)."""
    runs = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
    return len(set(runs)) / max(len(runs), 1)
