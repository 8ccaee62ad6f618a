"""Pairs whose raters disagree, given to a senior who has not seen them: a verdict of its own beside the votes."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from reviews import comparisons, filing, studies
from reviews.errors import AssignmentClosed
from reviews.records import Assignment, Choice, Letter, Seen, Span, Vote

if TYPE_CHECKING:
    import sqlite_utils

_OTHER: dict[str, Seen] = {"left": "right", "right": "left"}

# Both contestants have a vote for them; nobody has the pair for adjudication; this senior never had it.
_DISPUTED = """
SELECT s.comparison_id AS id FROM assignments s
JOIN comparisons c ON c.id = s.comparison_id
JOIN votes v ON v.assignment_id = s.id AND v.revision = (
  SELECT max(revision) FROM votes w WHERE w.assignment_id = s.id)
WHERE c.study = :study AND s.state = 'voted' AND s.purpose = 'vote' AND NOT EXISTS (
  SELECT 1 FROM assignments d WHERE d.comparison_id = c.id AND (d.rater_id = :rater OR (
    d.purpose = 'adjudication' AND (d.state = 'voted' OR (
      d.state = 'open' AND d.issued_at >= :since)))))
GROUP BY s.comparison_id
HAVING sum(v.choice IN ('left', 'right') AND (v.choice = 'left') = (s.left_is = 'a')) > 0
  AND sum(v.choice IN ('left', 'right') AND (v.choice = 'left') <> (s.left_is = 'a')) > 0
ORDER BY min(s.seq) LIMIT 1
"""
_OPEN = """
SELECT s.id FROM assignments s JOIN comparisons c ON c.id = s.comparison_id
WHERE s.rater_id = :rater AND c.study = :study AND s.purpose = 'adjudication' AND s.state = 'open'
ORDER BY s.seq LIMIT 1
"""


def give(
    db: sqlite_utils.Database, at: datetime, rater_id: int, study: str, rng: random.Random
) -> Assignment | None:
    """The senior's open pair, else the next disputed one; None when there is none. In a write transaction."""
    comparisons.check_rater(db, rater_id)
    filed = filing.find(db, study)
    if filed is None or not filed.protocol.adjudicate:
        return None
    asked = {"study": study, "rater": rater_id, "since": filing.since(at)}
    row = db.conn.execute(_OPEN, asked).fetchone()
    if row is None:
        found = db.conn.execute(_DISPUTED, asked).fetchone()
        if found is None:
            return None
        left: Letter = "a" if rng.choice("ab") == "a" else "b"
        issued = studies.issue(db, at, rater_id, found["id"], left, purpose="adjudication")
        return comparisons.find_assignment(db, issued)
    return comparisons.find_assignment(db, row["id"])


def disputed_votes(db: sqlite_utils.Database, assignment_id: str, rater_id: int) -> list[Vote]:
    """The raters' standing votes on the pair, sides as this senior sees them, without who and when.

    Raises UnknownAssignment, NotYours, and AssignmentClosed for a pair that was not given for
    adjudication.
    """
    mine = comparisons.mine(db, assignment_id, rater_id)
    if mine.purpose != "adjudication":
        raise AssignmentClosed("this pair was not given to you for adjudication")
    query = (
        "SELECT id FROM assignments WHERE comparison_id = ? AND purpose = 'vote' "
        "AND state = 'voted' ORDER BY id"
    )
    found = []
    for row in db.conn.execute(query, (mine.comparison_id,)).fetchall():
        other = comparisons.find_assignment(db, row["id"])
        assert other.vote is not None
        vote = replace(other.vote, assignment_id="", at=mine.issued_at, seconds=None)
        found.append(vote if other.left_is == mine.left_is else mirrored(vote))
    return found


def mirrored(vote: Vote) -> Vote:
    """The same vote as it would have been with the sides the other way round."""
    choice: Choice = _OTHER.get(vote.choice, vote.choice)  # type: ignore[assignment]
    better = vote.better
    if better is not None and better.side:
        better = replace(better, side=_OTHER[better.side])
    return replace(
        vote,
        choice=choice,
        ratings={_mirrored_key(k): _mirrored_value(k, v) for k, v in vote.ratings.items()},
        spans=tuple(_mirrored_span(span) for span in vote.spans),
        better=better,
    )


def _mirrored_key(key: str) -> str:
    side, _, rest = key.partition("_")
    return f"{_OTHER[side]}_{rest}" if side in _OTHER else key


def _mirrored_value(key: str, value: int) -> int:
    return 6 - value if key.startswith("pref_") else value


def _mirrored_span(span: Span) -> Span:
    return replace(span, side=_OTHER[span.side])
