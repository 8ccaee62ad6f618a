"""Studies: what is filed in them, what was given out to whom, and how far a rater is."""

from __future__ import annotations

import json
import math
import secrets
import sqlite3
import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reviews import audit, filing
from reviews.errors import BadStudy, NotInvited
from reviews.records import (
    LIVE_STUDY,
    Case,
    ImportReport,
    PreparedPair,
    PreparedTurn,
    Progress,
    Purpose,
    StudySummary,
    clean_text,
    iso,
)

if TYPE_CHECKING:
    import sqlite_utils

NAME_LIMIT = 64  # characters

_OF_RATER = """
SELECT s.seq, s.id, s.left_is, s.state FROM assignments s
JOIN comparisons c ON c.id = s.comparison_id
WHERE s.rater_id = :rater AND c.study = :study AND c.kind = 'prepared'
  AND s.purpose = 'vote'
"""


def check_name(study: str) -> str:
    """A study's name as it is stored: 1 to 64 characters on one line. Raises BadStudy."""
    name = clean_text(study).strip()
    if not name or len(name) > NAME_LIMIT or "\n" in name or "\t" in name:
        raise BadStudy("a study's name has 1 to {most} characters on one line", most=NAME_LIMIT)
    return name


def issue(
    db: sqlite_utils.Database,
    at: datetime,
    rater_id: int,
    comparison_id: str,
    left_is: str,
    *,
    purpose: Purpose = "vote",
    probability: float | None = None,
) -> str:
    """Give a comparison to a rater; returns the assignment's id (32 hex digits)."""
    assignment_id = secrets.token_hex(16)
    db.conn.execute(
        "INSERT INTO assignments (id, comparison_id, rater_id, left_is, state, issued_at, purpose, "
        "probability) VALUES (?,?,?,?,'open',?,?,?)",
        (assignment_id, comparison_id, rater_id, left_is, iso(at), purpose, probability),
    )
    return assignment_id


def open_one(db: sqlite_utils.Database, rater_id: int, study: str) -> str | None:
    """The id of the rater's open assignment in a study."""
    row = db.conn.execute(
        f"{_OF_RATER} AND s.state = 'open' ORDER BY s.seq DESC LIMIT 1",
        {"rater": rater_id, "study": study},
    ).fetchone()
    return row["id"] if row else None


def renew(db: sqlite_utils.Database, at: datetime, assignment_id: str) -> str:
    """Give an open assignment out anew; returns its id."""
    db.conn.execute("UPDATE assignments SET issued_at = ? WHERE id = ?", (iso(at), assignment_id))
    return assignment_id


def previous(
    db: sqlite_utils.Database, rater_id: int, study: str, before: str | None
) -> str | None:
    """The id of the last voted or skipped assignment, or of the one given out before `before`."""
    row = db.conn.execute(
        f"{_OF_RATER} AND s.state IN ('voted', 'skipped') AND (:before IS NULL OR s.seq < "
        "(SELECT seq FROM assignments WHERE id = :before AND rater_id = :rater)) "
        "ORDER BY s.seq DESC LIMIT 1",
        {"rater": rater_id, "study": study, "before": before},
    ).fetchone()
    return row["id"] if row else None


def progress(db: sqlite_utils.Database, rater_id: int, study: str) -> Progress:
    """How far the rater is in a study."""
    who = {"rater": rater_id, "study": study}
    states = [row["state"] for row in db.conn.execute(_OF_RATER, who)]
    seconds = [
        row[0]
        for row in db.conn.execute(
            f"SELECT v.seconds FROM ({_OF_RATER}) s JOIN votes v ON v.assignment_id = s.id "
            "WHERE v.seconds IS NOT NULL AND v.revision = 1",
            who,
        )
    ]
    return Progress(
        done=states.count("voted"),
        skipped=states.count("skipped") + states.count("reported"),
        total=_share(db, study, len(states)),
        median_seconds=statistics.median(seconds) if seconds else None,
    )


def _share(db: sqlite_utils.Database, study: str, had: int) -> int:
    """How many pairs of a study a rater may expect: all, or their part where the raters are named."""
    pairs = db["comparisons"].count_where("kind = 'prepared' AND study = ?", [study])
    filed = filing.find(db, study)
    if filed is None or not filed.protocol.raters:
        return pairs
    gold = db["comparisons"].count_where(
        "kind = 'prepared' AND study = :study AND external_id IN (SELECT value FROM json_each(:gold))",
        {"study": study, "gold": json.dumps(list(filed.protocol.gold))},
    )
    each = math.ceil((pairs - gold) * filed.protocol.overlap / len(filed.protocol.raters)) + gold
    return min(pairs, max(had, each))


def summaries(db: sqlite_utils.Database) -> list[StudySummary]:
    """Every study with prepared pairs or cases, by name. `language`: the most frequent one."""
    query = """
    SELECT study, sum(pair) AS pairs, sum(votes) AS votes, sum(pair = 0) AS cases, (
      SELECT language FROM (SELECT study, language FROM comparisons WHERE kind = 'prepared'
        UNION ALL SELECT study, language FROM cases) l
      WHERE l.study = f.study GROUP BY language ORDER BY count(*) DESC, language LIMIT 1) AS language
    FROM (
      SELECT c.study, 1 AS pair, (SELECT count(*) FROM assignments s
        WHERE s.comparison_id = c.id AND s.state = 'voted' AND s.purpose = 'vote') AS votes
      FROM comparisons c WHERE c.kind = 'prepared'
      UNION ALL SELECT study, 0, 0 FROM cases) f
    GROUP BY study ORDER BY study
    """
    return [
        StudySummary(row["study"], row["pairs"], row["votes"], row["language"], row["cases"])
        for row in db.conn.execute(query)
    ]


def add_pairs(
    db: sqlite_utils.Database,
    at: datetime,
    study: str,
    pairs: Iterable[PreparedPair],
    actor: int | str,
) -> ImportReport:
    """File prepared pairs in a study inside an open write transaction; once each.

    A pair that is there already, in either order of its contestants, is left as it is; when
    its texts differ its id is named in the report. Raises BadStudy.
    """
    study = check_name(study)
    if study == LIVE_STUDY:
        raise BadStudy("the study {name!r} is kept for live comparisons", name=LIVE_STUDY)
    added, there, differs = 0, 0, []
    for pair in map(_tidy, pairs):
        found = db.conn.execute(
            "SELECT id FROM comparisons WHERE kind = 'prepared' AND study = ? AND external_id = ?"
            " AND contestant_a = ? AND contestant_b = ?",
            (study, pair.external_id, pair.contestant_a, pair.contestant_b),
        ).fetchone()
        if found is None:
            _insert_pair(db, iso(at), study, pair)
            added += 1
            continue
        there += 1
        if _stored_turns(db, found["id"]) != pair.turns:
            differs.append(pair.external_id)
    if added:
        counts = {"pairs": added, "already_there": there}
        audit.append(db.conn, at, actor, "import", f"study:{study}", None, counts)
    return ImportReport(added, there, tuple(differs))


def _tidy(pair: PreparedPair) -> PreparedPair:
    """Clean every text; order the contestants by name, so that a pair has one form."""
    names = (clean_text(pair.contestant_a).strip(), clean_text(pair.contestant_b).strip())
    where = f"pair {pair.external_id[:80]!r}"
    if names[0] == names[1] or not all(names):
        raise BadStudy("a pair needs two different contestants", where=where)
    swapped = names[0] > names[1]
    turns = []
    for turn in pair.turns:
        turns.append(_tidy_turn(turn, swapped, where))
    if not turns or not pair.external_id.strip():
        raise BadStudy("a pair needs an id and at least one turn", where=where)
    settings = (pair.settings_a, pair.settings_b)
    return PreparedPair(
        clean_text(pair.external_id).strip(),
        names[swapped],
        names[not swapped],
        tuple(turns),
        clean_text(pair.department),
        clean_text(pair.intent),
        pair.language,
        clean_text(pair.source),
        settings[swapped],
        settings[not swapped],
    )


def _tidy_turn(turn: PreparedTurn, swapped: bool, where: str) -> PreparedTurn:
    asked = [clean_text(turn.question), clean_text(turn.question_b or turn.question)]
    said = [clean_text(turn.answer_a), clean_text(turn.answer_b)]
    if not all(text.strip() for text in (*asked, *said)):
        raise BadStudy("a question or an answer is empty", where=where)
    question, other = asked[swapped], asked[not swapped]
    return PreparedTurn(
        question, said[swapped], said[not swapped], "" if other == question else other
    )


def _insert_pair(db: sqlite_utils.Database, at: str, study: str, pair: PreparedPair) -> None:
    comparison_id = secrets.token_hex(16)
    db.conn.execute(
        "INSERT INTO comparisons VALUES (?,'prepared',?,?,?,?,?,?,?,?,?,?,?)",
        (comparison_id, study, pair.contestant_a, pair.contestant_b, pair.department, pair.intent,
         pair.language, audit.canonical(dict(pair.settings_a)),
         audit.canonical(dict(pair.settings_b)), pair.external_id, pair.source, at),
    )  # fmt: skip
    for number, turn in enumerate(pair.turns, 1):
        insert_turn(db.conn, comparison_id, number, turn.question, at, turn.question_b)
        for letter, text in (("a", turn.answer_a), ("b", turn.answer_b)):
            insert_answer(db.conn, (comparison_id, number, 1, letter, "stop", at, "{}", text))


def insert_turn(
    conn: sqlite3.Connection,
    comparison_id: str,
    number: int,
    question: str,
    at: str,
    question_b: str = "",
) -> None:
    """Add a question as turn `number`, first attempt. question_b: as in records.Turn."""
    conn.execute(
        "INSERT INTO turns (comparison_id, number, question, attempt, at, question_b) "
        "VALUES (?,?,?,1,?,?)",
        (comparison_id, number, question, at, question_b or None),
    )


def insert_answer(
    conn: sqlite3.Connection, values: tuple[str, int, int, str, str, str, str, str]
) -> None:
    """Add an answer: comparison, number, attempt, side, finish, at, settings, text."""
    conn.execute("INSERT INTO answers VALUES (?,?,?,?,?,?,?,?)", values)


def _stored_turns(db: sqlite_utils.Database, comparison_id: str) -> tuple[PreparedTurn, ...]:
    rows = db.conn.execute(
        "SELECT t.question, a.text, b.text, coalesce(t.question_b, '') FROM turns t"
        " JOIN answers a ON a.comparison_id = t.comparison_id AND a.number = t.number"
        "  AND a.side = 'a' JOIN answers b ON b.comparison_id = t.comparison_id"
        "  AND b.number = t.number AND b.side = 'b' WHERE t.comparison_id = ? ORDER BY t.number",
        (comparison_id,),
    )
    return tuple(PreparedTurn(*row) for row in rows)


def add_cases(
    db: sqlite_utils.Database, at: datetime, study: str, cases: Iterable[Case], actor: int | str
) -> ImportReport:
    """File questions in a study inside an open write transaction; each id once. Raises BadStudy."""
    study = check_name(study)
    stored = {row["id"]: row["question"] for row in db["cases"].rows_where("study = ?", [study])}
    added, there, differs = 0, 0, []
    for case in cases:
        question = clean_text(case.question)
        if not question.strip() or not case.id.strip():
            raise BadStudy("a case needs an id and a question", where=f"case {case.id[:80]!r}")
        if case.id in stored:
            there += 1
            if stored[case.id] != question:
                differs.append(case.id)
            continue
        db.conn.execute(
            "INSERT INTO cases VALUES (?,?,?,?,?,?,?,?)",
            (study, case.id, len(stored), question, clean_text(case.department),
             clean_text(case.intent), case.language, clean_text(case.card)),
        )  # fmt: skip
        stored[case.id] = question
        added += 1
    if added:
        counts = {"cases": added, "already_there": there}
        audit.append(db.conn, at, actor, "import", f"study:{study}", None, counts)
    return ImportReport(added, there, tuple(differs))


def cases(db: sqlite_utils.Database, study: str) -> list[Case]:
    """The questions of a study in their file's order."""
    found = db["cases"].rows_where("study = ?", [study], order_by="position")
    return [_case(row) for row in found]


def next_card(db: sqlite_utils.Database, rater_id: int) -> tuple[str, Case] | None:
    """(study, case) of the first case with a card that the rater has not begun to play.

    Only of studies that take this rater's live votes now.
    """
    names = "SELECT DISTINCT study FROM cases WHERE card <> '' ORDER BY study"
    for (study,) in db.conn.execute(names).fetchall():
        if not _may_play(db, study, rater_id):
            continue
        row = db.conn.execute(
            """
            SELECT k.* FROM cases k WHERE k.study = :study AND k.card <> ''
              AND NOT EXISTS (SELECT 1 FROM comparisons c JOIN assignments s
                ON s.comparison_id = c.id WHERE c.kind = 'live' AND c.study = :study
                  AND c.external_id = k.id AND s.rater_id = :rater)
            ORDER BY k.position LIMIT 1
            """,
            {"study": study, "rater": rater_id},
        ).fetchone()
        if row:
            return study, _case(row)
    return None


def _may_play(db: sqlite_utils.Database, study: str, rater_id: int) -> bool:
    filed = filing.find(db, study)
    if filed is None:
        return True
    try:
        filing.check_invited(db, filed, rater_id)
    except NotInvited:
        return False
    return filed.state != "closed" and filed.protocol.kind == "live"


def _case(row: Mapping[str, Any]) -> Case:
    return Case(
        *(row[key] for key in ("id", "question", "department", "intent", "language", "card"))
    )


def settings_text(settings: object) -> str:
    """Settings as canonical JSON; what JSON does not know becomes text."""
    return json.dumps(
        settings or {}, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str
    )
