"""Real records on disk for the tests of this folder, with a clock that can be set."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reviews.people import People
from reviews.records import Assignment, PreparedPair, PreparedTurn
from reviews.store import Store


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "reviews.sqlite3"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[Store]:
    opened = Store.open(path, clock=clock, rng=random.Random(1))
    yield opened
    opened.close()


@pytest.fixture
def people(store: Store) -> People:
    return People(store.database)


@pytest.fixture
def wang(people: People) -> int:
    return people.add_user("王医生", "physician", "hash", "system").id


@pytest.fixture
def li(people: People) -> int:
    return people.add_user("Dr. Li", "physician", "hash", "system").id


def pair(number: int, a: str = "model-a", b: str = "model-b") -> PreparedPair:
    turn = PreparedTurn(f"问题{number}：头痛怎么办？", f"{a} 回答 {number}", f"{b} 回答 {number}")
    return PreparedPair(f"case-{number}", a, b, (turn,), department="内科", intent="就医建议")


@pytest.fixture
def make_pair() -> Callable[..., PreparedPair]:
    return pair


@pytest.fixture
def filled(store: Store, wang: int, li: int) -> Store:
    """A store with ten prepared pairs in the study `ten`."""
    store.add_prepared("ten", [pair(i) for i in range(10)], "system")
    return store


@pytest.fixture
def live(store: Store, wang: int) -> Callable[..., Assignment]:
    """Makes a live comparison of `turns` finished turns for a rater (default: wang)."""

    def make(turns: int = 1, rater: int | None = None, left_is: str = "a") -> Assignment:
        rater = rater or wang
        given = store.open_live(rater, "m1", "m2", left_is, language="zh")  # type: ignore[arg-type]
        for number in range(1, turns + 1):
            store.add_turn(given.id, rater, f"第{number}问")
            for side in ("a", "b"):
                store.finish_side(given.comparison_id, number, side, f"{side}{number}", "stop", {})  # type: ignore[arg-type]
        return given

    return make
