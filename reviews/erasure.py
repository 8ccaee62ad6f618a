"""takes texts out of the record for good: a tombstone keeps their hashes and the reason, the votes stay.

    python -m reviews.erasure --comparison ID --reason "..." [--data data]
    python -m reviews.erasure --rater NAME --reason "..."
    python -m reviews.erasure --chat ID --reason "..."

A comparison: its questions and answers (all attempts), and of every vote on it the reason, the notes on
marked places and the better answer, reports and drafts. A rater: the same of their own votes, the comparisons
they typed themselves, their conversations, their name; the account is closed and can no longer sign
in. A chat: all of it. Choices, ratings and sides stay, so the statistics do not change.

The rows of the log are not touched: for each text its sha256 goes into the table `erasures`, and one
row of the log seals them, so `audit.verify` still holds and still finds a text that was changed in any
other way. The pages are overwritten (secure_delete, VACUUM) and the -wal is emptied. Not reached:
backups and exports made before, and reasons of reports older than schema 7, which stand in the log
itself; the backups beside the record are named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reviews import audit
from reviews.database import DEFAULT_NAME, Database, plain_errors
from reviews.errors import LastAdmin, RecordError, StoreBusy, UnknownAssignment
from reviews.records import ERASED, REASON_LIMIT, clean_text, iso
from reviews.store import Store

if TYPE_CHECKING:
    import sqlite_utils

__all__ = ["ERASED", "Subject", "erase", "main"]

_CLOSED = "!erased"  # no password hash looks like this


@dataclass(frozen=True, slots=True)
class Subject:
    """What is erased: exactly one of the three."""

    comparison: str = ""
    rater: str = ""
    chat: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """texts: how many were replaced. backups: files that still hold them."""

    subject: str
    texts: int
    sha256: str
    backups: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as plain lines."""
        told = [f"{self.subject}: {self.texts} texts erased, sealed by {self.sha256}"]
        told += [f"still holds them: {name}; delete it when you may" for name in self.backups]
        return [*told, "exports and copies made before are not reached"]


@dataclass(slots=True)
class _Work:
    """The texts found on the way, with their hashes, and the connection they are in."""

    conn: sqlite3.Connection
    found: list[tuple[str, str]] = field(default_factory=list)

    def note(self, where: str, text: str) -> bool:
        """Keep the hash of a text that goes; False for an empty one or one that is gone already."""
        if not text or text == ERASED:
            return False
        self.found.append((where, audit.digest(text)))
        return True


def erase(store: Store, subject: Subject, reason: str, actor: int | str) -> Report:
    """Erase a subject's texts in one transaction, then overwrite the file's free pages.

    A second time erases what came since, perhaps nothing. Raises UnknownAssignment for an unknown
    subject, RecordError without a reason, LastAdmin, StoreBusy when somebody else holds the file
    open so that old pages could not be overwritten (the texts are erased, run it again), Store*.
    """
    reason = clean_text(reason).strip()
    if not reason or len(reason) > REASON_LIMIT:
        raise RecordError(
            f"give a reason of 1 to {REASON_LIMIT} characters; it stays in the record"
        )
    database, at = store.database, store.database.clock()
    conn = database.connection().conn
    conn.execute("PRAGMA secure_delete=ON")
    with database.write() as db:
        work = _Work(db.conn)
        with _unlocked(db.conn):
            name = _erase_one(db, work, subject, at)
        digest = _seal(db.conn, at, actor, name, reason, work.found)
    _overwrite(database)
    return Report(name, len(work.found), digest, tuple(_backups(database.path)))


def _seal(
    conn: sqlite3.Connection,
    at: datetime,
    actor: int | str,
    subject: str,
    reason: str,
    found: Sequence[tuple[str, str]],
) -> str:
    """Store the hashes and log them as a whole, inside an open write transaction; returns their digest."""
    digest = audit.digest(audit.canonical(sorted(found)))
    conn.execute(
        "INSERT INTO erasures (subject, reason, at, sha256) VALUES (?,?,?,?)",
        (subject, reason, iso(at), digest),
    )
    for where, sha256 in found:
        conn.execute(
            "INSERT INTO erasures (subject, reason, at, sha256) VALUES (?,?,?,?)",
            (f"{digest}/{where}", "", iso(at), sha256),
        )
    after = {"texts": len(found), "sha256": digest, "reason_sha256": audit.digest(reason)}
    audit.append(conn, at, actor, "erase", subject, None, after)
    return digest


def _erase_one(db: sqlite_utils.Database, work: _Work, subject: Subject, at: datetime) -> str:
    """Erase and return the subject's name in the log, which is never a person's name."""
    if sum(map(bool, (subject.comparison, subject.rater, subject.chat))) != 1:
        raise RecordError("name one comparison, one rater or one chat")
    if subject.comparison:
        _comparison(work, subject.comparison)
        return f"comparison:{subject.comparison}"
    if subject.chat:
        _chat(work, subject.chat)
        return f"chat:{subject.chat}"
    return f"user:{_rater(work, subject.rater, at)}"


def _comparison(work: _Work, comparison_id: str) -> None:
    row = work.conn.execute(
        "SELECT study, external_id FROM comparisons WHERE id = ?", (comparison_id,)
    ).fetchone()
    if row is None:
        raise UnknownAssignment(f"there is no comparison {comparison_id}")
    key = f"comparison:{comparison_id}"
    _texts(work, "turns", ("question", "question_b"), ("comparison_id", "number"), comparison_id)
    _texts(
        work, "answers", ("text",), ("comparison_id", "number", "attempt", "side"), comparison_id
    )
    case = (row["study"], row["external_id"])
    for found in work.conn.execute(
        "SELECT * FROM cases WHERE study = ? AND id = ?", case
    ).fetchall():
        for column in ("question", "card"):
            if work.note(f"{key}/case/{column}", found[column]):
                work.conn.execute(
                    f"UPDATE cases SET {column} = ? WHERE study = ? AND id = ?", (ERASED, *case)
                )
    _votes(work, "comparison_id = ?", comparison_id)


def _texts(
    work: _Work, table: str, columns: tuple[str, ...], keys: tuple[str, ...], comparison_id: str
) -> None:
    """Replace text columns of a table's rows of one comparison; names are from this file only."""
    rows = work.conn.execute(
        f"SELECT {', '.join((*keys, *columns))} FROM {table} WHERE comparison_id = ?",
        (comparison_id,),
    ).fetchall()
    for row in rows:
        place = "/".join(str(row[key]) for key in keys[1:])
        for column in columns:
            if work.note(f"{table}/{comparison_id}/{place}/{column}", row[column] or ""):
                where = " AND ".join(f"{key} = ?" for key in keys)
                values = (ERASED, *(row[key] for key in keys))
                work.conn.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", values)


def _votes(work: _Work, which: str, value: str | int) -> None:
    """Erase what raters wrote with their votes, reports and drafts; `which` is a condition on assignments."""
    rows = work.conn.execute(
        "SELECT v.assignment_id, v.revision, v.reason, v.spans, v.better FROM votes v "
        f"JOIN assignments s ON s.id = v.assignment_id WHERE s.{which}",
        (value,),
    ).fetchall()
    for row in rows:
        key = (row["assignment_id"], row["revision"])
        spans = _without_notes(row["spans"])
        for column, old, new in (
            ("reason", row["reason"], ERASED),
            ("spans", row["spans"] if spans != row["spans"] else "", spans),
            ("better", row["better"], ""),
        ):
            if work.note(f"votes/{key[0]}/{key[1]}/{column}", old):
                work.conn.execute(
                    f"UPDATE votes SET {column} = ? WHERE assignment_id = ? AND revision = ?",
                    (new, *key),
                )
    for row in work.conn.execute(
        "SELECT r.seq, r.reason FROM reports r JOIN assignments s ON s.id = r.assignment_id "
        f"WHERE s.{which}",
        (value,),
    ).fetchall():
        if work.note(f"reports/{row['seq']}/reason", row["reason"]):
            work.conn.execute("UPDATE reports SET reason = ? WHERE seq = ?", (ERASED, row["seq"]))
    drafts = work.conn.execute(
        "SELECT d.assignment_id, d.data FROM drafts d JOIN assignments s ON s.id = d.assignment_id "
        f"WHERE s.{which}",
        (value,),
    ).fetchall()
    for row in drafts:
        work.note(f"drafts/{row['assignment_id']}", row["data"])
        work.conn.execute("DELETE FROM drafts WHERE assignment_id = ?", (row["assignment_id"],))


def _without_notes(spans: str) -> str:
    if not spans:
        return ""
    return audit.canonical([{**span, "note": ""} for span in json.loads(spans)])


def _chat(work: _Work, chat_id: str) -> None:
    if work.conn.execute("SELECT 1 FROM chats WHERE id = ?", (chat_id,)).fetchone() is None:
        raise UnknownAssignment(f"there is no chat {chat_id}")
    rows = work.conn.execute("SELECT id, text FROM chat_messages WHERE chat_id = ?", (chat_id,))
    for row in rows.fetchall():
        work.note(f"chat_messages/{row['id']}", row["text"])
    work.conn.execute("DELETE FROM chat_messages WHERE chat_id = ?", (chat_id,))
    work.conn.execute("DELETE FROM chats WHERE id = ?", (chat_id,))


def _rater(work: _Work, name: str, at: datetime) -> int:
    """Erase a rater's words and name; returns the account's number."""
    conn = work.conn
    user = conn.execute(
        "SELECT id, name, role, disabled_at FROM users WHERE name = ?", (name,)
    ).fetchone()
    if user is None:
        raise UnknownAssignment(f"there is no account {name!r}")
    others = conn.execute(
        "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL AND id <> ?",
        (user["id"],),
    ).fetchone()[0]
    if user["role"] == "admin" and user["disabled_at"] is None and not others:
        raise LastAdmin("this is the last administrator; make another one first")
    typed = conn.execute(
        "SELECT c.id FROM comparisons c JOIN assignments s ON s.comparison_id = c.id "
        "WHERE c.kind = 'live' AND s.rater_id = ?",
        (user["id"],),
    ).fetchall()
    for row in typed:
        _comparison(work, row["id"])
    _votes(work, "rater_id = ?", user["id"])
    for row in conn.execute(
        "SELECT id FROM chats WHERE owner = ?", (f"user:{user['id']}",)
    ).fetchall():
        _chat(work, row["id"])
    work.note(f"users/{user['id']}/name", user["name"])
    gone = f"erased-{user['id']}"
    conn.execute(
        "UPDATE users SET name = ?, name_key = ?, password_hash = ?, oidc_issuer = NULL, "
        "oidc_subject = NULL, disabled_at = coalesce(disabled_at, ?) WHERE id = ?",
        (gone, gone, _CLOSED, iso(at), user["id"]),
    )
    conn.execute("DELETE FROM sessions WHERE user_id = ?", (user["id"],))
    conn.execute("DELETE FROM invitations WHERE name = ?", (user["name"],))
    for table in ("buckets", "failures"):
        conn.execute(f"DELETE FROM {table} WHERE instr(key, ?) > 0", (user["name"].casefold(),))
    return int(user["id"])


@contextlib.contextmanager
def _unlocked(conn: sqlite3.Connection) -> Iterator[None]:
    """Votes and answers can be changed inside; the triggers are back before the transaction ends."""
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' "
        "AND name IN ('votes_no_update', 'answers_no_update')"
    )
    triggers = conn.execute(query).fetchall()
    for row in triggers:
        conn.execute(f"DROP TRIGGER {row['name']}")
    yield
    for row in triggers:
        conn.execute(row["sql"])


def _overwrite(database: Database) -> None:
    """Rewrite the file without its free pages and empty the -wal, where old pages still lie."""
    conn = database.connection().conn
    with plain_errors(database.path):
        conn.execute("VACUUM")
        busy = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        conn.execute("PRAGMA secure_delete=OFF")
    if busy:
        raise StoreBusy(
            f"{database.path}: the texts are erased, but another process reads the file, so old pages "
            "may lie in its -wal; stop the app and run this again"
        )


def _backups(path: Path) -> list[str]:
    """Copies beside the record, by name."""
    own = {path.name + end for end in ("", "-wal", "-shm", ".lock")}
    return sorted(
        file.name
        for file in path.parent.iterdir()
        if file.is_file() and file.name not in own and ".sqlite3" in file.name
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reviews.erasure", description="Take texts out of the record for good."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--comparison", default="", help="a comparison's id")
    which.add_argument("--rater", default="", help="an account's name")
    which.add_argument("--chat", default="", help="a conversation's id")
    parser.add_argument("--reason", required=True, help="why; it stays in the record")
    parser.add_argument("--data", default=Path("data"), type=Path, help="the record's folder")
    given = parser.parse_args(arguments)
    path = given.data / DEFAULT_NAME
    try:
        if not path.exists():
            raise RecordError(f"{path}: there is no record; name its folder with --data")
        with contextlib.closing(Store.open(path)) as store:
            subject = Subject(given.comparison, given.rater, given.chat)
            report = erase(store, subject, given.reason, "erasure")
    except (RecordError, OSError, sqlite3.Error) as error:
        print(f"erasure: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
