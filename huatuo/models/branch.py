"""branch checkpoints: only what moved, bound to its parent by sha256; laid over it, shown, or merged into a whole model.

A folder: `branch.safetensors` (names of the parent's own state dict; a reward or value branch also `head.weight` (1, H)
and `head.bias` (1,)), `branch.json` (`BranchInfo`) and `manifest.json`. Commands: `python -m huatuo.models.branch merge
BRANCH OUT` writes a folder for vLLM or the hub, `... show BRANCH` prints what moved.
"""

import argparse
import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from huatuo.errors import CheckpointError, Damaged, HuatuoError, Mismatch, NotFinite, Untrusted
from huatuo.models import checkpoint, registry
from huatuo.models.layout import Kind, check_names, name_in, shapes_of
from huatuo.toml import ROOT

WEIGHTS = "branch.safetensors"
INFO = "branch.json"
FORMAT = 1
_VOCABULARIES = ("merges.txt", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_COPIED = {".json", ".txt", ".model", ".jinja"}


@dataclass(frozen=True)
class BranchInfo:
    """What branch.json says. parent_path: relative to the project, None if it lay outside. details: free keys."""

    folder: Path
    kind: Kind
    blocks: int
    parent_path: str | None
    parent_sha256: str
    tokenizer_sha256: str
    """Of the parent's tokenizer files, '' if it had none."""
    template: str
    sha256: str
    """Of branch.safetensors: what `sha256` in a model's file must say."""
    details: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


def save_branch(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    kind: Kind,
    blocks: int,
    parent: Path,
    template: str,
    details: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Writes a branch folder, whole or not at all; one writer per folder.

    details: further keys of branch.json. manifest: stage, data, votes, figures.
    Raises NotFinite (nothing is written), Mismatch (names or shapes are not the parent's top blocks), Damaged (the parent)
    and CheckpointError when the disk is full: then what stood there before is unchanged.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"{name} holds NaN or infinity; the branch is not saved")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_names(shapes, kind, blocks, shapes_of(parent), folder)
    sha256 = parent_digest(parent)
    about = {
        **dict(details or {}),
        "format": FORMAT,
        "kind": kind,
        "blocks": blocks,
        "parent": {
            "path": _relative(parent),
            "sha256": sha256,
            "tokenizer": tokenizer_digest(parent),
        },
        "template": template,
    }
    folder = folder.absolute()
    _tidy(folder)
    try:
        with checkpoint.replacing(folder) as fresh:
            owned = {name: t.detach().to("cpu").clone().contiguous() for name, t in tensors.items()}
            save_file(owned, fresh / WEIGHTS, metadata={"format": "pt"})
            _write_json(fresh / INFO, about)
            checkpoint.save_manifest(fresh, {**dict(manifest or {}), "parent": sha256})
            _sync(fresh)
        _sync(folder.parent, files=False)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{folder}: cannot be saved ({why}); free some space. The checkpoint before it is unchanged"
        ) from None


def read_branch(folder: Path) -> BranchInfo:
    """The branch's description, after every byte was checked. The parent is not looked at: see `check_parent`.

    Raises Damaged, Untrusted or Mismatch naming the file.
    """
    folder = Path(folder)
    _restore(folder)
    if not folder.is_dir():
        raise Damaged(f"{folder}: no such folder; name the folder of a branch checkpoint")
    registry.refuse_untrusted(folder)
    for name in (WEIGHTS, INFO):
        if not (folder / name).is_file():
            raise Damaged(f"{folder / name}: missing; copy the whole branch again")
    for file in sorted(folder.glob("*.safetensors")):
        if file.name != WEIGHTS:
            raise Damaged(f"{file}: not part of the branch; remove it")
    registry.check_safetensors(folder / WEIGHTS)
    manifest = checkpoint.verify(folder)
    if not {WEIGHTS, INFO} <= set(manifest["files"]):
        raise Damaged(f"{folder / checkpoint.MANIFEST}: does not name {WEIGHTS} and {INFO}")
    return _parse(folder, manifest)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The branch's tensors on the CPU, by name. Raises Damaged. `read_branch` checks the folder first."""
    try:
        tensors: dict[str, Tensor] = load_file(Path(folder) / WEIGHTS, device="cpu")
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{Path(folder) / WEIGHTS}: cannot be read ({error})") from None
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise Damaged(f"{Path(folder) / WEIGHTS}: tensor {name} holds NaN or infinity")
    return tensors


def check_parent(info: BranchInfo, parent_folder: Path) -> None:
    """Raises Mismatch unless the folder holds the parent's very bytes and the branch its top blocks; Damaged."""
    found = parent_digest(parent_folder)
    if found != info.parent_sha256:
        raise Mismatch(
            f"{info.folder}: made from a parent with sha256 {info.parent_sha256[:12]}…, but {parent_folder} has "
            f"{found[:12]}…; use the parent that {INFO} names"
        )
    if info.tokenizer_sha256 and tokenizer_digest(parent_folder) != info.tokenizer_sha256:
        raise Mismatch(
            f"{parent_folder}: its tokenizer is not the one that {info.folder} was made with; "
            "put the parent's own tokenizer back"
        )
    with safe_open(info.folder / WEIGHTS, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    check_names(shapes, info.kind, info.blocks, shapes_of(parent_folder), info.folder)


def parent_folder(info: BranchInfo, given: Path | None = None) -> Path:
    """Where the parent lies: as given, else as branch.json says. Raises Mismatch if neither says, Untrusted."""
    if given is not None:
        return given
    if info.parent_path is None:
        raise Mismatch(f"{info.folder}: {INFO} names no folder of the parent; name it by --parent")
    folder = ROOT / info.parent_path
    if not folder.resolve().is_relative_to(ROOT.resolve()):
        raise Untrusted(f"{info.folder / INFO}: parent.path leads out of the project's folder")
    return folder


def parent_digest(folder: Path) -> str:
    """`registry.digest` of a model folder's weights, computed once for the same unaltered files. Raises Damaged."""
    if not folder.is_dir():
        raise Damaged(f"{folder}: no such folder; it should be the parent of a branch")
    files = registry.weight_files(folder)
    stats = [file.stat() for file in files]
    return _digest(tuple(files), tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats))


def tokenizer_digest(folder: Path) -> str:
    """sha256 over the files that say which id is which word, '' if there are none. Raises Damaged."""
    files = [folder / name for name in _VOCABULARIES if (folder / name).is_file()]
    return registry.digest(files) if files else ""


def merge(folder: Path, out: Path, parent: Path | None = None) -> None:
    """Writes a whole model: the parent with the branch laid over it, in the branch's own dtype (nothing is rounded).

    Raises Mismatch for a reward or value branch or another parent, Damaged, Untrusted, CheckpointError (disk full).
    """
    info = read_branch(folder)
    if info.kind != "policy":
        raise Mismatch(
            f"{folder}: a {info.kind} branch answers nothing and cannot be merged; name a policy branch"
        )
    source = parent_folder(info, parent)
    registry.check_folder(source)
    check_parent(info, source)
    moved = tensors_of(folder)
    if out.exists() and not _is_merge(out):
        raise CheckpointError(
            f"{out}: holds something else than an earlier merge; name a new folder"
        )
    try:
        with checkpoint.replacing(out) as fresh:
            for file in sorted(source.iterdir()):
                if file.suffix in _COPIED and not file.name.endswith(
                    ("manifest.json", ".index.json")
                ):
                    shutil.copyfile(file, fresh / file.name)
            _lay_over(source, moved, fresh)
            checkpoint.save_manifest(fresh, _merged(info))
            _sync(fresh)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{out}: cannot be written ({error})") from None


def show(folder: Path, parent: Path | None = None) -> str:
    """What moved, in lines: tensors, parameters and their share of the parent's, parent, data, votes, figures."""
    info = read_branch(folder)
    tensors = tensors_of(folder)
    moved = sum(tensor.numel() for tensor in tensors.values())
    lines = [f"{folder}: {info.kind} branch of the top {info.blocks} blocks, {info.template}"]
    try:
        place = parent_folder(info, parent)
        check_parent(info, place)
        whole = sum(_count(shape) for shape in shapes_of(place).values())
        share = f", {100 * moved / whole:.1f} % of the parent's {whole:,}"
        lines.append(f"parent    {info.parent_sha256}  {place}, checked")
    except CheckpointError as error:
        share = ""
        lines.append(f"parent    {info.parent_sha256}  not checked: {error}")
    size = (folder / WEIGHTS).stat().st_size
    lines.insert(
        1,
        f"moved     {len(tensors)} tensors, {moved:,} parameters{share}, {size / 1e6:,.1f} MB",
    )
    lines += [f"          {name} {list(t.shape)} {t.dtype}" for name, t in sorted(tensors.items())]
    for key in ("stage", "data", "votes", "figures"):
        if key in info.manifest:
            lines.append(f"{key:<9} {json.dumps(info.manifest[key], ensure_ascii=False)}")
    return "\n".join(lines)


@functools.lru_cache(maxsize=64)
def _digest(files: tuple[Path, ...], _: tuple[tuple[int, int, int], ...]) -> str:
    return registry.digest(list(files))


def _parse(folder: Path, manifest: dict[str, Any]) -> BranchInfo:
    where = folder / INFO
    try:
        about: Any = json.loads(where.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise Damaged(f"{where}: format {about['format']}, not {FORMAT}; use a newer program")
        parent = about["parent"]
        info = BranchInfo(
            folder=folder,
            kind=about["kind"],
            blocks=about["blocks"],
            parent_path=parent.get("path"),
            parent_sha256=parent["sha256"],
            tokenizer_sha256=parent.get("tokenizer", ""),
            template=about["template"],
            sha256=manifest["files"][WEIGHTS]["sha256"],
            details={k: v for k, v in about.items() if k not in _FIXED},
            manifest=manifest,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{where}: does not describe a branch; copy the branch again") from None
    texts = (info.parent_sha256, info.tokenizer_sha256, info.template, info.parent_path or "")
    if (
        info.kind not in get_args(Kind)
        or not isinstance(info.blocks, int)
        or info.blocks < 1
        or not all(isinstance(text, str) for text in texts)
        or not re.fullmatch(r"[0-9a-f]{64}", info.parent_sha256)
    ):
        raise Damaged(f"{where}: kind, blocks, parent or template cannot be used")
    return info


_FIXED = {"format", "kind", "blocks", "parent", "template"}


def _lay_over(source: Path, moved: Mapping[str, Tensor], fresh: Path) -> None:
    """Writes the parent's weight files anew, one at a time, with the moved tensors in their places."""
    files = registry.weight_files(source)
    names = shapes_of(source)
    places = {str(name_in(names, name)): tensor for name, tensor in moved.items()}
    total = 0
    where: dict[str, str] = {}
    for weights in files:
        tensors = load_file(weights, device="cpu")
        tensors |= {name: places[name] for name in tensors if name in places}
        total += sum(t.numel() * t.element_size() for t in tensors.values())
        where |= dict.fromkeys(tensors, weights.name)
        save_file(tensors, fresh / weights.name, metadata={"format": "pt"})
    if len(files) > 1 or files[0].name != "model.safetensors":
        index = {"metadata": {"total_size": total}, "weight_map": where}
        _write_json(fresh / "model.safetensors.index.json", index)


def _is_merge(folder: Path) -> bool:
    try:
        return checkpoint.read_manifest(folder).get("stage") == "merge"
    except Damaged:
        return folder.is_dir() and not any(folder.iterdir())


def _merged(info: BranchInfo) -> dict[str, Any]:
    inherited: dict[str, Any] = {
        key: info.manifest[key] for key in ("data", "votes", "figures") if key in info.manifest
    }
    return {
        "stage": "merge",
        "template": info.template,
        "parent": info.parent_sha256,
        "branch": info.sha256,
        **inherited,
    }


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _relative(parent: Path) -> str | None:
    resolved, root = Path(parent).resolve(), ROOT.resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _sync(folder: Path, *, files: bool = True) -> None:
    """Waits until the bytes are on the disk: a power cut after the rename must not find empty files."""
    for path in [*(sorted(folder.iterdir()) if files else ()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _tidy(folder: Path) -> None:
    """Removes what a killed writer of this folder left behind, after putting back what it had moved away."""
    _restore(folder)
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _restore(folder: Path) -> None:
    """`checkpoint.replacing` renames twice; a writer killed in between leaves only the old folder, moved away."""
    old = folder.absolute().with_name(f".{folder.absolute().name}.old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m huatuo.models.branch", description="Show or merge a branch checkpoint."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("merge", "write the whole model"), ("show", "print what moved")):
        command = commands.add_parser(name, help=words)
        command.add_argument("branch", type=Path, help="the branch's folder")
        if name == "merge":
            command.add_argument("out", type=Path, help="folder to write")
        command.add_argument(
            "--parent", type=Path, help="the parent's folder, if it lies elsewhere"
        )
    options = parser.parse_args(arguments)
    try:
        if options.command == "merge":
            merge(options.branch, options.out, options.parent)
            print(f"{options.out}: written")
        else:
            print(show(options.branch, options.parent))
    except HuatuoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
