"""the sections of a report in their order: what a dean reads first, what an expert looks for below."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from huatuo.report import outcome, quality, surety, trust
from huatuo.report.tables import Section
from huatuo.report.teller import Teller
from reviews.findings import Findings
from reviews.verdicts import Headline


@dataclass(frozen=True)
class Chapter:
    """Sections under one heading; `for_experts` ones stand below."""

    key: str
    sections: tuple[Section, ...]
    for_experts: bool = False


def summary(found: Findings, teller: Teller) -> list[str]:
    """The first lines: each main pair, safety, and where the study stands."""
    lines = outcome.findings(found.headline, teller)
    if found.harms is not None and found.harms.rates:
        lines.append(quality.in_short(found.harms, teller))
    return [*lines, *surety.closing(found.closing, teller)[:1]]


def counts(found: Findings, teller: Teller) -> list[str]:
    """What the figures rest on, and what was left out."""
    c = found.counts
    first, last = (f"{at:%Y-%m-%d}" if at else "—" for at in (c.first_at, c.last_at))
    lines = [
        teller.say("report.counts", raters=f"{c.raters:,}", votes=f"{c.votes:,}",
                   comparisons=f"{c.comparisons:,}", cases=f"{c.cases:,}", first=first, last=last)
    ]  # fmt: skip
    if c.left_out:
        lines.append(teller.say("report.left_out", votes=f"{c.left_out:,}"))
    if found.queue.skipped or found.queue.reported:
        lines.append(
            teller.say("report.skipped", skipped=found.queue.skipped, reported=found.queue.reported)
        )
    return lines


def chapters(found: Findings, teller: Teller) -> tuple[Chapter, ...]:
    """Everything that these findings have, in order. Without votes there is nothing."""
    if not found.counts.votes:
        return ()
    measured = found.criteria
    return (
        Chapter("outcome", (*_outcome(found.headline, teller, found), *_parts(found, teller))),
        Chapter("quality", tuple(_present([
            (found.harms is not None, lambda: quality.safety(found.harms, teller)),  # type: ignore[arg-type]
            (measured.means, lambda: quality.scales(found, teller)),
            (measured.differences, lambda: quality.differences(found, teller)),
            (measured.preferences, lambda: quality.preferences(found, teller)),
        ]))),
        Chapter("trust", tuple(_present([
            (True, lambda: trust.agreement(found.concord, teller)),
            (True, lambda: trust.raters(found.raters, teller)),
            (found.concord.pairs, lambda: trust.rater_pairs(found.concord, teller)),
            (True, lambda: trust.position(found, teller)),
            (found.styled is not None, lambda: trust.styled_ranking(found.styled, teller)),  # type: ignore[arg-type]
            (found.seconds, lambda: trust.times(found, teller)),
            (found.judges, lambda: trust.judges(found, teller)),
        ])), for_experts=True),
        Chapter("surety", tuple(_present([
            (True, lambda: surety.power(found.headline, teller)),
            (True, lambda: surety.evidence(found.headline, teller)),
            (found.closing.rules, lambda: surety.rules(found.closing, teller)),
            (found.sensitivity, lambda: surety.sensitivity(found, teller)),
        ])), for_experts=True),
    )  # fmt: skip


def headline_chapter(headline: Headline, teller: Teller) -> Chapter:
    """The first chapter alone, for a record too large to have all figures at once."""
    return Chapter("outcome", tuple(_outcome(headline, teller, None)))


def _outcome(headline: Headline, teller: Teller, found: Findings | None) -> Iterable[Section]:
    yield outcome.pairs(headline, teller)
    yield outcome.ranking(headline, found.ranks if found else (), teller)
    if len(headline.board.ratings) > 2:
        yield outcome.heat(headline, teller)
        yield outcome.contrasts(headline, teller)


def _parts(found: Findings, teller: Teller) -> Iterable[Section]:
    for key, parts in (("departments", found.departments), ("intents", found.intents)):
        if parts:
            yield outcome.parts(found, key, teller)


def _present(wanted: Iterable[tuple[object, Callable[[], Section]]]) -> Iterable[Section]:
    return (make() for is_there, make in wanted if is_there)
