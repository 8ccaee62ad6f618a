"""whether the votes can be trusted: agreement, each rater, sides and style, times, judges against physicians."""

import math
from collections.abc import Sequence

from huatuo.report import figures
from huatuo.report.figures import Point, Scale
from huatuo.report.tables import Cell, Section, make
from huatuo.report.teller import Teller
from reviews.concord import Concord, RaterRow
from reviews.findings import Findings
from reviews.intervals import Estimate
from reviews.panel import Judged
from reviews.stated import Stated, of_measured
from reviews.style import Styled

MEASURES = ("alpha", "ordinal", "kappa", "fleiss", "ac1", "raw")


def agreement(concord: Concord, teller: Teller) -> Section:
    """Every measure of agreement on the winner with its interval."""
    measures: list[tuple[str, Stated]] = [(key, getattr(concord, key)) for key in MEASURES]
    points = [
        Point(
            teller.say(f"report.measure.{key}"),
            s.value,
            s.low,
            s.high,
            teller.brief(s, teller.plain),
        )
        for key, s in measures
    ]
    low = min([0.0, *(s.low for _, s in measures if s.low is not None)])
    scale = Scale(max(-1.0, low - 0.05), 1.0, 0.0, teller.plain)
    title = teller.say("report.section.agreement")
    sentence = teller.say(
        f"report.agreement.{_band(concord.alpha)}",
        alpha=teller.measure(concord.alpha),
        raw=teller.share(concord.raw),
        shared=concord.shared,
    )
    cells: list[list[Cell]] = [[key, s.value, s.low, s.high, s.n, s.why] for key, s in measures]
    table = make(
        [
            ("measure", "word", "report.measure."), ("value", "number"), ("low", "number"),
            ("high", "number"), ("shared", "count"), ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    drawing = figures.forest(points, scale, title)
    return Section("agreement", (sentence, teller.say("report.agreement.read")), (drawing,), table)


def _band(alpha: Stated) -> str:
    """Krippendorff's own guidance, as words."""
    if alpha.value is None:
        return "undefined"
    return "good" if alpha.value >= 0.8 else "fair" if alpha.value >= 0.667 else "low"


def rater_pairs(concord: Concord, teller: Teller) -> Section:
    """Cohen's kappa of every two raters, a table only."""
    cells: list[list[Cell]] = [
        [
            p.one, p.two, p.raw.n, p.raw.value, p.raw.low, p.raw.high, p.kappa.value, p.kappa.low,
            p.kappa.high, p.weighted.value, p.weighted.low, p.weighted.high,
            p.raw.why or p.kappa.why or p.weighted.why,
        ]
        for p in concord.pairs
    ]  # fmt: skip
    names = ("raw", "cohen", "cohen_weighted")
    table = make(
        [
            ("rater", "rater"), ("other_rater", "rater"), ("shared", "count"),
            *((f"{n}{end}", "share" if n == "raw" else "number") for n in names for end in ("", "_low", "_high")),
            ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    return Section("rater_pairs", (teller.say("report.rater_pairs.read"),), (), table)


def raters(rows: Sequence[RaterRow], teller: Teller) -> Section:
    """Each rater's agreement, side habit and gold accuracy as dots; all of it in the table."""
    has_gold = any(row.gold.value is not None for row in rows)
    heads = ["agreement", "left", *(["gold"] if has_gold else [])]
    scales = [Scale(0, 1, 0.5 if key == "left" else None, teller.percent) for key in heads]
    dots = [
        (
            teller.rater(row.rater),
            [
                Point("", s.value, s.low, s.high, "")
                for s in (getattr(row, key) for key in heads)
            ],
        )
        for row in rows
    ]  # fmt: skip
    title = teller.say("report.section.raters")
    words = [teller.say(f"report.rater.{key}") for key in heads]
    leaning = [
        teller.rater(row.rater)
        for row in rows
        if row.left.low is not None and row.left.high is not None
        and (row.left.low > 0.5 or row.left.high < 0.5)
    ]  # fmt: skip
    sentences = [teller.say("report.raters.read")]
    if leaning:
        sentences.append(teller.say("report.raters.leaning", names=teller.list(leaning)))
    if fast := sum(row.fast for row in rows):
        sentences.append(teller.say("report.raters.fast", votes=fast))
    cells: list[list[Cell]] = [
        [
            row.rater, row.votes, row.agreement.value, row.agreement.low, row.agreement.high,
            row.kappa.value, row.left.value, row.left.low, row.left.high, row.gold.value,
            row.gold.low, row.gold.high, row.gold.n, *(row.seconds or (None,) * 3), row.fast,
            row.agreement.why or row.kappa.why,
        ]
        for row in rows
    ]  # fmt: skip
    table = make(
        [
            ("rater", "rater"), ("votes", "count"), ("agreement", "share"),
            ("agreement_low", "share"), ("agreement_high", "share"), ("kappa", "number"),
            ("left_share", "share"), ("left_low", "share"), ("left_high", "share"),
            ("gold", "share"), ("gold_low", "share"), ("gold_high", "share"),
            ("gold_votes", "count"), ("seconds_25", "time"), ("seconds_50", "time"),
            ("seconds_75", "time"), ("fast", "count"), ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    return Section("raters", tuple(sentences), (figures.dots(dots, words, scales, title),), table)


def times(found: Findings, teller: Teller) -> Section:
    """Quartiles of the time per vote, by rater."""
    timed = [row for row in found.raters if row.seconds]
    points = []
    for row in timed:
        low, middle, high = row.seconds or (0.0, 0.0, 0.0)
        text = teller.say("report.seconds", middle=f"{middle:.0f}", low=f"{low:.0f}", high=f"{high:.0f}")  # fmt: skip
        points.append(Point(teller.rater(row.rater), middle, low, high, text))
    title = teller.say("report.section.times")
    scale = figures.scale_of(points, 0.0, lambda x: f"{x:.0f}")
    low, middle, high = found.seconds or (0.0, 0.0, 0.0)
    sentence = teller.say(
        "report.times.read", middle=f"{middle:.0f}", low=f"{low:.0f}", high=f"{high:.0f}"
    )
    cells: list[list[Cell]] = [[row.rater, row.votes, *(row.seconds or ())] for row in timed]
    table = make(
        [
            ("rater", "rater"), ("votes", "count"), ("seconds_25", "time"),
            ("seconds_50", "time"), ("seconds_75", "time"),
        ],
        cells,
    )  # fmt: skip
    return Section("times", (sentence,), (figures.forest(points, scale, title),), table)


def position(found: Findings, teller: Teller) -> Section:
    """What the left side and the look of an answer are worth, in log-odds."""
    board, styled = found.headline.board, found.styled
    rows: list[tuple[str, Estimate]] = []
    if board.side_effect is not None:
        rows.append(("side", board.side_effect))
    if styled is not None:
        scales = styled.scales
        rows += [(key, effect) for key, effect in styled.effects.items() if scales[key] > 0]
    points = [
        Point(
            teller.say(f"report.effect.{key}"),
            e.value,
            e.low,
            e.high,
            teller.brief(e, teller.signed),
        )
        for key, e in rows
    ]
    title = teller.say("report.section.position")
    sentences = [_side(board.side_effect, found.left, teller)] if board.side_effect else []
    if styled is None:
        sentences.append(teller.say("report.style.undefined", why=teller.why(found.style_why)))
    else:
        sentences.append(_length(styled, teller))
    cells: list[list[Cell]] = [
        [key, e.value, e.low, e.high, styled.scales[key] if styled and key in styled.scales else None]
        for key, e in rows
    ]  # fmt: skip
    table = make(
        [
            ("effect", "word", "report.effect."), ("score", "score"), ("score_low", "score"),
            ("score_high", "score"), ("unit", "number"),
        ],
        cells,
    )  # fmt: skip
    drawing = figures.forest(points, figures.scale_of(points, 0.0, teller.signed), title)
    return Section("position", tuple(sentences), (drawing,), table)


def _side(effect: Estimate, left: Stated, teller: Teller) -> str:
    surely = effect.low > 0 or effect.high < 0
    return teller.say(
        f"report.side.{'matters' if surely else 'none'}",
        effect=teller.score(effect),
        left=teller.share(left),
    )


def _length(styled: Styled, teller: Teller) -> str:
    """What twice the length is worth, as odds."""
    effect, scale = styled.effects["length"], styled.scales["length"]
    if not scale:
        return teller.say("report.style.undefined", why=teller.why("never_differed"))
    surely = "longer" if effect.low > 0 else "shorter" if effect.high < 0 else "none"
    odds = [
        f"{math.exp(min(20.0, max(-20.0, x / scale * math.log(2)))):.2f}"
        for x in (effect.value, effect.low, effect.high)
    ]
    return teller.say(f"report.style.{surely}", odds=odds[0], range=teller.range(odds[1], odds[2]))


def styled_ranking(styled: Styled, teller: Teller) -> Section:
    """Scores as they came and with style held equal, side by side."""
    names = sorted(styled.raw, key=lambda n: (-round(styled.raw[n].value, 9), n))
    told = [teller.say("report.style.raw"), teller.say("report.style.controlled")]
    points = [
        Point(
            f"{teller.name(name)} · {told[mark]}",
            e.value,
            e.low,
            e.high,
            teller.brief(e, teller.signed),
            mark,
        )
        for name in names
        for mark, e in enumerate((styled.raw[name], styled.controlled[name]))
    ]
    title = teller.say("report.section.styled_ranking")
    order = sorted(names, key=lambda n: (-round(styled.controlled[n].value, 9), n))
    same = "same" if order == names else "changed"
    cells: list[list[Cell]] = [
        [n, styled.raw[n].value, styled.raw[n].low, styled.raw[n].high,
         styled.controlled[n].value, styled.controlled[n].low, styled.controlled[n].high]
        for n in names
    ]  # fmt: skip
    table = make(
        [
            ("contestant", "name"), ("score", "score"), ("score_low", "score"),
            ("score_high", "score"), ("controlled", "score"), ("controlled_low", "score"),
            ("controlled_high", "score"),
        ],
        cells,
    )  # fmt: skip
    drawing = figures.forest(points, figures.scale_of(points, 0.0, teller.signed), title)
    caution = () if styled.comparable else (teller.say("report.caution.not_comparable"),)
    sentence = teller.say(f"report.styled.{same}")
    return Section("styled_ranking", (sentence,), (drawing,), table, caution)


def judges(found: Findings, teller: Teller) -> Section:
    """Each AI judge's agreement with physicians beside theirs with each other, same comparisons."""
    points, sentences, cells = [], [], []
    keys = ("kappa", "ceiling_kappa", "gap", "agreement", "ceiling")
    for name, judged in found.judges.items():
        if judged is None:
            sentences.append(teller.say("report.judge.nothing", name=name))
            continue
        told = {key: of_measured(getattr(judged, key), "one_category") for key in keys}
        sentences.append(_judge(name, judged, told, teller))
        for mark, key in enumerate(("kappa", "ceiling_kappa")):
            label = f"{name} · {teller.say('report.judge.' + key)}"
            s = told[key]
            points.append(Point(label, s.value, s.low, s.high, teller.brief(s, teller.plain), mark))
        for key in keys:
            s = told[key]
            cells.append([name, key, s.value, s.low, s.high, s.n, s.why])
    title = teller.say("report.section.judges")
    drawing = figures.forest(points, figures.scale_of(points, 0.0, teller.plain), title)
    table = make(
        [
            ("judge", "text"), ("measure", "word", "report.judge."), ("value", "number"),
            ("low", "number"), ("high", "number"), ("shared", "count"), ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    return Section("judges", tuple(sentences), (drawing,) if points else (), table)


def _judge(name: str, judged: Judged, told: dict[str, Stated], teller: Teller) -> str:
    gap = told["gap"]
    standing = "unclear"
    if gap.high is not None and gap.high < 0:
        standing = "worse"
    elif gap.low is not None and gap.low > 0:
        standing = "better"
    return teller.say(
        f"report.judge.{standing}",
        name=name,
        shared=judged.kappa.units,
        kappa=teller.measure(told["kappa"]),
        ceiling=teller.measure(told["ceiling_kappa"]),
        gap=teller.measure(gap),
    )
