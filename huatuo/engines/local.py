"""local weights through transformers: safetensors only, no remote code, a seed for each answer.

The decode loop is our own, because `generate` draws from the global random state: with it two answers
at once would disturb each other. Each answer has its own generator and its own cache, runs in a worker
thread, and looks for a cancellation before every token. Two answers run at a time, others wait.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from huatuo import prompts
from huatuo.config import Generation, ModelConfig
from huatuo.engines.base import Chunk, Finish
from huatuo.errors import Busy, EngineError, Unavailable
from huatuo.messages import Conversation
from huatuo.models.loaded import load_branch, load_model

ANSWERS_AT_ONCE = 2
SMALL = 200_000_000
"""Parameters up to which one torch thread per answer is fastest: more threads only wait for each other."""


class LocalEngine:
    """A causal language model in this process: a whole folder, or a branch on a parent's shared weights.

    Raises CheckpointError at construction: Untrusted, Damaged or Mismatch, naming file or tensor.
    """

    def __init__(self, config: ModelConfig, root: Path) -> None:
        self.name = config.name
        self._config = config
        self.model, self.tokenizer = _load(config, root)
        self._workers = ThreadPoolExecutor(ANSWERS_AT_ONCE, thread_name_prefix=config.name)
        self._closed = threading.Event()
        self._memory_failures = 0

    async def stream(
        self, conversation: Conversation, *, seed: int
    ) -> AsyncIterator[Chunk | Finish]:
        """Chunks as the model says them, then Finish. The same seed gives the same text.

        Raises Busy (out of memory), Unavailable (closed, or twice out of memory), Unreadable or TooLong
        from the prompt.
        """
        if self._closed.is_set():
            raise Unavailable(f"{self.name} was closed")
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Chunk | Finish | Exception] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: Chunk | Finish | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the listener
                loop.call_soon_threadsafe(queue.put_nowait, item)

        job = self._workers.submit(self._work, conversation, seed, cancelled, put)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            cancelled.set()
            job.cancel()

    async def close(self) -> None:
        """Stops running answers within one token and frees the worker threads."""
        self._closed.set()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _work(
        self,
        conversation: Conversation,
        seed: int,
        cancelled: threading.Event,
        put: Callable[[Chunk | Finish | Exception], None],
    ) -> None:
        if self.model.num_parameters() <= SMALL and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        try:
            for item in self._answer(conversation, seed, cancelled):
                put(item)
            self._memory_failures = 0
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._memory_failures += 1
            lost = self._memory_failures >= 2
            put(
                Unavailable(f"{self.name} ran out of memory twice")
                if lost
                else Busy(f"{self.name} ran out of memory; try again in a minute")
            )
        except Exception as error:  # handed to the listener, who raises it
            put(
                error if not isinstance(error, RuntimeError) else _as_engine_error(self.name, error)
            )

    @torch.inference_mode()
    def _answer(
        self, conversation: Conversation, seed: int, cancelled: threading.Event
    ) -> Iterator[Chunk | Finish]:
        settings = self._config.generation
        context = min(settings.context_tokens, _positions(self.model))
        reserve = min(settings.max_new_tokens, context // 2)
        prompt = prompts.encode(
            self.tokenizer, conversation, self._config.template, max_tokens=context - reserve
        )
        limit = min(settings.max_new_tokens, context - len(prompt.ids))
        text = _Text(self.tokenizer)
        for token in decode(self.model, prompt.ids, settings, limit, seed, self._stops()):
            if cancelled.is_set() or self._closed.is_set():
                raise Unavailable(f"{self.name} was stopped")
            if token is None:
                yield Chunk(text.rest())
                yield Finish("stop", prompt.dropped_turns)
                return
            if piece := text.add(token):
                yield Chunk(piece)
        yield Chunk(text.rest())
        yield Finish("length", prompt.dropped_turns)

    def _stops(self) -> set[int]:
        ids = self.model.generation_config.eos_token_id
        stops = {ids} if isinstance(ids, int) else set(ids or ())
        return {*stops, self.tokenizer.eos_token_id} - {None}


def _load(config: ModelConfig, root: Path) -> tuple[Any, Any]:
    folder = root / config.path if config.path else root
    how = {"sha256": config.sha256, "dtype": config.dtype, "device": config.device}
    if config.parent is None:
        return load_model(folder, **how)
    return load_branch(folder, root / config.parent, template=config.template, **how)


def decode(
    model: Any, prompt: list[int], settings: Generation, limit: int, seed: int, stops: set[int]
) -> Iterator[int | None]:
    """Up to `limit` token ids; None instead of a token in `stops`, and then no more.

    Draws from a generator of its own. Penalty, temperature, top-k and top-p in the order of
    transformers' `generate`. Raises Unavailable if the model computes NaN.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed % 2**63)
    cache = DynamicCache(config=model.config)
    step = torch.tensor([prompt], device=device)  # (1, T)
    seen = step[0]  # (T,)
    for _ in range(limit):
        output = model(
            input_ids=step,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        token = pick(output.logits[0, -1].float(), seen, settings, generator)
        if token in stops:
            yield None
            return
        yield token
        step = torch.tensor([[token]], device=device)
        if settings.repetition_penalty != 1:
            seen = torch.cat([seen, step[0]])


def pick(logits: Tensor, seen: Tensor, settings: Generation, generator: torch.Generator) -> int:
    """One token id from logits (V,) float32; seen: (T,) ids that the repetition penalty weakens."""
    if settings.repetition_penalty != 1:
        scores = logits[seen]
        penalty = settings.repetition_penalty
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    if settings.temperature < 1e-4:
        return int(logits.argmax())
    order: Tensor | None = None
    probabilities = (logits / settings.temperature).softmax(-1)  # (V,)
    kept = min(settings.top_k or len(logits), len(logits))
    if kept < len(logits) or settings.top_p < 1:
        probabilities, order = _nucleus(probabilities, kept, settings.top_p)
    if not bool(torch.isfinite(probabilities).all()):
        raise Unavailable("the model computes NaN; its weights or its dtype are wrong")
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


class _Text:
    """Token ids to text, piece by piece: no half characters, no space at either end."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0  # ids before this one are in `_before`
        self._begun = False
        self._space = ""

    def add(self, token: int) -> str:
        """The text that became certain with this token, maybe ''."""
        self._ids.append(token)
        before, text = self._decoded()
        if text.endswith("\ufffd") or len(text) <= len(before):
            return ""
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return self._trimmed(text[len(before) :])

    def rest(self) -> str:
        """What was held back, without an unfinished character and without trailing space."""
        before, text = self._decoded()
        return self._trimmed(text[len(before) :]).rstrip()

    def _decoded(self) -> tuple[str, str]:
        decode_ids = self._tokenizer.decode
        kwargs = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return decode_ids(self._ids[: self._shown], **kwargs), decode_ids(self._ids, **kwargs)

    def _trimmed(self, text: str) -> str:
        text = self._space + text.replace("\ufffd", "")
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        body = text.rstrip()
        self._space = text[len(body) :]
        return body


def _positions(model: Any) -> int:
    """Longest sequence the model can take; ALiBi models have no limit of their own."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else 1 << 30


def _as_engine_error(name: str, error: RuntimeError) -> EngineError:
    if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
        return Busy(f"{name} ran out of memory; try again in a minute")
    return Unavailable(f"{name} failed while computing ({type(error).__name__}); see the log")
