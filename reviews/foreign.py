"""votes of other tools in the record: files a closed study of theirs, whole or not at all, and nothing twice.

Each rater of the other tool becomes an account with a made-up name that cannot sign in. The study is
filed with a protocol that names where it came from, and closed when its votes are in, so that nobody
here is asked about it; its statistics and exports work as those of any study. When a vote was cast is
not kept: the record tells when it was imported. Texts are stored as they are given, unmasked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from reviews import audit, filing, studies, votes
from reviews.ballots import make_ballot
from reviews.errors import AssignmentClosed, BadStudy
from reviews.protocol import Protocol
from reviews.records import Choice, ImportReport, Letter, PreparedPair, PreparedTurn, iso
from reviews.store import Store

if TYPE_CHECKING:
    import sqlite_utils

_CANNOT_SIGN_IN = "!imported"  # no password hash looks like this
_MARK = "imported from "
_CLOSED = "study {!r} is imported and closed; import more under another name"


@dataclass(frozen=True, slots=True)
class ForeignVote:
    """One vote of another tool. choice: left is the pair's own first contestant. place: where it stood."""

    place: str
    rater: str
    pair: PreparedPair
    choice: Choice
    reason: str = ""
    ratings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForeignReport:
    """What became of it. refused: (place, why) of votes that could not stand beside an earlier one."""

    study: str
    read: int
    pairs: ImportReport
    recorded: int
    there: int
    raters: int
    refused: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """The report as plain lines."""
        told = [
            f"study {self.study} (closed: votes of another tool)",
            f"{self.read:6d} votes read",
            f"{self.pairs.added:6d} comparisons added, {self.pairs.already_there} already there",
            f"{self.recorded:6d} votes recorded, {self.there} already there",
            f"{self.raters:6d} raters",
            f"{len(self.refused):6d} refused",
        ]
        return told + [f"        {place}: {why}" for place, why in self.refused]


def question_id(given: str, turns: Sequence[PreparedTurn]) -> str:
    """The given id, or one made of the questions, so that the same question is the same case."""
    return given or "q-" + _digest([turn.question for turn in turns])


def file_votes(
    store: Store, study: str, origin: str, found: Sequence[ForeignVote], actor: int | str
) -> ForeignReport:
    """Store pairs, raters and votes in one transaction. origin: the tool and file, such as `arena: a.jsonl`.

    Raises BadStudy when the study is one of this hospital's own, or an imported one that would get
    new votes; Store*.
    """
    name, at = studies.check_name(study), store.database.clock()
    tagged = _tell_apart(found)
    with store.database.write() as db:
        before = filing.find(db, name)
        _check_study(db, name)
        if before is None:
            kind = "multi" if any(len(vote.pair.turns) > 1 for vote in tagged) else "single"
            language = "en" if tagged[0].pair.language == "en" else "zh"
            notes = _MARK + origin
            filing.file(db, at, Protocol(name, language=language, kind=kind, notes=notes), actor)  # type: ignore[arg-type]
        raters = {rater: _account(db, at, origin, rater, actor) for rater in
                  dict.fromkeys(vote.rater for vote in tagged)}  # fmt: skip
        pairs = studies.add_pairs(db, at, name, _once(tagged), actor)
        counts = {"recorded": 0, "same": 0}
        refused = []
        for vote in tagged:
            outcome = _cast(db, at, name, vote, raters[vote.rater][0])
            if outcome == "conflict":
                refused.append(
                    (vote.place, "the same rater judged this comparison otherwise before")
                )
            else:
                counts[outcome] += 1
        if before is not None and pairs.added:
            raise BadStudy(_CLOSED.format(name))
        for number, closed_at in raters.values():
            db.conn.execute("UPDATE users SET disabled_at = ? WHERE id = ?", (closed_at, number))
        filing.close(db, at, name, actor, _MARK + origin)
    return ForeignReport(
        name, len(found), pairs, counts["recorded"], counts["same"], len(raters), tuple(refused)
    )


def _tell_apart(found: Sequence[ForeignVote]) -> list[ForeignVote]:
    """The votes, with another id for a pair that has the id and contestants of one with other texts."""
    known: dict[tuple[str, ...], str] = {}
    tagged = []
    for vote in found:
        pair = vote.pair
        first, second = sorted((pair.contestant_a, pair.contestant_b))
        swapped = first != pair.contestant_a
        texts = [
            text
            for turn in pair.turns
            for text in (
                turn.question,
                *((turn.answer_b, turn.answer_a) if swapped else (turn.answer_a, turn.answer_b)),
            )
        ]
        digest = _digest(texts)
        if known.setdefault((pair.external_id, first, second), digest) != digest:
            vote = replace(vote, pair=replace(pair, external_id=f"{pair.external_id}-{digest}"))
        tagged.append(vote)
    return tagged


def _digest(texts: Sequence[str]) -> str:
    return sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:16]


def _once(tagged: Sequence[ForeignVote]) -> list[PreparedPair]:
    """Each pair once, though many voted on it."""
    pairs: dict[tuple[str, ...], PreparedPair] = {}
    for vote in tagged:
        names = sorted((vote.pair.contestant_a, vote.pair.contestant_b))
        pairs.setdefault((vote.pair.external_id, *names), vote.pair)
    return list(pairs.values())


def _check_study(db: sqlite_utils.Database, name: str) -> None:
    filed = filing.find(db, name)
    if filed is not None and not filed.protocol.notes.startswith(_MARK):
        raise BadStudy(f"study {name!r} is one of your own; import under another name")
    query = "SELECT 1 FROM comparisons WHERE study = ? LIMIT 1"
    if filed is None and db.conn.execute(query, (name,)).fetchone():
        raise BadStudy(f"study {name!r} holds pairs already; import under another name")


def _account(
    db: sqlite_utils.Database, at: datetime, origin: str, rater: str, actor: int | str
) -> tuple[int, str]:
    """The number of a rater's account, made if need be, and since when it is closed.

    It is open until the end of this transaction, which nobody else can see.
    """
    tool = origin.partition(":")[0]
    name = f"{tool}-{_digest([tool, rater])[:12]}"
    row = db.conn.execute("SELECT id, disabled_at FROM users WHERE name = ?", (name,)).fetchone()
    if row is not None:
        db.conn.execute("UPDATE users SET disabled_at = NULL WHERE id = ?", (row["id"],))
        return int(row["id"]), row["disabled_at"] or iso(at)
    cursor = db.conn.execute(
        "INSERT INTO users (name, name_key, role, password_hash, created_at) VALUES (?,?,?,?,?)",
        (name, name.casefold(), "visitor", _CANNOT_SIGN_IN, iso(at)),
    )
    number = int(cursor.lastrowid or 0)
    audit.append(db.conn, at, actor, "user.add", f"user:{number}", None, {"role": "visitor"})
    return number, iso(at)


def _cast(
    db: sqlite_utils.Database, at: datetime, study: str, vote: ForeignVote, rater_id: int
) -> votes.Outcome:
    pair = vote.pair
    first, second = sorted((pair.contestant_a, pair.contestant_b))
    comparison = db.conn.execute(
        "SELECT id FROM comparisons WHERE study = ? AND external_id = ? AND contestant_a = ? "
        "AND contestant_b = ?",
        (study, pair.external_id, first, second),
    ).fetchone()["id"]
    left_is: Letter = "a" if pair.contestant_a == first else "b"
    given = db.conn.execute(
        "SELECT id, left_is FROM assignments WHERE comparison_id = ? AND rater_id = ?",
        (comparison, rater_id),
    ).fetchone()
    choice: str = vote.choice
    if given is not None and given["left_is"] != left_is:  # shown the other way round this time
        choice = {"left": "right", "right": "left"}.get(choice, choice)
    assignment = given["id"] if given else studies.issue(db, at, rater_id, comparison, left_is)
    ballot = make_ballot(choice, vote.reason, vote.ratings, None)
    try:
        return votes.cast_inside(db, at, assignment, rater_id, ballot)
    except AssignmentClosed as error:
        raise BadStudy(_CLOSED.format(study)) from error
