"""The figures of the results page from a record with a hundred thousand votes.

    python tests/benchmarks/board.py [--votes 100000] [--pairs 2000] [--raters 200] [--models 20]

Times what one opening of the page computes for so many votes (the rest waits for a button):
reading them, the pairs with their contrasts and evidence, and the ranking with its intervals, on a
file with texts of ordinary length; every twentieth vote was revised. Last line JSON: seconds
(median, wall clock), cpu_s (median), votes, growth_mib (memory, from the second opening to the
last).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reviews import verdicts
from reviews.people import People
from reviews.records import CHOICES, PreparedPair, PreparedTurn
from reviews.store import Store

AT = "2026-01-01T00:00:00.000000+00:00"


def fill(store: Store, votes: int, pairs: int, raters: int, models: int) -> None:
    """Files the pairs, and the votes of all raters in one transaction."""
    rng = random.Random(1)
    duels = list(itertools.combinations([f"model-{i:02d}" for i in range(models)], 2))
    turn = (PreparedTurn("头痛三天怎么办？" * 4, "建议先测血压。" * 40, "请问有发热吗？" * 30),)
    store.add_prepared(
        "speed",
        [PreparedPair(f"case-{i}", *duels[i % len(duels)], turn) for i in range(pairs)],
        "benchmark",
    )
    people = People(store.database)
    ids = [people.add_user(f"rater-{i}", "physician", "-", "benchmark").id for i in range(raters)]
    with store.database.write() as db:
        filed = [row[0] for row in db.conn.execute("SELECT id FROM comparisons")]
        for place in rng.sample(range(pairs * raters), votes):
            assignment_id = f"{rng.getrandbits(128):032x}"
            db.conn.execute(
                "INSERT INTO assignments (id, comparison_id, rater_id, left_is, state, issued_at) "
                "VALUES (?,?,?,?,'voted',?)",
                (assignment_id, filed[place % pairs], ids[place // pairs], rng.choice("ab"), AT),
            )
            for revision in range(1, 2 + (place % 20 == 0)):
                db.conn.execute(
                    "INSERT INTO votes (assignment_id, revision, choice, reason, ratings, seconds, at) "
                    "VALUES (?,?,?,'更完整','{}',12.5,?)",
                    (assignment_id, revision, rng.choice(CHOICES), AT),
                )


def open_page(store: Store) -> int:
    """What one opening of the results page computes; returns the votes it saw."""
    votes = store.counted_votes().votes
    return verdicts.headline(votes, verdicts.fit_votes(votes)).board.votes


def main() -> int:
    """Fill a fresh record and open the page again and again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--votes", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    wall, cpu, peak = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "reviews.sqlite3")
        fill(store, given.votes, given.pairs, given.raters, given.models)
        for number in range(given.rounds):
            began, busy = time.perf_counter(), time.process_time()
            seen = open_page(store)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - busy)
            peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            print(f"opening {number + 1}: {wall[-1]:.2f} s, {cpu[-1]:.2f} s of CPU, {seen} votes")
        store.close()
    result = {
        "seconds": round(statistics.median(wall), 3),
        "cpu_s": round(statistics.median(cpu), 3),
        "votes": seen,
        "growth_mib": round(peak[-1] - peak[1], 1),
    }
    print(json.dumps(result))
    return 0 if seen == given.votes else 1


if __name__ == "__main__":
    raise SystemExit(main())
