"""What computed a figure: the project's commit and the versions of Python and numpy it ran on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def used() -> dict[str, str]:
    """Name to version: huatuo (the commit, `+` for changed files, else "unknown"), python, numpy."""
    return {
        "huatuo": commit() or "unknown",
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }


def commit() -> str | None:
    """The first twelve digits of the project's git commit, with `+` when files were changed.

    None where there is no git, or no repository.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, timeout=10)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if head.returncode or changed.returncode:
        return None
    return head.stdout.decode().strip()[:12] + ("+" if changed.stdout.strip() else "")
