"""Reads ready-made answers and questions from files into a study.

    python -m reviews.importer A.json B.json --study NAME     answers of two models, paired by id
    python -m reviews.importer QUESTIONS.json --study NAME    questions only: cases to ask
    python -m reviews.importer PAIRS.jsonl --study NAME       one pair per line
    python -m reviews.importer LOG.jsonl --study NAME --format arena       votes: reviews/battles.py
    python -m reviews.importer RECORDS.json --study NAME --format argilla  votes: reviews/argilla.py

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
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reviews.argilla import Layout, read_argilla
from reviews.battles import read_battles
from reviews.database import DEFAULT_NAME
from reviews.errors import BadFile, RecordError
from reviews.foreign import ForeignReport, ForeignVote, file_votes
from reviews.items import NAME_LIMIT, id_of, json_lines, parse_json, read_text, settings_of, text_of
from reviews.records import Case, ImportReport, PreparedPair, PreparedTurn, clean_text
from reviews.store import Store

FORMATS = ("answers", "arena", "argilla")


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

    Raises BadFile naming file and place, BadStudy, StudyFrozen for a study that takes no more, Store*.
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
            refused.append((item_id, "the second file has no such item"))
        elif item_id not in items_a:
            refused.append((item_id, "the first file has no such item"))
        else:
            (place_a, a), (place_b, b) = items_a[item_id], items_b[item_id]
            question = text_of(first, place_a, a, "query")
            answers = (
                text_of(first, place_a, a, "model_output"),
                text_of(second, place_b, b, "model_output"),
            )
            if question != text_of(second, place_b, b, "query"):
                refused.append((item_id, "the two files ask different questions"))
                continue
            pairs.append(
                PreparedPair(
                    item_id,
                    model_a,
                    model_b,
                    (PreparedTurn(question, *answers),),
                    intent=text_of(first, place_a, a, "label", ""),
                    language=language,
                    source=text_of(first, place_a, a, "dataset", first.stem),
                )
            )
    if not pairs:
        raise BadFile(
            str(second), "", "no id of {name} is here with the same question", name=first.name
        )
    return Found(len(items_a) + len(items_b), tuple(pairs), refused=tuple(refused))


def _names(first: Path, second: Path, names: Sequence[str]) -> tuple[str, str]:
    if names and len(names) != 2:
        raise BadFile(str(first), "", "two names are needed, {n} were given", n=len(names))
    found = tuple(clean_text(n).strip() for n in names) if names else (first.stem, second.stem)
    for file, name in zip((first, second), found, strict=True):
        if not name or len(name) > NAME_LIMIT or "\n" in name:
            raise BadFile(
                str(file), "", "a model's name has 1 to {most} characters", most=NAME_LIMIT
            )
    if found[0] == found[1]:
        raise BadFile(
            str(second),
            "",
            "both files are named {name}; tell them apart by --names",
            name=found[0],
        )
    return found[0], found[1]


def _read_questions(file: Path, language: str) -> Found:
    items = _by_id(file)
    cases = [
        Case(
            item_id,
            text_of(file, place, item, "query"),
            text_of(file, place, item, "department", ""),
            text_of(file, place, item, "label", ""),
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
    for place, item in json_lines(file):
        item_id = id_of(file, place, item)
        model_a = text_of(file, place, item, "model_a", limit=NAME_LIMIT)
        model_b = text_of(file, place, item, "model_b", limit=NAME_LIMIT)
        if model_a == model_b:
            raise BadFile(str(file), place, "model_a and model_b are the same")
        key = (item_id, min(model_a, model_b), max(model_a, model_b))
        if key in seen:
            raise BadFile(
                str(file), place, "the id {id!r} stands here twice for these models", id=item_id
            )
        seen.add(key)
        pairs.append(
            PreparedPair(
                item_id,
                model_a,
                model_b,
                _turns(file, place, item),
                text_of(file, place, item, "department", ""),
                text_of(file, place, item, "intent", ""),
                text_of(file, place, item, "language", language, limit=16),
                text_of(file, place, item, "source", file.stem),
                settings_of(file, place, item, "settings_a"),
                settings_of(file, place, item, "settings_b"),
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
        texts = [text_of(file, where, turn, key) for key in ("question", "answer_a", "answer_b")]
        own = text_of(file, where, turn, "question_b", "")
        turns.append(PreparedTurn(texts[0], texts[1], texts[2], own))
    return tuple(turns)


def _by_id(file: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Items of a JSON list with the place of each, by id."""
    content = parse_json(file, "", read_text(file))
    if not isinstance(content, list) or not content:
        raise BadFile(str(file), "", "a JSON list with at least one item is expected")
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, item in enumerate(content, 1):
        place = f"item {number}"
        if not isinstance(item, dict):
            raise BadFile(str(file), place, "an object is expected")
        item_id = id_of(file, place, item)
        if item_id in found:
            raise BadFile(str(file), place, "the id {id!r} stands here twice", id=item_id)
        found[item_id] = (place, item)
    return found


def import_votes(
    store: Store,
    files: Sequence[Path | str],
    study: str,
    format: str,
    *,
    language: str = "zh",
    layout: Layout | None = None,
    actor: int | str = "importer",
) -> ForeignReport:
    """Read another tool's votes (format: arena or argilla) into a study of their own, all or nothing.

    language: of what does not say its own. layout: see reviews.argilla. Raises BadFile naming file and
    line, BadStudy, Store*.
    """
    found: list[ForeignVote] = []
    for file in map(Path, files):
        if format == "arena":
            found += read_battles(file, language)
        else:
            found += read_argilla(file, language, layout or Layout())
    origin = f"{format}: {', '.join(Path(file).name for file in files)}"
    return file_votes(store, study, origin[:400], found, actor)


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
    parser.add_argument(
        "--format", choices=FORMATS, default="answers", help="whose files these are"
    )
    parser.add_argument(
        "--fields", default="", help="argilla: question,answer,answer by field name"
    )
    parser.add_argument("--question", default="", help="argilla: the question that decides")
    given = parser.parse_args(arguments)
    try:
        with contextlib.closing(Store.open(given.data / DEFAULT_NAME)) as store:
            report: Report | ForeignReport
            if given.format == "answers":
                report = import_files(
                    store, given.files, given.study, names=given.names, language=given.language
                )
            else:
                layout = Layout(tuple(filter(None, given.fields.split(","))), given.question)
                report = import_votes(
                    store, given.files, given.study, given.format, language=given.language,
                    layout=layout,
                )  # fmt: skip
    except RecordError as error:
        print(f"nothing was imported: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
