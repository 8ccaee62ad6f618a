"""Half-finished votes: kept by the server, so that a crash or another device loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reviews import audit, comparisons
from reviews.errors import AssignmentClosed, BadVote
from reviews.records import clean_text, iso

if TYPE_CHECKING:
    import sqlite_utils

LIMIT = 32 * 1024
"""Bytes of a draft as JSON."""


def save(
    db: sqlite_utils.Database,
    at: datetime,
    assignment_id: str,
    rater_id: int,
    data: Mapping[str, Any],
) -> None:
    """Keep a draft in place of the one before; an empty one removes it.

    Raises UnknownAssignment, NotYours, AssignmentClosed for a reported pair, BadVote for what is no
    JSON or too long.
    """
    mine = comparisons.mine(db, assignment_id, rater_id)
    if mine.state == "reported":
        raise AssignmentClosed("this pair was reported; it takes no vote any more")
    if not data:
        db.conn.execute("DELETE FROM drafts WHERE assignment_id = ?", (mine.id,))
        return
    try:
        text = clean_text(audit.canonical(dict(data)))
    except (TypeError, ValueError):
        raise BadVote("a draft must be plain data") from None
    if len(text.encode()) > LIMIT:
        raise BadVote("a draft has at most {most} bytes", most=LIMIT)
    db.conn.execute("INSERT OR REPLACE INTO drafts VALUES (?,?,?)", (mine.id, text, iso(at)))


def find(db: sqlite_utils.Database, assignment_id: str, rater_id: int) -> dict[str, Any] | None:
    """The rater's own draft. Raises UnknownAssignment, NotYours."""
    mine = comparisons.mine(db, assignment_id, rater_id)
    row = db.conn.execute("SELECT data FROM drafts WHERE assignment_id = ?", (mine.id,)).fetchone()
    return dict(json.loads(row["data"])) if row else None


def purge(db: sqlite_utils.Database, before: datetime) -> int:
    """Forget drafts that were not touched since; returns how many."""
    return int(db.conn.execute("DELETE FROM drafts WHERE at < ?", (iso(before),)).rowcount)
