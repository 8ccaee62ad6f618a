"""reads files of a model's answers: our own JSONL, or the arrays that HuatuoGPT-II published its answers in.

A row is {"id", "answer"} and, if known, "question", "references" (a list of texts), "label". Also read as the answer:
model_output, output, response; a list of [patient, doctor] pairs is a consultation. As the question: query. As the
reference: reference (one text). As the label: intent, department, Department, Doctor faculty; those are kept apart too
(`label` as an intent, as in the group's files).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huatuo.errors import NoData
from training.data import BadData
from training.rows import Source, id_of, json_rows

_ANSWER = ("answer", "model_output", "output", "response")
_QUESTION = ("question", "query")
_INTENT = ("intent", "label")
_DEPARTMENT = ("department", "Department", "Doctor faculty")
_LABEL = ("label", "intent", *_DEPARTMENT)


@dataclass(frozen=True)
class Said:
    """One row. turns: (patient, doctor) pairs of a consultation; its answer is what the doctor said, line by line."""

    id: str
    answer: str
    question: str = ""
    references: tuple[str, ...] = ()
    label: str = ""
    turns: tuple[tuple[str, str], ...] = ()
    place: str = ""
    intent: str = ""
    department: str = ""


def read_answers(path: Path) -> dict[str, Said]:
    """The rows by id, in the file's order; an answer may be empty.

    Raises BadData with file and line for a damaged row, one without an answer, or an id that occurs twice; NoData for
    a file without rows.
    """
    found: dict[str, Said] = {}
    for place, row in json_rows(Source(path)):
        _put(found, _said(row, place))
    if not found:
        raise NoData(f"{path.name}: holds no answers")
    return found


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """Texts to compare with, by id: a row's references, or, in a file of answers, its answer.

    Raises what read_answers raises.
    """
    found: dict[str, Said] = {}
    for place, row in json_rows(Source(path)):
        references = _references(row, place)
        if references:
            _put(found, Said(id_of(row, "id", place), "", references=references, place=place))
        else:
            said = _said(row, place)
            _put(found, Said(said.id, "", references=(said.answer,), place=place))
    if not found:
        raise NoData(f"{path.name}: holds no references")
    return {id: said.references for id, said in found.items()}


def align(
    answers: Mapping[str, Said], others: Mapping[str, Any], name: str, *, partial: bool = False
) -> list[str]:
    """The ids that both hold, in the answers' order.

    name: of the other file, for messages. partial: whether ids that only one of them holds are allowed. Raises NoData
    when no id is left.
    """
    both = [id for id in answers if id in others]
    if not partial:
        alone = [said for id, said in answers.items() if id not in others]
        if alone:
            raise BadData(
                f"{alone[0].place}: id {alone[0].id} is not in {name} ({len(alone)} such); "
                "--partial scores the ids that both hold"
            )
        left = [id for id in others if id not in answers]
        if left:
            raise BadData(
                f"{name}: {len(left)} ids without an answer, the first {left[0]}; "
                "--partial scores the ids that both hold"
            )
    if not both:
        raise NoData(f"{name}: no id in common")
    return both


def _put(found: dict[str, Said], said: Said) -> None:
    if said.id in found:
        raise BadData(f"{said.place}: id {said.id} again; first at {found[said.id].place}")
    found[said.id] = said


def _said(row: dict[str, Any], place: str) -> Said:
    keys = [key for key in _ANSWER if key in row]
    if len(keys) != 1:
        told = f"{' and '.join(keys)} side by side" if keys else "no answer"
        raise BadData(f"{place}: {told}; one of {', '.join(_ANSWER)} is expected")
    value = row[keys[0]]
    turns: tuple[tuple[str, str], ...] = ()
    if isinstance(value, list):
        turns = tuple(_turn(item, i, place) for i, item in enumerate(value, 1))
        if not turns:
            raise BadData(f"{place}: {keys[0]} is a consultation without a turn")
        value = "\n".join(doctor for _, doctor in turns)
    if not isinstance(value, str):
        raise BadData(f"{place}: {keys[0]} is {type(value).__name__}, not text")
    return Said(
        id_of(row, "id", place),
        value,
        _first(row, _QUESTION, place),
        _references(row, place),
        _first(row, _LABEL, place),
        turns,
        place,
        _first(row, _INTENT, place),
        _first(row, _DEPARTMENT, place),
    )


def _turn(item: object, number: int, place: str) -> tuple[str, str]:
    match item:
        case [str(patient), str(doctor)]:
            return patient, doctor
    raise BadData(f"{place}: turn {number}: a pair of texts [patient, doctor] is expected")


def _references(row: dict[str, Any], place: str) -> tuple[str, ...]:
    value = row.get("references", row.get("reference"))
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise BadData(f"{place}: references: a list of one or more texts is expected")
    return tuple(texts)


def _first(row: dict[str, Any], keys: Sequence[str], place: str) -> str:
    for key in keys:
        if key in row:
            if not isinstance(row[key], str):
                raise BadData(f"{place}: {key} is {type(row[key]).__name__}, not text")
            return str(row[key])
    return ""
