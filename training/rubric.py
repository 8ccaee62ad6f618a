"""grades an answer by the knowledge table: asks for what is missing, names what it is, and is not padded.

RubricJudge works offline, because the cases come from the table. It is a yardstick of the toy world and no measure
of medical quality (NOTE; shown wherever its numbers are): it looks for the table's own wordings, so what is right in
other words counts as nothing and a negation as the thing itself. Weights, limits and wordings: training/rubric.toml.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from huatuo.errors import NoData
from training import speech
from training.cases import OPENERS, Case, condition_of, table
from training.knowledge import Condition

Winner = Literal["a", "b", "tie"]
TIE_MARGIN = 0.05
"""Scores that are no further apart than this are a tie."""
_RUBRIC: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "rubric.toml").read_text(encoding="utf-8")
)
NOTE: dict[str, str] = _RUBRIC["note"]
WEIGHTS: dict[str, dict[str, float]] = _RUBRIC["weights"]
PENALTIES: dict[str, float] = _RUBRIC["penalties"]
_CONTENT = {"complete": ("names", "belongs"), "incomplete": ("asks", "fits", "belongs")}
_SENTENCE = re.compile(r"(?<=[。！？?!；;\n])|(?<=[a-z)]\.)\s")
_CLAUSE = re.compile(r"[。！？?!；;，,、：:\n]+|\.\s")
_NUMBER = re.compile(r"^\s*\d+[.、)]\s*")
_END = re.compile(r"[。！？?!.）)”\"]\s*$")
_NOT_SAID = re.compile(r"[\s，。、；：？！,.;:?!]")


@dataclass(frozen=True)
class Verdict:
    """Which of two answers is better. margin: how clearly, in [0, 1]."""

    winner: Winner
    margin: float


@dataclass(frozen=True)
class Grade:
    """score in [0, 1]; parts: of WEIGHTS for the case's kind and of PENALTIES, each in [0, 1]; note: NOTE."""

    score: float
    parts: dict[str, float]
    note: str


@dataclass(frozen=True)
class Facts:
    """Texts of the table and the conditions that each belongs to."""

    owners: dict[str, frozenset[str]]
    pattern: re.Pattern[str]

    def found(self, text: str) -> dict[str, frozenset[str]]:
        """Owners by text for every fact in the text, each once; the longest reading of a place counts."""
        return {hit: self.owners[hit] for hit in dict.fromkeys(self.pattern.findall(text)) if hit}


class RubricJudge:
    """The offline judge. tie_margin: a difference of scores up to it is a tie."""

    name = "rubric"

    def __init__(self, tie_margin: float = TIE_MARGIN) -> None:
        self.tie_margin = tie_margin

    def compare(self, case: Case, a: str, b: str) -> Verdict:
        """The better of two answers. Raises NoData for a case that does not come from the table."""
        difference = self.grade(case, a).score - self.grade(case, b).score
        if abs(difference) <= self.tie_margin:
            return Verdict("tie", abs(difference))
        return Verdict("a" if difference > 0 else "b", abs(difference))

    def grade(self, case: Case, answer: str) -> Grade:
        """The score of an answer and its parts. Raises NoData for a case that does not come from the table."""
        condition_of(case)
        if case.kind not in OPENERS:
            raise NoData(f"case {case.id[:60]}: its kind is not known, so it cannot be graded")
        text = answer.replace(case.question.strip(), "") if case.question.strip() else answer
        text = text if case.language == "zh" else text.lower()
        weights = WEIGHTS[case.kind]
        parts = _complete(case, text) if case.kind == "complete" else _incomplete(case, text)
        content = _CONTENT[case.kind]
        earned = sum(weights[p] * parts[p] for p in content) / sum(weights[p] for p in content)
        # Form is worth something only around content: an empty phrase of the right length earns nothing.
        gate = min(1.0, 2 * earned)
        parts |= {
            name: gate * parts.get(name, value)
            for name, value in {
                "warns": _warns(case, text),
                "concise": _concise(case, answer),
                "finished": float(bool(_END.search(answer))),
                **({"concludes": parts["concludes"]} if "concludes" in parts else {}),
            }.items()
        }
        parts |= _penalties(case, answer, text)
        score = sum(weights[name] * parts[name] for name in weights)
        score -= sum(PENALTIES[name] * parts[name] for name in PENALTIES)
        rounded = {name: round(parts[name], 4) for name in (*weights, *PENALTIES)}
        return Grade(round(min(1.0, max(0.0, score)), 4), rounded, NOTE[case.language])


def urges(text: str, language: str) -> bool:
    """Whether the text sends the patient to help at once."""
    return _words(language)["emergency"].search(text.lower()) is not None


def _complete(case: Case, text: str) -> dict[str, float]:
    language, own = case.language, {case.condition}
    named = {name for names in _names(language).found(text).values() for name in names}
    rooms = _departments(language).found(text)
    right = [room for room, names in rooms.items() if case.condition in names]
    hits, others = _split(_facts(language).found(text), own)
    enough = 3 if language == "zh" else 2
    asked, said = len(_questions(text)), len(_sentences(text))
    return {
        "names": min(1.0, 2 / len(named))
        if case.condition in named
        else (0.4 * min(1.0, 2 / len(rooms)) if right else 0.0),
        "belongs": min(1.0, hits / enough) * _share(hits, hits + others),
        "concludes": 1 - _share(asked, said),
    }


def _incomplete(case: Case, text: str) -> dict[str, float]:
    words = _words(case.language)
    wanted = fitting_questions(case)
    known = any(d in case.question for d in _durations(case.language))
    fit = general = other = 0
    for question in dict.fromkeys(_questions(text)):
        if _is_one_of(question, wanted):
            fit += 1
        elif known and words["how_long"].search(question):
            other += 1  # the patient said so already
        elif words["general"].search(question):
            general += 1
        else:
            other += 1
    asked = fit + general + other
    hits, others = _split(_facts(case.language).found(_stated(text)), set(case.possible))
    tips = _tips(case) if case.language == "zh" else ()
    hits += sum(tip in text for tip in tips)
    return {
        "asks": 1.0 if fit else 0.4 if general else 0.2 if other else 0.0,
        "fits": min(1.0, (fit + 0.5 * min(1, general)) / 2) * _share(fit + general, asked),
        "belongs": min(1.0, hits) * _share(hits, hits + others),
    }


def _warns(case: Case, text: str) -> float:
    """1 for the red flags of the condition and where to go then; half for a general word of watching."""
    words = _words(case.language)
    now = words["emergency"].search(text)
    if case.kind == "complete" and case.condition in speech.phrases()["urgent"]["names"]:
        if case.language == "en":
            return 1.0 if now else 0.0
        return 0.0 if not now else 1.0 if now.start() < 60 else 0.5
    watch = words["worse"].search(text)
    if case.language == "en":  # the table holds no red flags in English
        return 1.0 if now and watch else 0.5 if now or watch else 0.0
    flags = _flags().found(text)
    own = {*case.possible, case.condition}
    if now and any(own & owners for owners in flags.values()):
        return 1.0
    if flags and now:
        return 0.25  # told to watch for something else
    return 0.5 if now or watch else 0.0


def _penalties(case: Case, answer: str, text: str) -> dict[str, float]:
    own = {case.condition, *case.possible}
    stated = _stated(text)
    facts = _facts(case.language).found(stated)
    if case.kind == "incomplete":
        facts |= _names(case.language).found(stated)
    hits, others = _split({k: v for k, v in facts.items() if k not in case.question}, own)
    urgent = _words(case.language)["emergency"]
    parts = [part for part in _CLAUSE.split(answer) if not urgent.search(part.lower())]
    clauses = [said for part in parts if len(said := _bare(part)) >= 5]
    high = _limits(case)[1]
    han = len(re.findall("[\u4e00-\u9fff]", answer))
    letters = han + len(re.findall(r"[A-Za-z]+", answer))
    strange = (letters - han if case.language == "zh" else han) > 0.5 * letters
    return {
        "foreign": _share(others, hits + others),
        "repeats": min(1.0, (len(clauses) - len(set(clauses))) / 2),
        "padded": min(1.0, max(0.0, (len(answer) - high) / high)),
        "language": float(strange),
    }


def _concise(case: Case, answer: str) -> float:
    low, high = _limits(case)
    length = len(answer.strip())
    return length / low if length < low else max(0.0, 1 - 2 * max(0, length - high) / high)


def _limits(case: Case) -> tuple[int, int]:
    low, high = _RUBRIC["length"][case.language][case.kind]
    return low, high


def fitting_questions(case: Case) -> tuple[str, ...]:
    """What fits to be asked: the case's own questions, those of complaints in its words or of its condition.

    Also those of the likeliest three of its conditions. Bare texts, without punctuation.
    """
    zh = case.language == "zh"
    asked = [*case.asks]
    low = case.question if zh else case.question.lower()
    for complaint in _complaints():
        likely = case.condition in (c.name for c in complaint.conditions[:3])
        if likely or any(word.lower() in low for word in (complaint.words if zh else complaint.en)):
            asked += complaint.ask if zh else complaint.ask_en
    for name in case.possible[:3]:
        if name in table():
            asked += table()[name].ask if zh else table()[name].ask_en
    return tuple(dict.fromkeys(_bare(text) for text in asked))


def _is_one_of(question: str, wanted: Iterable[str]) -> bool:
    bare = _bare(question)
    return any(
        (len(w) >= 3 and w in bare) or difflib.SequenceMatcher(None, w, bare).ratio() >= 0.85
        for w in wanted
    )


def _tips(case: Case) -> tuple[str, ...]:
    """The first advice of the complaints that the opener's words or questions belong to."""
    return tuple(
        c.tip
        for c in _complaints()
        if c.ask == case.asks or any(word in case.question for word in c.words)
    )


def _split(found: dict[str, frozenset[str]], own: set[str]) -> tuple[int, int]:
    hits = sum(bool(owners & own) for owners in found.values())
    return hits, len(found) - hits


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _bare(text: str) -> str:
    return _NOT_SAID.sub("", _NUMBER.sub("", text)).lower()


def _sentences(text: str) -> list[str]:
    return [s for part in _SENTENCE.split(text) if (s := _NUMBER.sub("", part).strip())]


def _stated(text: str) -> str:
    """The text without its questions and without red flags, which name what the patient need not have."""
    told = "\n".join(s for s in _sentences(text) if not s.endswith(("？", "?")))
    return _flags().pattern.sub("", told)


def _questions(text: str) -> list[str]:
    return [s for s in _sentences(text) if s.endswith(("？", "?"))]


@cache
def _words(language: str) -> dict[str, re.Pattern[str]]:
    return {key: re.compile(text) for key, text in _RUBRIC["words"][language].items()}


@cache
def _durations(language: str) -> tuple[str, ...]:
    return tuple(speech.phrases()[language]["patient"]["durations"])


@cache
def _complaints() -> tuple[speech.Complaint, ...]:
    return speech.read_complaints(tuple(table().values()))


def _gather(pairs: Iterable[tuple[str, str]], *, words: bool = False) -> Facts:
    owners: dict[str, set[str]] = {}
    for text, owner in pairs:
        if len(text) > 1:
            owners.setdefault(text, set()).add(owner)
    longest = sorted(owners, key=lambda text: (-len(text), text))
    edge = r"\b" if words else ""
    body = "|".join(map(re.escape, longest))
    return Facts(
        {k: frozenset(v) for k, v in owners.items()}, re.compile(f"{edge}(?:{body}){edge}")
    )


@cache
def _names(language: str) -> Facts:
    """Names and everyday names of the conditions."""
    zh = language == "zh"
    own = [(c.name if zh else c.name_en.lower(), c.name) for c in table().values()]
    called = [
        (alias.lower(), name)
        for (spoken, name), aliases in speech.aliases().items()
        if spoken == language
        for alias in aliases
    ]
    return _gather([*own, *called], words=not zh)


@cache
def _departments(language: str) -> Facts:
    zh = language == "zh"
    return _gather(
        (c.department if zh else c.department_en.lower(), c.name) for c in table().values()
    )


@cache
def _facts(language: str) -> Facts:
    """Advice, tests and medicines of each condition; in English there is only advice."""
    if language == "en":
        urgent = _words("en")["emergency"]  # said to everybody
        told = [
            (text.rstrip(".").lower(), c.name) for c in table().values() for text in c.advice_en
        ]
        return _gather((text, name) for text, name in told if not urgent.search(text))
    return _gather(
        (text, c.name) for c in table().values() for text in (*c.advice, *_tests(c), *_drugs(c))
    )


def _tests(c: Condition) -> Sequence[str]:
    return [test.removeprefix("查") for test in c.tests]


def _drugs(c: Condition) -> Sequence[str]:
    return [name for name, _ in c.medicines]


@cache
def _flags() -> Facts:
    return _gather(
        (flag.removeprefix("伴").removeprefix("出现"), c.name)
        for c in table().values()
        for flag in c.red_flags
    )
