"""a study's report as files: report.html, report.json and a CSV behind each figure; also as one ZIP."""

import dataclasses
import io
import json
import math
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from huatuo.report import contents, methods, page
from huatuo.report.tables import to_csv
from huatuo.report.teller import Teller
from huatuo.ui.text import Language
from reviews import software
from reviews.findings import Findings

SCHEMA = 1


def figures(found: Findings, teller: Teller) -> dict[str, bytes]:
    """Every figure's CSV by file name, numbered in the report's order; headings are English."""
    sections = [s for chapter in contents.chapters(found, teller) for s in chapter.sections]
    return {
        f"{number:02d}_{section.key}.csv": to_csv(section.table)
        for number, section in enumerate(sections, 1)
        if section.table is not None
    }


def zipped(found: Findings, teller: Teller) -> bytes:
    """The figures' CSV files as one ZIP archive; the same findings give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in figures(found, teller).items():
            archive.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def as_json(found: Findings) -> str:
    """Every figure in full precision; what is not defined is null. Ends with a line end."""
    content = {"schema": SCHEMA, "software": software.used(), **_plain(found)}
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and moments as JSON has them; a number that is not finite is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: _plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(
    found: Findings, tellers: Mapping[Language, Teller], language: Language, out: Path
) -> list[Path]:
    """Write the folder `out` whole or not at all; returns the files, in order.

    Raises FileExistsError for a file or a folder that holds something else than a report; OSError.
    """
    if out.exists() and not _is_replaceable(out):
        raise FileExistsError(f"{out} exists and holds other files; name another folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.parent / f".{out.name}.{secrets.token_hex(4)}"
    try:
        (work / "figures").mkdir(parents=True)
        html = page.document(found, tellers, language)
        (work / "report.html").write_text(html, encoding="utf-8")
        (work / "report.json").write_text(as_json(found), encoding="utf-8")
        told = {key: methods.paragraph(found, teller) for key, teller in tellers.items()}
        for key, words in told.items():
            (work / f"methods.{key}.txt").write_text(words + "\n", encoding="utf-8")
        for name, body in figures(found, tellers[language]).items():
            (work / "figures" / name).write_bytes(body)
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sorted(path for path in out.rglob("*") if path.is_file())


def _is_replaceable(out: Path) -> bool:
    ours = {"report.html", "report.json", "methods.zh.txt", "methods.en.txt", "figures"}
    return out.is_dir() and {path.name for path in out.iterdir()} <= ours
