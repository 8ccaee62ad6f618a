"""A study's votes turned into every figure of its report, once, from one reading of the record.

The main analysis takes all standing votes but those on answers that said which model they are;
votes that were marked as too fast and gold pairs count, and the sensitivity analysis leaves them
out. The same votes in any order give the same findings, and swapping all sides turns the side
effect's sign only. Intervals that draw at random use the protocol's seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from reviews import closing, concord, criteria, harms, sensitivity, stats, stopping, style, verdicts
from reviews.closing import ClosingState
from reviews.concord import Concord, RaterRow
from reviews.criteria import Criteria
from reviews.harms import Harms
from reviews.panel import Judged
from reviews.protocol import SAFETY_KINDS, Study
from reviews.reading import Looks, Queue, Reading
from reviews.records import VoteRow, Winner
from reviews.sensitivity import Variant
from reviews.stated import Stated, Why
from reviews.stats import Field, PairResult
from reviews.style import Styled
from reviews.tally import tally
from reviews.verdicts import Headline, Ranked

SEED = 42
_OTHER: dict[Winner, Winner] = {"a": "b", "b": "a"}


@dataclass(frozen=True, slots=True)
class Counts:
    """What the figures rest on. cases: different ones; comparisons: with a vote, of queue.comparisons.

    left_out: votes on answers that named their model. fast, gold: votes that are marked so. overlap:
    how many comparisons have 1, 2, 3 ... votes.
    """

    votes: int
    raters: int
    comparisons: int
    cases: int
    left_out: int
    fast: int
    gold: int
    overlap: dict[int, int]
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class Part:
    """One department or intent, "" where the votes do not say it, and the pairs within."""

    name: str
    votes: int
    pairs: tuple[PairResult, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Every figure of a study, and what of it is not defined, with the reason.

    styled: None with the reason in style_why. harms: None where flags were not asked for. judges:
    by name; None where a judge shares no comparison with two physicians. seconds: quartiles.
    """

    name: str
    study: Study | None
    counts: Counts
    queue: Queue
    headline: Headline
    ranks: tuple[Ranked, ...]
    left: Stated
    styled: Styled | None
    style_why: Why
    departments: tuple[Part, ...]
    intents: tuple[Part, ...]
    concord: Concord
    raters: tuple[RaterRow, ...]
    criteria: Criteria
    harms: Harms | None
    judges: dict[str, Judged | None]
    closing: ClosingState
    sensitivity: tuple[Variant, ...]
    seconds: tuple[float, float, float] | None
    seq: int
    last_hash: str


def find(
    reading: Reading,
    *,
    now: datetime,
    judges: Mapping[str, Mapping[str, str]] | None = None,
) -> Findings:
    """All figures. judges: name to verdicts, each comparison id to its winner as filed (a or b).

    now: for the closing rule. Raises ValueError for a judge's winner of another name.
    """
    study = reading.study
    votes = in_order(reading.votes)
    seed = study.protocol.seed if study else SEED
    draws = iter(np.random.default_rng(seed).spawn(6 + len(judges or {})))
    gold = gold_of(votes, study.protocol.gold if study else {})
    found = verdicts.fit_votes(votes)
    closed = study is not None and study.state == "closed"
    alpha = study.protocol.closing.alpha if study else stopping.ALPHA
    watched = len(reading.closing.duels) if reading.closing else 0
    headline = verdicts.headline(votes, found, closed=closed, alpha=alpha, watched=watched)
    turned = {v.comparison_id for v in reading.votes if v.contestant_a > v.contestant_b}
    styled, style_why = _styled(votes, reading.looks, turned)
    return Findings(
        name=reading.name,
        study=study,
        counts=_counts(votes, len(reading.leaks), gold),
        queue=reading.queue,
        headline=headline,
        ranks=verdicts.ranks(found, next(draws)),
        left=verdicts.left_share(found.tally if found else tally(votes)),
        styled=styled,
        style_why=style_why,
        departments=_parts(votes, "department"),
        intents=_parts(votes, "intent"),
        concord=concord.concord(votes, next(draws)),
        raters=concord.rater_rows(votes, gold),
        criteria=criteria.criteria(votes, *_criteria(votes, study), next(draws)),
        harms=_harms(votes, study, next(draws)),
        judges={
            name: concord.judged(votes, turn(given, turned), next(draws))
            for name, given in sorted((judges or {}).items())
        },
        closing=closing.state(study, reading.closing, now),
        sensitivity=sensitivity.variants(
            votes, in_order(reading.leaks), in_order(reading.adjudicated), gold, found, headline
        ),
        seconds=concord.quartiles([v.seconds for v in votes if v.seconds is not None]),
        seq=reading.seq,
        last_hash=reading.last_hash,
    )


def in_order(votes: Sequence[VoteRow]) -> tuple[VoteRow, ...]:
    """The votes sorted, each with its contestants in order of their names, so that nothing hangs on
    how a pair was filed."""
    return tuple(sorted(map(_oriented, votes), key=lambda v: v.assignment_id))


def _oriented(vote: VoteRow) -> VoteRow:
    if vote.contestant_a <= vote.contestant_b:
        return vote
    return dataclasses.replace(
        vote,
        contestant_a=vote.contestant_b,
        contestant_b=vote.contestant_a,
        winner=_OTHER.get(vote.winner, vote.winner),
        left_is="b" if vote.left_is == "a" else "a",
    )


def turn(verdicts: Mapping[str, str], turned: set[str]) -> dict[str, str]:
    """A judge's winners, a and b exchanged for the comparisons whose names were put in order."""
    other = {"a": "b", "b": "a"}
    return {
        key: other.get(winner, winner) if key in turned else winner
        for key, winner in verdicts.items()
    }


def gold_of(votes: Sequence[VoteRow], gold: Mapping[str, str]) -> dict[str, str]:
    """Gold comparisons' ids and right winners. gold: case to a contestant's name or "tie"."""
    found: dict[str, str] = {}
    for v in votes:
        right = gold.get(v.external_id)
        if right in (v.contestant_a, v.contestant_b, "tie"):
            letter = "a" if right == v.contestant_a else "b"
            found[v.comparison_id] = "tie" if right == "tie" else letter
    return found


def _counts(votes: Sequence[VoteRow], left_out: int, gold: Mapping[str, str]) -> Counts:
    per: dict[str, int] = {}
    for v in votes:
        per[v.comparison_id] = per.get(v.comparison_id, 0) + 1
    sizes = sorted(per.values())
    moments = [v.at for v in votes]
    return Counts(
        votes=len(votes),
        raters=len({v.rater for v in votes}),
        comparisons=len(per),
        cases=len({v.case for v in votes}),
        left_out=left_out,
        fast=sum(v.fast for v in votes),
        gold=sum(v.comparison_id in gold for v in votes),
        overlap={size: sizes.count(size) for size in sorted(set(sizes))},
        first_at=min(moments, default=None),
        last_at=max(moments, default=None),
    )


def _parts(votes: Sequence[VoteRow], field: Field) -> tuple[Part, ...]:
    """Most votes first. Empty where no vote says it."""
    found = stats.by_field(votes, field)
    if set(found) <= {""}:
        return ()
    parts = [Part(name, sum(p.total for p in pairs), tuple(pairs)) for name, pairs in found.items()]
    return tuple(sorted(parts, key=lambda part: (-part.votes, part.name)))


def _styled(votes: Sequence[VoteRow], looks: Looks, turned: set[str]) -> tuple[Styled | None, Why]:
    """The ranking with style held equal, or why there is none."""
    if not votes:
        return None, "no_votes"
    rows = []
    for v in votes:
        length, marks = looks.get(v.comparison_id, (0.0, 0.0))
        sign = 1.0 if (v.left_is == "a") != (v.comparison_id in turned) else -1.0
        rows.append((sign * length, sign * marks))
    covariates = np.array(rows)
    if not np.abs(covariates).max() > 0:
        return None, "never_differed"
    return style.control(votes, covariates), ""


def _criteria(
    votes: Sequence[VoteRow], study: Study | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The scale and preference criteria: the protocol's, else those that the ratings name."""
    if study is None:
        return criteria.keys_of(votes)
    asked = study.protocol.criteria
    return (
        tuple(c.key for c in asked if c.kind == "scale"),
        tuple(c.key for c in asked if c.kind == "preference"),
    )


def _harms(votes: Sequence[VoteRow], study: Study | None, rng: np.random.Generator) -> Harms | None:
    asked = study.protocol.safety_flags if study else any(v.spans for v in votes)
    return harms.harms(votes, SAFETY_KINDS, rng) if asked else None
