"""the published numbers of the paper's tables, each with the model, data set, convention and source they belong to.

They stand in published.toml as they were printed. A report shows them beside ours and never ranks the two together: the
models are others, and parts of the conventions are not published.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from huatuo.errors import ConfigError
from huatuo.toml import Settings, read_toml

FILE = Path(__file__).with_suffix(".toml")
Numbers = Annotated[tuple[float, ...], Field(strict=False)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]


class Row(Settings):
    """One line of a table. benchmark: a set of training/benchmarks.py, or med-dialog. values: one per column."""

    benchmark: str
    model: str
    values: Numbers
    label: str = ""


class Table(Settings):
    """One published table. scale: what a share of ours is multiplied by to be written as theirs."""

    id: str
    title: str
    source: str
    kind: Literal["metrics", "choice", "points", "ratio", "wins"]
    convention: str
    note: str
    columns: Texts
    scale: float = 1.0
    rows: Annotated[tuple[Row, ...], Field(strict=False)]

    def of(self, benchmark: str) -> tuple[Row, ...]:
        """The rows about a set."""
        return tuple(row for row in self.rows if row.benchmark == benchmark)


class Published(Settings):
    """All tables."""

    table: Annotated[tuple[Table, ...], Field(strict=False)]


def read_published(path: Path = FILE) -> tuple[Table, ...]:
    """The tables. Raises ConfigError for a damaged file or a row without one value per column."""
    tables = read_toml(path, Published).table
    for table in tables:
        for row in table.rows:
            if len(row.values) != len(table.columns):
                raise ConfigError(
                    f"{path.name}: {table.id}: {row.model}: {len(row.values)} values, {len(table.columns)} columns"
                )
    return tables


def beside(benchmark: str) -> list[dict[str, Any]]:
    """The published tables about a set, for JSON; empty if there are none. Never to be ranked with ours."""
    found = []
    for table in read_published():
        if rows := table.of(benchmark):
            about = table.model_dump(exclude={"rows"})
            found.append(about | {"rows": [row.model_dump() for row in rows]})
    return found
