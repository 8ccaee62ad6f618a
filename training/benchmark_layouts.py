"""the layouts in which medical test sets are published: columns, keys and encodings, read into one kind of item.

Each reader takes its files in a fixed order and streams them; a damaged line raises BadData with file and line. The
table of sets that use them is training/benchmarks.py.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from huatuo.messages import Message
from training.data import BadData, read_line
from training.rows import Source, csv_rows, id_of, json_rows, lines, text_of, tsv_rows

INTENTS = (
    "疾病表述", "指标解读", "医疗费用", "治疗方案", "功效作用", "病情诊断", "其他", "注意事项", "病因分析", "就医建议",
    "后果表述",
)  # fmt: skip
"""KUAKE-QIC's labels."""
_SINGLE, _SEVERAL = "单项选择题", "多项选择题"


@dataclass(frozen=True)
class Item:
    """One thing to answer. id: unique in its set; place: file:line.

    references: texts to compare an answer with. label: department, intent or exam. options, answer: letter to text, and
    the right letters in order ("ACD"). several: whether more than one may be right, None where the set does not say.
    before: earlier turns of a consultation. note: what is odd about the row.
    """

    id: str
    question: str
    references: tuple[str, ...] = ()
    label: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    before: tuple[Message, ...] = ()
    note: str = ""
    place: str = ""
    several: bool | None = None

    def as_json(self) -> str:
        """The JSONL line that training.metrics reads references from; empty keys are left out."""
        row = asdict(self) | {"before": [asdict(message) for message in self.before]}
        kept = {key: value for key, value in row.items() if value or value is False}
        return json.dumps(kept, ensure_ascii=False)


def read_cmedqa2(sources: Sequence[Source]) -> Iterator[Item]:
    """Questions with all answers labelled 1. candidates: question_id,ans_id,cnt,label."""
    questions, answers, candidates = sources
    right: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for place, row in csv_rows(candidates, ("question_id", "ans_id", "label")):
        if row["label"] not in ("0", "1"):
            raise BadData(f"{place}: label {row['label'][:20]!r} is not 0 or 1")
        if row["label"] == "1":
            right.setdefault(row["question_id"], []).append(row["ans_id"])
            places.setdefault(row["question_id"], place)
    texts = _contents(answers, "ans_id", {id for ids in right.values() for id in ids})
    asked = _contents(questions, "question_id", set(right))
    for id, ids in right.items():
        for name, found, wanted in (("question", asked, [id]), ("answer", texts, ids)):
            missing = [each for each in wanted if each not in found]
            if missing:
                raise BadData(f"{places[id]}: {name} {missing[0]} is not in the file of {name}s")
        yield Item(id, asked[id], tuple(texts[each] for each in ids), place=places[id])


def _contents(source: Source, key: str, wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, row in csv_rows(source, (key, "content")):
        if not row[key].isdecimal():
            raise BadData(f"{place}: {key} {row[key][:20]!r} is no number")
        if row[key] in wanted:
            if row[key] in found:
                raise BadData(f"{place}: {key} {row[key]} again")
            found[row[key]] = text_of(row, "content", place)
    return found


def read_webmedqa(sources: Sequence[Source]) -> Iterator[Item]:
    """Questions with their answers of label 1; TSV without header: department, label, question id, question, answer."""
    found: dict[str, Item] = {}
    for place, row in tsv_rows(sources[0], ("department", "label", "id", "question", "answer")):
        if row["label"] not in ("0", "1"):
            raise BadData(f"{place}: label {row['label'][:20]!r} is not 0 or 1")
        id, question = id_of(row, "id", place), text_of(row, "question", place)
        before = found.get(id)
        if before and before.question != question:
            raise BadData(f"{place}: question {id} reads otherwise at {before.place}")
        known = before.references if before else ()
        if row["label"] == "1":
            known += (text_of(row, "answer", place),)
        found[id] = Item(
            id, question, known, row["department"], place=before.place if before else place
        )
    for item in found.values():
        if not item.references:
            raise BadData(f"{item.place}: question {item.id} has no answer of label 1")
        yield item


def read_huatuo26m(sources: Sequence[Source]) -> Iterator[Item]:
    """JSONL of questions (nested lists: phrasings of one question) and answers; the first phrasing is asked."""
    for place, row in json_rows(sources[0]):
        phrasings, answers = _flat(row, "questions", place), _flat(row, "answers", place)
        note = f"{len(phrasings)} phrasings" if len(phrasings) > 1 else ""
        number = place.rpartition(":")[2]
        yield Item(number, phrasings[0], tuple(answers), note=note, place=place)


def _flat(row: dict[str, Any], key: str, place: str) -> list[str]:
    def texts(value: object) -> Iterator[str]:
        if isinstance(value, str) and value.strip():
            yield value.strip()
        elif isinstance(value, list):
            for each in value:
                yield from texts(each)
        else:
            told = (
                "an empty text" if isinstance(value, str) else f"{type(value).__name__}, not text"
            )
            raise BadData(f"{place}: {key} holds {told}")

    found = list(texts(row.get(key)))
    if not found:
        raise BadData(f"{place}: {key} is empty")
    return found


def read_qic(sources: Sequence[Source]) -> Iterator[Item]:
    """A JSON array of {id, query, label}; the published test file has no labels."""
    for place, row in json_rows(sources[0]):
        label = text_of(row, "label", place, blank=True) if "label" in row else ""
        if label and label not in INTENTS:
            raise BadData(f"{place}: label {label[:20]!r} is none of KUAKE-QIC's {len(INTENTS)}")
        note = "" if label else "no published label"
        yield Item(
            id_of(row, "id", place),
            text_of(row, "query", place),
            label=label,
            note=note,
            place=place,
        )


def read_sft(sources: Sequence[Source]) -> Iterator[Item]:
    """Conversations split into exchanges: what was said before, the question, the doctor's answer as the reference."""
    for number, line in lines(sources[0]):
        if not line.strip():
            continue
        place = f"{sources[0].name}:{number}"
        turns = read_line(line, place).conversation
        for at in range(0, len(turns), 2):
            yield Item(
                f"{number}-{at // 2 + 1}", turns[at].text, (turns[at + 1].text,),
                before=tuple(turns[:at]), place=place,
            )  # fmt: skip


def read_cmb(sources: Sequence[Source]) -> Iterator[Item]:
    """CMB-Exam: questions by id, the test split's answers in a second file."""
    answers: dict[str, str] = {}
    for source in sources[1:]:
        for place, row in json_rows(source):
            answers[id_of(row, "id", place)] = text_of(row, "answer", place)
    for number, (place, row) in enumerate(json_rows(sources[0]), 1):
        id = id_of(row, "id", place) if "id" in row else str(number)
        option = row.get("option")
        if not isinstance(option, dict):
            raise BadData(f"{place}: option is {type(option).__name__}, not an object")
        options = {key: text_of(option, key, place, blank=True) for key in option}
        answer = answers.get(id, "") if sources[1:] else text_of(row, "answer", place)
        several = _one_or_several(row, place)
        if not several and len(answer) > 1:
            raise BadData(f"{place}: answer {answer[:20]} to a question with one right option")
        yield _choice(
            id, text_of(row, "question", place), {k: v for k, v in options.items() if v}, answer,
            f"{row.get('exam_type', '')}/{row.get('exam_class', '')}", place, several=several,
        )  # fmt: skip


def _one_or_several(row: dict[str, Any], place: str) -> bool:
    kind = text_of(row, "question_type", place)
    if kind not in (_SINGLE, _SEVERAL):
        raise BadData(f"{place}: question_type {kind[:20]!r} is not {_SINGLE} or {_SEVERAL}")
    return kind == _SEVERAL


def read_cmb_clin(sources: Sequence[Source]) -> Iterator[Item]:
    """CMB-Clin: a case and questions on it; earlier questions and solutions are the turns before."""
    for place, row in json_rows(sources[0]):
        id, pairs = id_of(row, "id", place), row.get("QA_pairs")
        if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
            raise BadData(f"{place}: QA_pairs is no list of objects")
        case, before = text_of(row, "description", place), []
        for at, pair in enumerate(pairs, 1):
            question, solution = (text_of(pair, key, place) for key in ("question", "solution"))
            question = question if before else f"{case}\n{question}"
            yield Item(
                f"{id}-{at}", question, (solution,), str(row.get("title", "")),
                before=tuple(before), place=place,
            )  # fmt: skip
            before += [Message("user", question), Message("assistant", solution)]


def read_cmexam(sources: Sequence[Source]) -> Iterator[Item]:
    """CSV with Question, Options ("A text" on a line each), Answer ("AB"), Explanation, and annotations."""
    for place, row in csv_rows(sources[0], ("Question", "Options", "Answer")):
        options: dict[str, str] = {}
        for line in filter(str.strip, row["Options"].splitlines()):
            letter, _, text = line.strip().partition(" ")
            if letter in options or len(letter) != 1 or not "A" <= letter <= "Z":
                raise BadData(f"{place}: option {line[:20]!r} does not begin with a new letter")
            options[letter] = text.strip()
        answer = "" if row["Answer"] in ("", "nan") else row["Answer"]
        label = row.get("Clinical Department", "")
        number = place.rpartition(":")[2]
        yield _choice(number, text_of(row, "Question", place), options, answer, label, place)


def read_medqa(sources: Sequence[Source]) -> Iterator[Item]:
    """JSONL of question, options {letter: text}, answer (text), answer_idx (letter), meta_info."""
    for place, row in json_rows(sources[0]):
        option = row.get("options")
        if not isinstance(option, dict):
            raise BadData(f"{place}: options is {type(option).__name__}, not an object")
        options = {key: text_of(option, key, place) for key in option}
        answer, text = text_of(row, "answer_idx", place), text_of(row, "answer", place)
        note = "" if options.get(answer) == text else "answer's text is not its option's"
        label = str(row.get("meta_info", ""))
        number = place.rpartition(":")[2]
        yield _choice(number, text_of(row, "question", place), options, answer, label, place, note)


def _choice(
    id: str,
    question: str,
    options: dict[str, str],
    answer: str,
    label: str,
    place: str,
    note: str = "",
    several: bool | None = None,
) -> Item:
    letters = "".join(sorted(answer.strip().replace(",", "").replace("，", "").replace(" ", "")))
    if len(options) < 2:
        raise BadData(f"{place}: {len(options)} options; two or more are expected")
    wrong = [letter for letter in letters if letter not in options]
    if wrong or len(set(letters)) != len(letters):
        raise BadData(
            f"{place}: answer {answer[:20]} names no option of {''.join(options)}, or one twice"
        )
    note = note or ("" if letters else "no published answer")
    return Item(id, question, (), label, options, letters, (), note, place, several)
