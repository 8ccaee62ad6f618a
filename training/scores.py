"""BLEU-1..4, GLEU, ROUGE-1/2/L and Distinct-1/2 from one count of n-grams, each under a named convention.

Numbers are those of nltk (BLEU, GLEU), sacrebleu (BLEU) and rouge-score (ROUGE) on the same tokens. The paper of
HuatuoGPT names no convention but "nltk" and "ROUGE averaged over samples", so none is hidden here: Convention holds
each choice, its default and why. An empty answer, an empty reference and one of punctuation only have defined numbers:
those of the libraries, 0 where nothing is shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from huatuo.errors import ConfigError
from training.overlap import ORDERS, Counts, Tokens, count, tokeniser

Floats = NDArray[np.float64]
Average = Literal["corpus", "sentence"]

BLEU = tuple(f"bleu-{n}" for n in range(1, ORDERS + 1))
ROUGE = ("rouge-1", "rouge-2", "rouge-l")
DISTINCT = ("distinct-1", "distinct-2")
METRICS = (*BLEU, "gleu", *ROUGE, *DISTINCT)
EPSILON = 0.1
"""Count given to an order without a match by smoothing `epsilon`: nltk's and Chen and Cherry's value."""


@dataclass(frozen=True)
class Convention:
    """The choices that BLEU, GLEU, ROUGE and Distinct leave open; the same names are the command line's flags."""

    tokens: Tokens = "characters"
    """characters (default: needs no dictionary that could change; suits the published values, which name none), jieba,
    zh or 13a (sacrebleu's), rouge (rouge-score's own, English only). English: 13a is the default of --language en."""
    punctuation: Literal["keep", "drop"] = "keep"
    """keep (default: the libraries drop none), or drop tokens without a letter or digit."""
    bleu: Average = "corpus"
    """corpus (default: as BLEU is defined, Papineni et al. 2002, section 2.2.1; no smoothing needed), or the mean of
    sentence scores."""
    gleu: Average = "corpus"
    """corpus (default: as its authors count, nltk's corpus_gleu), or the mean of sentence scores."""
    smoothing: Literal["none", "epsilon", "add-one", "nist"] = "none"
    """none (default: BLEU as defined); Chen and Cherry 2014: epsilon = method 1, sacrebleu's floor; add-one = method
    2, add-k; nist = method 3, exp."""
    rouge: Literal["f", "recall", "precision"] = "f"
    """f (default: rouge-score's fmeasure, beta 1). Always the mean over questions, as HuatuoGPT's maintainers say."""
    distinct: Average = "sentence"
    """sentence (default: mean over answers; the published 0.74 and 0.93 are out of reach for the other, which falls
    with the number of answers), or corpus: as defined, Li et al. 2016, section 5.3."""
    library: Literal["nltk", "sacrebleu"] = "nltk"
    """nltk (default: what the paper used) counts an answer shorter than n tokens as one n-gram, sacrebleu as none."""


@dataclass(frozen=True)
class Scores:
    """Metrics in [0, 1] by name, Distinct included; None where there is nothing to compare with."""

    values: dict[str, float | None]
    columns: Floats
    """(Q, C) what `finish` sums."""
    convention: Convention

    def finish(self, sums: Floats, questions: int) -> Floats:
        """Metrics (..., M) from sums (..., C), in the order of `names`."""
        return _finish(sums, questions, self.convention)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that can be resampled: all but Distinct over the corpus, which repeated answers would lower."""
        return METRICS if self.convention.distinct == "sentence" else METRICS[: -len(DISTINCT)]


def score(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    convention: Convention | None = None,
) -> Scores:
    """All metrics of the answers, answer i against its references i, in one pass.

    references: one or more per answer; with an empty list for every answer only Distinct has a value. Raises ConfigError
    when the tokens leave nothing of any text, ValueError for references to some answers only, or no answers.
    Sources: Papineni et al. 2002 (BLEU, section 2.3), Wu et al. 2016 (GLEU, section 4.3), Lin 2004 (ROUGE-N, ROUGE-L:
    sections 2 and 3.1), Li et al. 2016 (Distinct).
    """
    convention = convention or Convention()
    if not answers:
        raise ValueError("no answers")
    given = {bool(texts) for texts in references}
    if len(given) > 1:
        raise ValueError("some answers have references and some have none")
    counts = count(
        answers, references, tokeniser(convention.tokens, convention.punctuation == "keep")
    )
    left = counts.answer.any() or (counts.reference > 0).any()
    if not left and any(map(str.isalnum, "".join(map("".join, (answers, *references))))):
        raise ConfigError(
            f"tokens: {convention.tokens} leaves nothing of these texts; for Chinese take characters or jieba"
        )
    columns = _columns(counts, convention)
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    finished = _finish(columns.sum(0), len(counts), convention)
    values |= dict(zip(METRICS, map(float, finished), strict=False))
    if convention.distinct == "corpus":
        for n, name in enumerate(DISTINCT):
            total = int(_grams(counts.answer, n + 1).sum())
            values[name] = int(counts.all_different[n]) / max(total, 1)
    if True not in given:
        values |= dict.fromkeys(METRICS[: -len(DISTINCT)])
    return Scores(values, columns, convention)


def _grams(length: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.maximum(length - n + 1, 0)


def _columns(counts: Counts, convention: Convention) -> Floats:
    """(Q, C): BLEU's parts (4 scores, or 4 matches, 4 totals and 2 lengths), GLEU's (1 or 2), ROUGE (3), Distinct (2)."""
    parts = [_bleu_parts(counts, convention), _gleu_parts(counts, convention)]
    parts.append(_rouge_parts(counts, convention))
    if convention.distinct == "sentence":
        found = [
            counts.different[:, n] / np.maximum(_grams(counts.answer, n + 1), 1) for n in (0, 1)
        ]
        parts.append(np.stack(found, 1))
    return np.concatenate(parts, 1)


def _finish(sums: Floats, questions: int, convention: Convention) -> Floats:
    """Metrics (..., M) from sums of columns (..., C)."""
    found, at = [], 0
    if convention.bleu == "sentence":
        found.append(sums[..., :4] / questions)
        at = 4
    else:
        found.append(_bleu(sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9], convention))
        at = 10
    if convention.gleu == "sentence":
        found.append(sums[..., at : at + 1] / questions)
        at += 1
    else:
        found.append(sums[..., at : at + 1] / np.maximum(sums[..., at + 1 : at + 2], 1))
        at += 2
    found.append(sums[..., at:] / questions)
    return np.concatenate(found, -1)


def _bleu_parts(counts: Counts, convention: Convention) -> Floats:
    least = 1 if convention.library == "nltk" else 0
    totals = np.stack([_grams(counts.answer, n) for n in range(1, ORDERS + 1)], 1)
    totals = np.maximum(totals, least).astype(np.float64)
    reference = _closest(counts)
    if convention.bleu == "corpus":
        lengths = np.stack([counts.answer, reference], 1)
        return np.concatenate([counts.clipped, totals, lengths], 1).astype(np.float64)
    return _bleu(
        counts.clipped.astype(np.float64),
        totals,
        counts.answer.astype(np.float64),
        reference.astype(np.float64),
        convention,
    )


def _closest(counts: Counts) -> NDArray[np.int64]:
    """(Q,) the reference length closest to the answer's, of two the shorter; 0 without references."""
    if not counts.reference.shape[1]:
        return np.zeros(len(counts), np.int64)
    far = np.abs(counts.reference - counts.answer[:, None]) * (1 << 32) + counts.reference
    far = np.where(counts.reference < 0, np.iinfo(np.int64).max, far)
    best = far.argmin(1)
    return np.asarray(counts.reference[np.arange(len(counts)), best])


def _bleu(
    matches: Floats, totals: Floats, answer: Floats, reference: Floats, convention: Convention
) -> Floats:
    """BLEU-1..4 (..., 4) from matches and totals (..., 4) and lengths (...): uniform weights, brevity penalty.

    Source: Papineni et al. 2002, section 2.3; smoothing: Chen and Cherry 2014, methods 1 to 3.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(totals > 0, matches / totals, 0.0)
        none = (matches == 0) & (totals > 0)
        if convention.smoothing == "epsilon":
            precision = np.where(none, EPSILON / totals, precision)
        elif convention.smoothing == "add-one":
            raised = (matches + 1) / (totals + 1)
            precision = np.concatenate([precision[..., :1], raised[..., 1:]], -1)
        elif convention.smoothing == "nist":
            precision = np.where(none, 1 / (2.0 ** none.cumsum(-1) * totals), precision)
        logs = np.log(precision)
        mean = logs.cumsum(-1) / np.arange(1, ORDERS + 1)
        brevity = np.where(answer > reference, 1.0, np.exp(1 - reference / answer))
    brevity = np.where(answer > 0, brevity, 0.0)
    return np.asarray(np.where(matches[..., :1] > 0, brevity[..., None] * np.exp(mean), 0.0))


def _gleu_parts(counts: Counts, convention: Convention) -> Floats:
    """Matches and n-grams of the best reference (Q, 2), or their quotient (Q, 1). Source: Wu et al. 2016."""
    if not counts.reference.shape[1]:
        return np.zeros((len(counts), 1 if convention.gleu == "sentence" else 2))
    orders = range(1, ORDERS + 1)
    mine = sum(_grams(counts.answer, n) for n in orders)
    theirs = sum(_grams(counts.reference, n) for n in orders)
    every = np.maximum(np.asarray(mine)[:, None], theirs)
    matches = counts.shared.sum(-1)
    ratio = np.where((counts.reference >= 0) & (every > 0), matches / np.maximum(every, 1), -1.0)
    best = ratio.argmax(1)[:, None]
    if convention.gleu == "sentence":
        return np.maximum(np.take_along_axis(ratio, best, 1), 0.0)
    both = [np.take_along_axis(of, best, 1) for of in (matches, every)]
    return np.concatenate(both, 1).astype(np.float64)


def _rouge_parts(counts: Counts, convention: Convention) -> Floats:
    """(Q, 3) ROUGE-1, -2 and -L of the reference with the highest F, for each by itself. Source: Lin 2004."""
    if not counts.reference.shape[1]:
        return np.zeros((len(counts), 3))
    found = []
    for which in range(3):
        shared = counts.common if which == 2 else counts.shared[..., which]
        order = 1 if which == 2 else which + 1
        precision = shared / np.maximum(_grams(counts.answer, order), 1)[:, None]
        recall = shared / np.maximum(_grams(counts.reference, order), 1)
        both = precision + recall
        f = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1.0), 0.0)
        best = np.where(counts.reference >= 0, f, -1.0).argmax(1)[:, None]
        chosen = {"f": f, "recall": recall, "precision": precision}[convention.rouge]
        found.append(np.take_along_axis(chosen, best, 1))
    return np.concatenate(found, 1)
