"""Argilla's records: two answers in fields, and users' answers to a rating, label or ranking question.

Read is a JSON list of records, or an object {questions?, users?, records}; a record has fields, responses
and perhaps metadata. Responses stand as in Argilla 2 ({question: [{value, user_id, status?}]}) or as in
Argilla 1 ([{user_id, status, values: {question: {value}}}]); only submitted ones count. The fields are,
by default, a question (instruction, prompt, question) and the two others. What decides:

label    the chosen field's or model's name, or a/b, 1/2, left/right, tie, both_bad
ranking  [{value: field, rank}]: the lower rank is better, equal ranks are a tie
rating   one question on a scale: below its middle is the first answer, above it the second; or two
         questions that name the fields: the higher is better. The scale is 1 to 5 unless `questions` says.

Source: the documentation of Argilla 1.29 and 2.x, records and questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviews.errors import BadFile
from reviews.foreign import ForeignVote, question_id
from reviews.items import NAME_LIMIT, id_of, parse_json, read_text, text_of
from reviews.records import Choice, PreparedPair, PreparedTurn, clean_text

_ASKED = ("instruction", "prompt", "question", "input", "query")
_SAID: dict[str, Choice] = {
    "a": "left", "1": "left", "left": "left", "response_a": "left", "model_a": "left",
    "b": "right", "2": "right", "right": "right", "response_b": "right", "model_b": "right",
    "tie": "tie", "equal": "tie", "both_good": "tie", "both": "tie",
    "both_bad": "both_bad", "bothbad": "both_bad", "neither": "both_bad", "none": "both_bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Which fields and which question of a data set count; empty: found by their names and kinds."""

    fields: tuple[str, ...] = ()
    question: str = ""


def read_argilla(file: Path, language: str, layout: Layout) -> list[ForeignVote]:
    """Every submitted response that compares the two answers. Raises BadFile naming file and record."""
    content = parse_json(file, "", read_text(file))
    scales: dict[str, tuple[float, float]] = {}
    if isinstance(content, dict):
        scales = _scales(file, content.get("questions", []))
        content = content.get("records")
    if not isinstance(content, list) or not content:
        raise BadFile(str(file), "", "a JSON list of records is expected")
    found: list[ForeignVote] = []
    for number, record in enumerate(content, 1):
        place = f"record {number}"
        if not isinstance(record, dict) or not isinstance(record.get("fields"), dict):
            raise BadFile(str(file), place, "an object with fields is expected")
        found += _votes(file, place, record, language, layout, scales)
    if not found:
        raise BadFile(str(file), "", "no record has a submitted response that compares two answers")
    return found


def _scales(file: Path, questions: Any) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each rating question that lists its options."""
    if not isinstance(questions, list) or any(not isinstance(q, dict) for q in questions):
        raise BadFile(str(file), "questions", "a list of objects is expected")
    scales = {}
    for question in questions:
        settings = question.get("settings") or question
        options = settings.get("options") or settings.get("values") or []
        values = [o.get("value") if isinstance(o, dict) else o for o in options]
        numbers = [float(v) for v in values if isinstance(v, int | float)]
        if numbers and len(numbers) == len(values):
            scales[str(question.get("name"))] = (min(numbers), max(numbers))
    return scales


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _votes(
    file: Path,
    place: str,
    record: dict[str, Any],
    language: str,
    layout: Layout,
    scales: Mapping[str, tuple[float, float]],
) -> list[ForeignVote]:
    asked, first, second = _fields(file, place, record["fields"], layout)
    texts = [text_of(file, place, record["fields"], key) for key in (asked, first, second)]
    names = [_model(file, place, record, key, n) for n, key in enumerate((first, second))]
    if names[0] == names[1]:
        raise BadFile(str(file), place, f"both answers are by {names[0]}")
    turns = (PreparedTurn(*texts),)
    given = "" if record.get("id") in (None, "") else id_of(file, place, record)
    pair = PreparedPair(
        question_id(given, turns),
        names[0],
        names[1],
        turns,
        language=language,
        source=f"argilla: {file.name}",
    )
    votes = []
    for rater, values in _responses(file, place, record).items():
        where = f"{place}, user {rater}"
        choice = _choice(file, where, values, (first, second), names, layout, scales)
        if choice is not None:
            reason = "\n".join(v for k, v in values.items() if _is_comment(k, v))
            votes.append(
                ForeignVote(f"{file.name}: {where}", rater, pair, choice, clean_text(reason)[:2000])
            )
    return votes


def _is_comment(key: str, value: object) -> bool:
    return isinstance(value, str) and key.casefold() in (
        "comment",
        "reason",
        "feedback",
        "rationale",
    )


def _fields(
    file: Path, place: str, fields: Mapping[str, Any], layout: Layout
) -> tuple[str, str, str]:
    if layout.fields:
        missing = [key for key in layout.fields if key not in fields]
        if missing or len(layout.fields) != 3:
            raise BadFile(
                str(file),
                place,
                f"fields {', '.join(missing or layout.fields)}: name three that are there",
            )
        return layout.fields[0], layout.fields[1], layout.fields[2]
    asked = next((key for key in fields if key.casefold() in _ASKED), None)
    rest = [key for key in fields if key != asked]
    if asked is None or len(rest) != 2:
        raise BadFile(
            str(file), place,
            f"fields {', '.join(fields)}: name the question and the two answers with --fields",
        )  # fmt: skip
    return asked, rest[0], rest[1]


def _model(file: Path, place: str, record: dict[str, Any], key: str, number: int) -> str:
    """The model that wrote a field: from the metadata, else the field's own name."""
    told = record.get("metadata") or {}
    if not isinstance(told, dict):
        raise BadFile(str(file), place, "metadata must be an object")
    for name in (f"{key}-model", f"{key}_model", ("model_a", "model_b")[number]):
        if name in told:
            return text_of(file, place, told, name, limit=NAME_LIMIT)
    return key[:NAME_LIMIT]


def _responses(file: Path, place: str, record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """User -> question -> value of the submitted responses, in Argilla 1's or 2's layout."""
    told = record.get("responses") or {}
    by_user: dict[str, dict[str, Any]] = {}
    try:
        if isinstance(told, list):
            for response in told:
                if response.get("status", "submitted") == "submitted":
                    values = {k: v["value"] for k, v in (response.get("values") or {}).items()}
                    by_user.setdefault(_user(response), {}).update(values)
        else:
            for question, answers in told.items():
                for answer in answers or []:
                    if (answer.get("status") or "submitted") == "submitted":
                        by_user.setdefault(_user(answer), {})[question] = answer["value"]
    except (AttributeError, TypeError, KeyError) as error:
        raise BadFile(
            str(file), place, f"responses are not as Argilla writes them: {error!r}"
        ) from error
    return by_user


def _user(response: Mapping[str, Any]) -> str:
    return str(response.get("user_id") or response.get("username") or "unknown")[:200]


def _choice(
    file: Path,
    where: str,
    values: Mapping[str, Any],
    fields: tuple[str, str],
    names: Sequence[str],
    layout: Layout,
    scales: Mapping[str, tuple[float, float]],
) -> Choice | None:
    """What the response says; None when it does not compare. Raises BadFile for a value that says nothing."""
    each = [_named(values, field) for field in fields]
    if not layout.question and _is_number(each[0]) and _is_number(each[1]):
        return "left" if each[0] > each[1] else "right" if each[1] > each[0] else "tie"
    questions = [layout.question] if layout.question else list(values)
    for question in questions:
        value = values.get(question)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return _ranked(file, where, question, value, fields)
        if _is_number(value):
            low, high = scales.get(question, (1, 5))
            if not low <= value <= high:  # type: ignore[operator]
                raise BadFile(
                    str(file), where, f"{question}: {value} is not on the scale {low} to {high}"
                )
            middle = (low + high) / 2
            return "tie" if value == middle else "left" if value < middle else "right"  # type: ignore[operator]
        if isinstance(value, str) and not _is_comment(question, value):
            own: dict[str, Choice] = {
                fields[0].casefold(): "left", names[0].casefold(): "left",
                fields[1].casefold(): "right", names[1].casefold(): "right",
            }  # fmt: skip
            key = value.strip().casefold().replace(" ", "_")
            if (choice := own.get(value.strip().casefold()) or _SAID.get(key)) is None:
                raise BadFile(str(file), where, f"{question}: {value[:60]!r} names no answer")
            return choice
    return None


def _named(values: Mapping[str, Any], field: str) -> Any:
    """The rating of one field: under its own name, or under one such as rating_<field>."""
    return next(
        (v for k, v in values.items() if k == field or k.endswith((f"_{field}", f"-{field}"))), None
    )


def _ranked(
    file: Path, where: str, question: str, value: list[Any], fields: tuple[str, str]
) -> Choice:
    ranks = {item.get("value"): item.get("rank") for item in value if isinstance(item, dict)}
    first, second = ranks.get(fields[0]), ranks.get(fields[1])
    if not _is_number(first) or not _is_number(second):
        raise BadFile(str(file), where, f"{question}: both answers must have a rank")
    return "left" if first < second else "right" if second < first else "tie"  # type: ignore[operator]
