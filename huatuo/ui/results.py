"""the results page: a sentence a dean understands, win / tie / loss bars, the ranking with intervals."""

import html as escape
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.engines.pool import Pool
from huatuo.ui import conversation, duel, figures, frame
from huatuo.ui.text import Language, say
from reviews import stats
from reviews.records import Counted
from reviews.store import Store

ROLE: Role = "researcher"
ALL = ""
FEWEST_VOTES = 20
"""Votes on a pair below which nothing is said of how many more it takes."""


def build(store: Store, pool: Pool, accounts: Accounts, language: Language) -> gr.Blocks:
    """The page in one language; drawn anew each time it is opened."""
    with frame.blocks("results", language) as demo:
        frame.with_header(demo, accounts, "results", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide"]):
            frame.html(f"<h1>{say('results.title', language)}</h1>")
            study = gr.Dropdown(
                [],
                label=say("review.study", language),
                show_label=False,
                container=False,
                interactive=True,
                filterable=False,
                elem_id="study",
            )
            body = frame.html(elem_id="results")

        def enter(request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            counted = store.counted_votes()
            names = sorted({vote.study for vote in counted.votes})
            choices = [(say("results.all", language), ALL), *((name, name) for name in names)]
            return [
                gr.update(choices=choices, value=ALL, visible=len(names) > 1),
                report(counted, duel.model_titles(pool, language), language),
            ]

        def choose(name: str, request: gr.Request) -> str:
            accounts.require(request, ROLE)
            counted = store.counted_votes(name or None)
            return report(counted, duel.model_titles(pool, language), language)

        demo.load(frame.guarded(enter, language), None, [study, body], **frame.QUIETLY)
        study.input(frame.guarded(choose, language), study, body, **frame.QUIETLY)
    return demo


def report(counted: Counted, titles: dict[str, str], language: Language) -> str:
    """The whole page below its title as one block of HTML."""
    if not counted.votes:
        return conversation.block(f"<p>{say('results.empty', language)}</p>", "welcome")
    pairs, board = stats.pairs(counted.votes), stats.board(counted.votes)
    shown = {"raters": board.raters, "votes": board.votes, "cases": counted.comparisons}
    counts = say("results.raters", language, **shown)
    parts = [_finding(pair, titles, language) for pair in _most_voted(pairs)]
    parts.append(f'<p class="quiet">{counts}</p>')
    if counted.left_out:
        left_out = say("results.left_out", language, votes=counted.left_out)
        parts.append(f'<p class="quiet">{left_out}</p>')
    parts += [_note(note, language) for note in board.notes]
    parts.append(f"<h2>{say('results.bars', language)}</h2>" + _bars(pairs, titles, language))
    parts.append(f"<h2>{say('results.ranking', language)}</h2>" + _ranking(board, titles, language))
    parts.append(_side(board, language))
    parts.append(
        f'<p><a href="/export/votes.zip" download>{say("results.export", language)}</a></p>'
    )
    return conversation.block("".join(parts), "report")


def _most_voted(pairs: list[stats.PairResult]) -> list[stats.PairResult]:
    return sorted(pairs, key=lambda pair: -pair.total)[:3]


def _title(name: str, titles: dict[str, str]) -> str:
    return titles.get(name, name)


def _finding(pair: stats.PairResult, titles: dict[str, str], language: Language) -> str:
    """One pair in a sentence, told from the view of the leader."""
    first, second, win, loss = pair.first, pair.second, pair.wins, pair.losses
    low, high = pair.decisive_interval
    if loss > win:
        first, second, win, loss, low, high = second, first, loss, win, 1 - high, 1 - low
    values = {
        "a": escape.escape(_title(first, titles)),
        "b": escape.escape(_title(second, titles)),
        "win": _percent(win / pair.total),
        "loss": _percent(loss / pair.total),
        "tie": _percent(pair.ties / pair.total),
        "n": pair.total,
        "low": _percent(low),
        "high": _percent(high),
    }
    if low > 0.5:
        sentence = say("results.sentence_settled", language, **values)
    else:
        more = _more(pair, win, loss, language)
        sentence = say("results.sentence_open", language, **values, more=more)
    return f'<p class="finding">{sentence}</p>'


def _more(pair: stats.PairResult, win: int, loss: int, language: Language) -> str:
    """How many more votes it takes; an estimate from a handful of votes would only mislead."""
    if pair.total < FEWEST_VOTES:
        return say("results.too_few", language, least=FEWEST_VOTES)
    needed = stats.votes_needed(win, pair.ties + pair.both_bad, loss)
    if needed is None:
        return ""
    return say("results.more_votes", language, votes=f"{max(needed - pair.total, 1):,}")


def _note(note: str, language: Language) -> str:
    return f'<p class="unfinished">{say("results.note." + note, language)}</p>'


def _bars(pairs: list[stats.PairResult], titles: dict[str, str], language: Language) -> str:
    rows = [
        figures.Bar(
            _title(p.first, titles), _title(p.second, titles), p.wins, p.ties, p.losses, p.both_bad
        )
        for p in pairs
    ]
    words = tuple(say(f"results.{key}", language) for key in ("win", "tie", "loss", "both_bad"))
    drawing = figures.bars(rows, words, say("results.bars", language))  # type: ignore[arg-type]
    columns = ("model", "against", "win", "tie", "loss", "both_bad", "votes", "share")
    cells = [
        [
            *(escape.escape(_title(name, titles)) for name in (p.first, p.second)),
            *(str(count) for count in (p.wins, p.ties, p.losses, p.both_bad, p.total)),
            " – ".join(_percent(end) for end in p.win_interval),
        ]
        for p in pairs
    ]
    return drawing + _table(columns, cells, language)


def _ranking(board: stats.Board, titles: dict[str, str], language: Language) -> str:
    """One forest plot for each group of comparable models, then the numbers."""
    parts: list[str] = []
    for group in range(len(board.groups)):
        points = [
            figures.Point(_title(r.name, titles), r.score.value, r.score.low, r.score.high)
            for r in board.ratings
            if r.group == group
        ]
        parts.append(figures.forest(points, say("results.ranking", language)))
    cells = [
        [
            str(r.rank),
            escape.escape(_title(r.name, titles)),
            f"{r.score.value:+.2f}",
            f"{r.score.low:+.2f} – {r.score.high:+.2f}",
            str(r.votes),
        ]
        for r in board.ratings
    ]
    return "".join(parts) + _table(
        ("rank", "model", "strength", "interval", "votes"), cells, language
    )


def _side(board: stats.Board, language: Language) -> str:
    if board.side_effect is None:
        return ""
    effect = board.side_effect
    words = say(
        "results.side",
        language,
        beta=f"{effect.value:+.2f}",
        low=f"{effect.low:+.2f}",
        high=f"{effect.high:+.2f}",
    )
    return f'<p class="quiet">{words}</p>'


def _table(columns: tuple[str, ...], cells: list[list[str]], language: Language) -> str:
    head = "".join(
        f'<th scope="col">{say("results." + column, language)}</th>' for column in columns
    )
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells)
    return (
        f'<details class="table"><summary class="quiet">{say("results.table", language)}</summary>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
