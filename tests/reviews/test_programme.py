"""A study in the record: protocol, queue, closing, marks, drafts, adjudication, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from reviews.adjudication import mirrored
from reviews.erasure import Subject, erase
from reviews.errors import (
    AssignmentClosed,
    AuditBroken,
    BadStudy,
    BadVote,
    NotInvited,
    NotYours,
    StudyFrozen,
)
from reviews.people import People
from reviews.protocol import CRITERIA, Closing, Criterion, Protocol
from reviews.records import Better, Case, PreparedPair, Span
from reviews.store import Store

MakePair = Callable[..., PreparedPair]


def protocol(**changes: Any) -> Protocol:
    return Protocol(**{"name": "ten", "title_zh": "十题", "title_en": "Ten", **changes})


@pytest.fixture
def raters(people: People) -> list[int]:
    return [people.add_user(f"医生{i}", "physician", "hash", "system").id for i in range(6)]


def vote_all(store: Store, rater: int, study: str, choose: Callable[[Any], str], most: int = 999) -> int:  # fmt: skip
    """The rater goes through the queue; returns how many votes were cast."""
    done = 0
    while done < most and (given := store.next_prepared(rater, study)) is not None:
        assert store.cast_vote(given.id, rater, choose(given), seconds=30) == "recorded"
        done += 1
    return done


# the protocol


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "name"), ({"name": "a\nb"}, "name"), ({"name": "x" * 65}, "name"),
        ({"language": "fr"}, "language"), ({"kind": "both"}, "kind"), ({"pairing": "best"}, "pairing"),
        ({"contestants": ("a",)}, "contestants"), ({"contestants": ("a", "a")}, "contestants"),
        ({"overlap": 0}, "overlap"), ({"overlap": True}, "overlap"), ({"overlap": 3, "raters": ("x", "y")}, "overlap"),
        ({"closing": Closing(votes=0)}, "closing.votes"), ({"closing": Closing(until="31.12.2026")}, "closing.until"),
        ({"closing": Closing(alpha=0.9)}, "closing.alpha"), ({"fastest_s": -1}, "fastest_s"),
        ({"gold": {"c": "z"}, "contestants": ("a", "b")}, "gold"), ({"seed": 1.5}, "seed"),
        ({"criteria": (CRITERIA["asking"], CRITERIA["asking"])}, "criteria"),
        ({"criteria": (Criterion("Bad Key", "scale", "一", "one"),)}, "criteria"),
        ({"criteria": (Criterion("ok", "stars", "一", "one"),)}, "kind"),  # type: ignore[arg-type]
        ({"criteria": (Criterion("ok", "scale", "", "one"),)}, "title"), ({"notes": "a\x00"}, "notes"),
    ],
)  # fmt: skip
def test_a_protocol_that_cannot_be_is_refused_by_key(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadStudy, match=says):
        protocol(**changes)


def test_a_protocol_comes_back_from_its_text_with_the_same_hash() -> None:
    rich = protocol(
        criteria=(CRITERIA["asking"], Criterion("tone", "preference", "语气", "Tone", True)),
        gold={"case-1": "model-a"}, closing=Closing(9, "2026-12-31", True, 0.01), raters=("医生1",),
    )  # fmt: skip
    back = Protocol.from_json(rich.canonical())
    assert back == rich and back.sha256 == rich.sha256 and len(rich.sha256) == 64
    assert dataclasses.replace(rich, seed=43).sha256 != rich.sha256
    with pytest.raises(BadStudy, match="not a study's protocol"):
        Protocol.from_json('{"name": "x", "surprise": 1}')


def test_a_draft_can_be_replaced_and_a_study_that_has_begun_cannot(filled: Store, wang: int) -> None:  # fmt: skip
    assert filled.file_study(protocol(), "system").state == "draft"
    second = filled.file_study(protocol(overlap=2), "system")
    assert second.protocol.overlap == 2 and len(filled.filed_studies()) == 1
    assert filled.next_prepared(wang, "ten") is not None
    study = filled.study("ten")
    assert study is not None and study.state == "frozen" and study.frozen_at is not None
    with pytest.raises(StudyFrozen, match="another name"):
        filled.file_study(protocol(overlap=3), "system")
    assert filled.file_study(protocol(overlap=2), "system").state == "frozen"
    actions = [r["action"] for r in filled.database.connection().query("SELECT action FROM audit")]
    assert actions.count("study.file") == 2 and actions.count("study.freeze") == 1
    filled.verify_audit()


def test_a_study_begun_without_a_protocol_gets_none_afterwards(filled: Store, wang: int) -> None:
    filled.next_prepared(wang, "ten")
    with pytest.raises(BadStudy, match="without a protocol"):
        filled.file_study(protocol(), "system")
    with pytest.raises(BadStudy, match="kept"):
        filled.file_study(protocol(name="live"), "system")
    with pytest.raises(BadStudy, match="no filed protocol"):
        filled.freeze_study("nothing", "system")


# the pairs are frozen with the protocol


def _logged(store: Store, action: str) -> dict[str, str]:
    query = "SELECT after FROM audit WHERE action = ? ORDER BY seq DESC LIMIT 1"
    found: dict[str, str] = json.loads(store.database.connection().conn.execute(query, (action,)).fetchone()[0])  # fmt: skip
    return found


def _hashed_by_hand(pairs: list[PreparedPair]) -> str:
    def one(text: str) -> str:
        return sha256(text.encode()).hexdigest() if text else ""

    rows = [
        [p.external_id, p.contestant_a, p.contestant_b, p.department, p.intent, p.language, p.source, "{}", "{}",
         [[one(t.question), one(t.question_b), one(t.answer_a), one(t.answer_b)] for t in p.turns]]
        for p in sorted(pairs, key=lambda p: p.external_id)
    ]  # fmt: skip
    return one(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))


@pytest.mark.parametrize("how", ["by hand", "by the first pair", "by closing a draft"])
def test_a_study_s_pairs_are_registered_with_its_protocol_and_then_no_pair_is_added(
    filled: Store, wang: int, make_pair: Callable[..., PreparedPair], how: str
) -> None:
    filled.file_study(protocol(), "system")
    if how == "by hand":
        filled.freeze_study("ten", "system")
    elif how == "by the first pair":
        filled.next_prepared(wang, "ten")
    else:
        filled.close_study("ten", "system", "given up")
    study, ten = filled.study("ten"), [make_pair(n) for n in range(10)]
    assert study is not None and study.pairs_sha256 == _hashed_by_hand(ten)
    action = "study.close" if how == "by closing a draft" else "study.freeze"
    assert _logged(filled, action)["pairs_sha256"] == study.pairs_sha256
    with pytest.raises(StudyFrozen, match=r"study 'ten' is (frozen|closed).*another study's name"):
        filled.add_prepared("ten", [*ten, make_pair(11)], "x")
    with pytest.raises(StudyFrozen, match="take no addition"):
        filled.add_cases("ten", [Case("k", "头痛？")], "x")
    assert (
        filled.add_prepared("ten", ten, "x").already_there == 10
    )  # the same file again is no harm
    assert [(s.pairs, s.cases) for s in filled.studies()] == [(10, 0)]
    filled.verify_audit()


def test_an_empty_study_cannot_be_frozen_and_a_live_one_takes_cases_until_it_is_closed(
    filled: Store,
) -> None:
    filled.file_study(protocol(name="empty"), "system")
    with pytest.raises(BadStudy, match="has no pairs yet; file them first"):
        filled.freeze_study("empty", "system")
    filled.file_study(protocol(name="played", kind="live"), "system")
    assert filled.freeze_study("played", "system").pairs_sha256 == ""
    assert filled.add_cases("played", [Case("k", "头痛？", card="一张卡")], "x").added == 1
    filled.close_study("played", "system", "done")
    with pytest.raises(StudyFrozen, match="is closed"):
        filled.add_cases("played", [Case("l", "发热？")], "x")


def test_the_log_finds_frozen_pairs_that_were_changed_and_allows_those_that_were_erased(
    filled: Store,
) -> None:
    filled.file_study(protocol(), "system")
    conn = filled.database.connection().conn
    before, after = (
        conn.execute("SELECT id FROM comparisons WHERE external_id = ?", (case,)).fetchone()[0]
        for case in ("case-2", "case-3")
    )
    erase(filled, Subject(comparison=before), "asked for", "system")
    filled.freeze_study("ten", "system")
    filled.verify_audit()
    erase(filled, Subject(comparison=after), "asked for", "system")
    filled.verify_audit()
    filled.close_study("ten", "system", "done")
    conn.execute("UPDATE comparisons SET department = '外科' WHERE external_id = 'case-4'")
    with pytest.raises(AuditBroken, match="the pairs that it froze were changed"):
        filled.verify_audit()


@pytest.mark.parametrize("state", ["draft", "frozen", "closed"])
@pytest.mark.parametrize(
    "change", ["UPDATE studies SET protocol = replace(protocol, '\"overlap\":2', '\"overlap\":9')", "DELETE FROM studies"]
)  # fmt: skip
def test_the_log_finds_a_protocol_that_was_changed(filled: Store, state: str, change: str) -> None:
    filled.file_study(protocol(overlap=3), "system")
    filled.file_study(protocol(overlap=2), "system")  # a draft filed anew
    if state != "draft":
        filled.freeze_study("ten", "system")
    if state == "closed":
        filled.close_study("ten", "system", "done")
    filled.verify_audit()
    filled.database.connection().conn.execute(change)
    with pytest.raises(AuditBroken, match="the protocol that it tells of was changed"):
        filled.verify_audit()


# the queue


def test_every_pair_gets_its_overlap_and_then_the_study_closes(filled: Store, raters: list[int]) -> None:  # fmt: skip
    filled.file_study(protocol(overlap=3), "system")
    rng = random.Random(0)
    busy = list(raters)
    while busy:  # they work side by side, one pair at a time
        rater = rng.choice(busy)
        if not vote_all(filled, rater, "ten", lambda _: rng.choice(("left", "right")), 1):
            busy.remove(rater)
    votes = filled.votes("ten")
    assert Counter(Counter(v.comparison_id for v in votes).values()) == {3: 10}
    assert all(len({v.rater for v in votes if v.comparison_id == c}) == 3 for c in {v.comparison_id for v in votes})  # fmt: skip
    for rater in {v.rater for v in votes}:
        lefts = Counter(v.left_is for v in votes if v.rater == rater)
        assert abs(lefts["a"] - lefts["b"]) <= 1
    study = filled.study("ten")
    assert study is not None and (study.state, study.close_reason) == ("closed", "closing rule: overlap")  # fmt: skip


def test_only_the_named_raters_get_pairs_and_their_share_is_counted(filled: Store, raters: list[int]) -> None:  # fmt: skip
    filled.file_study(protocol(raters=("医生0", "医生1"), overlap=1), "system")
    with pytest.raises(NotInvited, match="names its raters"):
        filled.next_prepared(raters[2], "ten")
    assert filled.next_prepared(raters[0], "ten") is not None
    assert filled.progress(raters[0], "ten").total == 5


@pytest.mark.parametrize(
    ("closing", "reason"),
    [(Closing(votes=4), "votes"), (Closing(until="2026-05-07"), "until"), (Closing(sequential=True), "sequential")],
)  # fmt: skip
def test_a_rule_that_is_met_closes_the_study(
    filled: Store, raters: list[int], clock: Any, closing: Closing, reason: str
) -> None:
    filled.file_study(protocol(overlap=6, closing=closing), "system")
    for rater in raters:
        vote_all(filled, rater, "ten", lambda g: "left" if g.left_is == "a" else "right", 4)
        clock.move(hours=20)
        if reason == "votes":
            break
    assert filled.next_prepared(raters[0], "ten") is None
    study = filled.study("ten")
    assert study is not None and study.close_reason == f"closing rule: {reason}"


def test_a_closed_study_takes_no_vote_and_keeps_those_it_has(filled: Store, wang: int, li: int) -> None:  # fmt: skip
    filled.file_study(protocol(overlap=2), "system")
    first = filled.next_prepared(wang, "ten")
    other = filled.next_prepared(li, "ten")
    assert first is not None and other is not None
    filled.cast_vote(first.id, wang, "left")
    filled.close_study("ten", wang, "enough")
    with pytest.raises(AssignmentClosed, match="closed"):
        filled.cast_vote(other.id, li, "left")
    with pytest.raises(AssignmentClosed, match="closed"):
        filled.cast_vote(first.id, wang, "right", revise=True)
    assert filled.cast_vote(first.id, wang, "left") == "same"
    assert filled.next_prepared(li, "ten") is None and len(filled.votes("ten")) == 1


def test_gold_pairs_go_to_everybody(filled: Store, raters: list[int]) -> None:
    filled.file_study(protocol(overlap=1, gold={"case-3": "model-a", "case-7": "tie"}), "system")
    for rater in raters:
        vote_all(filled, rater, "ten", lambda _: "tie")
        if filled.study("ten").state == "closed":  # type: ignore[union-attr]
            break
    seen = Counter(v.external_id for v in filled.votes("ten"))
    assert all(count == 1 for case, count in seen.items() if case not in ("case-3", "case-7"))


@pytest.mark.parametrize("pairing", ["balanced", "active"])
def test_the_plan_follows_from_the_seed(tmp_path: Any, make_pair: MakePair, pairing: str) -> None:
    def plan(seed: int, number: int) -> list[tuple[str, str, str]]:
        store = Store.open(tmp_path / f"{number}.sqlite3")
        rater = People(store.database).add_user("医生", "physician", "hash", "system").id
        pairs = [make_pair(i, *names) for i in range(8) for names in (("a", "b"), ("b", "c"))]
        store.add_prepared("ten", pairs, "system")
        store.file_study(protocol(seed=seed, pairing=pairing), "system")
        shown = []
        while (given := store.next_prepared(rater, "ten")) is not None:
            _, found = store.view(given.id, rater)
            shown.append((found.external_id, found.contestant_a, given.left_is))
            store.cast_vote(given.id, rater, "tie")
        store.close()
        return shown

    first = plan(1, 1)
    assert len(first) == 16 and plan(1, 2) == first and plan(2, 3) != first


def test_active_pairing_asks_where_it_is_open_and_keeps_the_probability(store: Store, raters: list[int], make_pair: MakePair) -> None:  # fmt: skip
    pairs = [make_pair(f"{x}{y}{i}", x, y) for x, y in (("a", "b"), ("a", "c"), ("b", "c")) for i in range(120)]  # fmt: skip
    store.add_prepared("active", pairs, "system")
    store.file_study(protocol(name="active", pairing="active", overlap=1), "system")
    strength = {"a": 0.0, "b": 0.6, "c": 4.0}
    rng = random.Random(3)

    def choose(given: Any) -> str:
        _, c = store.view(given.id, given.rater_id)
        names = (c.contestant_a, c.contestant_b)
        left, right = names if given.left_is == "a" else names[::-1]
        gap = strength[left] - strength[right]
        return "left" if rng.random() < 1 / (1 + 2.718**-gap) else "right"

    for rater in raters:
        vote_all(store, rater, "active", choose, 25)
    votes = store.votes("active")
    assert all(v.probability is not None and 0 < v.probability <= 1 for v in votes)
    asked = Counter((v.contestant_a, v.contestant_b) for v in votes[30:])
    assert asked["a", "b"] > asked["a", "c"] and asked["a", "b"] > asked["b", "c"]


# ratings, marks, better answers


RICH = (CRITERIA["diagnosis"], Criterion("tone", "preference", "语气", "Tone"), dataclasses.replace(CRITERIA["asking"], required=True))  # fmt: skip
ASKED = {"left_asking": 4, "right_asking": 2}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"ratings": {}}, "required"), ({"ratings": {**ASKED, "left_warmth": 3}}, "no rating"),
        ({"ratings": {**ASKED, "pref_tone": 0}}, "1 to 5"), ({"ratings": {**ASKED, "left_diagnosis": 6}}, "1 to 5"),
        ({"ratings": ASKED, "spans": [Span("left", 1, 0, 999, "wrong_dose")]}, "behind the answer's end"),
        ({"ratings": ASKED, "spans": [Span("left", 2, 0, 2, "wrong_dose")]}, "turn 2"),
        ({"ratings": ASKED, "spans": [Span("left", 1, 3, 3, "wrong_dose")]}, "mark begins"),
        ({"ratings": ASKED, "spans": [Span("middle", 1, 0, 2, "wrong_dose")]}, "left or right"),
        ({"ratings": ASKED, "spans": [Span("left", 1, 0, 2, "rude")]}, "one of"),
        ({"ratings": ASKED, "better": Better("x" * 8001)}, "at most"),
    ],
)  # fmt: skip
def test_what_the_protocol_does_not_ask_is_refused_and_changes_nothing(
    filled: Store, wang: int, more: dict[str, Any], says: str
) -> None:
    filled.file_study(protocol(criteria=RICH), "system")
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    with pytest.raises(BadVote, match=says):
        filled.cast_vote(given.id, wang, "left", **more)
    assert filled.votes("ten") == []


def test_ratings_marks_and_a_better_answer_come_back_and_a_revision_replaces_them(filled: Store, wang: int) -> None:  # fmt: skip
    filled.file_study(protocol(criteria=RICH, fastest_s=20), "system")
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    span = Span("right", 1, 0, 4, "missed_emergency", "先叫救护车")
    better = Better("请立即就医。", "right", True)
    told = {"ratings": {**ASKED, "pref_tone": 1}, "spans": [span, span], "better": better}
    assert filled.cast_vote(given.id, wang, "left", seconds=9, **told) == "recorded"
    (row,) = filled.votes("ten")
    assert row.spans == (span,) and row.better == better and row.fast
    assert row.ratings == {**ASKED, "pref_tone": 1}
    assert filled.cast_vote(given.id, wang, "left", seconds=50, revise=True, **told) == "same"
    assert filled.cast_vote(given.id, wang, "left", ratings=ASKED, revise=True) == "recorded"
    (row,) = filled.votes("ten")
    assert row.spans == () and row.better is None and row.revisions == 2
    assert filled.view(given.id, wang)[0].vote.ratings == ASKED  # type: ignore[union-attr]
    filled.verify_audit()


# drafts


def test_a_draft_is_the_raters_own_and_ends_with_the_vote(filled: Store, wang: int, li: int) -> None:  # fmt: skip
    given = filled.next_prepared(wang, "ten")
    assert given is not None and filled.draft(given.id, wang) is None
    filled.save_draft(given.id, wang, {"choice": "left", "reason": "一半"})
    filled.save_draft(given.id, wang, {"choice": "right"})
    assert filled.draft(given.id, wang) == {"choice": "right"}
    with pytest.raises(NotYours):
        filled.draft(given.id, li)
    with pytest.raises(NotYours):
        filled.save_draft(given.id, li, {"choice": "left"})
    for bad in ({"x": "y" * 40_000}, {"x": object()}):
        with pytest.raises(BadVote):
            filled.save_draft(given.id, wang, bad)
    filled.cast_vote(given.id, wang, "left")
    assert filled.draft(given.id, wang) is None


def test_old_drafts_are_forgotten_and_fresh_ones_are_not(filled: Store, wang: int, li: int, clock: Any) -> None:  # fmt: skip
    old, fresh = filled.next_prepared(wang, "ten"), filled.next_prepared(li, "ten")
    assert old is not None and fresh is not None
    filled.save_draft(old.id, wang, {"reason": "昨天"})
    clock.move(days=31)
    filled.save_draft(fresh.id, li, {"reason": "今天"})
    assert filled.purge_drafts(clock.now - timedelta(days=30)) == 1
    assert filled.draft(old.id, wang) is None and filled.draft(fresh.id, li) is not None


def test_a_pair_whose_texts_were_erased_is_not_given_out(filled: Store, wang: int) -> None:
    (gone,) = filled.database.connection().query(
        "SELECT id FROM comparisons WHERE external_id = 'case-4'"
    )
    erase(filled, Subject(comparison=gone["id"]), "asked for", "system")
    assert vote_all(filled, wang, "ten", lambda _: "tie") == 9


# adjudication


def test_a_senior_gets_what_raters_disagree_on_and_never_an_own_pair(filled: Store, wang: int, li: int, people: People) -> None:  # fmt: skip
    filled.file_study(protocol(overlap=3, adjudicate=True), "system")
    senior = people.add_user("主任", "adjudicator", "hash", "system").id
    by_rater = {wang: "model-a", li: "model-b"}
    for rater, likes in by_rater.items():
        for _ in range(10):
            given = filled.next_prepared(rater, "ten")
            assert given is not None
            _, c = filled.view(given.id, rater)
            left = c.contestant_a if given.left_is == "a" else c.contestant_b
            filled.cast_vote(given.id, rater, "left" if left == likes else "right", reason=likes)
    assert filled.next_adjudication(wang, "ten") is None
    given = filled.next_adjudication(senior, "ten")
    again = filled.next_adjudication(senior, "ten")
    assert given is not None and again is not None and given.id == again.id
    assert given.purpose == "adjudication"
    told = filled.adjudication_votes(given.id, senior)
    _, c = filled.view(given.id, senior)
    left = c.contestant_a if given.left_is == "a" else c.contestant_b
    assert {v.reason: v.choice for v in told} == {
        likes: ("left" if likes == left else "right") for likes in by_rater.values()
    }
    assert all(v.assignment_id == "" and v.seconds is None for v in told)
    before = filled.counted_votes("ten")
    filled.cast_vote(given.id, senior, "tie", reason="各有长短")
    assert filled.counted_votes("ten") == before and len(filled.votes("ten")) == 20
    rows = filled.votes("ten", adjudicated=True)
    assert len(rows) == 19 and sum(v.purpose == "adjudication" for v in rows) == 1
    counts = filled.counted_votes("ten", adjudicated=True)
    assert sum(v.votes for v in counts.votes) == 19
    assert len(filled.votes("ten", adjudicated=None)) == 21
    assert [v.choice for v in filled.my_votes(senior, "ten")] == ["tie"]
    with pytest.raises(AssignmentClosed):
        filled.adjudication_votes(filled.next_prepared(senior, "ten").id, senior)  # type: ignore[union-attr]


def test_mirroring_a_vote_twice_gives_the_vote(filled: Store, wang: int) -> None:
    filled.file_study(protocol(criteria=RICH), "system")
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    span = Span("right", 1, 0, 4, "wrong_dose")
    filled.cast_vote(given.id, wang, "left", ratings={**ASKED, "pref_tone": 1}, spans=[span], better=Better("好", "left", True))  # fmt: skip
    vote = filled.view(given.id, wang)[0].vote
    assert vote is not None
    other = mirrored(vote)
    assert (
        other.choice == "right" and other.spans[0].side == "left" and other.better.side == "right"
    )  # type: ignore[union-attr]
    assert other.ratings == {"right_asking": 4, "left_asking": 2, "pref_tone": 5}
    assert mirrored(other) == vote


# live studies


def test_a_live_study_takes_its_contestants_and_raters_only(store: Store, wang: int, li: int) -> None:  # fmt: skip
    plan = protocol(name="talk", kind="live", contestants=("m1", "m2"), raters=("王医生",), closing=Closing(votes=1))  # fmt: skip
    store.file_study(plan, "system")

    def begin(rater: int, a: str, b: str) -> Any:
        return store.open_live(rater, a, b, "a", language="zh", study="talk")

    with pytest.raises(NotInvited):
        begin(li, "m1", "m2")
    with pytest.raises(BadStudy, match="does not compare m3"):
        begin(wang, "m1", "m3")
    given = begin(wang, "m1", "m2")
    store.add_turn(given.id, wang, "头疼")
    for side in ("a", "b"):
        store.finish_side(given.comparison_id, 1, side, "好", "stop", {})  # type: ignore[arg-type]
    store.cast_vote(given.id, wang, "left")
    with pytest.raises(AssignmentClosed, match="closed"):
        begin(wang, "m1", "m2")
