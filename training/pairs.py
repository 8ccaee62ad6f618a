"""votes and AI feedback to preference records, with provenance and weights.

Three kinds of input, each checked line by line: a folder of `reviews.export` (its sha256s are checked first), TRL
preference JSONL (`prompt`, `chosen`, `rejected`, as text or messages, optional `margin`), and AI feedback JSONL
({"case", "prompt", "answer_a", "answer_b", "winner", "confidence", "judge", "source": "ai"}). Votes on the same answers
to the same case become one `Pair` with its judgements. Whatever is left out or changed is counted in `Counts`.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huatuo.errors import Damaged, InputError, NoData
from huatuo.messages import Conversation, Message, clean
from huatuo.models.checkpoint import sha256_of
from training.data import CONTENT_LIMIT, BadData

Outcome = Literal["a", "b", "tie", "both_bad"]
Source = Literal["physician", "ai"]
EXPORT_FILES = ("pairs.jsonl", "dialogues.jsonl", "ties.jsonl", "both_bad.jsonl")
NOBODY = "unknown"
"""The rater of a record that names none."""
_OUTCOMES = {"a": "a", "b": "b", "tie": "tie", "both_bad": "both_bad"}
_SWAPPED: dict[Outcome, Outcome] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}


@dataclass(frozen=True)
class Judgement:
    """One rater's word on one pair. rater: "physician:3", "ai:judge", or NOBODY.

    strength: how firm the choice is, in (0, 1], from the per-criterion ratings, a margin or a judge's confidence.
    left: the answer shown on the left (or first), if known.
    """

    rater: str
    outcome: Outcome
    source: Source
    strength: float = 1.0
    seconds: float | None = None
    ratings: Mapping[str, int] = field(default_factory=dict)
    left: Literal["a", "b"] | None = None
    place: str = ""


@dataclass(frozen=True)
class Pair:
    """Two answers to one case with every judgement on them. a, b: whole conversations, ending with an answer.

    scope: "turn" when both share all but the last message, "dialogue" when the two conversations differ earlier.
    a always is the conversation whose text sorts first, so that a pair has one spelling.
    """

    case: str
    a: Conversation
    b: Conversation
    model_a: str
    model_b: str
    judgements: tuple[Judgement, ...]
    department: str = ""
    language: str = ""
    origin: str = ""

    @property
    def scope(self) -> Literal["turn", "dialogue"]:
        """Whether one answer or a whole dialogue was judged."""
        return "turn" if self.a[:-1] == self.b[:-1] else "dialogue"

    @property
    def question(self) -> str:
        """The patient's first message."""
        return self.a[0].text

    @property
    def sources(self) -> frozenset[str]:
        """Who judged: physicians, AI, or both."""
        return frozenset(j.source for j in self.judgements)

    def tally(self, source: Source | None = None) -> tuple[int, int, int, int]:
        """Votes for (a, tie, b, both bad), of one source or of all."""
        said = [j.outcome for j in self.judgements if source in (None, j.source)]
        return said.count("a"), said.count("tie"), said.count("b"), said.count("both_bad")


@dataclass
class Counts:
    """What was read, left out and changed, by reason; goes into the report as it is."""

    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, number: int = 1) -> None:
        """Counts `number` more under a reason."""
        self.numbers[reason] = self.numbers.get(reason, 0) + number

    def __getitem__(self, reason: str) -> int:
        return self.numbers.get(reason, 0)


@dataclass(frozen=True)
class Votes:
    """All pairs with what was counted on the way; files: name -> sha256 of every file read."""

    pairs: tuple[Pair, ...]
    counts: Counts
    files: dict[str, str]


@dataclass(frozen=True)
class _Line:
    """A record's file line, checked."""

    case: str
    a: Conversation
    b: Conversation
    models: tuple[str, str]
    judgement: Judgement
    department: str
    language: str
    origin: str


def read_votes(
    exports: Sequence[Path] = (), preferences: Sequence[Path] = (), feedback: Sequence[Path] = ()
) -> Votes:
    """The pairs of all inputs, in order of their first vote.

    Raises Damaged (an export's manifest does not fit), BadData naming file and line, NoData when there is no vote at
    all, when every vote is a tie, or when all are on one case; each says what to do.
    """
    counts, lines = Counts(), list[_Line]()
    files: dict[str, str] = {}
    for folder in exports:
        files |= {f"{folder.name}/{name}": digest for name, digest in _check_export(folder).items()}
        for name in EXPORT_FILES:
            lines += list(_read(folder / name, "export", counts))
    for kind, paths in (("preference", preferences), ("feedback", feedback)):
        for path in paths:
            lines += list(_read(path, kind, counts))
            files[path.name] = sha256_of(path)
    pairs = group(lines, counts)
    _refuse_useless(pairs, counts)
    return Votes(tuple(pairs), counts, files)


def group(lines: Iterable[_Line], counts: Counts) -> list[Pair]:
    """One Pair for all votes on the same two answers to the same case, whichever was called a."""
    found: dict[tuple[str, Conversation, Conversation], list[tuple[_Line, Judgement]]] = {}
    for line in lines:
        judgement, a, b = line.judgement, line.a, line.b
        if a == b:
            counts.add("identical_answers")
            continue
        if _spelling(a) > _spelling(b):
            a, b = b, a
            judgement = _mirrored(judgement)
        same = found.setdefault((line.case, a, b), [])
        if judgement.rater != NOBODY and any(j.rater == judgement.rater for _, j in same):
            counts.add("second_vote_of_a_rater")
            same[:] = [(one, j) for one, j in same if j.rater != judgement.rater]
        same.append((line, judgement))
    pairs = []
    for (case, a, b), votes in found.items():
        first = votes[0][0]
        models = first.models if first.a == a else first.models[::-1]
        said = tuple(sorted((j for _, j in votes), key=lambda j: (j.rater, j.outcome, j.place)))
        pairs.append(
            Pair(case, a, b, *models, said, first.department, first.language, first.origin)
        )
        counts.add("pairs")
        counts.add("votes", len(said))
        for judgement in said:
            counts.add(f"votes_{judgement.source}")
            counts.add(f"votes_{'decisive' if judgement.outcome in 'ab' else judgement.outcome}")
            counts.add("votes_unknown_rater", judgement.rater == NOBODY)
    return pairs


def _mirrored(judgement: Judgement) -> Judgement:
    left: Literal["a", "b"] | None = (
        None if judgement.left is None else ("b" if judgement.left == "a" else "a")
    )
    return Judgement(
        judgement.rater, _SWAPPED[judgement.outcome], judgement.source, judgement.strength,
        judgement.seconds, judgement.ratings, left, judgement.place,
    )  # fmt: skip


def _spelling(conversation: Conversation) -> str:
    return "\x00".join(message.text for message in conversation)


def _refuse_useless(pairs: Sequence[Pair], counts: Counts) -> None:
    if not pairs:
        left_out = {k: n for k, n in counts.numbers.items() if n}
        raise NoData(
            f"no votes to learn from (left out: {left_out or 'nothing'}); collect votes on the review page first, then "
            "export them with python -m reviews.export"
        )
    if not counts["votes_decisive"]:
        raise NoData(
            f"all {counts['votes']} votes are ties or both bad, so nothing says which answer is better; add pairs "
            "whose answers differ more"
        )
    if len({pair.case for pair in pairs}) < 2:
        raise NoData(
            f"all {counts['votes']} votes are on one case ({pairs[0].case}), so nothing can be held out; vote on "
            "more cases"
        )


def _check_export(folder: Path) -> dict[str, str]:
    """The export's files and their sha256s, checked. Raises Damaged."""
    try:
        said: Any = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(
            f"{folder}: manifest.json cannot be read ({type(error).__name__}); export the votes again"
        ) from None
    digests = {}
    for name in EXPORT_FILES:
        digests[name] = sha256_of(folder / name)
        if not isinstance(said, dict) or said.get(name) != digests[name]:
            raise Damaged(
                f"{folder / name}: not as it was exported (sha256 differs); export the votes again"
            )
    return digests


def _read(path: Path, kind: str, counts: Counts) -> Iterator[_Line]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise BadData(f"{place}: not UTF-8 JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadData(f"{place}: a JSON object is expected, not {type(row).__name__}")
        counts.add(f"lines_{kind}")
        if row.get("identity_leak"):
            counts.add("identity_leak")
            continue
        yield _parse(row, path.name, kind, place)


def _parse(row: dict[str, Any], name: str, kind: str, place: str) -> _Line:
    """One line of any of the three kinds. Raises BadData with the place."""
    if "chosen" in row or "rejected" in row:
        prompt = _turns(row, "prompt", "user", place) if "prompt" in row else ()
        a, b = (prompt + _turns(row, key, "assistant", place) for key in ("chosen", "rejected"))
        outcome: object = "a"
        models = (_text(row, "chosen_model"), _text(row, "rejected_model"))
    else:
        prompt = _turns(row, "prompt", "user", place) if "prompt" in row else ()
        a, b = (prompt + _turns(row, key, "assistant", place) for key in ("answer_a", "answer_b"))
        implied = {"ties.jsonl": "tie", "both_bad.jsonl": "both_bad"}.get(name)
        outcome = implied if kind == "export" else row.get("winner")
        models = (_text(row, "model_a"), _text(row, "model_b"))
    if outcome not in _OUTCOMES:
        raise BadData(f"{place}: winner is not a, b, tie or both_bad")
    for conversation in (a, b):
        _check_order(conversation, place)
    case = _text(row, "case") or "q:" + hashlib.sha256(_spelling(a[:1]).encode()).hexdigest()[:16]
    judgement = _judgement(row, kind, outcome, place)  # type: ignore[arg-type]
    department, language = _text(row, "department"), _text(row, "language")
    origin = _text(row, "study") or Path(name).stem
    return _Line(case, a, b, models, judgement, department, language, origin)


def _judgement(row: dict[str, Any], kind: str, outcome: Outcome, place: str) -> Judgement:
    ai = kind == "feedback" or (kind != "export" and row.get("source") == "ai")
    who = row.get("judge" if ai else "rater")
    rater = NOBODY if who in (None, "") else f"{'ai' if ai else 'physician'}:{who}"
    ratings = _ratings(row.get("ratings"), place)
    left = row.get("left_is")
    if (
        "chosen" in row
    ):  # the export's letters are the study's own, and it says not which was chosen
        left = None
    seconds = row.get("seconds")
    return Judgement(
        rater=rater,
        outcome=outcome,
        source="ai" if ai else "physician",
        strength=_strength(row, ratings, outcome, place),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        ratings=ratings,
        left=left if left in ("a", "b") else None,
        place=place,
    )


def _strength(
    row: dict[str, Any], ratings: Mapping[str, int], outcome: Outcome, place: str
) -> float:
    """How firm the choice is, in (0, 1]: a margin m as tanh(m), a confidence as it is, ratings by `rated`."""
    for key in ("margin", "confidence"):
        value = row.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise BadData(f"{place}: {key} is not a number of 0 or more")
        if key == "confidence" and value > 1:
            raise BadData(f"{place}: confidence is not in 0 to 1")
        return max(0.05, math.tanh(value) if key == "margin" else float(value))
    return rated(ratings, outcome)


def rated(ratings: Mapping[str, int], outcome: Outcome) -> float:
    """The firmness that per-criterion ratings of 0 to 10 give a vote, in [0.5, 1]; 1 without ratings.

    Keys that end in _a and _b rate the two answers: firmness grows with the mean difference in favour of the vote. A
    key without a side says how clearly the vote holds in that respect. Ratings never turn a vote round.
    """
    if not ratings or outcome not in ("a", "b"):
        return 1.0
    sided = [
        (value - ratings[key[:-2] + "_b"]) / 10 * (1 if outcome == "a" else -1)
        for key, value in ratings.items()
        if key.endswith("_a") and key[:-2] + "_b" in ratings
    ]
    plain = [value / 10 for key, value in ratings.items() if not key.endswith(("_a", "_b"))]
    said = sided or plain
    return 0.5 + 0.5 * max(0.0, min(1.0, sum(said) / len(said))) if said else 1.0


def _ratings(value: object, place: str) -> dict[str, int]:
    """The export writes ratings as canonical JSON text; an object is taken too."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            raise BadData(f"{place}: ratings is not JSON") from None
    if value is None:
        return {}
    if not isinstance(value, dict) or any(
        isinstance(v, bool) or not isinstance(v, int) for v in value.values()
    ):
        raise BadData(f"{place}: ratings is not an object of whole numbers")
    return {str(key): v for key, v in value.items()}


def _turns(row: dict[str, Any], key: str, role: str, place: str) -> Conversation:
    """A field as messages: text is one message of `role`. Raises BadData."""
    value = row.get(key)
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise BadData(f"{place}: {key} is neither text nor a list of messages")
    turns = []
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict) or item.get("role") not in ("user", "assistant"):
            raise BadData(f"{place}: {key}, message {number}: role is not user or assistant")
        try:
            text = clean(item.get("content"), limit=CONTENT_LIMIT)  # type: ignore[arg-type]
        except InputError as error:
            raise BadData(f"{place}: {key}, message {number}: {error}") from None
        turns.append(Message(item["role"], text))
    return tuple(turns)


def _check_order(conversation: Conversation, place: str) -> None:
    roles = [message.role for message in conversation]
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise BadData(
            f"{place}: the turns are {', '.join(roles)}; a conversation alternates, the user's turn first, and ends "
            "with an answer"
        )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else "" if value is None else str(value)
