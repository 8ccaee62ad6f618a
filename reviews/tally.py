"""Votes as arrays: who stood left and right, what came out, and which rater and case it came from.

"Both bad" counts as a tie here; the pairs in stats.py show it apart. The random side is kept as it
was shown, because the models in ranking.py estimate what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reviews.records import VoteCount, VoteRow

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Votes = Sequence[VoteCount] | Sequence[VoteRow]

LEFT, TIE, RIGHT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Tally:
    """N rows of votes that are alike, on K contestants. All arrays are (N,).

    left, right: indices into `names`. outcome: LEFT, TIE or RIGHT. number: votes in the row.
    rater, case: indices from 0 in order of appearance; `raters` and `cases` say how many there
    are. `cases` is 0 where a row does not say its case.
    """

    names: tuple[str, ...]
    left: Indices
    right: Indices
    outcome: Indices
    number: Indices
    rater: Indices
    case: Indices
    raters: int
    cases: int

    @property
    def models(self) -> int:
        """K, how many contestants there are."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Cells:
    """The C ordered pairs that were shown, each once; left, right: (C,) contestants of `models`."""

    left: Indices
    right: Indices
    models: int

    @property
    def signs(self) -> Array:
        """(C, K): +1 for the contestant on the left, -1 for the one on the right."""
        signs, rows = np.zeros((len(self.left), self.models)), np.arange(len(self.left))
        signs[rows, self.left] = 1
        signs[rows, self.right] = -1
        return signs


def tally(votes: Votes) -> Tally:
    """Read votes, counted or single, into arrays. Names are sorted; no votes give an empty tally."""
    names = sorted({n for v in votes for n in (v.contestant_a, v.contestant_b)})
    index = {name: i for i, name in enumerate(names)}
    a = np.array([index[v.contestant_a] for v in votes], np.int64)
    b = np.array([index[v.contestant_b] for v in votes], np.int64)
    a_left = np.array([v.left_is == "a" for v in votes], bool)
    raters: dict[int, int] = {}
    cases: dict[str, int] = {}
    rater = np.array([raters.setdefault(v.rater, len(raters)) for v in votes], np.int64)
    case = np.array([cases.setdefault(v.case, len(cases)) for v in votes], np.int64)
    return Tally(
        names=tuple(names),
        left=np.where(a_left, a, b),
        right=np.where(a_left, b, a),
        outcome=np.array([{"left": LEFT, "right": RIGHT}.get(v.choice, TIE) for v in votes], np.int64),
        number=np.array([v.votes for v in votes], np.int64),
        rater=rater,
        case=case,
        raters=len(raters),
        cases=0 if "" in cases else len(cases),
    )  # fmt: skip


def count(votes: Tally) -> tuple[Cells, Array, Indices]:
    """The sufficient statistics: cells, counts (C, 3) by outcome, and each row's cell (N,)."""
    k = max(votes.models, 1)
    flat = votes.left * k + votes.right
    seen = np.flatnonzero(np.bincount(flat, minlength=k * k))
    place: Indices = np.zeros(k * k, np.int64)
    place[seen] = np.arange(len(seen))
    where = place[flat]
    filled = np.bincount(where * 3 + votes.outcome, votes.number, minlength=3 * len(seen))
    counts = filled.astype(np.float64).reshape(len(seen), 3)
    return Cells(seen // k, seen % k, votes.models), counts, where


def groups(cells: Cells) -> list[list[int]]:
    """Contestants joined by any chain of votes, the largest group first: comparable ones."""
    seen = np.eye(cells.models, dtype=bool)
    seen[cells.left, cells.right] = seen[cells.right, cells.left] = True
    found = {tuple(np.flatnonzero(row).tolist()) for row in closure(seen)}
    return [list(group) for group in sorted(found, key=lambda g: (-len(g), g))]


def is_separated(cells: Cells, counts: Array) -> bool:
    """Whether somewhere a group's members never lost or drew to the rest of it.

    The plain likelihood then has no maximum, and only the ridge keeps the scores finite.
    Source: Ford 1957's condition, a tie counting as half a win each way.
    """
    beats = np.eye(cells.models, dtype=bool)
    for winner, loser, lost in (
        (cells.left, cells.right, RIGHT),
        (cells.right, cells.left, LEFT),
    ):
        held = counts.sum(axis=1) > counts[:, lost]
        beats[winner[held], loser[held]] = True
    reach = closure(beats)
    return not all(bool(reach[np.ix_(group, group)].all()) for group in groups(cells))


def closure(reach: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(K, K) reachability by any number of steps; the diagonal must be set."""
    while True:
        further = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0
        if bool((further == reach).all()):
            return reach
        reach = further
