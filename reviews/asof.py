"""the votes as they stood at a row of the log, and which of them an export is asked for.

Every revision of a vote has its row in the log, so the standing votes of any earlier moment can be
told: later votes, later revisions and later flags are left out. Texts are as they are now: what was
erased since does not come back.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from reviews import audit, filing, votes
from reviews.ballots import read_better, read_spans
from reviews.errors import RecordError
from reviews.records import VoteRow, Winner, moment, winner_of

if TYPE_CHECKING:
    import sqlite_utils


@dataclass(frozen=True, slots=True)
class Selection:
    """Which votes are exported.

    criterion: winners are taken from the ratings of this criterion, votes without them are left out.
    min_agreement: only comparisons with two votes or more, of which at least this share agree.
    leaks: whether comparisons stay in which an answer names its model. adjudicated: whether a
    senior's verdict takes the place of the votes on its comparison in the training files.
    """

    study: str | None = None
    criterion: str | None = None
    min_agreement: float | None = None
    language: str | None = None
    leaks: bool = True
    adjudicated: bool = False

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise RecordError(f"min_agreement must lie between 0 and 1, not {self.min_agreement}")

    def asked(self) -> dict[str, Any]:
        """As the manifest has it."""
        return {**asdict(self), "revision": "last"}


def standing(db: sqlite_utils.Database, study: str | None, rows: int) -> list[VoteRow]:
    """Votes and verdicts as they stood when the log had so many rows, in the order of the draws."""
    last: dict[str, int] = {}
    flagged: set[str] = set()
    query = "SELECT action, subject, after FROM audit WHERE seq <= ? AND action IN (?, ?, ?)"
    for action, subject, after in db.conn.execute(query, (rows, "vote", "revote", "flag")):
        key = subject.partition(":")[2]
        if action == "flag":
            flagged.add(key)
        else:
            last[key] = json.loads(after)["revision"]
    fastest = {s.name: s.protocol.fastest_s for s in filing.every(db)}
    found = []
    for vote in votes.rows(db, study, adjudicated=None):
        if (revision := last.get(vote.assignment_id)) is None:
            continue
        if revision != vote.revisions:
            vote = _earlier(db, vote, revision, fastest.get(vote.study, 0.0))
        leak = vote.identity_leak and vote.comparison_id in flagged
        found.append(replace(vote, identity_leak=leak) if leak != vote.identity_leak else vote)
    return found


def _earlier(db: sqlite_utils.Database, vote: VoteRow, revision: int, fastest_s: float) -> VoteRow:
    """The same vote in an earlier revision."""
    row = db.conn.execute(
        "SELECT choice, reason, ratings, seconds, at, spans, better FROM votes "
        "WHERE assignment_id = ? AND revision = ?",
        (vote.assignment_id, revision),
    ).fetchone()
    return replace(
        vote,
        choice=row["choice"],
        winner=winner_of(row["choice"], vote.left_is),
        reason=row["reason"],
        ratings=json.loads(row["ratings"]),
        seconds=row["seconds"],
        revisions=revision,
        at=moment(row["at"]),
        spans=read_spans(row["spans"]),
        better=read_better(row["better"]),
        fast=row["seconds"] is not None and row["seconds"] < fastest_s,
    )


def select(found: list[VoteRow], asked: Selection) -> list[VoteRow]:
    """The votes that are asked for, verdicts among them; the winner as the criterion has it."""
    kept = [
        vote
        for vote in found
        if (asked.language in (None, vote.language)) and (asked.leaks or not vote.identity_leak)
    ]
    if asked.criterion is not None:
        won = ((vote, outcome(vote, asked.criterion)) for vote in kept)
        kept = [replace(vote, winner=winner) for vote, winner in won if winner is not None]
    if asked.min_agreement is not None:
        agreed = _agreed(kept, asked.min_agreement)
        kept = [vote for vote in kept if vote.comparison_id in agreed]
    return kept


def _agreed(found: list[VoteRow], least: float) -> set[str]:
    """Comparisons with two votes or more, at least this share of which name the same winner."""
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for vote in found:
        if vote.purpose == "vote":
            said[vote.comparison_id][vote.winner] += 1
    return {
        key
        for key, counts in said.items()
        if counts.total() >= 2 and max(counts.values()) >= least * counts.total() - 1e-9
    }


def in_training(found: list[VoteRow], *, adjudicated: bool) -> list[VoteRow]:
    """One kind of judgement per comparison: the votes, or with `adjudicated` the verdict where there is one."""
    decided = {vote.comparison_id for vote in found if vote.purpose == "adjudication"}
    if not adjudicated:
        return [vote for vote in found if vote.purpose == "vote"]
    return [
        vote
        for vote in found
        if (vote.purpose == "adjudication") == (vote.comparison_id in decided)
    ]


def ratings_of(vote: VoteRow) -> dict[str, int]:
    """Ratings by contestant: a_<key>, b_<key>; pref_<key> goes from 1 (a much better) to 5 (b)."""
    turned: dict[str, int] = {}
    for key, value in vote.ratings.items():
        side, _, name = key.partition("_")
        if side in ("left", "right"):
            is_a = (side == "left") == (vote.left_is == "a")
            turned[f"{'a' if is_a else 'b'}_{name}"] = value
        elif side == "pref":
            turned[key] = value if vote.left_is == "a" else 6 - value
        else:
            turned[key] = value
    return dict(sorted(turned.items()))


def margin(vote: VoteRow, criterion: str) -> int | None:
    """By how much a is rated above b, -4 to 4; None when the vote does not rate this criterion."""
    turned = ratings_of(vote)
    if f"pref_{criterion}" in turned:
        return 2 * (3 - turned[f"pref_{criterion}"])
    if f"a_{criterion}" in turned and f"b_{criterion}" in turned:
        return turned[f"a_{criterion}"] - turned[f"b_{criterion}"]
    return None


def outcome(vote: VoteRow, criterion: str) -> Winner | None:
    """The winner on one criterion; None when the vote does not rate it."""
    above = margin(vote, criterion)
    if above is None:
        return None
    return "tie" if above == 0 else "a" if above > 0 else "b"


def log_hash(db: sqlite_utils.Database, rows: int) -> str | None:
    """The hash of a row of the log; None when the log is shorter."""
    if rows == 0:
        return audit.FIRST_HASH
    row = db.conn.execute("SELECT hash FROM audit WHERE seq = ?", (rows,)).fetchone()
    return row[0] if row else None
