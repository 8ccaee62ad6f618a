"""a downloaded folder: which of its files hold the weights, and where in them each tensor's bytes lie."""

import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huatuo.errors import Damaged, Mismatch, Untrusted
from huatuo.models import registry
from huatuo.models.convert.pickles import BYTES, tensors_in

CHUNK = 1 << 20
"""Bytes that are read at once: they still stand in the processor's cache when they are hashed and written."""
RING = 16
MAX_JSON = 64 << 20
_INDEXED = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Tensor:
    """A tensor's bytes in a file: rows without gaps, little-endian. dtype: safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * BYTES[self.dtype]


@dataclass(frozen=True)
class Source:
    """What was downloaded. files: those with weights, in order."""

    folder: Path
    config: dict[str, Any]
    """Of config.json, {} if there is none."""
    adapter: dict[str, Any]
    """Of adapter_config.json, {} if there is none."""
    files: tuple[Path, ...]
    tensors: dict[str, Tensor] = field(repr=False)


def read_source(folder: Path) -> Source:
    """Names, shapes and places of a folder's tensors; the weights themselves are not read.

    Raises Damaged (missing shards, short files), Untrusted (payloads, files outside the folder) or Mismatch.
    """
    if not folder.is_dir():
        raise Damaged(f"{folder}: no such folder; name the folder that was downloaded")
    config, adapter = (_config(folder, name) for name in ("config.json", "adapter_config.json"))
    if not config and not adapter:
        raise Damaged(f"{folder / 'config.json'}: missing; the folder is no downloaded model")
    files, index = _weight_files(folder, bool(adapter))
    tensors: dict[str, Tensor] = {}
    for file in files:
        for tensor in _tensors_of(file):
            if tensor.name in tensors:
                raise Damaged(
                    f"{file}: tensor {tensor.name} stands in another file too; remove the files of one kind"
                )
            tensors[tensor.name] = tensor
    for name, shard in index.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise Damaged(
                f"{folder / shard}: tensor {name} is missing, which the index says it holds; download it again"
            )
    return Source(folder, config, adapter, tuple(files), tensors)


def inside(folder: Path, name: str) -> Path:
    """The file of that name. Raises Untrusted if it leads out of the folder (the hub's own cache of blobs may), Damaged."""
    if not name or "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
        raise Untrusted(f"{folder}: names {name!r}, which is no file of the folder")
    path = folder / name
    real = path.resolve()
    home = folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    if real.parent != home and real.parent != blobs:
        raise Untrusted(f"{path}: leads out of the folder; put the file itself there")
    if not real.is_file():
        raise Damaged(f"{path}: missing; download the whole folder again")
    return path


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder. Raises Damaged, Untrusted."""
    path = inside(folder, name)
    if path.stat().st_size > MAX_JSON:
        raise Damaged(f"{path}: {path.stat().st_size:,} bytes are no description")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise Damaged(f"{path}: is not JSON; download it again") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path}: is not a JSON object; download it again")
    return value


class _Ring:
    """Buffers that are filled in turn; each stays as it is for the next RING - 1."""

    def __init__(self) -> None:
        self.buffers = [bytearray(CHUNK) for _ in range(RING)]
        self.turn = 0

    def next(self) -> memoryview:
        self.turn = (self.turn + 1) % RING
        return memoryview(self.buffers[self.turn])


_free: list[_Ring] = []
"""Rings that no stream uses; fresh memory for every tensor would cost as much as reading it."""


def bytes_of(tensor: Tensor, start: int = 0, count: int | None = None) -> Iterator[memoryview]:
    """The bytes from `start`, in pieces that stay valid for the next RING - 1. Raises Damaged if the file is shorter."""
    left = tensor.nbytes - start if count is None else count
    place = tensor.start + start
    ring = _free.pop() if _free else _Ring()
    try:
        with tensor.file.open("rb", buffering=0) as stream:
            while left:
                view = ring.next()[: min(CHUNK, left)]
                got = os.preadv(stream.fileno(), [view], place)
                if not got:
                    raise Damaged(
                        f"{tensor.file}: ends inside tensor {tensor.name}; download the file again"
                    )
                place, left = place + got, left - got
                yield view[:got]
    finally:
        _free.append(ring)


def floats_of(tensor: Tensor, limit: int = 1 << 20) -> list[float]:
    """A small tensor's numbers. Raises Mismatch if it is larger than `limit` bytes or no float."""
    if tensor.nbytes > limit or tensor.dtype not in ("F16", "BF16", "F32"):
        raise Mismatch(
            f"{tensor.file}: tensor {tensor.name} is {tensor.dtype} {list(tensor.shape)}"
        )
    data = b"".join(bytes(part) for part in bytes_of(tensor))
    if tensor.dtype == "BF16":
        data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
    letter = "e" if tensor.dtype == "F16" else "f"
    return list(struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data))


def _config(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder, name) if (folder / name).exists() else {}


def _weight_files(folder: Path, adapter: bool) -> tuple[list[Path], dict[str, str]]:
    """(the files in order, tensor -> file as the index says; {} without one)."""
    if adapter:
        for name in _ADAPTERS:
            if os.path.lexists(folder / name):
                return [inside(folder, name)], {}
    for index, single in _INDEXED:
        if os.path.lexists(folder / index):
            table = read_json(folder, index).get("weight_map")
            if (
                not isinstance(table, dict)
                or not table
                or not all(isinstance(v, str) for v in table.values())
            ):
                raise Damaged(f"{folder / index}: names no shards")
            return [inside(folder, name) for name in sorted(set(table.values()))], table
        if os.path.lexists(folder / single):
            return [inside(folder, single)], {}
    shards = sorted(folder.glob("pytorch_model-*-of-*.bin")) + sorted(
        folder.glob("model-*-of-*.safetensors")
    )
    what = "pytorch_model.bin.index.json" if shards else "pytorch_model.bin"
    raise Damaged(f"{folder / what}: missing; download the whole folder again")


def _tensors_of(file: Path) -> Iterator[Tensor]:
    if file.suffix == ".safetensors":
        yield from _safetensors_of(file)
        return
    if file.suffix not in (".bin", ".pt", ".pth"):
        raise Untrusted(f"{file}: neither safetensors nor a file of torch.save")
    for name, view in tensors_in(file).items():
        yield Tensor(name, view.storage.dtype, view.shape, file, view.start)


def _safetensors_of(file: Path) -> Iterator[Tensor]:
    registry.check_safetensors(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in BYTES:
            raise Mismatch(f"{file}: tensor {name} is {entry['dtype']}, which is not converted")
        yield Tensor(
            name, entry["dtype"], tuple(entry["shape"]), file, 8 + length + entry["data_offsets"][0]
        )
