"""an earlier export's manifest as a recipe, and why the record may no longer give its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviews import parquet
from reviews.asof import Selection, log_hash
from reviews.errors import BadFile, RecordError

if TYPE_CHECKING:
    import sqlite_utils


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a manifest asks for. rows, last_hash: the state of the log. manifest: the file's own bytes."""

    asked: Selection
    licence: str
    rows: int
    last_hash: str
    sha256: Mapping[str, str]
    content: dict[str, Any]
    manifest: bytes

    def check_log(self, db: sqlite_utils.Database) -> None:
        """Raises RecordError when this record's log never was in that state."""
        found = log_hash(db, self.rows)
        if found is None:
            raise RecordError(
                f"the export was made when the log had {self.rows} rows, this record has fewer; "
                "it is another record or an older backup"
            )
        if found != self.last_hash:
            raise RecordError(
                f"row {self.rows} of this record's log is not the one of the export; it is another record"
            )


def read_recipe(path: Path) -> Recipe:
    """The recipe in a manifest.json. Raises BadFile naming the file and what is wrong."""
    try:
        raw = path.read_bytes()
        said: dict[str, Any] = json.loads(raw)
        keys = {field.name for field in fields(Selection)}
        if not keys <= set(said["filter"]):
            raise BadFile(str(path), "filter", "made by an older version that keeps no recipe")
        asked = Selection(**{key: said["filter"][key] for key in keys})
        rows, last_hash = said["audit"]["rows"], said["audit"]["last_hash"]
        if not isinstance(rows, int) or rows < 0:
            raise BadFile(str(path), "audit", "rows must be a number of rows")
        return Recipe(asked, str(said["license"]), rows, last_hash, dict(said["sha256"]), said, raw)
    except OSError as error:
        raise BadFile(str(path), "", f"cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BadFile(str(path), "", f"this is no manifest of an export: {error!r}") from error


def check_same(
    db: sqlite_utils.Database, recipe: Recipe, sha256: Mapping[str, str], commit: str | None
) -> None:
    """Raises RecordError naming the files that came out otherwise and every known reason."""
    other = [name for name, digest in recipe.sha256.items() if sha256.get(name) != digest]
    if not other:
        return
    why = []
    query = "SELECT DISTINCT subject FROM audit WHERE action = 'erase' AND seq > ?"
    erased = [row[0] for row in db.conn.execute(query, (recipe.rows,))]
    if erased:
        why.append(f"texts were erased since ({', '.join(erased)}) and do not come back")
    if recipe.content.get("pyarrow") != parquet.version():
        why.append(f"pyarrow is {parquet.version()}, was {recipe.content.get('pyarrow')}")
    if recipe.content.get("commit") != commit:
        why.append(f"the program is at commit {commit}, was {recipe.content.get('commit')}")
    raise RecordError(
        f"{', '.join(other)} would differ from the export: "
        + ("; ".join(why) or "no reason is known; keep the old files")
    )
