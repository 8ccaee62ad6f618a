"""self-contained HTML reports: headings, tables, figures and samples in one file that needs no network and no script.

    page = Page("Reward model", "600 simulated votes")
    page.table(rows, ["measure", "value"])
    page.figure(curves(folder / "steps.csv", ["reward", "kl"]), "By step.")
    page.save(folder / "report.html")

Light or dark as the reader's system is, printable. Everything that is put in is escaped.
"""

import html
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from matplotlib.figure import Figure

from training.csv_log import CsvLog, read_columns
from training.plots import bars, curves, reliability, scatter, svg, wilson

__all__ = [
    "CsvLog", "Page", "bars", "curves", "read_columns", "reliability", "scatter", "svg", "wilson",
]  # fmt: skip

SHORT = 24
"""Characters of a cell that is not broken on a narrow screen, where its table scrolls by itself; longer ones are `long`."""
_INTERVAL = re.compile(r"[-+]?\d[\d.,]* \[[^\]]{1,24}\]( of \d+)?")
"""A value with its interval: never broken."""
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --paper: #fbfbf8; --panel: #ffffff; --muted: #5b6770;
  --line: #e3e5e0; --series-1: #0f766e; --series-2: #2a6f97; --series-3: #b45309; --series-4: #6b4e9b }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8e6; --paper: #14181a; --panel: #1b2023; --muted: #a2acb2;
  --line: #343b3f; --series-1: #45b8ab; --series-2: #6fb0d8; --series-3: #e0954a; --series-4: #b39ddb } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 40px 24px 96px; max-width: 880px; min-width: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.75 "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", system-ui, sans-serif;
  overflow-wrap: break-word }
h1 { font-size: 28px; line-height: 1.3; margin: 0 0 8px; font-weight: 600 }
h2 { font-size: 20px; margin: 48px 0 12px; font-weight: 600; break-after: avoid }
h3 { font-size: 16px; margin: 28px 0 8px; font-weight: 600; break-after: avoid }
p { margin: 0 0 12px; max-width: 68ch; white-space: pre-line }
.note { color: var(--muted) }
nav { border-block: 1px solid var(--line); padding: 8px 0; margin: 20px 0 0; font-size: 14px }
nav a { margin-right: 20px; display: inline-block; max-width: 100% }
a { color: var(--series-1) }
.wide { overflow-x: auto; margin: 12px 0 20px }
table { border-collapse: collapse; font-size: 14px; line-height: 1.5; min-width: 50% }
caption, figcaption { text-align: left; color: var(--muted); font-size: 13px; line-height: 1.6; padding: 4px 0 }
caption { position: sticky; left: 0; max-width: min(68ch, calc(100vw - 32px)) }
th, td { text-align: left; vertical-align: top; padding: 6px 20px 6px 0; border-bottom: 1px solid var(--line) }
th { color: var(--muted); font-weight: 600; border-bottom-color: var(--muted) }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.interval { font-variant-numeric: tabular-nums; white-space: nowrap }
td.long { min-width: 11em }
figure { margin: 16px 0 24px; break-inside: avoid; overflow-x: auto }
figure svg { display: block; width: 100%; height: auto; overflow: visible }
figure svg text { font-family: inherit !important }
.sample { border: 1px solid var(--line); border-radius: 8px; background: var(--panel); margin: 16px 0; break-inside: avoid }
.sample > header { padding: 12px 16px; border-bottom: 1px solid var(--line); color: var(--muted) }
.sample .text { white-space: pre-wrap; font-size: 15px }
.sample > .note { padding: 8px 16px; border-top: 1px solid var(--line); font-size: 13px; margin: 0; max-width: none }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)) }
.answers > div { padding: 12px 16px }
.answers > div + div { border-left: 1px solid var(--line) }
.answers h4 { margin: 0 0 4px; font-size: 13px; font-weight: 600; color: var(--muted); display: flex;
  justify-content: space-between; gap: 12px; flex-wrap: wrap }
.answers h4 span { font-weight: 400; font-variant-numeric: tabular-nums }
@media (min-width: 960px) { .wide { margin-right: calc(464px - 50vw) } }
@media (max-width: 640px) { figure svg { min-width: 520px } body { padding: 20px 16px 64px } .answers { grid-template-columns: 1fr }
  td.short { white-space: nowrap }
  .answers > div + div { border-left: 0; border-top: 1px solid var(--line) } }
@media print { body { max-width: none; padding: 0; font-size: 11pt } nav { display: none } .wide { overflow: visible; margin-right: 0 } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_MARKS = frozenset(
    [
        "svg",
        "g",
        "defs",
        "path",
        "line",
        "rect",
        "circle",
        "ellipse",
        "polyline",
        "polygon",
        "text",
        "tspan",
        "title",
        "desc",
        "use",
        "clipPath",
    ]
)
"""SVG elements that a figure may hold."""


class Page:
    """A report that grows from top to bottom. note: what the numbers are and are not; stands under the title."""

    def __init__(self, title: str, note: str = "") -> None:
        self.title = title
        self.note = note
        self._parts: list[str] = []
        self._headings: list[str] = []
        self._figures = 0

    def heading(self, text: str, level: int = 2) -> "Page":
        """A heading of level 2 or 3; those of level 2 make the list of contents."""
        anchor = ""
        if level == 2:
            self._headings.append(text)
            anchor = f' id="part-{len(self._headings)}"'
        return self._add(f"<h{level}{anchor}>{html.escape(text)}</h{level}>")

    def text(self, paragraph: str, *, note: bool = False) -> "Page":
        """A paragraph; line breaks are kept. note: in the quieter ink."""
        kind = ' class="note"' if note else ""
        return self._add(f"<p{kind}>{html.escape(paragraph)}</p>")

    def table(
        self,
        rows: Sequence[Mapping[str, Any] | Sequence[Any]],
        columns: Sequence[str] | Mapping[str, str] = (),
        caption: str = "",
    ) -> "Page":
        """Rows as mappings or sequences. columns: names, or key to heading; default: the first mapping's keys.

        Numbers stand right: floats with 4 significant digits, whole numbers with commas; None and NaN as a dash.
        """
        first = rows[0] if rows else {}
        if not columns and isinstance(first, Mapping):
            columns = list(first)
        names = list(columns.values()) if isinstance(columns, Mapping) else list(columns)
        keys = list(columns)
        lines = [
            [row.get(key) for key in keys] if isinstance(row, Mapping) else list(row)
            for row in rows
        ]
        numeric = [
            any(_is_number(line[place]) for line in lines if place < len(line))
            for place in range(len(names))
        ]
        head = "".join(
            f"<th{_number_class(right)}>{html.escape(str(name))}</th>"
            for name, right in zip(names, numeric, strict=True)
        )
        body = "".join(
            f"<tr>{''.join(map(_data_cell, line, [*numeric, *[False] * len(line)]))}</tr>"
            for line in lines
        )
        body = body or f'<tr><td colspan="{max(len(names), 1)}">–</td></tr>'
        title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        return self._add(
            f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def figure(self, drawing: Figure | str, caption: str = "") -> "Page":
        """A matplotlib figure or an <svg> element. Raises ValueError for SVG that holds script or outside references."""
        self._figures += 1
        drawn = (
            svg(drawing, f"f{self._figures}-") if isinstance(drawing, Figure) else drawing.strip()
        )
        _check_marks(drawn)
        label = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        name = html.escape(caption or f"figure {self._figures}", quote=True)
        drawn = drawn.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
        return self._add(f"<figure>{drawn}{label}</figure>")

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> "Page":
        """Answers side by side. A row: prompt (text, or messages of {role, content}), answers {name: text},
        scores {name: number, or {measure: number}} and note, the last two optional."""
        for row in rows:
            scores: Mapping[str, Any] = row.get("scores") or {}
            answers = "".join(
                f"<div><h4>{html.escape(str(name))}<span>{html.escape(_scores(scores.get(name)))}</span></h4>"
                f'<div class="text">{html.escape(str(text))}</div></div>'
                for name, text in dict(row["answers"]).items()
            )
            note = row.get("note") or ""
            note = f'<p class="note">{html.escape(str(note))}</p>' if note else ""
            self._add(
                f'<section class="sample"><header class="text">{html.escape(_prompt(row["prompt"]))}</header>'
                f'<div class="answers">{answers}</div>{note}</section>'
            )
        return self

    def html(self) -> str:
        """The whole document."""
        contents = "".join(
            f'<a href="#part-{number}">{html.escape(text)}</a> '
            for number, text in enumerate(self._headings, 1)
        )
        nav = f"<nav>{contents}</nav>" if len(self._headings) > 2 else ""
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        title = html.escape(self.title)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            f"<title>{title}</title><style>{_STYLE}</style></head>\n"
            f"<body><h1>{title}</h1>{note}{nav}\n" + "\n".join(self._parts) + "\n</body></html>\n"
        )

    def save(self, path: Path) -> Path:
        """Writes the file whole or not at all; returns the path. Raises OSError, the old file then stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.html().encode("utf-8", "replace").decode("utf-8"))
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        return path

    def _add(self, part: str) -> "Page":
        self._parts.append(part)
        return self


def _check_marks(drawing: str) -> None:
    """Raises ValueError unless the text is one <svg> of plain marks that refer to nothing but each other."""
    try:
        if not drawing.startswith("<svg") or "<!" in drawing or "<?" in drawing:
            raise ValueError
        for element in ElementTree.fromstring(drawing).iter():
            if element.tag.rpartition("}")[2] not in _MARKS:
                raise ValueError
            for name, value in element.attrib.items():
                name = name.rpartition("}")[2].lower()
                outside = (name == "href" and value[:1] != "#") or re.search(
                    r"(?i)url\(\s*[\"']?(?!#)|@import|\\", value
                )
                if name.startswith("on") or name == "src" or outside:
                    raise ValueError
    except (ValueError, ElementTree.ParseError):
        raise ValueError(
            "not a plain <svg> element: it holds script, style or outside references"
        ) from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_class(right: bool) -> str:
    return ' class="number"' if right else ""


def _data_cell(value: Any, right: bool) -> str:
    text = _shown(value)
    kind = _number_class(right)
    if not right and _INTERVAL.fullmatch(text):
        kind = ' class="interval"'
    elif not right:
        kind = ' class="short"' if len(text) <= SHORT else ' class="long"'
    return f"<td{kind}>{html.escape(text)}</td>"


def _shown(value: Any) -> str:
    """A value as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 and math.isfinite(value) else f"{value:.4g}"
    return str(value)


def _scores(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {_shown(score)}" for name, score in value.items())
    return "" if value is None else _shown(value)


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
