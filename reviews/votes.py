"""Casting a vote, and reading the standing votes back flat for statistics and export."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from reviews import audit
from reviews.database import Database, plain_errors
from reviews.errors import (
    AssignmentClosed,
    BadVote,
    NotFinished,
    NotYours,
    UnknownAssignment,
)
from reviews.records import (
    CHOICES,
    FEWEST_RATERS,
    IDENTITY_LEAK,
    REASON_LIMIT,
    Counted,
    Kind,
    State,
    VoteCount,
    VoteRow,
    case_of,
    clean_text,
    iso,
    moment,
    winner_of,
)

if TYPE_CHECKING:
    import sqlite_utils

Outcome = Literal["recorded", "same", "conflict"]
NO_SUCH = "no such assignment for you; open the page again"
_LONGEST_VOTE_S = 7 * 24 * 3600.0
_RATING_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")

# A prepared pair was finished when it was filed (it cannot be filed otherwise).
_FACTS = """
SELECT s.seq, s.rater_id, u.disabled_at IS NOT NULL AS disabled, s.state, c.kind,
  v.revision, v.choice, v.reason, v.ratings, v.seconds,
  CASE c.kind WHEN 'prepared' THEN 1 ELSE
    (SELECT 2 * count(*) FROM turns t WHERE t.comparison_id = s.comparison_id) END AS wanted,
  CASE c.kind WHEN 'prepared' THEN 1 ELSE
    (SELECT count(*) FROM turns t JOIN answers x
     ON x.comparison_id = t.comparison_id AND x.number = t.number AND x.attempt = t.attempt
     WHERE t.comparison_id = s.comparison_id AND x.finish = 'stop') END AS finished
FROM assignments s JOIN comparisons c ON c.id = s.comparison_id JOIN users u ON u.id = s.rater_id
LEFT JOIN votes v ON v.assignment_id = s.id
WHERE s.id = ? ORDER BY v.revision DESC LIMIT 1
"""
_MARK = """
UPDATE assignments SET state = 'voted' WHERE seq = ? AND state = ? AND rater_id IN (
  SELECT id FROM users WHERE disabled_at IS NULL)
"""


class Facts(NamedTuple):
    """What decides about a ballot; revision to seconds are of the standing vote, if any."""

    seq: int
    rater_id: int
    disabled: int
    state: State
    kind: Kind
    revision: int | None
    choice: str
    reason: str
    ratings: str
    seconds: float | None
    wanted: int
    finished: int


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote that passed every check of its form; `ratings` is canonical JSON."""

    choice: str
    reason: str
    ratings: str
    seconds: float | None

    @property
    def content(self) -> tuple[str, str, str]:
        """What makes two ballots the same: everything but the time taken."""
        return (self.choice, self.reason, self.ratings)


def check_id(assignment_id: object) -> str:
    """Return an id that may be looked up; anything else raises UnknownAssignment."""
    if isinstance(assignment_id, str) and len(assignment_id) <= 64 and assignment_id.isalnum():
        return assignment_id
    raise UnknownAssignment(NO_SUCH)


def make_ballot(
    choice: object, reason: object, ratings: Mapping[str, int] | None, seconds: object
) -> Ballot:
    """Check a vote's form. Raises BadVote; a senseless time becomes None, it costs no vote."""
    if not isinstance(choice, str) or choice not in CHOICES:
        raise BadVote(f"the choice must be one of {', '.join(CHOICES)}")
    if not isinstance(reason, str):
        raise BadVote("the reason must be text")
    reason = clean_text(reason).strip()
    if len(reason) > REASON_LIMIT:
        raise BadVote(f"the reason has {len(reason)} characters, at most {REASON_LIMIT} fit")
    for key, value in (ratings or {}).items():
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10
        if not whole or not isinstance(key, str) or not _RATING_KEY.fullmatch(key):
            raise BadVote("a rating is a short lower-case word with a whole number from 0 to 10")
    taken: float | None = None
    if isinstance(seconds, int | float) and math.isfinite(seconds):
        taken = round(float(seconds), 3) if 0 <= seconds <= _LONGEST_VOTE_S else None
    return Ballot(choice, reason, audit.canonical(ratings) if ratings else "{}", taken)


def cast(
    database: Database,
    at: datetime,
    assignment_id: str,
    rater_id: int,
    ballot: Ballot,
    revise: bool,
) -> Outcome:
    """Record a ballot: vote, log row and state in one transaction, or nothing.

    What can be known beforehand is read and made ready before the write transaction, so that
    others wait as little as possible; inside, everything that could have changed since is
    checked again, and if it did change the whole is tried anew.
    """
    while True:
        with plain_errors(database.path):
            facts = _read_facts(database.connection().conn, assignment_id, rater_id)
        if outcome := _decide(facts, ballot, revise):
            return outcome
        ready = _Ready(iso(at), assignment_id, facts, ballot)
        with database.write() as db:
            if ready.write(db.conn):
                return "recorded"


def _read_facts(conn: sqlite3.Connection, assignment_id: str, rater_id: int) -> Facts:
    row = conn.execute(_FACTS, (assignment_id,)).fetchone()
    if row is None:
        raise UnknownAssignment(NO_SUCH)
    facts = Facts(*row)
    if facts.rater_id != rater_id:
        raise NotYours(NO_SUCH)
    if facts.disabled:
        raise UnknownAssignment(f"user {rater_id} is disabled")
    return facts


def _decide(facts: Facts, ballot: Ballot, revise: bool) -> Outcome | None:
    """What the ballot comes to without a change, or None when it is to be recorded."""
    if facts.revision is not None:
        if not revise:
            return "same" if facts.choice == ballot.choice else "conflict"
        if (facts.choice, facts.reason, facts.ratings) == ballot.content:
            return "same"
    if facts.state == "reported" or (facts.state == "skipped" and facts.kind == "live"):
        raise AssignmentClosed(f"this pair was {facts.state}; it takes no vote any more")
    if not facts.wanted or facts.finished != facts.wanted:
        raise NotFinished("both answers must be finished before the vote")
    return None


class _Ready:
    """A vote and its log row, ready to be written if the facts still hold."""

    def __init__(self, at: str, assignment_id: str, facts: Facts, ballot: Ballot) -> None:
        revision = (facts.revision or 0) + 1
        values = (revision, ballot.choice, ballot.reason, ballot.ratings, ballot.seconds)
        before = ""
        if facts.revision is not None:
            old = (facts.revision, facts.choice, facts.reason, facts.ratings, facts.seconds)
            before = audit.canonical(audit.vote_after(*old))
        self.facts = facts
        self.assignment_id = assignment_id
        self.vote = (assignment_id, *values, at)
        self.log = audit.Row(
            at,
            f"user:{facts.rater_id}",
            "vote" if revision == 1 else "revote",
            f"assignment:{assignment_id}",
            before,
            audit.canonical(audit.vote_after(*values)),
        )

    def write(self, conn: sqlite3.Connection) -> bool:
        """Write inside an open transaction; False, with nothing written, when the facts changed."""
        facts = self.facts
        first_vote_on_prepared = facts.revision is None and facts.kind == "prepared"
        if not first_vote_on_prepared:
            now = Facts(*conn.execute(_FACTS, (self.assignment_id,)).fetchone())
            if now != facts:
                return False
        if facts.state != "voted":
            done = conn.execute(_MARK, (facts.seq, facts.state))
            if done.rowcount != 1:
                return False
        conn.execute("INSERT INTO votes VALUES (?,?,?,?,?,?,?)", self.vote)
        audit.append_row(conn, self.log)
        return True


# The columns stand in VoteRow's own order; NULL is the winner, filled in below.
_ROWS = """
WITH raters AS (
  SELECT rater_id, row_number() OVER (ORDER BY min(seq)) AS number
  FROM assignments GROUP BY rater_id),
turned AS (SELECT comparison_id, count(*) AS turns FROM turns GROUP BY comparison_id)
SELECT v.assignment_id, s.comparison_id, raters.number, c.study, c.kind, c.contestant_a,
  c.contestant_b, v.choice, NULL, s.left_is, turned.turns, c.department, c.intent, c.language,
  c.external_id, c.source, v.reason, v.ratings, v.seconds, v.revision, v.at,
  EXISTS (SELECT 1 FROM flags f WHERE f.comparison_id = c.id AND f.flag = :leak)
FROM assignments s
JOIN votes v ON v.assignment_id = s.id
JOIN comparisons c ON c.id = s.comparison_id
JOIN raters ON raters.rater_id = s.rater_id
JOIN turned ON turned.comparison_id = s.comparison_id
WHERE s.state = 'voted' AND (:study IS NULL OR c.study = :study) AND NOT EXISTS (
  SELECT 1 FROM votes w WHERE w.assignment_id = v.assignment_id AND w.revision > v.revision)
ORDER BY s.seq
"""


def rows(db: sqlite_utils.Database, study: str | None = None) -> Iterator[VoteRow]:
    """The last revision of every vote, in the order in which the pairs were given out."""
    cursor = db.conn.cursor()
    cursor.row_factory = None
    for row in cursor.execute(_ROWS, {"study": study, "leak": IDENTITY_LEAK}):
        values = list(row)
        values[8] = winner_of(values[7], values[9])
        values[17] = json.loads(values[17]) if values[17] != "{}" else {}
        values[20], values[21] = moment(values[20]), bool(values[21])
        yield VoteRow(*values)


def flag_leak(database: Database, at: datetime, comparison_id: str) -> None:
    """Note, once, that an answer of a comparison says which model it is."""
    with database.write() as db:
        values = (comparison_id, IDENTITY_LEAK, iso(at))
        if db.conn.execute("INSERT OR IGNORE INTO flags VALUES (?,?,?)", values).rowcount:
            subject = f"comparison:{comparison_id}"
            audit.append(db.conn, at, "system", "flag", subject, None, {"flag": IDENTITY_LEAK})


def counted(db: sqlite_utils.Database, study: str | None, *, with_leaks: bool) -> Counted:
    """The last revision of every vote, those that look alike counted together.

    Votes on a comparison that is flagged for an identity leak are left out, unless with_leaks.
    Three scans are joined here: SQLite would seek every row anew, twice as slow for many votes.
    """
    cursor = db.conn.cursor()
    cursor.row_factory = None
    cursor.execute("SELECT id, study, contestant_a, contestant_b, external_id FROM comparisons")
    pairs = {row[0]: row[1:] for row in cursor if study in (None, row[1])}
    cursor.execute(
        "SELECT id, comparison_id, left_is, rater_id FROM assignments WHERE state = 'voted'"
    )
    every = [row for row in cursor if row[1] in pairs]
    cursor.execute("SELECT comparison_id FROM flags WHERE flag = ?", (IDENTITY_LEAK,))
    leaks = set() if with_leaks else {row[0] for row in cursor}
    given = [row for row in every if row[1] not in leaks]
    cursor.execute("SELECT assignment_id, choice FROM votes ORDER BY assignment_id, revision")
    choices = dict(cursor)  # the last revision takes the place of those before
    few = len({row[3] for row in given}) < FEWEST_RATERS
    facts = {
        key: (name, a, b, case_of(name, external_id, key) if few else "")
        for key, (name, a, b, external_id) in pairs.items()
    }
    alike = Counter((facts[pair], choices[key], left, rater) for key, pair, left, rater in given)
    counts = [
        VoteCount(*fact, choice, left, rater, votes)
        for (fact, choice, left, rater), votes in alike.items()
    ]
    return Counted(counts, len({row[1] for row in given}), len(every) - len(given))
