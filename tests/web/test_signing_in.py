"""Signing in and out over HTTP, invitations, the account page, and the command line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from huatuo import accounts as rules
from huatuo.accounts import Role
from huatuo.ui import frame
from huatuo.ui.signin import Ways
from tests.patience import LONG_S

PASSWORD = "correct horse battery"


def test_a_cookie_set_before_signing_in_is_replaced_and_dead(site: Any) -> None:
    site.token("Fixed")
    with site.client() as client:
        client.get("/zh/chat/")
        planted = client.cookies["session"]
        client.post("/zh/sign-in", data={"name": "Fixed", "password": PASSWORD})
        mine = client.cookies["session"]
    assert planted != mine
    assert site.accounts.session_of(planted, "zh") is None
    assert site.accounts.session_of(mine, "zh").name == "Fixed"


def test_a_stolen_cookie_is_worth_nothing_after_signing_out(site: Any) -> None:
    token = site.token("Stolen")
    cookies = {"session": token}
    with site.client() as client:
        client.cookies.set("session", token, domain="127.0.0.1")
        assert client.get("/zh/compare/").status_code == 200
        assert client.get("/zh/sign-out").status_code == 404  # a link must not sign out
        assert client.post("/zh/sign-out").status_code == 303
        assert "session" not in client.cookies
    with site.client() as thief:
        thief.cookies.update(cookies)
        assert thief.get("/zh/compare/").status_code == 303
        call = {"data": [], "fn_index": 0, "session_hash": "x"}
        joined = thief.post("/zh/compare/gradio_api/queue/join", json=call)
        assert joined.status_code == 401
        assert joined.json()["code"] == "not_signed_in"


def test_an_invited_physician_chooses_a_password_and_lands_on_the_page(site: Any) -> None:
    token = site.accounts.invite("physician", "<b>Zhao</b>", "test")
    where = f"/zh/invite/{token}"
    with site.client() as client:
        page = client.get(where)
        assert "&lt;b&gt;Zhao&lt;/b&gt;" in page.text and "<b>Zhao" not in page.text
        differ = client.post(where, data={"new": PASSWORD, "again": "x"})
        short = client.post(where, data={"new": "x", "again": "x"})
        assert (differ.status_code, short.status_code) == (422, 422)
        assert "不一样" in differ.text and "太短" in short.text
        done = client.post(where, data={"new": PASSWORD, "again": PASSWORD})
        assert (done.status_code, done.headers["location"]) == (303, "/zh/compare/")
        assert client.get("/zh/compare/").status_code == 200
        assert client.get(where).status_code == 403


@pytest.mark.parametrize(
    ("role", "first"),
    [("physician", "compare"), ("adjudicator", "adjudicate"), ("researcher", "results"), ("admin", "admin")],
)  # fmt: skip
def test_everybody_lands_on_the_page_of_their_work(site: Any, role: str, first: str) -> None:
    pages = Ways(site.accounts, {name: cast(Role, least) for name, least in frame.PAGES})
    token = site.token(f"Landing {role}", role)
    assert pages.home(token, "en") == f"/en/{first}/"
    few = Ways(site.accounts, {"chat": "visitor"})  # an app without that page
    assert few.home(token, "zh") == "/zh/chat/"


def test_the_account_page_changes_the_password(site: Any) -> None:
    old = site.token("Changing")
    with site.client() as client:
        client.cookies.set("session", old, domain="127.0.0.1")
        form = {"old": "not the password", "new": "another long sentence"}
        form["again"] = form["new"]
        assert client.post("/en/account", data=form).status_code == 403
        done = client.post("/en/account", data={**form, "old": PASSWORD})
        assert (done.status_code, done.headers["location"]) == (303, "/en/account?done=changed")
        assert "signed out on all other devices" in client.get(done.headers["location"]).text
    assert site.accounts.session_of(old, "zh") is None


def test_six_wrong_passwords_over_http_lock_the_account(site: Any) -> None:
    site.token("Locked")
    with site.client() as client:
        form = {"name": "Locked", "password": "not the password"}
        got = [client.post("/en/sign-in", data=form) for _ in range(6)]
        assert [answer.status_code for answer in got] == [401] * 5 + [429]
        assert "locked" in got[-1].text
        right = client.post("/en/sign-in", data={**form, "password": PASSWORD})
        assert right.status_code == 429
        text = client.post("/en/sign-in", data={"name": '"><script>x</script>', "password": "p"})
        assert "<script>x" not in text.text


# The command line


def test_the_command_line_invites_lists_and_disables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(f"data/test-{os.getpid()}")
    config = tmp_path / "app.toml"
    config.write_text(f'data_dir = "{folder}"\n')
    (rules.ROOT / folder).mkdir(parents=True)
    common = ["--config", str(config)]
    invite = [*common, "invite", "--role", "physician", "--name", "王医生"]
    try:
        command = [sys.executable, "-m", "huatuo.accounts", *invite]
        made = subprocess.run(
            command, cwd=rules.ROOT, capture_output=True, text=True, timeout=LONG_S
        )
        assert made.returncode == 0, made.stderr
        assert re.fullmatch(r"http://127\.0\.0\.1:7860/zh/invite/[\w-]{43}\n", made.stdout)
        assert rules.main([*common, "list"]) == 0
        assert capsys.readouterr().out == ""
        assert rules.main([*common, "disable", "王医生"]) == 1
        assert "no account is named" in capsys.readouterr().err
    finally:
        shutil.rmtree(rules.ROOT / folder)
