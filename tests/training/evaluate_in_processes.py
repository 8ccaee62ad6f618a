"""Runs an evaluation in child processes and kills them: `python evaluate_in_processes.py JOB.json`.

The job: {config, cache, kills, tear}. A kill is a number of rows that the cache must hold before it, or [event, part,
count] of kill_at.py; each child kills itself, for on a slow machine another process would come too late. tear: bytes
then cut off the cache's files. The last child runs to its end. Prints the exit statuses. Torch is imported once and never used before the forks.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.training.kill_at import kill_at
from training.answer_cache import AnswerCache
from training.evaluate import EvaluateConfig, evaluate


def rows(cache: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in cache.glob("*.jsonl"))


def kill_with(wanted: int, cache: Path) -> None:
    """From now on this process dies when it keeps an answer and the cache holds as many rows, before or then."""
    add = AnswerCache.add

    def counted(kept: AnswerCache, new: Sequence[Any]) -> None:
        for work in (lambda: None, lambda: add(kept, new)):
            work()
            if rows(cache) >= wanted:
                os.kill(os.getpid(), signal.SIGKILL)

    AnswerCache.add = counted  # type: ignore[method-assign]


def child(config: EvaluateConfig, cache: Path, kill: Any = None) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            if isinstance(kill, int):
                kill_with(kill, cache)
            elif kill:
                kill_at(*kill)
            evaluate(config)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return pid


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    config, cache = EvaluateConfig.model_validate(job["config"]), Path(job["cache"])
    ends = []
    for wanted in job["kills"]:
        pid = child(config, cache, wanted)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        if job.get("tear"):  # as a power cut would: half of the last line is lost
            for file in cache.glob("*.jsonl"):
                raw = file.read_bytes()
                file.write_bytes(raw[: len(raw) - job["tear"]])
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child(config, cache), 0)[1]))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
