"""the questions of an evaluation: a public set (training/benchmarks.py) or a file of our own, whole or a drawn part.

A file of our own holds rows as `python -m training.benchmarks NAME FOLDER --out FILE` writes them, or answers as
training/answer_files.py reads them, whose questions are asked again. Lines that are damaged are named, none is skipped.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from huatuo.errors import ConfigError, NoData
from huatuo.messages import Conversation, Message
from huatuo.toml import ROOT, Settings
from training.answer_files import read_references
from training.benchmark_layouts import Item
from training.benchmarks import BENCHMARKS
from training.choice import prompt_of
from training.data import BadData
from training.rows import Source, id_of, json_rows, text_of

OWN_LICENCE = "not stated; set `licence` in the evaluation's file"


class BenchmarkConfig(Settings):
    """A table [[benchmark]] of an evaluation's file. Folders and files: absolute, or from the project's folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="in the report")
    set: str = Field(
        default="", description="a set of python -m training.benchmarks; default: name"
    )
    folder: str = Field(default="", description="where the set's files lie")
    split: str = Field(default="", description="default: the first one of the set")
    file: str = Field(default="", description="instead of a set: a file of our own")
    references: str = Field(
        default="", description="texts to compare with, by id; an answer file's answers"
    )
    limit: int = Field(default=0, ge=0, description="ask only so many, drawn by seed; 0: all")
    licence: str = Field(default="", description="of a file of our own")
    title: str = Field(default="", max_length=80, description="of a file of our own")


@dataclass(frozen=True)
class Questions:
    """What is asked. kind: generation, intent, choice or conversation. files: name to SHA-256 of all that was read.

    whole: how many questions the set has; more than `items` if only a part is asked.
    """

    name: str
    title: str
    kind: str
    licence: str
    home: str
    verified: str
    files: dict[str, str]
    items: tuple[Item, ...]
    whole: int
    split: str = ""
    published: str = ""
    """The set whose published numbers belong beside ours."""

    @property
    def is_choice(self) -> bool:
        """Whether letters are asked for."""
        return self.kind == "choice"

    @property
    def references(self) -> bool:
        """Whether answers can be compared with something."""
        return bool(self.items) and bool(self.items[0].references)

    def about(self) -> dict[str, Any]:
        """What a report says of it, for JSON."""
        return {
            "title": self.title, "kind": self.kind, "split": self.split, "licence": self.licence,
            "home": self.home, "verified": self.verified, "files": self.files,
            "items": len(self.items), "whole": self.whole,
            "with_references": sum(bool(item.references) for item in self.items),
            "notes": {note: sum(i.note == note for i in self.items)
                      for note in sorted({i.note for i in self.items} - {""})},
        }  # fmt: skip


def asked(item: Item) -> Conversation:
    """The conversation a model is given for an item."""
    text = prompt_of(item) if item.options else item.question
    return (*item.before, Message("user", text))


def is_about(question: str, item: Item) -> bool:
    """Whether a question that a file tells is the item's, or holds it as a prompt does; none told counts as the same."""
    told, own = ("".join(text.split()) for text in (question, item.question))
    return not told or own in told


def read(config: BenchmarkConfig, seed: int) -> Questions:
    """The questions. Raises BadData with file and line, NoData for none, ConfigError for a wrong setting."""
    if bool(config.file) == bool(config.set or config.folder):
        raise ConfigError(
            f"benchmark {config.name}: give either `file`, or `folder` with a set's files"
        )
    questions, stream = _own(config) if config.file else _public(config)
    items, whole = _drawn(stream, config.limit, seed)
    if not items:
        raise NoData(f"benchmark {config.name}: no questions")
    files = dict(questions.files)
    if config.references:
        path = _path(config.references)
        items = tuple(_with_references(items, path))
        files[path.name] = Source(path).sha256()
    given = {bool(item.references) for item in items}
    if len(given) > 1:
        bare = next(item for item in items if not item.references)
        raise BadData(f"{bare.place}: id {bare.id} has no reference, while others have some")
    return replace(questions, items=items, whole=whole, files=files)


def _path(text: str) -> Path:
    return Path(text) if Path(text).is_absolute() else ROOT / text


def _public(config: BenchmarkConfig) -> tuple[Questions, Iterable[Item]]:
    name = config.set or config.name
    if name not in BENCHMARKS:
        raise ConfigError(
            f"benchmark {config.name}: no set {name}; there are {', '.join(BENCHMARKS)}"
        )
    benchmark = BENCHMARKS[name]
    split = config.split or next(iter(benchmark.splits))
    folder = _path(config.folder)
    sources = benchmark.sources(folder, split)
    questions = Questions(
        config.name, benchmark.title, benchmark.kind, benchmark.licence, benchmark.home,
        benchmark.verified, {source.name: source.sha256() for source in sources}, (), 0, split, name,
    )  # fmt: skip
    return questions, benchmark.items(folder, split)


def _own(config: BenchmarkConfig) -> tuple[Questions, Iterable[Item]]:
    path = _path(config.file)
    source = Source(path)
    first = next(items_of(source), None)
    kind = "choice" if first and first.options else "generation"
    title = config.title or path.name
    licence = config.licence or OWN_LICENCE
    files = {path.name: source.sha256()}
    return Questions(config.name, title, kind, licence, "", "", files, (), 0), items_of(source)


def items_of(source: Source) -> Iterator[Item]:
    """The items of a file of our own, every id once. Raises BadData with file and line."""
    seen: dict[str, str] = {}
    for place, row in json_rows(source):
        item = _item(row, place)
        if item.id in seen:
            raise BadData(f"{place}: id {item.id} again; first at {seen[item.id]}")
        seen[item.id] = place
        yield item


def _item(row: dict[str, Any], place: str) -> Item:
    key = "question" if "question" in row else "query"
    if key not in row:
        raise BadData(f"{place}: no question; a key `question` or `query` is expected")
    options = row.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(v, str) for v in options.values()):
        raise BadData(f"{place}: options: an object of letters and texts is expected")
    references = row.get("references", row.get("reference", ()))
    texts = (references,) if isinstance(references, str) else references
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise BadData(f"{place}: references: a list of texts is expected")
    answer = text_of(row, "answer", place) if options else ""
    if set(answer) - set(options):
        raise BadData(f"{place}: answer {answer[:20]} names no option of {''.join(options)}")
    label = next((row[k] for k in ("label", "intent", "department") if row.get(k)), "")
    several = row.get("several")
    if not isinstance(several, bool | None):
        raise BadData(f"{place}: several is neither true nor false")
    return Item(
        id_of(row, "id", place), text_of(row, key, place), tuple(texts), str(label), options,
        answer, _before(row, place), "", place, several,
    )  # fmt: skip


def _before(row: dict[str, Any], place: str) -> Conversation:
    turns = row.get("before", [])
    found = []
    for number, turn in enumerate(turns if isinstance(turns, list) else [None]):
        role = "assistant" if number % 2 else "user"
        if not isinstance(turn, dict) or turn.get("role") != role:
            raise BadData(f"{place}: before: turns of user and assistant in turn are expected")
        found.append(Message(role, text_of(turn, "text", place)))  # type: ignore[arg-type]
    if len(found) % 2:
        raise BadData(f"{place}: before: ends without the assistant's answer")
    return tuple(found)


def _drawn(items: Iterable[Item], limit: int, seed: int) -> tuple[tuple[Item, ...], int]:
    """(the items to ask, in the file's order; how many there are): the same part for the same seed and ids."""
    whole = 0

    def ranked() -> Iterator[tuple[str, int, Item]]:
        nonlocal whole
        for item in items:
            whole += 1
            yield hashlib.sha256(f"{seed}:{item.id}".encode()).hexdigest(), whole, item

    if not limit:
        return tuple(item for _, _, item in ranked()), whole
    chosen = heapq.nsmallest(limit, ranked(), key=lambda row: row[:2])
    return tuple(item for _, _, item in sorted(chosen, key=lambda row: row[1])), whole


def _with_references(items: Iterable[Item], path: Path) -> Iterator[Item]:
    found = read_references(path)
    for item in items:
        if item.id not in found:
            raise BadData(f"{item.place}: id {item.id} is not in the references of {path.name}")
        yield replace(item, references=found[item.id])
