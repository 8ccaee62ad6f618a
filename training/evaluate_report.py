"""the page of an evaluation: at a glance first, then each yardstick, their agreement, examples, published numbers, files.

page(report, examples(...)).save(folder / "report.html")
"""

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluate_sections import (
    choice_parts,
    compared,
    examples,
    metric_parts,
    title,
)
from training.judge_figures import FEWEST_AXES, Interval, radar
from training.plots import Value, bars
from training.report import Page

__all__ = ["examples", "page"]

Report = Mapping[str, Any]
_NOTE = (
    "Numbers of this run only: these weights, these settings, these questions, this convention. Automatic metrics count "
    "shared words, not medical quality; a judge is a model; physicians decide."
)
_FIRST = {"ratio": "intent or department", "wins": "comparison"}
"""Heading of a published table's first column, if not `model`."""
_BOARD_NOTES = {
    "few_raters": "Few raters: cases are drawn, and not the raters.",
    "one_cluster": "One case or rater only: the intervals say little.",
    "separated": "A model never lost a vote: its score is held finite by a weak prior.",
    "not_comparable": "Not all models are joined by votes: those are not ranked together.",
    "no_votes": "No votes.",
}


def page(report: Report, samples: Sequence[tuple[str, list[dict[str, Any]]]]) -> Page:
    """The whole page; the same report and samples give the same bytes."""
    made = Page(report["name"], _NOTE)
    _glance(made, report)
    if report["gate"]:
        _gate(made, report["gate"])
    compared(made, report)
    metric_parts(made, report)
    choice_parts(made, report)
    if report["judge"]:
        _judge(made, report)
    if report["multiturn"]:
        _consultations(made, report["multiturn"])
    if report["physicians"]:
        _physicians(made, report["physicians"])
    _agreement(made, report["agreement"])
    if samples:
        made.heading("Wins and losses side by side")
        made.text("The clearest cases of either side, not typical ones.", note=True)
        for title, rows in samples:
            made.heading(title, 3).samples(rows)
    _published(made, report)
    _made_of(made, report)
    return made


def _glance(page: Page, report: Report) -> None:
    found = report["agreement"]
    page.heading("At a glance")
    if not found["pairs"]:
        page.text("One model, or nothing to compare with: see the figures below.")
        return
    page.table(
        [
            {"pair": f"{row['a']} against {row['b']}",
             **{_named(name): _mark(row["says"].get(name)) for name in found["yardsticks"]}}
            for row in found["pairs"]
        ],
        caption="Who is ahead by each yardstick. In brackets: not told apart from equal (the 95 % interval holds 0).",
    )  # fmt: skip


def _named(yardstick: str) -> str:
    metric, comma, place = yardstick.partition(",")
    return title(metric) + comma + place


def _mark(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return "–"
    if not said["ahead"]:
        return "equal"
    return str(said["ahead"]) if said["sure"] else f"({said['ahead']})"


def _gate(page: Page, gate: Mapping[str, Any]) -> None:
    page.heading("Gate")
    verdict = "passes" if gate["passed"] else "does not pass"
    rule = "the difference itself" if gate["by"] == "estimate" else "the lower end of its interval"
    where = ""
    if gate["report"]:
        where = f" of an earlier report ({gate['report']['file']} {gate['report']['sha256'][:12]}; not paired, so the intervals are wider)"
    page.text(
        f"{gate['candidate']} {verdict} against {gate['baseline']}{where}; counted is {rule}."
    )
    page.table(
        [
            {"metric": row["name"], "difference": _range(row, "difference"), "may fall by": row["margin"],
             "": "ok" if row["passed"] else f"FAILED: {row['why']}"}
            for row in gate["checks"]
        ]
    )  # fmt: skip


def _range(row: Mapping[str, Any], key: str) -> str:
    if row[key] is None:
        return "not measured"
    return f"{row[key]:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def _judge(page: Page, report: Report) -> None:
    found = report["judge"]
    page.heading("Judge")
    left = f" {found['left_out']} verdicts on other models are left out." if found["left_out"] else ""  # fmt: skip
    several = len(found["judges"]) > 1
    page.text(
        f"{'; '.join(found['judges']) or 'A judge'}: both orders, summed. A model's verdicts, not physicians'.{left}"
    )
    page.table(
        [
            {
                **({"judge": pair["judge"]} if several else {}),
                "pair": f"{pair['model_a']} against {pair['model_b']}",
                "win": pair["win"], "tie": pair["tie"], "loss": pair["loss"], "no verdict": pair["errors"],
                "share of the first": _share(pair["share"]),
                "ratio of scores": _share(pair["ratio"]),
                "orders that disagree": pair["flips"]["count"],
                "share if equally long": _share((pair["length"] or {}).get("controlled")),
            }
            for pair in found["pairs"]
        ],
        caption="A tie is half a point. Ratio: the second's mean score over the first's, as in the paper's radar figures. "
        "If equally long: logistic regression on the difference in length (length-controlled AlpacaEval).",
    )  # fmt: skip
    apart = [pair for pair in found["pairs"] if len(pair["by_benchmark"]) > 1]
    if apart:
        page.table(
            [
                {**({"judge": pair["judge"]} if several else {}), "pair": f"{pair['model_a']} against {pair['model_b']}",
                 "benchmark": name, "win": one["win"], "tie": one["tie"], "loss": one["loss"],
                 "share of the first": _share(one["share"])}
                for pair in apart for name, one in pair["by_benchmark"].items()
            ],
            caption="The same verdicts by benchmark.",
        )  # fmt: skip
    drawn: dict[str, dict[str, Value]] = {}
    for pair in found["pairs"]:
        if pair["judged"]:
            of = f", {pair['judge']}" if several else ""
            drawn[f"{pair['model_a']} : {pair['model_b']}{of}"] = {
                k: (pair[f"{k}_rate"], *pair[f"{k}_interval"]) for k in ("win", "tie", "loss")
            }
    if drawn:
        page.figure(bars(drawn, label="95 % Wilson intervals"), "Verdicts on the first of each pair.")  # fmt: skip
    for judge in dict.fromkeys(pair["judge"] for pair in found["pairs"]):
        pairs = [pair for pair in found["pairs"] if pair["judge"] == judge]
        for key, words in (("by_intent", "intent"), ("by_department", "department")):
            _radars(page, pairs, key, words, f"{judge}: scores" if several else "Judge's scores")


def _radars(
    page: Page, pairs: Sequence[Mapping[str, Any]], key: str, words: str, whose: str
) -> None:
    """One radar per model that others were judged against, by intent or department."""
    for own in dict.fromkeys(pair["model_a"] for pair in pairs):
        series: dict[str, dict[str, Interval]] = {}
        for pair in pairs:
            if pair["model_a"] == own:
                ratios = {n: g["ratio"] for n, g in pair[key].items() if g["ratio"]}
                series[pair["model_b"]] = {n: (r["value"], r["low"], r["high"]) for n, r in ratios.items()}  # fmt: skip
        if series and min(map(len, series.values())) >= FEWEST_AXES:
            page.figure(
                radar(series, own=own),
                f"{whose} by {words}, as a ratio to {own} = 1; intervals along the spokes.",
            )
            labels = sorted({n for values in series.values() for n in values})
            page.table(
                [{words: n, **{m: _interval(v.get(n)) for m, v in series.items()}} for n in labels]
            )


def _interval(value: Interval | None) -> str:
    return "–" if value is None else f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


def _share(found: Mapping[str, Any] | None) -> str:
    if not found or found["value"] is None:
        return "–"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _consultations(page: Page, found: Mapping[str, Any]) -> None:
    page.heading("Consultations with a simulated patient")
    page.text(found["note"]["en"], note=True)
    models = found["models"]
    names = list(next(iter(models.values()))["shares"]) if models else []
    page.table(
        [{"": "consultations", **{m: str(f["consultations"]) for m, f in models.items()}},
         {"": "unfinished", **{m: str(sum(f["unfinished"].values())) for m, f in models.items()}}]
        + [{"": n.replace("_", " "), **{m: _share(f["shares"][n]) for m, f in models.items()}} for n in names]
        + [{"": "mean " + n.replace("_", " "), **{m: _mean(f["means"][n]) for m, f in models.items()}}
           for n in (next(iter(models.values()))["means"] if models else ())],
        caption=f"{found.get('cases', '')} cases, {found.get('turns', '')} turns at most. Shares with Wilson's 95 % intervals.",
    )  # fmt: skip
    drawn: dict[str, dict[str, Value]] = {
        n.replace("_", " "): {
            m: (f["shares"][n]["value"], f["shares"][n]["low"], f["shares"][n]["high"])
            for m, f in list(models.items())[:4]
            if f["shares"][n]["value"] is not None
        }
        for n in ("asks_back", "names_condition", "names_department", "advises")
        if n in names
    }
    drawn = {name: values for name, values in drawn.items() if values}
    if drawn:
        page.figure(bars(drawn, label="95 % Wilson intervals"), "Share of consultations, by model.")


def _mean(found: Mapping[str, Any]) -> str:
    return "–" if found["value"] is None else f"{found['value']:.2f}"


def _physicians(page: Page, found: Mapping[str, Any]) -> None:
    page.heading("Physicians")
    left = f"; {found['left_out']} votes on other models are left out" if found["left_out"] else ""
    page.text(f"{found['votes']} votes of {found['raters']} raters{left}.")
    page.table(
        [
            {"pair": f"{p['a']} against {p['b']}", "win": p["win"], "tie": p["tie"], "of them both bad": p["both_bad"],
             "loss": p["loss"], "share of the first": _share(p["share"])}
            for p in found["pairs"]
        ],
        caption="A tie is half a point; interval by bootstrap over cases.",
    )  # fmt: skip
    page.table(
        [
            {
                "rank": r["rank"],
                "model": r["model"],
                "score": _interval((r["score"], *r["interval"])),
                "votes": r["votes"],
            }
            for r in found["board"]
        ],
        caption=f"Davidson's model with ties, in log-odds; intervals clustered by {found['clustered_by']}. "
        + " ".join(_BOARD_NOTES.get(note, note) for note in found["notes"]),
    )


def _agreement(page: Page, found: Mapping[str, Any]) -> None:
    if len(found["yardsticks"]) < 2 or not found["pairs"]:
        return
    page.heading("Do the yardsticks agree")
    if found["few_models"]:
        page.text(
            f"Only {found['models']} models: whether yardsticks rank alike can hardly be told from chance with so few. "
            "The counts by question say more, where two yardsticks judged the same questions."
        )
    page.table(
        [
            {
                "yardsticks": f"{_named(row['one'])} and {_named(row['two'])}",
                "same winner of a pair": _same(row["same_winner"]),
                "rank correlation": "–" if row["rank_correlation"] is None else f"{row['rank_correlation']:+.2f} of {row['models']}",
                "same winner of a question": _same(row["questions"]),
            }
            for row in found["between"]
        ],
        caption="Among pairs, or questions, that both decide; Wilson's 95 % interval in brackets; 50 % is chance. Spearman's "
        "correlation over models, none for fewer than three.",
    )  # fmt: skip


def _same(found: Mapping[str, Any]) -> str:
    if not found["decided"]:
        return "–"
    low, high = found["interval"]
    return f"{found['same']} of {found['decided']} [{100 * low:.0f} %, {100 * high:.0f} %]"


def _published(page: Page, report: Report) -> None:
    tables = [(name, table) for name, found in report["published"].items() for table in found]
    if not tables:
        return
    page.heading("Published numbers beside ours")
    page.text(
        "Other models, under conventions that are published only in part: to look at beside ours, not to rank with them. "
        "Rows of this run come first and say so.",
        note=True,
    )
    for name, table in tables:
        page.heading(f"{table['title']}", 3)
        page.table(
            [*_ours(report, name, table), *_theirs(report, table)],
            caption=f"{table['note']} Convention: {table['convention']}. Source: {table['source']}.",
        )


def _theirs(report: Report, table: Mapping[str, Any]) -> list[dict[str, str]]:
    """The published rows; by intent, what this run's judge says stands beside them."""
    digits = 2 if table["kind"] == "ratio" else None
    rows = []
    for row in table["rows"]:
        shown = {_FIRST.get(table["kind"], "model"): row["model"]}
        for column, value in zip(table["columns"], row["values"], strict=True):
            shown[column] = f"{value:g}" if digits is None else f"{value:.{digits}f}"
        if row["label"] and report["judge"]:
            for pair in report["judge"]["pairs"]:
                found = pair["by_intent"].get(row["label"])
                name = f"this run: {pair['model_b']} to {pair['model_a']}"
                name += f", {pair['judge']}" if len(report["judge"]["judges"]) > 1 else ""
                shown[name] = _share(found["ratio"]) if found else "–"
        rows.append(shown)
    return rows


def _ours(report: Report, name: str, table: Mapping[str, Any]) -> list[dict[str, str]]:
    """This run's rows written as the table's, where it measures the same."""
    rows = []
    first = _FIRST.get(table["kind"], "model")
    if table["kind"] == "metrics" and name in report["metrics"]:
        for model, values in report["metrics"][name]["scores"].items():
            found = {c: values[c]["value"] for c in table["columns"]}
            shown = {c: "–" if v is None else _as_theirs(v, c, table["scale"]) for c, v in found.items()}  # fmt: skip
            rows.append({first: f"this run: {model}", **shown})
    if table["kind"] == "choice" and name in report["choice"]:
        for model, values in report["choice"][name]["models"].items():
            if values["accuracy"] is not None:
                shown = f"{table['scale'] * values['accuracy']:.1f}"
                rows.append({first: f"this run: {model}", "accuracy": shown})
    if table["kind"] == "wins":
        for by, key in (("judge", "judge"), ("physicians", "physicians")):
            for pair in (report[key] or {"pairs": ()})["pairs"]:
                a, b = pair.get("model_a", pair.get("a")), pair.get("model_b", pair.get("b"))
                total = sum(pair[c] for c in ("win", "tie", "loss")) or 1
                shown = {c: f"{100 * pair[c] / total:.0f}" for c in table["columns"]}
                told = pair.get("judge") or by
                rows.append({first: f"this run: {a} against {b}, {told}", **shown})
    return rows


def _as_theirs(value: float, column: str, scale: float) -> str:
    return f"{value:.2f}" if column.startswith("distinct") else f"{scale * value:.2f}"


def _made_of(page: Page, report: Report) -> None:
    page.heading("Convention and files")
    page.table([report["convention"]], caption="Of the automatic metrics; every choice is explained in training/scores.py.")  # fmt: skip
    page.table(
        [{"file": name, "sha256": sha256} for name, sha256 in sorted(report["files"].items())]
        + [{"file": f"model {n}", "sha256": m["sha256"]} for n, m in report["models"].items()],
        caption="What the report was made from; a model's digest covers weights, tokenizer and template.",
    )
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    page.text(
        f"{versions}. Seed {report['seed']}, {report['resamples']:,} resamples. Format {report['format']}.",
        note=True,
    )
