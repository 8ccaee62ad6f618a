"""the data card of an export: what it holds, how it came about, and its parts for datasets.load_dataset.

Everything in it comes from the exported state and the selection, so that the same export gives the
same card.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reviews import agreement
from reviews.protocol import Study
from reviews.records import VoteRow

_MEANING = {
    "pairs": "one question: prompt, chosen, rejected (TRL preference, explicit prompt)",
    "pairs_implicit": "the same pairs with the prompt inside chosen and rejected (implicit prompt)",
    "dialogues": "several turns: two whole conversations, without a common prompt",
    "ties": "judged equally good: both conversations",
    "both_bad": "judged both bad: both conversations",
    "kto": "single answers with a label (TRL KTO): winners true; both-bad and unsafe ones false",
    "sft": "physicians' own answers as conversations, only where their author agreed",
    "better_pairs": "physicians' own answers chosen against the model's original",
    "votes": "every vote and every verdict of a senior, flat",
}


@dataclass(frozen=True, slots=True)
class Told:
    """What a card is made of. counts: rows per file name; licence: as the front matter says it."""

    found: Sequence[VoteRow]
    counts: Mapping[str, int]
    studies: Sequence[Study]
    asked: Mapping[str, Any]
    licence: str
    last_hash: str
    erased: int


def card(told: Told) -> str:
    """README.md: YAML front matter with the configs, then what a reader must know."""
    return "\n".join([*_front(told), "", *_body(told)]) + "\n"


def _front(told: Told) -> list[str]:
    languages = sorted({vote.language for vote in told.found}) or ["zh"]
    lines = ["---", "pretty_name: Blind comparisons of medical answers by physicians"]
    lines += ["language:", *(f"- {_quoted(language)}" for language in languages)]
    lines += [f"license: {_quoted(told.licence)}", "tags:", "- preference", "- medical"]
    parts = parts_of(told.counts)
    lines += ["configs:"] if parts else []
    for number, (name, file) in enumerate(parts):
        lines += [f"- config_name: {name}", "  data_files:", "  - split: train"]
        lines += [f"    path: {file}", *(["  default: true"] if number == 0 else [])]
    return [*lines, "---"]


def parts_of(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """(config, file) of every part that has a row, in the order of the card."""
    return [(name, f"{name}.jsonl") for name in _MEANING if counts.get(f"{name}.jsonl")]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _body(told: Told) -> list[str]:
    raters = {vote.rater for vote in told.found}
    studies = sorted({vote.study for vote in told.found})
    lines = ["# Blind comparisons of medical answers", ""]
    lines += [
        f"{len(told.found)} judgements by {len(raters)} raters in {len(studies)} studies on "
        f"{len({vote.comparison_id for vote in told.found})} comparisons.",
        "",
        "| part | rows | what it is |",
        "|---|---|---|",
        *(f"| {name} | {told.counts[file]} | {_MEANING[name]} |" for name, file in parts_of(told.counts)),
        "",
        "## How it was collected",
        "Each rater saw two answers to the same question side by side, without the models' names, on a "
        "random side, and chose left, right, equally good or both bad. A changed vote counts in its last "
        "revision. Sources of the cases: "
        + (", ".join(sorted({vote.source or "typed by raters" for vote in told.found})) or "none")
        + ".",
        "",
        *_studies(told, studies),
        "",
        "## Raters and agreement",
        *_agreement(told.found),
        "Raters are numbers in the order of their first comparison in the record, the same in each export "
        "of this record, so exports can be joined; who they are is not in any file.",
        "",
        "## What was left out",
        *(f"- {key}: {value}" for key, value in told.asked.items()),
        f"- comparisons whose texts were erased: {told.erased} (their votes stand in the table)",
        "",
        "## Privacy",
        "Identifiers are masked by rules before a question is stored (【姓名】, 【电话】 …). This lessens what "
        "identifies a person; it does not make the texts anonymous. Look through them before they are "
        "passed on.",
        "",
        "## Limits",
        "Judgements of texts, not of outcomes in patients; models, cases and raters are those of these "
        "studies only; a vote on a dialogue judges the whole, so its rows have no common prompt "
        "(`pair_scope`). Not for clinical use.",
        "",
        "## Provenance",
        "manifest.json holds the sha256 of each file and the log's last hash, "
        f"`{told.last_hash}`. `python -m reviews.export --from manifest.json --out FOLDER` writes the same "
        "bytes from the same record.",
    ]  # fmt: skip
    return lines


def _studies(told: Told, names: Sequence[str]) -> list[str]:
    filed = {study.name: study for study in told.studies}
    lines = ["| study | protocol sha256 | pairs sha256 | frozen at |", "|---|---|---|---|"]
    for name in names:
        study = filed.get(name)
        frozen = study.frozen_at.isoformat() if study and study.frozen_at else "-"
        sha256 = study.sha256 if study else "no protocol"
        pairs = study.pairs_sha256 if study and study.pairs_sha256 else "-"
        lines.append(f"| {_cell(name)} | {sha256} | {pairs} | {frozen} |")
    return lines if names else ["No study has a vote."]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _agreement(found: Sequence[VoteRow]) -> list[str]:
    """Krippendorff's alpha over the four choices, on comparisons with two votes or more."""
    said: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for vote in found:
        if vote.purpose == "vote":
            said[vote.comparison_id][vote.rater] = vote.winner
    shared = [votes for votes in said.values() if len(votes) > 1]
    if not shared:
        return ["No comparison has two votes, so agreement cannot be told."]
    raters = sorted({rater for votes in shared for rater in votes})
    choices = ("a", "b", "tie", "both_bad")
    matrix = np.full((len(raters), len(shared)), np.nan)
    for unit, votes in enumerate(shared):
        for rater, winner in votes.items():
            matrix[raters.index(rater), unit] = choices.index(winner)
    coincidences = agreement.tables(matrix, len(choices)).sum(axis=0)
    alpha = float(agreement.alpha_of(coincidences))
    told = "not defined (one category only)" if np.isnan(alpha) else f"{alpha:.3f}"
    per_rater = Counter(vote.rater for vote in found)
    return [
        f"Krippendorff's alpha (nominal, {len(shared)} comparisons with two votes or more): {told}; "
        f"equal pairs of votes: {agreement.raw_agreement(matrix):.3f}. "
        f"Votes per rater: {min(per_rater.values())} to {max(per_rater.values())}.",
    ]
