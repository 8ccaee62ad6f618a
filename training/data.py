"""reads conversations from JSONL, checks them line by line, and makes tokens with a loss mask.

Two line formats: our own {"messages": [{"role", "content"}, …], "case_id", "part", …} and that of
HuatuoGPT-sft-data-v1, {"data": ["问：…", "答：…", …]}. A bad line stops everything with file:line; nothing is skipped.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huatuo.errors import HuatuoError, InputError, NoData
from huatuo.messages import Conversation, Message, clean
from huatuo.prompts import encode_training

CONTENT_LIMIT = 20_000
"""Longest turn in training data, in characters."""
_ROLES = {"user": "user", "assistant": "assistant"}


class BadData(HuatuoError):
    """A line of a data file cannot be used; the message names file and line."""


@dataclass(frozen=True)
class Record:
    """One conversation of a data file. place: file:line; facts: the line's other keys (case_id, part, …)."""

    conversation: Conversation
    place: str
    facts: dict[str, Any]


def read_conversations(path: Path) -> Iterator[Record]:
    """The file's conversations in order. Raises BadData naming file and line, NoData if there are none."""
    try:
        file = path.open(encoding="utf-8-sig")
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror})") from None
    found = False
    with file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    found = True
                    yield read_line(line, f"{path.name}:{number}")
        except UnicodeDecodeError:
            raise BadData(f"{path.name}:{number + 1}: not UTF-8; save the file as UTF-8") from None
    if not found:
        raise NoData(f"{path}: holds no conversation")


def read_line(line: str, place: str) -> Record:
    """One JSONL line as a record. Raises BadData with the place."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadData(f"{place}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadData(f"{place}: a JSON object is expected, not {type(row).__name__}")
    if "messages" in row:
        turns = [
            _message(item, i, place) for i, item in enumerate(_list(row, "messages", place), 1)
        ]
    elif "data" in row:
        turns = [_prefixed(item, i, place) for i, item in enumerate(_list(row, "data", place), 1)]
    elif "json_dialogue" in row:
        raise BadData(f"{place}: json_dialogue is not read; write the list under the key data")
    else:
        raise BadData(f"{place}: neither the key messages nor the key data")
    _check_order(turns, place)
    facts = {key: value for key, value in row.items() if key not in ("messages", "data")}
    return Record(tuple(turns), place, facts)


def _list(row: dict[str, Any], key: str, place: str) -> list[Any]:
    value = row[key]
    if not isinstance(value, list) or not value:
        raise BadData(f"{place}: {key} is not a list with turns")
    return value


def _message(item: object, number: int, place: str) -> Message:
    if not isinstance(item, dict) or item.get("role") not in _ROLES:
        raise BadData(f"{place}: turn {number}: role is not user or assistant")
    return _checked(item["role"], item.get("content"), number, place)


def _prefixed(item: object, number: int, place: str) -> Message:
    role, prefix = (("user", "问："), ("assistant", "答："))[(number + 1) % 2]
    if not isinstance(item, str) or not item.startswith(prefix):
        raise BadData(f"{place}: turn {number}: does not begin with {prefix}")
    return _checked(role, item[len(prefix) :], number, place)


def _checked(role: str, text: object, number: int, place: str) -> Message:
    if not isinstance(text, str):
        raise BadData(f"{place}: turn {number}: the content is not text")
    try:
        cleaned = clean(text, limit=CONTENT_LIMIT)
    except InputError as error:
        raise BadData(f"{place}: turn {number}: {error}") from None
    return Message("user" if role == "user" else "assistant", cleaned)


def _check_order(turns: Sequence[Message], place: str) -> None:
    for number, message in enumerate(turns, 1):
        expected = "user" if number % 2 else "assistant"
        if message.role != expected:
            raise BadData(
                f"{place}: turn {number} is {message.role}'s; turns alternate, the user's first"
            )
    if len(turns) < 2:
        raise BadData(f"{place}: no answer to learn from")
    if len(turns) % 2:
        raise BadData(f"{place}: the last turn is the user's; end with an answer")


def tokenise(
    records: Iterable[Record],
    tokenizer: Any,
    family: str,
    *,
    max_tokens: int,
    supervise: Literal["doctor", "all"] = "doctor",
    skip_long: bool = False,
) -> list[dict[str, list[int]]]:
    """Rows {input_ids, labels} for the trainer, in order.

    supervise: "doctor" for loss on the doctor's turns, "all" for loss on every token (a language model's start).
    A conversation whose first exchange is longer than max_tokens raises BadData naming file and line; with skip_long it
    is left out, and how many were is printed.
    """
    rows, skipped = [], 0
    for record in records:
        try:
            example = encode_training(tokenizer, record.conversation, family, max_tokens=max_tokens)
        except InputError as error:
            if skip_long:
                skipped += 1
                continue
            raise BadData(f"{record.place}: {error}") from None
        labels = example.labels if supervise == "doctor" else list(example.input_ids)
        rows.append({"input_ids": example.input_ids, "labels": labels})
    if skipped:
        print(f"{skipped:,} conversations left out: the first exchange is over {max_tokens} tokens")
    return rows
