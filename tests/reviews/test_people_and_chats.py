"""Accounts, sessions, invitations, limits, and visitors' conversations."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from reviews.chats import Chats
from reviews.errors import NameTaken, NotYours, UnknownAssignment
from reviews.people import People, User
from reviews.store import Store


@pytest.fixture
def chats(store: Store) -> Chats:
    return Chats(store.database)


def test_a_name_is_taken_whatever_its_letter_case(people: People) -> None:
    user = people.add_user("Émile Ｗang", "physician", "h", "system")
    with pytest.raises(NameTaken):
        people.add_user("éMILE wANG", "admin", "h", "system")
    assert people.user_named(" émile wang ") == user == people.user(user.id)
    assert people.users() == [user]
    assert people.user(99) is None and people.user_named("x") is None


def test_account_changes_are_logged_without_names_or_hashes(people: People, store: Store) -> None:
    user = people.add_user("王小明", "physician", "$argon2$one", "system")
    people.set_role(user.id, "researcher", user.id)
    people.set_password(user.id, "$argon2$two", "system")
    people.disable(user.id, "system")
    people.disable(user.id, "system")
    people.enable(user.id, "system")
    with store.database.read() as db:
        rows = [str(tuple(row)) for row in db.conn.execute("SELECT * FROM audit")]
        actions = [row["action"] for row in db["audit"].rows]
    assert actions == ["user.add", "user.role", "user.password", "user.disable", "user.enable"]
    assert not any("王小明" in row or "argon2" in row for row in rows)
    store.verify_audit()


def test_a_new_password_or_disabling_ends_every_session(people: People, clock: Any) -> None:
    user = people.add_user("a", "physician", "h", "system")
    end = clock.now + timedelta(days=1)
    for change in (
        lambda: people.set_password(user.id, "h2", "system"),
        lambda: people.disable(user.id, "system"),
        lambda: people.sign_out_everywhere(user.id, "system"),
    ):
        people.add_session("t1", user.id, end)
        people.add_session("t2", user.id, end.timestamp())
        change()
        assert people.session("t1") is None and people.session("t2") is None


def test_a_session_is_joined_with_its_user(people: People, clock: Any) -> None:
    user = people.add_user("a", "physician", "h", "system")
    people.add_session("t", user.id, clock.now + timedelta(hours=1), {"language": "en"})
    people.add_session("v", None, clock.now + timedelta(hours=3))
    row = people.session("t")
    assert row is not None
    assert (row.user_id, row.name, row.role, row.disabled) == (user.id, "a", "physician", False)
    assert row.data == {"language": "en"}
    visitor = people.session("v")
    assert visitor is not None and (visitor.user_id, visitor.name) == (None, "")
    clock.move(hours=2)
    people.touch_session("v")
    touched = people.session("v")
    assert touched is not None and touched.seen_at == clock.now
    assert people.purge_sessions(clock.now) == 1
    assert people.session("t") is None and people.session("v") is not None
    people.end_session("v")
    assert people.session("v") is None


def test_an_invitation_works_once(people: People, clock: Any) -> None:
    people.add_invitation("i", "physician", "李医生", clock.now + timedelta(days=1), "system")
    made: list[User] = []
    refused: list[Exception] = []

    def use() -> None:
        try:
            made.append(people.use_invitation("i", "h"))
        except UnknownAssignment as error:
            refused.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 5)
    assert (made[0].name, made[0].role) == ("李医生", "physician")
    invitation = people.invitation("i")
    assert invitation is not None and invitation.used_at == clock.now


def test_an_old_invitation_or_a_taken_name_makes_no_account(people: People, clock: Any) -> None:
    people.add_invitation("old", "physician", "a", clock.now + timedelta(days=1), "system")
    people.add_invitation("b", "physician", "b", clock.now + timedelta(days=9), "system")
    clock.move(days=2)
    for token in ("old", "unknown"):
        with pytest.raises(UnknownAssignment):
            people.use_invitation(token, "h")
    people.add_user("B", "physician", "h", "system")
    with pytest.raises(NameTaken):
        people.use_invitation("b", "h")
    unused = people.invitation("b")
    assert unused is not None and unused.used_at is None


def test_a_bucket_empties_and_refills(people: People) -> None:
    now = time.time()
    assert [people.take("k", 3, 0.5, now) for _ in range(4)] == [True, True, True, False]
    assert not people.take("k", 3, 0.5, now + 1)
    assert people.take("k", 3, 0.5, now + 3)
    assert people.take("other", 3, 0.5, now)
    assert not people.take("k", 3, 0.5, now - 1000)  # a clock that jumps back gives nothing


def test_a_bucket_shared_by_threads_gives_out_no_more_than_it_has(people: People) -> None:
    granted: list[bool] = []
    threads = [
        threading.Thread(target=lambda: granted.append(people.take("k", 5, 0.0, 1.0)))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert granted.count(True) == 5


def test_failures_are_counted_and_forgotten(people: People) -> None:
    for now in (10.0, 20.0, 30.0):
        people.add_failure("k", now)
    assert people.failures("k", 15.0) == 2
    assert people.failures("other", 0.0) == 0
    people.clear_failures("k")
    assert people.failures("k", 0.0) == 0


def test_a_conversation_is_read_back_in_order(chats: Chats) -> None:
    assert chats.latest("o") is None
    chat = chats.new_chat("o", "m", "zh")
    chats.add_question(chat, "o", "胸痛\0", ["红旗"])
    answer = chats.add_answer(chat, "半", "length", {"seed": 1})
    chats.thumb(answer, "o", -1)
    assert chats.latest("o") == chat
    question, said = chats.messages(chat, "o")
    assert (question.role, question.text, question.notices) == ("user", "胸痛", ("红旗",))
    assert (said.id, said.finish, said.thumb) == (answer, "length", -1)
    assert chats.new_chat("o", "m", "zh") == chats.latest("o")


def test_regenerating_keeps_the_old_answer_in_the_record(chats: Chats, store: Store) -> None:
    chat = chats.new_chat("o", "m", "zh")
    assert not chats.supersede_last_answer(chat, "o")
    chats.add_question(chat, "o", "问")
    chats.add_answer(chat, "旧", "stop")
    assert chats.supersede_last_answer(chat, "o")
    assert not chats.supersede_last_answer(chat, "o")
    chats.add_answer(chat, "新", "stop")
    assert [m.text for m in chats.messages(chat, "o")] == ["问", "新"]
    with store.database.read() as db:
        assert db["chat_messages"].count == 3


def test_a_conversation_is_its_owners_alone(chats: Chats) -> None:
    chat = chats.new_chat("o", "m", "zh")
    message = chats.add_answer(chat, "答", "stop")
    for call in (
        lambda: chats.messages(chat, "other"),
        lambda: chats.add_question(chat, "other", "x"),
        lambda: chats.supersede_last_answer(chat, "other"),
        lambda: chats.thumb(message, "other", 1),
    ):
        with pytest.raises(NotYours):
            call()
    with pytest.raises(UnknownAssignment):
        chats.messages("nope", "o")
    with pytest.raises(UnknownAssignment):
        chats.add_answer("nope", "x", "stop")
    with pytest.raises(UnknownAssignment):
        chats.thumb(10**6, "o", 1)
    with pytest.raises(ValueError):
        chats.thumb(message, "o", 5)


def test_old_conversations_are_deleted_with_their_messages(
    chats: Chats, store: Store, clock: Any
) -> None:
    old = chats.new_chat("o", "m", "zh")
    chats.add_question(old, "o", "旧")
    clock.move(days=31)
    new = chats.new_chat("o", "m", "zh")
    assert chats.purge(clock.now - timedelta(days=30)) == 1
    assert chats.latest("o") == new
    with store.database.read() as db:
        assert db["chat_messages"].count == 0
