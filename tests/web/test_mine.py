"""A rater's own page: own votes only, and agreement with the others only after the close."""

import re
from pathlib import Path

from huatuo.ui import mine
from reviews.people import People
from reviews.protocol import Protocol
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store

CHOICES = {"one": "aaaa", "two": "aaab", "three": "abbb"}
"""Whom each physician finds better in each pair."""


def test_each_sees_their_own_row_and_a_verdict_is_no_vote(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "reviews.sqlite3")
    people = People(store.database)
    ids = {name: people.add_user(name, "physician", "x", "system").id for name in CHOICES}
    senior = people.add_user("senior", "adjudicator", "x", "system").id
    turns = (PreparedTurn("头疼？", "量血压", "多喝水"),)
    store.add_prepared("s", [PreparedPair(f"p{n}", "a", "b", turns) for n in range(4)], "system")
    store.file_study(Protocol("s", title_en="<b>Study", overlap=3, adjudicate=True), "system")
    assert "have not voted" in mine.report(store, ids["one"], "en")
    for name, wanted in CHOICES.items():
        while (given := store.next_prepared(ids[name], "s")) is not None:
            _, comparison = store.view(given.id, ids[name])
            winner = wanted[int(comparison.external_id[1:])]
            side = "left" if winner == given.left_is else "right"
            store.cast_vote(given.id, ids[name], side, seconds=20.0)
        if name == "two":
            page = mine.report(store, ids["one"], "en")
            assert "&lt;b&gt;Study" in page and "<dd>4 of 4</dd>" in page and "20 s" in page
            assert "%" not in page and page.count("<tr>") == 5

    disputed = store.next_adjudication(senior, "s")
    assert disputed is not None
    store.cast_vote(disputed.id, senior, "left")
    shares = {}
    for name, rater in ids.items():
        (found,) = re.findall(r"(\d+) % \(95 % interval", mine.report(store, rater, "en"))
        shares[name] = int(found)
    # By hand, the mean over four pairs of the share of the others who agree: 2, 2.5 and 1.5 of 4.
    assert shares == {"one": 50, "two": 62, "three": 38}
    verdicts = mine.report(store, senior, "en")
    assert "<dt>Verdicts</dt><dd>1</dd>" in verdicts and "% (95" not in verdicts
    store.close()
