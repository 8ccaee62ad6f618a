"""the cases that prompts and evaluations are drawn from: fresh openers of the corpus writer, or a question file.

A drawn case falls on one side by two signs: the corpus's own case id, and its text. So neither an id nor a wording
of a held-out case can occur on the training side, and no held-out text stands in a training file of the corpus.
`python -m training.cases --out FILE --count 400 --held-out`
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from huatuo.errors import ConfigError, HuatuoError, InputError, NoData
from huatuo.messages import clean
from huatuo.toml import ROOT, read_toml
from training import speech
from training.corpus import Case as Patient
from training.corpus import CorpusConfig, Writer, is_held_out, write_corpus
from training.data import CONTENT_LIMIT, BadData
from training.knowledge import Condition, read_knowledge

CORPUS = ROOT / "configs/nano/corpus.toml"
OPENERS = {"complete": "complete", "incomplete": "vague"}
"""Kind of a case to the corpus writer's opener: three or four symptoms; one vague symptom. The rubric grades these."""
EMERGENCY = "emergency"
"""Kind of a case that opens with a red flag: whatever else an answer says, it must send to help at once."""
KINDS = (*OPENERS, EMERGENCY)
TRIES_PER_CASE = 5_000
"""Draws for one case before draw_cases gives up: about one in 70 to 150 falls on the held-out side."""


@dataclass(frozen=True)
class Case:
    """An opening question and what a judge needs to know about it.

    kind: one of KINDS, or empty when unknown. condition, department: by the table's Chinese names, empty for
    a question that does not come from the table. possible: the conditions an incomplete opener may belong to.
    names: condition and department in both languages. asks: the table's questions that fit an incomplete opener.
    """

    id: str
    question: str
    kind: str = ""
    language: str = "zh"
    condition: str = ""
    department: str = ""
    names: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    intent: str = ""

    def as_json(self) -> str:
        """The JSONL line that read_cases reads; empty keys are left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v}, ensure_ascii=False)


@cache
def table() -> dict[str, Condition]:
    """The knowledge table's conditions by their Chinese names."""
    return {condition.name: condition for condition in read_knowledge()}


def condition_of(case: Case) -> Condition:
    """The table's entry of the case. Raises NoData for a question that does not come from the table."""
    if case.condition in table():
        return table()[case.condition]
    why = f"names {case.condition}, which is not there" if case.condition else "names no condition"
    raise NoData(
        f"case {case.id[:60]}: {why}; only cases drawn from the knowledge table have an answer to check"
    )


def corpus_folder(config: CorpusConfig, say: Callable[[str], None] = print) -> Path:
    """The corpus's folder; the corpus is written if one of its files is missing."""
    folder = ROOT / config.out
    names = [f"{name}.jsonl" for name in config.examples if config.examples[name]]
    if not all((folder / name).exists() for name in names):
        write_corpus(config, folder, say)
    return folder


def trained_texts(folder: Path) -> frozenset[str]:
    """Every user turn of the folder's training files. Raises NoData when there are none, BadData with file:line."""
    texts: set[str] = set()
    for file in sorted(folder.glob("*.jsonl")):
        if "held-out" in file.name:
            continue
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    turns = json.loads(line)["messages"]
                    texts |= {turn["content"] for turn in turns if turn["role"] == "user"}
                except (ValueError, KeyError, TypeError):
                    raise BadData(f"{file.name}:{number}: no line of the corpus") from None
    if not texts:
        raise NoData(f"{folder}: no training file of the corpus; run python -m training.corpus")
    return frozenset(texts)


def draw_cases(
    count: int,
    *,
    kinds: Sequence[str] = ("complete", "incomplete"),
    held_out: bool,
    seed: int = 0,
    english: float = 0.1,
    config: CorpusConfig | None = None,
    progress: bool = False,
) -> list[Case]:
    """`count` cases with different texts, the kinds in turn; the same arguments give the same cases.

    held_out: cases that no model of the corpus and no training-side draw can have seen; else training-side cases,
    whose texts may be new. english: share of English questions; emergencies are Chinese, as the table's red flags are.
    Raises ConfigError for an unknown kind, NoData when there are not so many cases.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kinds: {kind!r} is unknown; there are {', '.join(KINDS)}")
    if count and not kinds:
        raise ConfigError("kinds: name at least one kind of case")
    config = config or read_toml(CORPUS, CorpusConfig)
    writer = Writer(tuple(table().values()), config.english)
    seen = set(trained_texts(corpus_folder(config))) if held_out else set()
    rng = random.Random(f"cases/{seed}/{held_out}")
    cases: list[Case] = []
    for number in tqdm(range(count), desc="cases", unit="case", disable=not progress):
        kind = kinds[number % len(kinds)]
        language = "en" if rng.random() < english and kind != EMERGENCY else "zh"
        case = _draw(writer, kind, language, held_out, config.held_out, seen, rng)
        if case is None:
            raise NoData(
                f"only {number} different cases of {', '.join(kinds)} could be drawn; ask for fewer"
            )
        seen.add(case.question)
        cases.append(case)
    return cases


def _draw(
    writer: Writer,
    kind: str,
    language: str,
    held_out: bool,
    share: float,
    seen: set[str],
    rng: random.Random,
) -> Case | None:
    for _ in range(TRIES_PER_CASE):
        patient = writer.case(language, rng)
        if is_held_out(patient.id, share) != held_out:
            continue
        if kind == EMERGENCY:
            question, asks = writer.emergency("", "polished", patient, rng).turns[0], ()
        else:
            question, _, asks = writer.opening(OPENERS[kind], "polished", patient, rng)
        if question not in seen and _is_held_out_text(question) == held_out:
            return _case(writer, kind, patient, question, asks)
    return None


def _is_held_out_text(question: str) -> bool:
    """Half of all wordings: what two patients may both say (one vague symptom) stays on one side, too."""
    return hashlib.sha256(f"text:{question}".encode()).digest()[0] < 128


def _case(
    writer: Writer, kind: str, patient: Patient, question: str, asks: tuple[str, ...]
) -> Case:
    language, told = patient.language, patient.condition
    fits = (told,)
    if kind == "incomplete":
        fits = fitting(writer.complaints, patient, question, asks)
    first, department = fits[0], fits[0].department
    for complaint in writer.complaints if kind == "incomplete" else ():
        if speech.asks_of(complaint, told, language) == asks:
            department = complaint.department
            break
    english = next(
        (c.department_en for c in table().values() if c.department == department),
        first.department_en,
    )
    digest = hashlib.sha256(question.encode()).hexdigest()[:8]
    return Case(
        id=f"{patient.id}#{kind}-{digest}",
        question=question,
        kind=kind,
        language=language,
        condition=first.name,
        department=department,
        names=(first.name, first.name_en, department, english),
        asks=asks,
        possible=tuple(c.name for c in fits),
        intent=kind,
    )


def fitting(
    complaints: Sequence[speech.Complaint],
    patient: Patient,
    question: str,
    asks: tuple[str, ...],
) -> tuple[Condition, ...]:
    """The conditions that an incomplete opener may belong to, the likeliest first, each once.

    Those of the complaint that was drawn, or the patient's own; then all with a symptom of these words.
    """
    zh = patient.language == "zh"
    drawn = [c for c in complaints if asks == (c.ask if zh else c.ask_en)]
    first = [c for complaint in drawn for c in complaint.conditions] or [patient.condition]
    words = question if zh else question.lower()
    told = [
        c
        for c in table().values()
        if any(
            wording.lower() in words
            for wording in ([w for ways in c.symptoms for w in ways] if zh else c.symptoms_en)
        )
    ]
    return tuple(dict.fromkeys([*first, *told]))


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Writes JSONL, whole or not at all; returns the number of lines."""
    lines = [case.as_json() + "\n" for case in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)
    return len(lines)


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSONL file of write_cases, or of a JSON list of {id, query} such as KUAKE-QIC_100.json.

    Raises BadData naming file and line (or item), NoData for an empty file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadData(f"{path.name}:{line}: not UTF-8; save the file as UTF-8") from None
    rows = _list_rows(text, path) if text.lstrip().startswith("[") else _line_rows(text, path)
    cases, places = [], dict[str, str]()
    for place, row in rows:
        case = _read_row(row, place)
        if case.id in places:
            raise BadData(f"{place}: the id {case.id[:60]!r} stands already at {places[case.id]}")
        places[case.id] = place
        cases.append(case)
    if not cases:
        raise NoData(f"{path}: holds no case")
    return cases


def _line_rows(text: str, path: Path) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"{path.name}:{number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise BadData(f"{path.name}:{number}: not JSON: {error}") from None
    return rows


def _list_rows(text: str, path: Path) -> list[tuple[str, Any]]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path.name}: not JSON: {error}") from None
    return [(f"{path.name}: item {number}", item) for number, item in enumerate(items, 1)]


def _read_row(row: object, place: str) -> Case:
    if not isinstance(row, dict):
        raise BadData(f"{place}: a JSON object is expected, not {type(row).__name__}")
    values: dict[str, Any] = dict(row)
    if "query" in values:  # somebody else's question file
        values = {
            "id": values.get("id"),
            "question": values["query"],
            "intent": values.get("label", ""),
            **{key: values[key] for key in ("department", "language") if key in values},
        }
    if isinstance(values.get("id"), int) and not isinstance(values.get("id"), bool):
        values["id"] = str(values["id"])
    for field in fields(Case):
        value = values.get(field.name, () if "tuple" in str(field.type) else "")
        if "tuple" in str(field.type):
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                raise BadData(f"{place}: {field.name} is no list of texts")
            values[field.name] = tuple(value)
        elif not isinstance(value, str):
            raise BadData(f"{place}: {field.name} is no text")
    for key in values:
        if key not in {field.name for field in fields(Case)}:
            raise BadData(f"{place}: unknown key {key[:40]}")
    for key in ("id", "question"):
        if not values.get(key, "").strip():
            raise BadData(f"{place}: {key} is missing or empty")
    if values.get("language", "zh") not in ("zh", "en"):
        raise BadData(f"{place}: language is neither zh nor en")
    if values.get("kind", "") not in ("", *KINDS):
        raise BadData(f"{place}: kind is neither empty nor one of {', '.join(KINDS)}")
    try:
        values["question"] = clean(values["question"], limit=CONTENT_LIMIT)
    except InputError as error:
        raise BadData(f"{place}: {error}") from None
    return Case(**values)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cases", description="Draw cases from the knowledge table."
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--kinds", nargs="+", default=list(OPENERS), choices=KINDS)
    parser.add_argument("--held-out", action="store_true", help="cases no model was trained on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--english", type=float, default=0.1, help="share of English questions")
    given = parser.parse_args(arguments)
    try:
        if given.count < 1 or not 0 <= given.english <= 1:
            raise ConfigError("--count is at least 1, --english lies between 0 and 1")
        cases = draw_cases(
            given.count,
            kinds=given.kinds,
            held_out=given.held_out,
            seed=given.seed,
            english=given.english,
            progress=True,
        )
        print(f"{given.out}: {write_cases(given.out, cases)} cases")
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{given.out}: cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
