"""checkpoint folders: written whole or not at all, with a manifest of every file's sha256.

`manifest.json`: {"format": 1, "files": {name: {"sha256", "bytes"}}, ...what the writer adds: parents, figures}.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huatuo.errors import Damaged

MANIFEST = "manifest.json"
FORMAT = 1


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex. Raises Damaged if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise Damaged(f"{path.name}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def save_manifest(folder: Path, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes manifest.json about every file in the folder; returns it. details: further keys."""
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = {"format": FORMAT, **dict(details or {}), "files": files}
    temporary = folder / f".{MANIFEST}.tmp"
    temporary.write_text(
        json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    os.replace(temporary, folder / MANIFEST)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises Damaged if there is none, or none that can be read."""
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Damaged(f"{folder.name}: no {MANIFEST}; the checkpoint is incomplete") from None
    except (OSError, ValueError) as error:
        raise Damaged(
            f"{folder.name}/{MANIFEST}: cannot be read ({type(error).__name__})"
        ) from None
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.get("format") != FORMAT:
        raise Damaged(f"{folder.name}/{MANIFEST}: not a manifest of format {FORMAT}")
    checked: dict[str, Any] = manifest
    return checked


def verify(folder: Path) -> dict[str, Any]:
    """The manifest, after every file in it was read and found as written. Raises Damaged naming the file."""
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise Damaged(f"{folder.name}/{MANIFEST}: {name} lies outside the folder")
        if not path.is_file():
            raise Damaged(f"{folder.name}/{name}: missing; fetch or build the checkpoint again")
        if path.stat().st_size != expected.get("bytes"):
            raise Damaged(
                f"{folder.name}/{name}: {path.stat().st_size} bytes, not {expected.get('bytes')}"
            )
        if sha256_of(path) != expected.get("sha256"):
            raise Damaged(f"{folder.name}/{name}: altered; its sha256 is not the manifest's")
    return manifest


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new empty folder that takes the place of `folder` when the block ends well; else nothing changes.

    Files become readable for everyone (transformers writes 0600).
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
