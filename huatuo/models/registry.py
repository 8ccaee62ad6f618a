"""which checkpoint folders may be loaded: safetensors only, whole, and the bytes that the config names.

Nothing here runs code from the folder or unpickles anything; it reads names, JSON and bytes.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from huatuo.errors import Damaged, Mismatch, Untrusted
from huatuo.models import checkpoint

PICKLES = frozenset(
    [
        ".bin",
        ".pt",
        ".pth",
        ".pkl",
        ".pickle",
        ".ckpt",
        ".joblib",
        ".npy",
        ".npz",
        ".msgpack",
        ".h5",
        ".mar",
        ".dill",
    ]
)
CODE = frozenset([".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe", ".jar"])
MAX_HEADER = 100_000_000
"""Longest safetensors header in bytes, the format's own cap."""
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64,
    "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
}  # fmt: skip


def check_folder(folder: Path, sha256: str = "") -> list[Path]:
    """The weight files of a folder that may be loaded, in order.

    sha256: hex digest that `digest` must give, '' for no check; where the folder has a manifest, that is
    checked too. Raises Untrusted (pickles, code, auto_map), Damaged (missing, short or altered files,
    broken headers) or Mismatch (other bytes than named).
    """
    if not folder.is_dir():
        raise Damaged(f"{folder}: no such folder; check `path` in the model's file")
    refuse_untrusted(folder)
    if not (folder / "config.json").is_file():
        raise Damaged(f"{folder / 'config.json'}: missing; the folder is not a whole checkpoint")
    files = weight_files(folder)
    for file in files:
        check_safetensors(file)
    if (folder / checkpoint.MANIFEST).is_file():
        checkpoint.verify(folder)
    if sha256 and digest(files) != sha256:
        names = ", ".join(file.name for file in files)
        raise Mismatch(f"{folder}: sha256 of {names} is not the one that the model's file names")
    return files


def refuse_untrusted(folder: Path) -> None:
    """Raises Untrusted if the folder, at any depth, holds pickles, code, or asks for code."""
    for file in sorted(folder.rglob("*")):
        suffix = file.suffix.lower()
        if file.is_dir():
            continue
        if suffix in PICKLES:
            raise Untrusted(f"{file}: pickles can run code; convert to safetensors and remove it")
        if suffix in CODE:
            raise Untrusted(f"{file}: a model folder may not hold code; remove it")
        if (
            suffix == ".json"
            and file.stat().st_size < 1_000_000
            and "auto_map" in _keys(_json(file))
        ):
            raise Untrusted(f"{file}: auto_map asks for code from the folder; convert the model")


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards of its index, by name. Raises Damaged, Untrusted."""
    present = {file.name for file in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weights = _json(index)
        shards = weights.get("weight_map") if isinstance(weights, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise Damaged(f"{index}: names no shards")
        wanted = {str(name) for name in shards.values()}
        strange = sorted(
            name for name in wanted if "/" in name or not name.endswith(".safetensors")
        )
        if strange:
            raise Untrusted(
                f"{index}: names {strange[0]}, which is no safetensors file of the folder"
            )
    else:
        wanted = {"model.safetensors"}
    for name in sorted(wanted - present):
        raise Damaged(f"{folder / name}: missing; copy the whole folder again")
    for name in sorted(present - wanted):
        raise Damaged(f"{folder / name}: not part of the checkpoint; remove it")
    return [folder / name for name in sorted(wanted)]


def check_safetensors(file: Path) -> None:
    """Raises Damaged, naming file and tensor, if header and length of a safetensors file do not agree."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise Damaged(f"{file}: its header says {length:,} bytes, the file has {size:,}")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            raise Damaged(f"{file}: its header is not JSON") from None
    if not isinstance(header, dict):
        raise Damaged(f"{file}: its header is not a table of tensors")
    space = size - 8 - length
    end = 0
    for name, entry in header.items():
        if name != "__metadata__":
            end = max(end, _tensor_end(file, name, entry, space))
    if end != space:
        raise Damaged(f"{file}: {space - end:,} bytes after its last tensor")


def digest(files: list[Path]) -> str:
    """sha256 in hex of one file's bytes; of several: of the lines '<name> <sha256 of the bytes>\\n'."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{file.name} {one}\n" for file, one in zip(files, digests, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _tensor_end(file: Path, name: str, entry: Any, space: int) -> int:
    try:
        begin, end = entry["data_offsets"]
        bits = math.prod(int(n) for n in entry["shape"]) * _BITS[entry["dtype"]]
    except (KeyError, TypeError, ValueError):
        raise Damaged(f"{file}: tensor {name} is not described") from None
    if not 0 <= begin <= end or (end - begin) * 8 != bits:
        raise Damaged(f"{file}: tensor {name} has another length than its shape")
    if end > space:
        raise Damaged(f"{file}: ends inside tensor {name}; copy the file again")
    return int(end)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise Damaged(f"{file}: is not JSON; copy the file again") from None


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_keys(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_keys(item) for item in value))
    return set()
