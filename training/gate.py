"""the regression gate of an evaluation: which metric of a candidate fell by more than its margin against a baseline.

Both models answer in the same evaluation, on the same questions, so the difference is paired; a baseline that was
evaluated before costs nothing, for its answers are kept. Where they are not, `report` (--baseline) names the earlier
report: its files, settings and convention must be the same. What was not measured does not pass.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
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
SECTIONS = ("models", "benchmarks", "convention", "answers", "metrics", "choice")
"""Of a report that can hold a baseline."""
SAME = ("kind", "split", "files", "items", "whole", "with_references")
"""What must be the same of a benchmark in two reports."""
Value = tuple[float, float, float]
Margins = Annotated[dict[str, float], Field(strict=False)]


class GateConfig(Settings):
    """The table [gate] of an evaluation's file, or a file of its own for --gate."""

    candidate: str = Field(description="name of the model that wants to be released")
    baseline: str = Field(description="name of the model that it may not fall behind")
    report: str = Field(
        default="",
        description="report.json of an earlier evaluation that holds the baseline, on the same questions, settings and "
        "convention; the difference is then not paired and its interval wider",
    )
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


@dataclass(frozen=True)
class Earlier:
    """A report.json that was written before. name, sha256: of its file."""

    name: str
    sha256: str
    report: Mapping[str, Any]


def read_earlier(config: GateConfig, folder: Path) -> Earlier | None:
    """The report that holds the baseline, None if it is this one. Raises BadData for a file that is none."""
    if not config.report:
        return None
    path = folder / config.report
    try:
        raw = path.read_bytes()
        report = json.loads(raw)
        if not all(isinstance(report[key], dict) for key in SECTIONS):
            raise TypeError
    except OSError as error:
        raise BadData(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadData(f"{path}: is no report.json of training.evaluate") from None
    return Earlier(path.name, hashlib.sha256(raw).hexdigest(), report)


def check_config(
    config: GateConfig, head: Mapping[str, Any], earlier: Earlier | None = None
) -> None:
    """Raises ConfigError for a model that is not there, a metric nobody knows, a margin below 0, Mismatch for an earlier
    report on other questions, settings or another convention.

    head: of this evaluation, known before anything is answered: models, benchmarks, convention and seed of its report.
    """
    holder = head if earlier is None else earlier.report
    for role, report in (("candidate", head), ("baseline", holder)):
        if getattr(config, role) not in report["models"]:
            where = "this evaluation" if report is head else config.report
            raise ConfigError(
                f"gate.{role}: {getattr(config, role)} is not in {where}; it has {', '.join(report['models'])}"
            )
    unknown = sorted(set(config.margins) - set(KNOWN))
    if unknown or not config.margins:
        told = f"unknown metric {unknown[0]}" if unknown else "no metric"
        raise ConfigError(f"gate.margins: {told}; there are {', '.join(KNOWN)}")
    if low := [name for name, margin in config.margins.items() if margin < 0]:
        raise ConfigError(f"gate.margins.{low[0]}: must be 0 or more")
    if other := [name for name in config.benchmarks if name not in head["benchmarks"]]:
        raise ConfigError(f"gate.benchmarks: {other[0]} is none of {', '.join(head['benchmarks'])}")
    if earlier is not None:
        _check_same(config, head, earlier.report)


def _check_same(config: GateConfig, head: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises Mismatch for the first thing in which the two evaluations differ."""
    pairs = [("convention", head["convention"], other["convention"])]
    own, theirs = (
        r["models"][n]["settings"] for r, n in ((head, config.candidate), (other, config.baseline))
    )
    if own and theirs:  # a file of ready answers has none
        pairs.append(("settings of the models", own, theirs))
    for name, about in head["benchmarks"].items():
        if config.benchmarks and name not in config.benchmarks:
            continue
        found = other["benchmarks"].get(name)
        if found is None:
            raise Mismatch(f"gate.report: {config.report} has no benchmark {name}")
        pairs += [(f"{name}: {key}", about[key], found.get(key)) for key in SAME]
        if about["items"] < about["whole"]:
            pairs.append(("seed, by which a part is drawn", head["seed"], other.get("seed")))
    for what, one, two in pairs:
        if one != two:
            raise Mismatch(
                f"gate.report: {what} was {_short(two)} in {config.report} and is {_short(one)} here; evaluate both alike"
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 200 else text[:200] + "…"


def check(
    config: GateConfig, report: Mapping[str, Any], earlier: Earlier | None = None
) -> dict[str, Any]:
    """{passed, candidate, baseline, report, by, checks: [{name, difference, low, high, margin, passed, why}]}, for JSON.

    Raises what check_config raises.
    """
    check_config(config, report, earlier)
    checks = []
    for name, margin in config.margins.items():
        if earlier is None:
            found = _found(config, report, name)
        else:
            found = _across(config, report, earlier.report, name)
        checks += [_check(config, where, row, margin) for where, row in found]
        if not found:
            why = "not measured for these two models"
            if earlier is not None and name in (JUDGE, PHYSICIANS):
                why = "cannot be told across two reports; evaluate both models together"
            checks.append({"name": name, "difference": None, "low": None, "high": None,
                           "margin": margin, "passed": False, "why": why})  # fmt: skip
    return {
        "passed": all(row["passed"] for row in checks),
        "candidate": config.candidate,
        "baseline": config.baseline,
        "report": earlier and {"file": earlier.name, "sha256": earlier.sha256},
        "by": config.by,
        "checks": checks,
    }


def _found(
    config: GateConfig, report: Mapping[str, Any], name: str
) -> list[tuple[str, Mapping[str, Any]]]:
    """(where it was measured, the difference candidate minus baseline with low and high) of one metric."""
    if name in (JUDGE, PHYSICIANS):
        return _of_pairs(config, report, name)
    found: list[tuple[str, Mapping[str, Any]]] = []
    for _, benchmark, figures in _chosen(config, report, name):
        if name == FINISHED:
            sides = [_value(name, figures, model) for model in (config.candidate, config.baseline)]
            found.append((f"{name}, {benchmark}", _unpaired(*sides)))  # type: ignore[arg-type]
            continue
        for row in figures["differences"]:
            if row["metric"] == name and {row["a"], row["b"]} == {config.candidate, config.baseline}:  # fmt: skip
                found.append((f"{name}, {benchmark}", _turned(row, row["a"] == config.candidate)))
    return found


def _chosen(
    config: GateConfig, report: Mapping[str, Any], name: str
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(section of the report, benchmark, its figures) where a metric is measured."""
    section = {ACCURACY: "choice", FINISHED: "answers"}.get(name, "metrics")
    wanted = config.benchmarks
    return [(section, b, f) for b, f in report[section].items() if not wanted or b in wanted]


def _across(
    config: GateConfig, report: Mapping[str, Any], other: Mapping[str, Any], name: str
) -> list[tuple[str, Mapping[str, Any]]]:
    """As _found, the baseline's value from another report. Raises Mismatch where other questions were scored."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    if name in (JUDGE, PHYSICIANS):
        return found
    for section, benchmark, own in _chosen(config, report, name):
        theirs = other[section].get(benchmark)
        if theirs is None:
            continue
        if section == "metrics" and "scored" not in theirs:
            raise Mismatch(
                f"gate.report: {benchmark}: {config.report} is of an earlier version, which did not keep what was scored; "
                "evaluate that model again"
            )
        if name == ACCURACY and (
            failed := _failed(own, config.candidate) + _failed(theirs, config.baseline)
        ):
            raise Mismatch(
                f"gate.report: {benchmark}: {failed} questions have no answer and count for nothing, so the accuracies are "
                "of different questions; evaluate both models together"
            )
        if section == "metrics" and own["scored"] != theirs["scored"]:
            raise Mismatch(
                f"gate.report: {benchmark}: other questions were scored ({theirs['questions']} in {config.report}, "
                f"{own['questions']} here), for not every model answered all; evaluate both models together"
            )
        one, two = _value(name, own, config.candidate), _value(name, theirs, config.baseline)
        if one is not None and two is not None:
            found.append((f"{name}, {benchmark}", _unpaired(one, two)))
    return found


def _failed(figures: Mapping[str, Any], model: str) -> int:
    """How many multiple-choice questions a model gave no answer to."""
    return int(figures["models"].get(model, {}).get("failed", 0))


def _value(name: str, figures: Mapping[str, Any], model: str) -> Value | None:
    """(value, low, high) of one model, None if it was not measured."""
    if name == FINISHED:
        count = figures[model]
        return (count["finished"] / count["asked"], *wilson(count["finished"], count["asked"]))
    key, models = ("accuracy", "models") if name == ACCURACY else ("value", "scores")
    found = figures[models].get(model, {})
    found = found if name == ACCURACY else found.get(name, {})
    if found.get(key) is None or found.get("interval") is None:
        return None
    return (found[key], *found["interval"])


def _unpaired(one: Value, two: Value) -> dict[str, float]:
    """The difference of two values with its 95 % interval from theirs.

    Source: Newcombe 1998, method 10; for other values Zou and Donner 2008. Wider than a paired one on the same questions.
    """
    (p, low, high), (q, under, over) = one, two
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
) -> list[tuple[str, Mapping[str, Any]]]:
    """The share of points of each judge, or the physicians, minus one half."""
    section = report.get(name) or {}
    found = []
    for pair in section.get("pairs", ()):
        names = (pair.get("model_a", pair.get("a")), pair.get("model_b", pair.get("b")))
        share = pair.get("share")
        if share and set(names) == {config.candidate, config.baseline}:
            row = {
                "difference": share["value"] - 0.5,
                "low": share["low"] - 0.5,
                "high": share["high"] - 0.5,
            }
            where = f"{name}, {pair['judge']}" if len(section.get("judges", ())) > 1 else name
            found.append((where, _turned(row, names[0] == config.candidate)))
    return found


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
