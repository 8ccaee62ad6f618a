"""users, roles, argon2 passwords, server-side sessions, lockout, rate limits.

The browser holds one random token in a strict cookie; the record holds its sha256. Who somebody is
comes from that row each time it is asked, never from the page. SQL is in reviews/people.py.
Invitations from the command line: `python -m huatuo.accounts invite --role physician --name NAME`.
"""

import argparse
import hashlib
import re
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from huatuo import messages
from huatuo.config import ROOT, AppConfig, read_toml
from huatuo.errors import Forbidden, HuatuoError, InputError, LockedOut, NotSignedIn, TooFast
from reviews.database import DEFAULT_NAME, Database
from reviews.errors import RecordError
from reviews.migrations import migrate
from reviews.people import Invitation, People, SessionRow
from reviews.records import clean_text, utcnow

Role = Literal["visitor", "physician", "researcher", "admin"]
Language = Literal["zh", "en"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most; each role may do what those before it may."""

FIRST_ADMIN = "admin"
INVITATION_HOURS = 72
PASSWORD_LIMIT = 128
TOUCH_S = 300.0
ADDRESS_FAILURES = 30
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_COMMON = (
    "1234567890 0123456789 0987654321 1q2w3e4r5t qwertyuiop qwerty12345 password12 password123 "
    "passw0rd123 password1234 abcdefghij abc1234567 adminadmin admin12345 administrator "
    "iloveyou12 woaini1314 woaini1314520 5201314520 a123456789 aa12345678 abcd123456 "
    "qq123456789 1qaz2wsx3edc zaq12wsxcde letmein1234 welcome123 huatuogpt123 huatuo12345"
)
COMMON_PASSWORDS = frozenset(_COMMON.split())
PASSWORD_PROBLEMS = {
    "short": "has fewer than 10 characters",
    "long": f"has more than {PASSWORD_LIMIT} characters",
    "name": "contains the account's name, or is part of it",
    "common": "is one of the passwords that are guessed first",
}


@dataclass(frozen=True)
class Session:
    """Who is asking. owner: stable id for what belongs to them; user_id: None for a visitor."""

    owner: str
    user_id: int | None
    name: str
    role: Role
    language: Language


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
        # OWASP's second choice for argon2id: 19 MiB, two passes, one lane; about 30 ms of one core.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._hashing = threading.Semaphore(2)
        self._counting = threading.Lock()

    # Sessions

    def current(self, request: Any) -> Session:
        """The session of a starlette or gradio request. Raises NotSignedIn when there is none."""
        session = self.session_of(cookie(request, self.cookie_name), language_of(request, self))
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
        if row is not None and self._now() - row.seen_at.timestamp() > TOUCH_S:
            self.people.touch_session(row.token_hash)

    def visit(self, remote: str = "") -> str:
        """Token of a new visitor. Raises TooFast after 60 at once from one address (then 1/s)."""
        if not self.people.take("visit:" + digest(remote)[:32], 60, 1.0, self._now()):
            raise TooFast("too many new visits from this address; wait a minute")
        return self._open(None, self.config.chat_retention_days)

    def sign_out(self, token: str | None) -> None:
        """Ends the session; an unknown token changes nothing."""
        if token is not None and _TOKEN.fullmatch(token):
            self.people.end_session(digest(token))

    def end_old_sessions(self) -> None:
        """Forgets the sessions that have expired."""
        self.people.purge_sessions(self._now())

    # Signing in

    def sign_in(self, name: str, password: str, remote: str = "", old: str | None = None) -> str:
        """Token of a new session; the session `old` ends. Takes as long for an unknown name.

        Raises LockedOut after sign_in_failures wrong passwords in lock_minutes, TooFast after 30
        from one address, NotSignedIn when name or password is wrong or the account disabled.
        """
        since = self._now() - 60.0 * self.config.lock_minutes
        place = "sign-in-from:" + digest(remote)[:32]
        if self.people.failures(place, since) >= ADDRESS_FAILURES:
            raise TooFast("too many wrong passwords from this address; wait some minutes")
        name = clean_text(name[:200]).strip()[:64]  # as the record reads it: one name, one count
        key = "sign-in:" + digest(_key(name))[:32]
        with self._counting:  # count before looking, or parallel guesses pass the limit
            if self.people.failures(key, since) >= self.config.sign_in_failures:
                raise LockedOut(
                    f"too many wrong passwords; wait {self.config.lock_minutes} minutes"
                )
            self.people.add_failure(key, self._now())
        user = self.people.user_named(name)
        right = self._verify(user.password_hash if user else self._nobody, password)
        if user is None or not right or user.disabled_at is not None or user.role not in ROLES:
            self.people.add_failure(place, self._now())
            raise NotSignedIn("name or password is wrong")
        self.people.clear_failures(key)
        self.sign_out(old)
        return self._open(user.id, self.config.session_days)

    def change_password(self, session: Session, old: str, new: str, remote: str = "") -> str:
        """Token of a new session; every other session of the user ends.

        Raises NotSignedIn (also for a wrong old password), LockedOut, TooFast, InputError.
        """
        if session.user_id is None:
            raise NotSignedIn("sign in first")
        check_password(new, session.name)
        self.sign_out(self.sign_in(session.name, old, remote))
        self.people.set_password(session.user_id, self._hash(new), session.user_id)
        return self._open(session.user_id, self.config.session_days)

    # Invitations

    def invite(self, role: str, name: str, actor: int | str) -> str:
        """Token of a one-time invitation, valid for 72 hours. Raises InputError."""
        name = clean_name(name)
        if role not in ROLES[1:]:
            raise InputError(f"unknown role {role}; one of {', '.join(ROLES[1:])}")
        if self.people.user_named(name) is not None:
            raise InputError(f"an account named {name} exists; choose another name")
        token = secrets.token_urlsafe(32)
        expires_at = self._now() + 3600.0 * INVITATION_HOURS
        self.people.add_invitation(digest(token), role, name, expires_at, actor)
        return token

    def invitation(self, token: str) -> Invitation | None:
        """The invitation, if it can still be used."""
        if not _TOKEN.fullmatch(token):
            return None
        found = self.people.invitation(digest(token))
        if found is None or found.used_at is not None or found.expires_at <= self._clock():
            return None
        return None if self.people.user_named(found.name) is not None else found

    def accept(self, token: str, password: str, old: str | None = None) -> str:
        """Token of the session of the new account. Raises Forbidden (used, expired), InputError."""
        found = self.invitation(token)
        if found is None:
            raise Forbidden("this invitation was used or has expired; ask for a new one")
        check_password(password, found.name)
        try:
            user = self.people.use_invitation(digest(token), self._hash(password))
        except RecordError as error:
            raise Forbidden("this invitation was used or has expired; ask for a new one") from error
        self.sign_out(old)
        return self._open(user.id, self.config.session_days)

    def first_admin(self) -> str | None:
        """Token of an invitation for the first administrator; None when there is one."""
        if any(user.role == "admin" for user in self.people.users()):
            return None
        taken = self.people.user_named(FIRST_ADMIN) is not None
        name = f"{FIRST_ADMIN}-{secrets.token_hex(2)}" if taken else FIRST_ADMIN
        return self.invite("admin", name, "first start")

    def link(self, token: str, language: Language | None = None) -> str:
        """The address of an invitation."""
        return f"{base_url(self.config)}/{language or self.config.language}/invite/{token}"

    # Limits

    def allow(self, session: Session, action: str) -> None:
        """Takes one `action` from the session's allowance. Raises TooFast.

        Actions: ask (a question), vote, export, invite.
        """
        config = self.config
        minute = config.asks_per_minute if session.user_id else config.visitor_asks_per_minute
        limits: dict[str, tuple[tuple[int, float], ...]] = {  # (how many, in how many seconds)
            "ask": ((minute, 60.0), (config.asks_per_day, 86_400.0)),
            "vote": ((config.votes_per_hour, 3600.0),),
            "export": ((10, 3600.0),),
            "invite": ((300, 3600.0),),
        }
        for count, seconds in limits[action]:
            key = f"{action}/{seconds:.0f}:{session.owner}"
            if not self.people.take(key, count, count / seconds, self._now()):
                raise TooFast(f"no more than {count} in {seconds:.0f} s; wait a little")

    # Inside

    def _now(self) -> float:
        return self._clock().timestamp()

    def _row(self, token: str | None) -> SessionRow | None:
        if token is None or not _TOKEN.fullmatch(token):
            return None
        row = self.people.session(digest(token))
        return None if row is None or row.disabled or row.expires_at <= self._clock() else row

    def _open(self, user_id: int | None, days: int) -> str:
        token = secrets.token_urlsafe(32)
        self.people.add_session(digest(token), user_id, self._now() + 86_400.0 * days)
        return token

    def _hash(self, password: str) -> str:
        with self._hashing:
            return self._hasher.hash(_same(password))

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            with self._hashing:
                return self._hasher.verify(password_hash, _same(password[: PASSWORD_LIMIT + 1]))
        except (VerificationError, InvalidHashError):
            return False


def has_role(session: Session, role: str) -> bool:
    """Whether the session's role is `role` or above. Raises ValueError for an unknown role."""
    return ROLES.index(session.role) >= ROLES.index(cast(Role, role))


def digest(token: str) -> str:
    """What the record keeps of a token: its sha256 in hex."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def cookie(request: Any, name: str) -> str | None:
    """The cookie's value from a starlette or gradio request; None when absent or unreadable."""
    try:
        cookies = request.cookies
        value = cookies[name] if name in cookies else None  # noqa: SIM401 (gradio's is no dict)
    except (AttributeError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def language_of(request: Any, accounts: Accounts) -> Language:
    """The language in the request's path, else the configured one."""
    try:
        start = str(request.url.path).split("/")[1]
    except (AttributeError, IndexError):
        start = ""
    return cast(Language, start) if start in get_args(Language) else accounts.config.language


def base_url(config: AppConfig) -> str:
    """The address that browsers use, without a slash at its end."""
    if config.public_url:
        return config.public_url
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"


def host_of(config: AppConfig) -> str:
    """The host name in `base_url`, lower case."""
    return urlsplit(base_url(config)).hostname or ""


def clean_name(name: str) -> str:
    """The name as it is stored: one line, at most 40 characters. Raises InputError."""
    return re.sub(r"\s+", " ", messages.clean(name, 40))


def password_problem(password: str, name: str) -> str | None:
    """A key of PASSWORD_PROBLEMS, or None when the password may be used."""
    same, own = _key(password), _key(name)
    if len(password) > PASSWORD_LIMIT:
        return "long"
    if len(password) < 10:
        return "short"
    if own and (same in own or (len(own) > 1 and own in same)):
        return "name"
    if same in COMMON_PASSWORDS or len(set(same)) < 4:
        return "common"
    return None


def check_password(password: str, name: str) -> None:
    """Raises InputError when the password may not be used."""
    problem = password_problem(password, name)
    if problem:
        raise InputError(f"the password {PASSWORD_PROBLEMS[problem]}; choose another")


def _same(password: str) -> bytes:
    """One form for what different keyboards and input methods send."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace")


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name[:200]).strip().casefold()


def main(arguments: list[str] | None = None) -> int:
    """The command line: invite, list, disable, enable."""
    parser = argparse.ArgumentParser(prog="python -m huatuo.accounts", description=__doc__)
    parser.add_argument("--config", default="configs/app.toml", help="the app's configuration")
    commands = parser.add_subparsers(dest="command", required=True)
    inviting = commands.add_parser("invite", help="print a one-time link for a new account")
    inviting.add_argument("--role", required=True, choices=ROLES[1:])
    inviting.add_argument("--name", required=True)
    commands.add_parser("list", help="print the accounts")
    for command in ("disable", "enable"):
        commands.add_parser(command, help=f"{command} an account").add_argument("name")
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
            print(accounts.link(accounts.invite(options.role, options.name, "command line")))
        elif options.command == "list":
            for one in accounts.people.users():
                state = "disabled" if one.disabled_at else "active"
                print(f"{one.id}\t{one.name}\t{one.role}\t{state}")
        else:
            user = accounts.people.user_named(options.name)
            if user is None:
                raise InputError(f"no account is named {options.name}; see `list`")
            change = getattr(accounts.people, options.command)
            change(user.id, "command line")
            print(f"{user.name}: {options.command}d")
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
