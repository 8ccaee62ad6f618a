"""one row of figures per step in a CSV file that survives a stop: the log every stage's curves are drawn from."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

STEP = "step"


class CsvLog:
    """Appends rows to `path`; the header is `step` and the names of the first row, or `columns`.

    after: the step a run goes on from. Rows of later steps, and a last row that was cut off, are removed first, so
    that a resumed run writes the same file as one that never stopped. None: a fresh file.
    """

    def __init__(
        self, path: Path, columns: Sequence[str] = (), *, after: int | None = None
    ) -> None:
        self.path = path
        self._columns: tuple[str, ...] = tuple(columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        if after is None:
            path.unlink(missing_ok=True)
        elif path.exists():
            self._cut(after)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names after `step`; empty before the first row."""
        return self._columns

    def append(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Writes one row and flushes it. A name that is missing, or None, leaves its cell empty.

        Raises ValueError for a name that the header lacks.
        """
        fresh = not self.path.exists()
        if not self._columns:
            self._columns = tuple(figures)
        unknown = [name for name in figures if name not in self._columns]
        if unknown:
            raise ValueError(f"{self.path.name}: no column {unknown[0]}; name it in `columns`")
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow([STEP, *self._columns])
            writer.writerow([step, *(_cell(figures.get(name)) for name in self._columns)])

    def _cut(self, after: int) -> None:
        with self.path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if not header:
            self.path.unlink()
            return
        self._columns = tuple(header[1:])
        kept = [row for row in rows if len(row) == len(header) and _step(row[0], after)]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *kept])
        os.replace(temporary, self.path)


def read_columns(path: Path) -> dict[str, list[float]]:
    """The file's columns by name, rows in order; an empty or unreadable cell is NaN. Raises OSError."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: [_number(row[name]) for row in rows] for name in (rows[0] if rows else ()) if name
    }


def _cell(value: float | None) -> str:
    """Exact: repr gives back the same float."""
    return "" if value is None else repr(value) if isinstance(value, int) else repr(float(value))


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _step(text: str, after: int) -> bool:
    return text.isdecimal() and int(text) <= after
