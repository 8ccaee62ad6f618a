"""a plan's tensors into safetensors shards: streamed, hashed on the way, kept after a kill.

Each is read back and compared with the source; then a journal beside the shards names it, with the sha256 that was
computed while it was written. A later run keeps what still has its sha256 and goes on with the rest.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huatuo.errors import Damaged
from huatuo.models.checkpoint import sha256_of
from huatuo.models.convert.cage import SCRATCH
from huatuo.models.convert.pickles import BYTES
from huatuo.models.convert.plan import Make, pieces_of
from huatuo.models.convert.source import RING

JOURNAL = "journal.json"
FORMAT = 1
_SYNCED = 64 << 20
"""Bytes after which what was written is brought to the disk."""
Tick = Callable[[int], object]


@dataclass(frozen=True)
class Shard:
    """A file and its tensors, the wider dtypes first, so that each lies where its numbers may."""

    name: str
    makes: tuple[Make, ...]

    @property
    def nbytes(self) -> int:
        return sum(make.nbytes for make in self.makes)


@dataclass
class Journal:
    """What is finished. key: of the plan and the very source files; another plan starts anew."""

    path: Path
    key: str
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """sha256 of a source file by its path."""

    @classmethod
    def open(cls, folder: Path, key: str) -> "Journal":
        """The folder's journal if it is of this plan, else an empty one, and an empty folder."""
        path = folder / JOURNAL
        try:
            said = json.loads(path.read_bytes())
            if (
                said["key"] == key
                and isinstance(said["shards"], dict)
                and isinstance(said["sources"], dict)
            ):
                return cls(path, key, said["shards"], said["sources"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        clear(folder, {SCRATCH})
        return cls(path, key)

    def save(self) -> None:
        """Writes the journal whole or not at all."""
        text = json.dumps({"key": self.key, "shards": self.shards, "sources": self.sources})
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.path)


def clear(folder: Path, kept: set[str]) -> None:
    """Removes from a folder whatever has none of these names."""
    for old in folder.iterdir():
        if old.name not in kept:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def shards_of(makes: Sequence[Make], limit: int, whole: str = "model.safetensors") -> list[Shard]:
    """The tensors in the source's order, in files of at most `limit` bytes unless one tensor has more."""
    groups: list[list[Make]] = [[]]
    for make in makes:
        if groups[-1] and sum(one.nbytes for one in groups[-1]) + make.nbytes > limit:
            groups.append([])
        groups[-1].append(make)
    ordered = [tuple(sorted(group, key=lambda make: -BYTES[make.dtype])) for group in groups]
    if len(ordered) == 1:
        return [Shard(whole, ordered[0])]
    stem = whole.removesuffix(".safetensors")
    return [
        Shard(f"{stem}-{i:05d}-of-{len(ordered):05d}.safetensors", group)
        for i, group in enumerate(ordered, 1)
    ]


def write_shards(shards: Sequence[Shard], folder: Path, journal: Journal, tick: Tick) -> int:
    """Writes what is missing; returns how many shards an earlier run had finished. tick: told the bytes done.

    A file of the source is hashed beside, while its tensors are read. Raises OSError, and Damaged as `pieces_of`.
    """
    kept = 0
    with ThreadPoolExecutor(3) as pool, ThreadPoolExecutor(1) as in_order:
        hashes: dict[str, Future[str]] = {}
        ending: Future[None] | None = None
        for shard in shards:
            if _is_kept(folder / shard.name, journal.shards.get(shard.name)):
                tick(shard.nbytes)
                kept += 1
                continue
            for file in dict.fromkeys(
                str(one.file) for m in shard.makes for one in (m.of, m.other) if one
            ):
                if file not in journal.sources and file not in hashes:
                    hashes[file] = pool.submit(sha256_of, Path(file))
            stream, digest = _write(shard, folder, (in_order, pool), tick)
            if ending is not None:
                ending.result()
            for file in [file for file, one in hashes.items() if one.done()]:
                journal.sources[file] = hashes.pop(file).result()
            ending = pool.submit(_end, stream, shard, digest, journal)
        if ending is not None:
            ending.result()
        journal.sources |= {file: one.result() for file, one in hashes.items()}
    return kept


def index_of(shards: Sequence[Shard]) -> str:
    """The text of model.safetensors.index.json."""
    table = {make.name: shard.name for shard in shards for make in shard.makes}
    total = sum(shard.nbytes for shard in shards)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": table}, indent=2) + "\n"


def _is_kept(path: Path, entry: dict[str, Any] | None) -> bool:
    if entry is None or not path.is_file() or path.stat().st_size != entry.get("bytes"):
        return False
    return sha256_of(path) == entry.get("sha256")


def _write(
    shard: Shard, folder: Path, pools: tuple[ThreadPoolExecutor, ThreadPoolExecutor], tick: Tick
) -> tuple[Any, str]:
    """(the open file, sha256 of what was written). Beside the writing one thread hashes the bytes in order, and one
    brings them to the disk now and then, so that little is left to wait for at the end."""
    in_order, beside = pools
    head = header_of(shard)
    digest = hashlib.sha256(head)
    stream = (folder / shard.name).open("wb", buffering=0)
    hashing: list[Future[None]] = []
    syncing: Future[None] | None = None
    try:
        _write_all(stream, head)
        waiting = 0
        for piece in (piece for make in shard.makes for piece in pieces_of(make)):
            hashing.append(in_order.submit(digest.update, piece))
            _write_all(stream, piece)
            tick(len(piece))
            waiting += len(piece)
            if waiting >= _SYNCED and (syncing is None or syncing.done()):
                syncing, waiting = beside.submit(os.fdatasync, stream.fileno()), 0
            if len(hashing) > RING // 2:
                hashing.pop(0).result()
        for one in [*hashing, *([syncing] if syncing is not None else [])]:
            one.result()
    except BaseException:
        wait([*hashing, *([syncing] if syncing is not None else [])])
        stream.close()
        raise
    return stream, digest.hexdigest()


def header_of(shard: Shard) -> bytes:
    """The head of a safetensors file: the length, then names, dtypes, shapes and places as JSON."""
    place = 0
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for make in shard.makes:
        end = place + make.nbytes
        table[make.name] = {
            "dtype": make.dtype,
            "shape": list(make.shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_all(stream: Any, piece: Any) -> None:
    view = memoryview(piece)
    while view:
        view = view[stream.write(view) :]


def is_as_planned(path: Path, shard: Shard) -> bool:
    """Whether a file holds, byte for byte, what the source gives when it is read once more."""
    with path.open("rb", buffering=0) as stream:
        head = header_of(shard)
        if stream.read(len(head)) != head:
            return False
        buffer = bytearray()
        for make in shard.makes:
            for piece in pieces_of(make):
                if len(buffer) != len(piece):
                    buffer = bytearray(len(piece))
                if stream.readinto(buffer) != len(piece) or buffer != piece:
                    return False  # a bytearray compares bytes at once, a memoryview one by one
        return not stream.read(1)


def _end(stream: Any, shard: Shard, digest: str, journal: Journal) -> None:
    """The shard is on the disk, read back and compared, then in the journal. Raises Damaged, OSError."""
    with stream:
        os.fsync(stream.fileno())
        size = stream.tell()
    path = journal.path.parent / shard.name
    if not is_as_planned(path, shard):
        raise Damaged(f"{path}: holds other bytes than were to be written; check disk and memory")
    journal.shards[shard.name] = {"sha256": digest, "bytes": size}
    journal.save()
