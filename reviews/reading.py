"""Reads from the record all that a study's findings need: votes, protocol, styles, what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reviews import audit, closing, filing, style
from reviews.errors import BadStudy
from reviews.protocol import Study
from reviews.records import VoteRow
from reviews.store import Store

if TYPE_CHECKING:
    import sqlite_utils

Looks = dict[str, tuple[float, float]]
"""Comparison id to what style.differences() says of contestant a's answers minus b's."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A study's pairs: filed comparisons, and given-out ones that are open, skipped or reported."""

    comparisons: int
    open: int
    skipped: int
    reported: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One study as the record has it; name "" is all studies together, which have no protocol.

    votes: standing ones without those left out for an identity leak, which `leaks` holds.
    adjudicated: the same with a senior's verdict in place of the votes that disagreed. seq,
    last_hash: of the log's last row, before anything was read. closing: what its rules look at.
    """

    name: str
    study: Study | None
    votes: tuple[VoteRow, ...]
    leaks: tuple[VoteRow, ...]
    adjudicated: tuple[VoteRow, ...]
    looks: Looks
    queue: Queue
    seq: int
    last_hash: str
    closing: closing.Count | None = None


def read(store: Store, name: str = "") -> Reading:
    """A study's reading; name "" for all. Raises BadStudy for a name that the record does not know."""
    seq, last_hash = mark(store)
    with store.database.read() as db:
        if name and name not in (known := _names(db)):
            there = ", ".join(known) or "none yet"
            raise BadStudy(f"{name}: no such study in {store.database.path}; there are: {there}")
        looks, queue = _looks(db, name or None), _queue(db, name or None)
        study = filing.find(db, name) if name else None
        counted = closing.count(db, study.protocol) if study else None
        is_adjudicated = db["assignments"].count_where("purpose = 'adjudication'") > 0
    rows = store.votes(name or None)
    adjudicated = store.votes(name or None, adjudicated=True) if is_adjudicated else rows
    return Reading(
        name=name,
        study=study,
        votes=tuple(row for row in rows if not row.identity_leak),
        leaks=tuple(row for row in rows if row.identity_leak),
        adjudicated=tuple(row for row in adjudicated if not row.identity_leak),
        looks=looks,
        queue=queue,
        seq=seq,
        last_hash=last_hash,
        closing=counted,
    )


def mark(store: Store) -> tuple[int, str]:
    """The log's last row, its number and hash: as long as it stays, so do all findings."""
    with store.database.read() as db:
        row = db.conn.execute("SELECT max(seq) FROM audit").fetchone()
        return int(row[0] or 0), audit.last_hash(db)


def votes_by_study(store: Store) -> dict[str, int]:
    """How many votes stand in each study that has any, by name; quick."""
    with store.database.read() as db:
        rows = db.conn.execute(
            "SELECT c.study, count(*) FROM assignments s JOIN comparisons c ON c.id = s.comparison_id "
            "WHERE s.state = 'voted' AND s.purpose = 'vote' GROUP BY c.study ORDER BY c.study"
        )
        return {row[0]: row[1] for row in rows}


def _names(db: sqlite_utils.Database) -> list[str]:
    query = (
        "SELECT study FROM comparisons UNION SELECT study FROM cases UNION SELECT name FROM studies"
    )
    return sorted(row[0] for row in db.conn.execute(query))


def _looks(db: sqlite_utils.Database, study: str | None) -> Looks:
    texts: dict[str, dict[str, list[str]]] = {}
    for comparison, side, text in db.conn.execute(
        "SELECT x.comparison_id, x.side, x.text FROM answers x "
        "JOIN turns t ON t.comparison_id = x.comparison_id AND t.number = x.number "
        "AND t.attempt = x.attempt JOIN comparisons c ON c.id = x.comparison_id "
        "WHERE ? IS NULL OR c.study = ? ORDER BY x.comparison_id, x.number",
        (study, study),
    ):
        texts.setdefault(comparison, {"a": [], "b": []})[side].append(text)
    return {
        comparison: style.differences("\n".join(sides["a"]), "\n".join(sides["b"]))
        for comparison, sides in texts.items()
    }


def _queue(db: sqlite_utils.Database, study: str | None) -> Queue:
    chosen = "(:study IS NULL OR c.study = :study)"
    comparisons = db.conn.execute(
        f"SELECT count(*) FROM comparisons c WHERE {chosen}", {"study": study}
    ).fetchone()[0]
    states = Counter(
        dict(
            tuple(row)
            for row in db.conn.execute(
                "SELECT s.state, count(*) FROM assignments s JOIN comparisons c "
                f"ON c.id = s.comparison_id WHERE s.purpose = 'vote' AND {chosen} GROUP BY s.state",
                {"study": study},
            )
        )
    )
    return Queue(comparisons, states["open"], states["skipped"], states["reported"])
