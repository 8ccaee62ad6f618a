"""Reading assignments and comparisons back, and the checks of who may touch them."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING

from reviews.ballots import read_better, read_spans
from reviews.errors import AssignmentClosed, NotYours, UnknownAssignment
from reviews.records import Assignment, Comparison, Report, Side, Turn, Vote, iso, moment
from reviews.votes import NO_SUCH, check_id

if TYPE_CHECKING:
    import sqlite_utils


def check_rater(db: sqlite_utils.Database, rater_id: int) -> None:
    """Raises UnknownAssignment when the user does not exist or is disabled."""
    row = db.conn.execute("SELECT disabled_at FROM users WHERE id = ?", (rater_id,)).fetchone()
    if row is None or row["disabled_at"] is not None:
        raise UnknownAssignment(f"user {rater_id} is unknown or disabled")


def find_assignment(db: sqlite_utils.Database, assignment_id: str) -> Assignment:
    """An assignment with its standing vote. Raises UnknownAssignment."""
    row = db.conn.execute(
        "SELECT id, comparison_id, rater_id, left_is, state, issued_at, purpose, probability "
        "FROM assignments WHERE id = ?",
        (check_id(assignment_id),),
    ).fetchone()
    if row is None:
        raise UnknownAssignment(NO_SUCH)
    vote = db.conn.execute(
        "SELECT * FROM votes WHERE assignment_id = ? ORDER BY revision DESC LIMIT 1",
        (assignment_id,),
    ).fetchone()
    values = {**dict(row), "issued_at": moment(row["issued_at"])}
    return Assignment(**values, vote=_vote(vote) if vote else None)


def _vote(row: sqlite3.Row) -> Vote:
    read = {
        "ratings": json.loads(row["ratings"]),
        "at": moment(row["at"]),
        "spans": read_spans(row["spans"]),
        "better": read_better(row["better"]),
    }
    return Vote(**{**dict(row), **read})


def mine(db: sqlite_utils.Database, assignment_id: str, rater_id: int) -> Assignment:
    """The rater's own assignment. Raises UnknownAssignment, NotYours."""
    assignment = find_assignment(db, assignment_id)
    if assignment.rater_id != rater_id:
        raise NotYours(NO_SUCH)
    return assignment


def open_live(
    db: sqlite_utils.Database, assignment_id: str, rater_id: int
) -> tuple[Assignment, Comparison]:
    """The rater's live assignment, open for another step. Raises AssignmentClosed too."""
    assignment = mine(db, assignment_id, rater_id)
    if assignment.state != "open":
        raise AssignmentClosed(f"this comparison was {assignment.state}; begin a new one")
    comparison = find_comparison(db, assignment.comparison_id)
    if comparison.kind != "live":
        raise AssignmentClosed("a prepared pair takes no further question")
    return assignment, comparison


def find_comparison(db: sqlite_utils.Database, comparison_id: str) -> Comparison:
    """A comparison with its turns and the current attempt of each answer."""
    row = dict(
        db.conn.execute("SELECT * FROM comparisons WHERE id = ?", (comparison_id,)).fetchone()
    )
    del row["created_at"]
    row["settings_a"] = json.loads(row["settings_a"])
    row["settings_b"] = json.loads(row["settings_b"])
    return Comparison(turns=_turns(db, comparison_id), **row)


def _turns(db: sqlite_utils.Database, comparison_id: str) -> tuple[Turn, ...]:
    sides: dict[tuple[int, int, str], Side] = {}
    for number, attempt, letter, finish, settings, text in db.conn.execute(
        "SELECT number, attempt, side, finish, settings, text FROM answers WHERE comparison_id = ?",
        (comparison_id,),
    ):
        sides[number, attempt, letter] = Side(text, finish, json.loads(settings))
    return tuple(
        Turn(
            number,
            question,
            sides.get((number, attempt, "a")),
            sides.get((number, attempt, "b")),
            attempt,
            question_b or "",
        )
        for number, question, attempt, question_b in db.conn.execute(
            "SELECT number, question, attempt, question_b FROM turns WHERE comparison_id = ? "
            "ORDER BY number",
            (comparison_id,),
        )
    )


def add_report(db: sqlite_utils.Database, at: datetime, assignment_id: str, reason: str) -> None:
    """Keep why a pair was reported; in the transaction that logs it."""
    db.conn.execute(
        "INSERT INTO reports (assignment_id, reason, at) VALUES (?,?,?)",
        (assignment_id, reason, iso(at)),
    )


def reports(db: sqlite_utils.Database, study: str) -> list[Report]:
    """What raters reported in a study, in order."""
    query = (
        "SELECT coalesce(nullif(c.external_id, ''), c.id), c.contestant_a, c.contestant_b, "
        "r.reason, r.at FROM reports r JOIN assignments s ON s.id = r.assignment_id "
        "JOIN comparisons c ON c.id = s.comparison_id WHERE c.study = ? ORDER BY r.seq"
    )
    found = map(tuple, db.conn.execute(query, (study,)))
    return [Report(case, a, b, why, moment(at)) for case, a, b, why, at in found]
