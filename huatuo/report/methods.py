"""the methods paragraph of a study, to paste into a paper, in either language, made from its figures."""

from huatuo.report.teller import Teller
from huatuo.report.trust import MEASURES
from reviews import software
from reviews.findings import Findings
from reviews.ranking import RIDGE
from reviews.records import FEWEST_RATERS

REPLICATES = 1000
BETWEEN = {"zh": "", "en": " "}
"""What stands between two sentences."""


def paragraph(found: Findings, teller: Teller) -> str:
    """Design, data, exclusions, model, estimator, clustering, agreement, software; one paragraph."""
    parts = [_design(found, teller), _data(found, teller), *_exclusions(found, teller)]
    parts += [_model(found, teller), _agreement(found, teller)]
    if found.harms is not None:
        parts.append(teller.say("report.methods.safety"))
    if found.criteria.means or found.criteria.preferences:
        parts.append(teller.say("report.methods.criteria"))
    used = software.used()
    parts.append(teller.say("report.methods.software", **used, rows=found.seq, hash=found.last_hash[:16]))  # fmt: skip
    return BETWEEN[teller.language].join(parts)


def _design(found: Findings, teller: Teller) -> str:
    names = teller.list(sorted(teller.name(r.name) for r in found.headline.board.ratings))
    design = teller.say("report.methods.design", names=names, k=len(found.headline.board.ratings))
    study = found.study
    if study is None:
        return design + teller.say("report.methods.no_protocol")
    protocol = study.protocol
    frozen = f"{study.frozen_at:%Y-%m-%d}" if study.frozen_at else "—"
    key = "registered" if study.frozen_at else "draft"
    return design + teller.say(
        f"report.methods.{key}",
        frozen=frozen,
        sha256=study.sha256,
        overlap=protocol.overlap,
        pairing=teller.say(f"report.pairing.{protocol.pairing}"),
        seed=protocol.seed,
    )


def _data(found: Findings, teller: Teller) -> str:
    c = found.counts
    first, last = (f"{at:%Y-%m-%d}" if at else "—" for at in (c.first_at, c.last_at))
    return teller.say(
        "report.methods.data",
        raters=c.raters,
        votes=f"{c.votes:,}",
        comparisons=f"{c.comparisons:,}",
        filed=f"{found.queue.comparisons:,}",
        cases=f"{c.cases:,}",
        first=first,
        last=last,
    )


def _exclusions(found: Findings, teller: Teller) -> list[str]:
    c = found.counts
    told = [] if c.left_out else [teller.say("report.methods.none_left_out")]
    told += [
        teller.say(f"report.methods.{key}", votes=number)
        for key, number in (("left_out", c.left_out), ("fast", c.fast), ("gold", c.gold))
        if number
    ]
    if found.queue.skipped or found.queue.reported:
        told.append(
            teller.say("report.methods.skipped", skipped=found.queue.skipped,
                       reported=found.queue.reported)
        )  # fmt: skip
    return told


def _model(found: Findings, teller: Teller) -> str:
    board = found.headline.board
    sentences = [
        teller.say("report.methods.model", ridge=RIDGE),
        teller.say(f"report.methods.clustered.{board.clustered_by}", clusters=board.clusters),
        teller.say("report.methods.widest"),
    ]
    if board.raters < FEWEST_RATERS:
        sentences.append(teller.say("report.methods.few_raters", least=FEWEST_RATERS))
    if any(r.best is not None for r in found.ranks):
        sentences.append(teller.say("report.methods.ranks", replicates=f"{REPLICATES:,}"))
    if found.styled is not None:
        sentences.append(teller.say("report.methods.style"))
    alpha = found.study.protocol.closing.alpha if found.study else 0.05
    sentences.append(teller.say("report.methods.sequential", alpha=alpha, pairs=found.headline.watched))  # fmt: skip
    return BETWEEN[teller.language].join(sentences)


def _agreement(found: Findings, teller: Teller) -> str:
    concord = found.concord
    if concord.raw.value is None:
        return teller.say("report.methods.no_agreement", why=teller.why(concord.raw.why))
    told = [
        f"{teller.say('report.measure.' + key)} = {teller.measure(getattr(concord, key))}"
        for key in MEASURES
        if getattr(concord, key).value is not None
    ]
    return teller.say("report.methods.agreement", measures=teller.list(told), shared=concord.shared)
