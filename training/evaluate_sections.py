"""the parts of an evaluation's report about answers: who was asked what, metrics, multiple choice, examples.

All are made from report.json alone (and the examples' texts), so that the page never says what the file does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from training.generate import Answers
from training.judge_figures import FEWEST_AXES, Interval, radar
from training.measures import FEWEST_BY_LABEL, Measured
from training.plots import Value, bars
from training.questions import Questions
from training.report import Page
from training.scores import DISTINCT, METRICS

Report = Mapping[str, Any]
DRAWN = ("bleu-1", "bleu-4", "gleu", "rouge-1", "rouge-2", "rouge-l")
MOST_SERIES = 4
LONGEST, LONGEST_REFERENCE = 1000, 400
"""Characters of an answer, and of a reference, that are shown."""
_NEUTRAL = {"top_k": 0, "repetition_penalty": 1.0, "num_beams": 1}
"""Settings that change nothing and are not shown."""


def compared(page: Page, report: Report) -> None:
    """The models, the questions with their licences, and what became of the answers."""
    page.heading("What was compared")
    rows = [
        {
            "model": name,
            "title": about["title"] if about["title"] != name else "",
            "weights": about["weights"],
            "settings": ", ".join(
                f"{k} {v}" for k, v in about["settings"].items() if _NEUTRAL.get(k) != v
            ),
            "licence": about["licence"],
            "in a study": about["study_use"],
        }
        for name, about in report["models"].items()
    ]
    page.table(
        rows,
        [key for key in rows[0] if any(row[key] for row in rows)],
        caption="Weights by the first 12 digits of their sha256; settings are those that change an answer of the model.",
    )
    page.table(
        [
            {
                "questions": name,
                "title": about["title"] + (f", {about['split']}" if about["split"] else ""),
                "asked": _of(about["items"], about["whole"]),
                "licence": about["licence"],
                "files": "; ".join(f"{file} {sha[:12]}" for file, sha in about["files"].items()),
            }
            for name, about in report["benchmarks"].items()
        ],
        caption="A licence is that of the data and holds for what is quoted from it below.",
    )
    page.table(
        [
            {
                "questions": name,
                "model": model,
                "asked": count["asked"],
                "finished": count["finished"],
                "failed": ", ".join(f"{n} {kind}" for kind, n in count["failed"].items()) or "none",
                "empty": count["empty"],
                "mean length": count["mean_characters"],
            }
            for name, by_model in report["answers"].items()
            for model, count in by_model.items()
        ],
        caption="Only finished answers are scored. Failed: no answer, or one that was cut at its limit (length); asked "
        "again with --retry. Length in characters.",
    )


def _of(part: int, whole: int) -> str:
    return f"{part:,}" if part == whole else f"{part:,} of {whole:,}, drawn"


def metric_parts(page: Page, report: Report) -> None:
    """Scores, differences and labels of every benchmark with free answers."""
    for name, figures in report["metrics"].items():
        if not figures["scores"]:
            continue
        about = report["benchmarks"][name]
        page.heading(f"Automatic metrics: {about['title']}")
        _said(page, figures)
        known = [m for m in METRICS if next(iter(figures["scores"].values()))[m]["value"] is not None]  # fmt: skip
        page.table(
            [
                {"metric": title(m), **{n: _value(v[m], m) for n, v in figures["scores"].items()}}
                for m in known
            ],
            caption="95 % bootstrap intervals over questions in brackets. BLEU, GLEU and ROUGE x 100.",
        )
        _bars(page, figures, [m for m in DRAWN if m in known])
        _differences(page, figures, known)
        _labels(page, report, figures)


def _said(page: Page, figures: Report) -> None:
    asked, of = figures["questions"], figures["of"]
    words = f"On {asked} questions"
    if asked < of:
        words += f" of {of}: those that every model answered to the end"
    for model, why in figures["left_out"].items():
        words += f". Left out: {model} ({why})"
    page.text(words + ".")


def title(metric: str) -> str:
    """BLEU-1 for bleu-1; what is no metric stays as it is."""
    if metric not in METRICS:
        return metric
    family, _, order = metric.partition("-")
    return (family.capitalize() if family == "distinct" else family.upper()) + (f"-{order.upper()}" if order else "")  # fmt: skip


def _value(found: Mapping[str, Any], metric: str) -> str:
    if found["value"] is None:
        return "–"
    scale, digits = (1, 3) if metric in DISTINCT else (100, 2)
    value = f"{found['value'] * scale:.{digits}f}"
    if found["interval"] is None:
        return value
    low, high = (f"{end * scale:.{digits}f}" for end in found["interval"])
    return f"{value} [{low}, {high}]"


def _bars(page: Page, figures: Report, drawn: Sequence[str]) -> None:
    models = list(figures["scores"])[:MOST_SERIES]
    groups: dict[str, dict[str, Value]] = {}
    for metric in drawn:
        groups[title(metric)] = {}
        for model in models:
            found = figures["scores"][model][metric]
            low, high = found["interval"] or (found["value"], found["value"])
            ends = (round(100 * end, 2) for end in (found["value"], low, high))
            groups[title(metric)][model] = tuple(ends)  # type: ignore[assignment]
    if groups:
        page.figure(
            bars(groups, percent=False, label="x 100; 95 % bootstrap intervals"),
            "Metrics by model." + _others(figures["scores"], models),
        )


def _others(all_models: Mapping[str, Any], shown: Sequence[str]) -> str:
    left = [model for model in all_models if model not in shown]
    return f" Not drawn, see the table: {', '.join(left)}." if left else ""


def _differences(page: Page, figures: Report, known: Sequence[str]) -> None:
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in figures["differences"]))
    for a, b in pairs:
        rows = [r for r in figures["differences"] if (r["a"], r["b"]) == (a, b)]
        page.table(
            [
                {
                    "metric": title(row["metric"]),
                    "difference": _signed(row, row["metric"]),
                    "p": f"{row['p']:.4f}",
                    "p, Holm": f"{row['p_holm']:.4f}",
                    "ahead": (a if row["difference"] > 0 else b) if row["p_holm"] < 0.05 else "not told apart",
                }
                for row in rows
                if row["metric"] in known
            ],
            caption=f"{a} minus {b}: paired bootstrap interval, p by approximate randomisation, corrected by Holm over the "
            f"{len(rows)} metrics of this pair.",
        )  # fmt: skip


def _signed(row: Mapping[str, Any], metric: str) -> str:
    scale, digits = (1, 3) if metric in DISTINCT else (100, 2)
    value, low, high = (f"{row[k] * scale:+.{digits}f}" for k in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]"


def _labels(page: Page, report: Report, figures: Report) -> None:
    """ROUGE-L by intent or department, as a table and, for three labels or more, as a radar of ratios."""
    by_label = figures["by_label"]
    if not by_label or "rouge-l" not in next(iter(by_label.values()))["scores"][next(iter(figures["scores"]))]:  # fmt: skip
        return
    ours, *others = figures["scores"]
    page.heading("By intent or department", 3)
    ratios: dict[str, dict[str, Interval]] = {other: {} for other in others[:MOST_SERIES]}
    for label, found in by_label.items():
        base = found["scores"][ours]["rouge-l"]
        for other in ratios:
            if base > 0:
                ratio = found["scores"][other]["rouge-l"] / base
                ratios[other][label] = (ratio, ratio, ratio)
    if others and min(map(len, ratios.values())) >= FEWEST_AXES:
        page.figure(
            radar(ratios, own=ours),
            f"ROUGE-L by label, as a ratio to {ours} = 1, the form of the paper's figures (theirs are a judge's scores).",
        )
    page.table(
        [
            {"label": label, "questions": found["questions"],
             **{m: f"{100 * v['rouge-l']:.2f}" for m, v in found["scores"].items()}}
            for label, found in by_label.items()
        ],
        caption=f"ROUGE-L x 100. Labels of fewer than {FEWEST_BY_LABEL} questions are left out.",
    )  # fmt: skip


def choice_parts(page: Page, report: Report) -> None:
    """Accuracies whole and by subject, unanswerable and failed counted."""
    for name, figures in report["choice"].items():
        page.heading(f"Multiple choice: {report['benchmarks'][name]['title']}")
        page.text(
            "An answer counts by the letters it names, read by one strict rule (training/choice.py). Unanswerable: no "
            "letter by that rule; wrong in the accuracy. Failed: no finished answer; counts for nothing."
            + (f" {figures['unmarked']} questions have no published answer." if figures["unmarked"] else "")
        )  # fmt: skip
        page.table([_accuracy(model, found) for model, found in figures["models"].items()])
        drawn: dict[str, Value] = {
            model: (found["accuracy"], *found["interval"])
            for model, found in figures["models"].items()
            if found["accuracy"] is not None
        }
        if drawn:
            page.figure(bars(drawn, label="accuracy, 95 % Wilson intervals"), "Accuracy.")
        if figures["differences"]:
            page.table(
                [
                    {"pair": f"{r['a']} minus {r['b']}", "difference": f"{100 * r['difference']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]",
                     "only the first is right": r["only_first"], "only the second": r["only_second"],
                     "p": f"{r['p']:.4f}", "p, Holm": f"{r['p_holm']:.4f}"}
                    for r in figures["differences"]
                ],
                caption="Percentage points; paired bootstrap interval; exact McNemar test, corrected over the pairs.",
            )  # fmt: skip
        _subjects(page, figures)


def _accuracy(model: str, found: Mapping[str, Any]) -> dict[str, Any]:
    letters = found["by_letters"]
    row = {
        "model": model,
        "accuracy": _percent(found),
        "right": found["right"],
        "wrong": found["wrong"],
        "unanswerable": found["unanswerable"],
        "failed": found["failed"],
    }
    return row | ({"by likelihood of the letters": _percent(letters)} if letters else {})


def _percent(found: Mapping[str, Any]) -> str:
    if found["accuracy"] is None:
        return "–"
    low, high = found["interval"]
    return f"{100 * found['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] of {found['of']}"


def _subjects(page: Page, figures: Report) -> None:
    subjects = sorted({s for found in figures["models"].values() for s in found["by_subject"]})
    if len(subjects) > 1:
        page.table(
            [
                {"subject": s, **{m: _percent(f["by_subject"][s]) for m, f in figures["models"].items()}}
                for s in subjects
            ],
            caption="Accuracy in percent by subject, 95 % Wilson intervals.",
        )  # fmt: skip


def examples(
    report: Report,
    benchmarks: Sequence[Questions],
    found: Mapping[str, Mapping[str, Answers]],
    measured: Mapping[str, Measured],
    verdicts: Sequence[Mapping[str, Any]],
    most: int,
) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, sample rows) of each pair with the first model: its clearest wins, then its clearest losses.

    By the judge's scores where there is a verdict, else by ROUGE-L; pairs with neither have none.
    """
    sections = []
    ours, *others = report["models"]
    for questions in benchmarks:
        if questions.is_choice:
            continue
        for other in others:
            said = found[questions.name]
            own = [row for row in verdicts if row.get("benchmark") == questions.name]
            gaps = _gaps(ours, other, measured[questions.name].each, own)
            items = {i.id: i for i in questions.items if all(said[m].by[i.id].is_answer for m in (ours, other))}  # fmt: skip
            ranked = sorted((gap, id) for id, gap in gaps.items() if id in items and gap[0])
            losses, wins = ranked[:most], ranked[::-1][:most]
            chosen = [r for r in wins if r[0][0] > 0] + [r for r in losses if r[0][0] < 0]
            rows = [_sample(items[id], gap, ours, other, said) for gap, id in chosen]
            if rows:
                sections.append((f"{ours} against {other}: {questions.title}", rows))
    return sections


def _gaps(
    ours: str,
    other: str,
    each: Mapping[str, Mapping[str, float]],
    verdicts: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[float, str]]:
    """By question: (how far ours is ahead, by which yardstick)."""
    gaps: dict[str, tuple[float, str]] = {}
    if ours in each and other in each:
        gaps = {id: (value - each[other][id], "ROUGE-L") for id, value in each[ours].items()}
    by_judge = {}
    for row in verdicts:
        if {row["model_a"], row["model_b"]} == {ours, other} and row["winner"] is not None:
            sign = 1 if row["model_a"] == ours else -1
            scores = row.get("scores") or {}
            value = scores.get("a", 0) - scores.get("b", 0)
            winner = {"a": 1, "b": -1, "tie": 0}[row["winner"]]
            gap = (sign * (winner * 100 + value * abs(winner)), "the judge")
            by_judge.setdefault(row["id"], gap)  # of several judges: the first file's
    return by_judge or gaps


def _sample(
    item: Any, gap: tuple[float, str], ours: str, other: str, said: Mapping[str, Answers]
) -> dict[str, Any]:
    answers = {model: _shown(said[model].by[item.id].text) for model in (ours, other)}
    if item.references and item.references[0] not in [said[m].by[item.id].text for m in answers]:
        answers["reference"] = _shown(item.references[0], LONGEST_REFERENCE)
    winner = ours if gap[0] > 0 else other
    by = f" ({abs(gap[0]):.3f})" if gap[1] == "ROUGE-L" else ""
    told = f"{winner} is ahead by {gap[1]}{by}; {item.label}, id {item.id}".replace("; ,", ";")
    prompt = "\n".join([*(f"{m.role}: {m.text}" for m in item.before), item.question])
    return {"prompt": _shown(prompt), "answers": answers, "note": told}


def _shown(text: str, most: int = LONGEST) -> str:
    if not text.strip():
        return "(empty)"
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a character may come from a model
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]}… ({left:,} characters more)"
