"""the studies page: what is filed and how far it is, making a study, freezing and closing it."""

import html as escape
from collections import Counter
from collections.abc import Sequence
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.arena import rater_of
from huatuo.engines.pool import Pool
from huatuo.identity import ROLES
from huatuo.study_toml import to_toml
from huatuo.ui import conversation, frame, study_form, uploads
from huatuo.ui.text import Language, say
from reviews.errors import BadStudy, StudyFrozen
from reviews.people import People
from reviews.protocol import Protocol, Study
from reviews.records import VoteRow
from reviews.store import Store

ROLE: Role = "researcher"
PAIRS_SHOWN = 300


class Desk:
    """What the page shows of the record, in one language."""

    def __init__(self, store: Store, people: People, language: Language) -> None:
        self.store = store
        self.people = people
        self.language = language

    def say(self, key: str, **values: object) -> str:
        """A string of the page; values are escaped."""
        shown = {name: escape.escape(str(value)) for name, value in values.items()}
        return say(f"studies.{key}", self.language, **shown)

    def names(self) -> list[str]:
        """Studies with a protocol."""
        return [study.name for study in self.store.filed_studies()]

    def listed(self) -> str:
        """Every study: with a protocol, or with pairs alone."""
        filed = {study.name: study for study in self.store.filed_studies()}
        counted = {one.name: one for one in self.store.studies()}
        rows = []
        for name in sorted({*filed, *counted}):
            study, counts = filed.get(name), counted.get(name)
            title = getattr(study.protocol, f"title_{self.language}") if study else ""
            state = self.say(study.state) if study else self.say("no_protocol")
            pairs, votes = (counts.pairs, counts.votes) if counts else (0, 0)
            rows.append(
                (name, title, state, str(pairs), str(votes), study.sha256[:12] if study else "")
            )
        if not rows:
            return conversation.block(f'<p class="quiet">{self.say("none")}</p>', "table")
        keys = ("name", "title", "state", "pairs", "votes_cast", "hash")
        return conversation.block(
            frame.table([self.say(key) for key in keys], rows), "table", tabindex="0"
        )

    def detail(self, study: Study) -> str:
        """The protocol, its hash, how far pairs and raters are, and the file that says the same."""
        votes = self.store.votes(study.name)
        moments = [("filed_at", study.filed_at), ("frozen_at", study.frozen_at)]
        moments += [("closed_at", study.closed_at)]
        facts = [(self.say("state"), self.say(study.state))]
        facts += [(self.say(key), f"{at:%Y-%m-%d %H:%M} UTC") for key, at in moments if at]
        if study.close_reason:
            facts.append((self.say("reason"), study.close_reason))
        facts.append((self.say("hash"), study.sha256))
        if study.pairs_sha256:
            facts.append((self.say("pairs_hash"), study.pairs_sha256))
        return conversation.block(
            _pairs(facts)
            + self._raters(study)
            + self._compared(study, votes)
            + self._reported(study)
            + self.protocol(study.protocol),
            "state study",
        )

    def protocol(self, protocol: Protocol) -> str:
        """The protocol as its file, with a button that copies it."""
        text = escape.escape(to_toml(protocol))
        return (
            f"<details><summary>{self.say('as_file')}</summary><div><pre>{text}</pre>"
            f'<button type="button" data-copy="{self.say("copied")}">{self.say("copy")}</button>'
            "</div></details>"
        )

    def _raters(self, study: Study) -> str:
        """How far each rater is; those who are named, or who began."""
        named = {name.casefold() for name in study.protocol.raters}
        rows = []
        for user in self.people.users():
            far = self.store.progress(user.id, study.name)
            if user.name.casefold() in named or far.done or far.skipped:
                pace = f"{far.median_seconds:.0f} s" if far.median_seconds is not None else ""
                row = (user.name, str(far.done), str(far.skipped), str(far.total), pace)
                rows.append(row)
        keys = ("rater", "done", "skipped", "of", "pace")
        table = frame.table([self.say(key) for key in keys], rows)
        return f"<h3>{self.say('by_rater')}</h3>{table}" if rows else ""

    def _compared(self, study: Study, votes: Sequence[VoteRow]) -> str:
        """How many pairs have how many of the votes they need; then each pair that has any."""
        overlap = study.protocol.overlap
        seen = Counter(vote.comparison_id for vote in votes)
        about = {vote.comparison_id: vote for vote in votes}
        counts = {one.name: one.pairs for one in self.store.studies()}
        pairs = max(counts.get(study.name, 0), len(seen))
        many = Counter(seen.values())
        many[0] = pairs - len(seen)
        rows = [(f"{n} / {overlap}", str(many[n])) for n in sorted(many) if many[n]]
        each = [
            (about[one].external_id or one, f"{about[one].contestant_a} · {about[one].contestant_b}",
             f"{n} / {overlap}")
            for one, n in sorted(seen.items(), key=lambda item: (item[1], about[item[0]].external_id))
        ]  # fmt: skip
        table = frame.table([self.say("votes_of"), self.say("pairs")], rows)
        inner = frame.table(
            [self.say(k) for k in ("pair", "contestants", "votes_of")], each[:PAIRS_SHOWN]
        )
        more = (
            f"<details><summary>{self.say('each_pair')}</summary>{inner}</details>" if each else ""
        )
        return f"<h3>{self.say('by_pair')}</h3>{table}{more}" if pairs else ""

    def _reported(self, study: Study) -> str:
        """What raters reported, and why."""
        rows = [
            (one.case, f"{one.contestant_a} · {one.contestant_b}", one.reason, f"{one.at:%Y-%m-%d}")
            for one in self.store.reports(study.name)
        ]
        keys = ("pair", "contestants", "report_reason", "reported_at")
        table = frame.table([self.say(key) for key in keys], rows)
        return f"<h3>{self.say('reported')}</h3>{table}" if rows else ""


def build(
    store: Store,
    people: People,
    pool: Pool,
    accounts: Accounts,
    protocols: Sequence[str],
    language: Language,
) -> gr.Blocks:
    """The page in one language. protocols: names of configs/protocols."""
    desk = Desk(store, people, language)
    words = desk.say
    with frame.blocks("studies", language) as demo:
        frame.with_header(demo, accounts, "studies", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide", "admin"]):
            frame.html(f"<h1>{words('heading')}</h1>")
            listed = frame.html(elem_id="studies")
            with gr.Row(elem_classes=["fields"]):
                chosen = gr.Dropdown([], label=words("choose"), elem_id="study-one")
                freeze = gr.Button(words("freeze"), elem_id="freeze")
                reason = gr.Textbox(label=words("reason"), elem_id="close-reason", max_length=500)
                close = gr.Button(words("close"), elem_id="close")
            wish = gr.State(None)
            with gr.Column(visible=False, elem_id="confirmation") as sure:
                warning = frame.html(elem_id="warning")
                with gr.Row(elem_classes=["fields"]):
                    confirm = gr.Button(words("confirm"), variant="primary", elem_id="confirm")
                    cancel = gr.Button(words("cancel"), elem_id="cancel")
            detail = frame.html(elem_id="study-detail")
            frame.html(f"<h2>{words('upload_title')}</h2>")
            sending = frame.html(elem_id="upload")
            frame.html(f"<h2>{words('new')}</h2>")
            boxes = study_form.boxes(language, sorted(pool.configs), protocols)
            show = gr.Button(words("show"), elem_id="show-protocol")
            shown = frame.html(elem_id="protocol")
            draft = gr.State(None)
            file = gr.Button(words("file"), variant="primary", elem_id="file", visible=False)
        raters = boxes[study_form.KEYS.index("raters")]
        lists, aside = [listed, chosen, detail], [sure, wish]
        does = _Handlers(desk, pool, accounts)

        def on(event: Any, handler: Any, inputs: Any, outputs: Any) -> None:
            event(frame.guarded(handler, language), inputs, outputs, **frame.QUIETLY)

        on(chosen.input, does.pick, chosen, [detail, *aside])
        on(freeze.click, does.ask_freeze, [chosen, reason], [*aside, warning])
        on(close.click, does.ask_close, [chosen, reason], [*aside, warning])
        on(confirm.click, does.confirm, wish, [*lists, *aside])
        on(cancel.click, lambda: [gr.update(visible=False), None], None, aside)
        on(show.click, does.preview, boxes, [shown, draft, file])
        on(file.click, does.file, draft, [*lists, shown, draft, file])
        on(demo.load, does.enter, None, [*lists, sending, raters])
    return demo


class _Handlers:
    """What the page's buttons do. Freezing and closing ask first, and act on what was shown then."""

    def __init__(self, desk: Desk, pool: Pool, accounts: Accounts) -> None:
        self.desk, self.pool, self.accounts = desk, pool, accounts
        self.store, self.people, self.language = desk.store, desk.people, desk.language
        self.words = desk.say

    def enter(self, request: gr.Request) -> list[Any]:
        """The lists, the form for files, and who may rate."""
        self._researcher(request)
        known = sorted({*self.desk.names(), *(one.name for one in self.store.studies())})
        block = conversation.block(uploads.form(self.language, known), "plain-form")
        users = self.people.users()
        able = [u.name for u in users if u.disabled_at is None and u.role in ROLES[1:]]
        return [*self._lists(None), block, gr.update(choices=able)]

    def pick(self, name: str | None, request: gr.Request) -> list[Any]:
        """One study's protocol and how far it is."""
        self._researcher(request)
        study = self.store.study(name) if name else None
        return [self.desk.detail(study) if study else "", gr.update(visible=False), None]

    def ask_freeze(self, name: str | None, why: str, request: gr.Request) -> list[Any]:
        """Asks whether the protocol is to be frozen."""
        return self._ask("freeze", name, why, request)

    def ask_close(self, name: str | None, why: str, request: gr.Request) -> list[Any]:
        """Asks whether the study is to be closed for this reason."""
        return self._ask("close", name, why, request)

    def confirm(self, wished: Any, request: gr.Request) -> list[Any]:
        """Does what was asked, unless another person changed protocol or pairs meanwhile."""
        actor = self._researcher(request)
        if not wished:
            return [gr.skip()] * 5
        action, name, shown, why = wished
        found = self.store.study(name)
        seen = self._shown(found) if found else ("", 0)
        if seen[0] != shown[0] or (action == "freeze" and seen != tuple(shown)):
            frame.ask_first(self.words("changed_meanwhile"), self.language)
        elif action == "freeze":
            self.store.freeze_study(name, actor)
            frame.tell(self.words("done_freeze", name=name), self.language)
        else:
            self.store.close_study(name, actor, why)
            frame.tell(self.words("done_close", name=name), self.language)
        return [*self._lists(name), gr.update(visible=False), None]

    def preview(self, request: gr.Request, *values: Any) -> list[Any]:
        """The protocol that the form says, or what is wrong with it; nothing is saved."""
        self._researcher(request)
        try:
            protocol = study_form.protocol_of(dict(zip(study_form.KEYS, values, strict=True)))
            _check_names(protocol, self.pool, self.people)
        except BadStudy as error:
            return [study_form.refusal(error, self.language), None, gr.update(visible=False)]
        meaning = self.words("meaning", hash=protocol.sha256)
        told = f"<p>{meaning}</p>{self.desk.protocol(protocol)}"
        told = told.replace("<details>", "<details open>")
        block = conversation.block(told, "state study")
        return [block, protocol.canonical(), gr.update(visible=True)]

    def file(self, canonical: str | None, request: gr.Request) -> list[Any]:
        """Files the protocol that was shown, as a draft."""
        actor = self._researcher(request)
        if not canonical:
            return [gr.skip()] * 6
        try:
            study = self.store.file_study(Protocol.from_json(canonical), actor)
        except (BadStudy, StudyFrozen) as error:
            block = study_form.refusal(error, self.language)
            return [gr.skip(), gr.skip(), gr.skip(), block, None, gr.update(visible=False)]
        frame.tell(self.words("done_file", name=study.name), self.language)
        return [*self._lists(study.name), "", None, gr.update(visible=False)]

    def _researcher(self, request: gr.Request) -> int:
        return rater_of(self.accounts.require(request, ROLE))

    def _lists(self, name: str | None) -> list[Any]:
        """Every study, those that can be chosen, and the chosen one."""
        study = self.store.study(name) if name else None
        return [
            self.desk.listed(),
            gr.update(choices=self.desk.names(), value=study.name if study else None),
            self.desk.detail(study) if study else "",
        ]

    def _shown(self, study: Study) -> tuple[str, int]:
        """What a freeze is about: the protocol's hash, and how many pairs there are."""
        counted = {one.name: one.pairs for one in self.store.studies()}
        return study.sha256, counted.get(study.name, 0)

    def _ask(self, action: str, name: str | None, why: str, request: gr.Request) -> list[Any]:
        self._researcher(request)
        study = self.store.study(name) if name else None
        missing = ""
        if study is None:
            missing = "choose_first"
        elif study.state == "closed" or (action == "freeze" and study.state != "draft"):
            missing = f"is_{study.state}"
        elif action == "close" and not why.strip():
            missing = "reason_first"
        if study is None or missing:
            frame.ask_first(self.words(missing), self.language)
            return [gr.skip()] * 3
        hashed, pairs = shown = self._shown(study)
        facts = {"name": study.name, "hash": hashed, "pairs": pairs, "reason": why.strip()}
        block = conversation.block(f"<p>{self.words(f'sure_{action}', **facts)}</p>", "sure")
        return [gr.update(visible=True), (action, study.name, shown, why), block]


def _pairs(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values as a definition list."""
    rows = "".join(
        f"<dt>{escape.escape(name)}</dt><dd>{escape.escape(value)}</dd>" for name, value in facts
    )
    return f"<dl>{rows}</dl>"


def _check_names(protocol: Protocol, pool: Pool, people: People) -> None:
    """Raises BadStudy for a rater without an account, or a live contestant that is no model."""
    for name in protocol.raters:
        user = people.user_named(name)
        if user is None or user.disabled_at is not None:
            where = f"study {protocol.name!r}: raters"
            raise BadStudy("{name!r} has no open account", where=where, name=name)
    for name in protocol.contestants if protocol.kind == "live" else ():
        if name not in pool.configs:
            where = f"study {protocol.name!r}: contestants"
            raise BadStudy("{name!r} is no model here", where=where, name=name)
