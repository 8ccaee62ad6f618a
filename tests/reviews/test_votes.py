"""Votes: idempotent, append-only, only on finished answers, only by their rater (table V)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from reviews import votes
from reviews.errors import (
    AlreadyVoted,
    AssignmentClosed,
    BadVote,
    NotFinished,
    NotYours,
    RecordError,
    UnknownAssignment,
)
from reviews.records import CHOICES, Assignment, winner_of
from reviews.store import Store

Live = Callable[..., Assignment]


def snapshot(store: Store) -> list[list[tuple[Any, ...]]]:
    with store.database.read() as db:
        tables = ("votes", "audit", "assignments")
        return [[tuple(row) for row in db.conn.execute(f"SELECT * FROM {t}")] for t in tables]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_vote_is_kept_with_everything_said(
    store: Store, wang: int, live: Live, choice: str
) -> None:
    given = live(left_is="b")
    outcome = store.cast_vote(
        given.id, wang, choice, reason=" 更完整\n。 ", ratings={"clarity": 4}, seconds=12.3456
    )
    assert outcome == "recorded"
    assignment, _ = store.view(given.id, wang)
    assert assignment.state == "voted"
    assert assignment.vote is not None
    assert (assignment.vote.choice, assignment.vote.reason) == (choice, "更完整\n。")
    assert (assignment.vote.ratings, assignment.vote.seconds) == ({"clarity": 4}, 12.346)
    (row,) = store.votes()
    assert row.winner == {"left": "b", "right": "a"}.get(choice, choice)
    assert row.winner == winner_of(row.choice, row.left_is)


def test_v1_v3_a_second_click_changes_nothing(
    store: Store, wang: int, live: Live, clock: Any
) -> None:
    given = live()
    assert store.cast_vote(given.id, wang, "left") == "recorded"
    before = snapshot(store)
    clock.move(days=1)
    assert store.cast_vote(given.id, wang, "left", reason="later") == "same"
    assert snapshot(store) == before


@pytest.mark.parametrize("kind", ["live", "prepared"])
def test_v2_twenty_votes_at_once_are_one_vote(
    filled: Store, wang: int, live: Live, kind: str
) -> None:
    store, given = filled, live() if kind == "live" else filled.next_prepared(wang, "ten")
    assert given is not None
    outcomes: list[str] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(store.cast_vote(given.id, wang, "tie")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["recorded"] + ["same"] * 19
    with store.database.read() as db:
        assert db["votes"].count == 1
        assert db["audit"].count_where("action = 'vote'") == 1


def test_v2_a_vote_that_comes_between_looking_and_writing_is_seen(
    filled: Store, wang: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    look, outcomes = votes._read_facts, []

    def look_and_be_overtaken(*args: Any) -> votes.Facts:
        facts = look(*args)
        monkeypatch.setattr(votes, "_read_facts", look)
        outcomes.append(filled.cast_vote(given.id, wang, "left"))
        return facts

    monkeypatch.setattr(votes, "_read_facts", look_and_be_overtaken)
    outcomes.append(filled.cast_vote(given.id, wang, "left"))
    assert outcomes == ["recorded", "same"]
    filled.verify_audit()


def test_v4_v17_another_choice_is_a_conflict_until_the_rater_revises(
    store: Store, wang: int, live: Live
) -> None:
    given = live()
    store.cast_vote(given.id, wang, "left", reason="a")
    before = snapshot(store)
    assert store.cast_vote(given.id, wang, "right") == "conflict"
    assert snapshot(store) == before
    assert store.cast_vote(given.id, wang, "right", revise=True) == "recorded"
    assert store.cast_vote(given.id, wang, "right", revise=True) == "same"
    (row,) = store.votes()
    assert (row.choice, row.revisions) == ("right", 2)
    with store.database.read() as db:
        last = next(db.query("SELECT * FROM audit ORDER BY seq DESC LIMIT 1"))
        assert '"choice":"left"' in last["before"]
        assert '"choice":"right"' in last["after"]
        assert db["votes"].count == 2
    store.verify_audit()


def test_a_revision_may_change_only_the_reason(store: Store, wang: int, live: Live) -> None:
    given = live()
    store.cast_vote(given.id, wang, "left")
    assert store.cast_vote(given.id, wang, "left", reason="why", revise=True) == "recorded"
    assert store.votes()[0].reason == "why"


def test_two_revisions_at_once_both_leave_a_whole_record(
    store: Store, wang: int, live: Live
) -> None:
    given = live()
    store.cast_vote(given.id, wang, "left")
    choices = ["right", "tie", "both_bad", "left"] * 4
    threads = [
        threading.Thread(
            target=store.cast_vote, args=(given.id, wang, choice), kwargs={"revise": True}
        )
        for choice in choices
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.database.read() as db:
        revisions = [row["revision"] for row in db["votes"].rows_where(order_by="revision")]
    assert revisions == list(range(1, len(revisions) + 1))
    store.verify_audit()


def test_v5_two_raters_vote_on_the_same_pair(filled: Store, wang: int, li: int) -> None:
    filled.add_prepared("one", [], "system")
    seen = set()
    for rater, choice in ((wang, "left"), (li, "right")):
        while (given := filled.next_prepared(rater, "ten")) is not None:
            filled.cast_vote(given.id, rater, choice)
            seen.add((rater, given.comparison_id))
    assert len(seen) == 20
    assert {row.rater for row in filled.votes("ten")} == {1, 2}


def test_v6_anothers_assignment_is_refused_like_an_unknown_one_and_logged(
    store: Store, wang: int, li: int, live: Live
) -> None:
    given = live()
    calls: list[Callable[[str], object]] = [
        lambda i: store.cast_vote(i, li, "left"),
        lambda i: store.view(i, li),
        lambda i: store.skip(i, li),
        lambda i: store.report(i, li, "x"),
        lambda i: store.add_turn(i, li, "x"),
        lambda i: store.retry_turn(i, li),
    ]
    for call in calls:
        with pytest.raises(NotYours) as mine:
            call(given.id)
        with pytest.raises(UnknownAssignment) as unknown:
            call("0" * 32)
        assert str(mine.value) == str(unknown.value)
    with store.database.read() as db:
        assert db["audit"].count_where("action = 'refused'") == len(calls)
        assert db["votes"].count == 0
    store.verify_audit()


@pytest.mark.parametrize(
    "assignment_id",
    ["", "nope", "x" * 10_000, "1' OR 1=1 --", "a\0b", "ＡＢ\ud800", None, 7, ["x"], {"a": 1}],
)
def test_v7_a_malformed_id_is_unknown(store: Store, wang: int, assignment_id: Any) -> None:
    for call in (store.view, store.skip, store.retry_turn):
        with pytest.raises(UnknownAssignment):
            call(assignment_id, wang)
    with pytest.raises(UnknownAssignment):
        store.cast_vote(assignment_id, wang, "left")


@pytest.mark.parametrize(
    "choice", ["", "LEFT", "左", "left ", None, 0, ["left"], True, {"left": 1}]
)
def test_v8_any_other_choice_is_refused(store: Store, wang: int, live: Live, choice: Any) -> None:
    given = live()
    before = snapshot(store)
    with pytest.raises(BadVote):
        store.cast_vote(given.id, wang, choice)
    assert snapshot(store) == before


@pytest.mark.parametrize(
    "ratings",
    [{"clarity": True}, {"clarity": 2.5}, {"clarity": 99}, {"": 1}, {"Clarity": 1}, {"x" * 40: 1}],
)
def test_odd_ratings_are_refused(store: Store, wang: int, live: Live, ratings: Any) -> None:
    with pytest.raises(BadVote):
        store.cast_vote(live().id, wang, "left", ratings=ratings)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 1e12, "3", None])
def test_a_senseless_time_costs_no_vote(store: Store, wang: int, live: Live, seconds: Any) -> None:
    assert store.cast_vote(live().id, wang, "left", seconds=seconds) == "recorded"
    assert store.votes()[0].seconds is None


def test_v9_no_vote_before_every_answer_is_finished(store: Store, wang: int) -> None:
    given = store.open_live(wang, "m1", "m2", "a", language="zh")
    with pytest.raises(NotFinished):
        store.cast_vote(given.id, wang, "left")
    store.add_turn(given.id, wang, "问")
    store.finish_side(given.comparison_id, 1, "a", "text", "stop", {})
    with pytest.raises(NotFinished):
        store.cast_vote(given.id, wang, "left")
    store.finish_side(given.comparison_id, 1, "b", "half", "length", {})
    with pytest.raises(NotFinished):
        store.cast_vote(given.id, wang, "left")
    store.retry_turn(given.id, wang)
    for side in ("a", "b"):
        store.finish_side(given.comparison_id, 1, side, "whole", "stop", {})  # type: ignore[arg-type]
    assert store.cast_vote(given.id, wang, "left") == "recorded"


@pytest.mark.parametrize("finish", ["length", "cancelled", "error"])
def test_v9_half_an_answer_is_never_voted_on(
    store: Store, wang: int, live: Live, finish: str
) -> None:
    given = live(1)
    store.add_turn(given.id, wang, "再问")
    store.finish_side(given.comparison_id, 2, "a", "ok", "stop", {})
    store.finish_side(given.comparison_id, 2, "b", "…", finish, {})
    with pytest.raises(NotFinished):
        store.cast_vote(given.id, wang, "left")


def test_v10_a_reported_pair_takes_no_vote_and_says_why(
    store: Store, wang: int, live: Live
) -> None:
    given = live()
    store.report(given.id, wang, "有害")
    store.report(given.id, wang, "有害")
    with pytest.raises(AssignmentClosed, match="reported"):
        store.cast_vote(given.id, wang, "left")
    with store.database.read() as db:
        assert db["audit"].count_where("action = 'report'") == 1


def test_a_report_after_the_vote_is_logged_and_the_vote_stands(
    store: Store, wang: int, live: Live
) -> None:
    given = live()
    store.cast_vote(given.id, wang, "left")
    store.report(given.id, wang, "危险")
    assert len(store.votes()) == 1
    said = sha256("危险".encode()).hexdigest()
    with store.database.read() as db:
        assert db["audit"].count_where("action = 'report'") == 1
        assert db["audit"].count_where(f"after LIKE '%{said}%' AND after LIKE '%_length\":2%'") == 1
        assert db["audit"].count_where("after LIKE '%危险%'") == 0  # erasure cannot reach the log
    (told,) = store.reports("live")
    assert (told.reason, told.contestant_a, told.case) == ("危险", "m1", given.comparison_id)


def test_a_skipped_live_pair_is_closed_and_a_voted_one_cannot_be_skipped(
    store: Store, wang: int, live: Live
) -> None:
    first, second = live(), live()
    store.skip(first.id, wang)
    store.skip(first.id, wang)
    with pytest.raises(AssignmentClosed):
        store.cast_vote(first.id, wang, "left")
    with pytest.raises(AssignmentClosed):
        store.add_turn(first.id, wang, "x")
    store.cast_vote(second.id, wang, "left")
    with pytest.raises(AlreadyVoted):
        store.skip(second.id, wang)
    with pytest.raises(AssignmentClosed):
        store.add_turn(second.id, wang, "x")


def test_v12_a_reason_is_cleaned_or_refused(store: Store, wang: int, live: Live) -> None:
    with pytest.raises(BadVote, match="2001"):
        store.cast_vote(live().id, wang, "left", reason="长" * 2001)
    with pytest.raises(BadVote):
        store.cast_vote(live().id, wang, "left", reason=None)  # type: ignore[arg-type]
    for reason, kept in (
        ("a\0b\x07\u202e", "ab"),
        (" \n ", ""),
        ("长" * 2000, "长" * 2000),
        ("👩‍⚕️𠮷\ud800", "👩‍⚕️𠮷\ufffd"),
    ):
        given = live()
        store.cast_vote(given.id, wang, "left", reason=reason)
        vote = store.view(given.id, wang)[0].vote
        assert vote is not None and vote.reason == kept


def test_v18_one_model_is_never_compared_with_itself(store: Store, wang: int) -> None:
    with pytest.raises(RecordError):
        store.open_live(wang, "m1", "m1", "a", language="zh")


def test_v19_a_vote_works_after_a_restart(path: Any, store: Store, wang: int, live: Live) -> None:
    given = live()
    store.close()
    again = Store.open(path)
    assert again.cast_vote(given.id, wang, "left") == "recorded"
    again.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE votes SET choice = 'right'",
        "DELETE FROM votes",
        "INSERT OR REPLACE INTO votes SELECT * FROM votes",
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "REPLACE INTO audit SELECT * FROM audit",
        "UPDATE answers SET text = 'x'",
        "DELETE FROM answers",
    ],
)
def test_votes_log_and_answers_can_only_grow(
    path: Any, store: Store, wang: int, live: Live, statement: str
) -> None:
    store.cast_vote(live().id, wang, "left")
    before = snapshot(store)
    outside = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        outside.execute(statement)
    outside.close()
    assert snapshot(store) == before


def test_a_late_answer_to_an_earlier_attempt_is_ignored(store: Store, wang: int) -> None:
    given = store.open_live(wang, "m1", "m2", "a", language="zh")
    store.add_turn(given.id, wang, "问")
    store.finish_side(given.comparison_id, 1, "a", "old", "error", {})
    assert store.retry_turn(given.id, wang) == 1
    store.finish_side(given.comparison_id, 1, "b", "late", "stop", {}, attempt=1)
    turn = store.view(given.id, wang)[1].turns[0]
    assert (turn.a, turn.b, turn.attempt) == (None, None, 2)
    with store.database.read() as db:
        assert [row["text"] for row in db["answers"].rows] == ["old"]


def test_each_side_is_stored_once(store: Store, wang: int, live: Live) -> None:
    given = live()
    store.finish_side(given.comparison_id, 1, "a", "other", "error", {})
    side = store.view(given.id, wang)[1].turns[0].a
    assert side is not None and (side.text, side.finish) == ("a1", "stop")
    with pytest.raises(UnknownAssignment):
        store.finish_side(given.comparison_id, 9, "a", "x", "stop", {})
    with pytest.raises(ValueError):
        store.finish_side(given.comparison_id, 1, "a", "x", "done", {})


def test_a_question_waits_for_both_answers(store: Store, wang: int) -> None:
    given = store.open_live(wang, "m1", "m2", "a", language="zh", settings_a={"t": 0.7})
    assert store.add_turn(given.id, wang, "一\0") == 1
    with pytest.raises(NotFinished):
        store.add_turn(given.id, wang, "二")
    for side in ("a", "b"):
        store.finish_side(given.comparison_id, 1, side, "答", "stop", {"seed": 3})  # type: ignore[arg-type]
    with pytest.raises(AssignmentClosed):
        store.retry_turn(given.id, wang)
    assert store.add_turn(given.id, wang, "二") == 2
    assignment, comparison = store.view(given.id, wang)
    assert store.current_live(wang) == assignment
    assert [t.question for t in comparison.turns] == ["一", "二"]
    assert comparison.settings_a == {"t": 0.7}
    assert comparison.turns[0].a is not None and comparison.turns[0].a.settings == {"seed": 3}
    assert not comparison.is_votable


def test_nothing_is_given_to_an_unknown_or_disabled_rater(
    filled: Store, people: Any, wang: int
) -> None:
    people.disable(wang, "system")
    for rater in (wang, 999):
        with pytest.raises(UnknownAssignment):
            filled.next_prepared(rater, "ten")
        with pytest.raises(UnknownAssignment):
            filled.open_live(rater, "m1", "m2", "a", language="zh")
