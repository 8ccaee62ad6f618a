"""Every error the record raises, drawn as a tree.

    RecordError
    ├ NotYours            the assignment belongs to somebody else
    ├ UnknownAssignment   no such assignment, turn, user or invitation
    ├ NotFinished         an answer is missing, was cut or failed: it cannot be voted on
    ├ BadVote             a choice, reason or rating that cannot be stored
    ├ AlreadyVoted        the assignment already carries a vote
    ├ AssignmentClosed    skipped, reported or voted: no further step is possible
    ├ NameTaken           an account with this name exists
    ├ IdentityTaken       another account is linked to this identity at a sign-in provider
    ├ LastAdmin           nobody else could administer: not disabled, not given another role
    ├ StoreBusy           another process holds the folder, or held the database for too long
    ├ StoreFull           no space left for the database
    ├ StoreDamaged        the file is not a database, or its pages are broken
    ├ StoreReadOnly       the file or its folder cannot be written
    ├ SchemaTooNew        the file was written by a newer version of this project
    ├ AuditBroken         the audit chain does not hold; `seq` is the first bad row
    ├ BadFile             an imported file is wrong; the message names file and item
    ├ BadStudy            a study's name, protocol or what is filed under it cannot be stored
    ├ StudyFrozen         a study that has begun takes no other protocol and no further pairs
    └ NotInvited          the study names its raters, and this is none of them

NotYours and UnknownAssignment carry the same words, so that nobody can probe for ids.
"""

from __future__ import annotations


class RecordError(Exception):
    """Base of all errors of the record. The text says what, where and what to do.

    why: the sentence, with {blanks} that `values` fill, so that a page can say it in its own language.
    where: what it is about, such as a study and its key; stands before the sentence.
    """

    def __init__(self, why: str = "", *, where: str = "", **values: object) -> None:
        words = why.format(**values) if values else why
        super().__init__(f"{where}: {words}" if where else words)
        self.why = why
        self.where = where
        self.values = values


class NotYours(RecordError):
    """The assignment belongs to another rater."""


class UnknownAssignment(RecordError):
    """No such assignment (or turn, or user)."""


class NotFinished(RecordError):
    """An answer is missing, was cut or failed."""


class BadVote(RecordError):
    """The vote's choice, reason or ratings cannot be stored."""


class AlreadyVoted(RecordError):
    """A vote stands already; changing it is an explicit step."""


class AssignmentClosed(RecordError):
    """The assignment takes no further step."""


class NameTaken(RecordError):
    """An account with this name (letter case aside) exists."""


class IdentityTaken(RecordError):
    """Another account is linked to this identity at a sign-in provider."""


class LastAdmin(RecordError):
    """The last open account of an administrator cannot be disabled or given another role."""


class StoreBusy(RecordError):
    """Another app serves the folder, or the database stayed locked for too long; nothing changed."""


class StoreFull(RecordError):
    """No space left; nothing was changed."""


class StoreDamaged(RecordError):
    """The file is not a database or is broken; it was left as it is."""


class StoreReadOnly(RecordError):
    """The file or its folder cannot be written."""


class SchemaTooNew(RecordError):
    """The file was written by a newer version; nothing was changed."""


class AuditBroken(RecordError):
    """The audit chain does not hold. `seq`: the first bad row."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(f"audit row {seq}: {why}; the record was changed outside the application")
        self.seq = seq


class BadFile(RecordError):
    """A file to import is wrong. `file` and `place` say where."""

    def __init__(self, file: str, place: str, why: str, **values: object) -> None:
        super().__init__(why, where=f"{file}: {place}" if place else file, **values)
        self.file = file
        self.place = place


class BadStudy(RecordError):
    """A study's name, pair or case cannot be stored."""


class StudyFrozen(RecordError):
    """A frozen or closed study takes no other protocol and no further pairs; use another name."""


class NotInvited(RecordError):
    """The study names its raters, and this account is not among them."""
