"""Reads ready-made answers and questions from files into a study.

    python -m reviews.importer A.json B.json --study NAME     answers of two models, paired by id
    python -m reviews.importer QUESTIONS.json --study NAME    questions only: cases to ask
    python -m reviews.importer PAIRS.jsonl --study NAME       one pair per line

A.json, B.json: a JSON list of {id, query, label?, model_output} (the layout of
huatuo100_inst); the models' names are the files' names, or --names. QUESTIONS.json: a JSON
list of {id, query, label?} (KUAKE-QIC). PAIRS.jsonl: {id, question, answer_a, answer_b,
model_a, model_b}, optionally department, intent, language; or instead of question and the
answers `turns`, a list of {question, answer_a, answer_b}. A second import adds nothing twice;
a file that is damaged in any place is refused whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reviews.database import DEFAULT_NAME
from reviews.errors import BadFile, RecordError
from reviews.records import Case, ImportReport, PreparedPair, PreparedTurn, clean_text
from reviews.store import Store

LARGEST_FILE = 64 * 2**20  # bytes
TEXT_LIMIT = 20_000  # characters of one question or answer
NAME_LIMIT = 64  # characters
ID_LIMIT = 200  # characters
SETTINGS_LIMIT = 4000  # bytes of JSON


@dataclass(frozen=True, slots=True)
class Found:
    """What the files hold. `refused`: (id, why) of items that make no pair or case."""

    read: int
    pairs: tuple[PreparedPair, ...] = ()
    cases: tuple[Case, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an import, in items; `lines()` says it in words."""

    study: str
    found: Found
    stored: ImportReport
    kind: str = field(default="pairs")

    def lines(self) -> list[str]:
        """The report as plain lines."""
        told = [
            f"study {self.study}",
            f"{self.found.read:6d} items read",
            f"{len(self.found.pairs) + len(self.found.cases):6d} {self.kind} found",
            f"{self.stored.added:6d} added",
            f"{self.stored.already_there:6d} already there, left as they were",
            f"{len(self.found.refused):6d} refused",
        ]
        told += [f"        {item}: {why}" for item, why in self.found.refused]
        told += [f"        {item}: already there with other texts; use another study name"
                 for item in self.stored.differs]  # fmt: skip
        return told


def import_files(
    store: Store,
    files: Sequence[Path | str],
    study: str,
    *,
    names: Sequence[str] = (),
    language: str = "zh",
    actor: int | str = "importer",
) -> Report:
    """Read the files and file what they hold in a study, all or nothing.

    Raises BadFile naming file and place, BadStudy, Store*.
    """
    found = read_files([Path(file) for file in files], names=names, language=language)
    if found.cases:
        return Report(study, found, store.add_cases(study, found.cases, actor), "cases")
    return Report(study, found, store.add_prepared(study, found.pairs, actor))


def read_files(files: Sequence[Path], *, names: Sequence[str] = (), language: str = "zh") -> Found:
    """Read one or two files without touching any record. Raises BadFile."""
    if len(files) == 1 and files[0].suffix == ".jsonl":
        return _read_pairs(files[0], language)
    if len(files) == 1:
        return _read_questions(files[0], language)
    if len(files) == 2:
        return _read_answers(files[0], files[1], names, language)
    raise BadFile(str(files[0]) if files else "(none)", "", "give one file, or two to pair by id")


def _read_answers(first: Path, second: Path, names: Sequence[str], language: str) -> Found:
    model_a, model_b = _names(first, second, names)
    items_a, items_b = _by_id(first), _by_id(second)
    pairs: list[PreparedPair] = []
    refused: list[tuple[str, str]] = []
    for item_id in [*items_a, *(i for i in items_b if i not in items_a)]:
        if item_id not in items_b:
            refused.append((item_id, f"{second.name} has no such item"))
        elif item_id not in items_a:
            refused.append((item_id, f"{first.name} has no such item"))
        else:
            (place_a, a), (place_b, b) = items_a[item_id], items_b[item_id]
            question = _text(first, place_a, a, "query")
            answers = (
                _text(first, place_a, a, "model_output"),
                _text(second, place_b, b, "model_output"),
            )
            if question != _text(second, place_b, b, "query"):
                refused.append((item_id, "the two files ask different questions"))
                continue
            pairs.append(
                PreparedPair(
                    item_id,
                    model_a,
                    model_b,
                    (PreparedTurn(question, *answers),),
                    intent=_text(first, place_a, a, "label", ""),
                    language=language,
                    source=_text(first, place_a, a, "dataset", first.stem),
                )
            )
    if not pairs:
        raise BadFile(str(second), "", f"no id of {first.name} is here with the same question")
    return Found(len(items_a) + len(items_b), tuple(pairs), refused=tuple(refused))


def _names(first: Path, second: Path, names: Sequence[str]) -> tuple[str, str]:
    if names and len(names) != 2:
        raise BadFile(str(first), "", f"two names are needed, {len(names)} were given")
    found = tuple(clean_text(n).strip() for n in names) if names else (first.stem, second.stem)
    for file, name in zip((first, second), found, strict=True):
        if not name or len(name) > NAME_LIMIT or "\n" in name:
            raise BadFile(str(file), "", f"a model's name has 1 to {NAME_LIMIT} characters")
    if found[0] == found[1]:
        raise BadFile(
            str(second), "", f"both files are named {found[0]}; tell them apart by --names"
        )
    return found[0], found[1]


def _read_questions(file: Path, language: str) -> Found:
    items = _by_id(file)
    cases = [
        Case(
            item_id,
            _text(file, place, item, "query"),
            _text(file, place, item, "department", ""),
            _text(file, place, item, "label", ""),
            language,
        )
        for item_id, (place, item) in items.items()
    ]
    if any("model_output" in item for _, item in items.values()):
        raise BadFile(
            str(file), "", "these are answers of one model; give a second file to pair with"
        )
    return Found(len(cases), cases=tuple(cases))


def _read_pairs(file: Path, language: str) -> Found:
    pairs: list[PreparedPair] = []
    seen: set[tuple[str, str, str]] = set()
    for place, item in _json_lines(file):
        item_id = _id(file, place, item)
        model_a = _text(file, place, item, "model_a", limit=NAME_LIMIT)
        model_b = _text(file, place, item, "model_b", limit=NAME_LIMIT)
        if model_a == model_b:
            raise BadFile(str(file), place, "model_a and model_b are the same")
        key = (item_id, min(model_a, model_b), max(model_a, model_b))
        if key in seen:
            raise BadFile(
                str(file), place, f"the id {item_id!r} stands here twice for these models"
            )
        seen.add(key)
        pairs.append(
            PreparedPair(
                item_id,
                model_a,
                model_b,
                _turns(file, place, item),
                _text(file, place, item, "department", ""),
                _text(file, place, item, "intent", ""),
                _text(file, place, item, "language", language, limit=16),
                _text(file, place, item, "source", file.stem),
                _settings(file, place, item, "settings_a"),
                _settings(file, place, item, "settings_b"),
            )
        )
    if not pairs:
        raise BadFile(str(file), "", "there is no line in it")
    return Found(len(pairs), tuple(pairs))


def _turns(file: Path, place: str, item: dict[str, Any]) -> tuple[PreparedTurn, ...]:
    told = item.get("turns", [item])
    if not isinstance(told, list) or not told:
        raise BadFile(str(file), place, "turns must be a list with at least one turn")
    turns = []
    for number, turn in enumerate(told, 1):
        where = f"{place}, turn {number}" if "turns" in item else place
        if not isinstance(turn, dict):
            raise BadFile(str(file), where, "a turn must be an object")
        texts = [_text(file, where, turn, key) for key in ("question", "answer_a", "answer_b")]
        own = _text(file, where, turn, "question_b", "")
        turns.append(PreparedTurn(texts[0], texts[1], texts[2], own))
    return tuple(turns)


def _by_id(file: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Items of a JSON list with the place of each, by id."""
    content = _parse(file, "", _read(file))
    if not isinstance(content, list) or not content:
        raise BadFile(str(file), "", "a JSON list with at least one item is expected")
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, item in enumerate(content, 1):
        place = f"item {number}"
        if not isinstance(item, dict):
            raise BadFile(str(file), place, "an object is expected")
        item_id = _id(file, place, item)
        if item_id in found:
            raise BadFile(str(file), place, f"the id {item_id!r} stands here twice")
        found[item_id] = (place, item)
    return found


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_read(file).split("\n"), 1):
        if line.strip():
            item = _parse(file, f"line {number}", line)
            if not isinstance(item, dict):
                raise BadFile(str(file), f"line {number}", "an object is expected")
            yield f"line {number}", item


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise BadFile(str(file), "", f"larger than {LARGEST_FILE // 2**20} MiB")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadFile(str(file), f"line {line}", "this is not UTF-8 text") from error
    except OSError as error:
        raise BadFile(str(file), "", f"cannot be read: {error.strerror}") from error


def _parse(file: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = place or f"line {error.lineno}"
        raise BadFile(str(file), where, f"this is not JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise BadFile(str(file), place, "this JSON is nested too deep or too large") from error


def _id(file: Path, place: str, item: dict[str, Any]) -> str:
    value = item.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(file, place, item, "id", limit=ID_LIMIT)


def _settings(file: Path, place: str, item: dict[str, Any], key: str) -> dict[str, Any]:
    """How an answer came about, as training.study writes it; a table, or nothing."""
    value = item.get(key, {})
    if not isinstance(value, dict) or len(json.dumps(value)) > SETTINGS_LIMIT:
        raise BadFile(str(file), place, f"{key} must be a table of at most {SETTINGS_LIMIT} bytes")
    return value


def _text(
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
        why = f"{key} is missing" if key not in item else f"{key} must be text"
        raise BadFile(str(file), place, why)
    text = clean_text(value).strip()
    if not text and default is None:
        raise BadFile(str(file), place, f"{key} is empty")
    if len(text) > limit:
        raise BadFile(str(file), place, f"{key} has {len(text)} characters, at most {limit} fit")
    return text


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reviews.importer", description="Read ready-made answers into a study."
    )
    parser.add_argument("files", nargs="+", type=Path, help="one file, or two to pair by id")
    parser.add_argument("--study", required=True, help="the study to file them in")
    parser.add_argument("--data", default=Path("data"), type=Path, help="the record's folder")
    parser.add_argument("--names", nargs=2, default=(), help="the two models' names")
    parser.add_argument("--language", default="zh", help="the questions' language: zh or en")
    given = parser.parse_args(arguments)
    try:
        with contextlib.closing(Store.open(given.data / DEFAULT_NAME)) as store:
            report = import_files(
                store, given.files, given.study, names=given.names, language=given.language
            )
    except RecordError as error:
        print(f"nothing was imported: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
