"""Accounts, sessions, invitations and rate limits: plain rows, used by huatuo/accounts.py.

Account changes are logged in the audit chain, without names and never with a hash or token.
Moments go in as datetime or as seconds since 1970, and come out as datetime in UTC.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reviews import audit
from reviews.database import Database
from reviews.errors import NameTaken, UnknownAssignment
from reviews.records import clean_text, iso, moment

if TYPE_CHECKING:
    import sqlite_utils

Moment = datetime | float


@dataclass(frozen=True, slots=True)
class User:
    """One account. `disabled_at` is None while it may sign in."""

    id: int
    name: str
    role: str
    password_hash: str
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session joined with its user; user_id None is a visitor (name and role then empty)."""

    token_hash: str
    user_id: int | None
    name: str
    role: str
    expires_at: datetime
    seen_at: datetime
    disabled: bool
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Invitation:
    """A one-time invitation; used_at is None while it may be used."""

    token_hash: str
    role: str
    name: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class People:
    """Accounts and what belongs to them, in the record's database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # accounts

    def add_user(self, name: str, role: str, password_hash: str, actor: int | str) -> User:
        """Make an account. Raises NameTaken (letter case aside)."""
        with self.database.write() as db:
            return self._add_user(db, name, role, password_hash, actor)

    def _add_user(
        self,
        db: sqlite_utils.Database,
        name: str,
        role: str,
        password_hash: str,
        actor: int | str | None,
    ) -> User:
        at, name = self.database.clock(), clean_text(name).strip()
        try:
            cursor = db.conn.execute(
                "INSERT INTO users (name, name_key, role, password_hash, created_at) "
                "VALUES (?,?,?,?,?)",
                (name, _name_key(name), role, password_hash, iso(at)),
            )
        except sqlite3.IntegrityError as error:
            raise NameTaken(f"an account named {name} exists") from error
        user_id = int(cursor.lastrowid or 0)
        who = user_id if actor is None else actor
        audit.append(db.conn, at, who, "user.add", f"user:{user_id}", None, {"role": role})
        return User(user_id, name, role, password_hash, at, None)

    def user(self, user_id: int) -> User | None:
        """The account with this id."""
        return self._find("id = ?", user_id)

    def user_named(self, name: str) -> User | None:
        """The account with this name, letter case aside."""
        return self._find("name_key = ?", _name_key(clean_text(name).strip()))

    def users(self) -> list[User]:
        """All accounts, oldest first."""
        with self.database.read() as db:
            return [_user(row) for row in db["users"].rows_where(order_by="id")]

    def _find(self, where: str, value: int | str) -> User | None:
        with self.database.read() as db:
            return next((_user(row) for row in db["users"].rows_where(where, [value])), None)

    def set_password(self, user_id: int, password_hash: str, actor: int | str) -> None:
        """Store a new hash and end all sessions of the account. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            self._change(db, old, "password_hash", password_hash, actor, "user.password", None)
            db.conn.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,))

    def set_role(self, user_id: int, role: str, actor: int | str) -> None:
        """Give the account another role. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            self._change(db, old, "role", role, actor, "user.role", "role")

    def disable(self, user_id: int, actor: int | str) -> None:
        """Close the account and end its sessions; its votes stay. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            if old["disabled_at"] is None:
                now = iso(self.database.clock())
                self._change(db, old, "disabled_at", now, actor, "user.disable", None)
            db.conn.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,))

    def enable(self, user_id: int, actor: int | str) -> None:
        """Open a disabled account again. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            if old["disabled_at"] is not None:
                self._change(db, old, "disabled_at", None, actor, "user.enable", None)

    def _change(
        self,
        db: sqlite_utils.Database,
        old: Mapping[str, Any],
        column: str,
        value: str | None,
        actor: int | str,
        action: str,
        shown: str | None,
    ) -> None:
        """Change one column (a name from this file, never from outside) and log it."""
        db.conn.execute(f"UPDATE users SET {column} = ? WHERE id = ?", (value, old["id"]))
        before = {shown: old[shown]} if shown else None
        after = {shown: value} if shown else None
        at = self.database.clock()
        audit.append(db.conn, at, actor, action, f"user:{old['id']}", before, after)

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
        with self.database.read() as db:
            row = db.conn.execute(
                "SELECT s.*, u.name, u.role, u.disabled_at FROM sessions s "
                "LEFT JOIN users u ON u.id = s.user_id WHERE s.token_hash = ?",
                (token_hash,),
            ).fetchone()
        if row is None:
            return None
        return SessionRow(
            token_hash=row["token_hash"],
            user_id=row["user_id"],
            name=row["name"] or "",
            role=row["role"] or "",
            expires_at=_moment(row["expires_at"]),
            seen_at=_moment(row["seen_at"]),
            disabled=row["disabled_at"] is not None,
            data=json.loads(row["data"]),
        )

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

    def end_sessions_of(self, user_id: int) -> None:
        """Sign out a user everywhere."""
        with self.database.write() as db:
            db.conn.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,))

    def purge_sessions(self, now: Moment) -> int:
        """Delete sessions that ended before `now`, and failures over 30 days old; returns sessions."""
        end = _seconds(now)
        with self.database.write() as db:
            db.conn.execute("DELETE FROM failures WHERE at < ?", (end - 30 * 86400,))
            done = db.conn.execute("DELETE FROM sessions WHERE expires_at <= ?", (end,))
            return int(done.rowcount)

    # invitations

    def add_invitation(
        self, token_hash: str, role: str, name: str, expires_at: Moment, actor: int | str
    ) -> None:
        """Store a one-time invitation under the hash of its token."""
        at = self.database.clock()
        with self.database.write() as db:
            db.conn.execute(
                "INSERT INTO invitations VALUES (?,?,?,?,?,NULL)",
                (token_hash, role, clean_text(name).strip(), at.timestamp(), _seconds(expires_at)),
            )
            audit.append(
                db.conn, at, actor, "invite", f"invitation:{token_hash[:12]}", None, {"role": role}
            )

    def invitation(self, token_hash: str) -> Invitation | None:
        """The invitation; whether it is used or over is for the caller to say."""
        with self.database.read() as db:
            row = db.conn.execute(
                "SELECT * FROM invitations WHERE token_hash = ?", (token_hash,)
            ).fetchone()
        if row is None:
            return None
        used = None if row["used_at"] is None else _moment(row["used_at"])
        made, end = _moment(row["created_at"]), _moment(row["expires_at"])
        return Invitation(token_hash, row["role"], row["name"], made, end, used)

    def use_invitation(self, token_hash: str, password_hash: str) -> User:
        """Turn an invitation into an account, once.

        Raises UnknownAssignment when it is unknown, used or over; NameTaken.
        """
        now = self.database.clock().timestamp()
        with self.database.write() as db:
            row = db.conn.execute(
                "UPDATE invitations SET used_at = ? WHERE token_hash = ? AND used_at IS NULL "
                "AND expires_at > ? RETURNING role, name",
                (now, token_hash, now),
            ).fetchall()
            if not row:
                raise UnknownAssignment(
                    "this invitation is unknown, used or over; ask for a new one"
                )
            return self._add_user(db, row[0]["name"], row[0]["role"], password_hash, None)

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


def _name_key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _seconds(at: Moment) -> float:
    return at.timestamp() if isinstance(at, datetime) else float(at)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _must_exist(db: sqlite_utils.Database, user_id: int) -> Mapping[str, Any]:
    row = next(iter(db["users"].rows_where("id = ?", [user_id])), None)
    if row is None:
        raise UnknownAssignment(f"there is no user {user_id}")
    return row


def _user(row: Mapping[str, Any]) -> User:
    return User(
        row["id"],
        row["name"],
        row["role"],
        row["password_hash"],
        moment(row["created_at"]),
        moment(row["disabled_at"]) if row["disabled_at"] else None,
    )
