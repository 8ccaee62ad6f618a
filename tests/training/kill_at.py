"""Ends this process by SIGKILL at a chosen moment: `python kill_at.py EVENT PART COUNT MODULE ARGUMENTS...`.

EVENT is an audit event of Python, `open` (for writing) or `os.rename`; PART stands in the name that is opened or
renamed to. Just before the COUNT-th such event the process dies. Till then the module runs as with `python -m`.
"""

import os
import runpy
import signal
import sys
from pathlib import Path


def kill_at(event: str, part: str, count: int) -> None:
    """From now on this process dies just before the count-th such event. Hooks cannot be taken back."""
    left = count

    def hook(name: str, told: tuple[object, ...]) -> None:
        nonlocal left
        if name != event:
            return
        if event == "open" and not int(str(told[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        path = told[1] if event == "os.rename" else told[0]
        if isinstance(path, str | os.PathLike) and part in Path(path).name:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    kill_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.argv = sys.argv[4:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
