"""local weights through transformers: safetensors only, no remote code, a seed for each answer.

Each answer has its own generator and its own cache, runs in a worker thread, and looks for a cancellation before
every token. Two answers run at a time, others wait. How tokens are drawn: huatuo/engines/decoding.py.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from huatuo import prompts
from huatuo.config import Generation, ModelConfig
from huatuo.engines.base import Chunk, Finish
from huatuo.engines.decoding import decode, ids_only, search
from huatuo.errors import Busy, Damaged, EngineError, Truncated, Unavailable
from huatuo.messages import Conversation
from huatuo.models import inventory
from huatuo.models.loaded import load_branch, load_model
from huatuo.replies import reader_of

ANSWERS_AT_ONCE = 2
SMALL = 200_000_000
"""Parameters up to which one torch thread per answer is fastest: more threads only wait for each other."""


class LocalEngine:
    """A model in this process: a whole folder, with or without an adapter, or a branch on a parent's shared weights.

    Raises at construction CheckpointError (Untrusted, Damaged or Mismatch, naming file or tensor), ConfigError for
    an unknown template, and Unavailable when the memory is too small.
    """

    def __init__(self, config: ModelConfig, root: Path) -> None:
        self.name = config.name
        self._config = config
        reader_of(config.template)  # before gigabytes are read
        self.model, self.tokenizer = _load(config, root)
        self.model.generation_config = ids_only(self.model.generation_config)
        self._workers = ThreadPoolExecutor(_at_once(self.model), thread_name_prefix=config.name)
        self._closed = threading.Event()
        self._memory_failures = 0

    async def stream(
        self, conversation: Conversation, *, seed: int, settings: Generation | None = None
    ) -> AsyncIterator[Chunk | Finish]:
        """Chunks as the model says them, then Finish. The same seed gives the same text.

        settings: instead of the model's own. Raises Busy (out of memory), Unavailable (closed, or twice out of
        memory), Truncated (thoughts without an answer), Unreadable or TooLong from the prompt.
        """
        settings = settings or self._config.generation
        if self._closed.is_set():
            raise Unavailable(f"{self.name} was closed")
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Chunk | Finish | Exception] = asyncio.Queue()
        cancelled = threading.Event()

        def put(item: Chunk | Finish | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the listener
                loop.call_soon_threadsafe(queue.put_nowait, item)

        job = self._workers.submit(self._work, conversation, settings, seed, cancelled, put)
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
        settings: Generation,
        seed: int,
        cancelled: threading.Event,
        put: Callable[[Chunk | Finish | Exception], None],
    ) -> None:
        if self.model.num_parameters() <= SMALL and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        try:
            self._answer(conversation, settings, seed, cancelled, put)
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
        self,
        conversation: Conversation,
        settings: Generation,
        seed: int,
        cancelled: threading.Event,
        put: Callable[[Chunk | Finish | Exception], None],
    ) -> None:
        family = self._config.template
        context = min(settings.context_tokens, _positions(self.model))
        reserve = min(settings.max_new_tokens, context // 2)
        prompt = prompts.encode(self.tokenizer, conversation, family, max_tokens=context - reserve)
        limit = min(settings.max_new_tokens, context - len(prompt.ids))
        text, reader = _Text(self.tokenizer), reader_of(family)

        def check() -> None:
            if cancelled.is_set() or self._closed.is_set():
                raise Unavailable(f"{self.name} was stopped")

        def say(chunks: Iterable[Chunk]) -> None:
            for chunk in chunks:
                put(chunk)

        ended = False
        for token in self._tokens(prompt.ids, settings, limit, seed, check, put):
            check()
            ended = token is None
            if token is not None and (piece := text.add(token)):
                say(reader.add(piece))
            if ended or reader.ended:
                break
        say([*reader.add(text.rest()), *reader.rest()])
        if reader.problem:
            raise Truncated(f"{self.name}: {reader.problem}")
        ended = ended or reader.ended
        put(Finish("stop" if ended else "length", prompt.dropped_turns))

    def _tokens(
        self,
        prompt: list[int],
        settings: Generation,
        limit: int,
        seed: int,
        check: Callable[[], None],
        put: Callable[[Chunk | Finish | Exception], None],
    ) -> Iterator[int | None]:
        """Token ids, and None at an end that the model chose. Beams give a sign of life before each token."""
        if settings.num_beams == 1:
            yield from decode(self.model, prompt, settings, limit, seed, self._stops())
            return

        def tick() -> None:
            check()
            put(Chunk("", thinking=True))

        ids, ended = search(self.model, prompt, settings, limit, self._stops(), tick)
        yield from ids
        if ended:
            yield None

    def _stops(self) -> set[int]:
        ids = self.model.generation_config.eos_token_id
        stops = {ids} if isinstance(ids, int) else set(ids or ())
        return {*stops, self.tokenizer.eos_token_id} - {None}


def _load(config: ModelConfig, root: Path) -> tuple[Any, Any]:
    folder = root / config.path if config.path else root
    if lacking := inventory.lacks(config, root):
        raise Damaged(lacking)
    how: dict[str, Any] = {
        "sha256": config.sha256,
        "dtype": config.dtype,
        "device": config.device,
        "context_tokens": config.generation.context_tokens,
        "beams": config.generation.num_beams,
    }
    if config.parent is not None:
        return load_branch(folder, root / config.parent, template=config.template, **how)
    adapter = root / config.adapter if config.adapter else None
    return load_model(folder, adapter=adapter, load=config.load, **how)


def _at_once(model: Any) -> int:
    """Answers at a time: weights that are moved from device to device for each token bear one only."""
    places = set(getattr(model, "hf_device_map", {}).values())
    return 1 if places & {"cpu", "disk"} and len(places) > 1 else ANSWERS_AT_ONCE


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
