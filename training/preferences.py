"""votes as rows for DPO and KTO: which answer counts as better or good, and its tokens in the project's own layout.

The ids are those of prompts.encode_training, so that a preference is learned on the very tokens that SFT and the app use;
no chat template stands between. DPO takes one row per pair that has a winner; ties, both-bad and pairs on which the
raters cancel out cannot be used by it and are counted. KTO takes one row per answer: a winner and both sides of a tie are
desirable, a loser and both sides of both-bad undesirable. Where physicians have voted on a pair, AI votes on it are not
used.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huatuo.errors import NoData, TooLong
from huatuo.messages import Conversation
from huatuo.prompts import encode, encode_training
from training.pairs import Counts, Pair

_WHOLE = 10**9


@dataclass(frozen=True)
class Choice:
    """A pair with a winner. prompt + chosen and prompt + rejected are whole sequences, final eos included."""

    pair: int
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """One answer with its label: desirable or not."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    desirable: bool


def tally(pair: Pair) -> tuple[int, int, int, int]:
    """Votes for (a, tie, b, both bad): the physicians' if they have voted, else the AI's."""
    counted = pair.tally("physician")
    return counted if any(counted) else pair.tally()


def encode_last(
    tokenizer: Any, conversation: Conversation, template: str, *, max_tokens: int
) -> tuple[list[int], list[int]]:
    """(prompt ids, ids of the last answer with its eos); together they are encode_training's ids.

    Raises TooLong if they are more than max_tokens: a preference that is cut says something else.
    """
    whole = encode_training(tokenizer, conversation, template, max_tokens=_WHOLE).input_ids
    if len(whole) > max_tokens:
        raise TooLong(f"the conversation has {len(whole)} tokens; max_tokens is {max_tokens}")
    prompt = encode(tokenizer, conversation[:-1], template, max_tokens=_WHOLE).ids
    shared = common(prompt, whole)
    return whole[:shared], whole[shared:]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y),
        min(len(one), len(other)),
    )


def choices(
    pairs: Sequence[Pair],
    numbers: Sequence[int],
    tokenizer: Any,
    template: str,
    *,
    max_tokens: int,
    counts: Counts,
    part: str,
) -> list[Choice]:
    """DPO's rows of the pairs with these numbers; what is left out is counted under `<part>_…`."""
    found = []
    for number in numbers:
        pair = pairs[number]
        a, tie, b, bad = tally(pair)
        if pair.scope == "dialogue":
            counts.add(f"{part}_dialogues_without_a_common_prompt")
        elif not a and not b:
            counts.add(f"{part}_{'ties' if tie >= bad else 'both_bad'}_without_a_winner")
        elif a == b:
            counts.add(f"{part}_raters_cancel_out")
        else:
            won, lost = (pair.a, pair.b) if a > b else (pair.b, pair.a)
            try:
                prompt, chosen = encode_last(tokenizer, won, template, max_tokens=max_tokens)
                other, rejected = encode_last(tokenizer, lost, template, max_tokens=max_tokens)
            except TooLong:
                counts.add(f"{part}_too_long")
                continue
            shared = min(len(prompt), len(other))
            found.append(
                Choice(
                    number,
                    tuple(prompt[:shared]),
                    (*prompt[shared:], *chosen),
                    (*other[shared:], *rejected),
                )
            )
            counts.add(f"{part}_pairs_used")
    return found


def verdicts(
    pairs: Sequence[Pair],
    numbers: Sequence[int],
    tokenizer: Any,
    template: str,
    *,
    max_tokens: int,
    counts: Counts,
    part: str,
    seed: int,
) -> list[Verdict]:
    """KTO's rows, one per answer, in an order drawn by the seed; an answer in several pairs gets its votes' majority.

    Of a dialogue the last answer is taken, each with its own history. Raises NoData if all rows have the same label.
    """
    votes: dict[Conversation, list[int]] = {}
    for number in numbers:
        pair = pairs[number]
        a, tie, b, bad = tally(pair)
        for conversation, good, poor in ((pair.a, a + tie, b + bad), (pair.b, b + tie, a + bad)):
            sums = votes.setdefault(conversation, [0, 0])
            sums[0] += good
            sums[1] += poor
    rows = []
    for conversation, (good, poor) in votes.items():
        if good == poor:
            counts.add(f"{part}_answers_on_which_raters_cancel_out")
            continue
        try:
            prompt, answer = encode_last(tokenizer, conversation, template, max_tokens=max_tokens)
        except TooLong:
            counts.add(f"{part}_answers_too_long")
            continue
        rows.append(Verdict(tuple(prompt), tuple(answer), good > poor))
        counts.add(f"{part}_answers_{'desirable' if good > poor else 'undesirable'}")
    if len({row.desirable for row in rows}) < 2:
        kind = "desirable" if rows and rows[0].desirable else "undesirable"
        raise NoData(
            f"all {len(rows)} answers are {kind}; KTO needs both kinds, collect more votes"
        )
    random.Random(seed).shuffle(rows)
    return rows
