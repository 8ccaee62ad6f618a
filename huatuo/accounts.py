"""users, roles, argon2 passwords, server-side sessions, lockout, rate limits.

The browser holds one random token in a strict cookie; the record holds its sha256. Who somebody is
comes from that row each time it is asked, never from the page. SQL is in reviews/people.py.
From the command line: `python -m huatuo.accounts invite --role physician --name NAME`; also list,
reset (a one-time link to a new password), role, disable, enable, sign-out.
"""

import argparse
import re
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from huatuo import messages
from huatuo.config import ROOT, AppConfig, read_toml
from huatuo.errors import Forbidden, HuatuoError, InputError, LockedOut, NotSignedIn, TooFast
from huatuo.identity import (
    ROLES,
    TOKEN,
    Language,
    Role,
    Session,
    base_url,
    cookie,
    digest,
    has_role,
    language_of,
)
from huatuo.passwords import Hasher, check_password, folded, password_problem
from reviews.database import DEFAULT_NAME, Database
from reviews.errors import NameTaken, RecordError, UnknownAssignment
from reviews.migrations import migrate
from reviews.people import RESET, Identity, Invitation, People, SessionRow, User
from reviews.records import clean_text, utcnow

__all__ = ["ROLES", "Accounts", "Language", "Role", "Session", "base_url", "cookie", "has_role"]

FIRST_ADMIN = "admin"
INVITATION_HOURS = 72
RESET_HOURS = 24
TOUCH_S = 300.0
ADDRESS_FAILURES = 30
_CONSOLE = "command line"


class Accounts:
    """Everything that decides who may do what. One object for the life of the app."""

    def __init__(
        self, people: People, config: AppConfig, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self.people = people
        self.config = config
        self.secure = config.public_url.startswith("https://")
        self.cookie_name = "__Host-session" if self.secure else "session"
        self._clock = clock
        self._hasher = Hasher()
        self._counting = threading.Lock()

    # Sessions

    def current(self, request: Any) -> Session:
        """The session of a starlette or gradio request. Raises NotSignedIn when there is none."""
        language = language_of(request, self.config.language)
        session = self.session_of(cookie(request, self.cookie_name), language)
        if session is None:
            raise NotSignedIn("you are not signed in, or the session has ended; sign in again")
        return session

    def require(self, request: Any, role: str) -> Session:
        """The session, if its role is `role` or above. Raises NotSignedIn, Forbidden."""
        session = self.current(request)
        if not has_role(session, role):
            if session.user_id is None:
                raise NotSignedIn(f"this needs the role {role}; sign in first")
            raise Forbidden(f"this needs the role {role}; ask an administrator")
        return session

    def session_of(self, token: str | None, language: Language) -> Session | None:
        """The session behind a cookie's token; None when it is forged, ended or disabled."""
        row = self._row(token)
        if row is None:
            return None
        if row.user_id is None:
            return Session(f"visitor:{row.token_hash[:24]}", None, "", "visitor", language)
        if row.role not in ROLES:
            return None
        return Session(f"user:{row.user_id}", row.user_id, row.name, row.role, language)

    def touch(self, token: str | None) -> None:
        """Notes that the session is in use, at most every five minutes."""
        row = self._row(token)
        if row is not None and self.now() - row.seen_at.timestamp() > TOUCH_S:
            self.people.touch_session(row.token_hash)

    def visit(self, remote: str = "") -> str:
        """Token of a new visitor. Raises TooFast after 60 at once from one address (then 1/s)."""
        if not self.people.take("visit:" + digest(remote)[:32], 60, 1.0, self.now()):
            raise TooFast("too many new visits from this address; wait a minute")
        return self._open(None, self.config.chat_retention_days)

    def sign_out(self, token: str | None) -> None:
        """Ends the session; an unknown token changes nothing."""
        if token is not None and TOKEN.fullmatch(token):
            self.people.end_session(digest(token))

    def end_old_sessions(self) -> None:
        """Forgets the sessions that have expired."""
        self.people.purge_sessions(self.now())

    # Signing in

    def sign_in(
        self,
        name: str,
        password: str,
        remote: str = "",
        old: str | None = None,
        seen: Mapping[str, str] | None = None,
    ) -> str:
        """Token of a new session; the session `old` ends. seen: what the list of sessions shows.

        Raises LockedOut after sign_in_failures wrong passwords in lock_minutes, TooFast after 30
        from one address, NotSignedIn when name or password is wrong or the account disabled.
        """
        user = self._checked(name, password, remote)
        self.sign_out(old)
        return self._open(user.id, self.config.session_days, seen)

    def sign_in_as(self, identity: Identity, seen: Mapping[str, str] | None = None) -> str:
        """Token of a new session of the account linked to this identity. Raises NotSignedIn."""
        user = self.people.user_known_as(identity)
        if user is None or user.disabled_at is not None or user.role not in ROLES:
            raise NotSignedIn("no open account is linked to this identity")
        return self._open(user.id, self.config.session_days, seen)

    def confirm(self, session: Session, password: str, remote: str = "") -> None:
        """Asks for the password once more before a weighty step. Raises as `sign_in` does."""
        self._checked(session.name, password, remote)

    def change_password(
        self,
        session: Session,
        old: str,
        new: str,
        remote: str = "",
        seen: Mapping[str, str] | None = None,
    ) -> str:
        """Token of a new session; every other session of the user ends.

        Raises NotSignedIn (also for a wrong old password), LockedOut, TooFast, InputError.
        """
        if session.user_id is None:
            raise NotSignedIn("sign in first")
        check_password(new, session.name, self.config.password_length)
        self.confirm(session, old, remote)
        self.people.set_password(session.user_id, self._hasher.hash(new), session.user_id)
        return self._open(session.user_id, self.config.session_days, seen)

    def password_problem(self, password: str, name: str) -> str | None:
        """A key of passwords.PASSWORD_PROBLEMS, or None when the password may be used."""
        return password_problem(password, name, self.config.password_length)

    # One-time links

    def invite(self, role: str, name: str, actor: int | str) -> str:
        """Token of a one-time invitation, valid for 72 hours. Raises InputError."""
        name = clean_name(name)
        if role not in ROLES[1:]:
            raise InputError(f"unknown role {role}; one of {', '.join(ROLES[1:])}")
        if self.people.user_named(name) is not None:
            raise InputError(f"an account named {name} exists; choose another name")
        return self._new_link(role, name, INVITATION_HOURS, actor)

    def reset(self, user_id: int, actor: int | str) -> str:
        """Token of a one-time link to a new password, valid for 24 hours; an earlier one ends.

        The old password works until the link is used. Raises InputError for a disabled account.
        """
        user = self.people.user(user_id)
        if user is None or user.disabled_at is not None:
            raise InputError("there is no open account of this name; enable it first")
        return self._new_link(RESET, user.name, RESET_HOURS, actor)

    def renew(self, shown: str, actor: int | str) -> tuple[str, Invitation]:
        """Token of a new link in place of an open one, and the old. Raises UnknownAssignment."""
        token = secrets.token_urlsafe(32)
        found = next((i for i in self.people.open_invitations() if i.id == shown), None)
        hours = RESET_HOURS if found is not None and found.role == RESET else INVITATION_HOURS
        end = self.now() + 3600.0 * hours
        return token, self.people.renew_invitation(shown, digest(token), end, actor)

    def _new_link(self, role: str, name: str, hours: int, actor: int | str) -> str:
        token = secrets.token_urlsafe(32)
        self.people.add_invitation(digest(token), role, name, self.now() + 3600.0 * hours, actor)
        return token

    def invitation(self, token: str) -> Invitation | None:
        """The invitation or link to a new password, if it can still be used."""
        if not TOKEN.fullmatch(token):
            return None
        found = self.people.invitation(digest(token))
        if found is None or found.used_at is not None or found.expires_at <= self._clock():
            return None
        user = self.people.user_named(found.name)
        if found.role == RESET:
            return found if user is not None and user.disabled_at is None else None
        return found if user is None else None

    def accept(
        self,
        token: str,
        password: str,
        old: str | None = None,
        seen: Mapping[str, str] | None = None,
        identity: Identity | None = None,
    ) -> str:
        """Token of a session of the account behind a one-time link, which is used up by it.

        With an identity the account signs in by that, and needs no password ("").
        Raises Forbidden (used, expired), IdentityTaken, InputError.
        """
        found = self.invitation(token)
        if found is None:
            raise Forbidden("this link was used or has expired; ask for a new one")
        if identity is None:
            check_password(password, found.name, self.config.password_length)
        try:
            hashed = self._hasher.hash(password) if password else ""
            user = self.people.use_invitation(digest(token), hashed, identity)
        except (UnknownAssignment, NameTaken) as error:
            raise Forbidden("this link was used or has expired; ask for a new one") from error
        self.people.clear_failures(_failures_of(user.name))
        self.sign_out(old)
        return self._open(user.id, self.config.session_days, seen)

    def first_admin(self) -> str | None:
        """Token of an invitation for the first administrator; None when there is one."""
        if any(user.role == "admin" for user in self.people.users()):
            return None
        taken = self.people.user_named(FIRST_ADMIN) is not None
        name = f"{FIRST_ADMIN}-{secrets.token_hex(2)}" if taken else FIRST_ADMIN
        return self.invite("admin", name, "first start")

    def link(self, token: str, language: Language | None = None) -> str:
        """The address of a one-time link."""
        return f"{base_url(self.config)}/{language or self.config.language}/invite/{token}"

    # Limits

    def allow(self, session: Session, action: str) -> None:
        """Takes one `action` from the session's allowance. Raises TooFast.

        Actions: ask (a question), vote, draft, export, invite, upload.
        """
        config = self.config
        minute = config.asks_per_minute if session.user_id else config.visitor_asks_per_minute
        limits: dict[str, tuple[tuple[int, float], ...]] = {  # (how many, in how many seconds)
            "ask": ((minute, 60.0), (config.asks_per_day, 86_400.0)),
            "vote": ((config.votes_per_hour, 3600.0),),
            "draft": ((120, 60.0),),  # the page's script sends one at most each 0.7 s
            "export": ((30, 3600.0),),  # a page offers three downloads
            "invite": ((300, 3600.0),),
            "upload": ((60, 3600.0),),
        }
        for count, seconds in limits[action]:
            key = f"{action}/{seconds:.0f}:{session.owner}"
            if not self.people.take(key, count, count / seconds, self.now()):
                raise TooFast(f"no more than {count} in {seconds:.0f} s; wait a little")

    # Inside

    def now(self) -> float:
        """Seconds since 1970 by the clock of the accounts."""
        return self._clock().timestamp()

    def _row(self, token: str | None) -> SessionRow | None:
        return self.row_of(digest(token)) if token and TOKEN.fullmatch(token) else None

    def row_of(self, token_hash: str) -> SessionRow | None:
        """The open session whose token has this hash."""
        row = self.people.session(token_hash)
        return None if row is None or row.disabled or row.expires_at <= self._clock() else row

    def _open(self, user_id: int | None, days: int, seen: Mapping[str, str] | None = None) -> str:
        token = secrets.token_urlsafe(32)
        self.people.add_session(digest(token), user_id, self.now() + 86_400.0 * days, seen)
        return token

    def _checked(self, name: str, password: str, remote: str) -> User:
        """The account of this name and password; takes as long for an unknown name."""
        since = self.now() - 60.0 * self.config.lock_minutes
        place = "sign-in-from:" + digest(remote)[:32]
        if self.people.failures(place, since) >= ADDRESS_FAILURES:
            raise TooFast("too many wrong passwords from this address; wait some minutes")
        name = clean_text(name[:200]).strip()[:64]  # as the record reads it: one name, one count
        key = _failures_of(name)
        with self._counting:  # count before looking, or parallel guesses pass the limit
            if self.people.failures(key, since) >= self.config.sign_in_failures:
                raise LockedOut(
                    f"too many wrong passwords; wait {self.config.lock_minutes} minutes"
                )
            self.people.add_failure(key, self.now())
        user = self.people.user_named(name)
        right = self._hasher.fits(user.password_hash if user else "", password)
        if user is None or not right or user.disabled_at is not None or user.role not in ROLES:
            self.people.add_failure(place, self.now())
            raise NotSignedIn("name or password is wrong")
        self.people.clear_failures(key)
        return user


def clean_name(name: str) -> str:
    """The name as it is stored: one line, at most 40 characters. Raises InputError."""
    return re.sub(r"\s+", " ", messages.clean(name, 40))


def _failures_of(name: str) -> str:
    """The key that wrong passwords for this name are counted under."""
    return "sign-in:" + digest(folded(name))[:32]


def main(arguments: list[str] | None = None) -> int:
    """The command line: invite, list, reset, role, disable, enable, sign-out."""
    parser = argparse.ArgumentParser(prog="python -m huatuo.accounts", description=__doc__)
    parser.add_argument("--config", default="configs/app.toml", help="the app's configuration")
    commands = parser.add_subparsers(dest="command", required=True)
    inviting = commands.add_parser("invite", help="print a one-time link for a new account")
    inviting.add_argument("--role", required=True, choices=ROLES[1:])
    inviting.add_argument("--name", required=True)
    commands.add_parser("list", help="print the accounts")
    for command, words in (
        ("reset", "print a one-time link to a new password"),
        ("role", "give an account another role"),
        ("disable", "close an account; its votes stay"),
        ("enable", "open a closed account again"),
        ("sign-out", "end all sessions of an account"),
    ):
        one = commands.add_parser(command, help=words)
        one.add_argument("name")
        if command == "role":
            one.add_argument("role", choices=ROLES[1:])
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (HuatuoError, RecordError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    config = read_toml(ROOT / options.config, AppConfig)
    database = Database(ROOT / config.data_dir / DEFAULT_NAME)
    migrate(database)
    accounts = Accounts(People(database), config)
    try:
        if options.command == "invite":
            print(accounts.link(accounts.invite(options.role, options.name, _CONSOLE)))
        elif options.command == "list":
            for one in accounts.people.users():
                state = "disabled" if one.disabled_at else "active"
                print(f"{one.id}\t{one.name}\t{one.role}\t{state}")
        else:
            print(_change(accounts, options))
    finally:
        database.close()
    return 0


def _change(accounts: Accounts, options: argparse.Namespace) -> str:
    """Does what the command line asks with one account; returns what to print."""
    people, user = accounts.people, accounts.people.user_named(options.name)
    if user is None:
        raise InputError(f"no account is named {options.name}; see `list`")
    match options.command:
        case "reset":
            return accounts.link(accounts.reset(user.id, _CONSOLE))
        case "role":
            people.set_role(user.id, options.role, _CONSOLE)
            return f"{user.name}: {options.role}"
        case "sign-out":
            return f"{user.name}: {people.sign_out_everywhere(user.id, _CONSOLE)} sessions ended"
        case "disable":
            people.disable(user.id, _CONSOLE)
        case _:
            people.enable(user.id, _CONSOLE)
    return f"{user.name}: {options.command}d"


if __name__ == "__main__":
    raise SystemExit(main())
