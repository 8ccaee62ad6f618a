"""Accounts, and who may sign in to them: plain rows, used by huatuo/accounts.py.

Account changes are logged in the audit chain, without names and never with a hash, token or the
identity at a sign-in provider. Sessions, one-time links and limits: reviews/passes.py.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reviews import audit
from reviews.errors import IdentityTaken, LastAdmin, NameTaken, UnknownAssignment
from reviews.passes import RESET, Invitation, Moment, Passes, SessionRow
from reviews.records import clean_text, iso, moment

if TYPE_CHECKING:
    import sqlite_utils

__all__ = ["RESET", "Identity", "Invitation", "Moment", "People", "SessionRow", "User"]

ADMIN = "admin"
"""The role of which one open account must remain."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is at an OpenID provider: the provider's address and its own name for the person."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class User:
    """One account. `disabled_at` is None while it may sign in; password_hash is "" without a password."""

    id: int
    name: str
    role: str
    password_hash: str
    created_at: datetime
    disabled_at: datetime | None
    identity: Identity | None = None


class People(Passes):
    """Accounts and what belongs to them, in the record's database."""

    def add_user(
        self,
        name: str,
        role: str,
        password_hash: str,
        actor: int | str | None,
        identity: Identity | None = None,
    ) -> User:
        """Make an account; actor None: they themselves. Raises NameTaken (letter case aside), IdentityTaken."""
        with self.database.write() as db:
            return self._add_user(db, name, role, password_hash, actor, identity)

    def _add_user(
        self,
        db: sqlite_utils.Database,
        name: str,
        role: str,
        password_hash: str,
        actor: int | str | None,
        identity: Identity | None,
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
        if identity is not None:
            self._link(db, {"id": user_id}, identity, who)
        return User(user_id, name, role, password_hash, at, None, identity)

    def user(self, user_id: int) -> User | None:
        """The account with this id."""
        return self._find("id = ?", user_id)

    def user_named(self, name: str) -> User | None:
        """The account with this name, letter case aside."""
        return self._find("name_key = ?", _name_key(clean_text(name).strip()))

    def user_known_as(self, identity: Identity) -> User | None:
        """The account that is linked to this identity."""
        return self._find("oidc_issuer = ? AND oidc_subject = ?", *_columns(identity))

    def users(self) -> list[User]:
        """All accounts, oldest first."""
        with self.database.read() as db:
            return [_user(row) for row in db["users"].rows_where(order_by="id")]

    def _find(self, where: str, *values: Any) -> User | None:
        with self.database.read() as db:
            return next((_user(row) for row in db["users"].rows_where(where, values)), None)

    # changes

    def set_password(self, user_id: int, password_hash: str, actor: int | str) -> None:
        """Store a new hash and end all sessions of the account. Raises UnknownAssignment."""
        with self.database.write() as db:
            self._set_password(db, _must_exist(db, user_id), password_hash, actor)

    def set_role(self, user_id: int, role: str, actor: int | str) -> None:
        """Give the account another role and end its sessions; its votes stay.

        Raises UnknownAssignment, and LastAdmin when nobody else could administer.
        """
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            if role != ADMIN:
                _keep_an_admin(db, old)
            if old["role"] != role:
                self._change(db, old, "role", role, actor, "user.role", "role")
            self._end_everything(db, old)

    def disable(self, user_id: int, actor: int | str) -> None:
        """Close the account and end its sessions; its votes stay. Raises UnknownAssignment, LastAdmin."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            _keep_an_admin(db, old)
            if old["disabled_at"] is None:
                now = iso(self.database.clock())
                self._change(db, old, "disabled_at", now, actor, "user.disable", None)
            self._end_everything(db, old)

    def enable(self, user_id: int, actor: int | str) -> None:
        """Open a disabled account again. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            if old["disabled_at"] is not None:
                self._change(db, old, "disabled_at", None, actor, "user.enable", None)

    def sign_out_everywhere(self, user_id: int, actor: int | str) -> int:
        """End all sessions of the account; returns how many. Raises UnknownAssignment."""
        with self.database.write() as db:
            old = _must_exist(db, user_id)
            at, subject = self.database.clock(), f"user:{old['id']}"
            ended = self._end_everything(db, old)
            audit.append(db.conn, at, actor, "user.sign_out", subject, None, {"sessions": ended})
            return ended

    def link_identity(self, user_id: int, identity: Identity | None, actor: int | str) -> None:
        """Tie the account to an identity, or with None to none. Raises IdentityTaken, UnknownAssignment."""
        with self.database.write() as db:
            self._link(db, _must_exist(db, user_id), identity, actor)

    # one-time links

    def use_invitation(
        self, token_hash: str, password_hash: str, identity: Identity | None = None
    ) -> User:
        """Turn a one-time link into an account, or into the new way in of one that exists; once.

        Raises UnknownAssignment when it is unknown, used or over, or its account is disabled;
        NameTaken, IdentityTaken. After an error the link can still be used.
        """
        with self.database.write() as db:
            link = self._use_link(db, token_hash)
            if link["role"] != RESET:
                return self._add_user(db, link["name"], link["role"], password_hash, None, identity)
            where = "name_key = ? AND disabled_at IS NULL"
            old = next(iter(db["users"].rows_where(where, [_name_key(link["name"])])), None)
            if old is None:
                raise UnknownAssignment("the account of this link is disabled; ask for help")
            if password_hash:
                self._set_password(db, old, password_hash, old["id"])
            if identity is not None:
                self._link(db, old, identity, old["id"])
            return _user(next(iter(db["users"].rows_where("id = ?", [old["id"]]))))

    # inside

    def _set_password(
        self,
        db: sqlite_utils.Database,
        old: Mapping[str, Any],
        password_hash: str,
        actor: int | str,
    ) -> None:
        self._change(db, old, "password_hash", password_hash, actor, "user.password", None)
        self._end_everything(db, old)

    def _link(
        self,
        db: sqlite_utils.Database,
        old: Mapping[str, Any],
        identity: Identity | None,
        actor: int | str,
    ) -> None:
        if identity is not None:
            _must_be_free(db, identity, old["id"])
        db.conn.execute(
            "UPDATE users SET oidc_issuer = ?, oidc_subject = ? WHERE id = ?",
            (*_columns(identity), old["id"]),
        )
        action = "user.link" if identity else "user.unlink"
        at = self.database.clock()
        audit.append(db.conn, at, actor, action, f"user:{old['id']}", None, None)

    def _end_everything(self, db: sqlite_utils.Database, old: Mapping[str, Any]) -> int:
        """Ends the account's sessions and its open links; returns how many sessions."""
        self._end_links(db, old["name"], RESET)
        done = db.conn.execute("DELETE FROM sessions WHERE user_id = ?", (old["id"],))
        return int(done.rowcount)

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


def _name_key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _columns(identity: Identity | None) -> tuple[str | None, str | None]:
    return (identity.issuer, identity.subject) if identity else (None, None)


def _must_exist(db: sqlite_utils.Database, user_id: int) -> Mapping[str, Any]:
    row = next(iter(db["users"].rows_where("id = ?", [user_id])), None)
    if row is None:
        raise UnknownAssignment(f"there is no user {user_id}")
    return row


def _must_be_free(db: sqlite_utils.Database, identity: Identity, but_for: int) -> None:
    where = "oidc_issuer = ? AND oidc_subject = ? AND id <> ?"
    if db["users"].count_where(where, [*_columns(identity), but_for]):
        raise IdentityTaken("another account is linked to this identity; sign in with that one")


def _keep_an_admin(db: sqlite_utils.Database, leaving: Mapping[str, Any]) -> None:
    """Inside the transaction that takes one away: two admins may disable each other at once."""
    if leaving["role"] != ADMIN or leaving["disabled_at"] is not None:
        return
    where = "role = ? AND disabled_at IS NULL AND id <> ?"
    if not db["users"].count_where(where, [ADMIN, leaving["id"]]):
        raise LastAdmin("this is the last administrator; make another one first")


def _user(row: Mapping[str, Any]) -> User:
    known = row["oidc_subject"] is not None
    return User(
        row["id"],
        row["name"],
        row["role"],
        row["password_hash"],
        moment(row["created_at"]),
        moment(row["disabled_at"]) if row["disabled_at"] else None,
        Identity(row["oidc_issuer"], row["oidc_subject"]) if known else None,
    )
