"""the reward model's report: accuracy against the raters' own ceiling, calibration, groups, length, what was left out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reviews.stats import wilson
from training.report import Page, bars, curves, reliability, scatter

NAMES = {
    "accuracy": "accuracy (ties excluded)",
    "accuracy_with_ties": "accuracy over a, tie, b",
    "nll": "NLL, ties included (nats)",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "auc": "AUC",
    "tie_auc": "ties told from choices (AUC)",
}
NOTE = (
    "Measured on physicians' votes over held-out cases, on AI feedback where there are none. A vote is noisy, so the bound is not 100 % but what one physician's vote shares "
    "with the others' (the ceiling). Intervals are 95 %, by bootstrap over cases."
)


def write_report(path: Path, report: Mapping[str, Any], logs: Mapping[str, Path]) -> None:
    """The HTML page. report: what report.json holds. logs: member -> CSV of its loss."""
    page = Page(f"Reward model {report['name']}", NOTE)
    _summary(page, report)
    models: Mapping[str, Any] = report["models"]
    page.heading("Figures")
    rows = [
        {"figure": title, **{name: shown(m[key]) for name, m in models.items()}} for key, title in NAMES.items()
    ]  # fmt: skip
    page.table(rows)
    first = next(iter(models.values()))
    page.text(
        f"ECE over {first['bins']} bins of equal mass. Chance alone would show {first['ece_by_chance'] or 0:.3f} on "
        f"{first['decisive_votes']} votes even if every probability were exactly right.", note=True,
    )  # fmt: skip
    series = {name: _both_sides(m) for name, m in models.items() if m["decisive_votes"]}
    if series:
        page.heading("Calibration")
        page.figure(
            reliability(series),
            "Predicted and observed share of decisive votes for an answer; each vote from both sides.",
        )
    page.heading("Accuracy by group")
    for title, groups in first["groups"].items():
        shown_groups = {
            f"{name} ({g['votes']:.0f} votes)": (g["accuracy"], *wilson(g["accuracy"] * g["votes"], g["votes"]))
            for name, g in sorted(groups.items(), key=lambda item: -item[1]["votes"])[:12]
        }  # fmt: skip
        if shown_groups:
            page.figure(bars(shown_groups, title, reference=0.5), f"By {title}.")
    page.heading("Reward and length")
    points = report["length"]["points"]
    page.figure(
        scatter([p[0] for p in points], [p[1] for p in points], x_label="characters", y_label="reward"),
        "Answers of held-out cases; the reward whitened over training answers.",
    )  # fmt: skip
    if logs:
        page.heading("Training")
        page.figure(
            curves(dict(logs), {"loss": "training loss", "validation": "validation NLL"}),
            "By step and member.",
        )
    _data(page, report)
    page.save(path)


def _summary(page: Page, report: Mapping[str, Any]) -> None:
    ceiling, model = report["ceiling"], next(iter(report["models"].values()))
    gap = model["gap_to_ceiling"]
    text = (
        f"On {model['votes']} votes over {model['cases']} held-out cases the ensemble agrees with "
        f"{shown(model['accuracy'])} of the votes that chose a side. "
    )
    if ceiling["value"] is None:
        text += f"The raters' ceiling is {ceiling['why']}."
    else:
        text += (
            f"The raters' ceiling is {ceiling['value']:.3f} ({ceiling['low']:.3f}–{ceiling['high']:.3f}; {ceiling['votes']} "
            f"votes of {ceiling['raters']} raters on pairs that several judged)"
        )
        if gap["value"] is None:
            text += "; no physician's vote on the held-out cases chose a side, so the ensemble has no place beside it."
        else:
            text += (
                f", less the ensemble's agreement {gap['value'] * 100:+.1f} points ({gap['low'] * 100:+.1f} to "
                f"{gap['high'] * 100:+.1f}). On the very pairs of the ceiling the ensemble has "
                f"{shown(model['accuracy_on_pairs_of_the_ceiling'])}."
            )
    page.text(text)


def _data(page: Page, report: Mapping[str, Any]) -> None:
    page.heading("Votes")
    page.table(
        [
            {"what": key.replace("_", " "), "number": value}
            for key, value in report["counts"].items()
        ],
        caption="Everything that was read, left out or changed. Nothing else was.",
    )
    page.heading("Raters", 3)
    page.table(
        report["raters"],
        caption="Reliability: share of a rater's choices that name the better side (one-coin Dawid-Skene, shrunk to the mean).",
    )
    page.heading("Members", 3)
    page.table(report["members"])
    for key in ("ai_weights_tried", "ridges_tried"):
        if report.get(key):
            page.text(f"{key.replace('_', ' ')}: {report[key]}", note=True)
    page.text(
        f"Temperature {report['scale']['temperature']:.3f}, log theta {report['scale']['log_theta']:.3f}, slips of raters {report['slip']:.1%}; fitted on validation cases. Parent {report['parent_sha256'][:16]}….",
        note=True,
    )


def shown(figure: Mapping[str, float | None]) -> str:
    """A figure with its interval as text."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    if value is None:
        return "–"
    return f"{value:.3f}" + (
        f" ({low:.3f}–{high:.3f})" if low is not None and high is not None else ""
    )


def _both_sides(model: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    p, outcome = np.array(model["confidence"]), np.array(model["outcome"])
    p, won = p[outcome != 0], (outcome[outcome != 0] + 1) / 2
    return [*p, *(1 - p)], [*won, *(1 - won)]
