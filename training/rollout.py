"""answers sampled from the policy in batches, with the trunk's states caught on the way.

Prompts are padded on the left, answers on the right. A prompt's several samples share its prefill, and rows that have
ended are taken out of the batch, several at a time. The states of everything that was fed come with the answers, so
training need not run the trunk again; the last token of an answer is never fed, and its log-probability does not need it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from huatuo.errors import NotFinite
from huatuo.models.trunk import Trunk, positions
from training.kv_cache import roomy_cache

HELD = 0.875
"""Rows that have ended are run on, to no effect, until only this share goes on: taking rows out copies all others."""


@dataclass(frozen=True)
class Rollouts:
    """B answers. Letters: T prompt and answer columns, H hidden width.

    ids: (B, T). fed: (B, T-1), 1 where a token was fed to the model. answer: (B, T), 1 on the answer's tokens, its end
    mark included. states: (B, T-1, H), the trunk's. finished: (B,), ended by itself. sampled: (B, T) float32, the
    log-probability with which each answer token was drawn.
    """

    ids: Tensor
    fed: Tensor
    answer: Tensor
    states: Tensor
    finished: Tensor
    sampled: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Tensor:
        """(B,) tokens of each answer."""
        return self.answer.sum(1)

    @property
    def spoken(self) -> Tensor:
        """(B, T-1) the answer's tokens without its end mark: where the reward is read."""
        return self.answer[:, :-1] & self.fed.bool()

    def select(self, rows: Sequence[int] | Tensor) -> "Rollouts":
        """These rows, without columns that none of them uses."""
        at = torch.as_tensor(rows, device=self.ids.device)
        used = (self.answer[at] | torch.nn.functional.pad(self.fed[at], (0, 1)).bool()).any(0)
        place = used.nonzero().squeeze(1)
        left, right = int(place[0]), int(place[-1]) + 1
        return Rollouts(
            ids=self.ids[at, left:right],
            fed=self.fed[at, left : right - 1],
            answer=self.answer[at, left:right],
            states=self.states[at, left : right - 1],
            finished=self.finished[at],
            sampled=self.sampled[at, left:right],
        )


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn. ends: ids that end an answer. Rows at a time bound the memory of the key-value cache.

    top_p below 1 is for answers as they are served; training needs 1, because log-probabilities know no nucleus.
    """

    max_new_tokens: int
    ends: frozenset[int]
    pad: int
    temperature: float = 1.0
    rows: int = 64
    top_p: float = 1.0


@torch.no_grad()
def sample(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    samples: int,
    how: Drawing,
    generator: torch.Generator,
) -> Rollouts:
    """`samples` answers to each prompt, row n*samples+i the i-th of prompt n. All of it depends on the generator alone."""
    at_once = max(1, how.rows // samples)
    parts = [
        _sample(trunk, prompts[start : start + at_once], samples, how, generator)
        for start in range(0, len(prompts), at_once)
    ]
    return join(parts)


def _sample(
    trunk: Trunk,
    prompts: Sequence[Sequence[int]],
    samples: int,
    how: Drawing,
    generator: torch.Generator,
) -> Rollouts:
    device, wide = trunk.device, max(map(len, prompts))
    rows = len(prompts) * samples
    total = wide + how.max_new_tokens
    ids = torch.full((rows, total), how.pad, device=device)
    fed = torch.zeros(rows, total - 1, dtype=torch.long, device=device)
    for n, prompt in enumerate(prompts):
        part = slice(n * samples, (n + 1) * samples)
        ids[part, wide - len(prompt) : wide] = torch.tensor(prompt, device=device)
        fed[part, wide - len(prompt) : wide] = 1
    answer = torch.zeros(rows, total, dtype=torch.bool, device=device)
    sampled = torch.zeros(rows, total, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    states: Tensor | None = None
    live = torch.arange(rows, device=device)
    end = wide
    for live, column, logits, caught in _steps(trunk, ids, fed, wide, samples, total):
        if states is None:
            states = caught.new_zeros(rows, total - 1, trunk.hidden_size)
        states[live, column - caught.shape[1] : column] = caught
        table = (logits / how.temperature).log_softmax(-1)  # (b, V)
        if not bool(torch.isfinite(table).all()):
            raise NotFinite(
                "the policy computes NaN or infinity while it answers; its weights are spoilt"
            )
        tokens = draw(nucleus(table.exp(), how.top_p), generator)
        ids[live, column] = tokens.squeeze(1)
        sampled[live, column] = table.gather(1, tokens).squeeze(1)
        answer[live, column] = True
        ended = torch.isin(tokens.squeeze(1), torch.tensor(sorted(how.ends), device=device))
        finished[live] = ended
        if column < total - 1:
            fed[live, column] = (~ended).long()
        end = column + 1
    assert states is not None
    return Rollouts(
        ids=ids[:, :end],
        fed=fed[:, : end - 1],
        answer=answer[:, :end],
        states=states[:, : end - 1],
        finished=finished,
        sampled=sampled[:, :end],
    )


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """(b, 1) tokens drawn from (b, V) weights, which need not add up to 1: one random number a row.

    torch.multinomial takes one for each word of the vocabulary, which costs as much as a block of a small model.
    """
    reached = probabilities.double().cumsum(-1)
    height = torch.rand(
        len(reached), 1, dtype=reached.dtype, device=reached.device, generator=generator
    )
    return torch.searchsorted(reached, height * reached[:, -1:], right=True)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """(b, V) with all but the likeliest tokens that together reach top_p set to 0. Source: arXiv 1904.09751."""
    if top_p >= 1:
        return probabilities
    ranked, places = probabilities.sort(-1, descending=True)
    ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0.0)
    return torch.zeros_like(ranked).scatter_(-1, places, ranked)


def _steps(
    trunk: Trunk, ids: Tensor, fed: Tensor, wide: int, samples: int, total: int
) -> Iterator[tuple[Tensor, int, Tensor, Tensor]]:
    """Per column: (rows that go on, the column to fill, logits (b, V) float32, states (b, t, H) of what was fed).

    The caller fills ids[:, column] and fed[:, column] before it asks for the next.
    """
    model: Any = trunk.model
    cache = roomy_cache(model.config, total - 1)
    with trunk.recording() as heard:
        mask = fed[::samples, :wide]
        out = model(
            input_ids=ids[::samples, :wide],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **positions(mask, trunk.takes_positions),
        )
        cache.batch_repeat_interleave(samples)
        held = torch.arange(len(ids), device=ids.device)  # the rows that are run
        logits = out.logits[:, -1].float().repeat_interleave(samples, 0)
        caught = heard.pop().repeat_interleave(samples, 0)
        yield held, wide, logits, caught
        for column in range(wide, total - 1):
            going = fed[held, column].bool()
            if not bool(going.any()):
                return
            if int(going.sum()) <= HELD * len(going):
                cache.batch_select_indices(going.nonzero().squeeze(1))
                held = held[going]
                going = going[going]
            mask = fed[held, : column + 1]
            place = {
                key: value[:, -1:] for key, value in positions(mask, trunk.takes_positions).items()
            }
            out = model(
                input_ids=ids[held, column : column + 1],
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **place,
            )
            yield held[going], column + 1, out.logits[going, -1].float(), heard.pop()[going]


def join(parts: Sequence[Rollouts]) -> Rollouts:
    """One batch out of several, padded so that every answer begins in the same column."""
    if len(parts) == 1:
        return parts[0]
    begin = [int(part.answer.any(0).nonzero()[0]) for part in parts]
    left = [max(begin) - b for b in begin]
    widest = max(extra + part.ids.shape[1] for extra, part in zip(left, parts, strict=True))
    padded = [
        _pad(part, extra, widest - extra - part.ids.shape[1])
        for extra, part in zip(left, parts, strict=True)
    ]
    return Rollouts(
        **{
            name: torch.cat([getattr(p, name) for p in padded])
            for name in Rollouts.__dataclass_fields__
        }
    )


def _pad(part: Rollouts, left: int, right: int) -> Rollouts:
    def wider(table: Tensor) -> Tensor:
        return torch.nn.functional.pad(table, (left, right))

    states = torch.nn.functional.pad(part.states, (0, 0, left, right))
    return replace(
        part,
        ids=wider(part.ids),
        fed=wider(part.fed),
        answer=wider(part.answer),
        states=states,
        sampled=wider(part.sampled),
    )


def recomputed(trunk: Trunk, rollouts: Rollouts) -> Rollouts:
    """The same rollouts with the trunk's states computed anew: when they were not caught while generating."""
    return replace(rollouts, states=trunk.states(rollouts.ids[:, :-1], rollouts.fed))
