"""Eight processes vote through the store, against bare sqlite3 inserting one row per commit.

    python tests/benchmarks/votes.py [--rounds 15] [--processes 8] [--votes 50]

Each round runs both on fresh files with the same pragmas (WAL, synchronous=FULL, foreign keys,
30 s busy timeout), in alternating order; the result is the median of the rounds' ratios, so
that a busy machine disturbs both alike. Last line JSON: ratio, votes_per_s, p99_ms, lost.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store

Times = list[float]  # seconds each commit took


def prepare_store(path: Path, processes: int, votes: int) -> list[list[tuple[str, int]]]:
    """A record with one rater per process and `votes` assignments each: (assignment, rater)."""
    store = Store.open(path)
    people = People(store.database)
    turn = (PreparedTurn("头痛三天怎么办？" * 4, "建议先测血压。" * 40, "请问有发热吗？" * 30),)
    pairs = [PreparedPair(f"case-{i}", "model-a", "model-b", turn) for i in range(votes)]
    store.add_prepared("speed", pairs, "benchmark")
    work = []
    for number in range(processes):
        rater = people.add_user(f"rater-{number}", "physician", "-", "benchmark").id
        with store.database.write() as db:
            ids = [row[0] for row in db.conn.execute("SELECT id FROM comparisons")]
            for place, comparison_id in enumerate(ids):
                db.conn.execute(
                    "INSERT INTO assignments (id, comparison_id, rater_id, left_is, state, "
                    "issued_at) VALUES (?,?,?,?,'open','2026-01-01T00:00:00.000000+00:00')",
                    (f"{number:08x}{place:024x}", comparison_id, rater, "ab"[place % 2]),
                )
        work.append([(f"{number:08x}{place:024x}", rater) for place in range(votes)])
    store.close()
    return work


def vote_through_store(
    path: Path, work: list[tuple[str, int]], start: Barrier, results: Any
) -> None:
    """One process: cast every vote of its list."""
    store = Store.open(path, check=False)
    times: Times = []
    with store.database.read():
        pass
    start.wait()
    for assignment_id, rater in work:
        began = time.perf_counter()
        done = store.cast_vote(assignment_id, rater, "left", reason="更完整", seconds=12.5)
        assert done == "recorded", done
        times.append(time.perf_counter() - began)
    results.put((times, time.perf_counter()))
    store.close()


def insert_bare(path: Path, work: list[tuple[str, int]], start: Barrier, results: Any) -> None:
    """One process: insert the same vote as one bare row per commit."""
    conn = sqlite3.connect(path, timeout=30, isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute("PRAGMA foreign_keys=ON")
    times: Times = []
    start.wait()
    for assignment_id, rater in work:
        began = time.perf_counter()
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(
            "INSERT INTO votes VALUES (?,?,?,?,?,?)",
            (assignment_id, rater, "left", "更完整", 12.5, "2026-01-01T00:00:00.000000+00:00"),
        )
        conn.execute("COMMIT")
        times.append(time.perf_counter() - began)
    results.put((times, time.perf_counter()))
    conn.close()


def run(
    target: Callable[..., None], path: Path, work: list[list[tuple[str, int]]]
) -> tuple[float, Times]:
    """Start one process per list, all at once; returns commits per second and all times."""
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(len(work) + 1), context.SimpleQueue()
    workers = [context.Process(target=target, args=(path, part, start, results)) for part in work]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    times = [t for part, _ in found for t in part]
    return len(times) / (max(end for _, end in found) - began), times


def one_round(folder: Path, processes: int, votes: int, store_first: bool) -> dict[str, Any]:
    """Both ways on fresh files; returns rates, times and lost votes."""
    work = prepare_store(folder / "store.sqlite3", processes, votes)
    bare = sqlite3.connect(folder / "bare.sqlite3")
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute(
        "CREATE TABLE votes (assignment_id TEXT PRIMARY KEY, rater_id INTEGER, choice TEXT, "
        "reason TEXT, seconds REAL, at TEXT)"
    )
    bare.close()
    jobs = {"store": vote_through_store, "bare": insert_bare}
    found = {}
    for name in ("store", "bare") if store_first else ("bare", "store"):
        found[name] = run(jobs[name], folder / f"{name}.sqlite3", work)
    store = Store.open(folder / "store.sqlite3")
    kept = {row.assignment_id for row in store.votes()}
    store.verify_audit()
    store.close()
    wanted = {assignment_id for part in work for assignment_id, _ in part}
    return {
        "store": found["store"][0],
        "bare": found["bare"][0],
        "times": found["store"][1],
        "bare_times": found["bare"][1],
        "lost": len(wanted - kept),
    }


def p99_ms(times: Times) -> float:
    """The 99th percentile in milliseconds."""
    return round(1000 * sorted(times)[int(0.99 * (len(times) - 1))], 1)


def main() -> int:
    """Run the rounds; exit status 1 when a vote was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--votes", type=int, default=50, help="per process and round")
    given = parser.parse_args()
    rounds = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            done = one_round(Path(folder), given.processes, given.votes, number % 2 == 0)
        rounds.append(done)
        print(
            f"round {number + 1}: store {done['store']:.0f} votes/s (p99 {p99_ms(done['times'])} ms), "
            f"bare {done['bare']:.0f} rows/s (p99 {p99_ms(done['bare_times'])} ms), "
            f"ratio {done['store'] / done['bare']:.2f}"
        )
    lost = sum(done["lost"] for done in rounds)
    result = {
        "ratio": round(statistics.median(d["store"] / d["bare"] for d in rounds), 3),
        "votes_per_s": round(statistics.median(d["store"] for d in rounds), 1),
        "p99_ms": p99_ms([t for d in rounds for t in d["times"]]),
        "lost": lost,
    }
    print(json.dumps(result))
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
