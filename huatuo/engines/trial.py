"""tries one model from file to first words: digest, estimate of memory, loading, and one test question."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from huatuo.config import ModelConfig
from huatuo.engines.base import Deadlines, Engine, Finish, with_deadlines
from huatuo.engines.pool import make_engine
from huatuo.errors import HuatuoError, Truncated
from huatuo.messages import Message
from huatuo.models import inventory, memory, registry

PATIENCE = Deadlines(first_token_s=300.0, between_tokens_s=120.0, whole_answer_s=1800.0)
SHOWN = 60
"""Characters of the answer that are kept."""
LONGEST_TOKENS = 128
"""Tokens of the test answer: enough to see what it says and how fast."""
GB = 10**9


@dataclass(frozen=True)
class Trial:
    """What came out. problem: why it does not work, '' if it does. Sizes in bytes, times in seconds."""

    name: str
    problem: str = ""
    sha256: str = ""
    need: int | None = None
    free: int | None = None
    load_s: float | None = None
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    tokens: int | None = None
    words: str = ""
    finish: str = ""

    @property
    def works(self) -> bool:
        """Whether it was loaded and answered."""
        return not self.problem


def try_model(
    config: ModelConfig, root: Path, question: str, tell: Callable[[str], None] | None = None
) -> Trial:
    """Loads the model and asks it one question; what fails is in `problem`. tell: hears each step's result at once."""
    told = tell or (lambda _: None)
    trial = Trial(config.name)
    try:
        if config.engine == "local":
            trial = _before(config, root, trial)
            told(f"{config.name}: sha256 {trial.sha256}")
            told(_room(trial))
        started = time.monotonic()
        engine = make_engine(_short(config), root)
        trial = replace(trial, load_s=time.monotonic() - started)
        told(f"loaded in {trial.load_s:.1f} s")
        trial = asyncio.run(_asked(engine, question, trial))
        told(
            f"first words after {trial.first_token_s:.2f} s, {trial.tokens_per_s:.1f} tokens/s, "
            f"ended by {trial.finish}:\n  {trial.words}"
        )
    except HuatuoError as error:
        return replace(trial, problem=str(error))
    return trial


async def ask(engine: Engine, question: str, trial: Trial) -> Trial:
    """The trial with the answer's first words and its pace. Raises EngineError.

    A short answer may end among a model's thoughts: it speaks, so it works; finish is then 'thinking'.
    """
    started = time.monotonic()
    first, text, finish = None, "", "thinking"
    answered = False
    stream = engine.stream((Message("user", question),), seed=0)
    try:
        async for item in with_deadlines(stream, PATIENCE):
            if isinstance(item, Finish):
                finish = item.reason
            elif item.text:
                first = first if first is not None else time.monotonic() - started
                text += item.text
                answered = answered or not item.thinking
    except Truncated:
        if answered or not text:
            raise
    seconds = max(time.monotonic() - started, 1e-6)
    tokens = _tokens(engine, text)
    words = text.strip().replace("\n", " ")[:SHOWN]
    return replace(
        trial,
        first_token_s=first or seconds,
        tokens=tokens,
        tokens_per_s=tokens / seconds,
        words=words,
        finish=finish,
    )


async def _asked(engine: Engine, question: str, trial: Trial) -> Trial:
    try:
        return await ask(engine, question, trial)
    finally:
        await engine.close()


def _before(config: ModelConfig, root: Path, trial: Trial) -> Trial:
    folder = root / (config.parent or config.path or "")
    files = registry.check_folder(folder)
    own = root / config.path / inventory.BRANCH_WEIGHTS if config.parent and config.path else None
    return replace(
        trial,
        sha256=registry.digest([own] if own else files),
        need=inventory.estimate(config, root).total,
        free=memory.free_bytes(config.device),
    )


def _room(trial: Trial) -> str:
    free = f"{trial.free / GB:.1f} GB free" if trial.free is not None else "free memory not known"
    return f"needs about {(trial.need or 0) / GB:.2f} GB in memory; {free}"


def _short(config: ModelConfig) -> ModelConfig:
    """The model with a short answer; what is loaded and how it draws stay the same."""
    most = min(config.generation.max_new_tokens, LONGEST_TOKENS)
    generation = config.generation.model_copy(update={"max_new_tokens": most})
    return config.model_copy(update={"generation": generation})


def _tokens(engine: Engine, text: str) -> int:
    """Tokens of the text by the model's own tokenizer; without one, its characters."""
    tokenizer = getattr(engine, "tokenizer", None)
    if tokenizer is None:
        return len(text)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
