"""the results page: sentences a dean understands first, every figure an expert looks for below, downloads."""

import html as escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.engines.pool import Pool
from huatuo.report import contents, outcome, page
from huatuo.report.shelf import Shelf
from huatuo.report.teller import Teller
from huatuo.ui import conversation, download, duel, frame
from huatuo.ui.text import Language, say
from reviews import reading, verdicts
from reviews.findings import Findings

ROLE: Role = "researcher"
ALL = ""
AT_ONCE = 5_000
"""Votes up to which every figure is drawn when the page opens; above, on a press of the button."""


def build(shelf: Shelf, pool: Pool, accounts: Accounts, language: Language) -> gr.Blocks:
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
                elem_id="study",
                allow_custom_value=True,  # the record knows the studies, also after a restart
            )
            body = frame.html(elem_id="results")
            everything = gr.Button(
                say("results.everything", language), visible=False, elem_id="everything"
            )

        def draw(name: str, *, all_of_it: bool = False) -> list[Any]:
            teller = Teller(duel.model_titles(pool, language), language)
            votes = reading.votes_by_study(shelf.store)
            number = votes.get(name, 0) if name else sum(votes.values())
            if number > AT_ONCE and not all_of_it and shelf.kept(name) is None:
                return [in_short(shelf, name, teller), gr.update(visible=True)]
            return [report(shelf.get(name), teller), gr.update(visible=False)]

        def enter(request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            names = list(reading.votes_by_study(shelf.store))
            choices = [(say("results.all", language), ALL), *((name, name) for name in names)]
            chosen = names[0] if len(names) == 1 else ALL
            box = gr.update(choices=choices, value=chosen, visible=len(names) > 1)
            return [box, *draw(chosen)]

        def choose(name: str | None, request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            if name and name not in reading.votes_by_study(shelf.store):  # the box takes any text
                frame.ask_first(say("results.no_such_study", language), language)
                return [gr.skip()] * 2
            return draw(name or ALL)

        def compute(name: str | None, request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            return draw(name or ALL, all_of_it=True)

        shown = [body, everything]
        demo.load(frame.guarded(enter, language), None, [study, *shown], **frame.QUIETLY)
        study.input(frame.guarded(choose, language), study, shown, **frame.QUIETLY)
        everything.click(frame.guarded(compute, language), study, shown, concurrency_limit=None)
    return demo


def report(found: Findings, teller: Teller) -> str:
    """The whole page below its title as one block of HTML."""
    if not found.counts.votes:
        words = teller.say("results.none_count" if found.counts.left_out else "results.empty")
        return conversation.block(f"<p>{words}</p>", "welcome")
    parts = [f'<p class="finding">{_text(s)}</p>' for s in contents.summary(found, teller)]
    parts += [f'<p class="quiet">{_text(s)}</p>' for s in contents.counts(found, teller)]
    parts.append(_downloads(found.name, teller))
    experts = False
    for one in contents.chapters(found, teller):
        if one.for_experts and not experts:
            parts.append(f'<p class="quiet rule">{_text(teller.say("results.for_experts"))}</p>')
            experts = True
        parts.append(page.chapter(one, teller))
    return conversation.block("".join(parts), "report")


def in_short(shelf: Shelf, name: str, teller: Teller) -> str:
    """The pairs and the ranking alone, quick for however many votes."""
    counted = shelf.store.counted_votes(name or None)
    if not counted.votes:
        return conversation.block(f"<p>{teller.say('results.none_count')}</p>", "welcome")
    headline = verdicts.headline(counted.votes, verdicts.fit_votes(counted.votes))
    board = headline.board
    counts = teller.say(
        "results.counts",
        raters=f"{board.raters:,}",
        votes=f"{board.votes:,}",
        comparisons=f"{counted.comparisons:,}",
    )
    parts = [f'<p class="finding">{_text(s)}</p>' for s in outcome.findings(headline, teller)]
    parts.append(f'<p class="quiet">{_text(counts)}</p>')
    if counted.left_out:
        left_out = teller.say("report.left_out", votes=f"{counted.left_out:,}")
        parts.append(f'<p class="quiet">{_text(left_out)}</p>')
    parts.append(_downloads(name, teller))
    parts.append(page.chapter(contents.headline_chapter(headline, teller), teller))
    parts.append(f'<p class="quiet">{_text(teller.say("results.short"))}</p>')
    return conversation.block("".join(parts), "report")


def _downloads(name: str, teller: Teller) -> str:
    """Links to the report, the figures' CSV and the votes."""
    query = urlencode({"study": name, "language": teller.language})
    links = "".join(
        f'<a href="{path}?{escape.escape(query)}" download>{_text(teller.say(key))}</a>'
        for path, key in (
            (download.REPORT, "results.report"),
            (download.FIGURES, "results.figures"),
            (download.VOTES, "results.export"),
        )
    )
    return f'<p class="downloads">{links}</p>'


def _text(words: str) -> str:
    return escape.escape(words)
