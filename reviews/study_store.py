"""The record's front door for studies: protocols, the queue of pairs, drafts, adjudication."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from reviews import adjudication, audit, comparisons, drafts, drawing, filing, studies
from reviews.database import Database
from reviews.errors import NotYours
from reviews.protocol import Protocol, Study
from reviews.records import (
    Assignment,
    Case,
    ImportReport,
    PreparedPair,
    Progress,
    StudySummary,
    Vote,
    is_over,
)
from reviews.votes import check_id


class StudyStore:
    """What a study needs of the record. Every public method is one transaction; see reviews.store.Store."""

    def __init__(self, database: Database, *, rng: random.Random | None = None) -> None:
        self.database = database
        self._rng = rng or secrets.SystemRandom()

    # protocols

    def file_study(self, protocol: Protocol, actor: int | str) -> Study:
        """File a protocol as a draft, in place of a draft before. Raises StudyFrozen, BadStudy."""
        with self.database.write() as db:
            return filing.file(db, self.database.clock(), protocol, actor)

    def freeze_study(self, name: str, actor: int | str) -> Study:
        """Register protocol and pairs; the first pair given out does so too. Raises BadStudy."""
        with self.database.write() as db:
            filing.check_pairs(db, name, gold=True)
            return filing.freeze(db, self.database.clock(), name, actor)

    def close_study(self, name: str, actor: int | str, reason: str = "") -> Study:
        """No more votes; those cast stay. Raises BadStudy."""
        with self.database.write() as db:
            return filing.close(db, self.database.clock(), name, actor, reason)

    def study(self, name: str) -> Study | None:
        """The filed study of this name; None for one without a protocol."""
        with self.database.read() as db:
            return filing.find(db, name)

    def filed_studies(self) -> list[Study]:
        """Every study with a protocol, by name."""
        with self.database.read() as db:
            return filing.every(db)

    # half-finished votes, adjudication

    def save_draft(self, assignment_id: str, rater_id: int, data: Mapping[str, Any]) -> None:
        """Keep a half-finished vote; an empty one removes it. Raises BadVote, AssignmentClosed, NotYours."""
        at = self.database.clock()
        with self._logging_intruders(assignment_id, rater_id), self.database.write() as db:
            drafts.save(db, at, assignment_id, rater_id, data)

    def draft(self, assignment_id: str, rater_id: int) -> dict[str, Any] | None:
        """The rater's own half-finished vote. Raises UnknownAssignment, NotYours."""
        with self._logging_intruders(assignment_id, rater_id), self.database.read() as db:
            return drafts.find(db, assignment_id, rater_id)

    def purge_drafts(self, before: datetime) -> int:
        """Forget half-finished votes that were not touched since; returns how many."""
        with self.database.write() as db:
            return drafts.purge(db, before)

    def next_adjudication(self, rater_id: int, study: str) -> Assignment | None:
        """The next pair on which raters disagree, that this senior never had; None when there is none."""
        at = self.database.clock()
        with self.database.write() as db:
            return adjudication.give(db, at, rater_id, study, self._rng)

    def adjudication_votes(self, assignment_id: str, rater_id: int) -> list[Vote]:
        """The votes that disagree, as seen from this assignment's sides. Raises AssignmentClosed, NotYours."""
        with self._logging_intruders(assignment_id, rater_id), self.database.read() as db:
            return adjudication.disputed_votes(db, assignment_id, rater_id)

    # prepared pairs

    def next_prepared(self, rater_id: int, study: str) -> Assignment | None:
        """The rater's open pair of a study, else a fresh one; None when all are done or it is closed.

        An open pair that was given out over OPEN_FOR ago is given out anew: its time starts again.
        Giving out the first pair freezes the protocol; a closing rule that is met closes the study.
        Raises NotInvited, UnknownAssignment for a disabled rater.
        """
        at = self.database.clock()
        with self.database.read() as db:
            if open_id := studies.open_one(db, rater_id, study):
                found, filed = comparisons.find_assignment(db, open_id), filing.find(db, study)
                if not is_over(found.issued_at, at) and (filed is None or filed.state != "closed"):
                    return found
        with self.database.write() as db:
            comparisons.check_rater(db, rater_id)
            filed, takes_votes = filing.enter(db, at, study, rater_id)
            if not takes_votes:
                return None
            if open_id := studies.open_one(db, rater_id, study):
                return comparisons.find_assignment(db, studies.renew(db, at, open_id))
            protocol = filed.protocol if filed else None
            drawn = drawing.draw(db, at, rater_id, study, protocol, self._rng)
            if drawn is None:
                return None
            if filed is not None:
                filing.freeze(db, at, study, "system")
            issued = studies.issue(
                db, at, rater_id, drawn.comparison_id, drawn.left_is, probability=drawn.probability
            )
            return comparisons.find_assignment(db, issued)

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
        """File prepared pairs, all or none; those already there stay. Raises BadStudy, StudyFrozen."""
        ready = list(pairs)
        with self.database.write() as db:
            report = studies.add_pairs(db, self.database.clock(), study, ready, actor)
            if report.added:
                filing.check_takes_more(db, study)
                filing.check_pairs(db, study)
            return report

    def add_cases(self, study: str, cases: Iterable[Case], actor: int | str) -> ImportReport:
        """File questions, all or none; those already there stay. Raises BadStudy, StudyFrozen."""
        ready = list(cases)
        with self.database.write() as db:
            report = studies.add_cases(db, self.database.clock(), study, ready, actor)
            if report.added:
                filing.check_takes_more(db, study)
            return report

    def cases(self, study: str) -> list[Case]:
        """The questions of a study in their file's order."""
        with self.database.read() as db:
            return studies.cases(db, study)

    def _logging_intruders(self, assignment_id: str, rater_id: int) -> _LogIntruder:
        return _LogIntruder(self, assignment_id, rater_id)

    def _log_intruder(self, assignment_id: str, rater_id: int) -> None:
        at = self.database.clock()
        with self.database.write() as db:
            audit.append(db.conn, at, rater_id, "refused", f"assignment:{assignment_id}")


class _LogIntruder:
    """On NotYours, writes a log row of the attempt after the failed transaction has ended."""

    def __init__(self, store: StudyStore, assignment_id: str, rater_id: int) -> None:
        self.store, self.assignment_id, self.rater_id = store, assignment_id, rater_id

    def __enter__(self) -> None:
        check_id(self.assignment_id)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, NotYours):
            self.store._log_intruder(self.assignment_id, self.rater_id)
