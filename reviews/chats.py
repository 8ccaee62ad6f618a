"""Visitors' conversations with one assistant: kept for a reload, deleted after the retention time."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reviews.database import Database
from reviews.errors import NotYours, UnknownAssignment
from reviews.records import FINISH_REASONS, clean_text, iso
from reviews.studies import settings_text

if TYPE_CHECKING:
    import sqlite_utils

_NO_SUCH = "no such conversation for you; begin a new one"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message. A question's finish is 'stop'. thumb: 1, -1 or 0."""

    id: int
    role: str
    text: str
    finish: str
    thumb: int
    notices: tuple[str, ...]


class Chats:
    """Conversations in the record's database. `owner` is the caller's stable id, never a name."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def new_chat(self, owner: str, model: str, language: str) -> str:
        """Begin a conversation; returns its id (32 hex digits)."""
        chat_id, at = secrets.token_hex(16), iso(self.database.clock())
        with self.database.write() as db:
            db.conn.execute(
                "INSERT INTO chats (id, owner, model, language, created_at) VALUES (?,?,?,?,?)",
                (chat_id, owner, model, language, at),
            )
        return chat_id

    def latest(self, owner: str) -> str | None:
        """The id of the owner's newest conversation."""
        with self.database.read() as db:
            row = db.conn.execute(
                "SELECT id FROM chats WHERE owner = ? ORDER BY seq DESC LIMIT 1", (owner,)
            ).fetchone()
            return row["id"] if row else None

    def add_question(self, chat_id: str, owner: str, text: str, notices: Sequence[str] = ()) -> int:
        """Store a question; returns the message's id. Raises UnknownAssignment, NotYours."""
        with self.database.write() as db:
            _check_owner(db, chat_id, owner)
            return self._add(db, chat_id, "user", text, "stop", {}, notices)

    def add_answer(
        self, chat_id: str, text: str, finish: str, settings: Mapping[str, Any] | None = None
    ) -> int:
        """Store how an answer ended; returns the message's id. Raises UnknownAssignment."""
        if finish not in FINISH_REASONS:
            raise ValueError(f"finish {finish!r} is unknown")
        with self.database.write() as db:
            if not db["chats"].count_where("id = ?", [chat_id]):
                raise UnknownAssignment(_NO_SUCH)
            return self._add(db, chat_id, "assistant", text, finish, settings or {}, ())

    def _add(
        self,
        db: sqlite_utils.Database,
        chat_id: str,
        role: str,
        text: str,
        finish: str,
        settings: Mapping[str, Any],
        notices: Sequence[str],
    ) -> int:
        values = (
            chat_id, role, clean_text(text), finish, settings_text(settings),
            json.dumps(list(notices), ensure_ascii=False), iso(self.database.clock()),
        )  # fmt: skip
        cursor = db.conn.execute(
            "INSERT INTO chat_messages (chat_id, role, text, finish, settings, notices, "
            "created_at) VALUES (?,?,?,?,?,?,?)",
            values,
        )
        return int(cursor.lastrowid or 0)

    def supersede_last_answer(self, chat_id: str, owner: str) -> bool:
        """Lay the last answer aside for a new one; False when the last message is a question."""
        with self.database.write() as db:
            _check_owner(db, chat_id, owner)
            last = db.conn.execute(
                "SELECT id, role FROM chat_messages WHERE chat_id = ? AND superseded_at IS NULL "
                "ORDER BY id DESC LIMIT 1",
                (chat_id,),
            ).fetchone()
            if last is None or last["role"] != "assistant":
                return False
            db.conn.execute(
                "UPDATE chat_messages SET superseded_at = ? WHERE id = ?",
                (iso(self.database.clock()), last["id"]),
            )
            return True

    def messages(self, chat_id: str, owner: str) -> list[ChatMessage]:
        """The current messages in order. Raises UnknownAssignment, NotYours."""
        with self.database.read() as db:
            _check_owner(db, chat_id, owner)
            rows = db["chat_messages"].rows_where(
                "chat_id = ? AND superseded_at IS NULL", [chat_id], order_by="id"
            )
            return [
                ChatMessage(
                    row["id"],
                    row["role"],
                    row["text"],
                    row["finish"],
                    row["thumb"],
                    tuple(json.loads(row["notices"])),
                )
                for row in rows
            ]

    def thumb(self, message_id: int, owner: str, value: int) -> None:
        """Set a thumb on an answer: 1, -1, or 0 to take it back. Raises UnknownAssignment, NotYours."""
        if value not in (1, -1, 0):
            raise ValueError("a thumb is 1, -1 or 0")
        with self.database.write() as db:
            row = db.conn.execute(
                "SELECT chat_id FROM chat_messages WHERE id = ? AND role = 'assistant'",
                (message_id,),
            ).fetchone()
            _check_owner(db, row["chat_id"] if row else "", owner)
            db.conn.execute("UPDATE chat_messages SET thumb = ? WHERE id = ?", (value, message_id))

    def purge(self, before: datetime | float) -> int:
        """Delete conversations begun before a moment, with their messages; returns how many."""
        at = before if isinstance(before, datetime) else datetime.fromtimestamp(before, UTC)
        with self.database.write() as db:
            done = db.conn.execute("DELETE FROM chats WHERE created_at < ?", (iso(at),))
            return int(done.rowcount)


def _check_owner(db: sqlite_utils.Database, chat_id: str, owner: str) -> None:
    row = db.conn.execute("SELECT owner FROM chats WHERE id = ?", (chat_id,)).fetchone()
    if row is None:
        raise UnknownAssignment(_NO_SUCH)
    if row["owner"] != owner:
        raise NotYours(_NO_SUCH)
