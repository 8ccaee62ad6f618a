"""The record's front door: comparisons, assignments and votes; one public method = one transaction.

Every method may be called from any thread of any process. It raises the Store* errors of
reviews.errors when the file cannot be used, and nothing is changed then.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from reviews import audit, comparisons, filing, studies, votes
from reviews.ballots import Ballot, check_protocol, check_spans, make_ballot
from reviews.database import BUSY_TIMEOUT_S, Database
from reviews.errors import (
    AlreadyVoted,
    AssignmentClosed,
    NotFinished,
    RecordError,
    UnknownAssignment,
)
from reviews.migrations import migrate
from reviews.records import (
    FINISH_REASONS,
    LIVE_STUDY,
    Assignment,
    Better,
    Case,
    Comparison,
    Counted,
    Letter,
    Report,
    Span,
    VoteRow,
    clean_text,
    iso,
    utcnow,
)
from reviews.study_store import StudyStore
from reviews.votes import NO_SUCH, Outcome

NamesItself = Callable[[str, tuple[str, str]], bool]


class Store(StudyStore):
    """Comparisons, assignments, votes and studies in one database file."""

    def __init__(
        self,
        database: Database,
        *,
        rng: random.Random | None = None,
        names_itself: NamesItself | None = None,
    ) -> None:
        super().__init__(database, rng=rng)
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
        case: Case | None = None,
    ) -> Assignment:
        """Begin a live comparison for a rater. case: the one that the rater plays, of `study`.

        Raises RecordError for one contestant twice.
        """
        if contestant_a == contestant_b:
            raise RecordError(f"{contestant_a} cannot be compared with itself")
        at, comparison_id = self.database.clock(), secrets.token_hex(16)
        values = (
            comparison_id, studies.check_name(study), contestant_a, contestant_b,
            case.department if case else "", case.intent if case else "", language,
            studies.settings_text(settings_a), studies.settings_text(settings_b),
            case.id if case else "", iso(at),
        )  # fmt: skip
        with self.database.write() as db:
            comparisons.check_rater(db, rater_id)
            filing.begin_live(db, at, study, rater_id, (contestant_a, contestant_b))
            db.conn.execute(
                "INSERT INTO comparisons VALUES (?,'live',?,?,?,?,?,?,?,?,?,'',?)", values
            )
            return comparisons.find_assignment(
                db, studies.issue(db, at, rater_id, comparison_id, left_is)
            )

    def next_card(self, rater_id: int) -> tuple[str, Case] | None:
        """(study, case) of the first card that this rater has not played; None when there is none."""
        with self.database.read() as db:
            return studies.next_card(db, rater_id)

    def card(self, study: str, case_id: str) -> Case | None:
        """The case of a study if it has a card to be played, else None."""
        with self.database.read() as db:
            found = [case for case in studies.cases(db, study) if case.id == case_id]
            return found[0] if found and found[0].card else None

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
        spans: Sequence[Span] = (),
        better: Better | None = None,
        revise: bool = False,
    ) -> Outcome:
        """Record a vote: `recorded`; `same` when it stands already; `conflict` when another does.

        A conflict changes nothing; with revise=True the new choice becomes the next revision.
        Ratings, marks and a better answer must be what the study's protocol asks for, and marks
        must lie in the answers. When this returns, the vote is on disk. Raises BadVote,
        NotFinished, AssignmentClosed (also for a closed study), UnknownAssignment (also for a
        disabled rater), NotYours.
        """
        ballot = make_ballot(choice, reason, ratings, seconds, spans, better)
        at = self.database.clock()
        with self._logging_intruders(assignment_id, rater_id):
            self._check(ballot, assignment_id, rater_id)
            self._flag_leak(at, assignment_id, rater_id)
            return votes.cast(self.database, at, assignment_id, rater_id, ballot, revise)

    def _check(self, ballot: Ballot, assignment_id: str, rater_id: int) -> None:
        """Hold a ballot against the protocol and the answers. Raises BadVote."""
        with self.database.read() as db:
            mine = comparisons.mine(db, assignment_id, rater_id)
            protocol = filing.protocol_of(db, mine.comparison_id)
            if protocol is not None:
                check_protocol(ballot, protocol)
            if ballot.spans:
                found = comparisons.find_comparison(db, mine.comparison_id)
                check_spans(ballot, found, mine.left_is)

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
        self._close_assignment(assignment_id, rater_id, "skipped")

    def report(self, assignment_id: str, rater_id: int, reason: str) -> None:
        """Report a pair; it takes no vote any more. On a voted pair the vote stands.

        The log keeps the reason's hash and length; its words stand where an erasure reaches them.
        Raises BadVote when the reason is longer than 2,000 characters.
        """
        reason = make_ballot("tie", reason, None, None).reason
        self._close_assignment(assignment_id, rater_id, "reported", reason)

    def reports(self, study: str) -> list[Report]:
        """What raters reported in a study, in order."""
        with self.database.read() as db:
            return comparisons.reports(db, study)

    def _close_assignment(
        self, assignment_id: str, rater_id: int, state: str, reason: str = ""
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
            after: dict[str, Any] = {"asked": state}
            if state == "reported":
                after |= {"reason_sha256": audit.digest(reason), "reason_length": len(reason)}
                comparisons.add_report(db, at, mine.id, reason)
            audit.append(
                db.conn, at, rater_id, "skip" if state == "skipped" else "report",
                f"assignment:{mine.id}", {"state": mine.state}, after,
            )  # fmt: skip

    # reading back

    def votes(self, study: str | None = None, *, adjudicated: bool | None = False) -> list[VoteRow]:
        """The last revision of every vote, flattened for reading and export.

        adjudicated: see reviews.votes.rows.
        """
        with self.database.read() as db:
            return list(votes.rows(db, study, adjudicated=adjudicated))

    def my_votes(self, rater_id: int, study: str | None = None) -> list[VoteRow]:
        """One rater's own votes, a senior's verdicts too."""
        with self.database.read() as db:
            return list(votes.rows(db, study, adjudicated=None, rater_id=rater_id))

    def counted_votes(
        self, study: str | None = None, *, with_leaks: bool = False, adjudicated: bool = False
    ) -> Counted:
        """The same votes for the statistics alone, fast; without those flagged for a leak."""
        with self.database.read() as db:
            return votes.counted(db, study, with_leaks=with_leaks, adjudicated=adjudicated)

    def verify_audit(self) -> audit.Verified:
        """Check the log's chain against itself and the votes; (rows, last hash). Raises AuditBroken."""
        with self.database.read() as db:
            return audit.verify(db)
