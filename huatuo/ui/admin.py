"""the admin page: accounts and invitations, the models and why one is missing, studies, the audit record."""

import html as escape
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from huatuo.accounts import INVITATION_HOURS, ROLES, Accounts, Role
from huatuo.arena import rater_of
from huatuo.engines.pool import Pool
from huatuo.errors import AccessError
from huatuo.ui import conversation, frame
from huatuo.ui.text import Language, say
from reviews.errors import AuditBroken
from reviews.people import People
from reviews.store import Store

ROLE: Role = "admin"
MODELS_EVERY_S = 1.5
"""Seconds between two looks of an open page at the state of the models."""


def build(
    store: Store,
    people: People,
    pool: Pool,
    accounts: Accounts,
    language: Language,
) -> gr.Blocks:
    """The page in one language. The table of models follows what happens in configs/models."""
    with frame.blocks("admin", language) as demo:
        frame.with_header(demo, accounts, "admin", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide", "admin"]):
            frame.html(f"<h1>{say('admin.title', language)}</h1>")
            frame.html(f"<h2>{say('admin.accounts', language)}</h2>")
            table = frame.html(elem_id="accounts")
            with gr.Row(elem_classes=["fields"]):
                name = gr.Textbox(
                    label=say("admin.name", language), elem_id="invite-name", max_length=40
                )
                role = gr.Dropdown(
                    [(say(f"role.{r}", language), r) for r in ROLES[1:]],
                    value="physician",
                    label=say("admin.role", language),
                    elem_id="invite-role",
                    filterable=False,
                )
                invite = gr.Button(
                    say("admin.invite", language), variant="primary", elem_id="invite"
                )
            link = frame.html(elem_id="invite-link")
            with gr.Row(elem_classes=["fields"]):
                who = gr.Dropdown(
                    [],
                    label=say("admin.choose_account", language),
                    elem_id="account",
                    interactive=True,
                )
                disable = gr.Button(say("admin.disable", language), elem_id="disable")
                enable = gr.Button(say("admin.enable", language), elem_id="enable")
            with gr.Column(elem_id="state"):
                models = frame.html(elem_id="models")
                record = frame.html(elem_id="record")
            clock = gr.Timer(MODELS_EVERY_S)

        def accounts_table() -> list[Any]:
            rows = [
                (
                    user.name,
                    say(f"role.{user.role}", language),
                    say("admin.disabled" if user.disabled_at else "admin.active", language),
                )
                for user in people.users()
            ]
            columns = [say(f"admin.{key}", language) for key in ("name", "role", "status")]
            return [
                conversation.block(_table(columns, rows), "table"),
                gr.update(choices=[user.name for user in people.users()], value=None),
            ]

        def enter(request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            return [*accounts_table(), _models(pool, language), _record(store, language)]

        def look(request: gr.Request) -> Any:
            try:
                accounts.require(request, ROLE)
            except (
                AccessError
            ):  # signed out in another tab: said at the next click, not every second
                return gr.skip()
            return _models(pool, language)

        def send(name: str, role: str, request: gr.Request) -> list[Any]:
            session = accounts.require(request, ROLE)
            accounts.allow(session, "invite")
            if people.user_named(name.strip()) is not None:
                taken = say("admin.taken", language, name=escape.escape(name.strip()))
                frame.ask_first(taken, language)
                return [gr.skip(), gr.skip()]
            token = accounts.invite(role, name, rater_of(session))
            words = say(
                "admin.invited",
                language,
                name=escape.escape(name.strip()),
                role=say(f"role.{role}", language),
                hours=INVITATION_HOURS,
            )
            url = escape.escape(accounts.link(token, language))
            return [conversation.block(f"<p>{words}</p><p><code>{url}</code></p>", "link"), ""]

        def switch(off: bool) -> Any:
            def handler(name: str | None, request: gr.Request) -> list[Any]:
                session = accounts.require(request, ROLE)
                user = people.user_named(name) if name else None
                if user is None or user.id == session.user_id:
                    return [gr.skip(), gr.skip()]
                (people.disable if off else people.enable)(user.id, rater_of(session))
                frame.tell(
                    say(
                        "admin.done_disabled" if off else "admin.done_enabled",
                        language,
                        name=escape.escape(user.name),
                    ),
                    language,
                )
                return accounts_table()

            return handler

        invite.click(frame.guarded(send, language), [name, role], [link, name], **frame.QUIETLY)
        disable.click(frame.guarded(switch(True), language), who, [table, who], **frame.QUIETLY)
        enable.click(frame.guarded(switch(False), language), who, [table, who], **frame.QUIETLY)
        demo.load(
            frame.guarded(enter, language), None, [table, who, models, record], **frame.QUIETLY
        )
        clock.tick(frame.guarded(look, language), None, models, **frame.QUIETLY)
    return demo


def _models(pool: Pool, language: Language) -> str:
    """Every model with its state, then the files that name none, and why."""
    rows = [(name, *_model(pool, name, language)) for name in pool.configs] + [
        (file, say("admin.down", language), str(error)) for file, error in pool.broken.items()
    ]
    columns = [say(key, language) for key in ("results.model", "admin.state", "admin.why")]
    return conversation.block(_title("admin.models", language) + _table(columns, rows), "state")


def _record(store: Store, language: Language) -> str:
    """The studies, and whether the record is whole."""
    studies = [(s.name, str(s.pairs), str(s.votes)) for s in store.studies()]
    try:
        verified = store.verify_audit()
        audit = say("admin.audit_ok", language, rows=verified.rows, hash=verified.last_hash[:16])
    except AuditBroken as error:
        audit = say("admin.audit_broken", language, why=escape.escape(str(error)))
    return conversation.block(
        _title("admin.studies", language)
        + _table(
            [
                say("review.study", language),
                say("admin.pairs", language),
                say("results.votes", language),
            ],
            studies,
        )
        + _title("admin.audit", language)
        + f"<p>{audit}</p>",
        "state",
    )


def _title(key: str, language: Language) -> str:
    return f"<h2>{say(key, language)}</h2>"


def _model(pool: Pool, name: str, language: Language) -> tuple[str, str]:
    """State and remark. Why a model is down stays in the words of who found out: they name the file."""
    config = pool.configs.get(name)
    if config is not None and not config.enabled:
        return say("admin.off", language), say("admin.off_why", language)
    if pool.lacks(name):
        return say("admin.lacks", language), say("admin.lacks_why", language)
    state = pool.state(name)
    return say(f"admin.{state}", language), pool.why(name) if state == "down" else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape.escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
