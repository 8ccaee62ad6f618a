"""objects of JSON files with the place of each, read strictly: what is wrong is named by file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviews.errors import BadFile
from reviews.records import clean_text

LARGEST_FILE = 64 * 2**20  # bytes
TEXT_LIMIT = 20_000  # characters of one question or answer
NAME_LIMIT = 64  # characters
ID_LIMIT = 200  # characters
SETTINGS_LIMIT = 4000  # bytes of JSON


def json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a JSON Lines file with its place. Raises BadFile."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            item = parse_json(file, f"line {number}", line)
            if not isinstance(item, dict):
                raise BadFile(str(file), f"line {number}", "an object is expected")
            yield f"line {number}", item


def read_text(file: Path) -> str:
    """A whole UTF-8 file of bounded size. Raises BadFile."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise BadFile(str(file), "", "larger than {most} MiB", most=LARGEST_FILE // 2**20)
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadFile(str(file), f"line {line}", "this is not UTF-8 text") from error
    except OSError as error:
        raise BadFile(str(file), "", "cannot be read: {error}", error=error.strerror) from error


def parse_json(file: Path, place: str, text: str) -> Any:
    """What a JSON text holds; place: where it stands in the file, empty for the whole. Raises BadFile."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = place or f"line {error.lineno}"
        raise BadFile(str(file), where, "this is not JSON: {error}", error=error.msg) from error
    except (RecursionError, ValueError) as error:
        raise BadFile(str(file), place, "this JSON is nested too deep or too large") from error


def id_of(file: Path, place: str, item: dict[str, Any]) -> str:
    """An item's id as text. Raises BadFile."""
    value = item.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(file, place, item, "id", limit=ID_LIMIT)


def settings_of(file: Path, place: str, item: dict[str, Any], key: str) -> dict[str, Any]:
    """How an answer came about, as training.study writes it; a table, or nothing."""
    value = item.get(key, {})
    if not isinstance(value, dict) or len(json.dumps(value)) > SETTINGS_LIMIT:
        raise BadFile(
            str(file), place, "{key} must be a table of at most {most} bytes",
            key=key, most=SETTINGS_LIMIT,
        )  # fmt: skip
    return value


def text_of(
    file: Path,
    place: str,
    item: dict[str, Any],
    key: str,
    default: str | None = None,
    *,
    limit: int = TEXT_LIMIT,
) -> str:
    """The cleaned text under a key; with a default it may be missing, else it must not be empty."""
    value = item.get(key, default)
    if not isinstance(value, str):
        if key not in item:
            raise BadFile(str(file), place, "{key} is missing", key=key)
        raise BadFile(str(file), place, "{key} must be text", key=key)
    text = clean_text(value).strip()
    if not text and default is None:
        raise BadFile(str(file), place, "{key} is empty", key=key)
    if len(text) > limit:
        raise BadFile(
            str(file), place, "{key} has {n} characters, at most {most} fit",
            key=key, n=len(text), most=limit,
        )  # fmt: skip
    return text
