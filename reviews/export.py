"""The votes as files for training and reading: TRL preference JSONL and CSV, with a manifest.

    python -m reviews.export --out exports/first [--data data] [--study NAME] [--force]

pairs.jsonl      one question: prompt, chosen, rejected as lists of {role, content}
dialogues.jsonl  several turns: chosen and rejected as whole conversations, without a prompt,
                 because after the first turn the two sides' contexts differ
ties.jsonl       "equally good": answer_a and answer_b as whole conversations
both_bad.jsonl   "both bad": the same shape
votes.csv        every vote with its reason, for people
manifest.json    counts, sha256 of each file, the filter and the log's last hash

Each vote stands in exactly one of the four JSONL files. Raters are numbers. Everything is
read in one transaction, in the order in which the pairs were given out, so the same record
gives the same bytes. A folder appears whole or not at all; an export of a record whose log
does not hold is refused.
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
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviews import audit, votes
from reviews.comparisons import find_comparison
from reviews.database import DEFAULT_NAME, Database
from reviews.errors import RecordError
from reviews.records import Comparison, Letter, VoteRow, iso
from reviews.store import Store

if TYPE_CHECKING:
    import sqlite_utils

SCHEMA = 1
JSONL = ("pairs.jsonl", "dialogues.jsonl", "ties.jsonl", "both_bad.jsonl")
CSV_COLUMNS = (
    "vote", "study", "kind", "rater", "case", "department", "intent", "language", "turns",
    "contestant_a", "contestant_b", "left_is", "choice", "winner", "reason", "ratings",
    "seconds", "revisions", "identity_leak", "at", "question", "answer_a", "answer_b",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "\0")

Messages = list[dict[str, str]]


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


def conversation(comparison: Comparison, side: Letter) -> Messages:
    """One side's whole conversation as messages."""
    said: Messages = []
    for turn in comparison.turns:
        answer = turn.a if side == "a" else turn.b
        said.append({"role": "user", "content": turn.asked(side)})
        said.append({"role": "assistant", "content": answer.text if answer else ""})
    return said


def record_of(vote: VoteRow, comparison: Comparison) -> tuple[str, dict[str, Any]]:
    """The JSONL file a vote belongs to, and its row there."""
    sides = {"a": conversation(comparison, "a"), "b": conversation(comparison, "b")}
    names = {"a": vote.contestant_a, "b": vote.contestant_b}
    facts: dict[str, Any] = {
        "vote": vote.assignment_id,
        "study": vote.study,
        "kind": vote.kind,
        "case": vote.external_id or vote.comparison_id,
        "rater": vote.rater,
        "department": vote.department,
        "intent": vote.intent,
        "language": vote.language,
        "source": vote.source,
        "left_is": vote.left_is,
        "ratings": audit.canonical(dict(vote.ratings)),
        "seconds": vote.seconds,
        "revisions": vote.revisions,
        "identity_leak": vote.identity_leak,
        "at": iso(vote.at),
    }
    if vote.winner not in ("a", "b"):
        told = {f"{key}_{side}": value[side] for key, value in
                (("answer", sides), ("model", names)) for side in "ab"}  # fmt: skip
        return ("ties.jsonl" if vote.winner == "tie" else "both_bad.jsonl"), {**told, **facts}
    won, lost = ("a", "b") if vote.winner == "a" else ("b", "a")
    facts["chosen_model"], facts["rejected_model"] = names[won], names[lost]
    if vote.turns > 1 or sides["a"][0] != sides["b"][0]:  # no common prompt
        both = {"chosen": sides[won], "rejected": sides[lost]}
        return "dialogues.jsonl", {**both, "pair_scope": "dialogue", **facts}
    asked = {"prompt": sides[won][:1], "chosen": sides[won][1:], "rejected": sides[lost][1:]}
    return "pairs.jsonl", {**asked, "pair_scope": "turn", **facts}


def export(
    database: Database, out: Path | str, *, study: str | None = None, force: bool = False
) -> Manifest:
    """Write the folder `out` whole or not at all.

    Raises AuditBroken when the log does not hold, FileExistsError when `out` is a file or a
    folder with something in it (with force=True the folder is replaced), OSError, Store*.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not force)):
        raise FileExistsError(f"{out} exists and is not empty; choose another folder or --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        manifest = _write_files(database, work, study)
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


def export_zip(database: Database, study: str | None = None) -> bytes:
    """The same files as one ZIP archive, for a download. Raises AuditBroken, Store*."""
    with tempfile.TemporaryDirectory() as folder:
        _write_files(database, Path(folder), study)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.write(path, path.name)
        return packed.getvalue()


def _write_files(database: Database, folder: Path, study: str | None) -> Manifest:
    counts = dict.fromkeys((*JSONL, "votes.csv"), 0)
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(database.read())
        verified = audit.verify(db)
        files = {
            name: stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in JSONL
        }
        csv_file = (folder / "votes.csv").open("w", encoding="utf-8-sig", newline="")
        table = csv.writer(stack.enter_context(csv_file), quoting=csv.QUOTE_ALL)
        table.writerow(CSV_COLUMNS)
        for vote, comparison in _judged(db, study):
            name, row = record_of(vote, comparison)
            files[name].write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            table.writerow(_csv_row(vote, row, comparison))
            counts[name] += 1
            counts["votes.csv"] += 1
        problems = db["audit"].count_where("action = 'report'")
    hashes = {name: _sha256(folder / name) for name in counts}
    content = {
        "schema": SCHEMA,
        "created_at": iso(database.clock()),
        "filter": {"study": study, "revision": "last"},
        "counts": counts,
        "sha256": hashes,
        "reports_in_log": problems,
        "audit": {"rows": verified.rows, "last_hash": verified.last_hash},
        "commit": _commit(),
    }
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return Manifest(counts, hashes, content)


def _judged(db: sqlite_utils.Database, study: str | None) -> Iterator[tuple[VoteRow, Comparison]]:
    for vote in votes.rows(db, study):
        yield vote, find_comparison(db, vote.comparison_id)


def _csv_row(vote: VoteRow, row: dict[str, Any], comparison: Comparison) -> list[str]:
    def said(side: Letter, role: str) -> str:
        texts = [m["content"] for m in conversation(comparison, side) if m["role"] == role]
        return "\n\n".join(texts)

    cells: dict[str, Any] = {
        **{name: row.get(name) for name in CSV_COLUMNS},
        "turns": vote.turns,
        "contestant_a": vote.contestant_a,
        "contestant_b": vote.contestant_b,
        "choice": vote.choice,
        "winner": vote.winner,
        "reason": vote.reason,
        "question": said("a", "user"),
        "answer_a": said("a", "assistant"),
        "answer_b": said("b", "assistant"),
    }
    return [safe_cell("" if cells[name] is None else str(cells[name])) for name in CSV_COLUMNS]


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


def _commit() -> str | None:
    """The project's git commit, with `+` when files were changed; None when unknown."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, timeout=10)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if head.returncode or changed.returncode:
        return None
    return head.stdout.decode().strip() + ("+" if changed.stdout.strip() else "")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reviews.export",
        description="Write the votes as TRL preference JSONL and CSV.",
    )
    parser.add_argument("--out", required=True, type=Path, help="the folder to make")
    parser.add_argument("--data", default=Path("data"), type=Path, help="the record's folder")
    parser.add_argument("--study", help="only this study")
    parser.add_argument("--force", action="store_true", help="replace a folder that is not empty")
    given = parser.parse_args(arguments)
    path = given.data / DEFAULT_NAME
    try:
        if not path.exists():
            raise RecordError(f"{path}: there is no record; start the app or name it with --data")
        with contextlib.closing(Store.open(path)) as store:
            known = {s.name for s in store.studies()} | {v.study for v in store.votes()}
            if given.study is not None and given.study not in known:
                raise RecordError(
                    f"{given.study}: no such study; there are {', '.join(sorted(known))}"
                )
            manifest = export(store.database, given.out, study=given.study, force=given.force)
    except (RecordError, OSError, sqlite3.Error) as error:
        print(f"nothing was exported: {error}", file=sys.stderr)
        return 1
    for name, count in manifest.counts.items():
        print(f"{count:6d}  {given.out / name}")
    print(
        f"log: {manifest.content['audit']['rows']} rows, last hash {manifest.content['audit']['last_hash']}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
