"""Sessions, one-time links, roles and proxies: what ends at once, what stays, and who cannot be removed."""

import io
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from huatuo import accounts as rules
from huatuo.accounts import ROLES, Accounts
from huatuo.config import AppConfig, read_toml
from huatuo.errors import ConfigError, Forbidden, InputError, NotSignedIn
from huatuo.passwords import password_problem
from huatuo.sessions import remote_of, seen_of
from huatuo.ui import frame
from huatuo.web import Page, build_app
from reviews.database import Database
from reviews.errors import LastAdmin, UnknownAssignment
from reviews.migrations import migrate
from reviews.people import People
from tests.patience import LONG_S, cpu_seconds, free_port
from tests.web.conftest import PASSWORD, served
from tests.web.test_accounts import Clock

NEW = "a wholly new sentence"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[Accounts]:
    database = Database(tmp_path / "reviews.sqlite3", clock=clock)
    migrate(database)
    yield Accounts(People(database), AppConfig(), clock)
    database.close()


def join(book: Accounts, name: str, role: str = "physician") -> int:
    book.accept(book.invite(role, name, "test"), PASSWORD)
    found = book.people.user_named(name)
    assert found is not None
    return found.id


def actions(book: Accounts) -> list[str]:
    with book.people.database.read() as db:
        return [row["action"] for row in db["audit"].rows]


# Links


def test_a_link_to_a_new_password_works_once_and_ends_every_session(
    book: Accounts, clock: Clock
) -> None:
    number = join(book, "Wang")
    before = book.sign_in("Wang", PASSWORD)
    earlier, link = book.reset(number, "test"), book.reset(number, "test")
    assert book.invitation(earlier) is None, "of two links the later counts"
    assert book.session_of(before, "zh") is not None, "the old password holds until then"
    with pytest.raises(InputError):
        book.accept(link, "1234567890")
    token = book.accept(link, NEW)
    assert book.session_of(before, "zh") is None
    assert book.session_of(token, "zh").user_id == number  # type: ignore[union-attr]
    for used in (earlier, link):
        with pytest.raises(Forbidden):
            book.accept(used, NEW)
    with pytest.raises(NotSignedIn):
        book.sign_in("Wang", PASSWORD)
    assert book.sign_in("Wang", NEW)
    late = book.reset(number, "test")
    clock.move(hours=rules.RESET_HOURS, seconds=1)
    assert book.invitation(late) is None
    assert len(book.people.users()) == 1


def test_a_new_password_opens_an_account_that_was_locked(book: Accounts) -> None:
    number = join(book, "Locked")
    for _ in range(5):
        with pytest.raises(NotSignedIn):
            book.sign_in("Locked", "not the password")
    book.sign_out(book.accept(book.reset(number, "test"), NEW))
    assert book.sign_in("Locked", NEW)


@pytest.mark.parametrize("change", ["disable", "role", "password", "sign out"])
def test_what_ends_the_sessions_ends_open_links_to_a_password_too(
    book: Accounts, change: str
) -> None:
    number = join(book, "Wang")
    token, link = book.sign_in("Wang", PASSWORD), book.reset(number, "test")
    people = book.people
    {
        "disable": lambda: people.disable(number, "test"),
        "role": lambda: people.set_role(number, "researcher", "test"),
        "password": lambda: people.set_password(number, "$argon2$", "test"),
        "sign out": lambda: people.sign_out_everywhere(number, "test"),
    }[change]()
    assert book.session_of(token, "zh") is None
    assert book.invitation(link) is None
    with pytest.raises(Forbidden):
        book.accept(link, NEW)


def test_a_disabled_account_gets_no_link(book: Accounts) -> None:
    number = join(book, "Wang")
    book.people.disable(number, "test")
    with pytest.raises(InputError):
        book.reset(number, "test")
    with pytest.raises(InputError):
        book.reset(99, "test")


def test_open_links_are_listed_replaced_and_withdrawn(book: Accounts, clock: Clock) -> None:
    first = book.invite("adjudicator", "Zhao", "test")
    shown = book.people.open_invitations()
    assert [(one.name, one.role) for one in shown] == [("Zhao", "adjudicator")]
    assert first not in str(shown)
    second, old = book.renew(shown[0].id, "test")
    assert old.name == "Zhao" and book.invitation(first) is None
    assert book.invitation(second).role == "adjudicator"  # type: ignore[union-attr]
    with pytest.raises(UnknownAssignment):  # another administrator was faster
        book.renew(shown[0].id, "test")
    now = book.people.open_invitations()
    book.people.withdraw_invitation(now[0].id, "test")
    assert book.invitation(second) is None and book.people.open_invitations() == []
    with pytest.raises(UnknownAssignment):
        book.people.withdraw_invitation(now[0].id, "test")
    with pytest.raises(Forbidden):
        book.accept(second, PASSWORD)
    assert actions(book) == ["invite", "invite.withdraw", "invite", "invite.withdraw"]
    book.invite("physician", "Late", "test")
    clock.move(hours=rules.INVITATION_HOURS, seconds=1)
    assert book.people.open_invitations() == []
    for odd in ("", "%", "_" * 16, "x" * 16):
        with pytest.raises(UnknownAssignment):
            book.people.withdraw_invitation(odd, "test")


# Roles and the last administrator


def test_the_roles_stand_in_their_order(book: Accounts) -> None:
    assert ROLES == ("visitor", "physician", "adjudicator", "researcher", "admin")
    join(book, "Senior", "adjudicator")
    session = book.session_of(book.sign_in("Senior", PASSWORD), "zh")
    assert session is not None
    allowed = [rules.has_role(session, role) for role in ROLES]
    assert allowed == [True, True, True, False, False]


def test_the_last_administrator_stays(book: Accounts) -> None:
    one = join(book, "One", "admin")
    token = book.sign_in("One", PASSWORD)
    for change in (
        lambda: book.people.disable(one, "test"),
        lambda: book.people.set_role(one, "researcher", "test"),
    ):
        with pytest.raises(LastAdmin):
            change()
    assert book.session_of(token, "zh").role == "admin"  # type: ignore[union-attr]
    two = join(book, "Two", "admin")
    book.people.disable(two, "test")
    with pytest.raises(LastAdmin):  # one who is disabled does not count
        book.people.disable(one, "test")
    book.people.enable(two, "test")
    book.people.set_role(one, "physician", "test")
    assert book.session_of(token, "zh") is None


def test_two_administrators_who_remove_each_other_at_once_leave_one(book: Accounts) -> None:
    for round in range(8):
        pair = [join(book, f"admin {round} {n}", "admin") for n in range(2)]
        others = [u.id for u in book.people.users() if u.role == "admin" and u.id not in pair]
        for other in others:
            book.people.set_role(other, "physician", "test")
        gate, refused = threading.Barrier(2), []

        def remove(number: int, gate: Any = gate, refused: list[Any] = refused) -> None:
            gate.wait()
            try:
                book.people.disable(number, "test")
            except LastAdmin as error:
                refused.append(error)

        threads = [threading.Thread(target=remove, args=(number,)) for number in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = [u for u in book.people.users() if u.role == "admin" and u.disabled_at is None]
        assert len(left) == 1 and len(refused) == 1


# Sessions


def test_one_sees_and_ends_only_ones_own_sessions(book: Accounts, clock: Clock) -> None:
    mine, theirs = join(book, "Mine"), join(book, "Theirs")
    book.people.sign_out_everywhere(mine, "test")
    old = book.sign_in("Mine", PASSWORD, seen={"browser": "Firefox"})
    clock.move(minutes=10)
    book.sign_in("Mine", PASSWORD)
    rows = book.people.sessions_of(mine)
    assert [row.data for row in rows] == [{}, {"browser": "Firefox"}]
    assert rows[0].id not in rules.digest(old)
    assert not book.people.end_session_of(theirs, rows[1].id)
    assert book.session_of(old, "zh") is not None
    assert book.people.end_session_of(mine, rows[1].id)
    assert book.session_of(old, "zh") is None
    assert not book.people.end_session_of(mine, "")
    assert not book.people.end_session_of(mine, "%")
    assert len(book.people.sessions_of(mine)) == 1


def test_the_list_of_sessions_is_rough() -> None:
    agent = b"Mozilla/5.0 (Windows NT 10.0; Win64) Chrome/130.0.1.2 Safari/537.36 Edg/130.1"
    scope = {"type": "http", "client": ("203.0.113.77", 1), "headers": [(b"user-agent", agent)]}
    assert seen_of(scope) == {"from": "203.0.113.*", "browser": "Edge", "system": "Windows"}
    scope = {"type": "http", "client": ("2001:db8:1:2:3:4:5:6", 1), "headers": []}
    assert seen_of(scope) == {"from": "2001:db8:1::/48"}
    assert seen_of({"type": "http", "client": None, "headers": []}) == {}


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.77", "203.0.113.77"),
        ("::ffff:203.0.113.77", "203.0.113.77"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_client_cannot_multiply_itself(address: str, counted: str) -> None:
    assert remote_of({"client": (address, 1)}) == counted


# Passwords


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("床前明月光疑是地上霜", None),
        ("no digits no signs no capitals", None),
        ("x7Kq-mPz2-Lw9v", None),
        ("P@ssw0rd2026!", "common"),
        ("1qaz2wsx3edc4rfv", "common"),
        ("qwertyuiop12", "common"),
        ("abababababababab", "common"),
        ("woaini1314520", "common"),
        ("iloveyou2000", "common"),
        ("Wang Wei is here", "name"),
        ("WANG WEI", "short"),
    ],
)
def test_guessable_passwords_are_refused_without_rules_on_their_signs(
    password: str, problem: str | None
) -> None:
    assert password_problem(password, "Wang Wei") == problem


def test_a_longest_password_is_judged_at_once() -> None:
    longest = ("a" * 128, "ab" * 64, "1" * 128, "头疼" * 64, "password" * 16)

    def judged() -> None:
        assert {password_problem(password, "x") for password in longest} == {"common"}

    assert cpu_seconds(judged, 3) < 3


def test_the_least_length_is_configured(book: Accounts) -> None:
    strict = Accounts(book.people, AppConfig(password_length=15))
    assert strict.password_problem("x7Kq-mPz2-Lw9v", "Wang") == "short"
    assert strict.password_problem("correct horse battery", "Wang") is None


# Behind a proxy


@contextmanager
def chat(config: AppConfig, accounts: Accounts) -> Iterator[str]:
    """An app with one page; its address."""
    pages = [Page("chat", "visitor", lambda language: frame.blocks("chat", language))]
    with served(build_app(config, accounts, pages), config) as url:
        yield url


def guess(url: str, forwarded: str | list[str] | None) -> int:
    """One wrong password for a name of its own; the status."""
    lines = [forwarded] if isinstance(forwarded, str) else forwarded or []
    headers = [("origin", url), *(("x-forwarded-for", line) for line in lines)]
    form = {"name": f"name {time.time_ns()}", "password": "not the password"}
    return httpx.post(f"{url}/zh/sign-in", data=form, headers=headers, timeout=LONG_S).status_code


def exhaust(book: Accounts, address: str) -> None:
    """As many failures from an address as are allowed."""
    for _ in range(rules.ADDRESS_FAILURES):
        book.people.add_failure("sign-in-from:" + rules.digest(address)[:32], book.now())


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Accounts]:
    database = Database(tmp_path / "live.sqlite3")
    migrate(database)
    yield Accounts(People(database), AppConfig())
    database.close()


def test_behind_a_trusted_proxy_the_client_counts_and_nobody_else(live: Accounts) -> None:
    config = AppConfig(port=free_port(), trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    with chat(config, live) as url:
        exhaust(live, "203.0.113.7")
        for forwarded, status in (
            ("203.0.113.7", 429),
            ("203.0.113.8", 401),
            ("198.51.100.1, 203.0.113.7", 429),  # the left part is what the client claims
            ("203.0.113.7, 198.51.100.1", 401),
            ("198.51.100.1, 203.0.113.7, 10.1.2.3", 429),  # a second proxy of ours
            ("203.0.113.7:4711", 429),
            (["198.51.100.1", "203.0.113.7"], 429),  # two header lines
            ("nonsense, 203.0.113.7", 429),
            ("203.0.113.7,", 401),
            (None, 401),
        ):
            assert guess(url, forwarded) == status, forwarded


def test_without_a_trusted_proxy_forwarding_headers_are_ignored(
    live: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own switch opens nothing
    for proxies in ((), ("192.0.2.1",)):
        config = AppConfig(port=free_port(), trusted_proxies=proxies)
        with chat(config, live) as url:
            exhaust(live, "203.0.113.7")
            assert guess(url, "203.0.113.7") == 401
    exhaust(live, "127.0.0.1")
    with chat(AppConfig(port=free_port()), live) as url:
        assert guess(url, "203.0.113.9") == 429


@pytest.mark.parametrize("wrong", ["*", "0.0.0.0/0", "::/0", "proxy.local", "127.0.0.1/8", ""])
def test_only_addresses_can_be_trusted(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "app.toml"
    path.write_text(f'trusted_proxies = ["{wrong}"]\n')
    with pytest.raises(ConfigError, match="trusted_proxies"):
        read_toml(path, AppConfig)


# Logs


def test_no_log_line_holds_a_name_a_password_a_link_or_an_address(live: Accounts) -> None:
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    root.addHandler(handler)
    link = live.invite("physician", "Personal Name", "test")
    config = AppConfig(port=free_port(), trusted_proxies=("127.0.0.1",))
    try:
        with chat(config, live) as url:
            headers = {"origin": url, "x-forwarded-for": "203.0.113.7"}
            with httpx.Client(headers=headers, timeout=LONG_S) as client:
                client.post(f"{url}/zh/invite/{link}", data={"new": NEW, "again": NEW})
                client.get(f"{url}/zh/account?secret=1")
                client.post(f"{url}/zh/sign-in?next=/x", data={"name": "Personal Name", "password": "w"})  # fmt: skip
                client.post(f"{url}/zh/account", content=b"\xff")
            with socket.create_connection(("127.0.0.1", config.port)) as raw:
                raw.sendall(b"GARBAGE Personal Name 203.0.113.7\r\n\r\n")
                raw.recv(1000)
            database = live.people.database.path
            with sqlite3.connect(database) as db:  # every further request fails inside
                db.execute("DROP TABLE invitations")
            with httpx.Client(headers=headers, timeout=LONG_S) as client:
                client.post(f"{url}/zh/invite/{link}", data={"new": NEW, "again": NEW})
    finally:
        root.removeHandler(handler)
    ours = [
        line
        for line in stream.getvalue().splitlines()
        if not line.startswith("HTTP Request:")  # the test's own client
    ]
    told = "\n".join(ours)
    assert "unexpected-" in told and "/invite/…" in told, "the fault was logged, without the link"
    for word in ("Personal", NEW, link, "203.0.113", "secret"):
        assert word not in told, told
