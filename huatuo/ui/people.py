"""the accounts on the admin page: invitations, one-time links, roles, sessions, disabling."""

import html as escape
from dataclasses import dataclass
from typing import Any

import gradio as gr

from huatuo.accounts import INVITATION_HOURS, RESET_HOURS, ROLES, Accounts, Role, Session
from huatuo.arena import rater_of
from huatuo.ui import conversation, frame
from huatuo.ui.text import Language, say
from reviews.people import RESET, Invitation, People, User
from reviews.store import Store

ROLE: Role = "admin"
ACTIONS = ("sign_out", "reset", "disable", "enable", "unlink", *(f"role_{r}" for r in ROLES[1:]))
"""What can be done with an account; each has its words in text/admin.py."""


@dataclass(frozen=True)
class Parts:
    """The components that show accounts and links, in the order in which `shown` fills them."""

    table: Any
    who: Any
    links: Any
    link: Any

    def all(self) -> list[Any]:
        """As the outputs of an event."""
        return [self.table, self.who, self.links, self.link]


class Desk:
    """What the administrator sees and does, in one language."""

    def __init__(self, store: Store, people: People, accounts: Accounts, language: Language):
        self.store = store
        self.people = people
        self.accounts = accounts
        self.language = language

    def say(self, key: str, **values: object) -> str:
        """A string of the page; values are escaped."""
        shown = {name: escape.escape(str(value)) for name, value in values.items()}
        return say(key, self.language, **shown)

    def shown(self, wanted: str = "") -> list[Any]:
        """The table of accounts, those to choose from, the table of links, those to choose from."""
        users, links = self.people.users(), self.people.open_invitations()
        return [
            self.table(users, wanted),
            gr.update(choices=[user.name for user in users], value=None),
            self.links(links),
            gr.update(choices=[(self._link_name(one), one.id) for one in links], value=None),
        ]

    def table(self, users: list[User], wanted: str) -> str:
        """The accounts whose name, role or state holds the wanted words."""
        signed_in = self.people.signed_in()
        rows = []
        for user in users:
            many, seen = signed_in.get(user.id, (0, None))
            ways = [self.say("admin.by_password")] if user.password_hash else []
            ways += [self.accounts.config.openid.title or "OpenID"] if user.identity else []
            row = (
                user.name,
                self.say(f"role.{user.role}"),
                self.say("admin.disabled" if user.disabled_at else "admin.active"),
                " · ".join(ways),
                self.say("admin.signed_in", many=many, at=f"{seen:%Y-%m-%d %H:%M}") if seen else "",
            )
            if wanted.strip().casefold() in " ".join(row).casefold():
                rows.append(row)
        keys = ("name", "role", "status", "ways", "sessions")
        return conversation.block(
            frame.table([self.say(f"admin.{k}") for k in keys], rows), "table", tabindex="0"
        )

    def links(self, links: list[Invitation]) -> str:
        """The open one-time links, none of which can be shown again."""
        if not links:
            return conversation.block(f'<p class="quiet">{self.say("admin.no_links")}</p>', "table")
        rows = [
            (one.name, self._purpose(one), f"{one.expires_at:%Y-%m-%d %H:%M} UTC") for one in links
        ]
        keys = ("name", "purpose", "expires")
        return conversation.block(
            frame.table([self.say(f"admin.{k}") for k in keys], rows), "table", tabindex="0"
        )

    def _purpose(self, link: Invitation) -> str:
        if link.role == RESET:
            return self.say("admin.for_reset")
        role = self.say(f"role.{link.role}") if link.role in ROLES else link.role
        return self.say("admin.for_account", role=role)

    def _link_name(self, link: Invitation) -> str:
        return f"{link.name} · {self._purpose(link)}"

    def link_block(self, token: str, words: str) -> str:
        """A new link with its words and the button that copies it."""
        url = escape.escape(self.accounts.link(token, self.language))
        button = (
            f'<button type="button" data-copy="{self.say("admin.copied")}">'
            f"{self.say('admin.copy')}</button>"
        )
        return conversation.block(f"<p>{words}</p><p><code>{url}</code> {button}</p>", "link")

    # what is done

    def invite(self, session: Session, name: str, role: str) -> str:
        """A block with a new invitation. Raises InputError, TooFast."""
        self.accounts.allow(session, "invite")
        token = self.accounts.invite(role, name, rater_of(session))
        return self.link_block(token, self._invited(name.strip(), role, INVITATION_HOURS))

    def renew(self, session: Session, shown: str) -> str:
        """A block with a link in place of an open one. Raises UnknownAssignment, TooFast."""
        self.accounts.allow(session, "invite")
        token, old = self.accounts.renew(shown, rater_of(session))
        if old.role == RESET:
            return self.link_block(token, self._to_reset(old.name))
        return self.link_block(token, self._invited(old.name, old.role, INVITATION_HOURS))

    def _invited(self, name: str, role: str, hours: int) -> str:
        return self.say("admin.invited", name=name, role=self.say(f"role.{role}"), hours=hours)

    def _to_reset(self, name: str) -> str:
        return self.say("admin.reset_made", name=name, hours=RESET_HOURS)

    def warning(self, user: User, action: str) -> str:
        """What will happen, before it is confirmed."""
        many, _ = self.people.signed_in().get(user.id, (0, None))
        votes = len(self.store.my_votes(user.id))
        role = self.say(f"role.{user.role}")
        key, to = ("role", action[5:]) if action.startswith("role_") else (action, "")
        words = self.say(
            f"admin.sure_{key}",
            name=user.name,
            role=role,
            to=self.say(f"role.{to}") if to else "",
            sessions=many,
            votes=votes,
        )
        return conversation.block(f"<p>{words}</p>", "sure")

    def act(self, session: Session, user: User, action: str) -> tuple[str, str]:
        """Does it; what was done in words, and a block with a link if one was made.

        Raises LastAdmin, UnknownAssignment, InputError, TooFast.
        """
        actor, link = rater_of(session), ""
        match action:
            case "sign_out":
                self.people.sign_out_everywhere(user.id, actor)
            case "reset":
                self.accounts.allow(session, "invite")
                link = self.link_block(
                    self.accounts.reset(user.id, actor), self._to_reset(user.name)
                )
            case "disable":
                self.people.disable(user.id, actor)
            case "enable":
                self.people.enable(user.id, actor)
            case "unlink":
                self.people.link_identity(user.id, None, actor)
            case _:
                self.people.set_role(user.id, action.removeprefix("role_"), actor)
        key = "role" if action.startswith("role_") else action
        role = self.say(action.replace("role_", "role.")) if key == "role" else ""
        return self.say(f"admin.done_{key}", name=user.name, role=role), link


def section(desk: Desk) -> tuple[Parts, Any]:
    """Puts the accounts on the page. Returns what shows them, and the box that searches them."""
    words, language = desk.say, desk.language
    frame.html(f"<h2>{words('admin.accounts')}</h2>")
    search = gr.Textbox(label=words("admin.search"), elem_id="search", max_length=60, max_lines=1)
    table = frame.html(elem_id="accounts")
    with gr.Row(elem_classes=["fields"]):
        who = gr.Dropdown([], label=words("admin.choose_account"), elem_id="account")
        what = gr.Dropdown(
            [(words(f"admin.do_{action}"), action) for action in ACTIONS],
            value=None,
            label=words("admin.choose_action"),
            elem_id="action",
        )
        go = gr.Button(words("admin.go_on"), elem_id="act")
    wish = gr.State(None)
    with gr.Column(visible=False, elem_id="confirmation") as sure:
        warning = frame.html(elem_id="warning")
        with gr.Row(elem_classes=["fields"]):
            confirm = gr.Button(words("admin.confirm"), variant="primary", elem_id="confirm")
            cancel = gr.Button(words("admin.cancel"), elem_id="cancel")
    made = frame.html(elem_id="account-link")
    frame.html(f"<h2>{words('admin.invite_title')}</h2>")
    with gr.Row(elem_classes=["fields"]):
        name = gr.Textbox(label=words("admin.name"), elem_id="invite-name", max_length=40)
        role = gr.Dropdown(
            [(words(f"role.{r}"), r) for r in ROLES[1:]],
            value="physician",
            label=words("admin.role"),
            elem_id="invite-role",
            filterable=False,
        )
        invite = gr.Button(words("admin.invite"), variant="primary", elem_id="invite")
    link = frame.html(elem_id="invite-link")
    frame.html(f"<h2>{words('admin.links')}</h2>")
    links = frame.html(elem_id="links")
    with gr.Row(elem_classes=["fields"]):
        one = gr.Dropdown([], label=words("admin.choose_link"), elem_id="one-link")
        renew = gr.Button(words("admin.renew"), elem_id="renew")
        withdraw = gr.Button(words("admin.withdraw"), elem_id="withdraw")
    parts = Parts(table, who, links, one)
    aside = [sure, wish]

    def required(request: gr.Request) -> Session:
        return desk.accounts.require(request, ROLE)

    def find(wanted: str, request: gr.Request) -> str:
        required(request)
        return desk.table(desk.people.users(), wanted)

    def ask(chosen: str | None, action: str | None, request: gr.Request) -> list[Any]:
        session = required(request)
        user = desk.people.user_named(chosen) if chosen else None
        if user is None or action not in ACTIONS:
            frame.ask_first(words("admin.choose_both"), language)
            return [gr.skip()] * 4
        if user.id == session.user_id and action not in ("sign_out", "reset", "unlink"):
            frame.ask_first(words("admin.not_yourself"), language)
            return [gr.skip()] * 4
        return [gr.update(visible=True), (user.id, action), desk.warning(user, action), ""]

    def do(wished: Any, wanted: str, request: gr.Request) -> list[Any]:
        session = required(request)
        user = desk.people.user(wished[0]) if wished else None
        if user is None:
            return [gr.skip()] * 7
        done, block = desk.act(session, user, wished[1])
        frame.tell(done, language)
        return [*desk.shown(wanted), gr.update(visible=False), None, block]

    def send(given: str, chosen: str, wanted: str, request: gr.Request) -> list[Any]:
        session = required(request)
        if desk.people.user_named(given.strip()) is not None:
            frame.ask_first(words("admin.taken", name=given.strip()), language)
            return [gr.skip()] * 6
        block = desk.invite(session, given, chosen)
        return [*desk.shown(wanted), block, ""]

    def again(shown: str | None, wanted: str, request: gr.Request) -> list[Any]:
        session = required(request)
        block = desk.renew(session, shown) if shown else gr.skip()
        return [*desk.shown(wanted), block]

    def end(shown: str | None, wanted: str, request: gr.Request) -> list[Any]:
        session = required(request)
        if shown:
            old = desk.people.withdraw_invitation(shown, rater_of(session))
            frame.tell(words("admin.withdrawn", name=old.name), language)
        return [*desk.shown(wanted), ""]

    def on(event: Any, handler: Any, inputs: Any, outputs: Any) -> None:
        event(frame.guarded(handler, language), inputs, outputs, **frame.QUIETLY)

    on(search.change, find, search, table)
    on(go.click, ask, [who, what], [*aside, warning, made])
    on(confirm.click, do, [wish, search], [*parts.all(), *aside, made])
    on(cancel.click, lambda: [gr.update(visible=False), None], None, aside)
    on(invite.click, send, [name, role, search], [*parts.all(), link, name])
    on(renew.click, again, [one, search], [*parts.all(), link])
    on(withdraw.click, end, [one, search], [*parts.all(), link])
    return parts, search
