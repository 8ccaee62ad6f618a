"""answers of local weights, many at a time: padded on the left, drawn with one seed per batch, each read to its end.

How an answer is laid out, read and judged whole is the app's own (huatuo/prompts.py, replies.py, engines). A batch of the
same prompts and seed gives the same answers on the same machine; batches of another make-up may round differently.
Whether a model bears padding is measured on the first batch, by its own logits; one that does not is asked one by one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from huatuo import prompts
from huatuo.config import Generation, ModelConfig
from huatuo.engines.base import is_endless
from huatuo.engines.decoding import BROKEN, INSTEAD, entrance
from huatuo.engines.local import SMALL, LocalEngine
from huatuo.errors import HuatuoError, Unavailable
from huatuo.messages import Conversation
from huatuo.replies import reader_of
from huatuo.toml import ROOT
from training.answer_cache import Kept

SAME = 0.02
"""Most that padding may move a logit, in standard deviations of the logits: bfloat16 moves them by less."""


class LocalModel:
    """A local model that answers in batches. Raises what huatuo.engines.local.LocalEngine raises."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._engine = LocalEngine(config, ROOT)
        self.model, self.tokenizer = self._engine.model, self._engine.tokenizer
        self._bears_padding: bool | None = None
        if self.model.num_parameters() <= SMALL:
            torch.set_num_threads(1)

    def close(self) -> None:
        """Frees the engine's threads."""
        asyncio.run(self._engine.close())

    def answer(
        self, conversations: Sequence[Conversation], settings: Generation, seed: int
    ) -> list[Kept]:
        """One answer each, in order; a prompt that does not fit, or an answer that is none, is a failure."""
        found: list[Kept | None] = [None] * len(conversations)
        prompted: dict[int, tuple[list[int], int]] = {}
        for place, conversation in enumerate(conversations):
            try:
                prompted[place] = self._prompt(conversation, settings)
            except HuatuoError as error:
                found[place] = failure(error)
        for group in self._groups(prompted):
            said = self._drawn([prompted[place] for place in group], settings, seed)
            for place, (ids, ended) in zip(group, said, strict=True):
                found[place] = self._read(ids, ended, conversations[place])
        return [kept for kept in found if kept is not None]

    @torch.inference_mode()
    def letters(
        self, conversations: Sequence[Conversation], options: Sequence[Mapping[str, str]]
    ) -> list[Kept]:
        """Log-probability of each option's letter as the answer's first word, in `figures`."""
        return [self._letters(*each) for each in zip(conversations, options, strict=True)]

    def _prompt(self, conversation: Conversation, settings: Generation) -> tuple[list[int], int]:
        """(ids, most new tokens), as the engine computes them."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        context = min(settings.context_tokens, int(limit) if limit else 1 << 30)
        reserve = min(settings.max_new_tokens, context // 2)
        family = self.config.template
        ids = prompts.encode(self.tokenizer, conversation, family, max_tokens=context - reserve).ids
        return ids, min(settings.max_new_tokens, context - len(ids))

    def _groups(self, prompted: Mapping[int, tuple[list[int], int]]) -> list[list[int]]:
        places = list(prompted)
        if self._bears_padding is None and len(places) > 1:
            ids = sorted((prompted[place][0] for place in places), key=len)
            if len(ids[0]) < len(ids[-1]):
                self._bears_padding = self._measure(ids[0], ids[-1])
        if self._bears_padding is False:
            return [[place] for place in places]
        return [places] if places else []

    @torch.inference_mode()
    def _measure(self, short: list[int], long: list[int]) -> bool:
        """Whether the short prompt's next-token logits stay the same when it is padded to the long one's length."""
        if self.model.config.is_encoder_decoder:
            return True  # transformers' T5 masks its encoder
        ids, mask = self._padded([short, long])
        config = self._generation(1, Generation(temperature=0, max_new_tokens=1))
        more: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
        config.update(**more)
        padded = self.model.generate(ids, attention_mask=mask, generation_config=config).logits[0]
        alone = self._padded([short])
        one = self.model.generate(
            alone[0], attention_mask=alone[1], generation_config=config
        ).logits[0]
        a, b = padded[0].float(), one[0].float()
        return bool((a - b).abs().max() <= SAME * b[b.isfinite()].std())

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(ids (B, T), attention mask (B, T)), padded on the left."""
        pad = self._pad()
        width = max(map(len, rows))
        ids = [[pad] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = entrance(self.model)
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _pad(self) -> int:
        known = (self.tokenizer.pad_token_id, self.model.generation_config.pad_token_id)
        return int(next((i for i in known if i is not None), min(self._stops(), default=0)))

    def _stops(self) -> set[int]:
        ids = self.model.generation_config.eos_token_id
        stops = {ids} if isinstance(ids, int) else set(ids or ())
        return {*stops, self.tokenizer.eos_token_id} - {None}

    def _generation(self, limit: int, settings: Generation) -> GenerationConfig:
        draws = settings.num_beams == 1 and settings.temperature >= 1e-4
        how: dict[str, Any] = {"do_sample": False}
        if draws:
            how = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}  # fmt: skip
        return GenerationConfig(
            max_new_tokens=limit,
            num_beams=settings.num_beams,
            repetition_penalty=settings.repetition_penalty,
            eos_token_id=sorted(self._stops()) or None,
            pad_token_id=self._pad(),
            decoder_start_token_id=self.model.generation_config.decoder_start_token_id,
            use_cache=True,
            **how,
        )

    @torch.inference_mode()
    def _drawn(
        self, prompted: Sequence[tuple[list[int], int]], settings: Generation, seed: int
    ) -> list[tuple[list[int], bool]]:
        """(token ids without an end token, whether the model ended by itself) of each prompt.

        A batch that does not fit the memory is halved. Raises Unavailable if the model computes NaN or even a single
        prompt does not fit.
        """
        torch.manual_seed(seed)
        ids, mask = self._padded([prompt for prompt, _ in prompted])
        longest = max(limit for _, limit in prompted)
        guard = LogitsProcessorList([_Finite(INSTEAD.get(self.model.config.model_type))])
        try:
            out = self.model.generate(
                ids,
                attention_mask=mask,
                generation_config=self._generation(longest, settings),
                logits_processor=guard,
            )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(prompted) == 1:
                raise Unavailable(f"{self.config.name} ran out of memory; lower `batch`") from None
            half = len(prompted) // 2
            parts = (prompted[:half], prompted[half:])
            return [row for part in parts for row in self._drawn(part, settings, seed)]
        start = 1 if self.model.config.is_encoder_decoder else ids.shape[1]
        stops = self._stops()
        found = []
        for row, (_, limit) in zip(out[:, start:].tolist(), prompted, strict=True):
            end = next((place for place, token in enumerate(row) if token in stops), None)
            ended = end is not None and end <= limit
            found.append((row[: end if ended else limit], ended))
        return found

    def _read(self, ids: Sequence[int], ended: bool, conversation: Conversation) -> Kept:
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        reader = reader_of(self.config.template)
        chunks = [*reader.add(text.replace("\ufffd", "")), *reader.rest()]
        said = "".join(chunk.text for chunk in chunks if not chunk.thinking).strip()
        if reader.problem:
            return Kept(said, "error", f"Truncated: {reader.problem}")
        if not (ended or reader.ended):
            return Kept(said, "length", "length: cut at max_new_tokens")
        return as_answer(said, conversation)

    def _letters(self, conversation: Conversation, options: Mapping[str, str]) -> Kept:
        if self.model.config.is_encoder_decoder:
            return Kept("", "error", "Letters: not measured for an encoder-decoder")
        try:
            prompt, _ = self._prompt(conversation, self.config.generation)
        except HuatuoError as error:
            return failure(error)
        device = entrance(self.model)
        figures = {}
        for letter in options:
            own = self.tokenizer(letter, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*prompt, *own]], device=device)  # (1, T)
            logits = self.model(input_ids=ids, use_cache=False).logits[0, -len(own) - 1 : -1]
            told = logits.float().log_softmax(-1).gather(1, ids[0, -len(own) :, None])
            figures[letter] = float(told.sum())
        return Kept(max(figures, key=lambda letter: figures[letter]), "stop", figures=figures)


class _Finite(LogitsProcessor):
    """Raises Unavailable on NaN, or makes `instead` the only possible token of that row."""

    def __init__(self, instead: int | None) -> None:
        self._instead = instead

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        broken = scores.isnan().any(-1)
        if not bool(broken.any()):
            return scores
        if self._instead is None:
            raise Unavailable(BROKEN)
        scores = scores.clone()
        scores[broken] = float("-inf")
        scores[broken, self._instead] = 0
        return scores


def failure(error: Exception) -> Kept:
    """Why there is no answer."""
    return Kept("", "error", f"{type(error).__name__}: {error}")


def as_answer(text: str, conversation: Conversation) -> Kept:
    """A finished text as an answer, unless it says nothing, repeats the question or itself: as the app judges it."""
    question = conversation[-1].text.strip()
    if not any(sign.isprintable() and not sign.isspace() for sign in text):
        return Kept(text, "error", "Refused: empty answer")
    if len(question) >= 10 and text == question:
        return Kept(text, "error", "Refused: the model only repeated the question")
    if is_endless(text):
        return Kept(text, "error", "Truncated: the model repeats itself without end")
    return Kept(text, "stop")
