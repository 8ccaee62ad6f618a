"""Casting a vote, and reading the standing votes back flat for statistics and export."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from reviews import audit
from reviews.ballots import Ballot, read_better, read_spans
from reviews.database import Database, plain_errors
from reviews.errors import AssignmentClosed, NotFinished, NotYours, UnknownAssignment
from reviews.records import (
    FEWEST_RATERS,
    IDENTITY_LEAK,
    Counted,
    Kind,
    State,
    VoteCount,
    VoteRow,
    case_of,
    iso,
    moment,
    winner_of,
)

if TYPE_CHECKING:
    import sqlite_utils

Outcome = Literal["recorded", "same", "conflict"]
NO_SUCH = "no such assignment for you; open the page again"

# A prepared pair was finished when it was filed (it cannot be filed otherwise).
_FACTS = """
SELECT s.seq, s.rater_id, u.disabled_at IS NOT NULL AS disabled, s.state, c.kind,
  v.revision, v.choice, v.reason, v.ratings, v.seconds, v.spans, v.better,
  s.purpose = 'vote' AND (SELECT t.state = 'closed' FROM studies t WHERE t.name = c.study) AS closed,
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
  SELECT id FROM users WHERE disabled_at IS NULL) AND (purpose = 'adjudication' OR NOT EXISTS (
  SELECT 1 FROM comparisons c JOIN studies t ON t.name = c.study
  WHERE c.id = assignments.comparison_id AND t.state = 'closed'))
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
    spans: str
    better: str
    closed: int | None
    wanted: int
    finished: int


def check_id(assignment_id: object) -> str:
    """Return an id that may be looked up; anything else raises UnknownAssignment."""
    if isinstance(assignment_id, str) and len(assignment_id) <= 64 and assignment_id.isalnum():
        return assignment_id
    raise UnknownAssignment(NO_SUCH)


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


def cast_inside(
    db: sqlite_utils.Database, at: datetime, assignment_id: str, rater_id: int, ballot: Ballot
) -> Outcome:
    """As cast() without revision, inside an open write transaction: for many votes at once."""
    facts = _read_facts(db.conn, assignment_id, rater_id)
    if outcome := _decide(facts, ballot, revise=False):
        return outcome
    if not _Ready(iso(at), assignment_id, facts, ballot).write(db.conn):
        raise AssignmentClosed("the study is closed; it takes no vote any more")
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
        standing = (facts.choice, facts.reason, facts.ratings, facts.spans, facts.better)
        if standing == ballot.content:
            return "same"
    if facts.state == "reported" or (facts.state == "skipped" and facts.kind == "live"):
        raise AssignmentClosed(f"this pair was {facts.state}; it takes no vote any more")
    if facts.closed:
        raise AssignmentClosed("the study is closed; it takes no vote any more")
    if not facts.wanted or facts.finished != facts.wanted:
        raise NotFinished("both answers must be finished before the vote")
    return None


class _Ready:
    """A vote and its log row, ready to be written if the facts still hold."""

    def __init__(self, at: str, assignment_id: str, facts: Facts, ballot: Ballot) -> None:
        revision = (facts.revision or 0) + 1
        extras = (ballot.spans, ballot.better)
        values = (revision, ballot.choice, ballot.reason, ballot.ratings, ballot.seconds)
        before = ""
        if facts.revision is not None:
            old = (facts.revision, facts.choice, facts.reason, facts.ratings, facts.seconds)
            before = audit.canonical(audit.vote_after(*old, facts.spans, facts.better))
        self.facts = facts
        self.assignment_id = assignment_id
        self.vote = (assignment_id, *values, at, *extras)
        self.log = audit.Row(
            at,
            f"user:{facts.rater_id}",
            "vote" if revision == 1 else "revote",
            f"assignment:{assignment_id}",
            before,
            audit.canonical(audit.vote_after(*values, *extras)),
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
        conn.execute("INSERT INTO votes VALUES (?,?,?,?,?,?,?,?,?)", self.vote)
        conn.execute("DELETE FROM drafts WHERE assignment_id = ?", (self.assignment_id,))
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
  EXISTS (SELECT 1 FROM flags f WHERE f.comparison_id = c.id AND f.flag = :leak),
  s.purpose, v.spans, v.better, s.probability,
  coalesce(v.seconds < json_extract(p.protocol, '$.fastest_s'), 0)
FROM assignments s
JOIN votes v ON v.assignment_id = s.id
JOIN comparisons c ON c.id = s.comparison_id
JOIN raters ON raters.rater_id = s.rater_id
JOIN turned ON turned.comparison_id = s.comparison_id
LEFT JOIN studies p ON p.name = c.study
WHERE s.state = 'voted' AND (:study IS NULL OR c.study = :study)
  AND (:rater IS NULL OR s.rater_id = :rater) AND NOT EXISTS (
  SELECT 1 FROM votes w WHERE w.assignment_id = v.assignment_id AND w.revision > v.revision)
  AND (:adjudicated IS NULL OR CASE s.purpose WHEN 'vote' THEN NOT :adjudicated OR NOT EXISTS (
    SELECT 1 FROM assignments d WHERE d.comparison_id = s.comparison_id
    AND d.purpose = 'adjudication' AND d.state = 'voted') ELSE :adjudicated END)
ORDER BY s.seq
"""


def rows(
    db: sqlite_utils.Database,
    study: str | None = None,
    *,
    adjudicated: bool | None = False,
    rater_id: int | None = None,
) -> Iterator[VoteRow]:
    """The last revision of every vote, in the order in which the pairs were given out.

    adjudicated: False leaves a senior's verdicts out; True puts each in the place of all votes on
    its comparison; None gives every vote of both kinds. rater_id: only this account's.
    """
    cursor = db.conn.cursor()
    cursor.row_factory = None
    asked = {"study": study, "leak": IDENTITY_LEAK, "adjudicated": adjudicated, "rater": rater_id}
    for row in cursor.execute(_ROWS, asked):
        values = list(row)
        values[8] = winner_of(values[7], values[9])
        values[17] = json.loads(values[17]) if values[17] != "{}" else {}
        values[20], values[21] = moment(values[20]), bool(values[21])
        values[23], values[24] = read_spans(values[23]), read_better(values[24])
        values[26] = bool(values[26])
        yield VoteRow(*values)


def flag_leak(database: Database, at: datetime, comparison_id: str) -> None:
    """Note, once, that an answer of a comparison says which model it is."""
    with database.write() as db:
        values = (comparison_id, IDENTITY_LEAK, iso(at))
        if db.conn.execute("INSERT OR IGNORE INTO flags VALUES (?,?,?)", values).rowcount:
            subject = f"comparison:{comparison_id}"
            audit.append(db.conn, at, "system", "flag", subject, None, {"flag": IDENTITY_LEAK})


def counted(
    db: sqlite_utils.Database, study: str | None, *, with_leaks: bool, adjudicated: bool = False
) -> Counted:
    """The last revision of every vote, those that look alike counted together.

    adjudicated: whether a senior's verdict takes the place of the votes on its comparison.

    Votes on a comparison that is flagged for an identity leak are left out, unless with_leaks.
    Three scans are joined here: SQLite would seek every row anew, twice as slow for many votes.
    """
    cursor = db.conn.cursor()
    cursor.row_factory = None
    cursor.execute("SELECT id, study, contestant_a, contestant_b, external_id FROM comparisons")
    pairs = {row[0]: row[1:] for row in cursor if study in (None, row[1])}
    cursor.execute(
        "SELECT id, comparison_id, left_is, rater_id, purpose FROM assignments "
        "WHERE state = 'voted'"
    )
    voted = [row for row in cursor if row[1] in pairs]
    decided = {row[1] for row in voted if row[4] == "adjudication"} if adjudicated else set()
    every = [row[:4] for row in voted if (row[4] == "adjudication") == (row[1] in decided)]
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
