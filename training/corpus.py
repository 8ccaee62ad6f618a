"""writes the demonstration corpus: the paper's four parts, from the knowledge table, held-out cases apart.

A case is a condition with a choice and wording of its symptoms. Its id decides alone on which side it falls, so every
part of a case stays on one side. Fixed phrases without a case (a greeting, a thank-you) belong to training only.
The same seed and counts give the same bytes. `python -m training.corpus configs/nano/corpus.toml`
"""

import argparse
import hashlib
import json
import os
import random
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from huatuo.errors import HuatuoError
from huatuo.toml import ROOT, InsidePath, Settings, read_toml
from training import speech
from training.knowledge import FOLDER, Condition, read_knowledge

PARTS = {  # file: (part of the paper, style)
    "textbook": ("textbook", "book"),
    "distilled-instructions": ("distilled_instructions", "distilled"),
    "distilled-conversations": ("distilled_conversations", "distilled"),
    "real-instructions": ("real_instructions", "doctor"),
    "real-conversations": ("real_conversations", "doctor"),
    "polished-instructions": ("real_instructions", "polished"),
    "polished-conversations": ("real_conversations", "polished"),
    "polished-english": ("real_instructions", "polished"),
}
_KINDS = ("complete", "two", "vague", "named", "talk", "red", "card")
_SINGLE = {  # style: shares of the kinds, in the order of _KINDS
    "distilled": (40, 6, 14, 22, 15, 3, 0),
    "polished": (31, 7, 30, 13, 16, 3, 0),
    "doctor": (31, 8, 31, 11, 16, 3, 0),
    "book": (30, 6, 16, 20, 0, 0, 28),
}
_EN_INTENTS = ("medicine", "department", "care")


class CorpusConfig(Settings):
    """configs/nano/corpus.toml"""

    seed: int = 42
    out: InsidePath = Path("data/nano/corpus")
    held_out: float = Field(
        default=0.03, gt=0, lt=0.5, description="share of cases kept for evaluation"
    )
    english: float = Field(default=0.1, ge=0, le=1, description="share of English examples")
    examples: dict[str, int] = Field(
        description="examples per file; held-out ones come out of these"
    )


@dataclass(frozen=True)
class Case:
    """One patient: a condition and the symptoms in the order they are told."""

    condition: Condition
    order: tuple[int, ...]
    words: tuple[str, ...]
    language: str
    slots: dict[str, str]
    id: str


@dataclass(frozen=True)
class Example:
    """One conversation, with what an evaluation needs to know about it.

    asks: the questions of the table that fit an incomplete opener.
    """

    case_id: str
    part: str
    style: str
    opener: str
    language: str
    condition: str
    turns: tuple[str, ...]
    asks: tuple[str, ...] = ()

    def as_json(self) -> str:
        """The JSONL line, in the form training/data.py reads."""
        messages = [
            {"role": "assistant" if i % 2 else "user", "content": text}
            for i, text in enumerate(self.turns)
        ]
        head = {
            key: getattr(self, key)
            for key in ("case_id", "part", "style", "opener", "language", "condition", "asks")
        }
        return json.dumps({**head, "messages": messages}, ensure_ascii=False)


def is_held_out(case_id: str, share: float) -> bool:
    """Whether the case belongs to the evaluation side; depends on nothing but the id."""
    if case_id.startswith("talk:"):
        return False
    return int(hashlib.sha256(case_id.encode()).hexdigest()[:8], 16) / 2**32 < share


class Writer:
    """Makes examples from the tables. Holds nothing but the tables and the share of English."""

    def __init__(self, conditions: Sequence[Condition], english: float) -> None:
        self.conditions = conditions
        self.english = english
        self.complaints = speech.read_complaints(conditions)
        path = Path(__file__).parent / "small_talk.toml"
        self.talk: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["talk"]
        self._of = {c.name: [p for p in self.complaints if c in p.conditions] for c in conditions}

    def example(self, file: str, rng: random.Random) -> Example:
        """One example of the named file of PARTS."""
        part, style = PARTS[file]
        english = 1.0 if file.endswith("english") else self.english
        language = "en" if rng.random() < english else "zh"
        if part.endswith("conversations"):
            return self.conversation(part, style, language, rng)
        kind = rng.choices(_KINDS, _SINGLE[style])[0]
        if kind == "talk":
            return self.small_talk(part, style, rng)
        if kind == "named":
            return self.named(part, style, language, rng)
        case = self.case(language, rng)
        if kind == "red" and language == "zh":
            return self.emergency(part, style, case, rng)
        kind = "complete" if kind == "red" else kind
        question, answer, asks = self.opening(kind, style, case, rng)
        return Example(
            case.id, part, style, kind, language, case.condition.name, (question, answer), asks
        )

    def case(self, language: str, rng: random.Random) -> Case:
        """A patient drawn evenly over the conditions."""
        c = rng.choice(self.conditions)
        p = speech.phrases()[language]["patient"]
        slots = {"d": rng.choice(p["durations"])}
        if language == "en":
            order = tuple(rng.sample(range(len(c.symptoms_en)), len(c.symptoms_en)))
            words = tuple(c.symptoms_en[i] for i in order)
            slots["more"] = rng.choice(p["more"])
            key = f"en:{c.name}|{'|'.join(words)}|{slots['d']}"
        else:
            order = tuple(rng.sample(range(4), 4))
            choice = [rng.randrange(len(c.symptoms[i])) for i in order]
            words = tuple(c.symptoms[i][w] for i, w in zip(order, choice, strict=True))
            key = f"zh:{c.name}|" + "|".join(sorted(words[:3]))
            slots |= {
                "open": rng.choice(p["open"]),
                "close": rng.choice(p["close"]),
                "extra": rng.choice(p["extra"]),
                "more": rng.choice(p["more"]),
                "who": rng.choice(p[c.who]),
                "before": rng.choice(p["before"]),
                "after": rng.choice(p["after"]),
                "age": str(rng.randrange(18, 60)),
                "old": str(rng.randrange(60, 85)),
                "kid": str(rng.randrange(1, 12)),
            }
        said = [speech.spoken(w, rng) if language == "zh" else w for w in words]
        slots |= {f"s{i}": text for i, text in enumerate(said, 1)}
        return Case(c, order, words, language, slots, key)

    def _facts(self, case: Case, rng: random.Random) -> speech.Slots:
        shown = case.order[:2] if case.language == "zh" else (0, 1)
        return speech.facts(case.condition, case.language, rng, shown)

    def opening(
        self, kind: str, style: str, case: Case, rng: random.Random
    ) -> tuple[str, str, tuple[str, ...]]:
        """The first question, its answer and what fits to be asked; kind: card (bare symptoms), complete, two, vague."""
        p = speech.phrases()[case.language]["patient"]
        slots, facts = dict(case.slots), self._facts(case, rng)
        if kind == "card":
            words = [slots[f"s{i}"] for i in range(1, rng.choice((2, 3, 4)))]
            question = ("，" if case.language == "zh" else ", ").join(words)
            return question, speech.conclude(style, facts, case.language, rng), ()
        if kind == "complete":
            key = speech.template_key(kind, case.language, case.words[:3])
            question = speech.fill(p[key], slots, rng)
            return question, speech.conclude(style, facts, case.language, rng), ()
        if kind == "two":
            key = speech.template_key(kind, case.language, case.words[:2])
            question = speech.fill(p[key], slots, rng)
            return question, speech.half(style, facts, case.language, rng), ()
        complaint = self._complaint(case, rng, anything=kind == "vague")
        if style == "book" and not complaint:
            complaint = rng.choice(self.complaints)
        facts["s"] = self._plainly(case)
        if complaint:
            words = complaint.words if case.language == "zh" else complaint.en
            slots["s1"], facts["s"] = rng.choice(words), words[0]
            likely = (complaint.conditions or (case.condition,))[0]
            facts["red"] = speech.facts(likely, "zh", rng)["red"]
        dated = rng.random() < 0.4
        key = speech.template_key("vague_dated" if dated else "vague", case.language, [slots["s1"]])
        question = speech.fill(p[key], slots, rng)
        asks = speech.asks_of(complaint, case.condition, case.language)
        if style == "book" and complaint:
            answer = speech.recall(facts, complaint, case.language, rng)
        elif style == "distilled":
            answer = self._survey(case, complaint, facts, rng)
        else:
            answer = speech.ask_back(style, facts, complaint, asks, case.language, rng, dated=dated)
        return question, answer, asks

    def _plainly(self, case: Case) -> str:
        """The first symptom in the table's own first wording, as a doctor repeats it."""
        c, at = case.condition, case.order[0]
        return c.symptoms[at][0] if case.language == "zh" else c.symptoms_en[at]

    def _complaint(
        self, case: Case, rng: random.Random, *, anything: bool
    ) -> speech.Complaint | None:
        """A complaint to open with, often; None to open with one of the condition's own symptoms.

        anything: also one that does not belong to the condition, which then stays unsaid.
        """
        fitting = self._of[case.condition.name]
        if anything and rng.random() < 0.6:
            return rng.choice(self.complaints)
        return rng.choice(fitting) if fitting and rng.random() < 0.6 else None

    def _survey(
        self,
        case: Case,
        complaint: speech.Complaint | None,
        facts: speech.Slots,
        rng: random.Random,
    ) -> str:
        if complaint:
            others = list(complaint.conditions[:3])
            facts |= {"adv1": complaint.tip, "adv2": "注意休息", "dept": complaint.department}
        else:
            same = [c for c in self.conditions if c.department == case.condition.department]
            others = [case.condition, *(c for c in same if c != case.condition)][:3]
        if case.language == "en":
            facts |= speech.facts(others[0] if others else case.condition, "en", rng)
        return speech.survey(facts, others or [case.condition], case.language, rng)

    def named(self, part: str, style: str, language: str, rng: random.Random) -> Example:
        """A question about a condition by its name."""
        c = rng.choice(self.conditions)
        intent = rng.choice(_EN_INTENTS if language == "en" else speech.INTENTS)
        facts = speech.facts(c, language, rng)
        template = rng.choice(speech.phrases()[language]["ask"][intent][1])
        called = speech.aliases().get((language, c.name))
        everyday = {"name": rng.choice(called)} if called and rng.random() < 0.6 else {}
        question = speech.fill([template], facts | everyday, rng)
        answer = speech.follow_up(style, intent, facts, language, rng)
        return Example(
            f"named:{question}", part, style, "named", language, c.name, (question, answer)
        )

    def small_talk(self, part: str, style: str, rng: random.Random) -> Example:
        """A greeting, thanks, an off-topic or general question, an emergency."""
        block = rng.choices(self.talk, [b.get("weight", 1) for b in self.talk])[0]
        slots = {"x": rng.choice(block["things"])} if "things" in block else {}
        question = speech.fill(block["ask"], slots, rng)
        case_id = f"general:{question}" if slots else f"talk:{question}"
        language = "zh" if any("\u4e00" <= ch <= "\u9fff" for ch in question) else "en"
        question += rng.choice(
            ["", "", "？", "。", "！"] if language == "zh" else ["", "", "?", "."]
        )
        turns = (question.replace("？？", "？").replace("??", "?"), rng.choice(block[style]))
        return Example(case_id, part, style, block["kind"], language, "", turns)

    def emergency(self, part: str, style: str, case: Case, rng: random.Random) -> Example:
        """A red flag of the condition as the opener."""
        question, answer = self._red(style, case, rng)
        key = f"red:{case.condition.name}:{question}"
        return Example(key, part, style, "emergency", "zh", case.condition.name, (question, answer))

    def _red(self, style: str, case: Case, rng: random.Random) -> tuple[str, str]:
        facts = self._facts(case, rng) | {
            "who": case.slots["who"],
            "age": "40",
            "old": "70",
            "kid": "3",
        }
        facts["red1"] = rng.choice([facts["red1"], facts["red2"]])
        question = speech.fill(speech.phrases()["zh"]["patient"]["red"], facts, rng)
        return question, speech.fill(speech.phrases()["zh"][style]["red"], facts, rng)

    def conversation(self, part: str, style: str, language: str, rng: random.Random) -> Example:
        """Two to four exchanges: opener, what was missing, conclusion, a follow-up, thanks."""
        case = self.case(language, rng)
        kind = rng.choices(("vague", "two", "complete"), (65, 10, 25))[0]
        opening = "first vague" if kind == "vague" else kind
        question, answer, asks = self.opening(opening, style, case, rng)
        turns = [question, answer]
        p = speech.phrases()[language]["patient"]
        if kind != "complete":
            if style == "doctor" and language == "zh" and rng.random() < 0.35:
                turns += [speech.fill(p["short_reply"], case.slots, rng), self._again(case, rng)]
            turns += [speech.fill(p["reply"], case.slots, rng)]
            turns += [speech.conclude(style, self._facts(case, rng), language, rng)]
        for _ in range(rng.choice((1, 1, 2) if style == "doctor" else (0, 1, 1))):
            turns += self._follow_up(style, case, rng)
        if rng.random() < 0.3:
            turns += [
                rng.choice(p["thanks"]),
                rng.choice(speech.phrases()[language][style]["thanks"]),
            ]
        name = case.condition.name
        return Example(case.id, part, style, kind, language, name, tuple(turns), asks)

    def _again(self, case: Case, rng: random.Random) -> str:
        return rng.choice(case.condition.ask)

    def _follow_up(self, style: str, case: Case, rng: random.Random) -> list[str]:
        if case.language == "zh" and rng.random() < 0.06:
            return list(self._red(style, case, rng))
        intent = rng.choice(_EN_INTENTS if case.language == "en" else speech.INTENTS)
        facts = self._facts(case, rng)
        question = speech.fill(speech.phrases()[case.language]["ask"][intent][0], facts, rng)
        return [question, speech.follow_up(style, intent, facts, case.language, rng)]


def examples(config: CorpusConfig, conditions: Sequence[Condition], file: str) -> Iterator[Example]:
    """The examples of one file of PARTS, in order; each depends on seed, file and its number only."""
    writer = Writer(conditions, config.english)
    for number in range(config.examples.get(file, 0)):
        yield writer.example(file, random.Random(f"{config.seed}/{file}/{number}"))


def write_corpus(
    config: CorpusConfig, folder: Path, say: Callable[[str], None] = print
) -> dict[str, int]:
    """Writes `<file>.jsonl` and `<file>.held-out.jsonl` for each of PARTS; returns lines per file."""
    conditions = read_knowledge(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for file in PARTS:
        sides: dict[bool, list[str]] = {False: [], True: []}
        for example in examples(config, conditions, file):
            sides[is_held_out(example.case_id, config.held_out)].append(example.as_json())
        for held, lines in sides.items():
            name = f"{file}.held-out.jsonl" if held else f"{file}.jsonl"
            temporary = folder / f".{name}.{os.getpid()}.tmp"  # another process may write them too
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            temporary.replace(folder / name)
            counts[name] = len(lines)
    say(
        f"corpus: {sum(counts.values()):,} conversations about {len(conditions)} conditions in {folder}"
    )
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path)
    options = parser.parse_args(arguments)
    try:
        config = read_toml(options.config, CorpusConfig)
        write_corpus(config, ROOT / config.out)
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
