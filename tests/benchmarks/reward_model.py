"""The reward model against the raters' ceiling and TRL's RewardTrainer, on several records of simulated votes.

    python tests/benchmarks/reward_model.py [--records 5] [--trl 1] [--votes 600]

Each record has votes of 5 simulated raters with 15 % noise and 20 % ties on the bundled models' fresh answers, from a
seed of its own. The agreement of raters on the hundred pairs that two of them saw, the ceiling, is itself off by four
points from one record to the next; so one record cannot tell a gap of three, and the mean over records is what counts.
Since the votes are simulated, the agreement that their noise makes two raters expect is known, without that chance:
(1 - noise)^2 + noise^2; the gap to it is given beside the other.
Every case is held out once (5 folds); on the first --trl records TRL's trainer gets the same folds. Votes alone, no AI
feedback. Last line JSON: accuracy, ceiling, gap (points, mean and standard error), expected_ceiling and the gap to it,
ece, trl_accuracy, ours_beside_trl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from huatuo.toml import ROOT, read_toml
from reviews.database import DEFAULT_NAME
from reviews.export import export
from reviews.store import Store
from training import reward
from training.reward_data import RewardConfig
from training.simulate import SimulationConfig, simulate

WORK = Path("data/benchmark-reward")


def one(seed: int, votes: int, *, trl: bool) -> dict[str, Any]:
    """Simulates a record, trains on its votes, and returns what the report says."""
    inside = WORK / f"{votes}-{seed}"
    folder = ROOT / inside
    if not (folder / "votes/manifest.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "record").mkdir(parents=True)
        simulate(SimulationConfig(votes=votes, seed=seed), folder / "record")
        with contextlib.closing(Store.open(folder / "record" / DEFAULT_NAME)) as store:
            export(store.database, folder / "votes")
    told = {
        "exports": json.dumps([str(inside / "votes")]),
        "out": str(inside / "reward"),
        "work": str(inside / "work"),
        "seed": str(seed),
        "baseline": "true" if trl else "false",
    }
    return reward.train(read_toml(ROOT / "configs/nano/reward.toml", RewardConfig, told))


def main() -> None:
    """Runs every record and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=5)
    parser.add_argument("--trl", type=int, default=1, help="records on which TRL is trained too")
    parser.add_argument("--votes", type=int, default=600)
    given = parser.parse_args()
    gaps, rows = [], []
    for seed in range(given.records):
        report = one(seed, given.votes, trl=seed < given.trl)
        ours = report["models"]["ensemble"]
        theirs = report["models"].get("TRL RewardTrainer, calibrated", {"accuracy": {}, "ece": {}})
        row = {
            "seed": seed,
            "accuracy": ours["accuracy"]["value"],
            "ceiling": report["ceiling"]["value"],
            "ece": ours["ece"]["value"],
            "ece_by_chance": ours["ece_by_chance"],
            "ridge": report["ridge"],
            "trl_accuracy": theirs["accuracy"].get("value"),
        }
        rows.append(row)
        if row["ceiling"] is None:
            sys.exit(f"seed {seed}: too few votes on shared pairs for a ceiling; give more --votes")
        gaps.append(100 * ours["gap_to_ceiling"]["value"])
        print(json.dumps(row), flush=True)
    beside = [row for row in rows if row["trl_accuracy"] is not None]
    mean = statistics.fmean
    noise = SimulationConfig.model_fields["noise"].default
    expected = (1 - noise) ** 2 + noise**2
    beyond = [100 * (expected - row["accuracy"]) for row in rows]

    def error(values: list[float]) -> float | None:
        return round(statistics.stdev(values) / len(values) ** 0.5, 2) if len(values) > 1 else None

    print(json.dumps({
        "records": given.records,
        "accuracy": round(mean(row["accuracy"] for row in rows), 4),
        "ceiling": round(mean(row["ceiling"] for row in rows), 4),
        "gap_points": round(mean(gaps), 2),
        "gap_standard_error": error(gaps),
        "expected_ceiling": round(expected, 4),
        "gap_to_expected_points": round(mean(beyond), 2),
        "gap_to_expected_standard_error": error(beyond),
        "ece": round(mean(row["ece"] for row in rows), 4),
        "ece_by_chance": round(mean(row["ece_by_chance"] for row in rows), 4),
        "trl_accuracy": round(mean(row["trl_accuracy"] for row in beside), 4) if beside else None,
        "ours_beside_trl": round(mean(row["accuracy"] for row in beside), 4) if beside else None,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
