"""reads patient cases, and keeps what the patient may say apart from the hidden truth.

A case is {id, medical_case, doctor_diagnosis, Department} (HuatuoGPT, eval/Med-dialog_100.json) or {id, Description,
"Diagnosis and suggestions", "Doctor faculty", "Real Dialogue"} (HuatuoGPT-II, huatuo100_conv). What is taken out of the
patient's text, each noted in PatientCase.notes:
  transcript  from the first line that opens a pasted dialogue: a heading of it, or a role mark where a doctor's and
              another mark stand in the text. A mark that ends a longer word ("预约医生：") is none.
  booking     a booking's fields: who, when and where.
  name        the doctor's diagnosis where the patient's text says it; what is only a complaint ("便血") stays.
  department  the hidden department's name.
  empty       nothing is left that the patient could tell.
Identifiers in the patient's text are masked (huatuo/privacy.py).
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from huatuo.errors import BadCases, InputError
from huatuo.leaks import Name, bare, names_of, told_names
from huatuo.messages import clean
from huatuo.privacy import mask

TEXT_LIMIT = 20_000
"""Characters of one field of a case file."""
OPENER_LIMIT = 60
"""Characters of a complaint that still serves as the first words."""
SHORT = 4
"""A complaint of fewer characters is told with the beginning of the story."""
_PIECE = 12
"""A piece of the story shorter than this is told together with the next one."""
_LONG = 60
"""A sentence longer than this is parted at its blanks, too: some patients type no punctuation."""
_LAYOUTS = (
    ("medical_case", "doctor_diagnosis", "Department", "dialogue"),
    ("Description", "Diagnosis and suggestions", "Doctor faculty", "Real Dialogue"),
)
_HAN = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Fact:
    """One thing that the patient may say. key: of patient.toml's headings; topics: what question it answers."""

    key: str
    text: str
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Hidden:
    """What neither the assistant nor the patient is told. names: of the diagnosis, empty if the doctor named none."""

    department: str
    diagnosis: str
    names: tuple[Name, ...] = ()
    dialogue: str = ""


@dataclass(frozen=True)
class PatientCase:
    """One case. opener: the first words; facts: what else may be said, the wish last; notes: what was taken out."""

    id: str
    language: str
    opener: str
    facts: tuple[Fact, ...]
    hidden: Hidden = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def department(self) -> str:
        """Where the case was seen: for people who rate, never for the assistant."""
        return self.hidden.department

    @property
    def digest(self) -> str:
        """SHA-256 of the whole case in hex: another text is another case."""
        told = [self.id, self.opener, [[f.key, f.text] for f in self.facts], self.hidden.diagnosis]
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


@cache
def words() -> dict[str, Any]:
    """huatuo/patient.toml."""
    file = Path(__file__).with_name("patient.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


@cache
def topics() -> tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...]:
    """(key, what asks for it, what tells it) of each topic, the narrow ones first."""
    return tuple(
        (t["key"], re.compile(t["asks"], re.I), re.compile(t["tells"], re.I))
        for t in words()["topic"]
    )


def read_cases(path: Path) -> tuple[PatientCase, ...]:
    """The file's cases in order. Raises BadCases naming file and item; nothing is skipped."""
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadCases(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadCases(f"{path}: not JSON in UTF-8: {str(error)[:200]}") from None
    if not isinstance(items, list) or not items:
        raise BadCases(f"{path}: a JSON list of patient cases is expected")
    cases: dict[str, PatientCase] = {}
    for number, item in enumerate(items, 1):
        case = _case(item, f"{path.name}, item {number}")
        if case.id in cases:
            raise BadCases(f"{path.name}, item {number}: the id {case.id} stands here twice")
        cases[case.id] = case
    return tuple(cases.values())


def _case(item: object, place: str) -> PatientCase:
    if not isinstance(item, dict):
        raise BadCases(f"{place}: an object is expected")
    layout = next((keys for keys in _LAYOUTS if keys[0] in item), None)
    if layout is None:
        raise BadCases(f"{place}: no {_LAYOUTS[0][0]} and no {_LAYOUTS[1][0]}")
    story, diagnosis, department = (_text(item, key, place) for key in layout[:3])
    dialogue = item.get(layout[3], "")
    case_id = item.get("id")
    if isinstance(case_id, bool) or not isinstance(case_id, int | str) or not str(case_id).strip():
        raise BadCases(f"{place}: id is missing, or is neither a number nor text")
    return make_case(
        str(case_id).strip(),
        story,
        diagnosis,
        department,
        dialogue=dialogue
        if isinstance(dialogue, str)
        else json.dumps(dialogue, ensure_ascii=False),
    )


def _text(item: Mapping[str, Any], key: str, place: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise BadCases(f"{place}: {key} is {'missing' if key not in item else 'not text'}")
    try:
        return clean(value, TEXT_LIMIT)
    except InputError as error:
        raise BadCases(f"{place}: {key}: {error}") from None


def make_case(
    case_id: str, story: str, diagnosis: str, department: str, *, dialogue: str = ""
) -> PatientCase:
    """A case from its published texts; the language is that of the story."""
    language = "zh" if _HAN.search(story) else "en"
    story, pasted = without_transcript(story)
    fields, booked = _fields(story)
    fields = {key: mask(text).text for key, text in fields.items()}
    own = "\n".join(fields.values())
    hidden = Hidden(department, diagnosis, names_of(diagnosis, own), dialogue or pasted)
    notes = ["transcript"] * bool(pasted) + ["booking"] * booked
    for key, text in fields.items():
        shown = told_names(text, hidden.names, words()["truth"][f"instead_{language}"])
        notes += ["name"] * (shown != text)
        without = shown.replace(department, "") if len(department) > 1 else shown
        notes += ["department"] * (without != shown)
        fields[key] = without.strip()
    facts, opener = _facts(fields, language)
    notes += ["empty"] * (not facts and opener == words()[language]["opener_bare"])
    return PatientCase(case_id, language, opener, facts, hidden, tuple(dict.fromkeys(notes)))


def without_transcript(text: str) -> tuple[str, str]:
    """(the text before a pasted dialogue, the dialogue or ''). The rule is in the module's docstring."""
    strip = words()["strip"]
    starts = [m.start() for m in re.finditer(strip["opening"], text, re.M)]
    doctor = [m.start() for m in re.finditer(strip["doctor"], text)]
    others = [m.start() for m in re.finditer(strip["patient"], text)]
    if doctor and len(doctor) + len(others) > 1:
        starts += doctor + others
    if not starts:
        return text, ""
    first = min(starts)
    return text[:first].rstrip(), text[first:].strip()


def _fields(text: str) -> tuple[dict[str, str], bool]:
    """(the fields by key, whether there was a booking); text before any heading is the story."""
    strip = words()["strip"]
    headings = words()["headings"]
    names = "|".join(sorted(map(re.escape, headings), key=len, reverse=True))
    parts = re.split(rf"(?:^|(?<=[：:]))[ \t]*({names})[ \t]*[：:]", text, flags=re.M)
    fields: dict[str, str] = {}
    booked = False
    for name, body in [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]:
        key = headings[name] if name else "story"
        body = re.sub(strip["form"], "", body).strip()
        if key == "booking":
            booked = True
        elif body and not re.search(strip["nothing"], body, re.I):
            fields[key] = f"{fields[key]}\n{body}" if key in fields else body
    return fields, booked


def _facts(fields: Mapping[str, str], language: str) -> tuple[tuple[Fact, ...], str]:
    """(what may be said after the opener, the opener)."""
    said = words()[language]
    instead = words()["truth"][f"instead_{language}"]
    story = _pieces(fields.get("story", ""))
    complaint = " ".join(_ungreeted(fields.get("complaint", "")).split())
    if not complaint or instead in complaint or len(complaint) > OPENER_LIMIT:
        first = story.pop(0) if story else complaint
    elif len(complaint) < SHORT and story:
        first = (
            f"{complaint}，{story.pop(0)}" if language == "zh" else f"{complaint}, {story.pop(0)}"
        )
    else:
        first = complaint
    first = _ungreeted(first).strip().rstrip("。.，,；;")
    end = "" if first.endswith(("？", "?", "！", "!")) else "。" if language == "zh" else "."
    opener = said["opener"].replace("{complaint}", first) + end if first else said["opener_bare"]
    facts = [_fact("story", piece) for piece in story if bare(piece) not in bare(first)]
    for key in ("duration", "pregnancy", "medicine", "allergy", "history", "visited"):
        if key in fields:
            facts.append(_fact(key, _entry(key, fields[key], said)))
    for piece in _pieces(fields.get("wish", "")):
        asks = re.search(words()["strip"]["wish"], piece, re.I)
        if len(piece) >= SHORT:
            facts.append(_fact("wish" if asks else "story", piece))
    return tuple(facts), opener


def _entry(key: str, text: str, said: Mapping[str, Any]) -> str:
    """A form's entry as a sentence of the patient's."""
    text = " ".join(text.split()).rstrip("。.，,、 ")
    if re.fullmatch(r"(?:无\s*)+|没有|none|no", text, re.I) and f"none_{key}" in said["tells"]:
        return str(said["tells"][f"none_{key}"])
    text = said["durations"].get(text, text)
    return str(said["tells"][key].replace("{text}", text))


def _fact(key: str, text: str) -> Fact:
    found = {name for name, _, tells in topics() if tells.search(text)}
    return Fact(key, text, frozenset({*found, key}))


def _pieces(text: str) -> list[str]:
    """The text in sentences, long ones at their commas, short pieces joined."""
    pieces: list[str] = []
    for sentence in re.split(r"(?<=[。！？!?；;\n])|(?<=[a-z]\.)\s", text):
        part = ""
        marks = "[，,]" if len(sentence) <= _LONG else r"[，,\s]"
        for clause in re.split(rf"(?<={marks})", sentence):
            part += clause
            if len(part.strip()) >= _PIECE:
                pieces.append(part)
                part = ""
        if part.strip() and pieces and sentence.strip() != part.strip() and len(part) < _PIECE:
            pieces[-1] += part
        elif part.strip():
            pieces.append(part)
    told = [" ".join(_ungreeted(piece).split()) for piece in pieces]
    return [piece for piece in told if re.search(r"\w", piece)]


def _ungreeted(text: str) -> str:
    return re.sub(words()["strip"]["greeting"], "", text, flags=re.I)


CARD_BREAK = "\n----\n"
"""Between what a card's reader may say and what the case's doctor found."""


def card_of(case: PatientCase) -> str:
    """The case for a physician who plays the patient: the facts, a line each, and below them the hidden truth."""
    told = words()[case.language]["labels"]
    lines = [f"{told[fact.key]}：{fact.text.strip('，, ')}" for fact in case.facts]
    return "\n".join([case.opener, *lines]) + CARD_BREAK + case.hidden.diagnosis


def read_card(card: str) -> tuple[str, str]:
    """(what may be said, the hidden truth) of a card."""
    facts, _, truth = card.partition(CARD_BREAK)
    return facts, truth
