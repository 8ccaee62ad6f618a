"""The frozen data that the record takes in and hands out, and the cleaning of stored text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

Choice = Literal["left", "right", "tie", "both_bad"]
Letter = Literal["a", "b"]
FinishReason = Literal["stop", "length", "cancelled", "error"]
State = Literal["open", "voted", "skipped", "reported"]
Kind = Literal["live", "prepared"]
Winner = Literal["a", "b", "tie", "both_bad"]
Seen = Literal["left", "right"]
Purpose = Literal["vote", "adjudication"]

CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both_bad")
FINISH_REASONS: tuple[FinishReason, ...] = ("stop", "length", "cancelled", "error")
REASON_LIMIT = 2000  # characters
FEWEST_RATERS = 5  # below, the statistics cluster votes by case and not by rater
OPEN_FOR = timedelta(hours=24)  # then an open prepared pair counts as lying with nobody
IDENTITY_LEAK = "identity_leak"  # the flag of a comparison in which an answer names its model
ERASED = "[erased]"  # stands where a text was taken out for good; see reviews/erasure.py
LIVE_STUDY = "live"  # the study of comparisons typed by the raters themselves

# C0 but tab and newline, DEL, C1, BOM, bidirectional overrides and isolates.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_LINE_ENDS = re.compile("\r\n|\r|\u2028|\u2029|\x85")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return text as it is stored: no NUL, control or direction characters, LF line ends.

    Lone surrogates, which SQLite cannot hold, become U+FFFD. Nothing else is changed.
    """
    if text.isprintable():  # no control, format or surrogate character at all
        return text
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", _LINE_ENDS.sub("\n", text)))


def utcnow() -> datetime:
    """The server's time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def iso(at: datetime) -> str:
    """A moment as the record's text: ISO 8601 in UTC with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """The moment that `iso` wrote."""
    return datetime.fromisoformat(text)


def is_over(issued_at: datetime, at: datetime) -> bool:
    """Whether a prepared pair was given out too long ago; a clock that jumped back ends nothing."""
    return at - issued_at > OPEN_FOR


def first_tab(assignment_id: str) -> Seen:
    """The answer that is in front where a narrow screen shows the two as tabs.

    One bit of the assignment's own random id: even odds, and recorded with it before it is shown.
    """
    return "right" if int(assignment_id[-1], 16) % 2 else "left"


@dataclass(frozen=True, slots=True)
class Side:
    """One finished (or failed) answer. `settings`: what the engine said about this answer."""

    text: str
    finish: FinishReason
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its two answers; None is an answer that is still being written.

    question_b: what b was asked where a simulated patient said something else to it; empty: the same.
    """

    number: int
    question: str
    a: Side | None
    b: Side | None
    attempt: int = 1
    question_b: str = ""

    def asked(self, side: Letter) -> str:
        """The question that this side answered."""
        return self.question_b or self.question if side == "b" else self.question

    @property
    def is_finished(self) -> bool:
        """Whether both answers ended in 'stop'."""
        return all(side is not None and side.finish == "stop" for side in (self.a, self.b))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two contestants on the same questions. Never shown as such before the vote."""

    id: str
    kind: Kind
    study: str
    contestant_a: str
    contestant_b: str
    department: str
    intent: str
    language: str
    settings_a: Mapping[str, Any]
    settings_b: Mapping[str, Any]
    turns: tuple[Turn, ...]
    external_id: str
    source: str

    @property
    def is_votable(self) -> bool:
        """Whether there is at least one turn and every answer ended in 'stop'."""
        return bool(self.turns) and all(turn.is_finished for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Span:
    """A dangerous place in an answer: characters start to end of the stored text, end not included.

    side: as the rater saw it. kind: of reviews.protocol.SAFETY_KINDS.
    """

    side: Seen
    turn: int
    start: int
    end: int
    kind: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Better:
    """The answer the rater would have given to the last question of the conversation.

    No turn can follow a vote, so the last one stays the last: its number is VoteRow.turns.
    side: which answer it was edited from, empty for none. consent: whether it may become training data.
    """

    text: str
    side: Literal["left", "right", ""] = ""
    consent: bool = False


@dataclass(frozen=True, slots=True)
class Vote:
    """The standing revision of one rater's vote. `seconds`: time taken, None if unknown."""

    assignment_id: str
    revision: int
    choice: Choice
    reason: str
    ratings: Mapping[str, int]
    seconds: float | None
    at: datetime
    spans: tuple[Span, ...] = ()
    better: Better | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A pair that a rater reported. case: its id in the study's file, else the comparison's."""

    case: str
    contestant_a: str
    contestant_b: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Assignment:
    """One comparison given to one rater. `left_is`: the contestant on the left side.

    probability: of drawing its two contestants, where the study draws actively.
    """

    id: str
    comparison_id: str
    rater_id: int
    left_is: Letter
    state: State
    issued_at: datetime
    vote: Vote | None = None
    purpose: Purpose = "vote"
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A rater's way through a study, in pairs. `skipped` counts reported pairs too."""

    done: int
    skipped: int
    total: int
    median_seconds: float | None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One study: prepared pairs, votes on them, cases waiting to be asked."""

    name: str
    pairs: int
    votes: int
    language: str
    cases: int = 0


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """One question with the two ready-made answers. question_b: as in Turn."""

    question: str
    answer_a: str
    answer_b: str
    question_b: str = ""


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """Two ready-made dialogues on the same case, to be filed in a study."""

    external_id: str
    contestant_a: str
    contestant_b: str
    turns: tuple[PreparedTurn, ...]
    department: str = ""
    intent: str = ""
    language: str = "zh"
    source: str = ""
    settings_a: Mapping[str, Any] = field(default_factory=dict)
    settings_b: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A question without answers, offered on the compare page. card: for a rater who plays the patient."""

    id: str
    question: str
    department: str = ""
    intent: str = ""
    language: str = "zh"
    card: str = ""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of an import. `differs`: ids filed before with other texts (kept as they were)."""

    added: int
    already_there: int
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VoteRow:
    """A vote flattened for statistics and export; `rater` is a pseudonym number from 1.

    `identity_leak`: an answer said which model it is; hidden from the rater, flagged all the same.
    Ratings and spans are as the rater saw the sides; left_is tells which contestant that was.
    probability: of the draw. fast: cast in less time than the study's protocol thinks possible.
    """

    assignment_id: str
    comparison_id: str
    rater: int
    study: str
    kind: Kind
    contestant_a: str
    contestant_b: str
    choice: Choice
    winner: Winner
    left_is: Letter
    turns: int
    department: str
    intent: str
    language: str
    external_id: str
    source: str
    reason: str
    ratings: Mapping[str, int]
    seconds: float | None
    revisions: int
    at: datetime
    identity_leak: bool = False
    purpose: Purpose = "vote"
    spans: tuple[Span, ...] = ()
    better: Better | None = None
    probability: float | None = None
    fast: bool = False

    @property
    def case(self) -> str:
        """As in VoteCount, which is what the statistics read."""
        return case_of(self.study, self.external_id, self.comparison_id)

    @property
    def votes(self) -> int:
        """One: this is a single vote. See VoteCount."""
        return 1


class VoteCount(NamedTuple):
    """How many standing votes agree in all that the statistics look at.

    `rater` only tells raters apart. `case` is empty where enough raters make it needless.
    """

    study: str
    contestant_a: str
    contestant_b: str
    case: str
    choice: Choice
    left_is: Letter
    rater: int
    votes: int


class Counted(NamedTuple):
    """The votes counted, on how many comparisons they stand, and how many votes are left out."""

    votes: list[VoteCount]
    comparisons: int
    left_out: int


def case_of(study: str, external_id: str, comparison_id: str) -> str:
    """What tells cases apart: the id in the study's file, else the comparison itself."""
    return f"{study}\n{external_id}" if external_id else comparison_id


def winner_of(choice: Choice, left_is: Letter) -> Winner:
    """Who won: the random side is undone here and nowhere else."""
    if choice == "left":
        return left_is
    if choice == "right":
        return "b" if left_is == "a" else "a"
    return choice
