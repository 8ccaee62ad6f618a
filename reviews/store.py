"""The record's front door: comparisons, assignments and votes; one public method = one transaction.

Every method may be called from any thread of any process. It raises the Store* errors of
reviews.errors when the file cannot be used, and nothing is changed then.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from reviews import audit, comparisons, studies, votes
from reviews.database import BUSY_TIMEOUT_S, Database
from reviews.errors import (
    AlreadyVoted,
    AssignmentClosed,
    NotFinished,
    NotYours,
    RecordError,
    UnknownAssignment,
)
from reviews.migrations import migrate
from reviews.records import (
    FINISH_REASONS,
    LIVE_STUDY,
    Assignment,
    Case,
    Comparison,
    Counted,
    ImportReport,
    Letter,
    PreparedPair,
    Progress,
    StudySummary,
    VoteRow,
    clean_text,
    is_over,
    iso,
    utcnow,
)
from reviews.votes import NO_SUCH, Outcome, check_id

NamesItself = Callable[[str, tuple[str, str]], bool]


class Store:
    """Comparisons, assignments and votes in one database file."""

    def __init__(
        self,
        database: Database,
        *,
        rng: random.Random | None = None,
        names_itself: NamesItself | None = None,
    ) -> None:
        self.database = database
        self._rng = rng or secrets.SystemRandom()
        self._names_itself = names_itself

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        clock: Callable[[], datetime] = utcnow,
        rng: random.Random | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        check: bool = True,
        names_itself: NamesItself | None = None,
    ) -> Store:
        """Open (or make) the file, check its pages and bring it to the newest schema.

        `rng` shuffles the sides (default: the system's randomness). `names_itself` is asked at a
        vote whether an answer says which model it is, given both contestants' names. Raises StoreReadOnly,
        StoreDamaged, SchemaTooNew, StoreBusy, StoreFull; each names the path.
        """
        database = Database(path, clock=clock, busy_timeout_s=busy_timeout_s)
        try:
            migrate(database, check=check)
        except BaseException:
            database.close()
            raise
        return cls(database, rng=rng, names_itself=names_itself)

    def close(self) -> None:
        """Close the file in every thread."""
        self.database.close()

    # live comparisons

    def open_live(
        self,
        rater_id: int,
        contestant_a: str,
        contestant_b: str,
        left_is: Letter,
        *,
        language: str,
        settings_a: Mapping[str, Any] | None = None,
        settings_b: Mapping[str, Any] | None = None,
        study: str = LIVE_STUDY,
    ) -> Assignment:
        """Begin a live comparison for a rater. Raises RecordError for one contestant twice."""
        if contestant_a == contestant_b:
            raise RecordError(f"{contestant_a} cannot be compared with itself")
        at, comparison_id = self.database.clock(), secrets.token_hex(16)
        values = (
            comparison_id, studies.check_name(study), contestant_a, contestant_b, language,
            studies.settings_text(settings_a), studies.settings_text(settings_b), iso(at),
        )  # fmt: skip
        with self.database.write() as db:
            comparisons.check_rater(db, rater_id)
            db.conn.execute(
                "INSERT INTO comparisons VALUES (?,'live',?,?,?,'','',?,?,?,'','',?)", values
            )
            return comparisons.find_assignment(
                db, studies.issue(db, at, rater_id, comparison_id, left_is)
            )

    def current_live(self, rater_id: int) -> Assignment | None:
        """The rater's newest live assignment that is still open."""
        with self.database.read() as db:
            row = db.conn.execute(
                "SELECT s.id FROM assignments s JOIN comparisons c ON c.id = s.comparison_id "
                "WHERE s.rater_id = ? AND s.state = 'open' AND c.kind = 'live' "
                "ORDER BY s.seq DESC LIMIT 1",
                (rater_id,),
            ).fetchone()
            return comparisons.find_assignment(db, row["id"]) if row else None

    def add_turn(self, assignment_id: str, rater_id: int, question: str) -> int:
        """Add a question; returns its turn number, from 1.

        Raises NotFinished while the turn before lacks an answer, AssignmentClosed, NotYours.
        """
        at = iso(self.database.clock())
        with self._logging_intruders(assignment_id, rater_id), self.database.write() as db:
            assignment, comparison = comparisons.open_live(db, assignment_id, rater_id)
            if comparison.turns and not comparison.is_votable:
                raise NotFinished("the answers before this question are not finished")
            number = len(comparison.turns) + 1
            studies.insert_turn(db.conn, assignment.comparison_id, number, clean_text(question), at)
            return number

    def finish_side(
        self,
        comparison_id: str,
        number: int,
        side: Letter,
        text: str,
        finish: str,
        settings: Mapping[str, Any] | None = None,
        *,
        attempt: int | None = None,
    ) -> None:
        """Store how one answer ended. Each side once; a second call changes nothing.

        With `attempt` given, an answer to an earlier attempt (see retry_turn) is ignored.
        Raises UnknownAssignment without such a turn, ValueError for a wrong side or finish.
        """
        if side not in ("a", "b") or finish not in FINISH_REASONS:
            raise ValueError(f"side {side!r} or finish {finish!r} is unknown")
        at = iso(self.database.clock())
        with self.database.write() as db:
            turn = db.conn.execute(
                "SELECT attempt FROM turns WHERE comparison_id = ? AND number = ?",
                (comparison_id, number),
            ).fetchone()
            if turn is None:
                raise UnknownAssignment(NO_SUCH)
            if attempt not in (None, turn["attempt"]):
                return
            key = (comparison_id, number, turn["attempt"], side)
            there = db.conn.execute(
                "SELECT 1 FROM answers WHERE comparison_id = ? AND number = ? AND attempt = ? "
                "AND side = ?",
                key,
            ).fetchone()
            if there is None:
                rest = (finish, at, studies.settings_text(settings), clean_text(text))
                studies.insert_answer(db.conn, (*key, *rest))

    def retry_turn(self, assignment_id: str, rater_id: int) -> int:
        """Make both sides of the last turn pending again; returns its number.

        For a turn that failed, was cut or never ended; the old texts stay in the record and
        their hashes go into the log. Raises AssignmentClosed when there is nothing to retry.
        """
        at = self.database.clock()
        with self._logging_intruders(assignment_id, rater_id), self.database.write() as db:
            assignment, comparison = comparisons.open_live(db, assignment_id, rater_id)
            if not comparison.turns or comparison.turns[-1].is_finished:
                raise AssignmentClosed("there is no unfinished answer to try again")
            turn = comparison.turns[-1]
            db.conn.execute(
                "UPDATE turns SET attempt = attempt + 1 WHERE comparison_id = ? AND number = ?",
                (comparison.id, turn.number),
            )
            before = {
                "turn": turn.number,
                "attempt": turn.attempt,
                **{
                    letter: {"finish": old.finish, "text_sha256": audit.digest(old.text)}
                    for letter, old in (("a", turn.a), ("b", turn.b))
                    if old is not None
                },
            }
            audit.append(
                db.conn, at, rater_id, "retry", f"assignment:{assignment.id}", before,
                {"turn": turn.number, "attempt": turn.attempt + 1},
            )  # fmt: skip
            return turn.number

    # any assignment

    def view(self, assignment_id: str, rater_id: int) -> tuple[Assignment, Comparison]:
        """The rater's own assignment and its comparison.

        Raises UnknownAssignment, and with the same words NotYours, which is also logged.
        """
        with self._logging_intruders(assignment_id, rater_id), self.database.read() as db:
            assignment = comparisons.mine(db, assignment_id, rater_id)
            return assignment, comparisons.find_comparison(db, assignment.comparison_id)

    def cast_vote(
        self,
        assignment_id: str,
        rater_id: int,
        choice: str,
        *,
        reason: str = "",
        ratings: Mapping[str, int] | None = None,
        seconds: float | None = None,
        revise: bool = False,
    ) -> Outcome:
        """Record a vote: `recorded`; `same` when it stands already; `conflict` when another does.

        A conflict changes nothing; with revise=True the new choice becomes the next revision.
        When this returns, the vote is on disk. Raises BadVote, NotFinished, AssignmentClosed,
        UnknownAssignment (also for a disabled rater), NotYours.
        """
        ballot = votes.make_ballot(choice, reason, ratings, seconds)
        at = self.database.clock()
        with self._logging_intruders(assignment_id, rater_id):
            self._flag_leak(at, assignment_id, rater_id)
            return votes.cast(self.database, at, assignment_id, rater_id, ballot, revise)

    def _flag_leak(self, at: datetime, assignment_id: str, rater_id: int) -> None:
        """Before the vote, so that no vote ever stands without the flag it should have."""
        if self._names_itself is None:
            return
        with self.database.read() as db:
            mine = comparisons.mine(db, assignment_id, rater_id)
            found = comparisons.find_comparison(db, mine.comparison_id)
        names = (found.contestant_a, found.contestant_b)
        sides = [side for turn in found.turns for side in (turn.a, turn.b) if side]
        if any(self._names_itself(side.text, names) for side in sides):
            votes.flag_leak(self.database, at, found.id)

    def skip(self, assignment_id: str, rater_id: int) -> None:
        """Lay a pair aside; a second call changes nothing. Raises AlreadyVoted, AssignmentClosed."""
        self._close_assignment(assignment_id, rater_id, "skipped", {})

    def report(self, assignment_id: str, rater_id: int, reason: str) -> None:
        """Report a pair; it takes no vote any more. On a voted pair the vote stands.

        Raises BadVote when the reason is longer than 2,000 characters.
        """
        ballot = votes.make_ballot("tie", reason, None, None)
        self._close_assignment(assignment_id, rater_id, "reported", {"reason": ballot.reason})

    def _close_assignment(
        self, assignment_id: str, rater_id: int, state: str, more: Mapping[str, str]
    ) -> None:
        at = self.database.clock()
        with self._logging_intruders(assignment_id, rater_id), self.database.write() as db:
            mine = comparisons.mine(db, assignment_id, rater_id)
            if mine.state == state:
                return
            if state == "skipped" and mine.state == "voted":
                raise AlreadyVoted("this pair carries your vote; change the vote instead")
            if state == "skipped" and mine.state == "reported":
                raise AssignmentClosed("this pair was reported")
            if mine.state != "voted":
                db.conn.execute("UPDATE assignments SET state = ? WHERE id = ?", (state, mine.id))
            audit.append(
                db.conn, at, rater_id, "skip" if state == "skipped" else "report",
                f"assignment:{mine.id}", {"state": mine.state}, {"asked": state, **more},
            )  # fmt: skip

    # prepared pairs

    def next_prepared(self, rater_id: int, study: str) -> Assignment | None:
        """The rater's open pair of a study, else a fresh one; None when all are done.

        An open pair that was given out over OPEN_FOR ago is given out anew: its time starts again.
        """
        at = self.database.clock()
        with self.database.read() as db:
            if open_id := studies.open_one(db, rater_id, study):
                found = comparisons.find_assignment(db, open_id)
                if not is_over(found.issued_at, at):
                    return found
        with self.database.write() as db:
            comparisons.check_rater(db, rater_id)
            if open_id := studies.open_one(db, rater_id, study):
                return comparisons.find_assignment(db, studies.renew(db, at, open_id))
            comparison_id = studies.draw(db, at, rater_id, study)
            if comparison_id is None:
                return None
            left_is = studies.side(db, rater_id, study, self._rng)
            return comparisons.find_assignment(
                db, studies.issue(db, at, rater_id, comparison_id, left_is)
            )

    def previous(self, rater_id: int, study: str, before: str | None = None) -> Assignment | None:
        """The last pair that was voted on or skipped (the one given out before `before`)."""
        with self.database.read() as db:
            found = studies.previous(db, rater_id, study, before)
            return comparisons.find_assignment(db, found) if found else None

    def progress(self, rater_id: int, study: str) -> Progress:
        """How far the rater is in a study."""
        with self.database.read() as db:
            return studies.progress(db, rater_id, study)

    def studies(self) -> list[StudySummary]:
        """Every study with prepared pairs or cases, by name."""
        with self.database.read() as db:
            return studies.summaries(db)

    def add_prepared(
        self, study: str, pairs: Iterable[PreparedPair], actor: int | str
    ) -> ImportReport:
        """File prepared pairs, all or none; those already there stay. Raises BadStudy."""
        ready = list(pairs)
        with self.database.write() as db:
            return studies.add_pairs(db, self.database.clock(), study, ready, actor)

    def add_cases(self, study: str, cases: Iterable[Case], actor: int | str) -> ImportReport:
        """File questions, all or none; those already there stay. Raises BadStudy."""
        ready = list(cases)
        with self.database.write() as db:
            return studies.add_cases(db, self.database.clock(), study, ready, actor)

    def cases(self, study: str) -> list[Case]:
        """The questions of a study in their file's order."""
        with self.database.read() as db:
            return studies.cases(db, study)

    # reading back

    def votes(self, study: str | None = None) -> list[VoteRow]:
        """The last revision of every vote, flattened for reading and export."""
        with self.database.read() as db:
            return list(votes.rows(db, study))

    def counted_votes(self, study: str | None = None, *, with_leaks: bool = False) -> Counted:
        """The same votes for the statistics alone, fast; without those flagged for a leak."""
        with self.database.read() as db:
            return votes.counted(db, study, with_leaks=with_leaks)

    def verify_audit(self) -> audit.Verified:
        """Check the log's chain against itself and the votes; (rows, last hash). Raises AuditBroken."""
        with self.database.read() as db:
            return audit.verify(db)

    def _logging_intruders(self, assignment_id: str, rater_id: int) -> _LogIntruder:
        return _LogIntruder(self, assignment_id, rater_id)

    def _log_intruder(self, assignment_id: str, rater_id: int) -> None:
        at = self.database.clock()
        with self.database.write() as db:
            audit.append(db.conn, at, rater_id, "refused", f"assignment:{assignment_id}")


class _LogIntruder:
    """On NotYours, writes a log row of the attempt after the failed transaction has ended."""

    def __init__(self, store: Store, assignment_id: str, rater_id: int) -> None:
        self.store, self.assignment_id, self.rater_id = store, assignment_id, rater_id

    def __enter__(self) -> None:
        check_id(self.assignment_id)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, NotYours):
            self.store._log_intruder(self.assignment_id, self.rater_id)
