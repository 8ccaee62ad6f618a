"""Whether the result hangs on a choice of the analysis: the main difference under other choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reviews import intervals, stats
from reviews.records import VoteRow
from reviews.stated import Stated, of_estimate
from reviews.stats import Fitted
from reviews.verdicts import Headline

Choice = Literal[
    "main",
    "by_rater",
    "by_case",
    "rao_kupper",
    "without_fast",
    "without_gold",
    "adjudicated",
    "with_leaks",
]

MOST_PAIRS = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """score(first) - score(second) in log-odds under one choice of the analysis."""

    choice: Choice
    first: str
    second: str
    difference: Stated
    votes: int


def variants(
    votes: Sequence[VoteRow],
    leaks: Sequence[VoteRow],
    adjudicated: Sequence[VoteRow],
    gold: Mapping[str, str],
    main: Fitted | None,
    headline: Headline,
) -> tuple[Variant, ...]:
    """The pairs most voted on under each choice that changes something; () for no votes."""
    if main is None:
        return ()
    pairs = [(d.result.first, d.result.second) for d in headline.duels[:MOST_PAIRS]]
    fits: list[tuple[Choice, Fitted | None]] = [("main", main)]
    for by in ("rater", "case"):
        if by != main.spread.by and (main.tally.cases if by == "case" else main.tally.raters) > 1:
            fits.append((f"by_{by}", stats.fit_tally(main.tally, by=by)))  # type: ignore[arg-type]
    fits.append(("rao_kupper", stats.fit_tally(main.tally, by=main.spread.by, model="rao_kupper")))
    slower = [v for v in votes if not v.fast]
    real = [v for v in votes if v.comparison_id not in gold]
    for choice, kept in (
        ("without_fast", slower),
        ("without_gold", real),
        ("adjudicated", adjudicated),
        ("with_leaks", [*votes, *leaks]),
    ):
        if kept and [v.assignment_id for v in kept] != [v.assignment_id for v in votes]:
            fits.append((choice, stats.fitted(kept, by=main.spread.by)))  # type: ignore[arg-type]
    return tuple(
        variant for choice, found in fits if found is not None
        for variant in _differences(choice, found, pairs)
    )  # fmt: skip


def _differences(
    choice: Choice, found: Fitted, pairs: Sequence[tuple[str, str]]
) -> Iterator[Variant]:
    total, clusters = int(found.tally.number.sum()), found.spread.clusters
    every = intervals.contrasts(found.tally, found.fit, found.spread)
    told = {(c.first, c.second): of_estimate(c.difference, total, clusters=clusters) for c in every}
    for pair in pairs:
        if pair in told:
            yield Variant(choice, *pair, told[pair], total)
