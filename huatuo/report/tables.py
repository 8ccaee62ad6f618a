"""the table behind a figure: columns and rows once, told as HTML cells and as a CSV safe from formulas."""

import csv
import html as escape
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from huatuo.report.teller import Teller
from reviews.export import safe_cell

Kind = Literal["name", "text", "word", "count", "share", "score", "number", "p", "rater", "why"]
Cell = str | int | float | None


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
    """The table as HTML; the columns of reasons only where a reason is given."""
    used = [
        place
        for place, column in enumerate(table.columns)
        if column.kind != "why" or any(row[place] for row in table.rows)
    ]
    head = "".join(_head(table.columns[place], teller) for place in used)
    body = "".join(
        "<tr>" + "".join(_cell(table.columns[p], row[p], teller) for p in used) + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


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
    number = "" if column.kind in ("name", "text", "word", "rater", "why") else ' class="number"'
    return f'<th scope="col"{number}>{words}</th>'


def _cell(column: Column, cell: Cell, teller: Teller) -> str:
    if column.kind in ("name", "text", "word", "rater", "why"):
        return f"<td>{escape.escape(_words(column, cell, teller))}</td>"
    return f'<td class="number">{escape.escape(_number(column.kind, cell, teller))}</td>'


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
    told = {
        "count": lambda x: f"{x:,}",
        "share": teller.percent,
        "score": teller.signed,
        "number": lambda x: f"{x:.2f}",
        "p": teller.p,
    }
    return told[kind](cell)
