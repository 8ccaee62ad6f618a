"""cases with physician-written criteria, and physicians' own yes and no: JSONL, every error with file and line.

A case: {"id", "prompt": text or [{"role", "content"}], "criteria": [{"text", "points", "tags"}], "tags"}; HealthBench's
own rows (prompt_id, rubrics with criterion, example_tags) are read as they are. Points may be below 0, for faults. A
label: {"id", "criterion": its number from 1, "rater", "met": true or false, "sample": the answer file's number from 1}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huatuo.errors import NoData
from training.data import BadData
from training.rows import Source, id_of, json_rows, text_of

ROLES = ("user", "assistant", "system")


@dataclass(frozen=True)
class Criterion:
    """One yes-or-no question about an answer. points: below 0 for a fault."""

    text: str
    points: float
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class RubricCase:
    """turns: (role, text) of the conversation before the answer that is graded."""

    id: str
    turns: tuple[tuple[str, str], ...]
    criteria: tuple[Criterion, ...]
    tags: tuple[str, ...] = ()

    @property
    def possible(self) -> float:
        """The points of a flawless answer: those above 0 together."""
        return sum(c.points for c in self.criteria if c.points > 0)


@dataclass(frozen=True)
class Label:
    """One physician's word: whether an answer meets a criterion (place: from 0)."""

    case: str
    place: int
    rater: str
    met: bool
    sample: int = 1


def read_cases(path: Path) -> dict[str, RubricCase]:
    """The cases by id, in the file's order. Raises BadData naming file and line, NoData for an empty file."""
    found: dict[str, RubricCase] = {}
    places: dict[str, str] = {}
    for place, row in json_rows(Source(path)):
        case = _case(row, place)
        if case.id in found:
            raise BadData(f"{place}: id {case.id} again; first at {places[case.id]}")
        found[case.id], places[case.id] = case, place
    if not found:
        raise NoData(f"{path.name}: holds no cases")
    return found


def read_labels(path: Path, cases: Mapping[str, RubricCase], samples: int) -> list[Label]:
    """Physicians' labels. Raises BadData for an unknown case, criterion or sample, or a rater who says it twice."""
    found: dict[tuple[str, int, int, str], Label] = {}
    for place, row in json_rows(Source(path)):
        case, number, sample = id_of(row, "id", place), row.get("criterion"), row.get("sample", 1)
        if case not in cases:
            raise BadData(f"{place}: no case {case}")
        count = len(cases[case].criteria)
        if type(number) is not int or not 1 <= number <= count:
            raise BadData(f"{place}: criterion is a number from 1 to {count}")
        if type(sample) is not int or not 1 <= sample <= samples:
            raise BadData(
                f"{place}: sample is a number from 1 to {samples}, that of an answer file"
            )
        if not isinstance(row.get("met"), bool):
            raise BadData(f"{place}: met is neither true nor false")
        label = Label(case, number - 1, id_of(row, "rater", place), row["met"], sample)
        key = (case, number, sample, label.rater)
        if key in found:
            raise BadData(f"{place}: {label.rater} labels the same criterion again")
        found[key] = label
    return list(found.values())


def _case(row: dict[str, Any], place: str) -> RubricCase:
    id = id_of(row, "id" if "id" in row else "prompt_id", place)
    items = row.get("criteria", row.get("rubrics"))
    if not isinstance(items, list) or not items:
        raise BadData(f"{place}: criteria is no list of {{text, points, tags}}")
    criteria = tuple(_criterion(item, f"{place}: criterion {n}") for n, item in enumerate(items, 1))
    if not any(criterion.points > 0 for criterion in criteria):
        raise BadData(f"{place}: no criterion gives points, so no score can be reached")
    tags = _tags(row.get("tags", row.get("example_tags", [])), place)
    return RubricCase(id, _turns(row.get("prompt"), place), criteria, tags)


def _criterion(item: object, place: str) -> Criterion:
    if not isinstance(item, dict):
        raise BadData(f"{place}: an object is expected")
    text = text_of(item, "text" if "text" in item else "criterion", place)
    points = item.get("points")
    if (
        isinstance(points, bool)
        or not isinstance(points, int | float)
        or not 0 < abs(points) <= 1000
    ):
        raise BadData(f"{place}: points is a number other than 0, from -1000 to 1000")
    return Criterion(text, float(points), _tags(item.get("tags", []), place))


def _tags(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise BadData(f"{place}: tags is no list of texts")
    return tuple(dict.fromkeys(value))


def _turns(prompt: object, place: str) -> tuple[tuple[str, str], ...]:
    if isinstance(prompt, str) and prompt.strip():
        return (("user", prompt.strip()),)
    if not isinstance(prompt, list) or not prompt:
        raise BadData(f"{place}: prompt is neither text nor a list of messages")
    turns = []
    for n, message in enumerate(prompt, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadData(f"{place}: message {n}: role is not one of {', '.join(ROLES)}")
        turns.append((message["role"], text_of(message, "content", f"{place}: message {n}")))
    if turns[-1][0] != "user":
        raise BadData(f"{place}: the prompt does not end with the patient's turn")
    return tuple(turns)
