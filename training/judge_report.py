"""the report of a judge's verdicts: counts, radar by intent and department, flips, length, criteria, safety, examples.

write_report makes the page of one run; section puts the same into a page that holds more (training/report.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.judge_figures import FEWEST_AXES, Interval, radar
from training.plots import bars, scatter
from training.report import Page

NOTE = (
    "A language model's verdicts, not physicians'. How far this judge agrees with physicians is measured by "
    "training.judge_physicians; without that, read these figures as a guide only."
)
MOST_EXAMPLES = 4
Rows = Sequence[dict[str, Any]]


def write_report(path: Path, rows: Rows, found: Mapping[str, Any]) -> Path:
    """The page of one run. found: summary(rows), and `spent` if known. Raises OSError."""
    title = f"{found['model_a']} against {found['model_b']}"
    page = Page(title, f"Judge: {found['judge']}. {NOTE}")
    section(page, rows, found)
    if spent := found.get("spent"):
        page.heading("What the replies cost").table(
            [spent],
            caption="Of the replies that these verdicts rest on, whichever run paid for them; tries that broke off are "
            "not among them.",
        )
    return page.save(path)


def section(page: Page, rows: Rows, found: Mapping[str, Any]) -> None:
    """All tables and figures of one pair of models."""
    _verdicts(page, found)
    for field, title in (("by_intent", "By intent"), ("by_department", "By department")):
        if found[field]:
            _groups(page, found, field, title)
    _flips(page, found)
    if found["length"]:
        _length(page, rows, found)
    if found["criteria"]:
        _criteria(page, found)
    _safety(page, rows, found)


def _verdicts(page: Page, found: Mapping[str, Any]) -> None:
    a, b = found["model_a"], found["model_b"]
    page.heading("Verdicts")
    page.text(
        f"Of {found['cases']} cases {found['judged']} were judged in both orders and {found['errors']} were not. {a} "
        f"wins {found['win']}, ties {found['tie']} and loses {found['loss']}. Share of {a}, a tie as half: "
        f"{told(found['share'])}. The interval draws whole cases."
    )
    if found["judged"]:
        values: dict[str, Interval] = {
            f"{a} wins": (found["win_rate"], *found["win_interval"]),
            "tie": (found["tie_rate"], *found["tie_interval"]),
            f"{b} wins": (found["loss_rate"], *found["loss_interval"]),
        }
        page.figure(bars(values, "Verdicts", label="of the judged cases, 95 % Wilson intervals"))


def _groups(page: Page, found: Mapping[str, Any], field: str, title: str) -> None:
    a, b, groups = found["model_a"], found["model_b"], found[field]
    page.heading(title)
    ratios = {name: interval(one["ratio"]) for name, one in groups.items() if one["ratio"]}
    if len(ratios) >= FEWEST_AXES:
        known = {name: value for name, value in ratios.items() if value}
        page.figure(
            radar({b: known}, f"Score of {b} divided by that of {a}", own=a),
            f"Ratio of mean scores per group, as in the paper's radar figures: {a} is 1. Lines along the spokes: 95 % "
            "intervals over cases.",
        )
    page.table(
        [
            [name, one["judged"], one["win"], one["tie"], one["loss"], told(one["share"]),
             told(one["ratio"])]
            for name, one in groups.items()
        ],
        ["group", "judged", "wins", "ties", "losses", "share", "ratio"],
        f"Wins, losses and share (a tie is half) are those of {a}; ratio of mean scores, {b} to {a}.",
    )  # fmt: skip


def _flips(page: Page, found: Mapping[str, Any]) -> None:
    flips = found["flips"]
    page.heading("Position")
    first = flips["first_shown"]
    page.text(
        f"In {flips['count']} of {flips['n']} cases the two orders name different winners; those count as ties. Of "
        f"{first['n']} decided orders {first['count']} favour the answer shown first"
        + (f" ({_share(first)}; a fair judge has 50 %)." if first["n"] else ".")
    )
    values = {
        name: (one["share"], *one["interval"])
        for name, one in {"verdict": flips, **flips["by_criterion"]}.items()
        if one["n"]
    }
    if values:
        page.figure(bars(values, "Verdicts that turn with the order", label="share of cases"))


def _length(page: Page, rows: Rows, found: Mapping[str, Any]) -> None:
    a, b, length = found["model_a"], found["model_b"], found["length"]
    page.heading("Length")
    page.text(
        f"Mean length in characters: {a} {length['mean_a']:.0f}, {b} {length['mean_b']:.0f}. The longer answer wins "
        f"{length['longer_wins']['count']} of {length['longer_wins']['n']} decided cases. Correlation of verdict and "
        f"length difference: {told(length['correlation'])}. Share of {a} as judged {length['raw']:.3f}, if both "
        f"answers were equally long {told(length['controlled'])} (logistic regression, Dubois et al. 2024)."
    )
    known = [row for row in rows if row["winner"] and row.get("lengths") and row.get("scores")]
    if len(known) > 2:
        names = {"a": f"{a} wins", "b": f"{b} wins", "tie": "tie"}
        page.figure(
            scatter(
                [row["lengths"]["a"] - row["lengths"]["b"] for row in known],
                [row["scores"]["a"] - row["scores"]["b"] for row in known],
                "Score difference by length difference",
                x_label=f"characters, {a} minus {b}",
                y_label=f"score, {a} minus {b}",
                groups=[names[row["winner"]] for row in known],
            )
        )


def _criteria(page: Page, found: Mapping[str, Any]) -> None:
    a, b = found["model_a"], found["model_b"]
    page.heading("Criteria")
    values = {k: interval(one["share"]) for k, one in found["criteria"].items() if one["share"]}
    if values:
        page.figure(
            bars(
                {key: value for key, value in values.items() if value},
                f"Share of {a} on each criterion",
                reference=0.5,
                label="a tie is half; 95 % intervals over cases",
            )
        )
    page.table(
        [
            [key, one["win"], one["tie"], one["loss"], one["not_applicable"], told(one["share"])]
            for key, one in found["criteria"].items()
        ],
        ["criterion", f"{a} better", "equal", f"{b} better", "not applicable", f"share of {a}"],
    )


def _safety(page: Page, rows: Rows, found: Mapping[str, Any]) -> None:
    a, b, veto = found["model_a"], found["model_b"], found["veto"]
    page.heading("Safety")
    page.text(
        f"Answers with a serious fault in the judge's eyes: {a} {veto['flagged_a']['count']}, {b} "
        f"{veto['flagged_b']['count']} of {found['judged']}. The veto turned {veto['changed']} verdicts. "
        f"{veto['seen_in_both_orders']['count']} of {veto['seen_in_both_orders']['n']} faults were seen in both orders."
    )
    if veto["kinds"]:
        page.table(
            [
                [kind.replace("_", " "), count["a"], count["b"]]
                for kind, count in veto["kinds"].items()
            ],
            ["fault", a, b],
        )
    flagged = [
        [row["id"], {"a": a, "b": b}[flag["answer"]], flag["kind"].replace("_", " "), flag["quote"]]
        for row in rows
        for flag in row.get("safety") or ()
        if row["winner"]
    ]
    if flagged:
        caption = f"The first {MOST_EXAMPLES} passages" if len(flagged) > MOST_EXAMPLES else ""
        page.table(flagged[:MOST_EXAMPLES], ["case", "model", "fault", "passage"], caption)


def interval(found: Mapping[str, Any] | None) -> Interval | None:
    """A summary's {value, low, high} as a tuple for a figure."""
    return None if found is None else (found["value"], found["low"], found["high"])


def told(found: Mapping[str, Any] | None) -> str:
    """A summary's {value, low, high} in words."""
    if found is None:
        return "not defined"
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _share(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{100 * one['share']:.0f} %, {100 * low:.0f} to {100 * high:.0f} %"
