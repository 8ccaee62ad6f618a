"""Who gets which pair of a study next, on which side: balanced, or the pair that tells most about the ranking."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reviews import filing, pairing, ranking
from reviews.pairing import Offer
from reviews.protocol import Protocol
from reviews.records import Letter, VoteCount
from reviews.tally import Array, count, tally

if TYPE_CHECKING:
    import sqlite_utils

GOLD_EVERY = 8
"""A rater meets a gold pair about once in so many pairs; gold pairs go to every rater."""

_CANDIDATES = """
SELECT c.id, c.external_id, c.contestant_a, c.contestant_b, (
  SELECT count(*) FROM assignments s WHERE s.comparison_id = c.id AND s.purpose = 'vote'
  AND s.state = 'voted') AS votes, (
  SELECT count(*) FROM assignments s WHERE s.comparison_id = c.id AND s.purpose = 'vote'
  AND s.state = 'open' AND s.issued_at >= :since
  AND s.rater_id IN (SELECT id FROM users WHERE disabled_at IS NULL)) AS opened
FROM comparisons c
WHERE c.study = :study AND c.kind = 'prepared' AND NOT EXISTS (
  SELECT 1 FROM assignments m WHERE m.comparison_id = c.id AND m.rater_id = :rater)
  AND NOT EXISTS (SELECT 1 FROM erasures e WHERE e.subject = 'comparison:' || c.id)
"""
_HAD = """
SELECT s.left_is, c.external_id, c.contestant_a, c.contestant_b
FROM assignments s JOIN comparisons c ON c.id = s.comparison_id
WHERE s.rater_id = :rater AND c.study = :study AND c.kind = 'prepared' AND s.purpose = 'vote'
ORDER BY s.seq
"""
_VOTES = """
SELECT contestant_a, contestant_b, choice, left_is, votes FROM outcomes
WHERE study = :study AND votes > 0
"""


class Draw(NamedTuple):
    """The comparison to give out, who stands left, and the draw's probability where it was active."""

    comparison_id: str
    left_is: Letter
    probability: float | None = None


def draw(
    db: sqlite_utils.Database,
    at: datetime,
    rater_id: int,
    study: str,
    protocol: Protocol | None,
    rng: random.Random,
) -> Draw | None:
    """The comparison that this rater gets next; None when there is none for them.

    A pair that the rater ever had (voted, skipped or reported), or whose texts were erased, is not
    among them. One that lies
    open with a disabled rater, or longer than OPEN_FOR, counts as lying with nobody. With a
    protocol nobody gets a pair that has its overlap, and the plan follows from the protocol's seed;
    without one `rng` chooses the sides.
    """
    asked = {"study": study, "rater": rater_id, "since": filing.since(at)}
    found = db.conn.execute(_CANDIDATES, asked).fetchall()
    had = db.conn.execute(_HAD, asked).fetchall()
    if protocol is None:
        return _balanced(found, had, f"{study}:{rater_id}", rng)
    gold = [row for row in found if row["external_id"] in protocol.gold]
    open_ones = [
        row
        for row in found
        if row["external_id"] not in protocol.gold
        and row["votes"] + row["opened"] < protocol.overlap
    ]
    seed = f"{protocol.seed}:{rater_id}"
    order = random.Random(f"{seed}:{len(had)}")
    if gold and (not open_ones or len(had) % GOLD_EVERY == GOLD_EVERY // 2):
        return _balanced(gold, had, seed, order)
    if protocol.pairing == "active":
        return _active(db, open_ones, had, asked, [protocol.seed, rater_id, len(had)])
    return _balanced(open_ones, had, seed, order)


def _balanced(
    found: list[sqlite3.Row], had: list[sqlite3.Row], seed: str, rng: random.Random
) -> Draw | None:
    """Fewest votes, then fewest open, then in seeded order; the sides in blocks of two per rater."""
    if not found:
        return None

    def rank(row: sqlite3.Row) -> tuple[int, int, bytes]:
        digest = hashlib.sha256(f"{seed}:{_filed_as(row)}".encode()).digest()
        return (row["votes"], row["opened"], digest)

    if len(had) % 2:
        left: Letter = "b" if had[-1]["left_is"] == "a" else "a"
    else:
        left = "a" if rng.choice("ab") == "a" else "b"
    return Draw(str(min(found, key=rank)["id"]), left)


def _active(
    db: sqlite_utils.Database,
    found: list[sqlite3.Row],
    had: list[sqlite3.Row],
    asked: dict[str, object],
    seed: list[int],
) -> Draw | None:
    """The pair that is expected to tell most about the ranking, by reviews.pairing."""
    names = sorted({row[key] for row in [*found, *had] for key in ("contestant_a", "contestant_b")})
    number = {name: i for i, name in enumerate(names)}
    cases = Counter(row["external_id"] for row in had)
    pairs = Counter((row["contestant_a"], row["contestant_b"]) for row in had)
    by_file = {_filed_as(row): str(row["id"]) for row in found}
    offers = [
        Offer(
            _filed_as(row), number[row["contestant_a"]], number[row["contestant_b"]],
            row["votes"] + row["opened"], cases[row["external_id"]],
            pairs[row["contestant_a"], row["contestant_b"]],
        )
        for row in found
    ]  # fmt: skip
    lean = sum(1 if row["left_is"] == "a" else -1 for row in had)
    votes = [
        VoteCount("", a, b, "", choice, left, 0, votes)
        for a, b, choice, left, votes in db.conn.execute(_VOTES, asked)
        if a in number and b in number
    ]
    gain = _gains(votes, names)
    drawn = pairing.draw(offers, gain, np.random.default_rng(seed), rater_lean=lean)
    return Draw(by_file[drawn.id], drawn.left_is, drawn.probability) if drawn else None


def _filed_as(row: sqlite3.Row) -> str:
    """What a pair is called in its file: unlike its id in the record, the same wherever it is filed."""
    return "\n".join((row["external_id"], row["contestant_a"], row["contestant_b"]))


def _gains(votes: list[VoteCount], names: list[str]) -> Array:
    """(K, K) what one more vote on each pair is worth; before any vote every pair is worth the same."""
    seen = tally(votes) if votes else None
    if seen is None or len(seen.names) < 2:
        return np.ones((len(names), len(names)))
    cells, counts, _ = count(seen)
    known = pairing.gains(ranking.fit(cells, counts))
    # A contestant without a vote is worth as much as the best pair: nothing is known of it.
    gain = np.full((len(names), len(names)), float(known.max()))
    at = [names.index(name) for name in seen.names]
    gain[np.ix_(at, at)] = known
    return gain
