"""Runs an evaluation in child processes and kills them: `python evaluate_in_processes.py JOB.json`.

The job: {config, cache, kills, tear}. A kill is a number of rows that the cache must hold before it; -1: the report's
JSON, which is written before its page; or [event, part, count] of kill_at.py. tear: bytes then cut off the cache's files.
The last child runs to its end. Prints the exit statuses. Torch is imported once and never used before the forks.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.training.kill_at import kill_at
from training.evaluate import EvaluateConfig, evaluate


def rows(cache: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in cache.glob("*.jsonl"))


def child(config: EvaluateConfig, moment: tuple[str, str, int] | None = None) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            if moment:
                kill_at(*moment)
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
        if isinstance(wanted, list):
            pid = child(config, tuple(wanted))
            ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            continue
        pid = child(config)
        done = (
            (config.out / "report.json").exists if wanted < 0 else lambda n=wanted: rows(cache) >= n
        )
        while not done() and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:  # fmt: skip
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        if job.get("tear"):  # as a power cut would: half of the last line is lost
            for file in cache.glob("*.jsonl"):
                raw = file.read_bytes()
                file.write_bytes(raw[: len(raw) - job["tear"]])
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child(config), 0)[1]))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
