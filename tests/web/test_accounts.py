"""Accounts: sessions that cannot be forged or fixed, lockout, one-time invitations, passwords, limits."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher

from huatuo import accounts as rules
from huatuo.accounts import Accounts
from huatuo.config import AppConfig
from huatuo.errors import Forbidden, InputError, LockedOut, NotSignedIn, TooFast
from huatuo.passwords import password_problem
from huatuo.ui import frame
from huatuo.web import Page, build_app
from reviews.database import Database
from reviews.migrations import migrate
from reviews.people import People

PASSWORD = "correct horse battery"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


class Request:
    """As much of a request as the accounts read."""

    class url:
        path = "/en/chat/"

    def __init__(self, accounts: Accounts, token: str | None) -> None:
        self.cookies = {accounts.cookie_name: token} if token else {}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[Accounts]:
    database = Database(tmp_path / "reviews.sqlite3", clock=clock)
    migrate(database)
    yield Accounts(People(database), AppConfig(), clock)
    database.close()


def join(book: Accounts, name: str = "王医生", role: str = "physician") -> str:
    return book.accept(book.invite(role, name, "test"), PASSWORD)


# Sessions


def test_a_session_says_who_is_asking_and_in_which_language(book: Accounts) -> None:
    session = book.current(Request(book, join(book)))
    assert (session.name, session.role, session.language) == ("王医生", "physician", "en")
    assert session.owner == f"user:{session.user_id}"
    assert book.require(Request(book, join(book, "admin", "admin")), "researcher").role == "admin"
    with pytest.raises(Forbidden):
        book.require(Request(book, join(book, "Li")), "researcher")


def test_only_the_hash_of_a_token_is_stored(book: Accounts) -> None:
    token = join(book)
    files = book.people.database.path.parent.glob("reviews.sqlite3*")
    assert not any(token.encode() in file.read_bytes() for file in files)


def test_forged_cut_and_expired_tokens_are_nobody(book: Accounts, clock: Clock) -> None:
    token = join(book)
    for wrong in (None, "", token[:-1], token + "A", "A" * 43, token.swapcase(), "' or 1=1 --"):
        with pytest.raises(NotSignedIn):
            book.current(Request(book, wrong))
    clock.move(days=book.config.session_days, seconds=-1)
    assert book.current(Request(book, token)).user_id
    clock.move(seconds=2)
    with pytest.raises(NotSignedIn):
        book.current(Request(book, token))


def test_a_visitor_keeps_the_same_owner_and_has_no_other_role(book: Accounts) -> None:
    token = book.visit()
    one, two = book.current(Request(book, token)), book.current(Request(book, token))
    assert one.owner == two.owner != book.current(Request(book, book.visit())).owner
    assert (one.user_id, one.role) == (None, "visitor")
    with pytest.raises(NotSignedIn):
        book.require(Request(book, token), "physician")


def test_signing_in_makes_a_new_session_and_ends_the_one_before(book: Accounts) -> None:
    before = book.visit()
    join(book)
    token = book.sign_in("王医生", PASSWORD, "here", before)
    assert token != before and book.session_of(before, "zh") is None
    book.sign_out(token)
    assert book.session_of(token, "zh") is None


def test_disabling_or_a_new_password_signs_out_everywhere(book: Accounts) -> None:
    first = join(book)
    second = book.sign_in("王医生", PASSWORD)
    session = book.session_of(first, "zh")
    assert session is not None and session.user_id is not None
    third = book.change_password(session, PASSWORD, "another long sentence")
    assert [book.session_of(t, "zh") is None for t in (first, second, third)] == [True, True, False]
    book.people.disable(session.user_id, "test")
    assert book.session_of(third, "zh") is None
    with pytest.raises(NotSignedIn):
        book.sign_in("王医生", "another long sentence")


def test_the_old_password_is_needed_for_a_new_one(book: Accounts) -> None:
    token = join(book)
    session = book.session_of(token, "zh")
    assert session is not None
    with pytest.raises(NotSignedIn):
        book.change_password(session, "not the password", "another long sentence")
    assert book.session_of(token, "zh") == session


# Lockout


def test_an_account_is_locked_after_five_wrong_passwords(book: Accounts, clock: Clock) -> None:
    join(book)
    for _ in range(5):
        with pytest.raises(NotSignedIn):
            book.sign_in("王医生", "not the password", "here")
    with pytest.raises(LockedOut):
        book.sign_in(" 王医生 ", PASSWORD, "elsewhere")
    clock.move(minutes=book.config.lock_minutes, seconds=1)
    assert book.sign_in("王医生", PASSWORD, "here")
    for _ in range(4):  # the count began anew
        with pytest.raises(NotSignedIn):
            book.sign_in("王医生", "not the password", "here")
    assert book.sign_in("王医生", PASSWORD, "here")


def test_no_spelling_of_a_name_gets_guesses_of_its_own(book: Accounts) -> None:
    join(book, "Dr Wang")
    spellings = ("dr wang", "Dr Wang\x01", "\u202eDr Wang", "Dr Wang" + " " * 60 + "x", "Ｄr Wang")
    for spelling in spellings:  # the record finds the same account under each of them
        with pytest.raises(NotSignedIn):
            book.sign_in(spelling, "not the password", "here")
    for spelling in ("Dr Wang", *spellings, "Dr\u200e Wang"):
        with pytest.raises(LockedOut):
            book.sign_in(spelling, PASSWORD, "elsewhere")


def test_parallel_guesses_do_not_pass_the_limit(book: Accounts) -> None:
    join(book)

    def guess(number: int) -> str:
        try:
            return book.sign_in("王医生", f"guess number {number}", f"address {number}")
        except (NotSignedIn, LockedOut) as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(guess, range(16)))
    assert results.count("NotSignedIn") == 5 and results.count("LockedOut") == 11


def test_one_address_cannot_try_a_hundred_accounts(book: Accounts, clock: Clock) -> None:
    refused = 0
    for number in range(40):
        try:
            book.sign_in(f"nobody {number}", "guess guess guess", "one address")
        except TooFast:
            refused += 1
        except NotSignedIn:
            pass
    assert refused == 10


def test_an_unknown_name_takes_as_long_as_a_wrong_password(
    book: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much work of the same kind, counted: a clock would measure the machine's other work too."""
    join(book)
    compared: list[str] = []
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, known: str, password: bytes) -> bool:
        compared.append(known.rsplit("$", 2)[0])  # the kind and its costs, without salt and hash
        return verify(hasher, known, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    for name in ("王医生", "nobody"):
        with pytest.raises(NotSignedIn):
            book.sign_in(name, "not the password", name)
    known, unknown = compared
    assert known == unknown and known.startswith("$argon2id$")


# Invitations and passwords


def test_an_invitation_works_once(book: Accounts, clock: Clock) -> None:
    token = book.invite("physician", "王医生", "test")
    assert book.accept(token, PASSWORD)
    with pytest.raises(Forbidden):
        book.accept(token, PASSWORD)
    late = book.invite("physician", "Li", "test")
    clock.move(hours=rules.INVITATION_HOURS, seconds=1)
    for bad in (late, "A" * 43, "", "../../x"):
        assert book.invitation(bad) is None
        with pytest.raises(Forbidden):
            book.accept(bad, PASSWORD)


def test_two_people_accepting_at_once_make_one_account(book: Accounts) -> None:
    token = book.invite("physician", "王医生", "test")

    def accept(_: int) -> str | None:
        try:
            return book.accept(token, PASSWORD)
        except Forbidden:
            return None

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(accept, range(4)))
    assert sum(found is not None for found in results) == 1
    assert len(book.people.users()) == 1


def test_who_may_be_invited(book: Accounts) -> None:
    join(book)
    for role, name in (("visitor", "x"), ("root", "x"), ("physician", " "), ("admin", "王医生")):
        with pytest.raises(InputError):
            book.invite(role, name, "test")
    with pytest.raises(InputError):
        book.invite("physician", "很长的名字" * 20, "test")
    link = book.link(book.invite("physician", "Li\n\tMing", "test"))
    assert re.fullmatch(r"http://127\.0\.0\.1:7860/zh/invite/[\w-]{43}", link)


def test_the_first_admin_gets_links_until_one_is_used(book: Accounts) -> None:
    first, second = book.first_admin(), book.first_admin()
    assert first and second and first != second
    assert book.current(Request(book, book.accept(second, PASSWORD))).role == "admin"
    assert book.first_admin() is None
    with pytest.raises(Forbidden):  # the printed link of an earlier start is dead as well
        book.accept(first, PASSWORD)


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("correct horse battery", None),
        ("头疼三天早上更重怎么办", None),
        ("short", "short"),
        ("九个汉字还是太短了", "short"),
        ("x" * 129, "long"),
        ("aaaaaaaaaaaa", "common"),
        ("1234567890", "common"),
        ("Password123", "common"),
        ("dr wang 1966", "name"),
        ("DR WANG is my name", "name"),
    ],
)
def test_which_passwords_may_be_used(password: str, problem: str | None) -> None:
    assert password_problem(password, "Dr Wang") == problem


def test_a_weak_password_leaves_the_invitation_unused(book: Accounts) -> None:
    token = book.invite("physician", "王医生", "test")
    with pytest.raises(InputError):
        book.accept(token, "1234567890")
    assert book.invitation(token) is not None


# Limits


def test_questions_and_votes_are_limited_for_each_person(book: Accounts, clock: Clock) -> None:
    one = book.current(Request(book, join(book)))
    other = book.current(Request(book, book.visit()))
    for _ in range(book.config.asks_per_minute):
        book.allow(one, "ask")
    with pytest.raises(TooFast):
        book.allow(one, "ask")
    book.allow(other, "ask")
    book.allow(one, "vote")
    clock.move(seconds=60)
    book.allow(one, "ask")


def test_new_visitors_from_one_address_are_limited(book: Accounts) -> None:
    for _ in range(60):
        book.visit("one address")
    with pytest.raises(TooFast):
        book.visit("one address")
    assert book.visit("another address")


def test_over_https_the_cookie_is_bound_to_the_host(book: Accounts) -> None:
    from huatuo.sessions import set_cookie

    config = AppConfig(public_url="https://huatuo.example.org")
    secure = Accounts(book.people, config)
    assert set_cookie(secure, "t", 1) == (
        "__Host-session=t; Path=/; Max-Age=86400; HttpOnly; SameSite=Strict; Secure"
    )
    assert set_cookie(book, "t", 0).startswith("session=t; Path=/; Max-Age=0; HttpOnly; ")


def test_over_https_only_the_public_address_counts(book: Accounts) -> None:
    config = AppConfig(public_url="https://huatuo.example.org")
    secure = Accounts(book.people, config)
    page = Page("chat", "visitor", lambda language: frame.blocks("chat", language))
    transport = httpx.ASGITransport(build_app(config, secure, [page]))

    async def talk() -> list[httpx.Response]:
        form = {"name": "x", "password": "y"}
        asks = [("https", "https"), ("https", "http"), ("http", "https")]
        answers = []
        async with httpx.AsyncClient(
            transport=transport, base_url="https://huatuo.example.org"
        ) as client:
            answers.append(await client.get("/zh/chat/"))
            for behind, scheme in asks:  # the proxy speaks plain HTTP to the app
                where = f"{behind}://huatuo.example.org/zh/sign-in"
                origin = {"origin": f"{scheme}://huatuo.example.org"}
                answers.append(await client.post(where, data=form, headers=origin))
        return answers

    first, *rest = asyncio.run(talk())
    assert first.headers["set-cookie"].startswith("__Host-session=")
    assert "https://huatuo.example.org/zh/chat" in first.text
    assert "max-age" in first.headers["strict-transport-security"]
    assert [answer.status_code for answer in rest] == [401, 403, 401]
