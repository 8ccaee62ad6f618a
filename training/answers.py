"""judged answers as token ids with a mask over the answer, and the trunk's states of them, computed once.

A sequence is laid out as prompts.encode_training does, without the final end mark: a model never feeds that one back, so
states caught while it generates do not hold it either. States of all sequences lie one after the other in one array of
tokens, in memory or, when larger, in a file that is read through a memory map.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from huatuo.errors import InputError, NoData, NotFinite
from huatuo.messages import Conversation
from huatuo.prompts import IGNORED, encode_training, template_of
from training.pairs import Counts, Pair

States = Callable[[Tensor, Tensor], Tensor]
"""(input_ids (B, T), attention_mask (B, T)) -> states (B, T, H), as Trunk.states."""


@dataclass(frozen=True)
class Sequences:
    """Token ids of one conversation each; start: first token of what was judged. N sequences, pairs index them."""

    ids: tuple[tuple[int, ...], ...]
    judged: tuple[tuple[bool, ...], ...]
    pairs: NDArray[np.int64]
    """(P, 2): the sequences of a and b of every pair that is kept."""
    kept: tuple[int, ...]
    """Which of the given pairs they are."""

    @property
    def digest(self) -> str:
        """sha256 of all token ids: names the state cache."""
        return hashlib.sha256(json.dumps(self.ids).encode()).hexdigest()


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: Any, template: str, *, max_tokens: int, counts: Counts
) -> Sequences:
    """The pairs as sequences, each conversation once.

    What is too long loses its oldest exchanges first, then the end of the answer; both are counted. A pair whose
    question alone does not fit is left out and counted. Raises NoData if none is left.
    """
    number: dict[Conversation, int | None] = {}
    ids: list[tuple[int, ...]] = []
    judged: list[tuple[bool, ...]] = []
    kept, index = [], []
    for place, pair in enumerate(pairs):
        both = []
        for conversation in (pair.a, pair.b):
            if conversation not in number:
                said = encode_answer(
                    conversation,
                    tokenizer,
                    template,
                    pair.scope,
                    max_tokens=max_tokens,
                    counts=counts,
                )
                number[conversation] = len(ids) if said else None
                if said:
                    ids.append(said[0])
                    judged.append(said[1])
            both.append(number[conversation])
        if None in both:
            counts.add("left_out_question_too_long")
            continue
        kept.append(place)
        index.append(both)
    if not kept:
        raise NoData(f"no pair fits into max_tokens = {max_tokens}; raise it")
    counts.add("sequences", len(ids))
    return Sequences(tuple(ids), tuple(judged), np.array(index, np.int64), tuple(kept))


def encode_answer(
    conversation: Conversation,
    tokenizer: Any,
    template: str,
    scope: Literal["turn", "dialogue"],
    *,
    max_tokens: int,
    counts: Counts,
) -> tuple[tuple[int, ...], tuple[bool, ...]] | None:
    """(ids, mask of the judged tokens), both of one length; None if the question alone is too long.

    scope "turn": the last answer was judged; "dialogue": all of the doctor's turns.
    """
    start, cut = 0, 10**9
    while True:
        try:
            example = encode_training(tokenizer, conversation[start:], template, max_tokens=cut)
        except InputError:
            return None
        if len(example.input_ids) - 1 <= max_tokens or start + 2 >= len(conversation):
            break
        start += 2
    if start:
        counts.add("answers_with_oldest_exchanges_left_out")
    opening = len(
        tokenizer(template_of(template).supervised, add_special_tokens=False)["input_ids"]
    )
    runs = _runs([label != IGNORED for label in example.labels])
    mask = [False] * len(example.input_ids)
    for first, end in runs if scope == "dialogue" else runs[-1:]:
        mask[first + opening : end - 1] = [True] * (end - 1 - first - opening)
    ids, mask = example.input_ids[:-1], mask[:-1]
    if len(ids) > max_tokens:
        counts.add("answers_cut_at_max_tokens")
        ids, mask = ids[:max_tokens], mask[:max_tokens]
    return (tuple(ids), tuple(mask)) if any(mask) else None


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """(first, end) of every run of true flags; a doctor's turn ends at its end mark, so runs never touch."""
    edges = np.flatnonzero(np.diff(np.array([0, *map(int, flags), 0])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """(ids (B, T), attention mask (B, T)), padded on the right."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), fill, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


class StateCache:
    """The trunk's states of all sequences, each computed once. Close with `drop` when its file is not wanted."""

    def __init__(
        self, sequences: Sequences, states: NDArray[np.float32], path: Path | None
    ) -> None:
        self.sequences, self._states, self.path = sequences, states, path
        self._ends = np.cumsum([len(ids) for ids in sequences.ids])

    def batch(self, numbers: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """(states (B, T, H), attention mask (B, T), answer mask (B, T)) of some sequences, padded on the right."""
        rows = [self.sequences.ids[n] for n in numbers]
        _, mask = padded(rows)
        states = torch.zeros(*mask.shape, self._states.shape[1])
        for i, n in enumerate(numbers):
            end = self._ends[n]
            part = self._states[end - len(rows[i]) : end]
            states[i, : len(rows[i])] = torch.from_numpy(np.ascontiguousarray(part))
        return states, mask, answer_mask(self.sequences, numbers, mask.shape[1])

    def drop(self) -> None:
        """Removes the file, if there is one."""
        if self.path is not None:
            for file in (self.path, self.path.with_suffix(".json")):
                file.unlink(missing_ok=True)


def answer_mask(
    sequences: Sequences, numbers: Sequence[int] | NDArray[np.int64], length: int
) -> Tensor:
    """(B, T) bool: the judged tokens of some sequences."""
    mask = torch.zeros(len(numbers), length, dtype=torch.bool)
    for i, n in enumerate(numbers):
        mask[i, : len(sequences.judged[n])] = torch.tensor(sequences.judged[n])
    return mask


def cache_states(
    sequences: Sequences,
    states_of: States,
    hidden: int,
    *,
    folder: Path,
    key: str,
    cache_gb: float,
    batch_tokens: int = 8192,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> StateCache:
    """The states of all sequences; a finished file of the same key and sequences is used again.

    key: what the states depend on besides the token ids, such as the parent's sha256 and the number of blocks.
    Raises NotFinite naming the sequence.
    """
    tokens = sum(map(len, sequences.ids))
    path = None
    name = hashlib.sha256(f"{key}/{sequences.digest}".encode()).hexdigest()[:24]
    if tokens * hidden * 4 / 1e9 > cache_gb:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"states-{name}.npy"
        if path.is_file() and path.with_suffix(".json").is_file():
            return StateCache(sequences, np.load(path, mmap_mode="r"), path)
        out: NDArray[np.float32] = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=(tokens, hidden)
        )
    else:
        out = np.empty((tokens, hidden), np.float32)
    ends = np.cumsum([len(ids) for ids in sequences.ids])
    bar = tqdm(
        total=tokens, desc="trunk states", unit="token", unit_scale=True, disable=not progress
    )
    for numbers in length_batches([len(ids) for ids in sequences.ids], batch_tokens):
        ids, mask = padded([sequences.ids[n] for n in numbers])
        found = states_of(ids.to(device), mask.to(device)).float().cpu()
        if not bool(torch.isfinite(found[mask.bool()]).all()):
            raise NotFinite(
                f"the trunk's states of sequences {numbers[:8]} are not finite; check the parent"
            )
        for row, n in zip(found.numpy(), numbers, strict=True):
            length = len(sequences.ids[n])
            out[ends[n] - length : ends[n]] = row[:length]
            bar.update(length)
    bar.close()
    if path is not None:
        out.flush()  # type: ignore[attr-defined]
        path.with_suffix(".json").write_text(
            json.dumps({"tokens": tokens, "hidden": hidden}) + "\n"
        )
    return StateCache(sequences, out, path)


def length_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of like lengths, at most `tokens` with padding (a longer one stands alone)."""
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch
