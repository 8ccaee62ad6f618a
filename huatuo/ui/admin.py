"""the admin page: accounts and invitations, the models and why one is missing, studies, the audit record."""

import html as escape
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gradio as gr

from huatuo.accounts import INVITATION_HOURS, ROLES, Accounts, Role
from huatuo.arena import rater_of
from huatuo.engines.pool import Pool
from huatuo.errors import ConfigError
from huatuo.ui import conversation, frame
from huatuo.ui.text import Language, say
from reviews.errors import AuditBroken
from reviews.people import People
from reviews.store import Store

ROLE: Role = "admin"


def build(
    store: Store,
    people: People,
    pool: Pool,
    broken: Mapping[str, ConfigError],
    accounts: Accounts,
    language: Language,
) -> gr.Blocks:
    """The page in one language. broken: the files of configs/models that could not be read, and why."""
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
            state = frame.html(elem_id="state")

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
            return [*accounts_table(), _state(store, pool, broken, language)]

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
        demo.load(frame.guarded(enter, language), None, [table, who, state], **frame.QUIETLY)
    return demo


def _state(store: Store, pool: Pool, broken: Mapping[str, ConfigError], language: Language) -> str:
    def title(key: str) -> str:
        return f"<h2>{say(key, language)}</h2>"

    models = [(name, *_model(pool, name, language)) for name in pool.configs] + [
        (file, say("admin.down", language), str(error)) for file, error in broken.items()
    ]
    studies = [(s.name, str(s.pairs), str(s.votes)) for s in store.studies()]
    try:
        verified = store.verify_audit()
        audit = say("admin.audit_ok", language, rows=verified.rows, hash=verified.last_hash[:16])
    except AuditBroken as error:
        audit = say("admin.audit_broken", language, why=escape.escape(str(error)))
    return conversation.block(
        title("admin.models")
        + _table([say(k, language) for k in ("results.model", "admin.state", "admin.why")], models)
        + title("admin.studies")
        + _table(
            [
                say("review.study", language),
                say("admin.pairs", language),
                say("results.votes", language),
            ],
            studies,
        )
        + title("admin.audit")
        + f"<p>{audit}</p>",
        "state",
    )


def _model(pool: Pool, name: str, language: Language) -> tuple[str, str]:
    """State and remark. Why a model is down stays in the words of who found out: they name the file."""
    if not pool.config(name).enabled:
        return say("admin.off", language), say("admin.off_why", language)
    state = pool.state(name)
    return say(f"admin.{state}", language), pool.why(name) if state == "down" else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape.escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
