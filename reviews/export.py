"""the votes as files for training and reading: TRL preference and KTO, Parquet, CSV, a data card, with a manifest.

    python -m reviews.export --out exports/first [--data data] [--study NAME] [--criterion KEY]
        [--min-agreement 0.7] [--language zh] [--without-leaks] [--adjudicated] [--license ID] [--force]
    python -m reviews.export --from exports/first/manifest.json --out exports/again

pairs.jsonl           one question: prompt, chosen, rejected as lists of {role, content}
pairs_implicit.jsonl  the same, the prompt inside chosen and rejected
dialogues.jsonl       several turns: chosen and rejected as whole conversations, without a prompt,
                      because after the first turn the two sides' contexts differ
ties.jsonl            "equally good": answer_a and answer_b as whole conversations
both_bad.jsonl        "both bad": the same shape
kto.jsonl             prompt, completion, label: winners true; both-bad and unsafe answers false
sft.jsonl, better_pairs.jsonl   the physicians' own answers, where their author agreed
votes.csv, .jsonl, .parquet     every vote and verdict with all its fields
README.md             a data card; `datasets.load_dataset(folder)` reads its configs
manifest.json         counts, sha256 of each file, the filter and the log's last hash

Each judgement stands in exactly one of the first four kinds of outcome. Raters are numbers, the same
in each export. Everything is read in one transaction, in the order in which the pairs were given out,
so the same record gives the same bytes; `--from` writes an earlier export anew, later votes left out,
or says why it cannot. A folder appears whole or not at all; an export of a record whose log does not
hold is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviews import audit, filing, parquet, software
from reviews.asof import Selection, in_training, select, standing
from reviews.card import Told, card
from reviews.comparisons import find_comparison
from reviews.database import DEFAULT_NAME, Database
from reviews.errors import RecordError
from reviews.records import VoteRow, iso
from reviews.reproduce import Recipe, check_same, read_recipe
from reviews.store import Store
from reviews.training_rows import JSONL, conversation, is_erased, rows_of, table_row

if TYPE_CHECKING:
    import sqlite_utils

__all__ = ["Manifest", "conversation", "export", "export_again", "export_zip", "main", "safe_cell"]

SCHEMA = 3
TABLE_COLUMNS = (
    "vote", "study", "kind", "purpose", "rater", "case", "department", "intent", "language", "source",
    "turns", "contestant_a", "contestant_b", "left_is", "first_tab", "choice", "winner", "reason", "ratings",
    "ratings_by_contestant", "spans", "better_answer", "better_from", "better_turn", "better_consent", "seconds", "fast",
    "probability", "revisions", "identity_leak", "at", "question", "answer_a", "answer_b",
)  # fmt: skip
_TABLES = ("votes.csv", "votes.jsonl", "votes.parquet")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "\0")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What manifest.json says; `counts` per file name, in rows."""

    counts: dict[str, int]
    sha256: dict[str, str]
    content: dict[str, Any]


def safe_cell(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula: those get a leading apostrophe.

    Also when quotes or spaces come first, and for full-width signs. Source: OWASP, CWE-1236.
    """
    bare = text.lstrip(" \"'\u3000\u00a0")
    return "'" + text if text.startswith(_FORMULA) or bare.startswith(_FORMULA) else text


def export(
    database: Database,
    out: Path | str,
    *,
    study: str | None = None,
    criterion: str | None = None,
    min_agreement: float | None = None,
    language: str | None = None,
    leaks: bool = True,
    adjudicated: bool = False,
    licence: str = "other",
    force: bool = False,
) -> Manifest:
    """Write the folder `out` whole or not at all; what may be asked for is told at Selection.

    Raises AuditBroken when the log does not hold, FileExistsError when `out` is a file or a
    folder with something in it (with force=True the folder is replaced), OSError, Store*.
    """
    asked = Selection(study, criterion, min_agreement, language, leaks, adjudicated)
    return _write_folder(
        Path(out), force, lambda folder: _write_files(database, folder, asked, licence)
    )


def export_again(
    database: Database, manifest: Path | str, out: Path | str, *, force: bool = False
) -> Manifest:
    """Write an earlier export anew, byte for byte, from its manifest.json alone.

    Raises RecordError, and writes nothing, when the record no longer gives these bytes; it says
    which files differ and what is known to be the reason. Otherwise as export().
    """
    recipe = read_recipe(Path(manifest))

    def write(folder: Path) -> Manifest:
        again = _write_files(database, folder, recipe.asked, recipe.licence, recipe)
        (folder / "manifest.json").write_bytes(recipe.manifest)
        return Manifest(again.counts, again.sha256, recipe.content)

    return _write_folder(Path(out), force, write)


def export_zip(database: Database, study: str | None = None) -> bytes:
    """The same files as one ZIP archive, for a download. Raises AuditBroken, Store*."""
    with tempfile.TemporaryDirectory() as folder:
        _write_files(database, Path(folder), Selection(study), "other")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.write(path, path.name)
        return packed.getvalue()


def _write_folder(out: Path, force: bool, write: Callable[[Path], Manifest]) -> Manifest:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not force)):
        raise FileExistsError(f"{out} exists and is not empty; choose another folder or --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        manifest = write(work)
        _sync(work)
        old = None
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent)) / "old"
            out.rename(old)
        work.rename(out)
        if old is not None:
            shutil.rmtree(old.parent)
        _sync(out.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _write_files(
    database: Database,
    folder: Path,
    asked: Selection,
    licence: str,
    recipe: Recipe | None = None,
) -> Manifest:
    with database.read() as db:
        verified = audit.verify(db)
        rows, last_hash = (recipe.rows, recipe.last_hash) if recipe else verified
        if recipe:
            recipe.check_log(db)
        found = select(standing(db, asked.study, rows), asked)
        counts = _write_rows(db, folder, found, asked)
        erased = {v.comparison_id for v in found if is_erased(find_comparison(db, v.comparison_id))}
        told = Told(found, counts, filing.every(db), asked.asked(), licence, last_hash, len(erased))
        (folder / "README.md").write_text(card(told), encoding="utf-8")
        query = "SELECT count(*) FROM audit WHERE action = 'report' AND seq <= ?"
        problems = db.conn.execute(query, (rows,)).fetchone()[0]
        hashes = {name: _sha256(folder / name) for name in (*counts, "README.md")}
        if recipe:
            check_same(db, recipe, hashes, software.commit())
    content = {
        "schema": SCHEMA,
        "created_at": iso(database.clock()),
        "filter": asked.asked(),
        "license": licence,
        "counts": counts,
        "sha256": hashes,
        "erased_comparisons": len(erased),
        "reports_in_log": problems,
        "audit": {"rows": rows, "last_hash": last_hash},
        "commit": software.commit(),
        "pyarrow": parquet.version(),
    }
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return Manifest(counts, hashes, content)


def _write_rows(
    db: sqlite_utils.Database, folder: Path, found: list[VoteRow], asked: Selection
) -> dict[str, int]:
    """Write the tables and the training files; returns rows per file."""
    counts = dict.fromkeys((*JSONL, *_TABLES), 0)

    def table() -> Iterator[dict[str, Any]]:
        for vote in found:
            yield table_row(vote, find_comparison(db, vote.comparison_id))

    with (
        (folder / "votes.csv").open("w", encoding="utf-8-sig", newline="") as csv_file,
        (folder / "votes.jsonl").open("w", encoding="utf-8", newline="\n") as lines,
    ):
        writer = csv.writer(csv_file, quoting=csv.QUOTE_ALL)
        writer.writerow(TABLE_COLUMNS)
        for row in table():
            writer.writerow([_cell(row[name]) for name in TABLE_COLUMNS])
            lines.write(_line({name: row[name] for name in TABLE_COLUMNS}))
    counts["votes.csv"] = counts["votes.jsonl"] = len(found)
    counts["votes.parquet"] = parquet.write(folder / "votes.parquet", TABLE_COLUMNS, table())
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in JSONL
        }
        for vote in in_training(found, adjudicated=asked.adjudicated):
            for name, row in rows_of(vote, find_comparison(db, vote.comparison_id)):
                files[name].write(_line(row))
                counts[name] += 1
    return counts


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: Any) -> str:
    return safe_cell("" if value is None else str(value))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Bring a folder's files and its own listing to the disk."""
    for path in [*(p for p in folder.iterdir() if p.is_file()), folder]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    path = given.data / DEFAULT_NAME
    try:
        if not path.exists():
            raise RecordError(f"{path}: there is no record; start the app or name it with --data")
        with contextlib.closing(Store.open(path)) as store:
            manifest = _run(store, given)
    except (RecordError, OSError, sqlite3.Error) as error:
        print(f"nothing was exported: {error}", file=sys.stderr)
        return 1
    for name, count in manifest.counts.items():
        print(f"{count:6d}  {given.out / name}")
    log = manifest.content["audit"]
    print(f"log: {log['rows']} rows, last hash {log['last_hash']}")
    return 0


def _run(store: Store, given: argparse.Namespace) -> Manifest:
    if given.manifest is not None:
        return export_again(store.database, given.manifest, given.out, force=given.force)
    known = {s.name for s in store.studies()} | {v.study for v in store.votes()}
    if given.study is not None and given.study not in known:
        raise RecordError(f"{given.study}: no such study; there are {', '.join(sorted(known))}")
    return export(
        store.database, given.out, study=given.study, criterion=given.criterion,
        min_agreement=given.min_agreement, language=given.language, leaks=not given.without_leaks,
        adjudicated=given.adjudicated, licence=given.license, force=given.force,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reviews.export",
        description="Write the votes as TRL preference and KTO JSONL, Parquet and CSV with a data card.",
    )
    add = parser.add_argument
    add("--out", required=True, type=Path, help="the folder to make")
    add("--data", default=Path("data"), type=Path, help="the record's folder")
    add("--from", dest="manifest", type=Path, help="write the export of this manifest.json anew")
    add("--study", help="only this study")
    add("--criterion", help="take winners from the ratings of this criterion, such as diagnosis")
    add(
        "--min-agreement",
        type=float,
        help="least share of votes that agree on a comparison, 0 to 1",
    )
    add("--language", help="only comparisons in this language, such as zh")
    add("--without-leaks", action="store_true", help="leave out answers that name their model")
    add("--adjudicated", action="store_true", help="train on a senior's verdict where there is one")
    add("--license", default="other", help="the licence named on the data card (default: other)")
    add("--force", action="store_true", help="replace a folder that is not empty")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
