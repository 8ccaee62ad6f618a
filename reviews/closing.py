"""Whether a study may end: each of its protocol's closing rules, how far it is and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from reviews import verdicts
from reviews.protocol import Study
from reviews.records import VoteRow
from reviews.verdicts import Duel

RuleName = Literal["overlap", "votes", "until", "sequential"]


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


def state(
    study: Study | None,
    votes: Sequence[VoteRow],
    comparisons: int,
    duels: Sequence[Duel],
    now: datetime,
) -> ClosingState:
    """Every rule of the study's protocol, as it stands now. comparisons: filed in the study."""
    if study is None:
        return ClosingState("none", "", ())
    rule, overlap = study.protocol.closing, study.protocol.overlap
    rules: list[Rule] = []
    if rule.votes is not None:
        rules.append(Rule("votes", len(votes) >= rule.votes, len(votes), rule.votes))
    if rule.until is not None:
        ended = now.date() > date.fromisoformat(rule.until)
        rules.append(Rule("until", ended, 0, 0, rule.until))
    if rule.sequential:
        decided = sum(duel.evidence.decision != "open" for duel in duels)
        rules.append(Rule("sequential", verdicts.is_reached(duels), decided, len(duels)))
    per: dict[str, int] = {}
    for v in votes:
        per[v.comparison_id] = per.get(v.comparison_id, 0) + 1
    full = sum(number >= overlap for number in per.values())
    rules.append(Rule("overlap", 0 < comparisons <= full, full, comparisons))
    return ClosingState(study.state, study.close_reason, tuple(rules))
