"""Erasure: the words are gone from the file's bytes, the votes and the log stand (table P5)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from reviews.chats import Chats
from reviews.erasure import ERASED, Subject, erase, main
from reviews.errors import AuditBroken, LastAdmin, RecordError, UnknownAssignment
from reviews.export import export, export_again
from reviews.migrations import backup
from reviews.people import People
from reviews.records import Assignment, Better, Span
from reviews.store import Store

Live = Callable[..., Assignment]
WORDS = {
    name: f"鸟语花香之{name}Zq9x"
    for name in ("reason", "note", "better", "draft", "chat", "old", "typed", "report")
}


@pytest.fixture
def voted(filled: Store, wang: int, li: int) -> tuple[Store, str]:
    """Both voted on one comparison with every kind of text, wang twice; a draft lies open. Returns its id."""
    first = filled.next_prepared(wang, "ten")
    assert first is not None
    span = Span("left", 1, 0, 4, "wrong_dose", WORDS["note"])
    filled.cast_vote(first.id, wang, "right", reason=WORDS["old"])
    filled.cast_vote(
        first.id, wang, "left", reason=WORDS["reason"], spans=[span],
        better=Better(WORDS["better"], "left", True), revise=True,
    )  # fmt: skip
    filled.report(first.id, wang, WORDS["report"])
    second = filled.next_prepared(wang, "ten")
    assert second is not None
    filled.save_draft(second.id, wang, {"reason": WORDS["draft"]})
    while (given := filled.next_prepared(li, "ten")) is not None:
        filled.cast_vote(given.id, li, "tie", reason="kurz")
    return filled, first.comparison_id


def on_disk(path: Path) -> bytes:
    """The bytes of the database and of its -wal."""
    wal = path.with_name(path.name + "-wal")
    return path.read_bytes() + (wal.read_bytes() if wal.exists() else b"")


def question_of(store: Store, comparison_id: str) -> str:
    row = store.database.connection().conn.execute(
        "SELECT question FROM turns WHERE comparison_id = ?", (comparison_id,)
    )
    return str(row.fetchone()[0])


def test_a_comparisons_words_are_gone_from_the_bytes_and_its_votes_count(
    voted: tuple[Store, str], path: Path
) -> None:
    store, comparison = voted
    question, before, votes = (
        question_of(store, comparison),
        store.counted_votes("ten"),
        store.votes(),
    )
    assert all(
        WORDS[w].encode() in on_disk(path) for w in ("old", "reason", "note", "better", "report")
    )
    report = erase(store, Subject(comparison=comparison), "the patient asked", "user:9")
    left = on_disk(path)
    gone = (WORDS[w] for w in ("old", "reason", "note", "better", "report"))
    for words in (question, *gone):
        assert words.encode() not in left
    assert [one.reason for one in store.reports("ten")] == [ERASED]
    assert WORDS["draft"].encode() in left  # of another comparison
    assert store.counted_votes("ten") == before
    assert [(v.choice, v.winner, v.ratings) for v in store.votes()] == [
        (v.choice, v.winner, v.ratings) for v in votes
    ]
    assert store.verify_audit().rows > 0
    (vote,) = [
        v for v in store.votes() if v.comparison_id == comparison and v.better is None and v.spans
    ]
    assert vote.reason == ERASED and vote.spans[0].note == "" and vote.spans[0].kind == "wrong_dose"
    rows = (
        store.database.connection().conn.execute("SELECT subject, reason FROM erasures").fetchall()
    )
    assert (f"comparison:{comparison}", "the patient asked") in [tuple(row) for row in rows]
    assert report.texts == len(rows) - 1 == 3 + 2 + 1 + 1 + 1 + 1


def test_a_second_erasure_finds_nothing_and_the_log_still_holds(voted: tuple[Store, str]) -> None:
    store, comparison = voted
    erase(store, Subject(comparison=comparison), "once", "user:9")
    assert erase(store, Subject(comparison=comparison), "twice", "user:9").texts == 0
    store.verify_audit()


def test_an_erasure_hides_no_other_change(voted: tuple[Store, str], path: Path) -> None:
    store, comparison = voted
    erase(store, Subject(comparison=comparison), "asked", "user:9")
    conn = sqlite3.connect(path)
    names = [
        row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    ]
    assert {"votes_no_update", "answers_no_update"} <= set(names)
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute("UPDATE votes SET choice = 'tie'")
    conn.rollback()
    conn.execute("DROP TRIGGER votes_no_update")
    conn.execute("UPDATE votes SET choice = 'both_bad' WHERE revision = 2")
    conn.commit()
    with pytest.raises(AuditBroken, match="was changed"):
        store.verify_audit()
    conn.execute("UPDATE votes SET choice = 'left' WHERE revision = 2")
    conn.commit()
    store.verify_audit()
    conn.execute("UPDATE erasures SET sha256 = ? WHERE subject LIKE '%/reason'", ("0" * 64,))
    conn.commit()
    with pytest.raises(AuditBroken, match="was changed"):
        store.verify_audit()
    conn.close()


def test_a_raters_words_and_name_are_gone_and_the_account_is_closed(
    voted: tuple[Store, str], wang: int, li: int, people: People, live: Live, path: Path
) -> None:
    store, _ = voted
    typed = live()
    store.cast_vote(typed.id, wang, "left", reason=WORDS["typed"])
    chats = Chats(store.database)
    chat = chats.new_chat(f"user:{wang}", "m", "zh")
    chats.add_question(chat, f"user:{wang}", WORDS["chat"])
    votes = store.counted_votes()
    erase(store, Subject(rater="王医生"), "she left and asked", "user:9")
    left = on_disk(path)
    for words in (*WORDS.values(), "王医生", "第1问"):
        assert words.encode() not in left, words
    assert b"kurz" in left  # the other rater's
    user = people.user(wang)
    assert user is not None and user.disabled_at is not None and user.name == f"erased-{wang}"
    assert people.user_named("王医生") is None and people.user_named("Dr. Li") is not None
    assert store.counted_votes() == votes
    store.verify_audit()


def test_a_chat_is_gone(store: Store, path: Path) -> None:
    chats = Chats(store.database)
    ids = [chats.new_chat(f"s:{n}", "m", "zh") for n in range(2)]
    for number, chat in enumerate(ids):
        chats.add_question(chat, f"s:{number}", f"{WORDS['chat']}-{number}")
        chats.add_answer(chat, f"{WORDS['old']}-{number}", "stop")
    assert erase(store, Subject(chat=ids[0]), "asked", "user:9").texts == 2
    left = on_disk(path)
    assert f"{WORDS['chat']}-0".encode() not in left and f"{WORDS['old']}-0".encode() not in left
    assert [m.text for m in chats.messages(ids[1], "s:1")] == [
        f"{WORDS['chat']}-1",
        f"{WORDS['old']}-1",
    ]
    store.verify_audit()


def test_an_erased_text_teaches_nobody_and_an_export_made_before_says_why_it_cannot_be_made_again(
    voted: tuple[Store, str], tmp_path: Path
) -> None:
    store, comparison = voted
    export(store.database, tmp_path / "before")
    erase(store, Subject(comparison=comparison), "asked", "user:9")
    manifest = export(store.database, tmp_path / "after")
    assert manifest.counts["votes.csv"] == 11 and manifest.counts["pairs.jsonl"] == 0
    assert manifest.counts["ties.jsonl"] == 9 and manifest.content["erased_comparisons"] == 1
    with pytest.raises(RecordError, match=f"texts were erased since .comparison:{comparison}"):
        export_again(store.database, tmp_path / "before" / "manifest.json", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    export_again(store.database, tmp_path / "after" / "manifest.json", tmp_path / "again")


@pytest.mark.parametrize(
    ("subject", "reason", "error"),
    [
        (Subject(comparison="0" * 32), "asked", UnknownAssignment),
        (Subject(chat="x' OR 1=1 --"), "asked", UnknownAssignment),
        (Subject(rater="nobody"), "asked", UnknownAssignment),
        (Subject(), "asked", RecordError),
        (Subject(comparison="1", chat="2"), "asked", RecordError),
        (Subject(rater="王医生"), " \n", RecordError),
        (Subject(rater="王医生"), "x" * 2001, RecordError),
        (Subject(rater="root"), "asked", LastAdmin),
    ],
)
def test_what_cannot_be_erased_changes_nothing(
    voted: tuple[Store, str], people: People, subject: Subject, reason: str, error: type[Exception]
) -> None:
    store, _ = voted
    people.add_user("root", "admin", "hash", "system")
    before = "\n".join(store.database.connection().conn.iterdump())
    with pytest.raises(error):
        erase(store, subject, reason, "user:9")
    assert "\n".join(store.database.connection().conn.iterdump()) == before


def test_the_command_names_the_backups(
    voted: tuple[Store, str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, comparison = voted
    backup(store.database, path.with_name("reviews.sqlite3.nightly.backup"))
    store.close()
    command = ["--comparison", comparison, "--data", str(path.parent)]
    assert main([*command, "--reason", "asked"]) == 0
    told = capsys.readouterr().out
    assert "9 texts erased" in told and "reviews.sqlite3.nightly.backup" in told
    assert main([*command, "--reason", ""]) == 1
    assert "give a reason" in capsys.readouterr().err
    assert main(["--chat", "x", "--reason", "y", "--data", str(path.parent / "none")]) == 1
    assert "there is no record" in capsys.readouterr().err
