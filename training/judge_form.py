"""the form that the stronger judge fills in: its prompt in Chinese or English, its JSON schema, and its strict reading.

A reply is one JSON object with exactly the form's keys and values, alone or in one code fence; anything else, prose
around it, a key twice or a value of another kind, is unreadable (ValueError) and never guessed at. Texts to be judged
stand between marks, and marks inside them are taken out. Wordings: training/judge_form.toml.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from reviews.protocol import CRITERIA, SAFETY_KINDS

Place = Literal["1", "2", "tie"]
SCORES = range(1, 11)
_MARK = re.compile(r"<<<|>>>")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Flag:
    """A serious fault that the judge sees. place: "1" or "2", as shown; quote: from the text, empty for an omission."""

    place: Literal["1", "2"]
    kind: str
    quote: str


@dataclass(frozen=True)
class Reading:
    """One reply. criteria: key to place, None where it does not matter; scores: of both, 1 to 10, as shown."""

    winner: Place
    criteria: Mapping[str, Place | None]
    scores: tuple[int, int]
    flags: tuple[Flag, ...]
    reason: str


@cache
def wordings(language: str) -> dict[str, Any]:
    """The form's texts in "zh" or "en"."""
    text = (Path(__file__).parent / "judge_form.toml").read_text(encoding="utf-8")
    words: dict[str, Any] = tomllib.loads(text)[language]
    return words


def all_criteria() -> tuple[str, ...]:
    """Keys of every criterion that can be asked for."""
    return tuple(CRITERIA)


def prompt(
    language: str, criteria: Sequence[str], texts: tuple[str, str], question: str | None
) -> str:
    """What the judge is told. question: None for two whole consultations."""
    words = wordings(language)
    dialogue = question is None
    names = words["dialogues" if dialogue else "names"]
    shown = "" if question is None else words["question"].format(question=bare(question))
    for name, text in zip(names, texts, strict=True):
        shown += words["answer"].format(name=name, text=bare(text))
    return str(
        words["prompt"].format(
            what=words["what_dialogue" if dialogue else "what"],
            kind=words["kind_dialogue" if dialogue else "kind"],
            texts=shown,
            safety="\n".join(f"   - {kind}: {words['safety'][kind]}" for kind in SAFETY_KINDS),
            criteria="\n".join(f"   - {key}: {words['criteria'][key]}" for key in criteria),
            form=_example(criteria),
        )
    )


def dialogue(language: str, turns: Sequence[tuple[str, str]]) -> str:
    """A consultation of (patient, doctor) turns as the prompt shows it."""
    patient, doctor = wordings(language)["roles"]
    return "\n".join(f"{patient}{said}\n{doctor}{answer}" for said, answer in turns)


def schema(criteria: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of a reply, in the subset that OpenAI's strict mode takes."""
    flag = {
        "answer": {"type": "string", "enum": ["1", "2"]},
        "kind": {"type": "string", "enum": list(SAFETY_KINDS)},
        "quote": {"type": "string"},
    }
    place = {"type": "string", "enum": ["1", "2", "tie", "n/a"]}
    score = {"type": "integer", "enum": list(SCORES)}
    return _object(
        {
            "safety": {"type": "array", "items": _object(flag)},
            "criteria": _object(dict.fromkeys(criteria, place)),
            "score_1": score,
            "score_2": score,
            "reason": {"type": "string"},
            "winner": {"type": "string", "enum": ["1", "2", "tie"]},
        }
    )


def read(reply: str, criteria: Sequence[str]) -> Reading:
    """A reply, strictly. Raises ValueError saying what is wrong with it."""
    row = json_of(reply)
    _keys(row, ("safety", "criteria", "score_1", "score_2", "reason", "winner"), "the reply")
    _keys(row["criteria"], criteria, "criteria")
    scores = row["score_1"], row["score_2"]
    if any(type(score) is not int or score not in SCORES for score in scores):
        raise ValueError("a score is no whole number from 1 to 10")
    if row["winner"] not in ("1", "2", "tie") or not isinstance(row["reason"], str):
        raise ValueError("winner or reason is not what was asked for")
    if any(value not in ("1", "2", "tie", "n/a") for value in row["criteria"].values()):
        raise ValueError("a criterion is neither 1, 2, tie nor n/a")
    if not isinstance(row["safety"], list):
        raise ValueError("safety is no list")
    return Reading(
        row["winner"],
        {key: None if (said := row["criteria"][key]) == "n/a" else said for key in criteria},
        scores,
        tuple(_flag(item) for item in row["safety"]),
        row["reason"],
    )


def json_of(reply: str) -> Any:
    """What a reply of JSON alone, or in one code fence, holds. Raises ValueError, also for a key that stands twice."""
    fenced = _FENCE.match(reply)
    try:
        return json.loads(fenced[1] if fenced else reply, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _flag(item: object) -> Flag:
    _keys(item, ("answer", "kind", "quote"), "safety")
    place, kind, quote = item["answer"], item["kind"], item["quote"]  # type: ignore[index]
    if place not in ("1", "2") or kind not in SAFETY_KINDS or not isinstance(quote, str):
        raise ValueError("a safety flag names no answer, or no known kind of fault")
    return Flag(place, kind, quote)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _example(criteria: Sequence[str]) -> str:
    places = ", ".join(f'"{key}": "1|2|tie|n/a"' for key in criteria)
    kinds = "|".join(SAFETY_KINDS)
    return (
        '{"safety": [{"answer": "1|2", "kind": "' + kinds + '", "quote": "..."}], '
        '"criteria": {' + places + '}, "score_1": 1-10, "score_2": 1-10, "reason": "...", '
        '"winner": "1|2|tie"}'
    )


def _keys(row: object, wanted: Sequence[str], what: str) -> None:
    if not isinstance(row, dict) or set(row) != set(wanted):
        raise ValueError(f"{what} does not hold exactly {', '.join(wanted)}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def bare(text: str) -> str:
    """The text without the marks that texts to be judged stand between."""
    return _MARK.sub("", text)
