"""what the criteria and the safety flags say of each contestant, apart from the preference."""

from collections.abc import Sequence

from huatuo.report import figures
from huatuo.report.figures import Bar, Point, Scale
from huatuo.report.tables import Cell, Section, make
from huatuo.report.teller import Teller
from reviews.findings import Findings
from reviews.harms import ANY, Harm, Harms
from reviews.protocol import CRITERIA


def criterion_title(found: Findings, key: str, teller: Teller) -> str:
    """What the protocol, or the list of ready criteria, calls a criterion; else its key."""
    asked = {c.key: c for c in found.study.protocol.criteria} if found.study else {}
    one = asked.get(key) or CRITERIA.get(key)
    if one is None:
        return key
    return one.title_zh if teller.language == "zh" else one.title_en


def scales(found: Findings, teller: Teller) -> Section:
    """Mean of each contestant on each scale criterion, in one forest for each criterion."""
    means = found.criteria.means
    names = sorted({m.contestant for m in means})
    keys = list(dict.fromkeys(m.criterion for m in means))
    title = teller.say("report.section.scales")
    points, sentences = [], [teller.say("report.scales.read")]
    for key in keys:
        own = [m for m in means if m.criterion == key]
        for m in own:
            label = f"{criterion_title(found, key, teller)} · {teller.name(m.contestant)}"
            points.append(
                Point(label, m.mean.value, m.mean.low, m.mean.high, teller.brief(m.mean, teller.plain),
                      names.index(m.contestant))
            )  # fmt: skip
    scale = Scale(1, 5, None, lambda x: f"{x:.0f}")
    for d in found.criteria.differences:
        low, high = d.difference.low, d.difference.high
        if low is not None and high is not None and (low > 0 or high < 0):
            one, two = (d.first, d.second) if low > 0 else (d.second, d.first)
            sentences.append(
                teller.say("report.scales.better", a=teller.name(one), b=teller.name(two),
                           criterion=criterion_title(found, d.criterion, teller),
                           points=f"{abs(d.difference.value or 0):.2f}")
            )  # fmt: skip
    cells: list[list[Cell]] = [
        [criterion_title(found, m.criterion, teller), m.contestant, m.mean.n, m.mean.value,
         m.mean.low, m.mean.high, *m.counts, m.mean.why]
        for m in means
    ]  # fmt: skip
    table = make(
        [
            ("criterion", "text"), ("contestant", "name"), ("ratings", "count"),
            ("mean", "number"), ("mean_low", "number"), ("mean_high", "number"),
            *((f"level_{n}", "count") for n in range(1, 6)), ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    marks = figures.key([teller.name(name) for name in names])
    drawing = figures.forest(points, scale, title)
    return Section("scales", tuple(sentences), (marks, drawing), table)


def differences(found: Findings, teller: Teller) -> Section:
    """Paired difference on each criterion, and whether raters agree on it."""
    rows = found.criteria.differences
    points = [
        Point(
            f"{criterion_title(found, d.criterion, teller)} · {teller.pair(d.first, d.second)}",
            d.difference.value, d.difference.low, d.difference.high,
            teller.brief(d.difference, teller.signed),
        )
        for d in rows
    ]  # fmt: skip
    title = teller.say("report.section.differences")
    drawing = figures.forest(points, figures.scale_of(points, 0.0, teller.signed), title)
    cells: list[list[Cell]] = []
    for d in rows:
        alpha = found.criteria.agreement[d.criterion]
        cells.append(
            [criterion_title(found, d.criterion, teller), d.first, d.second, d.difference.n,
             d.difference.value, d.difference.low, d.difference.high, alpha.value, alpha.low,
             alpha.high, d.difference.why or alpha.why]
        )  # fmt: skip
    table = make(
        [
            ("criterion", "text"), ("first", "name"), ("second", "name"), ("ratings", "count"),
            ("difference", "score"), ("difference_low", "score"), ("difference_high", "score"),
            ("alpha", "number"), ("alpha_low", "number"), ("alpha_high", "number"),
            ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    return Section(
        "differences", (teller.say("report.differences.read"),), (drawing,), table
    )  # fmt: skip


def preferences(found: Findings, teller: Teller) -> Section:
    """The five levels of each preference criterion as stacked bars."""
    rows = found.criteria.preferences
    title = teller.say("report.section.preferences")
    bars = [
        Bar(
            f"{criterion_title(found, p.criterion, teller)} · {teller.pair(p.first, p.second)}",
            f"n = {sum(p.counts)}",
            p.counts,
        )
        for p in rows
    ]
    words = [teller.say(f"report.level.{n}") for n in range(1, 6)]
    drawing = figures.bars(bars, words, title, figures.LEVELS)
    cells: list[list[Cell]] = []
    for p in rows:
        alpha = found.criteria.agreement[p.criterion]
        cells.append(
            [criterion_title(found, p.criterion, teller), p.first, p.second, sum(p.counts), *p.counts,
             p.lean.value, p.lean.low, p.lean.high, alpha.value, alpha.low, alpha.high,
             p.lean.why or alpha.why]
        )  # fmt: skip
    table = make(
        [
            ("criterion", "text"), ("first", "name"), ("second", "name"), ("votes", "count"),
            *((f"preference_{n}", "count") for n in range(1, 6)),
            ("lean", "score"), ("lean_low", "score"), ("lean_high", "score"),
            ("alpha", "number"), ("alpha_low", "number"), ("alpha_high", "number"),
            ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    return Section("preferences", (teller.say("report.preferences.read"),), (drawing,), table)


def safety(harms: Harms, teller: Teller) -> Section:
    """Flagged answers of each contestant, kind by kind, with exact intervals."""
    any_ = [h for h in harms.rates if h.kind == ANY]
    sentences = [_flagged(h, teller) for h in any_]
    for d in harms.discords:
        if d.p < 0.05:
            worse, better = (d.first, d.second) if d.only_first > d.only_second else (d.second, d.first)  # fmt: skip
            sentences.append(
                teller.say("report.safety.differ", a=teller.name(worse), b=teller.name(better),
                           p=teller.p_equals(d.p),
                           one=max(d.only_first, d.only_second), two=min(d.only_first, d.only_second))
            )  # fmt: skip
    sentences.append(teller.say("report.safety.agreement", ac1=teller.measure(harms.agreement)))
    names = [h.contestant for h in any_]
    shown = [h for kind in dict.fromkeys(h.kind for h in harms.rates) for h in _kind(harms, kind)]
    points = [
        Point(
            f"{teller.say('report.harm.' + h.kind)} · {teller.name(h.contestant)}",
            h.rate.value, h.rate.low, h.rate.high,
            teller.say("report.of", hits=h.flagged, n=h.answers, rate=teller.percent(h.rate.value)),
            names.index(h.contestant),
        )
        for h in shown
    ]  # fmt: skip
    title = teller.say("report.section.safety")
    top = max([0.1, *(h.rate.high or 0 for h in shown)])
    scale = Scale(0, min(1.0, top * 1.05), None, teller.percent)
    cells: list[list[Cell]] = [
        [h.contestant, h.kind, h.flags, h.answers, h.flagged, h.confirmed, h.rate.value,
         h.rate.low, h.rate.high]
        for h in harms.rates
    ]  # fmt: skip
    table = make(
        [
            ("contestant", "name"), ("kind", "word", "report.harm."), ("flags", "count"),
            ("answers", "count"), ("flagged", "count"), ("confirmed", "count"),
            ("flag_rate", "share"), ("flag_low", "share"), ("flag_high", "share"),
        ],
        cells,
    )  # fmt: skip
    marks = figures.key([teller.name(name) for name in names])
    return Section("safety", tuple(sentences), (marks, figures.forest(points, scale, title)), table)


def in_short(harms: Harms, teller: Teller) -> str:
    """Every contestant's flagged answers in one sentence."""
    parts = [
        teller.say("report.safety.part", a=teller.name(h.contestant), hits=h.flagged, n=h.answers,
                   rate=teller.percent(h.rate.value))
        for h in harms.rates
        if h.kind == ANY
    ]  # fmt: skip
    return teller.say("report.safety.short", parts=teller.list(parts))


def _kind(harms: Harms, kind: str) -> Sequence[Harm]:
    return [h for h in harms.rates if h.kind == kind]


def _flagged(harm: Harm, teller: Teller) -> str:
    key = "flagged" if harm.flagged else "none"
    return teller.say(
        f"report.safety.{key}",
        a=teller.name(harm.contestant),
        hits=harm.flagged,
        n=harm.answers,
        confirmed=harm.confirmed,
        rate=teller.share(harm.rate),
        high=teller.percent(harm.rate.high),
    )
