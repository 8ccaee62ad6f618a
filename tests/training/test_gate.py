"""The gate against an earlier report: what cannot be told across two reports is an error, never a pass."""

from typing import Any

import pytest

from huatuo.errors import Mismatch
from training.gate import SAME, Earlier, GateConfig, check


def report(
    model: str, *, right: int, failed: int = 0, scored: str | None = "same"
) -> dict[str, Any]:
    """What the gate reads of a report with one model, ten multiple-choice questions and one metric."""
    of = 10 - failed
    choice = {"accuracy": right / of, "interval": [0.2, 0.9], "of": of, "failed": failed}
    value = {"gleu": {"value": 0.5, "interval": [0.4, 0.6]}}
    return {
        "models": {model: {"settings": None}}, "convention": {}, "seed": 0,
        "benchmarks": {name: dict.fromkeys((*SAME, "items", "whole"), 10) for name in ("mc", "qa")},
        "answers": {}, "choice": {"mc": {"models": {model: choice}}},
        "metrics": {"qa": {"scores": {model: value}, "questions": 10} | ({"scored": scored} if scored else {})},
    }  # fmt: skip


def gate(before: dict[str, Any], now: dict[str, Any], metric: str) -> dict[str, Any]:
    config = GateConfig(candidate="new", baseline="old", report="r.json", margins={metric: 0.05})
    return check(config, now, Earlier("r.json", "0" * 64, before))


def test_accuracies_of_other_questions_are_not_compared() -> None:
    old = report("old", right=6)
    assert gate(old, report("new", right=6), "accuracy")["passed"]
    assert not gate(old, report("new", right=5), "accuracy")["passed"]
    for before, now in (
        (old, report("new", right=5, failed=5)),  # right in all that it answered
        (report("old", right=3, failed=4), report("new", right=6)),
    ):
        with pytest.raises(Mismatch, match=r"mc: [45] questions have no answer"):
            gate(before, now, "accuracy")


def test_a_report_of_an_earlier_version_says_so() -> None:
    now = report("new", right=6)
    assert gate(report("old", right=6), now, "gleu")["passed"]
    with pytest.raises(Mismatch, match=r"of an earlier version, .* evaluate that model again"):
        gate(report("old", right=6, scored=None), now, "gleu")
    with pytest.raises(Mismatch, match="other questions were scored"):
        gate(report("old", right=6, scored="other"), now, "gleu")
