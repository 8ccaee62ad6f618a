"""a vote as rows for training and reading: TRL preference and KTO, better answers, a line of the table.

Sides are undone here: everything is told by contestant a and b, or by chosen and rejected. A text that
was erased makes no row for training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reviews import audit
from reviews.asof import ratings_of
from reviews.records import ERASED, Comparison, Letter, VoteRow, first_tab, iso

Messages = list[dict[str, str]]
Row = dict[str, Any]

JUDGED = ("pairs.jsonl", "dialogues.jsonl", "ties.jsonl", "both_bad.jsonl")
"""The files in exactly one of which every judgement stands."""
JSONL = (*JUDGED, "pairs_implicit.jsonl", "kto.jsonl", "sft.jsonl", "better_pairs.jsonl")


def conversation(comparison: Comparison, side: Letter) -> Messages:
    """One side's whole conversation as messages."""
    said: Messages = []
    for turn in comparison.turns:
        answer = turn.a if side == "a" else turn.b
        said.append({"role": "user", "content": turn.asked(side)})
        said.append({"role": "assistant", "content": answer.text if answer else ""})
    return said


def is_erased(comparison: Comparison) -> bool:
    """Whether the texts of this comparison were erased."""
    return any(turn.question == ERASED for turn in comparison.turns)


def facts_of(vote: VoteRow) -> Row:
    """What every training row says about its vote; ratings are canonical JSON, as seen by the rater."""
    return {
        "vote": vote.assignment_id,
        "study": vote.study,
        "kind": vote.kind,
        "case": vote.external_id or vote.comparison_id,
        "rater": vote.rater,
        "department": vote.department,
        "intent": vote.intent,
        "language": vote.language,
        "source": vote.source,
        "left_is": vote.left_is,
        "first_tab": first_tab(vote.assignment_id),
        "ratings": audit.canonical(dict(vote.ratings)),
        "seconds": vote.seconds,
        "revisions": vote.revisions,
        "identity_leak": vote.identity_leak,
        "purpose": vote.purpose,
        "probability": vote.probability,
        "fast": vote.fast,
        "at": iso(vote.at),
    }


def record_of(vote: VoteRow, comparison: Comparison) -> tuple[str, Row]:
    """The file of JUDGED that a vote belongs to, and its row there."""
    sides = {"a": conversation(comparison, "a"), "b": conversation(comparison, "b")}
    names = {"a": vote.contestant_a, "b": vote.contestant_b}
    facts = facts_of(vote)
    if vote.winner not in ("a", "b"):
        told = {f"{key}_{side}": value[side] for key, value in
                (("answer", sides), ("model", names)) for side in "ab"}  # fmt: skip
        return ("ties.jsonl" if vote.winner == "tie" else "both_bad.jsonl"), {**told, **facts}
    won, lost = ("a", "b") if vote.winner == "a" else ("b", "a")
    facts["chosen_model"], facts["rejected_model"] = names[won], names[lost]
    if vote.turns > 1 or sides["a"][0] != sides["b"][0]:  # no common prompt
        both = {"chosen": sides[won], "rejected": sides[lost]}
        return "dialogues.jsonl", {**both, "pair_scope": "dialogue", **facts}
    asked = {"prompt": sides[won][:1], "chosen": sides[won][1:], "rejected": sides[lost][1:]}
    return "pairs.jsonl", {**asked, "pair_scope": "turn", **facts}


def rows_of(vote: VoteRow, comparison: Comparison) -> Iterator[tuple[str, Row]]:
    """(file, row) for every training row that a vote gives; none when its texts were erased."""
    if is_erased(comparison):
        return
    name, row = record_of(vote, comparison)
    yield name, row
    if name == "pairs.jsonl":
        rest = {key: value for key, value in row.items() if key != "prompt"}
        whole = {key: row["prompt"] + row[key] for key in ("chosen", "rejected")}
        yield "pairs_implicit.jsonl", {**rest, **whole}
    yield from (("kto.jsonl", row) for row in unpaired(vote, comparison))
    yield from _better(vote, comparison)


def unpaired(vote: VoteRow, comparison: Comparison) -> Iterator[Row]:
    """TRL's KTO rows: an answer and whether it is good.

    True for the winner; false for both of "both bad" and for an answer marked as unsafe, even if it
    won. A mere loser gives no row: it may be a good answer beside a better one.
    """
    unsafe: dict[Letter, list[str]] = {}
    for span in vote.spans:
        unsafe.setdefault(_letter(vote, span.side), []).append(span.kind)
    for side in ("a", "b"):
        letter: Letter = "a" if side == "a" else "b"
        if letter in unsafe or vote.winner == "both_bad":
            label, why = False, "safety" if letter in unsafe else "both_bad"
        elif vote.winner == letter:
            label, why = True, "won"
        else:
            continue
        said = conversation(comparison, letter)
        yield {
            "prompt": said[:-1],
            "completion": said[-1:],
            "label": label,
            "because": why,
            "safety": ",".join(sorted(set(unsafe.get(letter, [])))),
            "model": vote.contestant_a if letter == "a" else vote.contestant_b,
            "pair_scope": "dialogue" if len(said) > 2 else "turn",
            **facts_of(vote),
        }


def _better(vote: VoteRow, comparison: Comparison) -> Iterator[tuple[str, Row]]:
    """The physician's own answer, if its author agreed to training: to learn, and against the original.

    It answers the last turn (better_turn, from 1); what was said before is its prompt.
    """
    better = vote.better
    if better is None or not better.consent:
        return
    if not better.side and len(comparison.turns) > 1:  # written to neither conversation
        return
    letter: Letter = _letter(vote, better.side) if better.side else "a"
    said, answer = conversation(comparison, letter), {"role": "assistant", "content": better.text}
    facts = {"better_turn": vote.turns, **facts_of(vote)}
    facts["pair_scope"] = "dialogue" if len(said) > 2 else "turn"
    yield "sft.jsonl", {"messages": [*said[:-1], answer], **facts}
    if better.side and said[-1] != answer:
        model = vote.contestant_a if letter == "a" else vote.contestant_b
        pair = {"prompt": said[:-1], "chosen": [answer], "rejected": said[-1:]}
        yield "better_pairs.jsonl", {**pair, "rejected_model": model, **facts}


def table_row(vote: VoteRow, comparison: Comparison) -> Row:
    """A vote as one flat row with every field; lists are canonical JSON, None is unknown."""
    better = vote.better if vote.better and vote.better.consent else None
    return {
        **facts_of(vote),
        "turns": vote.turns,
        "contestant_a": vote.contestant_a,
        "contestant_b": vote.contestant_b,
        "choice": vote.choice,
        "winner": vote.winner,
        "reason": vote.reason,
        "ratings_by_contestant": audit.canonical(ratings_of(vote)),
        "spans": audit.canonical(marked(vote, comparison)),
        "better_answer": better.text if better else "",
        "better_from": _letter(vote, better.side) if better and better.side else "",
        "better_turn": vote.turns if better else None,
        "better_consent": vote.better.consent if vote.better else None,
        "question": _said(comparison, "a", "user"),
        "answer_a": _said(comparison, "a", "assistant"),
        "answer_b": _said(comparison, "b", "assistant"),
    }


def marked(vote: VoteRow, comparison: Comparison) -> list[Row]:
    """The places marked as unsafe, by contestant, with the words that were marked."""
    found = []
    for span in vote.spans:
        letter = _letter(vote, span.side)
        turn = comparison.turns[span.turn - 1]
        answer = turn.a if letter == "a" else turn.b
        text = answer.text if answer else ""
        found.append(
            {
                "contestant": vote.contestant_a if letter == "a" else vote.contestant_b,
                "side": letter,
                "turn": span.turn,
                "start": span.start,
                "end": span.end,
                "kind": span.kind,
                "note": span.note,
                "text": text[span.start : span.end] if text != ERASED else ERASED,
            }
        )
    return found


def _letter(vote: VoteRow, seen: str) -> Letter:
    """The contestant that the rater saw on this side."""
    return "a" if (seen == "left") == (vote.left_is == "a") else "b"


def _said(comparison: Comparison, side: Letter, role: str) -> str:
    return "\n\n".join(m["content"] for m in conversation(comparison, side) if m["role"] == role)
