"""the table behind a figure: columns and rows once, told as HTML cells and as a CSV safe from formulas."""

import csv
import html as escape
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from huatuo.report.teller import Teller
from reviews.export import safe_cell

Kind = Literal[
    "name", "text", "word", "count", "share", "score", "number", "time", "p", "rater", "why"
]
Cell = str | int | float | None

WORDS: tuple[Kind, ...] = ("name", "text", "word", "rater", "why")
_NUMBER = ' class="number"'


@dataclass(frozen=True)
class Column:
    """key: the CSV's heading, and what the page's heading is looked up by. kind: how cells are told.

    word: cells are keys of strings that begin with this, such as "report.standing.".
    """

    key: str
    kind: Kind
    word: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of raw values; None is not defined."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Section:
    """One figure of the report: plain sentences, drawings, the table, and what to be careful with."""

    key: str
    sentences: tuple[str, ...]
    drawings: tuple[str, ...] = ()
    table: Table | None = None
    cautions: tuple[str, ...] = ()


def make(columns: Sequence[tuple[str, Kind] | tuple[str, Kind, str]], rows: Sequence[Sequence[Cell]]) -> Table:  # fmt: skip
    """A table from (key, kind) or (key, kind, word) and rows."""
    return Table(tuple(Column(*column) for column in columns), tuple(tuple(row) for row in rows))


def to_html(table: Table, teller: Teller) -> str:
    """The table as HTML: an estimate and its interval in one cell, reasons only where one is given."""
    groups = _groups(table)
    head = "".join(_head(table.columns[group[0]], teller) for group in groups)
    body = "".join(
        "<tr>" + "".join(_cell(table, row, group, teller) for group in groups) + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _groups(table: Table) -> list[tuple[int, ...]]:
    """The columns' places, an estimate together with the two ends that follow it."""
    groups: list[tuple[int, ...]] = []
    keys = [column.key for column in table.columns]
    place = 0
    while place < len(keys):
        ends = [key.rpartition("_")[2] for key in keys[place + 1 : place + 3]]
        size = 3 if ends == ["low", "high"] else 1
        if table.columns[place].kind != "why" or any(row[place] for row in table.rows):
            groups.append(tuple(range(place, place + size)))
        place += size
    return groups


def to_csv(table: Table) -> bytes:
    """The table as CSV with English headings, full precision, empty cells for what is not defined.

    Text that a spreadsheet would take for a formula is made inert; numbers stay numbers. UTF-8
    with a byte order mark, since spreadsheets want it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_raw(cell) for cell in row])
    return out.getvalue().encode("utf-8-sig")


def _raw(cell: Cell) -> str:
    if cell is None:
        return ""
    return safe_cell(cell) if isinstance(cell, str) else repr(cell)


def _head(column: Column, teller: Teller) -> str:
    words = escape.escape(teller.say(f"report.column.{column.key}"))
    return f'<th scope="col"{"" if column.kind in WORDS else _NUMBER}>{words}</th>'


def _cell(table: Table, row: Sequence[Cell], group: Sequence[int], teller: Teller) -> str:
    column, cell = table.columns[group[0]], row[group[0]]
    if column.kind in WORDS:
        kind = ' class="why"' if column.kind == "why" else ""
        return f"<td{kind}>{escape.escape(_words(column, cell, teller))}</td>"
    told = [_number(column.kind, row[place], teller) for place in group]
    words = told[0]
    if len(told) == 3 and row[group[1]] is not None and cell is not None:
        words = teller.say("report.in_figure", value=told[0], range=teller.range(told[1], told[2]))
    return f"<td{_NUMBER}>{escape.escape(words)}</td>"


def _words(column: Column, cell: Cell, teller: Teller) -> str:
    if cell is None:
        return "—"
    if column.kind == "name":
        return teller.name(str(cell))
    if column.kind == "rater":
        return teller.rater(int(cell))
    if column.kind == "why":
        return teller.why(str(cell)) if cell else ""
    return teller.say(f"{column.word}{cell}") if column.kind == "word" else str(cell)


def _number(kind: Kind, cell: Cell, teller: Teller) -> str:
    if cell is None or isinstance(cell, str):
        return "—"
    if kind == "count":
        return f"{cell:,}"
    if kind == "share":
        return teller.percent(cell)
    if kind == "score":
        return teller.signed(cell)
    if kind == "time":
        return f"{cell:.1f}"
    return teller.p(cell) if kind == "p" else teller.plain(cell)
