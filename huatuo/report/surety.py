"""how sure the result is: evidence at any time, votes still missing, closing rules, other analyses."""

import math

from huatuo.report import figures
from huatuo.report.figures import Point, Scale
from huatuo.report.outcome import more
from huatuo.report.tables import Cell, Section, make
from huatuo.report.teller import Teller
from reviews.closing import ClosingState, Rule
from reviews.findings import Findings
from reviews.verdicts import Headline


def evidence(headline: Headline, teller: Teller) -> Section:
    """The anytime-valid interval of each pair's decided votes, and the e-value."""
    duels = headline.duels
    points = []
    for d in duels:
        ends = teller.range(teller.percent(d.evidence.low), teller.percent(d.evidence.high))
        text = teller.say("report.evidence.point", range=ends, e=_e(d.evidence.log_e))
        label = teller.pair(d.result.first, d.result.second)
        points.append(Point(label, d.decisive.value, d.evidence.low, d.evidence.high, text))
    title = teller.say("report.section.evidence")
    decided = sum(d.evidence.decision != "open" for d in duels)
    cells: list[list[Cell]] = [
        [
            d.result.first, d.result.second, d.result.wins, d.result.losses, d.decisive.value,
            d.evidence.low, d.evidence.high, d.evidence.log_e, d.rater_evidence,
            d.evidence.decision,
        ]
        for d in duels
    ]  # fmt: skip
    table = make(
        [
            ("first", "name"), ("second", "name"), ("wins", "count"), ("losses", "count"),
            ("decisive_share", "share"), ("anytime_low", "share"), ("anytime_high", "share"),
            ("log_e", "number"), ("rater_log_e", "number"),
            ("decision", "word", "report.decision."),
        ],
        cells,
    )  # fmt: skip
    scale = Scale(0, 1, 0.5, teller.percent)
    sentence = teller.say("report.evidence.read", decided=decided, pairs=len(duels))
    return Section("evidence", (sentence,), (figures.forest(points, scale, title),), table)


def _e(log_e: float) -> str:
    if log_e > math.log(1e6):
        return f"10^{log_e / math.log(10):.0f}"
    return f"{math.exp(log_e):.2g}" if log_e < math.log(100) else f"{math.exp(log_e):.0f}"


def power(headline: Headline, teller: Teller) -> Section:
    """How many more votes each open pair needs, and the smallest difference the votes can show."""
    sentences: list[str] = []
    points: list[Point] = []
    cells: list[list[Cell]] = []
    for d in headline.duels:
        label = teller.pair(d.result.first, d.result.second)
        if told := more(d, teller):
            sentences.append(teller.say("report.power.open", pair=label, more=told))
        needed, extra = (d.missing.needed, d.missing.more) if d.missing else (None, None)
        effect = d.missing.design_effect if d.missing else None
        cells.append(
            [d.result.first, d.result.second, d.result.total, needed, extra, effect, d.detectable]
        )
        text = teller.say("report.power.point", votes=f"{d.result.total:,}", needed="—" if needed is None else f"{needed:,}")  # fmt: skip
        points.append(Point(label, needed, 0, d.result.total, text, 1))
    if not sentences:
        sentences.append(teller.say("report.power.settled"))
    sentences.append(teller.say("report.power.read"))
    title = teller.say("report.section.power")
    table = make(
        [
            ("first", "name"), ("second", "name"), ("votes", "count"), ("needed", "count"),
            ("more", "count"), ("design_effect", "number"), ("detectable", "share"),
        ],
        cells,
    )  # fmt: skip
    scale = figures.scale_of(points, 0.0, lambda x: f"{x:,.0f}")
    return Section("power", tuple(sentences), (figures.forest(points, scale, title),), table)


def closing(state: ClosingState, teller: Teller) -> list[str]:
    """Where the study stands, and each closing rule."""
    sentences = [teller.say(f"report.state.{state.state}")]
    if state.state == "closed" and state.reason:
        sentences.append(teller.say("report.state.reason", reason=state.reason))
    return sentences + [_rule(rule, teller) for rule in state.rules]


def _rule(rule: Rule, teller: Teller) -> str:
    met = "met" if rule.is_met else "open"
    return teller.say(
        f"report.rule.{rule.name}.{met}",
        done=f"{rule.done:,}",
        wanted=f"{rule.wanted:,}",
        until=rule.until,
    )


def rules(state: ClosingState, teller: Teller) -> Section:
    """The closing rules as a table."""
    cells: list[list[Cell]] = [
        [r.name, r.done if r.wanted else None, r.wanted or None, r.until, "yes" if r.is_met else "no"]
        for r in state.rules
    ]  # fmt: skip
    table = make(
        [
            ("rule", "word", "report.rule."), ("done", "count"), ("wanted", "count"),
            ("until", "text"), ("met", "word", "report."),
        ],
        cells,
    )  # fmt: skip
    return Section("closing", tuple(closing(state, teller)), (), table)


def sensitivity(found: Findings, teller: Teller) -> Section:
    """The main difference under other choices of the analysis."""
    rows = found.sensitivity
    points = [
        Point(
            f"{teller.say('report.variant.' + v.choice)} · {teller.pair(v.first, v.second)}",
            v.difference.value, v.difference.low, v.difference.high,
            teller.brief(v.difference, teller.signed),
            0 if v.choice == "main" else 1,
        )
        for v in rows
    ]  # fmt: skip
    title = teller.say("report.section.sensitivity")
    cells: list[list[Cell]] = [
        [v.choice, v.first, v.second, v.votes, v.difference.value, v.difference.low,
         v.difference.high, v.difference.why]
        for v in rows
    ]  # fmt: skip
    table = make(
        [
            ("variant", "word", "report.variant."), ("first", "name"), ("second", "name"),
            ("votes", "count"), ("difference", "score"), ("difference_low", "score"),
            ("difference_high", "score"), ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    flips = "same" if _is_stable(found) else "changed"
    drawing = figures.forest(points, figures.scale_of(points, 0.0, teller.signed), title)
    return Section(
        "sensitivity", (teller.say(f"report.sensitivity.{flips}"),), (drawing,), table
    )  # fmt: skip


def _is_stable(found: Findings) -> bool:
    """Whether no other analysis turns a pair's sign or its being apart from 0."""
    main = {(v.first, v.second): _side(v.difference.low, v.difference.high) for v in found.sensitivity if v.choice == "main"}  # fmt: skip
    return all(
        _side(v.difference.low, v.difference.high) == main.get((v.first, v.second))
        for v in found.sensitivity
    )


def _side(low: float | None, high: float | None) -> int:
    return 0 if low is None or high is None else (low > 0) - (high < 0)
