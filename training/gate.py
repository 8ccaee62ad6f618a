"""the regression gate of an evaluation: which metric of a candidate fell by more than its margin against a baseline.

Both models answer in the same evaluation, on the same questions, so the difference is paired; a baseline that was
evaluated before costs nothing, for its answers are kept. What was not measured does not pass.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from huatuo.errors import ConfigError, Mismatch
from huatuo.models import branch
from huatuo.toml import Settings
from reviews.stats import wilson
from training.data import BadData
from training.release_gates import Gate
from training.scores import METRICS

ACCURACY, FINISHED, JUDGE, PHYSICIANS = "accuracy", "finished", "judge", "physicians"
KNOWN = (*METRICS, ACCURACY, FINISHED, JUDGE, PHYSICIANS)
"""finished: the share of questions with a finished answer, so that a model cannot pass by failing."""
Margins = Annotated[dict[str, float], Field(strict=False)]


class GateConfig(Settings):
    """The table [gate] of an evaluation's file, or a file of its own for --gate."""

    candidate: str = Field(description="name of the model that wants to be released")
    baseline: str = Field(description="name of the model that it may not fall behind")
    margins: Margins = Field(
        description="metric to the most it may fall, as a share; judge and physicians: of the share of points from 0.5"
    )
    by: Literal["estimate", "interval"] = Field(
        default="estimate",
        description="estimate: the difference itself may not fall by more than the margin; interval: not even the lower "
        "end of its 95 % interval (non-inferiority; needs many questions)",
    )
    benchmarks: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="only these; default: all"
    )


def check(config: GateConfig, report: Mapping[str, Any]) -> dict[str, Any]:
    """{passed, candidate, baseline, by, checks: [{name, difference, low, high, margin, passed, why}]}, for JSON.

    Raises ConfigError for a model that is not in the report, a metric nobody knows, or a margin below 0.
    """
    for role in ("candidate", "baseline"):
        if getattr(config, role) not in report["models"]:
            raise ConfigError(
                f"gate.{role}: {getattr(config, role)} is not in this evaluation; it has {', '.join(report['models'])}"
            )
    unknown = sorted(set(config.margins) - set(KNOWN))
    if unknown or not config.margins:
        told = f"unknown metric {unknown[0]}" if unknown else "no metric"
        raise ConfigError(f"gate.margins: {told}; there are {', '.join(KNOWN)}")
    if low := [name for name, margin in config.margins.items() if margin < 0]:
        raise ConfigError(f"gate.margins.{low[0]}: must be 0 or more")
    checks = []
    for name, margin in config.margins.items():
        found = _found(config, report, name)
        checks += [_check(config, where, row, margin) for where, row in found]
        if not found:
            checks.append({"name": name, "difference": None, "low": None, "high": None,
                           "margin": margin, "passed": False, "why": "not measured for these two models"})  # fmt: skip
    return {
        "passed": all(row["passed"] for row in checks),
        "candidate": config.candidate,
        "baseline": config.baseline,
        "by": config.by,
        "checks": checks,
    }


def _found(
    config: GateConfig, report: Mapping[str, Any], name: str
) -> list[tuple[str, Mapping[str, Any]]]:
    """(where it was measured, the difference candidate minus baseline with low and high) of one metric."""
    if name in (JUDGE, PHYSICIANS):
        return [(name, row) for row in _of_pairs(config, report, name)]
    section = {ACCURACY: "choice", FINISHED: "answers"}.get(name, "metrics")
    found = []
    for benchmark, figures in report[section].items():
        if config.benchmarks and benchmark not in config.benchmarks:
            continue
        if name == FINISHED:
            row = _of_finished(figures[config.candidate], figures[config.baseline])
            found.append((f"{name}, {benchmark}", row))
            continue
        for row in figures["differences"]:
            if row["metric"] == name and {row["a"], row["b"]} == {config.candidate, config.baseline}:  # fmt: skip
                found.append((f"{name}, {benchmark}", _turned(row, row["a"] == config.candidate)))
    return found


def _of_finished(one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, float]:
    """The difference of two shares with its 95 % interval. Source: Newcombe 1998, method 10."""
    (p, low, high), (q, under, over) = (
        (each["finished"] / each["asked"], *wilson(each["finished"], each["asked"]))
        for each in (one, two)
    )
    return {
        "difference": p - q,
        "low": p - q - math.hypot(p - low, over - q),
        "high": p - q + math.hypot(high - p, q - under),
    }


def _turned(row: Mapping[str, Any], same: bool) -> dict[str, float]:
    if same:
        return {key: row[key] for key in ("difference", "low", "high")}
    return {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}


def _of_pairs(
    config: GateConfig, report: Mapping[str, Any], name: str
) -> Sequence[dict[str, float]]:
    """The share of points of a judge or the physicians, minus one half."""
    section = report.get(name) or {}
    for pair in section.get("pairs", ()):
        names = (pair.get("model_a", pair.get("a")), pair.get("model_b", pair.get("b")))
        share = pair.get("share")
        if share and set(names) == {config.candidate, config.baseline}:
            row = {
                "difference": share["value"] - 0.5,
                "low": share["low"] - 0.5,
                "high": share["high"] - 0.5,
            }
            return [_turned(row, names[0] == config.candidate)]
    return []


def _check(
    config: GateConfig, where: str, row: Mapping[str, float], margin: float
) -> dict[str, Any]:
    fallen = -(row["difference"] if config.by == "estimate" else row["low"])
    passed = fallen <= margin + 1e-12
    why = ""
    if not passed:
        why = (
            f"fell by {-row['difference']:.4f} [{-row['high']:.4f}, {-row['low']:.4f}], margin {margin:g}"
            if config.by == "estimate"
            else f"may have fallen by {fallen:.4f} (lower end of the interval), margin {margin:g}"
        )
    return {"name": where, **row, "margin": margin, "passed": passed, "why": why}


def told(gate: Mapping[str, Any]) -> list[str]:
    """A line per check, for a terminal."""
    lines = []
    for row in gate["checks"]:
        sign = "ok  " if row["passed"] else "FAIL"
        value = "not measured" if row["difference"] is None else (
            f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
        )  # fmt: skip
        lines.append(f"{sign}  {row['name']:<28} {value:<30} may fall by {row['margin']:g}")
    return lines


def read_gates(path: Path, folder: Path) -> list[Gate]:
    """The checks of a report.json as gates of training.release.

    folder: the branch that is to be released. Raises Mismatch if the report's candidate is another one, BadData if the
    report holds no checks.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        checks, candidate = report["gate"]["checks"], report["gate"]["candidate"]
        weights = report["models"][candidate]["weights"]
        if not weights.startswith(f"branch {branch.read_branch(folder).sha256[:12]} "):
            raise Mismatch(
                f"{path}: its gate is about {candidate} ({weights}), not about {folder}; evaluate that one"
            )
        return [
            Gate(
                f"evaluation: {row['name']}",
                "not measured" if row["difference"] is None else f"{row['difference']:+.4f}",
                f"at least {-row['margin']:g}",
                bool(row["passed"]),
            )
            for row in checks
        ]
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadData(
            f"{path}: holds no checks of a gate; write it by training.evaluate with a [gate]"
        ) from None
