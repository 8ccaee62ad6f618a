"""who wins, for a dean first: the sentences on the pairs, the bars, the ranking, each department and intent."""

from collections.abc import Sequence

from huatuo.report import figures
from huatuo.report.figures import Bar, Point
from huatuo.report.tables import Cell, Kind, Section, make
from huatuo.report.teller import Teller
from reviews.findings import Findings, Part
from reviews.stated import Stated
from reviews.stats import PairResult
from reviews.verdicts import FEWEST_VOTES, Duel, Headline, Ranked

MOST_TOLD = 3
OUTCOMES = ("win", "tie", "loss", "both_bad")


def findings(headline: Headline, teller: Teller) -> list[str]:
    """What a dean wants to know: one sentence for each of the pairs most voted on."""
    return [_finding(duel, teller) for duel in headline.duels[:MOST_TOLD]]


DEPENDENT = 1.2
"""The design effect from which votes of one physician are alike enough for more physicians to matter."""


def _finding(duel: Duel, teller: Teller) -> str:
    """One pair in a sentence, told from the view of the leader."""
    pair = duel.result
    ahead = duel.contrast.difference.value >= 0 if pair.wins == pair.losses else pair.wins > pair.losses  # fmt: skip
    if duel.standing in ("first", "leaning_first", "second", "leaning_second"):
        ahead = duel.standing.endswith("first")
    first, second = (pair.first, pair.second) if ahead else (pair.second, pair.first)
    win, loss = (duel.win, duel.loss) if ahead else (duel.loss, duel.win)
    decisive = duel.decisive if ahead else _mirrored(duel.decisive)
    standing = {"first": "settled", "second": "settled", "equal": "equal", "open": "open"}.get(
        duel.standing, "leaning"
    )
    return teller.say(
        f"report.finding.{standing}",
        a=teller.name(first),
        b=teller.name(second),
        win=teller.percent(win.value),
        loss=teller.percent(loss.value),
        tie=teller.percent(duel.tie.value),
        bad=teller.percent(duel.both_bad.value),
        n=f"{pair.total:,}",
        decisive=teller.share(decisive),
    ) + more(duel, teller)


def _mirrored(share: Stated) -> Stated:
    if share.value is None or share.low is None or share.high is None:
        return share
    return Stated(1 - share.value, 1 - share.high, 1 - share.low, share.n)


def more(duel: Duel, teller: Teller) -> str:
    """How many more votes it takes; an estimate from a handful of votes would only mislead."""
    if duel.standing in ("first", "second", "equal"):
        return ""
    if duel.missing is None:
        return teller.say("report.more.too_few", least=FEWEST_VOTES)
    if duel.missing.more is None:
        return teller.say("report.more.equal")
    low, high = duel.decisive.low, duel.decisive.high
    clear = low is not None and high is not None and not low <= 0.5 <= high
    if duel.standing == "open" and clear and duel.missing.design_effect > DEPENDENT:
        return teller.say("report.more.raters")
    return teller.say("report.more.votes", votes=f"{max(duel.missing.more, 1):,}")


def bar_of(pair: PairResult, teller: Teller) -> Bar:
    """A pair as one stacked bar."""
    counts = (pair.wins, pair.ties, pair.losses, pair.both_bad)
    return Bar(teller.pair(pair.first, pair.second), f"n = {pair.total}", counts)


def outcome_words(teller: Teller) -> list[str]:
    """What the four parts of a bar are called."""
    return [teller.say(f"report.column.{key}") for key in ("wins", "ties", "losses", "both_bad")]


def pairs(headline: Headline, teller: Teller) -> Section:
    """Win, tie and loss of every pair with Wilson's intervals."""
    title = teller.say("report.section.pairs")
    rows = [bar_of(duel.result, teller) for duel in headline.duels]
    drawing = figures.bars(rows, outcome_words(teller), title)
    cells: list[list[Cell]] = []
    for duel in headline.duels:
        p, row = duel.result, [duel.win, duel.tie, duel.loss, duel.both_bad, duel.decisive]
        ends = [x for stated in row for x in (stated.value, stated.low, stated.high)]
        cells.append(
            [p.first, p.second, p.total, p.wins, p.ties, p.losses, p.both_bad, *ends, duel.standing]
        )
    shares: list[tuple[str, Kind]] = [
        (f"{key}_{end}", "share")
        for key in (*OUTCOMES, "decisive")
        for end in ("share", "low", "high")
    ]
    table = make(
        [
            ("first", "name"), ("second", "name"), ("votes", "count"), ("wins", "count"),
            ("ties", "count"), ("losses", "count"), ("both_bad", "count"),
            *shares, ("standing", "word", "report.standing."),
        ],
        cells,
    )  # fmt: skip
    return Section("pairs", (teller.say("report.pairs.read"),), (drawing,), table)


def ranking(headline: Headline, ranks: Sequence[Ranked], teller: Teller) -> Section:
    """The scores with intervals, a forest for each group of comparable contestants."""
    board = headline.board
    span = {r.name: (r.best, r.worst) for r in ranks}
    title, drawings = teller.say("report.section.ranking"), []
    for group in range(len(board.groups)):
        rated = [r for r in board.ratings if r.group == group]
        points = [
            Point(
                f"{r.rank}  {teller.name(r.name)}", r.score.value, r.score.low, r.score.high,
                teller.brief(r.score, teller.signed),
            )
            for r in rated
        ]  # fmt: skip
        scale = figures.scale_of(points, 0.0, teller.signed)
        drawings.append(figures.forest(points, scale, title))
    cells: list[list[Cell]] = [
        [
            r.rank, r.name, r.score.value, r.score.low, r.score.high,
            *span.get(r.name, (None, None)), r.votes, r.group + 1,
        ]
        for r in board.ratings
    ]  # fmt: skip
    table = make(
        [
            ("rank", "count"), ("contestant", "name"), ("score", "score"), ("score_low", "score"),
            ("score_high", "score"), ("rank_best", "count"), ("rank_worst", "count"),
            ("votes", "count"), ("group", "count"),
        ],
        cells,
    )  # fmt: skip
    clustered = teller.say(f"report.clustered.{board.clustered_by}", clusters=board.clusters)
    sentences = [teller.say("report.ranking.read", clustered=clustered)]
    if ranks and all(r.best is not None for r in ranks):
        sentences.append(teller.say("report.ranking.ranks"))
    cautions = tuple(teller.say(f"report.caution.{note}") for note in board.notes)
    return Section("ranking", tuple(sentences), tuple(drawings), table, cautions)


def contrasts(headline: Headline, teller: Teller) -> Section:
    """Every two contestants, the indirectly compared too, with Holm's correction."""
    found = headline.contrasts
    points = []
    for c in found:
        label = teller.pair(c.first, c.second)
        if c.verdict == "not_comparable":
            points.append(Point(label, None, None, None, teller.why("not_comparable")))
            continue
        text = teller.say(
            "report.contrast",
            score=teller.brief(c.difference, teller.signed),
            p=teller.p_equals(c.p_holm),
        )
        points.append(Point(label, c.difference.value, c.difference.low, c.difference.high, text))
    title = teller.say("report.section.contrasts")
    scale = figures.scale_of(points, 0.0, teller.signed)
    cells: list[list[Cell]] = []
    for c in found:
        known = c.verdict != "not_comparable"
        numbers = (c.difference.value, c.difference.low, c.difference.high, c.p, c.p_holm)
        why = "" if known else "not_comparable"
        shown = numbers if known else (None,) * 5
        cells.append([c.first, c.second, *shown, c.verdict, why])
    table = make(
        [
            ("first", "name"), ("second", "name"), ("difference", "score"),
            ("difference_low", "score"), ("difference_high", "score"), ("p", "p"),
            ("p_holm", "p"), ("verdict", "word", "report.verdict."), ("why", "why"),
        ],
        cells,
    )  # fmt: skip
    ahead = sum(c.verdict in ("ahead", "behind") for c in found)
    open_ = sum(c.verdict == "open" for c in found)
    sentence = teller.say("report.contrasts.read", ahead=ahead, open=open_)
    return Section("contrasts", (sentence,), (figures.forest(points, scale, title),), table)


def heat(headline: Headline, teller: Teller) -> Section:
    """Share of the row's contestant among the decided votes against the column's."""
    names = [r.name for r in headline.board.ratings]
    shares: dict[tuple[str, str], float | None] = {}
    for duel in headline.duels:
        value = duel.decisive.value
        shares[duel.result.first, duel.result.second] = value
        shares[duel.result.second, duel.result.first] = None if value is None else 1 - value
    square = [[shares.get((row, column)) for column in names] for row in names]
    title = teller.say("report.section.heat")
    cells: list[list[Cell]] = [
        [row, column, shares[row, column], "" if shares[row, column] is not None else "no_votes"]
        for row in names
        for column in names
        if (row, column) in shares
    ]
    table = make(
        [("contestant", "name"), ("against", "name"), ("decisive_share", "share"), ("why", "why")],
        cells,
    )
    drawing = figures.heat([teller.name(name) for name in names], square, title)
    return Section("heat", (teller.say("report.heat.read"),), (drawing,), table)


def parts(found: Findings, key: str, teller: Teller) -> Section:
    """Small multiples of each department's, or intent's, most voted pairs."""
    every: Sequence[Part] = found.departments if key == "departments" else found.intents
    told = {(d.result.first, d.result.second) for d in found.headline.duels[:MOST_TOLD]}
    title, unnamed = teller.say(f"report.section.{key}"), teller.say("report.unnamed")
    panels = [
        (
            f"{part.name or unnamed} · n = {part.votes}",
            [
                bar_of(pair, teller)
                for pair in sorted(
                    part.pairs, key=lambda p: ((p.first, p.second) not in told, -p.total)
                )[:MOST_TOLD]
            ],
        )
        for part in every
    ]
    cells: list[list[Cell]] = [
        [
            part.name or unnamed, p.first, p.second, p.total, p.wins, p.ties, p.losses, p.both_bad,
            p.wins / p.total, *p.win_interval, *_decisive(p),
        ]
        for part in every
        for p in part.pairs
    ]  # fmt: skip
    table = make(
        [
            (key.removesuffix("s"), "text"), ("first", "name"), ("second", "name"),
            ("votes", "count"), ("wins", "count"), ("ties", "count"), ("losses", "count"),
            ("both_bad", "count"), ("win_share", "share"), ("win_low", "share"),
            ("win_high", "share"), ("decisive_share", "share"), ("decisive_low", "share"),
            ("decisive_high", "share"),
        ],
        cells,
    )  # fmt: skip
    sentences = [teller.say(f"report.{key}.read", parts=len(every))]
    if against := _reversed(found, every, teller):
        sentences.append(against)
    drawing = figures.multiples(panels, outcome_words(teller), title)
    return Section(key, tuple(sentences), (drawing,), table, (teller.say("report.caution.parts"),))


def _decisive(pair: PairResult) -> tuple[float | None, float | None, float | None]:
    decided = pair.wins + pair.losses
    return (pair.wins / decided, *pair.decisive_interval) if decided else (None, None, None)


def _reversed(found: Findings, every: Sequence[Part], teller: Teller) -> str:
    """Where the pair most voted on turns round, surely: its decided votes' interval crosses over."""
    main = found.headline.duels[0].result
    lead = main.wins - main.losses
    names = []
    for part in every:
        for p in part.pairs:
            low, high = p.decisive_interval
            turned = high < 0.5 if lead > 0 else low > 0.5
            if (p.first, p.second) == (main.first, main.second) and lead and turned:
                names.append(part.name or teller.say("report.unnamed"))
    pair = teller.pair(main.first, main.second)
    if not names:
        return teller.say("report.parts.same", pair=pair) if lead else ""
    return teller.say("report.parts.turned", pair=pair, names=teller.list(names))
