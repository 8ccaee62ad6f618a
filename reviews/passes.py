"""Sessions, one-time links and rate limits: rows that come and go, beside the accounts in people.py.

Moments go in as datetime or as seconds since 1970, and come out as datetime in UTC. Of a token only
its hash is known here; the first characters of the hash name a session or a link on the pages.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reviews import audit
from reviews.database import Database
from reviews.errors import UnknownAssignment
from reviews.records import clean_text

if TYPE_CHECKING:
    import sqlite_utils

Moment = datetime | float
RESET = "reset"
"""Stands for the role in a one-time link that sets a new password of an account that exists."""
SHOWN = 16
"""Characters of a hash that name it on a page; they open nothing."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session joined with its user; user_id None is a visitor (name and role then empty)."""

    token_hash: str
    user_id: int | None
    name: str
    role: str
    created_at: datetime
    expires_at: datetime
    seen_at: datetime
    disabled: bool
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """What names the session on a page."""
        return self.token_hash[:SHOWN]


@dataclass(frozen=True, slots=True)
class Invitation:
    """A one-time link; used_at is None while it may be used. role RESET: a new password for `name`."""

    token_hash: str
    role: str
    name: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None

    @property
    def id(self) -> str:
        """What names the link on a page."""
        return self.token_hash[:SHOWN]


class Passes:
    """What lets somebody in for a time, in the record's database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # sessions

    def add_session(
        self,
        token_hash: str,
        user_id: int | None,
        expires_at: Moment,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a session under the hash of its token."""
        now = self.database.clock().timestamp()
        with self.database.write() as db:
            db.conn.execute(
                "INSERT INTO sessions VALUES (?,?,?,?,?,?)",
                (token_hash, user_id, now, now, _seconds(expires_at), json.dumps(data or {})),
            )

    def session(self, token_hash: str) -> SessionRow | None:
        """The session with its user; expiry and `disabled` are for the caller to judge."""
        return next(iter(self._sessions("s.token_hash = ?", token_hash)), None)

    def sessions_of(self, user_id: int) -> list[SessionRow]:
        """The sessions of a user that have not ended, the latest used first."""
        now = self.database.clock()
        rows = self._sessions("s.user_id = ?", user_id)
        return sorted(
            (row for row in rows if row.expires_at > now), key=lambda row: row.seen_at, reverse=True
        )

    def signed_in(self) -> dict[int, tuple[int, datetime]]:
        """How many open sessions each user has, and when one was last seen in use."""
        now = self.database.clock().timestamp()
        with self.database.read() as db:
            rows = db.conn.execute(
                "SELECT user_id, count(*) AS many, max(seen_at) AS seen FROM sessions "
                "WHERE user_id IS NOT NULL AND expires_at > ? GROUP BY user_id",
                (now,),
            ).fetchall()
        return {row["user_id"]: (row["many"], _moment(row["seen"])) for row in rows}

    def _sessions(self, where: str, value: int | str) -> list[SessionRow]:
        with self.database.read() as db:
            rows = db.conn.execute(
                "SELECT s.*, u.name, u.role, u.disabled_at FROM sessions s "
                f"LEFT JOIN users u ON u.id = s.user_id WHERE {where}",
                (value,),
            ).fetchall()
        return [
            SessionRow(
                token_hash=row["token_hash"],
                user_id=row["user_id"],
                name=row["name"] or "",
                role=row["role"] or "",
                created_at=_moment(row["created_at"]),
                expires_at=_moment(row["expires_at"]),
                seen_at=_moment(row["seen_at"]),
                disabled=row["disabled_at"] is not None,
                data=json.loads(row["data"]),
            )
            for row in rows
        ]

    def touch_session(
        self, token_hash: str, seen_at: Moment | None = None, expires_at: Moment | None = None
    ) -> None:
        """Note that the session was used; optionally move its end."""
        seen = _seconds(seen_at if seen_at is not None else self.database.clock())
        end = None if expires_at is None else _seconds(expires_at)
        with self.database.write() as db:
            db.conn.execute(
                "UPDATE sessions SET seen_at = ?, expires_at = coalesce(?, expires_at) "
                "WHERE token_hash = ?",
                (seen, end, token_hash),
            )

    def end_session(self, token_hash: str) -> None:
        """Sign out one session."""
        with self.database.write() as db:
            db.conn.execute("DELETE FROM sessions WHERE token_hash = ?", (token_hash,))

    def end_session_of(self, user_id: int, shown: str) -> bool:
        """Sign out the user's session that a page named so; False when they have none of that name."""
        with self.database.write() as db:
            done = db.conn.execute(
                "DELETE FROM sessions WHERE user_id = ? AND substr(token_hash, 1, ?) = ?",
                (user_id, SHOWN, shown),
            )
            return bool(done.rowcount)

    def purge_sessions(self, now: Moment) -> int:
        """Delete sessions that ended before `now`, and failures over 30 days old; returns sessions."""
        end = _seconds(now)
        with self.database.write() as db:
            db.conn.execute("DELETE FROM failures WHERE at < ?", (end - 30 * 86400,))
            done = db.conn.execute("DELETE FROM sessions WHERE expires_at <= ?", (end,))
            return int(done.rowcount)

    # one-time links

    def add_invitation(
        self, token_hash: str, role: str, name: str, expires_at: Moment, actor: int | str
    ) -> None:
        """Store a one-time link under the hash of its token; of two that reset, the later counts."""
        with self.database.write() as db:
            if role == RESET:
                self._end_links(db, name, RESET)
            self._add_link(db, token_hash, role, clean_text(name).strip(), expires_at, actor)

    def invitation(self, token_hash: str) -> Invitation | None:
        """The link; whether it is used or over is for the caller to say."""
        return next(iter(self._links("token_hash = ?", token_hash)), None)

    def open_invitations(self) -> list[Invitation]:
        """The links that may still be used, the oldest first."""
        now = self.database.clock().timestamp()
        return self._links("used_at IS NULL AND expires_at > ? ORDER BY created_at", now)

    def withdraw_invitation(self, shown: str, actor: int | str) -> Invitation:
        """End an open link, named as a page names it. Raises UnknownAssignment."""
        with self.database.write() as db:
            return self._withdraw(db, shown, actor)

    def renew_invitation(
        self, shown: str, token_hash: str, expires_at: Moment, actor: int | str
    ) -> Invitation:
        """End an open link and store another for the same person. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = self._withdraw(db, shown, actor)
            self._add_link(db, token_hash, old.role, old.name, expires_at, actor)
            return old

    def _links(self, where: str, value: float | str) -> list[Invitation]:
        with self.database.read() as db:
            query = f"SELECT * FROM invitations WHERE {where}"
            return [_invitation(row) for row in db.conn.execute(query, (value,)).fetchall()]

    def _add_link(
        self,
        db: sqlite_utils.Database,
        token_hash: str,
        role: str,
        name: str,
        expires_at: Moment,
        actor: int | str,
    ) -> None:
        at = self.database.clock()
        db.conn.execute(
            "INSERT INTO invitations VALUES (?,?,?,?,?,NULL)",
            (token_hash, role, name, at.timestamp(), _seconds(expires_at)),
        )
        subject = f"invitation:{token_hash[:12]}"
        audit.append(db.conn, at, actor, "invite", subject, None, {"role": role})

    def _withdraw(self, db: sqlite_utils.Database, shown: str, actor: int | str) -> Invitation:
        at = self.database.clock()
        row = db.conn.execute(
            "UPDATE invitations SET expires_at = ? WHERE substr(token_hash, 1, ?) = ? "
            "AND used_at IS NULL AND expires_at > ? RETURNING *",
            (at.timestamp(), SHOWN, shown, at.timestamp()),
        ).fetchall()
        if not row:
            raise UnknownAssignment("this invitation is unknown, used or over; make a new one")
        found = _invitation(row[0])
        subject = f"invitation:{found.token_hash[:12]}"
        audit.append(db.conn, at, actor, "invite.withdraw", subject, {"role": found.role}, None)
        return found

    def _use_link(self, db: sqlite_utils.Database, token_hash: str) -> Mapping[str, Any]:
        """Marks a link as used, once, and returns its row. Raises UnknownAssignment."""
        now = self.database.clock().timestamp()
        row = db.conn.execute(
            "UPDATE invitations SET used_at = ? WHERE token_hash = ? AND used_at IS NULL "
            "AND expires_at > ? RETURNING role, name",
            (now, token_hash, now),
        ).fetchall()
        if not row:
            raise UnknownAssignment("this invitation is unknown, used or over; ask for a new one")
        return dict(row[0])

    def _end_links(self, db: sqlite_utils.Database, name: str, role: str) -> None:
        """Ends the open links of this kind for an account that exists."""
        now = self.database.clock().timestamp()
        db.conn.execute(
            "UPDATE invitations SET expires_at = ? "
            "WHERE role = ? AND name = ? AND used_at IS NULL AND expires_at > ?",
            (now, role, name, now),
        )

    # limits

    def take(self, key: str, capacity: float, refill_per_s: float, now: Moment) -> bool:
        """Take one token from a bucket; False when it is empty. A clock that jumps back is harmless."""
        at = _seconds(now)
        with self.database.write() as db:
            row = db.conn.execute("SELECT tokens, at FROM buckets WHERE key = ?", (key,)).fetchone()
            tokens = float(capacity)
            if row is not None:
                gone = max(0.0, at - row["at"])
                tokens = min(float(capacity), row["tokens"] + gone * refill_per_s)
            granted = tokens >= 1.0
            db.conn.execute(
                "INSERT INTO buckets VALUES (?,?,?) "
                "ON CONFLICT(key) DO UPDATE SET tokens = excluded.tokens, at = excluded.at",
                (key, tokens - granted, at),
            )
            return granted

    def failures(self, key: str, since: Moment) -> int:
        """How many failures were noted for a key since a moment."""
        with self.database.read() as db:
            return int(db["failures"].count_where("key = ? AND at >= ?", [key, _seconds(since)]))

    def add_failure(self, key: str, now: Moment) -> None:
        """Note a failure."""
        with self.database.write() as db:
            db.conn.execute("INSERT INTO failures (key, at) VALUES (?,?)", (key, _seconds(now)))

    def clear_failures(self, key: str) -> None:
        """Forget the failures of a key."""
        with self.database.write() as db:
            db.conn.execute("DELETE FROM failures WHERE key = ?", (key,))


def _invitation(row: sqlite3.Row) -> Invitation:
    used = None if row["used_at"] is None else _moment(row["used_at"])
    made, end = _moment(row["created_at"]), _moment(row["expires_at"])
    return Invitation(row["token_hash"], row["role"], row["name"], made, end, used)


def _seconds(at: Moment) -> float:
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
