"""The queue of prepared pairs: fewest votes first, balanced sides, nothing twice, undo."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from reviews.errors import AssignmentClosed, BadStudy, UnknownAssignment
from reviews.people import People
from reviews.records import Case, PreparedPair, PreparedTurn
from reviews.store import Store

Pairs = Callable[..., PreparedPair]


def rate_all(store: Store, rater: int, study: str = "ten", choice: str = "left") -> list[Any]:
    given = []
    while (assignment := store.next_prepared(rater, study)) is not None:
        store.cast_vote(assignment.id, rater, choice, seconds=10.0)
        given.append(assignment)
    return given


def test_the_open_pair_is_offered_again(filled: Store, wang: int) -> None:
    first = filled.next_prepared(wang, "ten")
    assert first is not None
    assert filled.next_prepared(wang, "ten") == first
    with filled.database.read() as db:
        assert db["assignments"].count == 1


def test_a_rater_gets_every_pair_once(filled: Store, wang: int) -> None:
    given = rate_all(filled, wang)
    assert len({a.comparison_id for a in given}) == len(given) == 10
    assert filled.next_prepared(wang, "ten") is None


def test_sides_are_balanced_in_blocks_of_two_and_not_always_the_same_way(
    filled: Store, people: People
) -> None:
    firsts = []
    for number in range(12):
        rater = people.add_user(f"r{number}", "physician", "h", "x").id
        sides = [a.left_is for a in rate_all(filled, rater)]
        assert all({sides[i], sides[i + 1]} == {"a", "b"} for i in range(0, 10, 2))
        firsts += sides[::2]
    assert 15 <= Counter(firsts)["a"] <= 45  # 60 fair coins


def test_the_pair_with_the_fewest_votes_comes_first(filled: Store, wang: int, li: int) -> None:
    voted = set()
    for _ in range(6):
        given = filled.next_prepared(wang, "ten")
        assert given is not None
        filled.cast_vote(given.id, wang, "tie")
        voted.add(given.comparison_id)
    first = [filled.next_prepared(li, "ten") for _ in range(1)]
    for _ in range(4):
        given = filled.next_prepared(li, "ten")
        assert given is not None and given.comparison_id not in voted
        filled.cast_vote(given.id, li, "tie")
    given = filled.next_prepared(li, "ten")
    assert given is not None and given.comparison_id in voted
    assert first[0] is not None


def test_two_raters_at_once_start_with_different_pairs(filled: Store, wang: int, li: int) -> None:
    one, two = filled.next_prepared(wang, "ten"), filled.next_prepared(li, "ten")
    assert one is not None and two is not None
    assert one.comparison_id != two.comparison_id


def test_a_skipped_pair_returns_only_through_undo(filled: Store, wang: int) -> None:
    first = filled.next_prepared(wang, "ten")
    assert first is not None
    filled.skip(first.id, wang)
    assert first.comparison_id not in {a.comparison_id for a in rate_all(filled, wang)}
    progress = filled.progress(wang, "ten")
    assert (progress.done, progress.skipped, progress.total) == (9, 1, 10)
    assert filled.cast_vote(first.id, wang, "right") == "recorded"
    assert filled.progress(wang, "ten").done == 10
    assert len(filled.votes("ten")) == 10


def test_a_reported_pair_does_not_return_to_its_reporter(filled: Store, wang: int, li: int) -> None:
    first = filled.next_prepared(wang, "ten")
    assert first is not None
    filled.report(first.id, wang, "有害")
    assert filled.previous(wang, "ten") is None
    assert len(rate_all(filled, wang)) == 9
    assert len(rate_all(filled, li)) == 10
    with pytest.raises(AssignmentClosed):
        filled.skip(first.id, wang)


def test_undo_walks_back_pair_by_pair(filled: Store, wang: int) -> None:
    given = []
    for number in range(4):
        assignment = filled.next_prepared(wang, "ten")
        assert assignment is not None
        given.append(assignment.id)
        if number == 1:
            filled.skip(assignment.id, wang)
        elif number < 3:
            filled.cast_vote(assignment.id, wang, "left")
    last = filled.previous(wang, "ten")
    assert last is not None and last.id == given[2]
    back = filled.previous(wang, "ten", before=last.id)
    assert back is not None and (back.id, back.state) == (given[1], "skipped")
    back = filled.previous(wang, "ten", before=back.id)
    assert back is not None and back.id == given[0]
    assert filled.previous(wang, "ten", before=back.id) is None
    assert filled.previous(wang, "ten", before="unknown") is None
    assert filled.cast_vote(given[2], wang, "tie", revise=True) == "recorded"
    current = filled.next_prepared(wang, "ten")
    assert current is not None and current.id == given[3]


def test_undo_never_reaches_anothers_pairs(filled: Store, wang: int, li: int) -> None:
    theirs = rate_all(filled, li)
    assert filled.previous(wang, "ten") is None
    assert filled.previous(wang, "ten", before=theirs[-1].id) is None


def test_the_order_is_seeded_and_differs_between_raters(filled: Store, wang: int, li: int) -> None:
    mine = [a.comparison_id for a in rate_all(filled, wang)]
    theirs = [a.comparison_id for a in rate_all(filled, li)]
    assert mine != theirs
    assert sorted(mine) == sorted(theirs)


def test_progress_and_summaries_count_votes(filled: Store, wang: int, li: int) -> None:
    assert filled.progress(wang, "ten").median_seconds is None
    for seconds in (5.0, 7.0, 100.0):
        given = filled.next_prepared(wang, "ten")
        assert given is not None
        filled.cast_vote(given.id, wang, "left", seconds=seconds)
    assert filled.progress(wang, "ten").median_seconds == 7.0
    filled.add_cases("questions", [Case("k1", "What now?", language="en")], li)
    found = {s.name: s for s in filled.studies()}
    assert (found["ten"].pairs, found["ten"].votes, found["ten"].language) == (10, 3, "zh")
    assert (found["questions"].pairs, found["questions"].cases) == (0, 1)
    assert found["questions"].language == "en"
    assert filled.progress(wang, "nowhere").total == 0
    assert filled.next_prepared(wang, "nowhere") is None


def test_filing_a_pair_twice_or_mirrored_adds_nothing(store: Store, make_pair: Pairs) -> None:
    pairs = [make_pair(i) for i in range(3)]
    assert store.add_prepared("s", pairs, "x").added == 3
    assert store.add_prepared("s", pairs, "x").already_there == 3
    turn = pairs[0].turns[0]
    mirrored = PreparedPair(
        "case-0", "model-b", "model-a",
        (PreparedTurn(turn.question, turn.answer_b, turn.answer_a),),
    )  # fmt: skip
    report = store.add_prepared("s", [mirrored], "x")
    assert (report.added, report.already_there, report.differs) == (0, 1, ())
    other = PreparedPair("case-1", "model-a", "model-b", (PreparedTurn("问", "新", "旧"),))
    assert store.add_prepared("s", [other], "x").differs == ("case-1",)
    assert store.add_prepared("t", pairs, "x").added == 3


def test_contestants_are_kept_with_their_own_answers(store: Store, wang: int) -> None:
    turns = (PreparedTurn("问", "from z", "from y"),)
    store.add_prepared("s", [PreparedPair("c", "z", "y", turns, settings_a={"who": "z"})], "x")
    given = store.next_prepared(wang, "s")
    assert given is not None
    comparison = store.view(given.id, wang)[1]
    side = comparison.turns[0].b
    assert (comparison.contestant_b, comparison.settings_b) == ("z", {"who": "z"})
    assert side is not None and side.text == "from z"


@pytest.mark.parametrize(
    "bad",
    [
        PreparedPair("c", "m", "m", (PreparedTurn("q", "a", "b"),)),
        PreparedPair("c", "m", "", (PreparedTurn("q", "a", "b"),)),
        PreparedPair("c", "m", "n", ()),
        PreparedPair("", "m", "n", (PreparedTurn("q", "a", "b"),)),
        PreparedPair("c", "m", "n", (PreparedTurn("q", " ", "b"),)),
        PreparedPair("c", "m", "n", (PreparedTurn("\0", "a", "b"),)),
    ],
)
def test_a_bad_pair_files_nothing(store: Store, make_pair: Pairs, bad: PreparedPair) -> None:
    with pytest.raises(BadStudy):
        store.add_prepared("s", [make_pair(1), bad], "x")
    assert store.studies() == []


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb", "live", "\0"])
def test_a_bad_study_name_is_refused(store: Store, make_pair: Pairs, name: str) -> None:
    with pytest.raises(BadStudy):
        store.add_prepared(name, [make_pair(1)], "x")


def test_random_walks_keep_every_promise(store: Store, people: People, make_pair: Pairs) -> None:
    rng = random.Random(7)
    store.add_prepared("s", [make_pair(i) for i in range(12)], "x")
    raters = [people.add_user(f"r{i}", "physician", "h", "x").id for i in range(4)]
    given: dict[int, list[str]] = {rater: [] for rater in raters}
    for _ in range(200):
        rater = rng.choice(raters)
        assignment = store.next_prepared(rater, "s")
        if assignment is None:
            back = store.previous(rater, "s")
            if back is not None:
                store.cast_vote(back.id, rater, rng.choice(["left", "tie"]), revise=True)
            continue
        if not given[rater] or given[rater][-1] != assignment.comparison_id:
            given[rater].append(assignment.comparison_id)
        move = rng.random()
        if move < 0.6:
            store.cast_vote(assignment.id, rater, rng.choice(["left", "right", "both_bad"]))
        elif move < 0.7:
            store.skip(assignment.id, rater)
        elif move < 0.75:
            store.report(assignment.id, rater, "?")
    for rater, seen in given.items():
        assert len(seen) == len(set(seen))
        progress = store.progress(rater, "s")
        assert progress.done + progress.skipped <= progress.total
    store.verify_audit()


def test_v10_a_pair_given_out_yesterday_goes_back_to_the_queue_and_is_given_anew(
    store: Store, people: People, make_pair: Pairs, wang: int, li: int, clock: Any
) -> None:
    store.add_prepared("one", [make_pair(i) for i in range(2)], "x")
    held = store.next_prepared(wang, "one")
    clock.move(hours=24)
    assert held is not None and store.next_prepared(wang, "one") == held
    other = store.next_prepared(li, "one")
    assert other is not None and other.comparison_id != held.comparison_id
    clock.move(seconds=1)
    for number in range(6):  # li's pair is held, wang's no longer: it comes first
        rater = people.add_user(f"r{number}", "physician", "h", "x").id
        given = store.next_prepared(rater, "one")
        assert given is not None and given.comparison_id == held.comparison_id
        people.disable(rater, "system")
    anew = store.next_prepared(wang, "one")
    assert anew is not None and (anew.id, anew.left_is) == (held.id, held.left_is)
    assert anew.issued_at == clock.now
    assert store.cast_vote(held.id, wang, "left") == "recorded"


def test_v10_k15_a_clock_that_jumps_back_ends_no_pair(filled: Store, wang: int, clock: Any) -> None:
    given = filled.next_prepared(wang, "ten")
    assert given is not None
    clock.move(days=-365)
    assert filled.next_prepared(wang, "ten") == given
    assert filled.cast_vote(given.id, wang, "left") == "recorded"


def test_v14_a_disabled_raters_vote_is_refused_and_the_pair_goes_back_to_the_queue(
    store: Store, people: People, make_pair: Pairs, wang: int, li: int
) -> None:
    store.add_prepared("one", [make_pair(i) for i in range(2)], "x")
    held = store.next_prepared(wang, "one")
    assert held is not None
    voted = store.next_prepared(li, "one")
    assert voted is not None and voted.comparison_id != held.comparison_id
    people.disable(wang, "system")
    with pytest.raises(UnknownAssignment, match="disabled"):
        store.cast_vote(held.id, wang, "left")
    with store.database.read() as db:
        assert db["votes"].count == 0
    for number in range(6):  # li's pair is still open, wang's lies with nobody: it comes first
        rater = people.add_user(f"r{number}", "physician", "h", "x").id
        given = store.next_prepared(rater, "one")
        assert given is not None and given.comparison_id == held.comparison_id
        people.disable(rater, "system")
    people.enable(wang, "system")
    assert store.cast_vote(held.id, wang, "left") == "recorded"
