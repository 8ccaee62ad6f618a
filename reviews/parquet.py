"""rows as Parquet files with a fixed schema, through pyarrow.

The same rows give the same bytes with the same version of pyarrow, which an export's manifest names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

_BATCH = 2000  # rows of one row group
_NUMBERS = ("rater", "turns", "revisions", "better_turn")
_FRACTIONS = ("seconds", "probability")
_TRUTHS = ("identity_leak", "fast", "label", "better_consent")
_MESSAGES = ("prompt", "chosen", "rejected", "completion", "messages")


def write(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> int:
    """Write rows with these columns in this order; returns how many. Raises OSError, KeyError."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, _type(name, pyarrow)) for name in columns])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        told = iter(rows)
        while batch := list(islice(told, _BATCH)):
            picked = [{name: row[name] for name in columns} for row in batch]
            writer.write_table(pyarrow.Table.from_pylist(picked, schema=schema))
            count += len(picked)
    return count


def version() -> str:
    """The version that writes the bytes."""
    import pyarrow

    return str(pyarrow.__version__)


def _type(name: str, pyarrow: Any) -> Any:
    if name in _MESSAGES:
        return pyarrow.list_(
            pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
        )
    if name in _NUMBERS:
        return pyarrow.int64()
    if name in _FRACTIONS:
        return pyarrow.float64()
    return pyarrow.bool_() if name in _TRUTHS else pyarrow.string()
