"""The append-only, hash-chained log of every change; verify() finds the first bad row.

Each row is written in the transaction of the change it tells of. Its hash covers its own
content and the hash before it, so a row cannot be edited or taken out unseen. The chain
detects, it does not prevent: who may write the file is the real boundary. A log cut off at
its end is found by comparing the last hash with an export's manifest.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from reviews.errors import AuditBroken
from reviews.records import iso

if TYPE_CHECKING:
    import sqlite_utils

FIRST_HASH = "0" * 64
_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
_quote = json.encoder.encode_basestring  # one JSON string, not ASCII only


class Verified(NamedTuple):
    """A chain that holds: how many rows, and the hash of the last one."""

    rows: int
    last_hash: str


def canonical(value: Any) -> str:
    """JSON text with sorted keys and no spaces: the same value always gives the same bytes."""
    return _encode(value)


def digest(text: str) -> str:
    """sha256 of a text, in hex; an empty text gives an empty string."""
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def actor_name(actor: int | str) -> str:
    """Who acts, as the log has it: `user:7`, or a word such as `system`."""
    return f"user:{actor}" if isinstance(actor, int) else actor


class Row:
    """A row without its place in the chain: what is known before the transaction begins."""

    __slots__ = ("parts", "text")

    def __init__(
        self, at: str, actor: str, action: str, subject: str, before: str, after: str
    ) -> None:
        self.parts = (at, actor, action, subject, before, after)
        self.text = row_text(self.parts)


def row_text(parts: Sequence[str]) -> str:
    """JSON list of (at, actor, action, subject, before, after), as canonical() would write it."""
    return f"[{','.join(map(_quote, parts))}]"


def row_hash(seq: int, prev_hash: str, text: str) -> str:
    """sha256 over the hash before, the row's place and its content (Row.text)."""
    return hashlib.sha256(f"{prev_hash}\n{seq}\n{text}".encode()).hexdigest()


def append(
    conn: sqlite3.Connection,
    at: datetime,
    actor: int | str,
    action: str,
    subject: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add one row; must run inside the transaction of the change itself."""
    texts = (canonical(before) if before else "", canonical(after) if after else "")
    append_row(conn, Row(iso(at), actor_name(actor), action, subject, *texts))


def append_row(conn: sqlite3.Connection, row: Row) -> None:
    """Add a row that was made ready outside the transaction."""
    last = conn.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, prev_hash = (last[0] + 1, last[1]) if last else (1, FIRST_HASH)
    chained = (prev_hash, row_hash(seq, prev_hash, row.text))
    conn.execute("INSERT INTO audit VALUES (?,?,?,?,?,?,?,?,?)", (seq, *row.parts, *chained))


def last_hash(db: sqlite_utils.Database) -> str:
    """The hash of the newest row, or 64 zeros for an empty log."""
    row = db.conn.execute("SELECT hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    return row[0] if row else FIRST_HASH


def vote_after(
    revision: int,
    choice: str,
    reason: str,
    ratings: str,
    seconds: float | None,
    spans: str = "",
    better: str = "",
) -> dict[str, Any]:
    """What the log keeps of a vote: everything, but of what the rater wrote only its hash."""
    return {
        "revision": revision,
        "choice": choice,
        "reason_sha256": digest(reason),
        "ratings": ratings,
        "seconds": seconds,
        **({"spans_sha256": digest(spans)} if spans else {}),
        **({"better_sha256": digest(better)} if better else {}),
    }


def verify(db: sqlite_utils.Database) -> Verified:
    """Walk the whole chain, then hold every vote, protocol and frozen set of pairs against its log row.

    Raises AuditBroken with the first bad seq. Call it inside Database.read().
    """
    prev_hash, expected = FIRST_HASH, 0
    votes: dict[tuple[str, int], int] = {}
    texts: dict[int, str] = {}
    sealed: set[str] = set()
    filed: dict[str, tuple[int, str]] = {}
    frozen: dict[str, tuple[int, str]] = {}
    columns = "seq, at, actor, action, subject, before, after, prev_hash, hash"
    for row in db.conn.execute(f"SELECT {columns} FROM audit ORDER BY seq"):
        expected += 1
        parts = tuple(row)
        if parts[0] != expected:
            raise AuditBroken(expected, "the row is missing")
        if parts[7] != prev_hash:
            raise AuditBroken(expected, "it does not follow from the row before")
        if row_hash(parts[0], prev_hash, row_text(parts[1:7])) != parts[8]:
            raise AuditBroken(expected, "its content does not match its hash")
        prev_hash = parts[8]
        if parts[3] in ("vote", "revote"):
            votes[parts[4], json.loads(parts[6])["revision"]] = expected
            texts[expected] = parts[6]
        elif parts[3] == "erase":
            sealed.add(json.loads(parts[6])["sha256"])
        elif parts[3] in ("study.file", "study.freeze", "study.close"):
            after = json.loads(parts[6])
            filed[parts[4]] = (expected, after["sha256"])
            if parts[3] != "study.file":
                frozen.setdefault(parts[4], (expected, after.get("pairs_sha256", "")))
    gone = erased_hashes(db.conn, sealed)
    _verify_votes(db, votes, texts, gone, expected)
    protocols = {
        f"study:{name}": text
        for name, text in db.conn.execute("SELECT name, protocol FROM studies")
    }
    for subject, (seq, sha256) in filed.items():
        if digest(protocols.get(subject, "")) != sha256:
            raise AuditBroken(seq, "the protocol that it tells of was changed")
    for subject, (seq, pairs) in frozen.items():
        if pairs and pairs_sha256(db.conn, subject.removeprefix("study:"), gone) != pairs:
            raise AuditBroken(seq, "the pairs that it froze were changed")
    return Verified(rows=expected, last_hash=prev_hash)


def _verify_votes(
    db: sqlite_utils.Database,
    logged: dict[tuple[str, int], int],
    texts: dict[int, str],
    gone: Mapping[str, str],
    last_seq: int,
) -> None:
    bad: list[tuple[int, str]] = []
    query = (
        "SELECT assignment_id, revision, choice, reason, ratings, seconds, spans, better FROM votes"
    )
    for vote in db.conn.execute(query):
        seq = logged.pop((f"assignment:{vote[0]}", vote[1]), 0)
        if not seq:
            bad.append((last_seq + 1, f"vote {vote[0]} has no log row"))
        elif texts[seq] != canonical(_as_logged(tuple(vote), gone)):
            bad.append((seq, "the vote it tells of was changed"))
    bad += [(seq, "the vote it tells of is gone") for seq in logged.values()]
    if bad:
        raise AuditBroken(*min(bad))


def _as_logged(vote: tuple[Any, ...], gone: Mapping[str, str]) -> dict[str, Any]:
    """What the log must say of a vote; erased texts count with the hash that their erasure kept."""
    said = vote_after(*vote[1:])
    for column in ("reason", "spans", "better"):
        if (sha256 := gone.get(f"votes/{vote[0]}/{vote[1]}/{column}")) is not None:
            said[f"{column}_sha256"] = sha256
    return said


def erased_hashes(conn: sqlite3.Connection, sealed: set[str] | None = None) -> dict[str, str]:
    """Where each erased text stood -> its sha256, of those erasures that the log seals.

    sealed: the digests that rows of the log name, where they were read already. Rows that do not
    fit their seal are left out.
    """
    if sealed is None:
        told = conn.execute("SELECT after FROM audit WHERE action = 'erase'")
        sealed = {json.loads(after)["sha256"] for (after,) in told}
    by_seal: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for subject, sha256 in conn.execute("SELECT subject, sha256 FROM erasures ORDER BY seq"):
        seal, slash, where = subject.partition("/")
        if slash and seal in sealed:
            by_seal[seal].append((where, sha256))
    return {
        where: sha256
        for seal, found in by_seal.items()
        if digest(canonical(sorted(found))) == seal
        for where, sha256 in found
    }


_PAIRS = """
SELECT id, external_id, contestant_a, contestant_b, department, intent, language, source,
  settings_a, settings_b
FROM comparisons WHERE study = ? AND kind = 'prepared'
ORDER BY external_id, contestant_a, contestant_b
"""
_PAIR_TEXTS = """
SELECT t.comparison_id, t.number, t.question, coalesce(t.question_b, ''), x.side, x.text, x.attempt
FROM turns t JOIN comparisons c ON c.id = t.comparison_id
JOIN answers x ON x.comparison_id = t.comparison_id AND x.number = t.number
WHERE c.study = ? AND c.kind = 'prepared' ORDER BY t.comparison_id, t.number, x.side
"""


def pairs_sha256(
    conn: sqlite3.Connection, study: str, gone: Mapping[str, str] | None = None
) -> str:
    """sha256 of a study's filed pairs, sorted by external id and contestants; empty without any.

    Hashed is canonical() of a list of [external_id, contestant_a, contestant_b, department, intent,
    language, source, settings_a, settings_b, turns]; settings as their canonical JSON, turns as
    [question, question_b, answer_a, answer_b] with the sha256 of each text, or "" for an empty one.
    gone: erased_hashes(), if they were read already; an erased text counts with the hash that its
    erasure kept, whether that came before the freeze or after it.
    """
    gone = erased_hashes(conn) if gone is None else gone
    turns: defaultdict[str, list[list[str]]] = defaultdict(list)
    for one, number, question, other, side, text, attempt in conn.execute(_PAIR_TEXTS, (study,)):
        if side == "a":
            where = f"turns/{one}/{number}"
            asked = ((f"{where}/question", question), (f"{where}/question_b", other))
            turns[one].append([gone.get(place) or digest(words) for place, words in asked])
        place = f"answers/{one}/{number}/{attempt}/{side}/text"
        turns[one][-1].append(gone.get(place) or digest(text))
    pairs = [[*row[1:], turns[row[0]]] for row in map(tuple, conn.execute(_PAIRS, (study,)))]
    return digest(canonical(pairs)) if pairs else ""
