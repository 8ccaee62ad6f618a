"""Signing in at a provider that runs here, over real HTTP: the good way, and every way it can be false."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from huatuo.accounts import Accounts
from huatuo.config import AppConfig, read_toml
from huatuo.errors import ConfigError
from huatuo.openid import BACK, Provider
from huatuo.ui import frame
from huatuo.web import Page, build_app
from reviews.database import Database
from reviews.migrations import migrate
from reviews.people import Identity, People
from tests.patience import LONG_S, free_port
from tests.web.conftest import served
from tests.web.openid_provider import CLIENT_ID, SECRET, Lies, OpenIdProvider

PASSWORD = "correct horse battery"


@dataclass
class Clock:
    """The app's clock: the real one, moved by `ahead` seconds, or one that stands at `still`."""

    ahead: float = 0.0
    still: float | None = None

    def __call__(self) -> Any:
        now = time.time() if self.still is None else self.still
        return datetime.fromtimestamp(now + self.ahead, UTC)


@dataclass
class Place:
    """The app beside its provider."""

    url: str
    accounts: Accounts
    people: People
    provider: OpenIdProvider
    ours: Provider
    clock: Clock

    def browser(self) -> httpx.Client:
        """A browser that sends what a browser sends, and follows nothing by itself."""
        return httpx.Client(
            base_url=self.url, headers={"origin": self.url}, timeout=LONG_S, verify=False
        )

    def user(self, name: str, role: str = "physician") -> tuple[int, str]:
        """An account with a password, and a session of it."""
        token = self.accounts.accept(self.accounts.invite(role, name, "test"), PASSWORD)
        found = self.people.user_named(name)
        assert found is not None
        return found.id, token

    def leave(self, client: httpx.Client, language: str = "zh", **form: str) -> str:
        """Presses the button; the address of the provider that the page leads to."""
        page = client.post(f"/{language}/openid", data={"go": "1", **form})
        assert page.status_code == 200, page.text
        assert 'http-equiv="refresh"' in page.text
        return page.text.split('<p><a href="')[1].split('"')[0].replace("&amp;", "&")

    def back(self, client: httpx.Client, url: str, who: str = "zhao") -> httpx.Response:
        """Agrees at the provider and comes back, as a browser does: without the strict cookie."""
        there = self.provider.agree(url, who)
        return self.arrive(client, there)

    def arrive(self, client: httpx.Client, there: str) -> httpx.Response:
        """Opens the address that the provider sends to, as from another site."""
        headers = {
            "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document",
            "cookie": f"openid={client.cookies.get('openid', '')}",
        }  # fmt: skip
        assert there.startswith(self.url + BACK)
        return client.get(there.removeprefix(self.url), headers=headers)

    def sessions(self) -> int:
        """Open sessions of accounts."""
        return sum(many for many, _ in self.people.signed_in().values())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("openid")) as place:
        yield place


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[Place]:
    """The app and a provider under this name; `localhost` is another site to a browser."""
    provider = OpenIdProvider(host)
    database = Database(folder / "reviews.sqlite3")
    migrate(database)
    people, clock = People(database), Clock()
    config = AppConfig(
        port=free_port(),
        openid={"issuer": provider.url, "client_id": CLIENT_ID, "title": "市一医院"},
    )
    accounts = Accounts(people, config)
    url = f"http://127.0.0.1:{config.port}"
    ours = Provider(config.openid, url + BACK, SECRET, clock)
    provider.redirect_uris.add(url + BACK)
    pages = [
        Page(name, role, lambda language, name=name: frame.blocks(name, language))
        for name, role in (("chat", "visitor"), ("compare", "physician"))
    ]
    with served(build_app(config, accounts, pages, provider=ours), config):
        yield Place(url, accounts, people, provider, ours, clock)
    provider.shutdown()
    database.close()


@pytest.fixture
def place(running: Place) -> Place:
    """The app and the provider, both as new."""
    with running.people.database.write() as db:
        db.conn.execute("UPDATE users SET oidc_issuer = NULL, oidc_subject = NULL")
        for table in ("sessions", "failures", "buckets"):
            db.conn.execute(f"DELETE FROM {table}")
    running.provider.lies = Lies()
    running.clock.ahead, running.clock.still = 0.0, None
    running.provider.asked.clear()
    running.ours._about = running.ours._keys = None
    return running


def linked(place: Place, name: str, who: str = "zhao") -> int:
    """An account that is linked to the identity of `who`."""
    found = place.people.user_named(name)
    number = found.id if found else place.user(name)[0]
    place.people.sign_out_everywhere(number, "test")
    identity = Identity(place.provider.url, f"subject-of-{who}")
    place.people.link_identity(number, identity, "test")
    return number


# The good ways


def test_a_linked_physician_signs_in_and_lands_on_the_page_that_was_wanted(place: Place) -> None:
    number = linked(place, "Linked")
    with place.browser() as client:
        assert "市一医院" in client.get("/zh/sign-in?next=/zh/compare/").text
        client.get("/zh/chat/")
        planted = client.cookies["session"]
        url = place.leave(client, next="/zh/compare/")
        done = place.back(client, url)
        assert (done.status_code, done.headers["location"]) == (303, "/zh/compare/")
        strict = next(c for c in done.headers.get_list("set-cookie") if c.startswith("session="))
        assert "HttpOnly" in strict and "SameSite=Strict" in strict
        token = client.cookies["session"]
        assert "openid" not in client.cookies
    session = place.accounts.session_of(token, "zh")
    assert session is not None and session.user_id == number
    assert token != planted and place.accounts.session_of(planted, "zh") is None


def test_an_invitation_is_accepted_without_a_password_once(place: Place) -> None:
    invitation = place.accounts.invite("researcher", f"New {time.time()}", "test")
    with place.browser() as client, place.browser() as late:
        assert "市一医院" in client.get(f"/en/invite/{invitation}").text
        url = place.leave(client, "en", invitation=invitation)
        other = place.leave(late, "en", invitation=invitation)
        done = place.back(client, url, "qian")
        assert (done.status_code, done.headers["location"]) == (303, "/en/chat/")
        session = place.accounts.session_of(client.cookies["session"], "en")
        assert session is not None and session.role == "researcher"
        refused = place.back(late, other, "zhao")
        assert refused.status_code == 403 and "start again" in refused.text
    user = place.people.user_known_as(Identity(place.provider.url, "subject-of-qian"))
    assert user is not None and user.password_hash == "" and user.id == session.user_id
    with pytest.raises(Exception, match="wrong"):
        place.accounts.sign_in(user.name, "")


def test_the_account_page_links_only_with_the_password_and_only_a_free_identity(
    place: Place,
) -> None:
    number, token = place.user(f"Owner {time.time()}")
    with place.browser() as client:
        client.cookies.set("session", token, domain="127.0.0.1")
        assert "关联 市一医院" in client.get("/zh/account").text
        wrong = client.post("/zh/openid", data={"link": "yes", "old": "not the password"})
        assert wrong.status_code == 403 and "现在的密码不对" in wrong.text
        assert place.provider.asked == []
        done = place.back(client, place.leave(client, link="yes", old=PASSWORD))
        assert done.headers["location"] == "/zh/account?done=linked"
        page = client.get("/zh/account?done=linked").text
        assert "已关联" in page and "解除关联" in page
        assert place.people.user(number).identity.subject == "subject-of-zhao"  # type: ignore[union-attr]
        _, second = place.user(f"Second {time.time()}")
        client.cookies.set("session", second, domain="127.0.0.1")
        taken = place.back(client, place.leave(client, link="yes", old=PASSWORD))
        assert taken.status_code == 403 and "另一个账户" in taken.text
        client.cookies.set("session", token, domain="127.0.0.1")
        assert client.post("/zh/account/unlink", data={"old": "no"}).status_code == 403
        client.post("/zh/account/unlink", data={"old": PASSWORD})
        assert place.people.user(number).identity is None  # type: ignore[union-attr]


def test_a_one_time_link_of_an_account_can_link_it_too(place: Place) -> None:
    number, _ = place.user(f"Forgot {time.time()}")
    link = place.accounts.reset(number, "test")
    with place.browser() as client:
        place.back(client, place.leave(client, invitation=link))
        session = place.accounts.session_of(client.cookies["session"], "zh")
    assert session is not None and session.user_id == number
    assert place.accounts.invitation(link) is None
    assert place.people.user(number).identity is not None  # type: ignore[union-attr]


# Who stays out


def test_an_unknown_person_stays_out_whatever_the_name_or_address_says(place: Place) -> None:
    place.user(f"赵医生 {time.time()}")
    before = len(place.people.users()), place.sessions()
    with place.browser() as client:
        done = place.back(client, place.leave(client))
        assert done.status_code == 403 and "还没有关联" in done.text
        assert "session" not in client.cookies
    assert (len(place.people.users()), place.sessions()) == before


def test_a_disabled_account_stays_out_and_its_link_does_not_open_it(place: Place) -> None:
    number = linked(place, "Closed")
    link = place.accounts.reset(number, "test")
    with place.browser() as client:
        invited = place.leave(client, invitation=link)
        place.people.disable(number, "test")
        for url in (invited, place.leave(client)):
            assert place.back(client, url).status_code == 403
    assert place.sessions() == 0
    place.people.enable(number, "test")


def test_a_session_that_ended_meanwhile_links_nothing(place: Place) -> None:
    number, token = place.user(f"Ended {time.time()}")
    with place.browser() as client:
        client.cookies.set("session", token, domain="127.0.0.1")
        url = place.leave(client, link="yes", old=PASSWORD)
        place.people.sign_out_everywhere(number, "test")
        assert place.back(client, url).status_code == 403
    assert place.people.user(number).identity is None  # type: ignore[union-attr]


def test_a_configured_role_lets_new_people_in_under_a_name_of_their_own(place: Place) -> None:
    place.user("赵医生") if place.people.user_named("赵医生") is None else None
    object.__setattr__(place.ours.config, "role_of_new", "physician")
    try:
        with place.browser() as client:
            assert place.back(client, place.leave(client)).status_code == 303
            first = place.accounts.session_of(client.cookies["session"], "zh")
            assert place.back(client, place.leave(client)).status_code == 303
            again = place.accounts.session_of(client.cookies["session"], "zh")
    finally:
        object.__setattr__(place.ours.config, "role_of_new", "")
    assert first is not None and again is not None
    assert first.user_id == again.user_id and first.role == "physician"
    assert first.name != "赵医生" and first.name.startswith("赵医生-")


# States and codes


def test_a_state_works_once_in_the_browser_that_began_it_and_for_ten_minutes(place: Place) -> None:
    linked(place, "States")
    with place.browser() as client, place.browser() as thief:
        url = place.leave(client)
        there = place.provider.agree(url, "zhao")
        for stranger in (thief, place.browser()):
            place.leave(stranger) if stranger is thief else None
            stolen = place.arrive(stranger, there)
            assert stolen.status_code == 403 and "从本站重新开始" in stolen.text
            assert "session" not in stranger.cookies
        assert place.arrive(client, there).status_code == 403  # the state was used up by the theft
        there = place.provider.agree(place.leave(client), "zhao")
        kept = client.cookies["openid"]
        assert place.arrive(client, there).status_code == 303
        client.cookies.set("openid", kept, domain="127.0.0.1")
        assert place.arrive(client, there).status_code == 403  # replayed, code and state
        there = place.provider.agree(place.leave(client), "zhao")
        place.clock.ahead = 601
        assert place.arrive(client, there).status_code == 403
        for query in ({}, {"state": "x"}, {"code": "x"}, {"error": "access_denied"}):
            assert place.arrive(client, f"{place.url}{BACK}?{urlencode(query)}").status_code == 403
    assert place.sessions() == 1


def test_a_code_of_another_sign_in_is_refused_by_its_verifier(place: Place) -> None:
    linked(place, "Codes")
    with place.browser() as mine, place.browser() as other:
        theirs = dict(parse_qsl(urlsplit(place.provider.agree(place.leave(other), "zhao")).query))
        state = dict(parse_qsl(urlsplit(place.leave(mine)).query))["state"]
        query = urlencode({**theirs, "state": state})
        refused = place.arrive(mine, f"{place.url}{BACK}?{query}")
        assert refused.status_code == 403 and "没有通过核对" in refused.text
    assert place.sessions() == 0


def test_someone_who_does_not_agree_is_told_that_nothing_changed(place: Place) -> None:
    with place.browser() as client:
        asked = dict(parse_qsl(urlsplit(place.leave(client, "en")).query))
        query = {"state": asked["state"], "error": "access_denied", "iss": place.provider.url}
        done = place.arrive(client, f"{place.url}{BACK}?{urlencode(query)}")
        assert done.status_code == 403 and "did not agree" in done.text


def test_next_leads_to_no_other_site(place: Place) -> None:
    linked(place, "Next")
    for wanted in ("//evil.example/", "https://evil.example/x/", "/zh/../../", "/zh/compare/..//"):
        with place.browser() as client:
            done = place.back(client, place.leave(client, next=wanted))
            assert done.headers["location"] == "/zh/compare/", wanted


# A provider that is false


NOW = int(time.time())
FALSE = {
    "another audience": Lies(claims={"aud": "another-app"}),
    "several audiences, no party": Lies(claims={"aud": [CLIENT_ID, "another-app"]}),
    "made for another party": Lies(claims={"aud": [CLIENT_ID, "x"], "azp": "x"}),
    "another issuer": Lies(claims={"iss": "https://evil.example"}),
    "another nonce": Lies(claims={"nonce": "replayed"}),
    "no nonce": Lies(without=("nonce",)),
    "over": Lies(claims={"exp": NOW - 600, "iat": NOW - 900}),
    "no end": Lies(without=("exp",)),
    "from the future": Lies(claims={"iat": NOW + 86_400}),  # later than the slowest run ends
    "not yet": Lies(claims={"nbf": NOW + 86_400}),
    "nobody": Lies(claims={"sub": ""}),
    "no subject": Lies(without=("sub",)),
    "a subject that is a number": Lies(claims={"sub": 7}),
    "a long subject": Lies(claims={"sub": "x" * 256}),
    "signed by another key": Lies(sign="other key"),
    "not signed": Lies(sign="none"),
    "signed by the public key": Lies(sign="HS256 by the public key"),
    "cut": Lies(sign="cut"),
    "no ID token": Lies(without=("id_token",)),
    "token says 500": Lies(statuses={"token": 500}),
    "token redirects": Lies(redirects={"token": "http://127.0.0.1:9/"}),
    "token is no JSON": Lies(bodies={"token": b"<html>"}),
    "keys redirect": Lies(redirects={"jwks": "http://127.0.0.1:9/"}),
    "keys are none": Lies(bodies={"jwks": b'{"keys": []}'}),
    "keys are secrets": Lies(bodies={"jwks": b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'}),
    "keys are damaged": Lies(bodies={"jwks": b'{"keys": [{"kty": "RSA", "n": 1}]}'}),
    "keys are huge": Lies(bodies={"jwks": b" " * 300_000}),
}


@pytest.mark.parametrize("how", FALSE)
def test_a_false_answer_signs_nobody_in(place: Place, how: str, caplog: Any) -> None:
    linked(place, "False")
    place.provider.lies = FALSE[how]
    with caplog.at_level(logging.DEBUG), place.browser() as client:
        done = place.back(client, place.leave(client))
        assert done.status_code == 403, how
        assert "没有通过核对" in done.text or "没有应答" in done.text
        assert "session" not in client.cookies and "Traceback" not in done.text
    assert place.sessions() == 0
    told = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("huatuo"))
    assert "sign-in provider" in told
    assert not any(word in told for word in ("subject-of", "zhao", "赵", "shared@", "code="))


@pytest.mark.parametrize(
    ("lies", "words"),
    [
        (Lies(about={"issuer": "https://evil.example"}), "没有通过核对"),
        (Lies(about={"token_endpoint": "https://evil.example/token"}), "没有通过核对"),
        (Lies(about={"jwks_uri": "http://10.0.0.1/jwks"}), "没有通过核对"),
        (Lies(about={"authorization_endpoint": "javascript:alert(1)"}), "没有通过核对"),
        (Lies(about={"authorization_endpoint": None}), "没有通过核对"),
        (Lies(statuses={".well-known/openid-configuration": 503}), "没有应答"),
        (Lies(redirects={".well-known/openid-configuration": "http://127.0.0.1:9/"}), "没有应答"),
        (Lies(bodies={".well-known/openid-configuration": b"[]"}), "没有通过核对"),
        (Lies(bodies={".well-known/openid-configuration": b"[" * 100_000}), "没有通过核对"),
    ],
)
def test_a_false_document_leads_nobody_away(place: Place, lies: Lies, words: str) -> None:
    place.provider.lies = lies
    with place.browser() as client:
        done = client.post("/zh/openid", data={"go": "1"})
        assert done.status_code == 502 and words in done.text
        assert "evil" not in done.text and "openid" not in client.cookies


def test_another_issuer_in_the_answer_is_refused(place: Place) -> None:
    linked(place, "Mixed up")
    for iss in ("https://evil.example", None):
        with place.browser() as client:
            there = place.provider.agree(place.leave(client), "zhao")
            query = dict(parse_qsl(urlsplit(there).query))
            del query["iss"]
            more = {"iss": iss} if iss else {}
            done = place.arrive(client, f"{place.url}{BACK}?{urlencode({**query, **more})}")
            assert done.status_code == 403 and "没有通过核对" in done.text
    assert place.sessions() == 0


def test_clocks_may_differ_by_two_minutes(place: Place) -> None:
    linked(place, "Clocks")
    now = int(time.time())
    place.clock.still = now
    for claims in ({"iat": now + 100, "exp": now + 400}, {"iat": now - 400, "exp": now - 100}):
        place.provider.lies = Lies(claims=claims)
        with place.browser() as client:
            assert place.back(client, place.leave(client)).status_code == 303


def test_new_keys_of_the_provider_are_noticed_a_minute_later(place: Place) -> None:
    linked(place, "Keys")
    from joserfc.jwk import RSAKey

    with place.browser() as client:
        assert place.back(client, place.leave(client)).status_code == 303
        place.provider.key = RSAKey.generate_key(2048, {"kid": "two", "use": "sig"})
        place.clock.ahead = 61
        asked = place.provider.asked.count("jwks")
        assert place.back(client, place.leave(client)).status_code in (303, 403)
        assert place.provider.asked.count("jwks") == asked + 1


def test_beginning_is_limited_for_each_address(place: Place) -> None:
    got: list[int] = []
    with place.browser() as client:
        while 429 not in got and len(got) < 200:  # ten seconds of a slow machine allow one more
            got.append(client.post("/zh/openid", data={"go": "1"}).status_code)
    assert got[:20] == [200] * 20 and got[-1] == 429


def test_another_site_cannot_begin_a_sign_in(place: Place) -> None:
    with place.browser() as client:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert client.post("/zh/openid", data={"go": "1"}, headers=headers).status_code == 403
        assert client.get("/zh/openid").status_code in (308, 404)


# The configuration


def test_without_an_issuer_there_is_no_such_way(site: Any) -> None:
    with site.client() as client:
        assert client.post("/zh/openid", data={"go": "1"}).status_code == 404
        assert client.get(f"{BACK}?state=x&code=y").status_code == 404
        assert "openid" not in client.get("/zh/sign-in").text


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('client_id = "x"', "no effect without an issuer"),
        ('issuer = "https://id.example"', "client_id is missing"),
        ('issuer = "https://id.example"\nclient_id = "x"', "title is missing"),
        ('issuer = "http://id.example"\nclient_id = "x"\ntitle = "x"', "must be https"),
        ('issuer = "https://a@id.example"\nclient_id = "x"\ntitle = "x"', "must be https"),
        ('issuer = "https://id.example"\nclient_secret = "x"', "secret"),
        ('issuer = "https://id.example"\nrole_of_new = "admin"', "role_of_new"),
        ('issuer = "https://id.example"\nisuer = "x"', "did you mean issuer"),
    ],
)
def test_a_wrong_table_names_its_key(tmp_path: Path, table: str, words: str) -> None:
    path = tmp_path / "app.toml"
    path.write_text(f"[openid]\n{table}\n", "utf-8")
    with pytest.raises(ConfigError, match=words):
        read_toml(path, AppConfig)


def test_a_secret_that_is_not_set_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"issuer": "https://id.example", "client_id": "x", "title": "x"}
    config = AppConfig(openid={**table, "client_secret_env": "NOT_SET_ANYWHERE"})
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE"):
        Provider.of(config)
    monkeypatch.setenv("NOT_SET_ANYWHERE", "x")
    assert Provider.of(config) is not None and Provider.of(AppConfig()) is None
