"""A vote's form: choice, reason, ratings, danger marks and a better answer, checked before the record is asked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reviews import audit
from reviews.errors import BadVote
from reviews.protocol import SAFETY_KINDS, Protocol
from reviews.records import CHOICES, REASON_LIMIT, Better, Comparison, Letter, Span, clean_text

BETTER_LIMIT = 8000
"""Characters of a better answer."""
NOTE_LIMIT = 500
MOST_SPANS = 50
_LONGEST_VOTE_S = 7 * 24 * 3600.0
_RATING_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote that passed every check of its form; ratings, spans and better are canonical JSON, or empty."""

    choice: str
    reason: str
    ratings: str
    seconds: float | None
    spans: str = ""
    better: str = ""

    @property
    def content(self) -> tuple[str, ...]:
        """What makes two ballots the same: everything but the time taken."""
        return (self.choice, self.reason, self.ratings, self.spans, self.better)


def make_ballot(
    choice: object,
    reason: object,
    ratings: Mapping[str, int] | None,
    seconds: object,
    spans: Sequence[Span] = (),
    better: Better | None = None,
) -> Ballot:
    """Check a vote's form. Raises BadVote; a senseless time becomes None, it costs no vote."""
    if not isinstance(choice, str) or choice not in CHOICES:
        raise BadVote("the choice must be one of {all}", all=", ".join(CHOICES))
    reason = _text(reason, "the reason", REASON_LIMIT)
    for key, value in (ratings or {}).items():
        whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10
        if not whole or not isinstance(key, str) or not _RATING_KEY.fullmatch(key):
            raise BadVote("a rating is a short lower-case word with a whole number from 0 to 10")
    taken: float | None = None
    if isinstance(seconds, int | float) and math.isfinite(seconds):
        taken = round(float(seconds), 3) if 0 <= seconds <= _LONGEST_VOTE_S else None
    return Ballot(
        choice,
        reason,
        audit.canonical(ratings) if ratings else "{}",
        taken,
        _spans_text(spans),
        _better_text(better),
    )


def _text(text: object, what: str, most: int) -> str:
    if not isinstance(text, str):
        raise BadVote("{what} must be text", what=what)
    text = clean_text(text).strip()
    if len(text) > most:
        raise BadVote(what + " has {n} characters, at most {most} fit", n=len(text), most=most)
    return text


def _spans_text(spans: Sequence[Span]) -> str:
    """The marks in order, each once. Raises BadVote."""
    if len(spans) > MOST_SPANS:
        raise BadVote("at most {most} places can be marked", most=MOST_SPANS)
    tidy = set()
    for span in spans:
        if span.side not in ("left", "right") or span.kind not in SAFETY_KINDS:
            raise BadVote(
                "a mark stands left or right and is one of {all}", all=", ".join(SAFETY_KINDS)
            )
        numbers = (span.turn, span.start, span.end)
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
            raise BadVote("a mark's turn, start and end are whole numbers")
        if span.turn < 1 or not 0 <= span.start < span.end:
            raise BadVote("a mark begins inside the answer and ends after its beginning")
        note = _text(span.note, "the note on a mark", NOTE_LIMIT)
        tidy.add((*numbers, span.side, span.kind, note))
    if not tidy:
        return ""
    names = ("turn", "start", "end", "side", "kind", "note")
    return audit.canonical([dict(zip(names, values, strict=True)) for values in sorted(tidy)])


def _better_text(better: Better | None) -> str:
    if better is None:
        return ""
    text = _text(better.text, "the better answer", BETTER_LIMIT)
    if better.side not in ("left", "right", ""):
        raise BadVote("a better answer was edited from left, right or from nothing")
    if not text:
        return ""
    return audit.canonical(asdict(Better(text, better.side, bool(better.consent))))


def read_spans(text: str) -> tuple[Span, ...]:
    """The marks as they were stored."""
    return tuple(Span(**values) for values in json.loads(text)) if text else ()


def read_better(text: str) -> Better | None:
    """The better answer as it was stored."""
    return Better(**json.loads(text)) if text else None


def check_spans(ballot: Ballot, comparison: Comparison, left_is: Letter) -> None:
    """Raises BadVote for a mark outside of the answer that the rater saw on that side."""
    for span in read_spans(ballot.spans):
        letter = left_is if span.side == "left" else ("b" if left_is == "a" else "a")
        if span.turn > len(comparison.turns):
            raise BadVote(
                "turn {turn}: there are {most} turns", turn=span.turn, most=len(comparison.turns)
            )
        answer = getattr(comparison.turns[span.turn - 1], letter)
        if answer is None or span.end > len(answer.text):
            raise BadVote(
                "turn {turn}, {side}: the mark ends behind the answer's end",
                turn=span.turn, side=span.side,
            )  # fmt: skip


def check_protocol(ballot: Ballot, protocol: Protocol) -> None:
    """Raises BadVote for what the study's protocol does not ask, or lacks."""
    ratings: dict[str, Any] = json.loads(ballot.ratings)
    known = {key: c for c in protocol.criteria for key in c.rating_keys}
    for key, value in ratings.items():
        if key not in known:
            raise BadVote("the study has no rating {name!r}", name=key)
        if not 1 <= value <= 5:
            raise BadVote("{name}: a rating goes from 1 to 5", name=key)
    for key, criterion in known.items():
        if criterion.required and key not in ratings:
            raise BadVote("{name}: this rating is required in the study", name=key)
    if ballot.spans and not protocol.safety_flags:
        raise BadVote("the study takes no danger marks")
    if ballot.better and not protocol.better_answers:
        raise BadVote("the study takes no better answers")
