"""A study's protocol in the record: filed as a draft, frozen before its first pair, closed by a rule or by a person."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reviews import audit, closing
from reviews.errors import AssignmentClosed, BadStudy, NotInvited, StudyFrozen
from reviews.protocol import Protocol, Study
from reviews.records import LIVE_STUDY, OPEN_FOR, REASON_LIMIT, clean_text, iso, moment

if TYPE_CHECKING:
    import sqlite_utils

_GOLD = """
SELECT count(*), sum(:better IN ('tie', contestant_a, contestant_b)) FROM comparisons
WHERE study = :study AND kind = 'prepared' AND external_id = :case
"""


def find(db: sqlite_utils.Database, name: str) -> Study | None:
    """The filed study of this name."""
    row = db.conn.execute("SELECT * FROM studies WHERE name = ?", (name,)).fetchone()
    return _study(row) if row else None


def every(db: sqlite_utils.Database) -> list[Study]:
    """Every filed study, by name."""
    return [_study(row) for row in db.conn.execute("SELECT * FROM studies ORDER BY name")]


def _study(row: sqlite3.Row) -> Study:
    def when(key: str) -> datetime | None:
        return moment(row[key]) if row[key] else None

    return Study(
        Protocol.from_json(row["protocol"]), row["state"], row["sha256"], moment(row["filed_at"]),
        when("frozen_at"), when("closed_at"), row["close_reason"], row["pairs_sha256"],
    )  # fmt: skip


def file(db: sqlite_utils.Database, at: datetime, protocol: Protocol, actor: int | str) -> Study:
    """File a protocol as a draft; a draft of the same name is replaced.

    Raises StudyFrozen when the study has begun with another protocol, BadStudy for the live study's
    name or when votes stand in a study that never had a protocol.
    """
    if protocol.name == LIVE_STUDY:
        raise BadStudy("the study {name!r} is kept for live comparisons", name=LIVE_STUDY)
    before = find(db, protocol.name)
    if before is not None and before.sha256 == protocol.sha256:
        return before
    if before is not None and before.state != "draft":
        raise StudyFrozen(
            "study {name!r} is {state} with protocol {hash}; "
            "file a changed protocol under another name",
            name=protocol.name, state=before.state, hash=before.sha256[:16],
        )  # fmt: skip
    if before is None and _has_assignments(db, protocol.name):
        raise BadStudy(
            "study {name!r} was begun without a protocol; file it under another name",
            name=protocol.name,
        )
    values = (protocol.canonical(), protocol.sha256, iso(at), protocol.name)
    if before is None:
        db.conn.execute(
            "INSERT INTO studies (protocol, sha256, state, filed_at, name) VALUES (?,?,'draft',?,?)",
            values,
        )
    else:
        db.conn.execute(
            "UPDATE studies SET protocol = ?, sha256 = ?, filed_at = ? WHERE name = ?", values
        )
    check_pairs(db, protocol.name, gold=True)
    _log(db, at, actor, "study.file", protocol.name, before, {"sha256": protocol.sha256})
    return _must_find(db, protocol.name)


def check_pairs(db: sqlite_utils.Database, name: str, *, gold: bool = False) -> None:
    """Whether the filed pairs fit the study's protocol, if it has one. Raises BadStudy.

    gold: also whether every gold pair is there (unless no pair is filed yet).
    """
    study = find(db, name)
    if study is None:
        return
    where, protocol = f"study {name!r}", study.protocol
    filed = closing.pairs_of(db, name)
    if filed and protocol.kind == "live":
        raise BadStudy("a live study takes no prepared pairs", where=f"{where}: kind")
    there = {contestant for pair in filed for contestant in pair}
    if protocol.contestants and (strange := sorted(there - set(protocol.contestants))):
        raise BadStudy(
            "the pairs compare {names} too", where=f"{where}: contestants", names=", ".join(strange)
        )
    for case, better in protocol.gold.items() if filed and gold else ():
        found = db.conn.execute(_GOLD, {"study": name, "case": case, "better": better}).fetchone()
        if not found[0]:
            raise BadStudy("no filed pair has the id {case!r}", where=f"{where}: gold", case=case)
        if not found[1]:
            raise BadStudy(
                "{case}: the pair does not compare {name!r}",
                where=f"{where}: gold", case=case, name=better,
            )  # fmt: skip


def _has_assignments(db: sqlite_utils.Database, study: str) -> bool:
    query = (
        "SELECT 1 FROM assignments s JOIN comparisons c ON c.id = s.comparison_id "
        "WHERE c.study = ? LIMIT 1"
    )
    return db.conn.execute(query, (study,)).fetchone() is not None


def _must_find(db: sqlite_utils.Database, name: str) -> Study:
    found = find(db, name)
    if found is None:
        raise BadStudy("study {name!r} has no filed protocol", name=name)
    return found


def freeze(db: sqlite_utils.Database, at: datetime, name: str, actor: int | str) -> Study:
    """From now on protocol and pairs stay as they are; done by the first pair given out, if not before.

    Raises BadStudy, also for a study of prepared pairs that has none: it could never get any.
    """
    study = _must_find(db, name)
    if study.state != "draft":
        return study
    pairs = audit.pairs_sha256(db.conn, name)
    if study.protocol.kind != "live" and not pairs:
        raise BadStudy(
            "study {name!r} has no pairs yet; file them first, they are frozen with it", name=name
        )
    db.conn.execute(
        "UPDATE studies SET state = 'frozen', frozen_at = ?, pairs_sha256 = ? WHERE name = ?",
        (iso(at), pairs, name),
    )
    after = {"sha256": study.sha256, **({"pairs_sha256": pairs} if pairs else {})}
    _log(db, at, actor, "study.freeze", name, study, after)
    return _must_find(db, name)


def close(
    db: sqlite_utils.Database, at: datetime, name: str, actor: int | str, reason: str
) -> Study:
    """The study takes no more votes; what was cast stays. Raises BadStudy."""
    study = _must_find(db, name)
    reason = clean_text(reason).strip()
    if len(reason) > REASON_LIMIT:
        raise BadStudy(
            "the reason has {n} characters, at most {most} fit", n=len(reason), most=REASON_LIMIT
        )
    if study.state == "closed":
        return study
    pairs = audit.pairs_sha256(db.conn, name) if study.state == "draft" else ""
    db.conn.execute(
        "UPDATE studies SET state = 'closed', closed_at = ?, close_reason = ?, "
        "frozen_at = coalesce(frozen_at, ?), pairs_sha256 = pairs_sha256 || ? WHERE name = ?",
        (iso(at), reason, iso(at), pairs, name),
    )
    after = {"sha256": study.sha256, "reason_sha256": audit.digest(reason)}
    after |= {"pairs_sha256": pairs} if pairs else {}
    _log(db, at, actor, "study.close", name, study, after)
    return _must_find(db, name)


def _log(
    db: sqlite_utils.Database,
    at: datetime,
    actor: int | str,
    action: str,
    name: str,
    before: Study | None,
    after: dict[str, Any],
) -> None:
    old = {"state": before.state, "sha256": before.sha256} if before else None
    audit.append(db.conn, at, actor, action, f"study:{name}", old, after)


def check_invited(db: sqlite_utils.Database, study: Study, rater_id: int) -> None:
    """Raises NotInvited when the protocol names raters and this is none of them."""
    raters = {name.casefold() for name in study.protocol.raters}
    if raters:
        row = db.conn.execute("SELECT name FROM users WHERE id = ?", (rater_id,)).fetchone()
        if row is None or row["name"].casefold() not in raters:
            raise NotInvited(f"study {study.name!r} names its raters; ask who runs it")


def enter(
    db: sqlite_utils.Database, at: datetime, name: str, rater_id: int
) -> tuple[Study | None, bool]:
    """(the filed study or None, whether it takes votes), inside a write transaction.

    A study whose rule is met is closed here. Raises NotInvited.
    """
    study = find(db, name)
    if study is None:
        return None, True
    check_invited(db, study, rater_id)
    if study.state != "closed" and (rule := closing.is_due(db, at, study)):
        study = close(db, at, name, "system", f"closing rule: {rule}")
    return study, study.state != "closed"


def begin_live(
    db: sqlite_utils.Database,
    at: datetime,
    name: str,
    rater_id: int,
    contestants: tuple[str, str],
) -> None:
    """Whether a live comparison may begin in a study; freezes its protocol. In a write transaction.

    Raises NotInvited, BadStudy for contestants that the protocol does not name, AssignmentClosed
    for a closed study.
    """
    study, takes_votes = enter(db, at, name, rater_id)
    if study is None:
        return
    if not takes_votes:
        raise AssignmentClosed(f"study {name!r} is closed; it takes no vote any more")
    if study.protocol.kind != "live":
        raise BadStudy(
            "study {name!r} compares prepared pairs; open it on the review page", name=name
        )
    named = study.protocol.contestants
    if strange := [c for c in contestants if named and c not in named]:
        raise BadStudy(
            "study {name!r} does not compare {names}", name=name, names=", ".join(strange)
        )
    freeze(db, at, name, "system")


def check_takes_more(db: sqlite_utils.Database, name: str) -> None:
    """Whether pairs or cases may still be filed: in a draft, or a live study that is not closed.

    What a study compares is frozen with its protocol. Raises StudyFrozen.
    """
    study = find(db, name)
    if study is None or study.state == "draft":
        return
    if study.state == "closed" or study.protocol.kind != "live":
        raise StudyFrozen(
            "study {name!r} is {state}: its pairs are registered and take no addition; "
            "nothing was filed. File these under another study's name",
            name=name, state=study.state,
        )  # fmt: skip


def protocol_of(db: sqlite_utils.Database, comparison_id: str) -> Protocol | None:
    """The protocol of the study that a comparison belongs to."""
    row = db.conn.execute(
        "SELECT t.protocol FROM comparisons c JOIN studies t ON t.name = c.study WHERE c.id = ?",
        (comparison_id,),
    ).fetchone()
    return Protocol.from_json(row["protocol"]) if row else None


def since(at: datetime) -> str:
    """Open pairs given out before this lie with nobody, as the record writes moments."""
    return iso(at - OPEN_FOR)
