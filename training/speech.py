"""how patients and the three doctor styles speak: templates of phrases.toml filled from the knowledge table.

Styles: distilled (fluent, structured, never asks), doctor (short, asks back), polished (the hybrid's real parts:
warm, asks when something is missing, concludes in order) and book (plain facts, for the common start).
"""

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training.knowledge import Condition

Slots = dict[str, str]
INTENTS = (
    "what",
    "medicine",
    "tests",
    "department",
    "cause",
    "serious",
    "care",
    "danger",
    "differ",
)
_BOOK = {  # what the plain start answers to a question about a condition
    "what": ["表现：{echo}。病因：{cause}。"],
    "medicine": ["用药：{med}，{caution}。"],
    "tests": ["检查：{tests}。"],
    "department": ["检查：{tests}。"],
    "cause": ["病因：{cause}。"],
    "serious": ["{course}。危险信号：{red}。"],
    "care": ["{adv1}，{adv2}，{adv3}。"],
    "danger": ["危险信号：{red}。"],
    "differ": ["表现：{echo}。检查：{tests}。"],
}
_HERE = Path(__file__).parent
_SLOT = re.compile(r"\{(\w+)\}")


@cache
def phrases() -> dict[str, Any]:
    """The templates, by language, speaker and slot."""
    return tomllib.loads((_HERE / "phrases.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Complaint:
    """A vague everyday complaint. conditions: those of the table it may belong to, in table order."""

    words: tuple[str, ...]
    en: tuple[str, ...]
    department: str
    ask: tuple[str, ...]
    ask_en: tuple[str, ...]
    tip: str
    conditions: tuple[Condition, ...]


def read_complaints(table: Sequence[Condition]) -> tuple[Complaint, ...]:
    """The complaints of complaints.toml, each with the conditions whose symptoms mention it."""
    entries = tomllib.loads((_HERE / "complaints.toml").read_text(encoding="utf-8"))["complaint"]
    return tuple(
        Complaint(
            words=tuple(entry["words"]),
            en=tuple(entry["en"]),
            department=entry["dept"],
            ask=tuple(entry["ask"]),
            ask_en=tuple(entry["ask_en"]),
            tip=entry["tip"],
            conditions=tuple(
                sorted(
                    (c for c in table if c.name in first or _mentions(c, entry["like"])),
                    key=lambda c: (_place(c.name, first), c.department != entry["dept"]),
                )
            ),
        )
        for entry in entries
        for first in [entry.get("first", [])]
    )


def _place(name: str, first: Sequence[str]) -> int:
    return first.index(name) if name in first else len(first)


def _mentions(condition: Condition, words: Sequence[str]) -> bool:
    first = [wordings[0] for wordings in condition.symptoms]
    return any(word in wording for word in words for wording in first)


def fill(templates: Sequence[str], slots: Slots, rng: random.Random) -> str:
    """One of the templates that `slots` can fill, filled (a slot's text may hold slots). Raises KeyError if none."""
    usable = [t for t in templates if all(name in slots for name in _SLOT.findall(t))]
    if not usable:
        raise KeyError(f"no template of {list(templates)[:1]} fits {sorted(slots)}")
    text = rng.choice(usable)
    while _SLOT.search(text):
        text = _SLOT.sub(lambda match: slots[match[1]], text)
    return text


def facts(c: Condition, language: str, rng: random.Random, shown: Sequence[int] = (0, 1)) -> Slots:
    """What a doctor can say about a condition. shown: which symptoms are echoed, in their first wording."""
    if language == "en":
        advice = [text.rstrip(".") for text in rng.sample(c.advice_en, 2)]
        return {
            "name": c.name_en,
            "dept": c.department_en,
            "adv1": advice[0],
            "adv2": advice[1],
            "ask1": c.ask_en[0],
            "ask2": c.ask_en[1],
        }
    advice = rng.sample(c.advice, 3)
    medicine, caution = rng.choice(c.medicines)
    urgent = {"urgent": ""} if c.name in phrases()["urgent"]["names"] else {}
    return urgent | {
        "name": c.name,
        "dept": c.department,
        "cause": c.cause,
        "cause_s": f"常见原因是：{c.cause}。",
        "course": c.course,
        "course_c": c.course,
        "tests": "、".join(_exam(test) for test in c.tests[:2]),
        "test1": _exam(c.tests[0]),
        "test2": _exam(c.tests[1]),
        "med": medicine,
        "caution": caution,
        "red": "或".join(_bare(flag) for flag in c.red_flags[:2]),
        "red1": _bare(c.red_flags[0]),
        "red2": _bare(c.red_flags[1]),
        "conf": rng.choice(c.confusions),
        "echo": "、".join(c.symptoms[i][0] for i in shown),
        **{f"adv{i}": text for i, text in enumerate(advice, 1)},
        **{f"ask{i}": text for i, text in enumerate(c.ask[:2], 1)},
    }


def _bare(flag: str) -> str:
    return flag.removeprefix("伴").removeprefix("出现")


def _exam(test: str) -> str:
    return test if test.startswith("查体") else test.removeprefix("查")


def numbered(items: Sequence[str]) -> str:
    """Lines `1. …`"""
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))


def conclude(style: str, slots: Slots, language: str, rng: random.Random) -> str:
    """The answer to a complete opener: it names the condition, in the given style."""
    p = phrases()[language][style]
    urgent = "urgent" in slots
    if style == "book":
        more = rng.sample(p["more"], rng.choice((0, 1, 1, 2)))
        return fill(p["complete"], slots, rng) + "".join(
            _joined(fill([m], slots, rng)) for m in more
        )
    if style == "doctor":
        return fill(p["urgent" if urgent and "urgent" in p else "complete"], slots, rng)
    head = fill(p["urgent_head" if urgent else "complete_head"], slots, rng)
    tail = fill(p["tail"], slots, rng)
    if language == "en":
        return f"{head}\n{numbered([fill([t], slots, rng) for t in p['complete_items']])}\n{tail}"
    if style == "distilled":
        keys = rng.sample(["cause", "tests", "course", "watch"], 2)
        keys = sorted(
            [*keys, "medicine", "advice"],
            key=["cause", "tests", "medicine", "advice", "course", "watch"].index,
        )
    else:
        keys = ["visit", "medicine", "advice"]
    items = numbered([fill(p[key], slots, rng) for key in keys])
    return f"{head}{fill(p['complete_lead'], slots, rng)}\n{items}\n{tail}"


def recall(slots: Slots, complaint: Complaint, language: str, rng: random.Random) -> str:
    """What the plain start says to a complaint: its plain name, where it is seen, what it may be."""
    p = phrases()[language]["book"]
    names = [c.name if language == "zh" else c.name_en for c in complaint.conditions[:3]]
    joined = ("、" if language == "zh" else ", ").join(names)
    dept = complaint.department if language == "zh" else complaint.conditions[0].department_en
    return fill(p["vague"], slots | {"dept": dept, "names": joined, "tip": complaint.tip}, rng)


def _joined(text: str) -> str:
    return f" {text}" if text.isascii() else text


def ask_back(
    style: str,
    slots: Slots,
    complaint: Complaint | None,
    asks: Sequence[str],
    language: str,
    rng: random.Random,
    *,
    dated: bool,
) -> str:
    """The answer to an incomplete opener by a style that asks (doctor, polished).

    asks: of `asks_of`. dated: the patient said since when; else that is asked first.
    """
    p = phrases()[language][style]
    slots = {k: v for k, v in slots.items() if k != "adv1"}  # advice for what is not yet known
    if complaint and language == "zh":
        slots["adv1"] = complaint.tip
    slots |= {"ask1": asks[0], "ask2": asks[1]}
    if style == "doctor":
        return fill(p["ask"], slots, rng)
    questions = list(asks[: 2 if not dated or len(asks) < 3 else 3])
    if not dated:
        questions.insert(0, p["ask_how_long"])
    return f"{fill(p['ask_head'], slots, rng)}\n{numbered(questions)}\n{fill(p['ask_tail'], slots, rng)}"


def asks_of(complaint: Complaint | None, condition: Condition, language: str) -> tuple[str, ...]:
    """What a doctor asks, the most telling first: of the complaint if there is one, else of the condition.

    Always in this order: a small model that saw them shuffled asks one thing twice.
    """
    source: Complaint | Condition = complaint or condition
    return tuple(source.ask if language == "zh" else source.ask_en)


def half(style: str, slots: Slots, language: str, rng: random.Random) -> str:
    """The answer to two symptoms: a first thought and questions."""
    p = phrases()[language][style]
    if language == "en" or style in ("distilled", "book"):
        return conclude(style, slots, language, rng)
    if style == "doctor":
        return fill(p["two"], slots, rng)
    questions = numbered([slots["ask1"], slots["ask2"]])
    return f"{fill(p['two_head'], slots, rng)}\n{questions}\n{fill(p['two_tail'], slots, rng)}"


def survey(slots: Slots, others: Sequence[Condition], language: str, rng: random.Random) -> str:
    """The distilled answer to an incomplete opener: possible causes as a list, no question."""
    p = phrases()[language]["distilled"]
    if language == "en":
        items = numbered(
            [f"{slots['adv1']}.", f"{slots['adv2']}.", f"See a doctor in {slots['dept']}."]
        )
        return f"{fill(p['vague_head'], slots, rng)}\n{items}"
    items = numbered([f"{c.name}：{c.cause}。" for c in others])
    return f"{fill(p['vague_head'], slots, rng)}\n{items}\n{fill(p['vague_tail'], slots, rng)}"


def follow_up(style: str, intent: str, slots: Slots, language: str, rng: random.Random) -> str:
    """The answer to a question about a named condition."""
    p = phrases()[language][style]
    if style == "book":
        more = fill(_BOOK[intent] if language == "zh" else p["more"], slots, rng)
        return fill(p["complete"], slots, rng) + _joined(more)
    return fill(p.get("what" if intent == "what" else f"ask_{intent}", []), slots, rng)


@cache
def aliases() -> dict[tuple[str, str], tuple[str, ...]]:
    """Everyday names by (language, condition name)."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for alias, name in phrases()["alias"].items():
        key = ("en" if alias.isascii() else "zh", name)
        found[key] = (*found.get(key, ()), alias)
    return found


def template_key(kind: str, language: str, words: Sequence[str]) -> str:
    """Which list of patient templates fits: English symptoms that are clauses take the plain ones."""
    clause = re.compile(
        r"(?i)(i|my|it|the|both|there|light|his|her)\b|.* (is|are|was|has|comes|hurts?|itch)\b"
    )
    plain = language == "en" and any(clause.match(word) for word in words)
    return f"plain_{kind}" if plain else kind


def spoken(symptom: str, rng: random.Random) -> str:
    """A symptom as another patient might type it."""
    if rng.random() < 0.25:
        symptom = symptom.replace("疼", "痛") if "疼" in symptom else symptom.replace("痛", "疼")
    if rng.random() < 0.05 and len(symptom) > 5:  # a slip of the keyboard
        at = rng.randrange(1, len(symptom))
        symptom = symptom[:at] + symptom[at + 1 :]
    return symptom
