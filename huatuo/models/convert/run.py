"""one conversion: a child process reads and writes, this one waits, checks what was written and names it.

OUT appears whole or not at all. Until then everything stands in `.OUT.partial` beside it, and a second call goes on
there.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huatuo import errors
from huatuo.errors import CheckpointError, Damaged
from huatuo.models import checkpoint, registry
from huatuo.models.convert.adapters import WEIGHTS as ADAPTER
from huatuo.models.convert.shards import JOURNAL

ROOT = Path(__file__).resolve().parents[3]
SHARD_BYTES = 1_000_000_000
"""Largest file that is written, unless a tensor is larger; a kill costs at most the work of two."""
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from huatuo.models.convert.child import main; import json; " \
    "sys.exit(main(json.loads(sys.argv[1])))"  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What was done. kept: shards that an earlier, broken run had finished. network: how it was cut for the reader."""

    out: Path
    layout: str
    tensors: int
    bytes: int
    shards: int
    kept: int
    seconds: float
    network: str
    sha256: str
    """Of the weights, as `sha256` in a model's file says it."""
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    *,
    layout: str = "",
    base: Path | None = None,
    new_vocabulary: bool = False,
    shard_bytes: int = SHARD_BYTES,
    quiet: bool = False,
) -> Report:
    """Writes `out`, a folder of safetensors with manifest, from a downloaded folder; goes on where an earlier call broke off.

    layout: '' to detect it. base: the model that a delta is added to, or that an adapter is for. new_vocabulary: for
    ChatGLM-6B of the old one. Raises Damaged, Untrusted, Mismatch (naming file or tensor) or CheckpointError (disk).
    """
    began = time.monotonic()
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: is there already and not empty; name a new folder")
    if out == source.absolute() or (base is not None and out == base.absolute()):
        raise CheckpointError(f"{out}: is the source itself; name a new folder")
    request = {
        "source": str(source.absolute()),
        "base": str(base.absolute()) if base is not None else "",
        "layout": layout,
        "new_vocabulary": new_vocabulary,
        "shard_bytes": shard_bytes,
        "quiet": quiet,
    }
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            said = _in_a_child({**request, "partial": str(partial)})
            sha256 = _check(partial)
            _name(partial, out)
    except errors.HuatuoError:
        with suppress(OSError):
            if not (partial / JOURNAL).exists():  # nothing finished that a later call could keep
                shutil.rmtree(partial)
        raise
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or out}: {error.strerror or error}; nothing was named {out.name}"
        ) from None
    keys = ("layout", "tensors", "bytes", "shards", "kept", "network")
    rest: dict[str, Any] = {key: said[key] for key in keys}
    rest |= {key: tuple(said[key]) for key in ("notes", "left_out")}
    return Report(out=out, sha256=sha256, seconds=time.monotonic() - began, **rest)


def _in_a_child(request: dict[str, Any]) -> dict[str, Any]:
    """The child's answer. It starts with no environment, no input and no open files of ours."""
    command = [sys.executable, "-I", "-B", "-c", _START, str(ROOT), json.dumps(request)]
    done = subprocess.run(
        command,
        env={"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise CheckpointError(
            f"{request['source']}: the reading process ended with {how}; run the same command again: finished shards are kept"
        )
    said: dict[str, Any] = json.loads(done.stdout)
    if "error" in said:
        kind = getattr(errors, said["error"], CheckpointError)
        raise kind(said["message"])
    return said


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """Raises CheckpointError while another conversion writes the same folder; a killed one's child gets a moment to go."""
    handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for attempt in range(20):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 19:
                    raise CheckpointError(
                        f"{partial}: another conversion is writing it; wait for it"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _check(partial: Path) -> str:
    """sha256 of the weights, after the folder was found whole and without code; the child read every byte back.

    Raises Damaged, Untrusted.
    """
    registry.refuse_untrusted(partial)
    adapter = partial / ADAPTER
    files = [adapter] if adapter.is_file() else registry.weight_files(partial)
    named = checkpoint.read_manifest(partial)["files"]
    for file in files:
        registry.check_safetensors(file)
    for name, entry in named.items():
        if (partial / name).stat().st_size != entry["bytes"]:
            raise Damaged(
                f"{partial / name}: {entry['bytes']:,} bytes were written, other than stand there"
            )
    hashes = [named[file.name]["sha256"] for file in files]
    if len(hashes) == 1:
        return str(hashes[0])
    lines = "".join(f"{file.name} {one}\n" for file, one in zip(files, hashes, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _name(partial: Path, out: Path) -> None:
    """The partial folder becomes OUT, on the disk too."""
    partial.chmod(0o755)
    for path in partial.iterdir():
        path.chmod(0o644)
    _sync(partial)
    os.replace(partial, out)
    _sync(out.parent)


def _sync(folder: Path) -> None:
    for path in [*(one for one in folder.iterdir() if folder.name.endswith(".partial")), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
