"""What holds for every study: mirrored sides mirror the record, counts equal the votes, nobody decides an own pair."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reviews import closing, findings, reading, stats, stopping, votes
from reviews.adjudication import mirrored
from reviews.errors import (
    AssignmentClosed,
    BadStudy,
    BadVote,
    NotYours,
    RecordError,
    UnknownAssignment,
)
from reviews.people import People
from reviews.protocol import CRITERIA, SAFETY_KINDS, Closing, Criterion, Protocol
from reviews.records import Better, PreparedPair, PreparedTurn, Span, Vote, VoteRow
from reviews.store import Store

MakePair = Callable[..., PreparedPair]
TONE = Criterion("tone", "preference", "语气", "Tone")
PLAN = Protocol("ten", "十题", "Ten", overlap=6, adjudicate=True, criteria=(CRITERIA["asking"], TONE))  # fmt: skip


def random_vote(rng: random.Random, at: Any) -> Vote:
    """Everything a rater can say about an answer of at least six characters."""
    spans = tuple(
        Span(rng.choice(("left", "right")), 1, start, start + rng.randint(1, 3), rng.choice(SAFETY_KINDS))  # type: ignore[arg-type]
        for start in rng.sample(range(4), rng.randint(0, 3))
    )  # fmt: skip
    side = rng.choice(("left", "right", ""))
    return Vote(
        "", 1, rng.choice(("left", "right", "tie", "both_bad")), "因为",  # type: ignore[arg-type]
        {"left_asking": rng.randint(1, 5), "right_asking": rng.randint(1, 5), "pref_tone": rng.randint(1, 5)},
        30.0, at, spans, Better("更好的回答", side, True) if rng.random() < 0.5 else None,  # type: ignore[arg-type]
    )  # fmt: skip


def by_contestant(row: VoteRow) -> dict[str, Any]:
    """A vote with every side replaced by the contestant that stood there."""
    right_is = "b" if row.left_is == "a" else "a"
    names = {"a": row.contestant_a, "b": row.contestant_b}
    who = {"left": names[row.left_is], "right": names[right_is], "": ""}
    for_a = row.ratings["pref_tone"] if row.left_is == "a" else 6 - row.ratings["pref_tone"]
    first = min(names.values())
    return {
        "winner": names.get(row.winner, row.winner),
        "asking": {who[side]: row.ratings[f"{side}_asking"] for side in ("left", "right")},
        "tone": for_a if first == row.contestant_a else 6 - for_a,
        "spans": {(who[s.side], s.turn, s.start, s.end, s.kind) for s in row.spans},
        "better": row.better and (row.better.text, who[row.better.side]),
    }


def play(path: Path, pairs: list[PreparedPair], turned: bool) -> dict[tuple[int, str], Any]:
    """Six raters on every pair; turned: each sees the sides the other way round, and says so too."""
    store = Store.open(path)
    people = People(store.database)
    raters = [people.add_user(f"r{i}", "physician", "hash", "system").id for i in range(6)]
    store.add_prepared("ten", pairs, "system")
    store.file_study(PLAN, "system")
    rng = random.Random(5)
    for rater in raters:
        had = 0
        while (given := store.next_prepared(rater, "ten")) is not None:
            vote = random_vote(rng, given.issued_at)
            if (
                turned and had % 2 == 0
            ):  # had the coin fallen the other way; the next pair follows it
                with store.database.write() as db:
                    sql = "UPDATE assignments SET left_is = CASE left_is WHEN 'a' THEN 'b' ELSE 'a' END WHERE id = ?"  # fmt: skip
                    db.conn.execute(sql, [given.id])
            vote, had = mirrored(vote) if turned else vote, had + 1
            store.cast_vote(given.id, rater, vote.choice, reason=vote.reason, ratings=vote.ratings,
                            spans=vote.spans, better=vote.better)  # fmt: skip
    rows = store.votes("ten")
    told = {(row.rater, row.external_id): by_contestant(row) for row in rows}
    assert len(told) == len(rows) == 6 * len(pairs)
    seen = {(row.rater, row.external_id): row.left_is for row in rows}
    store.verify_audit()
    store.close()
    return {key: (value, seen[key]) for key, value in told.items()}


def test_the_sides_the_other_way_round_store_the_same_about_each_contestant(
    tmp_path: Path, make_pair: MakePair
) -> None:
    pairs = [make_pair(i) for i in range(8)]
    plain = play(tmp_path / "plain.sqlite3", pairs, turned=False)
    turned = play(tmp_path / "turned.sqlite3", pairs, turned=True)
    assert {key: told for key, (told, _) in plain.items()} == {
        key: told for key, (told, _) in turned.items()
    }
    assert all(plain[key][1] != turned[key][1] for key in plain)


def test_a_file_with_its_contestants_the_other_way_round_is_the_same_study(
    tmp_path: Path, make_pair: MakePair
) -> None:
    pairs = [make_pair(i) for i in range(8)]
    other = [
        dataclasses.replace(
            pair,
            contestant_a=pair.contestant_b,
            contestant_b=pair.contestant_a,
            turns=tuple(PreparedTurn(t.question, t.answer_b, t.answer_a) for t in pair.turns),
        )
        for pair in pairs
    ]
    first, second = tmp_path / "1.sqlite3", tmp_path / "2.sqlite3"
    assert play(first, pairs, turned=False) == play(second, other, turned=False)


@pytest.fixture
def busy(store: Store, people: People, make_pair: MakePair) -> tuple[Store, list[int]]:
    """A study of ten pairs and six people who rate and decide, pick and change, in any order."""
    pairs = [make_pair(i, *names) for i in range(5) for names in (("a", "b"), ("b", "c"))]
    store.add_prepared("ten", pairs, "system")
    store.file_study(PLAN, "system")
    raters = [people.add_user(f"r{i}", "adjudicator", "hash", "system").id for i in range(6)]
    return store, raters


def test_in_any_order_of_events_nobody_decides_an_own_pair_and_the_counts_are_the_votes(
    busy: tuple[Store, list[int]],
) -> None:
    store, raters = busy
    rng = random.Random(11)
    decided = 0
    for _ in range(260):
        rater = rng.choice(raters)
        ask = store.next_adjudication if rng.random() < 0.35 else store.next_prepared
        given = ask(rater, "ten")
        if given is None:
            back = store.previous(rater, "ten")
            if back is not None and store.study("ten").state != "closed":  # type: ignore[union-attr]
                store.cast_vote(back.id, rater, rng.choice(("left", "right", "tie")), revise=True)
            continue
        if given.purpose == "adjudication":
            told = store.adjudication_votes(given.id, rater)
            assert {"left", "right"} <= {vote.choice for vote in told}
        if rng.random() < 0.1:
            store.skip(given.id, rater)
            continue
        store.cast_vote(given.id, rater, rng.choice(("left", "right", "tie")))
        if rng.random() < 0.3:
            store.cast_vote(given.id, rater, rng.choice(("left", "right")), revise=True)
        decided += given.purpose == "adjudication"
    rows = store.votes("ten", adjudicated=None)
    of_pair = Counter((row.rater, row.comparison_id) for row in rows)
    assert max(of_pair.values()) == 1 and decided >= 5
    assert max(Counter(r.comparison_id for r in rows if r.purpose == "adjudication").values()) == 1
    votes = [row for row in rows if row.purpose == "vote"]
    counted = Counter((r.contestant_a, r.contestant_b, r.left_is, r.choice) for r in votes)
    query = (
        "SELECT contestant_a, contestant_b, left_is, choice, votes FROM outcomes WHERE votes <> 0"
    )
    kept = store.database.connection().execute(query).fetchall()
    assert {tuple(row)[:4]: row[4] for row in kept} == dict(counted)
    store.verify_audit()


@pytest.mark.parametrize("seed", range(4))
def test_what_closes_a_study_and_what_its_report_says_of_the_rules_are_the_same_after_every_vote(
    store: Store, people: People, make_pair: MakePair, seed: int
) -> None:
    """Marked leaks, changed votes, skipped pairs and a pair of contestants that has no vote for long."""
    rng = random.Random(seed)
    pairs = [make_pair(i, *names) for i in range(6) for names in (("a", "b"), ("b", "c"))]
    store.add_prepared("ten", pairs, "system")
    plan = dataclasses.replace(
        PLAN, overlap=4, closing=Closing(votes=40, sequential=True, alpha=0.2)
    )
    store.file_study(plan, "system")
    raters = [people.add_user(f"r{i}", "physician", "hash", "system").id for i in range(6)]
    for _ in range(90):
        rater = rng.choice(raters)
        given, filed, at = (
            store.next_prepared(rater, "ten"),
            store.study("ten"),
            store.database.clock(),
        )
        assert filed is not None
        read = reading.read(store, "ten")
        rules = {rule.name: rule for rule in closing.state(filed, read.closing, at).rules}
        met = next((name for name, rule in rules.items() if rule.is_met), None)
        with store.database.read() as db:
            assert closing.is_due(db, at, filed) == met
        evidence = [
            stopping.evidence(pair.wins, pair.losses, comparisons=2, alpha=0.2).decision
            for pair in stats.pairs(read.votes)
        ]
        decided = sum(decision != "open" for decision in evidence)
        assert (rules["sequential"].done, rules["sequential"].wanted) == (decided, 2)
        assert rules["votes"].done == len(read.votes)
        full = Counter(vote.comparison_id for vote in (*read.votes, *read.leaks))
        assert rules["overlap"].done == sum(number >= 4 for number in full.values())
        if filed.state == "closed":
            assert filed.close_reason == f"closing rule: {met}"
            break
        if given is None:
            continue
        if rng.random() < 0.1:
            store.skip(given.id, rater)
            continue
        better = rng.random() < 0.5 + seed / 6  # from a toss to a sure thing
        choice = (
            "tie" if rng.random() < 0.1 else "left" if (given.left_is == "a") == better else "right"
        )
        store.cast_vote(given.id, rater, choice)
        if rng.random() < 0.15:
            store.cast_vote(given.id, rater, rng.choice(("left", "right", "both_bad")), revise=True)
        if rng.random() < 0.05:
            votes.flag_leak(store.database, at, given.comparison_id)
    found = findings.find(reading.read(store, "ten"), now=at)
    assert {rule.name: rule for rule in found.closing.rules} == rules
    shown = [duel.evidence.decision for duel in found.headline.duels]
    assert sorted(shown) == sorted(evidence) and found.headline.watched == 2


def test_a_file_of_an_older_version_has_its_votes_counted_when_it_is_opened(
    filled: Store, wang: int, path: Path
) -> None:
    for choice in ("left", "right", "tie"):
        given = filled.next_prepared(wang, "ten")
        assert given is not None
        filled.cast_vote(given.id, wang, choice)
    filled.cast_vote(given.id, wang, "both_bad", revise=True)
    query = "SELECT * FROM outcomes ORDER BY study, left_is, choice"
    conn = filled.database.connection().conn
    before = [tuple(row) for row in conn.execute(query) if row["votes"]]
    for undo in ("DROP TRIGGER votes_counted", "DROP TABLE outcomes", "DROP INDEX assignments_of_comparison",
                 "ALTER TABLE studies DROP COLUMN pairs_sha256", "DROP TABLE reports", "PRAGMA user_version = 4",
                 "DELETE FROM _sqlite_migrations WHERE name >= 'm005'"):  # fmt: skip
        conn.execute(undo)
    filled.close()
    again = Store.open(path)
    found = [tuple(row) for row in again.database.connection().conn.execute(query)]
    assert found == before and sum(row[-1] for row in found) == 3
    again.close()


# bad input: facts/faults.md V1-V19, on a study with a protocol


@pytest.mark.parametrize("study_state", ["frozen", "closed"])
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("another's pair", NotYours), ("no such pair", UnknownAssignment), ("SQL", UnknownAssignment),
        ("10 kB", UnknownAssignment), ("a disabled rater", UnknownAssignment), ("V8 choice", BadVote),
        ("V8 null", BadVote), ("V12 reason", BadVote), ("a rating that nobody asks", BadVote),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_stores_nothing(
    filled: Store, people: People, wang: int, li: int, what: str, error: type[RecordError], study_state: str
) -> None:  # fmt: skip
    filled.file_study(dataclasses.replace(PLAN, criteria=()), "system")
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    pair, rater, choice, more = given.id, wang, "left", {}
    match what:
        case "another's pair":
            rater = li
        case "no such pair":
            pair = "0" * 32
        case "SQL":
            pair = "' OR 1=1 --"
        case "10 kB":
            pair = "a" * 10_240
        case "a disabled rater":
            people.disable(wang, "system")
        case "V8 choice":
            choice = "左"
        case "V8 null":
            choice = None  # type: ignore[assignment]
        case "V12 reason":
            more = {"reason": "长" * 2001}
        case _:
            more, error = {"ratings": {"left_asking": 3}}, BadVote
    if study_state == "closed":
        filled.close_study("ten", "system")
        if what == "a rating that nobody asks":
            error = RecordError
    with pytest.raises(error):
        filled.cast_vote(pair, rater, choice, **more)  # type: ignore[arg-type]
    with filled.database.read() as db:
        assert db["votes"].count == 0
        assert db.execute("SELECT count(*) FROM outcomes").fetchone()[0] == 0


def test_a_double_click_a_replay_and_a_second_tab_count_once_in_a_closing_rule(filled: Store, wang: int, clock: Any) -> None:  # fmt: skip
    filled.file_study(dataclasses.replace(PLAN, closing=Closing(votes=2)), "system")
    first = filled.next_prepared(wang, "ten")
    assert first is not None
    assert [filled.cast_vote(first.id, wang, "left") for _ in range(3)] == ["recorded", "same", "same"]  # fmt: skip
    assert filled.cast_vote(first.id, wang, "right") == "conflict"
    assert filled.cast_vote(first.id, wang, "right", revise=True) == "recorded"
    second = filled.next_prepared(wang, "ten")
    assert second is not None and second.id != first.id  # one vote, not five
    clock.move(hours=30)  # V10: over its time; given anew it is the same pair
    anew = filled.next_prepared(wang, "ten")
    assert anew is not None and anew.id == second.id
    filled.cast_vote(second.id, wang, "tie")
    assert filled.next_prepared(wang, "ten") is None
    assert filled.cast_vote(second.id, wang, "tie") == "same"  # V3, after the end
    with pytest.raises(AssignmentClosed):
        filled.cast_vote(second.id, wang, "left", revise=True)


@pytest.mark.parametrize(
    ("gold", "says"),
    [({"case-99": "tie"}, "no filed pair has the id 'case-99'"), ({"case-1": "model-c"}, "does not compare 'model-c'")],
)  # fmt: skip
def test_a_gold_pair_that_is_not_there_is_refused(filled: Store, gold: dict[str, str], says: str) -> None:  # fmt: skip
    with pytest.raises(BadStudy, match=says):
        filled.file_study(dataclasses.replace(PLAN, gold=gold), "system")
    assert filled.study("ten") is None
