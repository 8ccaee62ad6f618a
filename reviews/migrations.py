"""Numbered steps of the schema, each in one transaction with its own record, after a backup."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviews.database import APPLICATION_ID, Database, plain_errors
from reviews.errors import SchemaTooNew, StoreDamaged

if TYPE_CHECKING:
    import sqlite_utils

_TABLES = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL, password_hash TEXT NOT NULL, created_at TEXT NOT NULL, disabled_at TEXT
) STRICT;
CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY, user_id INTEGER REFERENCES users(id), created_at REAL NOT NULL,
    seen_at REAL NOT NULL, expires_at REAL NOT NULL, data TEXT NOT NULL DEFAULT '{}'
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_user ON sessions(user_id);
CREATE INDEX sessions_by_end ON sessions(expires_at);
CREATE TABLE invitations (
    token_hash TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL NOT NULL, used_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE buckets (key TEXT PRIMARY KEY, tokens REAL NOT NULL, at REAL NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE failures (id INTEGER PRIMARY KEY, key TEXT NOT NULL, at REAL NOT NULL) STRICT;
CREATE INDEX failures_by_key ON failures(key, at);

CREATE TABLE comparisons (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('live', 'prepared')),
    study TEXT NOT NULL, contestant_a TEXT NOT NULL, contestant_b TEXT NOT NULL,
    department TEXT NOT NULL, intent TEXT NOT NULL, language TEXT NOT NULL,
    settings_a TEXT NOT NULL, settings_b TEXT NOT NULL,
    external_id TEXT NOT NULL, source TEXT NOT NULL, created_at TEXT NOT NULL,
    CHECK (contestant_a <> contestant_b)
) STRICT;
CREATE UNIQUE INDEX prepared_once ON comparisons(study, external_id, contestant_a, contestant_b)
    WHERE kind = 'prepared';
CREATE TABLE turns (
    comparison_id TEXT NOT NULL REFERENCES comparisons(id), number INTEGER NOT NULL,
    question TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 1, at TEXT NOT NULL,
    PRIMARY KEY (comparison_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
    comparison_id TEXT NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('a', 'b')),
    finish TEXT NOT NULL CHECK (finish IN ('stop', 'length', 'cancelled', 'error')),
    at TEXT NOT NULL, settings TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (comparison_id, number, attempt, side),
    FOREIGN KEY (comparison_id, number) REFERENCES turns(comparison_id, number)
) STRICT;
CREATE TABLE assignments (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    comparison_id TEXT NOT NULL REFERENCES comparisons(id),
    rater_id INTEGER NOT NULL REFERENCES users(id),
    left_is TEXT NOT NULL CHECK (left_is IN ('a', 'b')),
    state TEXT NOT NULL CHECK (state IN ('open', 'voted', 'skipped', 'reported')),
    issued_at TEXT NOT NULL, UNIQUE (comparison_id, rater_id)
) STRICT;
CREATE INDEX assignments_of_rater ON assignments(rater_id, seq);
CREATE TABLE votes (
    assignment_id TEXT NOT NULL REFERENCES assignments(id), revision INTEGER NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie', 'both_bad')),
    reason TEXT NOT NULL, ratings TEXT NOT NULL, seconds REAL, at TEXT NOT NULL,
    PRIMARY KEY (assignment_id, revision)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL,
    prev_hash TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;

CREATE TABLE cases (
    study TEXT NOT NULL, id TEXT NOT NULL, position INTEGER NOT NULL, question TEXT NOT NULL,
    department TEXT NOT NULL, intent TEXT NOT NULL, language TEXT NOT NULL,
    PRIMARY KEY (study, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE chats (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, model TEXT NOT NULL,
    language TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;
CREATE INDEX chats_of_owner ON chats(owner, seq);
CREATE TABLE chat_messages (
    id INTEGER PRIMARY KEY, chat_id TEXT NOT NULL REFERENCES chats(id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')), text TEXT NOT NULL,
    finish TEXT NOT NULL, settings TEXT NOT NULL, notices TEXT NOT NULL,
    thumb INTEGER NOT NULL DEFAULT 0, superseded_at TEXT, created_at TEXT NOT NULL
) STRICT;
CREATE INDEX messages_of_chat ON chat_messages(chat_id, id);
"""

# What may only grow: the words are what a person sees who tries it with sqlite3.
_APPEND_ONLY = {"votes": "assignment_id = NEW.assignment_id AND revision = NEW.revision",
                "audit": "seq = NEW.seq",
                "answers": "comparison_id = NEW.comparison_id AND number = NEW.number"
                           " AND attempt = NEW.attempt AND side = NEW.side"}  # fmt: skip


def _one_by_one(db: sqlite_utils.Database, script: str) -> None:
    """Run a script statement by statement: executescript() would commit behind our back."""
    for statement in script.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


def m001_record(db: sqlite_utils.Database) -> None:
    """All tables of the first version; votes, audit and answers can only grow."""
    _one_by_one(db, _TABLES)
    for table, same_key in _APPEND_ONLY.items():
        for event in ("UPDATE", "DELETE"):
            db.conn.execute(
                f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        db.conn.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_key}) "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def m002_flags(db: sqlite_utils.Database) -> None:
    """What is known against a comparison, such as an answer that says which model it is."""
    db.conn.execute(
        "CREATE TABLE flags (comparison_id TEXT NOT NULL REFERENCES comparisons(id), "
        "flag TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (comparison_id, flag)) "
        "STRICT, WITHOUT ROWID"
    )


_PROGRAMME = """
CREATE TABLE studies (
    name TEXT PRIMARY KEY, protocol TEXT NOT NULL, sha256 TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('draft', 'frozen', 'closed')),
    filed_at TEXT NOT NULL, frozen_at TEXT, closed_at TEXT, close_reason TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
ALTER TABLE assignments ADD COLUMN purpose TEXT NOT NULL DEFAULT 'vote'
    CHECK (purpose IN ('vote', 'adjudication'));
ALTER TABLE assignments ADD COLUMN probability REAL;
ALTER TABLE votes ADD COLUMN spans TEXT NOT NULL DEFAULT '';
ALTER TABLE votes ADD COLUMN better TEXT NOT NULL DEFAULT '';
CREATE TABLE drafts (
    assignment_id TEXT PRIMARY KEY REFERENCES assignments(id), data TEXT NOT NULL, at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE erasures (
    seq INTEGER PRIMARY KEY, subject TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL,
    sha256 TEXT NOT NULL
) STRICT;
CREATE INDEX erasures_of_subject ON erasures(subject);
ALTER TABLE users ADD COLUMN oidc_issuer TEXT;
ALTER TABLE users ADD COLUMN oidc_subject TEXT;
CREATE UNIQUE INDEX users_by_identity ON users(oidc_issuer, oidc_subject)
    WHERE oidc_subject IS NOT NULL;
"""


_TWO_PATIENTS = """
ALTER TABLE turns ADD COLUMN question_b TEXT;
ALTER TABLE cases ADD COLUMN card TEXT NOT NULL DEFAULT '';
"""

# What a draw reads, without a look at every vote: how the standing votes came out, kept by triggers.
_OUTCOMES = """
CREATE TABLE outcomes (
    study TEXT NOT NULL, contestant_a TEXT NOT NULL, contestant_b TEXT NOT NULL,
    left_is TEXT NOT NULL, choice TEXT NOT NULL, votes INTEGER NOT NULL,
    PRIMARY KEY (study, contestant_a, contestant_b, left_is, choice)
) STRICT, WITHOUT ROWID;
INSERT INTO outcomes
SELECT c.study, c.contestant_a, c.contestant_b, s.left_is, v.choice, count(*)
FROM votes v JOIN assignments s ON s.id = v.assignment_id
JOIN comparisons c ON c.id = s.comparison_id
WHERE s.purpose = 'vote' AND NOT EXISTS (SELECT 1 FROM votes w
    WHERE w.assignment_id = v.assignment_id AND w.revision > v.revision)
GROUP BY 1, 2, 3, 4, 5;
CREATE INDEX assignments_of_comparison
    ON assignments(comparison_id, purpose, state, issued_at, rater_id);
"""
_COUNT = """
CREATE TRIGGER votes_counted AFTER INSERT ON votes BEGIN
    INSERT INTO outcomes
    SELECT c.study, c.contestant_a, c.contestant_b, s.left_is, NEW.choice, 1
    FROM assignments s JOIN comparisons c ON c.id = s.comparison_id
    WHERE s.id = NEW.assignment_id AND s.purpose = 'vote'
    ON CONFLICT DO UPDATE SET votes = votes + 1;
    UPDATE outcomes SET votes = votes - 1 WHERE NEW.revision > 1
    AND (study, contestant_a, contestant_b, left_is, choice) = (
        SELECT c.study, c.contestant_a, c.contestant_b, s.left_is, v.choice
        FROM votes v JOIN assignments s ON s.id = v.assignment_id
        JOIN comparisons c ON c.id = s.comparison_id
        WHERE v.assignment_id = NEW.assignment_id AND v.revision = NEW.revision - 1
        AND s.purpose = 'vote');
END
"""


def m003_programme(db: sqlite_utils.Database) -> None:
    """Studies with a protocol, adjudication, spans and better answers, drafts, erasures, sign-in providers."""
    _one_by_one(db, _PROGRAMME)


def m004_two_patients(db: sqlite_utils.Database) -> None:
    """What a simulated patient said to the second side, where it differs; a card of a case to be played."""
    _one_by_one(db, _TWO_PATIENTS)


def m005_outcomes(db: sqlite_utils.Database) -> None:
    """The standing votes counted by study, contestants, sides and choice, for the queue and the closing rules."""
    _one_by_one(db, _OUTCOMES)
    db.conn.execute(_COUNT)


def m006_frozen_pairs(db: sqlite_utils.Database) -> None:
    """The hash of a study's pairs as they were when it was frozen; unknown for those frozen before."""
    db.conn.execute("ALTER TABLE studies ADD COLUMN pairs_sha256 TEXT NOT NULL DEFAULT ''")


def m007_reports(db: sqlite_utils.Database) -> None:
    """Why a pair was reported, where an erasure reaches it; the log of older versions holds the words."""
    db.conn.execute(
        "CREATE TABLE reports (seq INTEGER PRIMARY KEY, "
        "assignment_id TEXT NOT NULL REFERENCES assignments(id), reason TEXT NOT NULL, "
        "at TEXT NOT NULL) STRICT"
    )


STEPS = [
    m001_record, m002_flags, m003_programme, m004_two_patients, m005_outcomes, m006_frozen_pairs,
    m007_reports,
]  # fmt: skip


def migrate(database: Database, *, check: bool = True) -> None:
    """Bring the file to the newest schema; a backup file is made before the first step.

    Raises SchemaTooNew, StoreDamaged (broken pages, or another program's database),
    StoreReadOnly (a real write is tried), StoreBusy, StoreFull.
    """
    with plain_errors(database.path):
        _look(database, check)
        with database.write() as db:  # a real write: shows a read-only disk at the start
            version = _version(db.conn)
            db.conn.execute(f"PRAGMA user_version={version}")
        if version < len(STEPS) and version > 0:
            backup(database, _backup_path(database, version))
        while version < len(STEPS):
            version = _next_step(database)


def backup(database: Database, target: Path) -> Path:
    """Copy the database into a file of mode 0600 while it is in use. Returns the file.

    The file appears whole or not at all. Raises FileExistsError, Store*.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with plain_errors(target):
        copy = sqlite3.connect(part)
        try:
            database.connection().conn.backup(copy)
        finally:
            copy.close()
    part.rename(target)
    return target


def _next_step(database: Database) -> int:
    """Apply one pending step; two processes starting at once apply it once."""
    from sqlite_utils.migrations import Migrations

    steps: Any = Migrations("reviews")
    for step in STEPS:
        steps(name=step.__name__)(step)
    with database.write() as db:
        version = _version(db.conn)
        if version < len(STEPS):
            later = [step.__name__ for step in STEPS[version + 1 :]]
            steps.apply(db, stop_before=later)
            version += 1
            db.conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.conn.execute(f"PRAGMA user_version={version}")
        return version


def _version(conn: sqlite3.Connection) -> int:
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def _look(database: Database, check: bool) -> None:
    """Look at the file through a connection that cannot write; raise what is wrong with it.

    Read-only also keeps a -wal file from being merged when it closes: the -wal may be another's,
    which shows only where indexes and references do not fit, so both are checked in full.
    """
    uri = f"{database.path.resolve().as_uri()}?mode=ro"
    conn = sqlite3.connect(uri, uri=True, timeout=database.busy_timeout_s, isolation_level=None)
    try:
        version = _version(conn)
        if version > len(STEPS):
            raise SchemaTooNew(
                f"{database.path}: schema {version}, this version knows {len(STEPS)}; "
                "install the newer version, nothing was changed"
            )
        tables = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ours = conn.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        if tables and not ours:
            raise StoreDamaged(f"{database.path}: this is the database of another program")
        if check:
            _check_pages(conn, database.path)
    finally:
        conn.close()


def _check_pages(conn: sqlite3.Connection, path: Path) -> None:
    found = conn.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found == "ok" and (loose := conn.execute("PRAGMA foreign_key_check").fetchone()):
        found = f"a row of {loose[0]} refers to nothing"
    if found != "ok":
        raise StoreDamaged(
            f"{path}: the file, or the -wal file beside it, is damaged; both were left as they "
            f"are, restore a backup: {found}"
        )


def _backup_path(database: Database, version: int) -> Path:
    when = database.clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return database.path.with_name(f"{database.path.name}.v{version}.{when}.backup")
