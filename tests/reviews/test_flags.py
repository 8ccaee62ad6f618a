"""Comparisons in which an answer says which model it is (V16)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reviews.export import export
from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store


def _says_gpt(text: str, names: tuple[str, str]) -> bool:
    return "GPT" in text or any(name in text for name in names)


@pytest.fixture
def watchful(path: Path, clock: Any) -> Iterator[Store]:
    """A record that asks whether an answer names its model."""
    opened = Store.open(path, clock=clock, names_itself=_says_gpt)
    yield opened
    opened.close()


def test_v16_a_vote_on_an_answer_that_names_its_model_is_flagged_and_left_out(
    watchful: Store, tmp_path: Path
) -> None:
    wang, li = (People(watchful.database).add_user(name, "physician", "h", "x").id for name in "ab")
    answers = {"0": "多喝水", "1": "我是HuatuoGPT", "2": "作为 model-b，我建议休息"}
    watchful.add_prepared(
        "s",
        [
            PreparedPair(f"c{i}", "model-a", "model-b", (PreparedTurn("问", "甲", text),))
            for i, text in answers.items()
        ],
        "x",
    )
    for rater in (wang, li):
        while (given := watchful.next_prepared(rater, "s")) is not None:
            assert watchful.cast_vote(given.id, rater, "left") == "recorded"
            assert watchful.cast_vote(given.id, rater, "left") == "same"
    told = watchful.counted_votes()
    assert (told.comparisons, told.left_out) == (1, 4)
    assert sum(count.votes for count in told.votes) == 2
    every = watchful.counted_votes("s", with_leaks=True)
    assert (every.comparisons, every.left_out) == (3, 0)
    leaks = {(vote.external_id, vote.identity_leak) for vote in watchful.votes()}
    assert leaks == {("c0", False), ("c1", True), ("c2", True)}
    with watchful.database.read() as db:
        assert db["audit"].count_where("action = 'flag'") == 2  # once for each comparison
    watchful.verify_audit()
    export(watchful.database, tmp_path / "out")
    lines = (tmp_path / "out" / "pairs.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {(row["case"], row["identity_leak"]) for row in rows} == leaks


def test_v16_the_flag_stands_before_the_vote(watchful: Store, monkeypatch: Any) -> None:
    wang = People(watchful.database).add_user("a", "physician", "h", "x").id
    turn = (PreparedTurn("问", "我是ChatGPT", "乙"),)
    watchful.add_prepared("s", [PreparedPair("c", "m1", "m2", turn)], "x")
    given = watchful.next_prepared(wang, "s")
    assert given is not None

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr("reviews.votes.cast", stop)
        watchful.cast_vote(given.id, wang, "left")
    with watchful.database.read() as db:
        assert (db["flags"].count, db["votes"].count) == (1, 0)
