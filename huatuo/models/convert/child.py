"""the process that reads: walls first, then plan, checks, shards and manifest; it answers with one line of JSON."""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from huatuo.errors import CheckpointError, HuatuoError, Mismatch
from huatuo.models import checkpoint
from huatuo.models.convert import cage
from huatuo.models.convert.layouts import plan
from huatuo.models.convert.plan import Plan, are_equal
from huatuo.models.convert.shards import (
    FORMAT,
    JOURNAL,
    Journal,
    Shard,
    clear,
    index_of,
    shards_of,
    write_shards,
)
from huatuo.models.convert.source import Source, read_source


def main(request: dict[str, Any]) -> int:
    """Does what the request asks for and writes the answer to stdout. Returns the exit status."""
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    partial = Path(request["partial"])
    try:
        network = cage.enter(partial)
        said = {**work(request, partial), "network": network}
    except HuatuoError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    except OSError as error:
        said = {"error": "CheckpointError", "message": _disk(error, partial)}
    except MemoryError:
        said = {
            "error": "CheckpointError",
            "message": "the memory does not suffice; close other programs, run it again",
        }
    os.write(answer, json.dumps(said).encode())
    return 0


def work(request: dict[str, Any], partial: Path) -> dict[str, Any]:
    """Reads, checks, writes; returns what was done. Raises HuatuoError, OSError."""
    began = time.monotonic()
    source = read_source(Path(request["source"]))
    base = read_source(Path(request["base"])) if request["base"] else None
    made = plan(source, base, layout=request["layout"], new_vocabulary=request["new_vocabulary"])
    for one, other in made.same:
        if not are_equal(one, other):
            raise Mismatch(
                f"{one.file}: tensor {one.name} is not equal to {other.name}, which takes its place"
            )
    shards = shards_of(made.makes, request["shard_bytes"], made.weights)
    journal = Journal.open(partial, _key(made, source, base, request))
    total = sum(shard.nbytes for shard in shards)
    _check_room(partial, shards, journal)
    with tqdm(
        total=total, unit="B", unit_scale=True, desc=made.layout, disable=request["quiet"]
    ) as bar:
        kept = write_shards(shards, partial, journal, bar.update)
    _write_texts(made, shards, partial)
    _write_manifest(made, source, base, shards, journal)
    (partial / JOURNAL).unlink(missing_ok=True)
    return {
        "layout": made.layout,
        "tensors": len(made.makes),
        "bytes": total,
        "kept": kept,
        "shards": len(shards),
        "seconds": time.monotonic() - began,
        "notes": made.notes,
        "left_out": made.left_out,
    }


def _key(made: Plan, source: Source, base: Source | None, request: dict[str, Any]) -> str:
    """A digest of the plan and of the state of every file that it reads."""
    files = [*source.files, *(base.files if base is not None else ())]
    states = [(str(f), f.stat().st_size, f.stat().st_mtime_ns, f.stat().st_ino) for f in files]
    whole = repr((FORMAT, made.layout, made.makes, states, request["shard_bytes"]))
    return hashlib.sha256(whole.encode()).hexdigest()


def _check_room(partial: Path, shards: list[Shard], journal: Journal) -> None:
    """Raises CheckpointError if the disk has less room than what is still to be written."""
    left = sum(shard.nbytes for shard in shards if shard.name not in journal.shards)
    free = shutil.disk_usage(partial).free
    if left > free:
        raise CheckpointError(
            f"{partial.parent}: {left / 1e9:,.1f} GB are to be written, {free / 1e9:,.1f} GB are free; free some space"
        )


def _write_texts(made: Plan, shards: list[Shard], partial: Path) -> None:
    texts = dict(made.texts)
    if len(shards) > 1:
        texts[f"{made.weights}.index.json"] = index_of(shards)
    clear(partial, {JOURNAL, *(shard.name for shard in shards)})
    for name, text in texts.items():
        (partial / name).write_text(text, encoding="utf-8")
    for name, path in made.copies.items():
        if name not in texts:
            (partial / name).write_bytes(path.read_bytes())


def _write_manifest(
    made: Plan, source: Source, base: Source | None, shards: list[Shard], journal: Journal
) -> None:
    """As `checkpoint.save_manifest`, with the sha256 of what was written: who reads the files back proves them."""
    partial = journal.path.parent
    names = {shard.name for shard in shards}
    files = {name: journal.shards[name] for name in sorted(names)}
    for path in sorted(partial.iterdir()):
        if path.name not in names and path.name not in (JOURNAL, checkpoint.MANIFEST):
            files[path.name] = {"sha256": checkpoint.sha256_of(path), "bytes": path.stat().st_size}
    hashes = {
        file: journal.sources.get(str(file)) or checkpoint.sha256_of(file) for file in source.files
    }
    small = [source.folder / name for name in ("config.json", "adapter_config.json", *made.copies)]
    hashes |= {path: checkpoint.sha256_of(path) for path in small if path.is_file()}
    manifest: dict[str, Any] = {
        "format": checkpoint.FORMAT,
        "source": {
            "layout": made.layout,
            "files": {file.name: sha256 for file, sha256 in hashes.items()},
            "left_out": made.left_out,
        },
    }
    if base is not None:
        theirs = {
            f.name: journal.sources.get(str(f)) or checkpoint.sha256_of(f) for f in made.parents
        }
        manifest["parents"] = {"base": {"folder": base.folder.name, "files": theirs}}
    manifest["files"] = files
    (partial / checkpoint.MANIFEST).write_text(
        json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


def _disk(error: OSError, partial: Path) -> str:
    if error.errno is None:
        return f"{error}; nothing was executed"
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    what = "free some space" if full else "mend that"
    return (
        f"{error.filename or partial}: {error.strerror or error}; {what}, then run the same command again: finished "
        "shards are kept"
    )


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
