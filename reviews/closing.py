"""Whether a study may end: each of its protocol's closing rules, how far it is and whether it is met."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Literal

from reviews import stopping
from reviews.protocol import Protocol, Study
from reviews.records import IDENTITY_LEAK

if TYPE_CHECKING:
    import sqlite_utils

RuleName = Literal["until", "votes", "sequential", "overlap"]

_OUTCOMES = """
SELECT contestant_a, contestant_b,
  sum(votes) FILTER (WHERE choice IN ('left', 'right') AND (choice = 'left') = (left_is = 'a')),
  sum(votes) FILTER (WHERE choice IN ('left', 'right') AND (choice = 'left') <> (left_is = 'a')),
  sum(votes)
FROM outcomes WHERE study = ? GROUP BY 1, 2
"""
_FLAGGED = """
SELECT c.contestant_a, c.contestant_b,
  -sum(v.choice IN ('left', 'right') AND (v.choice = 'left') = (s.left_is = 'a')),
  -sum(v.choice IN ('left', 'right') AND (v.choice = 'left') <> (s.left_is = 'a')),
  -count(*)
FROM flags f JOIN comparisons c ON c.id = f.comparison_id
JOIN assignments s ON s.comparison_id = c.id AND s.purpose = 'vote'
JOIN votes v ON v.assignment_id = s.id
WHERE c.study = ? AND f.flag = ? AND NOT EXISTS (
  SELECT 1 FROM votes w WHERE w.assignment_id = v.assignment_id AND w.revision > v.revision)
GROUP BY 1, 2
"""
_FULL = """
SELECT count(*), coalesce(sum(:overlap <= (
  SELECT count(*) FROM assignments s
  WHERE s.comparison_id = c.id AND s.purpose = 'vote' AND s.state = 'voted')), 0)
FROM comparisons c WHERE c.study = :study AND c.kind = 'prepared'
"""
_FILED = """
SELECT DISTINCT contestant_a, contestant_b FROM comparisons WHERE study = ? AND kind = 'prepared'
"""


@dataclass(frozen=True, slots=True)
class Count:
    """What the rules look at.

    votes: standing ones that the statistics count, so none on a comparison flagged for a leak.
    duels: (won, lost) of each pair of contestants that the study watches, (0, 0) before any vote.
    comparisons: filed pairs; full: those with all their votes, flagged or not: nobody is asked again.
    """

    votes: int
    duels: tuple[tuple[int, int], ...]
    comparisons: int
    full: int


@dataclass(frozen=True, slots=True)
class Rule:
    """done of wanted: comparisons with enough votes, votes, or pairs that are decided. until: a date."""

    name: RuleName
    is_met: bool
    done: int
    wanted: int
    until: str = ""


@dataclass(frozen=True, slots=True)
class ClosingState:
    """state: "none" without a protocol. rules: overlap is the last, any one that is met ends it."""

    state: Literal["none", "draft", "frozen", "closed"]
    reason: str
    rules: tuple[Rule, ...]

    @property
    def is_met(self) -> bool:
        """Whether one of the rules is met."""
        return any(rule.is_met for rule in self.rules)


def pairs_of(db: sqlite_utils.Database, study: str) -> list[tuple[str, str]]:
    """The pairs of contestants in a study's filed pairs."""
    return [(row[0], row[1]) for row in db.conn.execute(_FILED, (study,))]


def count(db: sqlite_utils.Database, protocol: Protocol) -> Count:
    """How far a study is, as the record has it."""
    name, live = protocol.name, protocol.contestants if protocol.kind == "live" else ()
    watched = (*pairs_of(db, name), *itertools.combinations(live, 2))
    duels = {frozenset(pair): [0, 0] for pair in watched}
    votes = 0
    flagged = db.conn.execute(_FLAGGED, (name, IDENTITY_LEAK))
    for a, b, won, lost, cast in (*db.conn.execute(_OUTCOMES, (name,)), *flagged):
        duel = duels.setdefault(frozenset((a, b)), [0, 0])
        duel[a > b] += won or 0
        duel[a < b] += lost or 0
        votes += cast
    comparisons, full = db.conn.execute(
        _FULL, {"study": name, "overlap": protocol.overlap}
    ).fetchone()
    return Count(votes, tuple((won, lost) for won, lost in duels.values()), comparisons, full)


def rules(protocol: Protocol, counted: Count, now: datetime) -> tuple[Rule, ...]:
    """Every rule of a protocol, in the order in which they close a study."""
    rule = protocol.closing
    found: list[Rule] = []
    if rule.until is not None:
        ended = now.date() > date.fromisoformat(rule.until)
        found.append(Rule("until", ended, 0, 0, rule.until))
    if rule.votes is not None:
        found.append(Rule("votes", counted.votes >= rule.votes, counted.votes, rule.votes))
    if rule.sequential:
        wanted = len(counted.duels)
        decided = sum(
            stopping.evidence(won, lost, comparisons=wanted, alpha=rule.alpha).decision != "open"
            for won, lost in counted.duels
        )
        found.append(Rule("sequential", 0 < wanted <= decided, decided, wanted))
    is_full = 0 < counted.comparisons <= counted.full
    return (*found, Rule("overlap", is_full, counted.full, counted.comparisons))


def is_due(db: sqlite_utils.Database, at: datetime, study: Study) -> RuleName | None:
    """The first closing rule that is met; None when none is."""
    every = rules(study.protocol, count(db, study.protocol), at)
    return next((rule.name for rule in every if rule.is_met), None)


def state(study: Study | None, counted: Count | None, now: datetime) -> ClosingState:
    """Every rule of the study's protocol, as it stands now; none without a protocol."""
    if study is None or counted is None:
        return ClosingState("none", "", ())
    return ClosingState(study.state, study.close_reason, rules(study.protocol, counted, now))
