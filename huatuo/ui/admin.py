"""the admin page: accounts and one-time links, the models and why one is missing, the audit record."""

import html as escape
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts
from huatuo.engines.pool import Pool
from huatuo.errors import AccessError
from huatuo.ui import conversation, frame, people
from huatuo.ui.people import ROLE
from huatuo.ui.text import Language, say
from reviews.errors import AuditBroken
from reviews.people import People
from reviews.store import Store

__all__ = ["MODELS_EVERY_S", "ROLE", "build"]

MODELS_EVERY_S = 1.5
"""Seconds between two looks of an open page at the state of the models."""


def build(
    store: Store,
    accounts_of: People,
    pool: Pool,
    accounts: Accounts,
    language: Language,
) -> gr.Blocks:
    """The page in one language. The table of models follows what happens in configs/models."""
    desk = people.Desk(store, accounts_of, accounts, language)
    with frame.blocks("admin", language) as demo:
        frame.with_header(demo, accounts, "admin", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide", "admin"]):
            frame.html(f"<h1>{say('admin.title', language)}</h1>")
            parts, search = people.section(desk)
            with gr.Column(elem_id="state"):
                models = frame.html(elem_id="models")
                record = frame.html(elem_id="record")
            clock = gr.Timer(MODELS_EVERY_S)

        def enter(wanted: str, request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            return [*desk.shown(wanted), _models(pool, language), _record(store, language)]

        def look(request: gr.Request) -> Any:
            try:
                accounts.require(request, ROLE)
            except (
                AccessError
            ):  # signed out in another tab: said at the next click, not every second
                return gr.skip()
            return _models(pool, language)

        demo.load(
            frame.guarded(enter, language), search, [*parts.all(), models, record], **frame.QUIETLY
        )
        clock.tick(frame.guarded(look, language), None, models, **frame.QUIETLY)
    return demo


def _models(pool: Pool, language: Language) -> str:
    """Every model with its state, then the files that name none, and why."""
    rows = [(name, *_model(pool, name, language)) for name in pool.configs] + [
        (file, say("admin.down", language), str(error)) for file, error in pool.broken.items()
    ]
    columns = [say(key, language) for key in ("results.model", "admin.state", "admin.why")]
    return conversation.block(
        f"<h2>{say('admin.models', language)}</h2>" + frame.table(columns, rows), "state"
    )


def _record(store: Store, language: Language) -> str:
    """Whether the record is whole."""
    try:
        verified = store.verify_audit()
        audit = say("admin.audit_ok", language, rows=verified.rows, hash=verified.last_hash[:16])
    except AuditBroken as error:
        audit = say("admin.audit_broken", language, why=escape.escape(str(error)))
    return conversation.block(f"<h2>{say('admin.audit', language)}</h2><p>{audit}</p>", "state")


def _model(pool: Pool, name: str, language: Language) -> tuple[str, str]:
    """State and remark. Why a model is down stays in the words of who found out: they name the file."""
    config = pool.configs.get(name)
    if config is not None and not config.enabled:
        return say("admin.off", language), say("admin.off_why", language)
    if pool.lacks(name):
        return say("admin.lacks", language), say("admin.lacks_why", language)
    state = pool.state(name)
    return say(f"admin.{state}", language), pool.why(name) if state == "down" else ""
