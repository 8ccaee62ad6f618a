"""what a loop from votes to a model came to: gates, wins, the rubric's parts, curves and answers, in one HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.release_gates import Outcome, examine
from training.report import Page, bars, curves
from training.rl_report import CURVES

if TYPE_CHECKING:
    from training.refine import RefineConfig


def page(
    config: "RefineConfig",
    folder: Path,
    outcome: Outcome,
    more: dict[str, Any],
    rows: list[dict[str, Any]],
) -> Page:
    """The page of report.html. folder: the loop's. more, rows: further figures and sample answers of training.verdict."""
    page = Page(
        f"Refined: {config.name}",
        f"The refined model against its parent on {outcome.cases} held-out cases, judged by {outcome.judge}.\n"
        f"{outcome.judge_note}",
    )
    page.heading("Gates").table(
        [
            (g.name, g.value, g.limit, "ok" if g.passed else "FAILED")
            for g in examine(outcome, config.gates)
        ],
        ["gate", "value", "limit", ""],
    )
    sampled = more["sampled"]
    rates = ("win_rate", "win_rate_low", "win_rate_high")
    page.heading("Against the parent").figure(
        bars(
            {
                "as the app draws": tuple(more[key] for key in rates),
                "whole distribution": tuple(sampled[key] for key in rates),
            },
            "wins, a tie counts half",
            reference=0.5,
        ),
        f"As the app draws answers: {more['wins']} wins, {more['ties']} ties, {more['losses']} losses; the gates go by "
        f"these. Drawn from both models' whole distributions: {sampled['wins']}, {sampled['ties']}, {sampled['losses']}. "
        "95 % intervals by bootstrap over cases.",
    )
    page.table(
        [
            (key, value, sampled.get(key))
            for key, value in more.items()
            if isinstance(value, int | float)
        ],
        ["figure", "as the app draws", "whole distribution"],
    )
    page.heading("Parts of the rubric").table(
        [
            {
                "kind": kind,
                "part": part,
                "parent": before,
                "refined": more[f"parts_{kind}_refined"][part],
            }
            for kind in ("complete", "incomplete")
            for part, before in more.get(f"parts_{kind}_parent", {}).items()
        ]
    )
    steps = folder / "work/rl" / config.name / "steps.csv"
    if steps.exists():
        page.heading("Reinforcement learning").figure(curves(steps, CURVES), "By step.")
    page.heading("Answers").samples(rows)
    return page
