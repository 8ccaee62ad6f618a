"""a model's answers to the questions of a benchmark: in batches or at once, kept as they come, each made only once.

    python -m training.generate MODEL --benchmark NAME --folder FOLDER [--split S] [--limit N] --out ANSWERS.jsonl

MODEL as in training/contestants.py. What is kept (training/answer_cache.py) is never asked again, also for another
benchmark with the same prompt, so a run that was killed goes on where it stood. An answer that failed or was cut at its
limit is kept as a failure, counted and never scored; --retry asks for those again.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from huatuo.config import Generation
from huatuo.engines.base import Deadlines, Engine, Finish, with_deadlines
from huatuo.engines.pool import make_engine
from huatuo.errors import EngineError, HuatuoError, InputError, NoData, Unavailable
from huatuo.messages import Conversation
from huatuo.toml import ROOT
from training.answer_cache import AnswerCache, Kept, Key, count_failures, digest
from training.contestants import Contestant, find
from training.data import BadData
from training.questions import BenchmarkConfig, Questions, asked, is_about, read
from training.rows import write_text

if TYPE_CHECKING:
    from training.batched import LocalModel

FOLDER = Path("data/evaluate/answers")
DEADLINES = Deadlines(first_token_s=120.0, between_tokens_s=60.0, whole_answer_s=600.0)
IN_A_ROW = 8
"""After so many failures on end, and no answer yet, a model is given up: its file or its server is wrong."""
_LETTERS = "letters"
T = TypeVar("T")


@dataclass(frozen=True)
class How:
    """How answers are made. generation: instead of each model's own; batch: local prompts at a time; at_once: requests
    to a server at a time; retry: ask again for what failed before; letters: also measure the letters' likelihood."""

    generation: Generation | None = None
    seed: int = 0
    batch: int = 16
    at_once: int = 8
    retry: bool = False
    letters: bool = False
    folder: Path = ROOT / FOLDER
    progress: bool = True


@dataclass(frozen=True)
class Answers:
    """Of one contestant to one benchmark: by item id; letters likewise, where they were measured. notes: to be said."""

    by: dict[str, Kept]
    letters: dict[str, Kept]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> dict[str, int]:
        """By kind."""
        return count_failures(self.by.values())


def answers(contestant: Contestant, benchmarks: Sequence[Questions], how: How) -> list[Answers]:
    """The contestant's answers to each benchmark; a local model is loaded once, and only if something is missing.

    Raises EngineError when a model gives nothing but failures, BadData for ready answers that do not fit the questions,
    ConfigError, CheckpointError, OSError (disk full).
    """
    if contestant.said is not None:
        return [_ready(contestant, questions) for questions in benchmarks]
    with contextlib.closing(AnswerCache(how.folder, contestant.sha256)) as cache:
        with contextlib.closing(_Maker(contestant, cache, how)) as maker:
            found = [maker.answer(questions) for questions in benchmarks]
        dropped = tuple(cache.dropped)
    return [replace(each, notes=dropped) for each in found[:1]] + found[1:]


def _ready(contestant: Contestant, questions: Questions) -> Answers:
    """Answers of a file, by the items' ids. Raises NoData when no id fits, BadData for an answer to another question."""
    assert contestant.said is not None
    by = {}
    for item in questions.items:
        said = contestant.said.get(item.id)
        if said and not is_about(said.question, item):
            raise BadData(
                f"{said.place}: id {item.id} answers another question than {questions.name} asks: {said.question[:40]!r}, "
                f"not {item.question[:40]!r}"
            )
        by[item.id] = Kept(said.answer, "stop") if said else Kept("", "error", "Missing: no answer in the file")  # fmt: skip
    if not any(kept.is_answer for kept in by.values()):
        raise NoData(
            f"{contestant.origin}: no id in common with the benchmark {questions.name}; are they about the same questions?"
        )
    return Answers(by, {})


class _Maker:
    """Makes what is missing. The engine is made when it is first needed."""

    def __init__(self, contestant: Contestant, cache: AnswerCache, how: How) -> None:
        assert contestant.config is not None
        self._contestant, self._config = contestant, contestant.config
        self._cache, self._how = cache, how
        self._generation = how.generation or contestant.config.generation
        self._settings = digest({"seed": how.seed, **contestant.settings(how.generation)})
        self._local: LocalModel | None = None
        self._streak = 0
        """Failures since the start, -1 once an answer came."""

    def close(self) -> None:
        """Frees the model."""
        if self._local is not None:
            self._local.close()

    def answer(self, questions: Questions) -> Answers:
        """All answers to a benchmark."""
        keys = {item.id: Key(digest(_plain(asked(item))), self._settings) for item in questions.items}  # fmt: skip
        prompts = {keys[item.id]: asked(item) for item in questions.items}
        missing = {key: prompt for key, prompt in prompts.items() if self._is_missing(key)}
        bar = tqdm(
            total=len(prompts), initial=len(prompts) - len(missing), unit="answer", file=sys.stderr,
            desc=f"{self._contestant.name}, {questions.name}", disable=not self._how.progress or None,
        )  # fmt: skip
        with bar:
            if missing and self._config.engine == "local":
                self._ask_local(missing, bar)
            elif missing:
                asyncio.run(self._ask_engine(missing, bar))
        letters = self._letters(questions) if self._how.letters and questions.is_choice else {}
        return Answers({id: self._got(key) for id, key in keys.items()}, letters)

    def _is_missing(self, key: Key) -> bool:
        kept = self._cache.get(key)
        return kept is None or (self._how.retry and not kept.is_answer)

    def _got(self, key: Key) -> Kept:
        kept = self._cache.get(key)
        assert kept is not None
        return kept

    def _ask_local(self, missing: dict[Key, Conversation], bar: "tqdm[None]") -> None:
        """Batches of like lengths in a fixed order: what a kill left over makes the very batches that were to come."""
        model = self._model()
        order = sorted(missing, key=lambda key: (_length(missing[key]), key.prompt))
        for batch in _chunks(order, self._how.batch):
            draw = _seed(self._how.seed, batch[0].prompt)
            said = model.answer([missing[key] for key in batch], self._generation, draw)
            self._keep(list(zip(batch, said, strict=True)), bar)

    def _model(self) -> "LocalModel":
        if self._local is None:
            from training.batched import LocalModel

            self._local = LocalModel(self._config)
        return self._local

    async def _ask_engine(self, missing: dict[Key, Conversation], bar: "tqdm[None]") -> None:
        """A few requests at a time; each answer is kept as it comes. Raises EngineError after IN_A_ROW failures."""
        engine = make_engine(self._config, ROOT)
        todo = iter(missing.items())

        async def work() -> None:
            for key, conversation in todo:
                draw = _seed(self._how.seed, key.prompt)
                said = await _ask(engine, conversation, draw, self._generation)
                self._keep([(key, said)], bar)

        workers = [asyncio.create_task(work()) for _ in range(self._how.at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await engine.close()

    def _keep(self, rows: Sequence[tuple[Key, Kept]], bar: "tqdm[None]") -> None:
        self._cache.add(rows)
        bar.update(len(rows))
        for _, kept in rows:
            if self._streak >= 0:
                broken = kept.finish == "error" and kept.kind not in ("Refused", "TooLong")
                broken = broken or "another model" in kept.error
                self._streak = self._streak + 1 if broken else -1
        if self._streak >= IN_A_ROW:
            name = self._contestant.name
            raise Unavailable(
                f"{name}: the first {self._streak} answers all failed, the last by {rows[-1][1].error}. "
                "Mend its file or its server, then start again with --retry"
            )

    def _letters(self, questions: Questions) -> dict[str, Kept]:
        """The letters' log-probabilities, of local models and of items with one right option."""
        if self._config.engine != "local":
            return {}
        items = [item for item in questions.items if len(item.answer) < 2]
        settings = digest({_LETTERS: True})
        keys = {item.id: Key(digest([_plain(asked(item)), sorted(item.options)]), settings) for item in items}  # fmt: skip
        missing = [item for item in items if self._is_missing(keys[item.id])]
        bar = tqdm(total=len(items), initial=len(items) - len(missing), unit="item", file=sys.stderr,
                   desc=f"{self._contestant.name}, letters", disable=not self._how.progress or None)  # fmt: skip
        with bar:
            for part in _chunks(missing, self._how.batch):
                said = self._model().letters([asked(i) for i in part], [i.options for i in part])
                self._cache.add([(keys[i.id], kept) for i, kept in zip(part, said, strict=True)])
                bar.update(len(part))
        return {id: self._got(key) for id, key in keys.items()}


async def _ask(
    engine: Engine, conversation: Conversation, seed: int, generation: Generation
) -> Kept:
    """One answer under the deadlines. A failure of the engine is a failure, never an answer."""
    text, reason = "", "error"
    stream = engine.stream(conversation, seed=seed, settings=generation)
    checked = with_deadlines(stream, DEADLINES, question=conversation[-1].text)
    try:
        async with contextlib.aclosing(checked) as items:
            async for item in items:
                if isinstance(item, Finish):
                    reason = item.reason
                elif not item.thinking:
                    text += item.text
    except (EngineError, InputError) as error:
        return Kept(text.strip(), "error", f"{type(error).__name__}: {error}")
    if reason != "stop":
        return Kept(text.strip(), "length", "length: cut at max_new_tokens")
    return Kept(text.strip(), "stop")


def _plain(conversation: Conversation) -> list[list[str]]:
    return [[message.role, message.text] for message in conversation]


def _length(conversation: Conversation) -> int:
    return sum(len(message.text) for message in conversation)


def _seed(seed: int, prompt: str) -> int:
    return int(digest([seed, prompt])[:8], 16) >> 1


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def write(questions: Questions, found: Answers, out: Path) -> tuple[int, int]:
    """Finished answers as training.metrics reads them, whole or not at all; returns (written, left out)."""
    rows = []
    for item in questions.items:
        if (kept := found.by[item.id]).is_answer:
            row = {"id": item.id, "question": item.question, "answer": kept.text}
            row |= {"references": list(item.references)} if item.references else {}
            row |= {"label": item.label} if item.label else {}
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(out, "".join(rows))
    return len(rows), len(found.by) - len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 and one line on stderr for an error, 130 when interrupted (what came is kept)."""
    parser = argparse.ArgumentParser(prog="python -m training.generate", description="Answers.")
    parser.add_argument("model", help="a name, file or folder; see training/contestants.py")
    parser.add_argument("--benchmark", required=True, help="a set, or any name with --file")
    for key in ("folder", "split", "file"):
        parser.add_argument(f"--{key}", default="", help=BenchmarkConfig.model_fields[key].description)  # fmt: skip
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--retry", action="store_true", help="ask again for what failed before")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        config = BenchmarkConfig(name=given.benchmark, folder=given.folder, split=given.split,
                                 file=given.file, limit=given.limit)  # fmt: skip
        questions = read(config, given.seed)
        how = How(None, given.seed, given.batch, given.at_once, given.retry)
        (found,) = answers(find(given.model), [questions], how)
        written, left_out = write(questions, found, given.out)
    except (HuatuoError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for note in found.notes:
        print(note, file=sys.stderr)
    print(f"{given.out}: {written} answers; {left_out} failed {found.failures or ''}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
