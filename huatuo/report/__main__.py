"""writes a study's report: report.html, report.json, the methods paragraph and a CSV behind each figure.

    python -m huatuo.report STUDY [--data FOLDER] [--language zh|en] [--out folder]
                                  [--judge NAME=verdicts.jsonl ...]

A judge's file has one JSON object a line: {"comparison": its id, or "case": the id in the study's
file, and "winner": a contestant's name, "tie" or "both_bad"}. Nothing is written for a study that
the record does not know or that has no vote.
"""

import argparse
import contextlib
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from huatuo.config import ROOT, read_models
from huatuo.errors import HuatuoError
from huatuo.report import contents, files
from huatuo.report.teller import Teller
from huatuo.ui.text import LANGUAGES, Language
from reviews import findings, reading
from reviews.database import DEFAULT_NAME
from reviews.errors import BadFile, BadStudy, RecordError
from reviews.reading import Reading
from reviews.store import Store


def titles(language: Language, models_dir: Path = ROOT / "configs" / "models") -> dict[str, str]:
    """Contestants' titles from configs/models; a file that cannot be read there is left out."""
    known, _ = read_models(models_dir)
    told = {name: m.title_zh if language == "zh" else m.title_en for name, m in known.items()}
    return {name: title for name, title in told.items() if title}


def read_verdicts(path: Path, read: Reading) -> dict[str, str]:
    """A judge's winners by comparison id, as filed; verdicts on what nobody voted on are passed over.

    Raises BadFile naming the line; OSError.
    """
    sides = {v.comparison_id: (v.contestant_a, v.contestant_b, v.external_id) for v in read.votes}
    verdicts: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = _row(path, number, line)
        meant = [
            (key, {a: "a", b: "b", "tie": "tie", "both_bad": "both_bad"})
            for key, (a, b, case) in sides.items()
            if row.get("comparison") == key or row.get("case") == case
        ]
        found = {key: names[row["winner"]] for key, names in meant if row["winner"] in names}
        if meant and not found:
            allowed = ", ".join(meant[0][1])
            why = f"winner must be {allowed}, not {row['winner']!r}"
            raise BadFile(str(path), f"line {number}", why)
        verdicts.update(found)
    return verdicts


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadFile(str(path), f"line {number}", f"not JSON ({error.msg})") from None
    if not isinstance(row, dict) or not isinstance(row.get("winner"), str):
        raise BadFile(str(path), f"line {number}", 'an object with "winner" is needed')
    if not row.get("comparison") and not row.get("case"):
        raise BadFile(str(path), f"line {number}", '"comparison" or "case" is needed')
    return row


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m huatuo.report", description="Write a study's report as HTML, CSV and JSON."
    )
    parser.add_argument("study", help="the study's name")
    parser.add_argument("--data", default=Path("data"), type=Path, help="the record's folder")
    parser.add_argument("--language", default="zh", choices=LANGUAGES, help="of the report (zh)")
    parser.add_argument("--out", type=Path, help="the folder to write (data/reports/STUDY)")
    parser.add_argument(
        "--judge", action="append", default=[], metavar="NAME=FILE", help="an AI judge's verdicts"
    )
    given = parser.parse_args(arguments)
    out = given.out or Path("data") / "reports" / given.study
    try:
        written = _write(given.study, given.data / DEFAULT_NAME, given.language, out, given.judge)
    except (RecordError, HuatuoError, OSError, sqlite3.Error) as error:
        print(f"no report was written: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


def _write(study: str, record: Path, language: Language, out: Path, judges: list[str]) -> list[Path]:  # fmt: skip
    if not record.exists():
        raise RecordError(
            f"{record}: there is no record; start the app or name its folder with --data"
        )
    with contextlib.closing(Store.open(record)) as store:
        read = reading.read(store, study)
        if not read.votes:
            raise BadStudy(f"{study}: no vote counts yet, so there is nothing to report; come back after the first votes")  # fmt: skip
        verdicts = {}
        for item in judges:
            name, mark, path = item.partition("=")
            if not name or not mark:
                raise BadFile(item, "--judge", "give it as NAME=FILE")
            verdicts[name] = read_verdicts(Path(path), read)
        found = findings.find(read, now=store.database.clock(), judges=verdicts)
    tellers = {key: Teller(titles(key), key) for key in LANGUAGES}
    written = files.write(found, tellers, language, out)
    for line in contents.summary(found, tellers[language]):
        print(line)
    return written


if __name__ == "__main__":
    raise SystemExit(main())
