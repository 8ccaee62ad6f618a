"""arena-style battle logs: two models' conversations and who won, one battle a line.

Read are FastChat's and LMArena's logs (question_id, model_a, model_b, winner, judge, conversation_a,
conversation_b, turn, language) and the newer arena-human-preference rows (id, evaluation_session_id,
content as a list of parts). winner: model_a, model_b, tie, "tie (bothbad)", tie (bothbad) or both_bad;
model_a stood on the left. Of a conversation the first `turn` turns are taken where it says so, as in
MT-bench's human judgements. Source: the data cards of lmsys/chatbot_arena_conversations,
lmsys/mt_bench_human_judgments and lmarena-ai/arena-human-preference-140k.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviews.errors import BadFile
from reviews.foreign import ForeignVote, question_id
from reviews.items import (
    ID_LIMIT,
    NAME_LIMIT,
    TEXT_LIMIT,
    json_lines,
    parse_json,
    read_text,
    text_of,
)
from reviews.records import Choice, PreparedPair, PreparedTurn, clean_text

_WINNERS: dict[str, Choice] = {
    "model_a": "left",
    "model_b": "right",
    "tie": "tie",
    "tie (bothbad)": "both_bad",
    "both_bad": "both_bad",
    "bothbad": "both_bad",
}
_LANGUAGES = {"chinese": "zh", "english": "en", "zh-cn": "zh", "en-us": "en"}
_RATERS = ("judge", "judge_hash", "user_id", "evaluation_session_id")
_IDS = ("question_id", "id", "conversation_id")
UNKNOWN = "unknown"
"""The rater of battles that name none."""


def read_battles(file: Path, language: str) -> list[ForeignVote]:
    """Every battle of a JSON Lines file, or of a JSON list. Raises BadFile naming file and line."""
    found = [_battle(file, place, item, language) for place, item in _items(file)]
    if not found:
        raise BadFile(str(file), "", "there is no battle in it")
    return found


def _items(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if file.suffix != ".json":
        yield from json_lines(file)
        return
    content = parse_json(file, "", read_text(file))
    if not isinstance(content, list):
        raise BadFile(str(file), "", "a JSON list of battles is expected")
    for number, item in enumerate(content, 1):
        if not isinstance(item, dict):
            raise BadFile(str(file), f"item {number}", "an object is expected")
        yield f"item {number}", item


def _battle(file: Path, place: str, item: dict[str, Any], language: str) -> ForeignVote:
    names = [text_of(file, place, item, key, limit=NAME_LIMIT) for key in ("model_a", "model_b")]
    if names[0] == names[1]:
        raise BadFile(str(file), place, "model_a and model_b are the same")
    winner = text_of(file, place, item, "winner", limit=NAME_LIMIT)
    if winner not in _WINNERS:
        raise BadFile(str(file), place, f"winner is {winner!r}, not one of {', '.join(_WINNERS)}")
    said = [_turns(file, place, item, key) for key in ("conversation_a", "conversation_b")]
    if len(said[0]) != len(said[1]):
        raise BadFile(str(file), place, "the two conversations have different numbers of turns")
    turns = tuple(
        PreparedTurn(asked, answer_a, answer_b, "" if other == asked else other)
        for (asked, answer_a), (other, answer_b) in zip(*said, strict=True)
    )
    spoken = _first(file, place, item, ("language",)) or language
    pair = PreparedPair(
        question_id(_first(file, place, item, _IDS), turns),
        names[0],
        names[1],
        turns,
        language=_LANGUAGES.get(spoken.casefold(), spoken.casefold())[:16],
        source=f"arena: {file.name}",
    )
    rater = _first(file, place, item, _RATERS) or UNKNOWN
    return ForeignVote(f"{file.name}: {place}", rater, pair, _WINNERS[winner])


def _first(file: Path, place: str, item: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The first of these keys that holds a text or a number; empty when none does."""
    for key in keys:
        value = item.get(key)
        if isinstance(value, bool) or value in (None, ""):
            continue
        if isinstance(value, list) and key == "judge":  # ["gpt-4", "single-v1"]
            value = json.dumps(value)
        if not isinstance(value, str | int) or len(str(value)) > ID_LIMIT:
            raise BadFile(
                str(file), place, f"{key} must be a text of at most {ID_LIMIT} characters"
            )
        return clean_text(str(value)).strip()
    return ""


def _turns(file: Path, place: str, item: dict[str, Any], key: str) -> list[tuple[str, str]]:
    """(question, answer) of each turn. Raises BadFile when roles do not alternate or text is missing."""
    told = item.get(key)
    if isinstance(told, str):
        told = parse_json(file, f"{place}, {key}", told)
    if not isinstance(told, list) or not told:
        raise BadFile(str(file), place, f"{key} must be a list of messages")
    texts: list[str] = []
    for number, message in enumerate(told, 1):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system" and number == 1:
            continue
        expected = "user" if len(texts) % 2 == 0 else "assistant"
        if role != expected:
            raise BadFile(str(file), place, f"{key}, message {number}: role must be {expected}")
        texts.append(_content(file, place, message, f"{key}, message {number}"))
    if len(texts) % 2 or not texts:
        raise BadFile(str(file), place, f"{key} must end with an answer")
    turns = list(zip(texts[::2], texts[1::2], strict=True))
    judged = item.get("turn")
    if judged is not None and (
        not isinstance(judged, int) or isinstance(judged, bool) or judged < 1
    ):
        raise BadFile(str(file), place, "turn must be a whole number from 1")
    return turns[:judged]


def _content(file: Path, place: str, message: dict[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, list):
        if any(not isinstance(p, dict) or p.get("type", "text") != "text" for p in content):
            raise BadFile(str(file), place, f"{where}: only text can be imported, no image")
        content = "\n".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str) or not (text := clean_text(content).strip()):
        raise BadFile(str(file), place, f"{where}: the content is empty")
    if len(text) > TEXT_LIMIT:
        raise BadFile(
            str(file), place, f"{where}: {len(text)} characters, at most {TEXT_LIMIT} fit"
        )
    return text
