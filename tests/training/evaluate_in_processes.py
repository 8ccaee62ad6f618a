"""Runs an evaluation in child processes and kills them: `python evaluate_in_processes.py JOB.json`.

The job: {config, cache, kills, tear}. Before each kill there must be that many rows in the cache; -1: the report's JSON,
which is written before its page. tear: bytes then cut off the cache's files. The last child runs to its end. Prints the exit statuses. Torch is imported once and never used before the forks.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from training.evaluate import EvaluateConfig, evaluate


def rows(cache: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in cache.glob("*.jsonl"))


def child(config: EvaluateConfig) -> int:
    pid = os.fork()
    if pid == 0:
        try:
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
