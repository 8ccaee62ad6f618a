"""the review page: a queue of ready-made pairs, by mouse or by keyboard, with progress, drafts and undo."""

import html as escape
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts, Role, Session
from huatuo.arena import Duel, model_names, rater_of, show
from huatuo.engines.pool import Pool
from huatuo.ui import conversation, drafts, duel, frame, rating, spans
from huatuo.ui.drafts import Work
from huatuo.ui.text import Language, say
from reviews.records import Assignment, Comparison, Progress, Span, utcnow
from reviews.store import Store

ROLE: Role = "physician"
MINUTES_A_PAIR = 0.75
"""Assumed before the rater's own pace is known."""
REVISING = "+"
"""Stands behind the ticket of a pair that Undo brought back."""


@dataclass(frozen=True)
class Queue:
    """Where a page's pairs come from, and what is said around them.

    studies: the names a rater may choose from, most urgent first. following: the next pair.
    beside: HTML between progress and pair. nothing: keys of the words when there is no pair.
    """

    page: str
    role: Role
    submit: str
    studies: Callable[[Session], list[str]]
    following: Callable[[int, str], Assignment | None]
    progress: Callable[[int, str], Progress | None]
    beside: Callable[[Assignment, int], str]
    nothing: Callable[[str | None, Progress | None], tuple[str, str]]
    with_undo: bool = True


def build(store: Store, pool: Pool, accounts: Accounts, language: Language) -> gr.Blocks:
    """The page in one language. Names stay hidden, because the study's other pairs are still to come."""
    queue = Queue(
        page="review",
        role=ROLE,
        submit="duel.submit_next",
        studies=lambda session: _studies(store, session),
        following=store.next_prepared,
        progress=store.progress,
        beside=lambda assignment, rater: "",
        nothing=lambda name, done: _nothing(store, name, done),
    )
    return build_queue(queue, store, pool, accounts, language)


def build_queue(
    queue: Queue, store: Store, pool: Pool, accounts: Accounts, language: Language
) -> gr.Blocks:
    """A page on which the pairs of a queue are voted on, one after the other."""
    with frame.blocks(queue.page, language) as demo:
        frame.with_header(demo, accounts, queue.page, language, queue.role)
        with gr.Column(elem_id="main", elem_classes=["wide"]):
            title = say(f"page.{queue.page}", language)
            frame.html(f'<h1 class="unseen">{title}</h1>', elem_id="title")
            with gr.Row(elem_id="study-row"):
                study = gr.Dropdown(
                    [],
                    label=say("review.study", language),
                    show_label=False,
                    container=False,
                    interactive=True,
                    elem_id="study",
                    scale=1,
                    allow_custom_value=True,  # the record knows the studies, also after a restart
                )
                progress = frame.html(elem_id="progress")
            pair = frame.html(elem_id="duel")
            better_box, own = rating.own_answer(language)
            bar = duel.vote_bar(language, queue.submit, with_undo=queue.with_undo)
            late_undo = gr.Button(
                say("duel.undo", language), visible=False, elem_id="undo-last", size="sm"
            )
            ticket = gr.Textbox(visible="hidden", elem_id="ticket", label="ticket")
            form = rating.Form(bar.ratings, bar.keys, better_box, **own, **rating.hidden_boxes())
            frame.html(rating.aids(language), elem_id="aids")

        shown = [progress, pair, bar.box, bar.choice, bar.reason, late_undo, ticket, *form.shown]
        desk = _Desk(queue, store, pool, accounts, language, len(shown))

        def wire(event: Any, handler: Callable[..., Any], inputs: Any, outputs: Any) -> None:
            event(frame.guarded(handler, language), inputs, outputs, **frame.QUIETLY)

        sent = [study, ticket, bar.choice, bar.reason, *form.sent]
        wire(bar.submit.click, desk.vote, sent, shown)
        wire(bar.skip.click, desk.skip, [study, ticket], shown)
        wire(bar.report.click, desk.report, [study, ticket, bar.reason], shown)
        if bar.undo is not None:
            wire(bar.undo.click, desk.undo, [study, ticket], shown)
        wire(late_undo.click, desk.undo, [study, ticket], shown)
        wire(form.ask.click, desk.flag, [ticket, form.asking, form.spans], [pair, form.spans])
        for name, button in form.starts.items():
            wire(button.click, desk.start(name), ticket, [form.better, form.side])
        wire(study.input, desk.choose, study, shown)
        wire(demo.load, desk.enter, None, [study, *shown])
    return demo


class _Desk:
    """The page's handlers. What is on the page is told by the record, never by the browser."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        pool: Pool,
        accounts: Accounts,
        language: Language,
        width: int,
    ) -> None:
        self.queue, self.store, self.pool = queue, store, pool
        self.accounts, self.language, self.width = accounts, language, width

    def enter(self, request: gr.Request) -> list[Any]:
        """The first pair of the first study that has one left."""
        session = self._session(request)
        names = self.queue.studies(session)
        first = names[0] if names else None
        choices = gr.update(choices=sorted(names), value=first, visible=len(names) > 1)
        return [choices, *self._following(session, first, tell=True)]

    def choose(self, name: str | None, request: gr.Request) -> list[Any]:
        """The next pair of another study."""
        return self._following(self._session(request), name, tell=True)

    def vote(
        self,
        name: str,
        ticket_id: str,
        choice: str | None,
        reason: str,
        extra: str,
        marks: str,
        better: str,
        side: str,
        consent: bool,
        request: gr.Request,
    ) -> list[Any]:
        """Records the vote, or says what is missing; then the next pair."""
        session = self._session(request)
        work = rating.read(ticket_id, choice, reason, extra, marks, better, side, consent)
        ticket_id, revising = _ticket(ticket_id)
        assignment, comparison = self.store.view(ticket_id, rater_of(session))
        what = rating.asked(self.store, comparison.study)
        missing = rating.lacking(work, what, self.language)
        if work.choice is None or missing:
            missing = missing if work.choice else say("duel.choose_first", self.language)
            frame.ask_first(missing or "", self.language)
            return [gr.skip()] * self.width
        seconds = None if assignment.vote else seconds_taken(assignment, work)
        duel.cast(
            self.store,
            self.accounts,
            session,
            ticket_id,
            work.choice,
            reason,
            self.language,
            work=work,
            revise=revising,
            seconds=seconds,
        )
        if rating.is_hasty(self.store, rater_of(session), comparison.study, what, seconds):
            frame.tell(say("rating.fast", self.language), self.language)
        return self._following(session, name)

    def skip(self, name: str, ticket_id: str, request: gr.Request) -> list[Any]:
        """Lays the pair aside; a vote that stands is left as it is."""
        session = self._session(request)
        ticket_id, _ = _ticket(ticket_id)
        assignment, _ = self.store.view(ticket_id, rater_of(session))
        if assignment.state == "open":
            self.store.skip(ticket_id, rater_of(session))
            frame.tell(say("duel.skipped", self.language), self.language)
        return self._following(session, name)

    def report(self, name: str, ticket_id: str, reason: str, request: gr.Request) -> list[Any]:
        """Reports the pair and goes on."""
        session = self._session(request)
        ticket_id, _ = _ticket(ticket_id)
        self.store.report(ticket_id, rater_of(session), duel.masked(reason))
        frame.tell(say("duel.reported", self.language), self.language)
        return self._following(session, name)

    def undo(self, name: str, ticket_id: str, request: gr.Request) -> list[Any]:
        """The pair before this one, to be looked at and voted on again."""
        session = self._session(request)
        rater = rater_of(session)
        before = self.store.previous(rater, name, before=_ticket(ticket_id)[0] or None)
        if before is None:
            frame.tell(say("review.nothing_to_undo", self.language), self.language)
            return [gr.skip()] * self.width
        return self._page(session, name, before)

    def flag(self, ticket_id: str, asking: str, marks: str, request: gr.Request) -> list[Any]:
        """The pair with one mark more or less."""
        session = self._session(request)
        assignment, comparison = self.store.view(_ticket(ticket_id)[0], rater_of(session))
        seen = _blind(assignment, comparison, model_names(self.pool))
        found = spans.changed(asking, marks, spans.stored_texts(assignment, comparison), seen)
        if found is None:
            frame.ask_first(say("flag.select_again", self.language), self.language)
            return [gr.skip(), gr.skip()]
        return [self._drawn(assignment, comparison, found), Work(spans=found).spans_text()]

    def start(self, name: str) -> Callable[..., list[Any]]:
        """The handler that begins the own answer: empty, or from one side's last answer."""

        def handler(ticket_id: str, request: gr.Request) -> list[Any]:
            session = self._session(request)
            assignment, comparison = self.store.view(_ticket(ticket_id)[0], rater_of(session))
            seen = _blind(assignment, comparison, model_names(self.pool))
            return list(rating.beginning(seen, name))

        return handler

    def _session(self, request: gr.Request) -> Session:
        return self.accounts.require(request, self.queue.role)

    def _following(self, session: Session, name: str | None, *, tell: bool = False) -> list[Any]:
        found = self.queue.following(rater_of(session), name) if name else None
        return self._page(session, name, found, tell=tell)

    def _page(
        self, session: Session, name: str | None, found: Assignment | None, *, tell: bool = False
    ) -> list[Any]:
        """Every output. tell: say so when unsent work came back."""
        language, rater = self.language, rater_of(session)
        done = self.queue.progress(rater, name) if name else None
        if found is None:
            again = gr.update(visible=bool(done and done.done + done.skipped))
            words = _welcome(*self.queue.nothing(name, done), language)
            empty = [gr.update(visible=False), gr.update(value=None), "", again, ""]
            return [_progress(done, language), words, *empty, *rating.nothing()]
        _, comparison = self.store.view(found.id, rater)
        what = rating.asked(self.store, comparison.study)
        vote = found.vote
        work = drafts.of_vote(vote) if vote else drafts.stored(self.store, found.id, rater)
        if tell and not vote and not work.is_empty:
            frame.tell(say("draft.restored", language), language)
        ticket = found.id + (REVISING if vote else "")
        return [
            _progress(done, language),
            self._drawn(found, comparison, work.spans, flags=what.flags),
            gr.update(visible=True),
            gr.update(value=work.choice, interactive=True),
            work.reason,
            gr.update(visible=False),
            ticket,
            *rating.fill(ticket, work, what, language, undo=self.queue.with_undo),
        ]

    def _drawn(
        self,
        assignment: Assignment,
        comparison: Comparison,
        marks: tuple[Span, ...],
        *,
        flags: bool = True,
    ) -> str:
        """The pair, and what stands around it."""
        language = self.language
        seen = _blind(assignment, comparison, model_names(self.pool))
        stored = spans.stored_texts(assignment, comparison)
        return (
            self.queue.beside(assignment, assignment.rater_id)
            + duel.draw(
                seen,
                language,
                case=_summary(seen, language),
                marks=spans.Shown(marks, stored) if flags else None,
            )
            + (_revising(assignment.vote.choice, language) if assignment.vote else "")
        )


def seconds_taken(assignment: Assignment, work: Work) -> float:
    """Time at work on a pair: what the page counted, at most the time since it was given out.

    The page's clock stands still while its tab is hidden and while the rater pauses.
    """
    elapsed = (utcnow() - assignment.issued_at).total_seconds()
    return elapsed if work.active_s is None else min(work.active_s, elapsed)


def _studies(store: Store, session: Session) -> list[str]:
    """Every study with pairs that this rater may take part in; first one with something left."""
    found: list[tuple[bool, str]] = []
    for summary in store.studies():
        filed = store.study(summary.name)
        invited = filed.protocol.raters if filed else ()
        if not summary.pairs or (invited and session.name not in invited):
            continue
        over = filed is not None and filed.state == "closed"
        left = _left(store.progress(rater_of(session), summary.name))
        found.append((over or not left, summary.name))
    return [name for _, name in sorted(found)]


def _ticket(text: str) -> tuple[str, bool]:
    """(assignment id, whether the page was opened by Undo): only then may a vote replace another."""
    return text.removesuffix(REVISING), text.endswith(REVISING)


def _blind(assignment: Assignment, comparison: Comparison, names: tuple[str, ...]) -> Duel:
    """The pair as the rater may see it, voted or not: without names."""
    return replace(show(replace(assignment, state="open"), comparison, names), state="votable")


def _summary(seen: Duel, language: Language) -> str:
    case = seen.case
    facts = [say("review.case", language), case.department, case.intent]
    return escape.escape(" · ".join(fact for fact in facts if fact))


def _left(done: Progress) -> int:
    return done.total - done.done - done.skipped


def _progress(done: Progress | None, language: Language) -> str:
    if done is None or not done.total:
        return conversation.block("", "progress")
    finished = done.done + done.skipped
    percent = 100 * finished / done.total
    words = say("review.progress", language, done=done.done, total=done.total)
    if done.skipped:
        words += " · " + say("review.skipped", language, skipped=done.skipped)
    if _left(done):
        pace = done.median_seconds / 60 if done.median_seconds else MINUTES_A_PAIR
        words += " · " + say("review.minutes", language, minutes=max(1, round(_left(done) * pace)))
    return conversation.block(
        f'<span class="words">{words}</span>'
        f'<span class="track" role="progressbar" aria-valuemin="0" aria-valuemax="{done.total}" '
        f'aria-valuenow="{finished}" aria-label="{words}"><i style="width:{percent:.1f}%"></i></span>',
        "progress",
    )


def _revising(choice: str, language: Language) -> str:
    words = say("review.revising", language, choice=say("duel.vote_" + choice, language))
    return f'\n<p class="revising" role="status">{words}</p>'


def _nothing(store: Store, name: str | None, done: Progress | None) -> tuple[str, str]:
    filed = store.study(name) if name else None
    key = "review.done" if done and done.total else "review.empty"
    if filed is not None and filed.state == "closed":
        key = "review.closed"
    return key, key + "_more"


def _welcome(title: str, more: str, language: Language) -> str:
    return conversation.block(
        f"<h2>{say(title, language)}</h2><p>{say(more, language)}</p>", "welcome"
    )
