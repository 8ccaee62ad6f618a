"""token ids out of a model: one after another with a generator of its own, or by beam search.

The loop is our own, because `generate` draws from the global random state: with it two answers at once would
disturb each other. Beam search draws nothing, so there `generate` itself is called. Letters: T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from huatuo.config import Generation
from huatuo.errors import Unavailable

INSTEAD = {"chatglm": 5}
"""By model type: the token that the family's own code says when the logits hold NaN or infinity."""
BROKEN = "the model computes NaN; its weights or its dtype are wrong"


def decode(
    model: Any, prompt: list[int], settings: Generation, limit: int, seed: int, stops: set[int]
) -> Iterator[int | None]:
    """Up to `limit` token ids; None instead of a token in `stops`, and then no more.

    prompt: for an encoder-decoder what the encoder reads. Draws from a generator of its own. Penalty, temperature,
    top-k and top-p in the order of transformers' `generate`. Raises Unavailable if the model computes NaN.
    """
    device = entrance(model)
    generator = torch.Generator(device).manual_seed(seed % 2**63)
    instead = INSTEAD.get(model.config.model_type)
    step, following = _beginning(model, torch.tensor([prompt], device=device))
    seen = step[0]  # (T,)
    for _ in range(limit):
        logits = following(step)[0, -1].float().to(device)  # (V,)
        if instead is not None and not bool(torch.isfinite(logits).all()):
            token = instead
        else:
            token = pick(logits, seen, settings, generator)
        if token in stops:
            yield None
            return
        yield token
        step = torch.tensor([[token]], device=device)
        if settings.repetition_penalty != 1:
            seen = torch.cat([seen, step[0]])


def search(
    model: Any,
    prompt: list[int],
    settings: Generation,
    limit: int,
    stops: set[int],
    tick: Callable[[], None],
) -> tuple[list[int], bool]:
    """(token ids of the best of `num_beams` beams, whether it ended by itself); nothing is drawn.

    tick: called before each token; what it raises ends the search. Through transformers' `generate`, where the
    model's generation_config must hold token ids only (see `ids_only`). Raises Unavailable if the model computes NaN.
    """
    ids = torch.tensor([prompt], device=entrance(model))  # (1, T)
    kept = model.generation_config
    pad = kept.pad_token_id
    if pad is None:
        pad = min(stops, default=0)
    config = GenerationConfig(
        do_sample=False,
        num_beams=settings.num_beams,
        max_new_tokens=limit,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad,
        use_cache=True,
    )
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        logits_processor=LogitsProcessorList([_Finite(INSTEAD.get(model.config.model_type))]),
        stopping_criteria=StoppingCriteriaList([_Tick(tick)]),
    )[0].tolist()
    said = output[1:] if model.config.is_encoder_decoder else output[len(prompt) :]
    end = next((place for place, token in enumerate(said) if token in stops), None)
    return (said, False) if end is None else (said[:end], True)


def ids_only(config: GenerationConfig) -> GenerationConfig:
    """The token ids of a folder's generation_config.json; its settings would work beside ours, unseen."""
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )


def entrance(model: Any) -> torch.device:
    """The device that takes the token ids, also of a model that lies on several."""
    device: torch.device = model.get_input_embeddings().weight.device
    return device


def pick(logits: Tensor, seen: Tensor, settings: Generation, generator: torch.Generator) -> int:
    """One token id from logits (V,) float32; seen: (T,) ids that the repetition penalty weakens."""
    if settings.repetition_penalty != 1:
        scores = logits[seen]
        penalty = settings.repetition_penalty
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    if settings.temperature < 1e-4:
        likeliest = int(logits.argmax())
        if not bool(logits[likeliest].isfinite()):  # NaN is the largest of all
            raise Unavailable(BROKEN)
        return likeliest
    order: Tensor | None = None
    probabilities = (logits / settings.temperature).softmax(-1)  # (V,)
    kept = min(settings.top_k or len(logits), len(logits))
    if kept < len(logits) or settings.top_p < 1:
        probabilities, order = _nucleus(probabilities, kept, settings.top_p)
    if not bool(torch.isfinite(probabilities).all()):
        raise Unavailable(BROKEN)
    drawn = int(torch.multinomial(probabilities, 1, generator=generator))
    return drawn if order is None else int(order[drawn])


def _nucleus(probabilities: Tensor, kept: int, top_p: float) -> tuple[Tensor, Tensor]:
    """(probabilities, ids) of the likeliest tokens that together reach `top_p` of the likeliest `kept`.

    Looks at the likeliest 256 first, because sorting a whole vocabulary for each token is slow.
    """
    whole = probabilities.sum() if kept == len(probabilities) else probabilities.topk(kept)[0].sum()
    for size in (min(256, kept), kept):
        values, ids = probabilities.topk(size)  # (size,), falling
        values = values / whole
        if size == kept or float(values.sum()) > top_p:
            break
    before = values.cumsum(-1) - values
    return values.masked_fill(before >= top_p, 0), ids


def _beginning(model: Any, prompt: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """(the ids to begin with (1, T), a function from the next ids to logits (1, t, V) that keeps the cache)."""
    if model.config.is_encoder_decoder:
        return _beginning_of_decoder(model, prompt)
    cache = DynamicCache(config=model.config)

    def following(step: Tensor) -> Tensor:
        output = model(
            input_ids=step,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        logits: Tensor = output.logits
        return logits

    return prompt, following


def _beginning_of_decoder(model: Any, prompt: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    mask = torch.ones_like(prompt)
    encoded = model.get_encoder()(input_ids=prompt, attention_mask=mask, return_dict=True)
    cache = EncoderDecoderCache(
        DynamicCache(config=model.config), DynamicCache(config=model.config)
    )

    def following(step: Tensor) -> Tensor:
        output = model(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=step,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        logits: Tensor = output.logits
        return logits

    start = model.generation_config.decoder_start_token_id
    if start is None:
        start = model.config.decoder_start_token_id
    return torch.tensor([[start or 0]], device=prompt.device), following


class _Tick(StoppingCriteria):
    """Never stops by itself; looks for a cancellation at each token."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        self._tick()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class _Finite(LogitsProcessor):
    """Raises Unavailable on NaN, or makes `instead` the only possible token."""

    def __init__(self, instead: int | None) -> None:
        self._instead = instead

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not bool(scores.isnan().any()):
            return scores
        if self._instead is None:
            raise Unavailable(BROKEN)
        scores = torch.full_like(scores, float("-inf"))
        scores[:, self._instead] = 0
        return scores
